"""What was acknowledged is in the slide, bit for bit, wherever its writer is killed; who follows never sees half of a plane."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from writing import CHANNELS, TIMEOUT_S, UID, Scan, Watcher, Writer

from rawmosaic.net.acquisition import writer as writer_module
from rawmosaic.net.acquisition.releasing import Releaser
from rawmosaic.net.acquisition.resuming import Left, take_up
from rawmosaic.net.acquisition.writer import COMPLETE, ENDED, FAILED, ScanWriter, effort
from rawmosaic.storage import SlideWriter
from rawmosaic.storage.errors import WriteError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.room import Room
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.testing import SyntheticSlide, write_slide

KILLS = int(os.environ.get("RAWMOSAIC_KILLS", "8"))
kills = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are not killed here")


@pytest.fixture
def scan(tmp_path: Path) -> Iterator[Scan]:
    made = Scan(tmp_path)
    yield made
    made.close()


def run(scan: Scan) -> int:
    """A writer in this process, until it ends."""
    return ScanWriter(scan.folder, threading.Event()).run()


def assert_complete(scan: Scan) -> None:
    """The slide has every plane as it was put, all is sound, and nothing else is left of its writing."""
    assert verify_slide(scan.location) == []
    with Hdf5Slide(scan.location) as slide:
        assert slide.finished
        assert slide.scan_uid == UID
        steps = [(z, t) for z in range(slide.size_z) for t in range(slide.size_t)]
        there = {(field, channel, *step) for step in steps for field, channel in np.argwhere(slide.acquired(*step)).tolist()}
        assert there == set(scan.truth)
        for key, truth in scan.truth.items():
            np.testing.assert_array_equal(slide.read_plane(*key), truth)
    assert sorted(entry.name for entry in scan.location.parent.iterdir()) == ["a scan.h5", "a scan.scan"]
    assert scan.said()["state"] == "complete"


# without accidents


@pytest.mark.parametrize("encoding", ["raw", "blosc"])
def test_every_plane_of_the_spool_is_in_the_slide(scan: Scan, encoding: str):
    for field in range(30):
        for channel in range(len(CHANNELS)):
            scan.put(field, channel, encoding=encoding)
    scan.finish()
    assert run(scan) == COMPLETE
    assert_complete(scan)
    assert scan.said()["releasable_segment"] >= 1
    assert scan.said()["written"] == 60


def test_scan_without_a_plane_becomes_an_empty_slide(scan: Scan):
    scan.finish()
    assert run(scan) == COMPLETE
    assert_complete(scan)


def test_planes_keep_their_place_their_metadata_and_the_reason_of_an_early_end(tmp_path: Path):
    scan = Scan(tmp_path, n_planned=4, size_z=2)
    scan.put(1, 0, x_um=11.25, metadata={"focus_um": 3.5})
    scan.put(1, 1, x_um=11.5)
    scan.put(2, 0, z=1)
    scan.finish(early=True, reason="the lamp broke")
    assert run(scan) == COMPLETE
    scan.close()
    assert_complete(scan)
    with Hdf5Slide(scan.location) as slide:
        assert slide.position_sets == ("stage", "planned")
        np.testing.assert_array_equal(slide.positions("planned")[:, 0], [0, 10, 20, 30])
        np.testing.assert_array_equal(slide.positions()[:, 0], [0, 11.25, 20, 30])
        assert slide.placement().centres_um(1)[1, 0] == 11.5
        assert slide.plane_metadata(1, 0) == {"focus_um": 3.5}
        assert slide.plane_metadata(1, 1) == {}
        assert slide.header.extra["ended_early"] == "the lamp broke"


def test_segments_are_released_only_after_they_were_read_back(scan: Scan, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    monkeypatch.setattr(writer_module, "passed", steps.append)
    read_back = Releaser._read_back

    def noting(self: Releaser, slide: Hdf5Slide, planes: list) -> None:
        read_back(self, slide, planes)
        steps.append(f"{len(planes)} right")
        assert {key for key, _ in planes} <= set(scan.truth)

    monkeypatch.setattr(Releaser, "_read_back", noting)
    scan.put_fields(range(40))
    scan.finish()
    assert run(scan) == COMPLETE
    steps = [step for step in steps if step != "plane"]  # others come meanwhile
    releases = [at for at, step in enumerate(steps) if step == "released"]
    assert len(releases) == scan.spool.segment - 1
    assert all(" right" in steps[at - 2] and steps[at - 1] == "read back" for at in releases)


def test_plane_that_reads_back_otherwise_is_never_released(scan: Scan, monkeypatch: pytest.MonkeyPatch):
    scan.put_fields(range(30))
    scan.finish()
    right = Hdf5Slide._decode

    def otherwise(self: Hdf5Slide, chunk: bytes, key: TileKey, out: np.ndarray) -> None:
        right(self, chunk, key, out)
        out += np.uint16(key.level == 0 and key.index == 3)

    monkeypatch.setattr(Hdf5Slide, "_decode", otherwise)
    assert run(scan) == FAILED
    said = scan.said()
    assert (said["state"], said["releasable_segment"]) == ("failed", 0)
    assert "field 3" in said["error"]
    monkeypatch.undo()
    assert run(scan) == COMPLETE
    assert_complete(scan)


def test_standard_input_ends_a_writer_in_order_and_another_goes_on(scan: Scan):
    scan.put_fields(range(10))
    first = Writer(scan)
    first.wait_until("writing")
    assert first.end() == ENDED
    scan.put_fields(range(10, 20))
    scan.finish()
    assert Writer(scan).wait() == COMPLETE, scan.said()
    assert_complete(scan)


def test_second_writer_waits_until_the_first_is_gone(scan: Scan):
    scan.put_fields(range(4))
    first = Writer(scan)
    first.wait_until("writing")
    second = Writer(scan)
    scan.finish()
    assert first.wait() == COMPLETE
    assert second.wait() == COMPLETE
    assert_complete(scan)


def test_discarded_scan_is_not_made_a_slide(scan: Scan):
    scan.put_fields(range(4))
    scan.finish(early=True, discard=True)
    process = Writer(scan)
    process.wait_until("writing")
    assert process.end() == ENDED
    assert not scan.location.exists()


# accidents


@kills
@pytest.mark.parametrize(
    ("step", "times"),
    [
        ("begun", 1),
        ("plane", 1),
        ("plane", 45),
        ("read back", 1),
        ("released", 2),
        ("written", 1),
        ("before noting", 1),
        ("noted", 1),
        ("carrying over", 2),
        ("carried over", 1),
        ("sealed", 1),
        ("verified", 1),
        ("named", 1),
    ],
)
def test_writer_killed_at_a_step_loses_nothing(scan: Scan, step: str, times: int):
    scan.put_fields(range(30))
    scan.finish()
    watcher = Watcher(scan)
    try:
        assert Writer(scan, step, times).wait() == -signal.SIGKILL, scan.said()
        scan.release()
        assert Writer(scan).wait() == COMPLETE, scan.said()
    finally:
        watcher.close()
    assert not watcher.failures, watcher.failures
    assert_complete(scan)


@kills
@pytest.mark.parametrize(("step", "times"), [("begun", 1), ("copying", 1), ("copying", 20), ("copied", 1), ("forgot kept", 1)])
def test_writer_killed_while_it_copies_loses_nothing(scan: Scan, step: str, times: int):
    scan.put_fields(range(30))
    scan.finish()
    assert Writer(scan, "released", 2).wait() == -signal.SIGKILL
    assert scan.release() == 2
    assert Writer(scan, step, times).wait() == -signal.SIGKILL, scan.said()
    scan.release()
    assert Writer(scan).wait() == COMPLETE, scan.said()
    assert_complete(scan)


@kills
def test_writer_killed_at_random_moments_loses_nothing(scan: Scan):
    chance = random.Random(7)
    watcher = Watcher(scan)
    process, n_fields = None, 0
    try:
        for _ in range(KILLS):
            process = Writer(scan)
            process.wait_until()
            for _ in range(chance.randrange(1, 4)):
                scan.put_fields(range(n_fields, n_fields + 8))
                n_fields += 8
                time.sleep(chance.random() * 0.1)
                scan.release()
            process.kill()
            scan.release()
        scan.finish()
        process = Writer(scan)
        assert process.wait() == COMPLETE, scan.said()
        deadline = time.monotonic() + TIMEOUT_S
        while watcher.seen != set(scan.truth) and not watcher.failures and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        watcher.close()
    assert not watcher.failures, watcher.failures
    assert watcher.seen == set(scan.truth)
    assert_complete(scan)


def test_damaged_record_is_told_set_aside_and_written_when_it_comes_again(scan: Scan):
    scan.put_fields(range(20))
    damage(scan, segment=1, record=2)
    assert run_until_written(scan, 39) == ENDED
    said = scan.said()
    assert "00000001.spool" in said["error"]
    assert [entry.name for entry in (scan.folder / "damaged").iterdir()] == ["00000001.spool"]
    scan.put(1, 0)
    scan.finish()
    assert run(scan) == COMPLETE
    assert_complete(scan)


def test_slide_that_lacks_a_damaged_plane_is_not_called_complete(scan: Scan):
    scan.put_fields(range(20))
    damage(scan, segment=1, record=2)
    scan.finish()
    assert run(scan) == FAILED
    assert "1 acknowledged planes are not in the slide as they came, first: field 1, channel 0" in scan.said()["error"]
    assert not scan.location.exists()
    with Hdf5Slide(scan.location.with_name("a scan.h5.part")) as slide:
        assert slide.finished
        assert slide.acquired().sum() == 39
    assert run(scan) == FAILED, "again and again"


def test_plane_that_no_slide_can_have_is_kept_when_its_segment_goes(scan: Scan):
    scan.put_fields(range(5))
    scan.put(5, 0, metadata={"gain": float("inf")})
    scan.put_fields(range(6, 20))
    assert run_until_written(scan, 38) == ENDED
    assert "cannot be written" in scan.said()["error"]
    assert scan.release() >= 1
    aside = scan.folder / "damaged"
    assert [entry.name for entry in aside.iterdir()] == ["00000001.spool"]
    assert scan.truth[5, 0, 0, 0].tobytes() in (aside / "00000001.spool").read_bytes()
    scan.finish()
    assert run(scan) == FAILED
    assert "first: field 5, channel 0" in scan.said()["error"]


def test_full_disk_is_waited_for_and_told(scan: Scan, monkeypatch: pytest.MonkeyPatch):
    full = threading.Event()
    full.set()
    take = Room._take

    def taken(self: Room, end: int) -> None:
        if full.is_set():
            raise OSError(28, os.strerror(28))
        take(self, end)

    monkeypatch.setattr(Room, "_take", taken)
    monkeypatch.setattr(writer_module, "FULL_PAUSE_S", 0.01)
    scan.put_fields(range(10))
    scan.finish()
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(scan)))
    thread.start()
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while "disk is full" not in scan.said().get("error", "") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "disk is full" in scan.said()["error"]
    finally:
        full.clear()
        thread.join()
    assert codes == [COMPLETE]
    assert_complete(scan)


def test_disk_that_fills_up_while_writing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slide_writer = SlideWriter(tmp_path / "slide.h5", field_shape=(24, 32), channels=["a"], irreplaceable=True)
    truth = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)
    take, full = Room._take, threading.Event()
    full.set()

    def taken(self: Room, end: int) -> None:
        if full.is_set():
            raise OSError(28, os.strerror(28))
        take(self, end)

    monkeypatch.setattr(Room, "_take", taken)
    slide_writer._room_ahead.forget()
    slide_writer.write_plane(truth, 0, x_um=0, y_um=0)
    deadline = time.monotonic() + TIMEOUT_S
    while not slide_writer.full and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "disk is full" in slide_writer.full
    full.clear()
    slide_writer.close()
    with Hdf5Slide(tmp_path / "slide.h5") as slide:
        np.testing.assert_array_equal(slide.read_plane(0, 0), truth)


def test_slide_of_another_scan_is_never_overwritten(scan: Scan):
    write_slide(SyntheticSlide((1, 2), (24, 32), 1), scan.location)
    before = scan.location.read_bytes()
    scan.put_fields(range(2))
    scan.finish()
    assert run(scan) == FAILED
    assert "another slide has this name" in scan.said()["error"]
    assert scan.location.read_bytes() == before
    with pytest.raises(WriteError):
        take_up(scan.location, UID)


def test_slide_that_takes_the_name_meanwhile_is_never_overwritten(scan: Scan, monkeypatch: pytest.MonkeyPatch):
    other = scan.folder / "other.h5"
    write_slide(SyntheticSlide((1, 2), (24, 32), 1), other)
    scan.put_fields(range(2))
    scan.finish()

    def comes_meanwhile(step: str) -> None:
        if step == "verified":
            other.rename(scan.location)

    monkeypatch.setattr(writer_module, "passed", comes_meanwhile)
    assert run(scan) == FAILED
    assert "another slide has this name" in scan.said()["error"]
    with Hdf5Slide(scan.location) as slide:
        assert slide.scan_uid == ""
    scan.location.unlink()
    monkeypatch.undo()
    assert run(scan) == COMPLETE
    assert_complete(scan)


def test_slide_that_another_scan_left_is_not_copied(scan: Scan):
    kept = scan.location.with_name("a scan.h5.kept")
    write_slide(SyntheticSlide((1, 2), (24, 32), 2), kept)
    scan.put_fields(range(2))
    scan.finish()
    assert run(scan) == FAILED
    assert "another scan" in scan.said()["error"]
    kept.unlink()
    assert run(scan) == COMPLETE
    assert_complete(scan)


@pytest.mark.parametrize("torn", [("fields",), ("planes/checksum",), ("fields", "planes/checksum", "planes/acquired")])
@pytest.mark.parametrize("n_planned", [None, 50])
def test_planes_that_left_the_spool_outlive_the_tables_of_their_slide(
    tmp_path: Path, torn: tuple[str, ...], n_planned: int | None
):
    """A table that is written anew in its place may be half of each after a power failure."""
    scan = Scan(tmp_path, n_planned=n_planned)
    scan.put_fields(range(40))
    assert run_until_written(scan, 80) == ENDED
    assert scan.release() >= 1
    part = scan.location.with_name("a scan.h5.part")
    with h5py.File(part, "r") as file:
        places = [file[name].id.get_chunk_info(0).byte_offset for name in torn]
    with part.open("rb+") as file:
        for place in places:
            file.seek(place + 8)
            file.write(b"torn")
    scan.finish()
    assert run(scan) == COMPLETE
    scan.location.with_name("a scan.h5.damaged").unlink()
    assert_complete(scan)
    with Hdf5Slide(scan.location) as slide:
        assert slide.fields["x_um"][:40].tolist() == (10.0 * np.arange(40)).tolist()
        assert slide.fields["column"][:40].tolist() == [-1] * 40 if n_planned else list(range(40))
    scan.close()


def test_kept_slide_that_cannot_be_read_holds_nothing_up_while_the_spool_has_all(scan: Scan):
    scan.put_fields(range(20))
    scan.finish()
    assert run_until_written(scan, 40) == ENDED
    part = scan.location.with_name("a scan.h5.part")
    part.write_bytes(torn := part.read_bytes()[:1000])
    assert run(scan) == COMPLETE
    damaged = scan.location.with_name("a scan.h5.damaged")
    assert damaged.read_bytes() == torn
    damaged.unlink()
    assert_complete(scan)


def test_what_is_left_behind_is_put_in_order(tmp_path: Path):
    location, part, kept = (tmp_path / name for name in ("a.h5", "a.h5.part", "a.h5.kept"))
    part.with_name("a.h5.part.changes").write_bytes(b"of a scan that was discarded")
    assert take_up(location, UID) is Left.NEW
    assert list(tmp_path.iterdir()) == []
    part.write_bytes(b"torn")
    assert take_up(location, UID) is Left.KEPT
    assert kept.read_bytes() == b"torn"
    part.write_bytes(b"an unfinished copy")
    assert take_up(location, UID) is Left.KEPT
    assert not part.exists()


def test_kept_slide_that_cannot_be_read_is_not_thrown_away_once_planes_left_the_spool(scan: Scan):
    scan.put_fields(range(20))
    scan.finish()
    assert run_until_written(scan, 40) == ENDED
    assert scan.release() >= 1
    part = scan.location.with_name("a scan.h5.part")
    part.write_bytes(part.read_bytes()[:1000])
    assert run(scan) == FAILED
    assert "left the spool" in scan.said()["error"]
    assert scan.location.with_name("a scan.h5.kept").stat().st_size == 1000


def test_effort_follows_how_full_the_spool_is():
    assert effort("normal", {}) == "normal"
    assert effort("normal", {"spool_nbytes": 50, "spool_budget": 100}) == "fast"
    assert effort("fast", {"spool_nbytes": 30, "spool_budget": 100}) == "fast"
    assert effort("normal", {"spool_nbytes": 30, "spool_budget": 100}) == "normal"
    assert effort("fast", {"spool_nbytes": 10, "spool_budget": 100}) == "normal"


def run_until_written(scan: Scan, n_planes: int) -> int:
    """A writer in this process, ended in order once it has written so many planes and read back what may be released."""
    over = threading.Event()
    scan_writer = ScanWriter(scan.folder, over)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(scan_writer.run()))
    thread.start()
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and thread.is_alive():
        said = scan.said()
        if said.get("written", 0) >= n_planes and said.get("releasable_segment", 0) >= 1:
            break
        time.sleep(0.01)
    over.set()
    thread.join()
    return codes[0]


def damage(scan: Scan, segment: int, record: int) -> None:
    """Flip one bit in the payload of a record, and forget what it held."""
    from rawmosaic.net.acquisition.spool import planes_in

    places = [position for found in planes_in(scan.folder / "spool") for position in [found[1]] if position.segment == segment]
    path = scan.folder / "spool" / f"{segment:08d}.spool"
    data = bytearray(path.read_bytes())
    end = places[record].offset + places[record].nbytes
    data[end - 100] ^= 1
    path.write_bytes(data)
