"""What a writer says about itself: `writer.json` in the scan's folder, replaced twice a second and when something changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from rawmosaic.net.acquisition.files import overwrite_json, replace_json
from rawmosaic.storage.errors import WriteError

PERIOD_S = 0.5
MOST_ERROR = 1000
"""Characters of an error's message."""


class WriterStatus:
    """Facts that are told, in a thread of its own; `say` may be called from any.

    `look()` is called before each telling, by that thread. In use from `__enter__` on.
    """

    def __init__(self, path: Path, look: Callable[[], None] = lambda: None):
        self._path, self._look = path, look
        self._facts: dict = {
            "pid": os.getpid(),
            "state": "copying",
            "written": 0,
            "verified": 0,
            "releasable_segment": 0,
            "fields": 0,
            "planned_fields": None,
            "codec": "",
            "error": "",
        }
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer-status", daemon=True)

    def say(self, now: bool = False, **facts: object) -> None:
        """Tell these facts with the next telling, or `now`."""
        with self._lock:
            self._facts.update(facts)
        if now:
            self._tell()

    def __getitem__(self, name: str) -> object:
        return self._facts[name]

    def __enter__(self) -> WriterStatus:
        self._tell()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._tell()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._look()
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            facts = {**self._facts, "error": str(self._facts["error"])[:MOST_ERROR]}
            try:
                replace_json(self._path, facts)
            except WriteError:  # a full disk is what has to be told: the file that is there takes it without room of its own
                overwrite_json(self._path, facts)
