"""Words, so that a search need not read every slide."""

from __future__ import annotations

from collections.abc import Iterator

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
    for slide_id, found in list(_slides(connection)):
        rows = []
        for kind, word in sorted(found):
            if word not in numbers:
                numbers[word] = len(numbers) + 1
                connection.execute(sa.text("INSERT INTO words (word) VALUES (:word)"), {"word": word})
            rows.append({"word_id": numbers[word], "kind": kind, "slide_id": slide_id})
        if rows:
            statement = "INSERT INTO slide_words (word_id, kind, slide_id) VALUES (:word_id, :kind, :slide_id)"
            connection.execute(sa.text(statement), rows)


def _slides(connection: sa.Connection) -> Iterator[tuple[int, set[tuple[int, str]]]]:
    """(id, words) of every slide."""
    last = -1
    while True:
        portion = {"last": last, "most": _AT_ONCE}
        columns = "id, name, objective, assay, note FROM slides"
        rows = connection.execute(sa.text(f"SELECT {columns} WHERE id > :last ORDER BY id LIMIT :most"), portion).all()
        if not rows:
            return
        first, last = rows[0].id, rows[-1].id
        texts = {
            row.id: {
                KINDS["name"]: [row.name],
                KINDS["objective"]: [row.objective],
                KINDS["assay"]: [row.assay],
                KINDS["note"]: [row.note],
            }
            for row in rows
        }
        for kind, table, column in (("channel", "channels", "name"), ("path", "copies", "location"), ("tag", "tags", "tag")):
            statement = f"SELECT slide_id, {column} AS text FROM {table} WHERE slide_id BETWEEN :first AND :last"
            for row in connection.execute(sa.text(statement), {"first": first, "last": last}):
                texts[row.slide_id].setdefault(KINDS[kind], []).append(row.text)
        for slide_id, own in texts.items():
            yield slide_id, words_of(own)
