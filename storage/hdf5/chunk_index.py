"""Where each chunk lies: written once a layer is complete, since HDF5's own look-up by coordinate walks all chunks."""

from __future__ import annotations

import h5py
import numpy as np

from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.pyramid import TileKey, Tiling


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
