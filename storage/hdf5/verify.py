"""Proving a virtual slide: every plane against the checksum noted when it was written, every zoom layer against its plane."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.stored_crcs import StoredCrcs
from rawmosaic.storage.pyramid import TileKey, reduce_plane
from rawmosaic.storage.slide import GREY_LEVELS

_TOGETHER = 8
"""Planes that a thread proves at a time."""


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


def verify_slide(
    path: str | os.PathLike, progress: Callable[[int, int], None] | None = None, stored: StoredCrcs | None = None
) -> list[Damage]:
    """All damages of a virtual slide: planes in field order, then tables. An empty list says that all is as written.

    What pads a tile beyond its field is not looked at: nobody reads it.

    `stored` is what its writer remembers. A plane that was read back already is not decoded again where all of its tiles, found
    through the finished file's own index, are still the same bytes: its full resolution those that were decoded then, its zoom
    layers those that were made of it. Every other plane, and one of which a byte is another, is decoded and compared; its zoom
    layers only where they are not the bytes that were made.

    `progress(done, total)` is called from the calling thread. Raises SlideError if the file cannot be opened at all.
    """
    damages: list[Damage] = []
    with Hdf5Slide(path) as slide, ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="verify") as pool:
        planes = list(_acquired_planes(slide))
        tables = pool.submit(_table_damages, slide, {plane[:2] for plane in planes})
        examine = _Examiner(slide, None if stored is None else _BytesAsStored(slide, stored))
        done = 0
        # several at a time: looking at the bytes alone takes no longer than telling a thread to
        blocks = [planes[first : first + _TOGETHER] for first in range(0, len(planes), _TOGETHER)]
        for found in pool.map(lambda block: [examine(*plane) for plane in block], blocks):
            damages += [damage for damage in found if damage is not None]
            for _ in found:
                done += 1
                if progress is not None:
                    progress(done, len(planes))
        found, totals_damages = tables.result()
        damages += found or ([] if damages else totals_damages)
    return damages


def _table_damages(slide: Hdf5Slide, imaged: set[tuple[int, int]]) -> tuple[list[Damage], list[Damage]]:
    """(histograms that cannot be read, sums that are not those of the others): the latter follow from any damage before them.

    Reads every histogram: HDF5 compares the checksum of what it reads. All other tables were read when the slide opened.
    """
    damages, sums = [], []
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
        if not same:
            reason = f"the histogram of channel {channel} is not the sum of its planes'"
            sums.append(Damage(None, None, None, None, reason))
    return damages, sums


def _acquired_planes(slide: Hdf5Slide):
    tables = {(z, t): slide.acquired(z, t) for z in range(slide.size_z) for t in range(slide.size_t)}
    for field in range(slide.n_fields):
        for (z, t), table in tables.items():
            for channel in np.flatnonzero(table[field]):
                yield field, int(channel), z, t


class _Examiner:
    """Finds what is wrong with a plane; any thread."""

    def __init__(self, slide: Hdf5Slide, as_stored: _BytesAsStored | None):
        self._slide, self._as_stored = slide, as_stored
        self._has_metadata = slide.has_plane_metadata

    def __call__(self, field: int, channel: int, z: int, t: int) -> Damage | None:
        plane = field, channel, z, t
        read_back, zoomed = (False, False) if self._as_stored is None else self._as_stored(*plane)
        try:
            if not (read_back and zoomed):
                pixels = self._slide.read_plane(*plane)
                if crc32(pixels) != self._slide.checksum(*plane):
                    return Damage(*plane, "its pixels are not those that were written (checksum differs)")
            if self._has_metadata:
                self._slide.plane_metadata(*plane)  # says itself whose they are
            if not zoomed:
                layers = reduce_plane(pixels, self._slide.levels)
                for level in range(1, len(layers)):
                    if not np.array_equal(self._slide.read_plane(*plane, level), layers[level]):
                        return Damage(*plane, f"zoom layer {level} is not the mean of its plane")
        except SlideError as error:
            return Damage(*plane, str(error))
        except OSError as error:
            return Damage(*plane, f"cannot be read: {error}")
        return None


class _BytesAsStored:
    """Whether tiles of a plane are the bytes that its writer remembers; any thread."""

    def __init__(self, slide: Hdf5Slide, stored: StoredCrcs):
        self._slide, self._stored = slide, stored
        cuts = slide.tiling.levels
        self._own = [level for level, cut in enumerate(cuts) if not cut.packed]
        self._packed = [level for level, cut in enumerate(cuts) if cut.packed]
        self._memory = threading.local()
        self._shared: dict[TileKey, bool] = {}

    def __call__(self, field: int, channel: int, z: int, t: int) -> tuple[bool, bool]:
        """(whether its full resolution is that which was read back, whether its zoom layers are those that were made)."""
        plane = field, channel, z, t
        read_back, zoomed = self._stored.read_back.get(*plane), self._stored.zoomed.get(*plane)
        if zoomed is None or self._own[:1] != [0]:
            return False, False
        if not hasattr(self._memory, "own"):
            self._memory.own = self._slide.plane_memory()
        try:
            found = self._slide.stored_bytes(*plane, self._own, self._memory.own)
            if found is None:
                return False, False
            crc = 0
            for data in found[1:]:
                crc = crc32(data, crc)
            return (
                read_back is not None and crc32(found[0]) == read_back,
                crc == zoomed and self._shared_are_right(*plane),
            )
        except (SlideError, OSError):  # is met again when the plane is decoded, and told
            return False, False

    def _shared_are_right(self, field: int, channel: int, z: int, t: int) -> bool:
        """The same of the tiles that it shares with other fields; each is looked at once."""
        slot, cuts = int(self._slide.fields["slot"][field]), self._slide.tiling.levels
        return all(self._is_right(TileKey(level, slot // cuts[level].fields_per_tile, channel, z, t)) for level in self._packed)

    def _is_right(self, key: TileKey) -> bool:
        right = self._shared.get(key)
        if right is None:  # two threads may look at the same: they see the same
            right = self._slide.stored_crc([key]) == self._stored.shared[key.level].get(*key[1:])
            self._shared[key] = right
        return right
