"""What a window hears of the mouse and of itself: first for the panels, then for the annotations' hand, then for the view."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import glfw

from rawmosaic.viewer.saved_state import ENDING

if TYPE_CHECKING:
    from rawmosaic.viewer.window import MosaicWindow

PAN_PX = 40.0
"""What a step of the wheel pans by, where it pans."""

DOUBLE_CLICK_S = 0.5
DOUBLE_CLICK_PX = 5.0

_CTRL_KEYS = (glfw.KEY_LEFT_CONTROL, glfw.KEY_RIGHT_CONTROL, glfw.KEY_LEFT_SUPER, glfw.KEY_RIGHT_SUPER)
_ALT_KEYS = (glfw.KEY_LEFT_ALT, glfw.KEY_RIGHT_ALT)
_SHIFT_KEYS = (glfw.KEY_LEFT_SHIFT, glfw.KEY_RIGHT_SHIFT)


class Events:
    """The hands on one window: where the cursor is, what is being dragged. The `on_…` methods are glfw's callbacks."""

    def __init__(self, window: MosaicWindow):
        self._window = window
        self.cursor = (-1.0, -1.0)
        """Window pixels; negative outside."""
        self.gesture: str | None = None
        """What kind of thing the hands did since it was last set to None, as `History` wants to know it."""
        self._dragging: str | None = None
        self._button = -1
        self._panned = self._hand_pressed = False
        self._pressed_at = (-1e9, 0.0, 0.0)

    def connect(self) -> None:
        """Hear of them from now on."""
        handle = self._window.handle
        glfw.set_framebuffer_size_callback(handle, self.on_resize)
        glfw.set_window_content_scale_callback(handle, self.on_content_scale)
        glfw.set_window_refresh_callback(handle, lambda _: self._window.redraw())
        glfw.set_scroll_callback(handle, self.on_scroll)
        glfw.set_cursor_pos_callback(handle, self.on_cursor)
        glfw.set_cursor_enter_callback(handle, self.on_enter)
        glfw.set_mouse_button_callback(handle, self.on_button)
        glfw.set_key_callback(handle, self._window.keyboard.on_key)
        glfw.set_char_callback(handle, self._window.keyboard.on_char)
        glfw.set_window_focus_callback(handle, self.on_focus)
        glfw.set_drop_callback(handle, self.on_drop)

    @property
    def is_dragging(self) -> bool:
        """Whether the picture, its contrast or an annotation is being dragged."""
        return self._dragging is not None

    # the window

    def on_resize(self, _handle, width: int, height: int) -> None:
        """It has another size, pixels."""
        if self._window.sizes.resized(width, height):
            self._window.fit_picture()
            self._window.redraw()

    def on_content_scale(self, _handle, x_scale: float, _y_scale: float) -> None:
        """It is on a screen of another resolution."""
        self._window.sizes.rescaled(x_scale)
        self._window.fit_picture()
        self._window.redraw()

    def on_focus(self, _handle, focused: int) -> None:
        """It gained or lost the keyboard."""
        if self._window.panels is not None:
            self._window.panels.layer.on_focus(bool(focused))

    def on_drop(self, _handle, paths: list[str]) -> None:
        """Files or folders were dropped onto it: the first is opened; if it is a display state, it is given as a preset."""
        if paths and self._window.panels is not None and paths[0].endswith(ENDING):
            self._window.desk.act["give looks"](paths[0])
        elif paths:
            self._window.open(paths[0])

    # the mouse

    def on_enter(self, _handle, entered: int) -> None:
        """The cursor came in or left."""
        if not entered:
            self.cursor = (-1.0, -1.0)
            if self._window.panels is not None:
                self._window.panels.layer.on_cursor_left()

    def on_scroll(self, handle, dx: float, dy: float) -> None:
        """The wheel, or two fingers: zoom at the cursor, or pan, as the user prefers."""
        window = self._window
        if window.panels is not None:
            window.panels.layer.on_scroll(dx, dy)
        if not window.is_over_picture():
            return
        self.gesture = "wheel"
        sign = -1.0 if window.preferences.invert else 1.0
        ctrl, shift = (_is_down(handle, keys) for keys in (_CTRL_KEYS, _SHIFT_KEYS))
        if not ctrl and (shift or window.preferences.scroll == "pan"):
            if shift and not dx:
                dx, dy = dy, 0.0
            window.redraw(window.controls.pan(sign * dx * PAN_PX, sign * dy * PAN_PX))
        else:  # fingers that pinch come as a wheel with Ctrl
            window.redraw(window.controls.wheel(sign * dy, *window.in_picture(*self.cursor)))

    def on_cursor(self, _handle, x: float, y: float) -> None:
        """The cursor is there, screen units."""
        window, ratio = self._window, self._window.sizes.cursor_ratio
        cursor = (x * ratio[0], y * ratio[1])
        moved = (cursor[0] - self.cursor[0], cursor[1] - self.cursor[1])
        self.cursor = cursor
        if window.panels is not None:
            window.panels.layer.on_cursor(*cursor)
        if self._dragging == "pan":
            self._panned = True
            window.redraw(window.controls.pan(*moved))
        elif self._dragging == "contrast":
            window.redraw(window.controls.contrast_drag(*moved))
        elif self._dragging == "draw" or window.is_over_picture():
            self._hand("move")

    def on_button(self, handle, button: int, action: int, _mods: int) -> None:
        """A mouse button went down or up. One drag at a time: other buttons do nothing meanwhile."""
        pressed = action != glfw.RELEASE
        if self._window.panels is not None:
            self._window.panels.layer.on_button(button, pressed)
        if not pressed:
            self._release(button)
        elif self._dragging is None and self._window.is_over_picture():
            self._press(button, space=glfw.get_key(handle, glfw.KEY_SPACE) == glfw.PRESS)

    def _press(self, button: int, *, space: bool) -> None:
        self._button, self._panned = button, False
        self._hand_pressed = button == glfw.MOUSE_BUTTON_LEFT and not space
        if self._hand_pressed:
            double = self._is_double_click()
            if self._hand("double_click" if double else "press"):
                self._dragging = "draw"
                return
            if double:
                self._window.fill_with_field()
                return
        self._dragging = "contrast" if button == glfw.MOUSE_BUTTON_RIGHT and not space else "pan"

    def _release(self, button: int) -> None:
        if self._dragging is None or button != self._button:
            return
        if self._hand_pressed:
            self._hand("release", panned=self._panned)
        self._dragging = None

    def _hand(self, event: str, **more) -> bool:
        """Tell the annotations' editor of the mouse; whether it took the event."""
        window, board = self._window, self._window.desk.board
        if board is None or not window.desk.shown.annotations:
            return False
        from rawmosaic.viewer.ui.board import TOLERANCE_UNITS

        camera = window.engine.camera
        place = camera.to_mosaic(*window.in_picture(*self.cursor))
        tolerance_um = TOLERANCE_UNITS * window.sizes.pixels_per_unit / camera.px_per_um
        held = (("shift", _SHIFT_KEYS), ("ctrl", _CTRL_KEYS), ("alt", _ALT_KEYS))
        mods = [name for name, keys in held if _is_down(window.handle, keys)]
        taken = getattr(board.editor, event)(*place, tolerance_um, mods, **more)
        window.redraw(taken)
        return taken

    def _is_double_click(self) -> bool:
        now, (before, x, y) = time.monotonic(), self._pressed_at
        near = abs(x - self.cursor[0]) + abs(y - self.cursor[1]) < DOUBLE_CLICK_PX * self._window.sizes.pixels_per_unit
        double = now - before < DOUBLE_CLICK_S and near
        self._pressed_at = (-1e9, 0.0, 0.0) if double else (now, *self.cursor)
        return double


def _is_down(handle, keys: tuple[int, ...]) -> bool:
    return any(glfw.get_key(handle, key) == glfw.PRESS for key in keys)
