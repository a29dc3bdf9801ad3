"""Does anything grow with the slide? Open, first frame, jump, warm pan and memory from 400 to 100,000 fields."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

from benchmarks.data import large_slide
from benchmarks.harness import Figure, Result, say
from benchmarks.memory import peak_memory_mb

QUESTION = __doc__
SIZES = (400, 2193, 10000, 100000)
REPEAT = 3
OPENINGS = 7
JUMPS = 24
UNITS = {"open": "ms", "open to first frame of the whole slide": "ms", "jump": "ms", "warm pan": "ms", "memory": "MB"}


def run() -> Result:
    """Each size in processes of its own; the ratio is that to 400 fields."""
    paths = {n_fields: large_slide(n_fields) for n_fields in SIZES}
    measured: dict[int, dict[str, float]] = {}
    for _ in range(REPEAT):  # in turn: what else the machine does then meets all sizes, and the quieter run counts
        for n_fields, path in paths.items():
            say(f"scale: {n_fields} fields")
            command = [sys.executable, "-m", "benchmarks.scale", str(path)]
            now = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            before = measured.get(n_fields, now)
            measured[n_fields] = {name: min(value, before[name]) for name, value in now.items()}
    figures = []
    for what, unit in UNITS.items():
        least = measured[SIZES[0]][what]
        for n_fields in SIZES:
            base, target = (None, None) if n_fields == SIZES[0] else (least, 1.5 if n_fields == SIZES[-1] else None)
            figures.append(Figure(f"{what}, {n_fields:,} fields", measured[n_fields][what], unit, base, target))
    return Result("scale", QUESTION, tuple(figures))


def measure(path: str) -> dict[str, float]:
    """The figures of one slide, in this process."""
    from benchmarks.pan import warm_pan
    from benchmarks.views import Bench
    from rawmosaic.storage import open_slide
    from rawmosaic.viewer import OffscreenViewer

    opened, first = [], []
    for _ in range(OPENINGS + 1):
        start = time.perf_counter()
        slide = open_slide(path)
        opened.append(time.perf_counter() - start)
        with slide, OffscreenViewer(slide, size=(1280, 720)) as viewer:
            viewer.render()
            first.append(time.perf_counter() - start)
    generator = np.random.default_rng(3)
    jumps = []
    with Bench(path) as bench:
        bench.random_place(generator, 1.0)
        bench.settled_s()
        for _ in range(JUMPS):
            bench.forget()
            bench.random_place(generator, 1.0)
            jumps.append(bench.settled_s())
        warm, _ = warm_pan(bench, 1.0)
        memory = peak_memory_mb()
    seconds = {"open": opened[1:], "open to first frame of the whole slide": first[1:], "jump": jumps, "warm pan": warm}
    return {**{name: 1e3 * float(np.median(values)) for name, values in seconds.items()}, "memory": memory}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
