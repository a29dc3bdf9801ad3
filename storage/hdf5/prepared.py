"""All that is made of a plane before the file is touched: reduced, counted, summed and compressed by any thread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rawmosaic.storage import codec
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.histogram import grey_level_counts
from rawmosaic.storage.pyramid import PlaneReducer, TileKey, Tiling


@dataclass(frozen=True)
class PreparedPlane:
    """One plane, ready to be written.

    chunks    compressed tiles of the block levels
    packed    (level, area mean) of the packed levels, which share tiles with other fields
    counts    (65536,) uint32 grey levels
    histogram the same as a chunk of `histograms/planes`
    metadata  its line of `plane_metadata`, empty without any
    """

    field: int
    slot: int
    channel: int
    z: int
    t: int
    chunks: list[tuple[TileKey, bytes]]
    packed: list[tuple[int, np.ndarray]]
    checksum: int
    counts: np.ndarray
    histogram: bytes
    metadata: bytes = b""


class Preparer:
    """Prepares one plane after the other, in memory of its own that is used again. One thread at a time.

    `compression`, (Blosc compressor, level), may be changed between two planes.
    """

    def __init__(self, tiling: Tiling, levels: range, compression: tuple[str, int]):
        self._tiling, self._levels, self.compression = tiling, levels, compression
        self._reducer = PlaneReducer(tiling.factors)
        self._padded = np.empty(tiling.tile_shape, np.uint16)

    def prepare(
        self,
        pixels: np.ndarray,
        field: int,
        slot: int,
        channel: int,
        z: int,
        t: int,
        metadata: bytes = b"",
        checksum: int | None = None,
    ) -> PreparedPlane:
        """Everything about a C-contiguous (h, w) uint16 plane, whose pixels are lost: counting sorts them in place."""
        layers = self._reducer.reduce(pixels)
        if checksum is None:
            checksum = crc32(pixels)
        chunks, packed = [], []
        for level in self._levels:
            if self._tiling.levels[level].packed:
                packed.append((level, layers[level].copy()))
            else:
                chunks += self._block_chunks(layers[level], level, field, channel, z, t)
        counts = grey_level_counts(pixels, overwrite=True)
        histogram = with_fletcher32(codec.compress(counts, *self.compression))
        return PreparedPlane(field, slot, channel, z, t, chunks, packed, checksum, counts, histogram, metadata)

    def _block_chunks(
        self, plane: np.ndarray, level: int, field: int, channel: int, z: int, t: int
    ) -> list[tuple[TileKey, bytes]]:
        cut = self._tiling.levels[level]
        height, width = self._tiling.tile_shape
        chunks, padded = [], self._padded
        for row in range(-(-plane.shape[0] // height)):
            for column in range(-(-plane.shape[1] // width)):
                piece = plane[row * height : (row + 1) * height, column * width : (column + 1) * width]
                if piece.shape != padded.shape:
                    padded[...] = 0
                padded[: piece.shape[0], : piece.shape[1]] = piece
                index = field * cut.tiles_per_field + row * cut.grid[1] + column
                chunks.append((TileKey(level, index, channel, z, t), codec.compress(padded, *self.compression)))
        return chunks


def with_fletcher32(data: bytes) -> bytes:
    """The data as HDF5's Fletcher-32 filter stores them: followed by the checksum of their big-endian 16-bit words."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.uint64)
    first = int(words.sum())
    second = int((words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum())
    # sums modulo 65535, where HDF5's way of folding them leaves 65535 for 0, unless all was 0
    folded = [total and (total - 1) % 0xFFFF + 1 for total in (first, second)]
    return data + (folded[1] << 16 | folded[0]).to_bytes(4, "little")
