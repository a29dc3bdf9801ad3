"""The camera's two frames agree with the conventions of the mosaic frame, and zooming and dragging hold what the hand holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.viewer.camera import Camera, bounds_of

QUICK = settings(derandomize=True, deadline=None, database=None, max_examples=60)
PLACES = st.floats(-1e5, 1e5)
WINDOW = st.floats(-50, 2000)
SCALES = st.floats(1e-3, 64)


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    """Any reasonable view of any reasonable mosaic."""
    size = draw(st.tuples(st.integers(1, 1920), st.integers(1, 1080)))
    return Camera(draw(PLACES), draw(PLACES), draw(SCALES), size, draw(st.floats(0.05, 5)))


@pytest.mark.parametrize("size", [(200, 100), (201, 101), (1, 1)], ids=str)
def test_pixel_centres_lie_where_the_convention_says(size: tuple[int, int]):
    camera = Camera(100.0, -40.0, 0.5, size, pixel_size_um=0.25)
    for i, j in ((0, 0), (size[0] - 1, 0), (size[0] // 2, size[1] // 2), (3, 7)):
        # centre + (i + ½ − width/2, j + ½ − height/2) / scale, in image pixels
        image_px = ((i + 0.5 - size[0] / 2) / 0.5, (j + 0.5 - size[1] / 2) / 0.5)
        expected = (100.0 + 0.25 * image_px[0], -40.0 + 0.25 * image_px[1])
        assert camera.to_mosaic(i + 0.5, j + 0.5) == pytest.approx(expected, rel=1e-14)


def test_window_axes_run_right_and_down():
    camera = Camera(10.0, 20.0, 2.0, (640, 480), pixel_size_um=0.5)
    assert camera.to_window(10.0, 20.0) == (320.0, 240.0)
    assert camera.to_window(11.0, 20.0) == (324.0, 240.0)  # 1 µm is 2 image pixels, 4 screen pixels
    assert camera.to_window(10.0, 21.0) == (320.0, 244.0)


@QUICK
@given(cameras(), WINDOW, WINDOW)
def test_window_and_mosaic_are_each_others_inverse(camera: Camera, w_x: float, w_y: float):
    there_and_back = camera.to_window(*camera.to_mosaic(w_x, w_y))
    assert there_and_back == pytest.approx((w_x, w_y), abs=1e-9 * 2e5 * camera.px_per_um + 1e-6)


@QUICK
@given(cameras())
def test_bounds_are_the_corners_of_the_window(camera: Camera):
    corners = (*camera.to_mosaic(0, 0), *camera.to_mosaic(*camera.size))
    assert camera.bounds_um() == pytest.approx(corners, rel=1e-12, abs=1e-9)


@QUICK
@given(cameras(), SCALES, WINDOW, WINDOW)
def test_zoom_at_cursor_holds_the_point_under_it(camera: Camera, scale: float, w_x: float, w_y: float):
    held = camera.to_mosaic(w_x, w_y)
    zoomed = camera.zoomed(scale, w_x, w_y)
    assert zoomed.scale == scale
    assert zoomed.size == camera.size
    tolerance_um = 1e-9 * max(1.0, *map(abs, held), abs(camera.x_um), abs(camera.y_um))
    assert zoomed.to_mosaic(w_x, w_y) == pytest.approx(held, abs=tolerance_um)


def test_zoom_without_a_cursor_holds_the_centre():
    camera = Camera(3.0, 4.0, 1.0, (100, 60))
    zoomed = camera.zoomed(5.0)
    assert (zoomed.x_um, zoomed.y_um, zoomed.scale) == (3.0, 4.0, 5.0)


@QUICK
@given(cameras(), WINDOW, WINDOW, st.floats(-500, 500), st.floats(-500, 500))
def test_dragging_moves_the_point_under_the_hand_along(camera: Camera, w_x: float, w_y: float, w_dx: float, w_dy: float):
    held = camera.to_mosaic(w_x, w_y)
    now = camera.moved(w_dx, w_dy).to_window(*held)
    assert now == pytest.approx((w_x + w_dx, w_y + w_dy), abs=1e-9 * 2e5 * camera.px_per_um + 1e-6)


@QUICK
@given(cameras(), PLACES, PLACES, st.floats(1e-3, 1e5), st.floats(1e-3, 1e5))
def test_fitted_shows_all_and_touches_two_edges(camera: Camera, left: float, top: float, width: float, height: float):
    region = (left, top, left + width, top + height)
    fitted = camera.fitted(region)
    corners = np.array([fitted.to_window(*region[:2]), fitted.to_window(*region[2:])])
    size = np.array(camera.size, float)
    # what float64 can say of a place that far out, in screen pixels
    slack = 1e-9 * size.max() + 1e-14 * (abs(left) + abs(top) + width + height) * fitted.px_per_um
    assert (corners[0] >= -slack).all()
    assert (corners[1] <= size + slack).all()
    assert np.isclose(corners[1] - corners[0], size, rtol=1e-6, atol=slack).any()
    middle = corners.mean(axis=0)
    np.testing.assert_allclose(middle, size / 2, atol=slack)


def test_fitted_point_stays_finite():
    camera = Camera(0.0, 0.0, 1.0, (100, 60)).fitted((5.0, 5.0, 5.0, 5.0))
    assert (camera.x_um, camera.y_um) == (5.0, 5.0)
    assert math.isfinite(camera.scale)
    assert camera.scale > 0


def test_bounds_hold_every_field():
    centres = np.array([[0.0, 0.0], [100.0, -50.0], [30.0, 70.0]])
    halves = np.array([[10.0, 5.0], [1.0, 2.0], [3.0, 4.0]])
    assert bounds_of(centres, halves) == (-10.0, -52.0, 101.0, 74.0)


def test_bounds_of_no_field_are_a_unit_square():
    assert bounds_of(np.empty((0, 2)), np.empty((0, 2))) == (-0.5, -0.5, 0.5, 0.5)
