"""Names of keys, as `controls.KEYS` knows them, from what glfw tells: the same on every keyboard layout. Pure but for `printed`.

A letter or a sign is what the layout makes of it; Shift counts for letters (``shift+a``, with or without Caps Lock), not for
signs, which a layout may have anywhere. The row above the letters is digits by where the keys lie: a French keyboard writes
them with Shift only, and Shift means something else here. Where a layout has other letters (Greek, Cyrillic, …) the place of
the key on an American keyboard counts, as it does in other programs there.
"""

from __future__ import annotations

import unicodedata

import glfw

NAMED = {
    glfw.KEY_LEFT: "left",
    glfw.KEY_RIGHT: "right",
    glfw.KEY_UP: "up",
    glfw.KEY_DOWN: "down",
    glfw.KEY_PAGE_UP: "pageup",
    glfw.KEY_PAGE_DOWN: "pagedown",
    glfw.KEY_KP_ADD: "+",
    glfw.KEY_KP_SUBTRACT: "-",
    glfw.KEY_KP_0: "kp_0",
    glfw.KEY_KP_5: "kp_5",
    glfw.KEY_ESCAPE: "escape",
    glfw.KEY_ENTER: "enter",
    glfw.KEY_KP_ENTER: "enter",
    glfw.KEY_DELETE: "delete",
    glfw.KEY_BACKSPACE: "backspace",
    glfw.KEY_F11: "f11",
    glfw.KEY_TAB: "tab",
}
"""Keys that write nothing, and those of the number pad that mean more than what they write."""

DIGITS = {getattr(glfw, f"KEY_{digit}"): digit for digit in range(10)}


def printed(key: int, scancode: int) -> str:
    """What the layout writes with a key and nothing held, in lower case; empty for keys that write nothing."""
    return (glfw.get_key_name(key, scancode) or "").lower()


def american(key: int) -> str:
    """What an American keyboard has there; empty for keys that write nothing."""
    return chr(key).lower() if 32 < key < 97 else ""


def latin(character: str, key: int) -> str:
    """The character, or what lies there on an American keyboard if it is a letter of another script."""
    return american(key) or character if is_foreign(character) else character


def is_foreign(character: str) -> bool:
    """Whether a character is a letter, but none of ours: of another script, or µ and the like."""
    return len(character) == 1 and character.isalpha() and not unicodedata.name(character, "").startswith("LATIN")


def of_character(character: str, key: int, shift: bool) -> str:
    """The name of a key by the character that it wrote; `key`: which one, glfw.KEY_UNKNOWN if that is not known."""
    character = latin(character, key)
    return f"shift+{character.lower()}" if shift and character.isalpha() else character.lower()


def digit_of(key: int, printed_there: str) -> int | None:
    """The digit of a key of the row above the letters: what it writes, or else by its place; None for other keys."""
    if key not in DIGITS:
        return None
    return int(printed_there) if printed_there.isascii() and printed_there.isdecimal() else DIGITS[key]


def command_of(key: int, printed_there: str, shift: bool) -> str:
    """The name of a key that is pressed with Ctrl (or Command)."""
    digit = digit_of(key, printed_there)
    name = NAMED.get(key) or (latin(printed_there, key) or american(key) if digit is None else str(digit))
    return f"ctrl+shift+{name}" if shift else f"ctrl+{name}"


def letter_key(key: int, printed_there: str) -> int:
    """glfw's number of a letter by what is printed on the key, as text fields want it; other keys as they are."""
    there = latin(printed_there, key)
    return ord(there.upper()) if len(there) == 1 and "a" <= there <= "z" else key
