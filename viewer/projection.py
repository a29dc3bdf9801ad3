"""Maximum projection through z while viewing: tiles that no file holds, made of those of all z planes by whoever reads tiles.

A tile key whose z is the slide's `size_z`, one beyond the last plane, stands for the projection. Tile cache, plan, uploads and
stand-ins take it for one plane more. On a zoom layer it is the maximum of that layer's pixels, each the mean of several acquired
ones: what is small and bright weighs less the further one is away, as in the planes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide

PLANES_AT_ONCE = 8
"""Planes of a tile that are read in one call: together they may come in one answer of a server, and their memory stays small."""


def acquired(slide: Slide, t: int) -> np.ndarray:
    """(n_fields, n_channels) bool: where any z plane exists."""
    there = slide.acquired(0, t).copy()
    for z in range(1, slide.size_z):
        there |= slide.acquired(z, t)
    return there


def read_tiles(
    slide: Slide,
    keys: Sequence[TileKey],
    outs: Sequence[np.ndarray],
    wanted: Callable[[int], bool] = lambda _: True,
    urgent: bool = True,
) -> list[Exception | None]:
    """`Slide.read_tiles` for keys of which some may be projections. Any thread."""
    if all(key.z < slide.size_z for key in keys):
        return slide.read_tiles(keys, outs, wanted, urgent)
    outcomes: list[Exception | None] = [None] * len(keys)
    plain = [number for number, key in enumerate(keys) if key.z < slide.size_z]
    if plain:
        read = slide.read_tiles([keys[n] for n in plain], [outs[n] for n in plain], lambda n: wanted(plain[n]), urgent)
        for number, outcome in zip(plain, read, strict=True):
            outcomes[number] = outcome
    for number, key in enumerate(keys):
        if key.z >= slide.size_z:
            outcomes[number] = _read_projection(slide, key, outs[number], lambda number=number: wanted(number), urgent)
    return outcomes


def _read_projection(slide: Slide, key: TileKey, out: np.ndarray, wanted: Callable[[], bool], urgent: bool) -> Exception | None:
    """The maximum of all z planes of a tile; the first error where one cannot be read: a part of it would look like all."""
    count = min(PLANES_AT_ONCE, slide.size_z)
    planes = np.empty((count, *slide.tiling.tile_shape), np.uint16)
    for first in range(0, slide.size_z, count):
        keys = [key._replace(z=z) for z in range(first, min(first + count, slide.size_z))]
        outcomes = slide.read_tiles(keys, list(planes[: len(keys)]), lambda _: wanted(), urgent)
        if error := next((outcome for outcome in outcomes if outcome is not None), None):
            return error
        highest = planes[: len(keys)].max(axis=0)
        if first:
            np.maximum(out, highest, out=out)
        else:
            out[:] = highest
    return None
