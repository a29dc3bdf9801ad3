"""Which content a slide is: the same for every copy of it, wherever it lies and whatever it is called there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rawmosaic.storage.database.footprint import belongs_to_slide
from rawmosaic.storage.slide import Slide

SAMPLED_FILES = 32
SAMPLE_NBYTES = 1 << 16
"""So many files of a raw acquisition are looked into, at beginning, middle and end: camera noise is never the same twice."""


def content_identity(slide: Slide) -> str | None:
    """32 hexadecimal digits; None for a slide that grows. Raises OSError.

    A virtual slide, and a slide on a server, know theirs: it rests on the checksum of every plane. That of a raw acquisition is
    made from the sizes of its fields, the names and sizes of its files, and samples of their bytes.
    """
    if slide.growing:
        return None
    if type(slide).identity is not Slide.identity:
        return slide.identity
    files = files_of(slide)
    known = hashlib.blake2b(repr((slide.size_z, slide.size_t, len(slide.channels))).encode(), digest_size=16)
    for column in ("height", "width"):
        known.update(np.ascontiguousarray(slide.fields[column]))
    base = common_folder(files)
    sizes = [os.stat(file).st_size for file in files]
    for file, size in zip(files, sizes, strict=True):
        name = os.path.relpath(file, base).replace(os.sep, "/") if len(files) > 1 else ""  # one file may be renamed
        known.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    step = max(len(files) / SAMPLED_FILES, 1)
    for number in range(min(len(files), SAMPLED_FILES)):
        place = int(number * step)
        known.update(_sampled(files[place], sizes[place]))
    return known.hexdigest()


def files_of(slide: Slide) -> list[Path]:
    """The files that hold a slide's planes, sorted: those it names, else all that lie at its location."""
    named: Sequence[Path] | None = getattr(slide, "files", None)
    if named:
        return sorted(Path(file).absolute() for file in named)
    place = Path(slide.location).absolute()
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.is_file() and belongs_to_slide(path.name))


def common_folder(files: Sequence[Path]) -> Path:
    """The innermost folder that all files lie in."""
    return Path(os.path.commonpath([file.parent for file in files]))


def acquisition_uid(extra: Mapping) -> str | None:
    """The name that an acquisition server gave the scan, from the header of the slide that it wrote."""
    acquisition = extra.get("acquisition")
    uid = acquisition.get("uid") if isinstance(acquisition, Mapping) else extra.get("uid")
    return str(uid) if uid else None


def _sampled(path: Path, nbytes: int) -> bytes:
    last = max(nbytes - SAMPLE_NBYTES, 0)
    with open(path, "rb") as file:
        parts = []
        for offset in sorted({0, last // 2, last}):
            file.seek(offset)
            parts.append(file.read(SAMPLE_NBYTES))
    return b"".join(parts)
