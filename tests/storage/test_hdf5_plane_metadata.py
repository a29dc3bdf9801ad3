"""What a camera noted with a plane stays with that plane: in the file, while it grows, when it is copied; and damage is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_hdf5_following import Acquisition

from rawmosaic.storage import SlideWriter, open_slide
from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, OutOfRangeError
from rawmosaic.storage.hdf5.copying import copy_planes
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.testing import SyntheticSlide, hashed_plane, write_slide

SHAPE = (40, 56)


def noted(field: int, channel: int = 0, z: int = 0) -> dict:
    """Different for each plane, and some of it long."""
    return {"focus_um": field + channel / 8, "z": z, "note": "µ\n" * (field * 50)}


def write(slide_writer: SlideWriter, field: int, channel: int = 0, z: int = 0, **more) -> None:
    where = {"field": field, "x_um": 50.0 * field, "y_um": 0.0, **more}
    slide_writer.write_plane(hashed_plane(SHAPE, field, channel, z, 0), channel, z=z, metadata=noted(field, channel, z), **where)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a", "b"], size_z=2) as slide_writer:
        for field in range(6):
            for channel in (0, 1):
                write(slide_writer, field, channel, z=field % 2)
        slide_writer.write_plane(hashed_plane(SHAPE, 6, 0, 0, 0), 0, field=6, x_um=300, y_um=0)
    return tmp_path / "slide.h5"


def test_metadata_of_each_plane_come_back(path: Path):
    with open_slide(path) as slide:
        for field in range(6):
            for channel in (0, 1):
                assert slide.plane_metadata(field, channel, field % 2) == noted(field, channel, field % 2)
                assert slide.plane_metadata(field, channel, 1 - field % 2) == {}
        assert slide.plane_metadata(6, 0) == {}
        with pytest.raises(OutOfRangeError, match="field 7"):
            slide.plane_metadata(7, 0)
    assert verify_slide(path) == []


def test_metadata_are_lines_that_any_hdf5_tool_reads(path: Path):
    with h5py.File(path) as file:
        lines = [json.loads(line) for line in file["plane_metadata"][()].tobytes().splitlines()]
    assert len(lines) == 12
    for line in lines:
        assert line["metadata"] == noted(line["field"], line["channel"], line["z"])


def test_slide_without_metadata_has_no_table_of_them(tmp_path: Path):
    path = write_slide(SyntheticSlide((1, 2), SHAPE, 1), tmp_path / "slide.h5")
    with h5py.File(path) as file:
        assert "plane_metadata" not in file
        assert "metadata" not in file["planes"]
    with open_slide(path) as slide:
        assert slide.plane_metadata(0, 0) == {}
    assert SyntheticSlide((1, 2), SHAPE, 1).plane_metadata(0, 0) == {}


def test_files_of_earlier_versions_are_read(path: Path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = (1, 1)
        del file["plane_metadata"], file["planes/metadata"]
    with open_slide(path) as slide:
        assert slide.plane_metadata(3, 1, 1) == {}
        np.testing.assert_array_equal(slide.read_plane(3, 1, 1), hashed_plane(SHAPE, 3, 1, 1, 0))
    assert verify_slide(path) == []


def test_metadata_are_there_while_the_slide_grows(tmp_path: Path):
    acquisition = Acquisition(tmp_path / "scan.h5")
    try:
        acquisition.ask("writer.write_plane(plane(0), 0, x_um=0, y_um=0, metadata={'n': 0}); writer.publish()")
        with open_slide(tmp_path / "scan.h5") as slide:
            assert slide.plane_metadata(0, 0) == {"n": 0}
            for n in range(1, 6):
                acquisition.ask(f"writer.write_plane(plane({n}), 0, x_um={n}, y_um=0, metadata={{'n': {n}}}); writer.publish()")
                assert len(slide.refresh()) == 1
                assert [slide.plane_metadata(field, 0)["n"] for field in range(n + 1)] == list(range(n + 1))
            assert slide.plane_metadata(3, 1) == {}
    finally:
        acquisition.end()


@pytest.mark.parametrize(
    "metadata", [{"n": object()}, {"n": float("nan")}, {"n": "x" * (64 << 10)}], ids=["object", "nan", "long"]
)
def test_metadata_that_cannot_be_kept_are_refused_before_the_plane_counts(tmp_path: Path, metadata: dict):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"]) as slide_writer:
        with pytest.raises(AcquisitionError, match="metadata of a plane"):
            slide_writer.write_plane(hashed_plane(SHAPE, 0, 0, 0, 0), 0, x_um=0, y_um=0, metadata=metadata)
        slide_writer.write_plane(hashed_plane(SHAPE, 0, 0, 0, 0), 0, x_um=0, y_um=0)


def test_damaged_metadata_are_told_and_found_by_verify(path: Path):
    with h5py.File(path, "r+") as file:
        text = file["plane_metadata"]
        begin = int(file["planes/metadata"][2, 1, 0, 0]) - 1
        text[begin + 3] = ord("!")
    with open_slide(path) as slide:
        with pytest.raises(DamagedSlideError, match="field 2, channel 1, z 0, t 0: its metadata"):
            slide.plane_metadata(2, 1)
        assert slide.plane_metadata(2, 0) == noted(2, 0)
    assert [(damage.field, damage.channel) for damage in verify_slide(path)] == [(2, 1)]


def test_copied_planes_keep_metadata_and_places_and_leave_damage_behind(path: Path, tmp_path: Path):
    shutil.copy(path, tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file["planes/checksum"][4, 1, 0, 0] += 1
    with SlideWriter(tmp_path / "new.h5", field_shape=SHAPE, channels=["a", "b"], size_z=2) as slide_writer:
        with Hdf5Slide(tmp_path / "old.h5") as old:
            steps = []
            assert copy_planes(old, slide_writer, steps.append) == [(4, 1, 0, 0)]
            assert steps == list(range(1, 14))
    with open_slide(path) as old, open_slide(tmp_path / "new.h5") as new:
        assert (new.fields == old.fields).all()
        for z in (0, 1):
            expected = old.acquired(z).copy()
            if z == 0:
                expected[4, 1] = False
            np.testing.assert_array_equal(new.acquired(z), expected)
            for field, channel in np.argwhere(expected):
                np.testing.assert_array_equal(new.read_plane(field, channel, z), old.read_plane(field, channel, z))
                assert new.plane_metadata(field, channel, z) == old.plane_metadata(field, channel, z)
    assert verify_slide(tmp_path / "new.h5") == []
