"""`import`, `info`, `verify` and `demo`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile

from rawmosaic.storage import open_slide


@contextmanager
def interrupting_bar(label):  # noqa: ARG001
    """A progress bar at which the user presses Ctrl-C."""

    def interrupt(*_):
        raise KeyboardInterrupt

    yield interrupt


# import


def test_imported_planes_equal_the_files(slide_file, acquisition):
    with open_slide(slide_file) as slide:
        for field in range(slide.n_fields):
            row, column = slide.fields[field]["row"], slide.fields[field]["column"]
            for number, channel in enumerate(slide.channels):
                name = f"r{row:03d}_c{column:03d}_{channel.name.replace(' ', '')}.tif"
                assert np.array_equal(slide.read_plane(field, number), tifffile.imread(acquisition / name))
        assert slide.n_fields == 6
        assert slide.header.pixel_size_um == pytest.approx(0.5)


def test_import_says_what_it_wrote(rawmosaic, acquisition, tmp_path):
    outcome = rawmosaic("import", acquisition, "-o", tmp_path / "out.h5", "--codec", "zstd")
    assert outcome.code == 0
    assert "6 fields × 4 channels" in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_import_keeps_an_existing_file_unless_forced(rawmosaic, acquisition, tmp_path):
    path = tmp_path / "out.h5"
    path.write_text("precious")
    assert rawmosaic("import", acquisition, "-o", path).complains_once_about("exists already", "--force")
    assert path.read_text() == "precious"
    assert rawmosaic("import", acquisition, "-o", path, "--force").code == 0
    assert rawmosaic("verify", path).code == 0


def test_import_onto_itself_is_refused(rawmosaic, slide_file):
    assert rawmosaic("import", slide_file, "-o", slide_file, "--force").complains_once_about("source itself")


def test_import_into_a_folder_that_does_not_exist_is_refused(rawmosaic, acquisition, tmp_path):
    assert rawmosaic("import", acquisition, "-o", tmp_path / "no" / "out.h5").complains_once_about("no folder")
    assert rawmosaic("import", acquisition, "-o", tmp_path).complains_once_about("is a folder")


def test_interrupted_import_leaves_nothing(rawmosaic, acquisition, tmp_path, monkeypatch):
    monkeypatch.setattr("rawmosaic.cli.progress.progress_bar", interrupting_bar)
    outcome = rawmosaic("import", acquisition, "-o", tmp_path / "out.h5")
    assert outcome.code == 130
    assert not list(tmp_path.iterdir())


def test_acquisition_that_contradicts_itself_leaves_nothing(rawmosaic, acquisition, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(acquisition, folder)
    next(folder.glob("*.tif")).unlink()
    outcome = rawmosaic("import", folder, "-o", tmp_path / "out.h5")
    assert outcome.complains_once_about(".tif"), outcome
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


# info


def test_info_is_for_people(rawmosaic, slide_file):
    outcome = rawmosaic("info", slide_file)
    assert outcome.code == 0
    for words in ("0.5 µm", "6, up to 96 × 72 pixels", "Texas Red, 6 planes", "stage"):
        assert words in outcome.out


def test_info_is_for_programs(rawmosaic, slide_file, acquisition):
    for location in (slide_file, acquisition):
        facts = json.loads(rawmosaic("info", location, "--json").out)
        assert facts["fields"] == 6
        assert [channel["name"] for channel in facts["channels"]] == ["DAPI", "FITC", "Texas Red", "Cy5"]
        assert [channel["planes"] for channel in facts["channels"]] == [6] * 4
        assert facts["pixel_size_um"] == pytest.approx(0.5)
        assert (facts["field_width"], facts["field_height"]) == (96, 72)
        left, top, right, bottom = facts["bounds_um"]
        assert right - left > 2.3 * 48
        assert bottom - top > 1.6 * 36


def test_info_takes_the_options_of_acquisitions(rawmosaic, acquisition):
    facts = json.loads(rawmosaic("info", acquisition, "--json", "--pixel-size-um", "0.25").out)
    assert facts["pixel_size_um"] == 0.25


def test_facts_are_strict_json():
    from rawmosaic.cli.info_command import plain

    value = {"a": np.float32("nan"), "b": (np.int16(3), b"x"), 4: {"c": np.arange(2)}, "d": float("inf"), "e": object}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "a": None, "b": [3, "x"], "4": {"c": [0, 1]}, "d": None, "e": str(object)
    }  # fmt: skip


# verify


def test_intact_slide_is_proven(rawmosaic, slide_file):
    outcome = rawmosaic("verify", slide_file)
    assert (outcome.code, outcome.err) == (0, "")
    assert "intact, 24 planes" in outcome.out


def test_flipped_byte_is_found_and_its_plane_named(rawmosaic, slide_file, tmp_path):
    path = tmp_path / "flipped.h5"
    flip_a_byte_of(slide_file, path)
    outcome = rawmosaic("verify", path)
    assert outcome.code == 1
    assert outcome.err == ""
    assert "field 2, channel 1" in outcome.out
    assert "damaged, 1 of 24 planes" in outcome.out


def test_damaged_slide_is_drawn_as_far_as_it_can_be_read(rawmosaic, slide_file, tmp_path):
    path = tmp_path / "flipped.h5"
    flip_a_byte_of(slide_file, path)
    outcome = rawmosaic("render", path, "-o", tmp_path / "out.png", "--scale", "1", "--size", "300x200")
    assert outcome.code in (0, 1)  # whether a flipped byte can be decoded is up to the codec
    assert (tmp_path / "out.png").exists()
    assert len(outcome.err.splitlines()) == outcome.code


def flip_a_byte_of(source, target):
    """Copy a virtual slide and flip one byte in the middle of a full-resolution tile of field 2, channel 1."""
    import h5py

    shutil.copy(source, target)
    with h5py.File(target) as file:
        chunk = file["levels/0"].id.get_chunk_info_by_coord((2, 1, 0, 0, 0, 0))
    with open(target, "r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


# view


def test_view_without_a_display_says_so(rawmosaic, slide_file, monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems always have a display")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert rawmosaic("view", slide_file).complains_once_about("display", "rawmosaic render")


# demo


@pytest.fixture
def small_demo(monkeypatch, tmp_path):
    """The arguments of a demo whose fields are small."""
    from rawmosaic.storage import specimen

    def small(folder, **options):
        return write_acquisition(folder, field_shape=(64, 80), **options)

    write_acquisition = specimen.write_acquisition
    monkeypatch.setattr(specimen, "write_acquisition", small)
    return "demo", "--fields", "5", "--folder", tmp_path


def test_demo_without_a_display_says_where_the_picture_is(rawmosaic, small_demo, tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    outcome = rawmosaic(*small_demo, *([] if sys.platform.startswith("linux") else ["--no-window"]))
    home = tmp_path / "3x2"
    assert outcome.code == 0
    assert str(home / "picture.png") in outcome.out
    assert (home / "picture.png").stat().st_size > 1000
    assert rawmosaic("verify", home / "slide.h5").code == 0


def test_demo_uses_again_what_it_made(rawmosaic, small_demo, tmp_path):
    assert rawmosaic(*small_demo, "--no-window").code == 0
    made = (tmp_path / "3x2" / "slide.h5").stat().st_mtime_ns
    assert rawmosaic(*small_demo, "--no-window").code == 0
    assert (tmp_path / "3x2" / "slide.h5").stat().st_mtime_ns == made


def test_demo_makes_again_a_slide_that_cannot_be_opened(rawmosaic, small_demo, tmp_path):
    (tmp_path / "3x2").mkdir()
    (tmp_path / "3x2" / "slide.h5").write_bytes(b"of an older format")
    assert rawmosaic(*small_demo, "--no-window").code == 0
    assert rawmosaic("verify", tmp_path / "3x2" / "slide.h5").code == 0


def test_interrupted_demo_goes_on_where_it_is_whole(rawmosaic, small_demo, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("rawmosaic.cli.progress.progress_bar", interrupting_bar)
        assert rawmosaic(*small_demo, "--no-window").code == 130
    assert not (tmp_path / "3x2" / "slide.h5").exists()
    assert rawmosaic(*small_demo, "--no-window").code == 0


@pytest.mark.skipif(os.name != "posix", reason="only POSIX can send Ctrl-C to another process")
def test_ctrl_c_stops_a_running_process(tmp_path):
    command = [
        sys.executable,
        "-c",
        "from rawmosaic.cli.main import run; run()",
        "demo",
        "--no-window",
        "--folder",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("*/*/*.tif")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "rawmosaic: interrupted"
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*/slide.h5*"))
    assert not list(tmp_path.glob("*/*/positions.csv*"))


@pytest.mark.parametrize(("fields", "mosaic"), [(1, (1, 1)), (2, (2, 1)), (5, (3, 2)), (30, (6, 5)), (100, (10, 10))])
def test_demo_mosaic_is_nearly_square_and_large_enough(fields, mosaic):
    from rawmosaic.cli.demo_command import mosaic_of

    assert mosaic_of(fields) == mosaic
