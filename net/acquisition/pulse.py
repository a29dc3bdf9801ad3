"""Processes of a scan that hang, or that somebody else started: how one notices, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path

from rawmosaic.net.acquisition.files import read_json
from rawmosaic.storage.hdf5.claim import is_claimed


class Pulse:
    """Measures how long one thing has looked the same. Times are monotonic seconds.

    What a process leaves behind is looked at, and no clock but one's own.
    """

    def __init__(self) -> None:
        self._seen: Hashable = None
        self._since: float | None = None

    def silent_s(self, now: float, seen: Hashable) -> float:
        """How long `seen` has been what it is."""
        if self._since is None or seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since


def silence(name: str, pid: int | None, told: object, silent_s: float) -> str:
    """What may be wrong where a process says nothing; `told` is the number in what was said last, by it or by one before."""
    if told == pid:
        return f"its {name} (process {pid}) has said nothing for {in_words(silent_s)}: it is stopped, or its disk does not answer"
    if isinstance(told, int) and _is_there(told):
        return f"its {name} waits for an earlier one (process {told}), which may have the scan still, and goes on when that ends"
    return f"its {name} (process {pid}) is not there after {in_words(silent_s)}: it reads what it finds, or its disk is slow"


def held_by_another(folder: Path, name: str) -> str:
    """Who else has the lock of this kind of process in a scan's folder, in words; empty where nobody has."""
    claimed = is_claimed(folder / f"{name}.lock")
    if claimed is False:
        return ""
    if claimed is None:
        return "may be there or not: its lock cannot be looked at"
    number = (read_json(folder / f"{name}.json") or {}).get("pid")
    return f"of an earlier server is there still (process {number}); the scan goes on when that has ended"


def in_words(seconds: float) -> str:
    """So long, about."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{10 * max(round(seconds / 10), 1)} s"


def _is_there(pid: int) -> bool:
    """Whether there is a process of that number; where one cannot ask without harm, no."""
    if os.name != "posix" or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
