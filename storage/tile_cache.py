"""Decoded tiles in memory: least recently used out first, within a budget in bytes. Knows no file, no thread pool and no GL."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Container, Iterable
from contextlib import suppress

import numpy as np

_SLAB_NBYTES = 8 << 20


class TileCache:
    """Tiles of one shape under integer keys. Memory comes in slabs as needed and is used again, never given back until `close`;
    the owner may add memory of its choosing before.

    A tile is first *reserved* (someone decodes into it), then *put* (anyone may look at it). Any thread.
    """

    def __init__(self, tile_shape: tuple[int, int], budget_bytes: int):
        self.tile_shape = tile_shape
        self.tile_nbytes = 2 * tile_shape[0] * tile_shape[1]
        self.capacity = max(4, budget_bytes // self.tile_nbytes)
        self._free: list[np.ndarray] = []
        self._allocated = 0
        self._tiles: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def reserve(self, pinned: Container[int] = ()) -> np.ndarray | None:
        """Room for one tile, taken from the oldest tile whose key is not pinned; None if all are."""
        with self._lock:
            if not self._free and self._allocated < self.capacity:
                self._allocate_slab()
            if self._free:
                return self._free.pop()
            for key in self._tiles:
                if key not in pinned:
                    return self._tiles.pop(key)
            return None

    def has_room(self, pinned: Container[int] = ()) -> bool:
        """Whether `reserve` would find room."""
        with self._lock:
            return bool(self._free) or self._allocated < self.capacity or any(key not in pinned for key in self._tiles)

    def put(self, key: int, tile: np.ndarray) -> None:
        """Make a reserved tile visible under its key."""
        with self._lock:
            displaced = self._tiles.pop(key, None)
            if displaced is not None:
                self._free.append(displaced)
            self._tiles[key] = tile

    def give_back(self, tile: np.ndarray) -> None:
        """Return a reserved tile that could not be filled."""
        with self._lock:
            self._free.append(tile)

    def get(self, key: int) -> np.ndarray | None:
        """The tile, now the most recently used; None if it is not here. Valid while `reserve` is told to pin it."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def __contains__(self, key: int) -> bool:
        return key in self._tiles

    def __len__(self) -> int:
        return len(self._tiles)

    @property
    def nbytes(self) -> int:
        """Bytes allocated so far."""
        return self._allocated * self.tile_nbytes

    @property
    def fresh(self) -> int:
        """Tiles for which there is memory that holds nothing yet."""
        return len(self._free)

    @property
    def unallocated(self) -> int:
        """Tiles that the budget still has room for, and no memory yet."""
        return self.capacity - self._allocated

    def add_memory(self, tiles: np.ndarray) -> None:
        """Give the cache (n, *tile_shape) uint16 memory to use, at most `unallocated` tiles; it must outlive the cache."""
        with self._lock:
            self._free.extend(tiles)
            self._allocated += len(tiles)

    def discard(self, keys: Iterable[int]) -> None:
        """Forget these tiles, if they are here."""
        with self._lock:
            self._free.extend(tile for key in keys if (tile := self._tiles.pop(key, None)) is not None)

    def clear(self) -> None:
        """Forget all tiles; their memory stays for the next ones."""
        with self._lock:
            self._free.extend(self._tiles.values())
            self._tiles.clear()

    def close(self) -> None:
        """Give all memory back."""
        with self._lock:
            self._tiles.clear()
            self._free.clear()
            self._allocated = 0

    def _allocate_slab(self) -> None:
        count = min(max(1, _SLAB_NBYTES // self.tile_nbytes), self.capacity - self._allocated)
        self._free.extend(_pages(count * self.tile_nbytes).view(np.uint16).reshape(count, *self.tile_shape))
        self._allocated += count


def _pages(nbytes: int) -> np.ndarray:
    """(nbytes,) uint8 in pages of its own, which go back to the system with it; a heap keeps some for each thread."""
    pages = mmap.mmap(-1, nbytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: a few large pages instead of two thousand faults
        with suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)
