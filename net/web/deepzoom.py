"""The mosaic cut as DeepZoom: levels, their sizes, and the region of the mosaic frame that each tile shows. Pure.

Names carry their frame: ``s_`` mosaic frame in µm, ``l0_`` full-resolution pixels from the mosaic's left top corner, ``z_``
pixels of a DeepZoom level, ``t_`` tile column or row. DeepZoom counts levels from the coarsest: on level 0 the mosaic is a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.slide import Slide

Bounds = tuple[float, float, float, float]
"""(left, top, right, bottom), mosaic µm."""

TILE_PX = 512
OVERLAP_PX = 1
"""Pixels that a tile shows of each neighbour: a viewer that draws tiles at fractions of a pixel needs them against hairlines."""

NAMESPACE = "http://schemas.microsoft.com/deepzoom/2008"


class TileView(NamedTuple):
    """What one tile shows: a region of the mosaic frame, and the size of its picture (width, height), pixels."""

    region_um: Bounds
    size_px: tuple[int, int]


@dataclass(frozen=True)
class DeepZoom:
    """A mosaic as DeepZoom. `s_origin` is its left top corner, `l0_size` its (width, height) at full resolution."""

    s_origin: tuple[float, float]
    l0_size: tuple[int, int]
    pixel_size_um: float
    tile_px: int = TILE_PX
    overlap_px: int = OVERLAP_PX

    @classmethod
    def of(cls, bounds_um: Bounds, pixel_size_um: float, tile_px: int = TILE_PX, overlap_px: int = OVERLAP_PX) -> DeepZoom:
        """The DeepZoom of a region of the mosaic frame; the last pixels of a row and a column may reach beyond it."""
        left, top, right, bottom = bounds_um
        # a whole number of pixels shall not become one more for want of the last bit
        width, height = (max(1, math.ceil(side / pixel_size_um - 1e-6)) for side in (right - left, bottom - top))
        return cls((left, top), (width, height), pixel_size_um, tile_px, overlap_px)

    @property
    def last_level(self) -> int:
        """The level of full resolution, scale 1.0."""
        return (max(self.l0_size) - 1).bit_length()

    @property
    def first_useful_level(self) -> int:
        """The finest level that is a single tile: whoever shows a picture needs none below."""
        fitting = [level for level in range(self.last_level + 1) if max(self.level_size(level)) <= self.tile_px]
        return fitting[-1]

    def level_size(self, level: int) -> tuple[int, int]:
        """(width, height) of a level, z_ pixels; OutOfRangeError."""
        factor = self._factor(level)
        width, height = (-(-side // factor) for side in self.l0_size)
        return width, height

    def tile_counts(self, level: int) -> tuple[int, int]:
        """(columns, rows) of tiles on a level; OutOfRangeError."""
        columns, rows = (-(-side // self.tile_px) for side in self.level_size(level))
        return columns, rows

    def tile(self, level: int, t_column: int, t_row: int) -> TileView:
        """What a tile shows; OutOfRangeError where the level has no such tile."""
        factor, z_size = self._factor(level), self.level_size(level)
        for what, value, count in zip(("column", "row"), (t_column, t_row), self.tile_counts(level), strict=True):
            if not 0 <= value < count:
                raise OutOfRangeError(what, value, f"level {level} has {what}s 0 to {count - 1}")
        begin = [max(0, at * self.tile_px - self.overlap_px) for at in (t_column, t_row)]
        end = [min(size, (at + 1) * self.tile_px + self.overlap_px) for at, size in zip((t_column, t_row), z_size, strict=True)]
        pixel_um = self.pixel_size_um * factor
        left, top = (origin + at * pixel_um for origin, at in zip(self.s_origin, begin, strict=True))
        right, bottom = (origin + at * pixel_um for origin, at in zip(self.s_origin, end, strict=True))
        return TileView((left, top, right, bottom), (end[0] - begin[0], end[1] - begin[1]))

    def descriptor(self, file_format: str) -> str:
        """The .dzi file: an XML document that names sizes and the format of the tiles' files."""
        width, height = self.l0_size
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Image xmlns={quoteattr(NAMESPACE)} Format={quoteattr(file_format)} "
            f'Overlap="{self.overlap_px}" TileSize="{self.tile_px}">\n'
            f'  <Size Width="{width}" Height="{height}"/>\n</Image>\n'
        )

    def _factor(self, level: int) -> int:
        if not 0 <= level <= self.last_level:
            raise OutOfRangeError("level", level, f"the mosaic has DeepZoom levels 0 to {self.last_level}")
        return 1 << (self.last_level - level)


def mosaic_bounds_um(slide: Slide, position_set: str = "stage") -> Bounds:
    """The box around all fields under a position set; a unit square about the origin for none. OutOfRangeError."""
    return _box_around(slide, position_set, np.arange(slide.n_fields))


def scene_bounds_um(slide: Slide, scene: int, position_set: str = "stage") -> Bounds:
    """The box around the fields of a scene under a position set; OutOfRangeError."""
    return _box_around(slide, position_set, np.flatnonzero(slide.fields["scene"] == scene))


def _box_around(slide: Slide, position_set: str, chosen: np.ndarray) -> Bounds:
    placement, fields = slide.placement(position_set), slide.fields[chosen]
    if not len(fields):
        return -0.5, -0.5, 0.5, 0.5
    half = placement.half_extents_um(fields["width"], fields["height"])
    low, high = [], []
    for channel in range(1 if placement.shared_by_channels else len(slide.channels)):
        centres = placement.centres_um(channel)[chosen]
        low.append((centres - half).min(axis=0))
        high.append((centres + half).max(axis=0))
    left, top = np.min(low, axis=0).tolist()
    right, bottom = np.max(high, axis=0).tolist()
    return left, top, right, bottom
