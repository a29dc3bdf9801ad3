"""A scan as the manager sees it: what it makes of its processes, step by step, with processes that only seem to be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scans import UID, plan

from rawmosaic.net.acquisition.files import read_json, replace_json
from rawmosaic.net.acquisition.intake import write_end
from rawmosaic.net.acquisition.supervised_scan import Means, State, SupervisedScan, found_folders, new_folder
from rawmosaic.storage.hdf5.claim import claim


class Process:
    """Stands for a `Child`: it runs, or ends with a code, as the test says."""

    hopeless, exit_code = False, None

    def __init__(self, pid: int | None):
        self.pid = pid
        self.ends_with: int | None = None
        self.last_act = lambda: None

    @property
    def running(self) -> bool:
        return self.pid is not None

    def keep(self, now: float) -> None:
        """It is started by the test."""

    def look(self, now: float) -> int | None:  # noqa: ARG002
        if self.pid is None or self.ends_with is None:
            return None
        self.last_act()
        self.pid = None
        return self.ends_with

    def tell_to_end(self) -> None:
        self.ends_with = 0

    def end(self) -> None:
        self.pid = None

    def said(self) -> str:
        return ""


@pytest.fixture
def scan(tmp_path: Path) -> SupervisedScan:
    means = Means(tmp_path, "tcp://127.0.0.1:*", "fsync", 1 << 20, 1 << 20, 1800.0, None, False)
    made = SupervisedScan(plan(), new_folder(tmp_path, plan()), means, lambda *_: None)
    made.proxy, made.writer = Process(11), Process(12)
    return made


def test_what_a_proxy_told_in_its_last_moment_is_not_told_otherwise(scan):
    scan.proxy.last_act = lambda: write_end(scan.folder, planes=7)  # its scanner hears that it is finished
    scan.end(early=True, discard=True, reason="somebody ended it")
    scan.step(0.0)
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
    scan.step(2.0)
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
    assert scan.state is State.DISCARDED
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_anything_but_half_a_plan_is_never_deleted(tmp_path):
    for name, inside in (("empty", ()), ("half", ("scan.json.new",)), ("planes", ("released.index",)), (UID, ("spool", "x"))):
        folder = tmp_path / f"{name}.scan"
        folder.mkdir()
        for entry in inside:
            (folder / entry).touch()
    assert [folder.name for folder in found_folders(tmp_path)] == ["planes.scan", f"{UID}.scan"]
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["planes.scan", f"{UID}.scan"]
