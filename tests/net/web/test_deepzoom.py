"""Levels, sizes and regions of DeepZoom, by numbers."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.net.web.deepzoom import DeepZoom, mosaic_bounds_um, scene_bounds_um
from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer.plan import Geometry

sizes = st.integers(1, 200_000)


def test_each_level_is_half_of_the_next_and_the_first_is_one_pixel():
    zoom = DeepZoom((0.0, 0.0), (1846, 1116), 0.5)
    assert zoom.last_level == 11
    levels = [zoom.level_size(level) for level in range(12)]
    assert levels[-3:] == [(462, 279), (923, 558), (1846, 1116)]
    assert levels[0] == (1, 1)


@given(width=sizes, height=sizes)
def test_levels_round_up_and_end_at_one_pixel(width: int, height: int):
    zoom = DeepZoom((0.0, 0.0), (width, height), 1.0)
    for level in range(zoom.last_level):
        finer = zoom.level_size(level + 1)
        assert zoom.level_size(level) == (-(-finer[0] // 2), -(-finer[1] // 2))
    assert zoom.level_size(0) == (1, 1)
    assert zoom.last_level == 0 or max(zoom.level_size(1)) == 2


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_tiles_cover_a_level_once_but_for_their_overlap(overlap: int):
    zoom = DeepZoom((-3.0, 8.0), (700, 301), 0.25, tile_px=128, overlap_px=overlap)
    for level in range(zoom.last_level + 1):
        width, height = zoom.level_size(level)
        columns, rows = zoom.tile_counts(level)
        factor = 2 ** (zoom.last_level - level)
        covered = np.zeros((height, width), int)
        for row in range(rows):
            for column in range(columns):
                region, size = zoom.tile(level, column, row)
                left, top, right, bottom = (
                    round((value - origin) / 0.25 / factor) for value, origin in zip(region, (-3.0, 8.0, -3.0, 8.0), strict=True)
                )
                assert (right - left, bottom - top) == size
                inner = covered[row * 128 : (row + 1) * 128, column * 128 : (column + 1) * 128]
                inner += 1
                assert left == max(0, column * 128 - overlap)
                assert top == max(0, row * 128 - overlap)
                assert right == min(width, (column + 1) * 128 + overlap)
                assert bottom == min(height, (row + 1) * 128 + overlap)
        assert (covered == 1).all()


@given(width=sizes, height=sizes, level_down=st.integers(0, 5))
def test_a_pixel_of_a_level_is_as_large_as_its_level_says(width: int, height: int, level_down: int):
    zoom = DeepZoom((1000.0, -2000.0), (width, height), 0.1625)
    level = max(0, zoom.last_level - level_down)
    columns, rows = zoom.tile_counts(level)
    region, size = zoom.tile(level, columns - 1, rows - 1)
    pixel_um = 0.1625 * 2 ** (zoom.last_level - level)
    assert (region[2] - region[0]) / size[0] == pytest.approx(pixel_um)
    assert (region[3] - region[1]) / size[1] == pytest.approx(pixel_um)


def test_a_whole_number_of_pixels_does_not_become_one_more():
    assert DeepZoom.of((0.0, 0.0, 0.1 * 3, 0.7), 0.1).l0_size == (3, 7)
    assert DeepZoom.of((0.0, 0.0, 0.31, 0.7), 0.1).l0_size == (4, 7)
    assert DeepZoom.of((5.0, 5.0, 5.0, 5.0), 0.1).l0_size == (1, 1)


def test_the_first_useful_level_is_the_finest_of_one_tile():
    assert DeepZoom((0.0, 0.0), (512, 512), 1.0).first_useful_level == 9
    assert DeepZoom((0.0, 0.0), (513, 1), 1.0).first_useful_level == 9
    assert DeepZoom((0.0, 0.0), (513, 1), 1.0).last_level == 10


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ((12, 0, 0), ("level 12", "0 to 11")),
        ((-1, 0, 0), ("level -1", "0 to 11")),
        ((11, 4, 0), ("column 4", "0 to 3")),
        ((11, 0, 3), ("row 3", "0 to 2")),
        ((11, -1, 0), ("column -1", "0 to 3")),
        ((10**30, 0, 0), ("level", "0 to 11")),
        ((11, 10**30, 0), ("column", "0 to 3")),
    ],
)
def test_a_tile_that_is_not_there_is_refused_with_the_limits(address: tuple[int, int, int], words: tuple[str, ...]):
    zoom = DeepZoom((0.0, 0.0), (1846, 1116), 0.5)
    with pytest.raises(OutOfRangeError) as caught:
        zoom.tile(*address)
    assert all(word in str(caught.value) for word in words)


def test_the_descriptor_says_sizes_and_format():
    root = ElementTree.fromstring(DeepZoom((0.0, 0.0), (1846, 1116), 0.5).descriptor("png"))
    namespace = "{http://schemas.microsoft.com/deepzoom/2008}"
    assert root.tag == f"{namespace}Image"
    assert dict(root.attrib) == {"Format": "png", "Overlap": "1", "TileSize": "512"}
    assert dict(root.find(f"{namespace}Size").attrib) == {"Width": "1846", "Height": "1116"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"plane_offset_px": 6.0},
        {"channel_offset_px": 9.0},
        {"orientation": np.array([[0.0, -1.0], [1.0, 0.0]])},
        {"shapes": [(40, 90), (96, 128), (20, 20)]},
        {"origin_um": (1e5, -3e5)},
    ],
)
def test_the_mosaic_ends_where_the_viewer_says(options: dict):
    slide = SyntheticSlide((3, 4), extra_sets=("registered", "other"), **options)
    for name in slide.position_sets:
        assert mosaic_bounds_um(slide, name) == pytest.approx(Geometry(slide, name).bounds_um, abs=1e-9)


def test_a_slide_without_fields_is_a_pixel_or_two():
    slide = SyntheticSlide((0, 0))
    assert mosaic_bounds_um(slide) == (-0.5, -0.5, 0.5, 0.5)
    assert DeepZoom.of(mosaic_bounds_um(slide), 0.5).l0_size == (2, 2)


def test_scenes_lie_inside_the_mosaic_and_apart():
    slide = SyntheticSlide((4, 2), scenes=("upper", "lower"), jitter_px=0, overlap=-0.5)
    upper, lower, whole = scene_bounds_um(slide, 0), scene_bounds_um(slide, 1), mosaic_bounds_um(slide)
    assert upper[3] < lower[1]
    assert (upper[1], lower[3]) == (whole[1], whole[3])


def test_deepzoom_and_style_know_no_http():
    script = "import rawmosaic.net.web.deepzoom, rawmosaic.net.web.style, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert not {"starlette", "uvicorn", "http.server", "asyncio", "zmq", "PIL"} & set(loaded)
