"""Does memory stay within its budgets? A thousand random jumps with zooms and drags, and what is left behind them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from benchmarks.data import paper_slide
from benchmarks.harness import Figure, Result, say

QUESTION = __doc__
JUMPS = 1000
OWN_MB = 300
"""What a process may take beside its caches."""

BUDGETS = {"default budgets": {}, "--ram 64M --vram 64M": {"ram_bytes": "64M", "vram_bytes": "64M"}}


def run() -> Result:
    """The paper's slide at 1280 × 720, each walk in a process of its own."""
    figures = []
    for name, budgets in BUDGETS.items():
        say(f"memory: {name}")
        command = [sys.executable, "-m", "benchmarks.memory", str(paper_slide()), json.dumps(budgets)]
        facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        allowed = facts["ram_budget_mb"] + facts["vram_budget_mb"] + OWN_MB
        figures += [
            Figure(f"{name}: peak memory ÷ (budgets + {OWN_MB} MB)", facts["peak_mb"], "MB", allowed, 1.0),
            Figure(f"{name}: beside the tile cache, at the end ÷ half-way", facts["beside_mb"], "MB", facts["half_way_mb"], 1.05),
            Figure(f"{name}: tile cache in use", facts["ram_mb"], "MB", facts["ram_budget_mb"], 1.0),
            Figure(f"{name}: threads after ÷ before", facts["threads_after"], "", facts["threads_before"], 1.0),
            Figure(f"{name}: texture layers ÷ budget", facts["layers_after"], "", facts["layers_allowed"], 1.0),
        ]
    return Result("memory", QUESTION, tuple(figures))


def walk(path: str, budgets: dict, jumps: int = JUMPS) -> dict[str, float]:
    """Jump, zoom and drag at random in this process; every fifth view waits until it is complete."""
    from benchmarks.views import Bench

    generator = np.random.default_rng(13)
    facts: dict[str, float] = {}
    with Bench(path, **budgets) as bench:
        bench.settled_s()
        bench.warm_up()
        facts["threads_before"] = threading.active_count()
        for number in range(jumps):
            bench.random_place(generator, float(2.0 ** generator.uniform(-5, 1)))
            for _ in range(3):
                bench.frame_s()
                camera = bench.engine.camera
                dragged = camera.moved(*generator.uniform(-200, 200, 2))
                bench.engine.camera = dragged.zoomed(camera.scale * float(generator.choice((0.8, 1.0, 1.25))))
            if number % 5 == 0:
                bench.settled_s()
            if number == jumps // 2:
                facts["half_way_mb"] = peak_memory_mb() - bench.engine.report.ram_bytes / 1e6
        report = bench.engine.report
        facts |= {
            "threads_after": threading.active_count(),
            "layers_after": bench.engine.store.texture.layers,
            "layers_allowed": bench.engine.store.capacity,
            "ram_mb": report.ram_bytes / 1e6,
            "ram_budget_mb": report.ram_budget_bytes / 1e6,
            "vram_budget_mb": report.vram_budget_bytes / 1e6,
            "beside_mb": peak_memory_mb() - report.ram_bytes / 1e6,
            "peak_mb": peak_memory_mb(),
        }
    return facts


def peak_memory_mb() -> float:
    """The most main memory this process had so far, MB."""
    try:  # what `resource` says on Linux includes the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    print(json.dumps(walk(sys.argv[1], json.loads(sys.argv[2]))))
