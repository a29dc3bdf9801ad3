"""What a click means, how shapes are pulled about, and what a camera sees of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.viewer.annotations import geometry
from rawmosaic.viewer.annotations.geometry import (
    DOT_PX,
    MOST_DOTS,
    MOST_OUTLINES,
    Drawing,
    area_text,
    found_at,
    found_within,
    handle_at,
    handles_um,
    length_text,
    reshaped,
    simplified,
    size_text,
    snapped,
    squared,
    w_handles,
    with_corner,
    without_corner,
)
from rawmosaic.viewer.annotations.model import Annotation, AnnotationSet
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Polygon, Rectangle
from rawmosaic.viewer.camera import Camera

CAMERA = Camera(100.0, 50.0, 2.0, (400, 300), 0.5)
"""Four window pixels a µm; shows x 50 to 150, y 12.5 to 87.5."""

SHAPES = [
    Points([(3, 4), (8, 1)]),
    Line([(0, 0), (10, 0), (10, 10)]),
    Rectangle(0, 0, 10, 4),
    Ellipse(-5, -5, 10, 5),
    Polygon([[(0, 0), (10, 0), (10, 10)], [(7, 1), (9, 1), (9, 3)]]),
]


def set_of(*shapes) -> AnnotationSet:
    return AnnotationSet([Annotation(shape) for shape in shapes])


# under the hand


def test_of_nested_areas_a_click_means_the_smallest():
    annotations = set_of(Rectangle(4, 4, 6, 6), Rectangle(0, 0, 10, 10), Ellipse(1, 1, 9, 9))
    assert found_at(annotations, 5, 5, 0.2) == 0
    assert found_at(annotations, 2.5, 5, 0.2) == 2
    assert found_at(annotations, 0.5, 0.5, 0.2) == 1
    assert found_at(annotations, 20, 20, 0.2) is None


def test_an_outline_comes_before_an_area_and_the_upper_before_the_lower():
    annotations = set_of(Rectangle(0, 0, 10, 10), Rectangle(4, 4, 6, 6), Line([(0, 5), (10, 5)]))
    assert found_at(annotations, 5, 5.1, 0.2) == 2
    assert found_at(annotations, 0.1, 2, 0.2) == 0
    assert found_at(annotations, 0.1, 5, 0.2) == 2


def test_a_line_is_met_beside_it_within_the_tolerance_only():
    annotations = set_of(Line([(0, 0), (10, 0)]), Points([(20, 0)]))
    assert found_at(annotations, 5, 0.9, 1.0) == 0
    assert found_at(annotations, 5, 1.1, 1.0) is None
    assert found_at(annotations, -0.9, 0, 1.0) == 0
    assert found_at(annotations, 20.5, 0.5, 1.0) == 1


def test_a_hole_is_not_the_area_around_it():
    annotations = set_of(Polygon([[(0, 0), (10, 0), (10, 10), (0, 10)], [(3, 3), (7, 3), (7, 7), (3, 7)]]))
    assert found_at(annotations, 5, 5, 0.5) is None
    assert found_at(annotations, 1.5, 1.5, 0.5) == 0


def test_a_rubber_band_takes_what_lies_in_it_as_a_whole():
    annotations = set_of(Rectangle(0, 0, 2, 2), Rectangle(1, 1, 9, 9), Points([(5, 5)]))
    assert found_within(annotations, (-1, -1, 6, 6)) == [0, 2]


# handles


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_a_handle_is_found_where_it_is_and_pulled_where_the_hand_goes(shape):
    for number, (x, y) in enumerate(handles_um(shape).tolist()):
        assert handle_at(shape, x + 0.1, y - 0.1, 0.5) == number
        assert handle_at(shape, x + 100, y, 0.5) is None
        pulled = reshaped(shape, number, x + 1.5, y + 0.5)
        moved = handles_um(pulled)[number]
        edge = isinstance(shape, Rectangle | Ellipse) and number % 2 == 1
        assert np.isclose(moved, (x + 1.5, y + 0.5)).any() if edge else np.allclose(moved, (x + 1.5, y + 0.5))
        assert type(pulled) is type(shape)
        assert reshaped(shape, number, x, y) == shape


def test_a_box_pulled_through_itself_turns_over():
    assert reshaped(Rectangle(0, 0, 10, 4), 0, 15, 9) == Rectangle(10, 4, 15, 9)
    assert reshaped(Ellipse(0, 0, 10, 4), 3, -5, 99) == Ellipse(-5, 0, 0, 4)


def test_an_even_box_is_a_square_by_its_longer_side():
    assert reshaped(Rectangle(0, 0, 10, 4), 4, 20, 5, even=True) == Rectangle(0, 0, 20, 20)
    assert squared((0, 0), (-3, 7)) == (-7, 7)


def test_a_corner_comes_and_goes():
    line = Line([(0, 0), (10, 0)])
    longer, handle = with_corner(line, 4, 0.3, 0.5)
    assert longer == Line([(0, 0), (4, 0.3), (10, 0)])
    assert without_corner(longer, handle) == line
    assert without_corner(line, 0) is None
    assert with_corner(line, 4, 3, 0.5) is None
    assert with_corner(Rectangle(0, 0, 1, 1), 0, 0.5, 0.5) is None


def test_a_corner_of_a_hole_comes_into_the_hole():
    polygon = SHAPES[4]
    more, handle = with_corner(polygon, 8, 1.1, 0.5)
    assert len(more.parts[0][1]) == 4
    assert handles_um(more)[handle].tolist() == [8, 1.1]
    assert without_corner(more, handle) == polygon
    assert without_corner(polygon, 4) is None


def test_the_last_edge_of_a_ring_takes_a_corner():
    triangle = Polygon([[(0, 0), (10, 0), (10, 10)]])
    more, handle = with_corner(triangle, 5, 5, 0.5)
    assert more.parts[0][0].tolist() == [[0, 0], [10, 0], [10, 10], [5, 5]]
    assert handle == 3


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_snapped_place_is_as_far_away_and_on_a_ray(x, y):
    sx, sy = snapped((1, 2), (1 + x, 2 + y))
    assert math.isclose(math.hypot(sx - 1, sy - 2), math.hypot(x, y), rel_tol=1e-9, abs_tol=1e-9)
    turns = math.degrees(math.atan2(sy - 2, sx - 1)) / 15
    assert math.hypot(x, y) < 1e-3 or math.isclose(turns, round(turns), abs_tol=1e-4)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=40), st.floats(0.1, 5))
def test_a_simplified_chain_keeps_its_ends_and_stays_near(places, error):
    points = np.array(places)
    fewer = simplified(points, error)
    assert fewer[0].tolist() == points[0].tolist()
    assert fewer[-1].tolist() == points[-1].tolist()
    path = (fewer, False)
    assert all(geometry.nearest_edge(path, x, y)[0] <= error * (1 + 1e-9) for x, y in places)


def test_a_straight_chain_is_simplified_to_its_ends():
    assert len(simplified(np.stack([np.arange(100.0), np.arange(100.0)], axis=-1), 0.1)) == 2


# to be drawn


def test_outlines_are_where_the_camera_shows_them():
    annotations = set_of(Rectangle(90, 40, 110, 60), Line([(60, 20), (70, 30)]), Points([(100, 50)]), Rectangle(500, 0, 510, 9))
    picture = Drawing().picture(annotations, CAMERA)
    rectangle, line, point = picture.outlines
    ((corners, closed),) = rectangle.paths
    assert closed
    assert corners.tolist() == [[160, 110], [240, 110], [240, 190], [160, 190]]
    assert rectangle.w_label == (200, 110)
    assert line.paths[0][0].tolist() == [[40, 30], [80, 70]]
    assert not line.paths[0][1]
    assert point.paths == ()
    assert point.marks.tolist() == [[200, 150]]
    assert len(rectangle.marks) == 0


def test_drafts_are_drawn_in_place_of_what_they_change():
    annotations, drawing = set_of(Rectangle(90, 40, 110, 60), Rectangle(500, 500, 501, 501)), Drawing()
    before = drawing.picture(annotations, CAMERA)
    picture = drawing.picture(annotations, CAMERA, {1: Rectangle(90, 40, 100, 50)})
    assert [outline.number for outline in before.outlines] == [0]
    assert [outline.number for outline in picture.outlines] == [0, 1]
    assert picture.outlines[1].paths[0][0].tolist() == [[160, 110], [200, 110], [200, 150], [160, 150]]
    assert picture.outlines[1].w_label == (180, 110)


def test_an_edit_is_seen_at_once():
    annotations, drawing = set_of(Points([(100, 50)])), Drawing()
    assert drawing.picture(annotations, CAMERA) is drawing.picture(annotations, CAMERA)
    annotations.change(0, Annotation(Points([(101, 50)])))
    assert drawing.picture(annotations, CAMERA).outlines[0].marks.tolist() == [[204, 150]]
    annotations.undo()
    assert drawing.picture(annotations, CAMERA).outlines[0].marks.tolist() == [[200, 150]]


def test_what_is_smaller_than_a_dot_is_one():
    side = 0.9 * DOT_PX / CAMERA.px_per_um
    annotations = set_of(Rectangle(100, 50, 100 + side, 50 + side), Rectangle(110, 50, 120, 60))
    picture = Drawing().picture(annotations, CAMERA)
    assert [outline.number for outline in picture.outlines] == [1]
    assert np.allclose(picture.w_dots, [[200 + 0.45 * DOT_PX, 150 + 0.45 * DOT_PX]])
    assert picture.dot_colors.tolist() == [[255, 255, 0]]


def test_of_a_crowd_the_largest_are_outlined_and_the_same_dots_are_kept(monkeypatch):
    monkeypatch.setattr(geometry, "MOST_OUTLINES", 10)
    monkeypatch.setattr(geometry, "MOST_DOTS", 20)
    rng = np.random.default_rng(0)
    annotations = set_of(*(Rectangle(x, y, x + 2 + n / 50, y + 1) for n, (x, y) in enumerate(rng.uniform(60, 80, (50, 2)))))
    picture = Drawing().picture(annotations, CAMERA)
    assert [outline.number for outline in picture.outlines] == list(range(40, 50))
    assert len(picture.w_dots) == 20
    moved = Drawing().picture(annotations, CAMERA.moved(7, 0))
    assert {tuple(dot) for dot in (picture.w_dots + np.array([7, 0])).round(6).tolist()} == {
        tuple(dot) for dot in moved.w_dots.round(6).tolist()
    }
    assert MOST_OUTLINES + MOST_DOTS < 10_000


@pytest.mark.parametrize("scale", [0.05, 0.3, 1, 7, 100])
def test_a_thinned_outline_is_not_seen_to_differ(scale):
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    ring = np.stack([100 + 30 * np.cos(angles) + np.cos(40 * angles), 50 + 30 * np.sin(angles)], axis=-1)
    camera = Camera(100, 50, scale, (400, 300), 0.5)
    (outline,) = Drawing().picture(set_of(Polygon([ring])), camera).outlines
    ((drawn, _),) = outline.paths
    w_ring = np.stack(camera.to_window(*ring[::7].T), axis=-1)
    assert max(geometry.nearest_edge((drawn, True), x, y)[0] for x, y in w_ring.tolist()) < 0.5
    assert len(drawn) < 5000 or scale > 10


def test_handles_that_would_cover_each_other_are_not_shown():
    ring = Polygon([np.stack([100 + 30 * np.cos(np.arange(1000)), 50 + 30 * np.sin(np.arange(1000))], axis=-1)])
    assert len(w_handles(ring, CAMERA)) <= 1000
    angles = np.arange(2000) * 0.00314
    smooth = Polygon([np.stack([100 + 30 * np.cos(angles), 50 + 30 * np.sin(angles)], axis=-1)])
    shown = w_handles(smooth, CAMERA)
    assert 20 < len(shown) < 100
    assert np.hypot(*np.diff(shown, axis=0).T).min() >= geometry.HANDLE_GAP_PX
    assert len(w_handles(Rectangle(90, 40, 110, 60), CAMERA)) == 8


# in words


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0.85, "850 nm"),
        (0.9999, "1 µm"),
        (1.0, "1 µm"),
        (12.345, "12.3 µm"),
        (123.4, "123 µm"),
        (999.6, "1 mm"),
        (1250, "1.25 mm"),
    ],
)
def test_lengths_are_written_with_three_digits(length, text):
    assert length_text(length) == text


@pytest.mark.parametrize(
    ("area", "text"), [(0.456, "0.456 µm²"), (12.34, "12.3 µm²"), (12345.6, "12346 µm²"), (1.25e6, "1.25 mm²"), (2e5, "0.2 mm²")]
)
def test_areas_are_written_with_three_digits(area, text):
    assert area_text(area) == text


def test_shapes_say_their_size():
    assert [size_text(shape) for shape in (Points([(0, 0)]), Points([(0, 0), (1, 1)]), Line([(0, 0), (3, 4)]))] == [
        "",
        "2 points",
        "5 µm",
    ]
    assert size_text(Rectangle(0, 0, 2, 3)) == "6 µm²"
