"""Kill the acquisition server again and again, and note what came of it: python tools/kills.py FIRST COUNT [--keep results.jsonl]

Each run is a whole scan whose processes are killed as its seed says (tests/net/acquisition/killing.py, as the tests use it).
`--page results.jsonl` puts what was kept into words.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "net" / "acquisition")]

from killing import Result, Run, Script  # noqa: E402  the tests' own

ROLES = {"manager", "proxy", "writer", "scanner"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; 1 where a run found a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=int, nargs="?", default=0, help="the first seed")
    parser.add_argument("count", type=int, nargs="?", default=10)
    parser.add_argument("--parallel", type=int, default=2, help="runs at once")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so long")
    parser.add_argument("--keep", type=Path, help="file that each run's result is appended to, a JSON object a line")
    parser.add_argument("--page", type=Path, help="print a page about these results, and run nothing")
    options = parser.parse_args(arguments)
    if options.page:
        print(page([json.loads(line) for line in options.page.read_text(encoding="utf-8").splitlines()]))
        return 0
    return kill(range(options.first, options.first + options.count), options.parallel, options.seconds, options.keep)


def kill(seeds: Iterable[int], parallel: int, seconds: float, keep: Path | None) -> int:
    """Do the runs, and keep what came of them; 1 where a fault was found, whose folder stays."""
    ends, failed = time.monotonic() + seconds, []

    def run(seed: int) -> None:
        if time.monotonic() > ends or failed:
            return
        folder = Path(tempfile.mkdtemp(prefix="rawmosaic-kills-"))
        try:
            result = Run(Script.of(seed), folder).run()
        except BaseException:
            failed.append(seed)
            print(f"seed {seed} FAILED, see {folder}\n{traceback.format_exc()}", flush=True)
            return
        shutil.rmtree(folder)
        print(line_of(result), flush=True)
        if keep:
            with keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(run, seeds))
    return 1 if failed else 0


def line_of(result: Result) -> str:
    """A run in a line."""
    killed = "; ".join(result.killed) or "nobody"
    return (
        f"seed {result.seed}: {result.acknowledged} acknowledged, {result.found} found, {result.seconds:.1f} s; killed: {killed}"
    )


def page(results: Sequence[dict]) -> str:
    """What many runs came to, in Markdown."""
    names = Counter(name.replace("serve", "manager") for result in results for name in result["killed"])
    moments = {name: count for name, count in names.items() if set(name.split(" + ")) <= ROLES}
    steps = {name: count for name, count in names.items() if name not in moments}
    damages = Counter(name for result in results for name in result["damages"])
    sums = {name: sum(result[name] for result in results) for name in ("acknowledged", "found", "followed", "opened", "refused")}
    facts = {
        "runs": len(results),
        "kills at random moments": sum(moments.values()),
        "kills at steps": sum(steps.values()),
        "planes that were acknowledged": sums["acknowledged"],
        "of these found in the finished slides, bit for bit": sums["found"],
        "planes that followers read and compared while the slides grew": sums["followed"],
        "slides that followers opened": sums["opened"],
        "times a follower was told that a file cannot be opened just now": sums["refused"],
    }
    return "\n".join(
        [
            f"Seeds {ranges(sorted({result['seed'] for result in results}))}; on {platform.system()} {platform.machine()} with "
            f"{os.cpu_count()} processors, Python {platform.python_version()}.",
            *table("what", {name: f"{count:,}" for name, count in facts.items()}, "how many"),
            *table("killed at a random moment, together", by_count(moments)),
            *table("killed at a step", by_count(steps)),
            *table("done to the end of the spool while nobody ran", by_count(damages)),
        ]
    )


def by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def table(title: str, rows: Mapping[str, object], values: str = "times") -> list[str]:
    """A table of two columns in Markdown."""
    return ["", f"| {title} | {values} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers in words: 0 to 3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first} to {last}" if last > first else str(first) for first, last in parts)


if __name__ == "__main__":
    sys.exit(main())
