"""Fonts for figures: the first on this machine that can write what is to be written.

Pillow brings a font, but one without µ or Greek. Letters that no font has are spelled with others, so nothing shows as a box.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "Helvetica.ttc",
)
_MOST_COMPLETE = ("Arial Unicode.ttf", "msyh.ttc", "NotoSansCJK-Regular.ttc")
_OTHERWISE = {"µ": "u", "μ": "u", "×": "x", "–": "-", "—": "-", "·": "."}
_NOWHERE = "\U0010ffff"
_PROBE_PX = 32


@dataclass(frozen=True)
class Letters:
    """A font by its file (None: Pillow's own), at any size."""

    path: str | None

    def font(self, size_px: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """The font at a height of so many pixels."""
        return _font(self.path, max(1, round(size_px)))

    def lacks(self, letter: str) -> bool:
        """Whether the font has no picture of a letter."""
        return _lacks(self.path, letter)

    def spelled(self, text: str) -> str:
        """The text in letters that the font has."""
        return "".join(_OTHERWISE.get(letter, "?") if self.lacks(letter) else letter for letter in text)


def letters_for(texts: Iterable[str]) -> Letters:
    """The first font with all letters of the texts; else the one that lacks the fewest."""
    needed = {letter for text in texts for letter in text if not letter.isspace()}
    candidates = [Letters(path) for path in _font_files()]
    return min(candidates, key=lambda letters: sum(map(letters.lacks, needed)))  # the first of equals


@cache
def _font_files() -> tuple[str | None, ...]:
    """What can be opened here, best first."""
    package = importlib.util.find_spec("imgui_bundle")  # the font of the window's panels
    bundled = [str(Path(package.origin).parent / "assets" / "fonts" / "DroidSans.ttf")] if package and package.origin else []
    found: list[str | None] = [name for name in (*bundled, *_SYSTEM_FONTS, *_MOST_COMPLETE) if _opens(name)]
    return (*found, None)


def _opens(name: str) -> bool:
    try:
        ImageFont.truetype(name, _PROBE_PX)
    except (OSError, ImportError):  # not here; or a Pillow without FreeType
        return False
    return True


@lru_cache(maxsize=32)
def _font(path: str | None, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px) if path is None else ImageFont.truetype(path, size_px)


@cache
def _lacks(path: str | None, letter: str) -> bool:
    """A font draws all letters that it does not have alike."""
    font = _font(path, _PROBE_PX)
    try:
        return bytes(font.getmask(letter)) == bytes(font.getmask(_NOWHERE))
    except UnicodeError:  # Pillow's bitmap font knows Latin letters only
        return True
