"""The Python that the documents show runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage.testing import SyntheticSlide, write_slide

ROOT = Path(__file__).parents[1]


def python_of(document: str) -> list[str]:
    """The Python blocks of a Markdown file."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SyntheticSlide:
    """A slide that lies as slide.h5 in the working folder."""
    slide = SyntheticSlide((2, 2), (60, 90), 2)
    write_slide(slide, tmp_path / "slide.h5")
    monkeypatch.chdir(tmp_path)
    return slide


def test_script_of_the_format_reads_a_plane(slide: SyntheticSlide):
    (script,) = python_of("docs/format.md")
    names: dict = {}
    exec(script, names)
    assert np.array_equal(names["plane"], slide.read_plane(0, 0))


@pytest.mark.usefixtures("slide")
def test_lines_of_the_readme_make_a_picture():
    (lines,) = python_of("README.md")
    names: dict = {}
    exec(lines.replace("path/to/acquisition", "slide.h5"), names)
    assert names["image"].shape == (720, 1280, 4)
    assert names["image"][..., :3].any()


@pytest.mark.usefixtures("slide")
def test_script_of_the_library_finds_a_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sqlalchemy", reason="the library needs SQLAlchemy: pip install 'rawmosaic[library]'")
    monkeypatch.setenv("RAWMOSAIC_LIBRARY", str(tmp_path / "library.sqlite"))
    (script,) = python_of("docs/library.md")
    names: dict = {}
    exec(script, names)
    assert [noted.news for noted in names["report"].noted] == ["new"]
    assert names["opened"].header.name == "synthetic"


@pytest.mark.usefixtures("slide")
def test_script_of_the_annotations_measures_a_cell(tmp_path: Path):
    (script,) = python_of("docs/annotations.md")
    names: dict = {}
    exec(script, names)
    assert names["intensity"].pixels > 100
    assert names["profile"].counts.shape[0] == 2
    assert (tmp_path / "slide.h5.annotations.geojson").is_file()
