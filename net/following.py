"""Following a slide that grows on a server: a thread that listens, and news that wait until somebody takes them in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rawmosaic.net.connection import LAST_PAUSE_S, Connection
from rawmosaic.net.facts import slide_facts
from rawmosaic.net.protocol import OK, Reply, array_from
from rawmosaic.storage.errors import ProtocolError, SlideError
from rawmosaic.storage.slide import FIELD_DTYPE


@dataclass(frozen=True)
class Grown:
    """Planes that came, (m, 4) int32 field, channel, z, t; rows of the field table and `stage` positions from a field on."""

    planes: np.ndarray
    first_field: int
    fields: np.ndarray
    positions_um: np.ndarray
    identity: str
    growing: bool


@dataclass(frozen=True)
class Opened:
    """The slide as a whole, where single news would not do: arguments of `Slide.__init__`, and the tables of acquired planes."""

    facts: dict
    acquired: dict[tuple[int, int], np.ndarray]
    identity: str
    growing: bool
    overview: bool


News = Grown | Opened


class Follower:
    """Listens to a slide until it is finished or `close` is called. `take` gives what it heard; any thread.

    Parameters
    ----------
    connection
        One of its own; closed by it.
    identity
        Of the slide as its owner knows it: where the server tells of another, something was missed.
    open_slide
        Asks for the slide as a whole; called in this thread. Raises SlideError.
    on_lost
        Told why, when the server no longer has the slide, and None when it has it again; following goes on meanwhile.
    has_only_stage
        Whether news say all that there is to know of a field; else the slide is asked for as a whole when fields come.
    """

    def __init__(
        self,
        connection: Connection,
        slide: str,
        identity: str,
        open_slide: Callable[[], Opened],
        on_lost: Callable[[SlideError | None], None] = lambda _: None,
        *,
        has_only_stage: bool = True,
    ):
        self._has_only_stage = has_only_stage
        self._connection, self._slide, self._identity = connection, slide, identity
        self._open_slide, self._on_lost = open_slide, on_lost
        self._lock = threading.Lock()
        self._news: list[News] = []
        self._ended, self._missed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="remote-slide-follower", daemon=True)
        self._thread.start()

    def take(self) -> list[News]:
        """What came since, oldest first."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def look_again(self) -> None:
        """Something that was taken made no sense: the slide is asked for as a whole."""
        self._missed.set()

    def close(self) -> None:
        """Stop listening; closing twice is harmless."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    if self._follow():
                        return
                except ProtocolError as error:  # what it was to tell is learned when it is asked again
                    if self._missed.is_set():  # it was
                        self._on_lost(error)
                    self.look_again()
                    self._ended.wait(LAST_PAUSE_S)
                except SlideError as error:  # the server does not know the slide now
                    if not self._ended.is_set():
                        self._on_lost(error)
                        self._ended.wait(LAST_PAUSE_S)
        finally:
            self._connection.close()

    def _follow(self) -> bool:
        """Listen until the slide is finished; whether it is."""
        if self._missed.is_set():
            self._look_again()
            self._on_lost(None)
        finished = False
        for first, reply in self._connection.follow("watch", self._slide, ended=self._is_to_leave):
            if reply.status == OK:
                finished = True
            elif reply.body.get("event") == "grown":
                news = _grown(reply)
                if first or (len(news.fields) and not self._has_only_stage):  # first: who knows what came before
                    self._look_again()
                else:
                    self._hear(news)
            elif reply.body.get("event") == "alive" and _identity(reply) != self._identity:
                self._look_again()
            if first:
                self._on_lost(None)
        if finished:
            growing = self._look_again().growing  # its last identity, and what can only be known now, such as an overview
            if growing:
                time.sleep(LAST_PAUSE_S)
            return not growing
        return False

    def _is_to_leave(self) -> bool:
        return self._ended.is_set() or self._missed.is_set()

    def _hear(self, news: News) -> None:
        with self._lock:
            self._news.append(news)
        self._identity = news.identity

    def _look_again(self) -> Opened:
        self._missed.clear()  # before: what is found missing from now on is asked for once more
        try:
            opened = self._open_slide()
        except SlideError:
            self._missed.set()
            raise
        self._hear(opened)
        return opened


def opened(reply: Reply, acquired: dict[tuple[int, int], np.ndarray]) -> Opened:
    """The reply to `open`, with tables that were asked for after it. Raises ProtocolError."""
    body = reply.body
    growing, overview = body.get("growing", False), body.get("overview", False)
    if not isinstance(growing, bool) or not isinstance(overview, bool):
        raise ProtocolError("`growing` and `overview` are true or false")
    return Opened(slide_facts(body, reply.buffers), acquired, _identity(reply), growing, overview)


def _grown(reply: Reply) -> Grown:
    body, buffers = reply.body, reply.buffers
    planes = array_from(body.get("planes"), buffers, "<i4", (None, 4))
    fields = array_from(body.get("fields"), buffers, FIELD_DTYPE, (None,))
    positions = array_from(body.get("positions_um"), buffers, np.float64, (len(fields), 2))
    first, growing = body.get("first_field"), body.get("growing")
    if isinstance(first, bool) or not isinstance(first, int) or first < 0 or not isinstance(growing, bool):
        raise ProtocolError("news of a growing slide have `first_field` and `growing`")
    if not np.isfinite(positions).all():
        raise ProtocolError("a table holds what is no number")
    return Grown(planes, first, fields, positions, _identity(reply), growing)


def _identity(reply: Reply) -> str:
    identity = reply.body.get("identity")
    if not isinstance(identity, str) or not identity:
        raise ProtocolError("the server does not say the slide's identity")
    return identity
