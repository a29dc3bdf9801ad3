"""Palettes, colour maps and the colours of wavelengths are what their names promise."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.blending import Blending, checked_unmixing, ink, mixing, needed_channels
from rawmosaic.viewer.channels import ChannelView, parse_color
from rawmosaic.viewer.palettes import (
    COLOR_MAPS,
    COLOUR_BLIND_SAFE,
    PALETTES,
    color_table,
    palette,
    wavelength_color,
    wavelength_colors,
)

PUBLISHED = {
    "viridis": {0: "440154", 64: "3b528b", 128: "21918c", 191: "5ec962", 255: "fde725"},
    "magma": {0: "000004", 64: "51127c", 128: "b73779", 191: "fc8961", 255: "fcfdbf"},
    "inferno": {0: "000004", 64: "57106e", 128: "bc3754", 191: "f98e09", 255: "fcffa4"},
    "cividis": {0: "00224e", 255: "fee838"},
    "gray": {0: "000000", 77: "4d4d4d", 255: "ffffff"},
}
"""Colours of the maps at some of their 256 places, as they are printed in other programs' colour bars."""


def luminance(colors: np.ndarray) -> np.ndarray:
    """Relative luminance of (n, 3) sRGB, 0 to 255."""
    linear = np.where(colors <= 0.04045 * 255, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("name", COLOR_MAPS)
def test_colour_map_is_a_table_that_gets_lighter(name: str):
    table = color_table(name)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert not table.flags.writeable
    steps = np.diff(luminance(table.astype(float)))
    assert steps.min() > -0.003, "no place is darker than one before it"
    assert np.abs(np.diff(table.astype(int), axis=0)).max() <= 12, "no jump"


@pytest.mark.parametrize("name", PUBLISHED)
def test_colour_map_is_the_published_one(name: str):
    for place, color in PUBLISHED[name].items():
        expected = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)])
        assert np.abs(color_table(name)[place].astype(int) - expected).max() <= 2, place


def test_unknown_colour_map_and_palette_are_refused_with_the_known_ones():
    with pytest.raises(OutOfRangeError, match="viridis"):
        color_table("jet")
    with pytest.raises(OutOfRangeError, match="Okabe"):
        palette("rainbow", 3)


@pytest.mark.parametrize("name", PALETTES)
def test_palette_has_colours_for_any_number_of_channels(name: str):
    colors = palette(name, 20)
    assert len(colors) == 20
    assert all(max(parse_color(color)) > 0.5 for color in colors), "seen on black"
    own = PALETTES[name]
    assert len(set(own)) == len(own)


@pytest.mark.parametrize("name", COLOUR_BLIND_SAFE)
def test_safe_palette_is_told_apart_without_red_cones_or_green_cones(name: str):
    """By the first two colours at least, seen by a protanope and a deuteranope (Viénot, Brettel and Mollon 1999)."""
    linear = np.array([parse_color(color) for color in PALETTES[name][:2]]) ** 2.2
    for matrix in (
        [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
        [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
    ):
        first, second = linear @ np.array(matrix).T
        assert np.abs(first - second).max() > 0.2, name


@pytest.mark.parametrize(
    ("nm", "color"),
    [
        (461, "#0000ff"),
        (490, "#00ffff"),
        (509, "#00ff00"),
        (565, "#ffff00"),
        (595, "#ff8000"),
        (617, "#ff0000"),
        (668, "#ff00ff"),
    ],
)
def test_wavelength_has_a_colour(nm: float, color: str):
    assert wavelength_color(nm) == color


def test_unknown_wavelength_has_no_colour():
    assert wavelength_color(None) is None
    assert wavelength_color(float("nan")) is None


def test_wavelengths_of_one_band_get_different_colours():
    colors = wavelength_colors([509, 515, 520, None, 461])
    assert colors[0] == "#00ff00"
    assert colors[3:] == [None, "#0000ff"]
    assert len(set(colors)) == 5
    assert len(wavelength_colors([509] * 40)) == 40


# blending


def look(color: str = "#00ff00", visible: bool = True, column: tuple | None = None) -> ChannelView:
    return ChannelView("", (0.0, 1.0), color, 1.0, visible, column)


def test_plain_mixing_is_the_mixer_times_the_status():
    mixed = mixing([look("#ff8000"), look("#00ff00", visible=False), look(column=(2.0, -1.0, 0.5))])
    np.testing.assert_allclose(mixed.columns, [(1, 128 / 255, 0), (0, 0, 0), (2, -1, 0.5)])
    assert (mixed.shares, mixed.table, mixed.on_white, mixed.shown.tolist()) == (None, None, False, [0, 1, 2])


def test_ink_leaves_the_hue_and_inverts_the_lightness():
    columns = [(0, 1, 0), (1, 1, 1), (0.5, 0, 0), (1, 0.5, 0)]
    np.testing.assert_allclose(1 - ink(columns), [(0, 1, 0), (0, 0, 0), (1, 0.5, 0.5), (1, 0.5, 0)])
    assert ink(np.empty((0, 3))).shape == (0, 3)


def test_channels_that_unmixing_needs_are_read():
    unmixing = np.array([[1.0, -0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert needed_channels([True, False, False], unmixing) == (0, 1)
    assert needed_channels([False, True, True], unmixing) == (1, 2)
    assert needed_channels([True, False, True], None) == (0, 2)
    assert needed_channels([False, False, False], unmixing) == ()


def test_unmixing_that_changes_no_shown_channel_costs_nothing():
    unmixing = np.array([[1.0, 0.0], [0.5, 1.0]])
    assert mixing([look(), look(visible=False)], Blending(unmixing=unmixing)).shares is None
    assert mixing([look(), look()], Blending(unmixing=unmixing)).shares is not None


def test_a_matrix_is_checked_and_the_identity_is_none():
    assert checked_unmixing(None, 3) is None
    assert checked_unmixing(np.eye(3), 3) is None
    np.testing.assert_array_equal(checked_unmixing([[1, 2], [3, 4]], 2), [[1.0, 2.0], [3.0, 4.0]])
    for wrong in (np.eye(2), [[1, 2], [3]], "text", np.full((3, 3), np.inf)):
        with pytest.raises(OutOfRangeError, match="unmixing matrix"):
            checked_unmixing(wrong, 3)
