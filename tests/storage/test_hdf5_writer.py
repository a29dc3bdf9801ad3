"""`SlideWriter` as an acquisition uses it: fields that come into being as they are written, odd arguments, and its life."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from rawmosaic.storage import Channel, Header, SlideError, SlideWriter, open_slide
from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError, PlaneMissingError, WriteError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.slide import PositionSet, new_fields
from rawmosaic.storage.testing import SyntheticSlide, hashed_plane, write_slide

SHAPE = (40, 56)


def plane(field: int, channel: int = 0, z: int = 0, t: int = 0) -> np.ndarray:
    return hashed_plane(SHAPE, field, channel, z, t)


def test_fields_are_named_by_row_and_column(tmp_path: Path):
    path = tmp_path / "slide.h5"
    places = [(3, 7), (0, 0), (3, 6), (12, 1)]
    with SlideWriter(path, field_shape=SHAPE, channels=["DAPI", "GFP"], pixel_size_um=0.1625) as writer:
        for channel in (0, 1):
            for number, (row, column) in enumerate(places):
                written = writer.write_plane(
                    plane(number, channel),
                    channel=channel,
                    row=row,
                    column=column,
                    x_um=column * 8.5,
                    y_um=row * 6.0,
                    z_um=number / 4,
                )
                assert written == number
    with Hdf5Slide(path) as slide:
        assert list(zip(slide.fields["row"].tolist(), slide.fields["column"].tolist(), strict=True)) == places
        np.testing.assert_array_equal(slide.positions(), [(column * 8.5, row * 6.0) for row, column in places])
        np.testing.assert_array_equal(slide.fields["z_um"], [0, 0.25, 0.5, 0.75])
        assert slide.header.name == "slide"
        assert slide.header.pixel_size_um == 0.1625
        assert [channel.name for channel in slide.channels] == ["DAPI", "GFP"]
        assert slide.acquired().all()
        for number in range(4):
            for channel in (0, 1):
                np.testing.assert_array_equal(slide.read_plane(number, channel), plane(number, channel))


def test_fields_are_named_by_position_alone(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a", "b"]) as writer:
        numbers = [writer.write_plane(plane(0, 0), channel=0, x_um=10.0, y_um=20.0)]
        numbers.append(writer.write_plane(plane(1, 0), channel=0, x_um=60.0, y_um=20.0))
        numbers.append(writer.write_plane(plane(0, 1), channel=1, x_um=10.0, y_um=20.0))
    assert numbers == [0, 1, 0]
    with Hdf5Slide(path) as slide:
        np.testing.assert_array_equal(slide.acquired(), [[True, True], [True, False]])
        assert slide.fields["row"].tolist() == [-1, -1]


def test_same_place_in_two_scenes_is_two_fields(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a"], scenes=("A1", "B2")) as writer:
        assert writer.write_plane(plane(0), channel=0, row=0, column=0, x_um=0, y_um=0, scene=0) == 0
        assert writer.write_plane(plane(1), channel=0, row=0, column=0, x_um=9000, y_um=0, scene=1) == 1
    with Hdf5Slide(path) as slide:
        assert slide.scenes == ("A1", "B2")
        assert slide.fields["scene"].tolist() == [0, 1]


def test_plane_measured_elsewhere_keeps_its_own_place(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a", "b"]) as writer:
        writer.write_plane(plane(0, 0), channel=0, row=0, column=0, x_um=100.0, y_um=200.0)
        writer.write_plane(plane(0, 1), channel=1, row=0, column=0, x_um=101.5, y_um=197.0)
    with Hdf5Slide(path) as slide:
        np.testing.assert_array_equal(slide.positions(), [[100.0, 200.0]])
        np.testing.assert_array_equal(slide.placement().centres_um(0), [[100.0, 200.0]])
        np.testing.assert_array_equal(slide.placement().centres_um(1), [[101.5, 197.0]])


def test_caller_may_reuse_its_image_at_once(tmp_path: Path):
    path = tmp_path / "slide.h5"
    image = np.empty(SHAPE, np.uint16)
    with SlideWriter(path, field_shape=SHAPE, channels=["a"]) as writer:
        for number in range(40):
            image[:] = plane(number)
            writer.write_plane(image, channel=0, x_um=50.0 * number, y_um=0)
    with Hdf5Slide(path) as slide:
        for number in range(40):
            np.testing.assert_array_equal(slide.read_plane(number, 0), plane(number))


def test_many_fields_grow_the_tables(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=(16, 16), channels=["a"]) as writer:
        for number in range(700):
            writer.write_plane(
                hashed_plane((16, 16), number, 0, 0, 0), channel=0, row=number // 30, column=number % 30, x_um=number, y_um=0
            )
    with Hdf5Slide(path) as slide:
        assert slide.n_fields == 700
        assert slide.acquired().all()
        for number in (0, 255, 256, 257, 511, 512, 699):
            np.testing.assert_array_equal(slide.read_plane(number, 0), hashed_plane((16, 16), number, 0, 0, 0))
            layers = [slide.read_plane(number, 0, level=level) for level in range(len(slide.levels))]
            assert abs(float(layers[-1].mean()) - float(layers[0].mean())) < 1


def test_order_of_fields_may_leave_gaps(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a"]) as writer:
        writer.write_plane(plane(5), channel=0, field=5, x_um=5, y_um=5)
        writer.write_plane(plane(2), channel=0, field=2, x_um=2, y_um=2)
    with Hdf5Slide(path) as slide:
        assert slide.n_fields == 6
        assert np.flatnonzero(slide.acquired()[:, 0]).tolist() == [2, 5]
        np.testing.assert_array_equal(slide.read_plane(5, 0), plane(5))
        with pytest.raises(PlaneMissingError):
            slide.read_plane(3, 0)


def test_eight_bit_planes_keep_their_values(tmp_path: Path):
    path = tmp_path / "slide.h5"
    image = (plane(0) >> 8).astype(np.uint8)
    with SlideWriter(path, field_shape=SHAPE, channels=["a"], header=Header("eight", bits=8)) as writer:
        writer.write_plane(image, channel=0, x_um=0, y_um=0)
    with Hdf5Slide(path) as slide:
        assert slide.header.bits == 8
        np.testing.assert_array_equal(slide.read_plane(0, 0), image)


def test_views_and_foreign_byte_orders_are_taken(tmp_path: Path):
    path = tmp_path / "slide.h5"
    big = np.zeros((80, 112), np.uint16)
    big[::2, ::2] = plane(0)
    with SlideWriter(path, field_shape=SHAPE, channels=["a"]) as writer:
        writer.write_plane(big[::2, ::2], channel=0, x_um=0, y_um=0)
        writer.write_plane(plane(1).astype(">u2"), channel=0, x_um=60, y_um=0)
        writer.write_plane(np.asfortranarray(plane(2)), channel=0, x_um=120, y_um=0)
    with Hdf5Slide(path) as slide:
        for number in range(3):
            np.testing.assert_array_equal(slide.read_plane(number, 0), plane(number))


def test_metadata_come_back_verbatim(tmp_path: Path):
    path = tmp_path / "slide.h5"
    extra = {"ome": "<OME>µ</OME>", "nested": {"list": [1, 2.5, None, True], "empty": ""}, "long": "x" * 100_000}
    header = Header("név μ", "2012-07-01T12:00:00+02:00", 0.325, "63x/1.4", "assay", 12, extra)
    channels = (
        Channel("DAPI", "#0000ff", 358.0, 461.0, 20.5, (100.0, 4000.0)),
        Channel("ünïcode /with: slash"),
    )
    with SlideWriter(path, field_shape=SHAPE, channels=channels, header=header):
        pass
    with Hdf5Slide(path) as slide:
        assert slide.channels == channels
        for fact in ("name", "acquired_at", "pixel_size_um", "objective", "assay", "bits"):
            assert getattr(slide.header, fact) == getattr(header, fact)
        assert json.loads(json.dumps(dict(slide.header.extra))) == extra


def test_slide_without_fields_opens(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a"]):
        pass
    with Hdf5Slide(path) as slide:
        assert slide.n_fields == 0
        assert slide.positions().shape == (0, 2)
        assert slide.acquired().shape == (0, 1)
        assert slide.histogram(0).sum() == 0
        with pytest.raises(OutOfRangeError, match="no field"):
            slide.read_plane(0, 0)


def test_position_set_names_with_any_character(tmp_path: Path):
    truth = SyntheticSlide((1, 2), (16, 16), 1, extra_sets=("registered 2", "été"))
    with Hdf5Slide(write_slide(truth, tmp_path / "slide.h5")) as slide:
        assert slide.position_sets == truth.position_sets
        for name in truth.position_sets:
            np.testing.assert_array_equal(slide.positions(name), truth.positions(name))


def test_zoom_layers_alone_can_be_kept(tmp_path: Path):
    truth = SyntheticSlide((2, 2), (64, 96), 2)
    with Hdf5Slide(write_slide(truth, tmp_path / "layers.h5", store_full_resolution=False)) as slide:
        assert not slide.stores_full_resolution
        for level in range(1, len(slide.levels)):
            np.testing.assert_array_equal(slide.read_plane(1, 1, level=level), truth.read_plane(1, 1, level=level))
        np.testing.assert_array_equal(slide.histogram(1), truth.histogram(1))
        with pytest.raises(SlideError, match="level 0"):
            slide.read_plane(1, 1)


# what a writer refuses


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 56), np.float32),
        np.zeros((40, 56), np.int16),
        np.zeros((40, 56), np.uint32),
        np.zeros((40, 56, 3), np.uint16),
        np.zeros((41, 56), np.uint16),
        np.zeros((40, 57), np.uint16),
        np.zeros((0, 56), np.uint16),
    ],
    ids=["float", "signed", "32 bit", "colour", "too tall", "too wide", "empty"],
)
def test_unfit_image_is_refused(tmp_path: Path, image: np.ndarray):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"]) as writer:
        with pytest.raises(AcquisitionError, match=r"uint16|field_shape"):
            writer.write_plane(image, channel=0, x_um=0, y_um=0)
        writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)
    with Hdf5Slide(tmp_path / "slide.h5") as slide:
        assert slide.n_fields == 1


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"channels": []}, "at least one channel"),
        ({"field_shape": (0, 4)}, "field_shape"),
        ({"field_shape": (4, -1)}, "field_shape"),
        ({"field_shape": (1 << 21, 4)}, "1048576"),
        ({"field_shape": (4,)}, "field_shape"),
        ({"size_z": 0}, "size_z is 0"),
        ({"size_t": -1}, "size_t -1"),
        ({"pixel_size_um": 0}, "pixel_size_um is 0"),
        ({"pixel_size_um": float("nan")}, "pixel_size_um is nan"),
        ({"position_sets": {"mended": PositionSet(np.array([[0, 0], [np.inf, 0]]))}}, "field 1 .*mended"),
    ],
    ids=str,
)
def test_facts_that_no_slide_can_have_are_refused(tmp_path: Path, facts: dict, what: str):
    with pytest.raises(AcquisitionError, match=what):
        SlideWriter(tmp_path / "slide.h5", **{"field_shape": SHAPE, "channels": ["a"], **facts})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [{"x_um": float("nan"), "y_um": 0}, {"x_um": 0, "y_um": float("-inf")}], ids=str)
def test_field_that_lies_nowhere_is_refused(tmp_path: Path, place: dict):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"]) as writer:
        with pytest.raises(AcquisitionError, match="finite"):
            writer.write_plane(plane(0), channel=0, **place)
        writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)
    with Hdf5Slide(tmp_path / "slide.h5") as slide:
        assert slide.n_fields == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [({"channel": 2}, "channel"), ({"channel": -1}, "channel"), ({"channel": 0, "z": 1}, "z"), ({"channel": 0, "t": -1}, "t")],
    ids=["channel above", "channel below", "z above", "t below"],
)
def test_plane_outside_the_slide_is_refused(tmp_path: Path, arguments: dict, what: str):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a", "b"]) as writer:
        with pytest.raises(OutOfRangeError, match=rf"no {what} .*0 to") as caught:
            writer.write_plane(plane(0), x_um=0, y_um=0, **arguments)
    assert caught.value.what == what


def test_plane_written_twice_is_refused(tmp_path: Path):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"]) as writer:
        writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)
        with pytest.raises(AcquisitionError, match="field 0, channel 0, z 0, t 0"):
            writer.write_plane(plane(1), channel=0, x_um=0, y_um=0)
    with Hdf5Slide(tmp_path / "slide.h5") as slide:
        np.testing.assert_array_equal(slide.read_plane(0, 0), plane(0))


def test_channels_of_a_field_have_one_size(tmp_path: Path):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a", "b"]) as writer:
        writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)
        with pytest.raises(AcquisitionError, match=r"40 × 56.*30 × 56"):
            writer.write_plane(plane(0)[:30], channel=1, x_um=0, y_um=0)


def test_plane_without_a_place_is_refused(tmp_path: Path):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"]) as writer:
        with pytest.raises(AcquisitionError, match="x_um"):
            writer.write_plane(plane(0), channel=0)


def test_field_outside_the_planned_ones_is_refused(tmp_path: Path):
    truth = SyntheticSlide((1, 2), SHAPE, 1)
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"], fields=truth.fields) as writer:
        with pytest.raises(OutOfRangeError, match="0 to 1"):
            writer.write_plane(plane(0), channel=0, field=2)
        with pytest.raises(AcquisitionError, match="field="):
            writer.write_plane(plane(0), channel=0, row=0, column=0)


def test_unknown_codec_names_the_known_ones(tmp_path: Path):
    with pytest.raises(OutOfRangeError, match=r"lz4.*zstd"):
        SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"], codec="jpeg")
    assert list(tmp_path.iterdir()) == []


# life


def test_final_name_appears_only_when_complete(tmp_path: Path):
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a"]) as writer:
        writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)
        assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5"]


def test_aborted_writer_leaves_nothing(tmp_path: Path):
    writer = SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"])
    writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)
    writer.abort()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_exception_inside_leaves_nothing_and_passes(tmp_path: Path):
    def interrupted() -> None:
        with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"]) as writer:
            writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_aborted_rewrite_keeps_the_old_slide(tmp_path: Path):
    path = write_slide(SyntheticSlide((1, 2), SHAPE, 1), tmp_path / "slide.h5")
    before = path.read_bytes()
    SlideWriter(path, field_shape=SHAPE, channels=["b"]).abort()
    assert path.read_bytes() == before


def test_closed_twice_is_harmless(tmp_path: Path):
    writer = SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"])
    writer.close()
    writer.close()
    writer.abort()
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5"]


def test_writing_to_a_closed_writer_is_an_error(tmp_path: Path):
    writer = SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a"])
    writer.close()
    with pytest.raises(SlideError):
        writer.write_plane(plane(0), channel=0, x_um=0, y_um=0)


def test_folder_that_does_not_exist_is_a_write_error(tmp_path: Path):
    with pytest.raises(WriteError, match=r"slide\.h5") as caught:
        SlideWriter(tmp_path / "nowhere" / "slide.h5", field_shape=SHAPE, channels=["a"])
    assert isinstance(caught.value, OSError)


def test_killed_writer_leaves_no_final_name_and_does_not_block_the_next(tmp_path: Path):
    path = tmp_path / "slide.h5"
    script = """
        import os, signal, sys
        import numpy as np
        from rawmosaic.storage import SlideWriter
        writer = SlideWriter(sys.argv[1], field_shape=(40, 56), channels=["a"])
        for number in range(20):
            writer.write_plane(np.full((40, 56), number, np.uint16), channel=0, x_um=number, y_um=0)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, timeout=60, check=False
    )
    assert result.returncode != 0, result.stderr
    assert not path.exists()
    truth = SyntheticSlide((1, 2), SHAPE, 1)
    write_slide(truth, path)
    with Hdf5Slide(path) as slide:
        np.testing.assert_array_equal(slide.read_plane(1, 0), truth.read_plane(1, 0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.h5"]


def test_second_writer_of_a_slide_leaves_the_first_alone(tmp_path: Path):
    path = tmp_path / "slide.h5"
    plane = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    script = (
        "import sys; from rawmosaic.storage import SlideWriter, SlideError\n"
        "try: SlideWriter(sys.argv[1], field_shape=(64, 64), channels=['A'])\n"
        "except SlideError as error: print(error)\n"
    )
    with SlideWriter(path, field_shape=(64, 64), channels=["A"]) as writer:
        second = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        writer.write_plane(plane, 0, row=0, column=0)
    assert "another program is writing this slide" in second.stdout
    with open_slide(path) as slide:
        assert np.array_equal(slide.read_plane(0, 0), plane)


@pytest.mark.parametrize("n_planned", [None, 3])
def test_a_slide_of_a_scan_says_which_and_whether_it_was_planned(tmp_path: Path, n_planned: int | None):
    fields = None if n_planned is None else new_fields(n_planned, (20, 30))
    where = {"row": 0, "column": 0} if fields is None else {"field": 0}
    writer = SlideWriter(
        tmp_path / "scan.h5",
        field_shape=(20, 30),
        channels=["DAPI"],
        fields=fields,
        scan_uid="scan-7",
        header=Header("scan", extra={"lamp": 3}),
    )
    try:
        with open_slide(tmp_path / "scan.h5") as growing:
            assert growing.header.extra["acquisition"]["planned"] == (n_planned is not None)
        writer.write_plane(np.zeros((20, 30), np.uint16), 0, **where)
    finally:
        writer.close(ended_early="the lamp broke")
    told = {"lamp": 3, "acquisition": {"uid": "scan-7", "planned": n_planned is not None}, "ended_early": "the lamp broke"}
    with open_slide(tmp_path / "scan.h5") as slide:
        assert slide.header.extra == told
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        assert bool(file.attrs["planned"]) == (n_planned is not None)
        del file.attrs["planned"]  # as files were written before
    with open_slide(tmp_path / "scan.h5") as slide:
        assert slide.header.extra["acquisition"] == {"uid": "scan-7"}
