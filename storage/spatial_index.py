"""Which fields are in view: an R-tree over the fields' boxes, for mosaics that are too large to look at each."""

from __future__ import annotations

import threading

import numpy as np

LINEAR_LIMIT = 4096
"""Up to this many fields comparing all is as fast as a tree. Beyond, the tree is built in the background by the first query
that needs one, and all are compared until it is there."""


class SpatialIndex:
    """Axis-aligned boxes of n fields, (n, 2) centres and (n, 2) half extents in µm; `query` gives those that meet a window."""

    def __init__(self, centres_um: np.ndarray, half_extents_um: np.ndarray):
        self._low = np.ascontiguousarray(centres_um - half_extents_um)
        self._high = np.ascontiguousarray(centres_um + half_extents_um)
        self._tree = None
        self._building: threading.Thread | None = None
        if len(centres_um):
            self._bounds = (*self._low.min(axis=0), *self._high.max(axis=0))
        else:
            self._bounds = (0.0, 0.0, 0.0, 0.0)

    def query(self, window_um: tuple[float, float, float, float]) -> np.ndarray:
        """Ascending (k,) int64 field numbers whose box meets a (left, top, right, bottom) window, µm."""
        left, top, right, bottom = window_um
        n = len(self._low)
        if n == 0:
            return np.empty(0, np.int64)
        if left <= self._bounds[0] and top <= self._bounds[1] and right >= self._bounds[2] and bottom >= self._bounds[3]:
            return np.arange(n)
        if n > LINEAR_LIMIT and self._building is None:
            self._building = threading.Thread(target=self._build, name="spatial-index", daemon=True)
            self._building.start()
        if self._tree is None:  # few fields, or the tree is still growing
            low, high = self._low, self._high
            return np.flatnonzero((low[:, 0] < right) & (high[:, 0] > left) & (low[:, 1] < bottom) & (high[:, 1] > top))
        found, _ = self._tree.intersection_v(np.array([[left, top]]), np.array([[right, bottom]]))
        return np.sort(np.asarray(found, np.int64))

    def close(self) -> None:
        """Wait for the tree, if it is being built; closing twice is harmless."""
        if self._building is not None:
            self._building.join()

    def _build(self) -> None:
        self._tree = _bulk_loaded(self._low, self._high)


def _bulk_loaded(low: np.ndarray, high: np.ndarray):
    from rtree.index import Index

    return Index((np.arange(len(low), dtype=np.int64), low, high))
