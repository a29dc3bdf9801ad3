"""The last step of writing a slide: its file takes its final name."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from rawmosaic.storage.durable import sync_file, sync_folder


def take_final_name(part: Path, path: Path, let_go: Callable[[], None] = lambda: None) -> None:
    """Rename a finished and synced file, durably; one that has the name goes. Raises OSError.

    `let_go` closes what the caller has open of it, its claim: after the renaming where the system allows that.
    """
    if os.name != "nt":
        os.replace(part, path)
        let_go()
        sync_folder(path.resolve().parent)
        return
    let_go()  # Windows renames no file that is open
    try:
        os.replace(part, path)
    except PermissionError:  # another process follows it: it finds the copy
        copy = part.with_name(part.name + ".copy")
        try:
            shutil.copyfile(part, copy)
            with open(copy, "rb+") as file:
                sync_file(file.fileno())
            os.replace(copy, path)
        finally:
            copy.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            part.unlink()
