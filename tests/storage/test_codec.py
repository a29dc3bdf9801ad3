"""Tiles survive compression bit for bit, and no chunk of hostile bytes writes where it must not."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.storage.codec import compress, decode_into, decoded
from rawmosaic.storage.errors import DamagedSlideError

SHAPES = [(1, 1), (3, 8), (64, 64), (97, 101), (256, 320)]


def noisy(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(height, width) uint16 like a camera's."""
    return np.random.default_rng(seed).normal(700, 50, shape).clip(0, 65535).astype(np.uint16)


@pytest.mark.parametrize("compressor", ["lz4", "zstd"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tile_survives_bit_for_bit(shape: tuple[int, int], compressor: str):
    for tile in (noisy(shape), np.zeros(shape, np.uint16), np.full(shape, 65535, np.uint16)):
        data = compress(tile, compressor)
        np.testing.assert_array_equal(decoded(data, shape), tile)


def test_noise_that_does_not_compress_survives_too():
    tile = np.random.default_rng(0).integers(0, 65536, (64, 64), np.uint16)
    np.testing.assert_array_equal(decoded(compress(tile), tile.shape), tile)


def test_camera_noise_is_compressed():
    tile = noisy((256, 256))
    assert len(compress(tile)) < 0.7 * tile.nbytes


def test_any_blosc_reads_what_is_written():
    tile = noisy((64, 64))
    assert blosc.decompress(compress(tile)) == tile.tobytes()


def guarded(nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint16 array of that many bytes, all of the memory around it), filled with 0xABCD."""
    room = np.full(nbytes // 2 + 4096, 0xABCD, np.uint16)
    return room[2048 : 2048 + nbytes // 2].reshape(1, -1), room


def assert_refused(data: bytes, nbytes: int) -> None:
    """DamagedSlideError, and not a byte beside the tile was written."""
    out, room = guarded(nbytes)
    with pytest.raises(DamagedSlideError):
        decode_into(data, out)
    assert (room[:2048] == 0xABCD).all()
    assert (room[2048 + nbytes // 2 :] == 0xABCD).all()


@pytest.mark.parametrize(
    "data", [b"", b"\x02", bytes(15), bytes(16), bytes(1000), b"\xff" * 1000], ids=lambda data: f"{len(data)}"
)
def test_bytes_that_are_no_chunk_are_refused(data: bytes):
    assert_refused(data, 8192)


def test_chunk_of_another_size_is_refused():
    data = compress(noisy((64, 64)))
    for nbytes in (2 * 64 * 63, 2 * 64 * 65, 2):
        assert_refused(data, nbytes)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_cut_chunk_is_refused(keep: float):
    data = compress(noisy((64, 64)))
    assert_refused(data[: int(len(data) * keep)], 8192)


def test_chunk_that_lies_about_its_size_is_refused():
    data = bytearray(compress(noisy((64, 64))))
    for offset, value in ((4, 2**31 - 1), (4, 16384), (12, 2**31 - 1), (12, 20)):
        lying = bytearray(data)
        lying[offset : offset + 4] = struct.pack("<I", value)
        assert_refused(bytes(lying), 8192)


@settings(derandomize=True, deadline=None, database=None, max_examples=150)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_never_write_beside_the_tile(flips: list[tuple[float, int]]):
    """A flipped byte either shows (DamagedSlideError) or changes grey levels; it never reaches other memory."""
    data = bytearray(compress(noisy((32, 64))))
    for place, bits in flips:
        data[int(place * len(data))] ^= bits
    out, room = guarded(4096)
    with suppress(DamagedSlideError):
        decode_into(bytes(data), out)
    assert (room[:2048] == 0xABCD).all()
    assert (room[2048 + 2048 :] == 0xABCD).all()


def test_threads_decode_at_the_same_time():
    tiles = [noisy((128, 128), seed) for seed in range(12)]
    chunks = [compress(tile) for tile in tiles]
    with ThreadPoolExecutor(4) as pool:
        for tile, back in zip(tiles * 5, pool.map(lambda data: decoded(data, (128, 128)), chunks * 5), strict=True):
            np.testing.assert_array_equal(back, tile)
