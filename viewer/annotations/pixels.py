"""Which pixels of a field lie in a shape: masks on a grid of pixel centres, exact to the rounding of a float.

Names carry their frame: `p_` full-resolution pixels of a field, x right and y down from its first pixel's corner; `_um` mosaic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rawmosaic.viewer.annotations.shapes import Ellipse, Shape


@dataclass(frozen=True)
class FieldFrame:
    """Where a field lies: image pixels → mosaic µm about its centre.

    matrix_um    (2, 2); `from_um` its inverse
    centre_um    (2,)
    p_size       (2,) width and height
    """

    matrix_um: np.ndarray
    from_um: np.ndarray
    centre_um: np.ndarray
    p_size: np.ndarray

    def to_pixels(self, points_um: np.ndarray) -> np.ndarray:
        """(n, 2) mosaic µm → p_."""
        return (points_um - self.centre_um) @ self.from_um.T + 0.5 * self.p_size

    def p_box(self, box_um: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """The box in p_ around a box in mosaic µm."""
        left, top, right, bottom = box_um
        corners = self.to_pixels(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]))
        return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())

    def p_cover(self, other: FieldFrame) -> tuple[float, float, float, float]:
        """The part of this field's plane, beyond its edges too, that another field covers: a box in p_, as they lie alike."""
        middle = self.from_um @ (other.centre_um - self.centre_um) + 0.5 * self.p_size
        return (*(middle - 0.5 * other.p_size).tolist(), *(middle + 0.5 * other.p_size).tolist())


def centres(first: int, last: int, factor: int, size: int) -> np.ndarray:
    """p_ coordinates of the middles of the pixels `first` to `last` - 1 of a layer, along an axis of so many full pixels."""
    starts = np.arange(first, last) * factor
    return 0.5 * (starts + np.minimum(starts + factor, size))


def span(low: float, high: float, factor: int, length: int) -> tuple[int, int]:
    """Pixels of a layer, first and end, that an interval of p_ can meet; `length` of them there are."""
    first = np.clip(np.floor(low / factor), 0, length)
    return int(first), int(np.clip(np.ceil(high / factor) + 1, first, length))


def mask_of(shape: Shape, frame: FieldFrame, p_x: np.ndarray, p_y: np.ndarray) -> np.ndarray:
    """(len(p_y), len(p_x)) bool: which of the pixel centres, columns p_x and rows p_y ascending, lie in an area."""
    if isinstance(shape, Ellipse):
        return _in_ellipse(shape, frame, p_x, p_y)
    mask = np.zeros((len(p_y), len(p_x)), bool)
    parts = getattr(shape, "parts", None) or (tuple(points for points, _ in shape.paths(0.0)),)
    for part in parts:
        mask |= _inside_rings([frame.to_pixels(ring) for ring in part], p_x, p_y)
    return mask


def uncover(mask: np.ndarray, p_cover: tuple[float, float, float, float], p_x: np.ndarray, p_y: np.ndarray) -> None:
    """Take the pixels whose centre lies in a box (its left and upper edge do) out of a mask."""
    left, top, right, bottom = p_cover
    columns, rows = np.searchsorted(p_x, (left, right)), np.searchsorted(p_y, (top, bottom))
    mask[rows[0] : rows[1], columns[0] : columns[1]] = False


def _inside_rings(p_rings: list[np.ndarray], p_x: np.ndarray, p_y: np.ndarray) -> np.ndarray:
    """Even-odd: along each row, every edge that is crossed turns inside to outside from there on."""
    starts = np.concatenate(p_rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in p_rings])
    downwards = (starts[:, 1] <= ends[:, 1])[:, None]
    upper, lower = np.where(downwards, starts, ends), np.where(downwards, ends, starts)
    first, last = np.searchsorted(p_y, upper[:, 1]), np.searchsorted(p_y, lower[:, 1])  # rows in [upper, lower)
    crossing = np.flatnonzero(last > first)
    counts = (last - first)[crossing]
    edge = np.repeat(crossing, counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first[crossing], counts)
    slope = (lower[:, 0] - upper[:, 0]) / np.where(lower[:, 1] > upper[:, 1], lower[:, 1] - upper[:, 1], 1.0)
    p_crossed = upper[edge, 0] + (p_y[row] - upper[edge, 1]) * slope[edge]
    turns = np.bincount(row * (len(p_x) + 1) + np.searchsorted(p_x, p_crossed), minlength=len(p_y) * (len(p_x) + 1))
    odd = (turns.reshape(len(p_y), len(p_x) + 1)[:, :-1] & 1).astype(np.uint8)
    return np.bitwise_xor.accumulate(odd, axis=1).astype(bool)


def _in_ellipse(shape: Ellipse, frame: FieldFrame, p_x: np.ndarray, p_y: np.ndarray) -> np.ndarray:
    columns = np.outer(p_x - 0.5 * frame.p_size[0], frame.matrix_um[:, 0])
    rows = np.outer(p_y - 0.5 * frame.p_size[1], frame.matrix_um[:, 1]) + frame.centre_um
    return shape.contains(columns[None, :, 0] + rows[:, None, 0], columns[None, :, 1] + rows[:, None, 1])
