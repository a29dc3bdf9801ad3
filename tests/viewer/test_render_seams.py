"""Neither tiles nor fields nor layers show in the picture of a continuous specimen."""

from __future__ import annotations

import numpy as np
import pytest
from twin import screen_points_um

from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide, specimen
from rawmosaic.viewer import OffscreenViewer

SIZE = (240, 180)
LIMITS = (4000.0, 36000.0)
SCALES = (0.3, 0.37, 0.5, 0.61, 0.77, 0.93, 1.0)


def picture(slide: Slide, center_um: tuple[float, float], scale: float, **options) -> np.ndarray:
    """(height, width) int: the grey levels of the slide's only channel."""
    with OffscreenViewer(slide, size=SIZE) as viewer:
        viewer.look_at(*center_um, scale=scale)
        viewer.channels[0].limits, viewer.channels[0].color, viewer.channels[0].gamma = LIMITS, "#ffffff", 1.0
        for name, value in options.items():
            setattr(viewer, name, value)
        return viewer.render()[..., 0].astype(int)


def wanted(slide: Slide, center_um: tuple[float, float], scale: float) -> np.ndarray:
    """(height, width) float64 grey levels of the specimen itself."""
    x_um, y_um = screen_points_um(slide, center_um, scale, SIZE)
    pixel_um = slide.header.pixel_size_um
    return np.clip((specimen(x_um / pixel_um, y_um / pixel_um) - LIMITS[0]) / (LIMITS[1] - LIMITS[0]), 0, 1) * 255


def inner_distance_px(slide: Slide, center_um: tuple[float, float], scale: float) -> np.ndarray:
    """(height, width) how far inside the topmost field a screen pixel lies, in image pixels; negative outside of all."""
    x_um, y_um = screen_points_um(slide, center_um, scale, SIZE)
    inside_px = np.full(x_um.shape, -1.0)
    for row in slide.fields:  # unrotated slides only
        dx, dy = np.abs(x_um - row["x_um"]), np.abs(y_um - row["y_um"])
        pixel_um = slide.header.pixel_size_um
        distance = np.minimum(row["width"] / 2 - dx / pixel_um, row["height"] / 2 - dy / pixel_um)
        inside_px = np.where(distance >= 0, distance, inside_px)
    return inside_px


@pytest.mark.parametrize("scale", SCALES, ids="scale {}".format)
def test_seams_do_not_show_between_tiles(scale: float):
    slide = SyntheticSlide((1, 1), (1200, 1560), 1, smooth=True)
    assert slide.tiling.levels[0].tiles_per_field > 16
    corner_um = (slide.fields["x_um"][0] + 3.3, slide.fields["y_um"][0] - 1.7)  # four tiles meet near the field's centre
    image, expected = picture(slide, corner_um, scale, interpolation="smooth"), wanted(slide, corner_um, scale)
    inside = inner_distance_px(slide, corner_um, scale) > 6
    assert inside.mean() > 0.8
    assert np.abs(image - expected)[inside].max() <= 1.2


@pytest.mark.parametrize("overlap", ["top", "nearest", "feather", "max"])
@pytest.mark.parametrize("scale", SCALES, ids="scale {}".format)
def test_seams_do_not_show_between_fields(scale: float, overlap: str):
    slide = SyntheticSlide((9, 9), (96, 128), 1, smooth=True, overlap=0.15, jitter_px=4)
    center_um = tuple(slide.positions().mean(axis=0) + np.array([0.37, 0.21]))
    image = picture(slide, center_um, scale, interpolation="smooth", overlap=overlap)
    expected = wanted(slide, center_um, scale)
    distance_px = inner_distance_px(slide, center_um, scale)
    covered = distance_px >= 0
    assert covered.mean() > 0.9
    error = np.abs(image - expected)
    assert error[distance_px > 1 / scale].max() <= (2.0 if overlap == "top" else 8.0)  # elsewhere other fields' edges take part
    assert error[covered].max() <= 8.0  # half an image pixel of the steepest slope, where a field has no neighbour pixel
    assert np.percentile(error[covered], 95) <= 2.0


@pytest.mark.parametrize("scale", [0.3, 0.61, 1.0], ids="scale {}".format)
def test_no_hairline_shows_on_a_flat_specimen(scale: float):
    """On one grey level the smallest gap or doubled pixel stands out."""

    class Flat(SyntheticSlide):
        def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
            return np.full_like(super()._read_plane(field, channel, z, t), 20050)

    grey = round(255 * (20050 - LIMITS[0]) / (LIMITS[1] - LIMITS[0]))
    for slide in (Flat((9, 9), (96, 128), 1, overlap=0.1), Flat((3, 3), (601, 523), 1, overlap=0.05)):
        for interpolation in ("smooth", "nearest"):
            for overlap in ("top", "feather"):
                center_um = tuple(slide.positions().mean(axis=0) + np.array([0.37, 0.21]))
                image = picture(slide, center_um, scale, interpolation=interpolation, overlap=overlap)
                covered = inner_distance_px(slide, center_um, scale) >= 0
                values, counts = np.unique(image[covered], return_counts=True)
                assert values.tolist() == [grey], dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_fields_side_by_side_leave_no_gap():
    """Fields that touch exactly, without overlap and jitter, at scales where their edges fall anywhere on the screen."""

    class Flat(SyntheticSlide):
        def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
            return np.full_like(super()._read_plane(field, channel, z, t), 50000)

    slide = Flat((12, 12), (48, 64), 1, overlap=0.0, jitter_px=0.0)
    center_um = tuple(slide.positions().mean(axis=0) + np.array([0.111, 0.077]))
    for scale in (0.31, 0.5, 0.73, 1.0, 1.9, 3.7, 11.3):
        for interpolation in ("nearest", "smooth"):
            image = picture(slide, center_um, scale, interpolation=interpolation)
            interior = inner_distance_px(slide, center_um, scale) >= 0
            assert np.unique(image[interior]).tolist() == [255], (scale, interpolation)


def test_layers_have_the_same_grey_level():
    slide = SyntheticSlide((9, 9), (96, 128), 1, smooth=True, overlap=0.15)
    center_um = tuple(slide.positions().mean(axis=0))
    # the same place on the screen, one layer and the next
    for finer, coarser in ((0.501, 0.499), (0.2501, 0.2499)):
        first, second = (picture(slide, center_um, scale, interpolation="smooth") for scale in (finer, coarser))
        inside = inner_distance_px(slide, center_um, coarser) > 1 / coarser
        assert abs(first[inside].mean() - second[inside].mean()) <= 0.3
        assert np.abs(first - second)[inside].mean() <= 2.0


def test_reduced_picture_is_smooth_by_default():
    slide = SyntheticSlide((9, 9), (96, 128), 1, smooth=True, overlap=0.15)
    center_um = tuple(slide.positions().mean(axis=0))
    by_default = picture(slide, center_um, 0.37)
    np.testing.assert_array_equal(by_default, picture(slide, center_um, 0.37, interpolation="smooth"))
    assert (by_default != picture(slide, center_um, 0.37, interpolation="nearest")).any()
