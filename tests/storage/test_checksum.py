"""Checksums of pixels are CRC-32, whichever library sums them up."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from rawmosaic.storage import checksum
from rawmosaic.storage.checksum import pixels_crc32


@pytest.fixture(params=["imagecodecs", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "imagecodecs":
        pytest.importorskip("imagecodecs")
    else:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)  # importing it fails
    checksum._quickest.cache_clear()
    yield
    checksum._quickest.cache_clear()


def crc32_bit_by_bit(data: bytes) -> int:
    """The definition: the remainder of a division of polynomials, lowest bit first."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xEDB88320 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 5), (61, 67)])
def test_checksum_is_crc32_by_its_definition(shape: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 65536, shape).astype("<u2")
    assert pixels_crc32(pixels) == crc32_bit_by_bit(pixels.tobytes())


@pytest.mark.usefixtures("library")
def test_checksum_of_nine_digits_is_the_published_one():
    assert pixels_crc32(np.frombuffer(b"123456789", np.uint8)) == 0xCBF43926
