"""When that is tried again which fails for one and the same reason: less and less often, and at once when something changed."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from pathlib import Path

FIRST_REST_S, LONGEST_REST_S = 30.0, 600.0


class Patience:
    """Counts failures of one thing, and says whether it is time for the next try. Times are monotonic seconds; no clock, no file.

    The first failure, and one for another reason than the last, cost no rest here; from the second on, 30 s, 60 s, … up to ten
    minutes, unless `stamp`, which stands for all that the outcome rests on, is another by then.
    """

    def __init__(self) -> None:
        self._reason = ""
        self._n_same = 0
        self._until = 0.0
        self._stamp: Hashable = None

    @property
    def fails_again(self) -> bool:
        """Whether it failed last for the reason for which it had failed before."""
        return self._n_same > 1

    @property
    def reason(self) -> str:
        """Why it failed last; empty where it has not, or did not say."""
        return self._reason

    def failed(self, now: float, reason: str, stamp: Hashable) -> None:
        """It failed; an empty reason is never the same."""
        self._n_same = self._n_same + 1 if reason and reason == self._reason else 1
        self._reason, self._stamp = reason, stamp
        rest_s = min(FIRST_REST_S * 2 ** min(self._n_same - 2, 16), LONGEST_REST_S) if self.fails_again else 0.0
        self._until = now + rest_s

    def left_s(self, now: float) -> float:
        """How long the rest is still."""
        return max(self._until - now, 0.0)

    def look(self, stamp: Hashable) -> None:
        """End the rest where something changed."""
        if stamp != self._stamp:
            self.hurry()

    def hurry(self) -> None:
        """End the rest: somebody asks."""
        self._until = 0.0


def stamp_of(paths: Iterable[Path]) -> tuple:
    """What tells whether anything was done to files and folders, or whether they are there: equal while nothing was."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
