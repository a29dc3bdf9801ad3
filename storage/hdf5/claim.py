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
            if fcntl is None:
                os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None if os.path.exists(path) else False
    try:
        if fcntl is None:
            os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in _TAKEN else None
    finally:
        os.close(descriptor)
    return False
