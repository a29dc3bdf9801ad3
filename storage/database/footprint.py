"""What a location looks like from outside: bytes, files and the newest change. Tells without opening whether it is as it was."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.storage.opening import PART_SUFFIX, is_virtual_slide

FILE, FOLDER, SET, SERVER = "file", "folder", "set", "server"
"""Kinds of locations. A file that holds all of a slide; a folder; a file with the rest beside it; an address."""


_BESIDE = (".h5", ".geojson", ".view.json", ".view.json.aside", PART_SUFFIX)


@dataclass(frozen=True)
class Footprint:
    """`nbytes` of all `n_files`, and the newest of their modification times in ns."""

    nbytes: int
    mtime_ns: int
    n_files: int


def normal_location(location: str | os.PathLike) -> str:
    """One spelling per place: the absolute path without links; addresses stay as they are."""
    text = os.fspath(location)
    return text if "://" in text else str(Path(text).resolve())


def kind_of(location: str, is_set: bool = False) -> str:
    """The kind of a location that exists, or is being written."""
    if "://" in location:
        return SERVER
    if os.path.isdir(location):
        return FOLDER
    return SET if is_set else FILE


def footprint(location: str, kind: str) -> Footprint | None:
    """The footprint of a location, while it is written that of NAME.part; None where there is nothing. Raises OSError."""
    if kind == SERVER:
        return None
    if kind == FILE:
        for path in (location, location + PART_SUFFIX):
            try:
                status = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return Footprint(status.st_size, status.st_mtime_ns, 1)
        return None
    if not os.path.exists(location):
        return None
    return folder_footprint(location if kind == FOLDER else os.path.dirname(location))


def folder_footprint(folder: str) -> Footprint:
    """All files in a folder and in those below; what rawmosaic keeps beside a slide does not count."""
    nbytes = mtime_ns = n_files = 0
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif belongs_to_slide(entry.name):
                    status = entry.stat()
                    nbytes, n_files = nbytes + status.st_size, n_files + 1
                    mtime_ns = max(mtime_ns, status.st_mtime_ns)
    return Footprint(nbytes, mtime_ns, n_files)


def belongs_to_slide(name: str) -> bool:
    """Whether a file in a raw acquisition's folder may be part of it: annotations, looks and virtual slides are not."""
    return not name.startswith((".", "rawmosaic.")) and not name.endswith(_BESIDE)


def is_being_written(location: str) -> bool:
    """Whether a virtual slide of that name is still under its other name."""
    return not os.path.exists(location) and is_virtual_slide(location + PART_SUFFIX)
