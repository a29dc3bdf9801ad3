"""Telling a slide database of scans, in a thread of its own: a database that is away or slow never holds up a scan."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from queue import Full, Queue
from typing import Protocol

MOST_WAITING = 1000
CLOSING_S = 5.0

log = logging.getLogger("rawmosaic.net.acquisition")


class Library(Protocol):
    """What of a slide database is used here."""

    def acquiring(self, name: str, uid: str, location: str, facts: Mapping) -> None:
        """A scan begins."""

    def complete(self, uid: str, location: str) -> None:
        """It has become a slide."""

    def failed(self, uid: str, error: str) -> None:
        """It has not."""


class Registrar:
    """Passes on what happens to a library (None: to nobody), in order; what it does not take is logged, and found later by
    whoever looks through the folder. Any thread."""

    def __init__(self, library: Library | None):
        self._library = library
        self._calls: Queue[Callable[[], None] | None] = Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        if library is not None:
            self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)
            self._thread.start()

    def tell(self, what: str, *values: object) -> None:
        """Have a method of the library called some time."""
        if self._thread is None:
            return
        try:
            self._calls.put_nowait(lambda: getattr(self._library, what)(*values))
        except Full:
            log.warning("the slide database does not keep up; it is not told of a scan")

    def close(self) -> None:
        """Let it take what it was told, if that is quick."""
        if self._thread is not None:
            try:
                self._calls.put(None, timeout=CLOSING_S)
            except Full:
                return
            self._thread.join(CLOSING_S)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever a database raises, the scans go on
                log.warning("the slide database was not told of a scan: %s", error)
