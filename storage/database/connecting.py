"""Connections to the library's database: a SQLite file that several processes share, or a PostgreSQL server.

Transactions that write follow one another, here and in all other processes: SQLite begins them with its write lock, PostgreSQL
with a lock of ours. They take milliseconds, and nothing is read from a slide in them, so nobody waits for long, and what was
looked up in one is true until it ends.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from rawmosaic.storage.database.address import postgresql_url, sqlite_path, without_password
from rawmosaic.storage.errors import LibraryError, SlideError, UnreachableError, WriteError

BUSY_S = 30.0
"""How long a transaction waits for those of others."""

LOOK_S = 0.02

CONNECT_S = 10
STATEMENT_S = 120
_LOCK_KEY = 0x7261776D
"""Of our lock in PostgreSQL; any number that nobody else uses."""


class Database:
    """The connections of one process to one library; any thread. Opened by the first transaction, closed by `close`.

    Every error of the database becomes a SlideError that says which library, and what to do.
    """

    def __init__(self, address: str):
        self.address = without_password(address)
        self.path = sqlite_path(address)
        self.read_only = self.path is not None and _is_read_only(self.path)
        if self.path is None:
            self.engine = _postgresql_engine(address)
        else:
            self.engine = _sqlite_engine(self.path, self.read_only)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that no other writing one overlaps; undone as a whole where an error leaves it. Raises WriteError."""
        if self.read_only:
            raise WriteError(
                "the library can only be read: its file, or the folder it lies in, cannot be written", location=self.address
            )
        with self._translated(), self.engine.connect() as connection:
            connection = connection.execution_options(writing=True)
            with connection.begin():
                if self.path is None:
                    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{int(BUSY_S)}s'"))
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
                yield connection

    def close(self) -> None:
        """Give all connections back; closing twice is harmless."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._as_ours(error) from error
        except SQLAlchemyError as error:
            raise LibraryError(f"the library failed: {error}", location=self.address) from error

    def _as_ours(self, error: DBAPIError) -> SlideError:
        text = " ".join(str(error.orig).split())
        if self.path is not None:
            return _sqlite_error(text, self.address)
        return _postgresql_error(error, text, self.address)


def _is_read_only(path: Path) -> bool:
    """Whether the file is there, and neither it nor a journal beside it could be written."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _use_wal(connection: sqlite3.Connection) -> None:
    """Have readers and a writer not wait for each other. SQLite itself does not wait here for another that does the same."""
    deadline = time.monotonic() + BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(LOOK_S)
        else:
            return


def _sqlite_engine(path: Path, read_only: bool) -> sa.Engine:
    mode = "mode=rwc"
    if read_only:
        journal = path.with_name(path.name + "-wal")
        # without a journal nobody writes it, and SQLite need not put files of its own beside it
        mode = "mode=ro" if journal.exists() and journal.stat().st_size else "immutable=1"
    address = f"{path.as_uri()}?{mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")  # with WAL nothing breaks; a power cut may undo the last moment
            if not read_only:
                _use_wal(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=2, max_overflow=8)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # the driver left to itself would begin late, and not at all for CREATE TABLE
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writing") else "BEGIN")

    return engine


def _postgresql_engine(address: str) -> sa.Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise LibraryError(
            "a library on PostgreSQL needs its driver: pip install 'rawmosaic[postgresql]'", location=without_password(address)
        ) from error
    arguments = {"connect_timeout": CONNECT_S, "options": f"-c statement_timeout={STATEMENT_S}s", "application_name": "rawmosaic"}
    try:
        url = sa.make_url(postgresql_url(address))
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
        return sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, pool_size=2, max_overflow=8)
    except (SQLAlchemyError, ValueError) as error:
        raise LibraryError(f"the address is not understood: {error}", location=without_password(address)) from error


def _sqlite_error(text: str, address: str) -> SlideError:
    if "not a database" in text or "malformed" in text:
        return LibraryError(
            f"the library's file is damaged ({text}); put a backup in its place, or move it away and scan your folders again",
            location=address,
        )
    if "locked" in text:
        return LibraryError(f"another program has kept the library to itself for {BUSY_S:g} s; try again", location=address)
    if any(word in text for word in ("readonly", "full", "unable to open", "disk I/O")):
        return WriteError(f"the library cannot be used ({text}); its folder may be gone, full, or not writable", location=address)
    return LibraryError(f"the library failed ({text})", location=address)


def _postgresql_error(error: DBAPIError, text: str, address: str) -> SlideError:
    state = getattr(error.orig, "sqlstate", None) or ""
    if state in ("42501", "25006"):
        return WriteError(f"the server does not allow it: {text}", location=address)
    if state == "55P03":
        return LibraryError(f"another program has kept the library to itself for {BUSY_S:g} s; try again", location=address)
    if error.connection_invalidated or state == "" or state[:2] in ("08", "28", "3D", "53", "57"):
        return UnreachableError(f"the library's server does not let us in: {text}", location=address)
    return LibraryError(f"the library failed ({text})", location=address)


def existing_file(path: Path) -> bool:
    """Whether there is a library's file; an empty one is none."""
    with suppress(OSError):
        return path.stat().st_size > 0
    return False
