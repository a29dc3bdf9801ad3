"""The raw counts of a rectangle of the mosaic, from the tiles of a zoom layer. Reads; not for the GL thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rawmosaic.storage.errors import NoLongerWantedError, SlideError
from rawmosaic.storage.pyramid import TileKey, reduced_shape
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer import projection
from rawmosaic.viewer.annotations.pixels import FieldFrame, mask_of
from rawmosaic.viewer.annotations.shapes import Shape
from rawmosaic.viewer.plan import Geometry, choose_level

Bounds = tuple[float, float, float, float]

TILES_AT_ONCE = 8
MOST_PIXELS = 1 << 22
"""A region of more pixels on a layer is taken from a coarser one."""


def fitting_level(slide: Slide, bounds_um: Bounds, scale: float, most_pixels: int = MOST_PIXELS) -> int:
    """The zoom layer that a view of this scale shows, or a coarser one if the region has too many pixels of it."""
    left, top, right, bottom = bounds_um
    pixels = max(right - left, 0.0) * max(bottom - top, 0.0) / slide.header.pixel_size_um**2
    level = choose_level(scale, slide.levels)
    while level < len(slide.levels) - 1 and pixels / slide.levels[level] ** 2 > most_pixels:
        level += 1
    return level


def region_counts(
    slide: Slide,
    geometry: Geometry,
    bounds_um: Bounds,
    channels: Sequence[int],
    z: int = 0,
    t: int = 0,
    level: int = 0,
    *,
    fields: Sequence[int] | None = None,
    shape: Shape | None = None,
    wanted: Callable[[], bool] = lambda: True,
    progress: Callable[[float], None] = lambda _share: None,
    problems: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """(channels, pixels) uint16 blocks: the counts of all pixels of a layer whose centre lies in the region, field by field.

    Only fields that have all of these channels count; where fields overlap each counts. Their place is that of the first channel.
    `fields` says which of them count, if not all; `shape` is an area in the region: then its pixels alone count; `z` is the
    slide's `size_z` for the projection. Tiles that cannot be read are left out and noted in `problems`. `progress` is told which
    share was read, 0 to 1. Raises NoLongerWantedError once `wanted` says no.
    """
    channels = list(channels)
    has = slide.acquired(z, t) if z < slide.size_z else projection.acquired(slide, t)
    near = geometry.in_box(bounds_um, channels[0]) if fields is None else np.array(fields, np.int64)
    near = near[has[np.ix_(near, channels)].all(axis=1)]
    windows = {int(field): window for field in near if (window := _window(slide, geometry, bounds_um, field, channels[0], level))}
    indices = _tiles_of(slide, windows, level)
    for first in range(0, len(indices), TILES_AT_ONCE):
        if not wanted():
            raise NoLongerWantedError("something else is asked for by now", location=slide.location)
        progress(first / len(indices))
        some = indices[first : first + TILES_AT_ONCE]
        for index, tiles in zip(some, _read(slide, some, channels, z, t, level, wanted, problems), strict=True):
            if tiles is not None:
                yield from _pieces(slide, geometry, bounds_um, TileKey(level, index, channels[0]), tiles, windows, shape)


def _window(
    slide: Slide, geometry: Geometry, bounds_um: Bounds, field: int, channel: int, level: int
) -> tuple[slice, slice] | None:
    """Rows and columns of a field's layer plane that hold all its pixels in the region; None if there are none."""
    left, top, right, bottom = bounds_um
    corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)])
    p_corners = (corners - geometry.centres_um(channel)[field]) @ geometry.from_um.T + 0.5 * geometry.p_sizes[field]
    factor, p_size = slide.levels[level], geometry.p_sizes[field].astype(int)
    height, width = reduced_shape((int(p_size[1]), int(p_size[0])), factor)
    low = np.maximum(np.floor(p_corners.min(axis=0) / factor).astype(int), 0)
    high = np.minimum(np.ceil(p_corners.max(axis=0) / factor).astype(int), (width, height))
    if (low >= high).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _tiles_of(slide: Slide, windows: dict[int, tuple[slice, slice]], level: int) -> list[int]:
    """Ascending indices of the tiles that hold these windows."""
    cut, (height, width) = slide.tiling.levels[level], slide.tiling.tile_shape
    indices: set[int] = set()
    for field, (rows, columns) in windows.items():
        if cut.packed:
            indices.add(int(slide.fields["slot"][field]) // cut.fields_per_tile)
            continue
        for row in range(rows.start // height, (rows.stop - 1) // height + 1):
            first = field * cut.tiles_per_field + row * cut.grid[1]
            indices.update(range(first + columns.start // width, first + (columns.stop - 1) // width + 1))
    return sorted(indices)


def _read(
    slide: Slide,
    indices: Sequence[int],
    channels: Sequence[int],
    z: int,
    t: int,
    level: int,
    wanted: Callable[[], bool],
    problems: list[str] | None,
) -> Iterator[np.ndarray | None]:
    """(channels, tile height, tile width) of each tile, None where one of them cannot be read."""
    keys = [TileKey(level, index, channel, z, t) for index in indices for channel in channels]
    tiles = np.empty((len(keys), *slide.tiling.tile_shape), np.uint16)
    outcomes = projection.read_tiles(slide, keys, list(tiles), lambda _: wanted())
    for number in range(len(indices)):
        own = slice(number * len(channels), (number + 1) * len(channels))
        errors = [error for error in outcomes[own] if error is not None]
        for error in errors:
            if isinstance(error, NoLongerWantedError) or not isinstance(error, SlideError):
                raise error
            if problems is not None:
                problems.append(str(error))
        yield None if errors else tiles[own]


def _pieces(
    slide: Slide,
    geometry: Geometry,
    bounds_um: Bounds,
    key: TileKey,
    tiles: np.ndarray,
    windows: dict[int, tuple[slice, slice]],
    shape: Shape | None,
) -> Iterator[np.ndarray]:
    """What a tile holds of the region, field by field."""
    factor = slide.levels[key.level]
    for field, window, (tile_row, tile_column) in slide.tiling.pieces(key, slide.field_of_slot):
        if field not in windows:
            continue
        rows, columns = (_common(part, own) for part, own in zip(window, windows[field], strict=True))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        in_tile = tiles[
            :,
            tile_row + rows.start - window[0].start : tile_row + rows.stop - window[0].start,
            tile_column + columns.start - window[1].start : tile_column + columns.stop - window[1].start,
        ]
        width, height = geometry.p_sizes[field]
        u, v = (_centres(part, factor, size) for part, size in ((columns, width), (rows, height)))
        inside = _inside(geometry, bounds_um, shape, field, key.channel, u, v)
        if inside.any():
            yield in_tile.reshape(len(tiles), -1) if inside.all() else in_tile[:, inside]


def _inside(
    geometry: Geometry, bounds_um: Bounds, shape: Shape | None, field: int, channel: int, p_x: np.ndarray, p_y: np.ndarray
) -> np.ndarray:
    """(len(p_y), len(p_x)) bool: which of a field's pixel centres lie in the region, or in the shape."""
    matrix, centre, p_size = geometry.placement.matrix_um, geometry.centres_um(channel)[field], geometry.p_sizes[field]
    if shape is not None:
        return mask_of(shape, FieldFrame(matrix, geometry.from_um, centre, p_size), p_x, p_y)
    left, top, right, bottom = bounds_um
    x_um, y_um = (
        centre[axis] + matrix[axis, 0] * (p_x - 0.5 * p_size[0])[None, :] + matrix[axis, 1] * (p_y - 0.5 * p_size[1])[:, None]
        for axis in (0, 1)
    )
    return (x_um >= left) & (x_um < right) & (y_um >= top) & (y_um < bottom)


def _common(first: slice, second: slice) -> slice:
    return slice(max(first.start, second.start), min(first.stop, second.stop))


def _centres(part: slice, factor: int, size: float) -> np.ndarray:
    """Full-resolution places of layer pixels' centres; the last pixel of a plane may cover less than the others."""
    starts = np.arange(part.start, part.stop) * factor
    return 0.5 * (starts + np.minimum(starts + factor, size))
