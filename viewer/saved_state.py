"""Where the display state of a slide is kept: beside the slide, or with the user where that cannot be.

    NAME.h5               NAME.h5.view.json
    a folder              rawmosaic.view.json inside it
    an address, or a      views/KEY.view.json in the user's folder (`user_folder`); KEY stands for the slide's identity, or for
    read-only place       its location where it has none, or not yet

Of several the newest counts. A file that cannot be read is put aside and named; it never keeps a slide from being opened.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rawmosaic.storage.errors import SlideError, WriteError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.beside import address_of, path_beside
from rawmosaic.viewer.display_state import DisplayState, apply, capture, from_json, to_json
from rawmosaic.viewer.user_folder import read_text, user_folder, write_whole

ENDING = ".view.json"
ASIDE = ".aside"
MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Found:
    """What was kept for a slide: a state or None, where it lay, and lines on what could not be read."""

    state: DisplayState | None
    path: Path | None
    told: tuple[str, ...] = ()


def save(slide: Slide, state: DisplayState) -> Path:
    """Keep the state of a slide; returns where. Any thread. Raises WriteError if it can be written nowhere."""
    text, beside = to_json(state), path_beside(slide.location, ENDING)
    own = _own_paths(slide)[0]
    if beside is not None:
        with suppress(OSError):
            write_whole(beside, text)
            return beside
    try:
        write_whole(own, text)
    except OSError as error:
        raise WriteError(f"the display state cannot be kept: {error.strerror or error}", location=own) from error
    return own


def load(slide: Slide) -> Found:
    """The newest state that was kept for a slide; never raises for what lies there."""
    beside, told = path_beside(slide.location, ENDING), []
    candidates = [path for path in (beside, *_own_paths(slide)) if path is not None and path.is_file()]
    for path in sorted(candidates, key=_written_at, reverse=True):
        try:
            return Found(from_json(read_text(path, MOST_BYTES), path), path, tuple(told))
        except SlideError as error:
            told.append(f"{error}; {_put_aside(path)}")
        except ValueError as error:
            told.append(f"{path}: no display state: {error}; {_put_aside(path)}")
        except OSError as error:
            told.append(f"{path}: the display state cannot be read: {error.strerror or error}")
    return Found(None, None, tuple(told))


def restore(engine: Any) -> list[str]:
    """Show a slide as it was left; returns lines on what could not be read or does not fit."""
    found = load(engine.slide)
    return [*found.told, *(apply(found.state, engine) if found.state is not None else [])]


def keep(engine: Any) -> Path:
    """Keep what an engine shows; returns where. Raises WriteError."""
    return save(engine.slide, capture(engine))


def load_preset(path: str | os.PathLike) -> DisplayState:
    """The state in a file that the user chose. Raises SlideError, which names the file."""
    try:
        return from_json(read_text(Path(path), MOST_BYTES), path)
    except (OSError, ValueError) as error:
        raise SlideError(f"no display state: {getattr(error, 'strerror', None) or error}", location=path) from error


def save_preset(path: str | os.PathLike, state: DisplayState) -> None:
    """Write a state into a file that the user chose. Raises WriteError."""
    try:
        write_whole(Path(path), to_json(state))
    except OSError as error:
        raise WriteError(f"the display state cannot be written: {error.strerror or error}", location=path) from error


def _own_paths(slide: Slide) -> list[Path]:
    """Places in the user's folder, the one to write to first."""
    keys = [address_of(slide.location)]
    if type(slide).identity is not Slide.identity:  # else it is another one each time
        keys.insert(1 if slide.growing else 0, slide.identity)  # of a slide that grows it still changes
    return [user_folder() / "views" / (hashlib.sha256(key.encode()).hexdigest()[:32] + ENDING) for key in keys]


def _written_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _put_aside(path: Path) -> str:
    """Move an unreadable file out of the way; returns what became of it."""
    aside = path.with_name(path.name + ASIDE)
    try:
        os.replace(path, aside)
    except OSError as error:
        return f"it stays there ({error.strerror or error})"
    return f"it was put aside as {aside.name}"
