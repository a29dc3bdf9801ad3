"""Regions wait here for the one thread that draws: the newest first, since it is what somebody looks at now."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from rawmosaic.net.web.deepzoom import TileView
from rawmosaic.net.web.renderer import RegionRenderer
from rawmosaic.net.web.style import Style
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide

MOST_WAITING = 256
JOIN_TIMEOUT_S = 30.0
WAKE_S = 0.5
"""A thread that waits without end cannot be interrupted on Windows."""


class BusyError(SlideError):
    """More is asked for than is drawn in time; asking again later helps."""


class Picture(NamedTuple):
    """(h, w, 4) uint8, and one line for each part that could not be read."""

    pixels: np.ndarray
    failures: tuple[str, ...]


class RenderQueue:
    """Draws regions in one thread, which also closes the renderer: its own, or without `own_thread` the one that calls `work`.

    A region whose future was cancelled before its turn is not drawn. Of more than `most_waiting` the oldest are given up.
    """

    def __init__(self, renderer: RegionRenderer, most_waiting: int = MOST_WAITING, own_thread: bool = True):
        self._renderer, self._most_waiting = renderer, most_waiting
        self._waiting: deque[tuple[Future, Slide, TileView, Style]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.n_drawn = 0
        self._thread = threading.Thread(target=self._run, name="web-renderer", daemon=True) if own_thread else None
        if self._thread is not None:
            self._thread.start()

    def submit(self, slide: Slide, view: TileView, style: Style) -> Future[Picture]:
        """Ask for a region; the future ends with a Picture, whatever the renderer raised, or BusyError. Any thread."""
        future: Future[Picture] = Future()
        given_up = None
        with self._changed:
            if self._closed:
                given_up = future
            else:
                self._waiting.append((future, slide, view, style))
                if len(self._waiting) > self._most_waiting:
                    self._waiting = deque(job for job in self._waiting if not job[0].cancelled())
                if len(self._waiting) > self._most_waiting:
                    given_up = self._waiting.popleft()[0]
                self._changed.notify()
        if given_up is not None:
            _give_up(given_up, f"more than {self._most_waiting} tiles wait to be drawn; ask again later")
        return future

    def close(self) -> None:
        """Finish the region being drawn, give up the others, close the renderer; closing twice is harmless."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify()
        for future, *_ in waiting:
            _give_up(future, "the server ends")
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT_S)
        else:  # the thread that draws is the one that closes
            self._renderer.close()

    def work(self, for_s: float = math.inf) -> None:
        """Draw what is asked for in the calling thread, until `close` or for about so long."""
        end = time.monotonic() + for_s
        while not self._closed and time.monotonic() < end:
            job = self._next(min(WAKE_S, for_s))
            if job is not None:
                self._draw(*job)

    def _run(self) -> None:
        try:
            self.work()
        finally:
            self._renderer.close()

    def _draw(self, future: Future, slide: Slide, view: TileView, style: Style) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            pixels = self._renderer.render(slide, view.region_um, view.size_px, style)
            picture = Picture(pixels, tuple(self._renderer.failures))
        except Exception as error:  # whoever asked is told; the thread goes on
            future.set_exception(error)
        else:
            self.n_drawn += 1
            future.set_result(picture)

    def _next(self, wait_s: float) -> tuple[Future, Slide, TileView, Style] | None:
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(wait_s)
            return self._waiting.pop() if self._waiting else None


def _give_up(future: Future, why: str) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(BusyError(why))
