"""`rawmosaic acquire`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.cli.acquire_command import _watch, row_of, table_of
from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import UnreachableError
from rawmosaic.storage.hdf5.verify import verify_slide

LONG_S = 60.0
RUN = [sys.executable, "-c", "from rawmosaic.cli.main import run; run()", "acquire"]
ANY = "tcp://127.0.0.1:*"


@pytest.fixture(autouse=True)
def key_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's keys."""
    monkeypatch.setenv("RAWMOSAIC_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


@contextmanager
def serving(data: Path, *arguments: object, n_lines: int = 1) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """`rawmosaic acquire serve` in a process of its own, and the addresses in the lines that it says first."""
    options = () if "--bind" in arguments else ("--bind", ANY)
    process = subprocess.Popen(
        [*RUN, "serve", "--data", str(data), *options, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process, [re.search(r"tcp://[^\s/]+", process.stdout.readline())[0] for _ in range(n_lines)]
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=LONG_S)


def begun(address: str, name: str) -> Scanner:
    """A scan with one plane that is acknowledged, whose scanner has left."""
    scanner = Scanner(address, timeout_s=LONG_S)
    scanner.start(name, field_shape=(20, 30), channels=["A"])
    scanner.send(np.full((20, 30), 7, np.uint16), 0, row=0, column=0)
    scanner.flush()
    scanner.close()
    return scanner


def until_complete(path: Path) -> None:
    end = time.monotonic() + LONG_S
    while not path.exists() or path.with_name(f"{path.stem}.scan").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_simulated_scan_is_the_slide_and_can_be_looked_at_while_it_grows(rawmosaic, data, slide_file):
    with serving(data, "--serve", ANY, n_lines=2) as (_, [address, viewers]):
        outcome = rawmosaic("acquire", "simulate", slide_file, address, "--name", "again", "--rate", 1000)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.strip() == str(data / "again.h5")
        assert verify_slide(data / "again.h5") == []
        with open_slide(slide_file) as here, open_slide(data / "again.h5") as there:
            np.testing.assert_array_equal(there.acquired(), here.acquired())
            np.testing.assert_allclose(there.positions(), here.positions())
            for field, channel in np.argwhere(here.acquired()).tolist():
                np.testing.assert_array_equal(there.read_plane(field, channel), here.read_plane(field, channel))
        end = time.monotonic() + LONG_S
        while rawmosaic("info", f"{viewers}/again", "--json").code and time.monotonic() < end:
            time.sleep(0.05)
        assert json.loads(rawmosaic("info", f"{viewers}/again", "--json").out)["fields"] == 6


def test_a_raw_acquisition_can_be_simulated_too(rawmosaic, data, acquisition):
    with serving(data) as (_, [address]):
        assert rawmosaic("acquire", "simulate", acquisition, address).code == 0
    assert verify_slide(data / "acquisition.h5") == []


def test_the_status_names_each_scan_and_what_it_does(rawmosaic, data):
    with serving(data, "--durability", "page-cache", "--spool-gb", 1) as (_, [address]):
        assert rawmosaic("acquire", "status", address).out.strip() == "no scans"
        begun(address, "running")
        begun(address, "over")
        assert rawmosaic("acquire", "finish", "over", "--at", address).out.strip() == str(data / "over.h5")
        until_complete(data / "over.h5")
        scans = [json.loads(line) for line in rawmosaic("acquire", "status", address, "--json").out.splitlines()]
        assert {scan["name"]: scan["planes"] for scan in scans} == {"running": 1, "over": 1}
        shown = rawmosaic("acquire", "status", address).out
        for word in ("running", "over", "complete", "planes/s", "spool"):
            assert word in shown


def test_a_scan_is_ended_or_deleted_by_its_name(rawmosaic, data):
    with serving(data) as (_, [address]):
        begun(address, "early")
        begun(address, "unwanted")
        assert rawmosaic("acquire", "abort", "early", "--at", address).out.strip() == str(data / "early.h5")
        assert "deleted" in rawmosaic("acquire", "abort", "unwanted", "--discard", "--at", address).out
        until_complete(data / "early.h5")
        assert rawmosaic("acquire", "finish", "nobody", "--at", address).complains_once_about("nobody", "no scan")
    assert not (data / "unwanted.h5").exists()
    with open_slide(data / "early.h5") as slide:
        assert (slide.read_plane(0, 0) == 7).all()


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_in_order_when_told(data, number):
    with serving(data) as (process, [address]):
        begun(address, "a")
        process.send_signal(number)
        _, errors = process.communicate(timeout=LONG_S)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert "a: begun" in errors


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise here")
def test_a_simulation_that_is_interrupted_ends_its_scan_early(data, slide_file):
    with serving(data) as (_, [address]):
        process = subprocess.Popen(
            [*RUN, "simulate", str(slide_file), address, "--rate", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + LONG_S
        with Server(address) as server:
            while not any(scan["planes"] for scan in server.scans()):
                assert time.monotonic() < end
                time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LONG_S)
        assert process.returncode == 130
        assert "Traceback" not in errors
        until_complete(data / "slide.h5")
    assert verify_slide(data / "slide.h5") == []


def test_other_machines_need_keys_and_the_error_says_what_to_type(rawmosaic, data):
    outcome = rawmosaic("acquire", "serve", "--data", data, "--bind", "tcp://*:0")
    assert outcome.complains_once_about("rawmosaic keys new", "rawmosaic keys allow NAME", "--insecure")


def test_a_scanner_with_keys_is_let_in_and_another_is_not(rawmosaic, data, tmp_path, monkeypatch, key_folder, slide_file):
    def keys(where: str, *arguments: object):
        monkeypatch.setenv("RAWMOSAIC_KEYS", str(tmp_path / where))
        return rawmosaic("keys", *arguments)

    server = keys("keys", "new").out.strip()
    keys("keys", "allow", "microscope", keys("microscope", "new").out.strip())
    with serving(data, "--bind", "tcp://0.0.0.0:*", "--keys", key_folder) as (_, [told]):
        address = f"tcp://127.0.0.1:{told.rpartition(':')[2]}"
        keys("microscope", "trust", address, server)
        assert rawmosaic("acquire", "simulate", slide_file, address, "--name", "secret").out.strip() == str(data / "secret.h5")
        keys("mallory", "new")
        keys("mallory", "trust", address, server)
        assert rawmosaic("acquire", "status", address).complains_once_about(address)
    assert verify_slide(data / "secret.h5") == []


def test_mistakes_are_one_line(rawmosaic, tmp_path):
    assert rawmosaic("acquire", "serve", "--data", tmp_path / "nowhere").complains_once_about("nowhere", "does not exist")
    assert rawmosaic("acquire", "serve").complains_once_about("--data")
    wrong = rawmosaic("acquire", "serve", "--data", tmp_path, "--ports", "6010-6000")
    assert wrong.complains_once_about("6010-6000", "FIRST-LAST")
    assert rawmosaic("acquire", "simulate", tmp_path / "nowhere.h5").complains_once_about("nowhere.h5", "no such file")
    assert rawmosaic("acquire", "finish").complains_once_about("name")


def test_a_server_that_is_not_there_is_one_line(rawmosaic, monkeypatch):
    monkeypatch.setattr("rawmosaic.net.acquisition.asking.PATIENCE_S", 0.2)
    outcome = rawmosaic("acquire", "status", "tcp://127.0.0.1:9")
    assert outcome.complains_once_about("tcp://127.0.0.1:9", "rawmosaic acquire serve")


# what is shown

RUNS = {
    "name": "a",
    "state": "acquiring",
    "planes": 1240,
    "planned": 2193,
    "planes_per_s": 19.96,
    "bytes_per_s": 57.8e6,
    "spool_nbytes": 1.2e9,
    "spool_budget": 16e9,
    "written": 1100,
    "codec": "lz4",
    "held": "",
    "error": "",
}


def test_a_row_says_how_far_a_scan_is():
    assert row_of(RUNS) == ["a", "acquiring", "1,240/2,193", "20.0", "57.8", "1.20/16 GB", "1,100", "lz4", ""]
    assert row_of({**RUNS, "planned": None})[2] == "1,240"
    assert row_of({**RUNS, "held": "the disk is full"})[-1] == "held: the disk is full"
    assert row_of({**RUNS, "held": "x", "error": "broken"})[-1] == "broken"


def test_a_row_of_a_finished_scan_shows_no_rates():
    over = {"name": "b", "uid": "u", "state": "complete", "location": "/x/b.h5", "planes": 12}
    assert row_of(over) == ["b", "complete", "12", "", "", "", "", "", ""]


def test_names_with_brackets_are_shown_as_they_are():
    from rich.console import Console

    console = Console(width=160, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(table_of([{**RUNS, "name": "[red]x[/red]"}]))
    assert "[red]x[/red]" in console.export_text()


def test_watching_goes_on_while_the_server_is_away(monkeypatch):
    monkeypatch.setattr("rawmosaic.cli.acquire_command.WATCH_S", 0.0)
    asked = []

    class Away:
        def scans(self):
            asked.append(threading.current_thread())
            if len(asked) == 2:
                raise UnreachableError("no answer")
            if len(asked) == 4:
                raise KeyboardInterrupt
            return [RUNS]

    _watch(Away())
    assert len(asked) == 4
