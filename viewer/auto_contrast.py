"""Automatic contrast limits: of the slide or of a field from stored histograms, of the view or of a drawn area from raw counts.

A `Question` is a value taken from the engine; `limits_for` answers it anywhere, `AutoContrast` in a thread of its own, so that
the window goes on drawing. Missing fields never count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from rawmosaic.storage.errors import NoLongerWantedError, SlideError
from rawmosaic.storage.histogram import grey_level_counts
from rawmosaic.storage.slide import GREY_LEVELS, Slide
from rawmosaic.viewer.annotations.shapes import Shape
from rawmosaic.viewer.blending import checked_unmixing
from rawmosaic.viewer.channels import AUTO_CONTRAST_TAIL, SMALLEST_AUTO_RANGE, ChannelView, percentile_limits
from rawmosaic.viewer.plan import Geometry
from rawmosaic.viewer.region import Bounds, fitting_level, region_counts

STRONGER, STRONGEST_TAIL = 4.0, 0.1
"""Each repetition leaves so many times more pixels outside the limits, up to a tenth of them on each side."""

REPEAT_S = 3.0
"""Asking the same again within this time asks for stronger contrast."""

MOST_DRAWN_PIXELS = 1 << 26
"""Of one channel in a drawn area, 128 MB: a larger area is taken from a coarser layer, and a line says so."""

PROGRESS_S = 0.1
"""How often somebody who waits is told how far it is."""

Limits = dict[int, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Question:
    """Whose limits, and from where: a `field`, else a `shape`, else a `region_um` (left, top, right, bottom), else the slide.

    A shape is a drawn area: the raw counts of its pixels count, whatever the view shows. `z` is the slide's `size_z` for the
    projection; `scale` that of the view, which says which zoom layer is fine enough; `tail` the share of pixels outside the
    limits on each side.
    """

    slide: Slide
    geometry: Geometry
    channels: tuple[int, ...]
    region_um: Bounds | None = None
    field: int | None = None
    shape: Shape | None = None
    z: int = 0
    t: int = 0
    scale: float = 1.0
    unmixing: np.ndarray | None = None
    tail: float = AUTO_CONTRAST_TAIL


@dataclass(frozen=True)
class Answer:
    """Limits by channel, those without any pixel left out, and lines on what could not be read."""

    limits: Limits
    told: tuple[str, ...] = ()


def question_of(
    engine: Any,
    channels: Iterable[int],
    *,
    region_um: Bounds | None = None,
    field: int | None = None,
    shape: Shape | None = None,
    tail: float = AUTO_CONTRAST_TAIL,
) -> Question:
    """A question about what an engine shows: told no part of it, about the whole slide."""
    return Question(
        slide=engine.slide,
        geometry=engine.geometry,
        channels=tuple(channels),
        region_um=region_um,
        field=field,
        shape=shape,
        z=engine.view().z,
        t=engine.t,
        scale=engine.camera.scale,
        unmixing=checked_unmixing(engine.unmixing, len(engine.channels)),
        tail=tail,
    )


def limits_for(
    question: Question,
    wanted: Callable[[], bool] = lambda: True,
    progress: Callable[[float], None] = lambda _share: None,
) -> Answer:
    """The answer; reads, so not in the GL thread. `progress` is told which share was read, 0 to 1. Raises NoLongerWantedError
    once `wanted` says no."""
    limits, told = {}, []
    for number, channel in enumerate(question.channels):

        def part(share: float, before: int = number) -> None:
            progress((before + share) / len(question.channels))

        if not wanted():
            raise NoLongerWantedError("something else is asked for by now", location=question.slide.location)
        try:
            found = _limits(question, channel, wanted, told, part)
        except NoLongerWantedError:
            raise
        except SlideError as error:
            told.append(str(error))
            continue
        if found is not None:
            limits[channel] = found
    return Answer(limits, tuple(dict.fromkeys(told)))


def histogram_of(
    question: Question,
    channel: int,
    wanted: Callable[[], bool] = lambda: True,
    told: list[str] | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> np.ndarray:
    """(65536,) counts of a channel as it was acquired, in what the question is about. Reads. Raises SlideError."""
    slide, field = question.slide, question.field
    if field is not None and (slide.size_z, slide.size_t) == (1, 1) and hasattr(slide, "field_histogram"):
        return slide.field_histogram(field, channel)
    if field is None and question.region_um is None and question.shape is None:
        return slide.histogram(channel)
    total = np.zeros(GREY_LEVELS, np.int64)
    for block in _blocks(question, (channel,), wanted, told, progress):
        total += grey_level_counts(block[0])
    return total


def stretched(values: np.ndarray, tail: float) -> tuple[float, float] | None:
    """(low, high) that leave `tail` of (n,) values on each side; None for none."""
    if not len(values):
        return None
    last = len(values) - 1
    places = int(tail * last), int(np.ceil((1.0 - tail) * last))
    low, high = (float(value) for value in np.partition(values, places)[list(places)])
    return low, max(high, low + SMALLEST_AUTO_RANGE)


def copy_limits(looks: Sequence[ChannelView], source: int, targets: Iterable[int], *, gamma: bool = True) -> None:
    """Give other channels the limits of one, and its gamma."""
    for target in targets:
        looks[target].limits = looks[source].limits
        if gamma:
            looks[target].gamma = looks[source].gamma


class Strength:
    """How strong automatic contrast is: stronger each time the same is asked for again."""

    def __init__(self):
        self._last: tuple[object, float, float] | None = None

    def tail(self, what: object, now: float | None = None) -> float:
        """The share of pixels outside the limits for `what` (a scope and channels, say), asked for now."""
        now = time.monotonic() if now is None else now
        tail = AUTO_CONTRAST_TAIL
        if self._last is not None and self._last[0] == what and now - self._last[1] < REPEAT_S:
            tail = min(STRONGER * self._last[2], STRONGEST_TAIL)
        self._last = (what, now, tail)
        return tail


class AutoContrast:
    """Answers one question at a time in a thread; a new one replaces that before it.

    Questions come from the GL thread and answers go to it: `arrived` once a frame. `on_arrival` is called from the thread, and
    `on_progress` too, now and then while it reads.
    """

    def __init__(self, on_arrival: Callable[[], None] = lambda: None, on_progress: Callable[[], None] = lambda: None):
        self._on_arrival, self._on_progress = on_arrival, on_progress
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Answer] | None = None
        self._cancelled = threading.Event()
        self._share, self._asked_at, self._told_at = 0.0, 0.0, 0.0
        self._progressed = False

    def ask(self, question: Question) -> None:
        """Answer this; what was asked before is given up."""
        self.cancel()
        self._cancelled = cancelled = threading.Event()
        self._share, self._asked_at = 0.0, time.monotonic()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="auto-contrast")
        self._future = self._pool.submit(
            limits_for,
            question,
            wanted=lambda: not cancelled.is_set(),
            progress=lambda share: self._goes_on(cancelled, share),
        )
        self._future.add_done_callback(lambda _: self._tell(cancelled, self._on_arrival))

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        return self._future is not None and not self._future.done()

    @property
    def share(self) -> float | None:
        """How much was read of what is asked for, 0 to 1; None if nothing is."""
        return self._share if self.busy else None

    @property
    def waits_s(self) -> float:
        """For how long an answer has been on its way, seconds; 0 if none is."""
        return time.monotonic() - self._asked_at if self.busy else 0.0

    def progressed(self) -> bool:
        """Whether `on_progress` was called since this was asked last: then `share` is worth showing anew."""
        progressed, self._progressed = self._progressed, False
        return progressed

    def arrived(self) -> Answer | None:
        """The answer, once; None before and after. Raises nothing: what went wrong is among the lines told."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        try:
            return future.result()
        except Exception as error:  # an error of a slide ends no window
            return Answer({}, (str(error),))

    def cancel(self) -> None:
        """Give up what was asked; it ends soon, and its answer never arrives."""
        self._cancelled.set()
        self._future = None

    def close(self) -> None:
        """Give up what was asked and join the thread; closing twice is harmless."""
        self.cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _goes_on(self, cancelled: threading.Event, share: float) -> None:
        now = time.monotonic()
        if not cancelled.is_set():
            self._share = share
            if now - self._told_at >= PROGRESS_S:
                self._told_at, self._progressed = now, True
                self._tell(cancelled, self._on_progress)

    def _tell(self, cancelled: threading.Event, whom: Callable[[], None]) -> None:
        if not cancelled.is_set():
            with suppress(Exception):  # a window that is just closing must not end the thread
                whom()


def apply_limits(answer: Answer, looks: Sequence[ChannelView]) -> bool:
    """Give channels the limits that were found; returns whether any changed."""
    changed = False
    for channel, limits in answer.limits.items():
        if channel < len(looks) and looks[channel].limits != limits:
            looks[channel].limits, changed = limits, True
    return changed


def _limits(
    question: Question, channel: int, wanted: Callable[[], bool], told: list[str], progress: Callable[[float], None]
) -> tuple[float, float] | None:
    shares = None if question.unmixing is None else question.unmixing[channel]
    if shares is None or np.array_equal(shares, np.eye(len(shares))[channel]):
        histogram = histogram_of(question, channel, wanted, told, progress)
        return percentile_limits(histogram, question.tail) if histogram.any() else None
    needed = np.flatnonzero(shares)
    if not len(needed):
        return None
    blocks = [shares[needed] @ block for block in _blocks(question, needed.tolist(), wanted, told, progress)]
    return stretched(np.concatenate(blocks), question.tail) if blocks else None


def _blocks(
    question: Question,
    channels: Sequence[int],
    wanted: Callable[[], bool],
    told: list[str] | None,
    progress: Callable[[float], None],
) -> Iterable[np.ndarray]:
    """Blocks of counts of the field, the shape, the region or the whole slide."""
    slide, geometry, shape = question.slide, question.geometry, None
    if question.field is not None:
        bounds = geometry.box_of(question.field, channels[0])
        level = fitting_level(slide, bounds, 1.0)
    elif question.shape is not None:
        shape = question.shape
        bounds = _overlap(shape.box_um, geometry.bounds_um)
        level = fitting_level(slide, bounds, 1.0, MOST_DRAWN_PIXELS)
        if level and told is not None:
            told.append(f"the area is large: its pixels were taken reduced {slide.levels[level]} times")
    else:
        bounds = question.region_um or geometry.bounds_um
        level = fitting_level(slide, bounds, question.scale)
    return region_counts(
        *(slide, geometry, bounds, channels, question.z, question.t, level),
        fields=None if question.field is None else (question.field,),
        shape=shape,
        wanted=wanted,
        progress=progress,
        problems=told,
    )


def _overlap(one: Bounds, other: Bounds) -> Bounds:
    """What two boxes have in common; of boxes apart an empty one. An area larger than the mosaic costs what the mosaic does."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    return left, top, max(min(one[2], other[2]), left), max(min(one[3], other[3]), top)
