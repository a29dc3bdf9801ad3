"""Does panning cost more than drawing the same quads? Warm, and while tiles stream in."""

from __future__ import annotations

import numpy as np

from benchmarks.data import paper_slide
from benchmarks.harness import Figure, Result
from benchmarks.views import Bench

QUESTION = __doc__
STEP_PX = 16
FRAMES = 120


def run() -> Result:
    """At 1:1 and at 0.7, in four channels."""
    figures = []
    with Bench(paper_slide()) as bench:
        bench.settled_s()
        bench.warm_up()
        for scale in (1.0, 0.7, 0.2):
            warm, draws = warm_pan(bench, scale)
            floor = float(np.median(draws))
            note = f"scale {scale:g}"
            figures.append(
                Figure("warm pan, median frame", 1e3 * float(np.median(warm)), floor=1e3 * floor, target=1.15, note=note)
            )
            streaming, stand_ins = streaming_pan(bench, scale)
            median = 1e3 * float(np.median(warm))
            for name, q in (("median", 50), ("p95", 95), ("p99", 99)):
                figures.append(Figure(f"streaming pan, {name} frame", 1e3 * float(np.percentile(streaming, q)), note=note))
            longest = 1e3 * max(streaming)
            figures.append(Figure("streaming pan, longest ÷ median warm", longest, floor=median, target=2.0, note=note))
            figures.append(
                Figure(
                    "what the machine does by itself: bare draw, longest ÷ median", 1e3 * max(draws), floor=1e3 * floor, note=note
                )
            )
            figures.append(Figure("streaming pan, frames with stand-ins", 100 * stand_ins, "%", note=note))
    return Result("pan", QUESTION, tuple(figures))


def warm_pan(bench: Bench, scale: float) -> tuple[list[float], list[float]]:
    """(seconds of each frame, seconds of each bare draw): to and fro over what is resident, each frame another view."""
    generator = np.random.default_rng(5)
    bench.forget()
    bench.random_place(generator, scale)
    frames, draws = [], []
    for repeat in range(6):
        for step in range(16):
            bench.engine.camera = bench.engine.camera.moved(STEP_PX / 2 if step < 8 else -STEP_PX / 2, 0)
            if repeat == 0:
                bench.settled_s()
                continue
            frames.append(bench.frame_s())
            assert bench.engine.report.complete, "everything is resident"
        if repeat:
            draws += bench.bare_draws_s(FRAMES // 5)
    return frames, draws


def streaming_pan(bench: Bench, scale: float) -> tuple[list[float], float]:
    """(seconds of each frame, share of frames that show stand-ins): a steady drag into the unseen."""
    generator = np.random.default_rng(7)
    bench.forget()
    bench.random_place(generator, scale)
    bench.settled_s()
    frames, stand_ins = [], 0
    for _ in range(FRAMES):
        bench.engine.camera = bench.engine.camera.moved(-STEP_PX, -STEP_PX / 2)
        frames.append(bench.frame_s())
        stand_ins += not bench.engine.report.complete
    return frames, stand_ins / FRAMES
