"""What a scanner hears when somebody else has to do with its scan meanwhile: a clear error, or the right slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bare_client import until
from scans import image, plan, saved, spooled
from scripted_scan import ANY, LONG_S, ScriptedScan

from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.net.acquisition.proxy import SlideProxy
from rawmosaic.net.protocol import ConflictError, EndedError
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError, UnreachableError

SHAPE = (24, 32)
Serve = Callable[..., Manager]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the slides."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(data: Path) -> Iterator[Serve]:
    """Start a manager in this process, whose scans have real processes; all are closed at the end."""
    opened: list[Manager] = []

    def start(address: str = ANY, **options) -> Manager:
        opened.append(Manager(data, address, **options))
        return opened[-1]

    yield start
    for manager in opened:
        manager.close()


@pytest.fixture
def beside() -> Iterator[Callable[..., Future]]:
    """Call something in another thread."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def begun(address: str, *, uid: str | None = None, **options) -> Scanner:
    scanner = Scanner(address, timeout_s=LONG_S)
    scanner.start("a", uid=uid, **{"field_shape": SHAPE, "channels": ["DAPI", "GFP"], **options})
    return scanner


def send(scanner: Scanner, *places: int) -> None:
    for place in places:
        scanner.send(image(place), 0, row=0, column=place)


def ended_by_somebody(address: str, *, discard: bool = False) -> None:
    """Have the scan ended from outside; returns when the server says that it is."""
    with Server(address) as server:
        server.abort("a", discard)
        until(lambda: server.find("a")["state"] in (("discarded",) if discard else ("finishing", "complete")), LONG_S)


def completed(address: str) -> str:
    with Server(address) as server:
        until(lambda: server.find("a")["state"] == "complete", LONG_S)
        return server.find("a")["location"]


def planes_of(location: str | Path) -> dict[int, np.ndarray]:
    """Column → pixels of the first channel, of all planes that are there."""
    with open_slide(location) as slide:
        there = np.flatnonzero(slide.acquired()[:, 0])
        return {int(slide.fields["column"][field]): slide.read_plane(int(field), 0) for field in there}


def assert_holds(location: str | Path, *places: int) -> None:
    found = planes_of(location)
    assert sorted(found) == sorted(places)
    for place in places:
        np.testing.assert_array_equal(found[place], image(place))


# ended by somebody else


@pytest.mark.parametrize("wait", [True, False])
def test_a_scan_that_was_discarded_meanwhile_is_not_finished_but_says_so(serve, data, wait):
    address = serve().address
    scanner = begun(address)
    send(scanner, 0)
    scanner.flush()
    ended_by_somebody(address, discard=True)
    with pytest.raises(EndedError, match=r"discarded.*no slide"):
        scanner.finish(wait=wait)
    assert not list(data.glob("a.*"))
    scanner.start("b", field_shape=SHAPE, channels=["A"])  # it is free for the next
    scanner.abort(discard=True)


def test_planes_of_a_scan_that_was_discarded_are_refused_with_the_reason(serve):
    address = serve().address
    scanner = begun(address)
    ended_by_somebody(address, discard=True)
    send(scanner, 0)
    with pytest.raises(EndedError, match="discarded"):
        scanner.flush()
    with pytest.raises(EndedError, match="discarded"):
        scanner.abort()
    scanner.close()


def test_a_scan_that_somebody_aborted_holds_what_was_acknowledged_and_refuses_the_rest(serve):
    address = serve().address
    scanner = begun(address)
    send(scanner, 0, 1)
    scanner.flush()
    ended_by_somebody(address)
    send(scanner, 2)
    with pytest.raises(EndedError, match="ended on the server"):
        scanner.flush()
    location = scanner.finish()  # what was to be kept is kept
    assert_holds(location, 0, 1)
    with open_slide(location) as slide:
        assert slide.header.extra["ended_early"]


def test_a_scan_that_somebody_finished_meanwhile_is_finished(serve):
    address = serve().address
    with begun(address) as scanner:
        send(scanner, 0, 1)
        scanner.flush()
        with Server(address) as server:
            server.finish("a")
    assert_holds(scanner.location, 0, 1)


def test_a_scan_that_somebody_finished_cannot_be_discarded_any_more(serve):
    address = serve().address
    scanner = begun(address)
    send(scanner, 0)
    scanner.flush()
    with Server(address) as server:
        server.finish("a")
    location = completed(address)
    with pytest.raises(EndedError, match="its slide stays") as caught:
        scanner.abort(discard=True)
    assert caught.value.location == location
    assert_holds(location, 0)


def test_an_exception_at_a_scan_that_was_discarded_is_told_both(serve):
    address = serve().address

    def scan() -> None:
        with begun(address):
            ended_by_somebody(address, discard=True)
            raise RuntimeError("the stage is stuck")

    with pytest.raises(RuntimeError, match="stuck") as caught:
        scan()
    assert "discarded" in caught.value.__notes__[0]
    assert "safe" not in caught.value.__notes__[0]


def test_a_scan_that_was_ended_while_its_scanner_was_silent_is_kept_and_told(serve):
    address = serve(idle_s=0.5).address
    scanner = begun(address)
    send(scanner, 0)
    scanner.flush()
    with Server(address) as server:  # it says only every two seconds that it is there
        until(lambda: server.find("a")["state"] in ("finishing", "complete"), LONG_S)
    send(scanner, 1)
    with pytest.raises(EndedError, match="silent for too long"):
        scanner.flush()
    assert_holds(scanner.finish(), 0)


def test_discarding_ends_a_wait_for_planes_that_are_not_acknowledged(beside):
    with ScriptedScan() as manager, ScriptedScan() as proxy:
        manager.found["address"] = proxy.address
        scanner = begun(manager.address)
        send(scanner, 0)
        flushed = beside(scanner.flush)
        assert proxy.next().request.op == "plane"
        assert not flushed.done()
        manager.found |= {"state": "discarded", "address": ""}
        proxy.close()
        with pytest.raises(EndedError, match="discarded"):
            flushed.result(LONG_S)
        scanner.close()


def test_a_scan_whose_discarding_takes_its_time_is_not_finished(beside):
    with ScriptedScan() as manager, ScriptedScan() as proxy:
        manager.found["address"] = proxy.address
        scanner = begun(manager.address)
        manager.found |= {"state": "finishing", "address": "", "discard": True}
        proxy.close()
        with pytest.raises(EndedError, match="discarded"):
            beside(scanner.finish, wait=False).result(LONG_S)
        scanner.close()


def test_discarding_ends_a_wait_for_the_slide(beside):
    with ScriptedScan() as server:
        scanner = begun(server.address)
        finished = beside(scanner.finish)
        asked = server.next()
        server.found |= {"state": "finishing"}
        asked.answer()
        n = server.ops.count("find")
        until(lambda: server.ops.count("find") > n, LONG_S)
        server.found |= {"state": "discarded", "address": ""}
        with pytest.raises(EndedError, match="discarded"):
            finished.result(LONG_S)


# giving up


def test_a_scan_that_is_held_can_be_given_up_however_many_planes_wait(beside):
    with ScriptedScan() as server:
        scanner = begun(server.address)
        for place in range(100):  # more than are sent before one is answered
            scanner.send(np.zeros((2, 2), np.uint16), 0, row=0, column=place)
        server.next().hold("the disk is full")
        aborted = beside(scanner.abort)
        while (asked := server.next()).request.op == "plane":
            asked.hold("the disk is full")
        assert asked.request.op == "abort"
        asked.answer()
        aborted.result(LONG_S)


def test_a_scan_that_is_given_up_sends_no_plane_again(beside):
    with ScriptedScan() as server:
        scanner = begun(server.address)
        send(scanner, 0, 1)
        first, _ = server.next(), server.next()
        aborted = beside(scanner.abort)
        assert server.next().request.op == "abort"
        first.answer("error", error="busy", message="the disk did not keep it")
        server.close()
        with ScriptedScan(server.address) as restarted:
            again = restarted.next()
            assert again.request.op == "abort"
            again.answer()
            aborted.result(LONG_S)


def test_leaving_in_order_with_a_refused_plane_ends_the_scan_and_says_why(beside):
    with ScriptedScan() as server:

        def scan() -> None:
            with begun(server.address) as scanner:
                send(scanner, 0)

        left = beside(scan)
        server.next().answer("error", error="conflict", message="other pixels")
        abort = server.next()
        assert (abort.request.op, abort.body["discard"]) == ("abort", False)
        abort.answer()
        with pytest.raises(ConflictError, match="other pixels"):
            left.result(LONG_S)


# restarted, or another


def test_a_server_that_does_not_know_the_scan_is_told_from_one_that_is_away(beside):
    with ScriptedScan() as server, Scanner(server.address, timeout_s=0.5) as scanner:
        scanner.start("a", field_shape=SHAPE, channels=["A"])
        send(scanner, 0)
        server.next()
        server.close()
        with ScriptedScan(server.address) as another:
            another.refusal = {"error": "not-a-slide", "message": "no such scan is known here"}
            with pytest.raises(UnreachableError, match=r"did not go on .*no such scan is known here.*kept here"):
                beside(scanner.flush).result(LONG_S)
            scanner.close()


def test_a_server_that_was_restarted_goes_on_with_the_scanner(serve):
    first = serve()
    scanner = begun(first.address)
    send(scanner, 0)
    scanner.flush()
    first.close()
    send(scanner, 1)
    serve(first.address)
    send(scanner, 2)
    assert_holds(scanner.finish(), 0, 1, 2)


def test_two_scanners_of_one_scan_fill_one_slide_until_one_of_them_ends_it(serve):
    address = serve().address
    one, other = begun(address, uid="the-same"), begun(address, uid="the-same")
    send(one, 0, 1, 2)
    send(other, 2, 1, 3)
    one.flush()
    other.flush()
    other.send(image(9), 0, row=0, column=0)  # first come
    with pytest.raises(ConflictError, match="other pixels"):
        other.flush()
    with pytest.raises(ConflictError, match="planned otherwise"):
        begun(address, uid="the-same", size_z=2)
    location = one.finish()
    send(other, 4)
    with pytest.raises(EndedError):
        other.flush()
    assert other.finish() == location
    assert_holds(location, 0, 1, 2, 3)
    with pytest.raises(AcquisitionError, match="complete"):
        begun(address, uid="the-same")


# a port that is another's


@pytest.fixture
def proxies(tmp_path: Path) -> Iterator[tuple[SlideProxy, SlideProxy]]:
    """The proxy of the scan "mine", and that of a scan of smaller images."""
    mine = saved(tmp_path / "mine.scan", plan_of("mine", SHAPE))
    another = saved(tmp_path / "another.scan", plan_of("another", (4, 4)))
    with SlideProxy(mine) as first, SlideProxy(another) as second:
        yield first, second


def plan_of(uid: str, shape: tuple[int, int]):
    facts = vars(plan(shape=shape))
    return type(plan())(**{**facts, "uid": uid, "name": uid})


def test_planes_do_not_go_to_another_scan_that_has_the_port_by_now(proxies):
    mine, another = proxies
    with ScriptedScan() as manager:
        manager.found["address"] = another.address
        scanner = begun(manager.address, uid="mine")
        send(scanner, 0, 1)
        n = manager.ops.count("find")
        until(lambda: manager.ops.count("find") >= n + 3, LONG_S)  # it asks where they belong
        assert scanner.acknowledged == 0
        manager.found["address"] = mine.address
        send(scanner, 2)
        scanner.flush()
        assert scanner.acknowledged == 3
        scanner.close()
    assert sorted(column for column, _ in spooled(mine.folder)) == [0, 1, 2]
    assert not spooled(another.folder)
    assert another.intake.acknowledged == 0


def test_a_scanner_whose_place_is_always_anothers_is_told(proxies):
    _, another = proxies
    with ScriptedScan() as manager, Scanner(manager.address, timeout_s=1.0) as scanner:
        manager.found["address"] = another.address
        scanner.start("a", field_shape=SHAPE, channels=["A"])
        send(scanner, 0)
        with pytest.raises(UnreachableError, match=r"another scan.*kept here"):
            scanner.flush()
        scanner.close()


def test_a_plane_that_another_scan_refused_is_sent_again_where_it_belongs(beside):
    with ScriptedScan() as server:
        scanner = begun(server.address)
        send(scanner, 0, 1)
        first, second = server.next(), server.next()
        first.answer("error", error="not-a-slide", message="the scan is not here; ask the manager where it is")
        second.answer("error", error="not-a-slide", message="the scan is not here; ask the manager where it is")
        for place in range(2):
            again = server.next()
            assert again.body["column"] == place
            again.answer(field=place, repeated=False)
        beside(scanner.flush).result(LONG_S)
        assert scanner.acknowledged == 2
        scanner.close()
