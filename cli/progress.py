"""Progress bars on standard error, where a person watches; nothing at all elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 0.3
"""What takes less than this shows no bar."""

Progress = Callable[[int, int], None]


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A callable(done, total) that draws a bar until the block ends. rich is imported when there is something to show."""
    bar = _Bar(label) if sys.stderr.isatty() else None
    try:
        yield bar.update if bar is not None else _nothing
    finally:
        if bar is not None:
            bar.close()


def _nothing(done: int, total: int) -> None:
    pass


class _Bar:
    def __init__(self, label: str):
        self._label = label
        self._started = time.monotonic()
        self._display = None
        self._task = None

    def update(self, done: int, total: int) -> None:
        if self._display is None:
            if time.monotonic() - self._started < PATIENCE_S:
                return
            self._open()
        self._display.update(self._task, completed=done, total=total)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._display = Progress(*columns, console=Console(stderr=True))
        self._task = self._display.add_task(self._label, total=None)
        self._display.start()

    def close(self) -> None:
        if self._display is not None:
            self._display.stop()
