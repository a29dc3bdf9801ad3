"""Which tile lies in which texture layer: least recently used out first, never one that this frame draws. Knows no GL."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

NOTHING = -1
"""The layer of a tile that is not resident."""


class TextureCache:
    """Integer tile keys → layers 0 … capacity − 1. Only the GL thread uses it."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self._layer_of: dict[int, int] = {}
        self._key_of = np.full(capacity, -1, np.int64)
        self._used_at = np.full(capacity, -1, np.int64)
        self._frame = 0

    def __len__(self) -> int:
        return len(self._layer_of)

    def __contains__(self, key: int) -> bool:
        return key in self._layer_of

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """(n,) float32 layers of (n,) int64 keys, NOTHING where a tile is not resident."""
        get = self._layer_of.get
        return np.fromiter((get(key, NOTHING) for key in keys.tolist()), np.float32, len(keys))

    def begin_frame(self, layers: np.ndarray, stand_ins: np.ndarray) -> None:
        """What this frame draws: `allocate` leaves `layers` alone and takes `stand_ins` only when nothing else is left."""
        self._frame += 2
        self._used_at[stand_ins] = self._frame - 1
        self._used_at[layers] = self._frame

    def allocate(self, key: int) -> int | None:
        """A layer for a tile that is to be uploaded, evicting the least recently used; None if all are wanted in view."""
        if key in self._layer_of:
            return self._layer_of[key]
        layer = int(self._used_at.argmin())
        if self._used_at[layer] >= self._frame > 0:
            return None
        evicted = int(self._key_of[layer])
        if evicted >= 0:
            del self._layer_of[evicted]
        self._layer_of[key] = layer
        self._key_of[layer] = key
        self._used_at[layer] = self._frame
        return layer

    def keys_of(self, layers: np.ndarray) -> list[int]:
        """The keys whose tiles lie in these layers."""
        return self._key_of[layers].tolist()

    def discard(self, keys: Iterable[int]) -> None:
        """Forget these tiles, if they are here; their layers are the first to be used again."""
        for key in keys:
            layer = self._layer_of.pop(key, None)
            if layer is not None:
                self._key_of[layer] = self._used_at[layer] = -1

    def clear(self) -> None:
        """Forget every tile."""
        self._layer_of.clear()
        self._key_of[:] = -1
        self._used_at[:] = -1
