"""A slide that a power failure tore is one line on the screen, whatever is to be done with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage import SlideWriter
from rawmosaic.storage.hdf5.left_behind import part_of

TIMEOUT_S = 60.0
SHAPE = (24, 32)


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed writer left, with the header of its root group torn: HDF5 alone would read it again for good."""
    path = tmp_path_factory.mktemp("slides") / "scan.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a"]) as writer:
        writer.write_plane(np.ones(SHAPE, np.uint16), 0, x_um=0, y_um=0)
        writer.publish()
        data = bytearray(part_of(path).read_bytes())
    path.unlink()
    assert data[11] & 4  # it may be followed
    data[data.index(b"OHDR") + 30] ^= 0x10
    part_of(path).write_bytes(data)
    return path


@pytest.mark.parametrize("command", [("info",), ("verify",), ("render", "-o", "picture.png"), ("serve",), ("library", "scan")])
def test_torn_slide_is_one_line_that_says_what_to_do(torn: Path, tmp_path: Path, command: tuple[str, ...]):
    where = torn.parent if command[0] == "library" else torn
    more = command[1:] if command[0] == "render" else ()
    arguments = [*(command if command[0] == "library" else command[:1]), str(where), *more]
    run = subprocess.run(
        [sys.executable, "-c", "from rawmosaic.cli.main import run; run()", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode != 0 or command[0] == "library"
    (line,) = [line for line in run.stderr.splitlines() if "scan.h5" in line]
    assert "Traceback" not in run.stderr
    assert "incorrect metadata checksum" in line
    assert "starting the server again makes it whole" in line
