"""Worker threads that decode wanted tiles into the tile cache.

The GL thread says what it wants, most urgent first, with every frame; that list replaces the last one, so whatever left
the view is no longer asked for. Workers take from its front. They never touch GL; the GL thread never touches a file.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.errors import DamagedSlideError, SlideError
from rawmosaic.storage.tile_cache import TileCache

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 8.0


@dataclass(frozen=True)
class Failure:
    """A tile that could not be read: why, how often it was tried, and when it may be tried again (monotonic seconds)."""

    error: Exception
    attempts: int
    retry_at: float


class TileLoader:
    """Threads between a slide and a tile cache.

    Parameters
    ----------
    read_tile
        ``read_tile(key, out)`` decodes a tile into `out`; any thread.
    on_arrival
        Called from a worker after a tile arrived or failed; must be quick and touch no GL.
    """

    def __init__(
        self,
        read_tile: Callable[[int, np.ndarray], object],
        cache: TileCache,
        threads: int,
        on_arrival: Callable[[], None] = lambda: None,
    ):
        self._read_tile, self._cache, self._on_arrival = read_tile, cache, on_arrival
        self._changed = threading.Condition()
        self._queue: deque[int] = deque()
        self._wanted: set[int] = set()
        self._in_flight: set[int] = set()
        self._failures: dict[int, Failure] = {}
        self._closed = False
        self.tiles_read = 0
        self._threads = [threading.Thread(target=self._work, name=f"tile-loader-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def want(self, keys: Iterable[int]) -> None:
        """Replace what is wanted: these tiles, most urgent first. Tiles already here or on the way are not read again."""
        now = time.monotonic()
        keys = list(keys)
        with self._changed:
            self._wanted = set(keys)
            self._queue = deque(
                key for key in keys if key not in self._cache and key not in self._in_flight and self._may_try(key, now)
            )
            self._changed.notify_all()

    def ready(self, keys: Iterable[int]) -> list[tuple[int, np.ndarray]]:
        """Those of the wanted keys that are in memory, with their tiles, in order; they stay pinned until `release`."""
        return [(key, tile) for key in keys if (tile := self._cache.get(key)) is not None]

    def release(self, keys: Iterable[int]) -> None:
        """These tiles were uploaded: their memory may be used again."""
        with self._changed:
            self._wanted.difference_update(keys)
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Return when something arrived or failed, at once if nothing is under way, or after the time-out."""
        with self._changed:
            if self._queue or self._in_flight:
                self._changed.wait(timeout_s)

    def wait_for(self, keys: Iterable[int], timeout_s: float) -> list[tuple[int, np.ndarray]]:
        """Those of the keys that are in memory, with their tiles, as soon as there is one or none of them will come soon."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while not (found := self.ready(keys)) and (self._queue or self._in_flight) and time.monotonic() < end:
                self._changed.wait(timeout_s)
        return found

    @property
    def idle(self) -> bool:
        """Whether nothing wanted is waiting or on the way."""
        with self._changed:
            return not self._queue and not self._in_flight

    @property
    def pending(self) -> int:
        """Tiles that wait or are on the way."""
        return len(self._queue) + len(self._in_flight)

    def failed(self) -> dict[int, Failure]:
        """Tiles that could not be read; a copy."""
        with self._changed:
            return dict(self._failures)

    def close(self) -> None:
        """Stop and join the threads; closing twice is harmless."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _may_try(self, key: int, now: float) -> bool:
        failure = self._failures.get(key)
        return failure is None or now >= failure.retry_at

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._queue:
                    self._changed.wait()
                if self._closed:
                    return
                tile = self._cache.reserve(pinned=self._wanted)
                if tile is None:  # everything in memory waits to be uploaded
                    self._changed.wait(0.1)
                    continue
                key = self._queue.popleft()
                self._in_flight.add(key)
            self._read(key, tile)

    def _read(self, key: int, tile: np.ndarray) -> None:
        failure = None
        try:
            self._read_tile(key, tile)
        except Exception as error:  # whatever a source raises, the picture goes on without this tile
            failure = error
        with self._changed:
            self._in_flight.discard(key)
            if failure is None:
                self._cache.put(key, tile)
                self._failures.pop(key, None)
                self.tiles_read += 1
            else:
                self._cache.give_back(tile)
                self._failures[key] = self._next_failure(key, failure)
            self._changed.notify_all()
        self._on_arrival()

    def _next_failure(self, key: int, error: Exception) -> Failure:
        attempts = self._failures[key].attempts + 1 if key in self._failures else 1
        if isinstance(error, SlideError) and isinstance(error, DamagedSlideError):
            delay = LAST_RETRY_S
        else:
            delay = min(FIRST_RETRY_S * 2 ** (attempts - 1), LAST_RETRY_S)
        return Failure(error, attempts, time.monotonic() + delay)
