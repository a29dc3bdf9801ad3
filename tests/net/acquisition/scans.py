"""Scans for tests: plans, planes whose pixels follow from where they belong, and a scanner of a few lines."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zmq

from rawmosaic.net.acquisition.messages import PlaneHeader, encoded
from rawmosaic.net.acquisition.plan import ScanPlan
from rawmosaic.net.acquisition.spool import PlaneFacts, SpoolReader, payload_pixels
from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.slide import Channel, Header, new_fields

UID = "scan-1"
SHAPE = (24, 32)
LONG_S = 60.0
"""No test waits so long unless something is wrong."""


def plan(
    *, shape: tuple[int, int] = SHAPE, n_fields: int | None = None, channels: tuple[str, ...] = ("DAPI", "GFP"), **more
) -> ScanPlan:
    fields = None if n_fields is None else new_fields(n_fields, shape)
    names = tuple(Channel(name) for name in channels)
    return ScanPlan("a scan", UID, shape, names, Header("a scan", pixel_size_um=0.5), fields=fields, **more)


def image(place: int, channel: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Pixels that say where they belong."""
    rng = np.random.default_rng([place, channel])
    return rng.integers(0, 4096, shape, dtype=np.uint16)


def header_and_payload(
    place: int, channel: int = 0, encoding: str = "raw", shape: tuple[int, int] = SHAPE, **more
) -> tuple[PlaneHeader, bytes]:
    """A plane of the field at row 0, column `place`."""
    payload = bytes(encoded(image(place, channel, shape), encoding))
    where = {"row": 0, "column": place} if "field" not in more and "x_um" not in more else {}
    return PlaneHeader(UID, channel, shape, zlib.crc32(payload), encoding, **{**where, **more}), payload


def facts_of(number: int, payload: bytes, shape: tuple[int, int] = SHAPE, **more) -> PlaneFacts:
    """Facts of a raw plane, the only one of its field."""
    crc = zlib.crc32(payload)
    told = {"row": 0, "column": number, "scene": None, "x_um": 0.25 * number, "y_um": None, "z_um": None, **more}
    return PlaneFacts(field=number, channel=0, z=0, t=0, shape=shape, encoding="raw", crc=crc, pixels_crc=crc, **told)


def saved(folder: Path, scan: ScanPlan | None = None) -> Path:
    """The folder of a scan, with its plan."""
    folder.mkdir(parents=True, exist_ok=True)
    (scan or plan()).save(folder)
    return folder


def spooled(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    """(column, channel) → pixels of all planes in the spool of a scan's folder; a plane that is there twice is twice the same."""
    found: dict[tuple[int, int], np.ndarray] = {}
    with SpoolReader(folder / "spool") as reader:
        while True:
            try:
                given = reader.next()
            except DamagedSlideError:
                continue
            if given is None:
                return found
            facts, payload, _ = given
            pixels = payload_pixels(facts, payload)
            known = found.setdefault((facts.column, facts.channel), pixels)
            assert np.array_equal(known, pixels)


def until(what: Callable[[], object], timeout_s: float = LONG_S) -> None:
    """Wait until `what()` is true."""
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


class BareScanner:
    """A DEALER socket that speaks with a proxy; headers are JSON that is written and read here. A context manager."""

    def __init__(self, address: str):
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(address)
        self._last = 0

    def send(self, op: str, buffers: tuple[bytes, ...] = (), **keys) -> int:
        """Send a request; returns its id."""
        self._last += 1
        header = {"v": 1, "id": self._last, "op": op, **keys}
        self.socket.send_multipart([json.dumps(header).encode(), *buffers])
        return self._last

    def plane(self, place: int, channel: int = 0, how: str = "raw", pixels: np.ndarray | None = None, **keys) -> int:
        """Send the plane at row 0, column `place`, encoded as `how` says; `keys` go into the header. Returns the request's id."""
        pixels = image(place, channel) if pixels is None else pixels
        payload = bytes(encoded(pixels, how))
        told = {"scan": UID, "channel": channel, "shape": list(pixels.shape), "encoding": how, "crc": zlib.crc32(payload)}
        where = {"row": 0, "column": place} if "field" not in keys and "x_um" not in keys else {}
        told = {name: value for name, value in {**told, **where, **keys}.items() if value is not None}
        return self.send("plane", (payload,), **told)

    def receive(self, wait_s: float = LONG_S) -> dict:
        """The header of the next reply."""
        assert self.socket.poll(int(1000 * wait_s)), "no reply came"
        return json.loads(self.socket.recv_multipart()[0])

    def reply_to(self, number: int) -> dict:
        """The last reply to a request; others are dropped."""
        while (reply := self.receive())["id"] != number or reply["status"] == "more":
            pass
        return reply

    def hears_next(self, number: int) -> bool:
        """Whether the next answer is to this request: whatever was asked before is not answered yet."""
        return self.answer()["id"] == number

    def answer(self) -> dict:
        """The header of the next reply that is an answer, and not word that one has to wait."""
        while (reply := self.receive())["status"] == "more":
            pass
        return reply

    def held_for(self, reason: str) -> dict:
        """The word that one has to wait, for this reason."""
        while (reply := self.receive())["status"] != "more" or reason not in reply["reason"]:
            assert reply["status"] == "more", reply
        return reply

    def ask(self, op: str, buffers: tuple[bytes, ...] = (), **keys) -> dict:
        """Send a request, and wait for its reply."""
        return self.reply_to(self.send(op, buffers, **keys))

    def __enter__(self) -> BareScanner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()
        self._context.term()


class ProxyProcess:
    """A proxy in a process of its own. A context manager, which ends it in order."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        command = [sys.executable, "-m", "rawmosaic.net.acquisition.proxy", str(folder), *options]
        with open(folder / "said", "ab") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said, stdout=subprocess.DEVNULL)

    def status(self) -> dict:
        """What it says of itself; empty until it does."""
        try:
            said = json.loads((self.folder / "proxy.json").read_text())
        except (OSError, ValueError):
            return {}
        return said if said["pid"] == self.process.pid else {}

    def address(self) -> str:
        """Where it can be reached, as soon as it can."""
        until(lambda: self.status() or self.process.poll() is not None)
        assert self.process.poll() is None, (self.folder / "said").read_text()
        return self.status()["address"]

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(LONG_S)

    def __enter__(self) -> ProxyProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(LONG_S)
        finally:
            self.process.kill()
            self.process.wait()
