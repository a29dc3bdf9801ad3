"""`rawmosaic render`: the PNG is the engine's picture, every option reaches it, and bad ones are named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from rawmosaic.storage import open_slide


@pytest.fixture
def rendered(rawmosaic, slide_file, tmp_path):
    """The picture of `rawmosaic render slide.h5 ARGUMENTS…`, (h, w, 3) uint8."""

    def render(*arguments, location=slide_file):
        path = tmp_path / "out.png"
        outcome = rawmosaic("render", location, "-o", path, *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert [file.name for file in tmp_path.iterdir()] == ["out.png"]
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            return np.array(picture)

    return render


def test_picture_is_what_the_viewer_draws(rendered, slide_file):
    from rawmosaic.viewer import OffscreenViewer

    with open_slide(slide_file) as slide, OffscreenViewer(slide, size=(200, 120)) as viewer:
        viewer.fit()
        whole = viewer.render()[..., :3]
        viewer.look_at(-4.0, 7.5, scale=2.0)
        viewer.channels[0].limits, viewer.channels[1].color, viewer.channels[2].visible = (400, 2500), "#ff0000", False
        viewer.channels[3].gamma, viewer.overlap, viewer.interpolation = 0.5, "max", "nearest"
        part = viewer.render()[..., :3]
    assert whole.any()
    assert np.array_equal(rendered("--size", "200x120"), whole)
    told = ["--center", "-4,7.5", "--scale", "2", "--channels", "DAPI,FITC,Cy5", "--limits", "DAPI=400:2500"]
    told += ["--colors", "FITC=#ff0000", "--gamma", "Cy5=0.5", "--overlap", "max", "--interpolation", "nearest"]
    assert np.array_equal(rendered("--size", "200x120", *told), part)


def test_default_size_is_720p_and_shows_the_whole_slide(rendered):
    picture = rendered()
    assert picture.shape == (720, 1280, 3)
    rows, columns = np.nonzero(picture.any(axis=2))
    assert rows.max() - rows.min() > 600 or columns.max() - columns.min() > 1200


def test_center_alone_keeps_the_scale_that_shows_the_whole_slide(rendered, slide_file):
    with open_slide(slide_file) as slide:
        x_um, y_um = slide.positions().mean(axis=0)
    whole = rendered("--size", "160x100")
    moved = rendered("--size", "160x100", "--center", f"{x_um + 5},{y_um}")
    assert not np.array_equal(whole, moved)


def test_raw_acquisition_looks_like_its_virtual_slide(rendered, acquisition):
    for arguments in ([], ["--scale", "1"], ["--scale", "3", "--limits", "DAPI=0:4000"]):
        size = ["--size", "240x160"]
        assert np.array_equal(rendered(*size, *arguments, location=acquisition), rendered(*size, *arguments))


def test_orientation_and_pixel_size_of_an_acquisition_are_overridden(rendered, acquisition):
    plain = rendered("--size", "100x80", location=acquisition)
    turned = rendered("--size", "100x80", "--orientation", "flip-x", "--pixel-size-um", "0.4", location=acquisition)
    assert not np.array_equal(plain, turned)


def test_channels_are_found_by_name_in_any_case_and_by_number(rendered):
    by_name = rendered("--size", "80x60", "--channels", "Texas Red, dapi")
    assert np.array_equal(by_name, rendered("--size", "80x60", "--channels", "2,0"))
    assert not np.array_equal(by_name, rendered("--size", "80x60"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--channels", "DAPI,Cy7"], ["Cy7", "DAPI, FITC, Texas Red, Cy5"]),
        (["--channels", "4"], ["'4'", "Cy5"]),
        (["--limits", "Cy7=1:2"], ["Cy7", "Texas Red"]),
        (["--limits", "DAPI=12"], ["DAPI=12", "DAPI=400:3000"]),
        (["--colors", "DAPI=blurple"], ["blurple", "#rrggbb"]),
        (["--gamma", "DAPI=x"], ["DAPI=x"]),
        (["--gamma", "DAPI=0"], ["DAPI=0", "DAPI=0.7"]),
        (["--gamma", "DAPI=-1"], ["DAPI=-1"]),
        (["--size", "big"], ["big", "1280x720"]),
        (["--center", "3"], ["'3'", "two numbers"]),
        (["--scale", "0"], ["--scale"]),
        (["--scale", "1e300"], ["--scale", "10000"]),
        (["--scale", "nan"], ["scale", "nan"]),
        (["--overlap", "under"], ["under", "feather"]),
        (["--positions", "registered"], ["registered", "stage"]),
        (["--z", "1"], ["z 1", "0 to 0"]),
        (["--t", "-1"], ["t -1", "0 to 0"]),
        (["--interpolation", "cubic"], ["cubic", "nearest"]),
        (["--pixel-size-um", "0.3"], ["virtual slide", "--pixel-size-um"]),
    ],
)
def test_wrong_option_is_named_with_what_there_is(rawmosaic, slide_file, tmp_path, arguments, words):
    outcome = rawmosaic("render", slide_file, "-o", tmp_path / "out.png", *arguments)
    assert outcome.complains_once_about(*words), outcome
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "words"), [("out.jpg", [".png"]), ("no/such/out.png", ["no folder"]), ("", [".png"])])
def test_picture_that_cannot_be_written_is_refused_before_drawing(rawmosaic, slide_file, tmp_path, name, words):
    assert rawmosaic("render", slide_file, "-o", tmp_path / name).complains_once_about(*words)


def test_no_half_picture_is_left_when_writing_fails(rawmosaic, slide_file, tmp_path, monkeypatch):
    def full(self, path, **_):  # noqa: ARG001
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    assert rawmosaic("render", slide_file, "-o", tmp_path / "out.png").complains_once_about("out.png", "no space left")
    assert not list(tmp_path.iterdir())


def test_picture_of_an_acquisition_with_a_damaged_file_says_so(rawmosaic, acquisition, tmp_path):
    folder = shutil.copytree(acquisition, tmp_path / "acquisition")
    damaged = folder / "r000_c001_DAPI.tif"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    for _ in range(2):  # what was learnt the first time is not forgotten
        outcome = rawmosaic("render", folder, "-o", tmp_path / "out.png")
        assert outcome.code == 1
        assert "out.png is incomplete" in outcome.err
        assert damaged.name in outcome.err
    outcome = rawmosaic("render", folder, "-o", tmp_path / "out.png", "--channels", "FITC")
    assert (outcome.code, outcome.err) == (0, "")
