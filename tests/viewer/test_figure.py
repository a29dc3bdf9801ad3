"""Figures equal the screen, whatever their size; what is drawn over them is readable, measured and inside."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from rawmosaic.storage.errors import OutOfRangeError, WriteError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import OffscreenViewer
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.channels import ChannelView
from rawmosaic.viewer.figure import (
    LARGEST_SIDE_PX,
    FigureCancelledError,
    FigureStyle,
    Outline,
    compose,
    figure_camera,
    figure_marks,
    figure_notes,
    figure_strips,
    legend_entries,
    legend_marks,
    part_camera,
    scale_bar_marks,
    strip_rows,
    write_figure,
)
from rawmosaic.viewer.lettering import letters_for
from rawmosaic.viewer.marks import Bar, Text
from rawmosaic.viewer.picture_file import TILE_PX

LOOKS = [("DAPI", "#0000ff"), ("α-SMA", "#00ff00"), ("Cy5", "#ff00ff")]


def checkered(camera: Camera) -> np.ndarray:
    """A picture whose every pixel is a function of its place in the mosaic frame, without a slide."""
    height, width = camera.size[1], camera.size[0]
    left, top = camera.to_mosaic(0.5, 0.5)
    x = np.rint((left + np.arange(width) / camera.px_per_um) * camera.px_per_um).astype(np.int64)
    y = np.rint((top + np.arange(height) / camera.px_per_um) * camera.px_per_um).astype(np.int64)
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = x % 251, (y % 241)[:, None], (x // 251 + (y // 241)[:, None]) % 256
    return pixels


@pytest.fixture
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of one tile's height."""
    monkeypatch.setattr("rawmosaic.viewer.figure.STRIP_NBYTES", 1)


# the picture


@pytest.mark.usefixtures("small_strips")
@pytest.mark.parametrize("overlap", ["top", "nearest", "feather", "max"])
@pytest.mark.parametrize("scale", [0.31, 1.0, 2.6])
def test_a_figure_drawn_in_parts_equals_the_screen(overlap: str, scale: float):
    slide = SyntheticSlide((3, 4), (150, 200), 3, jitter_px=5.0)
    with OffscreenViewer(slide, size=(640, 600)) as viewer:
        viewer.look_at(*slide.positions().mean(axis=0), scale=scale)
        viewer.overlap, viewer.channels[1].gamma = overlap, 0.6
        camera, screen = viewer.camera, viewer.render()[..., :3]

        def render(camera: Camera) -> np.ndarray:
            viewer.camera = camera
            return viewer.render()

        parts = np.concatenate([strip.copy() for strip in figure_strips(render, camera, part_px=270)])
    assert screen.any()
    assert parts.shape == screen.shape
    difference = np.abs(parts.astype(int) - screen)
    exact = overlap in ("top", "max") and scale >= 1  # else a filter or a weight rounds in other digits
    elsewhere = (difference > (0 if exact else 1)).any(axis=2).mean()
    assert elsewhere <= (1e-4 if overlap == "nearest" else 0)  # a pixel as near to one field as to the other falls to either


@pytest.mark.usefixtures("small_strips")
def test_parts_of_an_odd_figure_show_each_pixel_once():
    camera = Camera(1234.5, -77.25, 1.0, (1001, 777))
    whole = checkered(camera)[..., :3]
    parts = np.concatenate([strip.copy() for strip in figure_strips(checkered, camera, part_px=97)])
    np.testing.assert_array_equal(parts, whole)


def test_a_part_sees_the_same_points_as_the_whole():
    camera = Camera(50.0, 20.0, 2.5, (601, 402), 0.325)
    part = part_camera(camera, 13, 100, 300, 356)
    assert part.size == (287, 256)
    assert part.to_mosaic(0.5, 0.5) == pytest.approx(camera.to_mosaic(13.5, 100.5), abs=1e-9)


def test_marks_on_strips_are_those_on_the_whole(small_strips: None):  # noqa: ARG001
    camera = Camera(300.0, 300.0, 1.0, (900, 1100))
    triangle = Outline([(-20.0, 40.0), (800.0, 300.0), (120.0, 900.0)], True, "#ffff00", "cell 1")
    point = Outline([(300.0, 256.0)], False, "#ff0000")
    marks = figure_marks(camera, LOOKS, FigureStyle(), [triangle, point])
    strips = np.concatenate([strip.copy() for strip in figure_strips(checkered, camera, marks, part_px=300)])
    whole = compose(checkered(camera), marks)
    np.testing.assert_array_equal(strips, whole)
    assert (whole != checkered(camera)[..., :3]).any(axis=2).sum() > 3000


def test_composing_leaves_the_picture_as_it_was():
    camera = Camera(0.0, 0.0, 1.0, (300, 200))
    for pixels in (checkered(camera), np.ascontiguousarray(checkered(camera)[..., :3])):
        before = pixels.copy()
        figure = compose(pixels, figure_marks(camera, LOOKS, FigureStyle()))
        np.testing.assert_array_equal(pixels, before)
        assert (figure != before[..., :3]).any()


# which region, how large


def test_a_region_has_the_pixels_of_its_scale():
    camera = figure_camera((10.0, 20.0, 110.0, 70.0), 0.5, scale=1.0)
    assert camera.size == (200, 100)
    assert camera.bounds_um() == pytest.approx((10.0, 20.0, 110.0, 70.0))


def test_a_width_in_pixels_decides_the_scale():
    camera = figure_camera((0.0, 0.0, 300.0, 100.0), 0.5, width_px=1000)
    assert camera.size == (1000, 333)
    assert camera.px_per_um == pytest.approx(10 / 3)


@pytest.mark.parametrize(("side_um", "size"), [(100.0, (200, 200)), (20_000.0, (4000, 4000))])
def test_a_figure_is_one_to_one_or_small_enough_if_not_told(side_um: float, size: tuple[int, int]):
    assert figure_camera((0.0, 0.0, side_um, side_um), 0.5).size == size


@pytest.mark.parametrize(
    "bounds_um", [(0, 0, 0, 1), (0, 5, 1, 5), (1, 0, 0, 1), (0, 0, float("inf"), 1), (0, 0, float("nan"), 1)]
)
def test_an_empty_region_is_refused(bounds_um: tuple[float, float, float, float]):
    with pytest.raises(OutOfRangeError, match="left < right"):
        figure_camera(bounds_um, 0.5)


def test_more_pixels_than_can_be_written_are_refused():
    with pytest.raises(OutOfRangeError, match=str(LARGEST_SIDE_PX)):
        figure_camera((0, 0, 1e6, 10), 0.5, scale=1.0)


# what is drawn over it


def test_the_scale_bar_is_as_long_as_it_says():
    camera = Camera(0.0, 0.0, 1.0, (900, 600), 0.325)
    marks = scale_bar_marks(camera, 20.0, 50.0)
    figure = compose(np.full((600, 900, 4), 90, np.uint8), marks)
    bar = next(mark for mark in marks if isinstance(mark, Bar))
    (row,) = {bar.y + bar.height // 2}
    white = np.flatnonzero((figure[row] == 255).all(axis=1))
    assert len(white) == white[-1] - white[0] + 1 == round(50.0 / 0.325)
    assert "50 µm" in [mark.text for mark in marks if isinstance(mark, Text)]


def test_a_scale_bar_longer_than_the_figure_is_refused():
    with pytest.raises(OutOfRangeError, match="300 µm wide"):
        scale_bar_marks(Camera(0.0, 0.0, 1.0, (600, 400), 0.5), 20.0, 301.0)


def inside(marks, size: tuple[int, int]) -> bool:
    """Whether all marks lie within a figure."""
    letters = letters_for(mark.text for mark in marks if isinstance(mark, Text))
    boxes = np.array([mark.bounds(letters) for mark in marks])
    return bool((boxes[:, :2] >= 0).all() and (boxes[:, 2] <= size[0]).all() and (boxes[:, 3] <= size[1]).all())


@pytest.mark.parametrize("size", [(320, 240), (1280, 800), (4000, 900), (700, 2400), (9000, 7000)], ids=str)
def test_nothing_of_bar_and_legend_is_cut_off(size: tuple[int, int]):
    marks = figure_marks(Camera(0.0, 0.0, 0.37, size, 0.65), LOOKS, FigureStyle())
    assert len(marks) == len(LOOKS) + 2
    assert inside(marks, size)


@pytest.mark.parametrize("size", [(1280, 800), (640, 480), (3000, 500)], ids=str)
def test_sixty_channels_are_all_named_and_none_covers_another(size: tuple[int, int]):
    entries = [(f"marker {number:02d}", "#ffffff") for number in range(60)]
    marks = legend_marks(size, entries, min(size) / 30)
    assert [mark.text for mark in marks] == [name for name, _ in entries]
    assert inside(marks, size)
    letters = letters_for(name for name, _ in entries)
    boxes = np.array([mark.bounds(letters) for mark in marks])
    for number, (left, top, right, bottom) in enumerate(boxes[:-1]):
        others = boxes[number + 1 :]
        meet = (left < others[:, 2]) & (others[:, 0] < right) & (top < others[:, 3]) & (others[:, 1] < bottom)
        assert not meet.any()


@pytest.mark.parametrize("color", ["#0000ff", "#ff0000", "#00ff00", "#ffffff", "#ffff00", "#ff00ff", "#444444"])
@pytest.mark.parametrize("ground", [0, 90, 255])
def test_a_name_shows_on_any_ground(color: str, ground: int):
    figure = compose(np.full((120, 400, 4), ground, np.uint8), [Text(20, 20, "DAPI", 40, color)])
    luminance = figure.astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(luminance - ground).max() > 80
    assert luminance.max() - luminance.min() > 100


def view_of(looks: list[ChannelView], **adjusted) -> SimpleNamespace:
    """What the legend looks at of an engine."""
    return SimpleNamespace(**{"channels": looks, "mode": "colour", "background": "black", "color_map": None, **adjusted})


def test_hidden_channels_are_not_in_the_legend():
    looks = [ChannelView("DAPI", (0, 1), "#0000ff", visible=False), ChannelView("GFP", (0, 1), "green")]
    assert legend_entries(view_of(looks)) == [("GFP", "#00ff00")]
    assert legend_entries(view_of(looks[:1])) == []


def test_the_legend_has_the_names_that_the_user_gave():
    looks = [ChannelView("C0", (0, 1), "#0000ff", label="nuclei"), ChannelView("GFP", (0, 1), "green")]
    assert [name for name, _ in legend_entries(view_of(looks))] == ["nuclei", "GFP"]


@pytest.mark.parametrize("background", ["black", "white"])
@pytest.mark.parametrize("adjusted", [{}, {"mode": "grey"}], ids=["colour", "grey"])
def test_names_have_the_colours_of_full_channels(background: str, adjusted: dict):
    slide = SyntheticSlide((1, 1), (40, 60), 4)
    with OffscreenViewer(slide, size=(30, 20)) as viewer:
        viewer.background = background
        for name, value in adjusted.items():
            setattr(viewer, name, value)
        viewer.channels[1].color, viewer.channels[2].column = "#ff8000", (0.2, 0.9, 1.4)
        entries = dict(legend_entries(viewer.engine))
        assert len(entries) == 4
        viewer.look_at(*slide.positions()[0], 1.0)
        for look in viewer.channels:
            for other in viewer.channels:
                other.visible, other.limits = other is look, (-2.0, -1.0)  # full everywhere
            pixel = viewer.render()[10, 15, :3].astype(int)
            name = entries[look.name]
            assert np.abs(pixel - [int(name[at : at + 2], 16) for at in (1, 3, 5)]).max() <= 1


def test_no_bar_and_no_legend_is_the_picture_alone():
    assert figure_marks(Camera(0, 0, 1, (400, 300)), LOOKS, FigureStyle(scale_bar=False, legend=False)) == ()


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (40, 30)], ids=str)
def test_a_tiny_figure_is_still_a_figure(size: tuple[int, int]):
    camera = Camera(0.0, 0.0, 1.0, size)
    assert compose(checkered(camera), figure_marks(camera, LOOKS, FigureStyle())).shape == (size[1], size[0], 3)


# the file


def test_a_figure_on_disk_is_what_was_drawn_and_says_what_it_shows(tmp_path: Path):
    slide = SyntheticSlide((2, 2), (100, 120), 2, size_z=3, name="slide 7")
    with OffscreenViewer(slide, size=(333, 222)) as viewer:
        viewer.fit()
        viewer.z, viewer.channels[0].gamma, viewer.channels[1].visible = 2, 0.5, False
        camera, screen, notes = viewer.camera, viewer.render()[..., :3], figure_notes(viewer.engine, viewer.camera)
        marks = figure_marks(camera, legend_entries(viewer.engine), FigureStyle())

        def render(camera: Camera) -> np.ndarray:
            viewer.camera = camera
            return viewer.render()

        write_figure(tmp_path / "figure.png", render, camera, marks, notes, dpi=600)
    with Image.open(tmp_path / "figure.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), compose(screen, marks))
        assert picture.info["dpi"] == pytest.approx((600, 600), abs=0.1)
        text = picture.info["Description"].splitlines()
    low, high = (f"{limit:g}" for limit in viewer.channels[0].limits)
    assert "slide: slide 7" in text
    assert f"channel 0: C0, {viewer.channels[0].color}, limits {low} to {high}, gamma 0.5" in text
    assert not any(line.startswith("channel 1") for line in text)
    assert {"position set: stage", "overlap: top", "z: 2 of 3"} <= set(text)
    assert any(line.startswith("region: x ") and "µm" in line for line in text)
    assert any(line.startswith("drawn by: rawmosaic") for line in text)


def test_a_figure_that_is_cancelled_leaves_nothing(tmp_path: Path):
    cancelled = threading.Event()

    def progress(done: int, total: int) -> None:
        assert total > 2
        if done == 2:
            cancelled.set()

    with pytest.raises(FigureCancelledError):
        write_figure(
            tmp_path / "figure.png", checkered, Camera(0, 0, 1, (900, 300)), progress=progress, cancelled=cancelled, part_px=100
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_memory_does_not_grow_with_the_figure(tmp_path: Path, suffix: str):
    def peak(height: int) -> int:
        camera, ground = Camera(0.0, 0.0, 1.0, (30_000, height)), np.full((TILE_PX, 4096, 4), 7, np.uint8)
        marks = figure_marks(camera, LOOKS, FigureStyle())
        tracemalloc.start()
        write_figure(tmp_path / f"figure.{suffix}", lambda part: ground[: part.size[1], : part.size[0]], camera, marks[-2:], {})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert strip_rows(30_000) == TILE_PX
    peak(TILE_PX)  # the modules that write it are loaded with the first
    assert peak(2000) < 1.1 * peak(600) < 200e6


def test_a_strip_is_whole_tiles_within_its_memory():
    for width in (1, 500, 4096, 20_000, 60_000, 200_000):
        assert strip_rows(width) % TILE_PX == 0
        assert strip_rows(width) == TILE_PX or 3 * width * strip_rows(width) <= 48 << 20


def test_a_name_of_no_picture_is_refused_before_anything_is_drawn(tmp_path: Path):
    from rawmosaic.viewer.picture_file import check_path

    with pytest.raises(OutOfRangeError, match=r"\.png, \.tif"):
        check_path(tmp_path / "figure.jpg")
    with pytest.raises(WriteError, match="no folder"):
        check_path(tmp_path / "no" / "figure.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(WriteError, match="is a folder"):
        check_path(tmp_path / "folder.png")
