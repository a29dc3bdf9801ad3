"""What ties a process of a scan to whoever started it, and keeps a second one of its kind away from the scan's folder."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from rawmosaic.storage.errors import WriteError
from rawmosaic.storage.hdf5.claim import claim

CLAIM_PAUSE_S = 0.05


def end_of_input() -> threading.Event:
    """An event that is set when standard input closes: then whoever started this process is gone, or wants it to end."""
    over = threading.Event()
    threading.Thread(target=_wait_for_end_of_input, args=(over,), daemon=True).start()
    return over


def _wait_for_end_of_input(over: threading.Event) -> None:
    try:
        while os.read(sys.stdin.fileno(), 4096):  # the descriptor itself: the interpreter can end meanwhile
            pass
    except (OSError, ValueError, AttributeError):
        pass
    over.set()


def claimed(path: Path, over: threading.Event, stack: ExitStack) -> bool:
    """Wait until no other process has claimed this lock file; False where `over` ended the wait. The claim ends with the stack.

    Raises WriteError where there can be no such file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise WriteError(f"cannot be claimed: {error.strerror or error}", location=path) from error
    stack.callback(os.close, descriptor)
    while not claim(descriptor):
        if over.wait(CLAIM_PAUSE_S):
            return False
    return True
