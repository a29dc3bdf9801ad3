"""The slide proxy: what it acknowledges is on the disk, whatever comes, whatever is killed, and whatever the disk does."""

from __future__ import annotations

import errno
import functools
import json
import logging
import random
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from mutation import Mutator
from scans import LONG_S, SHAPE, UID, BareScanner, ProxyProcess, image, plan, saved, spooled, until

from rawmosaic.net.acquisition import intake as intake_module
from rawmosaic.net.acquisition.files import read_json, replace_json
from rawmosaic.net.acquisition.intake import Intake
from rawmosaic.net.acquisition.messages import encoded
from rawmosaic.net.acquisition.proxy import SlideProxy
from rawmosaic.net.acquisition.spool import SpoolReader, SpoolWriter, segments
from rawmosaic.net.keys import KeyFolder
from rawmosaic.storage.errors import AccessError, NotASlideError, UnreachableError, WriteError

N_MUTATED = 4000
KILLS = 4
SMALL_SPOOL = 1 << 18
"""Holds some hundred planes, in segments of 64 kB."""


class GatedSpool(SpoolWriter):
    """Its syncs wait for a gate, once it is closed."""

    def __init__(self, *arguments):
        self.gate, self.syncs = threading.Event(), 0
        self.gate.set()
        super().__init__(*arguments)

    def sync(self) -> None:
        assert self.gate.wait(LONG_S)
        self.syncs += 1
        super().sync()


class FailingSpool(SpoolWriter):
    """Fails as long as it is told to."""

    append_fails: OSError | None = None
    sync_fails: OSError | None = None

    def append(self, *arguments):
        self._fail(self.append_fails)
        return super().append(*arguments)

    def sync(self) -> None:
        self._fail(self.sync_fails)
        super().sync()

    @staticmethod
    def _fail(error: OSError | None) -> None:
        if error is not None:
            told = WriteError(error.strerror)
            told.errno = error.errno
            raise told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "a scan.scan")


@contextmanager
def proxied(
    folder: Path, *, kind: type[SpoolWriter] = SpoolWriter, free=None, **options
) -> Iterator[tuple[SlideProxy, BareScanner]]:
    """A proxy in this process, and a scanner that is connected to it."""
    seams = {"retry_s": 0.01, "spool": kind, **({"free_nbytes": free} if free else {})}
    with SlideProxy(folder, make_intake=functools.partial(Intake, **seams), **options) as proxy:
        with BareScanner(proxy.address) as scanner:
            yield proxy, scanner


def spool_of(proxy: SlideProxy) -> SpoolWriter:
    return proxy.intake._spool


def appended(folder: Path) -> int:
    """Planes in the files of the spool, acknowledged or not."""
    return len(spooled(folder))


# what is acknowledged


def test_planes_are_in_the_spool_once_they_are_acknowledged(folder):
    with proxied(folder) as (_, scanner):
        numbers = [
            scanner.plane(place, channel, encoding) for place in range(6) for channel, encoding in ((0, "raw"), (1, "blosc"))
        ]
        for number in numbers:
            reply = scanner.reply_to(number)
            assert (reply["status"], reply["repeated"]) == ("ok", False)
        found = spooled(folder)
        assert len(found) == 12
        for (place, channel), pixels in found.items():
            assert np.array_equal(pixels, image(place, channel))


def test_fields_are_numbered_in_the_order_in_which_their_places_come(folder):
    with proxied(folder) as (_, scanner):
        order = [5, 3, 5, 0, 3]
        numbers = [scanner.plane(place, channel) for place, channel in zip(order, (0, 0, 1, 0, 1), strict=True)]
        assert [scanner.reply_to(number)["field"] for number in numbers] == [0, 1, 0, 2, 1]
        assert scanner.reply_to(scanner.plane(9, x_um=1.5, y_um=2.5))["field"] == 3
        assert scanner.reply_to(scanner.plane(9, 1, x_um=1.5, y_um=2.5))["field"] == 3
        assert scanner.reply_to(scanner.plane(9, x_um=1.5, y_um=2.75))["field"] == 4


def test_planned_fields_keep_their_numbers(tmp_path):
    folder = saved(tmp_path / "planned", plan(n_fields=10))
    with proxied(folder) as (_, scanner):
        assert [scanner.reply_to(scanner.plane(field, field=field))["field"] for field in (7, 2, 9)] == [7, 2, 9]


def test_a_plane_is_acknowledged_only_once_it_is_synced(folder):
    with proxied(folder, kind=GatedSpool) as (proxy, scanner):
        spool_of(proxy).gate.clear()
        numbers = [scanner.plane(place) for place in range(5)]
        until(lambda: appended(folder) == 5)
        assert scanner.hears_next(scanner.send("ping")), "no plane was answered before the ping"
        assert proxy.intake.acknowledged == 0
        spool_of(proxy).gate.set()
        assert {scanner.reply_to(number)["status"] for number in numbers} == {"ok"}
        assert proxy.intake.acknowledged == 5


def test_many_planes_share_a_sync(folder):
    with proxied(folder, kind=GatedSpool) as (proxy, scanner):
        spool = spool_of(proxy)
        before = spool.syncs
        spool.gate.clear()
        first = scanner.plane(0)
        until(lambda: appended(folder) == 1)
        numbers = [scanner.plane(place) for place in range(1, 50)]
        until(lambda: appended(folder) == 50)
        spool.gate.set()
        for number in (first, *numbers):
            assert scanner.reply_to(number)["status"] == "ok"
        assert spool.syncs - before <= 2


def test_without_durability_nothing_waits_for_the_disk(folder):
    with proxied(folder, kind=GatedSpool, durability="page-cache") as (proxy, scanner):
        spool_of(proxy).gate.clear()
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        spool_of(proxy).gate.set()
        before = spool_of(proxy).syncs
        assert scanner.ask("finish", scan=UID)["status"] == "ok"
        assert spool_of(proxy).syncs == before + 1, "the end is on the disk, and all before it"


def test_a_plane_that_comes_again_is_acknowledged_again_and_kept_once(folder):
    with proxied(folder) as (proxy, scanner):
        assert scanner.reply_to(scanner.plane(0, 0, "raw"))["repeated"] is False
        used = proxy.intake.spool_nbytes
        for encoding in ("raw", "blosc"):
            reply = scanner.reply_to(scanner.plane(0, 0, encoding))
            assert (reply["status"], reply["field"], reply["repeated"]) == ("ok", 0, True)
        assert proxy.intake.spool_nbytes == used
        assert proxy.intake.acknowledged == 1


def test_another_plane_in_the_same_place_is_refused(folder):
    with proxied(folder) as (_, scanner):
        scanner.reply_to(scanner.plane(0))
        reply = scanner.reply_to(scanner.plane(0, pixels=image(77)))
        assert reply["error"] == "conflict"
        assert "field 0, channel 0, z 0, t 0" in reply["message"]
        reply = scanner.reply_to(scanner.plane(0, 1, pixels=image(0, 1, (12, 32))))
        assert reply["error"] == "conflict"
        assert np.array_equal(spooled(folder)[0, 0], image(0))


def test_who_lost_the_connection_is_answered_on_the_next_and_costs_no_more_memory(folder):
    with proxied(folder, kind=GatedSpool) as (proxy, first):
        spool_of(proxy).gate.clear()
        first.plane(0)
        until(lambda: appended(folder) == 1)
        nbytes = proxy.waiting_nbytes
        with BareScanner(proxy.address) as second:
            number = second.plane(0)
            assert second.hears_next(second.send("ping"))
            assert proxy.waiting_nbytes == nbytes
            spool_of(proxy).gate.set()
            assert second.reply_to(number)["status"] == "ok"
        assert appended(folder) == 1


# what is refused

WRONG = {
    "a channel that was not planned": ({"channel": 2}, "out-of-range"),
    "a z that was not planned": ({"z": 1}, "out-of-range"),
    "a t that was not planned": ({"t": 3}, "out-of-range"),
    "a scene that was not planned": ({"scene": 0}, "out-of-range"),
    "a number where fields have none": ({"field": 0}, "contradiction"),
    "no place": ({"row": None}, "contradiction"),
    "a column that is none": ({"column": "3"}, "protocol"),
    "another scan": ({"scan": "other"}, "not-a-slide"),
    "no scan": ({"scan": None}, "protocol"),
    "a shape that it has not": ({"shape": [24, 31]}, "protocol"),
    "a wrong checksum": ({"crc": 1}, "protocol"),
    "another encoding than said": ({"encoding": "blosc"}, "protocol"),
}


@pytest.mark.parametrize(("wrong", "error"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_plane_is_refused_with_a_reason_and_the_next_is_taken(folder, wrong, error):
    with proxied(folder) as (_, scanner):
        reply = scanner.reply_to(scanner.plane(0, **wrong))
        assert (reply["status"], reply["error"]) == ("error", error)
        assert len(reply["message"]) > 20
        assert scanner.reply_to(scanner.plane(1))["field"] == 0, "a plane that was refused has no place"
        assert list(spooled(folder)) == [(1, 0)]


def test_a_plane_larger_than_planned_is_refused(folder):
    with proxied(folder) as (_, scanner):
        reply = scanner.reply_to(scanner.plane(0, pixels=image(0, 0, (25, 20))))
        assert reply["error"] == "contradiction"
        assert "24 × 32" in reply["message"]


def test_a_planned_field_is_named_by_its_number(tmp_path):
    folder = saved(tmp_path / "planned", plan(n_fields=3))
    with proxied(folder) as (_, scanner):
        assert scanner.reply_to(scanner.plane(0))["error"] == "contradiction"
        reply = scanner.reply_to(scanner.plane(0, field=3))
        assert (reply["error"], reply["value"]) == ("out-of-range", 3)
        assert scanner.reply_to(scanner.plane(0, field=1, pixels=image(0, 0, (10, 10))))["error"] == "conflict"


def test_another_version_is_refused_by_name(folder):
    with proxied(folder) as (_, scanner):
        assert scanner.ask("hello", v=0)["error"] == "version"
        assert scanner.ask("plane", (b"x",), v=2)["error"] == "version"
        assert scanner.ask("start")["error"] == "protocol"
        assert scanner.ask("hello")["scan"] == UID


def test_what_says_that_it_holds_gigabytes_is_refused_before_any_memory_is_taken(folder):
    with proxied(folder) as (_, scanner):
        right = bytes(encoded(image(0), "blosc"))
        for said in (2**31 - 1, 2**32 - 1, 0):
            bomb = right[:4] + struct.pack("<I", said) + right[8:]
            keys = {"scan": UID, "channel": 0, "shape": list(SHAPE), "row": 0, "column": 0, "encoding": "blosc"}
            assert scanner.ask("plane", (bomb,), crc=zlib.crc32(bomb), **keys)["error"] == "protocol"
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"


def test_nonsense_does_no_harm(folder):
    """Thousands of wrong messages to a living proxy: whatever of them is taken in is a plane, and what was there stays."""
    mutator, right = Mutator(3), []
    for channel, encoding in ((0, "raw"), (1, "blosc")):
        payload = bytes(encoded(image(2, channel), encoding))
        told = {"scan": UID, "channel": channel, "shape": list(SHAPE), "encoding": encoding, "crc": zlib.crc32(payload)}
        header = {"v": 1, "id": 5, "op": "plane", **told, "row": 0, "column": 2, "metadata": {"a": [1, 2]}}
        right.append([json.dumps(header).encode(), payload])
    right += [[json.dumps({"v": 1, "id": 6, "op": op}).encode()] for op in ("hello", "ping", "start")]
    with proxied(folder) as (proxy, scanner):
        assert scanner.reply_to(scanner.plane(1))["status"] == "ok"
        for number in range(N_MUTATED):
            scanner.socket.send_multipart(mutator.mutated(right[number % len(right)]))
            while scanner.socket.poll(0):
                scanner.socket.recv_multipart()
        with BareScanner(proxy.address) as another:
            assert another.reply_to(another.plane(123_456))["status"] == "ok"
        assert proxy.failure is None
        until(lambda: proxy.waiting_nbytes == 0)
    with SpoolReader(folder / "spool") as reader:
        while (found := reader.next()) is not None:
            facts, payload, _ = found
            assert zlib.crc32(payload) == facts.crc
            assert facts.channel in (0, 1)
            assert facts.shape <= SHAPE


# too fast, too much


def test_memory_is_bounded_by_the_window_whatever_is_sent(folder):
    window = 40_000
    with proxied(folder, kind=GatedSpool, window_nbytes=window) as (proxy, scanner):
        spool_of(proxy).gate.clear()
        numbers = {scanner.plane(place): place for place in range(200)}
        busy = []
        while len(busy) < 190:
            reply = scanner.answer()
            assert (reply["status"], reply.get("error")) == ("error", "busy")
            assert proxy.waiting_nbytes <= 1.25 * window
            busy.append(numbers[reply["id"]])
        spool_of(proxy).gate.set()
        for place in range(200):  # whoever was told to come back does
            while (reply := scanner.reply_to(scanner.plane(place))).get("error") == "busy":
                pass
            assert reply["status"] == "ok"
        assert sorted(spooled(folder)) == [(place, 0) for place in range(200)]


def test_a_full_spool_holds_the_scanner_and_goes_on_once_it_is_released(folder):
    count, seen = 400, {}
    with proxied(folder, spool_nbytes=SMALL_SPOOL) as (proxy, scanner):
        numbers = {scanner.plane(place) for place in range(count)}
        while (reply := scanner.receive())["status"] == "ok" or "spool is full" not in reply["reason"]:
            numbers.discard(reply["id"] if reply["status"] == "ok" else None)
        assert (reply["status"], reply["event"]) == ("more", "held")
        assert reply["id"] in numbers
        assert proxy.intake.spool_nbytes <= SMALL_SPOOL
        until(lambda: "spool is full" in read_json(folder / "proxy.json")["held"])
        with SpoolReader(folder / "spool") as reader:  # a writer that writes nothing but what may go
            while numbers:
                while (found := reader.next()) is not None:
                    facts, payload, segment = found
                    seen[facts.column] = payload
                    if reader.finished_segment(segment):
                        replace_json(folder / "writer.json", {"releasable_segment": segment})
                while scanner.socket.poll(20):
                    reply = scanner.receive()
                    if reply["status"] == "ok":
                        numbers.discard(reply["id"])
            while (found := reader.next()) is not None:
                seen[found[0].column] = found[1]
        until(lambda: read_json(folder / "proxy.json")["held"] == "")
        assert proxy.intake.acknowledged == count
    assert {place: payload == image(place).tobytes() for place, payload in seen.items()} == dict.fromkeys(range(count), True)


@pytest.mark.parametrize("how", ["no room is left", "a write fails"])
def test_a_full_disk_holds_the_scanner_and_loses_nothing(folder, caplog, how):
    free = [1 << 40]
    with proxied(folder, kind=FailingSpool, free=lambda _: free[0]) as (proxy, scanner):
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        if how == "a write fails":
            spool_of(proxy).append_fails = OSError(errno.ENOSPC, "No space left on device")
        else:
            free[0] = 100
        numbers = [scanner.plane(place) for place in range(1, 20)]
        reply = scanner.held_for("the disk is full")
        assert (reply["event"], reply["id"]) == ("held", numbers[0])
        assert scanner.reply_to(scanner.send("ping"))["held"] == proxy.intake.held
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        spool_of(proxy).append_fails, free[0] = None, 1 << 40
        assert {scanner.reply_to(number)["status"] for number in numbers} == {"ok"}
        assert len(spooled(folder)) == 20
        until(lambda: proxy.intake.held == "")


def test_a_scanner_that_is_held_is_not_taken_for_gone_however_long_it_waits(folder):
    with proxied(folder, free=lambda _: 100) as (proxy, scanner):
        scanner.plane(0)
        scanner.held_for("the disk is full")
        proxy._heard_at -= 3600.0  # it has been waiting for so long, and says nothing
        scanner.held_for("the disk is full")
        until(lambda: read_json(folder / "proxy.json")["last_heard_s_ago"] < 1800.0)


def test_who_waits_for_a_slow_disk_hears_of_it(folder, monkeypatch):
    monkeypatch.setattr(intake_module, "SLOW_S", 0.0)
    with proxied(folder, kind=GatedSpool) as (proxy, scanner):
        spool_of(proxy).gate.clear()
        number = scanner.plane(0)
        reply = scanner.held_for("the disk is slow")
        assert (reply["id"], reply["event"]) == (number, "held")
        spool_of(proxy).gate.set()
        assert scanner.reply_to(number)["status"] == "ok"


def test_what_the_disk_did_not_keep_is_not_acknowledged_and_may_come_again(folder):
    with proxied(folder, kind=FailingSpool) as (proxy, scanner):
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        spool_of(proxy).sync_fails = OSError(errno.EIO, "Input/output error")
        reply = scanner.reply_to(scanner.plane(1))
        assert reply["error"] == "busy"
        assert "Input/output error" in reply["message"]
        spool_of(proxy).sync_fails = None
        reply = scanner.reply_to(scanner.plane(1))
        assert (reply["status"], reply["repeated"]) == ("ok", False), "it is written anew"
        assert segments(folder / "spool") == [1, 2], "and elsewhere"
        assert proxy.intake.acknowledged == 2


def test_what_came_while_a_sync_failed_is_not_taken_for_safe_by_the_next(folder):
    with proxied(folder, kind=FailingSpool) as (proxy, scanner):
        spool, syncing, appended_next = spool_of(proxy), threading.Event(), threading.Event()

        def fails_once() -> None:
            syncing.set()
            assert appended_next.wait(LONG_S)
            spool.sync = SpoolWriter.sync.__get__(spool)  # the system tells a failure once, and forgets what it could not write
            told = WriteError("Input/output error")
            told.errno = errno.EIO
            raise told

        spool.sync = fails_once
        numbers = [scanner.plane(0)]
        assert syncing.wait(LONG_S)
        numbers.append(scanner.plane(1))
        until(lambda: appended(folder) == 2)
        appended_next.set()
        assert [scanner.reply_to(number).get("error") for number in numbers] == ["busy", "busy"]
        assert [scanner.reply_to(scanner.plane(place))["repeated"] for place in range(2)] == [False, False]
        assert proxy.intake.acknowledged == 2
        with SpoolReader(folder / "spool", 2) as reader:
            assert [reader.next()[0].column for _ in range(2)] == [0, 1], "both are written anew"


def test_a_plane_that_was_taken_back_may_be_in_the_slide_and_does_not_come_otherwise(folder):
    with proxied(folder, kind=FailingSpool) as (proxy, scanner):
        spool_of(proxy).sync_fails = OSError(errno.EIO, "Input/output error")
        assert scanner.reply_to(scanner.plane(0))["error"] == "busy"
        spool_of(proxy).sync_fails = None
        assert scanner.reply_to(scanner.plane(0, pixels=image(77)))["error"] == "conflict"
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        assert np.array_equal(spooled(folder)[0, 0], image(0))


def test_nothing_is_marked_as_safe_that_was_appended_after_a_sync(folder):
    with proxied(folder, kind=GatedSpool) as (proxy, scanner):
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        spool, marked = spool_of(proxy), []
        append, syncs = spool.append, spool.syncs

        def append_while_one_looks(*arguments):
            position = append(*arguments)
            proxy.intake._sync_batch([])  # as the other thread does for a plane that came again
            marked.append((spool.safe.ordinal, spool.syncs > syncs))
            return position

        spool.append = append_while_one_looks
        assert scanner.reply_to(scanner.plane(1))["status"] == "ok"
        assert marked == [(2, True)]


def test_a_disk_too_full_for_a_status_is_no_reason_to_end(folder):
    with proxied(folder) as (proxy, scanner):
        (folder / "proxy.json").unlink()
        (folder / "proxy.json").mkdir()  # nothing can be put in its place
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        proxy._say_status()
        assert proxy.failure is None
        assert (folder / "proxy.json").is_dir(), "nothing was told"
        (folder / "proxy.json").rmdir()
        until(lambda: (read_json(folder / "proxy.json") or {}).get("acknowledged") == 1)


# the end


def test_a_finished_scan_says_so_on_the_disk_and_takes_nothing_more(folder):
    with proxied(folder) as (_, scanner):
        scanner.plane(0)
        assert scanner.ask("finish", scan=UID, planes=2)["error"] == "conflict", "the scanner knows better how many there are"
        assert not (folder / "end.json").exists()
        finish = scanner.ask("finish", scan=UID, planes=1)
        assert (finish["status"], finish["planes"]) == ("ok", 1)
        end = read_json(folder / "end.json")
        assert (end["early"], end["discard"], end["planes"]) == (False, False, 1)
        assert scanner.reply_to(scanner.plane(1))["error"] == "ended"
        assert scanner.reply_to(scanner.plane(0))["repeated"] is True
        assert scanner.ask("finish", scan=UID)["status"] == "ok"
        assert scanner.ask("abort", scan=UID, discard=True)["error"] == "conflict"
        assert scanner.ask("finish", scan="other")["error"] == "not-a-slide"


def test_an_end_is_not_answered_before_all_planes_are_safe(folder):
    with proxied(folder, kind=GatedSpool) as (proxy, scanner):
        spool_of(proxy).gate.clear()
        plane, finish = scanner.plane(0), scanner.send("finish", scan=UID)
        until(lambda: appended(folder) == 1)
        assert scanner.hears_next(scanner.send("ping"))
        assert not (folder / "end.json").exists()
        spool_of(proxy).gate.set()
        assert [scanner.answer()["id"] for _ in range(2)] == [plane, finish]


@pytest.mark.parametrize("discard", [False, True])
def test_a_scan_that_is_given_up_says_so(folder, discard):
    with proxied(folder) as (_, scanner):
        scanner.plane(0)
        assert scanner.ask("abort", scan=UID, discard=discard, reason="a fire")["planes"] == 1
        end = read_json(folder / "end.json")
        assert (end["early"], end["discard"], end["reason"]) == (True, discard, "a fire")


def test_a_scan_that_is_held_can_be_given_up(folder):
    free = [1 << 40]
    with proxied(folder, free=lambda _: free[0]) as (_, scanner):
        assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        free[0] = 0
        numbers = [scanner.plane(place) for place in range(1, 4)]
        scanner.held_for("the disk is full")
        abort = scanner.send("abort", scan=UID)
        assert [scanner.reply_to(number)["error"] for number in numbers] == ["ended"] * 3
        assert scanner.reply_to(abort)["planes"] == 1
        assert read_json(folder / "end.json")["early"] is True


# one after the other


def test_the_next_proxy_knows_what_the_last_one_acknowledged(folder):
    with proxied(folder) as (_, scanner):
        for place in range(5):
            assert scanner.reply_to(scanner.plane(place))["field"] == place
    with proxied(folder) as (proxy, scanner):
        assert scanner.ask("hello")["planes"] == 5
        reply = scanner.reply_to(scanner.plane(3))
        assert (reply["field"], reply["repeated"]) == (3, True)
        assert scanner.reply_to(scanner.plane(3, pixels=image(8)))["error"] == "conflict"
        assert scanner.reply_to(scanner.plane(9))["field"] == 5
        assert scanner.reply_to(scanner.plane(3, 1))["field"] == 3
        assert proxy.intake.acknowledged == 7


def test_what_was_released_is_known_to_the_next_proxy(folder):
    with proxied(folder, spool_nbytes=1 << 19) as (_, scanner):
        for place in range(80):
            scanner.reply_to(scanner.plane(place))
        for place in range(3):
            scanner.reply_to(scanner.plane(500, x_um=0.1 * place, y_um=1.0))
        closed = segments(folder / "spool")[-2]
        replace_json(folder / "writer.json", {"releasable_segment": closed + 100})
        until(lambda: segments(folder / "spool") == [closed + 1])
    with proxied(folder) as (proxy, scanner):
        assert proxy.intake.acknowledged == 83
        for place in (0, 40, 79):
            reply = scanner.reply_to(scanner.plane(place))
            assert (reply["field"], reply["repeated"]) == (place, True)
        assert scanner.reply_to(scanner.plane(500, x_um=0.1 * 2, y_um=1.0))["repeated"] is True
        assert scanner.reply_to(scanner.plane(0, pixels=image(1)))["error"] == "conflict"
        assert scanner.reply_to(scanner.plane(99))["field"] == 83


def test_segments_that_were_released_but_not_deleted_go_and_count_once(folder):
    with proxied(folder, spool_nbytes=1 << 19) as (_, scanner):
        for place in range(60):
            scanner.reply_to(scanner.plane(place))
        copies = {path: path.read_bytes() for path in (folder / "spool").iterdir()}
        last = segments(folder / "spool")[-1]
        replace_json(folder / "writer.json", {"releasable_segment": last - 1})
        until(lambda: segments(folder / "spool") == [last])
    for path, data in copies.items():  # as after a kill between the two
        path.write_bytes(data)
    with proxied(folder) as (proxy, scanner):
        assert proxy.intake.acknowledged == 60
        assert segments(folder / "spool") == [last]
        assert scanner.reply_to(scanner.plane(60))["field"] == 60


def test_a_plane_that_was_damaged_on_the_disk_may_come_again(folder):
    with proxied(folder) as (_, scanner):
        for place in range(3):
            scanner.reply_to(scanner.plane(place))
    path = folder / "spool" / "00000001.spool"
    data = bytearray(path.read_bytes())
    at = data.index(image(1).tobytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    with proxied(folder) as (_, scanner):
        assert scanner.reply_to(scanner.plane(1))["repeated"] is False
        assert scanner.reply_to(scanner.plane(0))["repeated"] is True
    assert np.array_equal(spooled(folder)[1, 0], image(1))


def test_a_plane_that_a_power_failure_tore_in_an_earlier_segment_is_not_taken_for_there(folder):
    with proxied(folder, spool_nbytes=SMALL_SPOOL) as (_, scanner):
        for place in range(60):
            scanner.reply_to(scanner.plane(place))
    assert len(segments(folder / "spool")) > 1
    path = folder / "spool" / "00000001.spool"
    data = path.read_bytes()
    place = next(place for place in range(60) if image(place + 1).tobytes() not in data)  # the last that lies in it
    path.write_bytes(data.replace(image(place).tobytes(), bytes(image(place).nbytes)))
    with proxied(folder, spool_nbytes=SMALL_SPOOL) as (_, scanner):
        assert scanner.reply_to(scanner.plane(place))["repeated"] is False
        assert scanner.reply_to(scanner.plane(place - 1))["repeated"] is True
    assert np.array_equal(spooled(folder)[place, 0], image(place))


# a process


def test_whatever_is_killed_every_acknowledged_plane_is_in_the_spool(folder):
    """Killed again and again, at moments that the planes acknowledged so far decide, in the midst of sending."""
    chosen, acknowledged = random.Random(5), set()
    for killing in range(KILLS):
        with ProxyProcess(folder) as proxy, BareScanner(proxy.address()) as scanner:
            missing = [place for place in range(100 * (killing + 1)) if place not in acknowledged]
            numbers = {scanner.plane(place): place for place in missing}
            for _ in range(chosen.randrange(1, 90)):
                reply = scanner.answer()
                assert reply["status"] == "ok", reply
                acknowledged.add(numbers[reply["id"]])
            proxy.kill()
            while scanner.socket.poll(0):  # what it had said already
                if (reply := scanner.receive())["status"] == "ok":
                    acknowledged.add(numbers[reply["id"]])
            found = spooled(folder)
            assert acknowledged <= {place for place, _ in found}
            assert all(np.array_equal(pixels, image(place)) for (place, _), pixels in found.items())
    count = 100 * KILLS
    with ProxyProcess(folder) as proxy, BareScanner(proxy.address()) as scanner:
        fields = [scanner.reply_to(scanner.plane(place))["field"] for place in range(count)]
        assert sorted(fields) == list(range(count))
        assert scanner.ask("finish", scan=UID, planes=count)["status"] == "ok"
    assert len(spooled(folder)) == count


def test_a_process_says_how_it_is_and_ends_when_its_input_closes(folder):
    with ProxyProcess(folder, "--spool-bytes", "1M", "--window-bytes", "2M") as proxy:
        with BareScanner(proxy.address()) as scanner:
            assert scanner.ask("hello")["window_nbytes"] == 2 << 20
            assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
        until(lambda: proxy.status()["acknowledged"] == 1)
        status = proxy.status()
        assert status["spool_budget"] == 1 << 20
        assert status["spool_nbytes"] > image(0).nbytes
        assert status["received_nbytes"] == status["acknowledged_nbytes"] == image(0).nbytes
        assert status["held"] == ""
        assert 0 <= status["last_heard_s_ago"] < LONG_S
        assert set(status) >= {"planes_per_s", "pid", "durability", "ended"}
        proxy.process.stdin.close()
        assert proxy.process.wait(LONG_S) == 0


def test_a_second_process_waits_until_the_first_is_gone(folder):
    with ProxyProcess(folder) as first:
        first.address()
        with ProxyProcess(folder) as second:
            with BareScanner(first.address()) as scanner:
                assert scanner.reply_to(scanner.plane(0))["status"] == "ok"
            assert second.process.poll() is None
            assert second.status() == {}
            first.kill()
            with BareScanner(second.address()) as scanner:
                assert scanner.ask("hello")["planes"] == 1


def test_a_folder_that_is_no_scan_ends_a_process_with_a_reason(tmp_path):
    with ProxyProcess(tmp_path) as proxy:
        assert proxy.process.wait(LONG_S) == 1
    assert "no plan" in (tmp_path / "said").read_text()


# who may send


def test_an_address_that_others_reach_needs_keys(folder):
    with pytest.raises(AccessError, match="keys"):
        SlideProxy(folder, bind="tcp://*:*")


def test_with_keys_only_listed_scanners_get_in(folder, tmp_path):
    server, known, stranger = (KeyFolder(tmp_path / name) for name in ("server", "known", "stranger"))
    pairs = {keys: keys.new_pair() for keys in (server, known, stranger)}
    server.allow("microscope", pairs[known].public)
    with SlideProxy(folder, curve=server.server_curve()) as proxy:
        for keys, gets_in in ((known, True), (stranger, False)):
            keys.trust(proxy.address, pairs[server].public)
            with zmq.Context() as context, closing(context.socket(zmq.DEALER)) as socket:
                socket.linger = 0
                keys.client_curve(proxy.address).apply(socket)
                monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
                socket.connect(proxy.address)
                assert monitor.poll(int(1000 * LONG_S))
                event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
                assert (event == zmq.EVENT_HANDSHAKE_SUCCEEDED) is gets_in
                socket.disable_monitor()
                monitor.close()


def test_an_address_that_is_taken_is_told(folder, tmp_path):
    with proxied(folder) as (proxy, _), pytest.raises(UnreachableError, match="cannot be bound"):
        SlideProxy(saved(tmp_path / "other"), bind=proxy.address)


def test_a_proxy_closed_twice_is_harmless(folder):
    proxy = SlideProxy(folder)
    proxy.close()
    proxy.close()
    with pytest.raises(NotASlideError):
        SlideProxy(folder.parent)
