"""A positional file gives exactly the bytes asked for, to many threads at once, or says what is wrong."""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage import positional_file
from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.positional_file import PositionalFile


@pytest.fixture(params=["pread", "seek"])
def file_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[PositionalFile]:
    """The class as it is here, and as it is on an operating system without `pread`."""
    if request.param == "pread":
        return PositionalFile
    monkeypatch.delattr(os, "pread", raising=False)
    spec = importlib.util.spec_from_file_location("positional_file_without_pread", positional_file.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PositionalFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 64 kB, each byte telling where it is."""
    content = (np.arange(32768, dtype="<u2")).tobytes()
    (tmp_path / "some file").write_bytes(content)
    return tmp_path / "some file"


def test_bytes_are_those_at_the_offset(file_class: type, path: Path):
    content = path.read_bytes()
    file = file_class(str(path))
    try:
        for offset, size in ((0, 16), (1, 1), (1000, 4096), (65535, 1), (0, 65536), (65536, 0)):
            assert file.read(offset, size) == content[offset : offset + size]
    finally:
        file.close()


@pytest.mark.parametrize(("offset", "size"), [(65536, 1), (65535, 2), (0, 65537), (2**40, 8)])
def test_the_end_of_the_file_is_named(file_class: type, path: Path, offset: int, size: int):
    file = file_class(str(path))
    with pytest.raises(DamagedSlideError, match=rf"some file.*{size} bytes at offset {offset}"):
        file.read(offset, size)
    file.close()


@pytest.mark.parametrize(("offset", "size"), [(-1, 4), (2**64, 8), (-(2**70), 8)])
def test_offsets_that_cannot_be_are_damage(file_class: type, path: Path, offset: int, size: int):
    """An offset comes from the file, so a wrong one is the file's fault."""
    file = file_class(str(path))
    with pytest.raises(DamagedSlideError):
        file.read(offset, size)
    file.close()


def test_read_after_close_is_an_error_and_reads_no_other_file(file_class: type, path: Path, tmp_path: Path):
    file = file_class(str(path))
    file.close()
    with (tmp_path / "other").open("wb+") as other:  # takes the descriptor's number
        other.write(b"secret" * 10)
        other.flush()
        with pytest.raises(DamagedSlideError):
            file.read(0, 6)


def test_closed_twice_is_harmless(file_class: type, path: Path):
    file = file_class(str(path))
    file.close()
    file.close()


def test_missing_file_is_the_callers_to_name(file_class: type, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        file_class(str(tmp_path / "absent"))


def test_threads_do_not_move_each_others_place(file_class: type, path: Path):
    content = path.read_bytes()
    file = file_class(str(path))
    offsets = np.random.default_rng(0).integers(0, 60_000, 600).tolist()
    try:
        with ThreadPoolExecutor(8) as pool:
            for offset, data in zip(offsets, pool.map(lambda offset: file.read(offset, 777), offsets), strict=True):
                assert data == content[offset : offset + 777]
    finally:
        file.close()
