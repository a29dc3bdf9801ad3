"""What is measured of a shape: lengths, areas, and raw counts of every channel; profiles along lines.

Which pixels count: those of an acquired plane whose centre lies in the shape. Where fields overlap, `top` counts each place once,
in the field that the overlap rule `top` shows there (of those that have the channel, the last); `every` counts the pixels of
every field. Lines and points take the pixel that lies there, a line one for each pixel size along it.

A shape of more pixels than `most_pixels` is measured on the finest zoom layer that has fewer in it: `factor` tells the
reduction. Its mean and integrated counts are then as good, its pixels are about right, and the others are of area means.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import numpy as np

from rawmosaic.storage.errors import NoLongerWantedError, OutOfRangeError, SlideError
from rawmosaic.storage.pyramid import TileKey, reduced_shape
from rawmosaic.storage.slide import GREY_LEVELS, Slide, spatial_slots
from rawmosaic.storage.spatial_index import SpatialIndex
from rawmosaic.viewer.annotations.pixels import FieldFrame, centres, mask_of, span, uncover
from rawmosaic.viewer.annotations.shapes import Line, Points, Shape

OVERLAPS = ("top", "every")
MOST_PIXELS = 1 << 27
"""Of one channel in a shape; 256 MB to be decoded."""

MOST_SAMPLES = 1 << 20
"""Places of a profile or a line; a longer one takes longer steps."""

BLOCK_PX = 1 << 21
"""About so many pixels are looked at together."""

CACHE_BYTES = 128 << 20
MOST_WORKERS = 4
_VALUES_BEFORE_HISTOGRAM = 1 << 18


@dataclass(frozen=True)
class Intensity:
    """Raw counts of one channel: of no pixel, all but `pixels` and `integrated` are NaN. `sd` is that of a sample (n - 1)."""

    pixels: int
    mean: float
    sd: float
    median: float
    minimum: float
    maximum: float
    integrated: int


@dataclass(frozen=True)
class Measurement:
    """Of one shape. `intensities` by channel number; `factor` 1: exact, of raw pixels; `unreadable`: planes left out, and why."""

    area_um2: float
    length_um: float
    intensities: Mapping[int, Intensity]
    factor: int = 1
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """Counts along a line.

    distances_um    (n,) from its first corner
    counts          (n_channels, n) float64, by the order of `channels`; NaN where nothing was acquired
    """

    distances_um: np.ndarray
    counts: np.ndarray
    channels: tuple[int, ...]
    step_um: float
    unreadable: tuple[str, ...] = ()


class Measurer:
    """Measures shapes on one z and t of a slide, as a position set places it. Any thread, several at once; `close` it.

    `cancelled` is asked now and then: where it says yes, measuring raises NoLongerWantedError. Nothing else is raised for what
    cannot be read: the measurement says so.
    """

    def __init__(
        self,
        slide: Slide,
        channels: Sequence[int] | None = None,
        *,
        position_set: str = "stage",
        z: int = 0,
        t: int = 0,
        overlap: str = "top",
        most_pixels: int = MOST_PIXELS,
        cancelled: Callable[[], bool] = lambda: False,
    ):
        if overlap not in OVERLAPS:
            raise OutOfRangeError("rule for overlaps", overlap, "choose one of " + ", ".join(OVERLAPS))
        self.slide, self.z, self.t = slide, z, t
        self.overlap, self.most_pixels, self.position_set = overlap, most_pixels, position_set
        self.channels = tuple(range(len(slide.channels)) if channels is None else channels)
        for channel in self.channels:
            slide.check_channel(channel)
        self._placement = slide.placement(position_set)
        self._from_um = np.linalg.inv(self._placement.matrix_um)
        n_fields = len(self._placement.positions_um)  # a slide that grows meanwhile is measured as it is now
        self._p_sizes = np.stack([slide.fields["width"], slide.fields["height"]], axis=-1)[:n_fields].astype(np.float64)
        self._half_um = self._placement.half_extents_um(self._p_sizes[:, 0], self._p_sizes[:, 1])
        self._has = slide.acquired(z, t)[:n_fields]
        self._groups = self._alike()
        self._indices = {group[0]: SpatialIndex(self._placement.centres_um(group[0]), self._half_um) for group in self._groups}
        self._tiles = _TileReader(slide, cancelled)

    def stop(self) -> None:
        """Have whatever is being measured raise NoLongerWantedError soon, for good. Any thread."""
        self._tiles.stopped = True

    def close(self) -> None:
        """Give memory back; closing twice is harmless."""
        self._tiles.clear()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def measure(self, shape: Shape) -> Measurement:
        """Sizes, and raw counts of every channel asked for."""
        level = self._level_for(shape)
        sums = {channel: _Counts() for channel in self.channels}
        problems: dict[str, None] = {}
        for group in self._groups:
            if shape.is_area:
                self._add_area(shape, group, level, sums, problems)
            else:
                self._add_places(_places_of(shape, self._pixel_um), group, sums, problems)
        factor = self.slide.levels[level]
        found = {channel: counts.intensity(factor * factor) for channel, counts in sums.items()}
        return Measurement(shape.area_um2, shape.length_um, found, factor, tuple(problems))

    def profile(self, line: Line, width_px: int = 1, interpolation: str = "linear") -> Profile:
        """Counts at steps of a pixel size along a line; of `width_px` parallel lines a pixel apart, the mean.

        `interpolation`: "linear" between the four pixels around, or "nearest". A place has the counts of the topmost field.
        """
        if interpolation not in ("linear", "nearest") or not 1 <= width_px <= 4096:
            what = (interpolation, width_px)
            raise OutOfRangeError("kind of profile", what, 'choose "linear" or "nearest", and a width of 1 to 4096 pixels')
        distances, step, places = _across(line, width_px, self._pixel_um)
        counts = np.full((len(self.channels), len(distances)), np.nan)
        problems: dict[str, None] = {}
        for group in self._groups:
            values = self._sampled(places.reshape(-1, 2), group, interpolation == "linear", problems)
            for channel, samples in values.items():
                samples = samples.reshape(len(distances), width_px)
                there = ~np.isnan(samples)
                total, number = np.where(there, samples, 0.0).sum(axis=1), there.sum(axis=1)
                mean = np.divide(total, number, out=np.full(len(distances), np.nan), where=number > 0)
                counts[self.channels.index(channel)] = mean
        return Profile(distances, counts, self.channels, step, tuple(problems))

    # where

    @property
    def _pixel_um(self) -> float:
        return math.sqrt(abs(float(np.linalg.det(self._placement.matrix_um))))

    def _alike(self) -> list[tuple[int, ...]]:
        """Channels that lie at the same places in the same fields: what is inside is found out once for all of them."""
        groups: dict[object, list[int]] = {}
        for channel in dict.fromkeys(self.channels):
            place = b"" if self._placement.shared_by_channels else self._placement.centres_um(channel).tobytes()
            groups.setdefault((self._has[:, channel].tobytes(), place), []).append(channel)
        return [tuple(group) for group in groups.values()]

    def _frame(self, field: int, channel: int) -> FieldFrame:
        centre = self._placement.positions_um[field] + self._placement.offsets_um[channel]
        if self._placement.plane_offsets_um is not None:
            centre = centre + self._placement.plane_offsets_um[field, channel]
        return FieldFrame(self._placement.matrix_um, self._from_um, centre, self._p_sizes[field])

    def _fields_in(self, box_um: tuple[float, float, float, float], channel: int) -> list[int]:
        """Ascending numbers of the fields that have the channel and whose box meets another."""
        margin = 0.01 * self._pixel_um  # a point is a box without an extent
        left, top, right, bottom = box_um
        found = self._indices[channel].query((left - margin, top - margin, right + margin, bottom + margin))
        return found[self._has[found, channel]].tolist()

    def _level_for(self, shape: Shape) -> int:
        """The finest layer on which no channel has more pixels in the shape than are to be read."""
        pixels = min(shape.area_um2, max(map(partial(self._seen_um2, shape), self._groups), default=0.0)) / self._pixel_um**2
        fitting = (level for level, factor in enumerate(self.slide.levels) if pixels / factor**2 <= self.most_pixels)
        return next(fitting, len(self.slide.levels) - 1)

    def _seen_um2(self, shape: Shape, group: tuple[int, ...]) -> float:
        """How much of the box around a shape lies in fields: a shape may be larger than the mosaic."""
        if shape.area_um2 <= self.most_pixels * self._pixel_um**2:
            return shape.area_um2
        fields = self._fields_in(shape.box_um, group[0])
        centres_um = self._placement.centres_um(group[0])[fields]
        low = np.maximum(centres_um - self._half_um[fields], shape.box_um[:2])
        high = np.minimum(centres_um + self._half_um[fields], shape.box_um[2:])
        return float(np.clip(high - low, 0, None).prod(axis=1).sum())

    # areas

    def _add_area(
        self, shape: Shape, group: tuple[int, ...], level: int, sums: Mapping[int, _Counts], problems: dict[str, None]
    ) -> None:
        fields = self._fields_in(shape.box_um, group[0])
        frames = {field: self._frame(field, group[0]) for field in fields}
        for field in fields:
            later = [frames[other] for other in fields if other > field] if self.overlap == "top" else []
            bad: set[int] = set()
            for rows, columns, mask in self._blocks(shape, frames[field], later, level):
                for channel in group:
                    if channel in bad:
                        continue
                    try:
                        window = self._tiles.window(field, channel, self.z, self.t, level, rows, columns)
                        sums[channel].add(window[mask])
                    except SlideError as error:
                        _note(error, problems)
                        bad.add(channel)

    def _blocks(
        self, shape: Shape, frame: FieldFrame, later: list[FieldFrame], level: int
    ) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """The parts of a field's layer plane that hold some of the shape: rows, columns and which of their pixels count."""
        factor = self.slide.levels[level]
        width, height = (int(side) for side in frame.p_size)
        l_height, l_width = reduced_shape((height, width), factor)
        left, top, right, bottom = frame.p_box(shape.box_um)
        (first_row, end_row), (first_column, end_column) = span(top, bottom, factor, l_height), span(left, right, factor, l_width)
        covers = [frame.p_cover(other) for other in later]
        for rows, columns in self._tiles.cut(slice(first_row, end_row), slice(first_column, end_column)):
            self._tiles.check_wanted()
            p_x = centres(columns.start, columns.stop, factor, width)
            p_y = centres(rows.start, rows.stop, factor, height)
            mask = mask_of(shape, frame, p_x, p_y)
            for cover in covers:
                uncover(mask, cover, p_x, p_y)
            if mask.any():
                yield rows, columns, mask

    # places

    def _add_places(
        self, places_um: np.ndarray, group: tuple[int, ...], sums: Mapping[int, _Counts], problems: dict[str, None]
    ) -> None:
        if self.overlap == "top":
            for channel, values in self._sampled(places_um, group, False, problems).items():
                sums[channel].add(values[~np.isnan(values)].astype(np.uint16))
            return
        for field, frame, inside in self._owners(places_um, group[0], every=True):
            for channel in group:
                values = self._of_field(field, frame, places_um[inside], channel, False, problems)
                if values is not None:
                    sums[channel].add(values.astype(np.uint16))

    def _sampled(
        self, places_um: np.ndarray, group: tuple[int, ...], linear: bool, problems: dict[str, None]
    ) -> dict[int, np.ndarray]:
        """(n,) float64 counts at (n, 2) places in the topmost field, by channel; NaN where there is none."""
        values = {channel: np.full(len(places_um), np.nan) for channel in group}
        for field, frame, inside in self._owners(places_um, group[0], every=False):
            for channel in group:
                found = self._of_field(field, frame, places_um[inside], channel, linear, problems)
                if found is not None:
                    values[channel][inside] = found
        return values

    def _owners(self, places_um: np.ndarray, channel: int, every: bool) -> Iterator[tuple[int, FieldFrame, np.ndarray]]:
        """(field, its frame, numbers of the places that are its own): each place once, of the topmost field, or in every one."""
        box = (*places_um.min(axis=0).tolist(), *places_um.max(axis=0).tolist())
        left = np.ones(len(places_um), bool)
        for field in reversed(self._fields_in(box, channel)):
            frame = self._frame(field, channel)
            p_places = frame.to_pixels(places_um)
            inside = left & ((p_places >= 0) & (p_places < frame.p_size)).all(axis=1)
            if inside.any():
                yield field, frame, np.flatnonzero(inside)
                if not every:
                    left &= ~inside

    def _of_field(
        self, field: int, frame: FieldFrame, places_um: np.ndarray, channel: int, linear: bool, problems: dict[str, None]
    ) -> np.ndarray | None:
        """(n,) float64 counts of a plane at places that lie in it; None if it cannot be read."""

        def picked(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return self._tiles.picked(field, channel, self.z, self.t, rows, columns).astype(np.float64)

        p_places = frame.to_pixels(places_um)
        try:
            if not linear:
                columns, rows = np.floor(p_places).astype(np.int64).T
                return picked(rows, columns)
            at = np.clip(p_places - 0.5, 0, frame.p_size - 1)
            first = np.floor(at).astype(np.int64)
            last = np.minimum(first + 1, frame.p_size.astype(np.int64) - 1)
            x, y = (at - first).T
            above = (1 - x) * picked(first[:, 1], first[:, 0]) + x * picked(first[:, 1], last[:, 0])
            below = (1 - x) * picked(last[:, 1], first[:, 0]) + x * picked(last[:, 1], last[:, 0])
            return (1 - y) * above + y * below
        except SlideError as error:
            _note(error, problems)
            return None


def measured(
    measurer: Measurer, shapes: Sequence[Shape], progress: Callable[[int, int], None] = lambda _done, _total: None
) -> list[Measurement]:
    """The measurements of many shapes, in their order, by several threads; neighbours follow each other, as they share tiles."""
    if not shapes:
        return []
    slots = spatial_slots(np.array([shape.centre_um for shape in shapes]))
    results: list[Measurement | None] = [None] * len(shapes)
    parts = [part.tolist() for part in np.array_split(np.argsort(slots), min(len(shapes), 256))]
    done = 0

    def run(part: list[int]) -> int:
        for number in part:
            results[number] = measurer.measure(shapes[number])
        return len(part)

    with ThreadPoolExecutor(min(MOST_WORKERS, len(parts)), thread_name_prefix="measure") as pool:
        waiting = {pool.submit(run, part) for part in parts}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    done += future.result()
                progress(done, len(shapes))
        except BaseException:  # also Ctrl+C: what has not begun never will
            measurer.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


class _Counts:
    """Raw counts added up: exactly, in whole numbers, in bounded memory."""

    def __init__(self):
        self._values: list[np.ndarray] = []
        self._kept = 0
        self._histogram: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """(n,) uint16."""
        self._values.append(values)
        self._kept += len(values)
        if self._kept > _VALUES_BEFORE_HISTOGRAM:
            counted = np.bincount(np.concatenate(self._values), minlength=GREY_LEVELS)
            self._histogram = counted if self._histogram is None else self._histogram + counted
            self._values, self._kept = [], 0

    def intensity(self, weight: int) -> Intensity:
        """Each value standing for so many pixels."""
        values = np.sort(np.concatenate(self._values)) if self._kept else np.empty(0, np.uint16)
        grey, counts = np.unique(values, return_counts=True)
        if self._histogram is not None:
            whole = self._histogram + np.bincount(values, minlength=GREY_LEVELS)
            grey = np.flatnonzero(whole)
            counts = whole[grey]
        n = int(counts.sum())
        if n == 0:
            return Intensity(0, math.nan, math.nan, math.nan, math.nan, math.nan, 0)
        # whole numbers throughout: nothing is lost in a difference of large ones. 2^31 squares of 16 bits fit into 64
        grey, counts = grey.astype(np.uint64), counts.astype(np.uint64)
        total, squares = int(grey @ counts), int((grey * grey) @ counts) if n < 1 << 31 else _product(grey * grey, counts)
        spread = n * squares - total * total
        ends = np.cumsum(counts)
        middle = [int(grey[np.searchsorted(ends, place, side="right")]) for place in ((n - 1) // 2, n // 2)]
        return Intensity(
            pixels=n * weight,
            mean=total / n,
            sd=math.sqrt(spread / (n * (n - 1))) if n > 1 else math.nan,
            median=sum(middle) / 2,
            minimum=float(grey[0]),
            maximum=float(grey[-1]),
            integrated=total * weight,
        )


def _product(values: np.ndarray, counts: np.ndarray) -> int:
    """Of two rows of numbers, however large it is."""
    return sum(value * count for value, count in zip(values.tolist(), counts.tolist(), strict=True))


class _TileReader:
    """Parts of planes, read by tiles that are remembered for the next shape. Any thread."""

    def __init__(self, slide: Slide, cancelled: Callable[[], bool]):
        self._slide, self._cancelled = slide, cancelled
        self._kept: OrderedDict[object, np.ndarray] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()
        self.stopped = False

    def cut(self, rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
        """A window of a layer plane in blocks of whole tiles, but at its edges."""
        tile_height, tile_width = self._slide.tiling.tile_shape
        width = tile_width * max(1, math.isqrt(BLOCK_PX) // tile_width)
        height = tile_height * max(1, BLOCK_PX // (width * tile_height))
        for row, next_row in _steps(rows, height):
            for column, next_column in _steps(columns, width):
                yield slice(row, next_row), slice(column, next_column)

    def window(self, field: int, channel: int, z: int, t: int, level: int, rows: slice, columns: slice) -> np.ndarray:
        """(h, w) uint16 of a layer plane."""
        cut = self._slide.tiling.levels[level]
        if cut.packed:
            return self._plane(field, channel, z, t, level)[rows, columns]
        tile_height, tile_width = self._slide.tiling.tile_shape
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.uint16)
        blocks = [
            (row // tile_height, column // tile_width, slice(row, next_row), slice(column, next_column))
            for row, next_row in _steps(rows, tile_height)
            for column, next_column in _steps(columns, tile_width)
        ]
        first = field * cut.tiles_per_field
        keys = [TileKey(level, first + row * cut.grid[1] + column, channel, z, t) for row, column, _, _ in blocks]
        for (row, column, height, width), tile in zip(blocks, self._read(keys), strict=True):
            y, x = row * tile_height, column * tile_width
            own = tile[height.start - y : height.stop - y, width.start - x : width.stop - x]
            y, x = height.start - rows.start, width.start - columns.start
            out[y : y + own.shape[0], x : x + own.shape[1]] = own
        return out

    def picked(self, field: int, channel: int, z: int, t: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(n,) uint16 of single pixels of a plane."""
        cut = self._slide.tiling.levels[0]
        if cut.packed:
            return self._plane(field, channel, z, t, 0)[rows, columns]
        tile_height, tile_width = self._slide.tiling.tile_shape
        index = field * cut.tiles_per_field + (rows // tile_height) * cut.grid[1] + columns // tile_width
        values = np.empty(len(rows), np.uint16)
        for number in np.unique(index).tolist():
            (tile,) = self._read([TileKey(0, number, channel, z, t)])
            own = index == number
            values[own] = tile[rows[own] % tile_height, columns[own] % tile_width]
        return values

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._kept.clear()
            self._nbytes = 0

    def wanted(self) -> bool:
        """Whether anybody still waits for an answer."""
        return not (self.stopped or self._cancelled())

    def _plane(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        self.check_wanted()
        key = ("plane", field, channel, z, t, level)
        plane = self._remembered(key)
        if plane is None:
            try:
                plane = self._slide.read_plane(field, channel, z, t, level)
            except OSError as error:
                raise error if isinstance(error, SlideError) else _unreadable(error, self._slide) from error
            self._remember(key, plane)
        return plane

    def _read(self, keys: list[TileKey]) -> list[np.ndarray]:
        self.check_wanted()
        tiles = {key: self._remembered(key) for key in keys}
        missing = [key for key, tile in tiles.items() if tile is None]
        outs = [np.empty(self._slide.tiling.tile_shape, np.uint16) for _ in missing]
        outcomes = self._slide.read_tiles(missing, outs, lambda _: self.wanted(), urgent=False) if missing else []
        for key, tile, outcome in zip(missing, outs, outcomes, strict=True):
            if outcome is not None:
                self.check_wanted()
                raise outcome if isinstance(outcome, SlideError) else _unreadable(outcome, self._slide)
            tiles[key] = tile
            self._remember(key, tile)
        return [tiles[key] for key in keys]

    def check_wanted(self) -> None:
        """Raise NoLongerWantedError if nobody waits."""
        if not self.wanted():
            raise NoLongerWantedError("the measurement was cancelled", location=self._slide.location)

    def _remembered(self, key: object) -> np.ndarray | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _remember(self, key: object, tile: np.ndarray) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = tile
                self._nbytes += tile.nbytes
            while self._nbytes > CACHE_BYTES and len(self._kept) > 1:
                self._nbytes -= self._kept.popitem(last=False)[1].nbytes


def _unreadable(error: Exception, slide: Slide) -> SlideError:
    return SlideError(f"cannot be read: {error}", location=slide.location)


def _note(error: SlideError, problems: dict[str, None]) -> None:
    """Remember what could not be read, but do not go on where nobody waits."""
    if isinstance(error, NoLongerWantedError):
        raise error
    problems[str(error)] = None


def _steps(whole: slice, step: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that lie between multiples of a step."""
    at = whole.start
    while at < whole.stop:
        after = min((at // step + 1) * step, whole.stop)
        yield at, after
        at = after


def _places_of(shape: Shape, pixel_um: float) -> np.ndarray:
    """(n, 2) mosaic µm: where the counts of points or a line are taken."""
    if isinstance(shape, Points):
        return shape.points_um
    length = shape.length_um
    n = int(np.clip(round(length / pixel_um), 1, MOST_SAMPLES))
    places, _ = _along(shape, (np.arange(n) + 0.5) * (length / n))
    return places


def _across(line: Line, width_px: int, pixel_um: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Distances (n,), their step, and places (n, width_px, 2) of a profile."""
    length = line.length_um
    step = max(pixel_um, length * width_px / MOST_SAMPLES)
    distances = np.arange(int(length / step * (1 + 1e-12)) + 1) * step
    places, directions = _along(line, distances)
    normals = np.stack([-directions[:, 1], directions[:, 0]], axis=-1)
    offsets = (np.arange(width_px) - 0.5 * (width_px - 1)) * pixel_um
    return distances, step, places[:, None, :] + offsets[None, :, None] * normals[:, None, :]


def _along(line: Line, distances_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) places and (n, 2) unit directions at distances from the first corner."""
    points = line.points_um
    steps = np.diff(points, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    ends = np.cumsum(lengths)
    edge = np.minimum(np.searchsorted(ends, distances_um, side="left"), len(lengths) - 1)
    directions = np.divide(steps, lengths[:, None], out=np.zeros_like(steps), where=lengths[:, None] > 0)[edge]
    return points[edge] + (distances_um - (ends - lengths)[edge])[:, None] * directions, directions
