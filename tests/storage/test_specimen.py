"""The synthetic specimen: fields that overlap agree, counts look like a camera's, the table says where the stage stood."""

from __future__ import annotations

import csv
import threading

import numpy as np
import pytest
import tifffile

from rawmosaic.storage import SlideError, specimen
from rawmosaic.storage.specimen import CAMERA_MAXIMUM, STAINS, camera_image, specimen_field, write_acquisition

SHAPE = (96, 128)


@pytest.fixture(scope="module")
def acquisition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acquisition")
    calls = []
    write_acquisition(
        folder,
        columns=3,
        rows=2,
        field_shape=SHAPE,
        overlap=0.2,
        seed=5,
        pixel_size_um=0.5,
        progress=lambda *call: calls.append(call),
    )
    with open(folder / "positions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return folder, rows, calls


@pytest.mark.parametrize("channel", range(len(STAINS)))
def test_rectangles_that_overlap_agree_exactly(channel):
    whole = specimen_field(-300, -40, 120, 640, channel, seed=1)
    part = specimen_field(-150, 10, 50, 300, channel, seed=1)
    assert whole.dtype == np.float32
    assert np.array_equal(whole[50:100, 150:450], part)


def test_nothing_breaks_at_the_border_of_a_block():
    strip = specimen_field(0, 512 - 64, 128, 512, 0, seed=0).astype(float)
    steps = np.abs(np.diff(strip, axis=0)).mean(axis=1)
    assert steps[63] < 2 * np.median(steps)


def test_seeds_are_different_specimens():
    assert not np.array_equal(specimen_field(0, 0, 32, 32, 0, seed=1), specimen_field(0, 0, 32, 32, 0, seed=2))


def test_unknown_stain_is_named_with_the_limits():
    with pytest.raises(SlideError, match="channels 0 to 3"):
        specimen_field(0, 0, 8, 8, 4)


def test_camera_has_twelve_bits_and_noise_grows_with_light():
    light = np.repeat(np.array([[200.0], [2000.0], [9000.0]], np.float32), 20_000, axis=1)
    image = camera_image(light, np.random.default_rng(0))
    assert image.dtype == np.uint16
    assert image.max() == CAMERA_MAXIMUM
    assert 12 < image[0].std() < image[1].std() < 300


def test_the_table_names_every_plane_in_serpentine_order(acquisition):
    folder, rows, _ = acquisition
    assert list(rows[0]) == ["file", "channel", "x_um", "y_um", "row", "column"]
    assert [row["channel"] for row in rows] == list(STAINS) * 6
    assert [(int(row["row"]), int(row["column"])) for row in rows[::4]] == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
    assert sorted(path.name for path in folder.glob("*.tif")) == sorted(row["file"] for row in rows)
    assert not list(folder.glob("*.part"))


def test_planes_show_the_specimen_where_the_table_says(acquisition):
    folder, rows, _ = acquisition
    height, width = SHAPE
    for row in rows[::5]:
        plane = tifffile.imread(folder / row["file"]).astype(float)
        x0, y0 = float(row["x_um"]) / 0.5 - width / 2, float(row["y_um"]) / 0.5 - height / 2
        assert x0 == round(x0)
        assert y0 == round(y0)
        truth = specimen_field(int(x0), int(y0), height, width, STAINS.index(row["channel"]), seed=5)
        middle = (slice(32, 64), slice(48, 80))  # where the vignetting is weak
        assert abs((plane - truth)[middle].mean()) < 0.02 * truth.mean()


def test_pixel_size_is_in_the_tags(acquisition):
    folder, rows, _ = acquisition
    with tifffile.TiffFile(folder / rows[0]["file"]) as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
        assert 1e4 / (numerator / denominator) == pytest.approx(0.5)


def test_progress_counts_every_plane(acquisition):
    assert acquisition[2] == [(done, 24) for done in range(4, 25, 4)]


def test_interrupted_folder_is_no_acquisition(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_acquisition(tmp_path, columns=2, rows=1, field_shape=(16, 16), progress=interrupt)
    assert not (tmp_path / "positions.csv").exists()


def test_interruption_does_not_wait_for_whole_fields(tmp_path, monkeypatch):
    running, gate = [], threading.Event()

    def slow_field(*arguments):
        running.append(arguments)
        gate.wait(10)
        return np.zeros((16, 16), np.float32)

    def interrupt(*_, **__):
        gate.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(specimen, "specimen_field", slow_field)
    monkeypatch.setattr(specimen, "wait", lambda *_, **__: interrupt())
    with pytest.raises(KeyboardInterrupt):
        write_acquisition(tmp_path, columns=2, rows=1, field_shape=(16, 16))
    assert len(running) <= 2 * 2  # at most the stain in hand, and one more begun before the interruption was known


@pytest.mark.parametrize("bad", [{"columns": 0}, {"overlap": 1.0}, {"field_shape": (4, 16)}, {"pixel_size_um": 0}])
def test_sizes_that_make_no_mosaic_are_refused(tmp_path, bad):
    with pytest.raises(SlideError, match="no mosaic of"):
        write_acquisition(tmp_path, **bad)


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SlideError, match="taken"):
        write_acquisition(tmp_path / "taken", columns=1, rows=1, field_shape=(16, 16))
