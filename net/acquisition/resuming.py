"""What a writer that was killed left behind, and where the next one goes on.

nothing there ─────────────────────────────► NEW      write from the spool
NAME.h5.part, unfinished ── becomes .kept ─► KEPT     copy what is right in it, then write from the spool
.part and .kept: an unfinished copy, goes ─►
NAME.h5.part, finished ────────────────────► SEALED   look whether all is there, then give it its name
NAME.h5 ───────────────────────────────────► NAMED    nothing is left to do

What is another's is left alone: an error says so. Nothing is deleted but what holds nothing, or nothing that is not in .kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import numpy as np

from rawmosaic.storage.durable import sync_folder
from rawmosaic.storage.errors import SlideError, WriteError
from rawmosaic.storage.hdf5.at_once import being_changed, carry_over_changes, forget_changes
from rawmosaic.storage.hdf5.claim import claim
from rawmosaic.storage.hdf5.left_behind import (
    LeftBehind,
    check_readable,
    holds_nothing,
    kept_of,
    left_behind,
    new_damaged_of,
    part_of,
)
from rawmosaic.storage.hdf5.letting_go import Waiting, forget_wish, patiently
from rawmosaic.storage.hdf5.reader import Hdf5Slide


class Left(Enum):
    """What was found, once it was put in order."""

    NEW = "new"
    KEPT = "kept"
    SEALED = "sealed"
    NAMED = "named"


def take_up(location: Path, scan_uid: str, waiting: Waiting | None = None) -> Left:
    """Put in order what is there of the slide at `location`; killed at any moment, it does the same when it is called again.

    No other writer of this scan is there. WriteError where what has one of the names is another's, or cannot be moved;
    `waiting` is told of a file that somebody has open and that is waited for (see `patiently`).
    """
    part, kept = part_of(location), kept_of(location)
    for path in (part, kept):
        forget_wish(path)  # of a writer that was killed while it waited
    if os.path.lexists(location):
        if _is_complete(location, scan_uid):
            return Left.NAMED
        raise WriteError("another slide has this name; move it away, and the scan is completed", location=location)
    try:
        for path in (kept, part):
            _check_is_a_file(path)
        if kept.exists():
            _check_is_own(kept, scan_uid)
            if holds_nothing(kept):
                patiently(kept.unlink, kept, waiting)
        if not part.exists():
            forget_changes(part)  # of a scan that was discarded
        elif _settled(part, kept, location, scan_uid, waiting):
            return Left.SEALED
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"cannot be put aside: {error}; nothing was deleted, it is tried again", location=part) from error
    return Left.KEPT if kept.exists() else Left.NEW


def _is_complete(location: Path, scan_uid: str) -> bool:
    try:
        with Hdf5Slide(location) as slide:
            return slide.finished and slide.scan_uid == scan_uid
    except SlideError:
        return False


def _check_is_a_file(path: Path) -> None:
    """Raise WriteError for a folder of that name, and for a link that leads nowhere just now."""
    if os.path.lexists(path) and not path.is_file():
        what = "a link to what is not there" if path.is_symlink() else "no file"
        raise WriteError(f"this is {what}; mend it or move it away, and the scan is completed", location=path)


def _check_is_own(path: Path, scan_uid: str) -> None:
    """Raise WriteError for what was written for another scan, or for none. What cannot be read may be the scan's own."""
    found = left_behind(path)
    if found is not None and found.scan_uid not in (None, scan_uid):
        whose = f"this is of another scan, {found.scan_uid}" if found.scan_uid else "this is of another scan or program"
        raise WriteError(f"{whose}; move it away, and the scan is completed", location=path)


def _settled(part: Path, kept: Path, location: Path, scan_uid: str, waiting: Waiting | None) -> bool:
    """Whether a growing slide was finished; if not, it is put aside, or goes. WriteError, OSError."""
    with contextlib.ExitStack() as claimed:
        alone = claimed.enter_context(_not_written_by_others(part))
        found = _completed(part, scan_uid)
        if not alone and (found is None or found.scan_uid is None):  # who only reads it may have it locked as well
            raise WriteError("another program has this open, and may be writing it; it is tried again", location=part)
        if found is not None and found.finished and not kept.exists() and _opens(part):
            return True
        if os.name == "nt":
            claimed.close()  # Windows renames no file that is open
        if not kept.exists():
            patiently(lambda: os.replace(part, kept), part, waiting)
        elif found is None or _is_unfinished_copy(part, found, kept):
            patiently(part.unlink, part, waiting)
        else:  # the one to be copied is damaged, or somebody has put another file here
            aside = new_damaged_of(location)
            patiently(lambda: os.replace(part, aside), part, waiting)
        sync_folder(location.parent)
        return False


def _completed(part: Path, scan_uid: str) -> LeftBehind | None:
    """What a growing slide is, once changes were carried over that its writer had begun with. WriteError, OSError."""
    _check_is_own(part, scan_uid)
    if holds_nothing(part):
        forget_changes(part)
        return None
    if being_changed(part):
        carry_over_changes(part)
        _check_is_own(part, scan_uid)  # it may be readable by now
    return left_behind(part)


def _opens(part: Path) -> bool:
    try:
        with Hdf5Slide(part):
            return True
    except SlideError:
        return False


def _is_unfinished_copy(part: Path, found: LeftBehind, kept: Path) -> bool:
    """Whether all that `part` may have is in `kept` as well, which can be read."""
    try:
        check_readable(kept)
        with Hdf5Slide(kept) as old:
            if found.scan_uid is None:
                return True  # a power failure while it was copied
            with Hdf5Slide(part) as copy:
                return not any(
                    _has_more(copy.acquired(z, t), copy.checksums(z, t), old.acquired(z, t), old.checksums(z, t))
                    for z in range(copy.size_z)
                    for t in range(copy.size_t)
                )
    except SlideError:
        return False


def _has_more(there: np.ndarray, crcs: np.ndarray, there_before: np.ndarray, crcs_before: np.ndarray) -> bool:
    """Whether a table of planes and their checksums has entries that another lacks, each (fields, channels)."""
    n = min(len(there), len(there_before))
    same = there_before[:n] & (crcs[:n] == crcs_before[:n])
    return bool((there[:n] & ~same).any() or there[n:].any())


@contextlib.contextmanager
def _not_written_by_others(path: Path) -> Iterator[bool]:
    """Whether nobody has the file locked; while this lasts, nobody who wants to write there is let in."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        yield claim(descriptor)
    finally:
        os.close(descriptor)
