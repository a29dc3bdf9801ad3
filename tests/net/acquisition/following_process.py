"""A reader in a process of its own: python following_process.py LOCATION SPECIMEN (as JSON) RESULT.

It follows the slide until it is finished and complete, reads each plane that it hears of, at full resolution and at a layer
drawn at random, and compares. The file RESULT says what came of that, and how much memory it took; RESULT.opened is there once
the slide is open.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from specimen import Specimen

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the contract's independent truth

from contract import area_mean

from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import NotASlideError, UnreachableError
from rawmosaic.storage.slide import Slide

FOLLOW_S = 0.02
ALL_S = 900.0


class Reader:
    """Reads what it hears of, and counts."""

    def __init__(self, specimen: Specimen):
        self._specimen, self._chosen = specimen, random.Random(specimen.seed + os.getpid())
        self.n_planes = len(specimen.keys)
        self.told: set[tuple[int, int]] = set()
        self.n_read = self.n_opened = 0

    def follow(self, location: str, ends: float, is_open: Callable[[], None]) -> None:
        """Until all planes of a finished slide were read; raises what is wrong."""
        rest = threading.Event()
        while True:
            assert time.monotonic() < ends, f"{len(self.told)} of {self.n_planes} planes came"
            try:
                slide = opened(location)
            except (NotASlideError, UnreachableError):  # not yet
                rest.wait(FOLLOW_S)
                continue
            with slide:
                self.n_opened += 1
                is_open()
                self.told = set()
                self.read(slide, [(*found, 0, 0) for found in np.argwhere(slide.acquired()).tolist()])
                while not slide.replaced and (slide.growing or len(self.told) < self.n_planes):
                    assert time.monotonic() < ends, f"{len(self.told)} of {self.n_planes} planes came"
                    rest.wait(FOLLOW_S)
                    self.read(slide, slide.refresh().tolist())
                if not slide.replaced:
                    assert slide.acquired().sum() == self.n_planes
                    return

    def read(self, slide: Slide, planes: list) -> None:
        """Read and compare planes."""
        for number, channel, z, t in planes:
            key = (self._specimen.place(slide.fields[number]), channel)
            truth = self._specimen.plane(key)
            np.testing.assert_array_equal(slide.read_plane(number, channel, z, t), truth, f"the plane {key}")
            level = self._chosen.randrange(len(slide.levels))
            coarse = slide.read_plane(number, channel, z, t, level)
            np.testing.assert_array_equal(coarse, area_mean(truth, slide.levels[level]), f"the plane {key} at layer {level}")
            assert key not in self.told, f"the plane {key} came twice"
            self.told.add(key)
            self.n_read += 1


def opened(location: str) -> Slide:
    return RemoteSlide(location, disk_cache=None) if "://" in location else open_slide(location)


def memory_mb() -> float:
    """The most memory that this process has had; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(location: str, specimen: Specimen, result: Path) -> int:
    began, reader, error = time.monotonic(), Reader(specimen), ""
    own_mb = memory_mb()
    try:
        reader.follow(location, began + ALL_S, result.with_name(f"{result.name}.opened").touch)
    except Exception as problem:
        error = "".join(traceback.format_exception(problem))
    facts = {"read": reader.n_read, "told": len(reader.told), "opened": reader.n_opened, "error": error, "own_mb": own_mb}
    result.write_text(json.dumps({**facts, "peak_mb": memory_mb(), "seconds": round(time.monotonic() - began, 1)}))
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Specimen(**json.loads(sys.argv[2])), Path(sys.argv[3])))
