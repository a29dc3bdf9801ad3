"""Reference regions for unmixing: annotations whose class is a channel's name, where that dye is alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.annotations.model import AnnotationSet
from rawmosaic.viewer.annotations.shapes import Box
from rawmosaic.viewer.plan import Geometry
from rawmosaic.viewer.unmixing import reference_spectrum, unmixing_matrix

BACKGROUND = "background"


@dataclass(frozen=True)
class References:
    """The regions by channel, and one without any dye, or None; boxes in mosaic µm."""

    channels: dict[int, Box]
    background: Box | None = None


def reference_boxes(annotations: AnnotationSet, names: Sequence[str]) -> References:
    """The last area of each class that is a channel's name, in any case; of class `background` as well."""
    known = {name.casefold(): number for number, name in enumerate(names)}
    channels, background = {}, None
    for number in annotations:
        annotation = annotations[number]
        if not annotation.shape.is_area:
            continue
        name = annotation.class_name.casefold()
        if name in known:
            channels[known[name]] = annotation.shape.box_um
        elif name == BACKGROUND:
            background = annotation.shape.box_um
    return References(channels, background)


def unmixing_of(slide: Slide, geometry: Geometry, references: References, names: Sequence[str], z: int, t: int) -> np.ndarray:
    """(n, n) float64 U from the mean counts of the regions. Reads; not in the GL thread. Raises SlideError."""
    spectra = {channel: reference_spectrum(slide, geometry, box, z, t) for channel, box in references.channels.items()}
    box = references.background
    background = None if box is None else reference_spectrum(slide, geometry, box, z, t)
    return unmixing_matrix(spectra, names, background)
