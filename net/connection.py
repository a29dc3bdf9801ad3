"""Conversations with a server: requests out, replies in, over sockets that find their server again.

A `Connection` is one socket, used by one thread at a time; a `ConnectionPool` lends connections to threads. ZeroMQ reconnects by
itself; what it does not do is tell that a request was lost on the way. So each connection listens to the events of its socket:
a request that was under way when the connection broke is sent again at once, and a server that refuses the key, or speaks no key
at all, is told from one that is not there.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote

import zmq
from zmq.utils.monitor import recv_monitor_message

from rawmosaic.net.keys import ClientCurve
from rawmosaic.net.protocol import (
    ERROR,
    MAX_MESSAGE_NBYTES,
    OK,
    VERSION,
    Buffer,
    Reply,
    Request,
    VersionError,
    error_from,
    reply_from,
    request_frames,
)
from rawmosaic.storage.errors import AccessError, NoLongerWantedError, SlideError, UnreachableError

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

QUIET_S = 6.0
"""A request that goes on is sent again after this silence."""

RECONNECT_MS, LAST_RECONNECT_MS = 100, 500
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 1000, 4000
LINGER_MS = 100
"""What is said last (that an answer is no longer wanted) may take so long to leave."""

CLOSING_S = 5.0
REPEATABLE = ("busy", "lost")

_MONITORS = itertools.count()
_MECHANISM_MISMATCH = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Line:
    """What all connections to one server know together. Plain values, set and read by any thread."""

    def __init__(self):
        self.heard_at = float("-inf")
        """Monotonic seconds of the last message from the server."""
        self.given_up = False
        """Whether a request failed since because the server did not answer."""
        self.closed = False

    def heard(self) -> None:
        """A message came."""
        self.heard_at, self.given_up = time.monotonic(), False


class Connection:
    """One DEALER socket to the server at ``tcp://host:port``; used by one thread at a time, closed by its owner.

    Nothing is connected before the first request. `context` and `line` are the pool's, where there is one.
    """

    def __init__(
        self,
        address: str,
        curve: ClientCurve | None = None,
        *,
        context: zmq.Context | None = None,
        line: Line | None = None,
    ):
        self.address, self._curve = address, curve
        self._own_context = zmq.Context() if context is None else None
        self._context = context or self._own_context
        self._line = line or Line()
        self._ids = itertools.count()
        self._socket: zmq.Socket | None = None
        self._monitor: zmq.Socket | None = None
        self._greeted = False
        self._hello = -1
        self._breaks = 0
        self._state = _NOBODY
        self._refused: SlideError | None = None

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
        body = body or {}
        if self._line.given_up:
            timeout_s = min(timeout_s, IMPATIENCE_S)
        slack_s = answer_nbytes / SLOWEST_BYTES_S
        started, try_s, pause_s, pause_until = time.monotonic(), FIRST_TRY_S, FIRST_PAUSE_S, 0.0
        ours: list[int] = []  # every try of this request: whichever is answered first
        sent_at: float | None = None
        breaks, refusal = self._breaks, None
        while True:
            now = time.monotonic()
            if wanted is not None and not wanted():
                self._cancel(ours)
                raise NoLongerWantedError("the answer is no longer wanted", location=self._where(slide))
            silent_s = now - max(started, self._line.heard_at)
            if silent_s > timeout_s + (slack_s if sent_at is not None else 0) or now - started > LONGEST_S:
                self._cancel(ours)
                raise refusal or self._unreachable(slide, now - started)
            if sent_at is not None:
                silent_s = now - max(sent_at, self._line.heard_at)
                if silent_s > try_s + slack_s or now - sent_at > STUCK_S + slack_s:
                    self._cancel(ours)
                    self._hang_up(LINGER_MS)
                    sent_at, try_s = None, 2 * try_s
            if sent_at is None and now >= pause_until:
                number = self._send(op, slide, body, buffers, priority)
                if number is not None:
                    ours.append(number)
                    sent_at, breaks = now, self._breaks
            for reply in self._replies(LOOK_S, to_send=sent_at is None and now >= pause_until):
                if reply.id not in ours:
                    continue
                if reply.status == OK:
                    return reply
                if reply.status == ERROR:
                    refusal = error_from(reply.body, self._where(slide))
                    if reply.body.get("error") not in REPEATABLE:
                        raise refusal
                    if now - started > timeout_s:  # it answers, but not with what is asked for
                        raise refusal
                    ours.clear()
                    sent_at, pause_until, pause_s = None, now + pause_s, min(2 * pause_s, LAST_PAUSE_S)
            if breaks != self._breaks:
                sent_at, breaks = None, self._breaks

    def follow(
        self, op: str, slide: str = "", *, quiet_s: float = QUIET_S, ended: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[bool, Reply]]:
        """The answers to a request that goes on, each with whether it is the first since the request was sent (again).

        It is sent again whenever the connection broke or nothing was heard for `quiet_s`. The last answer has the status `ok`;
        it ends without one when `ended` says so. Raises what the server answers, and AccessError; never gives up.
        """
        number: int | None = None
        breaks, heard_at, first, pause_until = self._breaks, time.monotonic(), True, 0.0
        try:
            while not ended():
                now = time.monotonic()
                if number is not None and now - heard_at > quiet_s:
                    self._hang_up()
                    number = None
                if number is None and now >= pause_until:
                    number = self._send(op, slide, {}, (), 0)
                    breaks, heard_at, first = self._breaks, now, True
                for reply in self._replies(LOOK_S, to_send=number is None and now >= pause_until):
                    if reply.id != number:
                        continue
                    heard_at = time.monotonic()
                    if reply.status == ERROR:
                        if reply.body.get("error") not in REPEATABLE:
                            raise error_from(reply.body, self._where(slide))
                        number, pause_until = None, heard_at + LAST_PAUSE_S
                        continue
                    yield first, reply
                    first = False
                    if reply.status == OK:
                        number = None
                        return
                if breaks != self._breaks:
                    number, breaks = None, self._breaks
        finally:
            if number is not None and not self._line.closed:
                self._cancel([number])

    def tell(self, op: str, slide: str = "", body: Mapping | None = None) -> bool:
        """Say something that has no answer; at once, and whether it could be sent. What came meanwhile is dropped."""
        self._replies(0.0)
        return self._send(op, slide, body or {}, (), 0) is not None

    def prepare(self) -> None:
        """Begin to connect, without waiting for it."""
        self._connect()

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self._hang_up()
        if self._own_context is not None:
            self._line.closed = True
            self._own_context.term()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # the socket

    def _connect(self) -> zmq.Socket:
        if self._line.closed:
            raise SlideError("the connection is closed", location=self.address)
        if self._socket is None:
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.immediate = 1  # nothing is queued for a server that is not there
            socket.reconnect_ivl, socket.reconnect_ivl_max = RECONNECT_MS, LAST_RECONNECT_MS
            socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS
            socket.maxmsgsize = MAX_MESSAGE_NBYTES
            socket.ipv6 = "[" in self.address  # elsewhere a name with both kinds of addresses would be tried as IPv6 only
            try:
                if self._curve is not None:
                    self._curve.apply(socket)
                self._monitor = self._monitor_of(socket)
                self._socket = socket
                socket.connect(self.address)
            except zmq.ZMQError as error:
                self._hang_up()
                socket.close()
                raise UnreachableError(f"there can be no server at this address: {error}", location=self.address) from error
            self._greeted, self._state, self._refused = False, _NOBODY, None
        return self._socket

    def _monitor_of(self, socket: zmq.Socket) -> zmq.Socket:
        """The socket that tells what happens to another.

        Its queue has no limit: ZeroMQ's own thread would wait for room in it when nobody looks for long.
        """
        name = f"inproc://monitor-{next(_MONITORS)}"
        monitor = self._context.socket(zmq.PAIR)
        monitor.linger, monitor.rcvhwm = 0, 0
        socket.monitor(name, _EVENTS)
        monitor.connect(name)
        return monitor

    def _hang_up(self, linger_ms: int = 0) -> None:
        """Close the socket; the next request gets a fresh one."""
        if self._socket is not None:
            with suppress(zmq.ZMQError):
                self._socket.monitor(None, 0)
            self._socket.close(linger_ms)
        if self._monitor is not None:
            self._monitor.close()
        self._socket = self._monitor = None

    def _send(self, op: str, slide: str, body: Mapping, buffers: Sequence[Buffer], priority: int) -> int | None:
        """Send a request, after a greeting where the connection is new; its id, or None where nobody is connected."""
        socket = self._connect()
        self._look()  # a break that happened before is not this request's
        # ZeroMQ tells of a break before it stops taking messages for what broke: it must have told of the next connection
        if self._state != _READY or not socket.get(zmq.EVENTS) & zmq.POLLOUT:
            return None
        try:
            if not self._greeted:
                hello = next(self._ids)
                socket.send_multipart(request_frames(Request(hello, "hello")), zmq.NOBLOCK)
                self._greeted, self._hello = True, hello
            number = next(self._ids)
            frames = request_frames(Request(number, op, slide, priority, body, tuple(buffers)))
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return None
        return number

    def _cancel(self, numbers: Sequence[int]) -> None:
        if numbers and self._socket is not None:
            with suppress(SlideError, zmq.ZMQError):
                self._send("cancel", "", {"ids": list(numbers)}, (), 0)

    def _replies(self, timeout_s: float, to_send: bool = False) -> list[Reply]:
        """What came within the time, but the greeting's answer; early with the first, or when something can be sent."""
        socket = self._connect()
        wishes = zmq.POLLIN | (zmq.POLLOUT if to_send and self._state == _READY else 0)
        zmq.zmq_poll([(socket, wishes), (self._monitor, zmq.POLLIN)], int(1000 * timeout_s))
        replies = []
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            reply = reply_from(frames)
            self._line.heard()
            if reply.id == self._hello:
                self._check_greeting(reply)
            else:
                replies.append(reply)
        self._look()
        if self._refused is not None and not replies:
            refused = self._refused
            self._hang_up()  # ZeroMQ does not try again where it was refused
            raise refused
        return replies

    def _look(self) -> None:
        """Take in what happened to the connection."""
        while self._monitor.get(zmq.EVENTS) & zmq.POLLIN:
            message = recv_monitor_message(self._monitor)
            event = message["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._state = _READY
            elif event == zmq.EVENT_CONNECTED:
                if self._state != _SUSPECT:
                    self._state = _STRANGER
            elif event == zmq.EVENT_DISCONNECTED:
                self._breaks += 1
                self._greeted = False
                if self._state != _SUSPECT:
                    self._state = _NOBODY
            elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._state = _SUSPECT if self._curve is not None else _STRANGER
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._refused = AccessError(_UNKNOWN_CLIENT, location=self.address)
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._refused = self._misfit(message["value"])

    def _misfit(self, value: int) -> SlideError:
        if value == _MECHANISM_MISMATCH:
            return AccessError(_NO_KEYS_THERE if self._curve is not None else _KEYS_NEEDED, location=self.address)
        return UnreachableError(_STRANGER, location=self.address)

    def _check_greeting(self, reply: Reply) -> None:
        self._hello = -1
        if reply.status == ERROR and reply.body.get("error") not in REPEATABLE:
            raise error_from(reply.body, self.address)
        if reply.status == OK and reply.body.get("protocol") != VERSION:
            raise VersionError(reply.body.get("protocol"))

    def _unreachable(self, slide: str, waited_s: float) -> UnreachableError:
        self._line.given_up = True
        return UnreachableError(f"no answer for {waited_s:.1f} s: {self._state}", location=self._where(slide))

    def _where(self, slide: str) -> str:
        return f"{self.address}/{quote(slide)}" if slide else self.address


_NOBODY = "nobody listens there; is `rawmosaic serve` running on that machine, are host and port right, is there a firewall?"
_STRANGER = "something listens there, but it does not speak as a server of slides does; are host and port right?"
_SUSPECT = "the server ends the connection before it begins; is its public key the one that this machine keeps for it?"
_READY = "the server is connected, but it does not answer; it may be overloaded, or hang"
_UNKNOWN_CLIENT = (
    "the server does not know this machine's key; show it with `rawmosaic keys list`, and have it let in there with "
    "`rawmosaic keys allow`"
)
_KEYS_NEEDED = (
    "the server lets in listed keys only, and this machine keeps no key of it; ask its operator for its public key "
    "(see `rawmosaic keys --help`)"
)
_NO_KEYS_THERE = (
    "this machine keeps a key of that server, but the server does not use keys now; if that is right, take it off the list with "
    "`rawmosaic keys forget`"
)


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
