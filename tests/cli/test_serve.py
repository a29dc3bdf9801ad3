"""`rawmosaic serve` and `rawmosaic keys`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from rawmosaic.cli.serve_command import names_for, reachable, status_line
from rawmosaic.net.dealer import DealerStats

LONG_S = 30
RUN = [sys.executable, "-c", "from rawmosaic.cli.main import run; run()"]


@contextmanager
def serving(*arguments: object, n_lines: int = 1) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """`rawmosaic serve` in a process of its own, and the lines that it says first."""
    process = subprocess.Popen(
        [*RUN, "serve", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield process, [process.stdout.readline().rstrip() for _ in range(n_lines)]
    finally:
        process.kill()
        process.communicate(timeout=LONG_S)


@pytest.fixture(autouse=True)
def key_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's keys."""
    monkeypatch.setenv("RAWMOSAIC_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


def address_in(line: str) -> str:
    return re.search(r"tcp://\S+", line)[0]


def test_a_served_slide_is_seen_at_the_address_that_is_printed(rawmosaic, slide_file):
    with serving(slide_file, "--bind", "tcp://127.0.0.1:*") as (_, [line]):
        assert line.startswith("slide: rawmosaic view tcp://127.0.0.1:")
        there = json.loads(rawmosaic("info", address_in(line), "--json").out)
        here = json.loads(rawmosaic("info", slide_file, "--json").out)
        assert {**there, "location": None} == {**here, "location": None}


def test_a_raw_acquisition_is_served_under_a_name_of_choice(rawmosaic, acquisition):
    with serving("--name", f"to day={acquisition}", "--bind", "tcp://127.0.0.1:*") as (_, [line]):
        assert address_in(line).endswith("/to%20day")
        assert json.loads(rawmosaic("info", address_in(line), "--json").out)["fields"] == 6


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_cleanly_when_told(slide_file, number):
    with serving(slide_file, "--bind", "tcp://127.0.0.1:*") as (process, _):
        process.send_signal(number)
        _, errors = process.communicate(timeout=LONG_S)
        assert process.returncode == 0
        assert "Traceback" not in errors


def test_other_machines_need_keys_and_the_error_says_what_to_type(rawmosaic, slide_file):
    outcome = rawmosaic("serve", slide_file, "--bind", "tcp://*:0")
    assert outcome.complains_once_about("rawmosaic keys new", "rawmosaic keys allow NAME", "--insecure")
    outcome = rawmosaic("serve", slide_file, "--broker", "tcp://192.0.2.1:5556")
    assert outcome.complains_once_about("tcp://192.0.2.1:5556", "rawmosaic keys trust", "insecure")


def test_insecure_must_be_typed_and_is_enough(slide_file):
    with serving(slide_file, "--bind", "tcp://0.0.0.0:*", "--insecure") as (_, [line]):
        assert "rawmosaic view tcp://" in line
        assert "0.0.0.0" not in line


def test_a_viewer_with_keys_is_let_in_and_another_is_not(rawmosaic, slide_file, tmp_path, monkeypatch, key_folder):
    def keys(where: str, *arguments: object):
        monkeypatch.setenv("RAWMOSAIC_KEYS", str(tmp_path / where))
        return rawmosaic("keys", *arguments)

    server = keys("keys", "new").out.strip()
    alice = keys("alice", "new").out.strip()
    assert re.fullmatch("[0-9a-f]{64}", server)
    assert server != alice
    keys("keys", "allow", "alice", alice)
    with serving(slide_file, "--bind", "tcp://0.0.0.0:*", "--keys", key_folder, n_lines=2) as (_, [line, trust]):
        port = address_in(line).split(":")[2].partition("/")[0]
        assert trust.endswith(server)
        location = f"tcp://127.0.0.1:{port}"
        keys("alice", "trust", location, server)
        assert rawmosaic("info", f"{location}/slide").code == 0
        keys("mallory", "new")
        keys("mallory", "trust", location, server)
        outcome = rawmosaic("info", f"{location}/slide")
        assert outcome.code == 2
        assert "fields" not in outcome.out


def test_a_location_that_is_no_slide_is_one_line(rawmosaic, tmp_path):
    assert rawmosaic("serve", tmp_path / "nowhere.h5").complains_once_about("nowhere.h5", "no such file")
    assert rawmosaic("serve").complains_once_about("location")


def test_a_name_is_that_of_the_file_made_unique():
    names = names_for(["scans/a.h5", "b/a.h5", "folder/", "tcp://host:1/far", "c/a.h5"], [("mine", "x.h5"), ("a", "y.h5")])
    assert names == {
        "mine": "x.h5",
        "a": "y.h5",
        "a-2": "scans/a.h5",
        "a-3": "b/a.h5",
        "folder": "folder/",
        "far": "tcp://host:1/far",
        "a-4": "c/a.h5",
    }
    with pytest.raises(click.UsageError, match="mine"):
        names_for([], [("mine", "x.h5"), ("mine", "y.h5")])


@pytest.mark.parametrize("location", ["/", ".", "..", "a\nb.h5", "...h5"])
def test_every_location_gets_a_name_that_can_be_asked_for(location):
    [name] = names_for([location], [])
    assert name.isprintable()
    assert name.strip()


def test_an_address_on_all_interfaces_is_told_by_the_name_of_the_machine():
    import socket

    assert reachable("tcp://0.0.0.0:5555") == reachable("tcp://[::]:5555") == f"tcp://{socket.gethostname()}:5555"
    assert reachable("tcp://127.0.0.1:5555") == "tcp://127.0.0.1:5555"


def test_the_status_tells_what_was_done_since():
    before, now = DealerStats(10, 100, 10**6, 1, 0), DealerStats(20, 300, 5 * 10**6, 2, 7)
    assert status_line(before, now, 2.0) == "2 viewers · 100 tiles/s · 2.0 MB/s · 7 waiting"
    assert status_line(now, now, 0.0).startswith("2 viewers · 0 tiles/s")


# keys


def test_keys_are_listed_and_forgotten(rawmosaic):
    assert "no keys yet" in rawmosaic("keys", "list").out
    own = rawmosaic("keys", "new").out.strip()
    rawmosaic("keys", "allow", "alice", "a" * 64)
    rawmosaic("keys", "allow", "scanner", "b" * 64, "--dealer")
    rawmosaic("keys", "trust", "tcp://Host:5555", "c" * 64)
    shown = rawmosaic("keys", "list").out
    for words in (own, "alice", "a" * 64, "scanner", "b" * 64, "tcp://host:5555", "c" * 64):
        assert words in shown
    assert "clients" in rawmosaic("keys", "forget", "alice").out
    assert "servers" in rawmosaic("keys", "forget", "tcp://host:5555").out
    assert rawmosaic("keys", "forget", "alice").complains_once_about("alice", "scanner")
    assert rawmosaic("keys", "forget", "--pair", "default").code == 0
    assert own not in rawmosaic("keys", "list").out


def test_a_secret_is_never_printed(rawmosaic, key_folder):
    told = rawmosaic("keys", "new").out + rawmosaic("keys", "list").out
    secret = re.search(r"secret (\w+)", (key_folder / "default.key").read_text())[1]
    assert secret not in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["allow", "alice", "123"], ["64 hexadecimal digits"]),
        (["allow", "al ice", "a" * 64], ["no name"]),
        (["trust", "host", "a" * 64], ["tcp://HOST:PORT"]),
        (["new", "../x"], ["no name"]),
        (["forget", "--pair", "nobody"], ["no key pair nobody"]),
        (["allow", "alice"], ["missing", "public"]),
    ],
)
def test_mistakes_with_keys_are_one_line(rawmosaic, arguments, words):
    assert rawmosaic("keys", *arguments).complains_once_about(*words)


def test_a_pair_is_not_made_twice(rawmosaic):
    rawmosaic("keys", "new")
    assert rawmosaic("keys", "new").complains_once_about("already", "forget --pair default")
