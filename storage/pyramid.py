"""Zoom layers: how planes shrink, and how every layer is cut into tiles.

A zoom layer holds the same planes reduced by 2^n by area mean. A *tile* is what is read, cached, uploaded and
evicted as one. All tiles of a slide share one shape (tile_height, tile_width), so that one texture array holds
any of them:

- a *block* layer cuts every plane into a grid of tiles; tile (r, c) of layer n lies inside tile (r//2, c//2) of
  layer n+1;
- a *packed* layer puts the same channel of `pack_rows × pack_columns` whole fields into one tile, so that an
  overview reads few large tiles and not thousands of crumbs.

Coordinates carry their frame in the name: ``p_`` full-resolution image pixels of a field, ``l_`` pixels of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

TARGET_TILE_PX = 256
"""Tiles are cut as near to this size as the field's shape divides evenly (docs/design/layouts.md has the measurement)."""

TILE_WIDTH_MULTIPLE = 8
"""Blosc shuffles bits only where a block holds a multiple of eight values; else the tile is hardly compressed at all."""

SMALLEST_FIELD_PX = 8
"""Zoom layers go on until a whole field is at most this many pixels on its longer side."""


_STRIP_VALUES = 1 << 18
"""Values that are added up at a time."""


class TileKey(NamedTuple):
    """Which tile: layer number, index of the tile within the layer, channel, z and t."""

    level: int
    index: int
    channel: int
    z: int = 0
    t: int = 0


def reduced_shape(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """The (height, width) of a plane of `shape` on the layer reduced by `factor`; edge pixels may be partial."""
    return -(-shape[0] // factor), -(-shape[1] // factor)


def reduce_plane(plane: np.ndarray, factors: tuple[int, ...]) -> list[np.ndarray]:
    """Area means of a (height, width) uint16 plane for each factor (ascending powers of two, the first 1).

    Each layer is rounded once, half up, from exact sums of the acquired pixels, never from an already rounded layer: the mean
    grey level of a region is the same on every layer. Pixels at the right and bottom edge average the pixels that exist.
    """
    return PlaneReducer(factors).reduce(plane)


class PlaneReducer:
    """`reduce_plane` for one plane after the other, in memory that is used again: half of the time goes into fresh memory.

    The layers that `reduce` gives are valid until it is called again. One thread at a time.
    """

    def __init__(self, factors: tuple[int, ...]):
        self._factors = factors
        self._memory: dict[tuple[str, int], np.ndarray] = {}

    def reduce(self, plane: np.ndarray) -> list[np.ndarray]:
        """The plane itself, and its area mean for every other factor; see `reduce_plane`."""
        layers = [plane]
        brightest = int(plane.max(initial=0))
        sums, done = plane, 1
        for factor in self._factors[1:]:
            while done < factor:
                done *= 2
                sums = self._pair_sums(sums, done, _narrowest(brightest, done))
            layers.append(self._rounded_means(sums, plane.shape, factor))
        return layers

    def _pair_sums(self, array: np.ndarray, factor: int, dtype: type) -> np.ndarray:
        """Sums of 2 × 2 blocks; a last odd row or column stands alone."""
        height, width = array.shape
        sums = self._array("sums", factor, (-(-height // 2), -(-width // 2)), dtype)
        # by strips: what is made on the way stays in the processor's caches
        strip = max(1, min(_STRIP_VALUES // max(width, 1), height // 2))
        rows = self._array("rows", factor, (strip, width), dtype)
        for first in range(0, height - 1, 2 * strip):
            pairs = array[first : min(first + 2 * strip, height - height % 2)]
            _column_pair_sums(
                np.add(pairs[0::2], pairs[1::2], out=rows[: len(pairs) // 2], dtype=dtype),
                sums[first // 2 : (first + len(pairs)) // 2],
            )
        if height % 2:
            _column_pair_sums(array[-1:].astype(dtype), sums[-1:])
        return sums

    def _rounded_means(self, sums: np.ndarray, shape: tuple[int, int], factor: int) -> np.ndarray:
        """Sums over factor × factor pixels of a plane of `shape` as uint16 means: full blocks are a shift, the rim divides."""
        shift = 2 * (factor.bit_length() - 1)
        means = self._array("means", factor, sums.shape, np.uint16)
        shifted = means if sums.dtype == means.dtype else self._array("shifted", factor, sums.shape, sums.dtype.type)
        np.add(sums, sums.dtype.type(1 << (shift - 1)), out=shifted)
        np.right_shift(shifted, sums.dtype.type(shift), out=shifted)
        if shifted is not means:
            np.copyto(means, shifted, casting="unsafe")
        height, width = (side % factor or factor for side in shape)  # pixels of the last row and column
        if height < factor:
            means[-1] = _divided(sums[-1], height * factor)
        if width < factor:
            means[:, -1] = _divided(sums[:, -1], width * factor)
        if height < factor and width < factor:
            means[-1, -1:] = _divided(sums[-1, -1:], height * width)
        return means

    def _array(self, what: str, factor: int, shape: tuple[int, int], dtype: type) -> np.ndarray:
        """An array of our own for that purpose, whatever it held before."""
        size = shape[0] * shape[1]
        nbytes = size * np.dtype(dtype).itemsize
        memory = self._memory.get((what, factor))
        if memory is None or memory.size < nbytes:
            memory = self._memory[what, factor] = np.empty(nbytes, np.uint8)
        return memory[:nbytes].view(dtype).reshape(shape)


def _narrowest(brightest: int, factor: int) -> type:
    """The type for sums over factor × factor pixels, with half of their number to round: narrow ones are added quicker."""
    largest = factor * factor * brightest + factor * factor // 2
    return next(dtype for dtype in (np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(dtype).max)


def _column_pair_sums(rows: np.ndarray, out: np.ndarray) -> None:
    width = rows.shape[1]
    if out.dtype == np.uint16 and width % 2 == 0 and rows.flags.c_contiguous:
        # both pixels of a pair at once, as the halves of one wider value: what overflows into the upper half is dropped
        pairs = rows.view(np.uint32)
        np.copyto(out, np.add(pairs, pairs >> np.uint32(16)), casting="unsafe")
        return
    np.add(rows[:, 0 : width - 1 : 2], rows[:, 1::2], out=out[:, : width // 2])
    if width % 2:
        out[:, -1] = rows[:, -1]


def _divided(sums: np.ndarray, count: int) -> np.ndarray:
    """Means of sums over `count` pixels each, rounded half up."""
    return (sums.astype(np.uint64) + np.uint64(count // 2)) // np.uint64(count)


@dataclass(frozen=True)
class LevelTiling:
    """How one layer is cut. `plane_shape` is the largest field's (height, width) on this layer, in layer pixels."""

    factor: int
    plane_shape: tuple[int, int]
    grid: tuple[int, int]
    pack: tuple[int, int]

    @property
    def packed(self) -> bool:
        """Whether a tile holds several whole fields."""
        return self.pack != (1, 1)

    @property
    def tiles_per_field(self) -> int:
        """Tiles that one field and channel takes (1 on packed layers, where fields share them)."""
        return self.grid[0] * self.grid[1]

    @property
    def fields_per_tile(self) -> int:
        """Whole fields that one tile holds (1 on block layers)."""
        return self.pack[0] * self.pack[1]

    def slot_origin(self, slot: int | np.ndarray) -> tuple:
        """Top left (row, column) in tile pixels of the field that has packing number `slot`."""
        within = slot % self.fields_per_tile
        return (within // self.pack[1]) * self.plane_shape[0], (within % self.pack[1]) * self.plane_shape[1]


@dataclass(frozen=True)
class Tiling:
    """How all layers of a slide are cut; the tile shape is the same on each."""

    field_shape: tuple[int, int]
    tile_shape: tuple[int, int]
    levels: tuple[LevelTiling, ...]

    @classmethod
    def of(
        cls,
        field_shape: tuple[int, int],
        factors: tuple[int, ...] | None = None,
        tile_shape: tuple[int, int] | None = None,
    ) -> Tiling:
        """The tiling of fields of at most `field_shape` (height, width) pixels."""
        tile_shape = tile_shape or (_even_split(field_shape[0]), _rounded_up(_even_split(field_shape[1])))
        factors = factors or default_factors(field_shape)
        levels = []
        for factor in factors:
            plane = reduced_shape(field_shape, factor)
            pack = tuple(max(1, tile // size) for tile, size in zip(tile_shape, plane, strict=True))
            grid = tuple(-(-size // tile) for tile, size in zip(tile_shape, plane, strict=True))
            if grid != (1, 1):
                pack = (1, 1)
            levels.append(LevelTiling(factor, plane, grid, pack))
        return cls(tuple(field_shape), tile_shape, tuple(levels))

    @cached_property
    def factors(self) -> tuple[int, ...]:
        """Reduction factor of each layer, 1 first."""
        return tuple(level.factor for level in self.levels)

    @property
    def tile_nbytes(self) -> int:
        """Bytes of one decoded tile."""
        return 2 * self.tile_shape[0] * self.tile_shape[1]

    def tile_count(self, level: int, n_fields: int) -> int:
        """Tiles of one channel, z and t on a layer."""
        cut = self.levels[level]
        return n_fields * cut.tiles_per_field if not cut.packed else -(-n_fields // cut.fields_per_tile)

    def pieces(self, key: TileKey, field_of_slot: np.ndarray) -> Iterator[tuple[int, tuple[slice, slice], tuple[int, int]]]:
        """What a tile is made of: (field, window of the field's layer plane, (row, column) in the tile) for each field in it."""
        cut = self.levels[key.level]
        height, width = self.tile_shape
        if cut.packed:
            first = key.index * cut.fields_per_tile
            for slot in range(first, min(first + cut.fields_per_tile, len(field_of_slot))):
                window = (slice(0, cut.plane_shape[0]), slice(0, cut.plane_shape[1]))
                yield int(field_of_slot[slot]), window, cut.slot_origin(slot)
            return
        field, block = divmod(key.index, cut.tiles_per_field)
        row, column = divmod(block, cut.grid[1])
        window = (slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
        yield field, window, (0, 0)


def default_factors(field_shape: tuple[int, int]) -> tuple[int, ...]:
    """1, 2, 4, … until a whole field is a handful of pixels."""
    factors = [1]
    while max(field_shape) > SMALLEST_FIELD_PX * factors[-1]:
        factors.append(factors[-1] * 2)
    return tuple(factors)


def _rounded_up(width: int) -> int:
    """The next tile width whose rows Blosc can shuffle."""
    return -(-width // TILE_WIDTH_MULTIPLE) * TILE_WIDTH_MULTIPLE


def _even_split(size: int) -> int:
    """The tile size nearest to the target that cuts `size` into equal parts, so that edge tiles are not slivers."""
    parts = max(1, round(size / TARGET_TILE_PX))
    return -(-size // parts)
