"""The scale bar: a round length (1, 2, 5 × 10ⁿ) within a share of a picture's width. Who draws it is not said here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rawmosaic.storage.errors import OutOfRangeError

WIDTH_SHARE = 0.2
"""Of the picture's width, at most, if not asked for otherwise; the bar takes at least two fifths of that."""

_UNITS = ((1e3, "mm"), (1.0, "µm"), (1e-3, "nm"))
_ROUND = (5, 2, 1)


@dataclass(frozen=True)
class ScaleBar:
    """A length on the specimen, as it is written (``"20 µm"``), and how long that is on the screen."""

    length_um: float
    text: str
    length_px: float


def fitting_bar(px_per_um: float, width_px: float, share: float = WIDTH_SHARE) -> ScaleBar:
    """The longest round bar within a share of the picture's width; raises OutOfRangeError for what has no width or scale."""
    if not (math.isfinite(px_per_um * width_px * share) and px_per_um > 0 and width_px > 0 and share > 0):
        raise OutOfRangeError("scale bar", (px_per_um, width_px, share), "scale, width and share must be above zero")
    return bar_of(round_length(share * width_px / px_per_um), px_per_um)


def bar_of(length_um: float, px_per_um: float) -> ScaleBar:
    """The bar of a given length; raises OutOfRangeError for a length that is not above zero."""
    if not (math.isfinite(length_um) and length_um > 0):
        raise OutOfRangeError("scale bar", length_um, "its length is a number of µm above zero")
    return ScaleBar(length_um, length_text(length_um), length_um * px_per_um)


def round_length(most: float) -> float:
    """The largest 1, 2 or 5 × 10ⁿ that is not above `most` (by more than rounding)."""
    exponent = math.floor(math.log10(most) + 1e-9)
    step = next((step for step in _ROUND if step * 10.0**exponent <= most * (1 + 1e-9)), 1)
    return float(f"{step}e{exponent}")  # as written, not as multiplied: 0.0002 and not 0.00019999999999999998


def length_text(length_um: float) -> str:
    """A length in the unit that people would use: ``500 nm``, ``20 µm``, ``2 mm``."""
    factor, unit = next(((factor, unit) for factor, unit in _UNITS if length_um >= factor * (1 - 1e-9)), _UNITS[-1])
    return f"{float(f'{length_um / factor:.6g}'):.12g} {unit}"
