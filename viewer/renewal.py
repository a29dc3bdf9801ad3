"""A slide whose name has another one by now is opened anew by its window, in the background; what was made of it stays."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide

if TYPE_CHECKING:
    from rawmosaic.viewer.window import MosaicWindow

AGAIN_S = 1.0
"""A file that is just being begun cannot be opened for a moment."""


class Renewal:
    """Watches the slide of one window. GL thread."""

    def __init__(self, window: MosaicWindow):
        self._window = window
        self._opening: tuple[Slide, Future] | None = None
        self._not_before = 0.0

    def forget(self) -> None:
        """The slide is left: what is being opened for it is closed."""
        opening, self._opening = self._opening, None
        if opening is not None and not opening[1].cancel():
            opening[1].add_done_callback(_closed_again)

    def take_in(self) -> None:
        """Open anew what was replaced, and show it once it is open."""
        window = self._window
        if self._opening is None:
            # a finished slide is not followed; that its tiles cannot be read may tell
            if (window.engine.replaced or window.engine.report.tiles_failed) and time.monotonic() >= self._not_before:
                slide = window.slide
                self._opening = slide, window.later.newest("renew", lambda: _opened_if_replaced(slide))
            return
        before, future = self._opening
        if not future.done():
            return
        self._opening, self._not_before = None, time.monotonic() + AGAIN_S
        if future.cancelled() or future.exception() is not None or (slide := future.result()) is None:
            return
        if before is not window.slide:  # another one was opened meanwhile
            slide.close()
            return
        try:
            window.renew(slide)
        except SlideError:
            slide.close()
            return
        window.desk.say("another slide has this name by now, as when a scan begins anew: it was opened", "warning")
        window.redraw()


def _opened_if_replaced(slide: Slide) -> Slide | None:
    """What lies under the name of a slide, if it is another by now. Reads; raises SlideError."""
    from rawmosaic.storage import open_slide

    return open_slide(slide.location) if slide.replaced else None


def _closed_again(future: Future) -> None:
    if not future.cancelled() and future.exception() is None and (slide := future.result()) is not None:
        slide.close()
