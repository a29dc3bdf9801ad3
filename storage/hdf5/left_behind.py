"""What lies under NAME.part before somebody writes there: nothing that counts, or planes that may be nowhere else.

A scan's planes leave their spool once they are in the slide that grows. So what its writer left behind, when it was killed, is
not to be overwritten by whoever comes next; what an import left can be made again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.storage.errors import DamagedSlideError, SlideError, WriteError
from rawmosaic.storage.hdf5.at_once import being_changed, carry_over_changes
from rawmosaic.storage.hdf5.plain_look import looked_at
from rawmosaic.storage.opening import HDF5_SIGNATURE, PART_SUFFIX

KEPT_SUFFIX, DAMAGED_SUFFIX = ".kept", ".damaged"
"""What the name ends with of the slide that a killed writer left, until all of it was copied; and where not all could be."""

_FLAGS_OFFSET, _WRITING, _FOLLOWED = 11, 1, 4
"""Where superblocks of version 3 say that the file is open for writing, and that it may be followed."""


@dataclass(frozen=True)
class LeftBehind:
    """A slide that was begun, and may hold planes: for which scan, "" for none, None where that cannot be read."""

    scan_uid: str | None
    irreplaceable: bool
    finished: bool = False


def part_of(location: Path) -> Path:
    """Where a slide grows."""
    return location.with_name(location.name + PART_SUFFIX)


def kept_of(location: Path) -> Path:
    """Where the slide of a writer that was killed lies until all of it was copied."""
    return location.with_name(location.name + KEPT_SUFFIX)


def damaged_of(location: Path) -> list[Path]:
    """Slides of killed writers of which not all could be copied, that lie beside `location`: the first one first. OSError."""
    first = location.name + DAMAGED_SUFFIX
    numbers = [_number(name, first) for name in os.listdir(location.parent)]
    return [location.with_name(_numbered(first, number)) for number in sorted(filter(None, numbers))]


def new_damaged_of(location: Path) -> Path:
    """A name for one more of these, which nothing has: NAME.damaged, NAME.damaged-2, …"""
    number, first = 1, location.name + DAMAGED_SUFFIX
    while os.path.lexists(location.with_name(_numbered(first, number))):
        number += 1
    return location.with_name(_numbered(first, number))


def holds_nothing(path: Path) -> bool:
    """Whether a file was never published in: it is empty, or its writer did not get so far as to let it be followed. OSError."""
    with open(path, "rb") as file:
        head = file.read(_FLAGS_OFFSET + 1)
    if not any(head):
        return True
    return (
        head.startswith(HDF5_SIGNATURE) and len(head) > _FLAGS_OFFSET and head[_FLAGS_OFFSET] & (_WRITING | _FOLLOWED) == _WRITING
    )


def left_behind(path: Path) -> LeftBehind | None:
    """What an unfinished slide says it is written for; None where it holds nothing. OSError."""
    if holds_nothing(path):
        return None
    # as plain bytes: read in single-writer mode, a table that is torn would be tried again for good
    with contextlib.suppress(OSError, RuntimeError, KeyError, ValueError, TypeError):
        with looked_at(path) as file:
            uid = str(file.attrs.get("scan_uid", ""))
            irreplaceable = bool(uid) or bool(file.attrs.get("irreplaceable", False))
            if "format" in file.attrs:
                return LeftBehind(uid, irreplaceable, bool(file.attrs.get("finished", False)))
    return LeftBehind(None, True)


def is_left_by(path: Path, scan_uid: str) -> bool:
    """Whether a file, which is there, is of this scan as far as one can see; what cannot be read may be. OSError."""
    if not path.is_file():  # a folder, or a link to a disk that is away
        return False
    found = left_behind(path)
    return found is None or found.scan_uid in (None, scan_uid)


def check_readable(path: Path) -> None:
    """Raise DamagedSlideError where not even a slide's attributes can be read: HDF5 would try again for good. OSError."""
    found = left_behind(path)
    if found is None or found.scan_uid is None:
        raise DamagedSlideError("the file's own attributes cannot be read", location=path)


def refuse_to_overwrite(part: Path) -> None:
    """Raise WriteError where a file holds planes that may be nowhere else. Its writer is gone, and nobody else writes it."""
    try:
        if holds_nothing(part):
            return
        if being_changed(part):  # half of its tables may be overwritten
            carry_over_changes(part)
        found = left_behind(part)
    except SlideError as error:
        raise WriteError(f"{error}; this may hold planes that are nowhere else: {_WAY_OUT}", location=part) from error
    if found is None or not found.irreplaceable:
        return
    if found.scan_uid is None:
        what = f"this cannot be read, and may hold planes that are nowhere else; {_WAY_OUT}"
    elif found.scan_uid:
        what = (
            f"this holds planes of the unfinished scan {found.scan_uid}; have its acquisition server complete it, or {_WAY_OUT}"
        )
    else:
        what = f"this holds planes that cannot be had again, as their writer left them; {_WAY_OUT}"
    raise WriteError(f"not overwritten: {what}", location=part)


def refuse_beside_kept(location: Path, scan_uid: str) -> None:
    """Raise WriteError where the slide of another scan waits to be copied to a slide of that name."""
    kept = kept_of(location)
    if not os.path.lexists(kept):
        return
    try:
        found = left_behind(kept)
    except OSError:
        found = LeftBehind(None, True)
    if scan_uid and (found is None or found.scan_uid in (None, scan_uid)):
        return  # its own, as far as one can see
    if found is not None and not found.irreplaceable:
        return
    raise WriteError(
        f"nothing is written: {kept.name} beside it holds planes of an unfinished scan; have its acquisition server complete it, "
        f"or {_WAY_OUT}",
        location=location,
    )


_WAY_OUT = "move it away, or delete it by hand if nobody wants it"


def _numbered(first: str, number: int) -> str:
    return first if number == 1 else f"{first}-{number}"


def _number(name: str, first: str) -> int | None:
    """Which one a name is; None for any other."""
    if name == first:
        return 1
    digits = name.removeprefix(f"{first}-") if name.startswith(f"{first}-") else ""
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    return number if number > 1 and _numbered(first, number) == name else None
