"""Shapes say where they are, how large, and what lies inside; they are values in whole picometres."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Polygon, Rectangle

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]
HOLE = [(4, 4), (6, 4), (6, 6), (4, 6)]

coordinates = st.floats(-1e6, 1e6)
places = st.tuples(coordinates, coordinates)


def test_a_line_is_as_long_as_its_steps():
    assert Line([(0, 0), (3, 4), (3, 14)]).length_um == 15
    assert Line([(0, 0), (3, 4)]).area_um2 == 0


def test_a_box_pulled_up_from_any_corner_is_the_same():
    for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        assert Rectangle(4 * x, 2 * y, 4 * (1 - x), 2 * (1 - y)) == Rectangle(0, 0, 4, 2)
    assert Rectangle(0, 0, 4, 2).area_um2 == 8
    assert Rectangle(0, 0, 4, 2).length_um == 12


def test_a_circle_has_its_area_and_circumference():
    circle = Ellipse(-3, -3, 3, 3)
    assert math.isclose(circle.area_um2, 9 * math.pi)
    assert math.isclose(circle.length_um, 6 * math.pi)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_circumference_of_an_ellipse_is_that_of_many_small_steps(width, height):
    angles = np.linspace(0, 2 * np.pi, 200_001)
    steps = np.hypot(np.diff(0.5 * width * np.cos(angles)), np.diff(0.5 * height * np.sin(angles)))
    assert math.isclose(Ellipse(0, 0, width, height).length_um, steps.sum(), rel_tol=1e-4, abs_tol=1e-5)


def test_a_flat_ellipse_is_measured_and_holds_nothing():
    flat = Ellipse(0, 0, 6, 0)
    assert flat.length_um == 12
    assert flat.area_um2 == 0
    assert not flat.contains(np.array([3.0]), np.array([0.0])).any()


def test_holes_are_not_part_of_a_polygon():
    polygon = Polygon([SQUARE, HOLE], [[(20, 0), (30, 0), (20, 10)]])
    assert polygon.area_um2 == 100 - 4 + 50
    assert math.isclose(polygon.length_um, 40 + 8 + 20 + math.sqrt(200))
    x, y = np.array([(1, 1), (5, 5), (22, 2), (29, 9), (15, 5)], float).T
    assert polygon.contains(x, y).tolist() == [True, False, True, False, False]
    assert polygon.box_um == (0, 0, 30, 10)


def test_the_direction_of_a_ring_means_nothing():
    assert Polygon([SQUARE[::-1], HOLE]).area_um2 == Polygon([SQUARE, HOLE]).area_um2


def test_areas_that_touch_hold_each_place_once():
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(0, 20.5, 0.5), np.arange(0, 10.5, 0.5)))
    halves = Polygon([SQUARE]), Polygon([[(10, 0), (20, 0), (20, 10), (10, 10)]])
    whole = Polygon([[(0, 0), (20, 0), (20, 10), (0, 10)]])
    assert np.array_equal(sum(half.contains(x, y).astype(int) for half in halves), whole.contains(x, y).astype(int))


@given(st.lists(places, min_size=3, max_size=12), places)
def test_moving_there_and_back_changes_nothing(corners, step):
    polygon = Polygon([corners])
    step = np.round(step, 6)
    assert polygon.moved(*step).moved(*-step) == polygon


@given(st.tuples(coordinates, coordinates, coordinates, coordinates), st.floats(0.001, 10))
def test_the_corners_of_an_ellipse_touch_its_box(box, error):
    ellipse = Ellipse(*box)
    ((points, closed),) = ellipse.paths(error)
    assert closed
    assert (*points.min(axis=0), *points.max(axis=0)) == ellipse.box_um


@pytest.mark.parametrize("error", [0.5, 0.05, 0.005])
def test_the_outline_of_an_ellipse_is_as_near_as_was_asked_for(error):
    ((points, _),) = Ellipse(-50, -20, 50, 20).paths(error)
    ends = np.roll(points, -1, axis=0)
    angles = np.linspace(0, 2 * np.pi, 5000)
    curve = np.stack([50 * np.cos(angles), 20 * np.sin(angles)], axis=-1)
    along, to = ends - points, curve[:, None] - points
    part = np.clip((to * along).sum(-1) / (along**2).sum(-1), 0, 1)
    assert np.linalg.norm(to - part[..., None] * along, axis=-1).min(axis=1).max() <= error


def test_equal_shapes_are_equal_keys():
    assert len({Polygon([SQUARE]), Polygon([SQUARE]), Polygon([SQUARE, HOLE]), Rectangle(0, 0, 1, 1), Ellipse(0, 0, 1, 1)}) == 4
    assert Polygon([SQUARE, HOLE]) != Polygon([SQUARE], [HOLE])
    assert Points([(1, 2)]) != Line([(1, 2), (1, 2)])


def test_coordinates_are_whole_picometres_and_cannot_be_changed():
    points = Points([(1 / 3, -1e-9)])
    assert points.points_um.tolist() == [[0.333333, 0.0]]
    assert not np.signbit(points.points_um[0, 1])
    with pytest.raises(ValueError, match="read-only"):
        points.points_um[0, 0] = 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Points([]), "at least 1"),
        (lambda: Line([(0, 0)]), "at least 2"),
        (lambda: Polygon([[(0, 0), (1, 1)]]), "at least 3"),
        (lambda: Polygon(), "outer ring"),
        (lambda: Polygon([]), "outer ring"),
        (lambda: Points([(1, 2, 3)]), "pairs"),
        (lambda: Points([("a", "b")]), "pairs"),
        (lambda: Points([(1, 2), (3,)]), "pairs"),
        (lambda: Rectangle(0, 0, math.nan, 1), "within"),
        (lambda: Points([(math.inf, 0)]), "within"),
        (lambda: Points([(1e9, 0)]), "within"),
    ],
)
def test_what_is_no_shape_is_refused_with_what_would_be(make, words):
    with pytest.raises(OutOfRangeError, match=words):
        make()
