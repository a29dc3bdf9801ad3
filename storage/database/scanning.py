"""A folder is compared with what the library knows of it: new, copied, moved, changed and missing slides.

What looks as it did (bytes, files, newest change) is not opened, so that a scan that finds nothing new costs a walk through the
folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rawmosaic.storage.database import store
from rawmosaic.storage.database.connecting import Database
from rawmosaic.storage.database.describing import Thumbnail, describe
from rawmosaic.storage.database.finding import find_slides
from rawmosaic.storage.database.footprint import SET, Footprint, footprint, kind_of, normal_location
from rawmosaic.storage.database.noting import UNCHANGED, Noted, note
from rawmosaic.storage.database.records import ACQUIRING, DAMAGED, MISSING, CopyRecord
from rawmosaic.storage.database.schema import copies
from rawmosaic.storage.errors import DamagedSlideError, NotASlideError, SlideError

Progress = Callable[[int, int], None]


@dataclass
class ScanReport:
    """What a scan found.

    noted      every place with news, in the order of the walk
    missing    (name, location) of copies that lay here and do not any more; those that moved are not among them
    problems   (location, why) of what could not be read
    unchanged  how many places look as they did
    """

    noted: list[Noted] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    unchanged: int = 0


def scan(
    database: Database, host: str, folder: str | os.PathLike, thumbnail: Thumbnail | None = None, progress: Progress | None = None
) -> ScanReport:
    """Bring the library up to date with a folder. Every slide is noted as it is found: whatever stops a scan, the rest stays.

    `progress(done, places)` is called from the calling thread and may raise to stop it. Raises NotASlideError for what is no
    folder, and the library's own errors.
    """
    root = normal_location(folder)
    if not os.path.isdir(root):
        raise NotASlideError("there is no such folder to scan; a single slide is for `rawmosaic library add`", location=folder)
    return _Scan(database, host, root, thumbnail, progress or (lambda *_: None)).run()


class _Scan:
    """One scan, and what it keeps in mind while it runs."""

    def __init__(self, database: Database, host: str, root: str, thumbnail: Thumbnail | None, progress: Progress):
        self._database, self._host, self._root = database, host, root
        self._thumbnail, self._progress = thumbnail, progress
        self._report = ScanReport()
        self._as_before: list[int] = []

    def run(self) -> ScanReport:
        with self._database.reading() as connection:
            known = {copy.location: copy for copy in store.copies_under(connection, self._host, self._root)}
        places = []
        for place in find_slides(self._root, trouble=self._trouble):
            places.append(normal_location(place) if os.path.islink(place) else place)
            self._progress(0, len(places))
        # what was taken in by name may lie where no walk looks: it is compared with the rest as long as it is there
        found = dict.fromkeys(places)
        lost = [copy for location, copy in known.items() if location not in found]
        there = [copy.location for copy in lost if _look(copy) is not None]
        places = [*found, *there]
        try:
            for done, place in enumerate(places, start=1):
                self._take(place, known.get(place))
                self._progress(done, len(places))
        finally:
            self._note_as_seen()
        self._note_missing([copy for copy in lost if copy.location not in set(there)])
        return self._report

    def _take(self, location: str, copy: CopyRecord | None) -> None:
        try:
            if copy is not None and self._is_as_before(copy):
                self._as_before.append(copy.id)
                return
            described = describe(location, copy.options if copy is not None else None, self._thumbnail)
        except NotASlideError:
            return  # HDF5 of another program
        except (SlideError, OSError) as error:
            self._trouble(location, error)
            if copy is not None and isinstance(error, DamagedSlideError):
                _mark(self._database, copy, DAMAGED, _reason(error))
            return
        noted = note(self._database, self._host, described)
        if noted.news == UNCHANGED:
            self._report.unchanged += 1
        else:
            self._report.noted.append(noted)

    def _is_as_before(self, copy: CopyRecord) -> bool:
        if copy.state in (ACQUIRING, MISSING) or copy.mtime_ns is None:
            return False
        look = _look(copy)
        return look is not None and (look.nbytes, look.mtime_ns, look.n_files) == (copy.nbytes, copy.mtime_ns, copy.n_files)

    def _trouble(self, location: str, error: Exception) -> None:
        self._report.problems.append((location, _reason(error, location)))

    def _note_as_seen(self) -> None:
        self._report.unchanged += len(self._as_before)
        if not self._as_before:
            return
        with self._database.writing() as connection:
            for some in store.portions(self._as_before):
                connection.execute(copies.update().where(copies.c.id.in_(some)).values(seen_at=store.utc_now()))

    def _note_missing(self, lost: Sequence[CopyRecord]) -> None:
        """Those that moved have another location by now."""
        with self._database.reading() as connection:
            rest = {(copy.id, copy.location) for copy in store.copies_under(connection, self._host, self._root)}
            lost = [copy for copy in lost if (copy.id, copy.location) in rest]
            names = {slide.id: slide.name for slide in store.full_records(connection, [copy.slide_id for copy in lost])}
        for copy in lost:
            if copy.state != MISSING:
                _mark(self._database, copy, MISSING, "")
        self._report.missing += [(names.get(copy.slide_id, ""), copy.location) for copy in lost]


def _look(copy: CopyRecord) -> Footprint | None:
    """What a copy's place looks like now; None where it is not to be seen."""
    try:
        kind = kind_of(copy.location, copy.kind == SET) if os.path.exists(copy.location) else copy.kind
        return footprint(copy.location, kind)
    except OSError:
        return None


def _mark(database: Database, copy: CopyRecord, state: str, error: str) -> None:
    """Give a copy another state, unless it has changed since it was looked at."""
    with database.writing() as connection:
        as_known = (copies.c.id == copy.id) & (copies.c.location == copy.location) & (copies.c.state == copy.state)
        connection.execute(copies.update().where(as_known).values(state=state, error=error))
        store.settle(connection, copy.slide_id)


def _reason(error: Exception, location: str = "") -> str:
    """The error in one line, without the place that stands before it anyway."""
    if isinstance(error, OSError) and not isinstance(error, SlideError) and error.strerror:
        return error.strerror
    return " ".join(str(error).removeprefix(f"{location}: ").split())
