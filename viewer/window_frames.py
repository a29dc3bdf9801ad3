"""Frames of a window: the engine's picture, the panels over it, and when the next one is due."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import glfw
import numpy as np

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.zoom import digits

if TYPE_CHECKING:
    from rawmosaic.viewer.engine import Engine
    from rawmosaic.viewer.renderer import Target
    from rawmosaic.viewer.window import MosaicWindow

LOADING_S = 0.1


class Frames:
    """Draws one window, and knows whether there is something new to see. GL thread, the window's context current."""

    def __init__(self, window: MosaicWindow):
        self._window = window
        self.begin_anew()

    def begin_anew(self) -> None:
        """Another slide is shown from now on."""
        self._warm, self._wake_at, self._dirty = False, math.inf, True
        self._title, self._not_taken = "", 0

    def wanted(self) -> None:
        """The next frame differs from the last."""
        self._dirty = True

    @property
    def is_due(self) -> bool:
        """Whether a frame would show something new."""
        report, panels = self._window.engine.report, self._window.panels
        panels_move = panels is not None and panels.layer.frames_due > 0
        wakes = time.monotonic() >= self._wake_at
        arriving = not report.complete or report.tiles_uploaded > 0 or self._window.engine.wants_frame or self._minimap_grows
        return self._dirty or panels_move or wakes or arriving

    @property
    def _minimap_grows(self) -> bool:
        """Whether more of the minimap arrived since the last frame; what that had no room for is not tried again and again."""
        shown = self._window.panels is not None and self._window.desk.shown.minimap
        return shown and self._window.engine.overview_tiles_arrived > self._not_taken

    def may_rest_s(self, idle_s: float) -> float:
        """Seconds that may pass without an event before the next frame, at most `idle_s`; 0 if it is due."""
        report, panels = self._window.engine.report, self._window.panels
        if self._dirty or report.tiles_uploaded or (panels is not None and panels.layer.frames_due):
            return 0.0
        if not report.complete:
            return LOADING_S  # an arriving tile ends it
        self._warm_up()
        return 0.0 if self._dirty else max(min(self._wake_at - time.monotonic(), idle_s), 1e-3)

    def draw(self) -> None:
        """One frame, shown."""
        self._dirty = False
        started = time.perf_counter()
        window = self._window
        window.fit_picture()
        desk, panels, engine = window.desk, window.panels, window.engine
        if panels is not None:
            panels.layer.make_current()
        wake = []
        if panels is not None:
            wake += [panels.stack.step(desk), panels.scan.step(desk)]
            window.events.gesture = window.events.gesture or panels.scan.gesture
        report = engine.frame(self._target())
        self._not_taken = engine.overview_tiles_arrived
        desk.statistics.add(report, time.perf_counter() - started)
        if panels is not None:
            wake += self._draw_panels()
        self._wake_at = time.monotonic() + min((seconds for seconds in wake if seconds is not None), default=math.inf)
        glfw.swap_buffers(window.handle)
        self._show_title(title(window.slide, engine))

    def _show_title(self, text: str) -> None:
        if text != self._title:  # the window system takes up to half a millisecond
            self._title = text
            glfw.set_window_title(self._window.handle, text)

    def _draw_panels(self) -> list[float | None]:
        """The panels over the picture, and what follows from them; the seconds in which each wants another frame."""
        window = self._window
        desk, panels, wake = window.desk, window.panels, []
        if desk.shown.minimap:
            wake.append(panels.minimap.refresh(desk))
        self._target().bind()
        panels.draw(desk, window.sizes.size_px, window.sizes.pixels_per_unit)
        window.redraw(desk.picture_changed)
        desk.picture_changed = False
        wake.append(desk.wants_frame_in())
        wake.append(desk.board.save_when_due(window.later))
        wake.append(panels.figure.step(desk))
        window.note_hands()
        return wake

    def screenshot(self) -> np.ndarray:
        """(height, width, 4) uint8: the picture drawn anew, without panels."""
        from rawmosaic.viewer.gl.api import GL

        self._window.engine.frame(self._target())
        width, height = self._window.engine.size
        pixels = np.empty((height, width, 4), np.uint8)
        GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 1)
        GL.glReadPixels(0, 0, width, height, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, pixels)
        self._dirty = True
        return pixels[::-1]

    def _warm_up(self) -> None:
        """Once, when the first picture stands."""
        if not self._warm:
            glfw.make_context_current(self._window.handle)
            self._warm = True
            self._window.engine.warm_up(self._target())
            self._dirty = True

    def _target(self) -> Target:
        from rawmosaic.viewer.renderer import Target

        return Target(0, self._window.engine.size, top_row_first=False)


def title(slide: Slide, engine: Engine | None = None) -> str:
    """The window's title: the slide's name, z and t where there are several, the scale, what cannot be read, who is away."""
    parts = [slide.header.name]
    if engine is not None:
        for axis, size in (("z", slide.size_z), ("t", slide.size_t)):
            if size > 1:
                parts.append(f"{axis} {getattr(engine, axis) + 1}/{size}")
        parts.append(f"{digits(100 * engine.camera.scale)} %")
        if unreadable := len(getattr(slide, "unreadable", ())):
            parts.append(f"{unreadable} planes unreadable")
        if slide.away:
            parts.append(f"{slide.away} does not answer")
    return "  ·  ".join(parts) + " — rawmosaic"
