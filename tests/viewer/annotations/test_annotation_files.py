"""Where annotations are kept, and that a file is whole, current, and nobody else's lost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from rawmosaic.storage.errors import DamagedSlideError, WriteError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer.annotations import files
from rawmosaic.viewer.annotations.files import ENDING, AnnotationFile, annotations_path, user_path, write_geojson
from rawmosaic.viewer.annotations.geojson import Document, Frame
from rawmosaic.viewer.annotations.model import Annotation
from rawmosaic.viewer.annotations.shapes import Points, Rectangle
from rawmosaic.viewer.beside import path_beside
from rawmosaic.viewer.user_folder import FOLDER_VARIABLE


@pytest.fixture(autouse=True)
def user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's own data."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def slide_path(tmp_path: Path) -> Path:
    path = tmp_path / "slides" / "scan.h5"
    path.parent.mkdir()
    path.write_bytes(b"")
    return path


@pytest.fixture
def kept(slide_path: Path) -> AnnotationFile:
    """A file with one annotation, saved."""
    file = AnnotationFile(annotations_path(str(slide_path)), Frame(0.5, (1, 2)))
    file.annotations.add(Annotation(Points([(3, 4)]), "first"))
    file.save()
    return file


def names_in(path: Path) -> list[str]:
    return [item["properties"].get("name") for item in json.loads(path.read_text(encoding="utf-8"))["features"]]


def test_annotations_lie_beside_a_file_and_inside_a_folder(tmp_path: Path, slide_path: Path):
    assert annotations_path(str(slide_path)) == slide_path.with_name("scan.h5.annotations.geojson")
    assert annotations_path(str(slide_path.parent)) == slide_path.parent / "rawmosaic.annotations.geojson"
    assert list(tmp_path.glob("slides/*")) == [slide_path]


@pytest.mark.parametrize("location", ["tcp://host:5555/scan one", "synthetic:x", "http://host/a/b.zarr"])
def test_annotations_of_what_is_not_on_this_machine_lie_with_the_users_data(location: str, user_data: Path):
    path = annotations_path(location)
    assert path.parent == user_data / "annotations"
    assert path != annotations_path(location + "x")
    assert path_beside(location, ENDING) is None


def test_where_nothing_can_be_written_they_lie_with_the_users_data(slide_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "_takes_files", lambda _: False)
    assert annotations_path(str(slide_path)) == user_path(str(slide_path))
    beside = path_beside(str(slide_path), ENDING)
    beside.write_text("{}")
    assert annotations_path(str(slide_path)) == beside  # what somebody put there is read


def test_a_place_that_cannot_be_is_none_beside_the_slide():
    assert path_beside("no\0where", ENDING) is None
    assert path_beside("gone.h5", ENDING) is None


def test_once_with_the_users_data_they_stay_there(slide_path: Path):
    there = user_path(str(slide_path))
    there.parent.mkdir(parents=True)
    there.write_text("{}")
    assert annotations_path(str(slide_path)) == there


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="who may write everywhere cannot be kept from it")
def test_a_read_only_folder_is_noticed(slide_path: Path):
    slide_path.parent.chmod(0o500)
    try:
        assert annotations_path(str(slide_path)) == user_path(str(slide_path))
    finally:
        slide_path.parent.chmod(0o700)


def test_what_was_saved_is_there_the_next_time(kept: AnnotationFile):
    again = AnnotationFile(kept.path, Frame())
    assert [item.name for item in again.annotations.snapshot().annotations] == ["first"]
    assert again.frame == Frame(0.5, (1, 2))
    assert not again.changed


def test_looking_at_a_slide_makes_no_file(slide_path: Path):
    file = AnnotationFile(annotations_path(str(slide_path)), Frame())
    assert not file.changed
    assert not file.path.exists()


def test_a_change_is_to_be_saved_until_it_is(kept: AnnotationFile):
    assert not kept.changed
    kept.annotations.update([0], name="second")
    assert kept.changed
    before = kept.annotations.snapshot()
    kept.annotations.update([0], name="third")
    kept.save(before)
    assert names_in(kept.path) == ["second"]
    assert kept.changed  # meanwhile there is more
    kept.save()
    assert names_in(kept.path) == ["third"]
    assert not kept.changed


def test_the_last_annotation_removed_leaves_an_empty_file(kept: AnnotationFile):
    kept.annotations.remove([0])
    kept.save()
    assert names_in(kept.path) == []


def test_what_another_program_wrote_meanwhile_is_kept_beside(kept: AnnotationFile):
    other = AnnotationFile(kept.path, Frame())
    other.annotations.update([0], name="from elsewhere, longer")
    assert other.save() is None
    kept.annotations.add(Annotation(Rectangle(0, 0, 1, 1), "mine"))
    backup = kept.save()
    assert names_in(kept.path) == ["first", "mine"]
    assert names_in(backup) == ["from elsewhere, longer"]
    assert kept.save() is None


def test_a_damaged_file_is_neither_read_nor_replaced(kept: AnnotationFile):
    kept.path.write_text("{")
    with pytest.raises(DamagedSlideError):
        AnnotationFile(kept.path, Frame())
    assert kept.path.read_text() == "{"


def test_a_failure_leaves_the_file_as_it_was_and_nothing_else(kept: AnnotationFile, monkeypatch: pytest.MonkeyPatch):
    def full(_):
        raise OSError(28, "No space left on device")

    kept.annotations.update([0], name="second")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        kept.save()
    assert names_in(kept.path) == ["first"]
    assert kept.changed
    assert sorted(path.name for path in kept.path.parent.iterdir()) == ["scan.h5", "scan.h5.annotations.geojson"]


def test_a_slide_without_a_place_has_its_annotations_with_the_users_data(user_data: Path):
    file = AnnotationFile.of(SyntheticSlide((1, 2), (20, 30)))
    file.annotations.add(Annotation(Points([(0, 0)])))
    file.save()
    assert file.path.parent == user_data / "annotations"
    assert AnnotationFile.of(SyntheticSlide((1, 2), (20, 30))).annotations.snapshot().annotations == (
        Annotation(Points([(0, 0)])),
    )


def test_a_folder_that_is_missing_is_made_for_the_users_data_only_when_saving(user_data: Path):
    assert not user_data.exists()
    write_geojson(user_data / "a" / "b.geojson", Document())
    assert (user_data / "a" / "b.geojson").exists()
