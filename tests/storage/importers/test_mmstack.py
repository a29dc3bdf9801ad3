"""Micro-Manager stacks: pages are found through the index map, positions in the pages' metadata."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from acquisitions import every_plane

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError
from rawmosaic.storage.importers import mmstack


def opened(path: Path, **options):
    return open_slide(path, in_place_cache=False, **options)


@pytest.fixture(scope="module")
def stacks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mm") / "scan"
    folder.mkdir()
    for path in (data / "mm14-mmstack-2x2").glob("*.gz"):
        with gzip.open(path) as packed, open(folder / path.stem, "wb") as whole:
            shutil.copyfileobj(packed, whole)
    return folder


def test_every_plane_equals_its_page(stacks: Path):
    expected = {}
    for path in stacks.glob("*.tif"):
        with tifffile.TiffFile(path) as tiff:
            for page in tiff.pages:
                told = page.tags["MicroManagerMetadata"].value
                key = tuple(told[f"{axis}Index"] for axis in ("Position", "Channel", "Slice", "Frame"))
                expected[key] = page.asarray()
    assert len(expected) == 32
    with opened(stacks) as slide:
        found = {(field, channel, z, t): plane for field, channel, z, t, plane in every_plane(slide)}
    assert found.keys() == expected.keys()
    for key, plane in found.items():
        np.testing.assert_array_equal(plane, expected[key])


def test_positions_and_facts_are_those_of_the_metadata(stacks: Path):
    with opened(stacks) as slide:
        np.testing.assert_array_equal(slide.positions(), [(-32, -32), (32, -32), (32, 32), (-32, 32)])
        assert list(zip(slide.fields["row"], slide.fields["column"], strict=True)) == [(0, 0), (0, 1), (1, 1), (1, 0)]
        assert slide.header.pixel_size_um == 1.0
        assert slide.header.acquired_at == "2016-02-11T09:00:16-08:00"
        assert [(c.name, c.color, c.exposure_ms) for c in slide.channels] == [("Cy5", "#ff0000", 25.0), ("DAPI", "#00ff00", 50.0)]
        assert slide.header.extra["summary"]["Prefix"] == "1.4compatTest_3"
        assert slide.header.extra["first_plane"]["Camera-Binning"] == "1"


def test_one_file_opens_all_of_its_set(stacks: Path):
    with opened(next(stacks.glob("*_001_000.ome.tif"))) as slide:
        assert slide.n_fields == 4


def test_orientation_option_turns_the_images(stacks: Path):
    with opened(stacks, orientation="transpose", pixel_size_um=2) as slide:
        np.testing.assert_array_equal(slide.placement().matrix_um, [[0, 2], [2, 0]])


def test_file_without_index_map_is_read_page_by_page(stacks: Path, monkeypatch: pytest.MonkeyPatch):
    with opened(stacks) as slide:
        expected = {(field, channel, z, t): plane for field, channel, z, t, plane in every_plane(slide)}
    whole = tifffile.TiffFile.micromanager_metadata.__get__
    monkeypatch.setattr(
        tifffile.TiffFile, "micromanager_metadata", property(lambda tiff: {"Summary": (whole(tiff) or {}).get("Summary")})
    )
    with opened(stacks) as slide:
        for field, channel, z, t, plane in every_plane(slide):
            np.testing.assert_array_equal(plane, expected.pop((field, channel, z, t)))
    assert not expected


def test_missing_position_file_leaves_the_mosaic_sparse(stacks: Path, tmp_path: Path):
    for path in list(stacks.glob("*.ome.tif"))[:3]:
        shutil.copyfile(path, tmp_path / path.name)
    with opened(tmp_path) as slide:
        assert slide.n_fields == 3


def test_two_acquisitions_in_a_folder_ask_for_one(stacks: Path, tmp_path: Path):
    first = next(stacks.glob("*.ome.tif"))
    for prefix in ("first", "second"):
        shutil.copyfile(first, tmp_path / f"{prefix}_MMStack_Pos0.ome.tif")
    with pytest.raises(AcquisitionError, match="first, second"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "summary",
    [
        {"InitialPositionList": [{"Label": "P", "DeviceCoordinatesUm": {"Z": [1], "XY": [3, 4]}}]},
        {"StagePositions": [{"Label": "P", "DevicePositions": [{"Device": "XY", "Position_um": [3, 4]}]}]},
    ],
    ids=["1.4", "2"],
)
def test_planned_position_stands_in_for_a_measured_one(summary: dict):
    assert mmstack._planned_um(summary, 0, "P", Path("file")) == (3, 4)
    assert mmstack._planned_um(summary, 0, "another name", Path("file")) == (3, 4)
    with pytest.raises(AcquisitionError, match="no stage position"):
        mmstack._planned_um(summary, 7, "another name", Path("file"))
