"""Proving a virtual slide: every plane against the checksum noted when it was written, every zoom layer against its plane."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.stored_crcs import CrcTable, StoredCrcs
from rawmosaic.storage.pyramid import TileKey, reduce_plane
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


def verify_slide(
    path: str | os.PathLike, progress: Callable[[int, int], None] | None = None, stored: StoredCrcs | None = None
) -> list[Damage]:
    """All damages of a virtual slide: planes in field order, then tables. An empty list says that all is as written.

    What pads a tile beyond its field is not looked at: nobody reads it.

    `stored` is what its writer remembers. A plane that was read back already is not decoded again where all of its tiles, found
    through the finished file's own index, are still the same bytes: its full resolution those that were decoded then, its zoom
    layers those that were made of it. Every other plane, and one of which a byte is another, is decoded and compared.

    `progress(done, total)` is called from the calling thread. Raises SlideError if the file cannot be opened at all.
    """
    damages: list[Damage] = []
    with Hdf5Slide(path) as slide, ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="verify") as pool:
        planes = list(_acquired_planes(slide))
        bytes_as_stored = None if stored is None else _BytesAsStored(slide, stored)
        damage_of = _Examiner(slide, bytes_as_stored)
        for done, damage in enumerate(pool.map(lambda plane: damage_of(*plane), planes), start=1):
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


class _Examiner:
    """Finds what is wrong with a plane; any thread."""

    def __init__(self, slide: Hdf5Slide, as_stored: _BytesAsStored | None):
        self._slide, self._as_stored = slide, as_stored
        self._has_metadata = slide.has_plane_metadata

    def __call__(self, field: int, channel: int, z: int, t: int) -> Damage | None:
        if self._as_stored is None or not self._as_stored(field, channel, z, t):
            return _damage(self._slide, field, channel, z, t)
        try:
            if self._has_metadata:
                self._slide.plane_metadata(field, channel, z, t)  # says itself whose they are
        except SlideError as error:
            return Damage(field, channel, z, t, str(error))
        return None


class _BytesAsStored:
    """Whether all tiles of a plane are the bytes that its writer remembers; any thread."""

    def __init__(self, slide: Hdf5Slide, stored: StoredCrcs):
        self._slide, self._stored = slide, stored
        self._levels = [level for level in range(1, len(slide.levels)) if not slide.tiling.levels[level].packed]
        self._packed = [level for level in range(len(slide.levels)) if slide.tiling.levels[level].packed]
        planes = (len(slide.channels), slide.size_z, slide.size_t)
        self._found = {level: CrcTable(planes) for level in self._packed}
        self._lock = threading.Lock()

    def __call__(self, field: int, channel: int, z: int, t: int) -> bool:
        plane = field, channel, z, t
        read_back, zoomed = self._stored.read_back.get(*plane), self._stored.zoomed.get(*plane)
        if read_back is None or zoomed is None:
            return False
        try:
            own = [self._slide.tiles_of_plane(*plane, level) for level in self._levels]
            return (
                self._slide.stored_crc(self._slide.tiles_of_plane(*plane, 0)) == read_back
                and self._slide.stored_crc([key for keys in own for key in keys]) == zoomed
                and all(self._shared_is_right(key) for level in self._packed for key in self._slide.tiles_of_plane(*plane, level))
            )
        except (SlideError, OSError):  # is met again when the plane is decoded, and told
            return False

    def _shared_is_right(self, key: TileKey) -> bool:
        """The same of a tile that fields share; looked at once for most of them."""
        with self._lock:
            found = self._found[key.level].get(*key[1:])
        if found is None:
            found = self._slide.stored_crc([key])
            with self._lock:
                self._found[key.level].note(*key[1:], found)
        return found == self._stored.shared[key.level].get(*key[1:])


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
