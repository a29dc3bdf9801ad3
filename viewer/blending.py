"""How channels become one picture: M · S · l̂ by default; in grey, on white, through a colour map, unmixed. Pure: numbers only.

The way of a pixel: counts → (unmixed) → limits and gamma → v, 0 to 1 → times the channel's column of the mixer matrix, summed →
(taken from white). Each step but the limits is left out of the shader where it changes nothing.

Unmixing
    counts' = U · counts, before the limits; U is (n, n), for all channels of the slide. Hidden channels that a shown one needs
    are read as well. An unmixed channel is seen where all that it needs is there: part of it would be wrong, and look right.
On white
    The picture is 1 − Σ v · ink, where ink = max(c) + min(c) − c for a column c: the colour that a channel takes away from white
    when it is full is such that c is left, with light and dark exchanged: green stays green, white becomes black. (Inverting the
    lightness of c in HSL and keeping its hue is the same.) Where two channels meet both take away, as dyes do in bright field.
Colour map
    Where a single channel is shown, its v is looked up in the map; on white in the reversed map. Elsewhere it has no effect.
Grey
    Each shown channel counts as white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.channels import ChannelView, mixer_matrix, status_matrix
from rawmosaic.viewer.palettes import COLOR_MAPS, TABLE_COLORS, color_table

MODES = ("colour", "grey")
BACKGROUNDS = ("black", "white")


@dataclass(frozen=True, eq=False)
class Blending:
    """What is adjustable of a picture beside its channels' own looks.

    color_map   a name of palettes.COLOR_MAPS, or None
    unmixing    U, (n, n) float64 among the channels it is used with, or None
    """

    mode: str = "colour"
    background: str = "black"
    color_map: str | None = None
    unmixing: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Mixing:
    """What the renderer does for n channels that are read and k that are shown of them.

    shown    (k,) positions of the shown channels among those read
    columns  (k, 3) float64: colour of each, or ink on white
    shares   (k, n) float64: their rows of U; None where nothing is unmixed
    table    (256, 3) uint8: colours of the only channel by its v, on white what they take away; None without a colour map
    """

    shown: np.ndarray
    columns: np.ndarray
    shares: np.ndarray | None
    table: np.ndarray | None
    on_white: bool


PLAIN = Blending()


def mixing(looks: Sequence[ChannelView], blending: Blending = PLAIN) -> Mixing:
    """How the channels that are read, with these looks, become a picture. Raises OutOfRangeError for unknown names."""
    checked(blending)
    on_white = blending.background == "white"
    shares, shown = None, np.arange(len(looks))
    if blending.unmixing is not None and _unmixes(blending.unmixing, looks):
        visible = np.array([look.visible for look in looks], bool)
        shown = np.flatnonzero(visible & (blending.unmixing != 0).any(axis=1))
        shares = blending.unmixing[shown]
    columns = (mixer_matrix(looks) @ status_matrix(looks)).T[shown]
    if blending.mode == "grey":
        columns = np.repeat(np.array([[float(looks[place].visible)] for place in shown]).reshape(-1, 1), 3, axis=1)
    table = None
    if blending.color_map is not None and len(shown) == 1:
        table = color_table(blending.color_map)
        if on_white:
            table = (TABLE_COLORS - 1) - table[::-1]
    return Mixing(shown, ink(columns) if on_white else columns, shares, table, on_white)


def ink(columns: np.ndarray) -> np.ndarray:
    """(k, 3) what full channels of these colours take away from white, so that the colour is left, light and dark exchanged."""
    columns = np.asarray(columns, np.float64)
    if not len(columns):
        return columns
    return columns.max(axis=1, keepdims=True) + columns.min(axis=1, keepdims=True) - columns


def needed_channels(visible: Sequence[bool], unmixing: np.ndarray | None) -> tuple[int, ...]:
    """Ascending numbers of the channels that are read: the shown ones, and those that unmixing takes them from."""
    needed = np.array(visible, bool)
    if unmixing is not None and needed.any():
        needed = needed | (unmixing[needed] != 0).any(axis=0)
    return tuple(np.flatnonzero(needed).tolist())


def checked(blending: Blending) -> Blending:
    """The same; raises OutOfRangeError where a name is unknown or the matrix is not square and finite."""
    for what, value, choices in (("mode", blending.mode, MODES), ("background", blending.background, BACKGROUNDS)):
        if value not in choices:
            raise OutOfRangeError(what, value, "choose one of " + ", ".join(choices))
    if blending.color_map is not None and blending.color_map not in COLOR_MAPS:
        raise OutOfRangeError("colour map", blending.color_map, "choose one of " + ", ".join(COLOR_MAPS))
    return blending


def checked_unmixing(matrix: object, n_channels: int) -> np.ndarray | None:
    """U as (n, n) float64, None where it is None or changes nothing. Raises OutOfRangeError for another shape or no numbers."""
    if matrix is None:
        return None
    try:
        found = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (n_channels, n_channels) or not np.isfinite(found).all():
        shape = " × ".join(map(str, np.shape(found)))
        limits = f"it has one row and one column of finite numbers for each of {n_channels} channels"
        raise OutOfRangeError("unmixing matrix", shape, limits)
    return None if np.array_equal(found, np.eye(n_channels)) else found


def _unmixes(unmixing: np.ndarray, looks: Sequence[ChannelView]) -> bool:
    """Whether some shown channel is anything but itself."""
    visible = [number for number, look in enumerate(looks) if look.visible]
    return not np.array_equal(unmixing[visible], np.eye(len(looks))[visible])
