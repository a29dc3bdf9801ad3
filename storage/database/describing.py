"""What lies at a location, described for the library: opened, looked at, closed again. Knows no database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rawmosaic.storage.database.facts import SlideFacts
from rawmosaic.storage.database.footprint import (
    SERVER,
    Footprint,
    footprint,
    is_being_written,
    kind_of,
    normal_location,
)
from rawmosaic.storage.database.identity import files_of
from rawmosaic.storage.database.records import ACQUIRING, COMPLETE, DAMAGED
from rawmosaic.storage.errors import NotASlideError
from rawmosaic.storage.hdf5.claim import is_claimed
from rawmosaic.storage.opening import PART_SUFFIX, open_slide
from rawmosaic.storage.slide import Slide

Thumbnail = Callable[[Slide], bytes | None]
"""Draws a slide as a small PNG; None for one that it would take too long to read. Handed in: storage knows no OpenGL."""

UNFINISHED = "its writer ended without finishing it"


@dataclass(frozen=True)
class Described:
    """One place and what lies there. `state`, `error`: of the copy."""

    location: str
    kind: str
    facts: SlideFacts
    footprint: Footprint | None
    state: str = COMPLETE
    error: str = ""
    options: Mapping[str, Any] | None = None
    png: bytes | None = None


def describe(location: str, options: Mapping[str, Any] | None = None, thumbnail: Thumbnail | None = None) -> Described:
    """Look at a location; `options` are those of raw acquisitions. Raises SlideError, OSError."""
    if location.lower().startswith("library:"):
        raise NotASlideError("is a name in a library, not a place; name the file, folder or server", location=location)
    location = normal_location(location)
    # before it is opened: what changes meanwhile is seen the next time
    kind = kind_of(location)
    before = footprint(location, kind)
    with open_slide(location, in_place_cache=False, **(options or {})) as slide:
        facts = SlideFacts.of(slide)
        png = thumbnail(slide) if thumbnail is not None and not facts.growing else None
        if kind != SERVER and _has_more_beside(slide, location):
            kind = kind_of(location, is_set=True)
            before = footprint(location, kind)
    if not facts.name:
        facts = replace(facts, name=Path(location).stem)
    state, error = (ACQUIRING, "") if facts.growing else (COMPLETE, "")
    if facts.growing and is_being_written(location) and is_claimed(location + PART_SUFFIX) is False:
        state, error = DAMAGED, UNFINISHED
    return Described(location, kind, facts, before, state, error, options or {}, png)


def _has_more_beside(slide: Slide, location: str) -> bool:
    """Whether a slide opened by the name of one file lies in others as well."""
    return Path(location).is_file() and bool(getattr(slide, "files", None)) and files_of(slide) != [Path(location)]
