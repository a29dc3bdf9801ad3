"""Which fields are in view: a packed R-tree of two layers over the fields' boxes.

The leaves are runs of fields as they follow each other in the table. Acquisitions go from neighbour to neighbour, so a run is
small; where one does not, so many runs meet the window that all fields are looked at instead, which takes longer, not wrong.
"""

from __future__ import annotations

import numpy as np

RUN_FIELDS = 64
FEW = 1 / 4
"""Up to this share of the runs it pays to gather their fields; beyond, looking at all is quicker."""


class SpatialIndex:
    """Axis-aligned boxes of n fields, (n, 2) centres and (n, 2) half extents in µm; `query` gives those that meet a window."""

    def __init__(self, centres_um: np.ndarray, half_extents_um: np.ndarray):
        # one axis after the other: each comparison then runs through memory that lies together
        self._low = np.ascontiguousarray((centres_um - half_extents_um).T)
        self._high = np.ascontiguousarray((centres_um + half_extents_um).T)
        firsts = np.arange(0, len(centres_um), RUN_FIELDS)
        self._run_low = np.minimum.reduceat(self._low, firsts, axis=1) if len(firsts) else self._low
        self._run_high = np.maximum.reduceat(self._high, firsts, axis=1) if len(firsts) else self._high

    def query(self, window_um: tuple[float, float, float, float]) -> np.ndarray:
        """Ascending (k,) int64 field numbers whose box meets a (left, top, right, bottom) window, µm."""
        runs = _meeting(self._run_low, self._run_high, window_um)
        if len(runs) > FEW * self._run_low.shape[1]:
            return _meeting(self._low, self._high, window_um)
        fields = (runs[:, None] * RUN_FIELDS + np.arange(RUN_FIELDS)).ravel()
        fields = fields[: np.searchsorted(fields, self._low.shape[1])]  # the last run may be shorter
        return fields[_meeting(self._low[:, fields], self._high[:, fields], window_um)]


def _meeting(low: np.ndarray, high: np.ndarray, window_um: tuple[float, float, float, float]) -> np.ndarray:
    """Ascending int64 numbers of the boxes, (2, n) low and high corners, that meet a window."""
    left, top, right, bottom = window_um
    return np.flatnonzero((low[0] < right) & (high[0] > left) & (low[1] < bottom) & (high[1] > top)).astype(np.int64, copy=False)
