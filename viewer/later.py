"""Answers that take a while: asked for by the GL thread, worked out by another, there at a later frame."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

MOST_KEPT = 512


class Later:
    """Values by key, each made once in a background thread; the oldest are forgotten. `on_arrival` is called from that thread."""

    def __init__(self, on_arrival: Callable[[], None] = lambda: None):
        self._on_arrival = on_arrival
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="later")
        self._futures: OrderedDict[Hashable, Future] = OrderedDict()
        self._latest: dict[Hashable, Future] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], object]) -> object | None:
        """What `make` returned, or None: not yet, or it raised (see `error`)."""
        with self._lock:
            future = self._futures.get(key)
            if future is None:
                future = self._futures[key] = self._submitted(make)
                while len(self._futures) > MOST_KEPT:
                    self._futures.popitem(last=False)[1].cancel()
        return future.result() if future.done() and not future.cancelled() and future.exception() is None else None

    def newest(self, topic: Hashable, make: Callable[[], object]) -> Future:
        """Like `get`, but only the last question of a topic matters: one that waits is dropped for it."""
        before = self._latest.get(topic)
        if before is not None:
            before.cancel()
        self._latest[topic] = self._submitted(make)
        return self._latest[topic]

    def error(self, key: Hashable) -> BaseException | None:
        """Why there is no value for a key."""
        future = self._futures.get(key)
        return future.exception() if future is not None and future.done() and not future.cancelled() else None

    def forget(self, key: Hashable) -> None:
        """Have the value made anew when it is asked for again."""
        with self._lock:
            self._futures.pop(key, None)

    def forget_all(self) -> None:
        """Drop every value and what waits; return when nothing is being made."""
        with self._lock:
            futures = [*self._futures.values(), *self._latest.values()]
            self._futures.clear()
        for future in futures:
            if not future.cancel():
                wait([future])

    def close(self) -> None:
        """Drop what waits and join the thread; closing twice is harmless."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submitted(self, make: Callable[[], object]) -> Future:
        future = self._pool.submit(make)
        future.add_done_callback(lambda _: self._arrived())
        return future

    def _arrived(self) -> None:
        with suppress(Exception):  # a window that is just closing must not end the thread
            self._on_arrival()
