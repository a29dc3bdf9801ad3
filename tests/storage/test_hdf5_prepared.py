"""What is made of a plane outside HDF5 is what HDF5 itself would have stored."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from rawmosaic.storage.hdf5.prepared import with_fletcher32

RANDOM = np.random.default_rng(0)
DATA = {
    "noise": RANDOM.bytes(4096),
    "odd": RANDOM.bytes(4097),
    "one byte": b"\x80",
    "zeros": bytes(1000),
    "all ones": b"\xff" * 1000,
    "sums to nothing": b"\xff\xff" + bytes(100),
    "much": RANDOM.bytes(300_001),
}


@pytest.mark.parametrize("name", DATA)
def test_checksum_is_the_one_that_hdf5_stores(name: str, tmp_path: Path):
    data = DATA[name]
    with h5py.File(tmp_path / "checked.h5", "w") as file:
        dataset = file.create_dataset("data", (len(data),), np.uint8, chunks=(len(data),), fletcher32=True)
        dataset[:] = np.frombuffer(data, np.uint8)
        file.flush()
        assert with_fletcher32(data) == dataset.id.read_direct_chunk((0,))[1]
