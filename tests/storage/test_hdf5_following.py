"""A slide is looked at while it is being written: what is told is there, nothing is told twice, and nothing is disturbed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from contract import acquired_planes, area_mean, expected_tile, tile_keys

from rawmosaic.storage import SlideError, SlideWriter, codec, open_slide
from rawmosaic.storage.errors import NotASlideError, PlaneMissingError, WriteError
from rawmosaic.storage.hdf5 import growing_file, overview, writer
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.testing import SyntheticSlide, hashed_plane, write_slide

SHAPE = (40, 56)
TIMEOUT_S = 60.0


def plane(field: int, channel: int = 0, z: int = 0, t: int = 0) -> np.ndarray:
    return hashed_plane(SHAPE, field, channel, z, t)


def acquire(slide_writer: SlideWriter, fields: range, channels: int = 2) -> None:
    """Fields in a row, each in all channels."""
    for field in fields:
        for channel in range(channels):
            place = {"row": field // 20, "column": field % 20, "x_um": field % 20 * 50.0, "y_um": field // 20 * 36.0}
            slide_writer.write_plane(plane(field, channel), channel, **place)


def planes(new: np.ndarray) -> list[tuple[int, int, int, int]]:
    assert (new.dtype, new.ndim) == (np.int32, 2)
    return [tuple(key) for key in new.tolist()]


def assert_read_back(slide: Hdf5Slide, new: np.ndarray) -> None:
    """Every plane that is said to be there reads as it was acquired, on the finest and on the coarsest layer."""
    coarsest = len(slide.levels) - 1
    for field, channel, z, t in planes(new):
        acquired = plane(field, channel, z, t)
        np.testing.assert_array_equal(slide.read_plane(field, channel, z, t), acquired)
        np.testing.assert_array_equal(
            slide.read_plane(field, channel, z, t, coarsest), area_mean(acquired, slide.levels[coarsest])
        )


class Acquisition:
    """A writer in a process of its own, which does what it is told line by line."""

    SCRIPT = """
        import sys
        sys.path[:0] = sys.argv[2:]
        from rawmosaic.storage import SlideWriter
        from test_hdf5_following import SHAPE, acquire, plane
        writer = SlideWriter(sys.argv[1], field_shape=SHAPE, channels=["a", "b"])
        print("ready", flush=True)
        for line in sys.stdin:
            exec(line)
            print("done", flush=True)
    """

    def __init__(self, path: Path):
        here = Path(__file__).resolve().parent
        command = [sys.executable, "-c", textwrap.dedent(self.SCRIPT), str(path), str(here), str(here.parent)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=here.parent.parent)
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, line: str) -> None:
        """Returns at once."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> None:
        """Returns when it is done."""
        self.tell(line)
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        """Let it run out, or end it where it does not."""
        self.process.stdin.close()
        try:
            self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class OwnAcquisition:
    """The same in this process."""

    def __init__(self, path: Path):
        self.writer = SlideWriter(path, field_shape=SHAPE, channels=["a", "b"])

    def ask(self, line: str) -> None:
        exec(line, {"writer": self.writer, "acquire": acquire, "plane": plane})

    tell = ask

    def end(self) -> None:
        self.writer.abort()


@pytest.fixture(params=[Acquisition, OwnAcquisition], ids=["another process", "this process"])
def acquisition(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Acquisition | OwnAcquisition]:
    running = request.param(tmp_path / "scan.h5")
    yield running
    running.end()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Acquisition]:
    running = Acquisition(tmp_path / "scan.h5")
    yield running
    running.end()


# what a follower sees


def test_slide_is_opened_under_its_name_while_it_is_written(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(3)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide:
        assert slide.location == str(tmp_path / "scan.h5")
        assert slide.growing
        assert not slide.finished
        assert slide.n_fields == 3
        assert slide.acquired().all()
        assert slide.overview is None
        np.testing.assert_array_equal(slide.positions(), [(0, 0), (50, 0), (100, 0)])
        assert_read_back(slide, np.argwhere(np.ones((3, 2, 1, 1))).astype(np.int32))
    with open_slide(tmp_path / "scan.h5.part") as slide:
        assert slide.growing


def test_refresh_tells_what_came_and_only_that(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(2)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide:
        assert planes(slide.refresh()) == []
        acquisition.ask("acquire(writer, range(2, 7)); writer.publish()")
        assert slide.n_fields == 2
        assert slide.acquired().shape == (2, 2)
        before = slide.identity
        new = slide.refresh()
        assert planes(new) == [(field, channel, 0, 0) for field in range(2, 7) for channel in (0, 1)]
        assert slide.identity != before
        assert (slide.n_fields, slide.acquired().shape, slide.positions().shape) == (7, (7, 2), (7, 2))
        np.testing.assert_array_equal(np.sort(slide.field_of_slot), np.arange(7))
        assert_read_back(slide, new)
        assert planes(slide.refresh()) == []
        counts = sum(np.bincount(plane(field, 1).ravel(), minlength=65536) for field in range(7))
        np.testing.assert_array_equal(slide.histogram(1), counts)


def test_planes_are_published_without_being_asked(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(4))")
    with open_slide(tmp_path / "scan.h5") as slide:
        seen = len(acquired := list(acquired_planes(slide)))
        deadline = time.monotonic() + TIMEOUT_S
        while seen < 8 and time.monotonic() < deadline:
            seen += len(slide.refresh())
            time.sleep(0.02)
        assert seen == 8, acquired


def test_planes_of_one_field_may_come_apart(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("writer.write_plane(plane(0, 0), 0, row=0, column=0, x_um=5.0, y_um=7.0); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide:
        np.testing.assert_array_equal(slide.acquired(), [[True, False]])
        with pytest.raises(PlaneMissingError):
            slide.read_plane(0, 1)
        acquisition.ask("writer.write_plane(plane(0, 1), 1, row=0, column=0, x_um=6.0, y_um=9.5); writer.publish()")
        assert planes(slide.refresh()) == [(0, 1, 0, 0)]
        np.testing.assert_array_equal(slide.placement().centres_um(0), [[5.0, 7.0]])
        np.testing.assert_array_equal(slide.placement().centres_um(1), [[6.0, 9.5]])
        acquisition.ask("acquire(writer, range(1, 3)); writer.publish()")
        assert len(slide.refresh()) == 4
        np.testing.assert_array_equal(slide.placement().centres_um(1)[:2], [[6.0, 9.5], [50.0, 0.0]])


def test_tile_that_still_lacks_fields_holds_those_that_came(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(1)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide:
        coarsest = len(slide.levels) - 1
        key = TileKey(coarsest, 0, 1)
        for n in range(1, 5):
            encoded = slide.read_encoded(key)
            np.testing.assert_array_equal(codec.decoded(encoded, slide.tiling.tile_shape), slide.read_tile(key))
            for field in range(n):
                expected = area_mean(plane(field, 1), slide.levels[coarsest])
                np.testing.assert_array_equal(slide.read_plane(field, 1, level=coarsest), expected)
            acquisition.ask(f"acquire(writer, range({n}, {n + 1})); writer.publish()")
            assert len(slide.refresh()) == 2


# the end


def test_slide_that_was_finished_has_grown_up(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(5)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide, open_slide(tmp_path / "scan.h5") as other:
        acquisition.ask("acquire(writer, range(5, 9)); writer.close()")
        assert_read_back(slide, np.argwhere(np.ones((5, 2, 1, 1))).astype(np.int32))
        assert slide.growing
        assert len(slide.refresh()) == 8
        assert not slide.growing
        assert slide.finished
        assert planes(slide.refresh()) == []
        assert_read_back(slide, np.argwhere(np.ones((9, 2, 1, 1))).astype(np.int32))
        assert all(index is not None for index in slide._opened.index.values()), "tiles are found without HDF5 now"
        with open_slide(tmp_path / "scan.h5") as opened_later:
            assert not opened_later.growing
            assert opened_later.finished
            assert opened_later.identity == slide.identity
            for key in tile_keys(slide):
                np.testing.assert_array_equal(slide.read_tile(key), opened_later.read_tile(key))
        assert len(other.refresh()) == 8
        assert not other.growing
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan.h5"]
    assert verify_slide(tmp_path / "scan.h5") == []


def test_last_state_has_the_identity_of_the_finished_file(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(5)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide:
        before = slide.identity
        acquisition.ask("writer.close()")
        assert planes(slide.refresh()) == []
        assert not slide.growing
        assert slide.identity == before


def test_writer_that_gives_up_ends_the_growing(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(3)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide:
        acquisition.ask("writer.abort()")
        deadline = time.monotonic() + TIMEOUT_S
        while slide.growing and time.monotonic() < deadline:
            with contextlib.suppress(SlideError):  # in the process of the writer there is nothing left to read
                assert planes(slide.refresh()) == []
        assert not slide.growing
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are not killed here")
def test_killed_writer_leaves_what_it_published(elsewhere: Acquisition, tmp_path: Path):
    elsewhere.ask("acquire(writer, range(3)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as slide:
        elsewhere.process.send_signal(signal.SIGKILL)
        elsewhere.process.wait(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while slide.growing and time.monotonic() < deadline:
            assert planes(slide.refresh()) == []
        assert not slide.growing
        assert_read_back(slide, np.argwhere(slide.acquired()[..., None, None]).astype(np.int32))
    with open_slide(tmp_path / "scan.h5") as slide:
        assert slide.n_fields == 3
        slide.refresh()
        slide.refresh()
        assert not slide.growing
    write_slide(SyntheticSlide((1, 2), SHAPE, 1), tmp_path / "scan.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan.h5"]


def test_older_slide_of_the_name_is_opened_until_the_new_one_is_finished(elsewhere: Acquisition, tmp_path: Path):
    older = write_slide(SyntheticSlide((1, 2), SHAPE, 1), tmp_path / "older.h5")
    shutil.copy(older, tmp_path / "scan.h5")
    elsewhere.ask("acquire(writer, range(3)); writer.publish()")
    with open_slide(tmp_path / "scan.h5") as old, open_slide(tmp_path / "scan.h5.part") as new:
        assert not old.growing
        assert new.growing
        assert planes(new.refresh()) == []
        assert new.growing, "the older slide is not what was followed"
        elsewhere.ask("writer.close()")
        assert planes(new.refresh()) == []
        assert not new.growing
        assert (old.n_fields, new.n_fields) == (2, 3)


def test_closed_follower_says_so(acquisition: Acquisition, tmp_path: Path):
    acquisition.ask("acquire(writer, range(1)); writer.publish()")
    slide = open_slide(tmp_path / "scan.h5")
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read_plane(0, 0)
    with pytest.raises(SlideError, match="closed"):
        slide.refresh()


# all at once


def test_every_plane_that_is_told_reads_back_while_two_hundred_fields_are_written(acquisition: Acquisition, tmp_path: Path):
    """Tiles are read by other threads all the while; at the end the file is hardly larger than one written in one go."""
    path = tmp_path / "scan.h5"
    told: set[tuple[int, int, int, int]] = set()
    failures: list[BaseException] = []
    ended = threading.Event()
    with open_slide(path) as slide:

        def look() -> None:
            random = np.random.default_rng(0)
            try:
                while not ended.is_set():
                    known = list(told)
                    if not known:
                        continue
                    field, channel, z, t = known[random.integers(len(known))]
                    level = int(random.integers(len(slide.levels)))
                    expected = area_mean(plane(field, channel, z, t), slide.levels[level])
                    np.testing.assert_array_equal(slide.read_plane(field, channel, z, t, level), expected)
            except BaseException as error:
                failures.append(error)

        def write() -> None:
            """Twenty fields at a time; before the next ones come, the last were seen, however slow the machine is."""
            try:
                for first in range(0, 200, 20):
                    acquisition.ask(
                        f"[(acquire(writer, range(n, n + 4)), writer.publish() if n % 8 else None)"
                        f" for n in range({first}, {first + 20}, 4)]; writer.publish()"
                    )
                    deadline = time.monotonic() + TIMEOUT_S
                    while len(told) < 2 * (first + 20) and not ended.is_set() and time.monotonic() < deadline:
                        time.sleep(0.001)
                acquisition.ask("writer.close()")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for work in (look, look, write)]
        for thread in threads:
            thread.start()
        turns = 0
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while slide.growing and not failures and time.monotonic() < deadline:
                new = slide.refresh()
                fresh = planes(new)
                assert told.isdisjoint(fresh)
                assert_read_back(slide, new)
                told.update(fresh)
                turns += bool(fresh)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert not failures, failures
        assert not slide.growing
        assert slide.finished
        assert turns >= 10, "it was followed, not only opened at the end"
        assert sorted(told) == [(field, channel, 0, 0) for field in range(200) for channel in (0, 1)]
    assert verify_slide(path) == []
    at_once = tmp_path / "at once.h5"
    with SlideWriter(at_once, field_shape=SHAPE, channels=["a", "b"]) as slide_writer:
        acquire(slide_writer, range(200))
    assert path.stat().st_size < 1.1 * at_once.stat().st_size + 64_000


# the writer's side


def test_publishing_again_and_again_costs_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "PUBLISH_S", 3600.0)
    sizes = {}
    for name, every in (("often", 1), ("seldom", 50)):
        path = tmp_path / f"{name}.h5"
        with SlideWriter(path, field_shape=(256, 256), channels=["a"]) as slide_writer:
            for field in range(50):
                slide_writer.write_plane(hashed_plane((256, 256), field, 0, 0, 0), 0, field=field, x_um=field, y_um=0)
                if field % every == 0:
                    slide_writer.publish()
        sizes[name] = path.stat().st_size
    once = sum(-(-50 // 4**level) for level in range(1, 6)) * 2 * 256 * 256  # each packed tile lay there uncompressed, once
    assert sizes["often"] < sizes["seldom"] + once + 64_000


def test_finished_file_holds_no_uncompressed_tile(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a", "b"]) as slide_writer:
        for field in range(30):
            acquire(slide_writer, range(field, field + 1))
            slide_writer.publish()
    with h5py.File(path) as file:
        for level in file["levels"].values():
            masks = [level.id.get_chunk_info(number).filter_mask for number in range(level.id.get_num_chunks())]
            assert masks
            assert not any(masks)


def test_tiles_that_memory_has_no_room_for_are_completed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(growing_file, "_OPEN_PACKS_NBYTES", 1)
    truth = SyntheticSlide((6, 7), (96, 128), 3, seed=5)
    path = write_slide(truth, tmp_path / "slide.h5", seed=3)
    with Hdf5Slide(path) as slide:
        for key in tile_keys(slide):
            np.testing.assert_array_equal(slide.read_tile(key), expected_tile(slide, truth, key), err_msg=str(key))
    assert verify_slide(path) == []


def test_planned_fields_are_known_from_the_start(tmp_path: Path):
    truth = SyntheticSlide((3, 4), SHAPE, 2, plane_offset_px=2, extra_sets=("registered", "by hand"), seed=3)
    sets = truth.all_position_sets
    options = {"fields": truth.fields, "position_sets": sets, "orientation": truth.orientation, "pixel_size_um": 0.5}
    with SlideWriter(tmp_path / "scan.h5", field_shape=SHAPE, channels=truth.channels, **options) as slide_writer:
        with open_slide(tmp_path / "scan.h5") as slide:
            assert slide.n_fields == 12
            assert not slide.acquired().any()
            assert slide.position_sets == truth.position_sets
            for name in truth.position_sets:
                for channel in (0, 1):
                    np.testing.assert_array_equal(
                        slide.placement(name).centres_um(channel), truth.placement(name).centres_um(channel)
                    )
            slide_writer.write_plane(truth.read_plane(7, 1), 1, field=7)
            slide_writer.publish()
            assert planes(slide.refresh()) == [(7, 1, 0, 0)]
            assert (slide.fields == truth.fields).all()
            for key in tile_keys(slide):
                tile = slide.read_tile(key)
                assert tile.any() == expected_tile(slide, _only(truth, 7, 1), key).any()


def _only(truth: SyntheticSlide, field: int, channel: int) -> SyntheticSlide:
    """The same slide with one plane."""
    table = np.zeros((truth.n_fields, len(truth.channels)), bool)
    table[field, channel] = True
    truth.acquired = lambda z=0, t=0: table  # noqa: ARG005
    return truth


def test_planes_along_z_and_t_are_followed(tmp_path: Path):
    with SlideWriter(tmp_path / "scan.h5", field_shape=SHAPE, channels=["a", "b"], size_z=2, size_t=3) as slide_writer:
        slide_writer.publish()
        with open_slide(tmp_path / "scan.h5") as slide:
            for t in range(3):
                for z in range(2):
                    slide_writer.write_plane(plane(0, 1, z, t), 1, x_um=0, y_um=0, z=z, t=t)
                    slide_writer.publish()
                    new = slide.refresh()
                    assert planes(new) == [(0, 1, z, t)]
                    assert_read_back(slide, new)
                    assert slide.acquired(z, t).tolist() == [[False, True]]


def test_publishing_after_the_end_is_an_error(tmp_path: Path):
    slide_writer = SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"])
    slide_writer.close()
    with pytest.raises(WriteError, match="closed"):
        slide_writer.publish()


def test_second_writer_in_the_same_process_leaves_the_first_alone(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a"]) as first:
        with pytest.raises(WriteError, match="another program is writing"):
            SlideWriter(path, field_shape=SHAPE, channels=["a"])
        first.write_plane(plane(0), 0, x_um=0, y_um=0)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_plane(0, 0), plane(0))


def test_nothing_of_that_name_is_still_no_slide(tmp_path: Path):
    with pytest.raises(NotASlideError, match="no such file"):
        Hdf5Slide(tmp_path / "scan.h5")
    (tmp_path / "scan.h5.part").write_text("not a slide")
    with pytest.raises(NotASlideError):
        open_slide(tmp_path / "scan.h5")


def test_plain_h5py_follows_as_well(elsewhere: Acquisition, tmp_path: Path):
    elsewhere.ask("acquire(writer, range(3)); writer.publish()")
    with h5py.File(tmp_path / "scan.h5.part", "r", swmr=True) as file:
        assert len(file["fields"]) == 3
        assert file["planes/acquired"][:3].all()
        np.testing.assert_array_equal(file["levels/0"][2, 1, 0, 0, :40, :56], plane(2, 1))
        elsewhere.ask("acquire(writer, range(3, 5)); writer.publish()")
    assert os.path.exists(tmp_path / "scan.h5.part")


def test_follower_in_the_process_of_the_writer_waits_for_the_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(overview, "FROM_FIELDS", 5)
    path = tmp_path / "scan.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a", "b"]) as slide_writer:
        acquire(slide_writer, range(6))
        slide_writer.publish()
        slide = open_slide(path)
    assert len(slide.refresh()) == 0
    assert slide.overview is not None
    assert slide.overview.identity != slide.identity
    assert_read_back(slide, np.argwhere(np.ones((6, 2, 1, 1))).astype(np.int32))
    slide.close()
