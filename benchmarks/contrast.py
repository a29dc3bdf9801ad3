"""What does another look of a shown view cost? Limits, colour, gamma and visibility: frame time, and what is read for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.data import paper_slide
from benchmarks.harness import Figure, Result
from benchmarks.views import Bench
from rawmosaic.storage.slide import Slide

QUESTION = __doc__
CHANGES = 24
"""Frames of each kind of change."""


class ReadCounter:
    """Counts the tiles that anyone asks a slide for, by standing in the way of its `read_tile`."""

    def __init__(self, slide: Slide):
        self.tiles, self._read_tile = 0, slide.read_tile
        slide.read_tile = self._counting

    def _counting(self, *arguments):
        self.tiles += 1
        return self._read_tile(*arguments)


def run() -> Result:
    """At 1:1 in four colours, 1280 × 720."""
    figures = []
    with Bench(paper_slide()) as bench:
        counter = ReadCounter(bench.slide)
        bench.engine.prefetches = False  # what comes ahead of the camera is not paid for the change
        bench.random_place(np.random.default_rng(11), 1.0)
        bench.settled_s()
        bench.warm_up()
        still = 1e3 * float(np.median([bench.frame_s() for _ in range(CHANGES)]))
        looks = bench.engine.channels
        low, high = looks[0].limits
        changes: dict[str, Callable[[int], None]] = {
            "contrast limits": lambda i: setattr(looks[0], "limits", (low + i, high - 10 * i)),
            "colour": lambda i: setattr(looks[1], "color", f"#{(37 * i) % 256:02x}80ff"),
            "gamma": lambda i: setattr(looks[2], "gamma", 0.5 + i / CHANGES),
            "channel off and on": lambda i: setattr(looks[3], "visible", i % 2 == 1),
        }
        for name, change in changes.items():
            figures += _change_figures(bench, counter, name, change, still)
        figures.append(_added_channel(bench))
    return Result("contrast", QUESTION, tuple(figures))


def _change_figures(
    bench: Bench, counter: ReadCounter, name: str, change: Callable[[int], None], still_ms: float
) -> list[Figure]:
    before = counter.tiles
    seconds, uploaded, decoded = [], 0, 0
    for number in range(CHANGES):
        change(number)
        seconds.append(bench.frame_s())
        uploaded += bench.engine.report.bytes_uploaded
        decoded += bench.engine.report.bytes_decoded
    nbytes = (counter.tiles - before) * bench.slide.tiling.tile_nbytes + decoded + uploaded
    ms = 1e3 * float(np.median(seconds))
    return [
        Figure(f"{name}: frame", ms, floor=still_ms, note="floor: a frame of the unchanged view"),
        Figure(f"{name}: longest frame", 1e3 * max(seconds)),
        Figure(f"{name}: read, decoded and uploaded for what was shown", nbytes, "bytes", target=0),
    ]


def _added_channel(bench: Bench) -> Figure:
    """Tiles that come when a channel is shown that never was: those of that channel alone."""
    *_, added = bench.engine.channels
    added.visible = False
    bench.forget()
    bench.settled_s()
    others = bench.engine.report.tiles_wanted
    resident = bench.engine.report.tiles_in_texture
    added.visible = True
    bench.settled_s()
    own = bench.engine.report.tiles_wanted - others
    came = bench.engine.report.tiles_in_texture - resident
    return Figure("channel shown for the first time: tiles fetched ÷ tiles of that channel in view", came, "tiles", own, 1.0)
