"""The acquisition server's programs, each of which can be killed at a step: python kill_points.py ORDERS ROLE ARGUMENT…

A step that a kill may follow is `passed`. Who is told to kill at it finds the order in the folder ORDERS: see `order`. There each
program also says which process it is, and what it logs as an error. What this adds does nothing where no order is given.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SERVE, PROXY, WRITER = ROLES = ("serve", "proxy", "writer")
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
ERRORS, DONE = "errors", "done"
FULL = "full disk"
"""While a file of this name is among the orders, nothing more can be written to the spool and the slide."""

SEGMENT_NBYTES = 1 << 15
"""Of the spool: some fifteen planes of 24 × 32 pixels."""

STEPS = {
    "serve": ("made a folder", "saved a plan", "before remembering", "remembered", "before clearing", "renamed", "clearing"),
    "proxy": (
        "half appended",
        "appended",
        "synced",
        "marked",
        "rotated",
        "before noting released",
        "noted released",
        "released",
        "before the end",
        "ended",
    ),
    "writer": (
        "before putting aside",
        "put aside",
        "begun",
        "copying",
        "copied",
        "forgot kept",
        "plane",
        "read back",
        "released",
        "written",
        "before noting",
        "noted",
        "carrying over",
        "carried over",
        "sealed",
        "verified",
        "before naming",
        "named",
    ),
}
"""What each role passes, in the order in which it does at first."""


def order(orders: Path, role: str, step: str, times: int = 1, others: Sequence[str] = ()) -> Path:
    """Have whoever passes the step for the `times`th time kill itself, after it has killed the others. The file goes then."""
    path = orders / f"{role} {step}"
    fresh = orders / "fresh order"
    fresh.write_text(json.dumps({"times": times, "others": list(others)}))
    os.replace(fresh, path)
    return path


def pid_of(orders: Path, role: str) -> int | None:
    """Which process a role was last; None before the first."""
    try:
        return int((orders / f"{role}.pid").read_text())
    except (OSError, ValueError):
        return None


def killed(orders: Path, role: str, pid: int | None = None) -> bool:
    """Kill a role's process at once; whether there was one. Another program that has its number by now is let be."""
    pid = pid_of(orders, role) if pid is None else pid
    if pid is None or not _is_ours(pid, orders):
        return False
    try:
        os.kill(pid, KILL)
    except OSError:
        return False
    return True


def alive(orders: Path, role: str) -> bool:
    """Whether a role's process is there."""
    pid = pid_of(orders, role)
    return pid is not None and _is_ours(pid, orders)


def ours(orders: Path) -> list[int]:
    """All processes that were started with these orders; empty where the system does not tell."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_ours(int(path.name), orders)]


def _is_ours(pid: int, orders: Path) -> bool:
    if not os.path.isdir("/proc/self"):
        return True
    try:
        return str(orders).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for one that has ended
    except OSError:
        return False


class Steps:
    """What a process does at its steps."""

    def __init__(self, orders: Path, role: str):
        self._orders, self._role = orders, role
        self._passed: Counter[str] = Counter()

    def passed(self, step: str) -> None:
        """A step was done: die here, if that was ordered."""
        path = self._orders / f"{self._role} {step}"
        try:
            told = json.loads(path.read_text())
        except OSError:
            return
        self._passed[step] += 1
        if self._passed[step] < told["times"]:
            return
        with (self._orders / DONE).open("a") as done:
            done.write(f"{self._role} {step}\n")
        path.unlink(missing_ok=True)
        for role in told["others"]:
            killed(self._orders, role)
        os.kill(os.getpid(), KILL)
        time.sleep(60)  # where a kill takes its time

    def around(self, place: Any, name: str, before: str = "", after: str = "") -> None:
        """Have a function (of a module or a class) pass a step before, and another after."""
        real: Callable = getattr(place, name)

        def stepped(*arguments: Any, **options: Any) -> Any:
            if before:
                self.passed(before)
            result = real(*arguments, **options)
            if after:
                self.passed(after)
            return result

        setattr(place, name, stepped)


class _Told(logging.Handler):
    """Errors go into a file of the orders as well."""

    def __init__(self, orders: Path, role: str):
        super().__init__(logging.ERROR)
        self._path, self._role = orders / ERRORS, role

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage() + ("\n" + "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else "")
        tell_error(self._path.parent, self._role, text)


def tell_error(orders: Path, role: str, text: str) -> None:
    """Note something that should not have happened."""
    with (orders / ERRORS).open("a") as errors:
        errors.write(f"{role} {os.getpid()}: {text.strip()}\n")


# the roles


def run_server(steps: Steps, orders: Path, arguments: Sequence[str]) -> None:
    """`rawmosaic acquire serve`, whose processes can be killed at their steps as well."""
    from rawmosaic.cli.main import run
    from rawmosaic.net.acquisition import children, finished_scans, manager, supervised_scan

    class Child(children.Child):
        def __init__(self, module: str, arguments: Sequence[str], log: Path):
            super().__init__("kill_points", [str(orders), module.rpartition(".")[2], *arguments], log)

    def cleared_by_halves(folder: Path, **options: Any) -> None:
        files = sorted(path for path in folder.glob("*") if path.is_file())
        if files:
            files[0].unlink()
            steps.passed("clearing")
        shutil.rmtree(folder, **options)

    shutil = supervised_scan.shutil
    children.FIRST_REST_S, children.LAST_REST_S = 0.02, 0.2
    children.HOPELESS = 1000
    supervised_scan.Child = Child
    supervised_scan.shutil = SimpleNamespace(rmtree=cleared_by_halves)
    steps.around(supervised_scan.ScanPlan, "save", "made a folder", "saved a plan")
    steps.around(finished_scans.FinishedScans, "add", "before remembering", "remembered")
    steps.around(supervised_scan, "clear_away", "before clearing")
    steps.around(supervised_scan, "sync_folder", "renamed")
    manager.log.addHandler(_Told(orders, SERVE))
    sys.argv[1:] = ["acquire", "serve", *arguments]
    run()


def run_proxy(steps: Steps, orders: Path, arguments: Sequence[str]) -> int:
    """A slide proxy, with small segments."""
    from rawmosaic.net.acquisition import intake, proxy, spool

    def halves_written(descriptor: int, buffers: Sequence[Any]) -> None:
        check_room(orders)
        if (orders / f"{PROXY} half appended").exists():
            data = b"".join(bytes(buffer) for buffer in buffers)
            whole(descriptor, [data[: len(data) // 2]])
            steps.passed("half appended")
            whole(descriptor, [data[len(data) // 2 :]])
        else:
            whole(descriptor, buffers)

    def released(self: spool.SpoolWriter, segment: int) -> None:
        before = self.used_nbytes
        release(self, segment)
        if self.used_nbytes < before:
            steps.passed("released")

    whole, spool._write_all = spool._write_all, halves_written
    release = spool.SpoolWriter.release
    intake.SEGMENT_NBYTES = intake.SMALLEST_SEGMENT_NBYTES = SEGMENT_NBYTES
    steps.around(spool.SpoolWriter, "append", after="appended")
    steps.around(spool.SpoolWriter, "sync", after="synced")
    steps.around(spool.SpoolWriter, "_begin", after="rotated")
    spool.SpoolWriter.release = released
    steps.around(spool.SpoolWriter, "note_safe", after="marked")
    steps.around(spool.ReleasedList, "append", "before noting released", "noted released")
    steps.around(intake, "write_end", "before the end", "ended")
    proxy.log.addHandler(_Told(orders, PROXY))
    return proxy.main(arguments)


def run_writer(steps: Steps, orders: Path, arguments: Sequence[str]) -> int:
    """A slide writer, which publishes soon."""
    from rawmosaic.net.acquisition import resuming, writer
    from rawmosaic.storage.hdf5 import at_once, room
    from rawmosaic.storage.hdf5 import writer as slide_writer

    class Carrying:
        def __init__(self, raw: Any):
            self._raw = raw

        def write(self, data: Any) -> int:
            steps.passed("carrying over")
            return self._raw.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._raw, name)

    def carried_over(raw: Any, *rest: Any) -> None:
        carry_over(Carrying(raw), *rest)
        steps.passed("carried over")

    def taken(self: room.Room, end: int) -> None:
        check_room(orders)
        take(self, end)

    take, room.Room._take = room.Room._take, taken
    slide_writer.PUBLISH_S = 0.02
    writer.passed = steps.passed
    carry_over, at_once._carry_over = at_once._carry_over, carried_over
    steps.around(at_once, "_keep", "before noting", "noted")
    steps.around(resuming, "sync_folder", "before putting aside", "put aside")
    steps.around(writer, "take_final_name", "before naming")
    writer.log.addHandler(_Told(orders, WRITER))
    return writer.main(arguments)


def check_room(orders: Path) -> None:
    """Fail as a full disk does, where it is to be full."""
    if (orders / FULL).exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def main(arguments: Sequence[str]) -> int:
    """Be a role until it is over; its exit code."""
    orders, role = Path(arguments[0]), arguments[1]
    fresh = orders / f"{role}.{os.getpid()}.new"
    fresh.write_text(str(os.getpid()))
    os.replace(fresh, orders / f"{role}.pid")
    steps = Steps(orders, role)
    run = {SERVE: run_server, PROXY: run_proxy, WRITER: run_writer}[role]
    try:
        return run(steps, orders, arguments[2:]) or 0
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code not in (0, None):
            tell_error(orders, role, "".join(traceback.format_exception(error)))
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
