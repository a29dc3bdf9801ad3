"""Does the acquisition server keep up with a camera? Planes a second beside bare loops, the paper's camera, and memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zmq

from benchmarks.data import PIXEL_SIZE_UM, grid_fields, specimen_planes
from benchmarks.harness import CACHE, Figure, Result, say, spawned
from benchmarks.write import bare_s
from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.children import child_environment
from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.intake import write_end
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.net.acquisition.messages import RAW, PlaneHeader, plane_request
from rawmosaic.net.acquisition.plan import ScanPlan
from rawmosaic.net.acquisition.scan_folder import SPOOL_FOLDER
from rawmosaic.net.acquisition.spool import PlaneFacts, SpoolWriter
from rawmosaic.net.protocol import MORE, OK, reply_from, request_frames
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Channel, Header
from rawmosaic.storage.specimen import STAINS

QUESTION = __doc__
PAPER_CAMERA = (2160, 2560)
SHAPES = {"1392 × 1040": (1040, 1392), "2560 × 2160": PAPER_CAMERA}
INTAKE_NBYTES = 1_200_000_000
WINDOW_NBYTES = 256 << 20
REPEAT = 3
GRID = (8, 9)
LONG_GRID = (16, 17)
"""A spool of 3.2 GB: so many planes that the start of the process no longer weighs."""

CAMERA_SPOOL_NBYTES = 1_500_000_000
CAMERA_PLANES = 400
SCAN_GRID, SCAN_SHAPE = (43, 51), (512, 512)
"""The scan of 2,193 fields, with smaller planes than the paper's, so that a disk of usual size holds several."""

DIFFERENT_PLANES = 12
TIMEOUT_S = 300.0


def run() -> Result:
    """Everything on one machine, over loopback: scanner, manager, proxy and writer share its processors."""
    figures = []
    for name, shape in SHAPES.items():
        say(f"acquire: intake of {name}")
        figures += intake_figures(name, pixels_of(shape))
    specimen = [specimen_planes(field, columns=GRID[1]) for field in range(DIFFERENT_PLANES)]
    say("acquire: a writer alone")
    figures += writer_figures(specimen, GRID, "a writer alone")
    figures += writer_figures(specimen, LONG_GRID, "a writer alone, four times as many planes")
    say("acquire: from scanner to slide")
    figures += chain_figures(specimen)
    say("acquire: the paper's camera")
    figures += camera_figures()
    say("acquire: a scan of 2,193 fields")
    figures += memory_figures()
    return Result("acquire", QUESTION, tuple(figures))


def pixels_of(shape: tuple[int, int]) -> list[np.ndarray]:
    """Some different planes of specimen and noise, which compress as camera images do."""
    fields = -(-DIFFERENT_PLANES // len(STAINS))
    return [np.ascontiguousarray(plane) for field in range(fields) for plane in specimen_planes(field, shape)]


# taking in


def intake_figures(name: str, planes: list[np.ndarray]) -> list[Figure]:
    """A proxy alone: planes a second acknowledged, beside a file that the same bytes are appended to and synced."""
    count = INTAKE_NBYTES // planes[0].nbytes
    rounds = []
    for _ in range(REPEAT):  # one after the other, so that a busy disk meets both
        with a_folder() as folder:
            bare = count / appended_s(folder / "bare", planes, count)
        with a_folder() as folder:
            rounds.append((acknowledged_per_s(folder, planes, count), bare))
    rate, bare = sorted(rounds, key=lambda each: each[0] / each[1])[REPEAT // 2]
    note = f"{name}, each on the disk"
    return [
        Figure("planes acknowledged", rate, "planes/s", floor=bare, target=0.8, at_least=True, note=note),
        Figure("bytes acknowledged", rate * planes[0].nbytes / 1e6, "MB/s", note=name),
    ]


def appended_s(path: Path, planes: list[np.ndarray], count: int) -> float:
    """Seconds to append so many planes to a file and to sync it once, at the end."""
    start = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for number in range(count):
            file.write(planes[number % len(planes)])
        os.fsync(file.fileno())
    return time.perf_counter() - start


def acknowledged_per_s(folder: Path, planes: list[np.ndarray], count: int) -> float:
    """Send so many raw planes to a proxy that nobody else bothers, a window ahead of what it acknowledges."""
    payloads = [(memoryview(plane).cast("B"), zlib.crc32(plane)) for plane in planes]
    plan = ScanPlan("bench", "bench", planes[0].shape, (Channel("a"),), Header("bench"))
    plan.save(folder)
    with proxy_address(folder) as address, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.sndhwm = 0, 0
        socket.connect(address)
        open_nbytes, sent, acknowledged = 0, 0, 0
        start = time.perf_counter()
        while acknowledged < count:
            while sent < count and open_nbytes + planes[0].nbytes <= WINDOW_NBYTES:
                payload, crc = payloads[sent % len(payloads)]
                header = PlaneHeader("bench", 0, planes[0].shape, crc, RAW, row=0, column=sent)
                socket.send_multipart(request_frames(plane_request(sent + 1, header, payload)), copy=False)
                sent, open_nbytes = sent + 1, open_nbytes + len(payload)
            if not socket.poll(1000 * TIMEOUT_S):
                raise TimeoutError("the proxy does not answer")
            reply = reply_from(socket.recv_multipart())
            if reply.status == MORE:
                continue
            if reply.status != OK:
                raise SlideError(f"the proxy refuses: {reply.body}")
            acknowledged, open_nbytes = acknowledged + 1, open_nbytes - planes[0].nbytes
        return count / (time.perf_counter() - start)


@contextmanager
def proxy_address(folder: Path) -> Iterator[str]:
    """A proxy in a process of its own, with room for everything; where it is."""
    command = [sys.executable, "-m", "rawmosaic.net.acquisition.proxy", str(folder)]
    command += ["--spool-bytes", str(4 * INTAKE_NBYTES), "--window-bytes", str(WINDOW_NBYTES)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + TIMEOUT_S
        while not (address := (read_json(folder / "proxy.json") or {}).get("address")):
            if time.monotonic() > end or process.poll() is not None:
                raise TimeoutError("the proxy does not come up")
            time.sleep(0.01)
        yield address
    finally:
        process.stdin.close()
        process.wait(TIMEOUT_S)


# a writer alone


def writer_figures(specimen: list[np.ndarray], grid: tuple[int, int], name: str) -> list[Figure]:
    """A writer of a spool that holds all planes, until the slide is verified and has its name, beside the same bare loops."""
    rounds = []
    for _ in range(REPEAT):
        with a_folder() as data:
            count = fill_spool(data / "bench.scan", specimen, grid)
            seconds, processor = written_s(data / "bench.scan")
        compress, write, _ = bare_s(specimen, grid, os.cpu_count() or 1)
        rounds.append(((compress + write) / seconds, seconds, processor, compress + write))
    _, seconds, processor, bare = sorted(rounds)[REPEAT // 2]
    note = (
        f"{count} of 1392 × 1040, from a spool that is filled already, until the slide is verified; the process's start included"
    )
    figures = [
        Figure(name, count / seconds, "planes/s", floor=count / bare, target=0.8, at_least=True, note=note),
    ]
    if processor:
        figures.append(Figure(f"{name}: processor time", 1e3 * processor / count, "ms a plane", note="all threads"))
    return figures


def fill_spool(folder: Path, specimen: list[np.ndarray], grid: tuple[int, int]) -> int:
    """A scan in four colours as a proxy leaves it when all planes came; how many there are."""
    fields, shape = grid_fields(*grid), specimen[0].shape[1:]
    folder.mkdir()
    header = Header("bench", pixel_size_um=PIXEL_SIZE_UM)
    ScanPlan("bench", "bench", shape, tuple(Channel(stain) for stain in STAINS), header, fields=fields).save(folder)
    with SpoolWriter(folder / SPOOL_FOLDER) as spool:
        for field in range(len(fields)):
            for channel, plane in enumerate(specimen[field % len(specimen)]):
                crc = zlib.crc32(plane)
                nowhere = (None,) * 6
                facts = PlaneFacts(field, channel, 0, 0, *nowhere, shape, RAW, crc, pixels_crc=crc)
                spool.append(facts, [memoryview(plane).cast("B")])
        spool.sync()
    count = len(fields) * len(STAINS)
    write_end(folder, planes=count)
    return count


def written_s(folder: Path) -> tuple[float, float]:
    """(seconds until the writer of a scan is done, seconds of processor time, 0 where the system does not tell).

    The process is as its manager starts it, and its modules are compiled, as those of an installed package are.
    """
    module = "rawmosaic.net.acquisition.writer"
    environment = child_environment() | {"PYTHONPYCACHEPREFIX": str(CACHE / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, check=True)
    command = [sys.executable, "-m", module, str(folder)]
    before, start = children_s(), time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as process:
        try:
            code = process.wait(TIMEOUT_S)  # its standard input is open until then
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    if code:
        raise SlideError(f"the writer of {folder} ended with {code}")
    return time.perf_counter() - start, children_s() - before


def children_s() -> float:
    """Processor time of all processes that were started from here and are gone."""
    used = os.times()
    return used.children_user + used.children_system


# from scanner to slide


def serve(end, data: str, spool_nbytes: int) -> None:
    """A manager in this process, until `end` says something."""
    with Manager(data, "tcp://127.0.0.1:*", spool_nbytes=spool_nbytes) as manager:
        end.send(manager.address)
        end.recv()


@contextmanager
def a_server(spool_nbytes: int = 8 * INTAKE_NBYTES) -> Iterator[tuple[str, Path, int]]:
    """(address, folder, process) of an acquisition server."""
    with a_folder() as data, spawned(serve, str(data), spool_nbytes) as (address, process):
        yield address, data, process


def chain_figures(specimen: list[np.ndarray]) -> list[Figure]:
    """72 fields in four colours, until the slide is complete and verified, beside bare compression and a bare file."""
    fields = grid_fields(*GRID)
    count = len(fields) * len(STAINS)
    rounds = []
    for _ in range(REPEAT):
        with a_server() as (address, _, _), Scanner(address) as scanner:
            scanner.start("bench", field_shape=specimen[0].shape[1:], channels=STAINS, pixel_size_um=PIXEL_SIZE_UM, fields=fields)
            start = time.perf_counter()
            for field in range(len(fields)):
                for channel, plane in enumerate(specimen[field % len(specimen)]):
                    scanner.send(plane, channel, field=field)
            scanner.flush()
            acknowledged = time.perf_counter() - start
            scanner.finish()
            complete = time.perf_counter() - start
        compress, write, _ = bare_s(specimen, GRID, os.cpu_count() or 1)
        rounds.append(((compress + write) / complete, acknowledged, complete, compress + write))
    _, acknowledged, complete, bare = sorted(rounds)[REPEAT // 2]
    note = "1392 × 1040, until the slide is verified"
    return [
        Figure("the whole chain", count / complete, "planes/s", floor=count / bare, target=0.8, at_least=True, note=note),
        Figure("planes acknowledged meanwhile", count / acknowledged, "planes/s", note="1392 × 1040"),
    ]


def camera_figures() -> list[Figure]:
    """2560 × 2160 as fast as the server takes them, with a spool of 1.5 GB: how fast, until it is held back, and then."""
    planes = pixels_of(PAPER_CAMERA)
    with a_server(CAMERA_SPOOL_NBYTES) as (address, _, _), Scanner(address) as scanner:
        scanner.start("camera", field_shape=PAPER_CAMERA, channels=["a"], pixel_size_um=PIXEL_SIZE_UM)
        held_at, acknowledged_at = None, deque()
        start = time.perf_counter()
        for number in range(CAMERA_PLANES):
            scanner.send(planes[number % len(planes)], 0, row=number // 20, column=number % 20)
            acknowledged_at.append((time.perf_counter() - start, scanner.acknowledged))
            if held_at is None and "spool" in scanner.held:
                held_at = acknowledged_at[-1]
        scanner.flush()
        end = time.perf_counter() - start, scanner.acknowledged
        scanner.abort(discard=True)
    free = held_at or end
    held_note = "at that rate" if held_at else f"it was not, in {CAMERA_PLANES} planes"
    figures = [
        Figure("the paper's camera: taken in", free[1] / free[0], "planes/s", note="2560 × 2160, spool of 1.5 GB"),
        Figure("the paper's camera: until it is held back", free[0], "s", note=held_note),
    ]
    if held_at:
        rate = (end[1] - held_at[1]) / (end[0] - held_at[0])
        figures.append(Figure("the paper's camera: then", rate, "planes/s", note="what the writer gets done"))
    return figures


def memory_figures() -> list[Figure]:
    """The most memory that each process had, at the end of a scan beside its first quarter."""
    fields = grid_fields(*SCAN_GRID, SCAN_SHAPE)
    planes = pixels_of(SCAN_SHAPE)
    with a_server() as (address, data, manager), Scanner(address) as scanner:
        scanner.start("scan", field_shape=SCAN_SHAPE, channels=["a"], pixel_size_um=PIXEL_SIZE_UM, fields=fields)
        early: dict[str, float] = {}
        for field in range(len(fields)):
            scanner.send(planes[field % len(planes)], 0, field=field)
            if field == len(fields) // 4:
                scanner.flush()
                early = memory_mb(data / "scan.scan", manager)
        scanner.flush()
        late = memory_mb(data / "scan.scan", manager)
        scanner.finish()
    return [
        Figure(f"memory of the {name}, most in 2,193 fields ÷ in the first quarter", late[name], "MB", early[name], 1.25)
        for name in late
    ]


def memory_mb(folder: Path, manager: int) -> dict[str, float]:
    """The most main memory that the processes of a scan had so far, MB (as Linux tells it; else nothing)."""
    processes = {"manager": manager}
    for name in ("proxy", "writer"):
        processes[name] = int((read_json(folder / f"{name}.json") or {}).get("pid", 0))
    found = {}
    for name, process in processes.items():
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        found[name] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e3
    return found


@contextmanager
def a_folder() -> Iterator[Path]:
    """A folder on the disk that the other data lie on, deleted afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=CACHE, prefix="acquire-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
