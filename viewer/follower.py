"""Following a slide that grows: a thread asks it for what is new, the GL thread takes that in with its next frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.scan_progress import ScanCounter, ScanProgress, told_planned

PERIOD_S = 0.25
LOOK_AGAIN_S = 1.0
"""A scan whose writer is gone may begin anew under its name: it is looked for so often."""

MOST_TIMES_COUNTED = 64
"""Of a scan of more z and t, what came before it was opened is counted in so many of them."""

Placed = TypeVar("Placed")


class Follower(Generic[Placed]):
    """A thread that calls `Slide.refresh` while the slide grows; it ends when that has its final name, or is replaced by another.

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
        self._has_news = self._replaced = False
        self._latest: Placed | None = None
        self._counter: ScanCounter | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="slide-follower", daemon=True)
        self._thread.start()

    @property
    def has_news(self) -> bool:
        """Whether something came, began or ended since the last `take`."""
        return self._has_news

    @property
    def replaced(self) -> bool:
        """Whether another slide lies under the name of this one by now."""
        return self._replaced

    def take(self) -> tuple[np.ndarray, Placed | None]:
        """(n, 4) int32 planes (field, channel, z, t) that came since the last call, and where the fields lie since then."""
        with self._lock:
            came, self._came, self._has_news = self._came, [], False
            return np.concatenate(came) if came else np.empty((0, 4), np.int32), self._latest

    def progress(self) -> ScanProgress | None:
        """How far the scan is; None until the slide was looked at."""
        with self._lock:
            return None if self._counter is None else self._counter.progress(time.monotonic())

    def close(self) -> None:
        """Stop and join the thread; closing twice is harmless."""
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        with suppress(SlideError):  # closed, or away: without a count
            counter = counted(self._slide)
            with self._lock:
                self._counter, self._has_news = counter, True
            self._tell()
        growing, finished = True, False
        while not (finished or self._replaced) or self._awaits_name():
            if self._closing.wait(PERIOD_S if growing else LOOK_AGAIN_S):
                return
            if self._slide.replaced:
                self._replaced = self._has_news = True
                self._tell()
            if not growing:
                continue
            growing = self._slide.growing  # asked before: what came with the end is taken in
            planes = np.empty((0, 4), np.int32)
            with suppress(SlideError):  # a server that is away: the picture stays, and what came meanwhile comes later
                planes = self._slide.refresh()
            if len(planes) or not growing:
                placed = self._placed()
                finished = not growing and self._is_finished()
                with self._lock:
                    if len(planes):
                        self._came.append(planes)
                    self._latest, self._has_news = placed, True
                    self._count(planes, None if growing else finished)
                self._tell()

    def _awaits_name(self) -> bool:
        """Whether a finished slide is still to be renamed: it is asked whether it was replaced, and lets go of its file then."""
        return not self._replaced and bool(getattr(self._slide, "awaits_name", False))

    def _count(self, planes: np.ndarray, finished: bool | None) -> None:
        """Of a scan that goes on, `finished` is None."""
        if self._counter is None:
            return
        now = time.monotonic()
        self._counter.add(planes, self._slide.n_fields, now)
        if finished is not None:
            self._counter.end(now, finished=finished)

    def _is_finished(self) -> bool:
        """Whether a scan that has ended was finished, as far as its slide can tell."""
        try:
            return bool(getattr(self._slide, "finished", True))
        except SlideError:
            return False

    def _tell(self) -> None:
        with suppress(Exception):  # a window that is just closing must not end the thread
            self._on_growth()


def counted(slide: Slide) -> ScanCounter:
    """A counter that knows what the slide has already. Any thread; may ask a server. Raises SlideError."""
    times = [(z, t) for t in range(slide.size_t) for z in range(slide.size_z)][:MOST_TIMES_COUNTED]
    has, planes = np.zeros(slide.n_fields, bool), 0
    for z, t in times:
        acquired = slide.acquired(z, t)[: len(has)]
        has[: len(acquired)] |= acquired.any(axis=1)
        planes += int(acquired.sum())
    per_field = len(slide.channels) * slide.size_z * slide.size_t
    return ScanCounter(has, planes, per_field, time.monotonic(), is_planned=told_planned(slide.header.extra))
