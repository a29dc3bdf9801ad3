"""The spatial index finds exactly the boxes in a window, few fields or many, compared with looking at each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.storage.spatial_index import RUN_FIELDS, SpatialIndex


def brute(centres: np.ndarray, halves: np.ndarray, window: tuple[float, float, float, float]) -> tuple[set[int], set[int]]:
    """Numbers of the boxes that overlap the window's inside, and of those that at least touch it."""
    left, top, right, bottom = window
    inside, touching = set(), set()
    for number, ((x, y), (w, h)) in enumerate(zip(centres, halves, strict=True)):
        if x - w < right and x + w > left and y - h < bottom and y + h > top:
            inside.add(number)
        if x - w <= right and x + w >= left and y - h <= bottom and y + h >= top:
            touching.add(number)
    return inside, touching


def assert_right(index: SpatialIndex, centres: np.ndarray, halves: np.ndarray, window: tuple) -> None:
    """A box whose edge just touches the window may or may not be named; all else must be right."""
    found = index.query(window)
    assert found.dtype == np.int64
    assert (np.diff(found) > 0).all()
    inside, touching = brute(centres, halves, window)
    assert inside <= set(found.tolist()) <= touching


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.integers(0, 40), st.tuples(*[st.floats(-150, 150)] * 2, *[st.floats(0, 200)] * 2), st.integers(0, 2**31))
def test_query_equals_looking_at_each(n: int, window: tuple[float, float, float, float], seed: int):
    random = np.random.default_rng(seed)
    centres, halves = random.uniform(-100, 100, (n, 2)), random.uniform(0.5, 20, (n, 2))
    left, top, width, height = window
    assert_right(SpatialIndex(centres, halves), centres, halves, (left, top, left + width, top + height))


WINDOWS = ((4000, 4000, 4100, 4200), (-50, -50, -40, -40), (0, 0, 10_000, 200), (-1e6, -1e6, 1e6, 1e6), (77, 77, 77, 77))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("order", ["row by row", "at random"])
@pytest.mark.parametrize("rest", [0, 1, RUN_FIELDS - 1])
def test_query_of_a_large_mosaic_equals_looking_at_each(order: str, rest: int, window: tuple):
    random = np.random.default_rng(5)
    n = 80 * RUN_FIELDS + rest
    row, column = np.divmod(np.arange(n), 72)
    centres = np.stack([column, row], axis=-1) * 140.0 + random.uniform(-9, 9, (n, 2))
    if order == "at random":
        random.shuffle(centres)
    halves = random.uniform(5, 80, (n, 2))
    assert_right(SpatialIndex(centres, halves), centres, halves, window)


@pytest.mark.parametrize("n", [12, 20 * RUN_FIELDS + 10])
def test_everything_in_view_names_everything(n: int):
    centres = np.random.default_rng(0).uniform(0, 10, (n, 2))
    index = SpatialIndex(centres, np.ones((n, 2)))
    np.testing.assert_array_equal(index.query((-2, -2, 12, 12)), np.arange(n))


@pytest.mark.parametrize("n", [30, 20 * RUN_FIELDS + 30])
def test_fields_at_one_place_are_all_found(n: int):
    centres = np.full((n, 2), 1e5)
    index = SpatialIndex(centres, np.full((n, 2), 0.25))
    np.testing.assert_array_equal(index.query((99_999.9, 99_999.9, 100_000.1, 100_000.1)), np.arange(n))
    assert len(index.query((0, 0, 1, 1))) == 0


def test_no_field_at_all_is_found_nowhere():
    assert len(SpatialIndex(np.empty((0, 2)), np.empty((0, 2))).query((-1, -1, 1, 1))) == 0


def test_positions_given_are_not_kept_by_reference():
    centres, halves = np.zeros((1, 2)), np.ones((1, 2))
    index = SpatialIndex(centres, halves)
    centres += 1000
    assert index.query((-1, -1, 1, 1)).tolist() == [0]
