"""The spool: planes on the disk between the one who takes them in and the one who writes the slide.

A folder of segments, ``00000001.spool`` and so on. A segment is a row of records and nothing else:

    head     48 bytes, little-endian: magic, segment, bytes of facts, own offset in the segment, bytes of payload, CRC-32 of the
             facts, of the payload, the record's number in the spool, CRC-32 of the head
    facts    `PlaneFacts` as JSON
    payload  the plane as it was sent
    zeros    up to a multiple of 8 bytes

One appends; anybody may read meanwhile. What was appended last may be torn after a kill: whoever appends next cuts it off. What
is complete but wrong is damage; it is never cut, it is told, and what follows it is still found: a head says where it lies, so
that nothing inside a payload is taken for one. Records are numbered from 1 without a gap, so that it is known how many there
were even where none of them can be read; and how many were safe is marked beside the segments (`safe_mark`).
"""

from __future__ import annotations

import json
import os
import re
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from rawmosaic.net.acquisition import messages
from rawmosaic.net.acquisition.plan import MAX_PLANE_NBYTES
from rawmosaic.net.acquisition.safe_mark import SafeMark, read_mark, write_mark
from rawmosaic.net.protocol import Buffer
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.durable import sync_file, sync_folder
from rawmosaic.storage.errors import DamagedSlideError, WriteError
from rawmosaic.storage.positional_file import PositionalFile

SEGMENT_NBYTES = 256 << 20

MAGIC = b"rmspool1"
_HEAD = struct.Struct("<8sIIQQIIII")
_ALIGNED = 8
_MAX_FACTS_NBYTES = 128 << 10
_MAX_PAYLOAD_NBYTES = MAX_PLANE_NBYTES + messages.BLOSC_OVERHEAD_NBYTES
_SEARCH_NBYTES, _PAGE_NBYTES = 1 << 20, 4096
_END = 1 << 62
"""All of a segment is safe, since another one follows it."""

_SEGMENT_NAME = re.compile(r"([0-9]{8})\.spool")

_LOOKS, _PAUSE_S = 4, 0.02
"""What is wrong at the end of a segment that still grows is looked at again: not every system shows what is written in order."""


@dataclass(frozen=True)
class PlaneFacts:
    """What is known of a plane in the spool. `field` is the field's number in the slide.

    Positions are µm in the mosaic frame, of the image's centre; None where not told. `crc` is the CRC-32 of the payload,
    `pixels_crc` that of the pixels (little-endian uint16, row by row), as slides keep it.
    """

    field: int
    channel: int
    z: int
    t: int
    row: int | None
    column: int | None
    scene: int | None
    x_um: float | None
    y_um: float | None
    z_um: float | None
    shape: tuple[int, int]
    encoding: str
    crc: int
    metadata: Mapping = field(default_factory=lambda: MappingProxyType({}))
    pixels_crc: int = 0

    @property
    def key(self) -> tuple[int, int, int, int]:
        """(field, channel, z, t)."""
        return self.field, self.channel, self.z, self.t


@dataclass(frozen=True)
class Position:
    """Where a record lies: its segment, where it begins there, and its bytes, padding included; and its number, 0 if not told."""

    segment: int
    offset: int
    nbytes: int
    ordinal: int = 0


def segment_path(folder: Path, segment: int) -> Path:
    """Where a segment lies."""
    return folder / f"{segment:08d}.spool"


def segments(folder: str | Path) -> list[int]:
    """The numbers of the segments that are there, in their order."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for name in names if (found := _SEGMENT_NAME.fullmatch(name)))


def payload_pixels(facts: PlaneFacts, payload: Buffer) -> np.ndarray:
    """(height, width) uint16 pixels of a payload; DamagedSlideError where it cannot hold them."""
    return messages.pixels(facts.encoding, facts.shape, payload)


class SpoolWriter:
    """Appends to the spool in a folder, which it makes; one a folder. Cuts a torn tail off, and syncs what it finds.

    `append` is for one thread, `sync` and `note_safe` for any. Everything raises WriteError, with the system's `errno` where
    it has one.

    Attributes
    ----------
    used_nbytes
        Bytes of all segments that are there.
    reached
        How far it was appended; once a `sync` that was called later has returned, that is safe: see `note_safe`.
    """

    def __init__(self, folder: str | Path, segment_nbytes: int = SEGMENT_NBYTES):
        self.folder = Path(folder)
        self._segment_nbytes = segment_nbytes
        self._lock = threading.Lock()
        self._syncing, self._marking = threading.Lock(), threading.Lock()
        self._unsynced: list[int] = []
        self._folder_changed = True
        self._descriptor = -1
        self._sizes: dict[int, int] = {}
        self._mark = self.reached = SafeMark()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
            self._mark = self.reached = read_mark(self.folder)
            found = segments(self.folder)
            for segment in found:
                self._take_over(segment, last=segment == found[-1])
            self._segment = found[-1] if found else 0
            if not found or self._segment < self._mark.segment or self.open_nbytes < (self._mark.end_in(self._segment) or 0):
                self._begin(max(self._segment, self._mark.segment) + 1)  # nothing lies where something safe was
            if not found and self._mark == SafeMark():
                self.note_safe(SafeMark(0, self._segment, 0))
            self.sync()
        except OSError as error:
            self.close()
            raise _write_error(error, self.folder) from error

    @property
    def used_nbytes(self) -> int:
        return sum(list(self._sizes.values()))

    @property
    def segment(self) -> int:
        """The segment that is appended to."""
        return self._segment

    @property
    def open_nbytes(self) -> int:
        """Bytes in the segment that is appended to."""
        return self._sizes[self._segment]

    def append(self, facts: PlaneFacts, buffers: Sequence[Buffer]) -> Position:
        """Append a plane, whose payload may come in parts; where it lies. On failure nothing of it stays."""
        text = _facts_bytes(facts)
        nbytes = record_nbytes(len(text), sum(map(len, buffers)))
        if self.open_nbytes and self.open_nbytes + nbytes > self._segment_nbytes:
            self.rotate()
        offset, ordinal = self.open_nbytes, self.reached.ordinal + 1
        payload_nbytes = sum(map(len, buffers))
        head = _head(self._segment, len(text), offset, payload_nbytes, crc32(text), facts.crc, ordinal)
        padding = bytes(nbytes - _HEAD.size - len(text) - payload_nbytes)
        try:
            os.lseek(self._descriptor, offset, os.SEEK_SET)  # behind it lies what a failure left that could not be cut off
            _write_all(self._descriptor, [head, text, *buffers, padding])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, offset)
            raise _write_error(error, segment_path(self.folder, self._segment)) from error
        self._sizes[self._segment] = offset + nbytes
        self.reached = SafeMark(ordinal, self._segment, offset + nbytes)
        return Position(self._segment, offset, nbytes, ordinal)

    @property
    def safe(self) -> SafeMark:
        """How far it was noted as safe."""
        return self._mark

    def count_from(self, ordinal: int) -> None:
        """So many records were appended at least, though not all can be found any more. Before anything is appended."""
        self.reached = SafeMark(max(ordinal, self.reached.ordinal), self.reached.segment, self.reached.end)

    def note_safe(self, mark: SafeMark, *, durable: bool = False) -> None:
        """Say that all up to there (`reached`, as it was before a sync) is safe; before anybody is told."""
        with self._marking:
            if mark <= self._mark and not durable:
                return
            try:
                write_mark(self.folder, max(mark, self._mark), durable=durable)
            except OSError as error:
                raise _write_error(error, self.folder) from error
            self._mark = max(mark, self._mark)

    def rotate(self) -> None:
        """Close the segment, where it holds anything, and begin the next; a closed one may be released."""
        if self.open_nbytes == 0:
            return
        try:
            self._begin(self._segment + 1)
        except OSError as error:
            raise _write_error(error, self.folder) from error

    def sync(self) -> None:
        """Have the disk keep all that was appended before this was called."""
        with self._syncing:
            with self._lock:
                closed, self._unsynced = self._unsynced, []
                folder_changed, self._folder_changed = self._folder_changed, False
                descriptor = self._descriptor
            try:
                if descriptor >= 0:
                    sync_file(descriptor)
                for old in closed:
                    sync_file(old)
                if folder_changed:
                    sync_folder(self.folder)
            except OSError as error:
                with self._lock:
                    self._unsynced, closed = closed + self._unsynced, []
                    self._folder_changed = self._folder_changed or folder_changed
                raise _write_error(error, self.folder) from error
            finally:
                for old in closed:
                    os.close(old)

    def release(self, segment: int) -> None:
        """Delete the closed segments up to this one; what another program holds open goes the next time."""
        for number in [number for number in self._sizes if number <= segment and number < self._segment]:
            try:
                segment_path(self.folder, number).unlink(missing_ok=True)
            except OSError:
                continue
            del self._sizes[number]

    def close(self) -> None:
        """Sync nothing, give the files back; closing twice is harmless."""
        with self._syncing, self._lock:
            for descriptor in (*self._unsynced, self._descriptor):
                if descriptor >= 0:
                    os.close(descriptor)
            self._unsynced, self._descriptor = [], -1

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self, segment: int) -> None:
        descriptor = _opened(segment_path(self.folder, segment), os.O_CREAT | os.O_EXCL)
        with self._lock:
            if self._descriptor >= 0:
                self._unsynced.append(self._descriptor)
            self._descriptor, self._segment, self._folder_changed = descriptor, segment, True
            self._sizes[segment] = 0

    def _take_over(self, segment: int, last: bool) -> None:
        path = segment_path(self.folder, segment)
        descriptor = _opened(path)
        if last:
            end, ordinal = _end_of_records(path, segment, self._mark.end_in(segment))
            self.count_from(ordinal)
            if end < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, end)
            self._descriptor = descriptor
        else:
            self._unsynced.append(descriptor)
        self._sizes[segment] = os.fstat(descriptor).st_size


class SpoolReader:
    """Gives the planes of a spool in the order in which they came, while they come. One thread.

    Begins with the first segment that is there, or with `segment`. It never changes a file, and holds one open.
    """

    def __init__(self, folder: str | Path, segment: int = 1):
        self.folder = Path(folder)
        self._segment, self._offset = segment, 0
        self._file: PositionalFile | None = None

    @property
    def position(self) -> tuple[int, int]:
        """(segment, offset) of what comes next."""
        return self._segment, self._offset

    def next(self) -> tuple[PlaneFacts, bytes, int] | None:
        """(facts, payload, segment) of the next plane; None while there is none.

        Raises DamagedSlideError, with `facts` where they could be read, else None, for a record that is complete but wrong; it is
        skipped, and the next call goes on behind it.
        """
        while True:
            if not self._open():
                return None
            found, followed = self._look(), False
            if found is None and (followed := self._is_followed()):
                found = self._look(grows=False)  # whatever the segment gets, it gets before the next one is there
            if isinstance(found, _Record):
                self._offset = found.end
                return found.facts, found.payload, self._segment
            if isinstance(found, _Wrong):
                self._offset = found.end
                raise _damage(found, segment_path(self.folder, self._segment))
            if not followed:
                return None
            rest = _size(segment_path(self.folder, self._segment)) - self._offset
            path = segment_path(self.folder, self._segment)
            offset = self._offset
            self._go_to(self._segment + 1)
            if rest > 0:
                raise _damage(_Wrong(f"the last {rest} bytes are no plane", offset, offset + rest), path)

    def finished_segment(self, segment: int) -> bool:
        """Whether all planes of a closed segment were given."""
        if segment == self._segment and self._is_followed() and self._open():
            return self._offset >= _size(segment_path(self.folder, segment))
        return segment < self._segment

    def close(self) -> None:
        """Give the file back; closing twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> SpoolReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> bool:
        while self._file is None:
            later = [number for number in segments(self.folder) if number >= self._segment]
            if not later:
                return False
            if later[0] != self._segment:
                self._go_to(later[0])
            try:
                self._file = PositionalFile(str(segment_path(self.folder, self._segment)))
            except FileNotFoundError:  # released this moment: the next one is looked for
                continue
        return True

    def _is_followed(self) -> bool:
        return any(number > self._segment for number in segments(self.folder))

    def _go_to(self, segment: int) -> None:
        self.close()
        self._segment, self._offset = segment, 0

    def _look(self, *, grows: bool = True) -> _Record | _Wrong | None:
        for look in range(_LOOKS):
            if look:
                time.sleep(_PAUSE_S)
            safe_end = read_mark(self.folder).end_in(self._segment)  # before looking: what is marked is there
            found = _record_at(self._file, self._segment, self._offset, safe_end, grows=grows)
            if not isinstance(found, _Wrong):
                return found
        return found


def planes_in(
    folder: str | Path, payloads: bool = True, after: int = 0
) -> Iterator[tuple[PlaneFacts, Position] | DamagedSlideError]:
    """What the segments `after` one hold, in their order: facts of each plane and where it lies, or what is wrong with it.

    An error has `facts` and `position`, with what could be read of them: None and zeros where nothing could. Beside one who
    appends, what comes meanwhile may be there or not. Segments that go meanwhile are left out.

    `payloads` are compared with their checksums, in all segments: after a power failure any may lack what was not synced, and a
    plane that is taken for there would be acknowledged when it comes again.
    """
    mark = read_mark(Path(folder))  # before looking: what is marked is there
    numbers = [number for number in segments(folder) if number > after]
    for number in numbers:
        followed = number != numbers[-1]
        yield from _planes_of(Path(folder), number, payloads, _END if followed else mark.end_in(number))


def planes_of_segment(folder: str | Path, segment: int, payloads: bool = False) -> list[PlaneFacts]:
    """The planes of a segment, none where it is gone; what is damaged is left out, with `payloads` also where only pixels are."""
    return [found[0] for found in _planes_of(Path(folder), segment, payloads, safe_end=None) if isinstance(found, tuple)]


def _planes_of(
    folder: Path, segment: int, payload: bool, safe_end: int | None
) -> Iterator[tuple[PlaneFacts, Position] | DamagedSlideError]:
    path = segment_path(folder, segment)
    try:
        file = PositionalFile(str(path))
    except FileNotFoundError:
        return
    try:
        safe_end = min(safe_end, _size(path)) if safe_end == _END else safe_end
        offset = 0
        while (found := _record_at(file, segment, offset, safe_end, payload, grows=True)) is not None:
            if isinstance(found, _Wrong):
                yield _damage(found, path)
            else:
                yield found.facts, Position(segment, offset, found.end - offset, found.ordinal)
            offset = found.end
    except FileNotFoundError:  # released this moment
        return
    finally:
        file.close()


# records


@dataclass(frozen=True)
class _Record:
    facts: PlaneFacts
    payload: bytes
    end: int
    ordinal: int


@dataclass(frozen=True)
class _Wrong:
    """A record that is complete but wrong, and where the next one begins; its facts and number, as far as they can be read."""

    reason: str
    offset: int
    end: int
    facts: PlaneFacts | None = None
    ordinal: int = 0


def record_nbytes(facts_nbytes: int, payload_nbytes: int) -> int:
    """Bytes of a record."""
    return -(-(_HEAD.size + facts_nbytes + payload_nbytes) // _ALIGNED) * _ALIGNED


def _record_at(
    file: PositionalFile,
    segment: int,
    offset: int,
    safe_end: int | None = None,
    payload: bool = True,
    grows: bool = False,
) -> _Record | _Wrong | None:
    """The record at an offset; None where it is not complete. What lies before `safe_end` was complete once.

    What lies behind that in a segment that `grows` may have its whole length and not its bytes, as a power failure leaves it.
    It is not complete then, unless another record comes after it; so its payload is looked at in any case.
    """
    size = _size(file.path)
    head = _head_at(file, segment, offset, size)
    end = offset + record_nbytes(head.facts_nbytes, head.payload_nbytes) if head else 0
    if head is None or end > size:
        # a complete record further on says that this one was complete as well: it is damaged, or the file was cut
        after = _next_head(file, segment, offset + _ALIGNED, size) or (safe_end if (safe_end or 0) > offset else None)
        return None if after is None else _Wrong("a plane is cut short" if head else "a head is damaged", offset, after)
    may_be_torn = grows and safe_end is not None and offset >= safe_end
    found = _content(file, head, offset, end, payload or may_be_torn)
    if isinstance(found, _Wrong) and may_be_torn and _next_head(file, segment, end, size) is None:
        return None
    return found


def _content(file: PositionalFile, head: _Head, offset: int, end: int, payload: bool) -> _Record | _Wrong:
    """What a record holds that has its whole length."""
    text = _bytes_at(file, offset + _HEAD.size, head.facts_nbytes)
    if crc32(text) != head.facts_crc:
        return _Wrong("what is told of a plane is damaged", offset, end, None, head.ordinal)
    facts = _facts_from(text, head.payload_crc)
    if facts is None:
        return _Wrong("what is told of a plane is not understood", offset, end, None, head.ordinal)
    data = _bytes_at(file, offset + _HEAD.size + head.facts_nbytes, head.payload_nbytes) if payload else b""
    if payload and crc32(data) != head.payload_crc:
        reason = f"the pixels of field {facts.field}, channel {facts.channel} are damaged"
        return _Wrong(reason, offset, end, facts, head.ordinal)
    return _Record(facts, data, end, head.ordinal)


class _Head(NamedTuple):
    magic: bytes
    segment: int
    facts_nbytes: int
    offset: int
    payload_nbytes: int
    facts_crc: int
    payload_crc: int
    ordinal: int
    crc: int


def _head(
    segment: int, facts_nbytes: int, offset: int, payload_nbytes: int, facts_crc: int, payload_crc: int, ordinal: int
) -> bytes:
    head = _HEAD.pack(MAGIC, segment, facts_nbytes, offset, payload_nbytes, facts_crc, payload_crc, ordinal, 0)
    return head[:-4] + struct.pack("<I", crc32(head[:-4]))


def _head_at(file: PositionalFile, segment: int, offset: int, size: int) -> _Head | None:
    """The head at an offset; None where none is."""
    if offset + _HEAD.size > size:
        return None
    return _head_from(_bytes_at(file, offset, _HEAD.size), segment, offset)


def _head_from(data: bytes, segment: int, offset: int) -> _Head | None:
    head = _Head(*_HEAD.unpack(data))
    if head.magic != MAGIC or crc32(data[:-4]) != head.crc or (head.segment, head.offset) != (segment, offset):
        return None
    if head.facts_nbytes > _MAX_FACTS_NBYTES or head.payload_nbytes > _MAX_PAYLOAD_NBYTES:
        return None
    return head


def _next_head(file: PositionalFile, segment: int, offset: int, size: int) -> int | None:
    """Where the next head lies; None where there is no more."""
    while offset + _HEAD.size <= size:
        data = _pages_at(file, offset, min(_SEARCH_NBYTES + _HEAD.size, size - offset))
        at = data.find(MAGIC)
        while at >= 0:
            if at + _HEAD.size > len(data):
                break
            if at % _ALIGNED == 0 and _head_from(data[at : at + _HEAD.size], segment, offset + at) is not None:
                return offset + at
            at = data.find(MAGIC, at + 1)
        offset += _SEARCH_NBYTES
    return None


def _bytes_at(file: PositionalFile, offset: int, nbytes: int) -> bytes:
    """Bytes of a segment; zeros where the disk does not give them back, which no checksum takes for anything else."""
    try:
        return file.read(offset, nbytes)
    except DamagedSlideError:
        return bytes(nbytes)


def _pages_at(file: PositionalFile, offset: int, nbytes: int) -> bytes:
    """As `_bytes_at`, but with what lies beside the pages that the disk does not give back."""
    try:
        return file.read(offset, nbytes)
    except DamagedSlideError:
        pages = range(offset, offset + nbytes, _PAGE_NBYTES)
        return b"".join(_bytes_at(file, at, min(_PAGE_NBYTES, offset + nbytes - at)) for at in pages)


def _end_of_records(path: Path, segment: int, safe_end: int | None) -> tuple[int, int]:
    """Where a segment's last complete record ends (what follows was torn off while it was written), and the greatest number."""
    file = PositionalFile(str(path))
    try:
        offset = ordinal = 0
        while (found := _record_at(file, segment, offset, safe_end, payload=False, grows=True)) is not None:
            offset, ordinal = found.end, max(ordinal, found.ordinal)
        return offset, ordinal
    finally:
        file.close()


def _facts_bytes(facts: PlaneFacts) -> bytes:
    told = {name: value for name, value in vars(facts).items() if value is not None and name not in ("crc", "metadata")}
    if facts.metadata:
        told["metadata"] = dict(facts.metadata)
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _facts_from(text: bytes, crc: int) -> PlaneFacts | None:
    try:
        told = json.loads(text)
        whole = {name: int(told[name]) for name in ("field", "channel", "z", "t")}
        optional = {name: told.get(name) for name in ("row", "column", "scene", "x_um", "y_um", "z_um")}
        height, width = told["shape"]
        return PlaneFacts(
            **whole,
            **optional,
            shape=(int(height), int(width)),
            encoding=str(told["encoding"]),
            crc=crc,
            metadata=dict(told.get("metadata", {})),
            pixels_crc=int(told["pixels_crc"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError):
        return None


def _damage(wrong: _Wrong, path: Path) -> DamagedSlideError:
    error = DamagedSlideError(f"{wrong.reason} (at byte {wrong.offset})", location=path)
    error.facts = wrong.facts
    error.position = Position(int(path.stem), wrong.offset, wrong.end - wrong.offset, wrong.ordinal)
    return error


# files


def _opened(path: Path, more: int = 0) -> int:
    return os.open(path, os.O_RDWR | more | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)


def _size(path: str | Path) -> int:
    return os.stat(path).st_size


def _write_all(descriptor: int, buffers: Sequence[Buffer]) -> None:
    """Write all of the buffers, however little the system takes at once."""
    left = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while left:
        written = os.writev(descriptor, left) if hasattr(os, "writev") else os.write(descriptor, left[0])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _write_error(error: OSError, location: Path) -> WriteError:
    told = WriteError(f"cannot be written: {error.strerror or error}", location=location)
    told.errno = error.errno
    return told


# what was released


RELEASED_DTYPE = np.dtype(
    [(name, "<i4") for name in ("field", "channel", "z", "t", "row", "column", "scene", "height", "width")]
    + [("pixels_crc", "<u4"), ("x_um", "<f8"), ("y_um", "<f8")]
)
"""One row a plane whose segment is gone: -1 and NaN for what was not told."""

_BATCH_MAGIC = b"rmspent1"
_BATCH = struct.Struct("<8sIIII")


def released_rows(planes: Sequence[PlaneFacts]) -> np.ndarray:
    """(n,) RELEASED_DTYPE rows of planes."""
    rows = np.empty(len(planes), RELEASED_DTYPE)
    for number, facts in enumerate(planes):
        place = (-1 if value is None else value for value in (facts.row, facts.column, facts.scene))
        position = (np.nan if value is None else value for value in (facts.x_um, facts.y_um))
        rows[number] = (*facts.key, *place, *facts.shape, facts.pixels_crc, *position)
    return rows


def released_facts(row: Mapping) -> PlaneFacts:
    """What a RELEASED_DTYPE row tells of a plane; nothing of its payload, its z position and its metadata."""
    whole = {name: int(row[name]) for name in ("field", "channel", "z", "t")}
    place = {name: None if row[name] < 0 else int(row[name]) for name in ("row", "column", "scene")}
    position = {name: None if np.isnan(row[name]) else float(row[name]) for name in ("x_um", "y_um")}
    shape = (int(row["height"]), int(row["width"]))
    return PlaneFacts(**whole, **place, **position, z_um=None, shape=shape, encoding="", crc=0, pixels_crc=int(row["pixels_crc"]))


class ReleasedList:
    """The list of released planes in a file, for the one who appends to it. It is read once, whole, and never again.

    Attributes
    ----------
    last, rows
        As `read_released` has them, at the beginning.
    """

    def __init__(self, path: Path):
        self._path = path
        self._is_named = path.exists()
        found = list(_batches(path))
        self._end = sum(_BATCH.size + len(data) for _, data in found)
        self.last, self.rows = _table(found)

    def append(self, segment: int, rows: np.ndarray) -> None:
        """Note the planes of the segments up to this one as released; on the disk when this returns. WriteError; then it may be
        called again."""
        data = np.ascontiguousarray(rows, RELEASED_DTYPE).tobytes()
        head = _BATCH.pack(_BATCH_MAGIC, segment, len(rows), crc32(data), 0)
        head = head[:-4] + struct.pack("<I", crc32(head[:-4]))
        try:
            descriptor = _opened(self._path, os.O_CREAT)
            try:
                os.ftruncate(descriptor, self._end)  # what was torn off before
                os.lseek(descriptor, self._end, os.SEEK_SET)
                _write_all(descriptor, [head, data])
                sync_file(descriptor)
            finally:
                os.close(descriptor)
            if not self._is_named:
                sync_folder(self._path.parent)
        except OSError as error:
            raise _write_error(error, self._path) from error
        self._is_named = True
        self._end += _BATCH.size + len(data)


def append_released(path: Path, segment: int, rows: np.ndarray) -> None:
    """As `ReleasedList.append`, for who does it once."""
    ReleasedList(path).append(segment, rows)


def read_released(path: Path) -> tuple[int, np.ndarray]:
    """(last released segment, 0 for none; (n,) RELEASED_DTYPE rows). A torn end does not count: its segments are still there.

    DamagedSlideError where a batch is wrong and others follow it.
    """
    return _table(list(_batches(path)))


def _table(batches: Sequence[tuple[int, bytes]]) -> tuple[int, np.ndarray]:
    return batches[-1][0] if batches else 0, np.frombuffer(b"".join(data for _, data in batches), RELEASED_DTYPE)


def _batches(path: Path) -> Iterator[tuple[int, bytes]]:
    """(segment, bytes of rows) of each batch."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    offset = 0
    while offset + _BATCH.size <= len(data):
        magic, segment, count, crc, head_crc = _BATCH.unpack_from(data, offset)
        begin = offset + _BATCH.size
        end = begin + count * RELEASED_DTYPE.itemsize
        right = magic == _BATCH_MAGIC and crc32(data[offset : begin - 4]) == head_crc
        if not right or end > len(data) or crc32(data[begin:end]) != crc:
            if data.find(_BATCH_MAGIC, offset + 1) >= 0:
                raise DamagedSlideError(
                    f"the list of released planes is damaged at byte {offset}; what was acknowledged lies in the growing slide",
                    location=path,
                )
            return
        yield segment, data[begin:end]
        offset = end
