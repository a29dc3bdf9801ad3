"""Looks kept under a name are there again, whatever the name; those of another slide can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawmosaic.storage.errors import SlideError, WriteError
from rawmosaic.viewer import presets
from rawmosaic.viewer.display_state import ChannelGroup, ChannelState, DisplayState
from rawmosaic.viewer.saved_state import save_preset

LOOKS = DisplayState(
    1.0, 2.0, 0.5, (ChannelState("DAPI", (10.0, 20.0), "#0000ff", 0.8),), groups=(ChannelGroup("nuclei", (0,)),)
)  # fmt: skip


def test_looks_are_kept_under_a_name_and_listed_in_order():
    assert presets.names() == []
    for name in ("zebra", "Alpha", "four colours, dim"):
        assert presets.keep(name, LOOKS) == name
    assert presets.names() == ["Alpha", "four colours, dim", "zebra"]
    assert presets.read("zebra") == LOOKS


def test_the_same_name_takes_the_place_of_the_one_before():
    presets.keep("mine", LOOKS)
    presets.keep("mine", DisplayState(0.0, 0.0, 1.0))
    assert presets.names() == ["mine"]
    assert presets.read("mine").channels == ()


@pytest.mark.parametrize("name", ["a/b\\c", "..", "CON", "com1.old", "what? “this” : *", "x" * 300, " ünïcode ✓ ", "tab\tline\n"])
def test_a_name_of_any_kind_stays_inside_the_folder(name: str):
    try:
        kept = presets.keep(name, LOOKS)
    except WriteError as error:
        assert "give it a name" in str(error)  # noqa: PT017
        assert name == ".."
        return
    (file,) = presets.presets_folder().iterdir()
    assert file.parent == presets.presets_folder()
    assert presets.names() == [kept]
    assert presets.read(kept) == LOOKS
    assert kept.casefold() not in ("con", "com1", "com1.old")
    presets.forget(kept)
    presets.forget(kept)
    assert presets.names() == []


def test_a_name_that_is_gone_or_damaged_is_told_with_its_file():
    with pytest.raises(SlideError, match="nothing"):
        presets.read("nothing")
    presets.keep("broken", LOOKS)
    (file,) = presets.presets_folder().iterdir()
    file.write_text("{")
    with pytest.raises(SlideError, match="broken"):
        presets.read("broken")


def test_the_looks_of_another_slide_are_those_beside_it(tmp_path: Path):
    slide = tmp_path / "scan.h5"
    slide.write_bytes(b"any")
    folder = tmp_path / "acquisition"
    folder.mkdir()
    assert not presets.have_looks(str(slide))
    with pytest.raises(SlideError, match="no looks were kept"):
        presets.read_from(slide)
    save_preset(tmp_path / "scan.h5.view.json", LOOKS)
    save_preset(folder / "rawmosaic.view.json", LOOKS)
    for location in (slide, tmp_path / "scan.h5.view.json", folder):
        assert presets.read_from(location) == LOOKS
    assert presets.have_looks(str(slide))
    assert presets.have_looks(str(folder))
    assert not presets.have_looks("tcp://somewhere:5555/slide")
