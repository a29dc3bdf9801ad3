"""How far a spool is safe: a few bytes beside its segments, written after each sync and before anybody is told.

Without it, the last record of a spool looks the same whether it was torn while it was written, which nobody was told of, or
damaged long after it was acknowledged. What the mark says is always true: it may say too little, where a power failure took its
last change, and never too much.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.durable import sync_file

MARK_FILE = "safe.mark"

_MAGIC = b"rmssafe1"
_MARK = struct.Struct("<8sIIQII")


@dataclass(frozen=True, order=True)
class SafeMark:
    """`ordinal` records were appended and are safe, released ones included; the last of them ends at byte `end` of `segment`."""

    ordinal: int = 0
    segment: int = 0
    end: int = 0

    def end_in(self, segment: int) -> int | None:
        """Bytes of a segment that are safe: what was appended before this must be there, and of what lies behind it nobody was
        told. None for a segment of which nothing is said."""
        if segment == self.segment:
            return self.end
        return 0 if 0 < self.segment < segment else None


def read_mark(spool: Path) -> SafeMark:
    """The mark of a spool's folder; one that says nothing where none is, or it cannot be read."""
    try:
        data = (spool / MARK_FILE).read_bytes()
    except OSError:
        return SafeMark()
    if len(data) != _MARK.size:
        return SafeMark()
    magic, ordinal, segment, end, _, crc = _MARK.unpack(data)
    return SafeMark(ordinal, segment, end) if magic == _MAGIC and crc == crc32(data[:-4]) else SafeMark()


def write_mark(spool: Path, mark: SafeMark, *, durable: bool = False) -> None:
    """Say how far a spool is safe; with `durable`, the disk has it when this returns. OSError. One writer."""
    data = _MARK.pack(_MAGIC, mark.ordinal, mark.segment, mark.end, 0, 0)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(spool / MARK_FILE, flags, 0o666)
    try:
        os.write(descriptor, data[:-4] + struct.pack("<I", crc32(data[:-4])))  # in place: a full disk has room for it
        if durable:
            sync_file(descriptor)
    finally:
        os.close(descriptor)


def unknown_records(greatest_ordinal: int, n_known: int, n_unreadable: int) -> int:
    """How many records were safe once and cannot be told any more.

    Each has its number, and none is left out: where there are fewer than the greatest one, the others are gone, however many that
    are, and wherever they lay. Spools of earlier versions have no numbers; there, what cannot be read is counted.
    """
    return max(greatest_ordinal - n_known, 0) if greatest_ordinal else n_unreadable
