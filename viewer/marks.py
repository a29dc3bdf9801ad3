"""What is drawn over a finished picture with Pillow: texts, bars and lines, each with a thin outline that keeps it readable.

Marks are values in figure pixels (x right, y down from the upper left corner). `draw_marks` draws them on a whole picture or on
horizontal strips of it, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from rawmosaic.viewer.channels import parse_color
from rawmosaic.viewer.lettering import Letters

OVERSAMPLING = 3
"""Lines are drawn so many times larger and reduced: Pillow draws them without half tones."""

_CHUNK_PX = 2048
"""Columns in which lines are drawn at a time, so that the larger picture of them stays small."""

_DARK, _LIGHT = "#000000", "#ffffff"


@dataclass(frozen=True)
class Text:
    """Letters of `font_px` height, with the upper left corner of their line at (x, y)."""

    x: float
    y: float
    text: str
    font_px: float
    color: str

    def bounds(self, letters: Letters) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) with the outline."""
        box = letters.font(self.font_px).getbbox(letters.spelled(self.text), stroke_width=outline_px(self.font_px))
        return self.x + box[0], self.y + box[1], self.x + box[2], self.y + box[3]

    def draw(self, pixels: np.ndarray, corner: tuple[int, int], letters: Letters) -> None:
        """Onto (h, w, 3) uint8 whose upper left pixel is the figure's `corner` (x, y)."""
        image = Image.fromarray(pixels)
        ImageDraw.Draw(image).text(
            (round(self.x) - corner[0], round(self.y) - corner[1]),
            letters.spelled(self.text),
            fill=_rgb(self.color),
            font=letters.font(self.font_px),
            stroke_width=outline_px(self.font_px),
            stroke_fill=_rgb(outline_of(self.color)),
        )
        pixels[:] = np.asarray(image)


@dataclass(frozen=True)
class Bar:
    """A filled rectangle from (x, y), whole pixels, outlined outside."""

    x: int
    y: int
    width: int
    height: int
    color: str
    outline: int

    def bounds(self, letters: Letters) -> tuple[float, float, float, float]:  # noqa: ARG002  as other marks
        """(left, top, right, bottom) with the outline."""
        return (
            self.x - self.outline,
            self.y - self.outline,
            self.x + self.width + self.outline,
            self.y + self.height + self.outline,
        )

    def draw(self, pixels: np.ndarray, corner: tuple[int, int], letters: Letters) -> None:
        """Onto (h, w, 3) uint8 whose upper left pixel is the figure's `corner` (x, y)."""
        x, y = self.x - corner[0], self.y - corner[1]
        left, top, right, bottom = (
            int(edge - corner[axis]) for edge, axis in zip(self.bounds(letters), (0, 1, 0, 1), strict=True)
        )
        pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = _rgb(outline_of(self.color))
        pixels[max(y, 0) : max(y + self.height, 0), max(x, 0) : max(x + self.width, 0)] = _rgb(self.color)


@dataclass(frozen=True)
class Line:
    """A line through (n, 2) points; back to the first where it is `closed`; a dot for a single point."""

    points: tuple[tuple[float, float], ...]
    closed: bool
    width: float
    color: str

    def bounds(self, letters: Letters) -> tuple[float, float, float, float]:  # noqa: ARG002  as other marks
        """(left, top, right, bottom) with the outline."""
        reach = self.width + 2
        xs, ys = zip(*self.points, strict=True)
        return min(xs) - reach, min(ys) - reach, max(xs) + reach, max(ys) + reach

    def draw(self, pixels: np.ndarray, corner: tuple[int, int], letters: Letters) -> None:  # noqa: ARG002  as other marks
        """Onto (h, w, 3) uint8 whose upper left pixel is the figure's `corner` (x, y)."""
        for left in range(0, pixels.shape[1], _CHUNK_PX):
            chunk = pixels[:, left : left + _CHUNK_PX]
            for color, width in ((outline_of(self.color), self.width + 2 * outline_px(4 * self.width)), (self.color, self.width)):
                _blend(chunk, self._mask(chunk.shape[:2], (corner[0] + left, corner[1]), width), color)

    def _mask(self, shape: tuple[int, int], corner: tuple[int, int], width: float) -> np.ndarray:
        """(h, w) uint8: how much of each pixel the line covers."""
        times = OVERSAMPLING
        mask = Image.new("L", (times * shape[1], times * shape[0]))
        pen = ImageDraw.Draw(mask)
        points = [(times * (x - corner[0]), times * (y - corner[1])) for x, y in self.points]
        if len(points) > 1:
            path = [*points, points[0], points[1]] if self.closed and len(points) > 2 else points
            pen.line(path, fill=255, width=max(1, round(times * width)), joint="curve")
        else:
            (x, y), radius = points[0], times * 1.5 * width
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return np.asarray(mask.reduce(times))


Mark = Text | Bar | Line


def draw_marks(pixels: np.ndarray, marks: Sequence[Mark], letters: Letters, first_row: int = 0) -> None:
    """Draw marks onto (h, w, 3) uint8, writable, whose first row is row `first_row` of the figure."""
    height, width = pixels.shape[:2]
    for mark in marks:
        left, top, right, bottom = mark.bounds(letters)
        x0, x1 = max(int(np.floor(left)) - 1, 0), min(int(np.ceil(right)) + 1, width)
        y0, y1 = max(int(np.floor(top)) - 1, first_row), min(int(np.ceil(bottom)) + 1, first_row + height)
        if x0 < x1 and y0 < y1:
            mark.draw(pixels[y0 - first_row : y1 - first_row, x0:x1], (x0, y0), letters)


def outline_px(font_px: float) -> int:
    """Width of an outline around letters of this height."""
    return max(1, round(font_px / 16))


def outline_of(color: str) -> str:
    """Black around light colours and white around dark ones: together they show on any ground."""
    red, green, blue = parse_color(color)
    return _DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.35 else _LIGHT


def _blend(pixels: np.ndarray, mask: np.ndarray, color: str) -> None:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return
    share = mask[rows, columns, None].astype(np.float32) / 255
    pixels[rows, columns] = np.rint(pixels[rows, columns] * (1 - share) + np.array(_rgb(color), np.float32) * share)


def _rgb(color: str) -> tuple[int, int, int]:
    return tuple(round(255 * value) for value in parse_color(color))
