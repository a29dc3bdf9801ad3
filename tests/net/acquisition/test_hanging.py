"""Processes and disks that do not answer: nobody waits for them without a limit, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from scans import until
from sending import assert_same, begin, microscope, send_all
from server_process import ANY, LONG_S, ServerProcess

from rawmosaic.net.acquisition import Scanner, supervised_scan
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.intake import write_end
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.net.acquisition.simulate import planes_in_order
from rawmosaic.net.protocol import ConflictError
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import UnreachableError, WriteError
from rawmosaic.storage.hdf5 import claim as claims
from rawmosaic.storage.hdf5.claim import is_claimed

STOPS = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
SOON_S = 0.3
"""What processes are given here to end by themselves."""

BLOCKS = """
import os, sys, time
if any(word.endswith("acquisition.proxy") for word in sys.orig_argv):
    for name in ("fdatasync", "fsync"):
        if hasattr(os, name):
            def sync(descriptor, really=getattr(os, name)):
                while os.path.exists({away!r}):
                    open({reached!r}, "a").close()
                    time.sleep(0.02)
                return really(descriptor)
            setattr(os, name, sync)
"""
"""Read by Python as it starts: a proxy's syncs last as long as a file is there."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(data: Path) -> Iterator[Callable[..., Manager]]:
    """Start a manager in this process; all are closed at the end."""
    opened: list[Manager] = []

    def start(**options) -> Manager:
        opened.append(Manager(data, ANY, **{"ending_s": SOON_S, **options}))
        return opened[-1]

    yield start
    for manager in opened:
        manager.close()


def stop(data: Path, name: str, *kinds: str) -> list[int]:
    """Have processes of a scan do nothing any more, not even end; their numbers."""
    says = [data / f"{name}.scan" / f"{kind}.json" for kind in kinds]
    until(lambda: all(map(read_json, says)), LONG_S)
    numbers = [read_json(path)["pid"] for path in says]
    for number in numbers:
        os.kill(number, signal.SIGSTOP)
    return numbers


def acquired(address: str, name: str, camera, keys=None) -> None:
    """A scan whose scanner is gone before its end; what it sent is acknowledged."""
    scanner = Scanner(address)
    begin(scanner, name, camera)
    send_all(scanner, camera, keys)
    scanner.flush()
    scanner.close()


@STOPS
def test_an_end_is_answered_when_the_disk_has_it_and_a_proxy_that_hangs_does_not_prevent_it(serve, data):
    camera, manager = microscope(1), serve()
    acquired(manager.address, "a", camera)
    stop(data, "a", "proxy")
    with Server(manager.address) as server:
        location = Path(server.finish("a"))
        assert (data / "a.scan" / "end.json").exists() or location.exists()
        until(lambda: server.find("a")["state"] == "complete", LONG_S)
        assert server.finish("a") == str(location), "whoever asks again hears the same"
    assert_same(location, camera)


@STOPS
def test_a_scan_whose_processes_hang_is_discarded_all_the_same(serve, data):
    manager = serve()
    acquired(manager.address, "a", microscope(2))
    stop(data, "a", "proxy", "writer")
    with Server(manager.address) as server:
        server.abort("a", discard=True)
        until(lambda: server.find("a")["state"] == "discarded", LONG_S)
        server.abort("a", discard=True)
        with pytest.raises(ConflictError, match="deleted"):
            server.finish("a")
    assert not list(data.glob("a.*"))


@STOPS
def test_what_is_to_be_deleted_and_is_finished_already_is_kept_and_that_is_told(serve, data):
    camera, manager = microscope(3), serve()
    acquired(manager.address, "a", camera)
    with Server(manager.address) as server:
        server.finish("a")
        with pytest.raises(ConflictError, match="is kept, in"):
            server.abort("a", discard=True)
        until(lambda: server.find("a")["state"] == "complete", LONG_S)
    assert_same(data / "a.h5", camera)


@STOPS
def test_a_server_whose_processes_hang_ends_and_the_next_one_goes_on(serve, data):
    camera, first = microscope(4), serve()
    acquired(first.address, "a", camera)
    acquired(first.address, "b", camera)
    stopped = stop(data, "a", "proxy", "writer") + stop(data, "b", "proxy")
    first.close()
    assert stopped
    assert not [path for path in data.glob("*.scan/*.lock") if is_claimed(path)]
    with Server(serve().address) as server:
        for name in "ab":
            assert_same_later(server, name, camera)


def assert_same_later(server: Server, name: str, camera) -> None:
    location = server.finish(name)
    until(lambda: server.find(name)["state"] == "complete", LONG_S)
    assert_same(location, camera)


def test_a_proxy_whose_disk_does_not_answer_ends_with_its_scan_and_others_go_on(serve, data, tmp_path, monkeypatch):
    away, reached = tmp_path / "away", tmp_path / "reached"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(BLOCKS.format(away=str(away), reached=str(reached)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"), prepend=os.pathsep)
    camera, manager = microscope(5), serve()
    keys = list(planes_in_order(camera))
    scanner = Scanner(manager.address)
    begin(scanner, "a", camera)
    send_all(scanner, camera, keys[:5])
    scanner.flush()
    away.touch()
    send_all(scanner, camera, keys[5:6])
    until(reached.exists, LONG_S)
    with Server(manager.address) as server:
        server.finish("a")
        assert away.exists(), "it was not waited for"
        until(lambda: server.find("a")["state"] == "complete", LONG_S)
    away.unlink()
    scanner.close()
    with open_slide(data / "a.h5") as slide:
        assert slide.acquired().sum() in (5, 6), "the sixth was never acknowledged"
    acquired(manager.address, "b", camera)


def test_an_end_that_the_disk_does_not_take_holds_up_nobody_else(serve, data, monkeypatch):
    asked, free = threading.Event(), threading.Event()

    def slow_end(folder: Path, **end) -> None:
        if folder.name == "slow.scan":
            asked.set()
            assert free.wait(LONG_S)
        write_end(folder, **end)

    monkeypatch.setattr(supervised_scan, "write_end", slow_end)
    camera, manager = microscope(6), serve()
    for name in ("slow", "quick"):
        acquired(manager.address, name, camera)

    def finished(name: str) -> str:
        with Server(manager.address) as server:
            return server.finish(name)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(finished, "slow")
        assert asked.wait(LONG_S)
        with Server(manager.address) as server:
            assert_same_later(server, "quick", camera)
            assert server.find("slow")["state"] != "complete"
            assert not slow.done(), "nothing is promised before the disk has it"
            free.set()
            assert slow.result(LONG_S) == str(data / "slow.h5")
            until(lambda: server.find("slow")["state"] == "complete", LONG_S)
    assert_same(data / "slow.h5", camera)


@STOPS
def test_whoever_ends_a_scan_while_the_server_is_killed_asks_again_and_ends_it(data):
    camera = microscope(7)
    with ServerProcess(data) as process:
        acquired(process.address, "a", camera)
        [proxy] = stop(data, "a", "proxy")

        def finished() -> str:
            with Server(process.address) as server:
                return server.finish("a")

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(finished)
            until(lambda: "ended from outside" in (data / "server.log").read_text(), LONG_S)
            process.kill()
            assert not (data / "a.scan" / "end.json").exists()
            os.kill(proxy, signal.SIGCONT)
            process.start()
            with suppress(UnreachableError):  # the server takes its time to come back
                first.result(LONG_S)
        assert [finished(), finished()] == [str(data / "a.h5")] * 2
        with Server(process.address) as server:
            until(lambda: server.find("a")["state"] == "complete", LONG_S)
    assert_same(data / "a.h5", camera)


# file systems without locks


def does_nothing(*_) -> None:
    """Says that the lock was given."""


def is_not_supported(*_) -> None:
    raise OSError(claims.errno.ENOLCK, "No locks available")


@pytest.mark.skipif(claims.fcntl is None, reason="Windows locks another way")
@pytest.mark.parametrize(("flock", "reason"), [(does_nothing, "second time"), (is_not_supported, "No locks available")])
def test_a_folder_whose_locks_do_not_keep_two_apart_is_refused(data, monkeypatch, flock, reason):
    monkeypatch.setattr(claims.fcntl, "flock", flock)
    with pytest.raises(WriteError, match=f"{reason}.*Choose a folder"):
        Manager(data, ANY)
