"""A raw acquisition keeps the slide contract and refuses what it cannot keep exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from acquisitions import csv_folder, cut, raw_of
from contract import KINDS, SlideContract

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, OutOfRangeError
from rawmosaic.storage.importers import acquisition
from rawmosaic.storage.importers.acquisition import ImportOptions
from rawmosaic.storage.placement import ORIENTATIONS
from rawmosaic.storage.testing import SyntheticSlide

WHOLE = sorted(KINDS.keys() - {"no plane"})  # an acquisition without any plane is refused


class TestRawAcquisition(SlideContract):
    @pytest.fixture(params=WHOLE)
    def truth(self, request: pytest.FixtureRequest) -> SyntheticSlide:
        return KINDS[request.param]()

    @pytest.fixture
    def slide(self, truth: SyntheticSlide, tmp_path: Path):
        with raw_of(truth, tmp_path) as slide:
            yield slide


def one_plane(folder: Path, image: np.ndarray) -> Path:
    return csv_folder(folder, "file,x_um,y_um", ["a.tif,0,0"], {"a.tif": image})


def opened(path: Path, **options):
    return open_slide(path, in_place_cache=False, **options)


def test_eight_bit_values_are_kept(tmp_path: Path):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with opened(one_plane(tmp_path / "s", image)) as slide:
        assert slide.header.bits == 8
        np.testing.assert_array_equal(slide.read_plane(0, 0), image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint32])
def test_other_types_are_refused_and_the_option_is_named(tmp_path: Path, dtype: type):
    with pytest.raises(AcquisitionError, match=f"{np.dtype(dtype)}.*--scale-float"):
        opened(one_plane(tmp_path / "s", np.ones((8, 8), dtype)))


def test_floats_are_scaled_when_told(tmp_path: Path):
    image = np.array([[-1, 0, 0.5], [1, 2, np.nan]], np.float32)
    with opened(one_plane(tmp_path / "s", image), scale_float=(0, 1)) as slide:
        np.testing.assert_array_equal(slide.read_plane(0, 0), [[0, 0, 32768], [65535, 65535, 0]])


def test_scaling_counts_is_refused(tmp_path: Path):
    with pytest.raises(AcquisitionError, match="floating-point"):
        opened(one_plane(tmp_path / "s", np.ones((8, 8), np.uint16)), scale_float=(0, 1))


def test_colour_pictures_are_refused(tmp_path: Path):
    folder = one_plane(tmp_path / "s", np.ones((8, 8), np.uint16))
    tifffile.imwrite(folder / "a.tif", np.ones((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(AcquisitionError, match="not one grey plane"):
        opened(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixelsize": 1}, "unknown option 'pixelsize'.*pixel_size_um"),
        ({"pixel_size_um": 0}, "positive"),
        ({"pixel_size_um": "wide"}, "positive"),
        ({"camera_angle_deg": float("nan")}, "degrees"),
        ({"scale_float": (1, 1)}, "low and high"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict, message: str):
    with pytest.raises(AcquisitionError, match=message):
        opened(one_plane(tmp_path / "s", np.ones((8, 8), np.uint16)), **options)


def test_unknown_orientation_lists_the_eight():
    with pytest.raises(OutOfRangeError, match="flip-y"):
        ImportOptions.of({"orientation": "sideways"}, "here")


def test_users_orientation_replaces_the_sources():
    native = np.array([[0, 1], [1, 0]])
    np.testing.assert_array_equal(ImportOptions().matrix(native), native)
    np.testing.assert_array_equal(ImportOptions(orientation="flip-x").matrix(native), ORIENTATIONS["flip-x"])
    np.testing.assert_allclose(ImportOptions(camera_angle_deg=90).matrix(native), [[-1, 0], [0, 1]], atol=1e-15)


def test_synthetic_y_flip_joins_again(tmp_path: Path):
    """A stage that counts y upwards: positions are negated, and the orientation option mends it."""
    places = [(0, 0), (50, 0), (0, 32), (50, 32)]
    images = {f"{n}.tif": cut(place) for n, place in enumerate(places)}
    lines = [f"{n}.tif,{x * 0.5},{-y * 0.5}" for n, (x, y) in enumerate(places)]
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um", lines, images)
    with opened(folder, orientation="flip-y") as slide:
        assert seam(slide, slide.placement()) == 0
    with opened(folder) as slide:
        assert seam(slide, slide.placement()) > 1000


def seam(slide, placement) -> float:
    """Largest difference of grey levels between fields 0 and 2 where the placement says they overlap."""
    inverse = np.linalg.inv(placement.matrix_um)
    x, y = (inverse @ (placement.positions_um[2] - placement.positions_um[0])).round().astype(int)
    first, second = slide.read_plane(0, 0).astype(int), slide.read_plane(2, 0).astype(int)
    height, width = first.shape
    a = first[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    b = second[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    return float(np.abs(a - b).max())


def test_truncated_file_is_named_and_the_others_are_read(tmp_path: Path):
    images = {f"{n}.tif": cut((n, 0), (200, 200)) for n in range(3)}
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um", [f"{n}.tif,{n * 90},0" for n in range(3)], images)
    for rows in (None, 16):  # one strip, many strips
        tifffile.imwrite(folder / "1.tif", images["1.tif"], rowsperstrip=rows)
        whole = (folder / "1.tif").read_bytes()
        (folder / "1.tif").write_bytes(whole[: len(whole) // 2])
        with opened(folder) as slide:
            np.testing.assert_array_equal(slide.read_plane(2, 0), images["2.tif"])
            with pytest.raises(DamagedSlideError, match=r"1.tif.*truncated"):
                slide.read_plane(1, 0)


def test_file_that_is_no_tiff_is_named(tmp_path: Path):
    folder = csv_folder(
        tmp_path / "s", "file,x_um,y_um", ["a.tif,0,0", "b.tif,30,0"], {"a.tif": cut((0, 0)), "b.tif": cut((60, 0))}
    )
    (folder / "b.tif").write_bytes(b"not a picture")
    with opened(folder) as slide:
        slide.read_plane(0, 0)
        with pytest.raises(DamagedSlideError, match=r"b.tif"):
            slide.read_plane(1, 0)


def test_plane_of_another_size_than_announced_is_named(tmp_path: Path):
    folder = csv_folder(
        tmp_path / "s", "file,x_um,y_um", ["a.tif,0,0", "b.tif,30,0"], {"a.tif": cut((0, 0)), "b.tif": cut((60, 0))}
    )
    with opened(folder) as slide:
        tifffile.imwrite(folder / "b.tif", cut((0, 0), (41, 60)))
        with pytest.raises(DamagedSlideError, match=r"41 × 60.*40 × 60"):
            slide.read_plane(1, 0)
        (folder / "a.tif").unlink()
        with pytest.raises(DamagedSlideError, match=r"a.tif.*not there"):
            slide.read_plane(0, 0)


def test_missing_decoder_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    with opened(one_plane(tmp_path / "s", cut((0, 0)))) as slide:
        monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
        with pytest.raises(AcquisitionError, match=r"pip install 'rawmosaic\[tiff\]'"):
            slide.read_plane(0, 0)


def test_compressed_planes_are_exact(tmp_path: Path):
    pytest.importorskip("imagecodecs", reason="LZW needs the extra rawmosaic[tiff]")
    folder = one_plane(tmp_path / "s", cut((0, 0)))
    tifffile.imwrite(folder / "a.tif", cut((0, 0)), compression="lzw", predictor=True)
    with opened(folder, pixel_size_um=1) as slide:
        np.testing.assert_array_equal(slide.read_plane(0, 0), cut((0, 0)))


def test_many_more_files_than_are_kept_open(tmp_path: Path):
    images = {f"{n}.tif": np.full((4, 4), n, np.uint16) for n in range(60)}
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um", [f"{n}.tif,{n},0" for n in range(60)], images)
    with opened(folder) as slide:
        for n in (*range(60), *range(0, 60, 7)):
            assert (slide.read_plane(n, 0) == n).all()


def test_few_headers_are_read_of_many_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.storage.importers import tiff_pages

    looked = []
    original = tiff_pages.page_facts
    monkeypatch.setattr(tiff_pages, "SURVEYED_ALL", 20)
    monkeypatch.setattr(tiff_pages, "page_facts", lambda path, page=0: looked.append(path) or original(path, page))
    images = {f"{n}.tif": np.full((4, 4), n, np.uint16) for n in range(60)}
    folder = csv_folder(tmp_path / "s", "file,x_um,y_um", [f"{n}.tif,{n},0" for n in range(60)], images)
    with opened(folder) as slide:
        assert slide.n_fields == 60
    assert len(looked) <= 16


def test_decoded_planes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acquisition, "DECODED_NBYTES", 3 * 96 * 128 * 2)
    truth = KINDS["dense"]()
    with raw_of(truth, tmp_path) as slide:
        for field in range(truth.n_fields):
            slide.read_plane(field, 0)
            assert slide._decoded.nbytes <= 3 * 96 * 128 * 2
