"""What is on the disk, and not only on its way there: files, and the names of files in their folder."""

from __future__ import annotations

import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: `fsync` there leaves the bytes in the drive's own memory."""


def sync_file(descriptor: int) -> None:
    """Return once what was written to an open file survives a power failure; raises OSError. Any thread."""
    if _FULL_SYNC is not None:
        with contextlib.suppress(OSError):  # file systems that are not the machine's own
            fcntl.fcntl(descriptor, _FULL_SYNC)
            return
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(path: str | os.PathLike) -> None:
    """Return once files that were made, renamed or deleted in a folder are so after a power failure as well; raises OSError.

    Windows keeps names itself, and opens no folder.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
