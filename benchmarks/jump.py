"""How long until the view is complete after a jump to an unseen place at 1:1 in four channels?"""

from __future__ import annotations

import numpy as np

from benchmarks.data import paper_slide
from benchmarks.harness import Figure, Result
from benchmarks.views import Bench, drop_page_cache

QUESTION = __doc__
JUMPS = 40


def run() -> Result:
    """Tile cache cold and page cache warm; then both cold."""
    with Bench(paper_slide()) as bench:
        warm, floors = jumps(bench)
        cold = []
        generator = np.random.default_rng(2)
        for _ in range(JUMPS // 2):
            bench.forget()
            if not drop_page_cache(bench.slide.location):
                break
            bench.random_place(generator, 1.0)
            cold.append(bench.settled_s())
    figures = [
        Figure("jump, median", 1e3 * float(np.median(warm)), floor=1e3 * float(np.median(floors)), target=1.5),
        Figure("jump, median", 1e3 * float(np.median(warm)), target=25, note="absolute"),
        Figure("jump, p95", 1e3 * float(np.percentile(warm, 95))),
    ]
    if cold:
        figures.append(Figure("jump, page cache dropped as well, median", 1e3 * float(np.median(cold))))
    return Result("jump", QUESTION, tuple(figures))


def jumps(bench: Bench, scale: float = 1.0, seed: int = 1) -> tuple[list[float], list[float]]:
    """(seconds of each jump, seconds of its floors). Each place is visited once before: the system may have dropped the file's
    pages meanwhile, and the floors are measured with them in memory as well."""
    generator = np.random.default_rng(seed)
    measured, floors = [], []
    bench.random_place(generator, scale)
    bench.settled_s()
    for number in range(JUMPS):
        bench.random_place(generator, scale)
        bench.settled_s()
        bench.forget()
        measured.append(bench.settled_s())
        if number % 4 == 0:
            floors.append(bench.floors().total)
    return measured, floors
