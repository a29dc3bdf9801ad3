"""Several tiles at once, tiles as they lie in the file, and what names their content."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from contract import expected_tile, tile_keys

from rawmosaic.storage import SlideError, SlideWriter, codec
from rawmosaic.storage.errors import DamagedSlideError, NoLongerWantedError
from rawmosaic.storage.hdf5.overview import add_overview
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide


@pytest.fixture(scope="module")
def truth() -> SyntheticSlide:
    return SyntheticSlide((2, 3), (300, 520), 2, sparse=0.2, seed=12)


@pytest.fixture(scope="module")
def path(truth: SyntheticSlide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(truth, tmp_path_factory.mktemp("tiles") / "slide.h5")


@pytest.fixture(scope="module")
def without_index(path: Path) -> Path:
    """The same, as another HDF5 tool leaves it."""
    copy = path.with_name("copy.h5")
    with h5py.File(path) as source, h5py.File(copy, "w") as target:
        target["padding"] = np.zeros(1000)
        target.attrs.update(source.attrs)
        for name in source:
            source.copy(name, target)
    return copy


def empty_tiles(slide: Slide, n: int) -> list[np.ndarray]:
    return [np.full(slide.tiling.tile_shape, 0xABCD, np.uint16) for _ in range(n)]


# several at once


@pytest.mark.parametrize("order", ["as they lie", "any", "with repetition"])
@pytest.mark.parametrize("file", ["path", "without_index"])
def test_tiles_read_together_are_those_read_one_by_one(
    file: str, order: str, truth: SyntheticSlide, request: pytest.FixtureRequest
):
    with Hdf5Slide(request.getfixturevalue(file)) as slide:
        keys = list(tile_keys(slide))
        if order != "as they lie":
            choose = np.random.default_rng(0).choice(len(keys), len(keys), replace=order == "with repetition")
            keys = [keys[number] for number in choose]
        for first in range(0, len(keys), 9):
            some = keys[first : first + 9]
            outs = empty_tiles(slide, len(some))
            assert slide.read_tiles(some, outs) == [None] * len(some)
            for key, out in zip(some, outs, strict=True):
                np.testing.assert_array_equal(out, expected_tile(slide, truth, key), err_msg=str(key))


def test_tiles_that_lie_together_are_read_at_once(path: Path, monkeypatch: pytest.MonkeyPatch):
    with Hdf5Slide(path) as slide:
        field, channel = np.argwhere(slide.acquired())[0].tolist()
        per_field = slide.tiling.levels[0].tiles_per_field
        keys = [TileKey(0, field * per_field + number, channel) for number in range(per_field)]
        outs = empty_tiles(slide, per_field)
        slide.read_tiles(keys, outs)  # the chunk index is read now
        reads = []
        read = slide._opened.bytes.read
        monkeypatch.setattr(slide._opened.bytes, "read", lambda *place: reads.append(place) or read(*place))
        slide.read_tiles(keys, outs)
        assert per_field > 1
        assert len(reads) == 1


def test_tile_that_is_no_longer_wanted_is_left_alone(path: Path, truth: SyntheticSlide):
    with Hdf5Slide(path) as slide:
        keys = list(tile_keys(slide))[:7]
        outs = empty_tiles(slide, 7)
        asked = []
        outcomes = slide.read_tiles(keys, outs, lambda number: asked.append(number) or number not in (1, 4))
        assert sorted(asked) == list(range(7)), "asked once for each"
        for number, (key, out, outcome) in enumerate(zip(keys, outs, outcomes, strict=True)):
            if number in (1, 4):
                assert isinstance(outcome, NoLongerWantedError)
                assert (out == 0xABCD).all()
            else:
                assert outcome is None
                np.testing.assert_array_equal(out, expected_tile(slide, truth, key))


def test_tile_that_is_damaged_spares_its_neighbours(path: Path, truth: SyntheticSlide, tmp_path: Path):
    spoilt = Path(shutil.copy(path, tmp_path / "slide.h5"))
    field, channel = np.argwhere(truth.acquired())[0].tolist()
    with Hdf5Slide(spoilt) as slide:
        per_field = slide.tiling.levels[0].tiles_per_field
        keys = [TileKey(0, field * per_field + number, channel) for number in range(per_field)]
        offset, _ = slide._address(slide._opened, keys[1])
    with open(spoilt, "rb+") as file:
        file.seek(offset)
        file.write(b"\xff" * 16)
    with Hdf5Slide(spoilt) as slide:
        outs = empty_tiles(slide, per_field)
        outcomes = slide.read_tiles(keys, outs)
        assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [1]
        assert isinstance(outcomes[1], DamagedSlideError)
        np.testing.assert_array_equal(outs[0], expected_tile(slide, truth, keys[0]))


def test_tiles_beyond_the_end_of_the_file_are_told_one_by_one(path: Path, truth: SyntheticSlide, tmp_path: Path):
    short = Path(shutil.copy(path, tmp_path / "slide.h5"))
    with Hdf5Slide(short) as slide:
        keys = [key for key in tile_keys(slide) if key.level == 0 and slide._address(slide._opened, key)[1]]
        end = max(sum(slide._address(slide._opened, key)) for key in keys)
        last = next(key for key in keys if sum(slide._address(slide._opened, key)) == end)
        near = keys.index(last)
        some = keys[near - 1 : near + 1]
        outs = empty_tiles(slide, 2)
        read = slide._opened.bytes.read

        def read_short(offset: int, size: int) -> bytes:
            if offset + size > end - 1:
                raise DamagedSlideError("the file ends before", location=slide.location)
            return read(offset, size)

        slide._opened.bytes.read = read_short
        outcomes = slide.read_tiles(some, outs)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], DamagedSlideError)
        np.testing.assert_array_equal(outs[0], expected_tile(slide, truth, some[0]))


def test_closed_slide_says_so_for_each_tile(path: Path):
    slide = Hdf5Slide(path)
    slide.close()
    outcomes = slide.read_tiles([TileKey(0, 0, 0), TileKey(0, 1, 0)], empty_tiles(slide, 2))
    assert all(isinstance(outcome, SlideError) and "closed" in str(outcome) for outcome in outcomes)


# as they lie in the file


@pytest.mark.parametrize("file", ["path", "without_index"])
def test_encoded_tile_decodes_to_the_tile(file: str, truth: SyntheticSlide, request: pytest.FixtureRequest):
    with Hdf5Slide(request.getfixturevalue(file)) as slide:
        kinds = set()
        for key in tile_keys(slide):
            encoded, expected = slide.read_encoded(key), expected_tile(slide, truth, key)
            kinds.add(encoded is None)
            if encoded is None:
                assert not expected.any(), key
            else:
                np.testing.assert_array_equal(codec.decoded(encoded, slide.tiling.tile_shape), expected, err_msg=str(key))
        assert kinds == {True, False}


def test_encoded_tile_is_the_chunk_in_the_file(path: Path):
    with Hdf5Slide(path) as slide, h5py.File(path) as file:
        field, channel = np.argwhere(slide.acquired())[0].tolist()
        key = TileKey(0, field * slide.tiling.levels[0].tiles_per_field, channel)
        mask, chunk = file["levels/0"].id.read_direct_chunk((field, channel, 0, 0, 0, 0))
        assert (mask, chunk) == (0, slide.read_encoded(key))


def test_encoded_tile_of_a_closed_slide_or_a_level_that_is_not_there_raises(truth: SyntheticSlide, tmp_path: Path):
    slide = Hdf5Slide(write_slide(truth, tmp_path / "layers.h5", store_full_resolution=False))
    with pytest.raises(DamagedSlideError, match="level 0"):
        slide.read_encoded(TileKey(0, 0, 0))
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read_encoded(TileKey(1, 0, 0))


# what names the content


def identity(path: Path, group: str = "/") -> str:
    with Hdf5Slide(path, group) as slide:
        return slide.identity


def test_copies_have_one_identity(path: Path, without_index: Path, tmp_path: Path):
    copy = Path(shutil.copy(path, tmp_path / "elsewhere.h5"))
    assert identity(path) == identity(copy) == identity(without_index)
    assert len(identity(path)) == 32
    assert int(identity(path), 16) > 0


def test_slides_written_apart_differ(truth: SyntheticSlide, path: Path, tmp_path: Path):
    assert identity(write_slide(truth, tmp_path / "again.h5")) != identity(path)


def test_another_pixel_makes_another_identity_even_without_uuid(tmp_path: Path):
    identities = {}
    for name, pixel in (("one", 7), ("two", 8), ("one again", 7)):
        file = tmp_path / f"{name}.h5"
        with SlideWriter(file, field_shape=(24, 24), channels=["a"]) as writer:
            image = np.zeros((24, 24), np.uint16)
            image[3, 5] = pixel
            writer.write_plane(image, 0, x_um=0, y_um=0)
        with h5py.File(file, "r+") as opened:
            del opened.attrs["uuid"]
        identities[name] = identity(file)
    assert identities["one"] == identities["one again"]
    assert identities["one"] != identities["two"]


def test_overview_has_an_identity_of_its_own(path: Path, tmp_path: Path):
    copy = Path(shutil.copy(path, tmp_path / "slide.h5"))
    add_overview(copy)
    assert identity(copy) == identity(path)
    assert identity(copy, "overview") != identity(copy)
    with h5py.File(copy, "r+") as file:
        file["overview"].attrs["uuid"] = file.attrs["uuid"]
    assert identity(copy, "overview") != identity(copy)
