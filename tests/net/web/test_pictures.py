"""Pictures, read back by a library that is not ours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rawmosaic.net.web.pictures import encoded

SHAPES = [(1, 1), (1, 7), (5, 1), (513, 514), (64, 100)]


def read(data: bytes, kind: str) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == (kind, "RGB")
    image.load()
    return np.asarray(image)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_png_is_exact(shape: tuple[int, int]):
    random = np.random.default_rng(1)
    for pixels in (
        random.integers(0, 256, (*shape, 4), np.uint8),
        np.zeros((*shape, 4), np.uint8),
        np.full((*shape, 4), 255, np.uint8),
        np.ascontiguousarray(random.integers(0, 256, (shape[1], shape[0], 4), np.uint8)).transpose(1, 0, 2),
    ):
        assert np.array_equal(read(encoded(pixels, "png"), "PNG"), pixels[..., :3])


def test_a_jpeg_keeps_the_colour_of_every_pixel():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, ::2, 0] = pixels[:, 1::2, 2] = 200  # red and blue columns, which shared colours would mix
    found = read(encoded(pixels, "jpeg"), "JPEG").astype(int)
    assert np.abs(found - pixels[..., :3]).mean() < 20
    assert (found[:, ::2, 0] > found[:, ::2, 2] + 80).all()


def test_an_empty_tile_is_small():
    assert len(encoded(np.zeros((514, 514, 4), np.uint8), "png")) < 6000
