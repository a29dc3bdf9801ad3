"""Presets: looks that the user keeps under a name, to be given to any slide.

They lie in `presets` in the user's folder, a display state file each (`NAME.view.json`); only the looks in it count (see
`display_state.apply`). The state that was kept for a slide is a preset as well. Everything here reads or writes files.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from rawmosaic.storage.errors import SlideError, WriteError
from rawmosaic.viewer.beside import path_beside
from rawmosaic.viewer.display_state import DisplayState
from rawmosaic.viewer.saved_state import ENDING, load_preset, save_preset
from rawmosaic.viewer.user_folder import user_folder

LONGEST_NAME = 80
_RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))}
"""Names that Windows gives to devices, whatever their ending."""


def presets_folder() -> Path:
    """Where they lie; it may not exist yet."""
    return user_folder() / "presets"


def names() -> list[str]:
    """What is there, by name."""
    found: list[str] = []
    with suppress(OSError):
        found = [path.name.removesuffix(ENDING) for path in presets_folder().glob("*" + ENDING) if path.is_file()]
    return sorted((name for name in found if not name.startswith(".")), key=str.casefold)


def keep(name: str, state: DisplayState) -> str:
    """Keep looks under a name, in place of those that had it; returns the name as it is kept. Raises WriteError."""
    kept = file_name(name)
    if not kept:
        raise WriteError("the preset is not kept: give it a name")
    save_preset(_path(kept), state)
    return kept


def read(name: str) -> DisplayState:
    """The looks under a name. Raises SlideError, which names the file."""
    return load_preset(_path(name))


def forget(name: str) -> None:
    """Remove one; nothing happens where it is not there. Raises WriteError."""
    try:
        _path(name).unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"the preset cannot be removed: {error.strerror or error}", location=_path(name)) from error


def read_from(location: str | os.PathLike) -> DisplayState:
    """The looks in a display state file, or those that were kept beside a slide. Raises SlideError."""
    path = Path(location)
    if path.name.endswith(ENDING) or path.suffix == ".json":
        return load_preset(path)
    beside = path_beside(str(location), ENDING)
    if beside is None or not beside.is_file():
        raise SlideError("no looks were kept for this slide: choose one that was looked at, or a .view.json file", location=path)
    return load_preset(beside)


def have_looks(location: str) -> bool:
    """Whether looks were kept beside a slide."""
    beside = path_beside(location, ENDING)
    return beside is not None and beside.is_file()


def file_name(name: str) -> str:
    """A name as every file system takes it: the same for most, "" for one without a letter."""
    plain = "".join(letter if letter.isprintable() and letter not in '<>:"/\\|?*' else "_" for letter in name.strip())
    plain = plain[:LONGEST_NAME].strip(" .")
    stem, dot, rest = plain.partition(".")
    return f"{stem}_{dot}{rest}" if stem.casefold() in _RESERVED else plain


def _path(name: str) -> Path:
    return presets_folder() / (file_name(name) + ENDING)
