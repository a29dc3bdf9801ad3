"""The zoom manager steps evenly, stops at 1:1, and never leaves its limits or lands in an excluded range."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.viewer.zoom import ZoomManager, digits

QUICK = settings(derandomize=True, deadline=None, database=None, max_examples=80)
STEPS = st.integers(-12, 12).filter(bool)


def test_four_steps_double_the_scale():
    assert ZoomManager().stepped(2.0, 4) == pytest.approx(4.0)
    assert ZoomManager().stepped(0.5, -4) == pytest.approx(0.25)


def test_steps_there_and_back_return():
    zoom = ZoomManager()
    assert zoom.stepped(zoom.stepped(3.0, 3), -3) == pytest.approx(3.0)


@pytest.mark.parametrize(("scale", "steps"), [(0.9, 1), (1.1, -1), (0.3, 40), (30.0, -40)])
def test_a_step_across_one_to_one_stops_there(scale: float, steps: float):
    assert ZoomManager().stepped(scale, steps) == 1.0


@pytest.mark.parametrize("scale", [1.0, 1.0 + 1e-9, 1.0 - 1e-9])
def test_one_to_one_is_left_by_the_next_step(scale: float):
    assert ZoomManager().stepped(scale, 1) == pytest.approx(2**0.25)
    assert ZoomManager().stepped(scale, -1) == pytest.approx(2**-0.25)


def test_a_walk_of_whole_steps_passes_exactly_through_one_to_one():
    zoom, scale = ZoomManager(), 0.0137
    seen = []
    for _ in range(60):
        scale = zoom.stepped(scale, 1)
        seen.append(scale)
    assert 1.0 in seen
    assert seen[-1] == zoom.maximum


def test_limits_hold():
    zoom = ZoomManager(minimum=0.25, maximum=8.0)
    assert zoom.stepped(7.9, 10) == 8.0
    assert zoom.stepped(0.26, -10) == 0.25
    assert zoom.stepped(8.0, 1) == 8.0
    assert zoom.allowed(100.0) == 8.0
    assert zoom.allowed(0.001) == 0.25


def test_excluded_range_is_jumped_over_in_the_direction_of_travel():
    zoom = ZoomManager(excluded=((3.0, 5.0),))
    assert zoom.stepped(2.9, 1) == 5.0
    assert zoom.stepped(5.1, -1) == 3.0
    assert zoom.allowed(3.0) == 3.0  # the ends belong to what is allowed
    assert zoom.allowed(5.0) == 5.0


def test_ranges_on_both_sides_make_one_to_one_easy_to_hit():
    zoom = ZoomManager(excluded=((0.8, 1.0), (1.0, 1.25)))
    assert zoom.stepped(0.75, 1) == 1.0
    assert zoom.stepped(1.3, -1) == 1.0
    assert zoom.stepped(1.0, 1) == 1.25
    assert zoom.stepped(1.0, -1) == pytest.approx(0.8)


@QUICK
@given(
    st.lists(st.floats(0.01, 50), min_size=2, max_size=8, unique=True).map(sorted),
    st.floats(0.01, 50),
    STEPS,
)
def test_a_step_never_lands_inside_an_excluded_range(ends: list[float], scale: float, steps: int):
    excluded = tuple(zip(ends[::2], ends[1::2], strict=False))
    zoom = ZoomManager(minimum=0.001, maximum=100.0, excluded=excluded)
    landed = zoom.stepped(scale, steps)
    assert not any(low < landed < high for low, high in excluded)
    assert 0.001 <= landed <= 100.0


@QUICK
@given(st.floats(1e-4, 64), STEPS)
def test_a_step_never_goes_the_other_way(scale: float, steps: int):
    landed = ZoomManager().stepped(scale, steps)
    assert landed >= scale if steps > 0 else landed <= scale


@pytest.mark.parametrize("fit_scale", [0.003, 0.4, 1.7, 300.0])
def test_a_view_can_go_from_beyond_all_to_single_pixels(fit_scale: float):
    zoom = ZoomManager.for_view(fit_scale)
    assert zoom.allowed(fit_scale) == fit_scale  # what shows everything is always allowed
    assert zoom.stepped(fit_scale, -1) < fit_scale
    assert zoom.allowed(1.0) == 1.0
    assert zoom.maximum >= 64.0


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "0.0123"), (23.14, "23.1"), (99.96, "100"), (1152.3, "1152"), (6400.0, "6400")]
)
def test_scales_are_written_without_powers_of_ten(value: float, text: str):
    assert digits(value) == text
