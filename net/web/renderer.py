"""What draws regions of a mosaic for whoever knows no OpenGL: the web page now, exports later. `cli` hands it over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rawmosaic.net.web.deepzoom import Bounds
from rawmosaic.net.web.style import Look, Style
from rawmosaic.storage.slide import Slide


@dataclass(frozen=True)
class FirstLook:
    """How a channel is shown at first, and the limits of automatic contrast: each pair stronger than the one before."""

    look: Look
    auto_limits: tuple[tuple[float, float], ...]


class RegionRenderer(Protocol):
    """Draws regions of slides. All calls come from one thread, but for `looks`, which any thread may call."""

    failures: tuple[str, ...]
    """One line for each part of the last region that could not be read, and is black."""

    def looks(self, slide: Slide) -> tuple[FirstLook, ...]:
        """How each channel of a slide is shown at first."""

    def render(self, slide: Slide, region_um: Bounds, size_px: tuple[int, int], style: Style) -> np.ndarray:
        """(h, w, 4) uint8: a region of the mosaic frame (left, top, right, bottom), complete, in `size_px` (w, h) pixels."""

    def close(self) -> None:
        """Give back what drawing took; not the slides."""
