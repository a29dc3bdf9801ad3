"""How long from nothing to the whole slide: a process that writes its PNG, and the first frame after opening?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

from benchmarks.data import paper_slide
from benchmarks.floors import bare_process
from benchmarks.harness import Figure, Result, median_ms, timed
from benchmarks.views import Bench

QUESTION = __doc__

RENDER = "from rawmosaic.cli.main import run; run()"

OPEN_AND_DRAW = """
import sys, time
from rawmosaic.storage import open_slide
from rawmosaic.viewer import OffscreenViewer
from rawmosaic.viewer.gl.context import HeadlessContext
HeadlessContext().close()  # the driver is loaded: what follows is ours
import OpenGL.GL
start = time.perf_counter()
with open_slide(sys.argv[1]) as slide:
    with OffscreenViewer(slide, size=(1280, 720)) as viewer:
        viewer.render()
        print(1e3 * (time.perf_counter() - start))
"""


def run() -> Result:
    """418 fields in four colours, 1280 × 720."""
    path = str(paper_slide())
    with tempfile.TemporaryDirectory() as folder:
        png = os.path.join(folder, "out.png")
        command = [
            sys.executable,
            "-c",
            "from rawmosaic.cli.main import run; run()",
            "render",
            path,
            "-o",
            png,
            "--size",
            "1280x720",
        ]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(png) as picture:
            bare_command = bare_process(folder, np.asarray(picture.convert("RGB")))
        seconds = {"whole": [], "bare": []}
        for _ in range(9):  # in turns, so that a busy machine meets both
            for name, each in (("whole", command), ("bare", bare_command)):
                seconds[name] += timed(lambda each=each: subprocess.run(each, check=True, capture_output=True), 1, 0)
        whole, bare = median_ms(seconds["whole"]), median_ms(seconds["bare"])
    opened = sorted(
        float(subprocess.run([sys.executable, "-c", OPEN_AND_DRAW, path], check=True, capture_output=True, text=True).stdout)
        for _ in range(7)
    )[3]
    with Bench(path) as bench:
        bench.settled_s()
        floors = bench.floors()
        bench.forget()
        again = bench.settled_s()
    figures = (
        Figure("process start to PNG of the whole slide", whole, floor=bare, target=1.5),
        Figure("process start to PNG of the whole slide", whole, target=800, note="absolute"),
        Figure("open to first frame, shaders compiled on the way", opened),
        Figure("whole slide, cold caches, shaders compiled", 1e3 * again, floor=1e3 * floors.total, target=2.0),
    )
    return Result("first_frame", QUESTION, figures)
