"""A view that goes along with a scan: it moves as little as keeps the newest field in sight, until hands move it. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from rawmosaic.viewer.camera import Camera

Box = tuple[float, float, float, float]
"""left, top, right, bottom, mosaic µm"""


def kept_in_view(camera: Camera, box_um: Box) -> Camera:
    """The camera, moved so that it shows the box; the same one if it does.

    Along an axis on which the box is not wholly in view its middle becomes the view's: a scan that runs along a row then moves
    the picture now and then, by half a view, and not with each field.
    """
    bounds = camera.bounds_um()
    centre = [camera.x_um, camera.y_um]
    for axis in (0, 1):
        low, high = box_um[axis], box_um[axis + 2]
        first, last = bounds[axis], bounds[axis + 2]
        slack = 1e-6 * (last - first)
        inside = first - slack <= low and high <= last + slack
        around = low <= centre[axis] <= high and high - low > last - first  # a field larger than the view
        if not (inside or around):
            centre[axis] = 0.5 * (low + high)
    return camera if centre == [camera.x_um, camera.y_um] else replace(camera, x_um=centre[0], y_um=centre[1])


def was_panned(before: Camera, now: Camera) -> bool:
    """Whether hands moved the view: further than zooming at a point of it does."""
    shrunk = abs(1.0 - before.scale / now.scale)
    for side, moved in zip(before.size, (now.x_um - before.x_um, now.y_um - before.y_um), strict=True):
        by_zoom = 0.5 * side / before.px_per_um * shrunk
        if abs(moved) > by_zoom * (1 + 1e-6) and not math.isclose(now.px_per_um * moved, 0.0, abs_tol=1e-6):
            return True
    return False
