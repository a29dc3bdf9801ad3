"""Dear ImGui on a glfw window: events in, panels out. One owner, one GL context; knows no panel and no slide.

Sizes are told in *units*: 1 unit is one pixel of a screen at 100 %, two of one at 200 %.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import glfw
from imgui_bundle import imgui

from rawmosaic.viewer.ui import theme

MOST_FRAMES = 60
SETTLE_FRAMES = 3
"""ImGui needs a few frames after an event until hovering, fading and layout have settled."""

_KEYS = {
    glfw.KEY_TAB: imgui.Key.tab,
    glfw.KEY_LEFT: imgui.Key.left_arrow,
    glfw.KEY_RIGHT: imgui.Key.right_arrow,
    glfw.KEY_UP: imgui.Key.up_arrow,
    glfw.KEY_DOWN: imgui.Key.down_arrow,
    glfw.KEY_PAGE_UP: imgui.Key.page_up,
    glfw.KEY_PAGE_DOWN: imgui.Key.page_down,
    glfw.KEY_HOME: imgui.Key.home,
    glfw.KEY_END: imgui.Key.end,
    glfw.KEY_INSERT: imgui.Key.insert,
    glfw.KEY_DELETE: imgui.Key.delete,
    glfw.KEY_BACKSPACE: imgui.Key.backspace,
    glfw.KEY_SPACE: imgui.Key.space,
    glfw.KEY_ENTER: imgui.Key.enter,
    glfw.KEY_KP_ENTER: imgui.Key.keypad_enter,
    glfw.KEY_ESCAPE: imgui.Key.escape,
    **{getattr(glfw, f"KEY_{letter}"): getattr(imgui.Key, letter.lower()) for letter in "ACVXYZ"},
}
_MODS = (
    (glfw.MOD_CONTROL, imgui.Key.mod_ctrl),
    (glfw.MOD_SHIFT, imgui.Key.mod_shift),
    (glfw.MOD_ALT, imgui.Key.mod_alt),
    (glfw.MOD_SUPER, imgui.Key.mod_super),
)
_MOD_KEYS = {
    getattr(glfw, f"KEY_{side}_{name}"): mod
    for side in ("LEFT", "RIGHT")
    for name, mod in (
        ("CONTROL", imgui.Key.mod_ctrl),
        ("SHIFT", imgui.Key.mod_shift),
        ("ALT", imgui.Key.mod_alt),
        ("SUPER", imgui.Key.mod_super),
    )
}


class Layer:
    """ImGui's context for one window. `draw` builds and draws a frame; the `on_…` methods take the window's events.

    Keys are for panels while somebody types or a list is open, else for the window: arrows and Space that did both would move the
    picture and switch whatever was clicked last. The methods for keys return whether they were for a panel.
    """

    def __init__(self, window):
        self._window = window
        self._context = imgui.create_context()
        self._renders = False
        self._pointers: dict[int, object] = {}
        self._pointer = glfw.ARROW_CURSOR
        imgui.set_current_context(self._context)
        io = imgui.get_io()
        io.set_ini_filename("")
        io.config_flags |= imgui.ConfigFlags_.nav_enable_keyboard.value
        platform = imgui.get_platform_io()
        platform.platform_get_clipboard_text_fn = lambda _: _text(glfw.get_clipboard_string(None))
        platform.platform_set_clipboard_text_fn = lambda _, text: glfw.set_clipboard_string(None, text)
        io.fonts.add_font_from_file_ttf(str(_font()), theme.FONT_UNITS)
        theme.apply()
        if not imgui.backends.opengl3_init("#version 330"):
            raise RuntimeError("Dear ImGui does not start on this OpenGL")
        self._renders = True
        self._at = time.monotonic()
        self.frames_due = SETTLE_FRAMES

    def draw(self, size_px: tuple[int, int], scale: float, build: Callable[[], None]) -> None:
        """Build the panels with `build` and draw them over what the window's framebuffer holds. `scale`: pixels per unit."""
        imgui.set_current_context(self._context)
        io, now = imgui.get_io(), time.monotonic()
        io.display_size = imgui.ImVec2(*size_px)
        io.delta_time = min(max(now - self._at, 1e-4), 0.1)
        self._at = now
        theme.scale_to(scale)
        imgui.backends.opengl3_new_frame()
        imgui.new_frame()
        try:
            build()
        finally:
            imgui.render()  # also after an error, so that the next frame begins with a clean slate
        imgui.backends.opengl3_render_draw_data(imgui.get_draw_data())
        self.frames_due = max(self.frames_due - 1, 0)
        self._show_cursor()

    def make_current(self) -> None:
        """Widgets, sizes and styles are this window's from now on."""
        imgui.set_current_context(self._context)

    def close(self) -> None:
        """Delete the GL objects and the context; closing twice is harmless."""
        if self._context is None:
            return
        imgui.set_current_context(self._context)
        if self._renders:
            imgui.backends.opengl3_shutdown()
        imgui.destroy_context(self._context)
        self._context = None
        glfw.set_cursor(self._window, None)
        for pointer in self._pointers.values():
            glfw.destroy_cursor(pointer)
        self._pointers.clear()

    # events

    def on_cursor(self, x_px: float, y_px: float) -> None:
        """The cursor is there, window pixels."""
        self._io().add_mouse_pos_event(x_px, y_px)

    def on_cursor_left(self) -> None:
        """The cursor left the window."""
        self._io().add_mouse_pos_event(-1e9, -1e9)

    def on_button(self, button: int, pressed: bool) -> None:
        """A mouse button, by glfw's number."""
        if 0 <= button < 5:
            self._io(1).add_mouse_button_event(button, pressed)

    def on_scroll(self, dx: float, dy: float) -> None:
        """The wheel, or two fingers."""
        self._io().add_mouse_wheel_event(dx, dy)

    def on_key(self, key: int, pressed: bool, mods: int) -> bool:
        """A key, by glfw's number; a letter by what is printed on it."""
        io = self._io(1)
        own = _MOD_KEYS.get(key)  # what X11 says of a modifier's own key is how things were before
        for bit, mod in _MODS:
            io.add_key_event(mod, pressed if mod == own else bool(mods & bit))
        taken = self._takes_keys(io)
        if key in _KEYS and (taken or not pressed):
            io.add_key_event(_KEYS[key], pressed)
        return taken

    def on_character(self, codepoint: int) -> bool:
        """A typed character."""
        io = self._io(1)
        taken = self._takes_keys(io)
        if taken:
            io.add_input_character(codepoint)
        return taken

    @staticmethod
    def _takes_keys(io: imgui.IO) -> bool:
        return io.want_text_input or imgui.is_popup_open("", imgui.PopupFlags_.any_popup.value)

    def on_focus(self, focused: bool) -> None:
        """The window gained or lost the keyboard."""
        self._io().add_focus_event(focused)

    @property
    def wants_mouse(self) -> bool:
        """Whether the cursor is over a panel, or drags one of its widgets."""
        imgui.set_current_context(self._context)
        return imgui.get_io().want_capture_mouse

    @property
    def is_held(self) -> bool:
        """Whether a widget is being dragged or typed into."""
        imgui.set_current_context(self._context)
        return imgui.is_any_item_active()

    @property
    def wants_text(self) -> bool:
        """Whether somebody types into a panel."""
        imgui.set_current_context(self._context)
        return imgui.get_io().want_text_input

    def _io(self, frames: int = 0) -> imgui.IO:
        """ImGui takes presses and letters in one by one, a frame each: `frames` more than it needs to settle."""
        imgui.set_current_context(self._context)
        self.frames_due = min(max(self.frames_due, SETTLE_FRAMES) + frames, MOST_FRAMES)
        return imgui.get_io()

    def _show_cursor(self) -> None:
        """The pointer's shape where a panel asks for one; the picture's own is the window's business."""
        if not imgui.get_io().want_capture_mouse:
            return
        wanted = imgui.get_mouse_cursor()
        shape = {
            imgui.MouseCursor_.text_input.value: glfw.IBEAM_CURSOR,
            imgui.MouseCursor_.resize_ew.value: glfw.HRESIZE_CURSOR,
            imgui.MouseCursor_.resize_ns.value: glfw.VRESIZE_CURSOR,
            imgui.MouseCursor_.hand.value: glfw.HAND_CURSOR,
        }.get(int(wanted), glfw.ARROW_CURSOR)
        self.set_pointer(shape)

    def set_pointer(self, shape: int) -> None:
        """Show one of glfw's standard pointers over the window."""
        if shape == self._pointer:
            return
        if shape not in self._pointers:
            self._pointers[shape] = glfw.create_standard_cursor(shape)
        glfw.set_cursor(self._window, self._pointers[shape])
        self._pointer = shape


def _font() -> Path:
    """A legible font with Greek and Latin letters that comes with imgui-bundle."""
    package = importlib.util.find_spec("imgui_bundle")
    return Path(package.origin).parent / "assets" / "fonts" / "DroidSans.ttf"


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
