"""Packed tiles that still lack fields: kept in memory while they grow, the longest untouched set aside where there are many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.pyramid import TileKey, Tiling

Tile = tuple[TileKey, np.ndarray]


@dataclass
class _Pack:
    tile: np.ndarray
    filled: int = 0
    changed: bool = False


class OpenPacks:
    """The packed tiles of a slide that is being written. Its owner's lock guards it.

    `stored(key)` gives back a tile that was set aside.
    """

    def __init__(self, tiling: Tiling, budget_nbytes: int, stored: Callable[[TileKey], np.ndarray]):
        self._tiling, self._stored = tiling, stored
        self._kept = max(1, budget_nbytes // tiling.tile_nbytes)
        self._packs: OrderedDict[TileKey, _Pack] = OrderedDict()
        self._aside: dict[TileKey, int] = {}

    def __len__(self) -> int:
        return len(self._packs) + len(self._aside)

    def add(self, plane: np.ndarray, level: int, slot: int, channel: int, z: int, t: int) -> Tile | None:
        """Put a field into its tile; the tile if it is complete now, and forgotten."""
        cut = self._tiling.levels[level]
        key = TileKey(level, slot // cut.fields_per_tile, channel, z, t)
        pack = self._packs.pop(key, None) or self._taken_back(key)
        row, column = cut.slot_origin(slot)
        pack.tile[row : row + plane.shape[0], column : column + plane.shape[1]] = plane
        pack.filled += 1
        pack.changed = True
        if pack.filled == cut.fields_per_tile:
            return key, pack.tile
        self._packs[key] = pack
        return None

    def changed(self) -> Iterator[Tile]:
        """The tiles that a field came into since this was asked last."""
        for key, pack in self._packs.items():
            if pack.changed:
                pack.changed = False
                yield key, pack.tile

    def beyond_budget(self) -> Iterator[Tile]:
        """The tiles that memory has no room for: to be stored, and to be given back when another field comes."""
        while len(self._packs) > self._kept:
            key, pack = self._packs.popitem(last=False)
            self._aside[key] = pack.filled
            yield key, pack.tile

    def rest(self) -> Iterator[Tile]:
        """Every tile that never became complete, at the end; then there is none."""
        while self._packs:
            key, pack = self._packs.popitem(last=False)
            yield key, pack.tile
        while self._aside:
            key, _ = self._aside.popitem()
            yield key, self._stored(key)

    def _taken_back(self, key: TileKey) -> _Pack:
        if key in self._aside:
            return _Pack(self._stored(key), self._aside.pop(key))
        return _Pack(np.zeros(self._tiling.tile_shape, np.uint16))
