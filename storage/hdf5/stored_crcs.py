"""What a writer remembers of the bytes that it has stored, so that a slide which it finishes itself is proven without decoding
all of it once more: the same bytes decode to the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rawmosaic.storage.pyramid import Tiling

_GROW_ROWS = 256


class CrcTable:
    """32 bits for each of many things by number, channel, z and t, in 5 bytes each. One thread notes, any reads afterwards."""

    def __init__(self, planes: tuple[int, int, int]):
        self._crcs = np.zeros((0, *planes), np.uint32)
        self._known = np.zeros((0, *planes), bool)

    def note(self, number: int, channel: int, z: int, t: int, crc: int) -> None:
        """Set the CRC of one, in the place of an older one."""
        if number >= len(self._crcs):
            more = max(number + 1 - len(self._crcs), _GROW_ROWS, len(self._crcs) // 4)
            self._crcs, self._known = (_longer(table, more) for table in (self._crcs, self._known))
        self._crcs[number, channel, z, t] = crc
        self._known[number, channel, z, t] = True

    def get(self, number: int, channel: int, z: int, t: int) -> int | None:
        """The CRC of one; None where none was noted."""
        if number >= len(self._known) or not self._known[number, channel, z, t]:
            return None
        return int(self._crcs[number, channel, z, t])


class StoredCrcs:
    """CRC-32s of compressed tiles; of a plane's own ones together, level by level, row by row.

    Attributes
    ----------
    read_back
        CRC-32 of the full resolution of each plane (by field), as it was read from the file, decoded, and compared with what it
        has to be.
    zoomed
        CRC-32 of the zoom layers of each plane (by field) whose tiles are its own, as they were handed to the file.
    shared
        CRC-32 of the tiles of each packed level (by tile), as they were handed to the file when they were complete.
    """

    def __init__(self, tiling: Tiling, planes: tuple[int, int, int]):
        packed: Sequence[int] = [level for level, cut in enumerate(tiling.levels) if cut.packed]
        self.read_back, self.zoomed = CrcTable(planes), CrcTable(planes)
        self.shared = {level: CrcTable(planes) for level in packed}


def _longer(table: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([table, np.zeros((rows, *table.shape[1:]), table.dtype)])
