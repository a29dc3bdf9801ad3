"""Where a file about a slide lies when it lies beside it. Asks the disk whether the slide is there, and opens nothing."""

from __future__ import annotations

import os
from pathlib import Path

NAME_IN_FOLDER = "rawmosaic"


def path_beside(location: str, ending: str) -> Path | None:
    """``scan.h5`` and the ending; inside a folder ``rawmosaic`` and the ending; None for what is neither on this machine."""
    if "://" in location:
        return None
    path = Path(location)
    try:
        if path.is_dir():
            return path / (NAME_IN_FOLDER + ending)
        return path.with_name(path.name + ending) if path.is_file() else None
    except (OSError, ValueError):  # no name that this system could have
        return None


def address_of(location: str) -> str:
    """One text for each place, however it is written: an address as it is, a path from the root."""
    return location if "://" in location else os.path.normcase(os.path.abspath(location))
