"""How a mosaic is to look, as a value and as the text of a query: one text for each style, and one style for each text. Pure.

    c=0,0000ff,400,3000,1&c=2,ff0000,90.5,800,0.7&overlap=max&positions=registered&z=3&t=1

`c` names a shown channel: number, colour, contrast limits in raw counts, gamma. What is left out, or left empty, is as the slide
is shown at first; `c=none` shows no channel, and without any `c` all are shown. The page's style.js writes the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.slide import Slide

OVERLAP_MODES = ("top", "nearest", "feather", "max")
LONGEST_QUERY = 1 << 15
"""Characters; a thousand channels with everything told take about so many."""

LOWEST_LIMIT, HIGHEST_LIMIT = -65536.0, 131071.0
"""Counts. Limits beyond the sixteen bits still make sense: they lay black or full colour where no pixel is."""

SMALLEST_GAMMA, LARGEST_GAMMA = 0.01, 100.0
LIMIT_DIGITS, GAMMA_DIGITS = 2, 3
"""Digits after the point: fewer than anybody sees, so that equal pictures have equal texts."""

NO_CHANNEL = "none"
_COLOR = re.compile("#?([0-9a-fA-F]{6})")
_WHOLE = re.compile("[0-9]{1,9}")
_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{0,9})?")


@dataclass(frozen=True)
class Look:
    """How a channel looks: `color` as ``#rrggbb``, contrast `limits` in raw counts, then `gamma`."""

    color: str
    limits: tuple[float, float]
    gamma: float = 1.0


@dataclass(frozen=True)
class Style:
    """How a mosaic looks: the shown channels in ascending order with their looks, and how fields are placed and merged."""

    looks: tuple[tuple[int, Look], ...]
    overlap: str = "top"
    position_set: str = "stage"
    z: int = 0
    t: int = 0

    def text(self) -> str:
        """The one query that stands for this style, everything told."""
        parts = [f"c={number},{look_text(look)}" for number, look in self.looks] or [f"c={NO_CHANNEL}"]
        if self.overlap != "top":
            parts.append(f"overlap={self.overlap}")
        if self.position_set != "stage":
            parts.append(f"positions={quote(self.position_set, safe='')}")
        parts += [f"{name}={value}" for name, value in (("z", self.z), ("t", self.t)) if value]
        return "&".join(parts)


def look_text(look: Look) -> str:
    """Colour, limits and gamma as in a query."""
    limits = [number_text(limit, LIMIT_DIGITS) for limit in look.limits]
    return ",".join([look.color.removeprefix("#").lower(), *limits, number_text(look.gamma, GAMMA_DIGITS)])


def number_text(value: float, digits: int) -> str:
    """A number with at most so many digits after the point, and none that say nothing."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def style_of(query: str, slide: Slide, defaults: Sequence[Look]) -> Style:
    """The style that a query asks for of a slide; `defaults` are the looks of its channels at first, one each.

    OutOfRangeError for whatever the slide has not, for numbers beyond their limits, and for what is not understood.
    """
    given: dict[str, list[str]] = {}
    for key, value in _pairs(query):
        given.setdefault(key, []).append(value)
    channels = given.pop("c", None)
    told = {key: values[0] for key, values in given.items() if len(values) == 1}
    for key in given:
        if key not in ("overlap", "positions", "z", "t"):
            raise OutOfRangeError("part of a style", key[:40], "a style has c, overlap, positions, z and t")
        if key not in told:
            raise OutOfRangeError("style", key, "only c may be told more than once")
    overlap, positions = told.get("overlap", "top"), told.get("positions", "stage")
    if overlap not in OVERLAP_MODES:
        raise OutOfRangeError("overlap mode", overlap[:40], "choose one of " + ", ".join(OVERLAP_MODES))
    if positions not in slide.position_sets:
        raise OutOfRangeError("position set", positions[:40], "the slide has " + ", ".join(slide.position_sets))
    return Style(
        _shown(channels, defaults),
        overlap,
        positions,
        _index("z", told.get("z", "0"), slide.size_z),
        _index("t", told.get("t", "0"), slide.size_t),
    )


def rounded(look: Look) -> Look:
    """The look as a query can tell it."""
    low, high = (round(min(max(float(limit), LOWEST_LIMIT), HIGHEST_LIMIT), LIMIT_DIGITS) for limit in look.limits)
    gamma = round(min(max(float(look.gamma), SMALLEST_GAMMA), LARGEST_GAMMA), GAMMA_DIGITS)
    return Look(look.color.lower(), (low, high), gamma)


def _pairs(query: str) -> list[tuple[str, str]]:
    if len(query) > LONGEST_QUERY:
        raise OutOfRangeError("style", query[:40] + "…", f"it has {len(query)} characters, and may have {LONGEST_QUERY}")
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=5000)
    except ValueError as error:  # UnicodeDecodeError is one
        raise OutOfRangeError("style", query[:40], f"it is no query of name=value ({error})") from error


def _shown(texts: list[str] | None, defaults: Sequence[Look]) -> tuple[tuple[int, Look], ...]:
    if texts is None:
        return tuple(enumerate(map(rounded, defaults)))
    if texts == [NO_CHANNEL]:
        return ()
    looks: dict[int, Look] = {}
    for text in texts:
        number, *parts = text.split(",")
        channel = _index("channel", number, len(defaults))
        if channel in looks:
            raise OutOfRangeError("channel", channel, "a style tells each channel once")
        looks[channel] = _look(parts, rounded(defaults[channel]), text)
    return tuple(sorted(looks.items()))


def _look(parts: list[str], default: Look, text: str) -> Look:
    if len(parts) > 4:
        raise OutOfRangeError("look", text[:80], "a channel has number,color,low,high,gamma")
    color, low, high, gamma = (*parts, *[""] * (4 - len(parts)))
    found = _COLOR.fullmatch(color) if color else _COLOR.fullmatch(default.color)
    if not found:
        raise OutOfRangeError("color", color[:40], "write six hexadecimal digits, such as ff8000")
    return Look(
        "#" + found[1].lower(),
        (
            _number("contrast limit", low, default.limits[0], LOWEST_LIMIT, HIGHEST_LIMIT, LIMIT_DIGITS),
            _number("contrast limit", high, default.limits[1], LOWEST_LIMIT, HIGHEST_LIMIT, LIMIT_DIGITS),
        ),
        _number("gamma", gamma, default.gamma, SMALLEST_GAMMA, LARGEST_GAMMA, GAMMA_DIGITS),
    )


def _number(what: str, text: str, default: float, low: float, high: float, digits: int) -> float:
    if not text:
        return default
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not low <= value <= high:
        raise OutOfRangeError(what, text[:40], f"write a number from {low:g} to {high:g}")
    return round(value, digits) + 0.0  # no minus zero


def _index(what: str, text: str, count: int) -> int:
    limits = f"the slide has {what} 0 to {count - 1}" if count else f"the slide has no {what}"
    if not _WHOLE.fullmatch(text) or int(text) >= count:
        raise OutOfRangeError(what, text[:40], limits)
    return int(text)
