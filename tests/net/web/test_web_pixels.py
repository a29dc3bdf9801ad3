"""Tiles drawn by the real engine: put together they are the picture that `rawmosaic render` makes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from web_client import ask

from rawmosaic.cli.main import main
from rawmosaic.cli.web import EngineRenderer, whole_scale
from rawmosaic.net.web import WebServer
from rawmosaic.net.web.deepzoom import DeepZoom, mosaic_bounds_um
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SyntheticSlide, write_slide
from rawmosaic.viewer import OffscreenViewer

AS_FAR = 1e-4
"""Part of the pixels whose value hangs on the last bit of a position."""

SMALL = {"ram_bytes": "64M", "vram_bytes": "64M"}


@pytest.fixture
def slide() -> SyntheticSlide:
    """Overlapping fields at fractions of a pixel; about 1,250 × 640 pixels, 3 × 2 tiles."""
    return SyntheticSlide(
        (3, 4), (240, 340), 3, size_z=2, jitter_px=5.5, sparse=0.1, extra_sets=("registered",), pixel_size_um=0.325
    )


@pytest.fixture
def served(serve: Callable, slide: SyntheticSlide) -> WebServer:
    return serve({"one": slide}, EngineRenderer(**SMALL))


def put_together(server: WebServer, zoom: DeepZoom, level: int, query: str = "") -> tuple[np.ndarray, int]:
    """(h, w, 3) uint8 of a whole level from its tiles, and how many pixels of their overlaps differ."""
    width, height = zoom.level_size(level)
    whole, known = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
    columns, rows = zoom.tile_counts(level)
    n_differ = 0
    for row in range(rows):
        for column in range(columns):
            answer = ask(server, f"/slides/one/mosaic_files/{level}/{column}_{row}.png?{query}")
            assert answer.status == 200, answer.body
            assert "rawmosaic-incomplete" not in answer.headers
            tile = np.asarray(Image.open(io.BytesIO(answer.body)))
            top, left = max(0, row * zoom.tile_px - zoom.overlap_px), max(0, column * zoom.tile_px - zoom.overlap_px)
            place = np.s_[top : top + tile.shape[0], left : left + tile.shape[1]]
            n_differ += int((whole[place] != tile)[known[place]].sum())
            whole[place], known[place] = tile, True
    assert known.all()
    return whole, n_differ


def rendered(
    slide: SyntheticSlide, zoom: DeepZoom, level: int, look: Callable[[OffscreenViewer], None] = lambda _: None
) -> np.ndarray:
    """The same level as one picture of the engine."""
    width, height = zoom.level_size(level)
    factor = 2 ** (zoom.last_level - level)
    with OffscreenViewer(slide, size=(width, height), **SMALL) as viewer:
        left, top = zoom.s_origin
        pixel_um = zoom.pixel_size_um * factor
        viewer.look_at(left + 0.5 * width * pixel_um, top + 0.5 * height * pixel_um, scale=1 / factor)
        look(viewer)
        return viewer.render()[..., :3]


@pytest.mark.parametrize("overlap", ["top", "nearest", "feather", "max"])
def test_tiles_of_every_overlap_mode_join_to_the_picture(served: WebServer, slide: SyntheticSlide, overlap: str):
    zoom = DeepZoom.of(mosaic_bounds_um(slide), slide.header.pixel_size_um)
    picture, n_differ = put_together(served, zoom, zoom.last_level, f"overlap={overlap}")
    expected = rendered(slide, zoom, zoom.last_level, lambda viewer: setattr(viewer, "overlap", overlap))
    difference = np.abs(picture.astype(int) - expected).max(axis=2)
    assert expected.any()
    assert n_differ == 0
    if overlap == "feather":  # weights are sums of rounded numbers
        assert difference.max() <= 1
    elif overlap == "nearest":  # a pixel as far from two centres may go to either
        assert (difference > 0).mean() < AS_FAR
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("down", [1, 2, 3])
def test_tiles_of_coarser_levels_join_to_the_picture(served: WebServer, slide: SyntheticSlide, down: int):
    zoom = DeepZoom.of(mosaic_bounds_um(slide), slide.header.pixel_size_um)
    picture, _ = put_together(served, zoom, zoom.last_level - down)
    expected = rendered(slide, zoom, zoom.last_level - down)
    difference = np.abs(picture.astype(int) - expected)
    assert difference.max() <= 1  # the filter's weights depend on where a view begins, in the last bits
    assert (difference > 0).mean() < 0.01


def test_a_style_is_what_the_viewer_shows_for_it(served: WebServer, slide: SyntheticSlide):
    def look(viewer: OffscreenViewer) -> None:
        viewer.z, viewer.position_set, viewer.overlap = 1, "registered", "max"
        viewer.channels[1].visible = False
        viewer.channels[0].limits, viewer.channels[0].color, viewer.channels[0].gamma = (5000.0, 42000.5), "#ff8000", 0.7
        viewer.channels[2].limits, viewer.channels[2].color = (60000.0, 100.0), "#0040ff"

    zoom = DeepZoom.of(mosaic_bounds_um(slide, "registered"), slide.header.pixel_size_um)
    query = "c=0,ff8000,5000,42000.5,0.7&c=2,0040ff,60000,100,1&overlap=max&positions=registered&z=1"
    picture, _ = put_together(served, zoom, zoom.last_level, query)
    differs = (picture != rendered(slide, zoom, zoom.last_level, look)).any(axis=2)
    assert differs.mean() < AS_FAR  # turned fields: some screen pixels lie between two of the camera's, but for the last bit


def test_a_style_before_leaves_nothing_behind(served: WebServer, slide: SyntheticSlide):
    zoom = DeepZoom.of(mosaic_bounds_um(slide), slide.header.pixel_size_um)
    for query in ("c=none", "c=1,ffffff,0,10,3&z=1&overlap=max"):
        put_together(served, zoom, zoom.last_level - 2, query)
    assert not put_together(served, zoom, zoom.last_level - 2, "c=none")[0].any()
    assert np.array_equal(put_together(served, zoom, zoom.last_level)[0], rendered(slide, zoom, zoom.last_level))


def test_the_command_line_renders_the_same_pixels(serve: Callable, slide: SyntheticSlide, tmp_path: Path):
    path = write_slide(slide, tmp_path / "slide.h5")
    zoom = DeepZoom.of(mosaic_bounds_um(slide), slide.header.pixel_size_um)
    region, (width, height) = zoom.tile(zoom.last_level, 1, 0)
    centre = f"{0.5 * (region[0] + region[2])!r},{0.5 * (region[1] + region[3])!r}"
    picture = tmp_path / "picture.png"
    arguments = ["render", path, "-o", picture, "--center", centre, "--scale", "1", "--size", f"{width}x{height}"]
    assert main([*map(str, arguments), "--limits", "C1=300:9000", "--colors", "C1=#00ffff", "--channels", "C1"]) == 0
    from rawmosaic.storage import open_slide

    with open_slide(path) as stored:
        server = serve({"one": stored}, EngineRenderer(**SMALL))
        answer = ask(server, f"/slides/one/mosaic_files/{zoom.last_level}/1_0.png?c=1,00ffff,300,9000")
        server.close()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.body))), np.asarray(Image.open(picture))[..., :3])


def test_several_slides_share_the_engines_in_turns(serve: Callable):
    slides = {f"s{n}": SyntheticSlide((1, 1), (64, 64), 1, jitter_px=0, seed=n) for n in range(4)}
    server = serve(slides, EngineRenderer(**SMALL))
    first = {name: ask(server, f"/slides/{name}/mosaic_files/6/0_0.png?c=0,ffffff,0,65535").body for name in slides}
    assert len(set(first.values())) == 4
    for name, slide in slides.items():
        assert ask(server, f"/slides/{name}/mosaic_files/6/0_0.png?c=0,ffffff,0,65535.01").body == first[name]
        pixels = np.asarray(Image.open(io.BytesIO(first[name])))[..., 0]
        assert np.abs(pixels.astype(float) - slide.read_plane(0, 0) / 257).max() <= 0.51


def test_what_a_growing_slide_gets_is_in_the_next_tiles(serve: Callable, slide: SyntheticSlide):
    growing = GrowingSlide(slide, 10)
    server = serve({"one": growing}, EngineRenderer(**SMALL))
    for n_planes in (0, 7, 10**6):
        growing.grow(n_planes)
        growing.refresh()
        zoom = DeepZoom.of(mosaic_bounds_um(growing), slide.header.pixel_size_um)
        picture, _ = put_together(server, zoom, zoom.last_level, "c=0,ff0000,0,65535&c=1,00ff00,0,65535&c=2,0000ff,0,65535")

        def look(viewer: OffscreenViewer) -> None:
            for channel, color in zip(viewer.channels, ("#ff0000", "#00ff00", "#0000ff"), strict=True):
                channel.color, channel.limits = color, (0.0, 65535.0)

        assert np.array_equal(picture, rendered(growing, zoom, zoom.last_level, look))


def test_what_cannot_be_read_is_told_and_the_rest_is_shown(serve: Callable):
    sound = SyntheticSlide((1, 3), (200, 600), 1, overlap=-0.2, jitter_px=0)
    broken = FailingSlide(sound, lambda key: getattr(key, "index", None) == 0 and key.level == 0)
    server = serve({"one": broken}, EngineRenderer(**SMALL))
    zoom = DeepZoom.of(mosaic_bounds_um(sound), 0.5)
    columns, _ = zoom.tile_counts(zoom.last_level)
    answers = [ask(server, f"/slides/one/mosaic_files/{zoom.last_level}/{column}_0.png") for column in range(columns)]
    assert {answer.status for answer in answers} == {200}
    incomplete = ["rawmosaic-incomplete" in answer.headers for answer in answers]
    assert incomplete[0]
    assert not incomplete[-1]
    assert "fails on purpose" in answers[0].headers["rawmosaic-incomplete"]
    assert answers[0].headers["cache-control"] == "no-store"


def test_first_looks_are_those_of_the_window(slide: SyntheticSlide):
    looks = EngineRenderer(**SMALL).looks(slide)
    with OffscreenViewer(slide, size=(64, 64), **SMALL) as viewer:
        for first, channel in zip(looks, viewer.channels, strict=True):
            assert first.look.limits == channel.limits == first.auto_limits[0]
            assert first.look.color == channel.color
            assert first.look.gamma == channel.gamma
    for first in looks:
        widths = [high - low for low, high in first.auto_limits]
        assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("told", "found"), [(0.9999999999999, 1.0), (0.25000000000001, 0.25), (0.3, 0.3), (0.999, 0.999), (3.0, 3.0)]
)
def test_a_scale_that_is_whole_but_for_rounding_is_whole(told: float, found: float):
    assert whole_scale(told) == found


def test_a_real_acquisition_has_no_seams_between_tiles(serve: Callable, data: Path):
    from rawmosaic.storage import open_slide

    with open_slide(data / "imagexpress-9987-overlap" / "9987_Plate_3420") as slide:
        server = serve({"one": slide}, EngineRenderer(**SMALL))
        zoom = DeepZoom.of(mosaic_bounds_um(slide), slide.header.pixel_size_um)
        picture, n_differ = put_together(server, zoom, zoom.last_level)
        assert n_differ == 0
        assert np.array_equal(picture, rendered(slide, zoom, zoom.last_level))
        server.close()
