"""What does the broker's routing cost per request, against ZeroMQ's own proxy?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import zmq

from benchmarks.harness import Figure, Result, spawned
from rawmosaic.net.broker import Broker
from rawmosaic.net.protocol import Reply, Request, pack_keys, reply_frames, request_frames
from rawmosaic.storage.pyramid import TileKey

QUESTION = __doc__
ANY = "tcp://127.0.0.1:*"
REQUESTS = 3000
ROUNDS = 5
IN_FLIGHT = 8
TILES, TILE_NBYTES = 8, 75_000
"""A batch as viewers ask for: eight compressed tiles."""

WAIT_MS = 20_000


def run() -> Result:
    """One client, one dealer in a process of its own that answers at once; taking turns, so that a busy machine meets both."""
    figures = []
    for name, tiles, count in (("small replies", 0, REQUESTS), ("eight tiles", TILES, REQUESTS // 5)):
        for in_flight, how in ((IN_FLIGHT, f"{IN_FLIGHT} in flight"), (1, "one after the other")):
            routed, bare = [], []
            for _ in range(ROUNDS):
                with ours() as (front, back):
                    routed.append(us_per_request(front, back, tiles, count, in_flight))
                with proxy() as (front, back):
                    bare.append(us_per_request(front, back, tiles, count, in_flight, dealer=False))
            figures.append(Figure(f"{name}, {how}", float(np.median(routed)), "µs/request", float(np.median(bare))))
    return Result("broker", QUESTION, tuple(figures))


@contextmanager
def ours() -> Iterator[tuple[str, str]]:
    """(front, back) of a broker in a process of its own."""
    with spawned(_broker) as (address, _):
        yield tuple(address.split())


@contextmanager
def proxy() -> Iterator[tuple[str, str]]:
    """(front, back) of ZeroMQ's proxy in a process of its own."""
    with spawned(_proxy) as (address, _):
        yield tuple(address.split())


def us_per_request(front: str, back: str, tiles: int, count: int, in_flight: int = IN_FLIGHT, dealer: bool = True) -> float:
    """Microseconds a request takes through whatever lies between front and back."""
    with spawned(_dealer if dealer else _worker, back, tiles), zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        client.connect(front)
        request = request_frames(Request(0, "tiles", "s", buffers=[pack_keys([TileKey(0, 0, 0, 0, 0)] * 8)]))
        header = request[0]

        def ask(number: int) -> None:
            client.send_multipart([header.replace(b'"id":0', b'"id":%d' % number), request[1]])

        def take() -> None:
            if not client.poll(WAIT_MS):
                raise TimeoutError("no reply came")
            client.recv_multipart(copy=False)

        ask(0)
        take()
        start = time.perf_counter()
        for number in range(count):
            ask(number + 1)
            if number >= in_flight - 1:
                take()
        for _ in range(in_flight - 1):
            take()
        return 1e6 * (time.perf_counter() - start) / count


def _broker(end) -> None:
    with Broker(ANY, ANY) as broker:
        end.send(f"{broker.front_address} {broker.back_address}")
        end.recv()


def _proxy(end) -> None:
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for socket in (front, back):
        socket.linger = 0
        socket.bind(ANY)
    threading.Thread(target=zmq.proxy, args=(front, back), daemon=True).start()
    end.send(" ".join(socket.last_endpoint.rstrip(b"\0").decode() for socket in (front, back)))
    end.recv()


def _dealer(end, back: str, tiles: int) -> None:
    """Announces itself and answers at once, reading of the request no more than its id."""
    _answer_all(end, back, tiles, announce=True)


def _worker(end, back: str, tiles: int) -> None:
    _answer_all(end, back, tiles, announce=False)


def _answer_all(end, back: str, tiles: int, announce: bool) -> None:
    buffers = [bytes(TILE_NBYTES)] * tiles
    header = reply_frames(Reply(0))[0]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(back)
        end.send("here")
        ready_at = 0.0
        while not end.poll():
            if announce and time.monotonic() >= ready_at:
                ready_at = time.monotonic() + 0.5
                socket.send_multipart([b"", *request_frames(Request(0, "ready", body={"slides": ["s"], "load": 0}))])
            for _ in range(200):
                if not socket.poll(10):
                    break
                client, request, *_ = socket.recv_multipart()
                number = request.split(b'"id":', 1)[1].split(b",", 1)[0]
                socket.send_multipart([client, header.replace(b'"id":0', b'"id":' + number), *buffers], copy=False)
