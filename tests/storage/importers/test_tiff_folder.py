"""positions.csv: what its columns mean, and what is said about each mistake in it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from acquisitions import csv_folder, cut

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError, NotASlideError
from rawmosaic.storage.importers.tiff_folder import source


def opened(path: Path, **options):
    return open_slide(path, in_place_cache=False, **options)


def two_by_two(folder: Path, channels: tuple[str, ...] = ("DAPI", "GFP"), shift_um: float = 0.0) -> tuple[Path, dict]:
    """2 × 2 fields of 40 × 60 pixels of 0.5 µm; the second channel measured `shift_um` to the right."""
    images, lines = {}, []
    for row in range(2):
        for column in range(2):
            for number, channel in enumerate(channels):
                name = f"r{row}c{column}_{channel}.tif"
                images[name] = cut((column * 50, row * 30), channel=number)
                lines.append(f"{name},{channel},{column * 25 + number * shift_um},{row * 15},{row},{column}")
    return csv_folder(folder, "file,channel,x_um,y_um,row,column", lines, images), images


def test_every_plane_equals_its_file(tmp_path: Path):
    folder, images = two_by_two(tmp_path / "scan")
    with opened(folder) as slide:
        assert slide.header.name == "scan"
        assert slide.header.pixel_size_um == pytest.approx(0.5)
        assert [channel.name for channel in slide.channels] == ["DAPI", "GFP"]
        assert slide.header.extra["positions.csv"] == (folder / "positions.csv").read_text()
        for field, (row, column) in enumerate(zip(slide.fields["row"], slide.fields["column"], strict=True)):
            for number, channel in enumerate(("DAPI", "GFP")):
                np.testing.assert_array_equal(slide.read_plane(field, number), images[f"r{row}c{column}_{channel}.tif"])


def test_positions_are_field_centres(tmp_path: Path):
    with opened(two_by_two(tmp_path / "scan")[0]) as slide:
        np.testing.assert_array_equal(slide.positions(), [(0, 0), (25, 0), (0, 15), (25, 15)])
        assert slide.placement().plane_offsets_um is None


def test_positions_that_differ_between_colours_are_kept(tmp_path: Path):
    with opened(two_by_two(tmp_path / "scan", shift_um=0.75)[0]) as slide:
        assert slide.n_fields == 4
        np.testing.assert_array_equal(slide.placement().centres_um(1) - slide.placement().centres_um(0), [(0.75, 0)] * 4)


def test_one_mosaic_per_colour_has_fields_of_one_channel(tmp_path: Path):
    images = {"a.tif": cut((0, 0)), "b.tif": cut((7, 0))}
    folder = csv_folder(tmp_path / "s", "file,channel,x_um,y_um", ["a.tif,DAPI,0,0", "b.tif,GFP,3.5,0"], images)
    with opened(folder) as slide:
        np.testing.assert_array_equal(slide.acquired(), [[True, False], [False, True]])


def test_scene_z_and_t_are_kept(tmp_path: Path):
    images, lines = {}, []
    for scene in "AB":
        for z in range(2):
            for t in range(3):
                if (scene, z, t) == ("B", 1, 2):
                    continue
                name = f"{scene}{z}{t}.tif"
                images[name] = cut((z * 10, t * 10))
                lines.append(f"{name},0,0,{z * 1.5},{scene},{z},{t}")
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um,z_um,scene,z,t", lines, images)
    with opened(folder) as slide:
        assert (slide.n_fields, slide.size_z, slide.size_t, slide.scenes) == (2, 2, 3, ("A", "B"))
        assert not slide.acquired(1, 2)[1, 0]
        np.testing.assert_array_equal(slide.read_plane(1, 0, 0, 2), images["B02.tif"])
        assert list(slide.fields["scene"]) == [0, 1]


def test_fields_may_differ_in_size(tmp_path: Path):
    images = {"a.tif": cut((0, 0), (40, 60)), "b.tif": cut((0, 0), (30, 80))}
    with opened(csv_folder(tmp_path / "s", "file,x_um,y_um", ["a.tif,0,0", "b.tif,50,0"], images)) as slide:
        assert slide.field_shape == (40, 80)
        assert slide.read_plane(1, 0).shape == (30, 80)


def test_pages_of_one_file_are_planes(tmp_path: Path):
    stack = np.stack([cut((n, 0)) for n in range(3)])
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um,z,page", [f"a.tif,0,0,{n},{n}" for n in range(3)], {"a.tif": stack})
    with opened(folder) as slide:
        for z in range(3):
            np.testing.assert_array_equal(slide.read_plane(0, 0, z), stack[z])


def test_semicolons_and_decimal_commas_are_understood(tmp_path: Path):
    folder = csv_folder(tmp_path / "s", "file;x_um;y_um", ["a.tif;1,5;-2,25"], {"a.tif": cut((0, 0))})
    with opened(folder) as slide:
        np.testing.assert_array_equal(slide.positions(), [(1.5, -2.25)])


def test_table_itself_can_be_opened(tmp_path: Path):
    folder, _ = two_by_two(tmp_path / "scan")
    table = (folder / "positions.csv").rename(folder / "moved stage.csv")
    with opened(table) as slide:
        assert slide.n_fields == 4
    assert source.score(str(folder)) == 0


@pytest.mark.parametrize("imagej", [True, False])
def test_pixel_size_comes_from_tags_and_the_option_wins(tmp_path: Path, imagej: bool):
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um", ["a.tif,0,0"], {"a.tif": cut((0, 0))})
    if imagej:
        tifffile.imwrite(folder / "a.tif", cut((0, 0)), imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    with opened(folder) as slide:
        assert slide.header.pixel_size_um == pytest.approx(0.25 if imagej else 0.5)
    with opened(folder, pixel_size_um=0.125) as slide:
        assert slide.header.pixel_size_um == 0.125


@pytest.mark.parametrize("dpi", [None, 72, 300])
def test_printers_resolution_is_no_pixel_size(tmp_path: Path, dpi: int | None):
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um", ["a.tif,0,0"], {"a.tif": cut((0, 0))}, um_per_px=None)
    if dpi:
        tifffile.imwrite(folder / "a.tif", cut((0, 0)), resolution=(dpi, dpi), resolutionunit="INCH")
    with pytest.raises(AcquisitionError, match="--pixel-size-um"):
        opened(folder)


@pytest.mark.parametrize(
    ("columns", "lines", "message"),
    [
        ("file,x_um,y_um", ["a.tif,0,0", "b.tif,12a,0"], "row 3, column x_um is '12a', not a number"),
        ("file,x_um,y_um", ["a.tif,0,nan"], "row 2, column y_um is 'nan'"),
        ("file,x_um,y_um", ["a.tif,0"], "row 2, column y_um is empty"),
        ("file,x_um,y_um,z", ["a.tif,0,0,0.5"], "row 2, column z is '0.5', not a whole number"),
        ("file,x_um,y_um,t", ["a.tif,0,0,-2"], "row 2, column t"),
        ("file,x_um", ["a.tif,0"], "column y_um is missing"),
        ("file,x_um,y_um", [], "no line"),
        ("file,x_um,y_um", ["a.tif,0,0", "c.tif,1,0", "d.tif,2,0"], "2 of 3 files.*missing: c.tif, d.tif"),
        ("file,x_um,y_um", ["a.tif,0,0", "b.tif,0,0"], "a.tif page 0 and b.tif page 0 are both field 0, channel channel 0"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, columns: str, lines: list[str], message: str):
    folder = csv_folder(tmp_path / "s", columns, lines, {"a.tif": cut((0, 0)), "b.tif": cut((0, 0))})
    with pytest.raises(AcquisitionError, match=message) as caught:
        opened(folder)
    assert str(folder) in str(caught.value)


def test_differing_types_are_refused(tmp_path: Path):
    images = {"a.tif": cut((0, 0)), "b.tif": cut((0, 0)).astype(np.uint8)}
    with pytest.raises(AcquisitionError, match=r"b.tif: holds uint8 pixels, but a.tif holds uint16"):
        opened(csv_folder(tmp_path / "s", "file,x_um,y_um", ["a.tif,0,0", "b.tif,50,0"], images))


def test_empty_folder_is_said_to_be_empty(tmp_path: Path):
    with pytest.raises(NotASlideError, match="empty"):
        open_slide(tmp_path)
    with pytest.raises(NotASlideError, match="no such"):
        open_slide(tmp_path / "nothing")
    with pytest.raises(NotASlideError, match="no such"):
        source.open(str(tmp_path / "nothing"))


def test_folder_of_other_things_is_no_acquisition(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dim the lights; ; (please)")
    with pytest.raises(NotASlideError):
        open_slide(tmp_path)
    with pytest.raises(NotASlideError):
        open_slide(tmp_path / "letter.txt")


def test_what_is_said_about_images_that_nothing_places_can_be_followed(tmp_path: Path, data: Path):
    for image in (data / "fov-16bit" / "plateviewer-crispr20x").glob("*.ome.tif"):
        (tmp_path / image.name).write_bytes(image.read_bytes())
    with pytest.raises(AcquisitionError, match=r"has no OME-XML.*positions.csv") as refused:
        open_slide(tmp_path, in_place_cache=False)
    columns = re.search(r"first line is (\S+)", str(refused.value))[1]
    first = re.search(r"such as (\S+?),", str(refused.value))[1]
    images = sorted(path.name for path in tmp_path.glob("*.tif"))
    assert first in images
    places = {name[: -len("--C00.ome.tif")]: 500.0 * number for number, name in enumerate(images[::2])}
    lines = [f"{name},{name[-11:-8]},{places[name[: -len('--C00.ome.tif')]]},0" for name in images]
    (tmp_path / "positions.csv").write_text("\n".join([columns, *lines]) + "\n")
    with pytest.raises(AcquisitionError, match="--pixel-size-um"):
        open_slide(tmp_path, in_place_cache=False)
    with open_slide(tmp_path, in_place_cache=False, pixel_size_um=0.3) as slide:
        assert [channel.name for channel in slide.channels] == ["C00", "C01"]
        assert sorted(slide.positions()[:, 0]) == sorted(places.values())
        np.testing.assert_array_equal(slide.read_plane(2, 1), tifffile.imread(tmp_path / images[5]))


@pytest.mark.parametrize("where", ["folder", "image"])
def test_numbered_images_are_refused_with_what_to_do(tmp_path: Path, where: str):
    for number in range(2):
        tifffile.imwrite(tmp_path / f"img_{number:04}.tif", np.zeros((8, 8), np.uint16))
    location = tmp_path if where == "folder" else tmp_path / "img_0000.tif"
    with pytest.raises(NotASlideError, match=r"positions.csv.* img_0000.tif,.*TileConfiguration.*OME-TIFF"):
        open_slide(location)
