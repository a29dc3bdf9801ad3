"""Fiji's tile tables: corners become centres, the registered twin a position set; real overlaps prove the axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from acquisitions import best_shift, cut, every_plane

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError
from rawmosaic.storage.importers.tile_configuration import parse_tiles


def opened(path: Path, **options):
    return open_slide(path, in_place_cache=False, **options)


def tiles(folder: Path, text: str, images: dict[str, np.ndarray]) -> Path:
    (folder / "TileConfiguration.txt").write_text(text)
    for name, image in images.items():
        tifffile.imwrite(folder / name, image, photometric="minisblack")
    return folder


@pytest.fixture
def brain(data: Path) -> Path:
    return data / "wsi-brain-tileconfig"


def table(brain: Path, name: str) -> dict[str, tuple[float, float]]:
    return {tile.file: tile.corner_px for tile in parse_tiles((brain / name).read_text(), brain)}


def test_every_plane_of_the_brain_equals_its_file(brain: Path):
    names = list(table(brain, "TileConfiguration.txt"))
    with opened(brain) as slide:
        assert slide.n_fields == len(names) == 54
        for field, _, _, _, plane in every_plane(slide):
            np.testing.assert_array_equal(plane, tifffile.imread(brain / names[field]))


def test_corners_become_centres_in_um(brain: Path):
    nominal, registered = (table(brain, f"TileConfiguration{kind}.txt") for kind in ("", ".registered"))
    with opened(brain, pixel_size_um=2.583) as slide:
        assert slide.position_sets == ("stage", "registered")
        for field, name in enumerate(nominal):
            np.testing.assert_allclose(slide.positions()[field], (np.array(nominal[name]) + 256) * 2.583)
            np.testing.assert_allclose(slide.positions("registered")[field], (np.array(registered[name]) + 256) * 2.583)


def test_pixel_size_of_the_brain_is_in_its_tags(brain: Path):
    with opened(brain) as slide:
        assert slide.header.pixel_size_um == pytest.approx(2.583, abs=1e-3)


@pytest.mark.parametrize(("first", "second"), [((3, 3), (3, 4)), ((3, 3), (4, 3)), ((2, 5), (3, 5))])
def test_overlaps_of_the_brain_prove_x_right_and_y_down(brain: Path, first: tuple[int, int], second: tuple[int, int]):
    with opened(brain, pixel_size_um=1.0) as slide:
        field = {tuple(cell): n for n, cell in enumerate((slide.positions()[:, ::-1] // 460).astype(int).tolist())}
        a, b = field[first], field[second]
        nominal = (slide.positions()[b] - slide.positions()[a]).astype(int)
        shift, correlation = best_shift(slide.read_plane(a, 0), slide.read_plane(b, 0), tuple(nominal))
        expected = (460.5, 7.5) if first[0] == second[0] else (-5.7, 460.9)  # the camera is rotated against the stage
        assert correlation > 0.8
        np.testing.assert_allclose(shift, expected, atol=2.5)
        _, mirrored = best_shift(slide.read_plane(b, 0), slide.read_plane(a, 0), tuple(nominal))
        assert mirrored < correlation - 0.2


def test_table_file_and_registered_file_open_the_same(brain: Path):
    with opened(brain / "TileConfiguration.registered.txt") as slide, opened(brain / "TileConfiguration.txt") as same:
        assert slide.position_sets == same.position_sets == ("stage", "registered")
        np.testing.assert_array_equal(slide.positions(), same.positions())


def test_registered_table_alone_is_the_stage(tmp_path: Path):
    tiles(tmp_path, "dim = 2\na.tif; ; (3.5, 4)\n", {"a.tif": cut((0, 0))})
    (tmp_path / "TileConfiguration.txt").rename(tmp_path / "TileConfiguration.registered.txt")
    with opened(tmp_path) as slide:
        assert slide.position_sets == ("stage",)
        np.testing.assert_array_equal(slide.positions(), [(33.5, 24)])


def test_pixel_is_one_um_where_nothing_says(tmp_path: Path):
    with opened(tiles(tmp_path, "dim = 2\na.tif; ; (0, 0)\n", {"a.tif": cut((0, 0))})) as slide:
        assert slide.header.pixel_size_um == 1.0


def test_stacks_in_three_dimensions(tmp_path: Path):
    stacks = {name: np.stack([cut((x, z)) for z in range(3)]) for name, x in (("a.tif", 0), ("b.tif", 50))}
    text = "# Define the number of dimensions we are working on\ndim = 3\na.tif; ; (0, 0, 0)\nb.tif; ; (50.0, 0.0, 2.5)\n"
    with opened(tiles(tmp_path, text, stacks)) as slide:
        assert (slide.n_fields, slide.size_z, len(slide.channels)) == (2, 3, 1)
        np.testing.assert_array_equal(slide.positions(), [(30, 20), (80, 20)])
        assert list(slide.fields["z_um"]) == [0, 2.5]
        for z in range(3):
            np.testing.assert_array_equal(slide.read_plane(1, 0, z), stacks["b.tif"][z])


def test_imagej_hyperstacks_keep_channels_and_slices(tmp_path: Path):
    stack = np.arange(3 * 2 * 20 * 30, dtype=np.uint16).reshape(3, 2, 20, 30)
    tiles(tmp_path, "dim = 2\na.tif; ; (0, 0)\n", {})
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    with opened(tmp_path) as slide:
        assert (slide.size_z, len(slide.channels)) == (3, 2)
        np.testing.assert_array_equal(slide.read_plane(0, 1, 2), stack[2, 1])


def test_series_of_one_file_are_fields(tmp_path: Path):
    planes = [cut((50 * n, 0)) for n in range(3)]
    text = "dim = 2\nmultiseries = true\n" + "".join(f"a.ome.tif; {n}; ({50 * n}, 0)\n" for n in range(3))
    tiles(tmp_path, text, {})
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        for plane in planes:
            tiff.write(plane)
    with opened(tmp_path / "TileConfiguration.txt") as slide:
        assert slide.n_fields == 3
        for n in range(3):
            np.testing.assert_array_equal(slide.read_plane(n, 0), planes[n])


def test_tile_lost_by_registration_keeps_its_place_among_the_others(tmp_path: Path):
    images = {f"{n}.tif": cut((50 * n, 0)) for n in range(3)}
    folder = tiles(tmp_path, "dim = 2\n" + "".join(f"{n}.tif; ; ({50 * n}, 0)\n" for n in range(3)), images)
    (folder / "TileConfiguration.registered.txt").write_text("dim = 2\n0.tif; ; (4, 1)\n2.tif; ; (104, 1)\n")
    with opened(folder, camera_angle_deg=1.0) as slide:
        np.testing.assert_array_equal(slide.positions("registered") - slide.positions(), [(4, 1)] * 3)
        np.testing.assert_array_equal(slide.placement("registered").matrix_um, np.eye(2))  # Fiji turns nothing
        assert slide.placement().matrix_um[0, 1] < 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dim = 2\na.tif; ; (0, here)\n", "row 2, column y is 'here', not a number"),
        ("dim = 2\na.tif; ; 0, 0\n", "row 2 is"),
        ("dim = 3\na.tif; ; (0, 0)\n", "row 2 has 2 coordinates, but dim is 3"),
        ("dim = 4\na.tif; ; (0, 0, 0, 0)\n", "dim is 4"),
        ("dim = 2\na.tif; one; (0, 0)\n", "column series is 'one'"),
        ("dim = 2\n", "names no file"),
        ("dim = 2\na.tif; ; (0, 0)\nb.tif; ; (1, 0)\n", "missing: b.tif"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(AcquisitionError, match=message):
        opened(tiles(tmp_path, text, {"a.tif": cut((0, 0))}))


def test_several_tables_ask_for_one(tmp_path: Path):
    for name in ("TileConfiguration_A.txt", "TileConfiguration_B.txt"):
        (tmp_path / name).write_text("dim = 2\na.tif; ; (0, 0)\n")
    with pytest.raises(AcquisitionError, match=r"TileConfiguration_A.txt, TileConfiguration_B.txt"):
        opened(tmp_path)
