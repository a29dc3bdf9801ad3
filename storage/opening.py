"""From a location to a `Slide`: every source registers in the entry-point group ``rawmosaic.sources``.

A source is an object with `score(location) -> int` (0: not mine; higher wins) and `open(location, **options) -> Slide`.
`score` must be cheap: it looks at names and a few bytes. Sources are imported only when asked, cheapest guess first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rawmosaic.storage.errors import NotASlideError
from rawmosaic.storage.slide import Slide

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "rawmosaic.sources"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

PART_SUFFIX = ".part"
"""What the name of a virtual slide ends with while it is written."""


class Source(Protocol):
    """What a kind of location offers."""

    def score(self, location: str) -> int:
        """0: not mine; 1: might be; 10: surely mine. Looks at names and a few bytes only."""

    def open(self, location: str, **options) -> Slide:
        """The slide at the location; raises SlideError."""


def open_slide(location: str, **options) -> Slide:
    """Open whatever lies at `location`: a virtual slide, a raw acquisition (file or folder), an address, …

    Options are the source's own (`pixel_size_um`, `orientation`, `camera_angle_deg` for raw acquisitions). The caller
    closes the slide, best with a with-statement. Raises NotASlideError and the other errors of `errors.py`.
    """
    location = str(location)
    if is_virtual_slide(location) or _is_being_written(location):  # the common case opens without looking at any other source
        from rawmosaic.storage.hdf5.reader import open_patiently

        return open_patiently(location)
    candidates = []
    for name, source in installed_sources().items():
        if (score := source.score(location)) > 0:
            candidates.append((score, name, source))
    if not candidates:
        raise NotASlideError(_why_not(location), location=location)
    return max(candidates, key=lambda candidate: candidate[:2])[2].open(location, **options)


def installed_sources() -> dict[str, Source]:
    """Every registered source that can be imported here, by its name: for who asks about many locations."""
    sources = {entry.name: _load(entry) for entry in _entries()}
    return {name: source for name, source in sources.items() if source is not None}


def is_virtual_slide(location: str) -> bool:
    """Whether a local file starts like HDF5 and is not another format that also builds on HDF5."""
    if not os.path.isfile(location):  # a pipe would be waited for
        return False
    try:
        with open(location, "rb") as file:
            return file.read(8) == HDF5_SIGNATURE and not location.endswith((".ims", ".nxs"))
    except (OSError, ValueError):
        return False


def _is_being_written(location: str) -> bool:
    """Whether a virtual slide will have that name: until it is finished, its file lies beside it."""
    return not os.path.exists(location) and is_virtual_slide(location + PART_SUFFIX)


def _entries() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # slow to import, and virtual slides do without

    return list(entry_points(group=GROUP))


def _load(entry: EntryPoint) -> Source | None:
    try:
        return entry.load()
    except ImportError:  # an extra that is not installed
        return None


def _why_not(location: str) -> str:
    path = Path(location)
    known = ", ".join(sorted(entry.name for entry in _entries()))
    if "://" in location:
        return f"no installed source knows this address; installed are {known}"
    if not path.exists():
        return "there is no such file or folder"
    if path.is_dir() and not any(path.iterdir()):
        return "the folder is empty"
    if (image := _some_tiff(path)) is not None:
        from rawmosaic.storage.importers.placing import how_to_place

        return f"nothing that rawmosaic knows says where its images lie; {how_to_place(image)}; it reads {known}"
    kind = "folder holds no acquisition" if path.is_dir() else "file is not a slide"
    return f"this {kind} that rawmosaic knows; it reads virtual slides (.h5) and {known}"


def _some_tiff(path: Path) -> str | None:
    """The name of a TIFF: the file itself, or the first in a folder."""
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
    return next((name for name in names if name.lower().endswith((".tif", ".tiff"))), None)
