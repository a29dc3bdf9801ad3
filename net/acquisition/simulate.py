"""A slide as a scan: its planes in the order in which a microscope would take them, at a chosen rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rawmosaic.storage.slide import Slide

if TYPE_CHECKING:
    from rawmosaic.net.acquisition.scanner import Scanner

PlaneKey = tuple[int, int, int, int]
"""field, channel, z, t."""

OF_THE_SCAN = ("ended_early", "acquisition", "uid")
"""Metadata that belong to one scan, and not to another of the same specimen."""

PAUSE_S = 0.05
"""A pause is slept in pieces, so that an interrupt ends it."""


def planes_in_order(slide: Slide) -> Iterator[PlaneKey]:
    """The acquired planes of a slide: time by time and field by field, at each field all steps of z and all channels."""
    for t in range(slide.size_t):
        acquired = np.stack([slide.acquired(z, t) for z in range(slide.size_z)], axis=1)
        for field, z, channel in np.argwhere(acquired).tolist():
            yield field, channel, z, t


def place_of(slide: Slide, field: int, channel: int) -> tuple[float, float, float]:
    """(x, y, z) µm where the stage stood for a plane: the field's position, and the plane's own offset where it was measured."""
    stage = slide.position_set("stage")
    x_um, y_um = stage.positions_um[field].tolist()
    if stage.plane_offsets_um is not None and np.isfinite(stage.plane_offsets_um[field, channel]).all():
        dx_um, dy_um = stage.plane_offsets_um[field, channel].tolist()
        x_um, y_um = x_um + dx_um, y_um + dy_um
    return x_um, y_um, float(slide.fields["z_um"][field])


def simulate(
    slide: Slide,
    scanner: Scanner,
    *,
    name: str,
    planes_per_s: float | None = None,
    uid: str | None = None,
    wait: bool = True,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> str:
    """Acquire a slide once more; returns where the new one lies on the server.

    Its field table is the plan, its stage positions are where the planes come from. `planes_per_s`: no faster than that; None: as
    fast as the server takes them. `wait`: until the new slide is complete. `progress(done, total)` is called as planes go out.
    Raises what the scanner raises.
    """
    keys = list(planes_in_order(slide))
    scanner.start(
        name,
        field_shape=slide.field_shape,
        channels=slide.channels,
        pixel_size_um=slide.header.pixel_size_um,
        header=replace(slide.header, name=name, extra=_extra_of(slide)),
        fields=slide.fields,
        size_z=slide.size_z,
        size_t=slide.size_t,
        scenes=slide.scenes,
        orientation=None if np.array_equal(slide.orientation, np.eye(2)) else slide.orientation,
        uid=uid,
    )
    started = time.monotonic()
    progress(0, len(keys))
    for number, (field, channel, z, t) in enumerate(keys):
        image = slide.read_plane(field, channel, z, t)
        if planes_per_s is not None:
            _sleep_until(started + number / planes_per_s)
        x_um, y_um, z_um = place_of(slide, field, channel)
        scanner.send(image, channel, field=field, x_um=x_um, y_um=y_um, z_um=z_um, z=z, t=t)
        progress(number + 1, len(keys))
    return scanner.finish(wait)


def _extra_of(slide: Slide) -> dict:
    """The source's own metadata, without what was told of the scan that it came from."""
    return {key: value for key, value in slide.header.extra.items() if key not in OF_THE_SCAN}


def _sleep_until(moment: float) -> None:
    while (rest_s := moment - time.monotonic()) > 0:
        time.sleep(min(rest_s, PAUSE_S))
