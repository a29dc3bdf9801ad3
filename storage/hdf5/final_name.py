"""The last step of writing a slide: its file takes its final name."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from rawmosaic.storage.durable import sync_file, sync_folder
from rawmosaic.storage.hdf5.letting_go import PAUSE_S, Waiting, patiently

PATIENCE_S = 10.0
"""So long others are asked to let go of a file that Windows does not rename, before it is copied."""


def take_final_name(part: Path, path: Path, let_go: Callable[[], None] = lambda: None, waiting: Waiting | None = None) -> None:
    """Rename a finished and synced file, durably; one that has the name goes. Raises OSError.

    `let_go` closes what the caller has open of it, its claim: after the renaming where the system allows that. Where somebody
    else has it open for long, and the system minds, it is copied; and so that nobody waits in silence, `waiting` is told.
    """
    if os.name != "nt":
        os.replace(part, path)
        let_go()
        sync_folder(path.resolve().parent)
        return
    let_go()  # Windows renames no file that is open
    try:
        patiently(lambda: os.replace(part, path), part, for_a_while(waiting))
    except PermissionError:  # another process follows it: it finds the copy
        copy = part.with_name(part.name + ".copy")
        try:
            shutil.copyfile(part, copy)
            with open(copy, "rb+") as file:
                sync_file(file.fileno())
            os.replace(copy, path)
        except OSError as error:
            raise OSError(error.errno, f"{part.name} is open in another program, and cannot be copied: {error}") from error
        finally:
            copy.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            patiently(part.unlink, part, for_a_while(waiting))


def for_a_while(told: Waiting | None = None, patience_s: float | None = None) -> Waiting:
    """A patience that ends after PATIENCE_S, by a PermissionError; `told` is told why one waits, and may take the pause."""
    ends = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)

    def waiting(why: str) -> None:
        if time.monotonic() >= ends:
            raise PermissionError(why)
        if told is not None:
            told(why)
        else:
            time.sleep(PAUSE_S)

    return waiting
