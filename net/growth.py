"""One thread that follows a growing slide, and says what came."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rawmosaic.net.served_slide import Answer, ServedSlide

INTERVAL_S = 0.25
LAST_INTERVAL_S = 5.0
"""After failures the slide is looked at less often, down to this."""

log = logging.getLogger("rawmosaic.net.growth")


class Growth:
    """Asks a slide again and again until it is finished; `on_grown(slide, event)` is called from its thread, and is quick."""

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
