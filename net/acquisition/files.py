"""Small files that processes of a scan tell each other things by: replaced at once, so that a reader sees the old or the new."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from rawmosaic.storage.durable import sync_file, sync_folder
from rawmosaic.storage.errors import WriteError

_ATTEMPTS, _PAUSE_S = 50, 0.01
"""Windows replaces no file that somebody reads just now."""


def replace_json(path: Path, value: Mapping, *, durable: bool = False) -> None:
    """Put a JSON object in a file's place; one writer a file. WriteError.

    With `durable` it is on the disk, under its name, when this returns.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with open(temporary, "w", encoding="utf-8", errors="replace") as file:  # names of files need not be text
            json.dump(value, file, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            if durable:
                file.flush()
                sync_file(file.fileno())
        _replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise WriteError(f"cannot be written: {error.strerror or error}", location=path) from error


def append_json(path: Path, value: Mapping) -> None:
    """Put a JSON object into a line of its own at the end of a file, whatever the last one became; on the disk. OSError."""
    with open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        torn = file.read(1) not in (b"", b"\n")
        file.write((b"\n" if torn else b"") + json.dumps(value).encode() + b"\n")
        file.flush()
        sync_file(file.fileno())


def overwrite_json(path: Path, value: Mapping) -> None:
    """Put a JSON object into a file that is there, in place and no shorter than before: for a disk without room for another.

    Who reads just then finds nonsense, and reads again. Raises nothing: where it cannot be, the file says what it said.
    """
    with contextlib.suppress(OSError), open(path, "rb+") as file:
        file.write(json.dumps(value).encode().ljust(path.stat().st_size))


def read_json(path: Path) -> dict | None:
    """The JSON object in a file; None where there is no such file, or nothing that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _replace(temporary: Path, path: Path) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            os.replace(temporary, path)
        except PermissionError:
            if os.name != "nt" or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_S)
        else:
            return
