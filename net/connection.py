"""Conversations with a server: a request, and its answer or the reason why there is none.

A `Connection` is used by one thread at a time; a `ConnectionPool` lends connections to threads. What breaks on the way is asked
for again, until patience ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import zmq

from rawmosaic.net.keys import ClientCurve
from rawmosaic.net.protocol import ERROR, OK, Buffer, Reply, error_from
from rawmosaic.net.wire import LINGER_MS, REPEATABLE, Line, Wire
from rawmosaic.storage.errors import NoLongerWantedError, SlideError

PATIENCE_S = 5.0
"""A request fails when nothing was heard of the server for so long."""

IMPATIENCE_S = 1.0
"""The same, when the server was given up already: enough to notice that it is back."""

FIRST_TRY_S = 2.0
"""A request without an answer is repeated on a fresh socket after this silence, then after twice as much, …"""

STUCK_S = 30.0
"""… and in any case, even while other requests are answered."""

LONGEST_S = 120.0
"""No request takes longer, whatever is heard meanwhile."""

SLOWEST_BYTES_S = 1 << 18
"""A message is seen only when it is complete: silence is allowed as much more as it takes at this speed."""

LOOK_S = 0.05
"""How often somebody who waits looks whether the answer is still wanted."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 0.8
"""Before a request is repeated that the server was too busy for."""

DUE_S = 3.0
"""Who follows something hears a word every two seconds; he waits for it when none came for so long."""

QUIET_S = 6.0
"""A request that goes on is sent again after this silence."""

CLOSING_S = 5.0


@dataclass
class _Patience:
    """How long one request waits, for what. All times are monotonic seconds; `heard_at` is of any message from the server."""

    timeout_s: float
    slack_s: float
    started: float
    try_s: float
    sent_at: float | None = None
    """When the try under way was sent; None where none is."""
    not_before: float = 0.0
    pause_s: float = FIRST_PAUSE_S

    def has_ended(self, now: float, heard_at: float) -> bool:
        """Whether to give up."""
        silence_s = now - max(self.started, heard_at)
        return silence_s > self.timeout_s + (self.slack_s if self.sent_at is not None else 0) or now - self.started > LONGEST_S

    def try_has_ended(self, now: float, heard_at: float) -> bool:
        """Whether what was sent is not going to be answered, and is better sent again."""
        if self.sent_at is None:
            return False
        return now - max(self.sent_at, heard_at) > self.try_s + self.slack_s or now - self.sent_at > STUCK_S + self.slack_s

    def may_send(self, now: float) -> bool:
        """Whether it is time to send."""
        return self.sent_at is None and now >= self.not_before

    def try_again(self) -> None:
        """After a try without an answer: the next may take longer."""
        self.sent_at, self.try_s = None, 2 * self.try_s

    def rest(self, now: float) -> None:
        """After an answer that there is too much to do: send again, but not at once."""
        self.sent_at, self.not_before, self.pause_s = None, now + self.pause_s, min(2 * self.pause_s, LAST_PAUSE_S)


class Connection:
    """A conversation with the server at ``tcp://host:port``; used by one thread at a time, closed by its owner.

    Nothing is connected before the first request. `context` and `line` are the pool's, where there is one. `program`: what is to
    run on the other side, for messages.
    """

    def __init__(
        self,
        address: str,
        curve: ClientCurve | None = None,
        *,
        context: zmq.Context | None = None,
        line: Line | None = None,
        program: str = "rawmosaic serve",
    ):
        self.address = address
        self._own_context = zmq.Context() if context is None else None
        self._line = line or Line()
        self._wire = Wire(address, curve, context or self._own_context, self._line, program=program)

    def request(
        self,
        op: str,
        slide: str = "",
        *,
        body: Mapping | None = None,
        buffers: Sequence[Buffer] = (),
        priority: int = 0,
        timeout_s: float = PATIENCE_S,
        wanted: Callable[[], bool] | None = None,
        answer_nbytes: int = 0,
    ) -> Reply:
        """Ask, and wait for the answer; asked again where the connection breaks or the server is too busy.

        `timeout_s` is how long the server may be silent; an answer of `answer_nbytes` may take as much longer as a slow network
        needs. `wanted` is asked every now and then: where it says no, the request is cancelled. Raises UnreachableError,
        AccessError, NoLongerWantedError, and what the server answers.
        """
        self._line.begin_asking()
        try:
            return self._answer_to(op, slide, body or {}, buffers, priority, timeout_s, wanted, answer_nbytes)
        finally:
            self._line.end_asking()

    def _answer_to(
        self,
        op: str,
        slide: str,
        body: Mapping,
        buffers: Sequence[Buffer],
        priority: int,
        timeout_s: float,
        wanted: Callable[[], bool] | None,
        answer_nbytes: int,
    ) -> Reply:
        wire, line, where = self._wire, self._line, self._wire.where(slide)
        if line.given_up:
            timeout_s = min(timeout_s, IMPATIENCE_S)
        patience = _Patience(timeout_s, answer_nbytes / SLOWEST_BYTES_S, time.monotonic(), FIRST_TRY_S)
        ours: list[int] = []  # every try: whichever is answered first
        breaks, refusal = wire.breaks, None
        while True:
            now = time.monotonic()
            if wanted is not None and not wanted():
                wire.cancel(ours)
                raise NoLongerWantedError("the answer is no longer wanted", location=where)
            if patience.has_ended(now, line.heard_at):
                wire.cancel(ours)
                raise refusal or wire.unreachable(slide, now - patience.started)
            if patience.try_has_ended(now, line.heard_at):
                wire.cancel(ours)
                wire.hang_up(LINGER_MS)
                patience.try_again()
            if patience.may_send(now) and (number := wire.send(op, slide, body, buffers, priority)) is not None:
                ours.append(number)
                patience.sent_at, breaks = now, wire.breaks
            for reply in wire.replies(LOOK_S, to_send=patience.may_send(now)):
                if reply.id not in ours:
                    continue
                if reply.status == OK:
                    return reply
                if reply.status == ERROR:
                    refusal = error_from(reply.body, where)
                    # a server that is busy, or has lost a dealer, is asked again; not for ever
                    if reply.body.get("error") not in REPEATABLE or now - patience.started > timeout_s:
                        raise refusal
                    ours.clear()
                    patience.rest(now)
            if breaks != wire.breaks:
                patience.sent_at, breaks = None, wire.breaks

    def follow(
        self, op: str, slide: str = "", *, quiet_s: float = QUIET_S, ended: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[bool, Reply]]:
        """The answers to a request that goes on, each with whether it is the first since the request was sent (again).

        It is sent again whenever the connection broke or nothing was heard for `quiet_s`. The last answer has the status `ok`;
        it ends without one when `ended` says so. Raises what the server answers, and AccessError; never gives up.
        """
        wire = self._wire
        number: int | None = None
        breaks, heard_at, first, not_before = wire.breaks, time.monotonic(), True, 0.0
        waits = False
        try:
            while not ended():
                now = time.monotonic()
                if not waits and now - heard_at > DUE_S:
                    waits = True
                    self._line.begin_asking()
                if number is not None and now - heard_at > quiet_s:
                    wire.hang_up()
                    number = None
                may_send = number is None and now >= not_before
                if may_send and (number := wire.send(op, slide, {})) is not None:
                    breaks, heard_at, first, may_send = wire.breaks, now, True, False
                for reply in wire.replies(LOOK_S, to_send=may_send):
                    if reply.id != number:
                        continue
                    heard_at = time.monotonic()
                    if waits:
                        waits = False
                        self._line.end_asking()
                    if reply.status == ERROR:
                        if reply.body.get("error") not in REPEATABLE:
                            raise error_from(reply.body, wire.where(slide))
                        number, not_before = None, heard_at + LAST_PAUSE_S
                        continue
                    yield first, reply
                    first = False
                    if reply.status == OK:
                        number = None
                        return
                if breaks != wire.breaks:
                    number, breaks = None, wire.breaks
        finally:
            if waits:
                self._line.end_asking()
            if number is not None and not self._line.closed:
                wire.cancel([number])

    def tell(self, op: str, slide: str = "", body: Mapping | None = None) -> bool:
        """Say something that has no answer; at once, and whether it could be sent. What came meanwhile is dropped."""
        self._wire.replies(0.0)
        return self._wire.send(op, slide, body or {}) is not None

    def prepare(self) -> None:
        """Begin to connect, without waiting for it."""
        self._wire.connect()

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self._wire.hang_up()
        if self._own_context is not None:
            self._line.closed = True
            self._own_context.term()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ConnectionPool:
    """Connections to one server for several threads: each request borrows one. Any thread.

    `size` is how many requests may be under way at once; further ones wait for their turn.
    """

    def __init__(self, address: str, curve: ClientCurve | None = None, size: int = 8):
        self.address, self._curve, self._size = address, curve, size
        self._context = zmq.Context()
        self._line = Line()
        self._changed = threading.Condition()
        self._idle: list[Connection] = []
        self._lent = 0

    def request(
        self,
        op: str,
        slide: str = "",
        *,
        wanted: Callable[[], bool] | None = None,
        timeout_s: float = PATIENCE_S,
        **options,
    ) -> Reply:
        """`Connection.request` on a connection that nobody else uses meanwhile."""
        with self._borrowed(wanted) as connection:
            return connection.request(op, slide, wanted=wanted, timeout_s=timeout_s, **options)

    @property
    def silent_s(self) -> float:
        """For how long somebody has been waiting without any word from the server."""
        return self._line.silent_s

    def connection(self) -> Connection:
        """A connection beside the pool's own, for one thread; whoever asks for it closes it, before the pool."""
        return Connection(self.address, self._curve, context=self._context, line=self._line)

    def prepare(self) -> None:
        """Begin to connect all that may be needed: with a far server, each takes a few times the way there and back."""
        with self._changed:
            while len(self._idle) + self._lent < self._size and not self._line.closed:
                connection = self.connection()
                connection.prepare()
                self._idle.insert(0, connection)

    def close(self) -> None:
        """End all requests and close all sockets; those who wait get a SlideError. Closing twice is harmless."""
        with self._changed:
            if self._line.closed:
                return
            self._line.closed = True
            self._changed.notify_all()
            everybody_left = self._changed.wait_for(lambda: not self._lent, CLOSING_S)
            for connection in self._idle:
                connection.close()
            self._idle.clear()
        if everybody_left:  # else it would wait for ever
            self._context.term()

    def __enter__(self) -> ConnectionPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _borrowed(self, wanted: Callable[[], bool] | None) -> Iterator[Connection]:
        connection = self._borrow(wanted)
        try:
            yield connection
        finally:
            with self._changed:
                self._lent -= 1
                self._idle.append(connection)  # the one used last is taken first
                self._changed.notify_all()

    def _borrow(self, wanted: Callable[[], bool] | None) -> Connection:
        with self._changed:
            while True:
                if self._line.closed:
                    raise SlideError("the connection is closed", location=self.address)
                if wanted is not None and not wanted():
                    raise NoLongerWantedError("the answer is no longer wanted", location=self.address)
                if self._idle or self._lent < self._size:
                    connection = self._idle.pop() if self._idle else self.connection()
                    self._lent += 1
                    return connection
                self._changed.wait(LOOK_S)
