"""`open_slide` finds the right source, or says why there is none."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from rawmosaic.storage import open_slide, opening
from rawmosaic.storage.errors import NotASlideError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.opening import is_virtual_slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide


class FakeSource:
    """Claims locations that contain its word, and notes what it was asked."""

    def __init__(self, word: str, score: int):
        self.word, self._score = word, score
        self.opened: list[tuple[str, dict]] = []

    def score(self, location: str) -> int:
        return self._score if self.word in location else 0

    def open(self, location: str, **options) -> SyntheticSlide:
        self.opened.append((location, options))
        return SyntheticSlide(name=self.word)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeSource]:
    """Three installed sources, and one whose library is not installed."""
    fakes = {"plate": FakeSource("plate", 5), "better": FakeSource("plate of wells", 9), "tcp": FakeSource("tcp://", 10)}
    module = ModuleType("fake_sources")
    for name, fake in fakes.items():
        setattr(module, name, fake)
    monkeypatch.setitem(sys.modules, "fake_sources", module)
    entries = [EntryPoint(name, f"fake_sources:{name}", opening.GROUP) for name in fakes]
    entries.append(EntryPoint("not installed", "no_such_library:source", opening.GROUP))
    monkeypatch.setattr(opening, "_entries", lambda: entries)
    return fakes


@pytest.fixture
def slide_file(tmp_path: Path) -> Path:
    return write_slide(SyntheticSlide((1, 2), (16, 16), 1), tmp_path / "slide.h5")


def test_virtual_slide_opens(slide_file: Path):
    for location in (slide_file, str(slide_file)):
        with open_slide(location) as slide:
            assert isinstance(slide, Hdf5Slide)
            assert slide.location == str(slide_file)


def test_virtual_slide_is_known_by_its_first_bytes(slide_file: Path):
    renamed = slide_file.rename(slide_file.with_name("slide without suffix"))
    assert is_virtual_slide(str(renamed))
    with open_slide(renamed) as slide:
        assert slide.n_fields == 2


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"P5 16 16 255\n"], ids=["empty", "short", "picture"])
def test_other_files_are_no_virtual_slides(tmp_path: Path, content: bytes):
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    assert not is_virtual_slide(str(path))
    assert not is_virtual_slide(str(tmp_path))
    assert not is_virtual_slide(str(tmp_path / "nothing"))
    assert not is_virtual_slide("tcp://host:1/na\0me")


def test_other_formats_on_hdf5_are_left_to_their_sources(slide_file: Path):
    assert not is_virtual_slide(str(slide_file.rename(slide_file.with_suffix(".ims"))))


def test_best_score_wins(sources: dict[str, FakeSource], tmp_path: Path):
    (tmp_path / "a plate of wells").mkdir()
    (tmp_path / "a plate").mkdir()
    assert open_slide(tmp_path / "a plate of wells").header.name == "plate of wells"
    assert open_slide(tmp_path / "a plate").header.name == "plate"
    assert [len(fake.opened) for fake in sources.values()] == [1, 1, 0]


def test_options_reach_the_source(sources: dict[str, FakeSource]):
    open_slide("tcp://host:5555/slide", pixel_size_um=0.5, orientation="flip-x")
    assert sources["tcp"].opened == [("tcp://host:5555/slide", {"pixel_size_um": 0.5, "orientation": "flip-x"})]


@pytest.mark.usefixtures("sources")
def test_missing_library_does_not_stand_in_the_way(tmp_path: Path):
    with pytest.raises(NotASlideError):
        open_slide(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: reading would wait for ever
    with pytest.raises(NotASlideError, match="file is not a slide"):
        open_slide(tmp_path / "pipe")


@pytest.mark.usefixtures("sources")
def test_what_cannot_be_opened_says_why(tmp_path: Path):
    text, full = tmp_path / "notes.txt", tmp_path / "full"
    text.write_text("nothing")
    full.mkdir()
    (full / "file").touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    for location, reason in (
        (tmp_path / "nowhere", "no such file or folder"),
        (empty, "the folder is empty"),
        (full, "folder holds no acquisition"),
        (text, "file is not a slide"),
        ("udp://host/slide", "no installed source knows this address"),
    ):
        with pytest.raises(NotASlideError, match=reason) as caught:
            open_slide(location)
        assert caught.value.location == str(location)
