"""How often each grey level occurs in a plane: exact, and quick enough to be counted while a camera delivers."""

from __future__ import annotations

import numpy as np

from rawmosaic.storage.slide import GREY_LEVELS

_BLOCK_PX = 1 << 15
"""Pixels that are counted at a time: as the eight-byte indices that NumPy counts by, they stay in the processor's caches."""


def grey_level_counts(plane: np.ndarray) -> np.ndarray:
    """(65536,) uint32: how many pixels of a uint16 plane have each grey level."""
    counts = np.zeros(GREY_LEVELS, np.uint32)
    pixels = plane.reshape(-1)
    indices = np.empty(min(_BLOCK_PX, pixels.size), np.intp)
    one = counts.dtype.type(1)
    for first in range(0, pixels.size, _BLOCK_PX):
        block = pixels[first : first + _BLOCK_PX]
        indices[: block.size] = block
        # a third quicker than np.bincount, which also looks for the extremes, and with the GIL released for longer
        np.add.at(counts, indices[: block.size], one)
    return counts
