"""Room on the disk ahead of HDF5: a full disk is met here, by an error, and not inside HDF5, which may crash on one.

HDF5 keeps chunks and tables in memory and writes them when it closes them. Where such a late write fails, the library is
left with half-closed objects, and a segmentation fault may follow. So the space is taken before HDF5 is given the bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from rawmosaic.storage.durable import sync_file
from rawmosaic.storage.hdf5.at_once import end_in_use
from rawmosaic.storage.hdf5.claim import claim

_STEP_NBYTES = 64 << 20


class Room:
    """The space a growing file has been promised. The owner's lock guards it."""

    def __init__(self, path: str | os.PathLike):
        self._path = Path(path)
        self._folder = self._path.resolve().parent
        self._end = 0
        self.claimed = False
        """Whether the file is this owner's alone."""
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self.claimed = claim(self._descriptor)
            if not self.claimed or self.has_its_name:
                break
            self.close()  # renamed or deleted by who had it before

    @property
    def has_its_name(self) -> bool:
        """Whether the file still is the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except OSError:
            return False

    @property
    def is_empty(self) -> bool:
        """Whether the file has no byte."""
        return os.fstat(self._descriptor).st_size == 0

    def reach(self, end: int) -> None:
        """Make sure that the file can grow to `end` bytes; OSError where it cannot."""
        if end <= self._end:
            return
        try:
            self._take(end + _STEP_NBYTES)  # seldom, and not for each plane
            self._end = end + _STEP_NBYTES
        except OSError:
            self._take(end)
            self._end = end

    def forget(self) -> None:
        """HDF5 has cut the file after what it uses, as it does when it closes one: what was promised is promised anew."""
        self._end = 0

    def sync(self) -> None:
        """Have the disk write what the file holds by now; takes as long as the disk does. Any thread, but not beside `close`."""
        sync_file(self._descriptor)

    def close(self) -> None:
        """Give the file back; closing twice is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _take(self, end: int) -> None:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._descriptor, self._end, end - self._end)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # the file system cannot promise
                    raise
        if shutil.disk_usage(self._folder).free < end - self._end:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def give_back_unused(path: str | os.PathLike) -> None:
    """Cut a closed HDF5 file (superblock version 2 or 3) after the last byte in use."""
    with open(path, "rb+") as file:
        file.truncate(end_in_use(file))
