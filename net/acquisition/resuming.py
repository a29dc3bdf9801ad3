"""What a writer that was killed left behind, and where the next one goes on.

nothing there ─────────────────────────────► NEW      write from the spool
NAME.h5.part, unfinished ── becomes .kept ─► KEPT     copy what is right in it, then write from the spool
.part and .kept: an unfinished copy, goes ─►
NAME.h5.part, finished ────────────────────► SEALED   look whether all is there, then give it its name
NAME.h5 ───────────────────────────────────► NAMED    nothing is left to do
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from rawmosaic.storage.durable import sync_folder
from rawmosaic.storage.errors import SlideError, WriteError
from rawmosaic.storage.hdf5.at_once import carry_over_changes, forget_changes
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.opening import PART_SUFFIX

KEPT_SUFFIX, DAMAGED_SUFFIX = ".kept", ".damaged"


class Left(Enum):
    """What was found, once it was put in order."""

    NEW = "new"
    KEPT = "kept"
    SEALED = "sealed"
    NAMED = "named"


def part_of(location: Path) -> Path:
    """Where a slide grows."""
    return location.with_name(location.name + PART_SUFFIX)


def kept_of(location: Path) -> Path:
    """Where the slide of a writer that was killed lies until all of it was copied."""
    return location.with_name(location.name + KEPT_SUFFIX)


def take_up(location: Path, scan_uid: str) -> Left:
    """Put in order what is there of the slide at `location`; killed at any moment, it does the same when it is called again.

    Nobody else writes the slide meanwhile. WriteError where a slide of another scan has the name.
    """
    part, kept = part_of(location), kept_of(location)
    if location.exists():
        with Hdf5Slide(location) as slide:
            if slide.finished and slide.scan_uid == scan_uid:
                return Left.NAMED
        raise WriteError("another slide has this name; move it away, and the scan is completed", location=location)
    try:
        if part.exists():
            carry_over_changes(part)
            if not kept.exists() and is_sealed(part):
                return Left.SEALED
            if kept.exists():
                part.unlink()
            else:
                os.replace(part, kept)
            sync_folder(location.parent)
        else:
            forget_changes(part)  # of a scan that was discarded
    except OSError as error:
        raise WriteError(f"cannot be put aside, is it open in another program? {error}", location=part) from error
    return Left.KEPT if kept.exists() else Left.NEW


def is_sealed(part: Path) -> bool:
    """Whether a growing slide was finished but for its name."""
    try:
        with Hdf5Slide(part) as slide:
            return slide.finished
    except SlideError:
        return False
