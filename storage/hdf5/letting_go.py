"""A file is to be renamed or deleted, and somebody has it open: Windows refuses that, so who follows it is asked to let go.

The wish is an empty file beside, touched while it lasts: one that a killed writer left is soon none any more.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

WISH_SUFFIX = ".wanted"
"""What the name of the wish ends with."""

WISH_LASTS_S = 15.0
PAUSE_S = 0.25

_IN_USE = (5, 32, 33)
"""What Windows says: access denied, a sharing violation, a lock violation."""

Waiting = Callable[[str], None]
"""Told why one waits, before each further attempt. It takes the pause, and raises to give up."""


def patiently(change: Callable[[], object], path: Path, waiting: Waiting | None = None) -> None:
    """Rename or delete a file by `change`; as long as others have it open, ask them to let go, and try again.

    Without `waiting` there is one attempt. Raises OSError, and what `waiting` does.
    """
    wished = False
    try:
        while True:
            try:
                change()
                return
            except PermissionError as error:
                if waiting is None or not is_in_use(error):
                    raise
                wished = True
                with contextlib.suppress(OSError):
                    _wish_of(path).touch()
                waiting(why_in_use(path, error))
    finally:
        if wished:
            forget_wish(path)


def deleted_unless_in_use(path: Path) -> str:
    """Delete a file, without waiting; why it is there still where others have it open, who are asked to let go. OSError."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError as error:
        if not is_in_use(error):
            raise
        with contextlib.suppress(OSError):
            _wish_of(path).touch()
        return why_in_use(path, error)
    forget_wish(path)
    return ""


def is_in_use(error: OSError) -> bool:
    """Whether a file cannot be renamed or deleted since somebody has it open; only Windows minds."""
    return getattr(error, "winerror", None) in _IN_USE


def why_in_use(path: Path, error: OSError) -> str:
    """What to tell who waits for that."""
    reason = error.strerror or error
    return f"{path.name} is open in another program: close the viewers that show {slide_name(path)}, and it goes on ({reason})"


def slide_name(path: Path) -> str:
    """The name of the slide that a file belongs to: without .part, .kept and the like."""
    return path.stem if path.suffix in (".part", ".kept") else path.name


def is_wanted(path: str | os.PathLike) -> bool:
    """Whether somebody waits for this file to be closed. Who has it open closes it, and nobody opens it meanwhile."""
    try:
        touched = os.stat(os.fspath(path) + WISH_SUFFIX).st_mtime
    except (OSError, ValueError):
        return False
    return abs(time.time() - touched) < WISH_LASTS_S


def forget_wish(path: Path) -> None:
    """Whoever waited does not any more."""
    with contextlib.suppress(OSError):
        _wish_of(path).unlink(missing_ok=True)


def _wish_of(path: Path) -> Path:
    return path.with_name(path.name + WISH_SUFFIX)
