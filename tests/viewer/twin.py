"""The NumPy twin of the compositor: what each screen pixel must be, said independently of the viewer.

Written from the conventions of design.md §7 alone:

- the centre of screen pixel (i, j) lies at centre + (i + ½ − width/2, j + ½ − height/2) · pixel size / scale, in µm;
- a point p of the mosaic frame lies in field pixels at u = matrix_um⁻¹ · (p − field centre) + (w/2, h/2), and inside the
  field where 0 ≤ u < w and 0 ≤ v < h;
- the layer is the one whose reduction factor is the largest f ≤ 1 / scale; nearest takes its pixel ⌊u / f⌋;
- each channel is decided among the fields that have it; l̂ = clamp((l − low) / (high − low), 0, 1) ^ gamma;
- colours are added and clamped; 8 bits are round(255 · v). Where nothing lies it is black; alpha is 255 everywhere.

And from what viewer/blending.py and viewer/projection.py promise:

- unmixed: l' = U · l before the limits, where every channel that a row of U needs is there; nowhere, if it needs none;
- grey: each shown channel is white; a single shown channel with a colour map has the map's colour at l̂ · 255;
- on white: each channel takes from white what its colour, with the lightness inverted in HSL, lacks of it; a map is reversed;
- projected: of every field the maximum of its acquired z planes, on the layer that is shown.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.slide import Slide

OVERLAPS = ("top", "nearest", "feather", "max")


@dataclass(frozen=True)
class ChannelState:
    """How one channel is shown."""

    limits: tuple[float, float] = (0.0, 65535.0)
    gamma: float = 1.0
    color: str = "#ffffff"
    visible: bool = True
    column: tuple[float, float, float] | None = None

    def rgb(self) -> np.ndarray:
        """(3,) float64: its column of the mixer matrix."""
        return rgb(self.color) if self.column is None else np.array(self.column, np.float64)


def screen_points_um(
    slide: Slide, center_um: tuple[float, float], scale: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(height, width) float64 mosaic x and y of every screen pixel's centre; `size` is (width, height)."""
    width, height = size
    step_um = slide.header.pixel_size_um / scale
    x_um = center_um[0] + (np.arange(width) + 0.5 - width / 2) * step_um
    y_um = center_um[1] + (np.arange(height) + 0.5 - height / 2) * step_um
    return np.broadcast_to(x_um, (height, width)), np.broadcast_to(y_um[:, None], (height, width))


def level_for(slide: Slide, scale: float) -> int:
    """The zoom layer at or above the screen's density: the largest reduction factor that is at most 1 / scale."""
    return max(level for level, factor in enumerate(slide.levels) if factor == 1 or factor <= 1 / scale)


def composed_counts(
    slide: Slide,
    channel: int,
    x_um: np.ndarray,
    y_um: np.ndarray,
    *,
    level: int = 0,
    overlap: str = "top",
    position_set: str = "stage",
    z: int = 0,
    t: int = 0,
    projection: str = "none",
) -> tuple[np.ndarray, np.ndarray]:
    """float64 counts of one channel at points of the mosaic frame, and a bool array of where any field has it."""
    placement = slide.placement(position_set)
    inverse = np.linalg.inv(placement.matrix_um)
    centres_um, factor = placement.centres_um(channel), slide.levels[level]
    counts, weights = np.zeros(x_um.shape), np.zeros(x_um.shape)
    covered = np.zeros(x_um.shape, bool)
    nearest_um = np.full(x_um.shape, np.inf)
    in_view = fields_near(slide, centres_um, placement.matrix_um, x_um, y_um)
    planes_z = range(slide.size_z) if projection == "max" else (z,)
    acquired = np.stack([slide.acquired(each, t)[:, channel] for each in planes_z])
    for field in np.flatnonzero(in_view & acquired.any(axis=0)):
        field_height, field_width = int(slide.fields["height"][field]), int(slide.fields["width"][field])
        dx_um, dy_um = x_um - centres_um[field, 0], y_um - centres_um[field, 1]
        u = inverse[0, 0] * dx_um + inverse[0, 1] * dy_um + field_width / 2
        v = inverse[1, 0] * dx_um + inverse[1, 1] * dy_um + field_height / 2
        inside = (u >= 0) & (u < field_width) & (v >= 0) & (v < field_height)
        if not inside.any():
            continue
        there = [each for each, has in zip(planes_z, acquired[:, field], strict=True) if has]
        plane = np.max([slide.read_plane(int(field), channel, each, t, level) for each in there], axis=0)
        u, v = u[inside], v[inside]
        values = plane[np.floor(v / factor).astype(int), np.floor(u / factor).astype(int)].astype(np.float64)
        if overlap == "top":  # fields come in ascending order: the highest number stays
            counts[inside] = values
        elif overlap == "max":
            counts[inside] = np.maximum(counts[inside], values)
        elif overlap == "nearest":
            distance_um = np.hypot(dx_um[inside], dy_um[inside])
            closer = distance_um < nearest_um[inside]
            counts[inside] = np.where(closer, values, counts[inside])
            nearest_um[inside] = np.where(closer, distance_um, nearest_um[inside])
        elif overlap == "feather":
            weight = np.minimum.reduce([u, field_width - u, v, field_height - v])
            counts[inside] += weight * values
            weights[inside] += weight
        else:
            raise ValueError(f"unknown overlap mode {overlap!r}: one of {', '.join(OVERLAPS)}")
        covered[inside] = True
    if overlap == "feather":
        counts = np.divide(counts, weights, out=np.zeros_like(counts), where=weights > 0)
    return counts, covered


def fields_near(slide: Slide, centres_um: np.ndarray, matrix_um: np.ndarray, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
    """(n,) bool: fields whose circumscribed circle meets the box around the points; it saves time and changes nothing."""
    radii_um = np.linalg.norm(matrix_um, 2) * np.hypot(slide.fields["width"], slide.fields["height"]) / 2
    return (
        (centres_um[:, 0] >= x_um.min() - radii_um)
        & (centres_um[:, 0] <= x_um.max() + radii_um)
        & (centres_um[:, 1] >= y_um.min() - radii_um)
        & (centres_um[:, 1] <= y_um.max() + radii_um)
    )


def render(
    slide: Slide,
    center_um: tuple[float, float],
    scale: float,
    size: tuple[int, int],
    channels: Sequence[ChannelState],
    *,
    mode: str = "colour",
    background: str = "black",
    table: np.ndarray | None = None,
    unmixing: np.ndarray | None = None,
    **placed: object,
) -> np.ndarray:
    """(height, width, 4) uint8: the picture of the slide, nearest interpolation; `size` is (width, height).

    `table`: (256, 3) uint8 colour map; `placed`: overlap, position_set, z, t, projection, as for `composed_counts`.
    """
    x_um, y_um = screen_points_um(slide, center_um, scale, size)
    level = level_for(slide, scale)
    matrix = np.eye(len(channels)) if unmixing is None else np.asarray(unmixing, np.float64)
    shown = [number for number, state in enumerate(channels) if state.visible and (unmixing is None or matrix[number].any())]
    read = [number for number in range(len(channels)) if (matrix[shown, number] != 0).any()]
    counts = {number: composed_counts(slide, number, x_um, y_um, level=level, **placed) for number in read}
    total, background_rgb = np.zeros((*x_um.shape, 3)), 1.0 if background == "white" else 0.0
    taken = np.zeros_like(total)
    for number in shown:
        state, needs = channels[number], np.flatnonzero(matrix[number])
        unmixed = sum(matrix[number, source] * counts[source][0] for source in needs)
        there = np.logical_and.reduce([counts[source][1] for source in needs])[..., None]
        low, high = state.limits
        intensity = np.clip((unmixed - low) / (high - low), 0, 1) ** state.gamma
        if table is not None and len(shown) == 1:
            place = 255 * (1 - intensity if background == "white" else intensity)
            color = np.stack([np.interp(place, np.arange(256), table[:, part]) for part in range(3)], axis=-1) / 255
            total = np.where(there, color, 0.0)
            taken = np.where(there, 1 - color, 0.0)
            continue
        column = np.ones(3) if mode == "grey" else state.rgb()
        total += np.where(there, intensity[..., None] * column, 0.0)
        taken += np.where(there, intensity[..., None] * (1 - _light_for_dark(column)), 0.0)
    picture = background_rgb - taken if background == "white" else total
    image = np.full((*x_um.shape, 4), 255, np.uint8)
    image[..., :3] = np.floor(255 * np.clip(picture, 0, 1) + 0.5)
    return image


def _light_for_dark(column: np.ndarray) -> np.ndarray:
    """A colour of the same hue and saturation with the lightness inverted."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*column)
    return np.array(colorsys.hls_to_rgb(hue, 1 - lightness, saturation))


def rgb(color: str) -> np.ndarray:
    """(3,) float64 of '#rrggbb', 0 to 1."""
    return np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255


def clearance_px(
    slide: Slide, center_um: tuple[float, float], scale: float, size: tuple[int, int], *, position_set: str = "stage"
) -> float:
    """How near, in full-resolution pixels, any screen pixel's centre comes to a boundary between two pixels of a field.

    An exact comparison of two computations needs some room: nearer than the error of float32, a point may fall on either side.
    For placements without rotation or shear, where a field's columns depend on one screen axis alone.
    """
    x_um, y_um = screen_points_um(slide, center_um, scale, size)
    placement, factor = slide.placement(position_set), slide.levels[level_for(slide, scale)]
    inverse, smallest = np.linalg.inv(placement.matrix_um), np.inf
    for channel in range(len(slide.channels)):
        centres_um = placement.centres_um(channel)
        in_view = fields_near(slide, centres_um, placement.matrix_um, x_um, y_um)
        for screen_um, axis in ((x_um[0], 0), (y_um[:, 0], 1)):
            row = int(np.argmax(np.abs(inverse[:, axis])))  # which image axis this screen axis runs along
            lengths = slide.fields["width" if row == 0 else "height"][in_view]
            places = inverse[row, axis] * (screen_um[:, None] - centres_um[in_view, axis]) + lengths / 2
            inside = (places > -1) & (places < lengths + 1)
            edges = np.minimum(np.abs(places), np.abs(places - lengths))
            steps = np.abs(places - factor * np.rint(places / factor))
            smallest = min(smallest, float(np.minimum(edges, steps)[inside].min(initial=np.inf)))
    return smallest
