"""Planes on their way into the spool: checked, appended, synced, acknowledged; in the order in which they came.

    put ──► checkers ──► appender ──► syncer ──► done
            checksum,    field        one sync
            decodes      number,      for all that
                         repeats,     was appended
                         room         meanwhile

Each arrow is a queue; what is in them is bounded by whoever puts. Nothing is dropped: while there is no room, on the disk or in
the spool's budget, the appender waits, and `held` says why.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from rawmosaic.net.acquisition.files import read_json, replace_json
from rawmosaic.net.acquisition.ledger import Ledger
from rawmosaic.net.acquisition.messages import RAW, PlaneHeader, checked_pixels
from rawmosaic.net.acquisition.plan import ScanPlan
from rawmosaic.net.acquisition.safe_mark import unknown_records
from rawmosaic.net.acquisition.scan_folder import DAMAGED_FOLDER, END_FILE, RELEASED_FILE, SPOOL_FOLDER, WRITER_FILE
from rawmosaic.net.acquisition.spool import (
    RELEASED_DTYPE,
    SEGMENT_NBYTES,
    PlaneFacts,
    Position,
    ReleasedList,
    SpoolWriter,
    planes_in,
    planes_of_segment,
    released_facts,
    released_rows,
    segments,
)
from rawmosaic.net.protocol import Buffer, BusyError, ConflictError, EndedError
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.errors import DamagedSlideError, ProtocolError, SlideError, WriteError

FSYNC, PAGE_CACHE = "fsync", "page-cache"
DURABILITIES = (FSYNC, PAGE_CACHE)

SEGMENTS_A_BUDGET = 8
"""A spool is released by segments, so its budget holds several."""

SMALLEST_SEGMENT_NBYTES = 1 << 16
RETRY_S = 0.25
"""While there is no room, one looks again so often."""

SLOW_S = 2.0
"""A disk that has been syncing for so long is mentioned: whoever waits hears that somebody is there."""

PATIENCE_S = 30.0
"""A writer that released nothing for so long while the spool is full is mentioned."""

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

log = logging.getLogger("rawmosaic.net.acquisition")


@dataclass(eq=False)
class Arrival:
    """Something that came and waits for its turn: a plane, or (without `header`) the end that `end` tells of.

    `nbytes`: of memory that it holds. `waiters` belongs to whoever put it.
    """

    header: PlaneHeader | None
    payload: Buffer | None = None
    nbytes: int = 0
    end: Mapping | None = None
    waiters: list = field(default_factory=list)
    checked: Future | None = None
    facts: PlaneFacts | None = None
    segment: int = 0
    is_new: bool = False


Outcome = Mapping | SlideError
"""Keys of the answer, or why there is none."""


class Intake:
    """The way of planes into the spool of a scan's folder. `put` is for one thread; the rest for any.

    `done(outcomes)` is called with (arrival, outcome) pairs by threads of the intake's; what an outcome tells is on the disk by
    then (with `durability` "page-cache": it is with the operating system, which survives our processes but no power cut).

    `spool`, `free_nbytes` and `retry_s` are for tests.

    Attributes
    ----------
    held
        Why nothing is taken in now; empty where something is.
    acknowledged, acknowledged_nbytes
        Planes that are safe, and bytes of those that became so since this began.
    n_unknown
        Planes that were safe, and of which nothing can be read any more.
    failure
        What a thread of the intake broke down with; None while all is well.
    """

    def __init__(
        self,
        folder: str | Path,
        plan: ScanPlan,
        done: Callable[[Sequence[tuple[Arrival, Outcome]]], None],
        *,
        durability: str = FSYNC,
        spool_nbytes: int,
        spool: Callable[[Path, int], SpoolWriter] = SpoolWriter,
        free_nbytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        retry_s: float = RETRY_S,
    ):
        self.folder, self._plan, self._done, self._durability = Path(folder), plan, done, durability
        self._budget, self._free_nbytes, self._retry_s = spool_nbytes, free_nbytes, retry_s
        self.held, self.failure = "", None
        self.acknowledged_nbytes = 0
        self._ledger, self._ledger_lock = Ledger(plan), threading.Lock()
        self._changed = threading.Condition()
        self._ending = self._giving_up = self._wants_rotation = False
        self._lost: WriteError | None = None
        self._lost_segment = 0
        self._syncing_since: float | None = None
        self._rows_of: dict[int, bytearray] = {}
        """Of each segment that was not released: RELEASED_DTYPE rows of its planes, known whatever becomes of the disk."""
        self._damage_seen: set[int] = set()
        segment_nbytes = max(SMALLEST_SEGMENT_NBYTES, min(SEGMENT_NBYTES, spool_nbytes // SEGMENTS_A_BUDGET))
        self._spool = spool(self.folder / SPOOL_FOLDER, segment_nbytes)
        try:
            self._recover()
        except BaseException:
            self._spool.close()
            raise
        self._synced = self._spool.reached
        self.acknowledged = len(self._ledger)
        self.end: dict | None = read_json(self.folder / END_FILE)
        self._queue: SimpleQueue[Arrival | None] = SimpleQueue()
        self._appended: deque[tuple[Arrival, Outcome]] = deque()
        self._wake_syncer = threading.Event()
        self._checkers = ThreadPoolExecutor(max(2, min(cpu_count() or 2, 4)), thread_name_prefix="proxy-check")
        self._appender = threading.Thread(target=self._guarded, args=(self._append_all,), name="proxy-append", daemon=True)
        self._syncer = threading.Thread(target=self._guarded, args=(self._sync_all,), name="proxy-sync", daemon=True)
        self._appender_ended = False
        self._appender.start()
        self._syncer.start()

    @property
    def reason_to_wait(self) -> str:
        """Why who waits has to: nothing is taken in, or the disk is slow; empty where all goes well."""
        since = self._syncing_since
        if self.held or since is None or (lasted := time.monotonic() - since) < SLOW_S:
            return self.held
        return f"the disk is slow: it has been writing for {lasted:.0f} s"

    @property
    def spool_nbytes(self) -> int:
        """Bytes of the spool."""
        return self._spool.used_nbytes

    @property
    def n_fields(self) -> int:
        """Fields that have a plane."""
        return self._ledger.n_fields

    def put(self, arrival: Arrival) -> None:
        """Take something in; returns at once. What comes while the intake ends is left to its sender."""
        if arrival.header is not None:
            try:
                arrival.checked = self._checkers.submit(_pixels_crc, arrival.header, arrival.payload)
            except RuntimeError:  # it has ended
                return
        elif arrival.end.get("early"):
            with self._changed:
                self._giving_up = True  # what waits for room does not keep an end waiting
                self._changed.notify_all()
        self._queue.put(arrival)

    def release_written(self) -> None:
        """Let go of the segments that the writer has made part of the slide, by what it says. One thread. WriteError."""
        self._look_at_damage()
        told = (read_json(self.folder / WRITER_FILE) or {}).get("releasable_segment")
        if not isinstance(told, int) or isinstance(told, bool):
            return
        segment = min(told, self._spool.segment - 1)
        if segment > self._released:
            self._spool.note_safe(self._spool.safe, durable=True)  # how many there were is not told by what is gone
            numbers = range(self._released + 1, segment + 1)
            rows = b"".join(bytes(self._rows_of.get(number, b"")) for number in numbers)
            self._list.append(segment, np.frombuffer(rows, RELEASED_DTYPE))
            self._released = segment
            for number in numbers:
                self._rows_of.pop(number, None)
        self._spool.release(self._released)
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End in order: what was appended is synced and told; what was not is left to its sender. Closing twice is harmless."""
        with self._changed:
            if self._ending:
                return
            self._ending = True
            self._changed.notify_all()
        self._queue.put(None)
        self._appender.join()
        self._wake_syncer.set()
        self._syncer.join()
        self._checkers.shutdown(wait=True, cancel_futures=True)
        self._spool.close()

    # at the start

    def _recover(self) -> None:
        """Learn which planes are there, and how many were."""
        self._list = ReleasedList(self.folder / RELEASED_FILE)
        self._released, rows = self._list.last, self._list.rows
        self._list.rows = rows[:0]
        self._ledger.note_released(rows)
        self._spool.release(self._released)
        self._note_set_aside()
        greatest, n_known, n_unreadable = self._spool.safe.ordinal, len(rows), 0
        for found in planes_in(self.folder / SPOOL_FOLDER, after=self._released):
            facts, position = (found.facts, found.position) if isinstance(found, DamagedSlideError) else found
            greatest = max(greatest, position.ordinal)
            n_known, n_unreadable = n_known + (facts is not None), n_unreadable + (facts is None)
            if isinstance(found, DamagedSlideError):
                log.error("%s; the scanner may send it again", found)
            if facts is not None:
                self._note_appended(facts, position, whole=not isinstance(found, DamagedSlideError))
        self.n_unknown = unknown_records(greatest, n_known, n_unreadable)
        self._spool.count_from(n_known + self.n_unknown)
        if self.n_unknown:
            self._ledger.keep_numbers(self.n_unknown)
            log.error("%d planes were safe, and are damaged on the disk so that nothing can be read of them", self.n_unknown)

    def _note_appended(self, facts: PlaneFacts, position: Position, *, whole: bool = True) -> None:
        self._rows_of.setdefault(position.segment, bytearray()).extend(released_rows([facts]).tobytes())
        with self._ledger_lock:
            if whole:
                self._ledger.note(facts)
            elif not self._ledger.has(facts):
                self._ledger.note_damaged(facts)

    def _note_set_aside(self) -> None:
        """Planes of released segments that the writer found damaged are not there."""
        for found in planes_in(self.folder / DAMAGED_FOLDER):
            if isinstance(found, DamagedSlideError):
                self._damage_seen.add(found.position.segment)
                if found.facts is not None and found.position.segment <= self._released:
                    self._ledger.note_damaged(found.facts)

    def _look_at_damage(self) -> None:
        """Planes in which the writer finds damage meanwhile are not there any more; what was appended tells which they are."""
        for segment in segments(self.folder / DAMAGED_FOLDER):
            if segment in self._damage_seen or (rows := self._rows_of.get(segment)) is None:
                continue
            self._damage_seen.add(segment)
            appended = np.frombuffer(bytes(rows), RELEASED_DTYPE)  # before looking: they are on the disk
            whole = {facts.key for facts in planes_of_segment(self.folder / SPOOL_FOLDER, segment, payloads=True)}
            for facts in map(released_facts, appended):
                if facts.key not in whole:
                    with self._ledger_lock:
                        if self._ledger.has(facts):
                            self._ledger.note_damaged(facts)
                            self.acknowledged -= 1

    # the appender

    def _append_all(self) -> None:
        try:
            while not self._ending and (arrival := self._queue.get()) is not None:
                try:
                    outcome = self._end_begun(arrival) if arrival.header is None else self._taken_in(arrival)
                except _EndingError:
                    return
                except SlideError as error:
                    self._done([(arrival, error)])
                    continue
                self._appended.append((arrival, outcome))
                self._wake_syncer.set()
        finally:
            self._appender_ended = True
            self._wake_syncer.set()

    def _taken_in(self, arrival: Arrival) -> Mapping:
        """Append a plane; what will be answered once it is synced. SlideError."""
        pixels_crc = arrival.checked.result()
        with self._ledger_lock:
            facts, repeated = self._ledger.placed(arrival.header, pixels_crc)
        if not repeated:
            if self.end is not None:
                raise EndedError("the scan was ended, and takes no more planes; begin another")
            position = self._append(facts, arrival.payload)
            arrival.segment = position.segment
            self._note_appended(facts, position)
        arrival.facts, arrival.is_new = facts, not repeated
        return {"field": facts.field, "repeated": repeated}

    def _append(self, facts: PlaneFacts, payload: Buffer) -> Position:
        """Append as soon as there is room; where it lies."""
        since = time.monotonic()
        while True:
            self._rotate_if_wanted()
            reason = self._reason_to_wait(len(payload), time.monotonic() - since)
            if not reason:
                try:
                    position = self._spool.append(facts, [payload])
                except WriteError as error:
                    reason = _reason(error)
                    self._wants_rotation = error.errno not in _FULL
                else:
                    self._say_held("")
                    return position
            self._say_held(reason)
            with self._changed:
                if not (self._ending or self._giving_up):
                    self._changed.wait(self._retry_s)
                if self._ending:
                    raise _EndingError
                if self._giving_up:
                    raise EndedError("the scan was ended before there was room for this plane")

    def _reason_to_wait(self, nbytes: int, waited_s: float) -> str:
        """Why nothing can be appended now; empty where it can."""
        used = self._spool.used_nbytes
        if used and used + nbytes > self._budget:
            with suppress(WriteError):
                self._spool.rotate()  # what is closed can be released
            reason = f"the spool is full ({used >> 20} of {self._budget >> 20} MB); the slide is written as fast as it goes"
            return f"{reason}; nothing was released for {waited_s:.0f} s" if waited_s > PATIENCE_S else reason
        try:
            free = self._free_nbytes(self.folder)
        except OSError:
            return ""
        if free < nbytes + used:  # the slide needs as much again
            return f"the disk is full ({free >> 20} MB are free, and the slide needs {used >> 20} MB of them); make room on it"
        return ""

    def _rotate_if_wanted(self) -> None:
        if self._wants_rotation:
            with suppress(WriteError):
                self._spool.rotate()
                self._wants_rotation = False

    def _say_held(self, reason: str) -> None:
        if reason and not self.held:
            log.warning("held: %s", reason)
        elif self.held and not reason:
            log.warning("planes are taken in again")
        self.held = reason

    def _end_begun(self, arrival: Arrival) -> Mapping:
        """Begin the end, which is told once all before it is synced. SlideError."""
        self._giving_up = False
        self._say_held("")
        if self.end is not None:
            if bool(self.end.get("discard")) != bool(arrival.end.get("discard")):
                raise ConflictError("the scan was ended already, and otherwise; its slide is on its way")
            return {"planes": self.end.get("planes") or len(self._ledger), "repeated": True}
        with self._ledger_lock:
            n_here, n_damaged = len(self._ledger), self._ledger.n_damaged + self.n_unknown
        said = arrival.end.get("planes")
        if said is not None and not n_here <= said <= n_here + n_damaged:
            here = f"{n_here} are here" + (f", and {n_damaged} more were damaged on the disk" if n_damaged else "")
            raise ConflictError(f"the scanner speaks of {said} planes, but {here}; send the others first")
        # what is damaged was acknowledged: that it is not in the slide, where it is not, is for the writer to find
        self.end = {**arrival.end, "planes": n_here + n_damaged if said is None else said}
        return {"planes": self.end["planes"], "repeated": False}

    # the syncer

    def _sync_all(self) -> None:
        while True:
            self._wake_syncer.wait()
            self._wake_syncer.clear()
            ended = self._appender_ended  # before looking: nothing comes after it
            while self._appended:
                self._sync_batch([self._appended.popleft() for _ in range(len(self._appended))])
            if ended:
                return

    def _sync_batch(self, batch: list[tuple[Arrival, Outcome]]) -> None:
        """Sync once for all of a batch, and tell."""
        has_end = any(arrival.header is None for arrival, _ in batch)
        reached = self._spool.reached
        try:
            if reached > self._synced and (self._durability == FSYNC or has_end):
                self._syncing_since = time.monotonic()
                self._spool.sync()
                self._synced = reached
            self._spool.note_safe(reached)
        except WriteError as error:
            self._lost, self._lost_segment = error, self._spool.segment
            self._take_back(batch, error)
            return
        finally:
            self._syncing_since = None
        if any(arrival.is_new and arrival.segment <= self._lost_segment for arrival, _ in batch):
            # appended before a sync failed, which the system tells once: that this one succeeded says nothing of them
            self._take_back(batch, self._lost)
            return
        outcomes = [(arrival, self._told(arrival, outcome)) for arrival, outcome in batch]
        new = [arrival for arrival, _ in batch if arrival.is_new]
        with self._ledger_lock:  # the keeper may find damage
            self.acknowledged += len(new)
        self.acknowledged_nbytes += sum(len(arrival.payload) for arrival in new)
        self._done(outcomes)

    def _take_back(self, batch: list[tuple[Arrival, Outcome]], error: WriteError) -> None:
        self._done([(arrival, self._taken_back(arrival, error)) for arrival, _ in batch])

    def _taken_back(self, arrival: Arrival, error: WriteError) -> SlideError:
        """What the disk did not keep counts as not there, and is not tried a second time in the same place."""
        self._say_held(_reason(error))
        self._wants_rotation = True
        if arrival.header is None:
            self.end = read_json(self.folder / END_FILE)
        elif arrival.is_new:
            with self._ledger_lock:
                self._ledger.take_back(arrival.facts)
        return BusyError(f"the disk did not keep it ({_reason(error)}); send it again")

    def _told(self, arrival: Arrival, outcome: Outcome) -> Outcome:
        """What is answered now that all before is synced."""
        if arrival.header is not None:
            with self._ledger_lock:  # what it repeats may have been taken back since
                there = arrival.is_new or self._ledger.has(arrival.facts)
            return outcome if there else BusyError("the disk did not keep the plane that this one repeats; send it again")
        return outcome if outcome["repeated"] else self._end_told(arrival, outcome)

    def _end_told(self, arrival: Arrival, outcome: Outcome) -> Outcome:
        """Have the disk keep the end."""
        try:
            write_end(self.folder, **{**arrival.end, "planes": outcome["planes"]})
        except WriteError as error:
            self.end = None
            return BusyError(f"the end cannot be written ({_reason(error)}); say it again")
        return outcome

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            log.exception("the intake breaks down")
            self.failure = error


def write_end(
    folder: str | Path, *, early: bool = False, discard: bool = False, reason: str = "", planes: int | None = None
) -> None:
    """Write `end.json`: no plane comes any more. On the disk when this returns; whoever owns it at that time. WriteError.

    early    the scan was not finished by its scanner; `reason` says why
    discard  nothing of it is wanted
    planes   how many were acknowledged
    """
    end = {"early": bool(early), "discard": bool(discard), "reason": reason, "planes": planes, "at": time.time()}
    replace_json(Path(folder) / END_FILE, end, durable=True)


class _EndingError(Exception):
    """The intake ends while a plane waits for room."""


def _pixels_crc(header: PlaneHeader, payload: Buffer) -> int:
    """The checksum of a plane's pixels, after all was looked at; by a checker. SlideError."""
    try:
        pixels = checked_pixels(header, payload)
    except DamagedSlideError as error:
        raise ProtocolError(f"a plane does not decode: {error}") from error
    return header.crc if header.encoding == RAW else crc32(pixels)


def _reason(error: WriteError) -> str:
    if error.errno in _FULL:
        return "the disk is full; make room on it"
    return str(error)
