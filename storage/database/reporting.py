"""News that must never hold up who brings them: taken at once, written to the library by a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("rawmosaic.library")

MOST_WAITING = 10_000
_END = None


class Reporter:
    """Runs actions one after the other in a background thread, which starts with the first. Any thread.

    One that fails is logged and forgotten: a later scan finds what it was about.
    """

    def __init__(self, name: str):
        self._name = name
        self._waiting: queue.Queue[tuple[str, Callable[[], object]] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def take(self, what: str, action: Callable[[], object]) -> None:
        """Have an action run soon; returns at once and never raises. `what` is said where it fails."""
        with self._lock:
            try:
                if self._closed:
                    raise queue.Full
                self._waiting.put_nowait((what, action))
            except queue.Full:
                reason = "it is closed" if self._closed else f"{MOST_WAITING} reports wait already"
                logger.warning("%s: not noted in the library: %s; a scan of the folder will find it", what, reason)
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was taken was tried; whether it was, in that time."""
        deadline = time.monotonic() + timeout_s
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                self._waiting.all_tasks_done.wait(left)
        return True

    def close(self, timeout_s: float) -> None:
        """Let what waits be tried for so long, forget the rest, end the thread; closing twice is harmless."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None:
            return
        self.flush(timeout_s)
        while True:  # whatever was not tried in that time
            try:
                what, _ = self._waiting.get_nowait() or ("", None)
            except queue.Empty:
                break
            self._waiting.task_done()
            if what:
                logger.warning("%s: not noted in the library in time; a scan of the folder will find it", what)
        self._waiting.put(_END)
        thread.join(timeout_s)

    def _run(self) -> None:
        while (news := self._waiting.get()) is not _END:
            what, action = news
            try:
                action()
            except Exception as error:  # nobody is there to be told
                logger.warning("%s: not noted in the library: %s; a scan of the folder will find it", what, error)
            finally:
                self._waiting.task_done()
        self._waiting.task_done()
