"""One scan as the manager sees it: its folder, its two processes, and how far they are."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from rawmosaic.net.acquisition.children import ENDING_S, KILLED_S, Child, end_all
from rawmosaic.net.acquisition.errand import Errand
from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.intake import write_end
from rawmosaic.net.acquisition.patience import Patience, stamp_of
from rawmosaic.net.acquisition.plan import ScanPlan
from rawmosaic.net.acquisition.pulse import Pulse, held_by_another, in_words, silence
from rawmosaic.net.acquisition.scan_folder import (
    DAMAGED_FOLDER,
    END_FILE,
    PROXY_FILE,
    PROXY_LOG,
    RELEASED_FILE,
    SCAN_FILE,
    SPOOL_FOLDER,
    WRITER_FILE,
    WRITER_LOG,
)
from rawmosaic.net.addresses import is_local
from rawmosaic.storage.durable import sync_folder
from rawmosaic.storage.hdf5.at_once import forget_changes
from rawmosaic.storage.hdf5.left_behind import KEPT_SUFFIX, damaged_of, is_left_by, kept_of, part_of
from rawmosaic.storage.hdf5.letting_go import deleted_unless_in_use
from rawmosaic.storage.opening import PART_SUFFIX

SCAN_SUFFIX, GONE_SUFFIX, SLIDE_SUFFIX = ".scan", ".gone", ".h5"
_UNREADABLE_END = {"early": True, "reason": "it was ended, but how cannot be read any more"}

LOOK_S = 0.25
"""How often one looks at what the processes say."""

WAITING_S = 10.0
"""A scanner that was not heard for so long is waited for."""

SILENT_S = 20.0
"""A process that has said nothing for so long is mentioned: they say how they are twice a second."""

SLOW_S = 5.0
"""An end that the disk has been taking for so long is mentioned."""

RETRY_S = 1.0
"""Before the disk is asked once more to take the end."""

CHANGED_S = 2.0
"""How often one looks, while a writer that failed is given a rest, whether something changed."""

log = logging.getLogger("rawmosaic.net.acquisition")


class State(Enum):
    """How far a scan is.

        start ──► WAITING ◄────► ACQUIRING
                     └─ finish, abort ─┴──► FINISHING ──► COMPLETE
                         (or idle)              └───────► DISCARDED

    WAITING: for its scanner, or for its own processes to be there; FINISHING: all planes are on the disk, the slide is completed.
    FAILED stands for WAITING, ACQUIRING and FINISHING while a process of the scan fails again and again: nothing is lost, it is
    tried again, and somebody should look.
    """

    WAITING = "waiting"
    ACQUIRING = "acquiring"
    FINISHING = "finishing"
    COMPLETE = "complete"
    DISCARDED = "discarded"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether nothing more happens to the scan."""
        return self in (State.COMPLETE, State.DISCARDED)


@dataclass(frozen=True)
class Means:
    """What all scans of a manager have in common: see `Manager`."""

    data: Path
    proxy_bind: str
    durability: str
    spool_nbytes: int
    window_nbytes: int
    idle_s: float
    keys: str | None
    insecure: bool
    ending_s: float = ENDING_S
    """How long processes are given to end by themselves."""


class SupervisedScan:
    """A scan in its folder ``NAME.scan``. `step` is called again and again by one thread, and does what is due; it never waits
    for a process. `on_over(scan, state)` is called before the folder of a scan goes that is over. What others may see is in
    `state`, `address`, `error` and `report`."""

    def __init__(self, plan: ScanPlan, folder: Path, means: Means, on_over: Callable[[SupervisedScan, State], None]):
        self.plan, self.folder, self.means, self._on_over = plan, folder, means, on_over
        self.location = means.data / f"{plan.name}{SLIDE_SUFFIX}"
        self.state = State.WAITING
        self.address = ""
        self.error = ""
        self._proxy_says: Mapping = {}
        self._writer_says: Mapping = {}
        self._next_look = 0.0
        self._left_behind: Mapping = {}
        """What a proxy said that is gone: after a restart of the machine, the next may have its number."""
        self._wanted_end: dict | None = None
        self._end_is_durable = self._is_written = self._is_told = False
        self._errand: Errand | None = None
        self._next_errand = 0.0
        self._hung = self._remark = ""
        self._patience, self._next_stamp = Patience(), 0.0
        self._pulses = {"proxy": Pulse(), "writer": Pulse()}
        self._silent_s = 0.0
        self._told: set[str] = set()
        options = ["--bind", means.proxy_bind, "--durability", means.durability]
        options += ["--spool-bytes", str(means.spool_nbytes), "--window-bytes", str(means.window_nbytes)]
        options += ["--insecure"] if means.insecure else []
        options += ["--keys", means.keys] if means.keys and not is_local(means.proxy_bind) else []
        package = __package__
        self.proxy = Child(f"{package}.proxy", [str(folder), *options], folder / PROXY_LOG)
        self.writer = Child(f"{package}.writer", [str(folder)], folder / WRITER_LOG)

    # what others see

    @property
    def acknowledged(self) -> int:
        """Planes that are safe."""
        return _whole(self._proxy_says, "acknowledged")

    @property
    def ended(self) -> Mapping | None:
        """What was told about the end, once the disk has it; None before."""
        return self._end() if self._end_is_durable else None

    @property
    def processes(self) -> tuple[Child, Child]:
        """Both of them, running or not."""
        return self.proxy, self.writer

    def report(self) -> dict:
        """What `status` says of the scan: plain values."""
        plan, proxy, writer = self.plan, self._proxy_says, self._writer_says
        acquired = self.acknowledged
        planned = len(plan.fields) * len(plan.channels) * plan.size_z * plan.size_t if plan.fields is not None else None
        return {
            "name": plan.name,
            "uid": plan.uid,
            "state": self.state.value,
            "location": str(self.location),
            "planes": acquired,
            "planned": planned,
            "written": _whole(writer, "written"),
            "verified": _whole(writer, "verified"),
            "planes_per_s": _number(proxy, "planes_per_s"),
            "bytes_per_s": _number(proxy, "bytes_per_s"),
            "spool_nbytes": _whole(proxy, "spool_nbytes"),
            "spool_budget": self.means.spool_nbytes,
            "held": _text(proxy, "held"),
            "last_heard_s_ago": _number(proxy, "last_heard_s_ago") if self.proxy.running else None,
            "codec": _text(writer, "codec"),
            "writer": _text(writer, "state"),
            "error": self.error,
        }

    # what happens

    def step(self, now: float) -> None:
        """Do what is due: keep the processes running, end the scan when it is idle, clear away when it is complete.

        Raises OSError where the disk does not do what is asked; it is tried again.
        """
        if self.state.over:
            return
        end = self._end()
        self._have_end_kept(end, now)
        if end is not None and end.get("discard"):
            self._discard(now)
            return
        if self._is_written:
            self._complete(now)
            return
        self._look(now)
        code = self.writer.look(now)
        if code == 0 and self.location.exists() and self._said(WRITER_FILE).get("state") == "complete":
            self._is_written = True
            self._complete(now)
            return
        if code is not None:
            self._note_failure(now)
        if self._may_write(now):
            self.writer.keep(now)
        if end is None and self._wanted_end is None:
            self.proxy.keep(now)
            self._end_if_idle()
        else:
            self.proxy.look(now)
        self._set_state(end, now)

    def end(self, *, early: bool = False, discard: bool = False, reason: str = "") -> None:
        """Have the scan end as it is, without its scanner; soon. What was told first is done. See `ended`.

        The end is the proxy's to tell. So the proxy goes first, and what it would have told is told in its place. A scan that
        fails is tried again at once.
        """
        self.hurry()
        if self._wanted_end is None and self._end() is None:
            self._wanted_end = {"early": early, "discard": discard, "reason": reason}
            self.proxy.tell_to_end()

    def hurry(self) -> None:
        """Try again at once what fails: somebody asks."""
        if self._patience.fails_again and not self.writer.running:
            self._patience.hurry()
            self.writer.hurry()

    def tell_to_end(self) -> None:
        """Tell the processes to end, and do not wait; the scan goes on when it is taken up again."""
        for child in self.processes:
            child.tell_to_end()

    def leave(self, timeout_s: float) -> None:
        """Wait so long for what the disk was asked to keep; the last thing before the manager ends."""
        if self._errand is not None:
            self._errand.wait(timeout_s)

    # parts of a step

    def _look(self, now: float) -> None:
        """Take in what the processes say about themselves, twice as often as they say it."""
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            self._look_now()
            self._feel_pulses(now)

    def _look_now(self) -> None:
        for child, name in ((self.proxy, PROXY_FILE), (self.writer, WRITER_FILE)):
            said = self._said(name)
            if child.pid is None or said.get("pid") != child.pid or said == self._left_behind:
                if child is self.proxy:
                    self.address = ""
                    self._left_behind = said
                if name == PROXY_FILE and said:  # what was counted is still true
                    said = {**said, "held": "", "planes_per_s": 0.0, "bytes_per_s": 0.0}
            elif child is self.proxy:
                self.address = _text(said, "address")
            if said:
                if child is self.proxy:
                    self._proxy_says = said
                else:
                    self._writer_says = said

    def _feel_pulses(self, now: float) -> None:
        """Note which process says nothing any more, and what may be the reason."""
        remarks = []
        for name, child, path in (("proxy", self.proxy, PROXY_FILE), ("writer", self.writer, WRITER_FILE)):
            silent_s = self._pulses[name].silent_s(now, (child.pid, *stamp_of([self.folder / path])))
            if name == "proxy":
                self._silent_s = silent_s
            if child.running and silent_s > SILENT_S:
                remarks.append(silence(name, child.pid, self._said(path).get("pid"), silent_s))
        self._remark = "; ".join(remarks)

    def _note_failure(self, now: float) -> None:
        """A writer that says the same last words as the one before it will not get on, however long it tries each time."""
        said = self._said(WRITER_FILE)
        self._patience.failed(now, _text(said, "error") if said.get("state") == "failed" else "", self._stamp())

    def _may_write(self, now: float) -> bool:
        """Whether a writer may run: one that fails reads all of the slide each time, so it rests until something changed."""
        if self._patience.left_s(now) and not self.writer.running and now >= self._next_stamp:
            self._next_stamp = now + CHANGED_S
            self._patience.look(self._stamp())
        return self.writer.running or not self._patience.left_s(now)

    def _stamp(self) -> tuple:
        """Stands for all that the writer's success rests on."""
        location, spool, aside = self.location, self.folder / SPOOL_FOLDER, self.folder / DAMAGED_FOLDER
        slides = [location.with_name(location.name + suffix) for suffix in ("", PART_SUFFIX, KEPT_SUFFIX)] + damaged_of(location)
        own = [self.folder / name for name in (SCAN_FILE, END_FILE, RELEASED_FILE)]
        return stamp_of([*slides, *own, spool, aside, *_inside(spool), *_inside(aside)])

    def _set_state(self, end: Mapping | None, now: float) -> None:
        needed = (self.writer, self.proxy) if end is None else (self.writer,)
        failing = [child for child in needed if child.hopeless]
        self.error = _text(self._writer_says, "error")
        given_up = self.writer.running and self._writer_says.get("state") == "failed"
        if failing or given_up or self._patience.fails_again:
            self.error = (
                self.error
                or self._patience.reason
                or f"a process of the scan fails again and again: {_last_line((failing or [self.writer])[0])}"
            )
            self._say_once("failed", logging.ERROR, "%s: %s; its planes are kept", self.plan.name, self.error)
            if not self.writer.running and (left_s := self._patience.left_s(now)):
                self.error += f" (tried again in {in_words(left_s)}, when its files change, or when it is told to finish)"
            self.state = State.FAILED
        elif end is not None:
            self._say_once("finishing", logging.INFO, "%s: all planes are there; the slide is completed", self.plan.name)
            self.state = State.FINISHING
        else:
            heard = _number(self._proxy_says, "last_heard_s_ago", WAITING_S) + self._silent_s
            self.state = State.ACQUIRING if self.address and heard < WAITING_S else State.WAITING
        self.error = self.error or self._hung or self._remark

    def _end_if_idle(self) -> None:
        """End a scan that nothing was heard of for long."""
        heard = _number(self._proxy_says, "last_heard_s_ago", 0.0) + self._silent_s
        if self.proxy.running and self._proxy_says.get("pid") == self.proxy.pid and heard > self.means.idle_s:
            log.warning("%s: nothing was heard for %.0f s; it is finished as it is", self.plan.name, heard)
            self.end(early=True, reason=f"nothing was heard of the scanner for {self.means.idle_s:.0f} s")

    def _have_end_kept(self, end: Mapping | None, now: float) -> None:
        """Tell the end once no proxy is there; and what it told itself is on the disk when its name is there as well."""
        if self._end_is_durable or (end is None and self._wanted_end is None):
            return
        if self._errand is None:
            if now < self._next_errand or (not self._said(END_FILE) and not self._all_gone(now, "proxy")):
                return
            self._next_errand = now + RETRY_S
            if not self._said(END_FILE):  # the proxy did not tell it in its last moment, or what it told is damaged
                self._errand = Errand(partial(write_end, self.folder, **(self._wanted_end or _UNREADABLE_END)))
            else:
                self._errand = Errand(partial(sync_folder, self.folder))
        try:
            done = self._errand.look()
        except BaseException:
            self._errand = None
            raise
        if done:
            self._errand, self._wanted_end, self._end_is_durable, self._hung = None, None, True, ""
        elif (lasts_s := self._errand.lasts_s) > SLOW_S:
            self._hung = f"the disk has been taking the scan's end for {lasts_s:.0f} s"

    def _all_gone(self, now: float, *names: str) -> bool:
        """Have processes of the scan end; whether none is there any more, not even one that another manager started.

        Never waits. What keeps them is told in `_hung`; then nothing is deleted, and no other is started in their place.
        """
        children = [getattr(self, name) for name in names]
        reasons = [reason for child in children if (reason := child.press(now, self.means.ending_s))]
        if not any(child.running for child in children):
            reasons = [f"its {name} {held}" for name in names if (held := held_by_another(self.folder, name))]
            if not reasons:
                self._hung = ""
                return True
        self._hung = "; ".join(reasons)
        return False

    def _complete(self, now: float) -> None:
        if not self._all_gone(now, "proxy"):
            self.state, self.error = State.FINISHING, self._hung
            return
        self._look_now()
        # a proxy that was killed may not have said how many there were in the end: the end does, or who verified them
        planes = max(self.acknowledged, _whole(self._end() or {}, "planes"), _whole(self._writer_says, "written"))
        self._proxy_says = {**self._proxy_says, "acknowledged": planes}
        self._be_over(State.COMPLETE)
        log.info("%s: complete, %d planes in %s", self.plan.name, self.acknowledged, self.location)

    def _discard(self, now: float) -> None:
        if not self._all_gone(now, "proxy", "writer"):
            self.state, self.error = State.FINISHING, self._hung
            return
        for path in (part_of(self.location), kept_of(self.location), *damaged_of(self.location)):
            if not self._has_gone(path):
                return
        forget_changes(part_of(self.location))
        self._be_over(State.DISCARDED)
        log.info("%s: discarded, as its scanner wished", self.plan.name)

    def _has_gone(self, path: Path) -> bool:
        """Delete a slide that this scan made, and leave what is another's; False where somebody has it open. OSError."""
        if not os.path.lexists(path):
            return True
        if not is_left_by(path, self.plan.uid):
            self._say_once(path.name, logging.WARNING, "%s: %s is not of this scan, and stays", self.plan.name, path)
            return True
        if why := deleted_unless_in_use(path):
            self.state, self.error = State.FINISHING, why
        return not why

    def _be_over(self, state: State) -> None:
        """Tell it, once, and clear away."""
        if not self._is_told:
            self._on_over(self, state)
            self._is_told = True
        clear_away(self.folder)
        self.address, self.error, self.state = "", "", state

    # files

    def _end(self) -> dict | None:
        """What was told about the end; None while planes may come."""
        said = self._said(END_FILE)
        if not said and (self.folder / END_FILE).exists():
            return {"finished": True}
        return said or None

    def _said(self, name: str) -> dict:
        """A JSON object of the scan's folder; empty where there is none (yet)."""
        return read_json(self.folder / name) or {}

    def _say_once(self, what: str, level: int, text: str, *values: object) -> None:
        if what not in self._told:
            self._told.add(what)
            log.log(level, text, *values)


def new_folder(data: Path, plan: ScanPlan) -> Path:
    """The folder of a new scan, with its plan in it, synced. SlideError, OSError; then nothing of it stays."""
    folder = data / f"{plan.name}{SCAN_SUFFIX}"
    folder.mkdir()
    try:
        plan.save(folder)
        sync_folder(data)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def found_folders(data: Path) -> list[Path]:
    """Folders of unfinished scans. What is left of finished ones is deleted."""
    for gone in sorted(data.glob(f"*{SCAN_SUFFIX}{GONE_SUFFIX}")):
        shutil.rmtree(gone, ignore_errors=True)
    found = []
    for folder in sorted(data.glob(f"*{SCAN_SUFFIX}")):
        if _was_never_answered(folder):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.is_dir():
            found.append(folder)
    return found


def _was_never_answered(folder: Path) -> bool:
    """Whether nothing but a part of a plan is there. A disk that does not answer is no proof of that."""
    try:
        return set(os.listdir(folder)) <= {f"{SCAN_FILE}.new"}
    except OSError:
        return False


def clear_away(folder: Path) -> None:
    """Delete the folder of a scan that is over: at once for whoever looks for unfinished ones, whatever happens meanwhile."""
    gone = folder.with_name(folder.name + GONE_SUFFIX)
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    sync_folder(folder.parent)
    shutil.rmtree(gone, ignore_errors=True)


def close_scans(scans: Sequence[SupervisedScan], timeout_s: float = ENDING_S, killed_s: float = KILLED_S) -> None:
    """End the processes of all scans in order, each after what it has begun; those that do not are killed.

    One that is there even then is told of and left. Takes little longer than both times, however many there are.
    """
    for child in end_all([child for scan in scans for child in scan.processes], timeout_s, killed_s):
        log.error("process %d does not end: it waits for a disk that does not answer; it is left alone: %s", child.pid, child.log)
    for scan in scans:
        scan.leave(killed_s / max(len(scans), 1))


def _inside(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError:
        return []


def _last_line(child: Child) -> str:
    said = child.said().splitlines()
    return said[-1][:300] if said else f"exit code {child.exit_code}"


def _number(said: Mapping, key: str, otherwise: float = 0.0) -> float:
    value = said.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _whole(said: Mapping, key: str) -> int:
    return int(_number(said, key))


def _text(said: Mapping, key: str) -> str:
    value = said.get(key)
    return value[:300] if isinstance(value, str) else ""
