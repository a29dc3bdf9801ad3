"""The library's tables are brought to the version of this program when it is opened: all steps, or none."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from rawmosaic.storage.database.connecting import Database, existing_file
from rawmosaic.storage.database.schema import VERSION, metadata
from rawmosaic.storage.errors import FormatVersionError, LibraryError, WriteError

VERSION_TABLE = "rawmosaic_version"
_STEPS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = threading.Lock()
"""Alembic's operations are global to the process."""


def prepare(database: Database, create: bool = True) -> None:
    """Make sure that the tables are there and of this program's version.

    A SQLite file of an older version is copied before. Raises LibraryError for what is no library (and, with create=False, where
    there is nothing), FormatVersionError for one of a newer version, WriteError for an old one that cannot be written.
    """
    if database.path is not None and not existing_file(database.path):
        if not create:
            raise LibraryError(
                "there is no library yet; `rawmosaic library scan FOLDER` or `library add LOCATION` begins one",
                location=database.address,
            )
        _make_folder(database.path.parent)
    with database.reading() as connection:
        version = _version(connection, database)
    if version == VERSION:
        return
    if version is not None and version not in _known_versions():
        raise FormatVersionError(
            f"the library was written by a newer rawmosaic (version {version}, this one knows up to {VERSION}); update rawmosaic",
            location=database.address,
        )
    with database.writing() as connection:
        if _version(connection, database) == version:  # nobody else was faster
            if version is not None and database.path is not None:
                back_up(database.path, version)
            migrate(connection)


def migrate(connection: sa.Connection, target: str = "head") -> None:
    """Run the missing steps up to a version inside the connection's transaction."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    script = _script()
    options = {
        "version_table": VERSION_TABLE,
        "transactional_ddl": True,
        "script": script,
        "fn": lambda revision, _: script._upgrade_revs(target, revision),
    }
    with _ONE_AT_A_TIME, _quiet():
        context = MigrationContext.configure(connection, opts=options)
        with Operations.context(context):
            context.run_migrations()


def back_up(path: Path, version: str) -> Path:
    """Copy a SQLite library to a new name beside it, ``library-version-1.sqlite``; returns the copy. Raises WriteError."""
    names = (f"{path.stem}-version-{version}{'' if n == 1 else f'-{n}'}{path.suffix}" for n in range(1, 10_000))
    copy = next(place for place in map(path.with_name, names) if not place.exists())
    draft = copy.with_name(copy.name + ".part")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(draft)) as target:
            source.backup(target)
        os.replace(draft, copy)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise WriteError(f"no backup could be made before the library is brought up to date: {error}", location=copy) from error
    return copy


def _version(connection: sa.Connection, database: Database) -> str | None:
    """The version of the tables; None in an empty database. Raises LibraryError where the tables are somebody else's."""
    tables = set(sa.inspect(connection).get_table_names())
    if VERSION_TABLE in tables:
        return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    in_the_way = tables if database.path is not None else tables & set(metadata.tables)
    if in_the_way:
        shown = ", ".join(sorted(in_the_way)[:5])
        raise LibraryError(f"the database of another program (it has tables {shown}); name another", location=database.address)
    return None


def _script():
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_STEPS), version_locations=[str(_STEPS / "versions")])


def _known_versions() -> set[str]:
    return {step.revision for step in _script().walk_revisions()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Alembic tells every step on a logger of its own; nobody asked."""
    import logging

    logger = logging.getLogger("alembic")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"the library's folder cannot be made: {error}", location=folder) from error
