"""Slots on the signals of a pymmcore-plus run, called by the thread that emits them: a slot that waits makes the run wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

LOOK_S = 0.2
"""A wait is made of such pieces, so that it sees what else happens."""

FIRST = 1000
"""Priority of a slot: another one that fails keeps psygnal from calling those after it."""


def connect(signal: Any, slot: Callable[..., None]) -> Callable[[], None]:
    """Have `slot` called whenever the signal is emitted; returns what ends that. Knows signals of psygnal and of Qt."""
    module = type(signal).__module__
    if module.startswith(("PySide", "PyQt")):  # else a slot of another thread is put into its queue
        token = signal.connect(slot, import_module(module).Qt.ConnectionType.DirectConnection)
    else:
        token = _connect_first(signal, slot)
    taken = slot if token is None or isinstance(token, bool) else token

    def disconnect() -> None:
        with suppress(Exception):  # the core is gone, or somebody disconnected everything
            signal.disconnect(taken)

    return disconnect


def _connect_first(signal: Any, slot: Callable[..., None]) -> Any:
    try:
        return signal.connect(slot, priority=FIRST)
    except TypeError:  # a psygnal that knows no priorities
        return signal.connect(slot)


class Brake:
    """Keeps a run from going further ahead of a handler than memory should hold: a slot in the run's own thread.

    Made by the thread that takes the frames in: where that thread dies, nobody is kept waiting for it.
    """

    def __init__(self, frame_ready: Any, most_ahead: int):
        self._most = max(2, most_ahead)
        self._ahead, self._open = 0, False
        self._changed = threading.Condition()
        self._taker = threading.current_thread()
        self._disconnect = connect(frame_ready, lambda *_: self._one_more())

    @property
    def holds(self) -> bool:
        """Whether the run waits."""
        return self._ahead > self._most and not self._open

    def one_less(self) -> None:
        """A frame was taken in."""
        with self._changed:
            self._ahead -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Hold nobody any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()
        self._disconnect()  # after the waiting one was let go: it holds the signal's lock

    def _one_more(self) -> None:
        with self._changed:
            self._ahead += 1
            while self._ahead > self._most and not self._open and self._taker.is_alive():
                self._changed.wait(LOOK_S)
