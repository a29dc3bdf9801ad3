"""`python -m benchmarks [NAME …]`: run benchmarks, print the Markdown page, keep it with the JSON."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import click

from benchmarks.harness import RESULTS, Result, machine, report, save, say

NAMES = (
    "floors",
    "layouts",
    "first_frame",
    "jump",
    "pan",
    "zoom",
    "contrast",
    "paper",
    "scale",
    "write",
    "memory",
    "broker",
    "remote",
    "acquire",
    "watch",
)
OPT_IN = ("peers", "panels")
"""Run only when named: `peers` installs what it compares with, `panels` needs a display."""


@click.command()
@click.argument("names", nargs=-1)
@click.option("--keep", metavar="NAME", help="Keep the page as benchmarks/results/NAME.md and .json.")
@click.option("--folder", type=click.Path(path_type=Path), default=RESULTS, show_default="benchmarks/results")
def main(names: tuple[str, ...], keep: str | None, folder: Path) -> None:
    """Run the benchmarks NAMES (all but `peers` and `panels` by default)."""
    unknown = set(names) - set(NAMES) - set(OPT_IN)
    if unknown:
        raise click.UsageError(f"no benchmark {', '.join(sorted(unknown))}: choose from {', '.join((*NAMES, *OPT_IN))}")
    facts, results = machine(), []
    for name in names or NAMES:
        say(f"{name} …")
        start = time.perf_counter()
        result: Result = importlib.import_module(f"benchmarks.{name}").run()
        say(f"{name}: {time.perf_counter() - start:.0f} s")
        results.append(result)
    print(report(results, facts))
    if keep:
        say(f"kept as {save(results, facts, folder, keep)}")


if __name__ == "__main__":
    main()
