"""From well to well: which scene a view shows, and the view of the next. Pure: nothing is read."""

from __future__ import annotations

import math

import numpy as np

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.camera import Camera, bounds_of
from rawmosaic.viewer.places import fitted
from rawmosaic.viewer.plan import Geometry


def scene_boxes(slide: Slide, geometry: Geometry) -> dict[int, tuple[float, float, float, float]]:
    """Left, top, right, bottom (µm) of each scene of which a field was acquired, by its number."""
    scene_of, centres = slide.fields["scene"], geometry.centres_um(0)
    scene_of = scene_of[: len(centres)]  # a slide that grows may know of fields that have no place yet
    fields_of = ((scene, np.flatnonzero(scene_of == scene)) for scene in range(len(slide.scenes)))
    return {scene: bounds_of(centres[fields], geometry.half_um[fields]) for scene, fields in fields_of if len(fields)}


def next_scene(slide: Slide, geometry: Geometry, camera: Camera, step: int) -> tuple[int, Camera] | None:
    """(number, camera that fits it) of the scene that comes `step` after the one in view, or before it; None past the ends.

    In view is the one whose middle lies nearest to the view's. A view of everything comes before the first, and after the last.
    """
    boxes = scene_boxes(slide, geometry)
    numbers = list(boxes)
    if not numbers:
        return None
    at = min(range(len(numbers)), key=lambda place: _distance(camera, boxes[numbers[place]]))
    if _shows(camera, geometry.bounds_um) and not _is_fitted(camera, boxes[numbers[at]]):
        at = -1 if step > 0 else len(numbers)
    if not 0 <= at + step < len(numbers):
        return None
    number = numbers[at + step]
    return number, fitted(camera, boxes[number])


def _distance(camera: Camera, box: tuple[float, float, float, float]) -> float:
    return math.hypot(0.5 * (box[0] + box[2]) - camera.x_um, 0.5 * (box[1] + box[3]) - camera.y_um)


def _shows(camera: Camera, box: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = camera.bounds_um()
    slack = 1e-6 * (right - left)
    return left <= box[0] + slack and top <= box[1] + slack and right >= box[2] - slack and bottom >= box[3] - slack


def _is_fitted(camera: Camera, box: tuple[float, float, float, float]) -> bool:
    there = fitted(camera, box)
    near = 1e-6 * max(box[2] - box[0], box[3] - box[1])
    same_place = math.isclose(there.x_um, camera.x_um, abs_tol=near) and math.isclose(there.y_um, camera.y_um, abs_tol=near)
    return same_place and math.isclose(there.scale, camera.scale, rel_tol=1e-6)
