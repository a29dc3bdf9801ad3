"""Blosc for tiles: compress and decode whole uint16 tiles in any thread, with the GIL released.

Bytes that come from a file or a socket are never trusted: a chunk's own header is checked against the tile's shape
before anything is decoded into memory that we own.
"""

from __future__ import annotations

import struct

import blosc
import numpy as np
from blosc import blosc_extension

from rawmosaic.storage.errors import DamagedSlideError

blosc.set_releasegil(True)
blosc.set_nthreads(1)  # parallel over tiles, not inside one

_HEADER_NBYTES = 16
_SIZES = struct.Struct("<4xI4xI")
"""Of a buffer's head: bytes decoded, bytes encoded."""


def compress(tile: np.ndarray, compressor: str = "lz4", level: int = 5, shuffle: int = blosc.BITSHUFFLE) -> bytes:
    """A C-contiguous array, such as a tile of uint16, as one Blosc buffer, readable by HDF5's Blosc filter."""
    # without the checks of `blosc.compress_ptr`, which compare version numbers for every tile: a tenth of its time
    return blosc_extension.compress_ptr(tile.ctypes.data, tile.nbytes, tile.itemsize, level, shuffle, compressor)


def decode_into(data: bytes | memoryview, out: np.ndarray) -> None:
    """Decode a Blosc buffer into a C-contiguous uint16 array that it must fill exactly; else DamagedSlideError."""
    if len(data) < _HEADER_NBYTES:
        raise DamagedSlideError(f"a chunk of {len(data)} bytes is too short to be a Blosc buffer")
    nbytes, cbytes = _SIZES.unpack_from(data)
    if nbytes != out.nbytes or cbytes != len(data):
        raise DamagedSlideError(
            f"a chunk says it holds {nbytes} bytes in {cbytes}, but the tile has {out.nbytes} and the chunk {len(data)}"
        )
    try:
        written = blosc.decompress_ptr(data, out.ctypes.data)
    except Exception as error:  # blosc.error does not derive from anything more specific
        raise DamagedSlideError(f"a chunk does not decode: {error}") from error
    if written != out.nbytes:
        raise DamagedSlideError(f"a chunk decoded to {written} of {out.nbytes} bytes")


def is_encoded(data: bytes | memoryview, nbytes: int) -> bool:
    """Whether the data begin as a Blosc buffer of their own length does that holds so many bytes."""
    return len(data) >= _HEADER_NBYTES and _SIZES.unpack_from(data) == (nbytes, len(data))


def decoded(data: bytes | memoryview, shape: tuple[int, int]) -> np.ndarray:
    """A new uint16 array of that shape from a Blosc buffer that must fill it exactly; else DamagedSlideError."""
    out = np.empty(shape, np.uint16)
    decode_into(data, out)
    return out
