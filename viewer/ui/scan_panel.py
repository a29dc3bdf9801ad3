"""A running scan: a counter over the picture, what became of the scan, and what goes along with it where that is asked for.

Nothing of this is there for a slide that does not grow, and it goes away some time after the end.
"""

from __future__ import annotations

import time

import glfw
from imgui_bundle import imgui

from rawmosaic.viewer.auto_contrast import AutoContrast, apply_limits, question_of
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.chase import kept_in_view, was_panned
from rawmosaic.viewer.scan_progress import ScanProgress
from rawmosaic.viewer.scan_words import count_text, pace_text, state_text
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.overlays import Rect
from rawmosaic.viewer.ui.widgets import FIXED, button, dim, packed, told, wrapped

END_SHOWN_S = 20.0
"""So long after its end a scan is still told of."""

TICK_S, SLOW_TICK_S = 1.0, 10.0
"""How often the seconds are counted while nothing comes, and once they are minutes."""

CONTRAST_PERIOD_S = 2.0
CONTRAST_WAIT_S = 0.05

OPACITY = 0.85
WIDTH_UNITS, NARROW_UNITS = 250.0, 360.0
_NO_PIXELS = (0.0, 65535.0)
"""The limits of a channel of which nothing was acquired (channels.percentile_limits)."""


class ScanPanel:
    """One window's part in a running scan. GL thread."""

    def __init__(self):
        self.follows = False
        """whether the view goes along with the newest field"""
        self.contrasts = False
        """whether automatic contrast does"""
        self.gesture: str | None = None
        """What the last step changed in the view, as `History` wants to know it."""
        self.area: Rect | None = None
        """Where the buttons lie, window pixels; None while they are not shown."""
        self._location: str | None = None
        self._auto_contrast = AutoContrast(glfw.post_empty_event)
        self.forget()

    def forget(self) -> None:
        """Another slide is shown from now on; one of the same name is gone along with as before."""
        self._auto_contrast.close()
        self._camera: Camera | None = None
        self._progress: ScanProgress | None = None
        self._said: str | None = None
        self._blank: set[int] | None = None
        self._contrasted_at, self._contrasted_planes = -CONTRAST_PERIOD_S, 0

    def close(self) -> None:
        """Join the thread; closing twice is harmless."""
        self._auto_contrast.close()

    def toggle_following(self, desk: Desk) -> None:
        """Go along with the newest field, or no longer."""
        if desk.engine.scan is None or not desk.engine.scan.goes_on:
            desk.say("no scan is running here")
        else:
            self.follows, self._camera = not self.follows, None
        desk.touch()

    def step(self, desk: Desk) -> float | None:
        """Before a frame: go along with what came. Seconds until the next look is due; None without a scan."""
        self.gesture = None
        progress = self._progress = desk.engine.scan
        if progress is None:
            return None
        if desk.slide.location != self._location:
            self._location, self.follows, self.contrasts = desk.slide.location, False, False
        desk.engine.show_planned = True
        self._tell(desk, progress)
        waits = [self._next_look(progress), self._contrast(desk, progress)]
        if self.follows:
            waits.append(self._follow(desk, progress))
        return min((wait for wait in waits if wait is not None), default=None)

    def draw(self, desk: Desk, area: Rect) -> None:
        """The counter, in the upper right corner of the picture."""
        progress, self.area = self._progress, None
        if progress is None or _is_over(progress):
            return
        x, y, width, _ = area
        narrow = width < theme.units(NARROW_UNITS)
        imgui.set_next_window_pos((x + width - theme.units(14), y + theme.units(14)), imgui.Cond_.always.value, (1, 0))
        imgui.set_next_window_size((0 if narrow else theme.units(WIDTH_UNITS), 0))
        imgui.push_style_color(imgui.Col_.window_bg.value, (*theme.OVERLAY[:3], OPACITY))
        flags = imgui.WindowFlags_.no_scrollbar.value | imgui.WindowFlags_.no_focus_on_appearing.value
        imgui.begin("scan", None, FIXED | flags)
        try:
            imgui.text(count_text(progress))
            if not narrow:
                self._rest(desk, progress)
        finally:
            imgui.end()
            imgui.pop_style_color()

    def _rest(self, desk: Desk, progress: ScanProgress) -> None:
        if progress.share is not None:
            _bar(progress.share)
        said = state_text(progress)
        if said:
            wrapped(said, theme.TEXT if progress.state == "finished" else theme.WARNING)
        else:
            dim(pace_text(progress))
        if not progress.goes_on:
            return
        left, top = imgui.get_cursor_screen_pos()
        if button("follow the scan", "the view goes where the newest field is, until you move it (f)", lit=self.follows):
            self.toggle_following(desk)
        imgui.same_line()
        changed, self.contrasts = imgui.checkbox("auto contrast", self.contrasts)
        told("auto contrast follows the scan: limits of all that was acquired so far, every two seconds")
        desk.touch(changed)
        right, bottom = imgui.get_item_rect_max()
        self.area = left, top, right - left, bottom - top

    # what goes along

    def _follow(self, desk: Desk, progress: ScanProgress) -> float | None:
        """The newest field into view; hands that move the picture end it."""
        engine = desk.engine
        if self._camera is not None and was_panned(self._camera, engine.camera):
            self.follows = False
            return None
        self._camera = engine.camera
        if progress.newest is None:
            return None
        field, channel, _, t = progress.newest
        if field >= len(engine.geometry.slots):  # it is placed with the frame that takes it in
            return 0.0
        camera = kept_in_view(engine.camera, engine.geometry.box_of(field, channel))
        if camera != engine.camera or t != engine.t:
            engine.camera, engine.t, self.gesture = camera, t, "follow the scan"
            self._camera = camera
        return None

    def _contrast(self, desk: Desk, progress: ScanProgress) -> float | None:
        """Automatic limits while they are asked for; once for channels of which there was nothing when the slide was opened."""
        looks, now = desk.engine.channels, time.monotonic()
        if self._blank is None:
            known = [channel.contrast_limits for channel in desk.slide.channels]
            self._blank = {n for n, look in enumerate(looks) if known[n] is None and look.limits == _NO_PIXELS}
        answer = self._auto_contrast.arrived()
        if answer is not None:
            wanted = self._blank | (set(range(len(looks))) if self.contrasts else set())
            answer = type(answer)({n: limits for n, limits in answer.limits.items() if n in wanted}, answer.told)
            self._blank -= set(answer.limits)
            if apply_limits(answer, looks):
                self.gesture = "auto contrast follows the scan"
        self._blank = {number for number in self._blank if looks[number].limits == _NO_PIXELS}
        channels = [n for n, look in enumerate(looks) if n in self._blank or (self.contrasts and look.visible)]
        due_s = self._contrasted_at + CONTRAST_PERIOD_S - now
        if channels and progress.planes > self._contrasted_planes and not self._auto_contrast.busy:
            if due_s > 0:
                return due_s
            self._contrasted_at, self._contrasted_planes = now, progress.planes
            self._auto_contrast.ask(question_of(desk.engine, channels))
        return CONTRAST_WAIT_S if self._auto_contrast.busy else None

    def _tell(self, desk: Desk, progress: ScanProgress) -> None:
        """A line at the end of a scan."""
        if not progress.goes_on and progress.state != self._said:
            self._said, self.follows, self.contrasts = progress.state, False, False
            said = state_text(progress) if progress.state == "ended early" else f"{state_text(progress)}: {count_text(progress)}"
            desk.say(said, "info" if progress.state == "finished" else "warning")

    @staticmethod
    def _next_look(progress: ScanProgress) -> float | None:
        if progress.ended_s is not None:
            return None if _is_over(progress) else END_SHOWN_S - progress.ended_s
        return TICK_S if progress.silent_s < 100 else SLOW_TICK_S


def _is_over(progress: ScanProgress) -> bool:
    return progress.ended_s is not None and progress.ended_s >= END_SHOWN_S


def _bar(share: float) -> None:
    """A thin line, filled from the left."""
    left, top = imgui.get_cursor_screen_pos()
    width, height = imgui.get_content_region_avail().x, theme.units(3)
    drawn = imgui.get_window_draw_list()
    drawn.add_rect_filled((left, top), (left + width, top + height), packed((1, 1, 1), 0.16))
    drawn.add_rect_filled((left, top), (left + share * width, top + height), packed(theme.ACCENT))
    imgui.dummy((width, height))
