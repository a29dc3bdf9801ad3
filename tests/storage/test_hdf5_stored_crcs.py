"""A slide whose writer remembers its bytes is proven without decoding them, and every byte that changed is found all the same."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage import SlideWriter
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5 import verify
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.stored_crcs import CrcTable, StoredCrcs
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.pyramid import TileKey, reduce_plane

SHAPE = (600, 700)
N_FIELDS, CHANNELS = 3, ("DAPI", "GFP")
LAST = (N_FIELDS - 1, 1, 0, 0)


def pixels(field: int, channel: int) -> np.ndarray:
    return np.random.default_rng([field, channel]).integers(0, 900, SHAPE, dtype=np.uint16)


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[tuple[Path, StoredCrcs]]:
    """A slide that was sealed under NAME.part, and what its writer remembers; all planes but the last were read back."""
    with SlideWriter(tmp_path / "a.h5", field_shape=SHAPE, channels=CHANNELS, irreplaceable=True) as writer:
        for field in range(N_FIELDS):
            for channel in range(len(CHANNELS)):
                writer.write_plane(pixels(field, channel), channel, row=0, column=field, x_um=700.0 * field, y_um=0.0)
        writer.sync()
        with Hdf5Slide(writer.part) as slide:
            memory = slide.plane_memory()
            for field in range(N_FIELDS):
                for channel in range(len(CHANNELS)):
                    found, stored_sum = slide.plane_sums(field, channel, memory=memory)
                    assert found == zlib.crc32(pixels(field, channel))
                    if (field, channel, 0, 0) != LAST:
                        writer.stored.read_back.note(field, channel, 0, 0, stored_sum)
        writer.seal()
        yield writer.part, writer.stored


def overwritten(path: Path, at: int, change: Callable[[bytes], bytes], size: int) -> bytes:
    """Change some bytes of a file; what they were."""
    with open(path, "rb+") as file:
        file.seek(at)
        before = file.read(size)
        file.seek(at)
        file.write(change(before))
    return before


def decoded_planes(part: Path, stored: StoredCrcs | None, monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int, int, int]]:
    planes = set()
    right = Hdf5Slide.read_plane

    def noting(self: Hdf5Slide, field: int, channel: int, z: int = 0, t: int = 0, level: int = 0) -> np.ndarray:
        planes.add((field, channel, z, t))
        return right(self, field, channel, z, t, level)

    monkeypatch.setattr(Hdf5Slide, "read_plane", noting)
    assert verify_slide(part, stored=stored) == []
    return planes


def test_only_planes_that_were_not_read_back_are_decoded(sealed: tuple[Path, StoredCrcs], monkeypatch: pytest.MonkeyPatch):
    part, stored = sealed
    assert decoded_planes(part, stored, monkeypatch) == {LAST}


def test_zoom_layers_that_are_the_bytes_that_were_made_are_not_made_again(
    sealed: tuple[Path, StoredCrcs], monkeypatch: pytest.MonkeyPatch
):
    part, stored = sealed
    made = []
    monkeypatch.setattr(verify, "reduce_plane", lambda *plane: (made.append(1), reduce_plane(*plane))[1])
    assert verify_slide(part, stored=stored) == []
    assert made == []
    assert verify_slide(part) == []
    assert len(made) == N_FIELDS * len(CHANNELS)


def test_without_what_the_writer_remembers_all_planes_are_decoded(
    sealed: tuple[Path, StoredCrcs], monkeypatch: pytest.MonkeyPatch
):
    assert len(decoded_planes(sealed[0], None, monkeypatch)) == N_FIELDS * len(CHANNELS)


@pytest.mark.parametrize("packed", [False, True], ids=["a plane's own tiles", "tiles that fields share"])
def test_what_changes_after_it_was_stored_is_found_on_every_level(sealed: tuple[Path, StoredCrcs], packed: bool):
    part, stored = sealed
    with Hdf5Slide(part) as slide:
        cuts = slide.tiling.levels
        levels = [level for level in range(len(cuts)) if cuts[level].packed == packed]
        assert len(levels) >= 2
        keys = [slide.tiles_of_plane(0, 1, level=level)[-1] for level in levels]
        places = [slide._address(slide._opened, key) for key in keys]
    for key, (offset, nbytes) in zip(keys, places, strict=True):
        at, size = offset + 16, nbytes - 16  # behind the head of the compressed tile
        right = overwritten(part, at, lambda data: bytes(255 - byte for byte in data), size)
        damages = verify_slide(part, stored=stored)
        assert (0, 1) in {(damage.field, damage.channel) for damage in damages}, f"level {key.level}"
        assert damages == verify_slide(part)
        overwritten(part, at, lambda _, right=right: right, size)
    assert verify_slide(part, stored=stored) == []


def test_one_byte_that_changed_has_the_plane_decoded(sealed: tuple[Path, StoredCrcs], monkeypatch: pytest.MonkeyPatch):
    part, stored = sealed
    with Hdf5Slide(part) as slide:
        offset, nbytes = slide._address(slide._opened, slide.tiles_of_plane(1, 0)[0])
    overwritten(part, offset + nbytes - 1, lambda data: bytes([data[0] ^ 1]), 1)
    decoded, right = [], Hdf5Slide.read_plane
    monkeypatch.setattr(Hdf5Slide, "read_plane", lambda self, *key: (decoded.append(key[:4]), right(self, *key))[1])
    damages = verify_slide(part, stored=stored)
    assert set(decoded) == {(1, 0, 0, 0), LAST}
    assert damages == verify_slide(part)


def test_an_index_that_leads_to_another_tile_is_found(sealed: tuple[Path, StoredCrcs]):
    import h5py

    part, stored = sealed
    with h5py.File(part, "r+", locking=False) as file:
        index = file[f"{fmt.CHUNK_INDEX}/0"]
        rows = index[()]
        rows[[0, 1]] = rows[[1, 0]]
        index[...] = rows
    damages = verify_slide(part, stored=stored)
    assert damages
    assert damages == verify_slide(part)


def test_the_sum_of_tiles_is_that_of_their_bytes_in_their_order(sealed: tuple[Path, StoredCrcs]):
    with Hdf5Slide(sealed[0]) as slide:
        keys = slide.tiles_of_plane(1, 0)
        assert len(keys) > 1
        for order in (keys, keys[::-1], keys[:1], []):
            assert slide.stored_crc(order) == zlib.crc32(b"".join(slide.read_encoded(key) for key in order))
        assert slide.stored_crc([TileKey(0, 0, 0)]) != slide.stored_crc([TileKey(0, 1, 0)])


def test_a_table_knows_what_was_noted_and_nothing_else():
    table = CrcTable((2, 1, 3))
    assert table.get(0, 0, 0, 0) is None
    table.note(1000, 1, 0, 2, 0xFFFFFFFF)
    table.note(5, 0, 0, 0, 0)
    table.note(5, 0, 0, 0, 7)
    assert table.get(1000, 1, 0, 2) == 0xFFFFFFFF
    assert table.get(5, 0, 0, 0) == 7
    assert table.get(5, 0, 0, 1) is None
    assert table.get(1000, 0, 0, 2) is None
    assert table.get(10**6, 1, 0, 2) is None
