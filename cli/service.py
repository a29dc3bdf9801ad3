"""What commands share that run until they are stopped: `serve` and `broker`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 0.5
"""How often a waiting command looks whether it shall stop: an interrupt does not end a wait on every system."""


@contextmanager
def logged() -> Iterator[None]:
    """What happens is said on standard error, a line each, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("rawmosaic")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def until_stopped(ended: Callable[[float], bool]) -> bool:
    """Wait for Ctrl+C or the system's word to end. Calls `ended(seconds)`, which waits so long and says whether the service has
    ended by itself; returns what it said last."""
    stop = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGBREAK", signal.SIGTERM)):
            before.setdefault(number, signal.signal(number, lambda *_: stop.set()))
    try:
        over = False
        while not stop.is_set() and not over:
            over = ended(LOOK_S)
        return over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
