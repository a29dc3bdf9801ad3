"""Tables on standard output: drawn where a person looks, tab-separated lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def echo_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Write a table; the columns named in `right` hold numbers. rich is imported where there is a terminal to draw on."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            click.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a name may hold what rich takes for its own marks
    Console().print(table)


def bytes_text(nbytes: int | None) -> str:
    """``1.3 GB``; "" where it is not known."""
    if nbytes is None:
        return ""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
