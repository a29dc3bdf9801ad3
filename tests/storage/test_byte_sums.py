"""Bytes that changed, moved or are missing have another sum, wherever that is; the same bytes have the same."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.hdf5.byte_sums import byte_sum
from rawmosaic.storage.positional_file import PositionalFile


def some(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)


@pytest.mark.parametrize("n", [1, 7, 8, 4096, 8 * 4099, 8 * 4099 + 3, 300_001])
def test_one_bit_that_changed_anywhere_changes_the_sum(n: int):
    data = some(n)
    right = byte_sum(data)
    for at in {0, n // 3, n // 2, n - 1}:
        data[at] ^= 64
        assert byte_sum(data) != right, at
        data[at] ^= 64
    assert byte_sum(data) == right == byte_sum(data.copy())


@pytest.mark.parametrize("nbytes", [512, 4096, 65536])
def test_pages_that_changed_places_change_the_sum(nbytes: int):
    data = some(40 * 65536)
    right = byte_sum(data)
    for first, second in ((0, 1), (3, 17), (0, len(data) // nbytes - 1)):
        moved = data.copy().reshape(-1, nbytes)
        moved[[first, second]] = moved[[second, first]]
        assert byte_sum(moved.reshape(-1)) != right


def test_zeros_are_told_apart_by_their_number():
    assert len({byte_sum(np.zeros(n, np.uint8)) for n in range(50)}) == 50


def test_a_part_of_a_file_is_read_into_memory_and_its_end_is_told(tmp_path):
    path, data = tmp_path / "bytes", some(1000)
    path.write_bytes(data.tobytes())
    out = np.zeros(300, np.uint8)
    file = PositionalFile(str(path))
    try:
        file.read_into(500, out.data)
        assert out.tobytes() == data[500:800].tobytes()
        with pytest.raises(DamagedSlideError, match="ends before 300 bytes at offset 701"):
            file.read_into(701, out.data)
    finally:
        file.close()
