"""One socket to a server, and what happens to its connection: the lower half of a conversation.

ZeroMQ reconnects by itself; what it does not do is tell that a request was lost on the way. So the events of the socket are
listened to: they say when the connection broke, and tell a server that refuses the key, or uses none, from one that is not there.
"""

from __future__ import annotations

import itertools
import socket as sockets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
from rawmosaic.storage.errors import AccessError, SlideError, UnreachableError

RECONNECT_MS, LAST_RECONNECT_MS = 100, 500
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 1000, 4000
LINGER_MS = 100
"""What is said last (that an answer is no longer wanted) may take so long to leave."""

REPEATABLE = ("busy", "lost")
"""Errors after which the same request may be answered later."""

GAP_S = 1.0
"""Who pans while nothing comes takes back what he asked for, and asks for something else."""

RETRY_S = 3.0
"""Who still wants what could not be had asks again sooner than this."""

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
    """What all connections to one server know together. Any thread."""

    def __init__(self):
        self.heard_at = float("-inf")
        """Monotonic seconds of the last message from the server."""
        self.given_up = False
        """Whether a request failed since because the server did not answer."""
        self.closed = False
        self._lock = threading.Lock()
        self._asking, self._asked_at, self._left_at = 0, 0.0, float("-inf")

    def heard(self) -> None:
        """A message came."""
        with self._lock:
            self.heard_at, self.given_up = time.monotonic(), False
            self._asked_at, self._left_at = self.heard_at, float("-inf")

    def begin_asking(self) -> None:
        """Somebody waits for an answer from now on. Who asks right after somebody who went away has waited as long as he."""
        with self._lock:
            now = time.monotonic()
            if not (self._asking or self.given_up or now - self._left_at < GAP_S):
                self._asked_at = now
            self._asking += 1

    def end_asking(self) -> None:
        """He has it, or waits no longer."""
        with self._lock:
            self._asking -= 1
            if not self._asking and (self.given_up or self.heard_at < self._asked_at):
                self._left_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """For how long somebody has been waiting without any word from the server; 0 where nobody waits, nor tries again."""
        with self._lock:
            now = time.monotonic()
            tries_again = self.given_up and now - self._left_at < RETRY_S
            return now - self._asked_at if self._asking or tries_again else 0.0


class Wire:
    """A DEALER socket that connects when it is first used, and says hello on each new connection. One thread at a time.

    `program`: what is to run on the other side, for messages. `patience_ms`: a connection that nothing came over for so long is
    broken; more than the longest message takes.

    Attributes
    ----------
    breaks
        How often the connection broke: what was under way before is lost.
    greeting
        What the other side said of itself on this connection; None until it did.
    """

    def __init__(
        self,
        address: str,
        curve: ClientCurve | None,
        context: zmq.Context,
        line: Line,
        *,
        program: str = "rawmosaic serve",
        patience_ms: int = HEARTBEAT_TIMEOUT_MS,
    ):
        self.address, self._curve, self._context, self._line = address, curve, context, line
        self._program, self._patience_ms = program, patience_ms
        self.breaks = 0
        self._ids = itertools.count()
        self._socket: zmq.Socket | None = None
        self._monitor: zmq.Socket | None = None
        self._greeted = False
        self.greeting: Mapping | None = None
        self._hello = -1
        self._state = _NOBODY
        self._refused: SlideError | None = None

    def connect(self) -> zmq.Socket:
        """Begin to connect, where it did not already; does not wait. Raises SlideError."""
        if self._line.closed:
            raise SlideError("the connection is closed", location=self.address)
        if self._socket is None:
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.immediate = 1  # nothing is queued for a server that is not there
            socket.reconnect_ivl, socket.reconnect_ivl_max = RECONNECT_MS, LAST_RECONNECT_MS
            socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT_MS, self._patience_ms
            socket.maxmsgsize = MAX_MESSAGE_NBYTES
            socket.ipv6 = "[" in self.address  # elsewhere a name with both kinds of addresses would be tried as IPv6 only
            try:
                if self._curve is not None:
                    self._curve.apply(socket)
                self._monitor = self._monitor_of(socket)
                self._socket = socket
                socket.connect(self.address)
            except zmq.ZMQError as error:
                self.hang_up()
                socket.close()
                raise UnreachableError(f"there can be no server at this address: {error}", location=self.address) from error
            self._greeted, self.greeting, self._state, self._refused = False, None, _NOBODY, None
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

    def hang_up(self, linger_ms: int = 0) -> None:
        """Close the socket; the next request gets a fresh one."""
        if self._socket is not None:
            with suppress(zmq.ZMQError):
                self._socket.monitor(None, 0)
            self._socket.close(linger_ms)
        if self._monitor is not None:
            self._monitor.close()
        self._socket = self._monitor = None

    def send(self, op: str, slide: str, body: Mapping, buffers: Sequence[Buffer] = (), priority: int = 0) -> int | None:
        """Send a request, after a greeting where the connection is new; its id, or None where nobody is connected."""
        socket = self.connect()
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

    def cancel(self, numbers: Sequence[int]) -> None:
        """Say that the answers to these requests are no longer wanted."""
        if numbers and self._socket is not None:
            with suppress(SlideError, zmq.ZMQError):
                self.send("cancel", "", {"ids": list(numbers)})

    def replies(self, timeout_s: float, to_send: bool = False, bell: sockets.socket | None = None) -> list[Reply]:
        """What came within the time, but the greeting's answer; early with the first, when something can be sent, or the `bell`
        has something to read."""
        socket = self.connect()
        wishes = zmq.POLLIN | (zmq.POLLOUT if to_send and self._state == _READY else 0)
        bells = [] if bell is None else [(bell.fileno(), zmq.POLLIN)]
        zmq.zmq_poll([(socket, wishes), (self._monitor, zmq.POLLIN), *bells], int(1000 * timeout_s))
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
            self.hang_up()  # ZeroMQ does not try again where it was refused
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
                self.breaks += 1
                self._greeted, self.greeting = False, None
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
        self.greeting = reply.body

    def unreachable(self, slide: str, waited_s: float) -> UnreachableError:
        """Give the server up: an error that says what is known of the connection."""
        self._line.given_up = True
        state = self._state.replace("rawmosaic serve", self._program)
        return UnreachableError(f"no answer for {waited_s:.1f} s: {state}", location=self.where(slide))

    @property
    def ready(self) -> bool:
        """Whether the other side is connected, as far as was seen."""
        return self._state == _READY

    def where(self, slide: str) -> str:
        """The location of a slide on the server."""
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
