"""Ten scans at once, with scanners beside them that send what they should not: each gets a clear error, and no scan notices."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mutation import Mutator
from scans import LONG_S, BareScanner, until
from server_process import ServerProcess
from specimen import CHANNELS, INDEXED, PLANNED, Specimen

from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.net.acquisition.plan import ScanPlan, plan_to_body
from rawmosaic.storage import open_slide
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.slide import Channel, Header

N_SCANS, N_PLACES = 10, 12
N_MUTATED = 300
SHAPE = (24, 32)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of its own process, in a folder of its own."""
    data = tmp_path / "data"
    data.mkdir()
    with ServerProcess(data) as server:
        yield server


def specimen_of(number: int) -> Specimen:
    return Specimen(number, N_PLACES, SHAPE, PLANNED if number % 2 else INDEXED)


def begun(scanner: Scanner, number: int) -> Specimen:
    """A scan of that number, begun."""
    specimen = specimen_of(number)
    scanner.start(f"scan {number}", field_shape=SHAPE, channels=CHANNELS, pixel_size_um=0.5, fields=specimen.fields)
    return specimen


def assert_right(location: str | Path, specimen: Specimen) -> None:
    """The slide holds the specimen, and nothing else."""
    assert verify_slide(location) == []
    with open_slide(location) as slide:
        assert slide.acquired().sum() == len(specimen.keys)
        for number, channel in np.argwhere(slide.acquired()).tolist():
            key = (specimen.place(slide.fields[number]), channel)
            np.testing.assert_array_equal(slide.read_plane(number, channel), specimen.plane(key))


def header_of(uid: str, **keys: object) -> dict:
    """Of a plane of zeros that is right but for what `keys` say."""
    right = {
        "scan": uid,
        "channel": 0,
        "shape": list(SHAPE),
        "encoding": "raw",
        "row": 0,
        "column": 0,
        "crc": zlib.crc32(zeros()),
    }
    return {name: value for name, value in {**right, **keys}.items() if value is not None}


def zeros(shape: tuple[int, int] = SHAPE) -> bytes:
    return bytes(2 * shape[0] * shape[1])


WRONG = {
    "a version before the first": ({"v": 0}, "version"),
    "a version to come": ({"v": 2}, "version"),
    "a channel outside the plan": ({"channel": 2}, "out-of-range"),
    "a z outside the plan": ({"z": 1}, "out-of-range"),
    "a t outside the plan": ({"t": 1}, "out-of-range"),
    "a scene outside the plan": ({"scene": 0}, "out-of-range"),
    "a field where none are planned": ({"field": 0}, "contradiction"),
    "no place": ({"row": None}, "contradiction"),
    "a shape that the pixels have not": ({"shape": [24, 33]}, "protocol"),
    "a shape of three": ({"shape": [24, 32, 1]}, "protocol"),
    "a shape below nothing": ({"shape": [-24, -32]}, "protocol"),
    "a place that is no number": ({"x_um": 1e301, "y_um": 0.0, "row": None, "column": None}, "protocol"),
    "another scan": ({"scan": "no-such-scan"}, "not-a-slide"),
    "a wrong checksum": ({"crc": 7}, "protocol"),
    "pixels that are none": ({"encoding": "blosc"}, "protocol"),
}


def test_what_does_not_fit_a_scan_is_refused_by_name_and_the_scan_goes_on(server):
    with Scanner(server.address) as scanner:
        specimen = begun(scanner, 0)
        with Server(server.address) as manager:
            proxy = manager.find("scan 0")["address"]
        with BareScanner(proxy) as hostile:
            for what, (wrong, error) in WRONG.items():
                reply = hostile.ask("plane", (zeros(),), **header_of(scanner.uid, **wrong))
                assert (reply["status"], reply["error"]) == ("error", error), what
                assert len(reply["message"].split()) > 4, what
            large = hostile.ask(
                "plane", (zeros((24, 31)),), **header_of(scanner.uid, shape=[31, 24], crc=zlib.crc32(zeros((31, 24))))
            )
            assert large["error"] == "contradiction"
            assert "24 × 32" in large["message"], "the limits are told"
            assert hostile.ask("hello")["planes"] == 0, "nothing was taken in"
        for key in specimen.keys:
            scanner.send(specimen.plane(key), key[1], **specimen.where(key))
        location = scanner.finish()
    assert_right(location, specimen)


def test_a_start_that_cannot_be_is_refused_by_name_and_leaves_nothing(server):
    plan = ScanPlan("a", "uid-1", SHAPE, (Channel("DAPI"),), Header("a", pixel_size_um=0.5))
    body, buffers = plan_to_body(plan)
    with BareScanner(server.address) as hostile:
        assert hostile.ask("start", tuple(map(bytes, buffers)), v=0, **body)["error"] == "version"
        assert hostile.ask("start", (b"no plan",), **body)["error"] in ("protocol", "damaged")
        assert hostile.ask("start", **body)["error"] == "protocol"
        assert hostile.ask("plane", (zeros(),), **header_of("uid-1"))["error"] == "protocol"
        assert hostile.ask("find", uid=["uid-1"])["error"] in ("protocol", "not-a-slide")
        assert hostile.ask("hello")["status"] == "ok"
    assert not list(server.data.glob("*.scan"))


def test_ten_scans_at_once_do_not_notice_what_others_send(server):
    scanners = [Scanner(server.address) for _ in range(N_SCANS)]
    specimens = [begun(scanner, number) for number, scanner in enumerate(scanners)]
    with Server(server.address) as manager:
        proxies = [manager.find(f"scan {number}")["address"] for number in range(N_SCANS)]
    over, half = threading.Event(), threading.Barrier(N_SCANS + len(HOSTILE), timeout=LONG_S)
    there = There(server.address, proxies, [scanner.uid for scanner in scanners], half)

    def scan(number: int) -> str:
        specimen = specimens[number]
        with scanners[number] as scanner:
            for sent, key in enumerate(specimen.keys):
                if sent == len(specimen.keys) // 2:
                    half.wait()  # all are in the midst of it while the hostile ones are
                if sent == len(specimen.keys) - 2:
                    assert over.wait(LONG_S)  # the hostile ones have somebody to speak to until they are done
                scanner.send(specimen.plane(key), key[1], **specimen.where(key))
            return scanner.finish()

    with ThreadPoolExecutor(N_SCANS + len(HOSTILE)) as pool:
        hostile = [pool.submit(act, there) for act in HOSTILE]
        scans = [pool.submit(scan, number) for number in range(N_SCANS)]
        try:
            for act in hostile:
                act.result()
        finally:
            over.set()
        locations = [done.result() for done in scans]
    for location, specimen in zip(locations, specimens, strict=True):
        assert_right(location, specimen)
    until(lambda: not list(server.data.glob("*.scan")))
    with Server(server.address) as manager:
        assert {scan["state"] for scan in manager.scans()} == {"complete"}
    assert server.end() == 0
    log = (server.data / "server.log").read_text()
    assert "Traceback" not in log
    assert "stumbles" not in log
    assert "fails" not in log


@dataclass(frozen=True)
class There:
    """Where the server and its proxies are, what their scans are called, and when all are in the midst of it."""

    manager: str
    proxies: list[str]
    uids: list[str]
    half: threading.Barrier


def send_nonsense(there: There) -> None:
    """Messages that are nearly right, to everybody."""
    mutator = Mutator(11)
    told = {"v": 1, "id": 5, "uid": "x", "name": "x"}
    right = [[json.dumps({**told, "op": op}).encode()] for op in ("hello", "find", "status", "ping")]
    for uid in ("x", "y"):
        header = {"v": 1, "id": 6, "op": "plane", **header_of(uid)}
        right.append([json.dumps(header).encode(), zeros()])
    there.half.wait()
    for address in (there.manager, *there.proxies):
        with BareScanner(address) as client:
            for number in range(N_MUTATED):
                client.socket.send_multipart(mutator.mutated(right[number % len(right)]))
                while client.socket.poll(0):
                    client.socket.recv_multipart()


def mix_up_scans(there: There) -> None:
    """Planes of one scan to the proxy of another, planes outside the plan, an older version."""
    there.half.wait()
    for number, proxy in enumerate(there.proxies):
        with BareScanner(proxy) as client:
            other = there.uids[(number + 1) % len(there.uids)]
            assert client.ask("plane", (zeros(),), **header_of(other))["error"] == "not-a-slide"
            assert client.ask("finish", scan=other)["error"] == "not-a-slide"
            assert client.ask("plane", (zeros(),), **header_of(there.uids[number], channel=9))["error"] in ("out-of-range",)
            assert client.ask("plane", (zeros(),), **header_of(there.uids[number], v=0))["error"] == "version"


def listen_to_nothing(there: There) -> None:
    """Ask and ask, and take no answer."""
    there.half.wait()
    for address in (there.manager, *there.proxies[:2]):
        with BareScanner(address) as client:
            for _ in range(2000):
                client.send("status" if address == there.manager else "hello")


def begin_what_there_is(there: There) -> None:
    """Begin scans under names that are taken."""
    there.half.wait()
    plan = ScanPlan("scan 0", "another-uid", SHAPE, (Channel("DAPI"),), Header("a"))
    body, buffers = plan_to_body(plan)
    with BareScanner(there.manager) as client:
        for _ in range(20):
            assert client.ask("start", tuple(map(bytes, buffers)), **body)["error"] == "exists"


HOSTILE = (send_nonsense, mix_up_scans, listen_to_nothing, begin_what_there_is)
