"""Limits are those of the pixels that are asked for, counted independently; questions can be given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rawmosaic.storage.errors import NoLongerWantedError
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import FailingSlide, SlowSlide, SyntheticSlide
from rawmosaic.viewer.annotations.shapes import Ellipse, Polygon, Rectangle
from rawmosaic.viewer.auto_contrast import (
    STRONGEST_TAIL,
    Answer,
    AutoContrast,
    Question,
    Strength,
    apply_limits,
    copy_limits,
    histogram_of,
    limits_for,
    question_of,
    stretched,
)
from rawmosaic.viewer.channels import AUTO_CONTRAST_TAIL, ChannelView, percentile_limits
from rawmosaic.viewer.plan import Geometry
from rawmosaic.viewer.region import fitting_level, region_counts

SHEAR = np.array([[0.97, -0.12], [0.05, -1.03]])
SLIDES: dict[str, Callable[[], SyntheticSlide]] = {
    "plain": lambda: SyntheticSlide((4, 5), (48, 64), 2, overlap=0.2),
    "sparse": lambda: SyntheticSlide((5, 6), (48, 64), 2, overlap=0.3, sparse=0.4),
    "field sizes": lambda: SyntheticSlide((5, 6), (48, 64), 2, overlap=0.4, shapes=[(48, 64), (31, 45), (64, 20), (9, 5)]),
    "many tiles": lambda: SyntheticSlide((1, 2), (600, 520), 1, overlap=0.7),
    "sheared": lambda: SyntheticSlide((5, 6), (48, 64), 1, overlap=0.3, orientation=SHEAR),
    "offsets": lambda: SyntheticSlide((4, 4), (48, 64), 2, overlap=0.3, plane_offset_px=9, channel_offset_px=5),
    "far away": lambda: SyntheticSlide((5, 6), (48, 64), 2, origin_um=(81234.567, -56789.123), pixel_size_um=0.1625),
}


def pixels_in(slide: Slide, bounds_um: tuple, channel: int, level: int, z: int = 0) -> np.ndarray:
    """All pixels of planes of a layer whose centre lies in a region, plane by plane and pixel by pixel."""
    placement, factor = slide.placement(), slide.levels[level]
    centres, found = placement.centres_um(channel), []
    for field in np.flatnonzero(slide.acquired(z, 0)[:, channel]):
        plane = slide.read_plane(int(field), channel, z, 0, level)
        height, width = slide.fields["height"][field], slide.fields["width"][field]
        rows, columns = np.indices(plane.shape)
        u = 0.5 * (columns * factor + np.minimum((columns + 1) * factor, width)) - width / 2
        v = 0.5 * (rows * factor + np.minimum((rows + 1) * factor, height)) - height / 2
        x_um, y_um = (placement.matrix_um @ np.stack([u.ravel(), v.ravel()])) + centres[field][:, None]
        inside = (x_um >= bounds_um[0]) & (x_um < bounds_um[2]) & (y_um >= bounds_um[1]) & (y_um < bounds_um[3])
        found.append(plane.ravel()[inside])
    return np.sort(np.concatenate(found)) if found else np.empty(0, np.uint16)


def middle_of(slide: Slide, width_um: float, height_um: float) -> tuple[float, float, float, float]:
    """A region about the middle, no pixel's centre on its edge."""
    x, y = slide.positions().mean(axis=0) + np.array([0.01234, 0.00567])
    return float(x - width_um / 2), float(y - height_um / 2), float(x + width_um / 2), float(y + height_um / 2)


def question(slide: Slide, **what: object) -> Question:
    """A question about the channels of a slide."""
    return Question(slide, Geometry(slide, "stage"), tuple(range(len(slide.channels))), **what)


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("kind", SLIDES)
def test_region_holds_the_pixels_whose_centre_lies_in_it(kind: str, level: int):
    slide = SLIDES[kind]()
    bounds = middle_of(slide, 61.3 * slide.header.pixel_size_um, 47.1 * slide.header.pixel_size_um)
    for channel in range(len(slide.channels)):
        blocks = list(region_counts(slide, Geometry(slide, "stage"), bounds, (channel,), level=level))
        expected = pixels_in(slide, bounds, channel, level)
        assert len(expected) > 0
        np.testing.assert_array_equal(np.sort(np.concatenate([block[0] for block in blocks])), expected)


def test_channels_of_a_region_stay_pixel_by_pixel_together():
    slide = SLIDES["sparse"]()
    bounds, geometry = middle_of(slide, 60.0, 60.0), Geometry(slide, "stage")
    both = np.concatenate(list(region_counts(slide, geometry, bounds, (0, 1))), axis=1)
    has = slide.acquired().all(axis=1)
    pairs = {
        (int(a), int(b))
        for f in np.flatnonzero(has)
        for a, b in zip(*(slide.read_plane(f, c).ravel() for c in (0, 1)), strict=True)
    }
    assert both.shape[1] > 1000
    assert {(int(a), int(b)) for a, b in both.T} <= pairs


def test_region_of_a_projection_is_the_brightest_of_its_planes():
    slide = SyntheticSlide((1, 1), (48, 64), 1, size_z=3, jitter_px=0.0)
    bounds, geometry = slide_bounds(slide), Geometry(slide, "stage")
    (block,) = region_counts(slide, geometry, bounds, (0,), z=3)
    np.testing.assert_array_equal(block[0].reshape(48, 64), np.max([slide.read_plane(0, 0, z) for z in range(3)], axis=0))


def slide_bounds(slide: Slide) -> tuple[float, float, float, float]:
    """All of it, and a little more."""
    left, top, right, bottom = Geometry(slide, "stage").bounds_um
    return left - 1, top - 1, right + 1, bottom + 1


def test_a_large_region_is_taken_from_a_coarse_layer():
    slide = SLIDES["plain"]()
    bounds = slide_bounds(slide)
    assert fitting_level(slide, bounds, 1.0) == 0
    assert fitting_level(slide, bounds, 0.25) == 2
    assert fitting_level(slide, bounds, 1.0, most_pixels=2000) == 3
    assert fitting_level(slide, bounds, 1.0, most_pixels=0) == len(slide.levels) - 1


def test_limits_of_a_region_are_its_percentiles():
    slide = SLIDES["plain"]()
    bounds = middle_of(slide, 40.0, 30.0)
    answer = limits_for(question(slide, region_um=bounds, tail=0.01))
    for channel in (0, 1):
        values = pixels_in(slide, bounds, channel, 0)
        low, high = answer.limits[channel]
        assert (values < low).mean() <= 0.01 + 1e-9
        assert (values > high).mean() <= 0.01 + 1e-9
        assert answer.limits[channel] == percentile_limits(np.bincount(values, minlength=65536), 0.01)


def test_limits_of_the_slide_are_those_of_its_histogram():
    slide = SLIDES["plain"]()
    assert limits_for(question(slide)).limits == {c: percentile_limits(slide.histogram(c)) for c in (0, 1)}


@pytest.mark.parametrize("stored", [True, False])
def test_limits_of_a_field_are_those_of_its_plane(stored: bool):
    slide = SLIDES["plain"]()
    if stored:
        slide.field_histogram = lambda field, channel: np.bincount(slide.read_plane(field, channel).ravel(), minlength=65536)
    expected = {c: percentile_limits(np.bincount(slide.read_plane(7, c).ravel(), minlength=65536)) for c in (0, 1)}
    assert limits_for(question(slide, field=7)).limits == expected


def test_unmixed_limits_are_those_of_unmixed_counts():
    slide = SLIDES["plain"]()
    bounds, unmixing = middle_of(slide, 40.0, 30.0), np.array([[1.0, -0.5], [0.0, 1.0]])
    answer = limits_for(question(slide, region_um=bounds, unmixing=unmixing, tail=0.02))
    both = np.concatenate(list(region_counts(slide, Geometry(slide, "stage"), bounds, (0, 1))), axis=1).astype(float)
    unmixed = both[0] - 0.5 * both[1]
    low, high = answer.limits[0]
    assert (unmixed < low).mean() <= 0.02
    assert (unmixed > high).mean() <= 0.02
    assert (unmixed <= low).mean() > 0.015
    assert answer.limits[1] == percentile_limits(np.bincount(both[1].astype(int), minlength=65536), 0.02)


def test_a_region_without_pixels_leaves_the_limits():
    slide = SLIDES["plain"]()
    answer = limits_for(question(slide, region_um=(1e6, 1e6, 1e6 + 10, 1e6 + 10)))
    assert answer == Answer({})


def test_what_cannot_be_read_is_told_and_the_rest_counts():
    sound = SLIDES["plain"]()
    slide = FailingSlide(sound, lambda key: getattr(key, "channel", key[1]) == 1)
    answer = limits_for(question(slide, region_um=middle_of(sound, 40.0, 30.0)))
    assert list(answer.limits) == [0]
    assert answer.told


def test_a_question_of_an_engine_is_about_what_it_shows():
    slide = SyntheticSlide((2, 2), (48, 64), 2, size_z=3)
    engine = SimpleNamespace(
        slide=slide,
        geometry=Geometry(slide, "stage"),
        view=lambda: SimpleNamespace(z=3),
        t=0,
        camera=SimpleNamespace(scale=0.5),
        unmixing=np.eye(2),
        channels=[None, None],
    )
    asked = question_of(engine, [1], region_um=slide_bounds(slide), tail=0.05)
    assert (asked.channels, asked.z, asked.scale, asked.unmixing, asked.tail) == ((1,), 3, 0.5, None, 0.05)
    assert histogram_of(asked, 1).sum() == 4 * 24 * 32


def test_asking_again_is_stronger_until_a_pause():
    strength = Strength()
    tails = [strength.tail(("view", (0,)), now) for now in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    assert tails[:3] == pytest.approx([AUTO_CONTRAST_TAIL, 4 * AUTO_CONTRAST_TAIL, 16 * AUTO_CONTRAST_TAIL])
    assert tails[-1] == STRONGEST_TAIL
    assert strength.tail(("view", (1,)), 6.5) == AUTO_CONTRAST_TAIL
    assert strength.tail(("view", (1,)), 20.0) == AUTO_CONTRAST_TAIL


def test_stretched_values_keep_a_least_range():
    assert stretched(np.full(100, 7.0), 0.1) == (7.0, 23.0)
    assert stretched(np.empty(0), 0.1) is None
    assert stretched(np.arange(101.0), 0.1) == (10.0, 90.0)


def test_limits_are_copied_with_gamma_or_without():
    looks = [
        ChannelView("a", (1.0, 2.0), "#fff", 0.5),
        ChannelView("b", (3.0, 4.0), "#fff"),
        ChannelView("c", (5.0, 6.0), "#fff"),
    ]
    copy_limits(looks, 0, [1])
    copy_limits(looks, 0, [2], gamma=False)
    assert [(look.limits, look.gamma) for look in looks[1:]] == [((1.0, 2.0), 0.5), ((1.0, 2.0), 1.0)]
    assert apply_limits(Answer({1: (7.0, 8.0), 9: (1.0, 2.0)}), looks)
    assert looks[1].limits == (7.0, 8.0)
    assert not apply_limits(Answer({1: (7.0, 8.0)}), looks)


# in a thread


@pytest.fixture
def auto() -> Iterator[tuple[AutoContrast, threading.Event]]:
    """What is tested, and whether it said that an answer came."""
    came = threading.Event()
    made = AutoContrast(came.set)
    yield made, came
    made.close()
    made.close()


def answer_of(auto: AutoContrast) -> Answer:
    """The answer once it arrives."""
    end = time.monotonic() + 30
    while (answer := auto.arrived()) is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    return answer


def test_an_answer_arrives_once(auto: tuple[AutoContrast, threading.Event]):
    made, came = auto
    assert made.arrived() is None
    asked = question(SLIDES["plain"](), region_um=(0.0, 0.0, 30.0, 30.0))
    made.ask(asked)
    assert came.wait(30)
    assert answer_of(made) == limits_for(asked)
    assert made.arrived() is None
    assert not made.busy


def test_a_new_question_replaces_the_one_before(auto: tuple[AutoContrast, threading.Event]):
    made, _ = auto
    slow = SlowSlide(SLIDES["plain"](), 0.05)
    made.ask(question(slow, region_um=slide_bounds(slow)))
    quick = question(SLIDES["plain"](), field=3)
    made.ask(quick)
    assert answer_of(made) == limits_for(quick)
    assert made.arrived() is None


def test_a_question_that_is_given_up_stops_reading(auto: tuple[AutoContrast, threading.Event]):
    made, came = auto
    slide = SyntheticSlide((10, 10), (48, 64), 1)
    read = []
    gate = threading.Event()

    def counted(keys: list, outs: list, wanted: Callable = lambda _: True, urgent: bool = True) -> list:
        read.append(len(keys))
        gate.wait(30)
        return Slide.read_tiles(slide, keys, outs, wanted, urgent)

    slide.read_tiles = counted
    made.ask(question(slide, region_um=slide_bounds(slide)))
    while not read:
        time.sleep(0.002)
    made.cancel()
    gate.set()
    made.close()
    assert len(read) == 1
    assert made.arrived() is None
    assert not came.is_set()


def test_giving_up_is_no_answer():
    slide = SLIDES["plain"]()
    with pytest.raises(NoLongerWantedError):
        limits_for(question(slide, region_um=slide_bounds(slide)), wanted=lambda: False)


def test_an_error_of_any_kind_is_told(auto: tuple[AutoContrast, threading.Event]):
    made, _ = auto
    slide = SLIDES["plain"]()
    broken = replace(question(slide), channels=(17,))
    made.ask(broken)
    assert answer_of(made).told


# drawn areas


def places_of(slide: Slide, field: int, channel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mosaic µm of every pixel centre of a field, x and y, and its raw counts: (height, width) each."""
    plane = slide.read_plane(field, channel)
    height, width = plane.shape
    placement = slide.placement("stage")
    u, v = np.meshgrid(np.arange(width) + 0.5 - 0.5 * width, np.arange(height) + 0.5 - 0.5 * height)
    x_um, y_um = np.tensordot(placement.matrix_um, np.stack([u, v]), 1) + placement.centres_um(channel)[field][:, None, None]
    return x_um, y_um, plane


SHAPES = {
    "ellipse": Ellipse(-4.0, 3.0, 70.0, 51.0),
    "polygon": Polygon([[(2.03, 1.02), (61.07, 9.01), (40.03, 50.05), (20.01, 22.02), (5.04, 44.06)]]),
    "rectangle beyond the mosaic": Rectangle(10.0, 12.0, 9e5, 9e5),
}


@pytest.mark.parametrize("kind", ["plain", "sheared", "offsets"])
@pytest.mark.parametrize("name", SHAPES)
def test_limits_of_a_drawn_area_are_percentiles_of_the_raw_counts_inside_it(name: str, kind: str):
    slide, shape = SLIDES[kind](), SHAPES[name]
    channel = len(slide.channels) - 1
    inside = []
    for field in range(slide.n_fields):
        x_um, y_um, plane = places_of(slide, field, channel)
        inside.append(plane[shape.contains(x_um, y_um)])
    counts = np.sort(np.concatenate(inside))
    assert len(counts) > 500
    # a view from far away reads a coarse layer; a drawn area does not
    answer = limits_for(question(slide, shape=shape, tail=0.02, scale=0.05))
    low, high = answer.limits[channel]
    below, above = (counts < low).mean(), (counts > high).mean()
    assert below <= 0.02 <= (counts <= low).mean()
    assert above <= 0.02 <= (counts >= high).mean()
    assert answer.told == ()


def test_an_area_with_more_pixels_than_are_to_be_read_is_taken_from_a_coarser_layer_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("rawmosaic.viewer.auto_contrast.MOST_DRAWN_PIXELS", 4000)
    slide = SLIDES["plain"]()
    answer = limits_for(question(slide, shape=Rectangle(*slide_bounds(slide))))
    assert set(answer.limits) == {0, 1}
    assert len(answer.told) == 1
    assert "reduced" in answer.told[0]


def test_an_area_where_nothing_was_acquired_leaves_the_limits():
    assert limits_for(question(SLIDES["plain"](), shape=Ellipse(1e6, 1e6, 1e6 + 5, 1e6 + 5))).limits == {}


def test_whoever_waits_is_told_how_far_it_is_and_may_give_up():
    slide = SyntheticSlide((10, 10), (48, 64), 2)
    told, answered = threading.Event(), threading.Event()
    asked_for, go_on = threading.Event(), threading.Event()
    calls = []

    def gated(keys: list, outs: list, wanted: Callable = lambda _: True, urgent: bool = True) -> list:
        calls.append(len(keys))
        if len(calls) == 6:
            asked_for.set()
            assert go_on.wait(60)
        return Slide.read_tiles(slide, keys, outs, wanted, urgent)

    slide.read_tiles = gated
    made = AutoContrast(answered.set, told.set)
    try:
        assert made.share is None
        made.ask(question(slide, shape=Rectangle(*slide_bounds(slide))))
        assert asked_for.wait(60)
        assert told.is_set()
        assert 0.0 < made.share < 1.0
        assert made.waits_s > 0.0
        made.cancel()
        assert made.share is None
        go_on.set()
    finally:
        go_on.set()
        made.close()
    assert len(calls) == 6
    assert not answered.is_set()
