"""One scan as the manager sees it: its folder, its two processes, and how far they are."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rawmosaic.net.acquisition.children import Child
from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.intake import write_end
from rawmosaic.net.acquisition.plan import SCAN_FILE, ScanPlan
from rawmosaic.net.addresses import is_local
from rawmosaic.storage.durable import sync_folder
from rawmosaic.storage.hdf5.claim import is_claimed
from rawmosaic.storage.opening import PART_SUFFIX

SCAN_SUFFIX, GONE_SUFFIX, SLIDE_SUFFIX, KEPT_SUFFIX, DAMAGED_SUFFIX = ".scan", ".gone", ".h5", ".kept", ".damaged"
END, PROXY_SAYS, WRITER_SAYS, PROXY_LOCK = "end.json", "proxy.json", "writer.json", "proxy.lock"

LOOK_S = 0.25
"""How often one looks at what the processes say."""

WAITING_S = 10.0
"""A scanner that was not heard for so long is waited for."""

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
        self._last_words, self._fails_again = "", False
        self._told: set[str] = set()
        options = ["--bind", means.proxy_bind, "--durability", means.durability]
        options += ["--spool-bytes", str(means.spool_nbytes), "--window-bytes", str(means.window_nbytes)]
        options += ["--insecure"] if means.insecure else []
        options += ["--keys", means.keys] if means.keys and not is_local(means.proxy_bind) else []
        package = __package__
        self.proxy = Child(f"{package}.proxy", [str(folder), *options], folder / "proxy.log")
        self.writer = Child(f"{package}.writer", [str(folder)], folder / "writer.log")

    # what others see

    @property
    def acknowledged(self) -> int:
        """Planes that are safe."""
        return _whole(self._proxy_says, "acknowledged")

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
        if end is not None and end.get("discard"):
            self._discard(now)
            return
        self._look(now)
        code = self.writer.look(now)
        if code == 0 and self.location.exists() and self._said(WRITER_SAYS).get("state") == "complete":
            self._complete()
            return
        if code is not None:
            self._note_failure()
        self.writer.keep(now)
        if end is None and self._wanted_end is None:
            self.proxy.keep(now)
            self._end_if_idle()
        else:
            self.proxy.look(now)
            self._end_as_wanted()
        self._set_state(end)

    def end(self, *, early: bool = False, discard: bool = False, reason: str = "") -> None:
        """Have the scan end as it is, without its scanner; soon. What was told first is done.

        The end is the proxy's to tell. So the proxy goes first, and what it would have told is told in its place.
        """
        if self._wanted_end is None and self._end() is None:
            self._wanted_end = {"early": early, "discard": discard, "reason": reason}
            self.proxy.tell_to_end()

    def close(self) -> None:
        """End the processes in order, each after what it has begun; the scan goes on when it is taken up again."""
        for child in (self.proxy, self.writer):
            child.tell_to_end()
        for child in (self.proxy, self.writer):
            child.end()

    def tell_to_end(self) -> None:
        """The first half of `close`: tell the processes, and do not wait."""
        for child in (self.proxy, self.writer):
            child.tell_to_end()

    # parts of a step

    def _look(self, now: float) -> None:
        """Take in what the processes say about themselves, twice as often as they say it."""
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            self._look_now()

    def _look_now(self) -> None:
        for child, name in ((self.proxy, PROXY_SAYS), (self.writer, WRITER_SAYS)):
            said = self._said(name)
            if child.pid is None or said.get("pid") != child.pid or said == self._left_behind:
                if child is self.proxy:
                    self.address = ""
                    self._left_behind = said
                if name == PROXY_SAYS and said:  # what was counted is still true
                    said = {**said, "held": "", "planes_per_s": 0.0, "bytes_per_s": 0.0}
            elif child is self.proxy:
                self.address = _text(said, "address")
            if said:
                if child is self.proxy:
                    self._proxy_says = said
                else:
                    self._writer_says = said

    def _note_failure(self) -> None:
        """A writer that says the same last words as the one before it will not get on, however long it tries each time."""
        said = self._said(WRITER_SAYS)
        words = _text(said, "error") if said.get("state") == "failed" else ""
        self._fails_again, self._last_words = bool(words) and words == self._last_words, words

    def _set_state(self, end: Mapping | None) -> None:
        needed = (self.writer, self.proxy) if end is None else (self.writer,)
        failing = [child for child in needed if child.hopeless]
        self.error = _text(self._writer_says, "error")
        given_up = self.writer.running and self._writer_says.get("state") == "failed"
        if failing or given_up or self._fails_again:
            self.error = (
                self.error
                or self._last_words
                or f"a process of the scan fails again and again: {_last_line((failing or [self.writer])[0])}"
            )
            self._say_once("failed", logging.ERROR, "%s: %s; its planes are kept", self.plan.name, self.error)
            self.state = State.FAILED
        elif end is not None:
            self._say_once("finishing", logging.INFO, "%s: all planes are there; the slide is completed", self.plan.name)
            self.state = State.FINISHING
        else:
            heard = _number(self._proxy_says, "last_heard_s_ago", WAITING_S)
            self.state = State.ACQUIRING if self.address and heard < WAITING_S else State.WAITING

    def _end_if_idle(self) -> None:
        """End a scan that nothing was heard of for long."""
        heard = _number(self._proxy_says, "last_heard_s_ago", 0.0)
        if self.proxy.running and self._proxy_says.get("pid") == self.proxy.pid and heard > self.means.idle_s:
            log.warning("%s: nothing was heard for %.0f s; it is finished as it is", self.plan.name, heard)
            self.end(early=True, reason=f"nothing was heard of the scanner for {self.means.idle_s:.0f} s")

    def _end_as_wanted(self) -> None:
        """Tell the end once no proxy is there, not even one that another manager started."""
        if self._wanted_end is not None and not self.proxy.running and not is_claimed(self.folder / PROXY_LOCK):
            if self._end() is None:  # else the proxy told it in its last moment
                write_end(self.folder, **self._wanted_end)
            self._wanted_end = None

    def _complete(self) -> None:
        if self.proxy.running:
            self.proxy.tell_to_end()
            self.proxy.end()
        self._look_now()
        # a proxy that was killed may not have said how many there were in the end: the end does, or who verified them
        planes = max(self.acknowledged, _whole(self._end() or {}, "planes"), _whole(self._writer_says, "written"))
        self._proxy_says = {**self._proxy_says, "acknowledged": planes}
        self._on_over(self, State.COMPLETE)
        clear_away(self.folder)
        self.address, self.error, self.state = "", "", State.COMPLETE
        log.info("%s: complete, %d planes in %s", self.plan.name, self.acknowledged, self.location)

    def _discard(self, now: float) -> None:
        self.tell_to_end()
        self.proxy.look(now)
        self.writer.look(now)
        if self.proxy.running or self.writer.running:
            return
        for suffix in (PART_SUFFIX, KEPT_SUFFIX, DAMAGED_SUFFIX):
            self.location.with_name(self.location.name + suffix).unlink(missing_ok=True)
        self._on_over(self, State.DISCARDED)
        clear_away(self.folder)
        self.address, self.state = "", State.DISCARDED
        log.info("%s: discarded, as its scanner wished", self.plan.name)

    # files

    def _end(self) -> dict | None:
        """What was told about the end; None while planes may come."""
        said = self._said(END)
        if not said and (self.folder / END).exists():
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
