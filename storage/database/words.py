"""Texts as the words that a search finds them by. Pure: knows no database."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

NAME, PATH, OBJECTIVE, ASSAY, CHANNEL, TAG, NOTE = range(1, 8)
KINDS = {
    "name": NAME,
    "path": PATH,
    "objective": OBJECTIVE,
    "assay": ASSAY,
    "channel": CHANNEL,
    "tag": TAG,
    "note": NOTE,
}
"""What a word stands in, by the name of the filter that looks there only."""

LONGEST_WORD = 64
MOST_WORDS = 200
"""Of one text; a note may be long."""

_WORD = re.compile(r"[^\W_]+(?:[.,][^\W_]+)*")


def words_in(text: str) -> list[str]:
    """The words of a text, without case, each once: letters and digits, points and commas between them (``0.3``)."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    found = dict.fromkeys(word[:LONGEST_WORD] for word in _WORD.findall(plain))
    return list(found)[:MOST_WORDS]


def words_of(texts: Mapping[int, Iterable[str]]) -> set[tuple[int, str]]:
    """(kind, word) of all that is written about a slide, by kind."""
    return {(kind, word) for kind, several in texts.items() for text in several for word in words_in(text)}
