"""Which pixels lie in a shape and what they count, said independently: every pixel of every field is asked in turn.

Written from the words alone: a pixel (i, j) of a field of w × h has its centre at matrix · (i + ½ − w/2, j + ½ − h/2) from the
field's centre; it counts if that lies in the shape and, by the rule `top`, in no later field that has the channel.
"""

from __future__ import annotations

import numpy as np

from rawmosaic.storage.slide import Slide


def pixel_centres_um(slide: Slide, field: int, channel: int, position_set: str = "stage") -> np.ndarray:
    """(h, w, 2) float64 mosaic µm."""
    placement = slide.placement(position_set)
    height, width = int(slide.fields["height"][field]), int(slide.fields["width"][field])
    rows, columns = np.mgrid[:height, :width]
    from_centre = np.stack([columns + 0.5 - width / 2, rows + 0.5 - height / 2], axis=-1)
    return from_centre @ placement.matrix_um.T + placement.centres_um(channel)[field]


def covers(slide: Slide, field: int, channel: int, places_um: np.ndarray, position_set: str = "stage") -> np.ndarray:
    """Bool: which (…, 2) places a field's image holds."""
    placement = slide.placement(position_set)
    size = np.array([slide.fields["width"][field], slide.fields["height"][field]], float)
    p_places = (places_um - placement.centres_um(channel)[field]) @ np.linalg.inv(placement.matrix_um).T + size / 2
    return ((p_places >= 0) & (p_places < size)).all(axis=-1)


def counts_inside(
    slide: Slide, channel: int, inside, *, every: bool = False, z: int = 0, t: int = 0, position_set: str = "stage"
) -> np.ndarray:
    """(n,) float64 counts of the pixels whose centre `inside(x, y)` takes."""
    has = slide.acquired(z, t)[:, channel]
    found = []
    for field in np.flatnonzero(has):
        places = pixel_centres_um(slide, field, channel, position_set)
        taken = inside(places[..., 0], places[..., 1])
        for later in np.flatnonzero(has[field + 1 :]) + field + 1 if not every else ():
            taken &= ~covers(slide, later, channel, places, position_set)
        found.append(slide.read_plane(int(field), channel, z, t)[taken])
    return np.concatenate([np.empty(0), *found]).astype(np.float64)


def in_rings(rings: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even-odd, by the ray to the right."""
    odd = np.zeros(x.shape, bool)
    for ring in rings:
        for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if ay == by:
                continue
            between = (ay > y) != (by > y)
            odd ^= between & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return odd
