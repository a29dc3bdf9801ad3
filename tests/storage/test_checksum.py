"""Checksums of pixels are CRC-32."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from rawmosaic.storage.checksum import crc32


def crc32_bit_by_bit(data: bytes) -> int:
    """The definition: the remainder of a division of polynomials, lowest bit first."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xEDB88320 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 5), (61, 67)])
def test_checksum_is_crc32_by_its_definition(shape: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 65536, shape).astype("<u2")
    assert crc32(pixels) == crc32_bit_by_bit(pixels.tobytes())


def test_checksum_of_nine_digits_is_the_published_one():
    assert crc32(b"123456789") == 0xCBF43926


def test_checksum_in_parts_is_that_of_the_whole_as_the_standard_library_has_it():
    data = np.random.default_rng(1).integers(0, 256, 100_003).astype(np.uint8)
    for cut in (0, 1, 15, 16, 17, 4096, 65_537, len(data)):
        assert crc32(data[cut:], crc32(data[:cut])) == zlib.crc32(data)
