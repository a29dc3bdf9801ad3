"""A slide whose tables a power failure, a broken copy or bit rot tore: an error or right pixels, and no wait for good."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torn_tables
from torn_tables import CLAIMED, FINISHED, LEFT, N_FIELDS, plane, prepared

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.hdf5 import attempts, opened, reader
from rawmosaic.storage.hdf5.claim import claim
from rawmosaic.storage.hdf5.left_behind import left_behind

TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    prepared(folder)
    return folder


@pytest.fixture
def part(slides: Path, tmp_path: Path) -> Path:
    """What a killed writer left, to spoil."""
    path = tmp_path / "left.h5.part"
    path.write_bytes((slides / path.name).read_bytes())
    return path


def torn(path: Path, at: int) -> Callable[[], None]:
    """Have a bit of the file flipped; what puts it right again."""

    def flip() -> None:
        with open(path, "rb+") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))

    flip()
    return flip


def place(path: Path, table: str) -> int:
    """Somewhere in a table: "/" is the root's header, NAME a dataset's, NAME's chunks the head of its index."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        name = table.removesuffix("'s chunks")
        at = h5py.h5o.get_info(file[name].id).addr
    return path.read_bytes().index(b"EAHD") + 20 if name != table else at + 30


def assert_reads(slide) -> None:
    for field in range(N_FIELDS):
        for channel in range(2):
            np.testing.assert_array_equal(slide.read_plane(field, channel), plane(field, channel))


@pytest.mark.parametrize("kind", [FINISHED, LEFT, CLAIMED])
def test_slide_with_any_table_torn_is_an_error_or_has_the_right_pixels(slides: Path, kind: str):
    command = [sys.executable, torn_tables.__file__, str(slides), kind, "0", "4" if kind == FINISHED else "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = process.communicate(timeout=TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"it hangs: {process.communicate()[0].splitlines()[-1:]}")
    assert process.returncode == 0, said[-4000:]


@pytest.mark.parametrize("table", ["/", "levels", "levels/0", "planes/acquired"])
def test_error_says_what_is_wrong_where_and_what_to_do(part: Path, table: str):
    torn(part, place(part, table))
    with pytest.raises(DamagedSlideError, match=r"checksum.*starting the server again makes it whole.*from a copy") as caught:
        open_slide(part)
    assert caught.value.location == str(part)


def test_tile_that_cannot_be_found_is_no_black_one(part: Path):
    torn(part, place(part, "levels/0's chunks"))
    with open_slide(part) as slide:
        assert slide.acquired().all()
        with pytest.raises(DamagedSlideError, match="field 3, tile 0, channel 1"):
            slide.read_plane(3, 1)
        tiles = [np.empty(slide.tiling.tile_shape, np.uint16)]
        assert isinstance(slide.read_tiles([slide.tiles_of_plane(3, 1)[0]], tiles)[0], DamagedSlideError)


def test_tile_that_a_finished_file_forgot_is_no_black_one(slides: Path, tmp_path: Path):
    path = tmp_path / "slide.h5"
    path.write_bytes((slides / "finished.h5").read_bytes())
    with h5py.File(path) as file:
        begin = file["chunk_index/0"].id.get_offset()
    with open(path, "rb+") as file:
        file.seek(begin + 5 * 16)
        file.write(bytes(16))
    with open_slide(path) as slide:
        with pytest.raises(DamagedSlideError, match="field 2, tile 0, channel 1"):
            slide.read_plane(2, 1)
        np.testing.assert_array_equal(slide.read_plane(2, 0), plane(2, 0))


class Writing:
    """A living writer that is just replacing a table: it is whole again once a reader has met it torn, and pauses."""

    def __init__(self, path: Path, at: int, monkeypatch: pytest.MonkeyPatch):
        self.met = 0
        self._file = open(path, "rb+")  # noqa: SIM115  closed by `close`
        assert claim(self._file.fileno())
        self._mend = torn(path, at)
        for module in (opened, reader):
            clock = SimpleNamespace(monotonic=module.time.monotonic, sleep=self._pause)
            monkeypatch.setattr(module, "time", clock)

    def _pause(self, _: float) -> None:
        self.met += 1
        if self.met == 30:
            self._mend()

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def writing(part: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    writing = Writing(part, place(part, request.param), monkeypatch)
    yield writing
    writing.close()


@pytest.mark.parametrize("writing", ["/", "levels", "levels/0", "planes/acquired", "fields", "levels/0's chunks"], indirect=True)
def test_table_that_a_living_writer_replaces_is_waited_for(part: Path, writing: Writing):
    with open_slide(part) as slide:
        assert_reads(slide)
    assert writing.met >= 30


@pytest.mark.parametrize("table", ["/", "levels/0", "planes/acquired", "fields"])
def test_follower_that_met_a_torn_table_goes_on_once_it_is_whole(part: Path, table: str):
    at = place(part, table)
    with open(part, "rb+") as file, open_slide(part) as slide:
        assert claim(file.fileno())
        mend = torn(part, at)
        assert len(slide.refresh()) == 0
        mend()
        assert len(slide.refresh()) == 0
        assert slide.growing
        assert_reads(slide)
        assert slide.histogram(0).sum() == N_FIELDS * plane(0, 0).size


@pytest.mark.parametrize("table", ["/", "levels/0"])
def test_slide_is_not_read_for_good_where_hdf5_cannot_be_told_to_give_up(part: Path, table: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attempts, "_set_attempts", lambda: None)
    with open_slide(part) as slide:
        assert_reads(slide)
    torn(part, place(part, table))
    with pytest.raises(DamagedSlideError, match="checksum"):
        open_slide(part)


def test_hdf5_is_told_to_give_up_here():
    assert attempts._set_attempts() is not None


def test_heap_of_texts_without_an_end_is_no_wait_for_good(part: Path):
    data = bytearray(part.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 4096] = bytes(4080)
    part.write_bytes(data)
    assert left_behind(part).scan_uid is None
    with pytest.raises(DamagedSlideError, match=r"left\.h5\.part"):
        open_slide(part)
