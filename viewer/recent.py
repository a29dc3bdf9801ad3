"""Slides that were opened lately, newest first.

One small file for each location, so that windows which open at the same time do not overwrite what the other remembers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.viewer.user_folder import read_text, user_folder, write_whole

MOST = 20
_ENDING, _MOST_BYTES = ".json", 1 << 16


@dataclass(frozen=True)
class Recent:
    """A location (an absolute path or an address), the slide's name, and when it was opened, seconds since 1970."""

    location: str
    name: str
    opened_at: float


def remember(location: str, name: str = "", *, now: float | None = None) -> None:
    """Note that a slide was opened; the oldest beyond MOST are forgotten. Does nothing where the folder cannot be written."""
    location = _absolute(location)
    entry = Recent(location, name, time.time() if now is None else now)
    with suppress(OSError):
        write_whole(_path(location), json.dumps(vars(entry), ensure_ascii=False))
    for old in _all()[MOST:]:
        forget(old.location)


def recent() -> list[Recent]:
    """The locations, newest first, at most MOST. What cannot be read is left out."""
    return _all()[:MOST]


def forget(location: str) -> None:
    """Take a location off the list."""
    with suppress(OSError):
        _path(_absolute(location)).unlink(missing_ok=True)


def _all() -> list[Recent]:
    found = []
    with suppress(OSError):
        found = [entry for path in _folder().glob("*" + _ENDING) if (entry := _read(path)) is not None]
    return sorted(found, key=lambda entry: entry.opened_at, reverse=True)


def _read(path: Path) -> Recent | None:
    try:
        known = json.loads(read_text(path, _MOST_BYTES))
        return Recent(str(known["location"]), str(known["name"]), float(known["opened_at"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _absolute(location: str) -> str:
    return location if "://" in location else os.path.abspath(location)


def _path(location: str) -> Path:
    key = location if "://" in location else os.path.normcase(location)
    return _folder() / (hashlib.sha256(key.encode()).hexdigest()[:32] + _ENDING)


def _folder() -> Path:
    return user_folder() / "recent"
