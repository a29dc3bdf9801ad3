"""A running scan in numbers and words: what was counted, how fast it is, what is left, and when something is to be said."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.chase import kept_in_view, was_panned
from rawmosaic.viewer.scan_progress import MOST_PENDING, RATE_OVER_S, SILENT_AFTER_S, ScanCounter, told_planned
from rawmosaic.viewer.scan_words import count_text, duration_text, pace_text, rate_text, state_text


def planes(*fields: int, channels: int = 1) -> np.ndarray:
    """Planes of these fields, in so many channels."""
    return np.array([(field, channel, 0, 0) for field in fields for channel in range(channels)], np.int32)


def planned(n_fields: int, channels: int = 1) -> ScanCounter:
    """A plan of which nothing was acquired."""
    return ScanCounter(np.zeros(n_fields, bool), 0, channels, 0.0)


def test_a_field_counts_once_however_many_planes_it_gets():
    counter = planned(10, channels=3)
    counter.add(planes(0, 1, channels=2), 10, 1.0)
    counter.add(planes(1, 2, channels=1), 10, 2.0)
    progress = counter.progress(2.0)
    assert (progress.fields, progress.planned_fields, progress.planes) == (3, 10, 6)
    assert progress.share == 0.3
    assert progress.newest == (2, 0, 0, 0)


def test_what_is_left_is_counted_in_planes_at_the_rate_they_come():
    counter = planned(100, channels=2)
    for second in range(1, 11):
        counter.add(planes(2 * second, 2 * second + 1, channels=2), 100, float(second))
    progress = counter.progress(10.0)
    assert progress.fields_per_s == pytest.approx(2.0)
    assert progress.planes_per_s == pytest.approx(4.0)
    assert progress.left_s == pytest.approx((200 - 40) / 4.0)


def test_a_pass_through_fields_that_are_known_has_time_left():
    counter = planned(20, channels=2)
    for second in range(20):
        counter.add(planes(second), 20, float(second))
    for second in range(20, 30):
        counter.add(np.array([(second - 20, 1, 0, 0)], np.int32), 20, float(second))
    assert counter.progress(29.0).fields == 20
    assert counter.progress(29.0).left_s == pytest.approx(10.0)


def test_the_rate_is_that_of_the_last_seconds():
    counter = planned(10_000)
    number = iter(range(10_000))
    for tick in range(100):  # one a second, then ten
        counter.add(planes(next(number)), 10_000, float(tick))
    for tick in range(100, 100 + round(RATE_OVER_S) + 2):
        counter.add(planes(*(next(number) for _ in range(10))), 10_000, float(tick))
    assert counter.progress(122.0).fields_per_s == pytest.approx(10.0, rel=0.02)


def test_what_was_there_before_says_nothing_of_the_rate():
    counter = ScanCounter(np.arange(500) < 400, 400, 1, 0.0)
    counter.add(planes(400), 500, 100.0)
    counter.add(planes(401), 500, 101.0)
    progress = counter.progress(101.0)
    assert progress.fields == 402
    assert progress.fields_per_s == pytest.approx(1.0)


def test_fields_that_come_into_being_with_their_planes_are_no_plan():
    counter = ScanCounter(np.zeros(0, bool), 0, 1, 0.0)
    rows = 0
    for second in range(1, 50):
        rows += 5
        counter.add(planes(*range(rows - 5, rows - 2)), rows, float(second))  # the last two are still being written
        counter.add(planes(rows - 2, rows - 1), rows, second + 0.5)
        assert counter.progress(float(second)).planned_fields is None
    assert count_text(counter.progress(50.0)) == "245 fields"
    assert counter.progress(50.0).left_s is None


def test_a_plan_is_seen_in_the_middle_of_its_scan():
    counter = ScanCounter(np.arange(2000) < 1500, 1500, 1, 0.0)
    assert counter.progress(0.0).planned_fields == 2000
    few = ScanCounter(np.arange(MOST_PENDING) < 20, 20, 1, 0.0)
    few.add(planes(20), MOST_PENDING, 1.0)
    assert few.progress(1.0).planned_fields == MOST_PENDING


def test_what_the_slide_says_of_a_plan_is_believed():
    few = ScanCounter(np.arange(30) < 20, 20, 1, 0.0, is_planned=True)
    assert few.progress(0.0).planned_fields == 30
    few.end(1.0, finished=True)
    assert few.progress(2.0).state == "ended early"
    many = ScanCounter(np.arange(2000) < 100, 100, 1, 0.0, is_planned=False)  # planes that are not written yet
    many.add(planes(100), 2000, 1.0)
    assert many.progress(1.0).planned_fields is None
    many.end(2.0, finished=True)
    assert many.progress(2.0).state == "finished"


def test_only_a_slide_of_a_scan_says_whether_it_was_planned():
    assert told_planned({"acquisition": {"uid": "u", "planned": False}}) is False
    for extra in ({}, {"acquisition": "microscope 7"}, {"acquisition": {"planned": "perhaps"}}):
        assert told_planned(extra) is None


def test_silence_is_worth_a_word_after_some_usual_pauses():
    counter = planned(100)
    for second in range(5):
        counter.add(planes(second), 100, float(second))
    assert counter.progress(4 + SILENT_AFTER_S - 1).state == "running"
    assert state_text(counter.progress(4 + 40.0)) == "no field for 40 s"
    slow = planned(100)
    for number in range(5):
        slow.add(planes(number), 100, 30.0 * number)
    assert slow.progress(120 + 100.0).state == "running", "a field each half minute is what it does"
    assert slow.progress(120 + 200.0).state == "silent"
    slow.add(planes(7), 100, 330.0)
    assert slow.progress(331.0).state == "running"


@pytest.mark.parametrize(
    ("came", "finished", "state"),
    [(10, True, "finished"), (7, True, "ended early"), (7, False, "abandoned"), (10, False, "abandoned")],
)
def test_how_a_scan_ended_is_told(came: int, finished: bool, state: str):
    counter = planned(10)
    counter.add(planes(*range(came)), 10, 1.0)
    counter.end(2.0, finished=finished)
    progress = counter.progress(7.0)
    assert (progress.state, progress.goes_on, progress.ended_s, progress.left_s) == (state, False, 5.0, None)
    assert state_text(progress)


def test_words():
    counter = planned(2193, channels=4)
    counter.add(planes(0), 2193, 0.0)
    counter.add(planes(*range(1240), channels=4)[1:], 2193, 62.0)
    progress = counter.progress(62.0)
    assert count_text(progress) == "1,240 / 2,193 fields"
    assert pace_text(progress) == "4,960 planes  ·  20 fields/s  ·  48 s left"
    assert [duration_text(seconds) for seconds in (0.2, 40, 99.4, 180, 4800, 7200, 90_000)] == [
        *("0 s", "40 s", "99 s", "3 min", "1 h 20 min", "2 h", "25 h")
    ]
    assert [rate_text(rate, "field") for rate in (20.2, 3.14, 0.5, 0.05)] == [
        *("20 fields/s", "3.1 fields/s", "30 fields/min", "3.0 fields/min")
    ]


# the view that goes along

CAMERA = Camera(1000.0, 500.0, 0.5, (400, 300), 0.5)
"""400 × 300 µm are in view."""


def test_a_field_in_view_moves_nothing():
    assert kept_in_view(CAMERA, (820.0, 400.0, 900.0, 460.0)) is CAMERA


def test_a_field_beyond_an_edge_comes_to_the_middle_of_that_axis_alone():
    moved = kept_in_view(CAMERA, (1190.0, 400.0, 1270.0, 460.0))
    assert (moved.x_um, moved.y_um, moved.scale) == (1230.0, 500.0, 0.5)
    assert kept_in_view(moved, (1190.0, 400.0, 1270.0, 460.0)) is moved


def test_a_field_larger_than_the_view_is_gone_into():
    large = (1300.0, 0.0, 2300.0, 900.0)
    moved = kept_in_view(CAMERA, large)
    assert (moved.x_um, moved.y_um) == (1800.0, 500.0)
    inside = Camera(1400.0, 300.0, 0.5, (400, 300), 0.5)
    assert kept_in_view(inside, large) is inside, "somebody looks at a part of it"


def test_a_pan_is_told_from_a_zoom():
    assert was_panned(CAMERA, CAMERA.moved(3.0, 0.0))
    assert not was_panned(CAMERA, CAMERA)
    assert not was_panned(CAMERA, CAMERA.zoomed(2.0, 0.0, 300.0))
    assert not was_panned(CAMERA, CAMERA.zoomed(0.1, 399.0, 2.0))
    assert was_panned(CAMERA, CAMERA.zoomed(0.51).moved(150.0, 0.0))
