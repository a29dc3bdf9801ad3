"""The window: glfw events in, frames of the engine out. Draws when something changed and sleeps otherwise."""

from __future__ import annotations

import time

import glfw
import numpy as np

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.gl.glfw_window import create_window

DEFAULT_SIZE = (1280, 800)
LOADING_S = 0.1
IDLE_S = 0.5
"""A window with nothing to do looks again after this time: tiles that could not be read are tried again."""

_NAMED_KEYS = {
    glfw.KEY_LEFT: "left",
    glfw.KEY_RIGHT: "right",
    glfw.KEY_UP: "up",
    glfw.KEY_DOWN: "down",
    glfw.KEY_KP_ADD: "+",
    glfw.KEY_KP_SUBTRACT: "-",
    glfw.KEY_KP_0: "kp_0",
    glfw.KEY_KP_5: "kp_5",
    glfw.KEY_ESCAPE: "escape",
    glfw.KEY_F11: "f11",
}
_SHIFTED_DIGITS = {getattr(glfw, f"KEY_{digit}"): str(digit) for digit in range(10)}


def view(slide: Slide, size: tuple[int, int] = DEFAULT_SIZE, **budgets) -> None:
    """Open a window on a slide and return when it is closed. Raises GraphicsError where no window can be had."""
    with MosaicWindow(slide, size, **budgets) as window:
        window.run()


class MosaicWindow:
    """A glfw window with one engine. `run()` until closed, or `step()` by step; from the main thread."""

    def __init__(self, slide: Slide, size: tuple[int, int] = DEFAULT_SIZE, *, visible: bool = True, **budgets):
        self.slide = slide
        self._engine = self._panel = None
        self._window = create_window(_title(slide), size, visible=visible)
        try:
            glfw.swap_interval(1)
            from rawmosaic.viewer.controls import Controls
            from rawmosaic.viewer.engine import Engine

            self._engine = Engine(slide, self._framebuffer_size(), on_arrival=glfw.post_empty_event, **budgets)
            from rawmosaic.viewer.statistics import Statistics

            self._controls = Controls(self._engine)
            self._statistics = Statistics()
        except BaseException:
            self.close()
            raise
        self._dirty = True
        self._warm = False
        self._dragging: str | None = None
        self._handled_key = False
        self._cursor = (0.0, 0.0)
        self._windowed: tuple[int, int, int, int] | None = None
        self._connect()

    @property
    def engine(self):
        """The engine behind the window."""
        return self._engine

    def run(self) -> None:
        """Show the window until it is closed."""
        while not glfw.window_should_close(self._window):
            self.step()

    def step(self) -> None:
        """Handle events, waiting for one if the picture is complete and nothing changed; draw if needed."""
        report = self._engine.report
        if self._dirty or report.tiles_uploaded:
            glfw.poll_events()
        elif not report.complete:
            glfw.wait_events_timeout(LOADING_S)  # an arriving tile ends it
        else:
            self._warm_up()
            glfw.wait_events_timeout(IDLE_S)
        if self._needs_frame() or self._engine.report.tiles_failed:
            self._draw()

    def screenshot(self) -> np.ndarray:
        """(height, width, 4) uint8: what the window shows, drawn anew."""
        from rawmosaic.viewer.gl.api import GL

        self._draw(swap=False)
        width, height = self._engine.size
        pixels = np.empty((height, width, 4), np.uint8)
        GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 1)
        GL.glReadPixels(0, 0, width, height, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, pixels)
        return pixels[::-1]

    def close(self) -> None:
        """Close the window and everything behind it but the slide; closing twice is harmless."""
        if self._window is None:
            return
        glfw.make_context_current(self._window)
        for owned in (self._panel, self._engine):
            if owned is not None:
                owned.close()
        glfw.destroy_window(self._window)
        self._window = None

    def __enter__(self) -> MosaicWindow:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _needs_frame(self) -> bool:
        report = self._engine.report
        return self._dirty or not report.complete or report.tiles_uploaded > 0

    def _warm_up(self) -> None:
        """Once, when the first picture stands."""
        if not self._warm:
            self._warm = True
            self._engine.warm_up(self._target())
            self._changed(True)

    def _target(self):
        from rawmosaic.viewer.renderer import Target

        return Target(0, self._engine.size, top_row_first=False)

    def _draw(self, swap: bool = True) -> None:
        self._dirty = False
        started = time.perf_counter()
        report = self._engine.frame(self._target())
        self._statistics.add(report, time.perf_counter() - started)
        if self._panel is not None:
            self._panel.draw(self._statistics.lines(), self._target())
        if swap:
            glfw.swap_buffers(self._window)
            glfw.set_window_title(self._window, _title(self.slide, self._engine))

    # events

    def _connect(self) -> None:
        window = self._window
        glfw.set_framebuffer_size_callback(window, self._on_resize)
        glfw.set_window_refresh_callback(window, lambda _: self._changed(True))
        glfw.set_scroll_callback(window, self._on_scroll)
        glfw.set_cursor_pos_callback(window, self._on_cursor)
        glfw.set_mouse_button_callback(window, self._on_button)
        glfw.set_key_callback(window, self._on_key)
        glfw.set_char_callback(window, self._on_char)

    def _changed(self, changed: bool) -> None:
        self._dirty = self._dirty or changed

    def _on_resize(self, _window, width: int, height: int) -> None:
        if width > 0 and height > 0:  # a minimised window has no size
            self._engine.resize((width, height))
            self._changed(True)

    def _on_scroll(self, _window, _dx: float, dy: float) -> None:
        self._changed(self._controls.wheel(dy, *self._cursor))

    def _on_cursor(self, _window, x: float, y: float) -> None:
        ratio = self._pixels_per_unit()
        cursor = (x * ratio[0], y * ratio[1])
        moved = (cursor[0] - self._cursor[0], cursor[1] - self._cursor[1])
        self._cursor = cursor
        if self._dragging == "pan":
            self._changed(self._controls.pan(*moved))
        elif self._dragging == "contrast":
            self._changed(self._controls.contrast_drag(*moved))

    def _on_button(self, window, button: int, action: int, _mods: int) -> None:
        if action == glfw.RELEASE:
            self._dragging = None
            return
        space = glfw.get_key(window, glfw.KEY_SPACE) == glfw.PRESS
        contrast = button == glfw.MOUSE_BUTTON_RIGHT and not space
        self._dragging = "contrast" if contrast else "pan"

    def _on_key(self, window, key: int, _scancode: int, action: int, mods: int) -> None:
        self._handled_key = False
        if action == glfw.RELEASE:
            return
        name = _NAMED_KEYS.get(key)
        if mods & glfw.MOD_SHIFT and key in _SHIFTED_DIGITS:
            name = f"shift+{_SHIFTED_DIGITS[key]}"
        self._handled_key = name is not None
        if name == "escape":
            glfw.set_window_should_close(window, True)
        elif name == "f11":
            self._toggle_full_screen()
        elif name is not None:
            self._changed(self._controls.key(name))

    def _on_char(self, window, codepoint: int) -> None:
        """Characters, as the keyboard's own layout gives them; a key of the number pad is both, and acts once."""
        if self._handled_key:
            return
        character = chr(codepoint)
        if character in ("q", "Q"):
            glfw.set_window_should_close(window, True)
        elif character == "?":
            _print_keys()
        elif character == "\\":
            self._toggle_statistics()
        elif character in ("R", "C"):
            self._changed(self._controls.key(f"shift+{character.lower()}"))
        else:
            self._changed(self._controls.key(character.lower()))

    def _toggle_statistics(self) -> None:
        from rawmosaic.viewer.statistics import TextPanel

        if self._panel is None:
            self._panel = TextPanel()
        else:
            self._panel.close()
            self._panel = None
        self._changed(True)

    def _toggle_full_screen(self) -> None:
        window = self._window
        if self._windowed is None:
            self._windowed = (*glfw.get_window_pos(window), *glfw.get_window_size(window))
            monitor = glfw.get_primary_monitor()
            mode = glfw.get_video_mode(monitor)
            glfw.set_window_monitor(window, monitor, 0, 0, mode.size.width, mode.size.height, mode.refresh_rate)
        else:
            glfw.set_window_monitor(window, None, *self._windowed, 0)
            self._windowed = None
        self._changed(True)

    def _framebuffer_size(self) -> tuple[int, int]:
        width, height = glfw.get_framebuffer_size(self._window)
        return max(width, 1), max(height, 1)

    def _pixels_per_unit(self) -> tuple[float, float]:
        """Framebuffer pixels per cursor unit: 2 on a high-resolution Mac screen."""
        width, height = glfw.get_window_size(self._window)
        pixels = self._framebuffer_size()
        return pixels[0] / max(width, 1), pixels[1] / max(height, 1)


def _title(slide: Slide, engine=None) -> str:
    if engine is None:
        return f"{slide.header.name} — rawmosaic"
    camera, parts = engine.camera, [slide.header.name]
    parts.append(f"{camera.pixel_size_um / camera.scale:.3g} µm/px ({100 * camera.scale:.3g} %)")
    for axis, size in (("z", slide.size_z), ("t", slide.size_t)):
        if size > 1:
            parts.append(f"{axis} {getattr(engine, axis) + 1}/{size}")
    parts += [f"{look.name} {look.limits[0]:.0f}–{look.limits[1]:.0f}" for look in engine.channels[:6] if look.visible]
    if engine.report.overview:
        parts.append("overview")
    if engine.report.tiles_missing:
        parts.append(f"loading {engine.report.tiles_missing}")
    if unreadable := len(getattr(slide, "unreadable", ())):
        parts.append(f"{unreadable} planes unreadable")
    if engine.report.tiles_failed:
        parts.append(f"{engine.report.tiles_failed} tiles unreadable")
    return "  ·  ".join(parts)


def _print_keys() -> None:
    from rawmosaic.viewer.controls import KEYS

    width = max(map(len, KEYS))
    print("\n".join(f"{key:<{width}}  {what}" for key, what in KEYS.items()), flush=True)
