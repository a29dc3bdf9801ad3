"""What was found at a place is noted: as a new slide, as a copy, as one that moved, or as what was known. One transaction."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from rawmosaic.storage.database import store
from rawmosaic.storage.database.connecting import Database
from rawmosaic.storage.database.describing import Described
from rawmosaic.storage.database.records import ACQUIRING, COMPLETE, MISSING, VERIFIED, CopyRecord
from rawmosaic.storage.database.schema import slides

NEW, COPIED, MOVED, CHANGED, REPLACED, FOUND_AGAIN, UNCHANGED = (
    "new",
    "copied",
    "moved",
    "changed",
    "replaced",
    "found again",
    "unchanged",
)


@dataclass(frozen=True)
class Noted:
    """What is new about a place. `before`: where it lay, if it moved, or another copy of it, if it was copied."""

    slide_id: int
    name: str
    location: str
    news: str
    before: str = ""


def note(database: Database, host: str, found: Described) -> Noted:
    """Note what lies at a place of this machine. Raises SlideError."""
    with database.reading() as connection:
        candidates = _known_copies(connection, found)
    # outside the transaction: a share that does not answer may take its time
    gone = {copy.id for copy in candidates if copy.host == host and not _is_there(copy)}
    with database.writing() as connection:
        return _note(connection, host, found, gone)


def _known_copies(connection: sa.Connection, found: Described) -> list[CopyRecord]:
    slide_id = store.slide_with(connection, "identity", found.facts.identity)
    return [] if slide_id is None else store.copies_of(connection, slide_id)


def _is_there(copy: CopyRecord) -> bool:
    return "://" in copy.location or os.path.exists(copy.location)


def _note(connection: sa.Connection, host: str, found: Described, gone: Collection[int]) -> Noted:
    host = "" if "://" in found.location else host
    same = store.slide_with(connection, "identity", found.facts.identity)
    copy = store.copy_at(connection, host, found.location)
    before = ""
    if copy is not None:
        slide_id, news = _content_at_known_place(connection, copy, found, same)
    else:
        slide_id = same or store.slide_with(connection, "uid", found.facts.uid)
        others = [] if slide_id is None else store.copies_of(connection, slide_id)
        lost = [other for other in others if other.id in gone]
        if lost:
            copy, news, before = lost[0], MOVED, lost[0].location
        elif others and same is not None:
            news, before = COPIED, others[0].location
        else:
            news = NEW
    left = copy.slide_id if copy is not None else None
    facts = found.facts
    if slide_id is not None:
        for other in {left, store.slide_with(connection, "uid", facts.uid)} - {None, slide_id}:
            if store.is_only_announced(connection, other):
                store.absorb(connection, slide_id, other)  # now it is known what it is
                left = None if left == other else left
            elif other != left:
                facts = replace(facts, uid=None)  # of a slide with other content
    nbytes = found.footprint.nbytes if found.footprint is not None else None
    slide_id = store.put_slide(connection, slide_id, facts, nbytes)
    store.put_copy(connection, copy.id if copy is not None else None, _copy_values(slide_id, host, found, copy))
    if found.state != ACQUIRING:
        store.put_error(connection, slide_id, "")
    if found.png is not None:
        store.put_thumbnail(connection, slide_id, found.png)
    for changed in {slide_id, left} - {None}:
        store.refresh(connection, changed)
    return Noted(slide_id, found.facts.name, found.location, news, before)


def _content_at_known_place(
    connection: sa.Connection, copy: CopyRecord, found: Described, same: int | None
) -> tuple[int | None, str]:
    """(slide, news) of what lies where a copy is known; None for a slide that is new here."""
    if same is not None and same != copy.slide_id:
        return same, REPLACED
    if same == copy.slide_id:
        if copy.state == MISSING:
            return same, FOUND_AGAIN
        as_before = _footprint_of(copy) == store.footprint_values(found.footprint) and copy.state in (COMPLETE, VERIFIED)
        return same, UNCHANGED if as_before else CHANGED
    if _is_same_acquisition(connection, copy, found):
        return copy.slide_id, CHANGED
    return store.slide_with(connection, "uid", found.facts.uid), REPLACED


def _is_same_acquisition(connection: sa.Connection, copy: CopyRecord, found: Described) -> bool:
    """Whether other content at a place is still the same acquisition: it grew, was imported again, its table was mended."""
    known = connection.execute(slides.select().where(slides.c.id == copy.slide_id)).one()
    if known.uid is not None and found.facts.uid is not None:
        return known.uid == found.facts.uid
    if known.identity is None:
        return True
    only = len(store.copies_of(connection, copy.slide_id)) == 1
    return only and (known.name, known.acquired_at) == (found.facts.name, found.facts.acquired_at)


def _copy_values(slide_id: int, host: str, found: Described, copy: CopyRecord | None) -> dict[str, Any]:
    looks_same = copy is not None and _footprint_of(copy) == store.footprint_values(found.footprint)
    proven = looks_same and copy.verified_at and found.state == COMPLETE
    values = {
        "slide_id": slide_id,
        "host": host,
        "location": found.location,
        "kind": found.kind,
        "state": VERIFIED if proven else found.state,
        "error": found.error,
        "options": json.dumps(dict(found.options)) if found.options else "",
        **store.footprint_values(found.footprint),
    }
    return values if looks_same else values | {"checksum": "", "verified_at": ""}


def _footprint_of(copy: CopyRecord) -> dict[str, int | None]:
    return {"nbytes": copy.nbytes, "mtime_ns": copy.mtime_ns, "n_files": copy.n_files}
