"""How channels look: limits, gamma, colour, visibility; automatic contrast and colours from the slide."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.slide import Channel
from rawmosaic.viewer.palettes import wavelength_color

AUTO_CONTRAST_TAIL = 0.001
"""Share of acquired pixels outside automatic limits, on each side."""

SMALLEST_AUTO_RANGE = 16
"""Counts between automatic limits at least, so that an empty slide shows black and not its stretched noise."""

NUCLEAR_STAINS = ("dapi", "hoechst", "draq")
COLOR_ORDER = ("#00ff00", "#ff00ff", "#00ffff", "#ffff00", "#ff8000", "#ffffff", "#ff0000", "#0000ff")
NAMED_COLORS = {
    "red": "#ff0000",
    "green": "#00ff00",
    "blue": "#0000ff",
    "cyan": "#00ffff",
    "magenta": "#ff00ff",
    "yellow": "#ffff00",
    "orange": "#ff8000",
    "white": "#ffffff",
    "grey": "#ffffff",
    "gray": "#ffffff",
}
_HEX_COLOR = re.compile("[0-9a-fA-F]{3}|[0-9a-fA-F]{6}")


@dataclass
class ChannelView:
    """The looks of one channel. `limits` in raw counts, `color` as ``#rrggbb``; l̂ = clamp((l − low) / (high − low))^gamma.

    `column`: the channel's column of the mixer matrix where that is no plain colour: any (r, g, b), also above one or negative.
    Giving the channel a colour sets it back to None. `label`: what the user calls it; `name` is the slide's and stays.
    """

    name: str
    limits: tuple[float, float]
    color: str
    gamma: float = 1.0
    visible: bool = True
    column: tuple[float, float, float] | None = None
    label: str = ""

    @property
    def shown_name(self) -> str:
        """What panels and legends call it: the user's label, or the slide's name."""
        return self.label or self.name

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "color":  # whoever picks a colour sees it
            super().__setattr__("column", None)

    def shader_limits(self) -> tuple[float, float, float]:
        """(I_inf, 1 / (I_sup − I_inf), gamma); equal limits make a step, upside-down ones an inverted picture."""
        low, high = self.limits
        width = high - low
        return float(low), 1.0 / (width if abs(width) > 1e-6 else 1e-6), float(self.gamma)

    def rgb(self) -> tuple[float, float, float]:
        """The channel's column of the mixer matrix; 0 to 1 where it is a colour."""
        return parse_color(self.color) if self.column is None else self.column


def mixer_matrix(looks: Sequence[ChannelView]) -> np.ndarray:
    """M, (3, n) float64: one column per channel, display-referred (r, g, b): its colour, 0 to 1, or what was set by hand."""
    return np.array([look.rgb() for look in looks], np.float64).reshape(-1, 3).T


def status_matrix(looks: Sequence[ChannelView]) -> np.ndarray:
    """S, (n, n) float64: the diagonal of channels shown (1) and hidden (0). The picture is rgb = M · S · l̂."""
    return np.diag([float(look.visible) for look in looks])


def parse_color(color: str) -> tuple[float, float, float]:
    """(r, g, b), 0 to 1, from ``#rrggbb``, ``#rgb`` or a name."""
    parts = _color_parts(str(color))
    if parts is None:
        raise OutOfRangeError("color", color, "use #rrggbb or one of " + ", ".join(NAMED_COLORS))
    return parts


@lru_cache(1024)  # panels ask for each channel's colour in every frame
def _color_parts(color: str) -> tuple[float, float, float] | None:
    text = NAMED_COLORS.get(color.lower(), color).removeprefix("#")
    if not _HEX_COLOR.fullmatch(text):
        return None
    if len(text) == 3:
        text = "".join(2 * digit for digit in text)
    return tuple(int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))


def percentile_limits(histogram: np.ndarray, tail: float = AUTO_CONTRAST_TAIL) -> tuple[float, float]:
    """(low, high) counts that leave `tail` of the pixels on each side, from (65536,) counts; (0, 65535) for no pixels."""
    cumulative = np.cumsum(histogram, dtype=np.float64)
    total = cumulative[-1]
    if total == 0:
        return 0.0, 65535.0
    low = int(np.searchsorted(cumulative, tail * total, side="right"))
    high = int(np.searchsorted(cumulative, (1.0 - tail) * total, side="left"))
    return float(low), float(max(high, low + SMALLEST_AUTO_RANGE))


def default_colors(channels: Sequence[Channel]) -> list[str]:
    """A colour for each channel: the file's, by stain or emission wavelength, else the usual order; a single one is grey."""
    if len(channels) == 1:
        return [channels[0].color or "#ffffff"]
    colors: list[str | None] = [_own_color(channel) for channel in channels]
    taken = {NAMED_COLORS.get(color.lower(), color.lower()) for color in colors if color}
    free = [color for color in COLOR_ORDER if color not in taken] or list(COLOR_ORDER)
    for number in [i for i, color in enumerate(colors) if color is None]:
        colors[number] = free.pop(0)
        free = free or list(COLOR_ORDER)
    return colors


def _own_color(channel: Channel) -> str | None:
    if channel.color:
        return channel.color
    if any(stain in channel.name.lower() for stain in NUCLEAR_STAINS):
        return "#0000ff"
    return wavelength_color(channel.emission_nm)
