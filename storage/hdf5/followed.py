"""A file that is being written, as this process has it open: once, whoever looks at it.

HDF5 opens a file once in a process, whatever it is asked, and lets go of it with the last one. So a writer that has to close
its file in order to finish it takes it away from the followers of its own process. And two handles of one dataset do not
bear that one of them is refreshed: HDF5 finds the wrong chunks afterwards. Followers in other processes need not care.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5.opened import OpenedFile

PATIENCE_S = 60.0
"""So long one waits for a writer of this very process to finish its file."""


class FollowedFile:
    """The handle that all followers of a file share; use it with the `lock` held. `opened` is None once its writer took it."""

    def __init__(self, path: str):
        self.lock = threading.Lock()
        self.opened: OpenedFile | None = None
        self.taken_by: int | None = None
        self.over = self.gave_way = False
        self._path = path
        self._users = 0

    def join(self) -> None:
        """One more who looks at the file, or is about to."""
        self._users += 1

    def leave(self) -> None:
        """One less; the last one closes the file. With the lock held, but by who never used it."""
        with _files_lock:
            self._users -= 1
            if self._users == 0:
                if self.opened is not None:
                    self.opened.close()
                    self.opened = None
                self.end()

    def let_go(self) -> None:
        """Close the file for all who follow it here: somebody wants to rename it."""
        with self.lock:
            if self.opened is not None:
                self.opened.close()
                self.opened = None
            self.gave_way = True
        self.outlived()

    def outlived(self) -> None:
        """Another file lies there by now: whoever opens it from now on opens that one."""
        with _files_lock:
            self.end()

    def end(self) -> None:
        """Whoever opens the file from now on opens another."""
        self.over = True
        if _files.get(self._path) is self:
            del _files[self._path]


_files: dict[str, FollowedFile] = {}
_files_lock = threading.Lock()


def open_file(path: str, group: str) -> tuple[OpenedFile, FollowedFile | None]:
    """The file, and what it is shared by if it is being written; raises SlideError."""
    while True:
        shared = _joined(path)
        if shared.taken_by == threading.get_ident():  # its writer looks at what it wrote
            shared.leave()
            return OpenedFile.open(path, group), None
        if not shared.lock.acquire(timeout=PATIENCE_S):
            shared.leave()
            raise SlideError(f"its writer has not finished it within {PATIENCE_S:g} s; try again", location=path)
        kept = False
        try:
            if shared.over:  # its writer had it
                continue
            if shared.opened is not None and group == "/":
                kept = True
                return shared.opened, shared
            opened = OpenedFile.open(path, group)
            if opened.following:
                shared.opened, kept = opened, True
            return opened, shared if kept else None
        finally:
            if not kept:
                shared.leave()
            shared.lock.release()


@contextlib.contextmanager
def taken_away(path: str | os.PathLike) -> Iterator[None]:
    """While this lasts nobody but this thread has the file open in this process; its followers wait, and find it closed then."""
    shared = _joined(path)
    with shared.lock:
        if shared.opened is not None:
            shared.opened.close()
            shared.opened = None
        shared.taken_by = threading.get_ident()
        try:
            yield
        finally:
            shared.taken_by = None
            with _files_lock:
                shared.end()
            shared.leave()


def _joined(path: str | os.PathLike) -> FollowedFile:
    place = os.path.realpath(path)
    with _files_lock:
        shared = _files.setdefault(place, FollowedFile(place))
        opened = shared.opened
        if opened is not None and os.path.exists(place) and opened.has_lost_its_name:
            shared.end()  # who follows the file that had the name before goes on with that one
            shared = _files[place] = FollowedFile(place)
        shared.join()
        return shared
