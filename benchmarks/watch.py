"""How soon after its acknowledgement is a plane of a running scan in the picture? By the growing file, and through a server."""

from __future__ import annotations

import threading
import time

import numpy as np

from benchmarks.acquire import a_folder
from benchmarks.data import PIXEL_SIZE_UM, grid_fields, specimen_planes
from benchmarks.harness import Figure, Result, spawned
from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import SlideError
from rawmosaic.viewer import OffscreenViewer

QUESTION = __doc__
GRID, SHAPE = (8, 10), (512, 512)
PLANES_PER_S = 20.0
SIZE = (1280, 720)
TARGET_MS = 1000.0
TIMEOUT_S = 60.0


def run() -> Result:
    """80 fields of 512 × 512, 20 in a second; the whole mosaic in view, a frame whenever something came."""
    figures = []
    for name in ("by the file", "through a server"):
        delays = watched(served=name != "by the file")
        for which, value in (("median", np.median(delays)), ("worst", max(delays))):
            figures.append(Figure(f"{name}: acknowledged to drawn, {which}", 1e3 * float(value), target=TARGET_MS))
    return Result("watch", QUESTION, tuple(figures))


def serve(end, data: str) -> None:
    """An acquisition server that viewers may watch as well, until `end` says something."""
    with Manager(data, "tcp://127.0.0.1:*", serve="tcp://127.0.0.1:*") as manager:
        end.send((manager.address, manager.serving_address))
        end.recv()


def watched(served: bool) -> list[float]:
    """Seconds from the acknowledgement of each plane to the end of the first frame that draws it."""
    fields = grid_fields(*GRID, SHAPE)
    planes = [np.ascontiguousarray(plane) for field in range(3) for plane in specimen_planes(field, SHAPE)]
    acknowledged: list[float] = []
    with a_folder() as data, spawned(serve, str(data)) as ((address, viewers), _), Scanner(address) as scanner:
        scanner.start("scan", field_shape=SHAPE, channels=["a"], pixel_size_um=PIXEL_SIZE_UM, fields=fields)
        scanner.send(planes[0], 0, field=0)
        scanner.flush()
        acknowledged.append(time.perf_counter())
        location = f"{viewers}/scan" if served else str(data / "scan.h5")

        def scan() -> None:
            start = time.perf_counter()
            for field in range(1, len(fields)):
                time.sleep(max(0.0, start + field / PLANES_PER_S - time.perf_counter()))
                scanner.send(planes[field % len(planes)], 0, field=field)
                scanner.flush()
                acknowledged.append(time.perf_counter())

        with opened(location) as slide, OffscreenViewer(slide, SIZE) as viewer:
            thread = threading.Thread(target=scan)
            thread.start()
            drawn = drawn_at(viewer, len(fields))
            thread.join()
        scanner.finish()
    return [seen - said for seen, said in zip(drawn, acknowledged, strict=True)][1:]  # the first was there when it was opened


def opened(location: str):
    """The slide, as soon as its writer has begun it."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return open_slide(location)
        except SlideError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def drawn_at(viewer: OffscreenViewer, n_fields: int) -> list[float]:
    """When each field was in a complete picture first; fields come in the order of their numbers."""
    drawn: list[float] = []
    end = time.monotonic() + TIMEOUT_S
    while len(drawn) < n_fields:
        viewer.render(wait=False)
        now, report = time.perf_counter(), viewer.engine.report
        if report.complete and report.fields_in_view > len(drawn):
            drawn += [now] * (report.fields_in_view - len(drawn))
        if time.monotonic() > end:
            raise TimeoutError(f"{n_fields - len(drawn)} fields are not drawn after {TIMEOUT_S:g} s")
        time.sleep(0.01)
    return drawn
