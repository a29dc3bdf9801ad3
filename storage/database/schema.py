"""The tables of the library, as the newest migration leaves them (a test compares). Times are ISO 8601, UTC.

slides      one row per content: what its header says, how large it is, its state
channels    its channels, in order
copies      where it lies: one row per location and machine
tags        words that people gave it
thumbnails  a small PNG
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = "2"
"""The newest revision in migrations/versions."""

metadata = MetaData()


def plain_text() -> Text:
    """Text that sorts by its bytes on every server, so that an index finds what begins with something."""
    return Text().with_variant(Text(collation="C"), "postgresql")


def _slide_id(**options) -> Column:
    return Column("slide_id", Integer, ForeignKey("slides.id", ondelete="CASCADE"), nullable=False, **options)


slides = Table(
    "slides",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("identity", String(64), unique=True),  # of the content; unknown while it grows
    Column("uid", String(200), unique=True),  # of the acquisition, where a server recorded it
    Column("name", Text, nullable=False),
    Column("name_key", plain_text(), nullable=False),  # without case
    Column("state", String(16), nullable=False),
    Column("error", Text, nullable=False, server_default=""),
    Column("acquired_at", Text, nullable=False, server_default=""),  # as the source says it
    Column("acquired", plain_text(), nullable=False, server_default=""),  # ISO 8601, as far as it was understood
    Column("objective", Text, nullable=False, server_default=""),
    Column("assay", Text, nullable=False, server_default=""),
    Column("pixel_size_um", Float),
    Column("bits", Integer),
    Column("n_fields", Integer),
    Column("field_height", Integer),
    Column("field_width", Integer),
    Column("size_z", Integer),
    Column("size_t", Integer),
    Column("n_planes", BigInteger),
    Column("n_pixels", BigInteger),
    Column("nbytes", BigInteger),
    Column("extra", Text, nullable=False, server_default=""),  # JSON: the source's own metadata, if it is not too long
    Column("note", Text, nullable=False, server_default=""),
    Column("added_at", String(32), nullable=False),
    Column("changed_at", String(32), nullable=False),
)
Index("slides_by_name", slides.c.name_key)
Index("slides_by_date", slides.c.acquired, slides.c.id)
Index("slides_by_state", slides.c.state)

channels = Table(
    "channels",
    metadata,
    _slide_id(primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("color", Text),
    Column("excitation_nm", Float),
    Column("emission_nm", Float),
    Column("exposure_ms", Float),
)

copies = Table(
    "copies",
    metadata,
    Column("id", Integer, primary_key=True),
    _slide_id(),
    Column("host", plain_text(), nullable=False),  # the machine whose path it is
    Column("location", plain_text(), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("error", Text, nullable=False, server_default=""),
    Column("nbytes", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("n_files", Integer),
    Column("checksum", String(64), nullable=False, server_default=""),  # SHA-256, noted by the first `verify`
    Column("options", Text, nullable=False, server_default=""),  # JSON: what a raw acquisition is opened with
    Column("seen_at", String(32), nullable=False),
    Column("verified_at", String(32), nullable=False, server_default=""),
    UniqueConstraint("host", "location", name="one_copy_per_place"),
)
Index("copies_of_slide", copies.c.slide_id)

tags = Table("tags", metadata, _slide_id(primary_key=True), Column("tag", Text, primary_key=True))

thumbnails = Table("thumbnails", metadata, _slide_id(primary_key=True), Column("png", LargeBinary, nullable=False))

words = Table(
    "words",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("word", plain_text(), nullable=False, unique=True),
)

slide_words = Table(
    "slide_words",
    metadata,
    Column("word_id", Integer, ForeignKey("words.id"), primary_key=True),
    Column("kind", SmallInteger, primary_key=True),  # see words.KINDS
    _slide_id(primary_key=True),
    sqlite_with_rowid=False,
)
Index("words_of_slide", slide_words.c.slide_id)
