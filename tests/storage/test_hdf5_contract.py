"""The virtual slide file keeps the contract, whatever was written into it and in whatever order."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from contract import KINDS, SlideContract, acquired_planes, tile_keys

from rawmosaic.storage import open_slide
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide

Written = tuple[SyntheticSlide, Path]


@pytest.fixture(scope="module", params=[*((kind, "lz4") for kind in KINDS), ("dense", "zstd")], ids=": ".join)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A truth and the file made of it."""
    kind, codec = request.param
    truth = KINDS[kind]()
    return truth, write_slide(truth, tmp_path_factory.mktemp("written") / "slide.h5", codec=codec)


@pytest.fixture(scope="module", params=["sparse", "field sizes", "many tiles, sizes"])
def copied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A truth and a file that another HDF5 tool copied, whereby every chunk moved."""
    truth = KINDS[request.param]()
    folder = tmp_path_factory.mktemp("copied")
    original, copy = write_slide(truth, folder / "slide.h5"), folder / "copy.h5"
    with h5py.File(original) as source, h5py.File(copy, "w") as target:
        target["padding"] = np.zeros(1000)
        target.attrs.update(source.attrs)
        for name in source:
            source.copy(name, target)
    return truth, copy


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A truth and a file whose planes were written in the order of the fields."""
    truth = KINDS["placed"]()
    return truth, write_slide(truth, tmp_path_factory.mktemp("ordered") / "slide.h5", seed=None)


class TestHdf5Slide(SlideContract):
    @pytest.fixture
    def truth(self, written: Written) -> SyntheticSlide:
        return written[0]

    @pytest.fixture
    def slide(self, written: Written) -> Iterator[Slide]:
        with Hdf5Slide(written[1]) as slide:
            yield slide


class TestCopiedFile(SlideContract):
    """The chunk index no longer holds where chunks were moved: the slide is read all the same."""

    @pytest.fixture
    def truth(self, copied: Written) -> SyntheticSlide:
        return copied[0]

    @pytest.fixture
    def slide(self, copied: Written) -> Iterator[Slide]:
        with Hdf5Slide(copied[1]) as slide:
            yield slide


class TestOpenSlide(SlideContract):
    """`open_slide` gives the same."""

    @pytest.fixture
    def truth(self, ordered: Written) -> SyntheticSlide:
        return ordered[0]

    @pytest.fixture
    def slide(self, ordered: Written) -> Iterator[Slide]:
        with open_slide(ordered[1]) as slide:
            yield slide


def test_intact_file_verifies(written: Written):
    calls = []
    assert verify_slide(written[1], lambda done, total: calls.append((done, total))) == []
    n = len(list(acquired_planes(written[0])))
    assert calls == [(done, n) for done in range(1, n + 1)]


def test_checksums_and_field_histograms_are_stored(written: Written):
    truth, path = written
    counts = np.zeros((truth.n_fields, len(truth.channels), 65536), np.int64)
    with Hdf5Slide(path) as slide:
        assert slide.finished
        for field, channel, z, t in acquired_planes(truth):
            plane = truth.read_plane(field, channel, z, t)
            assert slide.checksum(field, channel, z, t) == zlib.crc32(plane.astype("<u2").tobytes())
            counts[field, channel] += np.bincount(plane.ravel(), minlength=65536)
        for field, channel in np.ndindex(counts.shape[:2]):
            np.testing.assert_array_equal(slide.field_histogram(field, channel), counts[field, channel])


def test_order_of_writing_does_not_matter(tmp_path: Path):
    truth = KINDS["sparse"]()
    paths = [write_slide(truth, tmp_path / f"{seed}.h5", seed=seed) for seed in (None, 1, 2)]
    slides = [Hdf5Slide(path) for path in paths]
    for key in tile_keys(slides[0]):
        tiles = [slide.read_tile(key) for slide in slides]
        np.testing.assert_array_equal(tiles[0], tiles[1])
        np.testing.assert_array_equal(tiles[0], tiles[2])
    for slide in slides:
        slide.close()
