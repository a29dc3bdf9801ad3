"""Every example runs as it stands there, and writes the picture that it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IN_A_WINDOW = {"qt_viewer": "tests/viewer/test_qt.py"}
"""Examples that need a display, and where they are run."""

NEEDS = {"micromanager_scan": "mm_test_adapters"}
"""Examples that need more than rawmosaic, and the package that comes with it."""

EXAMPLES = sorted(path for path in (Path(__file__).parents[1] / "examples").glob("*.py") if path.stem not in IN_A_WINDOW)


def run(example: Path, folder: Path) -> tuple[str, np.ndarray]:
    """(what it says, the picture that it writes)."""
    command = [sys.executable, "-W", "error", str(example), "picture.png"]
    outcome = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert not outcome.stderr
    with Image.open(folder / "picture.png") as picture:
        return outcome.stdout, np.asarray(picture)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, tmp_path: Path):
    if example.stem in NEEDS:
        pytest.importorskip(NEEDS[example.stem], reason=f"{example.name} says what to install")
    said, picture = run(example, tmp_path)
    assert said
    assert picture.std() > 1


def test_remote_picture_is_the_local_one(tmp_path: Path):
    from rawmosaic.storage.testing import SyntheticSlide
    from rawmosaic.viewer import OffscreenViewer

    (example,) = [path for path in EXAMPLES if path.stem == "remote_slide"]
    _, remote = run(example, tmp_path)
    specimen = SyntheticSlide((3, 4), (260, 348), ["DAPI", "GFP"], smooth=True, name="a specimen")
    with OffscreenViewer(specimen, size=(640, 480)) as viewer:
        np.testing.assert_array_equal(remote, viewer.render()[..., :3])
