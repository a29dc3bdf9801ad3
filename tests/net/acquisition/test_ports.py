"""Ports of proxies: from the range that a firewall lets through, and what happens where another scan's proxy has one by now."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scans import LONG_S, SHAPE, UID, BareScanner, image, plan, saved, spooled, until
from scripted_scan import ScriptedScan

from rawmosaic.net.acquisition import Scanner, children
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.net.acquisition.proxy import SlideProxy
from rawmosaic.net.acquisition.spool import SpoolWriter
from rawmosaic.net.addresses import addresses_in, is_local, port_range
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AccessError, UnreachableError, WriteError

HOST = "tcp://127.0.0.1"


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that another program has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@contextmanager
def range_behind_a_taken_port() -> Iterator[tuple[int, int]]:
    """(first, last) of ports of which the first is taken."""
    with taken_port() as first:
        yield first, min(first + 200, 65535)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def other_plan(uid: str):
    return type(plan())(**{**vars(plan()), "uid": uid, "name": uid})


# ranges


def test_a_range_of_ports_has_one_spelling():
    assert port_range(" 6000 - 6063 ") == "6000-6063"
    assert port_range("1-65535") == "1-65535"
    assert port_range("7000-7000") == "7000-7000"


@pytest.mark.parametrize("text", ["", "6000", "6000-", "-6000", "6001-6000", "0-10", "6000-65536", "6000:6010", "six-ten", "²-³"])
def test_what_is_no_range_of_ports_is_told(text: str):
    with pytest.raises(AccessError, match="FIRST-LAST"):
        port_range(text)


def test_an_address_stands_for_those_of_its_ports():
    assert addresses_in("tcp://*:6000-6002") == ["tcp://*:6000", "tcp://*:6001", "tcp://*:6002"]
    assert addresses_in("tcp://[::1]:6000-6000") == ["tcp://[::1]:6000"]
    assert addresses_in("tcp://a-1:*") == ["tcp://a-1:*"]
    assert is_local("tcp://127.0.0.1:6000-6001")
    assert not is_local("tcp://10.0.0.1:6000-6001")


def test_proxies_take_the_free_ports_of_their_range(tmp_path: Path):
    with range_behind_a_taken_port() as (first, last):
        bind = f"{HOST}:{first}-{last}"
        with (
            SlideProxy(saved(tmp_path / "a"), bind=bind) as one,
            SlideProxy(saved(tmp_path / "b", other_plan("b")), bind=bind) as other,
        ):
            ports = [port_of(one.address), port_of(other.address)]
            assert first < ports[0] < ports[1] <= last
            for proxy, uid in ((one, UID), (other, "b")):
                with BareScanner(proxy.address) as scanner:
                    assert scanner.ask("hello")["scan"] == uid


def test_a_range_that_is_used_up_is_told(tmp_path: Path):
    with taken_port() as port, pytest.raises(UnreachableError, match=r"all ports are taken \(1 in all\).*--ports"):
        SlideProxy(saved(tmp_path / "a"), bind=f"{HOST}:{port}-{port}")


def test_a_manager_gives_its_range_to_the_proxies(tmp_path: Path):
    with range_behind_a_taken_port() as (first, last), Manager(tmp_path, f"{HOST}:*", ports=f"{first}-{last}") as manager:
        with Scanner(manager.address, timeout_s=LONG_S) as scanner, Server(manager.address) as asked:
            scanner.start("a", field_shape=SHAPE, channels=["DAPI"])
            scanner.send(image(0), 0, row=0, column=0)
            scanner.flush()
            assert first < port_of(asked.find("a")["address"]) <= last
        with open_slide(tmp_path / "a.h5") as slide:
            np.testing.assert_array_equal(slide.read_plane(0, 0), image(0))


def test_a_scan_that_no_port_is_left_for_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(children, "HOPELESS", 1)
    monkeypatch.setattr(children, "FIRST_REST_S", LONG_S)
    with taken_port() as port, Manager(tmp_path, f"{HOST}:*", ports=f"{port}-{port}") as manager:
        with Scanner(manager.address, timeout_s=LONG_S) as scanner:
            with pytest.raises(UnreachableError, match=r"all ports are taken \(1 in all\).*--ports"):
                scanner.start("a", field_shape=SHAPE, channels=["DAPI"])


def test_a_manager_with_a_wrong_range_does_not_begin(tmp_path: Path):
    with pytest.raises(AccessError, match="FIRST-LAST"):
        Manager(tmp_path, f"{HOST}:*", ports="6010-6000")


# another scan's


def test_whatever_is_meant_for_another_scan_is_answered_so_that_the_manager_is_asked(tmp_path: Path):
    """And nothing of it is kept; who does not say which scan is meant is answered."""
    folder = saved(tmp_path / "a")
    with SlideProxy(folder) as proxy, BareScanner(proxy.address) as scanner:
        for number in (
            scanner.plane(0, scan="another"),
            scanner.plane(0, scan="another", row=None, column=None, field=7, shape=[4, 4]),
            scanner.send("finish", scan="another"),
            scanner.send("abort", scan="another", discard=True),
            scanner.send("ping", scan="another"),
        ):
            reply = scanner.reply_to(number)
            assert reply["error"] == "not-a-slide"
            assert "ask the manager" in reply["message"]
        assert scanner.ask("ping", scan=UID)["status"] == "ok"
        assert scanner.ask("ping")["status"] == "ok"
        assert scanner.ask("hello")["planes"] == 0
    assert not spooled(folder)
    assert not (folder / "end.json").exists()


def test_planes_under_way_when_another_scan_takes_the_port_are_in_their_own_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mine, others = saved(tmp_path / "mine", other_plan("mine")), saved(tmp_path / "others", other_plan("others"))
    is_slow = [True]
    sync = SpoolWriter.sync

    def broken(self: SpoolWriter) -> None:
        """Nothing is acknowledged before the first proxy is gone."""
        if is_slow[0] and self.folder.parent == mine and spooled(mine):
            raise _write_error()
        sync(self)

    monkeypatch.setattr(SpoolWriter, "sync", broken)
    with ScriptedScan() as manager:
        first = SlideProxy(mine)
        manager.found["address"] = first.address
        scanner = Scanner(manager.address, timeout_s=LONG_S)
        scanner.start("mine", uid="mine", field_shape=SHAPE, channels=["DAPI", "GFP"])
        for place in range(5):
            scanner.send(image(place), 0, row=0, column=place)
        until(lambda: len(spooled(mine)) == 5)
        assert scanner.acknowledged == 0
        first.close()
        with SlideProxy(others, bind=first.address) as stranger:
            assert stranger.address == first.address
            n = manager.ops.count("find")
            until(lambda: manager.ops.count("find") > n)
            is_slow[0] = False
            with SlideProxy(mine) as second:
                manager.found["address"] = second.address
                scanner.flush()
                assert scanner.acknowledged == 5
                assert second.intake.acknowledged == 5
                assert stranger.intake.acknowledged == 0
                scanner.close()
    assert sorted(column for column, _ in spooled(mine)) == list(range(5))
    assert not spooled(others)


def _write_error() -> Exception:
    error = WriteError("Input/output error")
    error.errno = 5
    return error
