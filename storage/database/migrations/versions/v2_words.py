"""Words, so that a search need not read every slide."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from rawmosaic.storage.database.words import KINDS, words_of

revision = "2"
down_revision = "1"

_AT_ONCE = 1000


def upgrade() -> None:
    """Makes the tables, and fills them from the slides that are known."""
    op.create_table(
        "words",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("word", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False, unique=True),
    )
    op.create_table(
        "slide_words",
        sa.Column("word_id", sa.Integer, sa.ForeignKey("words.id"), primary_key=True),
        sa.Column("kind", sa.SmallInteger, primary_key=True),
        sa.Column("slide_id", sa.Integer, sa.ForeignKey("slides.id", ondelete="CASCADE"), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("words_of_slide", "slide_words", ["slide_id"])
    _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    numbers: dict[str, int] = {}
    last = -1
    while found := _next_slides(connection, last):
        last = max(found)
        new = sorted({word for words in found.values() for _, word in words} - set(numbers))
        if new:
            connection.execute(sa.text("INSERT INTO words (word) VALUES (:word)"), [{"word": word} for word in new])
            after = {"last": max(numbers.values(), default=0)}
            rows = connection.execute(sa.text("SELECT word, id FROM words WHERE id > :last"), after)
            numbers |= {row.word: row.id for row in rows}
        places = [
            {"word_id": numbers[word], "kind": kind, "slide_id": slide_id}
            for slide_id, words in found.items()
            for kind, word in sorted(words)
        ]
        if places:
            statement = "INSERT INTO slide_words (word_id, kind, slide_id) VALUES (:word_id, :kind, :slide_id)"
            connection.execute(sa.text(statement), places)


def _next_slides(connection: sa.Connection, last: int) -> dict[int, set[tuple[int, str]]]:
    """The words of some slides by id, beginning after an id; none after the last."""
    columns = "id, name, objective, assay, note FROM slides"
    portion = {"last": last, "most": _AT_ONCE}
    rows = connection.execute(sa.text(f"SELECT {columns} WHERE id > :last ORDER BY id LIMIT :most"), portion).all()
    if not rows:
        return {}
    texts = {row.id: {KINDS[kind]: [getattr(row, kind)] for kind in ("name", "objective", "assay", "note")} for row in rows}
    ends = {"first": rows[0].id, "last": rows[-1].id}
    for kind, table, column in (("channel", "channels", "name"), ("path", "copies", "location"), ("tag", "tags", "tag")):
        statement = f"SELECT slide_id, {column} AS text FROM {table} WHERE slide_id BETWEEN :first AND :last"
        for row in connection.execute(sa.text(statement), ends):
            texts[row.slide_id].setdefault(KINDS[kind], []).append(row.text)
    return {slide_id: words_of(own) for slide_id, own in texts.items()}
