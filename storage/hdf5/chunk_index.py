"""Where each chunk lies: written once a layer is complete, since HDF5's own look-up by coordinate walks all chunks."""

from __future__ import annotations

import threading
from collections import OrderedDict

import h5py
import numpy as np

from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.positional_file import PositionalFile
from rawmosaic.storage.pyramid import TileKey, Tiling

_BLOCK_ROWS = 256
_BLOCKS_KEPT = 4096


class ChunkIndex:
    """Chunk addresses of one layer, read from the file a block at a time: opening costs nothing, neighbours are found at once."""

    def __init__(self, file: PositionalFile, offset: int, n_rows: int):
        self._file, self._offset, self._n_rows = file, offset, n_rows
        self._blocks: OrderedDict[int, list[list[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, row: int) -> tuple[int, int]:
        """(offset, bytes) of a chunk; (0, 0) where nothing was written."""
        if row >= self._n_rows:
            return 0, 0
        number, within = divmod(row, _BLOCK_ROWS)
        with self._lock:
            block = self._blocks.get(number)
        if block is None:
            first = number * _BLOCK_ROWS
            rows = min(_BLOCK_ROWS, self._n_rows - first)
            data = self._file.read(self._offset + first * fmt.INDEX_ROW_NBYTES, rows * fmt.INDEX_ROW_NBYTES)
            block = np.frombuffer(data, fmt.INDEX_DTYPE).reshape(-1, 2).tolist()
            with self._lock:
                self._blocks[number] = block
                if len(self._blocks) > _BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
        offset, size = block[within]
        return offset, size

    def rows(self, first: int, count: int) -> np.ndarray:
        """(n, 2) uint64 offset and bytes of chunks in a row, as they lie in the file now; fewer than `count` at the end."""
        count = max(0, min(count, self._n_rows - first))
        data = self._file.read(self._offset + first * fmt.INDEX_ROW_NBYTES, count * fmt.INDEX_ROW_NBYTES)
        return np.frombuffer(data, fmt.INDEX_DTYPE).reshape(-1, 2)


def write_chunk_index(group: h5py.Group, level: int, tiling: Tiling, n_fields: int, shape: tuple[int, int, int]) -> None:
    """Add the table of one layer to the slide in `group`, replacing an older one; `shape` is (channels, z, t)."""
    dataset = group[fmt.level_name(level)]
    cut = tiling.levels[level]
    index = np.zeros((tiling.tile_count(level, n_fields) * int(np.prod(shape)), 2), fmt.INDEX_DTYPE)
    height, width = dataset.chunks[-2:]

    def note(chunk) -> None:
        major, channel, z, t, y, x = chunk.chunk_offset
        minor = (y // height) * cut.grid[1] + x // width
        key = TileKey(level, major * cut.tiles_per_field + minor, channel, z, t)
        index[fmt.chunk_row(tiling, key, *shape)] = chunk.byte_offset, chunk.size

    group.file.flush()
    dataset.id.chunk_iter(note)
    replace_chunk_index(group, level, index)


def replace_chunk_index(group: h5py.Group, level: int, index: np.ndarray) -> None:
    """Set the table of one layer: (tiles, 2) uint64, offset and size."""
    name = f"{fmt.CHUNK_INDEX}/{level}"
    if name in group:
        del group[name]
    if len(index):
        table = group.create_dataset(name, data=index)
        table.attrs["offset"] = table.id.get_offset()
