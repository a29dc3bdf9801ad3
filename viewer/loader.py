"""Worker threads that decode wanted tiles into the tile cache.

The GL thread says with every frame what it wants, most urgent first, and what it may want soon; that list replaces the last one,
so whatever left the view is no longer asked for. Workers take from its front. They never touch GL; the GL thread never touches a
file. README.md tells the states of a tile and the tiers of a request.

What may be needed soon has threads of its own, which give way where the system lets them: a frame that is being drawn, on a
software driver above all, shall not be slower because its neighbourhood is read meanwhile.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.errors import DamagedSlideError, NoLongerWantedError, UnreachableError
from rawmosaic.storage.tile_cache import TileCache

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 8.0
RECONNECT_RETRY_S = 1.0
MOST_AT_ONCE, MOST_AT_ONCE_FAR = 8, 32
"""Tiles that a thread reads at once: where reading is work, and where it is waiting for a server."""

BACKGROUND_NICENESS = 19


@dataclass(frozen=True)
class Failure:
    """A tile that could not be read: why, how often it was tried, and when it may be tried again (monotonic seconds)."""

    error: BaseException
    attempts: int
    retry_at: float


class TileLoader:
    """Threads between a slide and a tile cache.

    Parameters
    ----------
    read_tiles
        ``read_tiles(keys, outs, wanted, urgent)`` decodes each tile into its `out` and says for each None or why not
        (`Slide.read_tiles`, with numbers for keys); any thread.
    on_arrival
        Called from a worker after a tile arrived or failed; must be quick and touch no GL.
    far
        Reading is waiting rather than work: all that is wanted is asked for at the same time, so that it takes one way back and
        forth, where sharing it out in ever smaller portions would take one for each.
    """

    def __init__(
        self,
        read_tiles: Callable[[list[int], list[np.ndarray], Callable[[int], bool], bool], list[BaseException | None]],
        cache: TileCache,
        threads: int,
        on_arrival: Callable[[], None] = lambda: None,
        far: bool = False,
    ):
        self._read_tiles, self._cache, self._on_arrival, self._far = read_tiles, cache, on_arrival, far
        self._changed = threading.Condition()
        self._urgent_queue: deque[int] = deque()
        self._soon_queue: deque[int] = deque()
        self._wanted: set[int] = set()
        self._asked_for: set[int] = set()
        self._urgent: set[int] = set()
        self._held: set[int] = set()
        self._outdated: set[int] = set()
        self._in_flight: set[int] = set()
        self._failures: dict[int, Failure] = {}
        self._closed = False
        self.tiles_read = 0
        background = -(-threads // 2)
        self._n_of = {True: threads, False: background}
        self._n_idle = dict.fromkeys(self._n_of, 0)
        self._threads = [
            threading.Thread(target=self._work, args=(urgent,), name=f"tile-{name}-{i}", daemon=True)
            for urgent, name, count in ((True, "loader", threads), (False, "prefetch", background))
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def want(self, keys: Iterable[int], soon: Iterable[int] = ()) -> None:
        """Replace what is asked for: tiles for the view, most urgent first, then those it may need soon.

        Tiles already here or on the way are not read again. Those for the view keep their memory until `release`; those for
        later are the first to lose it.
        """
        keys, soon = list(keys), list(soon)
        if not (keys or soon or self._asked_for):
            return  # nothing is new to the threads, and waking them would cost the frame
        with self._changed:
            self._wanted, self._urgent = set(keys), set(keys)
            self._asked_for = self._urgent.union(soon)
            self._urgent_queue = self._to_read(keys)
            self._soon_queue = self._to_read(key for key in soon if key not in self._urgent)
            self._changed.notify_all()

    def _to_read(self, keys: Iterable[int]) -> deque[int]:
        now = time.monotonic()
        return deque(key for key in keys if key not in self._cache and key not in self._in_flight and self._may_try(key, now))

    def ready(self, keys: Iterable[int]) -> list[tuple[int, np.ndarray]]:
        """Those of the wanted keys that are in memory, with their tiles, in order; they stay pinned until `release`."""
        return [(key, tile) for key in keys if (tile := self._cache.get(key)) is not None]

    def release(self, keys: Iterable[int], held: Iterable[int] = ()) -> None:
        """These tiles were uploaded: their memory may be used again; that of the `held` ones after `let_go`."""
        with self._changed:
            self._wanted.difference_update(keys)
            self._held.update(held)
            self._changed.notify_all()

    def let_go(self, keys: Iterable[int]) -> None:
        """The driver has read these tiles that were held."""
        with self._changed:
            self._held.difference_update(keys)
            self._changed.notify_all()

    def discard(self, keys: Iterable[int]) -> None:
        """These tiles have changed: forget them, and what is being read of them."""
        with self._changed:
            self._cache.discard(keys)
            self._outdated.update(self._in_flight.intersection(keys))

    def wait(self, timeout_s: float) -> None:
        """Return when something arrived or failed, at once if nothing is under way, or after the time-out."""
        with self._changed:
            if self.pending:
                self._changed.wait(timeout_s)

    def wait_for(self, keys: Iterable[int], timeout_s: float) -> list[tuple[int, np.ndarray]]:
        """Those of the keys that are in memory, with their tiles, once nothing more comes by itself or after the time-out."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while self._comes_by_itself() and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
        return self.ready(keys)

    def _comes_by_itself(self) -> bool:
        """Whether a thread reads, or could: not when all memory is taken by tiles that wait for `release`."""
        return bool(self._in_flight) or (self.pending > 0 and self._cache.has_room(pinned=self._pinned()))

    @property
    def idle(self) -> bool:
        """Whether nothing wanted is waiting or on the way."""
        with self._changed:
            return self.pending == 0

    @property
    def pending(self) -> int:
        """Tiles that wait or are on the way."""
        return len(self._urgent_queue) + len(self._soon_queue) + len(self._in_flight)

    def failed(self) -> dict[int, Failure]:
        """Tiles that could not be read; a copy."""
        with self._changed:
            return dict(self._failures) if self._failures else {}

    def resting(self) -> set[int]:
        """Tiles that could not be read and are not to be tried again yet."""
        if not self._failures:
            return set()
        now = time.monotonic()
        with self._changed:
            return {key for key, failure in self._failures.items() if now < failure.retry_at}

    def close(self) -> None:
        """Stop and join the threads; closing twice is harmless."""
        with self._changed:
            self._closed = True
            self._urgent_queue.clear()
            self._soon_queue.clear()
            self._wanted, self._asked_for, self._held = set(), set(), set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _pinned(self) -> set[int]:
        return self._wanted | self._held if self._held else self._wanted

    def _may_try(self, key: int, now: float) -> bool:
        failure = self._failures.get(key)
        return failure is None or now >= failure.retry_at

    def _work(self, urgent: bool) -> None:
        if not urgent:
            _give_way()
        while (batch := self._take(urgent)) is not None:
            self._deliver(batch, self._outcomes(batch))
            with suppress(Exception):  # a window that is just closing must not end the thread
                self._on_arrival()

    def _outcomes(self, batch: list[tuple[int, np.ndarray]]) -> list[BaseException | None]:
        """Read the tiles of a batch; those that leave the view meanwhile are left out."""
        keys, tiles = [key for key, _ in batch], [tile for _, tile in batch]
        try:
            return self._read_tiles(keys, tiles, lambda number: keys[number] in self._asked_for, keys[0] in self._urgent)
        except BaseException as error:  # whatever a source raises, the picture goes on without these tiles
            return [error] * len(batch)

    def _take(self, urgent: bool) -> list[tuple[int, np.ndarray]] | None:
        """The most urgent tiles with memory to decode into, waiting for some; None when the loader closes.

        Several at once: taking and delivering cost more than decoding if threads meet for every tile. Few when few are left, so
        that all threads finish together.
        """
        with self._changed:
            self._n_idle[urgent] += 1
            while not self._closed:
                queue = self._urgent_queue if urgent else self._soon_queue
                if not urgent and (self._urgent_queue or not self._in_flight.isdisjoint(self._urgent)):
                    queue = ()  # the view comes first
                share = self._share(len(queue), urgent)
                batch = []
                while len(batch) < share and (tile := self._cache.reserve(pinned=self._pinned())) is not None:
                    batch.append((queue.popleft(), tile))
                if batch:
                    self._in_flight.update(key for key, _ in batch)
                    self._n_idle[urgent] -= 1
                    return batch
                self._changed.wait()
        return None

    def _share(self, n_tiles: int, urgent: bool) -> int:
        """How many of the tiles that wait a thread takes now."""
        if self._far:
            return min(MOST_AT_ONCE_FAR, -(-n_tiles // self._n_idle[urgent]))
        return min(MOST_AT_ONCE, -(-n_tiles // (2 * self._n_of[urgent])))

    def _deliver(self, batch: list[tuple[int, np.ndarray]], outcomes: list[BaseException | None]) -> None:
        with self._changed:
            for (key, tile), error in zip(batch, outcomes, strict=True):
                self._in_flight.discard(key)
                if key in self._outdated:
                    self._outdated.discard(key)
                    error = NoLongerWantedError("the tile has changed since it was read")
                if error is None:
                    self._cache.put(key, tile)
                    self._failures.pop(key, None)
                    self.tiles_read += 1
                    continue
                self._cache.give_back(tile)
                if not isinstance(error, NoLongerWantedError):
                    self._failures[key] = self._next_failure(key, error)
                elif key in self._asked_for:  # it came back into view, and was taken for being on the way
                    (self._urgent_queue if key in self._urgent else self._soon_queue).appendleft(key)
            self._changed.notify_all()

    def _next_failure(self, key: int, error: BaseException) -> Failure:
        attempts = self._failures[key].attempts + 1 if key in self._failures else 1
        delay = min(FIRST_RETRY_S * 2 ** (attempts - 1), LAST_RETRY_S)
        if isinstance(error, DamagedSlideError):  # bytes do not mend themselves
            delay = LAST_RETRY_S
        elif isinstance(error, UnreachableError):  # the connection has been patient already
            delay = min(delay, RECONNECT_RETRY_S)
        return Failure(error, attempts, time.monotonic() + delay)


def _give_way() -> None:
    """Let this thread run after those that somebody waits for, where the system knows priorities of single threads: when a
    processor has nothing else to do, or at least seldom."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)
