"""Compressed tiles in memory: least recently used out first, within a budget in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

_ENTRY_NBYTES = 200
"""What an entry takes beside its bytes, roughly."""


class EncodedTiles:
    """Compressed tiles under any keys; empty where nothing was acquired. Any thread."""

    def __init__(self, budget_bytes: int):
        self.budget_bytes = budget_bytes
        self.nbytes = 0
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> bytes | None:
        """The tile, now the most recently used; None if it is not here."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: bytes) -> None:
        """Keep a tile, if it is not larger than all the budget."""
        with self._lock:
            displaced = self._tiles.pop(key, None)
            if displaced is not None:
                self.nbytes -= len(displaced) + _ENTRY_NBYTES
            if len(tile) + _ENTRY_NBYTES > self.budget_bytes:
                return
            self._tiles[key] = tile
            self.nbytes += len(tile) + _ENTRY_NBYTES
            while self.nbytes > self.budget_bytes:
                self.nbytes -= len(self._tiles.popitem(last=False)[1]) + _ENTRY_NBYTES

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tiles

    def __len__(self) -> int:
        return len(self._tiles)
