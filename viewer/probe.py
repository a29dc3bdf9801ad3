"""What lies under the cursor: the field that is seen there, its pixel, and the raw counts of every channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.plan import Geometry


@dataclass(frozen=True)
class Spot:
    """A field and a pixel of it: `x`, `y` full-resolution pixels from its first pixel's corner."""

    field: int
    x: int
    y: int


def spot_at(geometry: Geometry, has: np.ndarray, channel: int, x_um: float, y_um: float) -> Spot | None:
    """The topmost field (the later one wins) that has a plane of the channel there; None beside the mosaic.

    `has`: (n_fields, n_channels) bool, as `Slide.acquired`.
    """
    near = geometry.at(x_um, y_um, channel)
    near = near[has[near, channel]]
    if not len(near):
        return None
    p_points = (np.array([x_um, y_um]) - geometry.centres_um(channel)[near]) @ geometry.from_um.T + 0.5 * geometry.p_sizes[near]
    inside = ((p_points >= 0) & (p_points < geometry.p_sizes[near])).all(axis=1)
    if not inside.any():
        return None
    last = int(np.flatnonzero(inside)[-1])
    x, y = np.floor(p_points[last]).astype(int).tolist()
    return Spot(int(near[last]), x, y)


def count_at(slide: Slide, spot: Spot, channel: int, z: int, t: int) -> int:
    """The raw count of a pixel, read from its tile of level 0. Not in the GL thread: it reads. Raises SlideError."""
    cut = slide.tiling.levels[0]
    height, width = slide.tiling.tile_shape
    if cut.packed:
        slot = int(slide.fields["slot"][spot.field])
        row, column = cut.slot_origin(slot)
        tile = slide.read_tile(TileKey(0, slot // cut.fields_per_tile, channel, z, t))
        return int(tile[row + spot.y, column + spot.x])
    index = spot.field * cut.tiles_per_field + (spot.y // height) * cut.grid[1] + spot.x // width
    return int(slide.read_tile(TileKey(0, index, channel, z, t))[spot.y % height, spot.x % width])


def counts_at(
    slide: Slide, geometry: Geometry, channels: tuple[int, ...], z: int, t: int, x_um: float, y_um: float
) -> dict[int, int]:
    """Raw counts by channel at a place of the mosaic frame, of those that have a plane there and can be read."""
    has, counts = slide.acquired(z, t), {}
    for channel in channels:
        spot = spot_at(geometry, has, channel, x_um, y_um)
        if spot is None:
            continue
        try:
            counts[channel] = count_at(slide, spot, channel, z, t)
        except SlideError:  # the picture shows and names what cannot be read
            continue
    return counts
