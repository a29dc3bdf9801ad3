"""The overview of very many fields shows the mosaic that the fields make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage import open_slide
from rawmosaic.storage.hdf5 import overview
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide
from rawmosaic.viewer import OffscreenViewer

GRID, FIELD_SHAPE = (6, 7), (96, 128)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(overview, "FROM_FIELDS", 40)
    monkeypatch.setattr(overview, "LONGEST_SIDE_PX", 200)
    slide = SyntheticSlide(GRID, FIELD_SHAPE, 2, smooth=True, overlap=0.1, jitter_px=3)
    return write_slide(slide, tmp_path / "slide.h5")


def test_few_fields_have_no_overview(tmp_path: Path):
    with open_slide(write_slide(SyntheticSlide((2, 2), (64, 64), 1), tmp_path / "few.h5")) as slide:
        assert slide.overview is None


def test_overview_is_a_slide_of_one_field_over_the_whole_mosaic(path: Path):
    with open_slide(path) as slide:
        whole = slide.overview
        assert whole.n_fields == 1
        assert whole.tiling.tile_shape == slide.tiling.tile_shape
        assert max(whole.field_shape) <= 200 + 1
        half_um = np.array(slide.field_shape[::-1]) / 2 * slide.header.pixel_size_um
        low = (slide.positions() - half_um).min(axis=0)
        high = (slide.positions() + half_um).max(axis=0)
        extent = np.array(whole.field_shape[::-1]) * whole.header.pixel_size_um
        assert np.allclose(whole.positions()[0] - extent / 2, low, atol=1e-6)
        assert (whole.positions()[0] + extent / 2 >= high - 1e-6).all()


def test_each_overview_pixel_is_that_of_the_topmost_field(path: Path):
    with open_slide(path) as slide:
        whole = slide.overview
        factor = round(whole.header.pixel_size_um / slide.header.pixel_size_um)
        level = slide.levels.index(factor)
        for channel in range(2):
            expected = np.zeros(whole.field_shape, np.uint16)
            origin = whole.positions()[0] - np.array(whole.field_shape[::-1]) * whole.header.pixel_size_um / 2
            for field in range(slide.n_fields):
                plane = slide.read_plane(field, channel, level=level)
                for y, x in np.ndindex(expected.shape):
                    point = origin + (np.array([x, y]) + 0.5) * whole.header.pixel_size_um
                    u, v = (point - slide.positions()[field]) / slide.header.pixel_size_um + np.array(FIELD_SHAPE[::-1]) / 2
                    if 0 <= u < FIELD_SHAPE[1] and 0 <= v < FIELD_SHAPE[0]:
                        expected[y, x] = plane[int(v // factor), int(u // factor)]
                if field == 9:  # brute force is slow: the first rows of the mosaic tell
                    break
            seen = whole.read_plane(0, channel)
            rows = int((slide.positions()[:7, 1].min() - origin[1]) / whole.header.pixel_size_um)
            assert np.array_equal(seen[:rows], expected[:rows])


def test_slide_with_overview_is_intact(path: Path):
    assert verify_slide(path) == []


def test_overview_is_made_anew(path: Path):
    with open_slide(path) as slide:
        before = slide.overview.read_plane(0, 0)
    overview.add_overview(path)
    with open_slide(path) as slide:
        assert np.array_equal(slide.overview.read_plane(0, 0), before)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["slide.h5"]


def test_picture_of_the_overview_is_that_of_the_fields(path: Path):
    with open_slide(path) as slide, OffscreenViewer(slide, size=(96, 80)) as viewer:
        viewer.fit()
        shown = viewer.render()
        assert viewer.report.overview
        viewer.overlap = "max"
        fields = viewer.render()
        assert not viewer.report.overview
        assert np.abs(shown.astype(int) - fields).mean() < 6
