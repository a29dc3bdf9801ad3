"""How often each grey level occurs in a plane: exact, and quick enough to be counted while a camera delivers."""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from rawmosaic.storage.slide import GREY_LEVELS

_BLOCK_PX = 1 << 15
"""Pixels that are counted at a time: as the eight-byte indices that NumPy counts by, they stay in the processor's caches."""

_FEW_LEVELS = 1 << 13
"""A range of so many grey levels is looked up in the sorted pixels; a wider one is read off their steps."""

_LEVELS = np.arange(GREY_LEVELS, dtype=np.uint16)


def grey_level_counts(plane: np.ndarray, overwrite: bool = False) -> np.ndarray:
    """(65536,) uint32: how many pixels of a uint16 plane have each grey level.

    With `overwrite` the pixels may be sorted in place (`plane` must be C-contiguous then): no copy is made.
    """
    if plane.size and _sorts_quickly():
        pixels = plane.reshape(-1) if overwrite else plane.flatten()
        pixels.sort()
        return _counts_of_sorted(pixels)
    return _counts_by_index(plane)


def _counts_of_sorted(pixels: np.ndarray) -> np.ndarray:
    """Sorting takes about as long as counting does, where it is done with wide registers; but NumPy sorts without the GIL."""
    counts = np.zeros(GREY_LEVELS, np.uint32)
    low, high = int(pixels[0]), int(pixels[-1])
    if high - low < _FEW_LEVELS:
        ends = pixels.searchsorted(_LEVELS[low : high + 1], side="right")
        counts[low] = ends[0]
        np.subtract(ends[1:], ends[:-1], out=counts[low + 1 : high + 1], casting="unsafe")
        return counts
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts[pixels[starts]] = np.diff(starts, append=pixels.size)
    counts[low] = starts[0]
    return counts


def _counts_by_index(plane: np.ndarray) -> np.ndarray:
    counts = np.zeros(GREY_LEVELS, np.uint32)
    pixels = plane.reshape(-1)
    indices = np.empty(min(_BLOCK_PX, pixels.size), np.intp)
    one = counts.dtype.type(1)
    for first in range(0, pixels.size, _BLOCK_PX):
        block = pixels[first : first + _BLOCK_PX]
        indices[: block.size] = block
        # a third quicker than np.bincount, which also looks for the extremes
        np.add.at(counts, indices[: block.size], one)
    return counts


@cache
def _sorts_quickly() -> bool:
    """Whether this processor and this NumPy sort uint16 with wide registers: a nanosecond or two a value, else some forty."""
    noise = (np.arange(1 << 14, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(16)).astype(np.uint16)
    seconds = []
    for _ in range(5):
        values = noise.copy()
        start = time.perf_counter()
        values.sort()
        seconds.append(time.perf_counter() - start)
    return min(seconds) < 8e-9 * noise.size
