"""Viewing in place: a raw acquisition whose zoom layers and histograms are made in the background and kept for the next time.

Level 0 always comes from the acquisition's own files. Everything coarser comes from a virtual slide file without level 0 in
the cache folder once that is complete; until then from planes reduced on demand, which gives the same pixels.

The cache folder is the system's for rawmosaic, or what the environment variable RAWMOSAIC_CACHE names. Its files are named by
a hash of all that the pixels depend on, so a stale one is never found again; the oldest go when the folder grows too large.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs

from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, SlideError, WriteError
from rawmosaic.storage.importers.byte_cache import ByteCache
from rawmosaic.storage.importers.read_ahead import PlaneAddress, planes_in_order, read_ahead
from rawmosaic.storage.pyramid import TileKey, reduce_plane
from rawmosaic.storage.slide import GREY_LEVELS, Slide

if TYPE_CHECKING:
    from rawmosaic.storage.hdf5.reader import Hdf5Slide

CACHE_VERSION = 1
"""Changes when zoom layers are made differently, so that older ones are not used."""

CACHE_ENVIRONMENT = "RAWMOSAIC_CACHE"
CACHE_BUDGET_NBYTES = 20 << 30
ABANDONED_S = 24 * 3600
"""A file that was begun this long ago belongs to a process that was killed."""

FINE_NBYTES = 128 << 20
COARSE_NBYTES = 96 << 20
FIRST_COARSE_FACTOR = 8
"""Layers reduced by this much or more are remembered apart: an overview's crumbs must not be pushed out by a close view."""

SAMPLED_PLANES = 8
"""Planes a channel that an early histogram counts at least."""

QUIET_S, PATIENCE_S = 0.05, 0.1
"""The background waits until nobody has read a tile for QUIET_S, at most PATIENCE_S a plane: the picture goes first."""

SUFFIX = ".zoom.h5"


def cache_folder() -> Path:
    """Where zoom layers of acquisitions viewed in place are kept."""
    return Path(os.environ.get(CACHE_ENVIRONMENT) or platformdirs.user_cache_dir("rawmosaic")) / "zoom"


class ZoomCachedSlide(Slide):
    """A raw acquisition (any slide with `fingerprint()`) for viewing: the same facts and pixels, zoom layers kept.

    The background thread starts at once unless the cache holds the layers already; `close` stops it, joins it and closes the
    acquisition. Any thread may read.

    Attributes
    ----------
    source
        The acquisition.
    build_error
        Why there will be no cache (folder not writable, disk full), or None. Viewing goes on without it.
    unreadable
        Planes (field, channel, z, t) that could not be read so far, and why: zoom layers are black there.
    """

    def __init__(self, source: Slide):
        super().__init__(
            location=source.location,
            header=source.header,
            channels=source.channels,
            fields=source.fields,
            position_sets={name: source.position_set(name) for name in source.position_sets},
            size_z=source.size_z,
            size_t=source.size_t,
            scenes=source.scenes,
            tiling=source.tiling,
            orientation=source.orientation,
            offsets_um=source.offsets_um,
        )
        self.source = source
        self.build_error: SlideError | None = None
        self.unreadable: dict[PlaneAddress, SlideError] = {}
        self._path = _cache_path(source)
        self._load: Callable[[int, int, int, int], np.ndarray] = getattr(source, "load", source.read_plane)
        self._first_coarse = next((n for n, factor in enumerate(self.levels) if factor >= FIRST_COARSE_FACTOR), len(self.levels))
        self._fine, self._coarse = ByteCache(FINE_NBYTES), ByteCache(COARSE_NBYTES)
        self._counts = _Counts(len(self.channels))
        self._order = planes_in_order(source)
        self._done = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ended = False
        self._keep = True
        self._last_read = 0.0
        self._cached: Hdf5Slide | None = _open_cached(self._path, source)
        self._builder: threading.Thread | None = None
        if self._cached is not None:
            self._done, self._ended = len(self._order), True
        else:
            self._builder = threading.Thread(target=self._build, name="zoom-cache", daemon=True)
            atexit.register(self.close)  # who forgets to close must not be left with a half-written file
            self._builder.start()

    # the background

    @property
    def complete(self) -> bool:
        """Whether every zoom layer and the exact histograms are there."""
        return self._cached is not None

    @property
    def progress(self) -> tuple[int, int]:
        """(planes done, planes in all) of the background thread."""
        return self._done, len(self._order)

    def wait(self, progress: Callable[[int, int], None] | None = None, timeout_s: float | None = None) -> bool:
        """Block until the layers are complete, or never will be; returns `complete`. `progress` is called as planes are done."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        told = -1
        while True:
            with self._changed:
                if told == self._done and not self._ended:
                    self._changed.wait(0.5 if deadline is None else max(0.0, min(0.5, deadline - time.monotonic())))
                told, ended = self._done, self._ended
            if progress is not None:
                progress(told, len(self._order))
            if ended or (deadline is not None and time.monotonic() >= deadline):
                return self.complete

    def _build(self) -> None:
        try:
            path = self._written()
            if path is not None:
                self._cached = self._adopted(path)
        except SlideError as error:
            self.build_error = error
        except (OSError, RuntimeError) as error:  # RuntimeError: the interpreter ends and takes no more work
            self.build_error = WriteError(f"zoom layers are not kept: {error}", location=self._path)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _written(self) -> Path | None:
        """Make all layers in a file of this process's own; None if closed meanwhile."""
        from rawmosaic.storage.hdf5.writer import SlideWriter

        self._path.parent.mkdir(parents=True, exist_ok=True)
        tidy(self._path.parent)
        own = self._path.with_name(f"{self._path.name.removesuffix(SUFFIX)}.{uuid.uuid4().hex[:8]}{SUFFIX}")
        writer = SlideWriter(
            own,
            field_shape=self.field_shape,
            channels=self.channels,
            header=replace(self.header, extra={}),
            size_z=self.size_z,
            size_t=self.size_t,
            fields=self.fields,
            store_full_resolution=len(self.levels) == 1,  # fields of a few pixels have no coarser layer, and a file needs one
        )
        with contextlib.ExitStack() as stack:
            stack.callback(writer.abort)
            planes = stack.enter_context(closing(read_ahead(self._load, self._order)))
            for address, plane in planes:
                self._give_way()
                if self._stop.is_set():
                    return None
                if isinstance(plane, SlideError):
                    self._keep = False  # next time the file may be whole again
                    self.unreadable[address] = plane
                else:
                    writer.write_plane(plane, address[1], field=address[0], z=address[2], t=address[3])
                    self._counts.add(address, plane)
                with self._changed:
                    self._done += 1
                    self._changed.notify_all()
            planes.close()
            writer.close()
            stack.pop_all()
        return own

    def _give_way(self) -> None:
        patience = time.monotonic() + PATIENCE_S
        while time.monotonic() < min(self._last_read + QUIET_S, patience) and not self._stop.wait(QUIET_S / 5):
            pass

    def _adopted(self, own: Path) -> Hdf5Slide | None:
        """The layers just made, under the name that the next opening looks for; private to this one if a plane was unreadable."""
        if self._keep:
            try:
                os.replace(own, self._path)
                own = self._path
            except OSError:  # another process reads its own copy of that name (Windows): keep ours for this time
                self._keep = False
        cached = _open_cached(own, self.source)
        if cached is None:
            raise WriteError("the zoom layers just written cannot be read back", location=own)
        if self._keep:
            shrink(self._path.parent, CACHE_BUDGET_NBYTES, spare=own)
        return cached

    # reading

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist."""
        return self.source.acquired(z, t)

    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of a channel: exact once `complete`; before, of the planes seen so far and a spread-out few."""
        self.check_plane(0, channel, 0, 0)
        cached = self._cached
        if cached is not None:
            try:
                return np.asarray(cached.histogram(channel), np.uint64)
            except SlideError:
                self._keep = False
        mine = [address for address in self._order if address[1] == channel]
        spread = np.linspace(0, len(mine) - 1, min(SAMPLED_PLANES, len(mine))).astype(int)
        if self._counts.seen(channel) < len(spread):
            for index in spread:
                if not self._counts.has(mine[index]):
                    with contextlib.suppress(SlideError):
                        self._counts.add(mine[index], self._load(*mine[index]))
        return self._counts.of(channel)

    def close(self) -> None:
        """Stop the background thread, wait for it, and close the acquisition; closing twice is harmless."""
        self._stop.set()
        builder, self._builder = self._builder, None
        if builder is not None:
            builder.join()
            atexit.unregister(self.close)
        cached, self._cached = self._cached, None
        if cached is not None:
            cached.close()
            if not self._keep:
                with contextlib.suppress(OSError):
                    Path(cached.location).unlink()
        self._fine.clear()
        self._coarse.clear()
        self.source.close()

    def _is_acquired(self, field: int, channel: int, z: int, t: int) -> bool:
        return self.source._is_acquired(field, channel, z, t)

    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        return self.source.read_plane(field, channel, z, t)

    def _read_level(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        cached = self._cached
        if cached is not None:
            try:
                if cached._is_acquired(field, channel, z, t):
                    return cached.read_plane(field, channel, z, t, level)
            except DamagedSlideError:
                self._keep = False  # the cache, not the acquisition, is damaged: make it anew next time
        return self._reduced((field, channel, z, t), level)

    def _read_tile(self, key: TileKey, out: np.ndarray) -> None:
        self._last_read = time.monotonic()
        cached = self._cached
        if cached is not None and key.level > 0:
            try:
                cached.read_tile(key, out)
                return
            except DamagedSlideError:
                self._keep = False
        out[:] = 0
        packed = self.tiling.levels[key.level].packed
        for field, window, (row, column) in self.tiling.pieces(key, self.field_of_slot):
            if not self._is_acquired(field, key.channel, key.z, key.t):
                continue
            try:
                piece = self.read_plane(field, key.channel, key.z, key.t, key.level)[window]
            except (DamagedSlideError, AcquisitionError) as error:
                if not packed:
                    raise
                self.unreadable[field, key.channel, key.z, key.t] = error
                continue  # one damaged field must not hide the others in its tile
            out[row : row + piece.shape[0], column : column + piece.shape[1]] = piece

    def _reduced(self, address: PlaneAddress, level: int) -> np.ndarray:
        """A zoom layer of one plane; all its layers are made at once and remembered, fine and coarse ones apart."""
        made: list[np.ndarray] = []

        def layers() -> list[np.ndarray]:
            if not made:
                made.extend(reduce_plane(self.source.read_plane(*address), self.levels))
                for layer in made[1:]:
                    layer.flags.writeable = False  # several readers share it
            return made

        if level >= self._first_coarse:
            return self._coarse.get(address, lambda: tuple(layers()[self._first_coarse :]))[level - self._first_coarse]

        def fine() -> tuple[np.ndarray, ...]:
            self._coarse.put(address, tuple(layers()[self._first_coarse :]))
            return tuple(layers()[1 : self._first_coarse])

        return self._fine.get(address, fine)[level - 1]


class _Counts:
    """Histograms of the planes seen so far, each plane once. Any thread."""

    def __init__(self, n_channels: int):
        self._counts = np.zeros((n_channels, GREY_LEVELS), np.uint64)
        self._seen: list[set[PlaneAddress]] = [set() for _ in range(n_channels)]
        self._lock = threading.Lock()

    def add(self, address: PlaneAddress, plane: np.ndarray) -> None:
        counts = np.bincount(plane.ravel(), minlength=GREY_LEVELS).astype(np.uint64)
        with self._lock:
            if address not in self._seen[address[1]]:
                self._seen[address[1]].add(address)
                self._counts[address[1]] += counts

    def has(self, address: PlaneAddress) -> bool:
        return address in self._seen[address[1]]

    def seen(self, channel: int) -> int:
        return len(self._seen[channel])

    def of(self, channel: int) -> np.ndarray:
        with self._lock:
            return self._counts[channel].copy()


def tidy(folder: Path) -> None:
    """Remove what processes that were killed left behind."""
    for path in folder.glob(f"*{SUFFIX}.part"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()


def shrink(folder: Path, budget_nbytes: int, spare: Path | None = None) -> None:
    """Remove the files used longest ago until the rest fits the budget."""
    known = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            known.append((path == spare, status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, _, size, _ in known)
    for spared, _, size, path in sorted(known):
        if total <= budget_nbytes or spared:
            return
        with contextlib.suppress(OSError):  # in use elsewhere
            path.unlink()
            total -= size


def _cache_path(source: Slide) -> Path:
    from rawmosaic.storage.hdf5.format import FORMAT_VERSION

    facts = (CACHE_VERSION, FORMAT_VERSION, source.levels, source.tiling.tile_shape, source.fingerprint())
    return cache_folder() / (hashlib.sha256(repr(facts).encode()).hexdigest()[:40] + SUFFIX)


def _open_cached(path: Path, source: Slide) -> Hdf5Slide | None:
    """The kept layers, or None where there are none; a damaged or unfinished file is removed."""
    if not path.exists():
        return None
    from rawmosaic.storage.hdf5.reader import Hdf5Slide

    cached = None
    try:
        cached = Hdf5Slide(path)
        sizes = (cached.tiling, cached.n_fields, len(cached.channels), cached.size_z, cached.size_t)
        wanted = (source.tiling, source.n_fields, len(source.channels), source.size_z, source.size_t)
        if cached.finished and sizes == wanted and np.array_equal(cached.fields["slot"], source.fields["slot"]):
            cached.acquired()
            with contextlib.suppress(OSError):
                os.utime(path)  # used now: the last to go
            return cached
    except (SlideError, OSError):
        pass
    if cached is not None:
        cached.close()
    with contextlib.suppress(OSError):
        path.unlink()
    return None
