"""The slide proxy: takes the planes of one scan in at camera speed, and acknowledges what is safe. A process of its own.

One thread owns the socket and understands messages; `Intake` checks, appends and syncs in others; a keeper says how things are in
`proxy.json`, and lets go of what is part of the slide. `python -m rawmosaic.net.acquisition.proxy FOLDER` runs until its standard
input closes.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket as sockets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import zmq

from rawmosaic.net.acquisition.files import overwrite_json, replace_json
from rawmosaic.net.acquisition.intake import DURABILITIES, FSYNC, Arrival, Intake, Outcome, write_end
from rawmosaic.net.acquisition.ledger import check_against_plan
from rawmosaic.net.acquisition.lifeline import claimed, end_of_input
from rawmosaic.net.acquisition.messages import (
    ABORT,
    BLOSC_OVERHEAD_NBYTES,
    FINISH,
    HELD,
    HELLO,
    PING,
    PLANE,
    PlaneHeader,
    plane_from,
    request_in,
)
from rawmosaic.net.acquisition.plan import ScanPlan
from rawmosaic.net.acquisition.scan_folder import PROXY_FILE, PROXY_LOCK
from rawmosaic.net.addresses import addresses_in, is_local
from rawmosaic.net.introduction import program
from rawmosaic.net.keys import KeyFolder, ServerCurve
from rawmosaic.net.protocol import (
    ERROR,
    MAX_HEADER_NBYTES,
    MORE,
    OK,
    VERSION,
    Buffer,
    BusyError,
    Reply,
    Request,
    error_body,
    reply_frames,
)
from rawmosaic.storage.amounts import parse_bytes
from rawmosaic.storage.errors import AccessError, NotASlideError, ProtocolError, SlideError, UnreachableError, WriteError

__all__ = ["SlideProxy", "main", "write_end"]

CANCEL = "cancel"
LOOPBACK = "tcp://127.0.0.1:*"
SPOOL_NBYTES, WINDOW_NBYTES = 8 << 30, 256 << 20

STATUS_S, RELEASE_S = 0.5, 0.1
HELD_S = 1.0
"""How often a scanner hears that it is held."""

HEADER_COST = 24
"""How much more memory a header takes than it has bytes, whatever it says."""

WINDOW_SLACK = 4
"""A scanner counts planes as it likes, and may be wrong by such a part of the window."""

MOST_WAITERS = 8
"""Requests that may wait for the same plane: a scanner that lost its connection asks again."""

MESSAGES_AT_ONCE = 16
REPLIES_QUEUED = 10_000
"""Small answers that ZeroMQ holds for a scanner; one that takes none of them sends its planes again, and hears then."""

LINGER_MS = 500
HEARTBEAT_S, DEAD_S = 10.0, 60.0
SMALLEST_QUEUE, LARGEST_QUEUE = 2, 64
LARGEST_KEPT_BLOCK = 30 << 20
RATE_S = 5.0

_TAKEN = (zmq.EADDRINUSE, errno.EACCES)
"""A port that another program has, or that the system keeps to itself."""

NO_CODE_OF_OURS = 1

log = logging.getLogger("rawmosaic.net.acquisition")


class SlideProxy:
    """Takes in the planes of the scan in a folder until it is closed; a context manager. One a folder: see `main`.

    Parameters
    ----------
    folder
        The scan's, with its `scan.json`.
    bind
        Where the scanner connects. A port `*` is chosen by the system, of ports `FIRST-LAST` the first that is free is taken: see
        `address`.
    durability
        "fsync": what is acknowledged is on the disk; "page-cache": it is with the operating system.
    spool_nbytes
        Budget of the spool on the disk.
    window_nbytes
        Planes that are taken in before they are acknowledged; what comes beyond is `busy`.
    curve, insecure
        Key pair and list of scanners, needed for any address that other machines can reach; `insecure` lets in everybody.
    make_intake
        For tests.

    Raises AccessError where keys are needed, UnreachableError where the address cannot be bound, and what a folder that cannot be
    used does: NotASlideError, DamagedSlideError, WriteError.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        bind: str = LOOPBACK,
        durability: str = FSYNC,
        spool_nbytes: int = SPOOL_NBYTES,
        window_nbytes: int = WINDOW_NBYTES,
        curve: ServerCurve | None = None,
        insecure: bool = False,
        make_intake: Callable[..., Intake] = Intake,
    ):
        self.folder = Path(folder)
        self.plan = ScanPlan.load(self.folder)
        self._durability, self._budget, self._window = durability, spool_nbytes, window_nbytes
        self._largest_nbytes = self.plan.plane_nbytes + BLOSC_OVERHEAD_NBYTES
        self._most_waiting_nbytes = window_nbytes + window_nbytes // WINDOW_SLACK
        self._done: deque[tuple[Arrival, Outcome]] = deque()
        self._waiting: dict[object, Arrival] = {}
        self._waiting_nbytes = self._received_nbytes = self._received = 0
        self._heard_at = time.monotonic()
        self._rates: deque[tuple[float, int, int]] = deque()
        self._failure: BaseException | None = None
        self._ending, self._woken = threading.Event(), False
        self._server = program()
        _keep_freed_memory(self.plan.plane_nbytes)
        with ExitStack() as stack:
            context = zmq.Context()
            stack.callback(context.destroy)
            self._socket = self._bound(context, stack, bind, curve, insecure)
            self.address = self._socket.last_endpoint.decode()
            self._alarm, self._bell = sockets.socketpair()
            for end in (self._alarm, self._bell):
                stack.callback(end.close)
                end.setblocking(False)
            self.intake = make_intake(self.folder, self.plan, self._finished, durability=durability, spool_nbytes=spool_nbytes)
            stack.callback(self.intake.close)
            self._say_status()
            self._owned = stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._keeper = threading.Thread(target=self._keep, name="proxy-keep", daemon=True)
        self._thread.start()
        self._keeper.start()

    @property
    def failure(self) -> BaseException | None:
        """What a thread broke down with: the process is to end, and another to go on."""
        return self._failure or self.intake.failure

    @property
    def waiting_nbytes(self) -> int:
        """Of planes in memory."""
        return self._waiting_nbytes

    def close(self) -> None:
        """End in order: what is on the disk is acknowledged, all else is left to the scanner. Closing twice is harmless."""
        if self._ending.is_set():
            return
        self.intake.close()
        self._ending.set()
        self._wake()
        self._thread.join()
        self._keeper.join()
        self._owned.close()

    def __enter__(self) -> SlideProxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _bound(
        self, context: zmq.Context, stack: ExitStack, address: str, curve: ServerCurve | None, insecure: bool
    ) -> zmq.Socket:
        if curve is None and not insecure and not is_local(address):
            raise AccessError("other machines can reach this address, so it needs keys (or say `insecure`)", location=address)
        router = context.socket(zmq.ROUTER)
        router.linger = LINGER_MS
        router.router_mandatory = True
        router.sndhwm = REPLIES_QUEUED
        router.rcvhwm = max(SMALLEST_QUEUE, min(LARGEST_QUEUE, self._window // (4 * self._largest_nbytes)))
        router.maxmsgsize = max(self._largest_nbytes, MAX_HEADER_NBYTES)
        router.ipv6 = "[" in address
        router.heartbeat_ivl, router.heartbeat_timeout = int(HEARTBEAT_S * 1000), int(DEAD_S * 1000)
        if curve is not None:
            stack.enter_context(curve.gate(context))
            curve.apply(router)
        _bind_first(router, address)
        return router

    # called by threads of the intake

    def _finished(self, outcomes: Sequence[tuple[Arrival, Outcome]]) -> None:
        self._done.extend(outcomes)
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with suppress(OSError):  # full: it will wake
                self._alarm.send(b"!")

    # the thread that owns the socket

    def _run(self) -> None:
        try:
            poller = zmq.Poller()
            poller.register(self._bell, zmq.POLLIN)
            poller.register(self._socket, zmq.POLLIN)
            next_held = 0.0
            while not self._ending.is_set():
                for socket, _ in poller.poll(int(HELD_S * 1000)):
                    if socket is self._socket:
                        self._receive()
                    else:
                        with suppress(BlockingIOError):
                            self._bell.recv(64)
                self._answer_done()
                now = time.monotonic()
                if now >= next_held and (reason := self.intake.reason_to_wait):
                    next_held = now + HELD_S
                    self._say_held(reason)
            self._answer_done()
        except BaseException as error:
            log.exception("the proxy breaks down")
            self._failure = error

    def _receive(self) -> None:
        """Take in what came, but answer in between."""
        for _ in range(MESSAGES_AT_ONCE):
            try:
                address, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            except (zmq.ZMQError, ValueError) as error:
                log.debug("a message was dropped: %s", error)
                continue
            self._heard_at = time.monotonic()
            self._hear(address.bytes, [frame.buffer for frame in frames])

    def _hear(self, address: bytes, frames: list[Buffer]) -> None:
        try:
            request = request_in(frames, self._largest_nbytes + MAX_HEADER_NBYTES)
        except ProtocolError as error:
            if (number := getattr(error, "id", None)) is not None:
                self._reply(address, number, ERROR, error_body(error))
            return
        try:
            self._handle(address, request, HEADER_COST * len(frames[0]))
        except SlideError as error:
            self._reply(address, request.id, ERROR, error_body(error))

    def _handle(self, address: bytes, request: Request, cost_nbytes: int) -> None:
        """Answer at once, or take in what will be answered later. SlideError."""
        if request.op == PLANE:
            self._take(address, request, cost_nbytes)
        elif request.op == HELLO:
            facts = {"scan": self.plan.uid, "window_nbytes": self._window, "planes": self.intake.acknowledged}
            self._reply(address, request.id, OK, {"server": self._server, "protocol": VERSION, **facts})
        elif request.op == PING:
            if "scan" in request.body:
                self._check_scan(request.body["scan"])
            self._reply(address, request.id, OK, {"held": self.intake.held})
        elif request.op in (FINISH, ABORT):
            self._check_scan(request.body.get("scan"))
            self._put(_end_from(request), address, request.id, key=None)
        elif request.op != CANCEL:  # an answer that nobody waits for does no harm
            raise ProtocolError(f"a proxy knows no op {request.op[:40]!r}: it takes planes; ask the manager about scans")

    def _take(self, address: bytes, request: Request, cost_nbytes: int) -> None:
        if isinstance(uid := request.body.get("scan"), str):
            self._check_scan(uid)  # before all else: another scan's planes may be such as this one's cannot be
        header, payload = plane_from(request)
        check_against_plan(header, self.plan)
        key = _key(header)
        if (same := self._waiting.get(key)) is not None:  # its sender lost the connection, and asks again
            if len(same.waiters) >= MOST_WAITERS:
                raise BusyError(f"{MOST_WAITERS} requests wait for this plane already")
            same.waiters.append((address, request.id))
            return
        nbytes = len(payload) + cost_nbytes
        if self._waiting and self._waiting_nbytes + nbytes > self._most_waiting_nbytes:
            reason = self.intake.reason_to_wait or f"{self._waiting_nbytes} bytes of planes are not on the disk yet"
            raise BusyError(f"{reason}; send the plane again later")
        self._received += 1
        self._received_nbytes += len(payload)
        self._put(Arrival(header, payload, nbytes), address, request.id, key)

    def _put(self, arrival: Arrival, address: bytes, number: int, key: object) -> None:
        arrival.waiters.append((address, number))
        self._waiting[key or arrival] = arrival
        self._waiting_nbytes += arrival.nbytes
        self.intake.put(arrival)

    def _check_scan(self, uid: object) -> None:
        if uid != self.plan.uid:
            raise NotASlideError(f"the scan {str(uid)[:80]!r} is not here, but {self.plan.uid!r}; ask the manager where it is")

    def _answer_done(self) -> None:
        self._woken = False  # before looking: whoever is done from now on rings again
        while self._done:
            arrival, outcome = self._done.popleft()
            key = arrival if arrival.header is None else _key(arrival.header)
            if self._waiting.pop(key, None) is not None:
                self._waiting_nbytes -= arrival.nbytes
            failed = isinstance(outcome, SlideError)
            status, body = (ERROR, error_body(outcome)) if failed else (OK, outcome)
            for address, number in arrival.waiters:
                self._reply(address, number, status, body)

    def _say_held(self, reason: str) -> None:
        """Tell each scanner that waits, about the oldest of what it waits for. Who waits need not say that it is there."""
        oldest: dict[bytes, int] = {}
        for arrival in self._waiting.values():
            for address, number in arrival.waiters:
                oldest.setdefault(address, number)
        heard = [self._reply(address, number, MORE, {"event": HELD, "reason": reason}) for address, number in oldest.items()]
        if any(heard):
            self._heard_at = time.monotonic()

    def _reply(self, address: bytes, number: int, status: str, body: Mapping) -> bool:
        """Whether somebody is there who takes it."""
        try:
            self._socket.send_multipart([address, *reply_frames(Reply(number, status, body))], zmq.NOBLOCK)
        except zmq.ZMQError:  # it is gone, or takes nothing: it will ask again
            return False
        return True

    # the keeper

    def _keep(self) -> None:
        next_status, told = 0.0, ""
        while not self._ending.wait(RELEASE_S):
            try:
                if time.monotonic() >= next_status:
                    next_status = time.monotonic() + STATUS_S
                    self._say_status()
                self.intake.release_written()
                told = ""
            except (SlideError, OSError) as error:  # a disk that is full is no reason to end
                if str(error) != told:
                    told = str(error)
                    log.error("%s", error)
            except BaseException as error:
                log.exception("the keeper breaks down")
                self._failure = error
                return
        with suppress(SlideError):
            self._say_status()

    def _say_status(self) -> None:
        now, intake = time.monotonic(), self.intake
        self._rates.append((now, intake.acknowledged, intake.acknowledged_nbytes))
        while now - self._rates[0][0] > RATE_S:
            self._rates.popleft()
        since, planes, nbytes = self._rates[0]
        lasted = max(now - since, STATUS_S)
        status = {
            "pid": os.getpid(),
            "address": self.address,
            "durability": self._durability,
            "acknowledged": intake.acknowledged,
            "fields": intake.n_fields,
            "received_nbytes": self._received_nbytes,
            "acknowledged_nbytes": intake.acknowledged_nbytes,
            "waiting_nbytes": self._waiting_nbytes,
            "window_nbytes": self._window,
            "spool_nbytes": intake.spool_nbytes,
            "spool_budget": self._budget,
            "held": intake.held,
            "ended": intake.end is not None,
            "planes_per_s": (intake.acknowledged - planes) / lasted,
            "bytes_per_s": (intake.acknowledged_nbytes - nbytes) / lasted,
            "last_heard_s_ago": now - self._heard_at,
            "last_heard_at": time.time() - (now - self._heard_at),
        }
        try:
            replace_json(self.folder / PROXY_FILE, status)
        except WriteError:  # that the disk is full is what has to be told
            if not (self.folder / PROXY_FILE).exists():
                raise
            overwrite_json(self.folder / PROXY_FILE, status)


def _bind_first(router: zmq.Socket, address: str) -> None:
    """Bind to the first that is free of the addresses that one stands for. UnreachableError."""
    candidates = addresses_in(address)
    for candidate in candidates:
        try:
            router.bind(candidate)
        except zmq.ZMQError as error:
            if candidate == address or error.errno not in _TAKEN:
                told = f"the address cannot be bound ({error.strerror}); choose another"
                raise UnreachableError(told, location=candidate) from error
        else:
            return
    raise UnreachableError(
        f"all ports are taken ({len(candidates)} in all); each scan needs one: have scans end, or give the server more --ports",
        location=address,
    )


def _end_from(request: Request) -> Arrival:
    planes, reason = request.body.get("planes"), request.body.get("reason", "")
    if planes is not None and (isinstance(planes, bool) or not isinstance(planes, int)):
        raise ProtocolError("`planes` is how many planes the scanner sent, or is left out")
    if not isinstance(reason, str) or not isinstance(request.body.get("discard", False), bool):
        raise ProtocolError("`reason` is a text, and `discard` true or false")
    if request.op == FINISH:
        return Arrival(None, end={"planes": planes})
    discard = request.body.get("discard", False)
    return Arrival(None, end={"early": True, "discard": discard, "reason": reason[:1000] or "its scanner gave it up"})


def _key(header: PlaneHeader) -> tuple:
    """Equal for planes that are sent twice."""
    place = header.place if header.field is None else header.field
    return (place, header.channel, header.z, header.t, header.shape, header.encoding, header.crc)


def _keep_freed_memory(nbytes: int) -> None:
    """Make the C library keep what a plane took for the next one: glibc learns from a large block that comes and goes, and
    other C libraries take no harm."""
    bytearray(max(1 << 20, min(nbytes + nbytes // 4, LARGEST_KEPT_BLOCK)))


# the process


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a proxy until standard input closes; the exit code."""
    options = _options(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the keyboard is for whoever started this, who then ends it
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    over = end_of_input()
    try:
        with ExitStack() as stack:
            if not claimed(options.folder / PROXY_LOCK, over, stack):
                return 0
            curve = None
            if options.keys or not (options.insecure or is_local(options.bind)):
                curve = KeyFolder(options.keys).server_curve()
            proxy = stack.enter_context(
                SlideProxy(
                    options.folder,
                    bind=options.bind,
                    durability=options.durability,
                    spool_nbytes=options.spool_bytes,
                    window_nbytes=options.window_bytes,
                    curve=None if options.insecure else curve,
                    insecure=options.insecure,
                )
            )
            while not over.wait(STATUS_S):
                if proxy.failure is not None:
                    log.error("ends, for another to go on: %s", proxy.failure)
                    os._exit(NO_CODE_OF_OURS)  # a thread that broke down is not waited for; what is on the disk is safe
    except (SlideError, OSError) as error:
        log.error("%s", error)
        return NO_CODE_OF_OURS
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rawmosaic.net.acquisition.proxy",
        description="Take in the planes of one scan until standard input closes.",
    )
    parser.add_argument("folder", type=Path, help="the scan's folder")
    parser.add_argument("--bind", default=LOOPBACK, metavar="ADDRESS", help="where the scanner connects (default %(default)s)")
    parser.add_argument("--durability", choices=DURABILITIES, default=FSYNC)
    parser.add_argument("--spool-bytes", type=_amount, default=SPOOL_NBYTES, metavar="BYTES", help="budget of the spool")
    parser.add_argument("--window-bytes", type=_amount, default=WINDOW_NBYTES, metavar="BYTES", help="planes on their way")
    parser.add_argument("--keys", metavar="FOLDER", help="folder of the key pair and of the list of scanners")
    parser.add_argument("--insecure", action="store_true", help="let in everybody who reaches the address, and encrypt nothing")
    return parser.parse_args(arguments)


def _amount(text: str) -> int:
    try:
        return parse_bytes(text)
    except SlideError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
