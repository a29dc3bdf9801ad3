"""The scanner against a server that does what the test tells it."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from bare_client import until
from scripted_scan import LONG_S, ScriptedScan

from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.messages import pixels
from rawmosaic.net.acquisition.scan_line import seen_from
from rawmosaic.net.protocol import ConflictError, ExistsError
from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError, SlideError, UnreachableError
from rawmosaic.storage.slide import new_fields

SHAPE = (20, 30)
NBYTES = 2 * 20 * 30


@pytest.fixture
def server() -> Iterator[ScriptedScan]:
    with ScriptedScan() as server:
        yield server


@pytest.fixture
def scanner(server: ScriptedScan) -> Iterator[Scanner]:
    """A scanner with a scan of two channels and no planned fields."""
    scanner = Scanner(server.address, timeout_s=LONG_S)
    scanner.start("a", field_shape=SHAPE, channels=["DAPI", "GFP"], pixel_size_um=0.5)
    yield scanner
    scanner.close()


@pytest.fixture
def beside() -> Iterator[Callable[..., Future]]:
    """Call something in another thread."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def image(number: int = 0) -> np.ndarray:
    return (np.arange(NBYTES // 2, dtype=np.uint32) * 31 + 977 * number).astype(np.uint16).reshape(SHAPE)


def test_a_plane_arrives_as_it_was_handed_in(server, scanner):
    camera = image(3)
    scanner.send(camera, "GFP", x_um=1.5, y_um=-2.0, z_um=4.0, metadata={"temperature": 36.9})
    camera[:] = 0  # the camera goes on
    asked = server.next()
    [payload] = asked.request.buffers
    np.testing.assert_array_equal(pixels(asked.body["encoding"], SHAPE, payload), image(3))
    assert asked.body["crc"] == zlib.crc32(payload)
    assert (asked.body["scan"], asked.body["channel"], asked.body["shape"]) == (scanner.uid, 1, list(SHAPE))
    assert (asked.body["x_um"], asked.body["y_um"], asked.body["z_um"]) == (1.5, -2.0, 4.0)
    assert asked.body["metadata"] == {"temperature": 36.9}


def test_the_plan_arrives_as_it_was_told(server):
    fields = new_fields(3, SHAPE)
    with Scanner(server.address) as scanner:
        scanner.start("planned", field_shape=SHAPE, channels=["A"], pixel_size_um=0.25, fields=fields, size_z=2, scenes=["w1"])
        [plan] = server.plans
        assert (plan.name, plan.uid, plan.header.pixel_size_um, plan.size_z) == ("planned", scanner.uid, 0.25, 2)
        assert plan.scenes == ("w1",)
        np.testing.assert_array_equal(plan.fields, fields)
        scanner.close()


@pytest.mark.parametrize("encoding", ["raw", "blosc"])
def test_planes_may_travel_compressed(server, encoding):
    scanner = Scanner(server.address, encoding=encoding)
    scanner.start("a", field_shape=SHAPE, channels=["A"])
    flat, noise = np.full(SHAPE, 7, np.uint16), np.random.default_rng(1).integers(0, 65536, SHAPE, np.uint16)
    for number, sent in enumerate((flat, noise)):
        scanner.send(sent, 0, row=0, column=number)
        asked = server.next()
        np.testing.assert_array_equal(pixels(asked.body["encoding"], SHAPE, asked.request.buffers[0]), sent)
        assert len(asked.request.buffers[0]) < NBYTES + 1 or asked.body["encoding"] == "raw"
        if number == 0:
            assert asked.body["encoding"] == encoding
    scanner.close()


def test_a_plane_counts_when_it_is_acknowledged_and_not_before(server, scanner, beside):
    scanner.send(image(), 0, row=0, column=0)
    asked = server.next()
    flushed = beside(scanner.flush)
    assert scanner.acknowledged == 0
    assert not flushed.done()
    asked.answer(field=0, repeated=False)
    flushed.result(LONG_S)
    assert scanner.acknowledged == 1


def test_a_full_window_is_a_wait_and_no_error(server, beside):
    large = np.zeros((200, 300), np.uint16)
    server.found["window_nbytes"] = int(2.5 * large.nbytes)
    scanner = Scanner(server.address, timeout_s=LONG_S)
    scanner.start("a", field_shape=large.shape, channels=["A"])
    for number in range(2):
        scanner.send(large, 0, row=0, column=number)
    first, _second = server.next(), server.next()
    third = beside(scanner.send, large, 0, row=0, column=2)
    assert not third.done()
    assert server.nothing_asked()
    first.answer(field=0, repeated=False)
    third.result(LONG_S)
    assert server.next().body["column"] == 2
    scanner.close()


def test_a_plane_larger_than_the_window_goes_alone(server):
    server.found["window_nbytes"] = NBYTES // 2
    scanner = Scanner(server.address, timeout_s=LONG_S)
    scanner.start("a", field_shape=SHAPE, channels=["A"])
    scanner.send(image(), 0, row=0, column=0)
    server.next().answer(field=0, repeated=False)
    scanner.send(image(), 0, row=0, column=1)
    server.next()
    scanner.close()


def test_the_reason_why_a_scan_is_held_can_be_seen_until_it_goes_on(server, scanner):
    scanner.send(image(), 0, row=0, column=0)
    asked = server.next()
    assert scanner.held == ""
    asked.hold("the disk is full")
    until(lambda: scanner.held == "the disk is full", LONG_S)
    asked.answer(field=0, repeated=False)
    until(lambda: scanner.held == "", LONG_S)
    assert scanner.acknowledged == 1


def test_a_server_that_is_busy_is_asked_again(server, scanner, beside):
    scanner.send(image(5), 0, row=0, column=0)
    first = server.next()
    first.answer("error", error="busy", message="later")
    again = server.next()
    assert bytes(again.request.buffers[0]) == bytes(first.request.buffers[0])
    again.answer(field=0, repeated=False)
    beside(scanner.flush).result(LONG_S)


def test_what_the_server_refuses_is_raised_once_by_the_next_call(server, scanner, beside):
    scanner.send(image(), 0, row=0, column=0)
    server.next().answer("error", error="conflict", message="other pixels")
    with pytest.raises(ConflictError, match="other pixels"):
        beside(scanner.flush).result(LONG_S)
    scanner.send(image(), 0, row=0, column=1)  # the scan goes on
    server.next().answer(field=1, repeated=False)
    beside(scanner.flush).result(LONG_S)
    assert scanner.acknowledged == 1


def test_what_was_not_acknowledged_goes_again_to_a_server_that_was_restarted(server, scanner, beside):
    for number in range(3):
        scanner.send(image(number), 0, row=0, column=number)
    first, *_ = [server.next() for _ in range(3)]
    first.answer(field=0, repeated=False)
    until(lambda: scanner.acknowledged == 1, LONG_S)
    server.close()
    flushed = beside(scanner.flush)
    with ScriptedScan(server.address) as restarted:
        again = [restarted.next() for _ in range(2)]
        assert [asked.body["column"] for asked in again] == [1, 2]
        for asked in again:
            asked.answer(field=asked.body["column"], repeated=True)
        flushed.result(LONG_S)
        assert scanner.acknowledged == 3


def test_a_proxy_that_comes_back_elsewhere_is_found_through_the_manager(server, beside):
    proxy = ScriptedScan()
    server.found["address"] = proxy.address
    scanner = Scanner(server.address, timeout_s=LONG_S)
    scanner.start("a", field_shape=SHAPE, channels=["A"])
    scanner.send(image(), 0, row=0, column=0)
    proxy.next()
    proxy.close()
    with ScriptedScan() as other:
        server.found["address"] = other.address
        other.next().answer(field=0, repeated=False)
        beside(scanner.flush).result(LONG_S)
        scanner.close()


def test_a_server_that_stays_away_is_told_and_nothing_is_lost(server, beside):
    scanner = Scanner(server.address, timeout_s=0.5)
    scanner.start("a", field_shape=SHAPE, channels=["A"])
    scanner.send(image(), 0, row=0, column=0)
    server.next()
    server.close()
    with pytest.raises(UnreachableError, match="kept here"):
        beside(scanner.flush).result(LONG_S)
    with ScriptedScan(server.address) as restarted:
        restarted.next().answer(field=0, repeated=False)
        until(lambda: scanner.acknowledged == 1, LONG_S)
    scanner.close()


def test_a_scan_that_was_ended_meanwhile_takes_no_more_planes_and_says_so(server, scanner, beside):
    scanner.send(image(), 0, row=0, column=0)
    server.next()
    server.close()
    with ScriptedScan(server.address, state="complete", over=True):
        with pytest.raises(SlideError, match="ended on the server"):
            beside(scanner.flush).result(LONG_S)


def test_finishing_waits_for_all_planes_and_for_the_slide(server, scanner, beside):
    scanner.send(image(), 0, row=0, column=0)
    finished = beside(scanner.finish)
    plane = server.next()
    assert plane.request.op == "plane"
    assert server.nothing_asked()
    plane.answer(field=0, repeated=False)
    finish = server.next()
    assert (finish.request.op, finish.body["scan"]) == ("finish", scanner.uid)
    server.found |= {"state": "finishing"}
    finish.answer()
    n = server.ops.count("find")
    until(lambda: server.ops.count("find") >= n + 3, LONG_S)  # it asks on
    assert not finished.done()
    server.found |= {"state": "complete", "address": ""}
    assert finished.result(LONG_S) == "/slides/a.h5"
    assert scanner.acknowledged == 1


def test_a_finish_whose_answer_was_lost_is_finished(server, scanner, beside):
    finished = beside(scanner.finish)
    assert server.next().request.op == "finish"
    server.close()
    with ScriptedScan(server.address, state="complete", over=True):
        assert finished.result(LONG_S) == "/slides/a.h5"


def test_the_next_scan_may_begin_while_the_last_is_finished(server, scanner, beside):
    finished = beside(scanner.finish, wait=False)
    server.next().answer()
    finished.result(LONG_S)
    former = scanner.uid
    scanner.start("b", field_shape=SHAPE, channels=["A"])
    assert scanner.uid != former
    scanner.send(image(), 0, row=0, column=0)
    assert server.next().body["scan"] == scanner.uid


def test_a_slide_that_cannot_be_completed_is_an_error_that_says_why(server, scanner, beside):
    finished = beside(scanner.finish)
    asked = server.next()
    server.found |= {"state": "failed", "error": "no space left"}
    asked.answer()
    with pytest.raises(SlideError, match=r"no space left.*safe"):
        finished.result(LONG_S)


def test_leaving_by_an_exception_ends_the_scan_early_and_keeps_it(server, beside):
    def scan() -> None:
        with Scanner(server.address, timeout_s=LONG_S) as scanner:
            scanner.start("a", field_shape=SHAPE, channels=["A"])
            raise RuntimeError("the stage is stuck")

    ended = beside(scan)
    abort = server.next()
    assert (abort.request.op, abort.body["discard"]) == ("abort", False)
    abort.answer()
    with pytest.raises(RuntimeError, match="stuck"):
        ended.result(LONG_S)


def test_an_exception_is_not_hidden_by_a_server_that_is_away(server, monkeypatch):
    monkeypatch.setattr("rawmosaic.net.acquisition.scanner.ABORT_S", 0.2)
    uids = []

    def scan() -> None:
        with Scanner(server.address) as scanner:
            scanner.start("a", field_shape=SHAPE, channels=["A"])
            uids.append(scanner.uid)
            server.close()
            raise RuntimeError("the stage is stuck")

    with pytest.raises(RuntimeError, match="stuck") as caught:
        scan()
    assert uids[0] in caught.value.__notes__[0]


def test_leaving_in_order_finishes_the_scan(server, beside):
    def scan() -> None:
        with Scanner(server.address, timeout_s=LONG_S) as scanner:
            scanner.start("a", field_shape=SHAPE, channels=["A"])

    ended = beside(scan)
    finish = server.next()
    assert finish.request.op == "finish"
    server.found |= {"state": "complete", "address": ""}
    finish.answer()
    ended.result(LONG_S)


def test_discarding_is_said_and_what_waits_is_not_sent(server, beside):
    server.found["window_nbytes"] = 100 * NBYTES
    scanner = Scanner(server.address, timeout_s=LONG_S)
    scanner.start("a", field_shape=SHAPE, channels=["A"])
    aborted = beside(scanner.abort, discard=True)
    asked = server.next()
    assert (asked.request.op, asked.body["discard"]) == ("abort", True)
    asked.answer()
    aborted.result(LONG_S)
    with pytest.raises(AcquisitionError, match=r"start\(\)"):
        scanner.send(image(), 0, row=0, column=0)


def test_a_name_that_is_taken_is_an_error_of_start(server):
    server.refusal = {"error": "exists", "message": "there is a slide called a already"}
    with pytest.raises(ExistsError, match="called a already"):
        Scanner(server.address).start("a", field_shape=SHAPE, channels=["A"])


def test_a_proxy_that_is_not_there_yet_is_waited_for(server, beside):
    server.found |= {"address": "", "state": "waiting"}
    scanner = Scanner(server.address, timeout_s=LONG_S)
    started = beside(scanner.start, "a", field_shape=SHAPE, channels=["A"])
    until(lambda: server.ops.count("find") >= 2, LONG_S)
    assert not started.done()
    server.found |= {"address": server.address}
    started.result(LONG_S)
    scanner.close()


def test_a_new_scan_that_does_not_come_about_leaves_nothing_on_the_server(server):
    server.found |= {"address": "", "state": "failed", "error": "no key"}
    with pytest.raises(UnreachableError, match="no key"):
        Scanner(server.address).start("a", field_shape=SHAPE, channels=["A"])
    assert server.given_up == [server.plans[0].uid]
    with pytest.raises(UnreachableError, match="no key"):
        Scanner(server.address).start("a", field_shape=SHAPE, channels=["A"], uid="one-to-go-on-with")
    assert server.given_up == [server.plans[0].uid]


def test_a_scanner_can_be_used_by_one_thread_after_another(server, scanner):
    for number in range(3):
        thread = threading.Thread(target=scanner.send, args=(image(number), 0), kwargs={"row": 0, "column": number})
        thread.start()
        thread.join(LONG_S)
        asked = server.next()
        assert asked.body["column"] == number
        asked.answer(field=number, repeated=False)


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (OutOfRangeError, "channels 0 to 1", {"channel": 2, "row": 0, "column": 0}),
        (OutOfRangeError, "DAPI, GFP", {"channel": "Cy5", "row": 0, "column": 0}),
        (OutOfRangeError, "z 0 to 0", {"channel": 0, "row": 0, "column": 0, "z": 1}),
        (AcquisitionError, "row= and column=", {"channel": 0, "row": 0}),
        (AcquisitionError, "not planned", {"channel": 0, "field": 0}),
        (AcquisitionError, "uint16", {"channel": 0, "row": 0, "column": 0, "image": np.zeros(SHAPE)}),
        (AcquisitionError, "field_shape", {"channel": 0, "row": 0, "column": 0, "image": np.zeros((21, 30), np.uint16)}),
        (AcquisitionError, "JSON", {"channel": 0, "row": 0, "column": 0, "metadata": {"what": object()}}),
    ],
)
def test_a_plane_that_does_not_fit_the_scan_is_refused_before_it_is_sent(server, scanner, error, words, arguments):
    with pytest.raises(error, match=words):
        scanner.send(**{"image": image(), **arguments})
    assert server.nothing_asked()


def test_a_proxy_on_all_interfaces_is_reached_where_the_manager_is():
    assert seen_from("tcp://scope.example.org:5556", "tcp://0.0.0.0:40001") == "tcp://scope.example.org:40001"
    assert seen_from("tcp://[fe80::1]:5556", "tcp://[::]:40001") == "tcp://[fe80::1]:40001"
    assert seen_from("tcp://host:5556", "tcp://192.0.2.7:40001") == "tcp://192.0.2.7:40001"
