"""The broker: one address in front of many dealers, which come and go while viewers go on.

Two ROUTER sockets, one thread. `routing` decides; here messages are taken in and sent, buffers as they are, and whoever does not
take what was sent keeps only itself waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import zmq

from rawmosaic.net.addresses import is_local
from rawmosaic.net.introduction import program
from rawmosaic.net.keys import DEALERS, Gate, ServerCurve
from rawmosaic.net.protocol import MAX_FRAMES, MAX_MESSAGE_NBYTES, MAX_REQUEST_FRAMES, MAX_REQUEST_NBYTES, MAX_REQUESTS
from rawmosaic.net.routing import Action, Frames, Routing, ToClient
from rawmosaic.storage.errors import ProtocolError, UnreachableError

FRONT, BACK = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"

TICK_S = 0.1
SWEEP_S = 10.0
PROBE_S = 0.02
"""After a connection to a dealer broke, ZeroMQ needs a moment until sending to it fails."""

FIRST_RETRY_S, LAST_RETRY_S = 0.002, 0.05
"""How often a client that was full is tried again."""

AT_ONCE = 64
"""Messages taken from one socket before the other has its turn."""

CLIENT_QUEUE = 16
"""Replies to a client that ZeroMQ holds; more wait here, where they are counted."""

DEALER_QUEUE = 4096
MOST_WAITING_NBYTES = 64 << 20
MOST_WAITING_NBYTES_IN_ALL = 512 << 20
"""Replies that wait for a client, and for all: beyond, the answer is `busy`."""

KEEPALIVE_S = 15
COMPLAINTS_PER_MINUTE = 20

log = logging.getLogger("rawmosaic.net.broker")


class Broker:
    """Hands the requests of viewers at `front` to dealers at `back`; a context manager.

    Parameters
    ----------
    front, back
        Addresses to bind; a port may be `*`. `front_address` and `back_address` say what was really bound.
    curve
        Key pair of this server and the list of clients that may come to the front.
    back_curve
        The same for the back and the dealers that may come to it. Where there is a `curve` and others than this machine can reach
        the back, it is `for_dealers(curve)` if left out.

    Raises UnreachableError where an address cannot be bound.
    """

    def __init__(
        self,
        front: str = FRONT,
        back: str = BACK,
        *,
        curve: ServerCurve | None = None,
        back_curve: ServerCurve | None = None,
    ):
        if back_curve is None and curve is not None and not is_local(back):
            back_curve = for_dealers(curve)
        self._ends: list[_End] = []
        try:
            self._ends.append(_End(front, curve, CLIENT_QUEUE, MAX_REQUEST_NBYTES))
            self._ends.append(_End(back, back_curve, DEALER_QUEUE, MAX_MESSAGE_NBYTES))
        except BaseException:
            self._close_ends()
            raise
        self._front, self._back = (end.socket for end in self._ends)
        self.front_address, self.back_address = (end.address for end in self._ends)
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Return after the time-out, or as soon as the broker has ended; whether it has."""
        return self._ended.wait(timeout_s)

    def close(self) -> None:
        """End the broker; clients ask again elsewhere or later. Closing twice is harmless."""
        self._ending.set()
        self._thread.join()
        self._close_ends()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _close_ends(self) -> None:
        for end in self._ends:
            end.close()

    # the broker's own thread

    def _run(self) -> None:
        self._broken = self._back.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            self._outbox = _Outbox(self._front)
            now = time.monotonic()
            self._routing = Routing(now, program(), self._outbox.backlog)
            self._next_tick, self._next_sweep, self._probe_at = now, now + SWEEP_S, float("inf")
            self._complaints = _Complaints()
            log.info("clients come to %s, dealers to %s", self.front_address, self.back_address)
            poller = zmq.Poller()
            for socket in (self._front, self._back, self._broken):
                poller.register(socket, zmq.POLLIN)
            while not self._ending.is_set():
                self._turn(dict(poller.poll(self._pause_ms())))
        except Exception:
            log.exception("the broker ends")
        finally:
            self._back.disable_monitor()
            self._broken.close()
            self._ended.set()

    def _turn(self, events: dict[zmq.Socket, int]) -> None:
        """Take in what came, and do what is due."""
        now = time.monotonic()
        routing = self._routing
        if self._front in events:
            self._take(self._front, MAX_REQUEST_FRAMES, self._asked, now)
        if self._back in events:
            self._take(self._back, MAX_FRAMES + 1, routing.from_dealer, now)
        if self._broken in events:
            for _ in _messages(self._broken, 8):
                self._probe_at = min(self._probe_at, now + PROBE_S)
        if now >= self._probe_at:
            self._probe_at = float("inf")
            self._act(routing.probes(), now)
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            self._act(routing.tick(now), now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self._act(routing.forget_stale(now), now)
        if self._outbox.due(now):
            for client in self._outbox.flush(now):
                self._act(routing.client_gone(client), now)

    def _asked(self, client: bytes, frames: Frames, now: float) -> list[Action]:
        # A small message of ZeroMQ's holds on to the whole buffer that it was received in; what is kept is copied out of it.
        return self._routing.from_client(client, [frame.bytes for frame in frames], now, _peer(frames))

    def _pause_ms(self) -> int:
        until = min(self._next_tick, self._probe_at, self._outbox.next_try)
        return max(0, int(1e3 * (until - time.monotonic())) + 1)

    def _take(
        self, socket: zmq.Socket, most_frames: int, take: Callable[[bytes, Frames, float], list[Action]], now: float
    ) -> None:
        """Take in messages, each whatever the one before it did."""
        for sender, frames in _messages(socket, most_frames):
            try:
                self._act(take(sender, frames, now), now)
            except ProtocolError as error:
                self._complaints.say(now, f"a message of {sender.hex()} is dropped: {error}")
            except Exception:
                log.exception("a message of %s is dropped", sender.hex())

    def _act(self, actions: Iterable[Action], now: float) -> None:
        """Send; who cannot be reached is told to the routing, which may have more to send."""
        todo = deque(actions)
        while todo:
            action = todo.popleft()
            if isinstance(action, ToClient):
                outcome = self._outbox.send(action.client, action.frames, now)
                if outcome == GONE:
                    todo.extend(self._routing.client_gone(action.client))
                elif outcome == FULL:
                    todo.extend(self._routing.give_up(action.client, action.id))
                continue
            outcome = _sent(self._back, (action.dealer, action.client, *action.frames))
            if outcome == GONE:
                todo.extend(self._routing.dealer_gone(action.dealer, now))
            elif outcome == FULL and action.id is not None:
                todo.extend(self._routing.give_up(action.client, action.id))


class _End:
    """A bound ROUTER socket, in a context of its own because each context has one gate."""

    def __init__(self, address: str, curve: ServerCurve | None, queue: int, most_nbytes: int):
        self._context = zmq.Context()
        self._gate: Gate | None = None
        self.socket = self._context.socket(zmq.ROUTER)
        try:
            self.socket.linger = 0
            self.socket.router_mandatory = True
            self.socket.ipv6 = "[" in address
            self.socket.rcvhwm, self.socket.sndhwm, self.socket.maxmsgsize = 2 * MAX_REQUESTS, queue, most_nbytes
            self.socket.tcp_keepalive, self.socket.tcp_keepalive_idle = 1, KEEPALIVE_S
            if curve is not None:
                self._gate = curve.gate(self._context)
                curve.apply(self.socket)
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise UnreachableError(f"the address cannot be bound: {error}; is another server there?", location=address) from error
        except BaseException:
            self.close()
            raise
        self.address = self.socket.last_endpoint.rstrip(b"\0").decode()

    def close(self) -> None:
        """Closing twice is harmless."""
        self.socket.close()
        if self._gate is not None:
            self._gate.close()
        self._context.term()


SENT, FULL, GONE = "sent", "full", "gone"


def _sent(socket: zmq.Socket, frames: Frames) -> str:
    """Send without waiting, buffers as they are; what became of it."""
    try:
        socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return FULL
    except zmq.ZMQError as error:
        if error.errno != zmq.EHOSTUNREACH:
            raise
        return GONE
    return SENT


class _Outbox:
    """Replies that clients have not taken yet, in order for each, bounded in bytes."""

    def __init__(self, socket: zmq.Socket):
        self._socket = socket
        self._waiting: dict[bytes, deque[Frames]] = {}
        self._nbytes: dict[bytes, int] = {}
        self._pause_s = FIRST_RETRY_S
        self.next_try = float("inf")

    def backlog(self, client: bytes) -> int:
        """Replies that wait for a client."""
        return len(self._waiting.get(client, ()))

    def send(self, client: bytes, frames: Frames, now: float) -> str:
        """SENT, now or later; GONE; or FULL, and the reply is dropped."""
        queue = self._waiting.get(client)
        if queue is None:
            outcome = _sent(self._socket, (client, *frames))
            if outcome != FULL:
                return outcome
            queue = self._waiting[client] = deque()
            self._nbytes[client] = 0
            self._pause_s = FIRST_RETRY_S
            self.next_try = min(self.next_try, now + self._pause_s)
        nbytes = sum(map(len, frames))
        if len(queue) >= 2 * MAX_REQUESTS:
            return SENT  # it asks and asks and takes nothing: it hears no more
        small = nbytes <= 1024  # an error always has room
        if not small and (
            self._nbytes[client] + nbytes > MOST_WAITING_NBYTES
            or sum(self._nbytes.values()) + nbytes > MOST_WAITING_NBYTES_IN_ALL
        ):
            return FULL
        queue.append(frames)
        self._nbytes[client] += nbytes
        return SENT

    def due(self, now: float) -> bool:
        """Whether `flush` is worth calling."""
        return now >= self.next_try

    def flush(self, now: float) -> list[bytes]:
        """Try again; returns the clients that are gone."""
        gone, moved = [], False
        for client, queue in list(self._waiting.items()):
            outcome = SENT
            while queue and (outcome := _sent(self._socket, (client, *queue[0]))) == SENT:
                self._nbytes[client] -= sum(map(len, queue.popleft()))
                moved = True
            if outcome == GONE:
                gone.append(client)
            if outcome == GONE or not queue:
                del self._waiting[client], self._nbytes[client]
        self._pause_s = FIRST_RETRY_S if moved else min(2 * self._pause_s, LAST_RETRY_S)
        self.next_try = now + self._pause_s if self._waiting else float("inf")
        return gone


class _Complaints:
    """Says what was dropped, but never floods the log."""

    def __init__(self) -> None:
        self._minute, self._said, self._unsaid = 0, 0, 0

    def say(self, now: float, text: str) -> None:
        """Log a warning, or count it."""
        if self._minute != int(now / 60):
            if self._unsaid:
                log.warning("and %d further messages were dropped", self._unsaid)
            self._minute, self._said, self._unsaid = int(now / 60), 0, 0
        self._said += 1
        if self._said <= COMPLAINTS_PER_MINUTE:
            log.warning("%s", text)
        else:
            self._unsaid += 1


def _messages(socket: zmq.Socket, most_frames: int) -> Iterator[tuple[bytes, Frames]]:
    """(sender, frames) of the messages that are there, a bounded number of them; too long ones one frame too long."""
    for _ in range(AT_ONCE):
        try:
            frame = socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        except zmq.ZMQError as error:  # an interrupted call
            log.debug("receiving: %s", error)
            return
        sender, frames = frame.bytes, []
        while frame.more:
            frame = socket.recv(zmq.NOBLOCK, copy=False)
            if len(frames) <= most_frames:
                frames.append(frame)
        yield sender, frames


def _peer(frames: Sequence[zmq.Frame]) -> str | None:
    """The address of the machine that a message came from; None where there is none."""
    try:
        return frames[-1].get("Peer-Address")
    except (IndexError, zmq.ZMQError):
        return None


def for_dealers(curve: ServerCurve) -> ServerCurve:
    """The same server for dealers: their keys are in a list beside that of the clients, since who may look at slides may not
    therefore offer any."""
    return replace(curve, clients=curve.clients.with_name(DEALERS))
