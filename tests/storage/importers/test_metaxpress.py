"""MetaXpress plates: folders and names become wells, sites, waves, z and t; the tag says where each site lies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from acquisitions import best_shift, every_plane

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError


def opened(path: Path, **options):
    return open_slide(path, in_place_cache=False, **options)


@pytest.fixture
def plates(data: Path) -> Path:
    return data / "imagexpress-9987-overlap"


@pytest.mark.parametrize(
    ("plate", "n_fields", "channels", "size_z", "size_t", "scenes"),
    [
        ("9987_Plate_3420", 1, ["DAPI"], 1, 1, ("B02",)),
        ("9987_Plate_3434", 4, ["DAPI", "FITC", "Texas Red"], 3, 1, ("B02", "B03")),
        ("9987_Plate_3435", 4, ["DAPI", "FITC"], 1, 2, ("B02", "B03")),
    ],
)
def test_every_plane_equals_its_file(
    plates: Path, plate: str, n_fields: int, channels: list, size_z: int, size_t: int, scenes: tuple
):
    folder = plates / plate
    with opened(folder) as slide:
        assert [channel.name for channel in slide.channels] == channels
        assert (slide.n_fields, slide.size_z, slide.size_t, slide.scenes) == (n_fields, size_z, size_t, scenes)
        count = 0
        for field, channel, z, t, plane in every_plane(slide):
            here = folder / f"TimePoint_{t + 1}" / (f"ZStep_{z}" if size_z > 1 else "")
            well, site = scenes[slide.fields["scene"][field]], slide.fields["column"][field] + 1
            name = f"9987_{well}.TIF" if n_fields == 1 else f"9987_{well}_s{site}_w{channel + 1}.TIF"
            np.testing.assert_array_equal(plane, tifffile.imread(here / name))
            count += 1
        assert count == len(list(folder.rglob("*.TIF")))


def test_stage_positions_are_those_of_the_tags(plates: Path):
    with opened(plates / "9987_Plate_3434") as slide:
        np.testing.assert_array_equal(slide.positions(), [(22985, 19885), (23300, 19885), (31984.9, 19885), (32300, 19885)])
        assert slide.header.pixel_size_um == 1.3672
        assert slide.channels[0].emission_nm == 452
        assert slide.header.objective == "40X Plan Apo Lambda"
        assert slide.header.acquired_at.startswith("2024-07-09T13:13")
        assert '"HTSInfoFile"' in slide.header.extra["htd"]
        assert "stage-position-x" in slide.header.extra["metaseries"]["1"]
        assert slide.header.extra["z_steps"] == ["projection (ZStep_0)", "ZStep_1", "ZStep_2"]


def test_overlap_of_well_b03_proves_x_right(plates: Path):
    with opened(plates / "9987_Plate_3434") as slide:
        step = (slide.positions()[3] - slide.positions()[2]) / slide.header.pixel_size_um
        shift, correlation = best_shift(slide.read_plane(2, 0), slide.read_plane(3, 0), tuple(step.round().astype(int)), reach=6)
        assert correlation > 0.5
        np.testing.assert_allclose(shift, step, atol=4)
        _, mirrored = best_shift(slide.read_plane(3, 0), slide.read_plane(2, 0), tuple(step.round().astype(int)), reach=6)
        assert mirrored < correlation - 0.2


@pytest.mark.parametrize("place", ["9987.HTD", "TimePoint_1", "TimePoint_1/ZStep_1", "TimePoint_1/ZStep_1/9987.HTD"])
def test_parts_of_a_plate_can_be_opened(plates: Path, place: str):
    with opened(plates / "9987_Plate_3434" / place) as slide:
        assert slide.header.name == "9987_Plate_3434"
        assert slide.size_z == (1 if "ZStep" in place else 3)
        assert slide.n_fields == 4


def test_several_plates_ask_for_one(plates: Path):
    with pytest.raises(AcquisitionError, match=r"3 plates.*9987_Plate_3420, 9987_Plate_3434, 9987_Plate_3435"):
        opened(plates)


@pytest.fixture
def small_plate(plates: Path, tmp_path: Path) -> Path:
    shutil.copytree(plates / "9987_Plate_3435", tmp_path / "plate", copy_function=shutil.copyfile)
    return tmp_path / "plate"


def test_missing_planes_leave_the_mosaic_sparse(small_plate: Path):
    (small_plate / "TimePoint_2" / "9987_B03_s1_w2.TIF").unlink()
    with opened(small_plate) as slide:
        assert slide.acquired(0, 0).all()
        np.testing.assert_array_equal(np.argwhere(~slide.acquired(0, 1)), [(2, 1)])


def test_thumbnails_and_long_names_are_understood(small_plate: Path):
    guid = "3F2504E0-4F89-11D3-9A0C-0305E82C3301"
    for path in list(small_plate.rglob("*.TIF")):
        path.rename(path.with_name(f"{path.stem}{guid}.tif"))
        path.with_name(f"{path.stem}_Thumb{guid}.tif").write_bytes(b"small")
        path.with_name(f"{path.stem}_thumb.TIF").write_bytes(b"small")
    with opened(small_plate) as slide:
        assert (slide.n_fields, slide.size_t, len(slide.channels)) == (4, 2, 2)


def test_plate_without_stage_positions_says_so(small_plate: Path):
    for path in small_plate.rglob("*.TIF"):
        tifffile.imwrite(path, tifffile.imread(path))
    with pytest.raises(AcquisitionError, match=r"stage position.*positions.csv"):
        opened(small_plate)


def test_uncalibrated_plate_asks_for_the_pixel_size(small_plate: Path):
    for path in small_plate.rglob("*.TIF"):
        with tifffile.TiffFile(path) as tiff:
            text = re.sub(r'(id="spatial-calibration-units"[^>]*value=")um"', r'\1pixel"', tiff.pages[0].description)
            image = tiff.pages[0].asarray()
        tifffile.imwrite(path, image, description=text, software="MetaSeries", metadata=None)
    with pytest.raises(AcquisitionError, match="--pixel-size-um"):
        opened(small_plate)
    with opened(small_plate, pixel_size_um=0.65) as slide:
        assert slide.header.pixel_size_um == 0.65


def test_positions_that_differ_between_waves_are_kept(small_plate: Path):
    for path in small_plate.rglob("*_w2.TIF"):
        with tifffile.TiffFile(path) as tiff:
            text = re.sub(
                r'(id="stage-position-x"[^>]*value=")([\d.]+)', lambda m: f"{m[1]}{float(m[2]) + 2}", tiff.pages[0].description
            )
            image = tiff.pages[0].asarray()
        tifffile.imwrite(path, image, description=text, software="MetaSeries", metadata=None)
    with opened(small_plate) as slide:
        np.testing.assert_allclose(slide.placement().centres_um(1) - slide.placement().centres_um(0), [(2, 0)] * 4)
