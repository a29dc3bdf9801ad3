"""Synthetic, slow, failing and growing slides keep the contract, and the helpers of the contract do what they say."""

from __future__ import annotations

import time

import numpy as np
import pytest
from contract import KINDS, SlideContract, acquired_planes, expected_tile, tile_keys

from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import new_fields, spatial_slots
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SlowSlide, SyntheticSlide, specimen


@pytest.fixture(params=KINDS)
def truth(request: pytest.FixtureRequest) -> SyntheticSlide:
    return KINDS[request.param]()


class TestSyntheticSlide(SlideContract):
    @pytest.fixture
    def slide(self, truth: SyntheticSlide) -> SyntheticSlide:
        return truth


class TestSlowSlide(SlideContract):
    @pytest.fixture
    def truth(self) -> SyntheticSlide:
        return KINDS["z and t"]()

    @pytest.fixture
    def slide(self, truth: SyntheticSlide) -> SlowSlide:
        return SlowSlide(truth, 0.0)


class TestSoundFailingSlide(SlideContract):
    """A failing slide that never fails is any slide."""

    @pytest.fixture
    def truth(self) -> SyntheticSlide:
        return KINDS["placed"]()

    @pytest.fixture
    def slide(self, truth: SyntheticSlide) -> FailingSlide:
        return FailingSlide(truth, 0.0)


class TestGrownSlide(SlideContract):
    """A growing slide that has grown to the end is any slide."""

    @pytest.fixture
    def truth(self) -> SyntheticSlide:
        return KINDS["placed"]()

    @pytest.fixture(params=[False, True], ids=["fields come", "fields known"])
    def slide(self, truth: SyntheticSlide, request: pytest.FixtureRequest) -> GrowingSlide:
        return GrowingSlide(truth, 1_000_000, fields_known=request.param)


@pytest.mark.parametrize("fields_known", [False, True])
@pytest.mark.parametrize("kind", ["sparse", "z and t"])
def test_growing_slide_shows_what_it_took_in(kind: str, fields_known: bool):
    truth = KINDS[kind]()
    slide = GrowingSlide(truth, 2, fields_known=fields_known)
    everything = sorted(acquired_planes(truth))
    seen = set(acquired_planes(slide))
    assert len(seen) == 2
    identities = {slide.identity}
    while slide.growing:
        assert len(slide.refresh()) == 0
        came = slide.grow(5)
        assert set(acquired_planes(slide)) == seen, "nothing shows before refresh"
        new = [tuple(plane) for plane in slide.refresh().tolist()]
        assert len(new) == came
        assert seen.isdisjoint(new)
        seen.update(new)
        assert set(acquired_planes(slide)) == seen
        assert slide.n_fields == (truth.n_fields if fields_known else max(field for field, *_ in seen) + 1)
        assert slide.positions().shape == (slide.n_fields, 2)
        np.testing.assert_array_equal(np.sort(slide.fields["slot"]), np.arange(slide.n_fields))
        for key in list(tile_keys(slide))[-4:]:
            np.testing.assert_array_equal(slide.read_tile(key), expected_tile(slide, slide, key))
        identities.add(slide.identity)
    assert sorted(seen) == everything
    assert len(identities) == -(-(len(everything) - 2) // 5) + 1
    np.testing.assert_array_equal(slide.histogram(1), truth.histogram(1))
    assert slide.grow() == 0


def test_slow_slide_takes_its_time():
    with SlowSlide(KINDS["dense"](), 0.02) as slide:
        for read in (
            lambda: slide.read_plane(0, 0),
            lambda: slide.read_plane(0, 0, level=1),
            lambda: slide.read_tile(TileKey(0, 0, 0)),
        ):
            start = time.perf_counter()
            read()
            assert time.perf_counter() - start >= 0.02


def test_failing_slide_fails_always_at_the_same_places():
    slide = FailingSlide(SyntheticSlide((10, 20), (8, 8), 2), 0.25, seed=3)

    def failures() -> list[tuple[int, int]]:
        found = []
        for field, channel, _, _ in acquired_planes(slide):
            try:
                slide.read_plane(field, channel)
            except DamagedSlideError:
                found.append((field, channel))
        return found

    first = failures()
    assert 60 <= len(first) <= 140
    assert failures() == first


def test_failing_slide_fails_where_it_is_told():
    slide = FailingSlide(KINDS["dense"](), lambda key: isinstance(key, TileKey) and key.channel == 1)
    slide.read_tile(TileKey(0, 0, 0))
    slide.read_plane(0, 1)
    with pytest.raises(DamagedSlideError):
        slide.read_tile(TileKey(0, 0, 1))


def test_hundred_thousand_fields_are_made_at_once():
    start = time.perf_counter()
    slide = SyntheticSlide((250, 400), (1040, 1392), 4, sparse=0.1, plane_offset_px=2, extra_sets=("registered",))
    assert slide.n_fields == 100_000
    assert 0.89 < slide.acquired().mean() < 0.91
    assert slide.histogram(3).sum() > 0
    slide.read_plane(99_998, 2)
    assert time.perf_counter() - start < 2.0


def test_every_plane_has_pixels_of_its_own():
    slide = SyntheticSlide((12, 12), (16, 16), 3, size_z=2, size_t=2)
    planes = [slide.read_plane(*key) for key in acquired_planes(slide)]
    assert len({plane.tobytes() for plane in planes}) == 144 * 3 * 4
    assert len({plane.mean() for plane in planes}) > 0.95 * len(planes)


def test_smooth_fields_are_cut_from_one_specimen():
    slide = SyntheticSlide(
        (2, 3),
        (40, 60),
        2,
        smooth=True,
        overlap=0.3,
        plane_offset_px=5,
        channel_offset_px=4,
        orientation=[[0.9, 0.1], [-0.2, -1.1]],
    )
    placement = slide.placement()
    y, x = np.mgrid[:40, :60] + 0.5
    for field, channel, z, t in acquired_planes(slide):
        places = (np.stack([x - 30, y - 20], axis=-1) @ placement.matrix_um.T + placement.centres_um(channel)[field]) / 0.5
        expected = specimen(places[..., 0], places[..., 1], channel, z, t)
        assert abs(expected - slide.read_plane(field, channel, z, t)).max() <= 0.5 + 1e-6


def test_new_fields_know_nothing_but_their_shape():
    fields = new_fields(3, (20, 30))
    assert (fields["row"] == -1).all()
    assert (fields["scene"] == -1).all()
    assert fields["slot"].tolist() == [0, 1, 2]
    assert set(zip(fields["height"].tolist(), fields["width"].tolist(), strict=True)) == {(20, 30)}


def test_slots_keep_neighbours_together():
    row, column = np.divmod(np.arange(64 * 64), 64)
    positions = np.stack([column * 100.0, row * 90.0], axis=-1)
    slots = spatial_slots(positions)
    assert sorted(slots.tolist()) == list(range(64 * 64))
    order = np.argsort(slots)
    packed = positions[order].reshape(-1, 64, 2)  # 64 fields a tile
    extent = (packed.max(axis=1) - packed.min(axis=1)).max(axis=-1)
    assert np.median(extent) <= 1600  # of 6300: a tile covers a patch, not a stripe


@pytest.mark.parametrize(
    "positions", [np.zeros((0, 2)), np.zeros((1, 2)), np.full((5, 2), 7.5)], ids=["none", "one", "one place"]
)
def test_slots_of_degenerate_mosaics(positions: np.ndarray):
    assert sorted(spatial_slots(positions).tolist()) == list(range(len(positions)))
