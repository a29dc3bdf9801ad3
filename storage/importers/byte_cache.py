"""A memory of values by key, bounded in bytes: least recently used out first, each made once however many threads ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np

Arrays = np.ndarray | tuple[np.ndarray, ...]


class ByteCache:
    """Arrays, or tuples of arrays, up to `budget_nbytes` together. Any thread; a value larger than the budget is not kept."""

    def __init__(self, budget_nbytes: int):
        self.budget_nbytes = budget_nbytes
        self.nbytes = 0
        self._values: OrderedDict[Hashable, Arrays] = OrderedDict()
        self._making: dict[Hashable, Future] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Arrays]) -> Arrays:
        """The value of a key, made by `make` where it is not kept; what `make` raises reaches everybody who waits for it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            waiting = self._making.get(key)
            if waiting is None:
                mine = self._making[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        self.put(key, value)
        with self._lock:
            del self._making[key]
        mine.set_result(value)
        return value

    def put(self, key: Hashable, value: Arrays) -> None:
        """Keep a value that somebody made anyway."""
        size = _nbytes(value)
        if size > self.budget_nbytes:
            return
        with self._lock:
            if key in self._values:
                self.nbytes -= _nbytes(self._values.pop(key))
            self._values[key] = value
            self.nbytes += size
            while self.nbytes > self.budget_nbytes:
                self.nbytes -= _nbytes(self._values.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.nbytes = 0


def _nbytes(value: Arrays) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else sum(array.nbytes for array in value)
