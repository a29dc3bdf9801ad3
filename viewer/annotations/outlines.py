"""Annotations as outlines for a figure: as fine as the figure shows, each with its name and size beside it."""

from __future__ import annotations

from rawmosaic.viewer.annotations.geometry import outline_um, size_text
from rawmosaic.viewer.annotations.model import AnnotationSet
from rawmosaic.viewer.annotations.shapes import Points
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.figure import Outline

CROSS_SHARE = 1 / 100
"""Of the figure's shorter side: how far the arms of the cross of a point reach."""


def figure_outlines(annotations: AnnotationSet, camera: Camera) -> list[Outline]:
    """What of the annotations a figure shows, in drawing order; points are crosses."""
    outlines: list[Outline] = []
    arm_um = max(CROSS_SHARE * min(camera.size), 3.0) / camera.px_per_um
    for number in annotations.meeting(camera.bounds_um()).tolist():
        annotation = annotations[number]
        color, shape = annotations.color_of(annotation), annotation.shape
        name = " ".join(part for part in (annotation.name or annotation.class_name, size_text(shape)) if part)
        if isinstance(shape, Points):
            for x, y in shape.points_um.tolist():
                outlines.append(Outline([(x - arm_um, y), (x + arm_um, y)], False, color, name))
                outlines.append(Outline([(x, y - arm_um), (x, y + arm_um)], False, color))
        else:
            for place, (points, closed) in enumerate(outline_um(shape, 0.5 / camera.px_per_um)):
                outlines.append(Outline(points.tolist(), closed, color, name if place == 0 else ""))
    return outlines
