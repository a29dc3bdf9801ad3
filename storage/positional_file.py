"""Reading bytes at an offset from many threads at once, on every operating system."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from rawmosaic.storage.errors import DamagedSlideError


class PositionalFile:
    """A file opened for `read(offset, size)`. Any thread; who reads while it is closed comes to an end first."""

    def __init__(self, path: str):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        self._lock = threading.Lock()
        self._readers, self._closing = 0, False
        self._counting = threading.Lock()

    @property
    def identity(self) -> tuple[int, int] | None:
        """Which file this is, under whatever name; None where the file system does not tell."""
        return file_identity(self._descriptor) if self._descriptor >= 0 else None

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; DamagedSlideError where the file ends before."""
        try:
            with self._in_use():
                data = self._read_at(offset, size)
        except (OSError, OverflowError, ValueError) as error:
            raise DamagedSlideError(f"{size} bytes at offset {offset} cannot be read: {error}", location=self.path) from error
        if len(data) != size:
            raise DamagedSlideError(f"the file ends before {size} bytes at offset {offset}", location=self.path)
        return data

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out`, writable bytes, from an offset; DamagedSlideError where the file ends before."""
        try:
            with self._in_use():
                size = self._read_into(offset, out)
        except (OSError, OverflowError, ValueError) as error:
            raise DamagedSlideError(f"{len(out)} bytes at offset {offset} cannot be read: {error}", location=self.path) from error
        if size != len(out):
            raise DamagedSlideError(f"the file ends before {len(out)} bytes at offset {offset}", location=self.path)

    def close(self) -> None:
        """Give the file back, once nobody reads; closing twice is harmless."""
        with self._counting:
            self._closing = True
            self._close_unused()

    def _close_unused(self) -> None:
        if not self._readers:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """The descriptor stays what it is: the system gives the number of a closed one to the next file."""
        with self._counting:
            if self._closing:
                raise ValueError("the file is closed")
            self._readers += 1
        try:
            yield
        finally:
            with self._counting:
                self._readers -= 1
                if self._closing:
                    self._close_unused()

    if hasattr(os, "pread"):

        def _read_at(self, offset: int, size: int) -> bytes:
            return os.pread(self._descriptor, size, offset)

    else:  # Windows has no pread: seek and read under a lock

        def _read_at(self, offset: int, size: int) -> bytes:
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return os.read(self._descriptor, size)

    if hasattr(os, "preadv"):

        def _read_into(self, offset: int, out: memoryview) -> int:
            return os.preadv(self._descriptor, [out], offset)

    else:

        def _read_into(self, offset: int, out: memoryview) -> int:
            data = self._read_at(offset, len(out))
            out[: len(data)] = data
            return len(data)


def file_identity(file: str | int) -> tuple[int, int] | None:
    """(device, number) of a file by its path or descriptor; None where there is none, or the file system does not tell."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None
