"""What an unfinished slide may hold decides whether the next writer of its name may overwrite it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage import SlideWriter, open_slide
from rawmosaic.storage.errors import WriteError
from rawmosaic.storage.hdf5 import left_behind as left
from rawmosaic.storage.hdf5 import writer as writer_module
from rawmosaic.storage.hdf5.room import Room

SHAPE = (24, 32)


def begun(path: Path, **facts: object) -> SlideWriter:
    return SlideWriter(path, field_shape=SHAPE, channels=["a"], **facts)


def abandoned(path: Path, **facts: object) -> Path:
    """What a writer leaves that ended before its slide was finished; the file it left."""
    slide_writer = begun(path, **facts)
    for number in range(3):
        slide_writer.write_plane(np.full(SHAPE, number, np.uint16), 0, x_um=number, y_um=0)
    slide_writer.sync()
    slide_writer.leave()
    return left.part_of(path)


def of_a_scan(path: Path) -> Path:
    return abandoned(path, scan_uid="scan-7", irreplaceable=True)


def irreplaceable(path: Path) -> Path:
    return abandoned(path, irreplaceable=True)


def torn(path: Path) -> Path:
    part = of_a_scan(path)
    part.write_bytes(part.read_bytes()[:1000])
    return part


def no_hdf5(path: Path) -> Path:
    left.part_of(path).write_bytes(b"somebody's own notes")
    return left.part_of(path)


def with_a_note_that_is_no_note(path: Path) -> Path:
    part = abandoned(path)
    part.with_name(part.name + ".changes").write_bytes(b"no note")
    return part


def imported(path: Path) -> Path:
    return abandoned(path)


def empty(path: Path) -> Path:
    left.part_of(path).touch()
    return left.part_of(path)


def zeros(path: Path) -> Path:
    left.part_of(path).write_bytes(bytes(1 << 16))
    return left.part_of(path)


def never_published(path: Path) -> Path:
    """As HDF5 has it between the creation of a file and the first word to followers."""
    part = of_a_scan(path)
    data = bytearray(part.read_bytes())
    data[11] = 1
    part.write_bytes(data)
    return part


Leaves = Callable[[Path], Path]


@pytest.mark.parametrize("leaves", [of_a_scan, irreplaceable, torn, no_hdf5, with_a_note_that_is_no_note])
@pytest.mark.parametrize("uid", ["", "another scan", "scan-7"])
def test_planes_that_may_be_nowhere_else_are_not_overwritten(tmp_path: Path, leaves: Leaves, uid: str):
    path = tmp_path / "slide.h5"
    leaves(path)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    with pytest.raises(WriteError, match=r"slide\.h5\.part.*move (it|them) away"):
        begun(path, scan_uid=uid)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


@pytest.mark.parametrize("leaves", [imported, empty, zeros, never_published])
def test_what_can_be_made_again_is_overwritten(tmp_path: Path, leaves: Leaves):
    path = tmp_path / "slide.h5"
    leaves(path)
    with begun(path) as slide_writer:
        slide_writer.write_plane(np.full(SHAPE, 9, np.uint16), 0, x_um=0, y_um=0)
    with open_slide(path) as slide:
        assert slide.n_fields == 1
        assert (slide.read_plane(0, 0) == 9).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5"]


@pytest.mark.parametrize("leaves", [of_a_scan, irreplaceable, torn])
def test_nothing_is_begun_beside_the_slide_that_waits_to_be_copied(tmp_path: Path, leaves: Leaves):
    path = tmp_path / "slide.h5"
    leaves(path).rename(left.kept_of(path))
    with pytest.raises(WriteError, match="kept"):
        begun(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5.kept"]


def test_the_scan_itself_begins_beside_the_slide_that_it_copies(tmp_path: Path):
    path = tmp_path / "slide.h5"
    of_a_scan(path).rename(left.kept_of(path))
    begun(path, scan_uid="scan-7", irreplaceable=True).leave()
    with pytest.raises(WriteError, match="kept"):
        begun(tmp_path / "slide.h5", scan_uid="another scan", irreplaceable=True)


def test_file_that_is_renamed_while_it_is_claimed_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The writer of a scan puts the file aside between the opening of it and the claim."""
    path = tmp_path / "slide.h5"
    part, kept = of_a_scan(path), left.kept_of(path)
    before = part.read_bytes()
    looks = []
    its_name = Room.has_its_name.fget

    def renamed_just_then(room: Room) -> bool:
        looks.append(room)
        if len(looks) == 1:
            part.rename(kept)
        return its_name(room)

    monkeypatch.setattr(Room, "has_its_name", property(renamed_just_then))
    with pytest.raises(WriteError, match="kept"):
        begun(path)
    assert kept.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5.kept"]


def test_what_cannot_be_opened_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "slide.h5"
    part = of_a_scan(path)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writer_module, "Room", refused)
    with pytest.raises(WriteError, match="cannot be created"):
        begun(path)
    assert part.exists()
    monkeypatch.undo()
    part.rename(tmp_path / "elsewhere")
    part.mkdir()
    with pytest.raises(WriteError, match="cannot be created"):
        begun(path)
    assert part.is_dir()


def test_file_that_was_moved_away_does_not_give_its_name_to_another(tmp_path: Path):
    path = tmp_path / "slide.h5"
    slide_writer = begun(path)
    left.part_of(path).rename(tmp_path / "moved")
    left.part_of(path).write_bytes(b"another's")
    with pytest.raises(WriteError, match="moved away"):
        slide_writer.close()
    assert left.part_of(path).read_bytes() == b"another's"
    assert not path.exists()


def test_slides_that_are_set_aside_are_numbered_and_all_are_found(tmp_path: Path):
    location = tmp_path / "a scan.h5"
    for number in range(12):
        left.new_damaged_of(location).write_bytes(bytes([number]))
    for other in ("a scan.h5.damaged-x", "a scan.h5.damaged-02", "a scan.h5.damaged-1", "b.h5.damaged", "a scan.h5.damaged-²"):
        (tmp_path / other).touch()
    found = left.damaged_of(location)
    assert [entry.read_bytes() for entry in found] == [bytes([number]) for number in range(12)]
    assert [entry.name for entry in found[:2]] == ["a scan.h5.damaged", "a scan.h5.damaged-2"]
