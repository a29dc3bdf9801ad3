"""The slide manager: knows all scans of a folder, keeps their processes running, tells scanners where their planes go."""

from __future__ import annotations

import logging
import os
import shutil
import socket as sockets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import zmq

from rawmosaic.net.acquisition.asking import MANAGER
from rawmosaic.net.acquisition.awaited_ends import Awaited, AwaitedEnds
from rawmosaic.net.acquisition.catalogue import Catalogue
from rawmosaic.net.acquisition.children import ENDING_S, KILLED_S
from rawmosaic.net.acquisition.finished_scans import FinishedScan, FinishedScans
from rawmosaic.net.acquisition.messages import (
    ABORT,
    CANCEL,
    FIND,
    FINISH,
    HELD,
    HELLO,
    MAX_START_NBYTES,
    PING,
    START,
    STATUS,
    request_in,
)
from rawmosaic.net.acquisition.plan import ScanPlan, plan_from_body
from rawmosaic.net.acquisition.registering import Library, Registrar
from rawmosaic.net.acquisition.supervised_scan import (
    KEPT_SUFFIX,
    SCAN_SUFFIX,
    SLIDE_SUFFIX,
    Means,
    State,
    SupervisedScan,
    close_scans,
    found_folders,
    new_folder,
)
from rawmosaic.net.addresses import is_local, port_range, server_address
from rawmosaic.net.introduction import program
from rawmosaic.net.keys import KeyFolder, ServerCurve
from rawmosaic.net.links import DEAD_S, HEARTBEAT_S, LINGER_MS
from rawmosaic.net.protocol import (
    ERROR,
    MAX_HEADER_NBYTES,
    MORE,
    OK,
    VERSION,
    BusyError,
    ConflictError,
    ExistsError,
    FullError,
    Reply,
    Request,
    error_body,
    reply_frames,
)
from rawmosaic.storage.durable import sync_folder
from rawmosaic.storage.errors import (
    AccessError,
    NotASlideError,
    OutOfRangeError,
    ProtocolError,
    SlideError,
    UnreachableError,
    WriteError,
)
from rawmosaic.storage.hdf5.claim import claim, why_claims_fail
from rawmosaic.storage.hdf5.left_behind import damaged_of
from rawmosaic.storage.opening import PART_SUFFIX

SPOOL_NBYTES = 16_000_000_000
WINDOW_NBYTES = 256 << 20
IDLE_S = 30 * 60.0

MOST_SCANS = 64
"""Unfinished scans at once: each has two processes."""

MOST_SHOWN = 50
"""Finished scans that `status` lists."""

LEAST_FREE_NBYTES = 1 << 30
"""A scan begins only where the disk has so much room, or what one spool may take if that is less."""

LEAST_NBYTES = 1 << 20
"""Of a spool, and of a window."""

LOCK, FINISHED, NEWS = "manager.lock", "finished.scans", "library.news"

STEP_MS = 100
MESSAGES_AT_ONCE = 64
CLIENT_QUEUE, PLANS_QUEUED = 8, 2
"""Replies and requests that ZeroMQ holds for one scanner; a plan may be long."""

COMPLAIN_S = 60.0

STUCK_S = 15.0
"""A disk that does not answer for so long, after all that has a limit of its own, does not keep the manager from ending."""

log = logging.getLogger("rawmosaic.net.acquisition")


class Manager:
    """Takes in scans and makes slides of them in the folder `data`, until it is closed; a context manager.

    Parameters
    ----------
    data
        Folder of the slides and of what belongs to unfinished scans. One manager a folder.
    bind
        Address for scanners; a port `*` is chosen by the system: see `address`. Proxies are bound to the same interface.
    durability
        ``fsync``: a plane is acknowledged when the disk has it; ``page-cache``: when the system has it.
    spool_nbytes
        Room on the disk for planes of one scan that are not in its slide yet.
    window_nbytes
        Planes of one scan that a scanner may send ahead of their acknowledgement.
    idle_s
        A scan that nothing was heard of for so long is finished as it is.
    ports
        "FIRST-LAST": where proxies are bound, the first that is free; None: where the system says.
    serve
        Address at which the slides of the folder are served to viewers, those that grow as well; None: not at all.
    library
        A slide database that is told of scans, whenever it can be: what it missed, the next manager of the folder tells it.
    keys, insecure
        Folder of the keys (else the user's), which any address needs that other machines can reach; True does without.
    free_nbytes
        How much room a folder's disk has.
    ending_s
        How long a process of a scan is given to end by itself; then it is killed, which costs nothing that was acknowledged.

    Raises AccessError where keys are needed, or another manager has the folder; WriteError where the folder cannot be written to,
    or its file system lets two programs lock the same file; UnreachableError where an address cannot be bound.
    """

    def __init__(
        self,
        data: str | os.PathLike,
        bind: str = MANAGER,
        *,
        durability: str = "fsync",
        spool_nbytes: int = SPOOL_NBYTES,
        window_nbytes: int = WINDOW_NBYTES,
        idle_s: float = IDLE_S,
        ports: str | None = None,
        serve: str | None = None,
        library: Library | None = None,
        keys: str | None = None,
        insecure: bool = False,
        free_nbytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        ending_s: float = ENDING_S,
    ):
        for what, nbytes in (("spool", spool_nbytes), ("window", window_nbytes)):
            if nbytes < LEAST_NBYTES:
                raise OutOfRangeError(f"{what} of that size", nbytes, f"give it {LEAST_NBYTES} bytes at least")
        self.data = Path(os.path.abspath(data))
        bind = server_address(bind)
        proxy_bind = f"{bind.rpartition(':')[0]}:{'*' if ports is None else port_range(ports)}"
        self._means = Means(self.data, proxy_bind, durability, spool_nbytes, window_nbytes, idle_s, keys, insecure, ending_s)
        self._free_nbytes = free_nbytes
        self._scans: dict[str, SupervisedScan] = {}
        self._broken: dict[str, str] = {}
        self._complained: dict[str, float] = {}
        self._awaited = AwaitedEnds()
        self._ending = threading.Event()
        self._catalogue: Catalogue | None = None
        with ExitStack() as stack:
            stack.callback(os.close, _locked(self.data))
            self._context = zmq.Context()
            stack.callback(self._context.destroy, 0)
            self._socket = _bound(self._context, stack, bind, _curve(bind, keys, insecure), insecure)
            self.address = self._socket.last_endpoint.decode()
            self._alarm, self._bell = sockets.socketpair()
            stack.callback(self._alarm.close)
            stack.callback(self._bell.close)
            self._finished = FinishedScans(self.data / FINISHED)
            self._registrar = Registrar(library, self.data / NEWS)
            stack.callback(self._registrar.close)
            if serve is not None:
                curve = _curve(serve, keys, insecure)
                self._catalogue = stack.enter_context(Catalogue(self.data, server_address(serve), curve=curve, insecure=insecure))
            self._take_up()
            self._owned = stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="manager", daemon=True)
        self._thread.start()

    @property
    def serving_address(self) -> str | None:
        """Where viewers come; None where slides are not served."""
        return None if self._catalogue is None else self._catalogue.address

    def wait(self, timeout_s: float) -> bool:
        """Return after the time-out, or as soon as the manager has ended; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """End in order: the processes finish what they have begun, and unfinished scans wait in the folder. Twice is harmless.

        What a disk that does not answer keeps from ending is killed, or left behind where even that does not help.
        """
        if self._ending.is_set():
            return
        self._ending.set()
        with suppress(OSError):
            self._alarm.send(b"!")
        self._thread.join(self._means.ending_s + KILLED_S + STUCK_S)
        if self._thread.is_alive():
            log.error("the manager waits for a disk that does not answer, and is left alone: %s", self.data)
        else:
            self._owned.close()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # scans

    def _take_up(self) -> None:
        """Find the scans that were not finished, and go on with them."""
        for folder in found_folders(self.data):
            name = folder.name.removesuffix(SCAN_SUFFIX)
            try:
                plan = ScanPlan.load(folder)
                if plan.name != name:
                    raise WriteError(f"the plan in it is that of a scan called {plan.name}; give the folder its name back")
            except SlideError as error:
                self._broken[name] = str(error)
                log.error("the scan %s cannot be gone on with: %s; its planes are kept in %s", name, error, folder)
                continue
            log.info("%s: unfinished, and taken up again", name)
            self._scans[plan.uid] = SupervisedScan(plan, folder, self._means, self._on_over)
            self._register(self._scans[plan.uid])

    def _on_over(self, scan: SupervisedScan, state: State) -> None:
        """A scan is over: remembered before its folder goes."""
        plan = scan.plan
        self._finished.add(FinishedScan(plan.uid, plan.name, state.value, str(scan.location), scan.acknowledged))
        if state is State.COMPLETE:
            self._registrar.tell("complete", plan.uid, str(scan.location))
        else:
            self._registrar.tell("failed", plan.uid, "the scan was discarded by its scanner")

    def _step(self) -> None:
        now = time.monotonic()
        for uid, scan in list(self._scans.items()):
            before = scan.state
            try:
                scan.step(now)
            except (OSError, SlideError) as error:  # a full disk, one that is away: it is tried again
                scan.error = f"{error}; it is tried again"
                if now - self._complained.get(uid, -COMPLAIN_S) >= COMPLAIN_S:
                    self._complained[uid] = now
                    log.warning("%s: %s; it is tried again", scan.plan.name, error)
            if scan.state is State.FAILED and before is not State.FAILED:
                self._registrar.tell("failed", uid, scan.error)
            elif before is State.FAILED and scan.state is not State.FAILED and not scan.state.over:
                self._register(scan)
            if scan.state.over:
                del self._scans[uid]
                self._complained.pop(uid, None)

    # the thread

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._bell, zmq.POLLIN)
        log.info("scanners come to %s, slides go to %s", self.address, self.data)
        try:
            while not self._ending.is_set():
                try:
                    if dict(poller.poll(STEP_MS)).get(self._socket):
                        self._receive()
                    self._step()
                    self._answer_awaited(time.monotonic())
                except Exception:  # a fault of ours must not end all scans
                    log.exception("the manager stumbles")
                    self._ending.wait(STEP_MS / 1000)
        finally:
            close_scans(list(self._scans.values()), self._means.ending_s)

    def _receive(self) -> None:
        for _ in range(MESSAGES_AT_ONCE):
            try:
                client, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                request = request_in(frames, MAX_START_NBYTES)
            except ProtocolError as error:
                number = getattr(error, "id", None)
                if number is not None:
                    self._reply(client, number, ERROR, error_body(error))
                continue
            try:
                body = self._answer(client, request)
            except SlideError as error:
                self._reply(client, request.id, ERROR, error_body(error))
            except Exception as error:  # the client hears of it, the others are served
                log.exception("a request %r fails", request.op[:40])
                self._reply(client, request.id, ERROR, error_body(error))
            else:
                if body is not None:
                    self._reply(client, request.id, OK, body)

    def _reply(self, client: bytes, number: int, status: str, body: Mapping) -> None:
        with suppress(zmq.ZMQError):  # who does not take it asks again
            self._socket.send_multipart([client, *reply_frames(Reply(number, status, body))], zmq.NOBLOCK)

    def _answer(self, client: bytes, request: Request) -> Mapping | None:
        """The body of the answer; None where there is none, or not yet. Raises SlideError."""
        op = request.op
        if op == HELLO:
            return {"server": program(), "protocol": VERSION, "serves": "acquisition"}
        if op == PING:
            return {}
        if op == START:
            return self._started(plan_from_body(request.body, request.buffers))
        if op == FIND:
            return self._found(request.body)
        if op == STATUS:
            return self._status(request.body)
        if op in (FINISH, ABORT):
            self._end(client, request)
            return None
        if op == CANCEL:
            ids = request.body.get("ids")
            self._awaited.forget(client, [number for number in ids if isinstance(number, int)] if isinstance(ids, list) else ())
            return None
        raise ProtocolError(f"a manager of scans knows no {op[:40]!r}")

    # requests

    def _started(self, plan: ScanPlan) -> Mapping:
        scan = self._scans.get(plan.uid)
        if scan is not None:
            # a header may tell another hour: the scan keeps the one that it began with
            if differences := [name for name in scan.plan.differences(plan) if name not in ("header", "extra")]:
                raise ConflictError(
                    f"the scan {scan.plan.name} with this uid was planned otherwise (its {', '.join(differences)}); "
                    "begin another with a uid of its own, or go on with the plan that it had"
                )
            scan.hurry()
            return self._described(scan)
        over = self._finished.by_uid(plan.uid)
        if over is not None:
            if over.name != plan.name:
                raise ConflictError(
                    f"the scan with this uid was called {over.name}, and is over; begin another with a uid of its own"
                )
            return _described_over(over)
        self._check_name(plan.name)
        if len(self._scans) >= MOST_SCANS:
            raise BusyError(f"{MOST_SCANS} scans are not finished yet, and no more are taken at once; try again later")
        self._check_room()
        try:
            folder = new_folder(self.data, plan)
        except FileExistsError as error:
            raise ExistsError(f"there is a scan called {plan.name} already; choose another name") from error
        except (OSError, WriteError) as error:
            raise FullError(f"a scan cannot be begun, the disk does not take its plan: {error.strerror or error}") from error
        scan = self._scans[plan.uid] = SupervisedScan(plan, folder, self._means, self._on_over)
        log.info("%s: begun, uid %s", plan.name, plan.uid)
        self._register(scan)
        return self._described(scan)

    def _register(self, scan: SupervisedScan) -> None:
        """Have the library know that a scan goes on."""
        plan = scan.plan
        header = {name: getattr(plan.header, name) for name in ("acquired_at", "pixel_size_um", "objective", "assay", "bits")}
        facts = {
            "channels": [channel.name for channel in plan.channels],
            "fields": None if plan.fields is None else len(plan.fields),
            "size_z": plan.size_z,
            "size_t": plan.size_t,
            **header,
        }
        self._registrar.tell("acquiring", plan.name, plan.uid, str(scan.location), facts)

    def _check_name(self, name: str) -> None:
        """Raise ExistsError where something of that name is there. Not all systems tell capitals from small letters."""
        taken = {scan.plan.name.casefold() for scan in self._scans.values()} | {name.casefold() for name in self._broken}
        if name.casefold() in taken:
            raise ExistsError(f"there is a scan called {name} already; choose another name")
        path = self.data / f"{name}{SLIDE_SUFFIX}"
        if any(os.path.lexists(f"{path}{ending}") for ending in ("", PART_SUFFIX, KEPT_SUFFIX)):
            raise ExistsError(f"there is a slide called {name} already; choose another name")
        if damaged := damaged_of(path):  # it would go with a scan of that name that is discarded
            raise ExistsError(f"{damaged[0].name} is left of an earlier scan; move it away, or choose another name")

    def _check_room(self) -> None:
        least = min(LEAST_FREE_NBYTES, self._means.spool_nbytes)
        try:
            free = self._free_nbytes(self.data)
        except OSError as error:
            raise FullError(f"the folder of the slides cannot be used: {error.strerror or error}") from error
        if free < least:
            raise FullError(
                f"the server's disk has {free / 1e9:.2f} GB left, and a scan begins with {least / 1e9:.2f} GB at least; "
                "make room there"
            )

    def _end(self, client: bytes, request: Request) -> None:
        """End a scan whose scanner does not: as its proxy would, but what is on its way is not waited for.

        Answered by `_answer_awaited`, once the disk has the end.
        """
        early, body = request.op == ABORT, request.body
        discard, reason = body.get("discard", False), body.get("reason", "")
        if not isinstance(discard, bool) or not isinstance(reason, str):
            raise ProtocolError("`discard` is true or false, and `reason` a text")
        uid, discard = self._found(body)["uid"], early and discard
        self._awaited.add(client, request.id, uid, discard, time.monotonic())
        if (scan := self._scans.get(uid)) is not None:
            reason = (reason[:1000] or "somebody ended it") if early else ""
            log.info("%s: ended from outside%s", scan.plan.name, ", and discarded" if discard else "")
            scan.end(early=early, discard=discard, reason=reason)

    def _answer_awaited(self, now: float) -> None:
        """Tell those who ended scans that the disk has it; or, once a second, why not yet."""
        for awaited in self._awaited:
            try:
                body = self._end_kept(awaited, now)
            except SlideError as error:
                self._reply(awaited.client, awaited.number, ERROR, error_body(error))
            else:
                if body is None:
                    continue
                self._reply(awaited.client, awaited.number, OK, body)
            self._awaited.forget(awaited.client, [awaited.number])

    def _end_kept(self, awaited: Awaited, now: float) -> Mapping | None:
        """The answer to who ended a scan; None while the disk does not have the end. SlideError."""
        found = self._found({"uid": awaited.uid})
        scan = self._scans.get(awaited.uid)
        end = {"discard": found["state"] == State.DISCARDED.value} if scan is None else scan.ended
        if end is None:
            reason = found["error"] or "its processes end what they have begun"
            if awaited.is_long(now):
                raise BusyError(f"the end of the scan {found['name']} is not on the disk yet: {reason}; ask again later")
            if awaited.word_is_due(now):
                self._reply(awaited.client, awaited.number, MORE, {"event": HELD, "reason": reason})
            return None
        if bool(end.get("discard")) != awaited.discard:
            became = "is deleted" if end.get("discard") else f"is kept, in {found['location']}"
            raise ConflictError(f"the scan {found['name']} was ended before, and otherwise: what it acquired {became}")
        return found

    def _found(self, body: Mapping) -> Mapping:
        uid, name = body.get("uid"), body.get("name")
        if uid is not None:
            scan = self._scans.get(uid) if isinstance(uid, str) else None
            over = self._finished.by_uid(uid) if isinstance(uid, str) else None
        elif isinstance(name, str):
            scan = next((scan for scan in self._scans.values() if scan.plan.name == name), None)
            over = self._finished.by_name(name)
        else:
            raise ProtocolError("a scan is asked for by `uid` or by `name`")
        if scan is not None:
            return self._described(scan)
        if over is not None:
            return _described_over(over)
        if uid is None and name in self._broken:
            raise NotASlideError(f"the scan {name} cannot be gone on with: {self._broken[name]}")
        known = ", ".join(sorted(scan.plan.name for scan in self._scans.values())) or "none"
        raise NotASlideError(f"no scan {str(uid or name)[:80]!r} is known here; unfinished are: {known[:500]}")

    def _described(self, scan: SupervisedScan) -> Mapping:
        return {
            "uid": scan.plan.uid,
            "name": scan.plan.name,
            "address": scan.address,
            "window_nbytes": self._means.window_nbytes,
            "state": scan.state.value,
            "location": str(scan.location),
            "planes": scan.acknowledged,
            "error": scan.error,
            "discard": bool((scan.ended or {}).get("discard")),
        }

    def _status(self, body: Mapping) -> Mapping:
        after = body.get("after", "")
        if not isinstance(after, str):
            raise ProtocolError("`after` is the uid of a scan")
        broken = [{"name": name, "uid": f"broken-{name}", "state": "failed", "error": e} for name, e in self._broken.items()]
        over = [scan for scan in self._finished if scan.uid not in self._scans][-MOST_SHOWN:]
        entries = [scan.report() for scan in self._scans.values()] + broken + [_report_over(scan) for scan in reversed(over)]
        return scans_page(entries, after)


def scans_page(entries: Sequence[dict], after: str = "") -> dict:
    """Of these entries those that come after that of the uid `after`, as many as a header holds, and whether there are more."""
    uids = [entry["uid"] for entry in entries]
    rest = entries[uids.index(after) + 1 :] if after in uids else entries if not after else []
    page, room = [], MAX_HEADER_NBYTES - 1024
    for entry in rest:
        room -= 2 * len(repr(entry))
        if room < 0 and page:
            return {"scans": page, "rest": True}
        page.append(entry)
    return {"scans": page, "rest": False}


def _report_over(scan: FinishedScan) -> dict:
    return {"name": scan.name, "uid": scan.uid, "state": scan.state, "location": scan.location, "planes": scan.planes}


def _described_over(scan: FinishedScan) -> dict:
    return {**_report_over(scan), "address": "", "window_nbytes": 0, "error": ""}


def _curve(bind: str, keys: str | None, insecure: bool) -> ServerCurve | None:
    return None if insecure or is_local(server_address(bind)) else KeyFolder(keys).server_curve()


def _bound(context: zmq.Context, stack: ExitStack, address: str, curve: ServerCurve | None, insecure: bool) -> zmq.Socket:
    """The socket that scanners come to. Plans are longer than what viewers ask for, so it takes more than theirs does."""
    if curve is None and not insecure and not is_local(address):
        raise AccessError("other machines can reach this address, so it needs keys (or say `insecure`)", location=address)
    router = context.socket(zmq.ROUTER)
    router.linger, router.sndhwm, router.rcvhwm, router.maxmsgsize = LINGER_MS, CLIENT_QUEUE, PLANS_QUEUED, MAX_START_NBYTES
    router.ipv6 = "[" in address
    router.heartbeat_ivl, router.heartbeat_timeout = int(HEARTBEAT_S * 1000), int(DEAD_S * 1000)
    if curve is not None:
        stack.enter_context(curve.gate(context))
        curve.apply(router)
    try:
        router.bind(address)
    except zmq.ZMQError as error:
        reason = f"the address cannot be bound ({error.strerror}); choose another, or end the server that has it"
        raise UnreachableError(reason, location=address) from error
    return router


def _locked(data: Path) -> int:
    """The descriptor of the folder's lock file, claimed; whoever closes it gives the folder back."""
    try:
        descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise WriteError(f"the folder cannot be written to: {error.strerror}", location=data) from error
    if not claim(descriptor):
        os.close(descriptor)
        raise AccessError("another acquisition server has this folder; end it, or choose another folder", location=data)
    try:
        if why := why_claims_fail(data / LOCK):
            raise WriteError(
                f"two programs could write the same slide here, and damage it: {why}. Choose a folder on a disk of this machine, "
                "or have this one mounted with locks (NFS: without `nolock`; SMB: without `nobrl`)",
                location=data,
            )
        sync_folder(data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
