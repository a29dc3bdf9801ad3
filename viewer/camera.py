"""The camera: which part of the mosaic frame is on the screen, and the way between the two frames.

Names carry their frame: ``s_`` mosaic frame in µm, ``w_`` window pixels (x right, y down, the first pixel's centre at ½, ½).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A viewport. `scale` is screen pixels per full-resolution image pixel (1.0 is 1:1); `size` is (width, height) pixels."""

    x_um: float
    y_um: float
    scale: float
    size: tuple[int, int]
    pixel_size_um: float = 1.0

    @property
    def px_per_um(self) -> float:
        """Screen pixels per µm."""
        return self.scale / self.pixel_size_um

    def in_pixels_of(self, pixel_size_um: float) -> Camera:
        """The same viewport, with the scale told in image pixels of another size."""
        return replace(self, scale=self.scale * pixel_size_um / self.pixel_size_um, pixel_size_um=pixel_size_um)

    def bounds_um(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the viewport, mosaic µm."""
        half_width, half_height = (0.5 * size / self.px_per_um for size in self.size)
        return self.x_um - half_width, self.y_um - half_height, self.x_um + half_width, self.y_um + half_height

    def to_mosaic(self, w_x: float, w_y: float) -> tuple[float, float]:
        """Window pixels → mosaic µm."""
        return (
            self.x_um + (w_x - 0.5 * self.size[0]) / self.px_per_um,
            self.y_um + (w_y - 0.5 * self.size[1]) / self.px_per_um,
        )

    def to_window(self, s_x: float, s_y: float) -> tuple[float, float]:
        """Mosaic µm → window pixels."""
        return (
            (s_x - self.x_um) * self.px_per_um + 0.5 * self.size[0],
            (s_y - self.y_um) * self.px_per_um + 0.5 * self.size[1],
        )

    def moved(self, w_dx: float, w_dy: float) -> Camera:
        """The picture dragged by window pixels."""
        return replace(self, x_um=self.x_um - w_dx / self.px_per_um, y_um=self.y_um - w_dy / self.px_per_um)

    def zoomed(self, scale: float, w_x: float | None = None, w_y: float | None = None) -> Camera:
        """Another scale, with the point under the window position (the centre by default) held in place."""
        if w_x is None or w_y is None:
            return replace(self, scale=scale)
        s_x, s_y = self.to_mosaic(w_x, w_y)
        zoomed = replace(self, scale=scale)
        now_x, now_y = zoomed.to_mosaic(w_x, w_y)
        return replace(zoomed, x_um=self.x_um + s_x - now_x, y_um=self.y_um + s_y - now_y)

    def fitted(self, bounds_um: tuple[float, float, float, float]) -> Camera:
        """The camera that just shows a (left, top, right, bottom) region, mosaic µm."""
        left, top, right, bottom = bounds_um
        px_per_um = min(self.size[0] / max(right - left, 1e-9), self.size[1] / max(bottom - top, 1e-9))
        return replace(self, x_um=0.5 * (left + right), y_um=0.5 * (top + bottom), scale=float(px_per_um * self.pixel_size_um))


def bounds_of(positions_um: np.ndarray, half_extents_um: np.ndarray) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) around fields at (n, 2) centres with (n, 2) half sizes; a unit square for none."""
    if len(positions_um) == 0:
        return -0.5, -0.5, 0.5, 0.5
    # a column at a time: NumPy takes twenty times as long along the first axis of a table with two
    lows = [float((positions_um[:, axis] - half_extents_um[:, axis]).min()) for axis in (0, 1)]
    highs = [float((positions_um[:, axis] + half_extents_um[:, axis]).max()) for axis in (0, 1)]
    return *lows, *highs
