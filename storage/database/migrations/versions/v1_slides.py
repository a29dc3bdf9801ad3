"""Slides, their channels, their copies, tags and thumbnails."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "slides",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("identity", sa.String(64), unique=True),
        sa.Column("uid", sa.String(200), unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_key", _plain_text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("acquired_at", sa.Text, nullable=False, server_default=""),
        sa.Column("acquired", _plain_text(), nullable=False, server_default=""),
        sa.Column("objective", sa.Text, nullable=False, server_default=""),
        sa.Column("assay", sa.Text, nullable=False, server_default=""),
        sa.Column("pixel_size_um", sa.Float),
        sa.Column("bits", sa.Integer),
        sa.Column("n_fields", sa.Integer),
        sa.Column("field_height", sa.Integer),
        sa.Column("field_width", sa.Integer),
        sa.Column("size_z", sa.Integer),
        sa.Column("size_t", sa.Integer),
        sa.Column("n_planes", sa.BigInteger),
        sa.Column("n_pixels", sa.BigInteger),
        sa.Column("nbytes", sa.BigInteger),
        sa.Column("extra", sa.Text, nullable=False, server_default=""),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
        sa.Column("added_at", sa.String(32), nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
    )
    op.create_index("slides_by_name", "slides", ["name_key"])
    op.create_index("slides_by_date", "slides", ["acquired", "id"])
    op.create_index("slides_by_state", "slides", ["state"])
    op.create_table(
        "channels",
        _slide_id(primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("color", sa.Text),
        sa.Column("excitation_nm", sa.Float),
        sa.Column("emission_nm", sa.Float),
        sa.Column("exposure_ms", sa.Float),
    )
    op.create_table(
        "copies",
        sa.Column("id", sa.Integer, primary_key=True),
        _slide_id(),
        sa.Column("host", _plain_text(), nullable=False),
        sa.Column("location", _plain_text(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("nbytes", sa.BigInteger),
        sa.Column("mtime_ns", sa.BigInteger),
        sa.Column("n_files", sa.Integer),
        sa.Column("checksum", sa.String(64), nullable=False, server_default=""),
        sa.Column("options", sa.Text, nullable=False, server_default=""),
        sa.Column("seen_at", sa.String(32), nullable=False),
        sa.Column("verified_at", sa.String(32), nullable=False, server_default=""),
        sa.UniqueConstraint("host", "location", name="one_copy_per_place"),
    )
    op.create_index("copies_of_slide", "copies", ["slide_id"])
    op.create_table("tags", _slide_id(primary_key=True), sa.Column("tag", sa.Text, primary_key=True))
    op.create_table("thumbnails", _slide_id(primary_key=True), sa.Column("png", sa.LargeBinary, nullable=False))


def _plain_text() -> sa.Text:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _slide_id(**options: bool) -> sa.Column:
    return sa.Column("slide_id", sa.Integer, sa.ForeignKey("slides.id", ondelete="CASCADE"), nullable=False, **options)
