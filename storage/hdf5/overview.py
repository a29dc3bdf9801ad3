"""The overview of a slide of very many fields: the whole mosaic put together once, at low resolution.

A hundred thousand fields of five pixels each are a hundred thousand quads, and no frame has time for them. So beyond some number
of fields the file also holds its mosaic as a slide of one large field, which the viewer shows, and says so, while fields are a
few pixels on the screen. Closer up the fields themselves are drawn.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5.at_once import changed_at_once
from rawmosaic.storage.hdf5.chunk_index import write_chunk_index
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.writer import SlideWriter
from rawmosaic.storage.placement import Placement
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Header, Slide, new_fields

FROM_FIELDS = 2500
"""Fewer fields are drawn one by one in good time."""

LONGEST_SIDE_PX = 8192


def add_overview(path: str | os.PathLike) -> None:
    """Add the overview to a finished virtual slide file, in place of an older one; a kill meanwhile leaves the file as it was.

    Raises SlideError, OSError.
    """
    with TemporaryDirectory(dir=Path(path).resolve().parent, prefix=".overview-") as folder:
        apart = Path(folder) / "overview.h5"
        with Hdf5Slide(path) as slide:
            _write_overview(slide, apart)
            channels = len(slide.channels), slide.size_z, slide.size_t
        with changed_at_once(path) as file, h5py.File(apart, "r") as source:
            if fmt.OVERVIEW in file:
                del file[fmt.OVERVIEW]
            source.copy(source["/"], file, fmt.OVERVIEW)
            tiling = _tiling(apart)
            for level in range(len(tiling.levels)):  # the copy has moved the chunks
                write_chunk_index(file[fmt.OVERVIEW], level, tiling, 1, channels)


def canvas_level(slide: Slide) -> int:
    """The layer whose pixels the overview has: the finest whose mosaic is not longer than LONGEST_SIDE_PX."""
    left, top, right, bottom = _bounds_um(slide.placement(), slide.fields)
    longest = max(right - left, bottom - top) / slide.header.pixel_size_um
    fitting = [level for level, factor in enumerate(slide.levels) if longest / factor <= LONGEST_SIDE_PX]
    return fitting[0] if fitting else len(slide.levels) - 1


def compose(slide: Slide, level: int, channel: int, z: int = 0, t: int = 0) -> np.ndarray:
    """(height, width) uint16: the mosaic of one channel in pixels of a layer, later fields on top, zero where nothing lies."""
    placement = slide.placement()
    left, top, right, bottom = _bounds_um(placement, slide.fields)
    pixel_um = slide.levels[level] * slide.header.pixel_size_um
    canvas = np.zeros(
        (max(1, int(np.ceil((bottom - top) / pixel_um))), max(1, int(np.ceil((right - left) / pixel_um)))), np.uint16
    )
    from_um = np.linalg.inv(placement.matrix_um)
    centres = placement.centres_um(channel)
    half = placement.half_extents_um(slide.fields["width"], slide.fields["height"])
    planes = _LayerPlanes(slide, level, channel, z, t)
    for field in np.flatnonzero(slide.acquired(z, t)[:, channel]):
        plane = planes.read(int(field))
        if plane is None:
            continue
        first = np.maximum(np.floor((centres[field] - half[field] - (left, top)) / pixel_um).astype(int), 0)
        last = np.minimum(np.ceil((centres[field] + half[field] - (left, top)) / pixel_um).astype(int), canvas.shape[::-1])
        x_um = left + (np.arange(first[0], last[0]) + 0.5) * pixel_um - centres[field, 0]
        y_um = top + (np.arange(first[1], last[1]) + 0.5) * pixel_um - centres[field, 1]
        size = slide.fields["width"][field], slide.fields["height"][field]
        u, v = (from_um[axis, 0] * x_um[None, :] + from_um[axis, 1] * y_um[:, None] + 0.5 * size[axis] for axis in (0, 1))
        inside = (u >= 0) & (u < size[0]) & (v >= 0) & (v < size[1])
        row, column = (v // slide.levels[level]).astype(int), (u // slide.levels[level]).astype(int)
        target = canvas[first[1] : last[1], first[0] : last[0]]
        target[inside] = plane[row[inside], column[inside]]
    return canvas


class _LayerPlanes:
    """Planes of one layer, channel, z and t; packed tiles are kept, since fields come in no order of tiles."""

    def __init__(self, slide: Slide, level: int, channel: int, z: int, t: int):
        self._slide, self._level, self._rest = slide, level, (channel, z, t)
        self._tiles: dict[int, np.ndarray] = {}

    def read(self, field: int) -> np.ndarray | None:
        """(h, w) uint16 of a field, None where it cannot be read."""
        slide, cut = self._slide, self._slide.tiling.levels[self._level]
        try:
            if not cut.packed:
                return slide.read_plane(field, *self._rest, level=self._level)
            slot = int(slide.fields["slot"][field])
            index = slot // cut.fields_per_tile
            if index not in self._tiles:
                self._tiles[index] = slide.read_tile(TileKey(self._level, index, *self._rest))
            row, column = cut.slot_origin(slot)
            return self._tiles[index][row : row + cut.plane_shape[0], column : column + cut.plane_shape[1]]
        except SlideError:
            return None


def _write_overview(slide: Hdf5Slide, path: Path) -> None:
    level = canvas_level(slide)
    placement = slide.placement()
    left, top, *_ = _bounds_um(placement, slide.fields)
    pixel_um = slide.levels[level] * slide.header.pixel_size_um
    writer = None
    for channel in range(len(slide.channels)):
        for z in range(slide.size_z):
            for t in range(slide.size_t):
                canvas = compose(slide, level, channel, z, t)
                if writer is None:
                    fields = new_fields(1, canvas.shape)
                    fields["x_um"] = left + 0.5 * canvas.shape[1] * pixel_um
                    fields["y_um"] = top + 0.5 * canvas.shape[0] * pixel_um
                    writer = SlideWriter(
                        path,
                        field_shape=canvas.shape,
                        tile_shape=slide.tiling.tile_shape,
                        channels=slide.channels,
                        header=Header(f"overview of {slide.header.name}", pixel_size_um=pixel_um),
                        size_z=slide.size_z,
                        size_t=slide.size_t,
                        fields=fields,
                    )
                writer.write_plane(canvas, channel, field=0, z=z, t=t)
    writer.close()


def _tiling(path: Path):
    with Hdf5Slide(path) as slide:
        return slide.tiling


def _bounds_um(placement: Placement, fields: np.ndarray) -> tuple[float, float, float, float]:
    half = placement.half_extents_um(fields["width"], fields["height"])
    low = (placement.positions_um - half).min(axis=0)
    high = (placement.positions_um + half).max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
