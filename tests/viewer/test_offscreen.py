"""The headless viewer settles on the one right picture, whatever was shown, lost or failed on the way there."""

from __future__ import annotations

import time
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.pyramid import Tiling
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import FailingSlide, SlowSlide, SyntheticSlide, WrappedSlide
from rawmosaic.viewer import OffscreenViewer

SIZE = (120, 90)
SHAPE = (150, 170)
MEGABYTE = 1 << 20
TINY = {"ram_bytes": MEGABYTE, "vram_bytes": MEGABYTE}
"""The smallest budgets: the caches hold fewer tiles than a walk sees."""


def mosaic(grid: tuple[int, int] = (4, 4), channels: int = 2, **options) -> SyntheticSlide:
    """Fields of several tiles; every pixel says where it belongs. A tile is 128 kB, so that tiny budgets hold eight."""
    options.setdefault("tiling", Tiling.of(SHAPE, tile_shape=(256, 256)))
    return SyntheticSlide(grid, SHAPE, channels, **options)


def blocks(grid: tuple[int, int] = (1, 2), **options) -> SyntheticSlide:
    """Large fields, cut into many tiles."""
    return SyntheticSlide(grid, (700, 800), 1, tiling=Tiling.of((700, 800), tile_shape=(128, 128)), **options)


# what is promised of one picture


def test_picture_is_rgba_of_the_asked_size():
    with OffscreenViewer(mosaic(), size=(97, 61)) as viewer:
        image = viewer.render()
        assert image.shape == (61, 97, 4)
        assert image.dtype == np.uint8
        assert (image[..., 3] == 255).all()
        assert image[..., :3].any()
        assert viewer.report.complete


def test_whole_mosaic_is_shown_at_first_and_again_by_fit():
    with OffscreenViewer(mosaic(), size=SIZE) as viewer:
        first = viewer.render()
        viewer.look_at(0.0, 0.0, scale=3.0)
        assert (viewer.render() != first).any()
        viewer.fit()
        np.testing.assert_array_equal(viewer.render(), first)


def test_a_frame_that_does_not_wait_names_what_is_missing():
    with OffscreenViewer(SlowSlide(mosaic(), 0.05), size=SIZE, threads=2) as viewer:
        viewer.look_at(30.0, 30.0, scale=1.0)
        viewer.render(wait=False)
        assert viewer.report.tiles_missing == viewer.report.tiles_wanted > 0
        assert not viewer.report.complete
        viewer.render()
        assert viewer.report.complete
        assert viewer.report.tiles_missing == 0


def test_changing_looks_reads_and_uploads_nothing():
    slide = mosaic()
    with OffscreenViewer(slide, size=SIZE) as viewer:
        viewer.render()
        before = viewer.engine.report.tiles_in_texture
        reads = []
        slide._read_plane = lambda *key: reads.append(key)
        viewer.channels[0].limits, viewer.channels[0].gamma = (100, 20_000), 0.6
        viewer.channels[1].color = "#ff00ff"
        viewer.channels[1].visible = False
        viewer.render()
        viewer.channels[1].visible = True
        viewer.overlap = "feather"
        viewer.render()
        assert reads == []
        assert viewer.report.tiles_uploaded == 0
        assert viewer.report.tiles_in_texture == before


def test_adding_a_channel_fetches_that_channel_alone():
    slide = mosaic(channels=3)
    read = []

    class Watched(WrappedSlide):
        def _before(self, key) -> None:
            read.append(key)

    with OffscreenViewer(Watched(slide), size=SIZE) as viewer:
        viewer.look_at(*slide.positions().mean(axis=0), scale=1.0)
        viewer.channels[2].visible = False
        viewer.render()
        assert {key.channel for key in read} == {0, 1}
        read.clear()
        viewer.channels[2].visible = True
        viewer.render()
        assert {key.channel for key in read if key.level == viewer.report.level} == {2}


def test_wherever_a_view_jumps_the_overview_stands_in_at_once():
    slide = mosaic((12, 12))
    with OffscreenViewer(slide, size=SIZE) as viewer:
        places = slide.positions()[::7]
        viewer.look_at(*places[0], scale=1.0)
        viewer.render()
        viewer.engine.warm_up(viewer._target())  # as a window does once its first picture stands
        end = time.monotonic() + 20
        while viewer.engine._resident.size == 0 or viewer.engine._missing_overview():  # it is fetched while there is time
            assert time.monotonic() < end
            viewer.render(wait=False)
            time.sleep(0.002)
        for place in places[3:]:
            viewer.look_at(*place, scale=1.0)
            image = viewer.render(wait=False)
            assert image[..., :3].any(axis=-1).mean() > 0.9, "a stand-in, wherever it goes"


def test_closed_twice_is_harmless_and_the_slide_stays_open():
    slide = mosaic()
    viewer = OffscreenViewer(slide, size=SIZE)
    viewer.render()
    viewer.close()
    viewer.close()
    assert slide.read_plane(0, 0).shape == SHAPE


def test_closing_in_the_middle_of_loading_leaves_nothing():
    viewer = OffscreenViewer(SlowSlide(mosaic(), 0.05), size=SIZE, threads=3)
    viewer.render(wait=False)
    viewer.close()


def test_two_viewers_draw_side_by_side():
    first, second = mosaic(seed=1), mosaic(seed=2)
    with OffscreenViewer(first, size=SIZE) as one, OffscreenViewer(second, size=SIZE) as other:
        alone = [one.render(), other.render()]
        np.testing.assert_array_equal(one.render(), alone[0])
        np.testing.assert_array_equal(other.render(), alone[1])
        assert (alone[0] != alone[1]).any()


@pytest.mark.parametrize(
    ("name", "value"),
    [("overlap", "under"), ("interpolation", "cubic"), ("position_set", "nowhere"), ("z", 1), ("t", -1)],
)
def test_what_the_view_does_not_have_is_named_with_the_choices(name: str, value: object):
    with OffscreenViewer(mosaic(), size=SIZE) as viewer:
        setattr(viewer, name, value)
        with pytest.raises(OutOfRangeError, match=r"choose one of|the slide has"):
            viewer.render()


@pytest.mark.parametrize("view", [(float("nan"), 0, 1), (0, float("inf"), 1), (0, 0, 0), (0, 0, -1), (0, 0, float("nan"))])
def test_a_view_that_cannot_be_is_refused(view: tuple[float, float, float]):
    with OffscreenViewer(mosaic(), size=SIZE) as viewer, pytest.raises(OutOfRangeError):
        viewer.look_at(*view)


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (100_000, 10)])
def test_a_picture_size_that_cannot_be_is_refused(size: tuple[int, int]):
    with pytest.raises(OutOfRangeError, match="1 to 16384"):
        OffscreenViewer(mosaic(), size=size)


def test_a_slide_without_any_field_is_black():
    with OffscreenViewer(SyntheticSlide((0, 0), SHAPE, 1), size=SIZE) as viewer:
        image = viewer.render()
        assert not image[..., :3].any()


# budgets


def test_a_frame_beyond_the_budget_goes_coarser_and_a_picture_does_not():
    slide = blocks((2, 2))
    middle = slide.positions().mean(axis=0)
    with OffscreenViewer(slide, size=(1000, 900)) as viewer:
        viewer.look_at(*middle, scale=1.0)
        expected = viewer.render()
        assert viewer.report.tiles_wanted * slide.tiling.tile_nbytes > MEGABYTE
    with OffscreenViewer(slide, size=(1000, 900), **TINY) as viewer:
        viewer.look_at(*middle, scale=1.0)
        viewer.render(wait=False)
        assert viewer.report.level > 0
        assert viewer.report.vram_bytes <= MEGABYTE
        np.testing.assert_array_equal(viewer.render(), expected)
        assert viewer.report.complete
        assert viewer.report.level == 0
        assert viewer.report.vram_bytes <= MEGABYTE
        assert viewer.report.ram_bytes <= MEGABYTE


def test_a_view_that_fits_on_no_layer_still_shows_what_fits():
    """More tiles than the card's budget holds, on the coarsest layer too: never an endless wait, never an error."""
    tiling = Tiling.of((256, 256), factors=(1,), tile_shape=(256, 256))  # no zoom layer to go to
    slide = SyntheticSlide((5, 5), (256, 256), 1, tiling=tiling)
    with OffscreenViewer(slide, size=SIZE, **TINY) as viewer:
        started = time.monotonic()
        image = viewer.render()
        assert time.monotonic() - started < 20
        assert image[..., :3].any()


# failures


def test_a_failed_tile_is_named_and_replaced_by_a_coarser_one():
    slide = mosaic((1, 1), 1)
    broken = FailingSlide(slide, lambda key: key[0] == 0 and len(key) == 5)  # level 0 of tiles; field 0 of planes
    with OffscreenViewer(broken, size=SIZE) as viewer:
        viewer.look_at(*slide.positions()[0], scale=1.0)
        image = viewer.render()
        assert viewer.report.complete
        assert viewer.report.tiles_failed > 0
        assert len(viewer.failures()) > 0
        assert "on purpose" in viewer.failures()[0]
    with OffscreenViewer(slide, size=SIZE) as viewer:
        viewer.look_at(*slide.positions()[0], scale=1.0)
        assert (viewer.render() != image).any()
    assert image[..., :3].any()


class Mending(WrappedSlide):
    """A slide on a drive that is away for a while."""

    away = True

    def _before(self, key) -> None:  # noqa: ARG002
        if self.away:
            raise OSError("the drive is away")


def test_what_failed_for_a_while_is_read_once_it_can_be():
    slide = mosaic((2, 2))
    with OffscreenViewer(slide, size=SIZE) as viewer:
        expected = viewer.render()
    mending = Mending(slide)
    with OffscreenViewer(mending, size=SIZE) as viewer:
        assert (viewer.render() != expected).any()
        assert viewer.report.tiles_failed > 0
        assert viewer.failures() == ["the drive is away"]
        mending.away = False
        end = time.monotonic() + 10
        while viewer.report.tiles_failed:
            assert time.monotonic() < end, "the tiles are never read again"
            time.sleep(0.05)
            image = viewer.render()
        np.testing.assert_array_equal(image, expected)


def test_a_slide_of_which_nothing_can_be_read_gives_a_picture_soon():
    with OffscreenViewer(FailingSlide(mosaic(), 1.1), size=SIZE) as viewer:
        started = time.monotonic()
        viewer.render()
        assert time.monotonic() - started < 10
        assert viewer.report.tiles_failed > 0
        assert isinstance(viewer.failures(), list)


# the walk


STEP = st.tuples(
    st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)),  # part of the mosaic from its middle
    st.sampled_from([0.02, 0.05, 0.11, 0.25, 0.4, 0.7, 1.0, 1.0, 2.6]),  # scale
    st.integers(0, 2),  # frames that do not wait
    st.sampled_from(["top", "top", "nearest", "feather", "max"]),
    st.sampled_from([(True, True), (True, True), (True, False), (False, True)]),
    st.booleans(),  # whether the picture is waited for on the way
)
SLIDES = {
    "plain": lambda seed: mosaic(seed=seed),
    "sparse": lambda seed: mosaic(sparse=0.3, seed=seed),
    "turned": lambda seed: mosaic(orientation=np.array([[0.97, -0.12], [0.05, -1.03]]), seed=seed),
    "one channel per field": lambda seed: mosaic(one_channel_per_field=True, seed=seed),
    "offsets": lambda seed: mosaic(channel_offset_px=9, plane_offset_px=3, seed=seed),
    "blocks": lambda seed: SyntheticSlide((2, 1), (500, 400), 2, tiling=Tiling.of((500, 400), tile_shape=(128, 128)), seed=seed),
}


MEMORY = {
    "mapped": {"MOST_NBYTES": 1 << 29},
    "ordinary": {"MOST_NBYTES": 0},
    "both": {"MOST_NBYTES": 1 << 18, "SLAB_NBYTES": 1 << 18},
}
"""Where tiles lie before they are uploaded: in memory that the driver reaches, or not, or a part of them."""


def troubled(slide: Slide, trouble: str, seed: int) -> Slide:
    """The slide on slow storage, or with unreadable tiles."""
    if trouble == "slow":
        return SlowSlide(slide, 0.001)
    return FailingSlide(slide, 0.25, seed) if trouble == "failing" else slide


def set_view(viewer: OffscreenViewer, step: tuple) -> None:
    """Look where a step says."""
    (part_x, part_y), scale, _, overlap, visible, _ = step
    left, top, right, bottom = viewer.engine.geometry.bounds_um
    viewer.look_at((left + right) / 2 + part_x * (right - left), (top + bottom) / 2 + part_y * (bottom - top), scale)
    viewer.overlap = overlap
    for look, shown in zip(viewer.channels, visible, strict=True):
        look.visible = shown


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    st.sampled_from(sorted(SLIDES)),
    st.sampled_from(["", "slow", "failing", "failing"]),
    st.lists(STEP, min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(sorted(MEMORY)),
)
def test_after_any_walk_the_picture_is_that_of_a_new_viewer(
    kind: str, trouble: str, walk: list[tuple], threads: int, seed: int, memory: str
):
    slide = troubled(SLIDES[kind](seed), trouble, seed)
    with (
        patch.multiple("rawmosaic.viewer.staging", is_software_driver=lambda: False, **MEMORY[memory]),
        OffscreenViewer(slide, size=SIZE, threads=threads, **TINY) as viewer,
    ):
        for step in walk:
            set_view(viewer, step)
            for _ in range(step[2]):
                viewer.render(wait=False)
            if step[-1]:
                viewer.render()
        walked, failures = viewer.render(), viewer.report.tiles_failed
        assert viewer.report.complete
    with OffscreenViewer(slide, size=SIZE, **TINY) as fresh:
        set_view(fresh, walk[-1])
        expected = fresh.render()
        assert fresh.report.tiles_failed == failures
    np.testing.assert_array_equal(walked, expected)


def test_frames_that_do_not_wait_end_in_the_complete_picture():
    slide = SlowSlide(blocks(), 0.002)
    with OffscreenViewer(slide, size=SIZE) as viewer:
        viewer.look_at(*slide.positions().mean(axis=0), scale=0.8)
        expected = viewer.render()
    with OffscreenViewer(slide, size=SIZE, **TINY) as viewer:
        viewer.look_at(*slide.positions().mean(axis=0), scale=0.8)
        end = time.monotonic() + 10
        image = viewer.render(wait=False)
        while not viewer.report.complete or viewer.report.tiles_uploaded:
            assert time.monotonic() < end
            image = viewer.render(wait=False)
            time.sleep(0.002)
        np.testing.assert_array_equal(image, expected)
