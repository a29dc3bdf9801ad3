"""What every benchmark shares: figures with their floors and targets, timing, the machine, JSON and Markdown."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
CACHE = Path(os.environ.get("RAWMOSAIC_BENCHMARK_DATA", Path(__file__).parent / "cache"))
"""Data are made once and kept here."""

START_S = 60


@dataclass(frozen=True)
class Figure:
    """One measured number. `floor` is what the bare operation takes on this machine in this run; `target` bounds the ratio
    (or the value itself where there is no floor); `at_least` says on which side."""

    name: str
    value: float
    unit: str = "ms"
    floor: float | None = None
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """value ÷ floor."""
        return self.value / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether the target is kept; None where there is none."""
        if self.target is None:
            return None
        measured = self.value if self.floor is None else self.ratio
        return measured >= self.target if self.at_least else measured <= self.target


@dataclass(frozen=True)
class Result:
    """The answer of one benchmark to its question."""

    benchmark: str
    question: str
    figures: tuple[Figure, ...]


def timed(action: Callable[[], object], repeat: int = 7, warm: int = 1) -> list[float]:
    """Seconds of `repeat` runs after `warm` unmeasured ones."""
    for _ in range(warm):
        action()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds


def median_ms(seconds: Iterable[float]) -> float:
    """The median in milliseconds."""
    return 1e3 * float(np.median(list(seconds)))


@contextmanager
def spawned(target: Callable, *arguments: object) -> Iterator[tuple[object, int]]:
    """(what it said first, process id) of ``target(end, *arguments)`` in a process of its own, which shall end when `end`, a
    multiprocessing connection, has something for it."""
    method = multiprocessing.get_context("spawn")
    here, there = method.Pipe()
    process = method.Process(target=target, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(START_S):
            raise TimeoutError(f"{target.__name__} did not start within {START_S} s")
        yield here.recv(), process.pid
    finally:
        with suppress(OSError):
            here.send("end")
        process.join(10)
        process.kill()
        process.join()
        here.close()


def machine() -> dict[str, str]:
    """What a figure cannot be understood without."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **_versions("numpy", "h5py", "blosc", "hdf5plugin", "PyOpenGL"),
    }


def report(results: list[Result], facts: dict[str, str]) -> str:
    """The Markdown page of a run."""
    lines = ["# Benchmark results", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for result in results:
        lines += [f"## {result.benchmark}", "", result.question, ""]
        lines += ["| figure | measured | floor | ratio | target | kept |", "|---|---|---|---|---|---|"]
        lines += [_row(figure) for figure in result.figures] + [""]
    return "\n".join(lines)


def save(results: list[Result], facts: dict[str, str], folder: Path, name: str) -> Path:
    """Write NAME.json and NAME.md; returns the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts, "results": [asdict(result) for result in results]}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    page = folder / f"{name}.md"
    page.write_text(report(results, facts))
    return page


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def _row(figure: Figure) -> str:
    floor = f"{figure.floor:.3g} {figure.unit}" if figure.floor is not None else ""
    ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
    side = "≥" if figure.at_least else "≤"
    target = f"{side} {figure.target:g}" if figure.target is not None else ""
    kept = {True: "yes", False: "**no**", None: ""}[figure.met]
    name = f"{figure.name} ({figure.note})" if figure.note else figure.name
    return f"| {name} | {figure.value:.3g} {figure.unit} | {floor} | {ratio} | {target} | {kept} |"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _versions(*names: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
