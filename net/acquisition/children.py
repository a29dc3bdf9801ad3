"""A process that somebody looks after: started, started again when it fails, with more and more patience, and ended in order.

The process ends by itself when its standard input closes. So it never outlives whoever looks after it, whatever becomes of that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FIRST_REST_S, LAST_REST_S = 0.2, 30.0
"""How long one waits before a process that failed is started again: twice as long each time."""

STEADY_S = 30.0
"""A process that ran for so long has not failed *again*."""

HOPELESS = 6
"""So many failures one after the other are told; it is tried all the same."""

ENDING_S = 30.0
"""A process that was told to end, and has not by then, is killed: what it was about to do is done by the next."""

KILLED_S = 5.0
"""One that is there so long after it was killed waits for a disk that does not answer; nobody waits for it."""

LOOK_S = 0.02

MOST_SAID = 2000
"""Characters of what a process said last."""


def child_environment() -> dict[str, str]:
    """The environment of a child: its NumPy starts no threads for matrices, of which it has none, unless somebody wants them.

    Starting one a processor takes a tenth of a second of processor time, as much as a dozen planes.
    """
    return {"OPENBLAS_NUM_THREADS": "1"} | os.environ


class Child:
    """One program of ours (`module`, with `arguments`), which is to run. Called by one thread.

    `log`: the file that what it says on standard error goes to, from its start on. Times are monotonic seconds.

    Attributes
    ----------
    failures
        How often it failed, one after the other.
    exit_code
        Of the process that ended last; None before one did.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path):
        self.module, self.arguments, self.log = module, list(arguments), log
        self.failures = 0
        self.exit_code: int | None = None
        self._process: subprocess.Popen | None = None
        self._started = self._not_before = 0.0
        self._told = False
        self._told_at: float | None = None
        self._killed_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Its number, while it is there."""
        return None if self._process is None else self._process.pid

    @property
    def hopeless(self) -> bool:
        """Whether it failed so often that somebody should look."""
        return self.failures >= HOPELESS

    def keep(self, now: float) -> None:
        """Start the process where it does not run and the time has come. Raises nothing: what cannot be started has failed."""
        self.look(now)
        if self._process is None and now >= self._not_before:
            self._start(now)

    def look(self, now: float) -> int | None:
        """Take in whether the process has ended: its exit code if it did since the last look."""
        if self._process is None:
            return None
        if (code := self._process.poll()) is None:
            if now - self._started > STEADY_S:  # whatever it was that made it fail, it is over
                self.failures = 0
            return None
        self._ended(now, code)
        return code

    def tell_to_end(self) -> None:
        """Close its standard input; it ends as soon as it can."""
        self._told = True
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def press(self, now: float, patience_s: float = ENDING_S) -> str:
        """Have it end, without waiting: told first, killed once that was `patience_s` ago. To be called until it is gone.

        Returns why it is still there where not even that helped; empty as long as there is hope, and once it is gone.
        """
        self.look(now)
        if self._process is None:
            return ""
        if self._told_at is None:
            self.tell_to_end()
            self._told_at = now
        if self._killed_at is None and now - self._told_at >= patience_s:
            self.kill()
            self._killed_at = now
        if self._killed_at is None or now - self._killed_at < KILLED_S:
            return ""
        return f"process {self.pid} does not end though it was killed: it waits for a disk that does not answer"

    def end(self, timeout_s: float = ENDING_S) -> bool:
        """Tell it to end and wait for that; kill it where it does not. False where it is there still, as in `press`."""
        return not end_all([self], timeout_s)

    def hurry(self) -> None:
        """Have the next `keep` start it, however often it failed."""
        self._not_before = 0.0

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    def said(self) -> str:
        """The end of what it said on standard error."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - MOST_SAID))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def _start(self, now: float) -> None:
        self._started, self._told, self._told_at, self._killed_at = now, False, None, None
        command = [sys.executable, "-m", self.module, *self.arguments]
        try:
            with contextlib.ExitStack() as stack:
                try:
                    errors = stack.enter_context(self.log.open("wb"))
                except OSError:  # a full disk is no reason not to work
                    errors = subprocess.DEVNULL
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    # an interrupt at the keyboard is for whoever looks after it, who then ends it in order
                    start_new_session=True,
                    creationflags=_CREATION_FLAGS,
                    env=child_environment(),
                )
        except OSError:
            self._failed(now)

    def _ended(self, now: float, code: int) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process, self.exit_code = None, code
        if not self._told:  # whatever its exit code says, it was to run
            self._failed(now)

    def _failed(self, now: float) -> None:
        self.failures = 1 if now - self._started > STEADY_S else self.failures + 1
        self._not_before = now + min(FIRST_REST_S * 2 ** min(self.failures - 1, 16), LAST_REST_S)


def end_all(children: Sequence[Child], timeout_s: float = ENDING_S, killed_s: float = KILLED_S) -> list[Child]:
    """Tell processes to end, wait for all of them so long, kill the others; those that are still there `killed_s` later."""
    for child in children:
        child.tell_to_end()
    left = _left_after(children, timeout_s)
    for child in left:
        child.kill()
    return _left_after(left, killed_s)


def _left_after(children: Sequence[Child], timeout_s: float) -> list[Child]:
    deadline = time.monotonic() + timeout_s
    while True:
        now = time.monotonic()
        for child in children:
            child.look(now)
        left = [child for child in children if child.running]
        if not left or now >= deadline:
            return left
        time.sleep(LOOK_S)


_CREATION_FLAGS = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0)
