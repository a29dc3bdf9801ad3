"""The slide writer of one scan, a process of its own: spool → virtual slide (docs/design/acquisition.md).

    python -m rawmosaic.net.acquisition.writer SCAN_FOLDER

It may be killed at any moment; the next one goes on. It ends in order when its standard input closes.

    copying ──► writing ──► sealing ──► verifying ──► complete
       └───────────┴───────────┴────────────┴───────► failed: what happened is told, everything is kept, another one tries again
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rawmosaic.net.acquisition.acknowledged import missing_planes, was_acknowledged
from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.lifeline import claimed, end_of_input
from rawmosaic.net.acquisition.plan import ScanPlan
from rawmosaic.net.acquisition.releasing import Expected, Releaser
from rawmosaic.net.acquisition.resuming import Left, take_up
from rawmosaic.net.acquisition.scan_folder import (
    DAMAGED_FOLDER,
    END_FILE,
    PROXY_FILE,
    RELEASED_FILE,
    SPOOL_FOLDER,
    WRITER_FILE,
    WRITER_LOCK,
)
from rawmosaic.net.acquisition.spool import (
    PlaneFacts,
    SpoolReader,
    payload_pixels,
    read_released,
    released_facts,
    segment_path,
)
from rawmosaic.net.acquisition.writer_status import WriterStatus
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.durable import sync_file, sync_folder
from rawmosaic.storage.errors import (
    AcquisitionError,
    DamagedSlideError,
    OutOfRangeError,
    PlaneMissingError,
    SlideError,
    WriteError,
)
from rawmosaic.storage.hdf5.copying import copy_planes
from rawmosaic.storage.hdf5.final_name import take_final_name
from rawmosaic.storage.hdf5.left_behind import check_readable, damaged_of, holds_nothing, kept_of, new_damaged_of, part_of
from rawmosaic.storage.hdf5.letting_go import PAUSE_S as IN_USE_PAUSE_S
from rawmosaic.storage.hdf5.letting_go import patiently
from rawmosaic.storage.hdf5.overview import FROM_FIELDS, add_overview
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.stored_crcs import StoredCrcs
from rawmosaic.storage.hdf5.torn import TornSlide
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.hdf5.writer import SlideWriter
from rawmosaic.storage.slide import PositionSet, new_fields

COMPLETE, FAILED, ENDED = 0, 1, 3
"""Exit codes. ENDED: standard input closed before the slide was complete."""

PAUSE_S = 0.02
FULL_PAUSE_S = 1.0
FAST_FROM, NORMAL_BELOW = 0.5, 0.25
"""How full the spool is when compressing takes less effort, and when it takes the usual effort again."""

_FULL_DISK = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

Key = tuple[int, int, int, int]
"""(field, channel, z, t)."""

log = logging.getLogger("rawmosaic.net.acquisition")


def passed(step: str) -> None:
    """A step that a kill may follow was done; tests put one here."""


class EndedError(Exception):
    """Standard input was closed."""


class ScanWriter:
    """Writes the slide of the scan in a folder. `run` does all of it, and may be called again by another process after a kill.

    `over` is set when the process is to end in order.
    """

    def __init__(self, folder: str | Path, over: threading.Event):
        self.folder, self._over = Path(folder), over
        self.plan = ScanPlan.load(self.folder)
        self.location = self.folder.resolve().parent / f"{self.plan.name}.h5"
        self._part = part_of(self.location)
        self._writer: SlideWriter | None = None
        self._stored: StoredCrcs | None = None
        self._status = WriterStatus(self.folder / WRITER_FILE, self._look)
        self._status.say(
            planned_fields=None if self.plan.fields is None else len(self.plan.fields),
            codec=self.plan.codec,
            state="copying" if kept_of(self.location).exists() or self._part.exists() else "writing",
        )
        self._trouble = ""
        self._fields_seen: set[int] = set()

    def run(self) -> int:
        """Go on until the slide is complete, or `over`; the exit code."""
        with self._status as status:
            try:
                left = take_up(self.location, self.plan.uid, self._wait_for_others)
                self._say_trouble("")
                if left in (Left.NEW, Left.KEPT):
                    self._write(left)
                if left is not Left.NAMED:
                    self._complete()
            except EndedError:
                return ENDED
            except (SlideError, OSError) as error:
                if self._over.is_set():
                    return ENDED
                log.error("%s", error)
                status.say(state="failed", error=str(error))
                return FAILED
            status.say(state="complete", error="")
            return COMPLETE

    # the growing slide

    def _write(self, left: Left) -> None:
        """From the kept slide and the spool to a sealed one."""
        self._writer = writer = self._begun()
        try:
            passed("begun")
            if left is Left.KEPT:
                self._status.say(state="copying")
                self._copy_kept(writer)
            self._status.say(state="writing")
            end = self._write_spool(writer)
            self._status.say(state="sealing")
            passed("written")
            writer.seal(ended_early=_reason(end))
            self._stored = writer.stored
            passed("sealed")
        finally:
            writer.leave()
            self._writer = None

    def _begun(self) -> SlideWriter:
        """A new file; a full disk is waited for."""
        plan = self.plan
        planned = (
            {} if plan.fields is None else {"planned": PositionSet(np.stack([plan.fields["x_um"], plan.fields["y_um"]], -1))}
        )
        while True:
            try:
                begun = SlideWriter(
                    self.location,
                    field_shape=plan.field_shape,
                    channels=plan.channels,
                    header=plan.header,
                    size_z=plan.size_z,
                    size_t=plan.size_t,
                    scenes=plan.scenes,
                    codec=plan.codec,
                    fields=plan.fields,
                    position_sets=planned,
                    orientation=None if plan.orientation is None else np.asarray(plan.orientation, np.float64),
                    scan_uid=plan.uid,
                    irreplaceable=True,
                )
                self._say_trouble("")
                return begun
            except WriteError as error:
                if getattr(error.__cause__, "errno", None) not in _FULL_DISK:
                    raise
                self._say_trouble(f"the disk is full; make room, and the slide is written ({error}){self._copied_from()}")
            if self._over.wait(FULL_PAUSE_S):
                raise EndedError

    def _copy_kept(self, writer: SlideWriter) -> None:
        """What is right in the slide of a writer that was killed; then that one goes."""
        kept = kept_of(self.location)
        try:
            check_readable(kept)
            with Hdf5Slide(kept) as old:
                if old.scan_uid != self.plan.uid:
                    raise WriteError("this is of another scan; move it away, and the scan is completed", location=kept)
                lost = copy_planes(old, writer, self._copied, was_acknowledged(self.folder))
            damage = f"{len(lost)} planes are damaged" if lost else ""
        except WriteError:
            raise
        except SlideError as error:
            damage = "" if holds_nothing(kept) and not self._has_released() else str(error)  # else it was no slide yet
        if damage and self._has_released():
            self._salvage(kept, writer, damage)
        writer.sync()
        passed("copied")
        if damage:  # what it has alone is told at the end, and somebody may look into the file
            log.error("%s: %s", kept, damage)
            aside = new_damaged_of(self.location)
            self._patiently(lambda: os.replace(kept, aside), kept)
        else:
            self._patiently(kept.unlink, kept)
        sync_folder(self.location.parent)
        passed("forgot kept")

    def _has_released(self) -> bool:
        return read_released(self.folder / RELEASED_FILE)[0] > 0

    def _salvage(self, kept: Path, writer: SlideWriter, damage: str) -> None:
        """What left the spool and was not copied, from a file whose tables are damaged: its tiles, by their checksums."""
        released = map(released_facts, read_released(self.folder / RELEASED_FILE)[1])
        wanted = [facts for facts in released if not writer.has_plane(*facts.key)]
        n_found = 0
        try:
            check_readable(kept)
            with TornSlide(kept, _fields_of(self.plan, wanted)) as old:
                for facts in wanted:
                    with contextlib.suppress(DamagedSlideError, PlaneMissingError):
                        plane = old.read_plane(*facts.key)
                        n_found += crc32(plane) == facts.pixels_crc and self._take_pixels(writer, facts, plane)
                    self._copied(n_found)
        except WriteError:
            raise
        except SlideError as error:
            raise DamagedSlideError(f"planes that left the spool lie in this file alone, but {error}", location=kept) from error
        log.error("%s: %d of %d planes were salvaged, without their metadata and z: %s", kept, n_found, len(wanted), damage)

    def _copied(self, number: int) -> None:
        self._status.say(written=number)
        passed("copying")
        self._raise_if_over()

    def _write_spool(self, writer: SlideWriter) -> dict:
        """Everything the spool holds and will hold, until the end was told; what was told then."""
        unreleased: dict[int, list[Expected]] = {}
        with SpoolReader(self.folder / SPOOL_FOLDER) as reader, Releaser(writer, self._released) as releaser:
            end = None
            while True:
                releaser.raise_failure()
                self._raise_if_over()
                try:
                    found = reader.next()
                except DamagedSlideError as error:
                    self._set_aside(error)
                    continue
                if found is not None:
                    facts, payload, segment = found
                    if self._take(writer, facts, payload, segment):
                        unreleased.setdefault(segment, []).append((facts.key, facts.pixels_crc))
                for closed in [number for number in unreleased if found is None or number < segment]:
                    if reader.finished_segment(closed):
                        releaser.hand_in(closed, unreleased.pop(closed))
                if found is None:
                    if end is not None:
                        releaser.finish()
                        self._look_again(writer)
                        return end
                    end = read_json(self.folder / END_FILE)
                    if end is None or end.get("discard"):
                        end = None
                        self._over.wait(PAUSE_S)
                    # else once more: what came before the end may have come since the look, and nothing comes after it

    def _look_again(self, writer: SlideWriter) -> None:
        """Take planes that were damaged when they came, and are not any more: a disk may fail for a while only."""
        with SpoolReader(self.folder / DAMAGED_FOLDER) as reader:
            while True:
                self._raise_if_over()
                try:
                    if (found := reader.next()) is None:
                        return
                except DamagedSlideError:
                    continue
                facts, payload, segment = found
                if not writer.has_plane(*facts.key):
                    self._take(writer, facts, payload, segment)

    def _take(self, writer: SlideWriter, facts: PlaneFacts, payload: bytes, segment: int) -> bool:
        """Hand one plane to the writer, unless it has it; False where no slide can have it: then its segment is set aside."""
        if not writer.has_plane(*facts.key):
            try:
                self._take_pixels(writer, facts, payload_pixels(facts, payload))
            except WriteError:
                raise
            except (DamagedSlideError, AcquisitionError, OutOfRangeError) as error:
                where = segment_path(self.folder / SPOOL_FOLDER, segment)
                self._set_aside(DamagedSlideError(f"a plane of the spool cannot be written: {error}", location=where))
                return False
            passed("plane")
        self._fields_seen.add(facts.field)
        self._status.say(written=self._status["written"] + 1, fields=len(self._fields_seen))
        return True

    @staticmethod
    def _take_pixels(writer: SlideWriter, facts: PlaneFacts, plane: np.ndarray) -> bool:
        writer.write_plane(
            plane,
            facts.channel,
            field=facts.field,
            row=facts.row,
            column=facts.column,
            x_um=facts.x_um,
            y_um=facts.y_um,
            z_um=facts.z_um or 0.0,
            scene=facts.scene,
            z=facts.z,
            t=facts.t,
            metadata=facts.metadata or None,
            checksum=facts.pixels_crc,
        )
        return True

    def _set_aside(self, error: DamagedSlideError) -> None:
        """Say that a plane of the spool cannot be written, and keep its segment beside the spool, which goes on."""
        log.error("%s", error)
        self._say_trouble(str(error))
        path = Path(error.location)
        aside = self.folder / DAMAGED_FOLDER / path.name
        try:
            if aside.exists():
                return
            aside.parent.mkdir(exist_ok=True)
            _link_or_copy(path, aside)
            sync_folder(aside.parent)
        except OSError as failure:
            raise WriteError(f"a damaged segment of the spool cannot be set aside: {failure}", location=aside) from failure

    def _released(self, segment: int, n_planes: int) -> None:
        passed("read back")
        self._status.say(now=True, releasable_segment=segment, verified=self._status["verified"] + n_planes)
        passed("released")

    # the sealed slide

    def _complete(self) -> None:
        """Look whether all is there, and right; then the slide takes its name."""
        self._status.say(state="verifying", verified=0)
        with Hdf5Slide(self._part) as slide:
            lacks_overview = slide.n_fields >= FROM_FIELDS and slide.overview is None
        if lacks_overview:
            add_overview(self._part)
        damages = verify_slide(self._part, self._verified, self._stored)
        if damages:
            raise DamagedSlideError(f"{len(damages)} planes or tables are damaged, first: {damages[0]}", location=self._part)
        passed("verified")
        with Hdf5Slide(self._part) as slide:
            missing = missing_planes(self.folder, slide)
        if missing:
            aside = [path for path in (self.folder / DAMAGED_FOLDER, *damaged_of(self.location)) if path.exists()]
            see = f"; what could still hold them: {', '.join(map(str, aside))}" if aside else ""
            raise DamagedSlideError(
                f"{missing}; the slide is finished but for them, under this name{see}",
                location=self._part,
            )
        if os.path.lexists(self.location):  # it came while this was written: renaming would delete it
            raise WriteError("another slide has this name; move it away, and the scan is completed", location=self.location)
        take_final_name(self._part, self.location, waiting=self._wait_for_others)
        passed("named")

    def _verified(self, done: int, total: int) -> None:
        self._status.say(verified=done, written=total)
        self._raise_if_over()

    # what is told

    def _look(self) -> None:
        """By the status's thread: how much effort there is time for, and whether the disk is full."""
        writer = self._writer
        if writer is None:
            return
        if self._over.is_set():
            writer.stop_waiting()
        writer.effort = effort(writer.effort, read_json(self.folder / PROXY_FILE) or {})
        codec = self.plan.codec if writer.effort == "normal" else "lz4, fast"
        self._status.say(codec=codec, error=writer.full + self._copied_from() if writer.full else self._trouble)

    def _copied_from(self) -> str:
        """What to tell of a full disk while the slide of a writer that was killed needs its size once more."""
        kept = kept_of(self.location)
        try:
            return f"; {kept.name} is copied, {kept.stat().st_size:,} bytes, and goes then: nothing is lost"
        except OSError:
            return ""

    def _patiently(self, change: Callable[[], object], path: Path) -> None:
        """Rename or delete a file, once nobody has it open."""
        before = self._trouble
        patiently(change, path, self._wait_for_others)
        if self._trouble != before:
            self._say_trouble(before)

    def _wait_for_others(self, why: str) -> None:
        """A file that is to be renamed or deleted is open in another program: say so, for a while."""
        self._say_trouble(why)
        if self._over.wait(IN_USE_PAUSE_S):
            raise EndedError

    def _say_trouble(self, text: str) -> None:
        self._trouble = text
        self._status.say(now=True, error=text)

    def _raise_if_over(self) -> None:
        if self._over.is_set():
            raise EndedError


def effort(before: str, proxy: Mapping) -> str:
    """ "fast" while the spool is filling up, "normal" once there is time again, by what the proxy says of itself."""
    used, budget = proxy.get("spool_nbytes"), proxy.get("spool_budget")
    if not all(isinstance(value, int) and value > 0 for value in (used, budget)):
        return "normal"
    if used >= FAST_FROM * budget:
        return "fast"
    return "normal" if used < NORMAL_BELOW * budget else before


def _fields_of(plan: ScanPlan, planes: Sequence[PlaneFacts]) -> np.ndarray:
    """The fields as far as these planes tell of them."""
    n_fields = 1 + max((facts.field for facts in planes), default=-1)
    fields = new_fields(n_fields, (0, 0)) if plan.fields is None else plan.fields.copy()
    for facts in planes:
        fields["height"][facts.field], fields["width"][facts.field] = facts.shape
    return fields


def _reason(end: Mapping) -> str:
    """Why the scan ended before its end; empty where it did not."""
    return str(end.get("reason") or "it was aborted") if end.get("early") else ""


def _link_or_copy(path: Path, other: Path) -> None:
    """The file under another name as well, durably; its bytes again where file systems have no second names."""
    try:
        os.link(path, other)
    except OSError:
        new = other.with_name(other.name + ".new")
        shutil.copyfile(path, new)
        with open(new, "rb+") as file:
            sync_file(file.fileno())
        os.replace(new, other)


# the process


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the slide of a scan's folder until it is complete, or until standard input closes; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rawmosaic.net.acquisition.writer",
        description="Write the slide of one scan, until it is complete or standard input closes.",
    )
    parser.add_argument("folder", type=Path, help="the scan's folder")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the keyboard is for whoever started this, who then ends it
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    over = end_of_input()
    try:
        with contextlib.ExitStack() as stack:
            if not claimed(options.folder / WRITER_LOCK, over, stack):
                return ENDED
            return ScanWriter(options.folder, over).run()
    except (SlideError, OSError) as error:
        log.error("%s", error)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
