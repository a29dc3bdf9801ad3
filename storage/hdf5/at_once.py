"""Changing an HDF5 file all at once: whenever the process is killed, all of the changes are in the file afterwards, or none.

HDF5 changes a file in place, here and there, and a file that it was torn out of may not open again. So it is given a file whose
old bytes it cannot touch: what it appends goes to the disk, what it overwrites is kept apart. That is little, tables and object
headers. Once all is done it is noted in a file beside, synced, and only then carried over; who finds the note does that again.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import h5py

from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.durable import sync_file, sync_folder
from rawmosaic.storage.errors import DamagedSlideError

NOTE_SUFFIX = ".changes"
"""What the name of the note beside the file ends with."""

_PAGE = 4096
_MAGIC = b"rmchange"
_HEAD = struct.Struct("<8sQQ")
"""Magic, pages, size of the file."""

_CRC = struct.Struct("<I")
_SUPERBLOCK_END_OF_FILE = 28
"""Where superblocks of version 2 and 3 keep the address that follows the last byte in use."""


@contextlib.contextmanager
def changed_at_once(path: str | os.PathLike) -> Iterator[h5py.File]:
    """A closed HDF5 file (superblock version 2 or 3), opened for changes that come into force, and last, when the block ends.

    Nothing of them does after an exception. Nobody else in this process has the file open. Raises OSError.
    """
    path = Path(path)
    with open(path, "rb+", buffering=0) as raw:
        end = end_in_use(raw)
        changes = _Changes(raw, end)
        with h5py.File(changes, "r+", libver="latest") as file:
            yield file
        raw.truncate(changes.size)
        sync_file(raw.fileno())  # what was appended is there before anything points to it
        note = changes.note()
        if note is not None:
            _keep(path, note)
            _carry_over(raw, note, path)
            sync_file(raw.fileno())
            _note_of(path).unlink()


def carry_over_changes(path: str | os.PathLike) -> bool:
    """Bring changes to their end that a kill interrupted after they were noted; whether there were any. Harmless when repeated.

    Raises DamagedSlideError for a note that is not what was written, or not for this file; OSError.
    """
    path, note = Path(path), _note_of(path)
    try:
        data = note.read_bytes()
    except FileNotFoundError:
        return False
    with open(path, "rb+", buffering=0) as raw:
        _carry_over(raw, data, path)
        sync_file(raw.fileno())
    note.unlink()
    return True


def being_changed(path: str | os.PathLike) -> bool:
    """Whether changes were noted, and may be half carried over."""
    return os.path.exists(os.fspath(path) + NOTE_SUFFIX)


def forget_changes(path: str | os.PathLike) -> None:
    """Nothing is to be carried over: the file goes, or is begun anew. OSError."""
    note = _note_of(Path(path))
    for place in (note, _fresh(note)):
        place.unlink(missing_ok=True)


def end_in_use(raw: io.RawIOBase) -> int:
    """The address that follows the last byte in use of a closed HDF5 file."""
    raw.seek(_SUPERBLOCK_END_OF_FILE)
    (end,) = struct.unpack("<Q", raw.read(8))
    return end


class _Changes(io.RawIOBase):
    """The file as HDF5 sees it: bytes before `end` are never written, but kept here by pages."""

    def __init__(self, raw: io.RawIOBase, end: int):
        self._raw, self._end = raw, end
        self._pages: dict[int, bytearray] = {}
        self._at = 0
        self.size = end

    def note(self) -> bytes | None:
        """All that is to be overwritten, as one checksummed piece; None if nothing is."""
        if not self._pages:
            return None
        parts = [_HEAD.pack(_MAGIC, len(self._pages), self.size)]
        for number, page in sorted(self._pages.items()):
            parts += [struct.pack("<QI", number * _PAGE, len(page)), page]
        data = b"".join(parts)
        return data + _CRC.pack(crc32(data))

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def readinto(self, buffer) -> int:
        view = memoryview(buffer).cast("B")
        self._read_raw(self._at, view)
        first, last = self._at // _PAGE, -(-min(self._at + len(view), self._end) // _PAGE)
        for number in range(first, last) if len(self._pages) > last - first else sorted(self._pages):
            page = self._pages.get(number)
            begin, end = max(number * _PAGE, self._at), min(number * _PAGE + len(page or b""), self._at + len(view))
            if page is not None and begin < end:
                view[begin - self._at : end - self._at] = page[begin - number * _PAGE : end - number * _PAGE]
        self._at += len(view)
        return len(view)

    def write(self, buffer) -> int:
        view = memoryview(buffer).cast("B")
        end = self._at + len(view)
        kept = min(max(self._end - self._at, 0), len(view))
        self._keep(self._at, view[:kept])
        if kept < len(view):
            self._write_raw(self._at + kept, view[kept:])
        self._at = end
        self.size = max(self.size, end)
        return len(view)

    def _keep(self, offset: int, view: memoryview) -> None:
        while len(view):
            number, within = divmod(offset, _PAGE)
            if number not in self._pages:
                page = bytearray(min(_PAGE, self._end - number * _PAGE))
                self._read_raw(number * _PAGE, memoryview(page))
                self._pages[number] = page
            part = view[: len(self._pages[number]) - within]
            self._pages[number][within : within + len(part)] = part
            offset, view = offset + len(part), view[len(part) :]

    def _read_raw(self, offset: int, view: memoryview) -> None:
        """Fill `view`, with zeros beyond the end."""
        self._raw.seek(offset)
        while len(view):
            n = self._raw.readinto(view)
            if not n:
                view[:] = bytes(len(view))
                return
            view = view[n:]

    def _write_raw(self, offset: int, view: memoryview) -> None:
        self._raw.seek(offset)
        while len(view):
            view = view[self._raw.write(view) :]


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + NOTE_SUFFIX)


def _fresh(note: Path) -> Path:
    """Where a note is written before it has its name."""
    return note.with_name(note.name + ".new")


def _keep(path: Path, data: bytes) -> None:
    """The note is there, whole and durable, or not at all."""
    note = _note_of(path)
    new = _fresh(note)
    with open(new, "wb") as file:
        file.write(data)
        file.flush()
        sync_file(file.fileno())
    os.replace(new, note)
    sync_folder(path.resolve().parent)


def _carry_over(raw: io.RawIOBase, data: bytes, path: Path) -> None:
    content, crc = data[: -_CRC.size], data[-_CRC.size :]
    if len(data) < _HEAD.size + _CRC.size or _CRC.unpack(crc)[0] != crc32(content) or not content.startswith(_MAGIC):
        raise DamagedSlideError(
            f"the changes noted beside {path.name} are not what was written there; move them away, and the file stands as it is",
            location=_note_of(path),
        )
    _, count, size = _HEAD.unpack_from(content)
    if raw.seek(0, os.SEEK_END) < size:  # it had that size, synced, before anything was noted
        raise DamagedSlideError(
            f"these changes are not for {path.name}, which is shorter than the file that they were noted for; move them away",
            location=_note_of(path),
        )
    at = _HEAD.size
    for _ in range(count):
        offset, nbytes = struct.unpack_from("<QI", content, at)
        at += 12
        view = memoryview(content)[at : at + nbytes]
        raw.seek(offset)
        while len(view):
            view = view[raw.write(view) :]
        at += nbytes
    raw.truncate(size)
