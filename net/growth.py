"""One thread that follows a growing slide, and says what came."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from rawmosaic.net.served_slide import Answer, ServedSlide
from rawmosaic.storage.errors import SlideError

INTERVAL_S = 0.25
LAST_INTERVAL_S = 5.0
"""After failures the slide is looked at less often, down to this."""

NAMED_LOOK_S = 1.0
"""How often a finished slide that has not its final name yet is asked to let go of its file."""

log = logging.getLogger("rawmosaic.net.growth")


def to_be_asked(slide: ServedSlide) -> bool:
    """Whether a slide grows, or is finished but for the name of its file."""
    return slide.growing or _awaits_name(slide)


def _awaits_name(slide: ServedSlide) -> bool:
    return bool(getattr(slide.slide, "awaits_name", False))


class Growth:
    """Asks a slide again and again until it is finished, and its file has its final name.

    `on_grown(slide, event)` is called from its thread, and is quick.
    """

    def __init__(self, slide: ServedSlide, on_grown: Callable[[ServedSlide, Answer], None]):
        self._slide, self._on_grown = slide, on_grown
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"growth-{slide.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, once it has finished looking."""
        self._ending.set()
        self._thread.join(LAST_INTERVAL_S)

    def _run(self) -> None:
        interval_s = INTERVAL_S
        while self._slide.growing and not self._ending.wait(interval_s):
            try:
                event = self._slide.grow()
            except Exception as error:  # a disk that is away for a moment; the writer goes on
                log.warning("%s cannot be followed for now: %s", self._slide.name, error)
                interval_s = min(2 * interval_s, LAST_INTERVAL_S)
                continue
            interval_s = INTERVAL_S
            if event is not None:
                self._on_grown(self._slide, event)
        while _awaits_name(self._slide) and not self._ending.wait(NAMED_LOOK_S):
            with contextlib.suppress(SlideError, OSError):
                _ = self._slide.slide.replaced  # lets go of the file, where its writer waits for that
