"""Histograms as they are drawn: 65536 counts → a few hundred bars of a range, logarithmic."""

from __future__ import annotations

import numpy as np


def shown_range(counts: np.ndarray, limits: tuple[float, float], bits: int = 16) -> tuple[float, float]:
    """(first, last) grey level to draw: all but the outermost pixels, and the limits with room to drag them."""
    present = np.flatnonzero(counts)
    first, last = (float(present[0]), float(present[-1])) if len(present) else (0.0, float(2**bits - 1))
    cumulative = np.cumsum(counts, dtype=np.float64)
    if cumulative[-1] > 0:  # a few bright pixels shall not squeeze everything else into a corner
        last = min(last, 2.0 * float(np.searchsorted(cumulative, 0.999 * cumulative[-1])) + 16)
    low, high = min(limits), max(limits)
    margin = 0.1 * max(high - low, 1.0)
    first, last = min(first, low - margin), max(last, high + margin)
    return max(first, 0.0) if low >= 0 else first, max(last, first + 16)


def log_bars(counts: np.ndarray, first: float, last: float, bars: int) -> np.ndarray:
    """(bars,) float32, 0 to 1: log(1 + pixels) of equal parts of [first, last], by the highest of them."""
    edges = np.linspace(first, last, bars + 1)
    cumulative = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    inside = np.interp(edges, np.arange(len(cumulative)), cumulative)
    heights = np.log1p(np.diff(inside))
    return (heights / max(heights.max(), 1e-9)).astype(np.float32)
