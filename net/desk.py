"""The worker threads that answer for one slide, and what waits for them: a slow disk keeps only its own slide waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from rawmosaic.net.protocol import Buffer, Reply, Request, reply_frames
from rawmosaic.net.served_slide import ServedSlide, Work
from rawmosaic.net.turns import Turns
from rawmosaic.storage.errors import NoLongerWantedError
from rawmosaic.storage.pyramid import TileKey

CLOSING_S = 10.0
"""A thread that does not come back from a read in this time is left behind."""


@dataclass(eq=False)
class Job:
    """A request that is held. Once done, `frames` are those of its reply."""

    connection: Hashable
    request: Request
    slide: ServedSlide
    work: Work
    cancelled: bool = False
    frames: list[Buffer] | None = None
    n_tiles: int = 0

    def run(self) -> None:
        """Read, and make the frames of the reply. Raises nothing."""
        try:
            answer = self.work.answer(lambda: self.cancelled)
            if answer is None:
                self.cancelled = True
                return
            body, buffers = answer
            frames = reply_frames(Reply(self.request.id, body=body, buffers=buffers))
            self.n_tiles = self.work.cost if self.request.op == "tiles" else 0
        except NoLongerWantedError:
            self.cancelled = True
            return
        except Exception as error:  # a slide may raise anything: the client hears of it, the thread goes on
            frames = reply_frames(Reply(self.request.id, "error", self.slide.error(error)))
        self.frames = frames


class Desk:
    """A few threads, started as they are needed. `on_done(job)` is called from them, and must be quick.

    All else is called by one thread.
    """

    def __init__(self, name: str, n_threads: int, on_done: Callable[[Job], None]):
        self._name, self._n_threads, self._on_done = name, max(1, n_threads), on_done
        self._turns = Turns()
        self._ahead: dict[Hashable, Iterator[Callable[[], None]]] = {}
        self._n_reading_ahead = 0
        self._lock = threading.Lock()
        self._calls: SimpleQueue[bool] = SimpleQueue()  # False: go home
        self._threads: list[threading.Thread] = []
        self._closed = False

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._turns)

    def put(self, job: Job) -> None:
        """Queue a job."""
        with self._lock:
            self._turns.put(job.connection, job, job.request.priority)
        self._call()

    def cancel(self, job: Job) -> None:
        """A job is no longer wanted: it will not be started, and ends as soon as it looks."""
        job.cancelled = True
        with self._lock:
            self._turns.remove(job.connection, job)

    def pause(self, connection: Hashable) -> None:
        """Start nothing for a connection that does not take its replies."""
        with self._lock:
            self._turns.pause(connection)

    def resume(self, connection: Hashable) -> None:
        """Go on for a connection."""
        with self._lock:
            self._turns.resume(connection)
            waiting = len(self._turns)
        for _ in range(min(waiting, self._n_threads)):
            self._call()

    def forget(self, connection: Hashable) -> None:
        """Drop all that waits for a connection."""
        with self._lock:
            self._turns.forget(connection)
            self._ahead.pop(connection, None)

    def read_ahead(self, connection: Hashable, slide: ServedSlide, keys: Callable[[], list[TileKey]]) -> None:
        """Read tiles when nothing else is to be done, until the connection says something else. `keys` is asked by a worker."""
        with self._lock:
            self._ahead[connection] = _reads(slide, keys)
        self._call()

    def close(self) -> None:
        """End the threads, once each has finished the tile that it reads."""
        with self._lock:
            self._closed = True
            self._ahead.clear()
        for _ in self._threads:
            self._calls.put(False)
        for thread in self._threads:
            thread.join(CLOSING_S)

    def _call(self) -> None:
        """Wake a worker; start one where there is none, or those that there are do not come."""
        if not self._threads or (len(self._threads) < self._n_threads and not self._calls.empty()):
            thread = threading.Thread(target=self._run, name=f"dealer-{self._name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        if self._calls.qsize() < self._n_threads:  # whoever is called does all there is to do
            self._calls.put(True)

    # the workers

    def _run(self) -> None:
        while self._calls.get() and not self._closed:
            while not self._closed and (job := self._next()) is not None:
                job()

    def _next(self) -> Callable[[], None] | None:
        """What to do now: a job, or what may be needed soon."""
        with self._lock:
            taken = self._turns.take()
            if taken is not None:
                connection, job = taken
                self._turns.charge(connection, job.work.cost)
                return lambda: self._do(job)
            # somebody stays free for whoever asks
            if not self._ahead or self._n_reading_ahead >= max(1, self._n_threads - 1):
                return None
            self._n_reading_ahead += 1
            connection = next(iter(self._ahead))
            reads = self._ahead.pop(connection)
            return lambda: self._do_ahead(connection, reads)

    def _do(self, job: Job) -> None:
        job.run()
        self._on_done(job)

    def _do_ahead(self, connection: Hashable, reads: Iterator[Callable[[], None]]) -> None:
        """One tile; the rest goes to the back of the queue, unless another hint came meanwhile."""
        more = next(reads, None) is not None
        with self._lock:
            self._n_reading_ahead -= 1
            if more and not self._closed:
                self._ahead.setdefault(connection, reads)


def _reads(slide: ServedSlide, keys: Callable[[], list[TileKey]]) -> Iterator[TileKey]:
    """Reads one tile a step; whatever goes wrong is told to whoever asks for the tile."""
    try:
        wanted = keys()
    except Exception:
        return
    for key in wanted:
        try:
            slide.encoded(key)
        except Exception:
            return
        yield key
