"""Something that the disk may take long for, done in a thread of its own: who looks after it goes on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Errand:
    """One piece of work, begun at once. `look` is for one thread."""

    def __init__(self, work: Callable[[], object]):
        self._work = work
        self._began = time.monotonic()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="errand", daemon=True)
        self._thread.start()

    @property
    def lasts_s(self) -> float:
        """How long ago it was begun."""
        return time.monotonic() - self._began

    def look(self) -> bool:
        """Whether the work is done; raises what it raised."""
        if self._thread.is_alive():
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait so long until it is done, or has failed; whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._failure = error
