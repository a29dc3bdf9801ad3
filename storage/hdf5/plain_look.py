"""A slide's attributes by its plain bytes, before HDF5 has the file itself: what is torn there is an error, and read once.

Texts lie in heaps without a checksum, and HDF5 walks a heap by the lengths that stand in it: at a length of zero, such as a power
failure leaves behind, it would stand still for good. So it is shown only heaps that it comes to the end of.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator

import h5py

_HEAP = b"GCOL\x01"
"""Signature and version of a heap of texts."""

_HEAP_HEAD, _OBJECT_HEAD = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")
"""Of a heap: its size follows; of what lies in it: number (0 for the free room at its end), users, bytes."""

_APPENDED = "addr overflow"
"""What HDF5 says of a place behind the end that a file had before others could follow it."""

_MOST_HEAP_NBYTES = 64 << 20


def look_at_attributes(path: str | os.PathLike, group: str) -> None:
    """Raise OSError where the attributes of a slide, which lies in a group of the file, cannot be read."""
    with _readable(), looked_at(path) as file:
        dict(file.attrs)
        if group != "/":
            dict(file[group].attrs)


def look_at_tables(path: str | os.PathLike) -> None:
    """Raise OSError where a group, an attribute or what a table is cannot be read. What its writer appended is not looked at."""
    with _readable(), looked_at(path) as file:
        for thing in _within(file):
            dict(thing.attrs)


@contextlib.contextmanager
def looked_at(path: str | os.PathLike) -> Iterator[h5py.File]:
    """The file, read once, whatever its superblock says of a writer. Raises what h5py raises, and OSError."""
    with open(path, "rb", buffering=0) as raw, h5py.File(_Watched(raw), "r") as file:
        yield file


def _within(group: h5py.Group) -> Iterator[h5py.HLObject]:
    """A group, and all that is in it."""
    yield group
    for name in group:
        try:
            thing = group[name]
        except KeyError as error:
            if _APPENDED in str(error):
                continue
            raise
        if isinstance(thing, h5py.Group):
            yield from _within(thing)
        else:
            yield thing


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise OSError(str(error)) from error


class _Watched(io.RawIOBase):
    """The file as HDF5 sees it: without the signature of a heap that has no end."""

    def __init__(self, raw: io.RawIOBase):
        self._raw = raw

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def readinto(self, buffer) -> int:
        begin, view = self._raw.tell(), memoryview(buffer).cast("B")
        size = 0
        while size < len(view) and (n := self._raw.readinto(view[size:])):
            size += n
        data = bytes(view[:size])
        at = data.find(_HEAP)
        while at >= 0:
            if not _has_end(self._heap_at(begin + at)):
                view[at : at + len(_HEAP)] = bytes(len(_HEAP))
            at = data.find(_HEAP, at + 1)
        self._raw.seek(begin + size)
        return size

    def _heap_at(self, offset: int) -> bytes:
        """As much of a heap as the file has; empty where its size makes no sense."""
        self._raw.seek(offset)
        head = self._raw.read(_HEAP_HEAD.size)
        nbytes = _HEAP_HEAD.unpack(head)[2] if len(head) == _HEAP_HEAD.size else 0
        if not _HEAP_HEAD.size <= nbytes <= _MOST_HEAP_NBYTES:
            return b""
        self._raw.seek(offset)
        return self._raw.read(nbytes)


def _has_end(heap: bytes) -> bool:
    """Whether one comes to the end of a heap who goes from object to object."""
    if len(heap) < _HEAP_HEAD.size or len(heap) != _HEAP_HEAD.unpack_from(heap)[2]:
        return False
    at = _HEAP_HEAD.size
    while at + _OBJECT_HEAD.size <= len(heap):
        number, _, nbytes = _OBJECT_HEAD.unpack_from(heap, at)
        step = nbytes if number == 0 else _OBJECT_HEAD.size + -(-nbytes // 8) * 8
        if step == 0:
            return False
        at += step
    return at <= len(heap)
