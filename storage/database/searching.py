"""What people type, as a condition on slides: ``brain 20x channel:DAPI acquired:2026-11 state:verified``.

Every part must hold. A word finds those that begin with it (``nuc`` *Nuclei*), those that end with it after a star (``*section``
*cryosection*), and with two stars those that hold it: in the name, the path, the objective, the assay, the channels, the tags or
the note; with ``channel:`` and the like only there. Quotes keep words together with their filter.

An index has the beginnings. What stands behind a star is looked for among all different words, which takes longer.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from rawmosaic.storage.database.records import STATES
from rawmosaic.storage.database.schema import slide_words, slides, words
from rawmosaic.storage.database.words import KINDS, words_in
from rawmosaic.storage.errors import OutOfRangeError

_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2}(:\d{2})?)?)?)?)?")
_FILTER = re.compile(r"([a-z]{2,}):(.+)", re.DOTALL | re.IGNORECASE)
LAST_CHARACTER = "\U0010ffff"
"""Sorts after every character of a word."""

_AFTER_ALL = "~"
"""Sorts after every character of a date."""


@dataclass(frozen=True)
class Query:
    """Words to be found: (kind, or 0 for all, word, with its stars); the first and the last date, or ""; the state, or ""."""

    words: tuple[tuple[int, str], ...] = ()
    since: str = ""
    until: str = ""
    state: str = ""


def parse_query(text: str) -> Query:
    """The query that a line asks for. Raises OutOfRangeError for a filter, a date or a state that does not exist."""
    found: dict[tuple[int, str], None] = {}
    since = until = state = ""
    for part in _parts(text):
        match = _FILTER.fullmatch(part)
        name, value = (match[1].lower(), match[2]) if match else ("", part)
        if name == "acquired":
            first, last = _dates(value)
            since, until = max(since, first), min(filter(None, (until, last)), default="")
        elif name == "state":
            state = _state(value)
        elif not name or name in KINDS:
            found |= dict.fromkeys((KINDS.get(name, 0), word) for word in _starred(value))
        elif value.startswith("//"):  # an address
            found |= dict.fromkeys((0, word) for word in words_in(part))
        else:
            filters = ", ".join(f"{each}:" for each in (*KINDS, "acquired", "state"))
            raise OutOfRangeError("filter", f"{name}:", f"there are {filters}; leave the colon out to look for the word itself")
    return Query(tuple(found), since, until, state)


def matching(query: Query) -> sa.Select:
    """The ids of the slides that a query finds, the latest acquired first."""
    wanted = sa.select(slides.c.id).order_by(slides.c.acquired.desc(), slides.c.id.desc())
    for kind, word in query.words:
        having = sa.select(slide_words.c.slide_id).join(words, words.c.id == slide_words.c.word_id)
        having = having.where(_like(word))
        wanted = wanted.where(slides.c.id.in_(having.where(slide_words.c.kind == kind) if kind else having))
    if query.since:
        wanted = wanted.where(slides.c.acquired >= query.since)
    if query.until:
        wanted = wanted.where(slides.c.acquired <= query.until)
    if query.since or query.until:
        wanted = wanted.where(slides.c.acquired != "")
    return wanted.where(slides.c.state == query.state) if query.state else wanted


def joined(parts: Sequence[str]) -> str:
    """Arguments of a command line as one line to parse: quotes that the shell took away are put back."""
    return shlex.join(parts)


def _starred(value: str) -> list[str]:
    """The words of a text, a star before the first and after the last where the text has one."""
    found = words_in(value)
    if found and value.startswith("*"):
        found[0] = "*" + found[0]
        if value.endswith("*"):
            found[-1] += "*"
    return found


def _like(word: str) -> sa.ColumnElement[bool]:
    """A word of the table that is meant by a word of the query."""
    if not word.startswith("*"):
        return (words.c.word >= word) & (words.c.word < word + LAST_CHARACTER)
    return words.c.word.like(word.replace("*", "%"))  # a word holds neither % nor _


def _parts(text: str) -> list[str]:
    """The line cut at its spaces but for those in quotes; a quote that stands alone is a character like others."""
    cut = shlex.shlex(text, posix=True, punctuation_chars=False)
    cut.whitespace_split, cut.commenters, cut.escape = True, "", ""
    try:
        return list(cut)
    except ValueError:
        return text.split()


def _dates(value: str) -> tuple[str, str]:
    """(first, last) of ``2026-11``, ``2026-11..2027-02``, ``2026-11..`` or ``..2027-02``; the last with what sorts after it."""
    first, dots, last = value.upper().partition("..")
    if not dots:
        last = first
    for date in (first, last):
        if date and not _DATE.fullmatch(date):
            raise OutOfRangeError("date", date, "write 2026, 2026-11 or 2026-11-03, or two of them with .. between")
    return first, last + _AFTER_ALL if last else ""


def _state(value: str) -> str:
    if value.lower() not in STATES:
        raise OutOfRangeError("state", value, "choose one of " + ", ".join(STATES))
    return value.lower()
