"""A client of a few lines of ZeroMQ, for tests that trust nothing of ours but the message format."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterable, Mapping

import zmq

LONG_MS = 20_000
"""No test waits so long unless something is wrong."""


class BareClient:
    """A DEALER socket; headers are JSON that is written and read here. A context manager."""

    def __init__(self, address: str, *, curve=None, receive_queue: int | None = None):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        if receive_queue is not None:
            self.socket.rcvhwm = receive_queue
            self.socket.rcvbuf = 1 << 16
        if curve is not None:
            curve.apply(self.socket)
        self.socket.connect(address)
        self._last = 0

    def send(self, op: str, slide: str = "", buffers: Iterable[bytes] = (), **keys) -> int:
        """Send a request; returns its id."""
        self._last += 1
        header = {"v": 1, "id": self._last, "op": op, **({"slide": slide} if slide else {}), **keys}
        self.socket.send_multipart([json.dumps(header).encode(), *buffers])
        return self._last

    def tiles(self, slide: str, keys: Iterable[tuple[int, int, int, int, int]], **more) -> int:
        """Ask for tiles: level, index, channel, z, t of each."""
        return self.send("tiles", slide, [b"".join(struct.pack("<5i", *key) for key in keys)], **more)

    def receive(self, wait_ms: int = LONG_MS) -> tuple[dict, list[bytes]]:
        """(header, buffers) of the next reply."""
        assert self.socket.poll(wait_ms), "no reply came"
        header, *buffers = self.socket.recv_multipart()
        return json.loads(header), buffers

    def hears_nothing(self, wait_ms: int = 200) -> bool:
        """Whether nothing comes."""
        return not self.socket.poll(wait_ms)

    def ask(self, op: str, slide: str = "", buffers: Iterable[bytes] = (), **keys) -> tuple[dict, list[bytes]]:
        """Send a request, and wait for its reply, dropping others."""
        return self.reply_to(self.send(op, slide, buffers, **keys))

    def reply_to(self, number: int) -> tuple[dict, list[bytes]]:
        """The reply to a request, dropping others."""
        while True:
            header, buffers = self.receive()
            if header["id"] == number:
                return header, buffers

    def __enter__(self) -> BareClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()
        self.context.term()


def until(what, timeout_s: float = 20.0) -> None:
    """Wait until `what()` is true."""
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def error_of(reply: tuple[Mapping, list[bytes]]) -> str | None:
    """The name of the error in a reply, None for an answer."""
    return reply[0]["error"] if reply[0]["status"] == "error" else None


def peak_memory_mb() -> float:
    """The most memory that this process ever had, in MB; always 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
