"""Pictures written strip by strip are read by others as they were, and are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from rawmosaic.storage.errors import GraphicsError, WriteError
from rawmosaic.viewer.picture_file import TILE_PX, write_picture

NOTES = {"slide": "Probe 7 β", "region": "x 0 to 5 µm"}
TEXT = "slide: Probe 7 β\nregion: x 0 to 5 µm"


def picture(width: int, height: int) -> np.ndarray:
    """Noise, plain areas and repeated rows."""
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels[height // 3 : height // 2] = 17
    pixels[: height // 4 : 2] = pixels[:1]
    return pixels


def strips(pixels: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """The picture in strips that share their memory, as figures do."""
    memory = np.empty((rows, *pixels.shape[1:]), np.uint8)
    for top in range(0, len(pixels), rows):
        piece = memory[: len(pixels[top : top + rows])]
        piece[:] = pixels[top : top + rows]
        yield piece


def write(path: Path, pixels: np.ndarray, given=None, rows: int = TILE_PX) -> None:
    """Write a picture from strips."""
    size = pixels.shape[1], pixels.shape[0]
    write_picture(path, size, given if given is not None else strips(pixels, rows), dpi=254, notes=NOTES, software="tests 1")


@pytest.mark.parametrize("size", [(1, 1), (255, 257), (256, 256), (700, 513)], ids=str)
@pytest.mark.parametrize("rows", [TILE_PX, 2 * TILE_PX])
def test_a_png_is_read_as_it_was_written(tmp_path: Path, size: tuple[int, int], rows: int):
    pixels = picture(*size)
    write(tmp_path / "a.png", pixels, rows=rows)
    with Image.open(tmp_path / "a.png") as read:
        assert read.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(read), pixels)
        assert (read.info["Description"], read.info["Software"]) == (TEXT, "tests 1")
        assert read.info["dpi"] == pytest.approx((254, 254))


@pytest.mark.parametrize("suffix", [".tif", ".TIFF"])
@pytest.mark.parametrize("size", [(1, 1), (255, 257), (256, 256), (700, 513)], ids=str)
def test_a_tiff_is_tiled_and_read_as_it_was_written(tmp_path: Path, size: tuple[int, int], suffix: str):
    pixels = picture(*size)
    write(tmp_path / f"a{suffix}", pixels)
    with tifffile.TiffFile(tmp_path / f"a{suffix}") as file:
        (page,) = file.pages
        assert page.is_tiled
        np.testing.assert_array_equal(page.asarray(), pixels)
        assert page.tags["ImageDescription"].value == TEXT
        assert (page.get_resolution("INCH"), page.software) == ((254, 254), "tests 1")
    with Image.open(tmp_path / f"a{suffix}") as read:  # any reader of plain TIFF
        np.testing.assert_array_equal(np.asarray(read), pixels)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GraphicsError, ZeroDivisionError])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_what_breaks_off_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, name: str, error: type[BaseException]):
    def broken() -> Iterator[np.ndarray]:
        yield picture(600, TILE_PX)
        raise error("no more")

    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(error):
        write(tmp_path / name, picture(600, 700), broken())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"before"


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_full_disk_is_told_as_such(tmp_path: Path, name: str):
    def full() -> Iterator[np.ndarray]:
        yield picture(600, TILE_PX)
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"No space left on device.*nothing was left") as raised:
        write(tmp_path / name, picture(600, 700), full())
    assert str(tmp_path / name) in str(raised.value)
    assert list(tmp_path.iterdir()) == []
