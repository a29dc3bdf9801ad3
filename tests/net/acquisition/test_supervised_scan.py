"""A scan as the manager sees it: what it makes of its processes, step by step, with processes that only seem to be there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from scans import UID, image, plan, until

from rawmosaic.net.acquisition import supervised_scan
from rawmosaic.net.acquisition.files import read_json, replace_json
from rawmosaic.net.acquisition.intake import write_end
from rawmosaic.net.acquisition.supervised_scan import Means, State, SupervisedScan, clear_away, found_folders, new_folder
from rawmosaic.storage.hdf5.claim import claim
from rawmosaic.storage.hdf5.letting_go import is_wanted
from rawmosaic.storage.hdf5.writer import SlideWriter

IN_USE = PermissionError(13, "The process cannot access the file")
IN_USE.winerror = 32


class Process:
    """Stands for a `Child`: it runs, or ends with a code, as the test says."""

    hopeless, exit_code = False, None

    def __init__(self, pid: int | None):
        self.pid = pid
        self.ends_with: int | None = None
        self.last_act = lambda: None
        self.hangs = ""
        self.hurried = False
        self.starts: list[float] = []

    @property
    def running(self) -> bool:
        return self.pid is not None

    def keep(self, now: float) -> None:
        """It is started by the test; when it might have been is noted."""
        if self.pid is None:
            self.starts.append(now)

    def look(self, now: float) -> int | None:  # noqa: ARG002
        if self.pid is None or self.ends_with is None:
            return None
        self.last_act()
        self.pid = None
        return self.ends_with

    def tell_to_end(self) -> None:
        if not self.hangs:
            self.ends_with = 0

    def press(self, now: float, _patience_s: float) -> str:
        self.tell_to_end()
        self.look(now)
        return self.hangs if self.pid is not None else ""

    def hurry(self) -> None:
        """It is started by the test."""
        self.hurried = True

    def said(self) -> str:
        return ""


@pytest.fixture
def scan(tmp_path: Path) -> SupervisedScan:
    means = Means(tmp_path, "tcp://127.0.0.1:*", "fsync", 1 << 20, 1 << 20, 1800.0, None, False)
    made = SupervisedScan(plan(), new_folder(tmp_path, plan()), means, lambda *_: None)
    made.proxy, made.writer = Process(11), Process(12)
    return made


def until_ended(scan: SupervisedScan, now: float) -> None:
    """Until the disk has the end."""

    def ended() -> bool:
        scan.step(now)
        return scan.ended is not None

    until(ended)


def test_what_a_proxy_told_in_its_last_moment_is_not_told_otherwise(scan):
    scan.proxy.last_act = lambda: write_end(scan.folder, planes=7)  # its scanner hears that it is finished
    scan.end(early=True, discard=True, reason="somebody ended it")
    until_ended(scan, 0.0)
    end = read_json(scan.folder / "end.json")
    assert (end["planes"], end["early"], end["discard"]) == (7, False, False)
    scan.step(1.0)
    assert scan.state is State.FINISHING


def test_an_end_is_not_told_while_a_proxy_of_another_manager_is_there(scan):
    descriptor = os.open(scan.folder / "proxy.lock", os.O_RDWR | os.O_CREAT)
    try:
        assert claim(descriptor)
        scan.end(early=True, reason="somebody ended it")
        scan.step(0.0)
        scan.step(1.0)
        assert not (scan.folder / "end.json").exists()
    finally:
        os.close(descriptor)
    until_ended(scan, 2.0)
    assert read_json(scan.folder / "end.json")["reason"] == "somebody ended it"


def test_the_address_of_a_proxy_that_is_gone_is_not_told_though_the_next_has_its_number(scan):
    replace_json(scan.folder / "proxy.json", {"pid": 11, "address": "tcp://127.0.0.1:1"})
    scan.proxy.pid = None
    scan.step(0.0)
    scan.proxy.pid = 11
    scan.step(1.0)
    assert scan.address == ""
    replace_json(scan.folder / "proxy.json", {"pid": 11, "address": "tcp://127.0.0.1:2"})
    scan.step(2.0)
    assert scan.address == "tcp://127.0.0.1:2"


def test_a_writer_that_fails_twice_for_the_same_reason_has_failed_however_long_it_tries(scan):
    write_end(scan.folder, planes=7)
    for now, state in ((0.0, State.FINISHING), (1000.0, State.FAILED), (2000.0, State.FAILED)):
        replace_json(scan.folder / "writer.json", {"pid": 12, "state": "failed", "error": "a plane is missing"})
        scan.writer.pid, scan.writer.ends_with = 12, 1
        scan.step(now)
        scan.writer.pid, scan.writer.ends_with = 13, None  # the next one
        replace_json(scan.folder / "writer.json", {"pid": 13, "state": "verifying", "error": ""})
        scan.step(now + 1)
        assert scan.state is state
    assert scan.error == "a plane is missing"
    replace_json(scan.folder / "writer.json", {"pid": 13, "state": "failed", "error": "another"})
    scan.writer.ends_with = 1
    scan.step(3000.0)
    assert scan.state is State.FINISHING


def test_all_of_a_discarded_scan_goes(scan, tmp_path):
    for ending in ("part", "kept", "damaged"):
        (tmp_path / f"a scan.h5.{ending}").write_bytes(b"planes")
    write_end(scan.folder, early=True, discard=True)
    scan.step(0.0)
    scan.leave(60.0)
    assert scan.state is State.DISCARDED
    assert list(tmp_path.iterdir()) == []


def test_what_another_scan_wrote_stays_when_a_scan_is_discarded(scan, tmp_path):
    for ending, uid in (("part", ""), ("kept", "another"), ("damaged", UID)):
        with SlideWriter(tmp_path / f"{ending}.h5", field_shape=(8, 8), channels=["DAPI"], scan_uid=uid) as writer:
            writer.write_plane(image(0, 0, (8, 8)), 0, row=0, column=0)
        os.rename(tmp_path / f"{ending}.h5", tmp_path / f"a scan.h5.{ending}")
    (tmp_path / "a scan.h5.damaged-2").mkdir()
    write_end(scan.folder, early=True, discard=True)
    scan.step(0.0)
    scan.leave(60.0)
    assert scan.state is State.DISCARDED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a scan.h5.damaged-2", "a scan.h5.kept", "a scan.h5.part"]


def test_discarding_waits_for_who_has_the_slide_open_and_says_so(scan, tmp_path, monkeypatch):
    """As on Windows, which deletes no file that is open."""
    part, in_use, unlink = tmp_path / "a scan.h5.part", [True], Path.unlink
    part.touch()

    def unlink_unless_in_use(path: Path, missing_ok: bool = False) -> None:
        if path == part and in_use:
            raise IN_USE
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_unless_in_use)
    write_end(scan.folder, early=True, discard=True)
    scan.step(0.0)
    assert scan.state is State.FINISHING
    assert "close the viewers that show a scan.h5" in scan.error
    assert is_wanted(part)
    in_use.clear()
    scan.step(1.0)
    scan.leave(60.0)
    assert scan.state is State.DISCARDED
    assert list(tmp_path.iterdir()) == []


def test_what_became_of_a_scan_is_told_once_though_its_folder_does_not_go_at_once(scan, monkeypatch):
    told, fails = [], [True]
    scan._on_over = lambda _, state: told.append(state)

    def clear_away_later(folder: Path) -> None:
        if fails:
            raise PermissionError("a file in it is open")
        clear_away(folder)

    monkeypatch.setattr(supervised_scan, "clear_away", clear_away_later)
    write_end(scan.folder, early=True, discard=True)
    for now in (0.0, 0.1, 0.2):
        with pytest.raises(PermissionError):
            scan.step(now)
    fails.clear()
    scan.step(0.3)
    scan.leave(60.0)
    assert told == [State.DISCARDED]


def test_an_end_that_cannot_be_read_any_more_is_an_early_end(scan):
    (scan.folder / "end.json").write_bytes(bytes(40))
    until_ended(scan, 0.0)
    end = read_json(scan.folder / "end.json")
    assert (end["early"], end["discard"], end["planes"]) == (True, False, None)
    assert scan.state is State.FINISHING


def test_a_folder_that_holds_anything_but_half_a_plan_is_never_deleted(tmp_path):
    for name, inside in (("empty", ()), ("half", ("scan.json.new",)), ("planes", ("released.index",)), (UID, ("spool", "x"))):
        folder = tmp_path / f"{name}.scan"
        folder.mkdir()
        for entry in inside:
            (folder / entry).touch()
    assert [folder.name for folder in found_folders(tmp_path)] == ["planes.scan", f"{UID}.scan"]
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["planes.scan", f"{UID}.scan"]


@pytest.mark.parametrize("discard", [False, True])
def test_a_process_that_cannot_be_killed_is_told_of_and_nothing_is_deleted_or_started_beside_it(scan, discard):
    scan.proxy.hangs = "process 11 does not end"
    if discard:
        write_end(scan.folder, early=True, discard=True)
    else:
        scan.end(early=True, reason="somebody ended it")
    for now in (0.0, 100.0, 10_000.0):
        scan.step(now)
        assert scan.error == "process 11 does not end"
    scan.leave(60.0)
    assert scan.proxy.starts == []
    assert (scan.folder / "scan.json").exists()
    assert (scan.folder / "end.json").exists() == discard
    scan.proxy.hangs = ""  # the disk is back
    until_over = (lambda: scan.state is State.DISCARDED) if discard else (lambda: scan.ended is not None)

    def over() -> bool:
        scan.step(10_001.0)
        return until_over()

    until(over)
    scan.leave(60.0)


def test_nothing_is_deleted_while_a_process_of_another_manager_is_there(scan):
    replace_json(scan.folder / "writer.json", {"pid": 4711, "state": "writing"})
    descriptor = os.open(scan.folder / "writer.lock", os.O_RDWR | os.O_CREAT)
    try:
        assert claim(descriptor)
        write_end(scan.folder, early=True, discard=True)
        scan.step(0.0)
        scan.step(1.0)
        assert (scan.folder / "scan.json").exists()
        assert "4711" in scan.error
    finally:
        os.close(descriptor)
    scan.leave(60.0)
    scan.step(2.0)
    assert scan.state is State.DISCARDED


def test_a_proxy_that_says_nothing_any_more_is_told_of_and_its_scanner_counts_as_silent(scan):
    scan.means, scan.writer.pid = replace(scan.means, idle_s=100.0), None
    replace_json(scan.folder / "proxy.json", {"pid": 11, "address": "tcp://127.0.0.1:1", "last_heard_s_ago": 1.0})
    scan.step(0.0)
    assert (scan.state, scan.error) == (State.ACQUIRING, "")
    scan.step(30.0)
    assert scan.state is State.WAITING
    assert "process 11" in scan.error
    replace_json(scan.folder / "proxy.json", {"pid": 11, "address": "tcp://127.0.0.1:1", "last_heard_s_ago": 0.0})
    scan.step(31.0)
    assert (scan.state, scan.error) == (State.ACQUIRING, "")
    scan.step(200.0)
    until_ended(scan, 201.0)
    assert "nothing was heard" in read_json(scan.folder / "end.json")["reason"]


def failed_twice(scan: SupervisedScan, now: float) -> float:
    """A writer of a scan that was ended fails, and the next for the same reason; when."""
    write_end(scan.folder, planes=7)
    for _ in range(2):
        now += 1.0
        scan.writer.pid, scan.writer.ends_with = 12, 1
        replace_json(scan.folder / "writer.json", {"pid": 12, "state": "failed", "error": "a plane is damaged"})
        scan.step(now)
    scan.leave(60.0)
    scan.writer.starts.clear()
    return now


def test_a_writer_that_fails_again_and_again_rests_longer_and_longer_and_it_is_told_when_it_is_tried(scan):
    now, rests = failed_twice(scan, 0.0), []
    for _ in range(7):
        began = now
        while not scan.writer.starts:
            now += 5.0
            scan.step(now)
        rests.append(now - began)
        scan.writer.pid, scan.writer.ends_with = 12, 1
        scan.step(now)
        scan.writer.starts.clear()
    assert rests == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    scan.step(now + 60.0)
    assert scan.state is State.FAILED
    assert "a plane is damaged (tried again in 9 min" in scan.error


@pytest.mark.parametrize("change", ["a file comes", "a file is mended", "somebody asks"])
def test_a_writer_that_rests_is_tried_at_once_when_something_changed(scan, tmp_path, change):
    part = tmp_path / "a scan.h5.part"
    part.write_bytes(b"damaged")
    now = failed_twice(scan, 0.0)
    scan.step(now + 10.0)
    assert scan.writer.starts == []
    if change == "a file comes":
        (tmp_path / "a scan.h5").touch()
    elif change == "a file is mended":
        part.write_bytes(b"mended.")
    else:
        scan.end()
        assert scan.writer.hurried
    scan.step(now + 15.0)
    assert scan.writer.starts == [now + 15.0]
