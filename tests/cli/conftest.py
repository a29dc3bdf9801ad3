"""A small acquisition, the same as a virtual slide, and a way to run a command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rawmosaic.cli.main import main
from rawmosaic.storage.specimen import write_acquisition

FIELD_SHAPE = (72, 96)


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and the two outputs."""

    code: int
    out: str
    err: str

    def complains_once_about(self, *words: str) -> bool:
        """Whether it failed with exit code 2 and one line on standard error that holds all the words, and nothing else."""
        lines = self.err.splitlines()
        return (
            self.code == 2
            and len(lines) == 1
            and lines[0].startswith("rawmosaic: ")
            and all(word.lower() in lines[0].lower() for word in words)
            and not self.out
        )


@pytest.fixture
def rawmosaic(capsys: pytest.CaptureFixture) -> Callable[..., Outcome]:
    """Run `rawmosaic ARGUMENTS…` in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def acquisition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 3 × 2 fields in four colours, 0.5 µm per pixel."""
    folder = tmp_path_factory.mktemp("cli") / "acquisition"
    return write_acquisition(folder, columns=3, rows=2, field_shape=FIELD_SHAPE, overlap=0.2, seed=3, pixel_size_um=0.5)


@pytest.fixture(scope="session")
def slide_file(acquisition: Path) -> Path:
    """The acquisition as a virtual slide."""
    path = acquisition.parent / "slide.h5"
    assert main(["import", str(acquisition), "-o", str(path)]) == 0
    return path
