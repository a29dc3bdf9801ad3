"""The tile dealer: serves slides to remote viewers, directly and through brokers, as docs/protocol.md says.

Threads: one for input and output, which owns every socket, understands requests and never reads a pixel; a few for each slide
(`desk`), which read; one for each slide that grows. A client that does not take its replies keeps only itself waiting: its
replies wait with it, and nothing more is read for it.
"""

from __future__ import annotations

import logging
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from os import cpu_count
from types import MappingProxyType

import zmq

from rawmosaic.net.desk import Desk, Job
from rawmosaic.net.encoded_tiles import EncodedTiles
from rawmosaic.net.growth import Growth, to_be_asked
from rawmosaic.net.introduction import program
from rawmosaic.net.keys import ServerCurve
from rawmosaic.net.links import Link, opened_links
from rawmosaic.net.protocol import (
    ERROR,
    MAX_HEADER_NBYTES,
    MAX_REQUESTS,
    MORE,
    OK,
    VERSION,
    Buffer,
    BusyError,
    Reply,
    Request,
    error_body,
    reply_frames,
    request_frames,
    request_from,
    slides_page,
)
from rawmosaic.net.read_ahead import hint_from
from rawmosaic.net.served_slide import Answer, ServedSlide
from rawmosaic.storage.errors import NotASlideError, ProtocolError, SlideError
from rawmosaic.storage.slide import Slide

LOOPBACK = "tcp://127.0.0.1:5555"
CACHE_BYTES = 256 << 20
"""Budget of compressed tiles in memory: what was read a moment ago, or ahead, goes out without any other thread."""

MOST_UNSENT = 8 * MAX_REQUESTS
"""Replies that wait for one connection, nearly all of them small. What it asks for beyond is not answered."""

MOST_DONE = 16
"""Replies that wait to be sent: while there are more, the threads that read pause for a moment."""

DRAINED_S = 0.05
CHANGE_LOOK_S = 0.1
MESSAGES_AT_ONCE = 64
READY_S = 0.5
ALIVE_S = 1.5
SWEEP_S = 5.0
IDLE_S = 60.0
"""A connection that is silent for so long, and waits for nothing, is forgotten."""

BROKER_STUCK_S = 5.0
BROKER_WATCH_S = 600.0
"""Behind a broker nobody tells when a viewer is gone: a watch is to be asked for again now and then."""

FIRST_RETRY_S, LAST_RETRY_S = 0.001, 0.05
LARGE_BLOCK_NBYTES = 24 << 20

NOTHING: Mapping = MappingProxyType({})

log = logging.getLogger("rawmosaic.net.dealer")


@dataclass(frozen=True)
class DealerStats:
    """What a dealer did so far, and what it has to do: `clients` known now, requests in the `queue` now."""

    requests: int = 0
    tiles: int = 0
    bytes: int = 0
    clients: int = 0
    queue: int = 0


@dataclass(eq=False)
class _Connection:
    """One client. `held`: its requests by id. `unsent`: (id, frames) of replies that it does not take yet."""

    link: Link
    address: bytes
    heard_at: float
    held: dict[int, Job | _Watch] = field(default_factory=dict)
    unsent: deque[tuple[int, list[Buffer]]] = field(default_factory=deque)
    retry_at: float = 0.0
    retry_s: float = FIRST_RETRY_S


@dataclass(eq=False)
class _Watch:
    """A `watch` request that is held."""

    connection: _Connection
    id: int
    slide: ServedSlide
    said_at: float
    since: float


@dataclass(eq=False)
class _Change:
    """A slide that is to be served under a name from now on (None: no slide), and, once `made`, what was served before."""

    name: str
    served: ServedSlide | None
    desk: Desk | None
    made: threading.Event = field(default_factory=threading.Event)
    former: ServedSlide | None = None
    former_desk: Desk | None = None


class TileDealer:
    """Serves slides by name until it is closed; a context manager. The slides stay the caller's, who closes them afterwards.
    They may come and go meanwhile: `add`, `remove`.

    Parameters
    ----------
    slides
        Name → slide. Clients see names only.
    bind
        Address for clients; None for none. A port `*` is chosen by the system: see `address`.
    brokers
        Addresses of brokers' backs to offer the slides to.
    curve
        Key pair and list of clients; needed for any address that other machines can reach.
    workers
        Threads that read, for each slide; else as the slide says, or as many as there are processors.
    cache_bytes
        Budget for compressed tiles in memory.
    insecure
        True serves anybody who can reach `bind`, unencrypted.
    keys
        Folder of the keys of trusted brokers; else the user's.

    Raises AccessError where keys are needed, UnreachableError where an address cannot be bound.
    """

    def __init__(
        self,
        slides: Mapping[str, Slide],
        bind: str | None = LOOPBACK,
        *,
        brokers: Sequence[str] = (),
        curve: ServerCurve | None = None,
        workers: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        insecure: bool = False,
        keys: str | None = None,
    ):
        self._requests = self._tiles = self._bytes = 0
        self._connections: dict[tuple[Link, bytes], _Connection] = {}
        self._watches: set[_Watch] = set()
        self._stuck: set[_Connection] = set()
        self._done: deque[Job | tuple[ServedSlide, Answer] | _Change] = deque()
        self._changing = threading.Lock()
        self._ending = threading.Event()
        self._woken = False
        self._drained = threading.Event()
        self._server = program()
        _keep_freed_memory()
        self._cache, self._workers = EncodedTiles(cache_bytes), workers
        # replaced as a whole when slides come or go: other threads look at them
        self._slides = {_checked_name(name): ServedSlide(name, slide, self._cache) for name, slide in slides.items()}
        self._desks = {name: self._desk_for(name, slide) for name, slide in slides.items()}
        with ExitStack() as stack:
            self._context = zmq.Context()
            stack.callback(self._context.destroy)
            self._links = opened_links(self._context, stack, bind, brokers, curve, insecure=insecure, keys=keys)
            self.address = self._links[0].socket.last_endpoint.decode() if bind is not None else None
            self._alarm, self._bell = sockets.socketpair()
            stack.callback(self._alarm.close)
            stack.callback(self._bell.close)
            self._alarm.setblocking(False)
            self._bell.setblocking(False)
            self._growths = {name: Growth(slide, self._grown) for name, slide in self._slides.items() if to_be_asked(slide)}
            self._owned = stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="dealer", daemon=True)
        self._thread.start()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that slides are served under. Any thread."""
        return tuple(self._slides)

    def add(self, name: str, slide: Slide, expects: Callable[[], bool] = lambda: False) -> Slide | None:
        """Serve one slide more, or another one under a name. Any thread.

        `expects`: whether more will come under this name, though the slide itself says that it is not growing: its writer was
        killed, and another begins it anew. Asked now and then, by another thread.

        Returns the slide that had the name, which is no longer read: whoever opened it may close it. Those who look at it are
        told to ask again, and find the new one.
        """
        with self._changing:
            served = ServedSlide(_checked_name(name), slide, self._cache, expects)
            return self._change(name, served, self._desk_for(name, slide))

    def remove(self, name: str) -> Slide | None:
        """Serve a slide no more; returns it, if there was one of that name. It is no longer read. Any thread."""
        with self._changing:
            return self._change(name, None, None)

    def stats(self) -> DealerStats:
        """What was done so far. Any thread."""
        return DealerStats(
            self._requests, self._tiles, self._bytes, len(self._connections), sum(len(desk) for desk in self._desks.values())
        )

    def wait(self, timeout_s: float) -> bool:
        """Return after the time-out, or as soon as the dealer has ended; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Answer nothing more, and end all threads; closing twice is harmless."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._wake()
        self._thread.join()
        with self._changing:  # whoever adds a slide right now is done
            pass
        for growth in self._growths.values():
            growth.close()
        for desk in self._desks.values():
            desk.close()
        for slide in self._slides.values():
            slide.close()
        self._owned.close()

    def __enter__(self) -> TileDealer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # slides that come and go

    def _desk_for(self, name: str, slide: Slide) -> Desk:
        return Desk(name, self._workers or slide.parallel_reads or cpu_count() or 1, self._finished)

    def _change(self, name: str, served: ServedSlide | None, desk: Desk | None) -> Slide | None:
        """Have the thread that knows the requests put one slide in the place of another, and end what served the former."""
        change = _Change(name, served, desk)
        self._done.append(change)
        self._wake()
        while not change.made.wait(CHANGE_LOOK_S):
            if not self._thread.is_alive():
                raise SlideError("the server has ended", location=self.address)
        former = change.former
        if growth := self._growths.pop(name, None):
            growth.close()
        if served is not None and to_be_asked(served):
            self._growths[name] = Growth(served, self._grown)
        if former is None:
            return None
        change.former_desk.close()
        former.close()
        return former.slide

    def _make(self, change: _Change) -> None:
        """Put the new slide in its place; whoever waits for the former asks again."""
        name = change.name
        slides, desks = dict(self._slides), dict(self._desks)
        change.former, change.former_desk = slides.pop(name, None), desks.pop(name, None)
        if change.served is not None:
            slides[name], desks[name] = change.served, change.desk
            for connection in self._stuck:
                change.desk.pause(connection)
        former = change.former
        if former is not None:
            for connection in list(self._connections.values()):
                for held in [held for held in connection.held.values() if held.slide in (former, former.overview)]:
                    self._give_up(connection, held)
        self._slides, self._desks = slides, desks
        change.made.set()

    def _give_up(self, connection: _Connection, held: Job | _Watch) -> None:
        if isinstance(held, Job):
            number, held.cancelled = held.request.id, True
            connection.held.pop(number, None)
        else:
            number = held.id
            self._end_watch(held)
        self._reply(connection, number, ERROR, error_body(BusyError("the slide is another now; ask again")))

    # called from other threads

    def _finished(self, job: Job) -> None:
        self._done.append(job)
        self._wake()
        if len(self._done) > MOST_DONE:
            self._drained.clear()
            self._drained.wait(DRAINED_S)

    def _grown(self, slide: ServedSlide, event: Answer) -> None:
        self._done.append((slide, event))
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with suppress(OSError):  # full: it will wake
                self._alarm.send(b"!")

    # the thread that owns the sockets

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        by_socket = {link.socket: link for link in self._links}
        for socket in by_socket:
            poller.register(socket, zmq.POLLIN)
        self._next_ready = self._next_sweep = self._next_alive = 0.0
        while not self._ending.is_set():
            try:
                for socket, _ in poller.poll(self._pause_ms()):
                    if socket in by_socket:
                        self._receive(by_socket[socket])
                    else:
                        self._bell.recv(64)
                self._collect()
                now = time.monotonic()
                if self._stuck:
                    self._retry(now)
                if now >= min(self._next_ready, self._next_alive, self._next_sweep):
                    self._tick(now)
            except Exception:  # a fault of ours must not end the service for all
                log.exception("the dealer stumbles")
        self._say({}, "bye")

    def _pause_ms(self) -> int:
        wake_at = min(self._next_ready, self._next_alive, self._next_sweep, *(c.retry_at for c in self._stuck))
        return max(0, int((wake_at - time.monotonic()) * 1000) + 1)

    def _receive(self, link: Link) -> None:
        """Take in what came, but let others have their turn."""
        for _ in range(MESSAGES_AT_ONCE):
            try:
                address, *frames = link.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except (zmq.ZMQError, ValueError) as error:
                log.debug("a message was dropped: %s", error)
                continue
            self._hear(link, address, frames)

    def _hear(self, link: Link, address: bytes, frames: list[bytes]) -> None:
        if link.is_broker and not address:
            return  # a broker has nothing to say of its own
        connection = self._connections.get((link, address))
        if connection is None:
            connection = self._connections[link, address] = _Connection(link, address, 0.0)
        connection.heard_at = time.monotonic()
        self._requests += 1
        try:
            request = request_from(frames)
            if len(connection.unsent) >= MOST_UNSENT and request.op != "cancel":
                return
        except ProtocolError as error:
            number = getattr(error, "id", None)
            if number is not None and len(connection.unsent) < MOST_UNSENT:
                self._reply(connection, number, ERROR, error_body(error))
            return
        try:
            self._handle(connection, request)
        except SlideError as error:
            self._reply(connection, request.id, ERROR, error_body(error))

    def _handle(self, connection: _Connection, request: Request) -> None:
        """Answer what needs no reading; check and queue what does. Raises SlideError."""
        op = request.op
        if op == "cancel":
            self._cancel(connection, request.body.get("ids"))
        elif op == "hello":
            self._reply(connection, request.id, OK, {"server": self._server, "protocol": VERSION})
        elif op == "ping":
            self._reply(connection, request.id)
        elif op == "slides":
            after = request.body.get("after", "")
            if connection.unsent:  # a page is long, and nothing counts how many wait
                raise BusyError("the connection takes less than what is asked for; ask again later")
            if not isinstance(after, str):
                raise ProtocolError("`after` is the name of a slide")
            self._reply(connection, request.id, OK, slides_page((slide.entry() for slide in self._slides.values()), after))
        elif op == "hint":
            with suppress(SlideError):  # no reply
                self._read_ahead(connection, request)
        else:
            self._hold(connection, request)

    def _hold(self, connection: _Connection, request: Request) -> None:
        if request.id in connection.held:
            if connection.link.is_broker:  # it asks again because it took us for lost
                return
            raise ProtocolError(f"request {request.id} is under way already")
        if len(connection.held) >= MAX_REQUESTS:
            raise BusyError(f"a connection may wait for {MAX_REQUESTS} replies at once; ask again later")
        slide = self._slide(request.slide)
        if request.op == "watch":
            self._watch(connection, request, slide)
            return
        job = Job(connection, request, slide, slide.work(request))
        if not connection.unsent and (answer := job.work.from_memory()) is not None:
            self._tiles += job.work.cost
            self._reply(connection, request.id, OK, *answer)
            return
        connection.held[request.id] = job
        self._desk(slide).put(job)

    def _slide(self, name: str) -> ServedSlide:
        slide = self._slides.get(name)
        if slide is None and name.endswith("/overview"):
            owner = self._slides.get(name.removesuffix("/overview"))
            slide = owner.overview if owner is not None else None
        if slide is None:
            raise NotASlideError(f"no slide {name[:80]!r} is served here; ask for the list of slides")
        return slide

    def _desk(self, slide: ServedSlide) -> Desk:
        return self._desks[slide.name.removesuffix("/overview")]

    def _read_ahead(self, connection: _Connection, request: Request) -> None:
        if connection.unsent:
            return
        slide = self._slide(request.slide)
        hint = hint_from(request.body, slide.slide)
        moving = any(hint.velocity_um_s)  # who stands still asks for what he sees himself
        self._desk(slide).read_ahead(connection, slide, lambda: slide.ahead_of(hint) if moving else [])

    def _cancel(self, connection: _Connection, ids: object) -> None:
        wanted_no_more = {number for number in ids if isinstance(number, int)} if isinstance(ids, list) else set()
        for number in wanted_no_more & connection.held.keys():
            held = connection.held.pop(number)
            if isinstance(held, Job):
                self._desk(held.slide).cancel(held)
            else:
                self._watches.discard(held)
        if connection.unsent and wanted_no_more:
            connection.unsent = deque(entry for entry in connection.unsent if entry[0] not in wanted_no_more)

    # replies

    def _reply(
        self, connection: _Connection, number: int, status: str = OK, body: Mapping = NOTHING, buffers: Sequence[Buffer] = ()
    ) -> None:
        self._send(connection, number, reply_frames(Reply(number, status, body, buffers)))

    def _send(self, connection: _Connection, number: int, frames: list[Buffer]) -> None:
        """Send now, or keep until the client takes it."""
        if connection.unsent or not self._sent(connection, frames):
            if not connection.unsent:
                self._stuck.add(connection)
                connection.retry_s = FIRST_RETRY_S
                connection.retry_at = time.monotonic() + FIRST_RETRY_S
                for desk in self._desks.values():
                    desk.pause(connection)
            connection.unsent.append((number, frames))

    def _sent(self, connection: _Connection, frames: list[Buffer]) -> bool:
        """Whether ZeroMQ took a reply, or nobody is there to take it."""
        link = connection.link
        try:
            link.socket.send_multipart([connection.address, *frames], zmq.NOBLOCK)
        except zmq.Again:
            link.stuck_since = link.stuck_since or time.monotonic()
            return False
        except zmq.ZMQError:  # the client is gone
            self._forget(connection)
            return True
        link.stuck_since = None
        self._bytes += sum(map(len, frames))
        return True

    def _retry(self, now: float) -> None:
        """Go on with those who did not take their replies."""
        for connection in [c for c in self._stuck if c.retry_at <= now]:
            moved = False
            while connection.unsent and self._sent(connection, connection.unsent[0][1]):
                moved = True
                if connection.unsent:  # else it was forgotten
                    connection.unsent.popleft()
            connection.retry_s = FIRST_RETRY_S if moved else min(2 * connection.retry_s, LAST_RETRY_S)
            connection.retry_at = now + connection.retry_s
            if not connection.unsent and connection in self._stuck:
                self._stuck.discard(connection)
                for desk in self._desks.values():
                    desk.resume(connection)

    def _forget(self, connection: _Connection) -> None:
        """Whoever it was is gone."""
        self._connections.pop((connection.link, connection.address), None)
        self._stuck.discard(connection)
        connection.unsent.clear()
        for held in connection.held.values():
            if isinstance(held, Job):
                held.cancelled = True
            else:
                self._watches.discard(held)
        connection.held.clear()
        for desk in self._desks.values():
            desk.forget(connection)

    def _collect(self) -> None:
        """Send what the workers made."""
        self._woken = False  # before looking: whoever is done from now on rings again
        while self._done:
            done = self._done.popleft()
            if isinstance(done, Job):
                connection = done.connection
                if connection.held.get(done.request.id) is done:
                    del connection.held[done.request.id]
                    if done.frames is not None:
                        self._tiles += done.n_tiles
                        self._send(connection, done.request.id, done.frames)
            elif isinstance(done, _Change):
                self._make(done)
            else:
                self._tell_watchers(*done)
        self._drained.set()

    # watching

    def _watch(self, connection: _Connection, request: Request, slide: ServedSlide) -> None:
        if not slide.growing:
            self._reply(connection, request.id, OK, {"identity": slide.identity})
            return
        now = time.monotonic()
        watch = _Watch(connection, request.id, slide, now, now)
        connection.held[request.id] = watch
        self._watches.add(watch)
        self._reply(connection, request.id, MORE, {"event": "alive", "identity": slide.identity})

    def _tell_watchers(self, slide: ServedSlide, event: Answer) -> None:
        body, buffers = event
        for watch in [watch for watch in self._watches if watch.slide is slide]:
            connection = watch.connection
            if len(connection.unsent) >= MOST_UNSENT:
                self._end_watch(watch)  # it hears nothing, and asks again
                continue
            watch.said_at = time.monotonic()
            self._reply(connection, watch.id, MORE, body, buffers)
            if not body["growing"] and watch in self._watches:
                self._end_watch(watch)
                self._reply(connection, watch.id, OK, {"identity": body["identity"]})

    def _end_watch(self, watch: _Watch) -> None:
        self._watches.discard(watch)
        watch.connection.held.pop(watch.id, None)

    # now and then

    def _tick(self, now: float) -> None:
        if now >= self._next_ready:
            self._next_ready = now + READY_S
            self._say_ready()
        if now >= self._next_alive:
            self._next_alive = now + ALIVE_S / 3
            for watch in [w for w in self._watches if now - w.said_at >= ALIVE_S and not w.connection.unsent]:
                watch.said_at = now
                self._reply(watch.connection, watch.id, MORE, {"event": "alive", "identity": watch.slide.identity})
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Forget who is gone."""
        for connection in list(self._connections.values()):
            stuck_since = connection.link.stuck_since
            if not connection.held and not connection.unsent and now - connection.heard_at > IDLE_S:
                self._forget(connection)
            elif connection.link.is_broker and stuck_since is not None and now - stuck_since > BROKER_STUCK_S:
                self._forget(connection)  # the broker is gone; whoever asked asks another
        for watch in [w for w in self._watches if w.connection.link.is_broker and now - w.since > BROKER_WATCH_S]:
            self._end_watch(watch)
            self._reply(watch.connection, watch.id, ERROR, error_body(BusyError("whoever still watches asks again")))

    def _say_ready(self) -> None:
        load = sum(len(desk) for desk in self._desks.values())
        self._say({"slides": _names_for_a_header(self._slides), "load": load}, "ready")

    def _say(self, body: Mapping, op: str) -> None:
        for link in self._links:
            if link.is_broker:
                with suppress(zmq.ZMQError):  # no broker there, for now
                    link.socket.send_multipart([b"", *request_frames(Request(0, op, body=body))], zmq.NOBLOCK)


def _checked_name(name: str) -> str:
    if not name or len(name) > 200 or not name.isprintable() or name.endswith("/overview"):
        raise ProtocolError(f"{name[:80]!r} cannot name a slide: 1 to 200 printable characters, not ending in /overview")
    return name


def _names_for_a_header(names: Mapping[str, object]) -> list[str]:
    """As many names as one header holds."""
    chosen, room = [], MAX_HEADER_NBYTES - 1024
    for name in sorted(names):
        room -= 6 * len(name) + 3
        if room < 0:
            break
        chosen.append(name)
    return chosen


def _keep_freed_memory() -> None:
    """Make the C library keep what a reply took for the next one.

    glibc gives freed memory back to the system beyond 128 kB, and takes it again page by page: a third of a server's time.
    A large block that comes and goes teaches it otherwise, and does no harm to other C libraries.
    """
    bytearray(LARGE_BLOCK_NBYTES)
