"""Rows of the library: read as records, written by one transaction at a time. Every function works inside its caller's."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from rawmosaic.storage.database.facts import SlideFacts, plain
from rawmosaic.storage.database.footprint import Footprint
from rawmosaic.storage.database.records import CopyRecord, SlideRecord, settled_state
from rawmosaic.storage.database.schema import channels, copies, slide_words, slides, tags, thumbnails, words
from rawmosaic.storage.database.words import ASSAY, CHANNEL, NAME, NOTE, OBJECTIVE, PATH, TAG, words_of
from rawmosaic.storage.slide import Channel

_AT_ONCE = 500
"""Ids in one statement."""

_FACT_COLUMNS = [field.name for field in fields(SlideFacts) if field.name not in ("growing", "channels", "identity", "uid")]
_SLIDE_COLUMNS = [field.name for field in fields(SlideRecord) if field.name not in ("channels", "copies", "tags")]


def utc_now() -> str:
    """This moment, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# reading


def bare_records(rows: Iterable[sa.Row]) -> list[SlideRecord]:
    """Rows of `slides` without what belongs to them."""
    return [SlideRecord(**{name: row._mapping[name] for name in _SLIDE_COLUMNS}) for row in rows]


def full_records(connection: sa.Connection, ids: Sequence[int]) -> list[SlideRecord]:
    """Slides with their channels, copies and tags, in the order of the ids; those that are gone are left out."""
    found: dict[int, SlideRecord] = {}
    for some in portions(ids):
        rows = bare_records(connection.execute(slides.select().where(slides.c.id.in_(some))))
        theirs = (
            _by_slide(connection, channels, some, channels.c.number, _channel),
            _by_slide(connection, copies, some, copies.c.id, copy_record),
            _by_slide(connection, tags, some, tags.c.tag, lambda row: row.tag),
        )
        for row in rows:
            own = (tuple(each[row.id]) for each in theirs)
            found[row.id] = SlideRecord(**{**vars(row), **dict(zip(("channels", "copies", "tags"), own, strict=True))})
    return [found[number] for number in ids if number in found]


def copy_record(row: sa.Row) -> CopyRecord:
    """A row of `copies`."""
    return CopyRecord(**{**row._mapping, "options": json.loads(row.options or "{}")})


def copy_at(connection: sa.Connection, host: str, location: str) -> CopyRecord | None:
    """The copy known at a place."""
    row = connection.execute(copies.select().where(copies.c.host == host, copies.c.location == location)).first()
    return None if row is None else copy_record(row)


def copies_of(connection: sa.Connection, slide_id: int) -> list[CopyRecord]:
    """All copies of a slide."""
    return [copy_record(row) for row in connection.execute(copies.select().where(copies.c.slide_id == slide_id))]


def copies_under(connection: sa.Connection, host: str, folder: str) -> list[CopyRecord]:
    """The copies of a machine that lie in a folder or below."""
    begins = folder if folder.endswith(("/", "\\")) else folder + ("\\" if "\\" in folder else "/")
    after = begins[:-1] + chr(ord(begins[-1]) + 1)
    inside = (copies.c.location >= begins) & (copies.c.location < after)
    place = copies.c.host == host
    rows = connection.execute(copies.select().where(place, inside | (copies.c.location == folder)))
    return [copy_record(row) for row in rows]


def slide_with(connection: sa.Connection, column: str, value: str | None) -> int | None:
    """The id of the slide with this `identity` or `uid`."""
    if value is None:
        return None
    return connection.execute(sa.select(slides.c.id).where(slides.c[column] == value)).scalar()


def is_only_announced(connection: sa.Connection, slide_id: int) -> bool:
    """Whether a slide's content is not known yet: it was announced, or it grows."""
    return connection.execute(sa.select(slides.c.identity).where(slides.c.id == slide_id)).scalar() is None


# writing


def put_slide(connection: sa.Connection, slide_id: int | None, facts: SlideFacts, nbytes: int | None) -> int:
    """Insert a slide, or bring one up to date; returns its id. What is not known does not replace what is."""
    values: dict[str, Any] = {name: getattr(facts, name) for name in _FACT_COLUMNS}
    values |= {"identity": facts.identity, "uid": facts.uid, "nbytes": nbytes, "acquired": facts.acquired}
    values |= {"name_key": facts.name.casefold(), "changed_at": utc_now()}
    if slide_id is None:
        values |= {"state": "", "added_at": values["changed_at"]}
        slide_id = connection.execute(slides.insert().values(values)).inserted_primary_key[0]
    else:
        known = {name: value for name, value in values.items() if value not in (None, "")}
        connection.execute(slides.update().where(slides.c.id == slide_id).values(known))
    if facts.channels:
        connection.execute(channels.delete().where(channels.c.slide_id == slide_id))
        connection.execute(channels.insert(), [_channel_row(slide_id, n, each) for n, each in enumerate(facts.channels)])
    return slide_id


def put_copy(connection: sa.Connection, copy_id: int | None, values: Mapping[str, Any]) -> int:
    """Insert a copy, or change one; returns its id."""
    values = {"seen_at": utc_now(), **values}
    if copy_id is None:
        return connection.execute(copies.insert().values(values)).inserted_primary_key[0]
    connection.execute(copies.update().where(copies.c.id == copy_id).values(values))
    return copy_id


def footprint_values(footprint: Footprint | None) -> dict[str, int | None]:
    """The columns of a footprint."""
    return {name: getattr(footprint, name, None) for name in ("nbytes", "mtime_ns", "n_files")}


def put_thumbnail(connection: sa.Connection, slide_id: int, png: bytes) -> None:
    """Replace a slide's thumbnail."""
    connection.execute(thumbnails.delete().where(thumbnails.c.slide_id == slide_id))
    connection.execute(thumbnails.insert().values(slide_id=slide_id, png=png))


def put_error(connection: sa.Connection, slide_id: int, error: str) -> None:
    """Note why an acquisition failed; "" where it did not, after all."""
    connection.execute(slides.update().where(slides.c.id == slide_id).values(error=plain(error)))


def settle(connection: sa.Connection, slide_id: int) -> None:
    """Make a slide's state that of its copies."""
    states = list(connection.execute(sa.select(copies.c.state).where(copies.c.slide_id == slide_id)).scalars())
    failed = sa.case((slides.c.error != "", settled_state(states, True)), else_=settled_state(states, False))
    connection.execute(slides.update().where(slides.c.id == slide_id).values(state=failed))


def refresh(connection: sa.Connection, slide_id: int) -> None:
    """Bring up to date what follows from the rest: a slide's state, and the words that it is found by."""
    settle(connection, slide_id)
    index(connection, slide_id)


def index(connection: sa.Connection, slide_id: int) -> None:
    """Make the words that a slide is found by those that are written about it."""
    row = connection.execute(slides.select().where(slides.c.id == slide_id)).first()
    if row is None:
        return
    texts = {NAME: [row.name], OBJECTIVE: [row.objective], ASSAY: [row.assay], NOTE: [row.note]}
    for kind, column in ((CHANNEL, channels.c.name), (PATH, copies.c.location), (TAG, tags.c.tag)):
        texts[kind] = list(connection.execute(sa.select(column).where(column.table.c.slide_id == slide_id)).scalars())
    wanted = words_of(texts)
    numbers = _word_numbers(connection, {word for _, word in wanted})
    wanted_rows = {(numbers[word], kind) for kind, word in wanted}
    known = sa.select(slide_words.c.word_id, slide_words.c.kind).where(slide_words.c.slide_id == slide_id)
    known_rows = {tuple(each) for each in connection.execute(known)}
    for word_id, kind in sorted(known_rows - wanted_rows):
        place = (slide_words.c.word_id == word_id) & (slide_words.c.kind == kind) & (slide_words.c.slide_id == slide_id)
        connection.execute(slide_words.delete().where(place))
    if new := sorted(wanted_rows - known_rows):
        rows = [{"word_id": word_id, "kind": kind, "slide_id": slide_id} for word_id, kind in new]
        connection.execute(slide_words.insert(), rows)


def _word_numbers(connection: sa.Connection, wanted: set[str]) -> dict[str, int]:
    """The ids of words, new ones inserted."""
    numbers: dict[str, int] = {}
    for some in portions(sorted(wanted)):
        known = connection.execute(sa.select(words.c.word, words.c.id).where(words.c.word.in_(some)))
        numbers |= {row.word: row.id for row in known}
    for word in sorted(wanted - set(numbers)):
        numbers[word] = connection.execute(words.insert().values(word=word)).inserted_primary_key[0]
    return numbers


def absorb(connection: sa.Connection, slide_id: int, other_id: int) -> None:
    """Make one slide of two that turned out to be the same: `other_id` was only announced, and ends."""
    uid = connection.execute(sa.select(slides.c.uid).where(slides.c.id == other_id)).scalar()
    connection.execute(slides.update().where(slides.c.id == other_id).values(uid=None))
    if uid is not None:
        has_none = (slides.c.id == slide_id) & slides.c.uid.is_(None)
        connection.execute(slides.update().where(has_none).values(uid=uid))
    connection.execute(copies.update().where(copies.c.slide_id == other_id).values(slide_id=slide_id))
    own = sa.select(tags.c.tag).where(tags.c.slide_id == slide_id)
    moved = (tags.c.slide_id == other_id) & tags.c.tag.not_in(own.scalar_subquery())
    connection.execute(tags.update().where(moved).values(slide_id=slide_id))
    delete_slide(connection, other_id)


def delete_slide(connection: sa.Connection, slide_id: int) -> None:
    """Take a slide and all that belongs to it out of the library."""
    connection.execute(slides.delete().where(slides.c.id == slide_id))


def portions(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The ids, or words, so many at a time as a statement takes."""
    for first in range(0, len(ids), _AT_ONCE):
        yield ids[first : first + _AT_ONCE]


def _by_slide(connection: sa.Connection, table: sa.Table, ids: Sequence[int], order: sa.Column, made) -> dict[int, list]:
    found = defaultdict(list)
    for row in connection.execute(table.select().where(table.c.slide_id.in_(ids)).order_by(order)):
        found[row.slide_id].append(made(row))
    return found


def _channel(row: sa.Row) -> Channel:
    return Channel(row.name, row.color, row.excitation_nm, row.emission_nm, row.exposure_ms)


def _channel_row(slide_id: int, number: int, channel: Channel) -> dict[str, Any]:
    named = {name: getattr(channel, name) for name in ("name", "color", "excitation_nm", "emission_nm", "exposure_ms")}
    return {"slide_id": slide_id, "number": number, **named}
