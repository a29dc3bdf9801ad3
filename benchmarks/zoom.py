"""Does zooming stay smooth? From the whole slide to 2:1 under the cursor and back, with everything in memory and from nothing."""

from __future__ import annotations

import numpy as np

from benchmarks.data import paper_slide
from benchmarks.harness import Figure, Result
from benchmarks.views import Bench

QUESTION = __doc__
CLOSEST = 2.0
FRAMES = 160
"""Frames one way."""

CURSOR = (0.42, 0.57)
"""Where the picture is held, as a share of its width and height."""


def run() -> Result:
    """418 fields in four colours, 1280 × 720."""
    with Bench(paper_slide()) as bench:
        bench.settled_s()
        bench.warm_up()
        cameras = path(bench)
        cold, stand_ins = travel(bench, cameras, cold=True)
        for camera in cameras:
            bench.engine.camera = camera
            bench.settled_s()
        warm, warm_stand_ins = travel(bench, cameras, cold=False)
    median = 1e3 * float(np.median(warm))
    figures = (
        *_spread("warm", warm),
        Figure("warm zoom, longest ÷ median", 1e3 * max(warm), floor=median, target=2.0),
        Figure("warm zoom, frames with stand-ins", 100 * warm_stand_ins, "%"),
        *_spread("cold", cold),
        Figure("cold zoom, longest ÷ median warm", 1e3 * max(cold), floor=median, target=2.0),
        Figure("cold zoom, frames with stand-ins", 100 * stand_ins, "%"),
    )
    return Result("zoom", QUESTION, figures)


def path(bench: Bench) -> list:
    """The cameras of the way there and back, in equal ratios."""
    bench.engine.fit()
    start = bench.engine.camera
    w_x, w_y = (share * side for share, side in zip(CURSOR, bench.size, strict=True))
    there = [start.zoomed(scale, w_x, w_y) for scale in np.geomspace(start.scale, CLOSEST, FRAMES)]
    return [*there, *reversed(there)]


def travel(bench: Bench, cameras: list, cold: bool) -> tuple[list[float], float]:
    """(seconds of each frame, share of frames whose own tiles are not all there); the caches begin empty if `cold`."""
    if cold:
        bench.forget()
    bench.engine.camera = cameras[0]
    bench.settled_s()
    seconds, stand_ins = [], 0
    for camera in cameras:
        bench.engine.camera = camera
        seconds.append(bench.frame_s())
        stand_ins += not bench.engine.report.complete
    return seconds, stand_ins / len(cameras)


def _spread(kind: str, seconds: list[float]) -> list[Figure]:
    points = (("median", 50), ("p95", 95), ("p99", 99), ("longest", 100))
    return [Figure(f"{kind} zoom, {name} frame", 1e3 * float(np.percentile(seconds, q))) for name, q in points]
