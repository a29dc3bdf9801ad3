"""The line from a scanner to the server: a thread that owns the sockets, and keeps what was handed in until it is acknowledged.

What is handed in goes to the scan's proxy in order; after a break all that was not acknowledged goes again. Where the proxy is,
the manager knows: it is asked at first, and whenever the proxy is lost.
"""

from __future__ import annotations

import logging
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import zmq

from rawmosaic.net.connection import Connection
from rawmosaic.net.keys import ClientCurve
from rawmosaic.net.protocol import ERROR, MORE, OK, Buffer, EndedError, Reply, error_from
from rawmosaic.net.wire import REPEATABLE, Line, Wire
from rawmosaic.storage.errors import SlideError, UnreachableError

PROGRAM = "rawmosaic acquire serve"

MOST_UNDER_WAY = 64
"""Planes sent and not yet answered; enough to share a sync of the disk, few enough for the proxy."""

LOOK_S = 0.1
PING_S = 2.0
"""A proxy that hears nothing for long takes the scanner for gone."""

SILENCE_S = 10.0
"""So long a proxy may leave what it was sent without any word, and what it takes to send it at SLOWEST_BYTES_S."""

SLOWEST_BYTES_S = 1 << 18
WIRE_PATIENCE_MS = 60_000

ASK_S = 2.0
"""How long the manager may take to answer where the proxy is."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 1.0
"""Before what failed is tried again."""

WATCH_S = 0.2
"""Between questions how far a slide is."""

HELD_S = 5.0
"""A scan is no longer held when nothing was said about it for so long."""

FINISHING, COMPLETE, DISCARDED = "finishing", "complete", "discarded"
ENDED = (FINISHING, COMPLETE, DISCARDED)
"""States of a scan that takes in no more planes."""

FINAL = (COMPLETE, DISCARDED)
"""States that no other comes after."""

PLANE, ABORT = "plane", "abort"
NOT_HERE = "not-a-slide"
"""What the proxy of another scan answers: it has the port that the scan's own had before."""

log = logging.getLogger("rawmosaic.net.acquisition")


@dataclass(eq=False)
class Letter:
    """Something for the proxy that is to be answered. `answer` or `error` is there once it is `done`."""

    op: str
    body: Mapping
    buffers: Sequence[Buffer] = ()
    nbytes: int = 0
    handed_in_at: float = field(default_factory=time.monotonic)
    answer: Mapping = field(default_factory=dict)
    error: SlideError | None = None
    done: bool = False


class ScanLine:
    """The line of one scan. All may be called by any thread; `changed` is notified whenever something comes.

    Attributes
    ----------
    unanswered_nbytes
        Of what was handed in and is not answered.
    acknowledged
        Planes that the proxy has taken in.
    held
        Why the proxy takes nothing in now; empty where it does.
    found
        What the manager said last of the scan.
    trouble, trouble_since
        Why nobody answers, and since when (monotonic seconds); None while somebody does.
    """

    def __init__(self, manager: Connection, uid: str, curve: ClientCurve | None, found: Mapping):
        self.uid, self.found = uid, dict(found)
        self.changed = threading.Condition()
        self.unanswered_nbytes = self.acknowledged = 0
        self.held = ""
        self.trouble: SlideError | None = None
        self.trouble_since = 0.0
        self.refusals: deque[SlideError] = deque(maxlen=100)
        self.watches = False
        """Whether the manager is asked again and again, to see how far the scan is."""
        self._manager, self._curve = manager, curve
        self._context = zmq.Context()
        self._waiting: deque[Letter] = deque()
        self._under_way: dict[int, Letter] = {}
        self._wire: Wire | None = None
        self._line = Line()
        self._pings: set[int] = set()
        self._sent_at = self._heard_at = self._held_at = 0.0
        self._begun_at = time.monotonic()
        self._breaks = 0
        self._asked_at = self._ask_at = 0.0
        self._ask_pause_s = FIRST_PAUSE_S
        self._send_at, self._send_pause_s = 0.0, FIRST_PAUSE_S
        self._gives_up = self._is_elsewhere = self._ending = False
        self._alarm, self._bell = sockets.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="scanner", daemon=True)
        self._thread.start()

    @property
    def unanswered(self) -> int:
        """How much was handed in and is not answered."""
        return len(self._waiting) + len(self._under_way)

    @property
    def over(self) -> bool:
        """Whether the scan takes in nothing more, by what the manager said."""
        return self.found.get("state") in ENDED

    def hand_in(self, letter: Letter) -> None:
        """Have something sent; returns at once."""
        with self.changed:
            self._waiting.append(letter)
            self.unanswered_nbytes += letter.nbytes
        self.wake()

    def give_up(self) -> None:
        """Forget planes that were not sent yet, and send none again."""
        with self.changed:
            self._gives_up = True
            self._drop_planes()
            self.changed.notify_all()

    def wake(self) -> None:
        """Have the thread look at once."""
        with suppress(OSError):  # full: it will wake; closed: it has ended
            self._alarm.send(b"!")

    def close(self) -> None:
        """End the thread and close its sockets, the manager's connection included; closing twice is harmless."""
        self._ending = True
        self.wake()
        self._thread.join()
        self._alarm.close()
        self._bell.close()

    # the thread

    def _run(self) -> None:
        try:
            while not self._ending:
                try:
                    self._turn()
                except SlideError as error:  # a key that is refused, an address that cannot be: it may be mended
                    self._hang_up()
                    self._note_trouble(error)
                    self._rest(LAST_PAUSE_S)
                except Exception as error:  # a fault of ours is told to whoever waits, who would wait for ever
                    log.exception("the scanner stumbles")
                    self._hang_up()
                    self._note_trouble(SlideError(f"the scanner cannot go on: {error}"))
                    self._rest(LAST_PAUSE_S)
        finally:
            self._hang_up()
            self._manager.close()
            self._context.destroy(linger=0)
            with self.changed:
                self.changed.notify_all()

    def _turn(self) -> None:
        """Ask, send and hear what is due, and wait a moment."""
        now = time.monotonic()
        self._find_if_due(now)
        if self.over:
            self._conclude()
        if self._wire is None:
            self._rest(LOOK_S)
            return
        self._send(now)
        to_send = self._may_send(now) and self._wire.greeting is not None
        replies = self._wire.replies(LOOK_S, to_send=to_send, bell=self._bell)
        self._is_elsewhere = (self._wire.greeting or {}).get("scan", self.uid) != self.uid
        for reply in replies:
            self._hear(reply)
        self._ring_off()
        now = time.monotonic()
        if self._is_elsewhere:
            self._leave_stranger(now)
            return
        if self._wire.breaks != self._breaks:
            self._breaks = self._wire.breaks
            self._send_again()
        slack_s = sum(letter.nbytes for letter in self._under_way.values()) / SLOWEST_BYTES_S
        if (self._under_way or self._pings) and now - max(self._sent_at, self._heard_at) > SILENCE_S + slack_s:
            self._note_trouble(self._unreachable())
            self._wire.hang_up()
            self._send_again()
        if self.held and now - self._held_at > HELD_S:
            with self.changed:
                self.held = ""
                self.changed.notify_all()

    # the manager

    def _find_if_due(self, now: float) -> None:
        lost = self._wire is None or not self._wire.ready
        if now < self._ask_at or self.found.get("state") in FINAL:
            return
        if not (self.watches or (self.over and self._waiting) or (lost and not self.over)):
            return
        asked_at = time.monotonic()
        try:
            reply = self._manager.request("find", body={"uid": self.uid}, timeout_s=ASK_S, wanted=lambda: not self._ending)
        except UnreachableError as error:
            self._note_trouble(error)
            self._ask_later()
            return
        address = str(reply.body.get("address") or "")
        if address:
            address = seen_from(self._manager.address, address)
        with self.changed:
            self.found, self._asked_at = dict(reply.body), asked_at
            if not address and not self.over and not self.watches:
                self._note(SlideError(f"the scan has no process that takes planes: {self.found.get('error') or 'it is started'}"))
            elif self.over or self.watches or not lost:
                self.trouble = None
            elif self._wire is not None and self._wire.address == address:
                self._note(self._unreachable())
            self.changed.notify_all()
        if address and (self._wire is None or self._wire.address != address):
            self._hang_up()
            self._wire = Wire(address, self._curve, self._context, self._line, program=PROGRAM, patience_ms=WIRE_PATIENCE_MS)
            self._breaks = self._wire.breaks
            self._wire.connect()
        self._ask_later()

    def _ask_later(self) -> None:
        self._ask_at = time.monotonic() + self._ask_pause_s
        self._ask_pause_s = min(2 * self._ask_pause_s, WATCH_S if self.watches and self.trouble is None else LAST_PAUSE_S)

    def _conclude(self) -> None:
        """The scan has ended: whoever told it to end is answered, whatever else was handed in comes too late.

        What was handed in after the manager was asked waits for what it says next, where that may be something else.
        """
        self._hang_up()
        asked_at = float("inf") if self.found.get("state") in FINAL else self._asked_at
        with self.changed:
            while self._waiting and self._waiting[0].handed_in_at <= asked_at:
                letter = self._waiting.popleft()
                letter.error = too_late(letter, self.found)
                self._settle(letter)
            self.changed.notify_all()

    # the proxy

    def _send(self, now: float) -> None:
        if self._wire.greeting is None:  # whose proxy it is, is asked before it gets planes: ports are used again
            self._ping(now)
            return
        while self._send_next(now):
            self._sent_at = time.monotonic()
        if not self._under_way and now - max(self._sent_at, self._heard_at) > PING_S:
            self._ping(now)

    def _may_send(self, now: float) -> bool:
        """Whether what waits is to go out now. To give up, one does not wait for what is held."""
        with self.changed:
            waits = bool(self._waiting) and now >= self._send_at
            return waits and (len(self._under_way) < MOST_UNDER_WAY or self._waiting[0].op == ABORT)

    def _send_next(self, now: float) -> bool:
        """Send a letter; whether there was one, and it went out. With the lock: who gives up takes letters away."""
        with self.changed:
            if not self._may_send(now):
                return False
            letter = self._waiting[0]
            number = self._wire.send(letter.op, "", letter.body, letter.buffers)
            if number is None:
                return False
            self._waiting.popleft()
            self._under_way[number] = letter
            return True

    def _ping(self, now: float) -> None:
        if not self._pings and (number := self._wire.send("ping", "", {"scan": self.uid})) is not None:
            self._pings.add(number)
            self._sent_at = now

    def _hear(self, reply: Reply) -> None:
        self._is_elsewhere |= reply.status == ERROR and reply.body.get("error") == NOT_HERE
        if self._is_elsewhere:
            return
        self._heard_at = time.monotonic()
        self._ask_pause_s = FIRST_PAUSE_S
        with self.changed:
            self.trouble = None
            if reply.status == MORE:
                if reply.body.get("event") == "held":
                    self.held, self._held_at = (
                        str(reply.body.get("reason") or "the server takes nothing in now")[:500],
                        self._heard_at,
                    )
            elif reply.id in self._pings:
                self._pings.discard(reply.id)
            elif (letter := self._under_way.pop(reply.id, None)) is not None:
                self._answered(letter, reply)
            self.changed.notify_all()

    def _leave_stranger(self, now: float) -> None:
        """Another scan's proxy has the port by now: nothing that went there counts, and the manager knows where it belongs."""
        self._note_trouble(SlideError("the process of another scan is where this one's was", location=self._wire.address))
        self._hang_up()
        self._ask_at = now + self._send_pause_s
        self._send_pause_s = min(2 * self._send_pause_s, LAST_PAUSE_S)

    def _answered(self, letter: Letter, reply: Reply) -> None:
        if reply.status == ERROR and reply.body.get("error") in REPEATABLE:
            self._waiting.appendleft(letter)
            if self._gives_up:
                self._drop_planes()
            self._send_at = time.monotonic() + self._send_pause_s
            self._send_pause_s = min(2 * self._send_pause_s, LAST_PAUSE_S)
            return
        self._send_pause_s = FIRST_PAUSE_S
        if reply.status == OK:
            letter.answer, self.held = dict(reply.body), ""
            self.acknowledged += letter.op == PLANE
        else:
            letter.error = error_from(reply.body, self._wire.address)
        self._settle(letter)

    def _settle(self, letter: Letter) -> None:
        """A letter is done with; with the lock held."""
        letter.done = True
        self.unanswered_nbytes -= letter.nbytes
        letter.buffers = ()
        if letter.error is not None and letter.op == PLANE:
            self.refusals.append(letter.error)

    def _drop_planes(self) -> None:
        """With the lock held."""
        letters = list(self._waiting)
        self._waiting.clear()
        for letter in letters:
            if letter.op == PLANE:
                self._settle(letter)
            else:
                self._waiting.append(letter)

    def _send_again(self) -> None:
        """What was under way is lost: it goes first, in the order in which it was handed in."""
        with self.changed:
            self._waiting.extendleft(letter for _, letter in sorted(self._under_way.items(), reverse=True))
            self._under_way.clear()
            if self._gives_up:
                self._drop_planes()
        self._pings.clear()
        self._ask_at, self._ask_pause_s = 0.0, FIRST_PAUSE_S

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.hang_up()
            self._wire = None
            self._send_again()

    # waiting

    def _unreachable(self) -> SlideError:
        return self._wire.unreachable("", time.monotonic() - max(self._heard_at, self._begun_at))

    def _note_trouble(self, error: SlideError) -> None:
        with self.changed:
            self._note(error)
            self.changed.notify_all()

    def _note(self, error: SlideError) -> None:
        if self.trouble is None:
            self.trouble_since = time.monotonic()
        self.trouble = error

    def _rest(self, pause_s: float) -> None:
        if not self._ending:
            zmq.zmq_poll([(self._bell.fileno(), zmq.POLLIN)], int(1000 * pause_s))
            self._ring_off()

    def _ring_off(self) -> None:
        with suppress(BlockingIOError):
            while self._bell.recv(256):
                pass


def too_late(letter: Letter, found: Mapping) -> SlideError | None:
    """What is wrong with something that was handed in for a scan that is over by now; None where all is as it was wanted."""
    discarded, location = found.get("state") == DISCARDED or found.get("discard") is True, found.get("location") or None
    if letter.op == ABORT and letter.body.get("discard"):
        if discarded:
            return None
        told = "the scan was ended before it could be discarded, and its slide stays; delete it there if it is not wanted"
        return EndedError(told, location=location)
    if discarded:
        told = "somebody had the scan discarded on the server: there is no slide, and what was acquired is gone; begin another"
        return EndedError(told, location=location)
    if letter.op != PLANE:
        return None
    told = "was ended on the server before this plane came (it was silent for too long, or somebody ended it); begin another"
    return EndedError(f"the scan {told}", location=location)


def seen_from(manager: str, address: str) -> str:
    """The address of a proxy as it is reached by who reaches the manager at `manager`: a server that is bound to all its
    interfaces does not know what others call it."""
    host, port = urlsplit(address).hostname, urlsplit(address).port
    if host not in (None, "0.0.0.0", "::", "*") or port is None:
        return address
    return manager.rpartition(":")[0] + f":{port}"


Wanted = Callable[[], bool]
