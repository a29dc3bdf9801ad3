"""Which tiles a moving viewer will want: from the hint that it gives to tile keys. No thread, no socket, nothing is read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from rawmosaic.storage.errors import ProtocolError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide, ViewHint
from rawmosaic.storage.spatial_index import SpatialIndex

LOOK_AHEAD_S = 0.5
"""How far the view is thought on."""

MOST_TILES = 256
"""A hint that would ask for more is looked at for so many."""

MOST_CHANNELS = 64

Window = tuple[float, float, float, float]
"""left, top, right, bottom, µm."""


def hint_from(body: Mapping, slide: Slide) -> ViewHint:
    """The hint in a request, checked against the slide; ProtocolError."""
    view = body.get("view")
    if not isinstance(view, Mapping):
        raise ProtocolError("a hint has a `view`")
    velocity, channels = view.get("velocity_um_s"), view.get("channels")
    if not isinstance(velocity, list) or len(velocity) != 2 or not isinstance(channels, list) or len(channels) > MOST_CHANNELS:
        raise ProtocolError("a hint has `velocity_um_s` [x, y], and `channels`")
    position_set = view.get("position_set", "stage")
    if not isinstance(position_set, str) or position_set not in slide.position_sets:
        raise ProtocolError("a hint names one of the slide's position sets")
    x_um, y_um, width_um, height_um = (_finite(view.get(name)) for name in ("x_um", "y_um", "width_um", "height_um"))
    if width_um < 0 or height_um < 0:
        raise ProtocolError("a view has a size")
    return ViewHint(
        x_um,
        y_um,
        width_um,
        height_um,
        (_finite(velocity[0]), _finite(velocity[1])),
        _index(view.get("level"), len(slide.levels)),
        tuple(_index(channel, len(slide.channels)) for channel in channels),
        _index(view.get("z", 0), slide.size_z),
        _index(view.get("t", 0), slide.size_t),
        position_set,
    )


class FieldsInView:
    """The fields of a slide that meet a window, for any position set and channel; the indexes are made when first asked."""

    def __init__(self, slide: Slide):
        self._slide = slide
        self._indexes: dict[tuple[str, int], SpatialIndex] = {}

    def query(self, position_set: str, channel: int, window_um: Window) -> np.ndarray:
        """Ascending (k,) field numbers whose plane of that channel meets a window."""
        placement = self._slide.placement(position_set)
        address = position_set, 0 if placement.shared_by_channels else channel
        index = self._indexes.get(address)
        if index is None:
            fields = self._slide.fields[: len(placement.positions_um)]
            half = placement.half_extents_um(fields["width"], fields["height"])
            index = self._indexes[address] = SpatialIndex(placement.centres_um(address[1]), half)
        return index.query(window_um)

    def close(self) -> None:
        """Forget the indexes."""
        self._indexes = {}


def tiles_ahead(slide: Slide, hint: ViewHint, fields: FieldsInView) -> list[TileKey]:
    """Keys of the tiles in the viewport as it will be, those in its middle first; at most 256."""
    x_um, y_um = (at + LOOK_AHEAD_S * speed for at, speed in zip((hint.x_um, hint.y_um), hint.velocity_um_s, strict=True))
    half_width, half_height = hint.width_um / 2, hint.height_um / 2
    window = (x_um - half_width, y_um - half_height, x_um + half_width, y_um + half_height)
    placement = slide.placement(hint.position_set)
    share = max(1, MOST_TILES // max(1, len(hint.channels)))
    keys: list[TileKey] = []
    for channel in hint.channels:
        numbers = fields.query(hint.position_set, channel, window)
        centres = placement.centres_um(channel)[numbers]
        nearest = numbers[np.argsort(np.abs(centres - (x_um, y_um)).max(axis=1), kind="stable")]
        indexes: dict[int, None] = {}
        for field in nearest.tolist():
            centre = placement.centres_um(channel)[field]
            indexes |= dict.fromkeys(_indexes_of(slide, hint.level, field, window, centre, placement.matrix_um))
            if len(indexes) >= share:
                break
        keys += [TileKey(hint.level, index, channel, hint.z, hint.t) for index in list(indexes)[:share]]
    return keys


def _indexes_of(
    slide: Slide,
    level: int,
    field: int,
    window_um: tuple[float, float, float, float],
    centre_um: np.ndarray,
    matrix_um: np.ndarray,
) -> list[int]:
    """The tiles of a field on a layer that meet a window."""
    cut = slide.tiling.levels[level]
    if cut.packed:
        return [int(slide.fields["slot"][field]) // cut.fields_per_tile]
    left, top, right, bottom = window_um
    corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]]) - centre_um
    width, height = int(slide.fields["width"][field]), int(slide.fields["height"][field])
    # window → image pixels of the field → pixels of the layer → tiles
    pixels = (corners @ np.linalg.inv(matrix_um).T + (width / 2, height / 2)) / cut.factor
    tile_height, tile_width = slide.tiling.tile_shape
    columns = _covered(pixels[:, 0], tile_width, -(-width // cut.factor))
    rows = _covered(pixels[:, 1], tile_height, -(-height // cut.factor))
    return [field * cut.tiles_per_field + row * cut.grid[1] + column for row in rows for column in columns]


def _covered(pixels: np.ndarray, tile: int, size: int) -> range:
    """Numbers of the tiles along one axis between the smallest and the largest pixel."""
    low, high = max(0.0, float(pixels.min())), min(float(size), float(pixels.max()))
    return range(int(low // tile), -(-math.ceil(high) // tile)) if low < high else range(0)


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise ProtocolError("a hint is made of numbers")
    return float(value)


def _index(value: object, size: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
        raise ProtocolError("a hint names what the slide has")
    return value
