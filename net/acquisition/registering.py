"""Telling a slide database of scans, in a thread of its own: one that is away or slow holds up no scan, and hears of it later.

What it was not told yet lies in a file as well, so that the next manager tells it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rawmosaic.net.acquisition.files import append_json
from rawmosaic.storage.errors import SlideError

MOST_WAITING = 10_000
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
"""A database that is away is tried again after so long; twice as long each time."""

CLOSING_S = 5.0
KINDS = ("acquiring", "complete", "failed")

log = logging.getLogger("rawmosaic.net.acquisition")


class Library(Protocol):
    """What of a slide database is used here. A SlideError or OSError means that it is to be told again."""

    def acquiring(self, name: str, uid: str, location: str, facts: Mapping) -> None:
        """A scan begins, or goes on."""

    def complete(self, uid: str, location: str) -> None:
        """It has become a slide."""

    def failed(self, uid: str, error: str) -> None:
        """It has not."""


@dataclass(frozen=True)
class _News:
    what: str
    values: Sequence[object]


class Registrar:
    """Passes on what happens to a library (None: to nobody), in order, each as often as it takes. Any thread.

    `outbox` is the file with what the library was not told yet; what an earlier manager left there comes first. News may be told
    twice, so that the library must take the last of a scan for true.
    """

    def __init__(self, library: Library | None, outbox: Path, first_rest_s: float = FIRST_REST_S):
        self._library, self._outbox, self._first_rest_s = library, outbox, first_rest_s
        self._news: deque[_News] = deque()
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._complaint = ""
        self._thread: threading.Thread | None = None
        if library is not None:
            self._news.extend(_left_in(outbox))
            self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)
            self._thread.start()

    def tell(self, what: str, *values: object) -> None:
        """Have a method of the library called with these values, which JSON knows, as soon as it can be; returns at once."""
        if self._thread is None:
            return
        news = _News(what, values)
        with self._changed:
            if len(self._news) >= MOST_WAITING:
                self._news.popleft()
                log.warning("%d news wait for the slide database; the oldest is dropped: look through the folder", MOST_WAITING)
            self._news.append(news)
            self._keep(news)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the library hear what is left, if that is quick; else the next one tells it. Closing twice is harmless."""
        if self._thread is None:
            return
        self._ending.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(CLOSING_S)

    # the thread

    def _run(self) -> None:
        rest_s = self._first_rest_s
        while (news := self._next()) is not None:
            if self._told(news):
                rest_s = self._first_rest_s
                self._forget(news)
            elif self._ending.wait(rest_s):
                return
            else:
                rest_s = min(2 * rest_s, LONGEST_REST_S)

    def _next(self) -> _News | None:
        """What is to be told now, as soon as there is something; None where it ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._ending.is_set())
            return self._news[0] if self._news else None

    def _told(self, news: _News) -> bool:
        """Whether the library took it, or never will."""
        try:
            getattr(self._library, news.what)(*news.values)
        except (SlideError, OSError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("the slide database was not told of a scan, and will be: %s", error)
            return False
        except Exception:  # whatever is wrong with it, the others are told
            log.exception("the slide database was not told of a scan: %s", news)
        else:
            self._complaint = ""
        return True

    # what is on the disk

    def _keep(self, news: _News) -> None:
        try:
            append_json(self._outbox, {"what": news.what, "values": list(news.values)})
        except OSError as error:  # it is told all the same, unless this ends before
            log.warning("what the slide database is to hear cannot be kept: %s", error)

    def _forget(self, news: _News) -> None:
        """It was told. The file goes when all was: what is told a second time does no harm."""
        with self._changed:
            if self._news and self._news[0] is news:
                self._news.popleft()
            if not self._news:
                with suppress(OSError):
                    os.unlink(self._outbox)


def _left_in(outbox: Path) -> Iterator[_News]:
    try:
        lines = outbox.read_bytes().splitlines()
    except OSError:
        return
    for line in lines[-MOST_WAITING:]:
        with suppress(ValueError, TypeError, KeyError, RecursionError):  # torn, or somebody wrote into it
            said = json.loads(line)
            if said["what"] in KINDS:
                yield _News(said["what"], tuple(said["values"]))
