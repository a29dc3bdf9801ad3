"""Dyes that bleed into each other's channels are taken apart by what their reference regions tell."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.storage.errors import NoLongerWantedError, OutOfRangeError, SlideError
from rawmosaic.storage.testing import FailingSlide, SyntheticSlide
from rawmosaic.viewer.plan import Geometry
from rawmosaic.viewer.unmixing import mixing_matrix, reference_spectrum, unmixing_matrix

NAMES = ("DAPI", "GFP", "Cy3")
TRUE = np.array([[1.0, 0.2, 0.0], [0.3, 1.0, 0.15], [0.05, 0.25, 1.0]])
"""What each dye (column) gives in each channel, per count in its own."""

OFFSET = np.array([100.0, 120.0, 90.0])


def references(brightness: tuple[float, ...] = (3000.0, 800.0, 20_000.0)) -> dict[int, np.ndarray]:
    """Spectra of the three dyes, each as bright as it happens to be, on the camera's offset."""
    return {dye: OFFSET + light * TRUE[:, dye] for dye, light in enumerate(brightness)}


def test_columns_are_one_in_the_dyes_own_channel_whatever_its_brightness():
    np.testing.assert_allclose(mixing_matrix(references(), NAMES, OFFSET), TRUE, rtol=1e-12)


def test_unmixing_is_the_inverse_of_what_was_mixed():
    dyes = np.random.default_rng(1).uniform(0, 5000, (3, 50))
    np.testing.assert_allclose(unmixing_matrix(references(), NAMES, OFFSET) @ TRUE @ dyes, dyes, atol=1e-8)


def test_fewer_dyes_than_channels_leave_the_others_alone():
    two = {dye: light for dye, light in references().items() if dye != 2}
    unmixing = unmixing_matrix(two, NAMES, OFFSET)
    dyes = np.random.default_rng(1).uniform(0, 5000, (2, 50))
    np.testing.assert_allclose((unmixing @ TRUE[:, :2] @ dyes)[:2], dyes, atol=1e-8)
    np.testing.assert_array_equal(unmixing[2], (0, 0, 1))


def test_the_order_of_references_does_not_matter():
    backwards = dict(reversed(references().items()))
    np.testing.assert_allclose(
        unmixing_matrix(backwards, NAMES, OFFSET), unmixing_matrix(references(), NAMES, OFFSET), atol=1e-12
    )


def test_no_reference_changes_nothing():
    np.testing.assert_array_equal(unmixing_matrix({}, NAMES), np.eye(3))


def test_references_that_are_alike_are_named():
    alike = {0: [100.0, 50.0, 1.0], 1: [200.001, 100.0, 2.0], 2: [1.0, 2.0, 50.0]}
    with pytest.raises(SlideError, match="DAPI and GFP"):
        unmixing_matrix(alike, NAMES)


def test_a_dark_reference_is_named():
    with pytest.raises(SlideError, match="GFP has no light"):
        unmixing_matrix({1: OFFSET}, NAMES, OFFSET)


@pytest.mark.parametrize("spectrum", [[1.0, 2.0], [1.0, np.nan, 2.0], [[1.0, 2.0, 3.0]]])
def test_a_spectrum_has_a_number_for_each_channel(spectrum: list):
    with pytest.raises(SlideError, match="3 channels"):
        unmixing_matrix({0: spectrum}, NAMES)
    with pytest.raises(SlideError, match="background"):
        unmixing_matrix(references(), NAMES, spectrum)


def test_a_dye_without_a_channel_is_refused():
    with pytest.raises(OutOfRangeError, match="0 to 2"):
        unmixing_matrix({3: [1.0, 1.0, 1.0]}, NAMES)


def test_a_spectrum_is_the_mean_of_the_region():
    slide = SyntheticSlide((1, 1), (48, 64), 3, jitter_px=0.0)
    geometry = Geometry(slide, "stage")
    left, top, *_ = geometry.box_of(0, 0)
    step = slide.header.pixel_size_um
    bounds = (left + 9.75 * step, top + 4.75 * step, left + 29.75 * step, top + 14.75 * step)
    expected = [slide.read_plane(0, channel)[5:15, 10:30].mean() for channel in range(3)]
    assert reference_spectrum(slide, geometry, bounds) == pytest.approx(expected)


def test_an_empty_reference_region_is_said():
    slide = SyntheticSlide((1, 1), (48, 64), 2)
    with pytest.raises(SlideError, match="no pixel"):
        reference_spectrum(slide, Geometry(slide, "stage"), (1e5, 1e5, 1e5 + 1, 1e5 + 1))


def test_an_unreadable_reference_is_no_spectrum():
    slide = SyntheticSlide((1, 1), (48, 64), 2)
    bounds = Geometry(slide, "stage").bounds_um
    with pytest.raises(SlideError):
        reference_spectrum(FailingSlide(slide, lambda _: True), Geometry(slide, "stage"), bounds)
    with pytest.raises(NoLongerWantedError):
        reference_spectrum(slide, Geometry(slide, "stage"), bounds, wanted=lambda: False)
