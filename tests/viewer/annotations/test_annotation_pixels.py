"""Masks of pixel centres: where edges fall on a centre, and where a layer's last pixel is a partial one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.viewer.annotations.pixels import FieldFrame, centres, mask_of, span, uncover
from rawmosaic.viewer.annotations.shapes import Polygon, Rectangle

FRAME = FieldFrame(np.eye(2), np.eye(2), np.array([4.0, 3.0]), np.array([8.0, 6.0]))
"""A field of 8 × 6 pixels of 1 µm whose corner is the origin."""

P_X, P_Y = centres(0, 8, 1, 8), centres(0, 6, 1, 6)


def test_a_field_covers_centres_on_its_left_and_upper_edge_and_not_on_the_others():
    other = FieldFrame(np.eye(2), np.eye(2), np.array([4.5, 3.5]), np.array([4.0, 2.0]))
    assert FRAME.p_cover(other) == (2.5, 2.5, 6.5, 4.5)
    mask = np.ones((6, 8), bool)
    uncover(mask, FRAME.p_cover(other), P_X, P_Y)
    assert np.argwhere(~mask).tolist() == [[row, column] for row in (2, 3) for column in (2, 3, 4, 5)]


def test_an_area_holds_centres_on_its_left_and_upper_edge_and_not_on_the_others():
    for shape in (Rectangle(2.5, 1.5, 4.5, 3.5), Polygon([[(2.5, 1.5), (4.5, 1.5), (4.5, 3.5), (2.5, 3.5)]])):
        assert np.argwhere(mask_of(shape, FRAME, P_X, P_Y)).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_the_middle_of_a_partial_pixel_is_that_of_the_part():
    assert centres(0, 3, 4, 10).tolist() == [2, 6, 9]
    assert centres(2, 3, 4, 12).tolist() == [10]


@given(st.floats(-20, 30), st.floats(0, 30), st.sampled_from([1, 2, 4]))
def test_a_span_holds_every_centre_of_the_interval(low, extent, factor):
    length = -(-10 // factor)
    first, end = span(low, low + extent, factor, length)
    assert 0 <= first <= end <= length
    middles = centres(0, length, factor, 10)
    inside = np.flatnonzero((middles >= low) & (middles <= low + extent))
    assert set(inside) <= set(range(first, end))


@given(st.lists(st.tuples(st.integers(-2, 10), st.integers(-2, 8)), min_size=3, max_size=8))
def test_a_mask_of_whole_corners_is_the_polygon_at_the_centres(corners):
    polygon = Polygon([corners])
    assert np.array_equal(mask_of(polygon, FRAME, P_X, P_Y), polygon.contains(P_X[None, :], P_Y[:, None]))
