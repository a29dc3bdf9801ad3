"""Display states and recent locations are kept where they belong, whole, and in nobody's way."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rawmosaic.storage.errors import SlideError, WriteError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import recent, saved_state
from rawmosaic.viewer.display_state import ChannelState, DisplayState, to_json
from rawmosaic.viewer.user_folder import user_folder

STATE = DisplayState(1.0, 2.0, 0.5, (ChannelState("a", (1.0, 2.0), "#00ff00"),))
OTHER = replace(STATE, scale=3.0)


class NamedSlide(SyntheticSlide):
    """A slide that says where it is and what it holds."""

    def __init__(self, location: object, identity: str = "abc", growing: bool = False):
        super().__init__((1, 1), (8, 8), 1)
        self.location, self._named, self._growing = str(location), identity, growing

    @property
    def identity(self) -> str:
        return self._named

    @property
    def growing(self) -> bool:
        return self._growing


@pytest.fixture
def slide(tmp_path: Path) -> NamedSlide:
    """A slide in a file."""
    path = tmp_path / "scan.h5"
    path.write_bytes(b"x")
    return NamedSlide(path)


def test_a_slide_without_a_state_has_none(slide: NamedSlide):
    assert saved_state.load(slide) == saved_state.Found(None, None)


def test_state_of_a_file_lies_beside_it(slide: NamedSlide, tmp_path: Path):
    assert saved_state.save(slide, STATE) == tmp_path / "scan.h5.view.json"
    found = saved_state.load(slide)
    assert (found.state, found.told) == (STATE, ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.h5", "scan.h5.view.json"]


def test_state_of_a_folder_lies_in_it(tmp_path: Path):
    slide = NamedSlide(tmp_path)
    assert saved_state.save(slide, STATE) == tmp_path / "rawmosaic.view.json"
    assert saved_state.load(slide).state == STATE


def test_state_of_an_address_lies_with_the_user_and_follows_the_content():
    assert saved_state.save(NamedSlide("tcp://a:1/s", "same"), STATE).is_relative_to(user_folder())
    assert saved_state.load(NamedSlide("tcp://b:2/moved", "same")).state == STATE
    assert saved_state.load(NamedSlide("tcp://b:2/moved", "another")).state is None


def test_state_of_a_growing_address_is_found_when_it_is_finished():
    saved_state.save(NamedSlide("tcp://a:1/s", "half", growing=True), STATE)
    assert saved_state.load(NamedSlide("tcp://a:1/s", "more", growing=True)).state == STATE
    assert saved_state.load(NamedSlide("tcp://a:1/s", "whole")).state == STATE


def test_a_slide_that_cannot_tell_its_identity_is_known_by_its_location():
    first, second = (SyntheticSlide((1, 1), (8, 8), 1, name="s") for _ in range(2))
    assert first.identity != second.identity
    saved_state.save(first, STATE)
    assert saved_state.load(second).state == STATE


def test_state_beside_a_slide_that_cannot_be_written_lies_with_the_user(slide: NamedSlide, monkeypatch: pytest.MonkeyPatch):
    saved_state.save(slide, STATE)
    write = saved_state.write_whole

    def refused(path: Path, text: str) -> None:
        if not path.is_relative_to(user_folder()):
            raise PermissionError(13, "read-only", str(path))
        write(path, text)

    monkeypatch.setattr(saved_state, "write_whole", refused)
    beside = saved_state.path_beside(slide.location, saved_state.ENDING)
    os.utime(beside, (1, 1))
    assert saved_state.save(slide, OTHER).is_relative_to(user_folder())
    assert saved_state.load(slide).state == OTHER  # the newest counts
    os.utime(beside)
    assert saved_state.load(slide).state in (STATE, OTHER)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind here")
def test_a_read_only_folder_is_no_obstacle(slide: NamedSlide, tmp_path: Path):
    tmp_path.chmod(0o500)
    try:
        assert saved_state.save(slide, STATE).is_relative_to(user_folder())
        assert saved_state.load(slide).state == STATE
    finally:
        tmp_path.chmod(0o700)


def test_nowhere_to_write_is_said(monkeypatch: pytest.MonkeyPatch, slide: NamedSlide):
    def refused(path: Path, text: str) -> None:
        raise OSError(28, "no space left on device", f"{path}{len(text)}")

    monkeypatch.setattr(saved_state, "write_whole", refused)
    with pytest.raises(WriteError, match="no space"):
        saved_state.save(slide, STATE)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b'{"format": "rawmosaic display state", "version": 99}']
)
def test_a_damaged_state_is_put_aside_and_named(slide: NamedSlide, damage: bytes):
    path = saved_state.save(slide, STATE)
    path.write_bytes(damage)
    found = saved_state.load(slide)
    assert found.state is None
    (line,) = found.told
    assert str(path) in line
    assert "aside" in line
    assert not path.exists()
    assert path.with_name(path.name + ".aside").read_bytes() == damage
    assert saved_state.load(slide).told == ()
    saved_state.save(slide, STATE)
    assert saved_state.load(slide).state == STATE


def test_an_older_state_stands_in_for_a_damaged_one(slide: NamedSlide):
    beside = saved_state.save(slide, STATE)
    beside.write_text("{", encoding="utf-8")
    own = saved_state._own_paths(slide)[0]
    own.parent.mkdir(parents=True)
    own.write_text(to_json(OTHER), encoding="utf-8")
    os.utime(own, (1, 1))
    found = saved_state.load(slide)
    assert found.state == OTHER
    assert len(found.told) == 1


def test_a_huge_state_is_not_read(slide: NamedSlide, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saved_state, "MOST_BYTES", 100)
    saved_state.save(slide, STATE)
    assert "larger" in saved_state.load(slide).told[0]


def test_a_failed_write_leaves_what_was_there(slide: NamedSlide, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    saved_state.save(slide, STATE)

    def fails(source: object, target: object) -> None:
        raise OSError(5, f"no {source} to {target}")

    monkeypatch.setattr("rawmosaic.viewer.user_folder.os.replace", fails)
    with pytest.raises(WriteError):
        saved_state.save(slide, OTHER)
    monkeypatch.undo()
    assert saved_state.load(slide).state == STATE
    assert len(list(tmp_path.glob("*"))) == 2


def test_presets_go_where_the_user_says(tmp_path: Path):
    path = tmp_path / "new" / "immuno.json"
    saved_state.save_preset(path, STATE)
    assert saved_state.load_preset(path) == STATE
    with pytest.raises(SlideError, match="immuno2"):
        saved_state.load_preset(tmp_path / "immuno2.json")


# recent locations


def test_recent_locations_are_newest_first_and_each_once(tmp_path: Path):
    for number, name in enumerate(("a", "b", "c", "a")):
        recent.remember(str(tmp_path / name), name, now=100.0 + number)
    assert [entry.name for entry in recent.recent()] == ["a", "c", "b"]
    assert recent.recent()[0].location == str(tmp_path / "a")


def test_addresses_stay_as_they_are():
    recent.remember("tcp://host:7777/slide", "slide")
    assert recent.recent()[0].location == "tcp://host:7777/slide"


def test_only_the_newest_are_remembered():
    for number in range(recent.MOST + 7):
        recent.remember(f"tcp://host/{number}", now=float(number))
    assert [entry.location for entry in recent.recent()] == [f"tcp://host/{n}" for n in range(26, 6, -1)]
    assert len(list((user_folder() / "recent").iterdir())) == recent.MOST


def test_a_location_can_be_forgotten():
    recent.remember("tcp://host/a")
    recent.forget("tcp://host/a")
    recent.forget("tcp://host/never")
    assert recent.recent() == []


def test_damaged_entries_are_left_out():
    recent.remember("tcp://host/a")
    for number, text in enumerate(("", "{", "[]", '{"location": "x"}', "null")):
        (user_folder() / "recent" / f"{number}.json").write_text(text, encoding="utf-8")
    assert [entry.location for entry in recent.recent()] == ["tcp://host/a"]


def test_a_folder_that_cannot_be_made_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("RAWMOSAIC_DATA", str(tmp_path / "file"))
    recent.remember("tcp://host/a")
    assert recent.recent() == []


def _remember_many(first: int) -> None:
    for number in range(first, first + 5):
        recent.remember(f"tcp://host/{number}", now=float(number))


def test_windows_that_open_at_once_do_not_lose_each_others_locations():
    context = multiprocessing.get_context("spawn")
    windows = [context.Process(target=_remember_many, args=(5 * number,)) for number in range(4)]
    for window in windows:
        window.start()
    for window in windows:
        window.join(60)
        assert window.exitcode == 0
    assert {entry.location for entry in recent.recent()} == {f"tcp://host/{number}" for number in range(20)}
