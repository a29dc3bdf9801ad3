"""Following a slide that grows: a thread asks it for what is new, the GL thread takes that in with its next frame."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide

PERIOD_S = 0.25

Placed = TypeVar("Placed")


class Follower(Generic[Placed]):
    """A thread that calls `Slide.refresh` while the slide grows, and ends when it is finished.

    Parameters
    ----------
    placed
        Called from the thread whenever planes came, before the slide is asked again: where its fields lie now.
    on_growth
        Called from the thread after that.
    """

    def __init__(self, slide: Slide, placed: Callable[[], Placed], on_growth: Callable[[], None] = lambda: None):
        self._slide, self._placed, self._on_growth = slide, placed, on_growth
        self._came: list[np.ndarray] = []
        self._latest: Placed | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="slide-follower", daemon=True)
        self._thread.start()

    def take(self) -> tuple[np.ndarray, Placed | None]:
        """(n, 4) int32 planes (field, channel, z, t) that came since the last call, and where the fields lie since then."""
        with self._lock:
            came, self._came = self._came, []
            return np.concatenate(came) if came else np.empty((0, 4), np.int32), self._latest

    def close(self) -> None:
        """Stop and join the thread; closing twice is harmless."""
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        growing = True
        while growing and not self._closing.wait(PERIOD_S):
            growing = self._slide.growing  # asked before: what came with the end is taken in
            planes = np.empty((0, 4), np.int32)
            with suppress(SlideError):  # a server that is away: the picture stays, and what came meanwhile comes later
                planes = self._slide.refresh()
            if len(planes) or not growing:
                placed = self._placed()
                with self._lock:
                    self._came.append(planes)
                    self._latest = placed
                with suppress(Exception):  # a window that is just closing must not end the thread
                    self._on_growth()
