"""Shapes in the mosaic frame, µm: points, lines, rectangles, ellipses, polygons. Values: they never change.

Coordinates are whole picometres (six decimals of a µm), so that what is written to a file and read back is the same.
An area holds what lies inside by the even-odd rule; of two areas that touch, one alone holds a point of their common edge.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError

DECIMALS = 6
"""Of a coordinate in µm."""

FARTHEST_UM = 1e8
"""A hundred metres: what lies beyond is no place on a slide, and its picometres would not fit into a float."""

Box = tuple[float, float, float, float]
"""left, top, right, bottom, mosaic µm."""

Path = tuple[np.ndarray, bool]
"""(n, 2) float64 corners, mosaic µm, and whether the last is joined to the first."""


class Shape(ABC):
    """Anything drawn. Two shapes are equal when they are of one kind and have the same coordinates."""

    kind: ClassVar[str]
    is_area: ClassVar[bool] = False

    @property
    @abstractmethod
    def box_um(self) -> Box:
        """The smallest box around it."""

    @abstractmethod
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Its coordinates, (n, 2) float64 each, not to be written to."""

    @abstractmethod
    def with_arrays(self, arrays: Sequence[np.ndarray]) -> Shape:
        """A shape of the same kind with other coordinates in the same order."""

    @abstractmethod
    def paths(self, error_um: float) -> list[Path]:
        """Its outline as corners; curves leave it by at most `error_um`. Points have none."""

    def contains(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Which places lie inside: bool, of the shape that x and y broadcast to."""
        return np.zeros(np.broadcast_shapes(np.shape(x_um), np.shape(y_um)), bool)

    @property
    def area_um2(self) -> float:
        """Of an area; 0 for anything else. Of a polygon that crosses itself the loops cancel or add up by their direction."""
        return 0.0

    @property
    def length_um(self) -> float:
        """Of a line, or around an area; 0 for points."""
        return 0.0

    @property
    def centre_um(self) -> tuple[float, float]:
        """The middle of its box."""
        left, top, right, bottom = self.box_um
        return 0.5 * (left + right), 0.5 * (top + bottom)

    def moved(self, dx_um: float, dy_um: float) -> Shape:
        """The same shape elsewhere."""
        return self.with_arrays([array + np.array([dx_um, dy_um]) for array in self.arrays()])

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        mine, others = self.arrays(), other.arrays()
        return len(mine) == len(others) and all(map(np.array_equal, mine, others))

    def __hash__(self) -> int:
        return hash((self.kind, *(array.tobytes() for array in self.arrays())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(str(array.tolist()) for array in self.arrays())})"


class Points(Shape):
    """One or several places."""

    kind = "point"

    def __init__(self, points_um: Iterable | np.ndarray):
        self.points_um = corners(points_um, 1, self.kind)

    @property
    def box_um(self) -> Box:
        """The smallest box around it."""
        return box_of(self.points_um)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The places."""
        return (self.points_um,)

    def with_arrays(self, arrays: Sequence[np.ndarray]) -> Points:
        """Other places."""
        return Points(arrays[0])

    def paths(self, error_um: float) -> list[Path]:  # noqa: ARG002  has no curve
        """None: points are drawn as marks."""
        return []


class Line(Shape):
    """A straight line, or one with corners."""

    kind = "line"

    def __init__(self, points_um: Iterable | np.ndarray):
        self.points_um = corners(points_um, 2, self.kind)

    @property
    def box_um(self) -> Box:
        """The smallest box around it."""
        return box_of(self.points_um)

    @property
    def length_um(self) -> float:
        """From end to end along it."""
        return float(np.hypot(*np.diff(self.points_um, axis=0).T).sum())

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Its corners."""
        return (self.points_um,)

    def with_arrays(self, arrays: Sequence[np.ndarray]) -> Line:
        """Other corners."""
        return Line(arrays[0])

    def paths(self, error_um: float) -> list[Path]:  # noqa: ARG002
        """Itself."""
        return [(self.points_um, False)]


class _Boxed(Shape):
    """An area that its box says all of."""

    is_area = True

    def __init__(self, left: float, top: float, right: float, bottom: float):
        # from corner to corner, in whatever order they were pulled up
        points = np.sort(corners([(left, top), (right, bottom)], 2, self.kind), axis=0)
        points.flags.writeable = False
        self._corners = points
        self._box = tuple(points.ravel().tolist())

    @property
    def box_um(self) -> Box:
        """Its box."""
        return self._box

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height."""
        left, top, right, bottom = self._box
        return right - left, bottom - top

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Top left and bottom right corner."""
        return (self._corners,)

    def with_arrays(self, arrays: Sequence[np.ndarray]) -> Shape:
        """Another box."""
        return type(self)(*np.asarray(arrays[0]).ravel().tolist())


class Rectangle(_Boxed):
    """A rectangle along the axes of the mosaic frame."""

    kind = "rectangle"

    def contains(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Which places lie inside; the left and the upper edge do."""
        left, top, right, bottom = self._box
        return (x_um >= left) & (x_um < right) & (y_um >= top) & (y_um < bottom)

    @property
    def area_um2(self) -> float:
        """Width times height."""
        width, height = self.size_um
        return width * height

    @property
    def length_um(self) -> float:
        """Around it."""
        return 2 * sum(self.size_um)

    def paths(self, error_um: float) -> list[Path]:  # noqa: ARG002
        """Its four corners."""
        left, top, right, bottom = self._box
        return [(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), True)]


class Ellipse(_Boxed):
    """The ellipse that fills a box along the axes of the mosaic frame."""

    kind = "ellipse"

    def contains(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Which places lie inside or on the edge; none of an ellipse without an extent."""
        width, height = self.size_um
        if not (width > 0 and height > 0):
            return super().contains(x_um, y_um)
        x, y = self.centre_um
        return ((x_um - x) / (0.5 * width)) ** 2 + ((y_um - y) / (0.5 * height)) ** 2 <= 1.0

    @property
    def area_um2(self) -> float:
        """π a b."""
        width, height = self.size_um
        return 0.25 * math.pi * width * height

    @property
    def length_um(self) -> float:
        """Around it, by Gauss's series for the arithmetic-geometric mean: exact to rounding."""
        a, b = sorted((0.5 * side for side in self.size_um), reverse=True)
        if b == 0:
            return 4 * a
        total, power, c = 0.5 * (a * a - b * b), 1.0, math.sqrt(a * a - b * b)
        squares = a * a
        while c > 1e-15 * a:
            a, b, c = 0.5 * (a + b), math.sqrt(a * b), 0.5 * (a - b)
            total += power * c * c
            power *= 2
        return 2 * math.pi * (squares - total) / a

    def paths(self, error_um: float) -> list[Path]:
        """A polygon that touches the box at its four sides exactly."""
        width, height = self.size_um
        radius = 0.5 * max(width, height)
        # the sagitta of n chords about a circle: r (1 - cos(pi / n))
        reach = math.acos(max(1 - error_um / radius, 0.0)) if radius > 0 and error_um > 0 else 0.0
        quarter = min(max(math.ceil(math.pi / max(reach, 1e-3) / 4), 4), 256)
        angles = np.arange(4 * quarter) * (0.5 * math.pi / quarter)
        left, top, right, bottom = self._box
        x, y = self.centre_um
        points = np.stack([x + 0.5 * width * np.cos(angles), y + 0.5 * height * np.sin(angles)], axis=-1)
        points[[0, quarter, 2 * quarter, 3 * quarter]] = [(right, y), (x, bottom), (left, y), (x, top)]
        return [(points, True)]


class Polygon(Shape):
    """Areas with corners: each part is an outer ring, and the rings of its holes. Rings are not closed by a repeated corner."""

    kind = "polygon"
    is_area = True

    def __init__(self, *parts: Sequence[Iterable | np.ndarray]):
        self.parts = tuple(tuple(corners(ring, 3, self.kind) for ring in part) for part in parts)
        if not self.parts or not all(self.parts):
            raise OutOfRangeError("polygon", "without a ring", "it has at least one part, and each part an outer ring")

    @property
    def box_um(self) -> Box:
        """The smallest box around its outer rings."""
        boxes = np.array([box_of(part[0]) for part in self.parts])
        return (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())

    def contains(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Which places lie in one of the parts: an odd number of its edges is crossed on the way out."""
        x_um, y_um = np.broadcast_arrays(np.asarray(x_um, np.float64), np.asarray(y_um, np.float64))
        inside = np.zeros(x_um.shape, bool)
        for part in self.parts:
            odd = np.zeros(x_um.shape, bool)
            for ring in part:
                for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
                    if y0 != y1:
                        crosses = (y_um >= min(y0, y1)) & (y_um < max(y0, y1))
                        odd ^= crosses & (x_um >= x0 + (y_um - y0) * ((x1 - x0) / (y1 - y0)))
            inside |= odd
        return inside

    @property
    def area_um2(self) -> float:
        """Outer rings less holes."""
        return sum(abs(signed_area(part[0])) - sum(abs(signed_area(hole)) for hole in part[1:]) for part in self.parts)

    @property
    def length_um(self) -> float:
        """Along all rings."""
        return float(sum(np.hypot(*(np.roll(ring, -1, axis=0) - ring).T).sum() for ring in self.arrays()))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All rings, part by part."""
        return tuple(ring for part in self.parts for ring in part)

    def with_arrays(self, arrays: Sequence[np.ndarray]) -> Polygon:
        """The same parts and holes with other corners."""
        rest = iter(arrays)
        return Polygon(*[[next(rest) for _ in part] for part in self.parts])

    def paths(self, error_um: float) -> list[Path]:  # noqa: ARG002
        """Its rings."""
        return [(ring, True) for ring in self.arrays()]

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)
        return same if same is not True else [len(part) for part in self.parts] == [len(part) for part in other.parts]

    __hash__ = Shape.__hash__


def corners(points_um: Iterable | np.ndarray, least: int, kind: str) -> np.ndarray:
    """(n, 2) float64 in whole picometres, read-only; OutOfRangeError for what are not at least so many places in µm."""
    try:
        points = np.array(points_um if isinstance(points_um, np.ndarray) else list(points_um), np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise OutOfRangeError(kind, f"of shape {points.shape}", f"it takes at least {least} pairs of numbers, x and y in µm")
    if not (np.abs(points) <= FARTHEST_UM).all():  # nor is what is not a number
        raise OutOfRangeError(
            kind, "with a corner nowhere", f"x and y lie within {FARTHEST_UM:g} µm of the mosaic frame's origin"
        )
    points = np.round(points, DECIMALS)
    points += 0.0  # no negative zeros
    points.flags.writeable = False
    return points


def box_of(points: np.ndarray) -> Box:
    """The box around (n, 2) places."""
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def signed_area(ring: np.ndarray) -> float:
    """Of (n, 2) corners: positive where they go clockwise on the screen (y down)."""
    x, y = (ring - ring[0]).T  # stages count from far away
    return 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
