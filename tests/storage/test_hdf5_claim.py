"""A file that is being written is known as such as long as its writer lives, and everybody may read it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from rawmosaic.storage.hdf5 import claim as claims
from rawmosaic.storage.hdf5.claim import claim, is_claimed

HOLD = """
import os, sys
from rawmosaic.storage.hdf5.claim import claim
descriptor = os.open(sys.argv[1], os.O_RDWR)
print(claim(descriptor), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["numbers"] = [1, 2, 3]
    return tmp_path / "file.h5"


def test_claim_lasts_until_the_descriptor_is_closed(path: Path):
    assert is_claimed(path) is False
    first, second = (os.open(path, os.O_RDWR) for _ in range(2))
    assert claim(first)
    assert is_claimed(path)
    assert not claim(second), "by nobody else in this process"
    os.close(first)
    assert is_claimed(path) is False
    assert claim(second)
    os.close(second)


def test_claim_of_another_process_ends_with_it(path: Path):
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        assert is_claimed(path)
        descriptor = os.open(path, os.O_RDWR)
        assert not claim(descriptor)
        os.close(descriptor)
        process.kill()
        process.wait(30)
        assert is_claimed(path) is False


def test_claimed_file_can_be_read(path: Path):
    descriptor = os.open(path, os.O_RDWR)
    assert claim(descriptor)
    with h5py.File(path) as file:
        assert file["numbers"][:].tolist() == [1, 2, 3]
    os.close(descriptor)


def test_file_that_is_not_there_is_not_claimed(tmp_path: Path):
    assert is_claimed(tmp_path / "nothing") is False


def test_file_system_without_locks_does_not_hinder_writing(path: Path, monkeypatch: pytest.MonkeyPatch):
    if claims.fcntl is None:
        pytest.skip("Windows locks another way")

    def refuse(*_) -> None:
        raise OSError(claims.errno.ENOLCK, "no locks")

    monkeypatch.setattr(claims.fcntl, "flock", refuse)
    descriptor = os.open(path, os.O_RDWR)
    assert claim(descriptor)
    os.close(descriptor)
    assert is_claimed(path) is None
