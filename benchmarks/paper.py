"""How long for the two views of the 2014 paper? 418 fields in four colours at layer 16, and 100 fields at layer 8."""

from __future__ import annotations

import numpy as np

from benchmarks.data import FIELD_SHAPE, paper_slide
from benchmarks.harness import Figure, Result
from benchmarks.views import Bench, drop_page_cache
from rawmosaic.storage import open_slide

QUESTION = __doc__
PAPER_MS = {16: 2000.0, 8: 6000.0}
"""What F. Salvaire's thesis needed, at its time and on its machine."""

REPEAT = 9


def run() -> Result:
    """Complete frames with empty caches, shaders compiled; then with the page cache dropped as well."""
    figures = []
    with open_slide(paper_slide()) as slide:
        positions = slide.positions() / slide.header.pixel_size_um
        width, height = np.ptp(positions, axis=0) + FIELD_SHAPE[::-1]
    figures += _view_figures("whole slide", 16, (int(width / 16), int(height / 16)))
    figures += _view_figures("100 fields", 8, FIELD_SHAPE[::-1])  # of ten by ten fields, the outer ones in part
    return Result("paper", QUESTION, tuple(figures))


def _view_figures(what: str, factor: int, size: tuple[int, int]) -> list[Figure]:
    with Bench(paper_slide(), size) as bench:
        bench.engine.prefetches = False
        camera = bench.engine.camera
        bench.engine.look_at(camera.x_um, camera.y_um, min(camera.scale, 1 / factor) if factor == 16 else 1 / factor)
        bench.settled_s()
        report, channels = bench.engine.report, len(bench.slide.channels)
        shown = bench.slide.levels[report.level]
        if shown != factor:
            raise RuntimeError(f"the view of {what} shows layer {shown}, not {factor}: the size {size} does not suit the slide")
        floor = 1e3 * bench.floors().total
        warm = 1e3 * float(np.median([_cold_s(bench) for _ in range(REPEAT)]))
        dropped = []
        for _ in range(REPEAT):
            if not drop_page_cache(bench.slide.location):
                break
            dropped.append(_cold_s(bench))
    name = f"{what} at layer {factor}"
    facts = f"{report.fields_in_view} fields × {channels} channels, {size[0]} × {size[1]}, {report.tiles_wanted} tiles"
    paper = f"the paper: {PAPER_MS[factor] / 1e3:g} s"
    figures = [Figure(name, warm, floor=floor, note=facts), Figure(name, warm, target=PAPER_MS[factor], note=paper)]
    if dropped:
        cold = 1e3 * float(np.median(dropped))
        figures.append(Figure(f"{name}, page cache dropped", cold, target=PAPER_MS[factor], note=paper))
    return figures


def _cold_s(bench: Bench) -> float:
    bench.forget()
    return bench.settled_s()
