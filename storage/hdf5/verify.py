"""Proving a virtual slide: every plane against the checksum noted when it was written, every zoom layer against its plane."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.pyramid import reduce_plane
from rawmosaic.storage.slide import GREY_LEVELS


@dataclass(frozen=True)
class Damage:
    """What is wrong with one plane; or, where `field` is None, with a table that belongs to no single plane."""

    field: int | None
    channel: int | None
    z: int | None
    t: int | None
    reason: str

    def __str__(self) -> str:
        if self.field is None:
            return self.reason
        return f"field {self.field}, channel {self.channel}, z {self.z}, t {self.t}: {self.reason}"


def verify_slide(path: str | os.PathLike, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """All damages of a virtual slide: planes in field order, then tables. An empty list says that all is as written.

    What pads a tile beyond its field is not looked at: nobody reads it.

    `progress(done, total)` is called from the calling thread. Raises SlideError if the file cannot be opened at all.
    """
    damages: list[Damage] = []
    with Hdf5Slide(path) as slide, ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="verify") as pool:
        planes = list(_acquired_planes(slide))
        for done, damage in enumerate(pool.map(lambda plane: _damage(slide, *plane), planes), start=1):
            if damage is not None:
                damages.append(damage)
            if progress is not None:
                progress(done, len(planes))
        damages += _table_damages(slide, {plane[:2] for plane in planes})
    return damages


def _table_damages(slide: Hdf5Slide, imaged: set[tuple[int, int]]) -> list[Damage]:
    """Reads every histogram: HDF5 compares the checksum of what it reads. All other tables were read when the slide opened."""
    damages = []
    totals = [np.zeros(GREY_LEVELS, np.uint64) for _ in slide.channels]
    for field, channel in sorted(imaged):
        try:
            totals[channel] += slide.field_histogram(field, channel)
        except SlideError as error:
            damages.append(Damage(field, channel, 0, 0, f"its histogram cannot be read: {error}"))
    for channel, total in enumerate(totals):
        try:
            same = np.array_equal(slide.histogram(channel), total)
        except SlideError as error:
            damages.append(Damage(None, None, None, None, f"the histogram of channel {channel} cannot be read: {error}"))
            continue
        if not same and not damages:
            reason = f"the histogram of channel {channel} is not the sum of its planes'"
            damages.append(Damage(None, None, None, None, reason))
    return damages


def _acquired_planes(slide: Hdf5Slide):
    tables = {(z, t): slide.acquired(z, t) for z in range(slide.size_z) for t in range(slide.size_t)}
    for field in range(slide.n_fields):
        for (z, t), table in tables.items():
            for channel in np.flatnonzero(table[field]):
                yield field, int(channel), z, t


def _damage(slide: Hdf5Slide, field: int, channel: int, z: int, t: int) -> Damage | None:
    try:
        plane = slide.read_plane(field, channel, z, t)
        if zlib.crc32(plane) != slide.checksum(field, channel, z, t):
            return Damage(field, channel, z, t, "its pixels are not those that were written (checksum differs)")
        slide.plane_metadata(field, channel, z, t)  # says itself whose they are
        layers = reduce_plane(plane, slide.levels)
        for level in range(1, len(layers)):
            if not np.array_equal(slide.read_plane(field, channel, z, t, level), layers[level]):
                return Damage(field, channel, z, t, f"zoom layer {level} is not the mean of its plane")
    except SlideError as error:
        return Damage(field, channel, z, t, str(error))
    except OSError as error:
        return Damage(field, channel, z, t, f"cannot be read: {error}")
    return None
