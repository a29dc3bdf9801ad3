"""Does a slide behind a server look like one on this disk: throughput, jumps, many clients, far servers, the disk cache?"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import zmq

from benchmarks.data import paper_slide
from benchmarks.harness import Figure, Result, say, spawned
from benchmarks.views import Bench
from rawmosaic.net.broker import Broker
from rawmosaic.net.connection import Connection
from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.disk_cache import DiskCache
from rawmosaic.net.protocol import OK, Reply, Request, pack_keys, reply_frames, reply_from, request_frames
from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.net.testing import Proxy
from rawmosaic.storage import open_slide
from rawmosaic.storage.pyramid import TileKey

QUESTION = __doc__
NAME = "slide"
ANY = "tcp://127.0.0.1:*"
BATCH = 8
"""Tiles that the viewer's loader asks for at once."""

BATCHES = 300
IN_FLIGHT = 4
ROUNDS = 5
JUMPS = 16
CROWDS = {1: 2.0, 10: 4.0, 100: 10.0}
"""Clients → seconds that they ask."""

DELAYS_MS = (1, 20, 100)
"""Added to each way back and forth."""

WAIT_MS = 30_000


def run() -> Result:
    """The paper's slide, served by a process of its own on the loopback interface."""
    path = str(paper_slide())
    figures: list[Figure] = []
    for part in (throughput, jumps, crowds, far_servers, disk_cache):
        say(f"remote: {part.__name__}")
        figures += part(path)
    return Result("remote", QUESTION, tuple(figures))


# throughput


def throughput(path: str) -> list[Figure]:
    """One client: the same batches from the dealer, and from a bare socket that has their bytes in memory."""
    with open_slide(path) as slide:
        batches = random_batches(slide, BATCHES)
        encoded = [[slide.read_encoded(key) or b"" for key in keys] for keys in batches]  # the page cache is warm from here on
        nbytes = sum(len(data) for batch in encoded for data in batch)
        decode = decode_s(slide, encoded)
    served, bare, reading, library, pixels = [], [], [], [], []
    with (
        spawned(serve, path) as (address, _),
        spawned(serve_bare, path, batches) as (bare_address, _),
        spawned(serve_bare, path, batches, False) as (reading_address, _),
    ):
        for _ in range(ROUNDS):  # in turns, so that a busy machine meets all
            bare.append(pumped_s(bare_address, batches))
            reading.append(pumped_s(reading_address, batches))
            served.append(pumped_s(address, batches))
            library.append(asked_s(address, batches))
            pixels.append(read_s(address, batches))
    n_tiles = BATCHES * BATCH
    floor = float(np.median(bare))

    def rate(seconds: list[float]) -> float:
        return n_tiles / float(np.median(seconds))

    note = f"{BATCH} tiles a request, {nbytes / n_tiles / 1e3:.0f} kB a tile"
    return [
        Figure("tiles from the dealer", rate(served), "tiles/s", n_tiles / floor, 0.9, True, f"one client, {note}"),
        Figure("the same in bytes", nbytes / 1e6 / float(np.median(served)), "MB/s", nbytes / 1e6 / floor, 0.9, True),
        Figure(
            "tiles from the dealer",
            rate(served),
            "tiles/s",
            rate(reading),
            note="floor: a loop that does nothing but read and send",
        ),
        Figure("tiles through Connection", rate(library), "tiles/s", n_tiles / floor, note=f"{IN_FLIGHT} threads"),
        Figure(
            "tiles through RemoteSlide, decoded",
            rate(pixels),
            "tiles/s",
            n_tiles / (floor + decode),
            note=f"{IN_FLIGHT} threads; floor: the bare socket, then decoding in {os.cpu_count()} threads",
        ),
    ]


def random_batches(slide, count: int, seed: int = 5) -> list[list[TileKey]]:
    """Neighbouring full-resolution tiles of all channels, as a view asks for them."""
    generator = np.random.default_rng(seed)
    cut = slide.tiling.levels[0]
    batches = []
    for _ in range(count):
        field, first = int(generator.integers(slide.n_fields)), int(generator.integers(cut.tiles_per_field - 1))
        tiles = [field * cut.tiles_per_field + first + step for step in range(2)]
        keys = [TileKey(0, index, channel, 0, 0) for index in tiles for channel in range(len(slide.channels))]
        batches.append(keys[:BATCH])
    return batches


def tiles_request(number: int, keys: list[TileKey]) -> list:
    """The frames that ask for a batch."""
    return request_frames(Request(number, "tiles", NAME, buffers=[pack_keys(keys)]))


def pumped_s(address: str, batches: list[list[TileKey]]) -> float:
    """Seconds to get all batches over one bare socket with a few requests on the way."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        socket.send_multipart(tiles_request(len(batches), batches[0]))
        _received(socket)
        start = time.perf_counter()
        for number, keys in enumerate(batches):
            socket.send_multipart(tiles_request(number, keys))
            if number >= IN_FLIGHT - 1:
                _received(socket)
        for _ in range(IN_FLIGHT - 1):
            _received(socket)
        return time.perf_counter() - start


def asked_s(address: str, batches: list[list[TileKey]]) -> float:
    """Seconds to get all batches through `Connection`, a connection for each thread."""

    def ask(part: list[list[TileKey]]) -> None:
        with Connection(address) as connection:
            for keys in part:
                connection.request("tiles", NAME, buffers=[pack_keys(keys)])

    return _shared_s(ask, batches)


def read_s(address: str, batches: list[list[TileKey]]) -> float:
    """Seconds to have all batches as pixels."""
    with RemoteSlide(f"{address}/{NAME}", disk_cache=None) as slide:

        def read(part: list[list[TileKey]]) -> None:
            outs = [np.empty(slide.tiling.tile_shape, np.uint16) for _ in range(BATCH)]
            for keys in part:
                assert not any(slide.read_tiles(keys, outs))

        return _shared_s(read, batches)


def decode_s(slide, encoded: list[list[bytes]]) -> float:
    """Seconds to decode all batches with as many threads as there are processors."""
    from rawmosaic.storage import codec

    def decode(part: list[list[bytes]]) -> None:
        out = np.empty(slide.tiling.tile_shape, np.uint16)
        for batch in part:
            for data in batch:
                codec.decode_into(data, out)

    return min(_shared_s(decode, encoded, os.cpu_count() or 1) for _ in range(3))


def _shared_s(work, batches: list, threads: int = IN_FLIGHT) -> float:
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(work, [batches[number::threads] for number in range(threads)]))
        return time.perf_counter() - start


def _received(socket: zmq.Socket) -> list:
    if not socket.poll(WAIT_MS):
        raise TimeoutError("no reply came")
    return socket.recv_multipart(copy=False)


# jumps


def jumps(path: str) -> list[Figure]:
    """A jump at 1:1, from this disk, from a server on this machine, and through a broker, in turns."""
    local, remote, brokered = [], [], []
    with (
        spawned(serve, path) as (address, _),
        spawned(serve_broker) as ((front, back), broker),
        spawned(serve, path, back),
    ):
        for turn in range(ROUNDS):
            local += jumps_s(path, turn)
            remote += jumps_s(RemoteSlide(f"{address}/{NAME}", disk_cache=None), turn)
            brokered += jumps_s(RemoteSlide(f"{front}/{NAME}", disk_cache=None), turn)
        memory = memory_mb(broker)
    floor = _median_ms(local)
    figures = [
        Figure("jump, median", _median_ms(remote), floor=floor, target=1.3, note="floor: the same from this disk"),
        Figure("jump, p95", 1e3 * float(np.percentile(remote, 95)), floor=1e3 * float(np.percentile(local, 95))),
        Figure("jump through a broker, median", _median_ms(brokered), floor=floor),
    ]
    return figures if memory is None else [*figures, Figure("most memory of the broker", memory, "MB")]


def jumps_s(slide, seed: int, jumps: int = JUMPS, visits: int = 1) -> list[float]:
    """Seconds to a complete view after each jump, tile cache cold, on the last of several visits of the same places."""
    with Bench(slide) as bench:
        bench.settled_s()
        bench.warm_up()
        for _ in range(visits):
            generator = np.random.default_rng(seed)
            bench.random_place(generator, 1.0)
            bench.settled_s()
            seconds = []
            for _ in range(jumps):
                bench.forget()
                bench.random_place(generator, 1.0)
                seconds.append(bench.settled_s())
        return seconds


def _median_ms(seconds: list[float]) -> float:
    return 1e3 * float(np.median(seconds))


# many clients


def crowds(path: str) -> list[Figure]:
    """Clients that each ask for a batch, take it, and ask for the next: how long each waits, and what the server needs."""
    with open_slide(path) as slide:
        batches = random_batches(slide, BATCHES)
    figures = []
    for clients, seconds in CROWDS.items():
        with spawned(serve, path) as (address, server), spawned(crowd, address, batches, clients, seconds) as (waits, _):
            flat = np.concatenate([np.array(each) for each in waits])
            counts = np.array([len(each) for each in waits])
            name = f"{clients} client{'s' if clients > 1 else ''}"
            figures += [
                Figure(f"{name}: wait for a batch, p50", 1e3 * float(np.median(flat))),
                Figure(f"{name}: wait for a batch, p99", 1e3 * float(np.percentile(flat, 99))),
                Figure(f"{name}: together", len(flat) * BATCH / seconds, "tiles/s"),
                Figure(
                    f"{name}: batches of the slowest ÷ of the median client", float(counts.min()), "", float(np.median(counts))
                ),
            ]
            if (memory := memory_mb(server)) is not None:
                figures.append(Figure(f"{name}: most memory of the server", memory, "MB"))
    return figures


def crowd(end, address: str, batches: list[list[TileKey]], clients: int, seconds: float) -> None:
    """Many clients in one process; says the seconds of each wait of each."""
    generator = np.random.default_rng(clients)
    requests = [tiles_request(0, keys) for keys in batches]
    waits: list[list[float]] = [[] for _ in range(clients)]
    asked = [0.0] * clients
    with zmq.Context() as context:
        sockets = [context.socket(zmq.DEALER) for _ in range(clients)]
        poller = zmq.Poller()
        for socket in sockets:
            socket.linger = 0
            socket.connect(address)
            poller.register(socket, zmq.POLLIN)
        number_of = {socket: number for number, socket in enumerate(sockets)}

        def ask(socket: zmq.Socket) -> None:
            asked[number_of[socket]] = time.perf_counter()
            socket.send_multipart(requests[generator.integers(len(requests))])

        for socket in sockets:
            ask(socket)
        finish = time.perf_counter() + seconds
        while time.perf_counter() < finish:
            for socket, _ in poller.poll(100):
                reply = reply_from(socket.recv_multipart(copy=False))
                assert reply.status == OK, reply.body
                waits[number_of[socket]].append(time.perf_counter() - asked[number_of[socket]])
                ask(socket)
        for socket in sockets:
            socket.close()
    end.send(waits)
    end.recv()


def memory_mb(process: int) -> float | None:
    """The most main memory that a process had so far, MB; None where the system does not say."""
    try:
        return int(Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except OSError:
        return None


# far servers


def far_servers(path: str) -> list[Figure]:
    """A jump with the server behind a line that takes its time, and how many times back and forth that is."""
    local = _median_ms(jumps_s(path, 1, JUMPS // 2))
    times: dict[int, list[float]] = {}
    with spawned(serve, path) as (address, _):
        for delay in (0, *DELAYS_MS):
            with spawned(delay_line, address, 0.5e-3 * delay) as (line, _):
                times[delay] = jumps_s(RemoteSlide(f"{line}/{NAME}", disk_cache=None), 1, JUMPS // 2)
    figures = []
    for delay, seconds in times.items():
        trips = 1e3 * (min(seconds) - min(times[0])) / delay if delay else 0.0
        note = f"{trips:.1f} times back and forth" if delay else "floor: from this disk"
        figures.append(
            Figure(f"jump through a line that takes {delay} ms more, median", _median_ms(seconds), floor=local, note=note)
        )
    return figures


def delay_line(end, address: str, delay_s: float) -> None:
    """A proxy that delays each way."""
    with Proxy(address, delay_s) as proxy:
        end.send(proxy.address)
        end.recv()


# the disk cache


def disk_cache(path: str) -> list[Figure]:
    """A jump to a place seen on another day: its tiles come from the disk cache."""
    local = _median_ms(jumps_s(path, 1))
    with spawned(serve, path) as (address, _), tempfile.TemporaryDirectory() as folder:
        with DiskCache(folder, 2 << 30) as cache:
            warm = jumps_s(RemoteSlide(f"{address}/{NAME}", disk_cache=cache), 1, visits=2)
    return [Figure("jump, tiles in the disk cache, median", _median_ms(warm), floor=local, note="floor: from this disk")]


# servers


def serve_broker(end) -> None:
    """A broker."""
    with Broker(ANY, ANY) as broker:
        end.send((broker.front_address, broker.back_address))
        end.recv()


def serve(end, path: str, broker: str | None = None) -> None:
    """A dealer of one slide, for clients and perhaps for a broker."""
    with open_slide(path) as slide, TileDealer({NAME: slide}, ANY, brokers=[broker] if broker else []) as dealer:
        end.send(dealer.address)
        end.recv()


def serve_bare(end, path: str, batches: list[list[TileKey]], from_memory: bool = True) -> None:
    """The bare loop: the same frames, one reply after the other; nothing is looked at but the request's id."""
    slide = open_slide(path)

    def read(keys: list[TileKey]) -> list[bytes]:
        return [slide.read_encoded(key) or b"" for key in keys]

    encoded = [read(keys) for keys in batches] if from_memory else []
    body = {"errors": {}, "identity": "0" * 32}
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.bind(ANY)
        end.send(socket.last_endpoint.rstrip(b"\0").decode())
        header = reply_frames(Reply(0, body=body))[0]
        while not end.poll():
            for _ in range(100):
                if not socket.poll(10):
                    break
                client, request, _ = socket.recv_multipart()
                number = request.split(b'"id":', 1)[1].split(b",", 1)[0]
                at = int(number) % len(batches)
                batch = encoded[at] if from_memory else read(batches[at])
                socket.send_multipart([client, header.replace(b'"id":0', b'"id":' + number), *batch], copy=not from_memory)
    slide.close()
