"""Viewing in place: the same pixels before, while and after the zoom layers are made, and the second opening is instant."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from acquisitions import csv_folder, cut, raw_of
from contract import KINDS, SlideContract, acquired_planes, tile_keys

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.importers import zoom_cache
from rawmosaic.storage.importers.acquisition import RawAcquisition
from rawmosaic.storage.importers.zoom_cache import SUFFIX, ZoomCachedSlide, cache_folder, shrink, tidy
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.testing import SyntheticSlide

BEFORE = ["sparse", "z and t", "many tiles, sizes", "placed"]
AFTER = ["field sizes", "z and t", "one tiny field"]
AGAIN = ["many tiles, sizes", "a colour a field"]
"""Enough kinds for each state of the cache; every kind goes through the raw acquisition's own contract."""


class HeldAcquisition:
    """A raw acquisition whose background thread waits until `go` is set."""

    def __init__(self, raw: RawAcquisition):
        self.raw, self.go = raw, threading.Event()

    def __getattr__(self, name: str):
        return getattr(self.raw, name)

    def load(self, *address: int) -> np.ndarray:
        if threading.current_thread().name.startswith("read-ahead"):
            self.go.wait(20)
        return self.raw.load(*address)


@pytest.fixture
def held(tmp_path: Path):
    """Makes a slide in place that is not complete until its `source.go` is set."""
    made = []

    def make(truth: SyntheticSlide) -> ZoomCachedSlide:
        made.append(ZoomCachedSlide(HeldAcquisition(raw_of(truth, tmp_path))))
        return made[-1]

    yield make
    for slide in made:
        slide.source.go.set()
        slide.close()


class TestBeforeComplete(SlideContract):
    @pytest.fixture(params=BEFORE)
    def truth(self, request: pytest.FixtureRequest) -> SyntheticSlide:
        return KINDS[request.param]()

    @pytest.fixture
    def slide(self, truth: SyntheticSlide, held):
        slide = held(truth)
        yield slide
        slide.source.go.set()

    test_closed_twice_is_harmless = None  # closing waits for the thread that is held here
    test_context_manager_gives_the_slide_and_closes_it = None

    def test_histogram_counts_the_acquired_pixels(self, slide: ZoomCachedSlide, truth: SyntheticSlide):
        """Of at least a few planes of the channel, each once."""
        for channel in range(len(truth.channels)):
            planes = [truth.read_plane(*key) for key in acquired_planes(truth) if key[1] == channel]
            sizes = sorted(plane.size for plane in planes)
            total = int(slide.histogram(channel).sum())
            assert sum(sizes[:8]) <= total <= sum(sizes)
            assert int(slide.histogram(channel).sum()) == total


class TestComplete(SlideContract):
    @pytest.fixture(params=AFTER)
    def truth(self, request: pytest.FixtureRequest) -> SyntheticSlide:
        return KINDS[request.param]()

    @pytest.fixture
    def slide(self, truth: SyntheticSlide, tmp_path: Path):
        with ZoomCachedSlide(raw_of(truth, tmp_path)) as slide:
            assert slide.wait()
            yield slide


class TestSecondOpening(SlideContract):
    @pytest.fixture(params=AGAIN)
    def truth(self, request: pytest.FixtureRequest) -> SyntheticSlide:
        return KINDS[request.param]()

    @pytest.fixture
    def slide(self, truth: SyntheticSlide, tmp_path: Path):
        with ZoomCachedSlide(raw_of(truth, tmp_path)) as first:
            assert first.wait()
        with ZoomCachedSlide(raw_of(truth, tmp_path)) as slide:
            assert slide.complete
            yield slide


def scan(folder: Path, n: int = 6) -> Path:
    images = {f"{k}.tif": cut((50 * k, 0), (100, 120)) for k in range(n)}
    return csv_folder(folder, "file,x_um,y_um", [f"{k}.tif,{25 * k},0" for k in range(n)], images)


def kept(folder: Path | None = None) -> list[Path]:
    return sorted((folder or cache_folder()).glob("*"))


def test_second_opening_reads_no_source_file_above_level_zero(tmp_path: Path):
    folder = scan(tmp_path / "scan")
    with open_slide(folder) as slide:
        assert slide.wait()
        expected = {key: slide.read_tile(key) for key in tile_keys(slide) if key.level}
        histogram = slide.histogram(0)
    with open_slide(folder) as slide:
        assert slide.complete
        assert slide.progress == (6, 6)
        for path in folder.glob("*.tif"):
            path.unlink()
        for key, tile in expected.items():
            np.testing.assert_array_equal(slide.read_tile(key), tile)
        np.testing.assert_array_equal(slide.histogram(0), histogram)


def test_cache_holds_no_full_resolution(tmp_path: Path):
    with open_slide(scan(tmp_path / "scan")) as slide:
        slide.wait()
        assert not slide._cached.stores_full_resolution
    assert [path.name.endswith(SUFFIX) for path in kept()] == [True]


def test_changed_file_makes_a_new_cache(tmp_path: Path):
    folder = scan(tmp_path / "scan")
    with open_slide(folder) as slide:
        slide.wait()
    tifffile.imwrite(folder / "2.tif", cut((7, 7), (100, 120)))
    os.utime(folder / "2.tif", ns=(1, 1))
    with open_slide(folder) as slide:
        assert not slide.complete or len(kept()) == 2
        slide.wait()
        expected = np.bincount(np.stack([tifffile.imread(path) for path in folder.glob("*.tif")]).ravel(), minlength=65536)
        np.testing.assert_array_equal(slide.histogram(0), expected)
    assert len(kept()) == 2


def test_options_that_do_not_touch_pixels_share_the_cache(tmp_path: Path):
    folder = scan(tmp_path / "scan")
    with open_slide(folder) as slide:
        slide.wait()
    with open_slide(folder, orientation="flip-x", pixel_size_um=3) as slide:
        assert slide.complete


def test_scaling_makes_a_cache_of_its_own(tmp_path: Path):
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um", ["a.tif,0,0"], {"a.tif": np.ones((32, 32), np.float32)})
    for scale in ((0, 1), (0, 2)):
        with open_slide(folder, scale_float=scale) as slide:
            slide.wait()
            assert (slide.read_plane(0, 0, level=1) == (65535 if scale[1] == 1 else 32768)).all()
    assert len(kept()) == 2


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_cache_is_made_again(tmp_path: Path, damage: str):
    folder = scan(tmp_path / "scan")
    with open_slide(folder) as slide:
        slide.wait()
        expected = slide.read_plane(0, 0, level=2)
    (path,) = kept()
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"not HDF5 at all", "empty": b""}[damage])
    with open_slide(folder) as slide:
        assert slide.wait()
        np.testing.assert_array_equal(slide.read_plane(0, 0, level=2), expected)
    with open_slide(folder) as slide:
        assert slide.complete


def test_flipped_byte_in_the_cache_does_not_reach_the_picture_twice(tmp_path: Path):
    folder = scan(tmp_path / "scan")
    with open_slide(folder) as slide:
        slide.wait()
        expected = slide.read_tile(TileKey(1, 0, 0))
        offset, size = slide._cached._opened.index[1].find(0)
    (path,) = kept()
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    with open_slide(folder) as slide:
        assert slide.complete
        np.testing.assert_array_equal(slide.read_tile(TileKey(1, 0, 0)), expected)
        np.testing.assert_array_equal(slide.read_plane(0, 0, level=1), expected[:50, :60])
    assert kept() == []


def test_folder_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("RAWMOSAIC_CACHE", str(tmp_path / "a file"))
    with open_slide(scan(tmp_path / "scan")) as slide:
        assert slide.wait() is False
        assert "a file" in str(slide.build_error)
        assert slide.read_plane(0, 0, level=3).size
        assert slide.histogram(0).sum()


def test_full_disk_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.storage.hdf5.writer import SlideWriter

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SlideWriter, "write_plane", full)
    with open_slide(scan(tmp_path / "scan")) as slide:
        assert slide.wait() is False
        assert "No space left" in str(slide.build_error)
        assert slide.read_plane(5, 0, level=1).size
    assert kept() == []


def test_closing_early_stops_the_thread_and_leaves_nothing(held):
    slide = held(KINDS["dense"]())
    while not list(cache_folder().glob("*.part")):
        time.sleep(0.005)
    threading.Timer(0.05, slide.source.go.set).start()
    slide.close()
    assert not slide.complete
    assert kept() == []


def test_progress_is_told(held):
    slide = held(KINDS["dense"]())
    seen = []
    assert slide.progress == (0, 24)
    assert slide.wait(timeout_s=0.05) is False
    slide.source.go.set()
    assert slide.wait(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (24, 24)
    assert seen == sorted(seen)


def test_damaged_source_file_hides_only_itself(tmp_path: Path):
    folder = scan(tmp_path / "scan")
    with open_slide(folder) as slide:
        slide.wait()
        packed = len(slide.levels) - 1
        expected = slide.read_tile(TileKey(packed, 0, 0))
    whole = (folder / "3.tif").read_bytes()
    (folder / "3.tif").write_bytes(whole[: len(whole) // 2])
    for wait in (False, True):
        with open_slide(folder) as slide:
            if wait:
                assert slide.wait()
            tile = slide.read_tile(TileKey(packed, 0, 0))
            row, column = slide.tiling.levels[packed].slot_origin(int(slide.fields["slot"][3]))
            plane = slide.tiling.levels[packed].plane_shape
            hole = np.s_[row : row + plane[0], column : column + plane[1]]
            assert (tile[hole] == 0).all()
            assert expected[hole].all()
            tile[hole] = expected[hole]
            np.testing.assert_array_equal(tile, expected)
            for level in (0, 1):
                with pytest.raises(DamagedSlideError, match=r"3.tif.*truncated"):
                    slide.read_plane(3, 0, level=level)
    assert len(kept()) == 1  # layers with a hole are not kept for the next time: the file may be mended by then


def test_oldest_files_go_when_the_folder_is_full(tmp_path: Path):
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / f"{name}{SUFFIX}"
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - age * 1000,) * 2)
    (tmp_path / "other.txt").write_bytes(bytes(1000))
    shrink(tmp_path, 150, spare=tmp_path / f"old{SUFFIX}")
    assert [path.name for path in kept(tmp_path)] == [f"old{SUFFIX}", "other.txt"]


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path):
    fresh, old = tmp_path / f"a{SUFFIX}.part", tmp_path / f"b{SUFFIX}.part"
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - zoom_cache.ABANDONED_S - 60,) * 2)
    tidy(tmp_path)
    assert kept(tmp_path) == [fresh]


def test_reduced_layers_are_remembered(held, monkeypatch: pytest.MonkeyPatch):
    slide = held(KINDS["many tiles"]())
    calls = []
    original = zoom_cache.reduce_plane
    monkeypatch.setattr(zoom_cache, "reduce_plane", lambda *given: calls.append(1) or original(*given))
    for level in range(1, len(slide.levels)):
        slide.read_plane(0, 0, level=level)
    assert len(calls) == 1
