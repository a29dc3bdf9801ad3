"""Who writes a file says so: a lock that lasts as long as the writer lives, whatever becomes of the file it left behind.

HDF5 has a lock of its own, but gives it up once a file may be followed. Ours is advisory and shared, so that everybody
may read, HDF5's own tools included; only who asks for it alone learns that somebody has it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    with contextlib.suppress(ImportError):
        import msvcrt

_FAR_BYTE = 1 << 40
"""Windows locks bytes, and whoever reads a locked one is refused: so one that no file has."""

_ATTEMPTS, _PAUSE_S = 5, 0.01
"""Who only asks has it for an instant."""

_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}


def claim(descriptor: int) -> bool:
    """Claim the open file for as long as its descriptor is open; False where another descriptor has claimed it."""
    for _ in range(_ATTEMPTS):
        try:
            _lock_alone(descriptor)
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _TAKEN:
                return True  # a file system without locks: nobody knows
            time.sleep(_PAUSE_S)
        else:
            return True
    return False


def is_claimed(path: str | os.PathLike) -> bool | None:
    """Whether a living writer has claimed the file; None where that cannot be known."""
    try:
        descriptor = _opened(path)
    except OSError:
        return None if os.path.exists(path) else False
    try:
        _lock_alone(descriptor)
    except OSError as error:
        return True if error.errno in _TAKEN else None
    finally:
        os.close(descriptor)
    return False


def why_claims_fail(path: str | os.PathLike) -> str:
    """Why claims keep nobody away on the file system of a file, which the caller has claimed; empty where they do.

    Raises OSError where the file cannot be opened once more.
    """
    if is_claimed(path):
        other = _opened(path)
        try:
            return "a file that was claimed can be claimed a second time" if claim(other) else ""
        finally:
            os.close(other)
    other = _opened(path)
    try:
        _lock_alone(other)
    except OSError as error:
        return f"files cannot be locked there: {error.strerror or error}"
    finally:
        os.close(other)
    return "a file that was locked can be locked a second time"


def _opened(path: str | os.PathLike) -> int:
    """A descriptor to ask with. Where locks go over a network, only who may write may ask for one alone."""
    flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, os.O_RDWR | flags)
    except OSError:
        return os.open(path, os.O_RDONLY | flags)


def _lock_alone(descriptor: int) -> None:
    """Ask for what only one has; OSError."""
    if fcntl is None:
        os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
