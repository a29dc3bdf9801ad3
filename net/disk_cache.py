"""Compressed tiles of remote slides on the local disk: what was seen once comes from here the next time.

One SQLite database per folder, shared by all viewers of a user. SQLite keeps it whole through kills and power cuts, and lets
many read while one writes; against a disk that changes bytes each row has a checksum of its key and its tile. A row that does
not fit is dropped, a database that cannot be read is begun anew. A cache is never a reason to fail: where the folder cannot be
written or the disk is full, it says so once and stands aside.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import sqlite3
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from rawmosaic.storage.amounts import parse_bytes
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.pyramid import TileKey

CACHE_ENVIRONMENT, BUDGET_ENVIRONMENT = "RAWMOSAIC_CACHE", "RAWMOSAIC_DISK_CACHE"
LARGEST_DEFAULT_NBYTES = 10 << 30
PART_OF_FREE_DISK = 10

NAME = "tiles.sqlite"
SCHEMA = 1
PAGE_NBYTES = 16384
"""A tile lies on a handful of pages, and little of the last one is wasted."""

QUEUE_NBYTES = 64 << 20
"""What may wait to be written; more is dropped."""

LOG_LIMIT = f"journal_size_limit = {64 << 20}"
LARGEST_TILE_NBYTES = 256 << 20
BATCH = 64
EVICTED_AT_ONCE = 8
TOUCH_S = 600
"""Tiles used again within this time are not noted as used again."""

READ_PATIENCE_S, WRITE_PATIENCE_S = 0.1, 5.0
"""How long another process may hold the database."""

CLOSING_S = 10.0

_log = logging.getLogger("rawmosaic")

_TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value)",
    "CREATE TABLE tiles (number INTEGER PRIMARY KEY, slide BLOB NOT NULL, level INTEGER NOT NULL, tile INTEGER NOT NULL, "
    "channel INTEGER NOT NULL, z INTEGER NOT NULL, t INTEGER NOT NULL, used INTEGER NOT NULL, checksum INTEGER NOT NULL, "
    "data BLOB NOT NULL)",
    "CREATE UNIQUE INDEX keys ON tiles (slide, level, tile, channel, z, t)",
    "CREATE INDEX uses ON tiles (used)",
)
_WHERE = "WHERE slide = ? AND level = ? AND tile = ? AND channel = ? AND z = ? AND t = ?"
_FIND = f"SELECT number, used, checksum, data FROM tiles {_WHERE}"
_PUT = "INSERT OR REPLACE INTO tiles (slide, level, tile, channel, z, t, used, checksum, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}
_DAMAGED |= {sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_INTERNAL}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}

_Wanted = tuple[bytes, int, int, int, int, int]


def cache_folder() -> Path:
    """Where tiles of remote slides are kept: in the system's cache folder, or in what RAWMOSAIC_CACHE names."""
    return Path(os.environ.get(CACHE_ENVIRONMENT) or platformdirs.user_cache_dir("rawmosaic")) / "remote"


def default_budget_nbytes(folder: Path) -> int:
    """What RAWMOSAIC_DISK_CACHE says (``20G``; ``0``: no cache); else 10 GB, but at most a tenth of the free disk."""
    told = os.environ.get(BUDGET_ENVIRONMENT, "").strip()
    if told:
        return 0 if told == "0" else parse_bytes(told)
    existing = next((part for part in (folder, *folder.parents) if part.exists()), None)
    try:
        free = shutil.disk_usage(existing).free if existing is not None else 0
    except OSError:
        free = 0
    return min(LARGEST_DEFAULT_NBYTES, free // PART_OF_FREE_DISK)


class DiskCache:
    """Compressed tiles under (identity of the slide, key), in a folder, within a budget in bytes. Any thread.

    Reads in the calling thread; writes in one of its own, with what does not fit into its queue dropped. Tiles used longest ago
    go first. `close` writes what is still to be written. Never raises for what is wrong with the disk: `enabled` is False then.
    """

    def __init__(self, folder: str | os.PathLike | None = None, budget_bytes: int | None = None):
        self.folder = Path(folder) if folder is not None else cache_folder()
        self.budget_bytes = default_budget_nbytes(self.folder) if budget_bytes is None else budget_bytes
        self.enabled = self.budget_bytes > 0
        self.dropped = 0
        """Tiles that were not written because too many waited."""
        self._path = self.folder / NAME
        self._lock = threading.Lock()
        self._epoch: str | None = None
        self._readers: list[sqlite3.Connection] = []
        self._reading = 0
        self._quiet = threading.Condition(self._lock)
        self._work = threading.Condition()
        self._queue: deque[tuple[_Wanted, bytes]] = deque()
        self._queued_nbytes = 0
        self._touched: dict[int, int] = {}
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None
        if self.enabled:
            self._begin()

    def get(self, identity: str, keys: Sequence[TileKey]) -> list[bytes | None]:
        """The compressed bytes of each tile; b"" where nothing was acquired, None where the cache does not have it."""
        found: list[bytes | None] = [None] * len(keys)
        if not self.enabled or not keys:
            return found
        slide = _digest(identity)
        now = int(time.time())
        spoiled: list[_Wanted] = []
        touched: list[int] = []
        with self._guarded(), self._reader() as database:
            database.execute("BEGIN")
            try:
                for place, key in enumerate(keys):
                    row = database.execute(_FIND, (slide, *key)).fetchone()
                    if row is None:
                        continue
                    number, used, checksum, data = row
                    if not isinstance(data, bytes) or checksum != _checksum(slide, key, data):
                        spoiled.append((slide, *key))
                        continue
                    found[place] = data
                    if not isinstance(used, int) or abs(now - used) > TOUCH_S:
                        touched.append(number)
            finally:
                database.execute("COMMIT")
        for wanted in spoiled:
            self._enqueue(wanted, None)
        if touched:
            with self._work:
                self._touched.update(dict.fromkeys(touched, now))
        return found

    def put(self, identity: str, key: TileKey, data: bytes) -> None:
        """Keep a tile (b"" where nothing was acquired); returns at once."""
        if self.enabled:
            self._enqueue((_digest(identity), *key), data)

    def drop(self, identity: str, key: TileKey) -> None:
        """Forget a tile, for whoever finds that it does not decode."""
        if self.enabled:
            self._enqueue((_digest(identity), *key), None)

    def flush(self, timeout_s: float = CLOSING_S) -> bool:
        """Wait until everything put so far is written (or given up); False after the time-out."""
        with self._work:
            return self._work.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    @property
    def nbytes(self) -> int:
        """Bytes of the database in use; what was deleted and will be used again is not counted."""
        total = 0
        if self.enabled:
            with self._guarded(), self._reader() as database:
                total = _used_nbytes(database)
        return total

    def close(self) -> None:
        """Write what waits and close the database; closing twice is harmless."""
        with self._work:
            self._closed = True
            self._work.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSING_S)
            self._thread = None
        self.enabled = False
        self._close_readers()

    def __enter__(self) -> DiskCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # the database

    def _begin(self) -> None:
        with self._guarded():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what is looked at is nobody else's business
            self._epoch = self._opened_epoch()
        self.enabled = self._epoch is not None
        if self.enabled:
            self._thread = threading.Thread(target=self._write_on, name="disk-cache", daemon=True)
            self._thread.start()

    def _opened_epoch(self) -> str:
        """Open the database, made where there is none; its mark, which is another for each new one. Mends it once."""
        end, mended = time.monotonic() + WRITE_PATIENCE_S, False
        while True:
            try:
                database = _opened(self._path, WRITE_PATIENCE_S)
                try:
                    return _prepared(database)
                finally:
                    database.close()
            except sqlite3.DatabaseError as error:
                if _is_busy(error) and time.monotonic() < end:  # another process makes it at this moment
                    time.sleep(0.02)
                elif _is_damage(error) and not mended:
                    mended = True
                    _move_away(self._path)
                else:
                    raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever the disk does: a damaged database is begun anew, anything else switches the cache off."""
        try:
            yield
        except (sqlite3.Error, OSError, MemoryError, OverflowError, ValueError) as error:
            self._suffer(error)

    def _suffer(self, error: Exception) -> None:
        if _is_busy(error) or (_is_damage(error) and self._begun_anew()):
            return  # this time without the cache
        with self._lock:
            was, self.enabled = self.enabled, False
        if was and not self._closed:
            _log.warning("%s: tiles of remote slides are not kept on this disk: %s", self.folder, error)

    def _begun_anew(self) -> bool:
        """Replace a damaged database, unless another process did so already; False where that cannot be done."""
        with self._lock:
            if not self.enabled:
                return False
            before = self._epoch
            self._quiet.wait_for(lambda: not self._reading, READ_PATIENCE_S)
            _close_all(self._readers)
            try:
                if _epoch_at(self._path) in (None, before):
                    _move_away(self._path)
                self._epoch = self._opened_epoch()
            except (sqlite3.Error, OSError):
                return False
            return True

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that this thread alone uses meanwhile."""
        with self._lock:
            epoch = self._epoch
            database = self._readers.pop() if self._readers else None
            self._reading += 1
        sound = False
        try:
            if database is None:
                database = _opened(self._path, READ_PATIENCE_S)
            yield database
            sound = True
        finally:
            with self._lock:
                self._reading -= 1
                self._quiet.notify_all()
                kept = sound and self.enabled and epoch == self._epoch
                if kept:
                    self._readers.append(database)
            if not kept and database is not None:
                _close_all([database])

    def _close_readers(self) -> None:
        with self._lock:
            self._quiet.wait_for(lambda: not self._reading, READ_PATIENCE_S)
            _close_all(self._readers)

    # writing

    def _enqueue(self, wanted: _Wanted, data: bytes | None) -> None:
        nbytes = 0 if data is None else len(data)
        with self._work:
            if self._closed or self._queued_nbytes + nbytes > min(QUEUE_NBYTES, self.budget_bytes):
                self.dropped += 1
                return
            self._queue.append((wanted, data))
            self._queued_nbytes += nbytes
            self._work.notify_all()

    def _write_on(self) -> None:
        """The writing thread: takes what waits, a transaction at a time, until the cache is closed."""
        database, epoch = None, None
        while (batch := self._next_batch()) is not None:
            with self._guarded():
                if database is None or epoch != self._epoch:
                    if database is not None:
                        database.close()
                    database, epoch = _opened(self._path, WRITE_PATIENCE_S), self._epoch
                try:
                    self._write(database, batch)
                except BaseException:
                    with suppress(sqlite3.Error):
                        database.close()
                    database = None
                    raise
            with self._work:
                self._busy = False
                self._work.notify_all()
        with self._guarded():
            if database is not None:
                database.close()

    def _next_batch(self) -> list[tuple[_Wanted, bytes | None]] | None:
        """What to write next, waiting for some; None when the cache closes, or stands aside."""
        with self._work:
            self._work.wait_for(lambda: self._queue or self._closed or not self.enabled)
            if not self.enabled:
                self._queue.clear()
            if not self._queue and (not self._touched or not self.enabled):
                return None
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._queued_nbytes -= sum(len(data) for _, data in batch if data is not None)
            self._busy = True
            return batch

    def _write(self, database: sqlite3.Connection, batch: list[tuple[_Wanted, bytes | None]]) -> None:
        now = int(time.time())
        with self._work:
            touched, self._touched = self._touched, {}
        database.execute("BEGIN IMMEDIATE")
        try:
            for wanted, data in batch:
                if data is None:
                    database.execute(f"DELETE FROM tiles {_WHERE}", wanted)
                else:
                    slide, *key = wanted
                    database.execute(_PUT, (*wanted, now, _checksum(slide, key, data), data))
            database.executemany("UPDATE tiles SET used = ? WHERE number = ?", [(used, n) for n, used in touched.items()])
            while _used_nbytes(database) > self.budget_bytes:
                oldest = "SELECT number FROM tiles ORDER BY used, number LIMIT ?"
                if not database.execute(f"DELETE FROM tiles WHERE number IN ({oldest})", (EVICTED_AT_ONCE,)).rowcount:
                    break
        except BaseException:
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        excess = _file_nbytes(database) - self.budget_bytes - QUEUE_NBYTES
        if excess > 0:  # the budget was larger once
            database.executescript(f"PRAGMA incremental_vacuum({excess // PAGE_NBYTES + 1})")  # `execute` gives one page back


def _opened(path: Path, patience_s: float) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
    try:
        database.text_factory = bytes  # a text with flipped bits must not stop a read
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_TILE_NBYTES)
        for setting in ("synchronous = NORMAL", "secure_delete = OFF", "cell_size_check = ON", "cache_size = -4096", LOG_LIMIT):
            database.execute(f"PRAGMA {setting}")
    except BaseException:
        database.close()
        raise
    return database


def _prepared(database: sqlite3.Connection) -> str:
    """Make the tables where there are none; the database's mark."""
    if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
        database.execute(f"PRAGMA page_size = {PAGE_NBYTES}")
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:  # else another process was faster
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                database.execute(f'DROP TABLE "{name.decode()}"')  # another version's
            for statement in _TABLES:
                database.execute(statement)
            database.execute("INSERT INTO facts VALUES ('epoch', ?)", (secrets.token_hex(8),))
            database.execute(f"PRAGMA user_version = {SCHEMA}")
        database.execute("COMMIT")
    mark = _mark(database)
    if mark is None:
        raise sqlite3.DatabaseError("the database has no mark")
    return mark


def _mark(database: sqlite3.Connection) -> str | None:
    row = database.execute("SELECT value FROM facts WHERE name = 'epoch'").fetchone()
    return row[0].hex() if row and isinstance(row[0], bytes) else None


def _epoch_at(path: Path) -> str | None:
    """The mark of the database that lies there now; None where it cannot be read."""
    try:
        database = _opened(path, READ_PATIENCE_S)
        try:
            return _mark(database)
        finally:
            database.close()
    except sqlite3.Error:
        return None


def _move_away(path: Path) -> None:
    """Take a damaged database out of the way; one such is kept, for whoever wants to know what happened to the disk."""
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
    with suppress(FileNotFoundError):
        os.replace(path, path.with_name(path.name + ".damaged"))


def _is_damage(error: Exception) -> bool:
    """Whether an error tells of bytes that changed, and not of a disk that is full or write-protected."""
    if not isinstance(error, sqlite3.DatabaseError):
        return isinstance(error, MemoryError | OverflowError)  # sizes and numbers that cannot be true
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGED


def _is_busy(error: Exception) -> bool:
    """Whether another process had the database for too long."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def _used_nbytes(database: sqlite3.Connection) -> int:
    free = database.execute("PRAGMA freelist_count").fetchone()[0]
    return _file_nbytes(database) - free * PAGE_NBYTES


def _file_nbytes(database: sqlite3.Connection) -> int:
    return database.execute("PRAGMA page_count").fetchone()[0] * PAGE_NBYTES


def _close_all(databases: list[sqlite3.Connection]) -> None:
    while databases:
        with suppress(sqlite3.Error):
            databases.pop().close()


def _digest(identity: str) -> bytes:
    return hashlib.blake2b(identity.encode(), digest_size=16).digest()


def _checksum(slide: bytes, key: Sequence[int], data: bytes) -> int:
    """CRC-32 of a tile under its key, so that a tile that turns up under another key is noticed as well."""
    return crc32(data, crc32(slide + struct.pack("<5q", *key)))
