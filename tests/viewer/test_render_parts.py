"""A picture too large for the texture cache is drawn in parts, sharp, and as if it were drawn at once."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.storage.pyramid import Tiling
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import OffscreenViewer
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.offscreen import halves

FEW_TILES = {"vram_bytes": 1 << 20}
"""Eight tiles of 128 kB."""


@pytest.fixture(scope="module")
def slide() -> SyntheticSlide:
    return SyntheticSlide((5, 5), (150, 170), 2, tiling=Tiling.of((150, 170), tile_shape=(256, 256)))


def picture(slide: SyntheticSlide, overlap: str, scale: float, size: tuple[int, int], **budgets) -> np.ndarray:
    with OffscreenViewer(slide, size, **budgets) as viewer:
        viewer.overlap = overlap
        viewer.look_at(*slide.positions().mean(axis=0) + 0.3, scale=scale)
        before = viewer.camera
        image = viewer.render()
        assert viewer.camera == before
        assert viewer.report.level == (0 if scale >= 1 else 1)
        return image


@pytest.mark.parametrize("overlap", ["top", "nearest", "feather", "max"])
@pytest.mark.parametrize(("scale", "size"), [(1.0, (701, 640)), (1.0, (511, 803)), (0.5, (520, 333)), (1.7, (601, 512))])
def test_parts_join_to_the_picture_drawn_at_once(slide, overlap, scale, size):
    whole = picture(slide, overlap, scale, size)
    parts = picture(slide, overlap, scale, size, **FEW_TILES)
    assert parts.shape == whole.shape == (size[1], size[0], 4)
    different = (np.abs(parts.astype(int) - whole) > (1 if overlap == "feather" else 0)).any(axis=2)
    allowed = 1e-4 if overlap == "nearest" else 0.0  # a pixel as near to one field as to the other may fall to either
    assert different.mean() <= allowed


@pytest.mark.parametrize("size", [(7, 4), (4, 7), (6, 6), (1000, 999)])
def test_halves_are_the_same_pixels(size):
    camera = Camera(12.5, -3.0, 0.7, size, 0.325)
    first, second = halves(camera)
    corner = (0, 0)
    assert first.to_mosaic(*corner) == pytest.approx(camera.to_mosaic(*corner))
    assert second.to_mosaic(*second.size) == pytest.approx(camera.to_mosaic(*size))
    inner = (first.size[0], 0) if second.size[1] == size[1] else (0, first.size[1])
    assert second.to_mosaic(*corner) == pytest.approx(camera.to_mosaic(*inner))
