"""Whether a copy is as it was: each plane against its checksum where there is one, each byte against what was noted before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.storage.database.footprint import FILE, SERVER, belongs_to_slide
from rawmosaic.storage.database.identity import content_identity, files_of
from rawmosaic.storage.database.records import CopyRecord
from rawmosaic.storage.errors import NotASlideError, SlideError
from rawmosaic.storage.opening import is_virtual_slide, open_slide

PIECE_NBYTES = 1 << 22

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Verdict:
    """`problem` is "" for a copy that is sound; `checksum` is SHA-256, "" where nothing could be read.

    known  whether there was anything to compare with: without, the checksum is only noted
    """

    problem: str
    checksum: str = ""
    known: bool = True
    identity: str | None = None


def verify_copy(copy: CopyRecord, progress: Progress | None = None) -> Verdict:
    """Read a copy as a whole. Raises NotASlideError where it is not to be found, OSError, and what `progress` raises.

    The checksum of a file is what `sha256sum` says; that of several files is made from theirs and their names.
    `progress(done, total)` counts planes of virtual slides, and pieces of other files.
    """
    if copy.kind == SERVER:
        raise NotASlideError("is on a server: verify the file where it lies", location=copy.location)
    if not os.path.exists(copy.location):
        raise NotASlideError("there is no such file or folder", location=copy.location)
    tell = progress or (lambda *_: None)
    virtual = is_virtual_slide(copy.location)
    identity = None
    try:
        if virtual:
            from rawmosaic.storage.hdf5.verify import verify_slide

            if damages := verify_slide(copy.location, progress):
                more = f" and {len(damages) - 1} more" if len(damages) > 1 else ""
                return Verdict(f"{damages[0]}{more}")
        with open_slide(copy.location, in_place_cache=False, **copy.options) as slide:
            identity = content_identity(slide)
            files = [Path(copy.location)] if copy.kind == FILE else _files_with_tables(files_of(slide), copy)
    except SlideError as error:
        return Verdict(" ".join(str(error).removeprefix(f"{copy.location}: ").split()))
    checksum = _checksum(files, (lambda *_: None) if virtual else tell)
    if copy.checksum and checksum != copy.checksum:
        return Verdict("its bytes are not those that were noted when it was verified before", checksum, True, identity)
    return Verdict("", checksum, virtual or bool(copy.checksum), identity)


def _files_with_tables(files: list[Path], copy: CopyRecord) -> list[Path]:
    """The files of the planes, and what else lies in the acquisition's folder."""
    folder = Path(copy.location) if os.path.isdir(copy.location) else Path(copy.location).parent
    beside = (path for path in folder.rglob("*") if path.is_file() and belongs_to_slide(path.name))
    return sorted({*files, *beside})


def _checksum(files: list[Path], progress: Progress) -> str:
    """SHA-256, hexadecimal."""
    total = max(sum(-(-file.stat().st_size // PIECE_NBYTES) for file in files), 1)
    done = 0
    each = []
    for file in files:
        known = hashlib.sha256()
        with open(file, "rb") as content:
            while piece := content.read(PIECE_NBYTES):
                known.update(piece)
                done += 1
                progress(done, total)
        each.append(known.hexdigest())
    if len(files) == 1:
        return each[0]
    base = os.path.commonpath([file.parent for file in files])
    lines = (f"{one}  {Path(os.path.relpath(file, base)).as_posix()}\n" for one, file in zip(each, files, strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
