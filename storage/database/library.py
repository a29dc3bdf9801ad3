"""The library: one object for one database of slides, from any thread.

    with Library() as library:
        library.scan("/data/scans")
        for slide in library.search("DAPI acquired:2026-11"):
            print(slide.name, slide.copies[0].location)

Nothing is opened before it is needed. Three calls are for acquisition servers (`acquiring`, `complete`, `failed`). They may be
repeated, and what was told last of a scan is true; so a server tells again what a library that was away did not hear.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rawmosaic.storage.database import store
from rawmosaic.storage.database.address import library_address, this_machine
from rawmosaic.storage.database.connecting import Database
from rawmosaic.storage.database.describing import Thumbnail, describe
from rawmosaic.storage.database.facts import SlideFacts, plain
from rawmosaic.storage.database.footprint import FILE, footprint, kind_of, normal_location
from rawmosaic.storage.database.migrating import prepare
from rawmosaic.storage.database.noting import Noted, note
from rawmosaic.storage.database.records import (
    ACQUIRING,
    COMPLETE,
    DAMAGED,
    MISSING,
    STATES,
    VERIFIED,
    CopyRecord,
    SlideRecord,
)
from rawmosaic.storage.database.scanning import Progress, ScanReport, scan
from rawmosaic.storage.database.schema import copies, slides, tags, thumbnails
from rawmosaic.storage.database.searching import matching, parse_query
from rawmosaic.storage.database.verifying import Verdict, verify_copy
from rawmosaic.storage.errors import LibraryError, OutOfRangeError, SlideError
from rawmosaic.storage.opening import open_slide
from rawmosaic.storage.slide import Slide

SHORTEST_IDENTITY = 6
"""Characters that name a slide by the beginning of its identity."""

MOST_NAMED = 8
"""So many slides are listed in an error."""

logger = logging.getLogger("rawmosaic.library")


class Library:
    """Slides, and where they lie.

    Parameters
    ----------
    address
        A SQLite file, or ``postgresql://user@host/database``; else what RAWMOSAIC_LIBRARY says; else a file in the user's folder.
    create
        Whether a SQLite file that is not there is made. Without, the first call raises LibraryError.

    Every method raises SlideError (LibraryError, UnreachableError, WriteError …) where the database cannot be used.
    """

    def __init__(self, address: str | os.PathLike | None = None, create: bool = True):
        self._address = library_address(address)
        self._create = create
        self.host = this_machine(self._address)
        self._lock = threading.Lock()
        self._ready: Database | None = None

    @property
    def address(self) -> str:
        """Where the library lies, as it may be shown."""
        return self._database.address

    # filling

    def add(
        self, location: str | os.PathLike, options: Mapping[str, Any] | None = None, thumbnail: Thumbnail | None = None
    ) -> Noted:
        """Note the slide at a location (a path, or a server's address); `options` are those of raw acquisitions, and are kept."""
        self._database  # noqa: B018  a library that cannot be used is told before the slide is read
        return note(self._database, self.host, describe(os.fspath(location), options, thumbnail))

    def scan(self, folder: str | os.PathLike, thumbnail: Thumbnail | None = None, progress: Progress | None = None) -> ScanReport:
        """Bring the library up to date with all slides in a folder and below; see `scanning.scan`."""
        return scan(self._database, self.host, folder, thumbnail, progress)

    def verify(self, copy: CopyRecord, progress: Progress | None = None) -> Verdict:
        """Read a copy as a whole and note whether it is sound. Raises NotASlideError where it is not to be found, OSError."""
        look = footprint(copy.location, copy.kind)
        if store.footprint_values(look) != {"nbytes": copy.nbytes, "mtime_ns": copy.mtime_ns, "n_files": copy.n_files} and look:
            self.add(copy.location, copy.options)  # it changed since, on purpose: it is judged as what it is now
            copy = self._copy(copy)
        verdict = verify_copy(copy, progress)
        with self._database.writing() as connection:
            proven = {"state": VERIFIED, "error": "", "verified_at": store.utc_now(), "checksum": verdict.checksum}
            refuted = {"state": DAMAGED, "error": plain(verdict.problem), "verified_at": ""}
            store.put_copy(connection, copy.id, refuted if verdict.problem else proven)
            store.settle(connection, copy.slide_id)
        return verdict

    def forget(self, slide_id: int) -> None:
        """Take a slide out of the library; its files stay as they are."""
        with self._database.writing() as connection:
            store.delete_slide(connection, slide_id)

    def tag(self, slide_id: int, words: Sequence[str], remove: bool = False) -> None:
        """Give a slide tags, or take them away."""
        words = sorted({plain(word).strip() for word in words} - {""})
        with self._database.writing() as connection:
            self._check(connection, slide_id)
            for word in words:
                connection.execute(tags.delete().where(tags.c.slide_id == slide_id, tags.c.tag == word))
            if words and not remove:
                connection.execute(tags.insert(), [{"slide_id": slide_id, "tag": word} for word in words])
            store.index(connection, slide_id)

    def annotate(self, slide_id: int, note: str) -> None:
        """Replace what people wrote about a slide."""
        with self._database.writing() as connection:
            self._check(connection, slide_id)
            connection.execute(slides.update().where(slides.c.id == slide_id).values(note=plain(note)))
            store.index(connection, slide_id)

    # asking

    def count(self) -> int:
        """How many slides the library knows."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(slides)).scalar_one()

    def slides(self, state: str | None = None, limit: int | None = None, offset: int = 0) -> list[SlideRecord]:
        """Slides, the latest acquired first, with all that belongs to them. Raises OutOfRangeError for an unknown state."""
        if state is not None and state not in STATES:
            raise OutOfRangeError("state", state, "choose one of " + ", ".join(STATES))
        wanted = sa.select(slides.c.id).order_by(slides.c.acquired.desc(), slides.c.id.desc()).limit(limit).offset(offset)
        if state is not None:
            wanted = wanted.where(slides.c.state == state)
        with self._database.reading() as connection:
            return store.full_records(connection, list(connection.execute(wanted).scalars()))

    def search(self, text: str, limit: int | None = None, offset: int = 0) -> list[SlideRecord]:
        """Slides that a line of words and filters finds (see `searching`), the latest acquired first. Raises OutOfRangeError."""
        wanted = matching(parse_query(text)).limit(limit).offset(offset)
        with self._database.reading() as connection:
            return store.full_records(connection, list(connection.execute(wanted).scalars()))

    def count_found(self, text: str) -> int:
        """How many slides `search` finds without a limit."""
        wanted = matching(parse_query(text)).order_by(None).subquery()
        with self._database.reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(wanted)).scalar_one()

    def slide(self, slide_id: int) -> SlideRecord:
        """One slide with all that belongs to it."""
        with self._database.reading() as connection:
            self._check(connection, slide_id)
            return store.full_records(connection, [slide_id])[0]

    def thumbnail(self, slide_id: int) -> bytes | None:
        """A slide's PNG, if there is one."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(thumbnails.c.png).where(thumbnails.c.slide_id == slide_id)).scalar()

    def find(self, name: str) -> SlideRecord:
        """The one slide meant by its name, its acquisition's uid, a location of it, or the beginning of its identity.

        Raises LibraryError where there is none, and where there are several, with a list of them.
        """
        found = self.matching(name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise LibraryError(
                f"no slide is called {name!r}{self._similar(name)}; see `rawmosaic library search`", location=self.address
            )
        shown = "; ".join(f"{slide.short_identity} ({_where(slide, self.host)})" for slide in found[:MOST_NAMED])
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise LibraryError(
            f"{len(found)} slides are called {name!r}; use the beginning of one's identity instead: {shown}{more}",
            location=self.address,
        )

    def matching(self, name: str) -> list[SlideRecord]:
        """All slides that a name may mean: those called so, else those called so but for the case, else by identity."""
        name = plain(name)
        tries = [slides.c.name_key == name.casefold(), slides.c.uid == name]
        at = sa.select(copies.c.slide_id).where(copies.c.host.in_(["", self.host]), copies.c.location == normal_location(name))
        tries.append(slides.c.id.in_(at))
        if len(name) >= SHORTEST_IDENTITY and name.isalnum():
            begins = name.lower()
            tries.append((slides.c.identity >= begins) & (slides.c.identity < begins + "~"))
        with self._database.reading() as connection:
            for condition in tries:
                rows = connection.execute(sa.select(slides.c.id, slides.c.name).where(condition).order_by(slides.c.id)).all()
                exact = [row.id for row in rows if row.name == name]
                if rows:
                    return store.full_records(connection, exact or [row.id for row in rows])
        return []

    def open_slide(self, name: str, **options: Any) -> Slide:
        """Open the slide that a name means: its copies are tried in turn, those of this machine first.

        Raises LibraryError for a name that means none or several, SlideError that says what was tried where no copy can be read.
        """
        record = self.find(name)
        tried = []
        for copy in sorted(record.copies, key=self._preference):
            place = copy.place(self.host)
            try:
                return open_slide(copy.location, **{**copy.options, **options})
            except (SlideError, OSError) as error:
                tried.append(f"{place}: {' '.join(str(error).removeprefix(f'{copy.location}: ').split())}")
        reasons = "; ".join(tried) or "the library knows no copy of it"
        raise SlideError(f"no copy of the slide can be read: {reasons}", location=f"library:{name}")

    # acquisition servers

    def acquiring(
        self, name: str, uid: str, location: str | os.PathLike, facts: Mapping[str, Any] | SlideFacts | None = None
    ) -> None:
        """A scan began, or goes on, that will be the slide at `location`.

        `facts` are what is known of it: names and values as in `SlideFacts`; `channels` may be names.
        """
        location = normal_location(os.fspath(location))
        told = SlideFacts.told(name, uid, facts)
        with self._database.writing() as connection:
            slide_id = store.put_slide(connection, store.slide_with(connection, "uid", told.uid), told, None)
            store.put_error(connection, slide_id, "")
            self._put_copy(connection, slide_id, location, ACQUIRING)

    def complete(self, uid: str, location: str | os.PathLike) -> None:
        """The scan is a finished slide at `location`; one that cannot be read is noted all the same."""
        location = normal_location(os.fspath(location))
        with self._database.writing() as connection:
            slide_id = store.slide_with(connection, "uid", uid)
            if slide_id is None:
                slide_id = store.put_slide(connection, None, SlideFacts(name=Path(location).stem, uid=plain(uid)), None)
            store.put_error(connection, slide_id, "")
            self._put_copy(connection, slide_id, location, COMPLETE)
        try:
            described = describe(location)
        except (SlideError, OSError) as error:
            logger.warning("%s: is noted as complete, but cannot be read: %s", location, error)
            return
        note(self._database, self.host, replace(described, facts=replace(described.facts, uid=plain(uid))))

    def failed(self, uid: str, error: object) -> None:
        """The scan will not become a slide, as far as is known."""
        error = str(error)
        with self._database.writing() as connection:
            slide_id = store.slide_with(connection, "uid", uid)
            if slide_id is None:
                slide_id = store.put_slide(connection, None, SlideFacts(name=plain(uid), uid=plain(uid)), None)
            store.put_error(connection, slide_id, error or "no reason was given")
            running = (copies.c.slide_id == slide_id) & (copies.c.state == ACQUIRING)
            connection.execute(copies.update().where(running).values(state=DAMAGED, error=plain(error)))
            store.refresh(connection, slide_id)

    def close(self) -> None:
        """Give the database back; closing twice is harmless."""
        with self._lock:
            if self._ready is not None:
                self._ready.close()
            self._ready = None

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # inside

    @property
    def _database(self) -> Database:
        with self._lock:
            if self._ready is None:
                database = Database(self._address)
                try:
                    prepare(database, self._create)
                except BaseException:
                    database.close()
                    raise
                self._ready = database
            return self._ready

    def _check(self, connection: sa.Connection, slide_id: int) -> None:
        if connection.execute(sa.select(slides.c.id).where(slides.c.id == slide_id)).first() is None:
            raise LibraryError(f"slide number {slide_id} is not in the library any more", location=self.address)

    def _copy(self, copy: CopyRecord) -> CopyRecord:
        with self._database.reading() as connection:
            return store.copy_at(connection, copy.host, normal_location(copy.location)) or copy

    def _similar(self, name: str) -> str:
        begins = plain(name).casefold()[:3]
        wanted = (slides.c.name_key >= begins) & (slides.c.name_key < begins + "\U0010ffff")
        with self._database.reading() as connection:
            names = (
                connection.execute(sa.select(slides.c.name).where(wanted).order_by(slides.c.name_key).limit(3)).scalars().all()
            )
        return f" (there is {', '.join(names)})" if names and begins else ""

    def _preference(self, copy: CopyRecord) -> tuple:
        states = (VERIFIED, COMPLETE, ACQUIRING, DAMAGED, MISSING)
        return "://" in copy.location, copy.host not in ("", self.host), states.index(copy.state), copy.id

    def _put_copy(self, connection: sa.Connection, slide_id: int, location: str, state: str) -> None:
        """Note that a slide lies, or will lie, at a place; whatever lay there before does not any more.

        Without a footprint: the next scan opens it.
        """
        copy = store.copy_at(connection, self.host, location)
        kind = kind_of(location) if os.path.exists(location) else FILE
        values = {"slide_id": slide_id, "host": self.host, "location": location, "kind": kind, "state": state, "error": ""}
        values |= {**store.footprint_values(None), "checksum": "", "verified_at": ""}
        store.put_copy(connection, copy.id if copy is not None else None, values)
        for changed in {slide_id, copy.slide_id if copy is not None else slide_id}:
            store.refresh(connection, changed)


def _where(slide: SlideRecord, host: str) -> str:
    return slide.copies[0].place(host) if slide.copies else "no copy"
