"""Planned positions: where a running scan has yet to acquire what the view would show. Pure: no thread, no file, no GL."""

from __future__ import annotations

import numpy as np

from rawmosaic.viewer.plan import Geometry, View, outline_rows

LEAST_PX = 4.0
"""Fields smaller than this on the screen are not outlined: lines would be all there is to see."""


def planned_fields(view: View, geometry: Geometry, acquired: np.ndarray) -> np.ndarray:
    """Ascending numbers of the fields in view that have none of the view's channels at its z and t, by `acquired`, the
    (n_fields, n_channels) bool of that z and t. Where no channel is shown, those without any."""
    fields = geometry.in_view(view.camera, view.channels[0] if view.channels else 0)
    fields = fields[fields < len(acquired)]
    if not len(fields):
        return fields
    has = acquired[np.ix_(fields, view.channels)] if view.channels else acquired[fields]
    return fields[~has.any(axis=1)]


def planned_rows(view: View, geometry: Geometry, acquired: np.ndarray) -> np.ndarray:
    """(k, 4) float32 rows for shaders/outline.vert: the planned fields in view, none where they are too small to be outlined."""
    largest_px = geometry.p_sizes.max(initial=0.0) * view.camera.scale
    fields = planned_fields(view, geometry, acquired) if largest_px >= LEAST_PX else np.empty(0, np.int64)
    return outline_rows(view.camera, geometry, fields)
