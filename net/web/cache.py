"""Encoded tiles by their name, the least recently used out first, within a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

BYTES_PER_ENTRY = 512
"""What an entry takes beside its bytes, about."""


class BytesCache:
    """Bytes by key; `nbytes` never exceeds the budget. Any thread."""

    def __init__(self, budget_bytes: int):
        self.budget_bytes, self.nbytes = budget_bytes, 0
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> bytes | None:
        """The bytes of a key, now the most recently used, or None."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep the bytes, at the cost of the least recently used; what is larger than the budget is not kept."""
        with self._lock:
            before = self._entries.pop(key, None)
            if before is not None:
                self.nbytes -= len(before) + BYTES_PER_ENTRY
            if len(value) + BYTES_PER_ENTRY > self.budget_bytes:
                return
            self._entries[key] = value
            self.nbytes += len(value) + BYTES_PER_ENTRY
            while self.nbytes > self.budget_bytes:
                _, oldest = self._entries.popitem(last=False)
                self.nbytes -= len(oldest) + BYTES_PER_ENTRY
