"""What lies under the hand, and what is to be drawn: pure functions of shapes, places and a camera.

Names carry their frame: mosaic µm end in `_um`, window pixels (the first pixel's centre at ½, ½) begin with `w_`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rawmosaic.viewer.annotations.model import AnnotationSet
from rawmosaic.viewer.annotations.shapes import Box, Ellipse, Line, Path, Points, Polygon, Rectangle, Shape
from rawmosaic.viewer.camera import Camera

DOT_PX = 3.0
"""What is smaller than this on the screen is drawn as a dot."""

MOST_OUTLINES = 1000
"""Of one picture, the largest; what else is in view is drawn as dots, so that a frame costs no more with more annotations."""

MOST_DOTS = 5000
"""Of one picture; of a larger crowd some are left out, always the same ones."""

CURVE_ERROR_PX = 0.2
HANDLE_GAP_PX = 9.0
_MOST_CANDIDATES = 512
_FEW_CORNERS = 32
_MOST_KEPT = 20_000

BOX_HANDLES = ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0), (0.0, 1.0), (0.0, 0.5))
"""Handles of rectangles and ellipses, as parts of width and height: from the top left corner clockwise."""

_BOX_CURSORS = ("resize-nwse", "resize-ns", "resize-nesw", "resize-ew") * 2


# under the hand


def distance_um(shape: Shape, x_um: float, y_um: float, error_um: float = 0.0) -> float:
    """From a place to the nearest point of the outline, or to the nearest of the points."""
    if isinstance(shape, Points):
        return float(np.hypot(*(shape.points_um - (x_um, y_um)).T).min())
    return min(nearest_edge(path, x_um, y_um)[0] for path in shape.paths(error_um))


def nearest_edge(path: Path, x_um: float, y_um: float) -> tuple[float, int]:
    """(distance in µm, number of the corner where it begins) of the edge of a path nearest to a place."""
    points, closed = path
    ends = np.roll(points, -1, axis=0)
    if not closed:
        points, ends = points[:-1], ends[:-1]
    along = ends - points
    to_place = np.array([x_um, y_um]) - points
    squares = (along**2).sum(axis=1)
    part = np.clip((to_place * along).sum(axis=1) / np.where(squares > 0, squares, 1.0), 0.0, 1.0)
    distances = np.hypot(*(to_place - part[:, None] * along).T)
    nearest = int(np.argmin(distances))
    return float(distances[nearest]), nearest


def found_at(annotations: AnnotationSet, x_um: float, y_um: float, tolerance_um: float) -> int | None:
    """The annotation that a click means: the topmost whose outline is within the tolerance, else the smallest area around."""
    window = (x_um - tolerance_um, y_um - tolerance_um, x_um + tolerance_um, y_um + tolerance_um)
    near = annotations.meeting(window)[-_MOST_CANDIDATES:]
    around: list[tuple[float, int]] = []
    for number in near[::-1].tolist():
        shape = annotations[number].shape
        if distance_um(shape, x_um, y_um, 0.2 * tolerance_um) <= tolerance_um:
            return number
        if shape.is_area and bool(shape.contains(np.float64(x_um), np.float64(y_um))):
            around.append((shape.area_um2, -number))
    return -min(around)[1] if around else None


def found_within(annotations: AnnotationSet, box_um: Box) -> list[int]:
    """Ascending numbers of the annotations that lie in a box as a whole."""
    left, top, right, bottom = box_um
    numbers = annotations.meeting(box_um)
    boxes = annotations.boxes_um(numbers)
    inside = (boxes[:, 0] >= left) & (boxes[:, 1] >= top) & (boxes[:, 2] <= right) & (boxes[:, 3] <= bottom)
    return numbers[inside].tolist()


# handles


def handles_um(shape: Shape) -> np.ndarray:
    """(n, 2) float64: where a shape can be taken hold of, each by its number."""
    if isinstance(shape, Rectangle | Ellipse):
        left, top, right, bottom = shape.box_um
        return np.array([(left + x * (right - left), top + y * (bottom - top)) for x, y in BOX_HANDLES])
    return np.concatenate(shape.arrays())


def handle_at(shape: Shape, x_um: float, y_um: float, tolerance_um: float) -> int | None:
    """The nearest handle within the tolerance."""
    distances = np.hypot(*(handles_um(shape) - (x_um, y_um)).T)
    nearest = int(np.argmin(distances))
    return nearest if distances[nearest] <= tolerance_um else None


def handle_cursor(shape: Shape, handle: int) -> str:
    """The name of the mouse cursor over a handle."""
    return _BOX_CURSORS[handle] if isinstance(shape, Rectangle | Ellipse) else "move"


def reshaped(shape: Shape, handle: int, x_um: float, y_um: float, even: bool = False) -> Shape:
    """The shape with a handle pulled to a place. `even`: boxes become squares, edges of lines and polygons turn in steps."""
    if isinstance(shape, Rectangle | Ellipse):
        return _box_pulled(shape, handle, x_um, y_um, even)
    arrays = [array.copy() for array in shape.arrays()]
    array, place = _corner(arrays, handle)
    if even and not isinstance(shape, Points):
        neighbour = array[place - 1] if place > 0 or not isinstance(shape, Line) else array[1]
        x_um, y_um = snapped((float(neighbour[0]), float(neighbour[1])), (x_um, y_um))
    array[place] = (x_um, y_um)
    return shape.with_arrays(arrays)


def with_corner(shape: Shape, x_um: float, y_um: float, tolerance_um: float) -> tuple[Shape, int] | None:
    """The line or polygon with one more corner, on the edge that is within the tolerance, and the number of its handle."""
    if not isinstance(shape, Line | Polygon):
        return None
    paths = shape.paths(0.0)
    found = [(*nearest_edge(path, x_um, y_um), number) for number, path in enumerate(paths)]
    distance, edge, ring = min(found)
    if distance > tolerance_um:
        return None
    arrays = list(shape.arrays())
    arrays[ring] = np.insert(arrays[ring], edge + 1, (x_um, y_um), axis=0)
    return shape.with_arrays(arrays), sum(len(array) for array in arrays[:ring]) + edge + 1


def without_corner(shape: Shape, handle: int) -> Shape | None:
    """The shape without one of its corners or points; None where it would have too few left."""
    if isinstance(shape, Rectangle | Ellipse):
        return None
    arrays = [array.copy() for array in shape.arrays()]
    before = 0
    for number, array in enumerate(arrays):
        if handle < before + len(array):
            least = 1 if isinstance(shape, Points) else 2 if isinstance(shape, Line) else 3
            if len(array) <= least:
                return None
            arrays[number] = np.delete(array, handle - before, axis=0)
            return shape.with_arrays(arrays)
        before += len(array)
    return None


def snapped(origin_um: tuple[float, float], place_um: tuple[float, float], step_deg: float = 15.0) -> tuple[float, float]:
    """The place turned about an origin to the nearest multiple of an angle, as far away as it is."""
    dx, dy = place_um[0] - origin_um[0], place_um[1] - origin_um[1]
    step = math.radians(step_deg)
    angle = round(math.atan2(dy, dx) / step) * step
    length = math.hypot(dx, dy)
    return origin_um[0] + length * math.cos(angle), origin_um[1] + length * math.sin(angle)


def squared(origin_um: tuple[float, float], place_um: tuple[float, float]) -> tuple[float, float]:
    """The place moved so that a box from the origin to it is a square, by the longer side."""
    dx, dy = place_um[0] - origin_um[0], place_um[1] - origin_um[1]
    side = max(abs(dx), abs(dy))
    return origin_um[0] + math.copysign(side, dx), origin_um[1] + math.copysign(side, dy)


def simplified(points_um: np.ndarray, error_um: float) -> np.ndarray:
    """A chain of (n, 2) places by fewer of them: none that was left out is further than `error_um` away (Douglas-Peucker)."""
    keep = np.zeros(len(points_um), bool)
    keep[[0, -1]] = True
    spans = [(0, len(points_um) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        between = points_um[first + 1 : last] - points_um[first]
        along = points_um[last] - points_um[first]
        square = float(along @ along)
        part = np.clip(between @ along / square, 0.0, 1.0) if square > 0 else np.zeros(len(between))
        distances = np.hypot(*(between - part[:, None] * along).T)
        furthest = int(np.argmax(distances))
        if distances[furthest] > error_um:
            middle = first + 1 + furthest
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return points_um[keep]


def _box_pulled(shape: Rectangle | Ellipse, handle: int, x_um: float, y_um: float, even: bool) -> Shape:
    left, top, right, bottom = shape.box_um
    part_x, part_y = BOX_HANDLES[handle]
    fixed = (right if part_x == 0 else left, bottom if part_y == 0 else top)
    if even and part_x != 0.5 and part_y != 0.5:
        x_um, y_um = squared(fixed, (x_um, y_um))
    if part_x != 0.5:
        left, right = fixed[0], x_um
    if part_y != 0.5:
        top, bottom = fixed[1], y_um
    return type(shape)(left, top, right, bottom)


def _corner(arrays: list[np.ndarray], handle: int) -> tuple[np.ndarray, int]:
    for array in arrays:
        if handle < len(array):
            return array, handle
        handle -= len(array)
    raise IndexError(handle)


# to be drawn


@dataclass(frozen=True)
class Outline:
    """One annotation in window pixels: lines, marks of points, and where its label belongs (its lower edge's middle).

    paths    (n, 2) float64 corners, and whether the last is joined to the first
    marks    (k, 2) float64
    """

    number: int
    color: str
    paths: tuple[Path, ...]
    marks: np.ndarray
    w_label: tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """What is to be drawn of annotations: outlines in drawing order, and dots: (k, 2) float64 places, (k, 3) uint8 colours."""

    outlines: tuple[Outline, ...]
    w_dots: np.ndarray
    dot_colors: np.ndarray


class Drawing:
    """Turns annotations into pictures, and remembers corners that it will need again. One thread."""

    def __init__(self):
        self._kept: dict[tuple[int, int], tuple[Shape, list[Path]]] = {}
        self._last: tuple[object, Picture] | None = None

    def picture(self, annotations: AnnotationSet, camera: Camera, instead: dict[int, Shape] | None = None) -> Picture:
        """What a camera sees of a set; `instead` holds shapes to be drawn in place of those that the set has: drafts."""
        instead = instead or {}
        state = (id(annotations), annotations.revision, camera, tuple(instead.items()))
        if self._last is None or self._last[0] != state:
            self._last = state, self._drawn(annotations, camera, instead)
        return self._last[1]

    def _drawn(self, annotations: AnnotationSet, camera: Camera, instead: dict[int, Shape]) -> Picture:
        left, top, right, bottom = camera.bounds_um()
        numbers = annotations.meeting((left, top, right, bottom))
        if instead:
            numbers = np.union1d(numbers, [number for number in instead if number in annotations]).astype(np.int64)
        boxes = annotations.boxes_um(numbers)
        w_sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * camera.px_per_um if len(boxes) else np.zeros(0)
        wide = (w_sizes >= DOT_PX) | (w_sizes == 0)  # a point is a mark at any scale
        if wide.sum() > MOST_OUTLINES:
            wide[np.argsort(w_sizes, kind="stable")[:-MOST_OUTLINES]] = False
        for number in instead:
            wide |= numbers == number
        outlines = self._outlines(annotations, numbers[wide].tolist(), camera, instead)
        small = numbers[~wide]
        if len(small) > MOST_DOTS:  # by lot, and not by place: a pan shows no pattern
            small = small[np.argsort(small.astype(np.uint32) * np.uint32(2654435761), kind="stable")[:MOST_DOTS]]
        boxes = annotations.boxes_um(small)
        centres_um = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        w_dots = np.stack(camera.to_window(centres_um[:, 0], centres_um[:, 1]), axis=-1)
        return Picture(outlines, w_dots, annotations.colors_of(small))

    def _outlines(
        self, annotations: AnnotationSet, numbers: list[int], camera: Camera, instead: dict[int, Shape]
    ) -> tuple[Outline, ...]:
        octave = math.floor(math.log2(camera.px_per_um))
        shapes = [instead.get(number) or annotations[number].shape for number in numbers]
        paths = [self._paths(number, shape, octave) for number, shape in zip(numbers, shapes, strict=True)]
        marks = [shape.points_um if isinstance(shape, Points) else _NOWHERE for shape in shapes]
        pieces = [points for each in paths for points, _ in each] + marks
        if not pieces:
            return ()
        # all places at once: a frame may show thousands of annotations
        everything = np.concatenate(pieces)
        w_all = np.stack(camera.to_window(everything[:, 0], everything[:, 1]), axis=-1)
        ends = np.cumsum([len(piece) for piece in pieces]).tolist()
        w_pieces = iter([w_all[end - len(piece) : end] for piece, end in zip(pieces, ends, strict=True)])
        w_paths = [tuple([(next(w_pieces), closed) for _, closed in each]) for each in paths]
        boxes = annotations.boxes_um(np.array(numbers))
        for place, number in enumerate(numbers):
            if number in instead:
                boxes[place] = shapes[place].box_um
        w_labels = zip(*camera.to_window(0.5 * (boxes[:, 0] + boxes[:, 2]), boxes[:, 1]), strict=True)
        return tuple(
            [
                Outline(number, annotations.color_of(annotations[number]), each, next(w_pieces), (float(x), float(y)))
                for number, each, (x, y) in zip(numbers, w_paths, w_labels, strict=True)
            ]
        )

    def _paths(self, number: int, shape: Shape, octave: int) -> list[Path]:
        kept = self._kept.get((number, octave))
        if kept is not None and kept[0] is shape:
            return kept[1]
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        paths = outline_um(shape, 0.5**octave)
        self._kept[number, octave] = shape, paths
        return paths


def outline_um(shape: Shape, px_um: float) -> list[Path]:
    """The paths of a shape for a screen whose pixels are half of `px_um` to all of it: no corner that would not be seen."""
    error_um = 0.5 * CURVE_ERROR_PX * px_um
    return [(_thinned(points, error_um), closed) for points, closed in shape.paths(error_um)]


def _thinned(points: np.ndarray, error_um: float) -> np.ndarray:
    """Without corners that fall together with the one before; the first and the last stay."""
    if len(points) <= _FEW_CORNERS:
        return points
    cells = np.floor(points / (2 * error_um))
    keep = np.ones(len(points), bool)
    keep[1:-1] = (cells[1:-1] != cells[:-2]).any(axis=1)
    return points[keep]


def w_handles(shape: Shape, camera: Camera) -> np.ndarray:
    """(k, 2) float64 window pixels: the handles to show, without those that would cover the one before."""
    handles = handles_um(shape)
    w_all = np.stack(camera.to_window(handles[:, 0], handles[:, 1]), axis=-1)
    shown: list[int] = []
    for number in range(len(w_all)):
        if not shown or np.hypot(*(w_all[number] - w_all[shown[-1]])) >= HANDLE_GAP_PX:
            shown.append(number)
    return w_all[shown]


def w_paths(shape: Shape, camera: Camera) -> list[Path]:
    """A single shape's outline in window pixels: a draft's."""
    found = []
    for points, closed in outline_um(shape, 1.0 / camera.px_per_um):
        found.append((np.stack(camera.to_window(points[:, 0], points[:, 1]), axis=-1), closed))
    return found


# in words


def size_text(shape: Shape) -> str:
    """The length of a line, the area of an area, the number of several points, as people write them; "" for a point."""
    if isinstance(shape, Points):
        return "" if len(shape.points_um) == 1 else f"{len(shape.points_um)} points"
    return area_text(shape.area_um2) if shape.is_area else length_text(shape.length_um)


def length_text(length_um: float) -> str:
    """``850 nm``, ``12.3 µm``, ``1.25 mm``: three digits, or all before the point."""
    factor, unit = next(((f, u) for f, u in ((1e3, "mm"), (1.0, "µm")) if length_um >= 0.9995 * f), (1e-3, "nm"))
    return f"{_three_digits(length_um / factor)} {unit}"


def area_text(area_um2: float) -> str:
    """``0.45 µm²``, ``123 µm²``, ``1.25 mm²``."""
    factor, unit = next(((f, u) for f, u in ((1e6, "mm²"),) if area_um2 >= 0.1 * f), (1.0, "µm²"))
    return f"{_three_digits(area_um2 / factor)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


_NOWHERE = np.empty((0, 2))
