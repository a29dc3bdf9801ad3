"""The keyboard of a window: first for whoever types, then for the annotations' hand, then by name for the window and the view.

glfw tells of a key, and then of the character that it wrote, if any. Keys that write nothing, digits and commands are known by
the first; all others by the second, so that they are what is printed on the keyboard (key_names.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import glfw

from rawmosaic.viewer import key_names

if TYPE_CHECKING:
    from rawmosaic.viewer.window import MosaicWindow

REPEATING = frozenset({"left", "right", "up", "down", "+", "=", "-", ",", ".", "[", "]", "ctrl+z", "ctrl+y", "ctrl+shift+z"})
"""What a key that is held does again and again; all others act once."""

_COMMANDS = {
    "ctrl+o": "open",
    "ctrl+s": "screenshot",
    "ctrl+e": "figure",
    "ctrl+g": "go to",
    "ctrl+z": "undo",
    "ctrl+shift+z": "redo",
    "ctrl+y": "redo",
}
"""Name of a key → name in the desk's table of actions."""

_EDITING = ("escape", "enter", "delete", "backspace")

_SHOWN = {"?": "keys", "\\": "statistics", "b": "scale_bar", "m": "minimap", "a": "annotations"}
"""Name of a key → what of the desk it shows and hides."""

_SCENES = {"pagedown": 1, "n": 1, "pageup": -1, "shift+n": -1}

NO_DETECTIONS = "no detections are kept with this slide"


class Keyboard:
    """The keys of one window. `on_key` and `on_char` are glfw's callbacks."""

    def __init__(self, window: MosaicWindow):
        self._window = window
        self._pressed, self._shift, self._alt = glfw.KEY_UNKNOWN, False, False
        self._handled = self._repeats = False
        self._does: dict[str, Callable[[], object]] = {
            "escape": self._escape,
            "q": window.ask_to_close,
            "f11": window.toggle_full_screen,
            "tab": window.toggle_side,
            "shift+c": self._toggle_contrast,
            "c": self._find_limits,
            "d": self._toggle_detections,
            "f": lambda: self._do("follow the scan"),
            **{key: lambda name=name: self._toggle(name) for key, name in _SHOWN.items()},
            **{key: lambda name=name: self._do(name) for key, name in _COMMANDS.items()},
            **{key: lambda step=step: self._go_to_scene(step) for key, step in _SCENES.items()},
        }

    def on_key(self, handle, key: int, scancode: int, action: int, mods: int) -> None:
        """A key went down, is held, or came up."""
        window, pressed = self._window, action != glfw.RELEASE
        printed = key_names.printed(key, scancode) if key != glfw.KEY_UNKNOWN else ""
        letter = key_names.letter_key(key, printed)
        taken = window.panels is not None and window.panels.layer.on_key(letter, pressed, mods)
        self._handled = taken and key != glfw.KEY_F11
        if not pressed or self._handled:
            return
        self._pressed, self._repeats = key, action == glfw.REPEAT
        self._shift = bool(mods & glfw.MOD_SHIFT)
        # AltGr writes the third sign of a key; Windows tells it as Ctrl and Alt
        self._alt = bool(mods & glfw.MOD_ALT) or glfw.get_key(handle, glfw.KEY_RIGHT_ALT) == glfw.PRESS
        name = self._name(key, printed, mods)
        self._handled = name is not None
        if name is not None:
            self._act(name)

    def on_char(self, _handle, codepoint: int) -> None:
        """A character was written."""
        character = chr(codepoint)
        typing = self._window.panels is not None and self._window.panels.layer.on_character(codepoint)
        if not (self._handled or typing):
            self._act(key_names.of_character(character, glfw.KEY_UNKNOWN if self._alt else self._pressed, self._shift))

    def _name(self, key: int, printed: str, mods: int) -> str | None:
        """The name of a key, if it is not the character that says it."""
        if mods & (glfw.MOD_CONTROL | glfw.MOD_SUPER) and not self._alt:
            return key_names.command_of(key, printed, self._shift)
        digit = None if self._alt else key_names.digit_of(key, printed)
        if digit is not None and self._means_something(digit):
            return f"shift+{digit}" if self._shift else str(digit)
        return key_names.NAMED.get(key)

    def _means_something(self, digit: int) -> bool:
        """Whether a digit is a channel or a scale; else what the key writes counts, which is a sign on some keyboards."""
        return 1 <= digit <= len(self._window.engine.channels) or (digit in (0, 5) and not self._shift)

    def _act(self, name: str) -> None:
        if self._repeats and name not in REPEATING:
            return
        window = self._window
        board = window.desk.board
        if name in _EDITING and board is not None and board.editor.key(name):
            window.redraw()
            return
        plain = name.removeprefix("shift+")  # a letter that Shift does not turn into something else
        does = self._does.get(name) or (self._does.get(plain) if plain.isalpha() else None)
        if does is not None:
            does()
            window.redraw()
        else:
            window.redraw(window.controls.key(name) or (plain != name and plain.isalpha() and window.controls.key(plain)))

    # what keys do to the window

    def _escape(self) -> None:
        """Close what lies on top, else leave the full screen, else close the window."""
        shown = self._window.desk.shown
        if shown.keys or shown.messages:
            shown.keys = shown.messages = False
        elif self._window.is_full_screen:
            self._window.toggle_full_screen()
        else:
            self._window.ask_to_close()

    def _toggle(self, name: str) -> None:
        shown = self._window.desk.shown
        setattr(shown, name, not getattr(shown, name))
        self._window.keep_preferences()

    def _toggle_contrast(self) -> None:
        shown = self._window.desk.shown
        shown.side, shown.contrast = True, not (shown.side and shown.contrast)

    def _toggle_detections(self) -> None:
        if not self._do("detections"):
            self._window.desk.say(NO_DETECTIONS)

    def _find_limits(self) -> None:
        self._window.desk.act["auto slide"](list(range(len(self._window.engine.channels))))

    def _go_to_scene(self, step: int) -> None:
        from rawmosaic.viewer.scenes import next_scene

        window = self._window
        engine, scenes = window.engine, window.slide.scenes
        if not scenes:
            window.desk.say("this slide has no wells or scenes to go through")
        elif (found := next_scene(window.slide, engine.geometry, engine.camera, step)) is None:
            window.desk.say(f"there is nothing {'after the last' if step > 0 else 'before the first'} scene")
        else:
            number, engine.camera = found
            window.desk.say(f"{scenes[number]} ({number + 1} of {len(scenes)})")

    def _do(self, name: str) -> bool:
        """What the desk's table has under a name; whether it has."""
        action = self._window.desk.act.get(name)
        if action is not None:
            action()
        return action is not None
