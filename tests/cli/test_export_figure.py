"""`rawmosaic export figure`: regions, fields and scenes at any resolution, equal to the viewer's picture; mistakes are named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from rawmosaic.cli.main import main
from rawmosaic.storage import open_slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide

PLAIN = ("--no-scale-bar", "--no-legend")


@pytest.fixture
def drawn(rawmosaic, slide_file, tmp_path):
    """The figure of `rawmosaic export figure slide.h5 ARGUMENTS…`, (h, w, 3) uint8."""

    def draw(*arguments, location=slide_file, name="figure.png"):
        path = tmp_path / name
        outcome = rawmosaic("export", "figure", location, "-o", path, *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert [file.name for file in tmp_path.iterdir() if file.suffix != ".h5"] == [name]
        pixels = tifffile.imread(path) if name.endswith("tif") else np.asarray(Image.open(path))
        path.unlink()
        return pixels

    return draw


@pytest.mark.parametrize("name", ["figure.png", "figure.tif"])
def test_a_figure_is_what_the_viewer_draws(drawn, slide_file, name: str):
    from rawmosaic.viewer import OffscreenViewer

    with open_slide(slide_file) as slide, OffscreenViewer(slide, size=(200, 120)) as viewer:
        viewer.look_at(-4.0, 7.5, scale=2.0)
        viewer.channels[0].limits, viewer.channels[1].color, viewer.channels[2].visible = (400, 2500), "#ff0000", False
        viewer.overlap, viewer.position_set = "max", "stage"
        screen, bounds = viewer.render()[..., :3], viewer.camera.bounds_um()
    looks = ["--channels", "DAPI,FITC,Cy5", "--limits", "DAPI=400:2500", "--colors", "FITC=#ff0000", "--overlap", "max", *PLAIN]
    assert screen.any()
    around = drawn("--center", "-4,7.5", "--size", "200x120", "--scale", "2", *looks, name=name)
    np.testing.assert_array_equal(around, screen)
    region = ",".join(map(str, bounds))
    np.testing.assert_array_equal(drawn("--region", region, "--scale", "2", *looks, name=name), screen)
    np.testing.assert_array_equal(drawn("--region", region, "--width-px", "200", *looks, name=name), screen)


def test_a_field_at_one_to_one_is_its_plane(drawn, tmp_path):
    slide = SyntheticSlide((1, 3), (60, 90), 1, overlap=-0.5)
    write_slide(slide, tmp_path / "fields.h5")
    picture = drawn("--field", "1", "--limits", "C0=0:65535", *PLAIN, location=tmp_path / "fields.h5")
    assert picture.shape == (60, 90, 3)
    expected = np.floor(slide.read_plane(1, 0) / 65535 * 255 + 0.5)
    assert np.abs(picture - expected[..., None]).max() <= 1


def test_a_scene_shows_its_fields(drawn, tmp_path):
    slide = SyntheticSlide((4, 2), (60, 90), 1, scenes=("A01", "B07"), jitter_px=0)
    write_slide(slide, tmp_path / "wells.h5")
    whole = drawn("--scale", "1", *PLAIN, location=tmp_path / "wells.h5")
    upper = drawn("--scene", "A01", "--scale", "1", *PLAIN, location=tmp_path / "wells.h5")
    assert whole.shape[1] == upper.shape[1]
    assert upper.shape[0] == pytest.approx(whole.shape[0] / 2, abs=10)


def test_bar_and_legend_are_drawn_unless_unwanted(drawn):
    plain = drawn("--width-px", "600", *PLAIN)
    bar, legend = drawn("--width-px", "600", "--no-legend"), drawn("--width-px", "600", "--no-scale-bar")
    height, width = plain.shape[:2]
    changed_by_bar, changed_by_legend = (np.argwhere((picture != plain).any(axis=2)) for picture in (bar, legend))
    assert changed_by_bar.min(axis=0)[0] > height / 2
    assert changed_by_bar.min(axis=0)[1] > width / 2
    assert changed_by_legend.max(axis=0)[0] < height / 2
    assert changed_by_legend.max(axis=0)[1] < width / 2


def test_a_figure_says_what_it_shows(rawmosaic, slide_file, tmp_path):
    path = tmp_path / "figure.png"
    arguments = ["--region", "0,0,30,20", "--channels", "FITC", "--limits", "FITC=100:2000", "--dpi", "150"]
    assert rawmosaic("export", "figure", slide_file, "-o", path, *arguments).code == 0
    with Image.open(path) as picture:
        assert picture.size == (60, 40)
        assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        text = picture.info["Description"]
    assert "channel 1: FITC" in text
    assert "limits 100 to 2000, gamma 1" in text
    assert "region: x 0.000 to 30.000 µm, y 0.000 to 20.000 µm" in text
    assert "channel 0" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--region", "1,2,3"], ["1,2,3", "left, top"]),
        (["--region", "5,0,1,1"], ["5,0,1,1", "left, top"]),
        (["--field", "6"], ["field 6", "0 to 5"]),
        (["--field", "-1"], ["field -1"]),
        (["--scene", "A01"], ["A01", "no scenes"]),
        (["--field", "1", "--region", "0,0,1,1"], ["--region and --field"]),
        (["--width-px", "100", "--scale", "1"], ["--width-px", "--scale"]),
        (["--width-px", "100", "--size", "10x10"], ["--width-px", "--size"]),
        (["--center", "1,2"], ["--center needs --size"]),
        (["--size", "300000x20"], ["300000x20", "200000"]),
        (["--scale", "10000"], ["200000", "smaller region"]),
        (["--width-px", "0"], ["--width-px"]),
        (["--scale-bar-um", "0"], ["--scale-bar-um"]),
        (["--scale-bar-um", "9999"], ["scale bar", "wide"]),
        (["--channels", "Cy7"], ["Cy7", "DAPI, FITC"]),
        (["--colors", "DAPI=blurple"], ["blurple", "#rrggbb"]),
        (["--z", "4"], ["z 4", "0 to 0"]),
    ],
)
def test_a_wrong_option_is_named_with_what_there_is(rawmosaic, slide_file, tmp_path, arguments, words):
    outcome = rawmosaic("export", "figure", slide_file, "-o", tmp_path / "figure.png", *arguments)
    assert outcome.complains_once_about(*words), outcome
    assert not list(tmp_path.iterdir())


def test_a_kind_of_picture_that_is_not_written_is_refused(rawmosaic, slide_file, tmp_path):
    assert rawmosaic("export", "figure", slide_file, "-o", tmp_path / "f.jpg").complains_once_about("f.jpg", ".png", ".tif")


def test_a_figure_looks_as_a_window_left_the_view(drawn, slide_file, tmp_path_factory):
    from rawmosaic.viewer import OffscreenViewer
    from rawmosaic.viewer.display_state import capture
    from rawmosaic.viewer.saved_state import save_preset

    state = tmp_path_factory.mktemp("state") / "cells.view.json"
    with open_slide(slide_file) as slide, OffscreenViewer(slide, size=(200, 120)) as viewer:
        viewer.channels[0].limits, viewer.channels[1].visible, viewer.channels[2].gamma = (400, 2500), False, 0.5
        viewer.overlap, viewer.background, viewer.mode = "max", "white", "grey"
        save_preset(state, capture(viewer.engine))
        viewer.look_at(-4.0, 7.5, scale=2.0)
        kept = viewer.render()[..., :3]
        viewer.overlap, viewer.channels[0].limits = "top", (0, 3000)
        told = viewer.render()[..., :3]
    place = ["--center", "-4,7.5", "--size", "200x120", "--scale", "2", "--state", state, *PLAIN]
    np.testing.assert_array_equal(drawn(*place), kept)
    np.testing.assert_array_equal(drawn(*place, "--overlap", "top", "--limits", "DAPI=0:3000"), told)


def test_annotations_are_drawn_where_they_lie(drawn, slide_file, tmp_path_factory):
    from rawmosaic.viewer.annotations.files import AnnotationFile
    from rawmosaic.viewer.annotations.model import Annotation
    from rawmosaic.viewer.annotations.shapes import Points, Rectangle

    path = tmp_path_factory.mktemp("annotations") / "cells.geojson"
    with open_slide(slide_file) as slide:
        file = AnnotationFile.of(slide, path)
        shapes = [Rectangle(10.0, 5.0, 40.0, 25.0), Points([(60.0, 30.0)])]
        file.annotations.add_all(Annotation(shape, color="#ff0000") for shape in shapes)
        file.save()
    place = ["--region", "0,0,80,40", "--width-px", "1200", *PLAIN]
    plain, picture = drawn(*place), drawn(*place, "--annotations", path)
    changed = (picture != plain).any(axis=2)
    red = picture[..., 0].astype(int) - picture[..., 1:].max(axis=2) > 60  # a thin line has soft edges
    per_um = plain.shape[1] / 80
    for x_um, y_um in ((10, 15), (40, 15), (25, 5), (25, 25), (60, 30)):
        row, column = round(y_um * per_um), round(x_um * per_um)
        assert red[row - 2 : row + 3, column - 2 : column + 3].any(), (x_um, y_um)
    assert not changed[round(15 * per_um), round(25 * per_um)]


def test_an_interrupted_figure_leaves_nothing(rawmosaic, slide_file, tmp_path, monkeypatch):
    from rawmosaic.cli import export_figure

    def interrupted(self, camera):  # noqa: ARG001
        raise KeyboardInterrupt

    monkeypatch.setattr(export_figure.Rendering, "__call__", interrupted)
    outcome = rawmosaic("export", "figure", slide_file, "-o", tmp_path / "figure.png")
    assert (outcome.code, outcome.err.strip()) == (130, "rawmosaic: interrupted")
    assert not list(tmp_path.iterdir())


def test_a_figure_of_an_acquisition_with_a_damaged_file_says_so(rawmosaic, acquisition, tmp_path):
    folder = shutil.copytree(acquisition, tmp_path / "acquisition")
    damaged = folder / "r000_c001_DAPI.tif"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    outcome = rawmosaic("export", "figure", folder, "-o", tmp_path / "figure.png")
    assert outcome.code == 1
    assert "figure.png is incomplete" in outcome.err
    assert damaged.name in outcome.err


def test_export_lists_its_kinds(capsys):
    assert main(["export", "--help"]) == 0
    assert "figure" in capsys.readouterr().out
