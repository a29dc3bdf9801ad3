"""Memory that planes are read into to be proven, one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.pyramid import Tiling

_CODEC_NBYTES = 64
"""More than the codec adds to a tile that it cannot make smaller."""


@dataclass(frozen=True)
class PlaneMemory:
    """Room for one plane. One thread at a time.

    stored       (n,) uint8, for the compressed tiles of all block levels
    chunk_nbytes bytes that one of them may have
    band         (n,) uint16, for a row of tiles of the full resolution
    tile         (height, width) uint16
    """

    stored: np.ndarray
    chunk_nbytes: int
    band: np.ndarray
    tile: np.ndarray

    @classmethod
    def of(cls, tiling: Tiling) -> PlaneMemory:
        """For planes of a slide that is cut like this."""
        n_tiles = sum(math.prod(cut.grid) for cut in tiling.levels if not cut.packed)
        chunk_nbytes = tiling.tile_nbytes + _CODEC_NBYTES
        band = np.empty(tiling.levels[0].grid[1] * math.prod(tiling.tile_shape), np.uint16)
        return cls(np.empty((n_tiles + 1) * chunk_nbytes, np.uint8), chunk_nbytes, band, np.empty(tiling.tile_shape, np.uint16))
