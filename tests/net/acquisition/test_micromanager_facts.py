"""What pymmcore-plus tells of cameras and frames, taken in without it."""

from __future__ import annotations

import json
import math
import threading
from datetime import datetime
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest

from rawmosaic.net.acquisition.mda_signals import Brake, connect
from rawmosaic.net.acquisition.micromanager_geometry import (
    CameraView,
    bits_of,
    calibrated_affine,
    core_pixel_size_um,
    orientation_of,
    roi_shift_um,
    transposition,
)
from rawmosaic.net.acquisition.micromanager_metadata import fitting, plain, plane_metadata, run_metadata
from rawmosaic.net.acquisition.plan import ScanPlan, plan_from_body, plan_to_body
from rawmosaic.storage.errors import AcquisitionError
from rawmosaic.storage.slide import Channel, Header

PATIENCE_S = 60
IMAGE = {
    "camera_label": "Camera",
    "plane_shape": (48, 64),
    "dtype": "uint16",
    "height": 48,
    "width": 64,
    "pixel_format": "Mono12",
    "pixel_size_um": 0.5,
    "pixel_size_config_name": "Res20x",
}
AFFINE = (0.0, -0.5, 7.0, 0.5, 0.0, 9.0)


class Signal:
    """Has the methods of a psygnal signal that are used."""

    def __init__(self):
        self.slots: list = []

    def connect(self, slot, priority: int = 0):  # noqa: ARG002
        self.slots.append(slot)
        return slot

    def disconnect(self, slot) -> None:
        self.slots.remove(slot)

    def emit(self, *values) -> None:
        for slot in tuple(self.slots):
            slot(*values)


# how the camera lies on the stage


def test_a_calibrated_affine_says_where_a_pixel_lies():
    affine = calibrated_affine({**IMAGE, "pixel_size_affine": AFFINE}, [{"name": "Res20x", "pixel_size_affine": AFFINE}])
    one_to_the_right, one_below = affine @ [1, 0], affine @ [0, 1]
    assert one_to_the_right.tolist() == [0.0, 0.5]
    assert one_below.tolist() == [-0.5, 0.0]


@pytest.mark.parametrize(
    ("image", "configurations"),
    [
        (IMAGE, [{"name": "Res20x"}]),
        ({**IMAGE, "pixel_size_affine": (2, 0, 0, 0, 2, 0)}, [{"name": "Res20x"}]),
        ({**IMAGE, "pixel_size_affine": AFFINE}, [{"name": "Res10x", "pixel_size_affine": AFFINE}]),
        ({**IMAGE, "pixel_size_affine": (0,) * 6}, [{"name": "Res20x", "pixel_size_affine": (0,) * 6}]),
    ],
    ids=["none", "the identity, binned", "of another objective", "singular"],
)
def test_an_affine_that_nobody_calibrated_does_not_count(image: dict, configurations: list):
    assert calibrated_affine(image, configurations) is None


def test_pixels_have_the_size_of_the_affine_where_the_core_has_none():
    affine = np.array([[0.3, 0.4], [-0.4, 0.3]])
    assert core_pixel_size_um({"pixel_size_um": 0.0}, affine) == pytest.approx(0.5)
    assert core_pixel_size_um({"pixel_size_um": 0.25}, affine) == 0.25
    assert core_pixel_size_um({"pixel_size_um": 0.0}, None) == 0


@pytest.mark.parametrize(
    ("properties", "to_the_right", "below"),
    [
        ({}, (1, 0), (0, 1)),
        ({"TransposeMirrorX": "1", "TransposeCorrection": "0"}, (-1, 0), (0, 1)),
        ({"TransposeMirrorY": "1"}, (1, 0), (0, -1)),
        ({"TransposeXY": "1"}, (0, 1), (1, 0)),
        ({"TransposeXY": "1", "TransposeMirrorX": "1"}, (0, 1), (-1, 0)),
        ({"TransposeMirrorX": "1", "TransposeCorrection": "1"}, (1, 0), (0, 1)),
    ],
)
def test_a_camera_says_how_it_is_mounted(properties: dict, to_the_right: tuple, below: tuple):
    matrix = transposition(properties)
    assert tuple(matrix @ [1, 0]) == to_the_right
    assert tuple(matrix @ [0, 1]) == below


def test_what_is_given_counts_more_than_what_the_core_says():
    affine = np.array([[-0.5, 0.0], [0.0, 0.5]])
    mirrored = {"TransposeMirrorY": "1"}
    np.testing.assert_array_equal(orientation_of(affine, 0.5, mirrored), [[-1, 0], [0, 1]])
    np.testing.assert_array_equal(orientation_of(None, 0.5, mirrored), [[1, 0], [0, -1]])
    np.testing.assert_array_equal(orientation_of(affine, 0.5, mirrored, "identity"), np.eye(2))
    np.testing.assert_allclose(orientation_of(affine, 0.5, {}, None, 90.0), [[0, -1], [-1, 0]], atol=1e-12)


def test_a_part_of_the_chip_looks_beside_its_middle():
    mirrored = np.diag([-0.5, 0.5])
    assert roi_shift_um((0, 0, 64, 48), (48, 64), mirrored) == (0, 0)
    assert roi_shift_um((32, 0, 32, 24), (48, 64), mirrored) == (-8, -6)
    assert roi_shift_um((32, 0, 32, 24), None, mirrored) == (0, 0)


def test_bits_are_those_of_the_deepest_camera():
    assert bits_of([{"pixel_format": "Mono8"}]) == 8
    assert bits_of([{"pixel_format": "Mono8"}, {"pixel_format": "Mono12"}]) == 12
    assert bits_of([{}]) == 16


@pytest.mark.parametrize(
    ("roi", "shift_um"), [({}, (-8, -6)), ({"roi": (32, 24, 64, 48)}, (8, 6)), ({"roi": (16, 12, 64, 48)}, (0, 0))]
)
def test_a_part_at_the_corner_of_the_chip_is_one_as_well(roi: dict, shift_um: tuple):
    """The core does not tell such a region from a whole chip of that size."""
    view = CameraView.of({"image_infos": [{**IMAGE, **roi}]}, None, None, 0.0, (72, 96))
    assert view.shift_um == shift_um


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"plane_shape": (48, 64, 3), "pixel_format": "RGB8"}, "colour"),
        ({"dtype": "uint32"}, "uint32"),
        ({"pixel_size_um": 0.0}, "pixel_size_um="),
    ],
)
def test_a_camera_that_makes_no_slide_is_refused(changed: dict, says: str):
    with pytest.raises(AcquisitionError, match=says):
        CameraView.of({"image_infos": [{**IMAGE, **changed}]}, None, None, 0.0, None)
    with pytest.raises(AcquisitionError, match="no camera"):
        CameraView.of({}, None, None, 0.0, None)


def test_an_orientation_travels_with_the_plan():
    plan = ScanPlan("a scan", "a-scan", (48, 64), (Channel("DAPI"),), Header("a scan"), orientation=((0.0, -1.0), (1.0, 0.0)))
    assert plan_from_body(*plan_to_body(plan)).orientation == plan.orientation
    for wrong in (((0.0, 0.0), (1.0, 0.0)), ((1.0,), (2.0,)), ((math.nan, 0.0), (0.0, 1.0))):
        with pytest.raises(AcquisitionError, match="orientation"):
            ScanPlan("a scan", "a-scan", (48, 64), (Channel("DAPI"),), Header("a scan"), orientation=wrong)


# what is kept with a plane


def event(**changed: object) -> SimpleNamespace:
    facts = {"index": {"c": 0}, "pos_name": None, "x_pos": 1.0, "y_pos": None, "z_pos": None, "metadata": {}}
    return SimpleNamespace(**{**facts, **changed})


def test_a_plane_was_taken_when_the_clock_of_the_run_says():
    began = datetime.fromisoformat("2026-05-04T10:00:00+02:00")
    kept = plane_metadata(event(), {"runner_time_ms": 90_250.0}, began)
    assert kept["time"] == "2026-05-04T10:01:30.250+02:00"
    assert "time" not in plane_metadata(event(), {}, began)


def test_metadata_are_json_whatever_they_are():
    class Axis(Enum):
        TIME = "t"

    said = plain({Axis.TIME: np.int64(3), "nan": math.nan, "set": {1}, "array": np.zeros((2, 2)), "thing": object})
    assert said["t"] == 3
    assert said["nan"] is None
    assert said["array"] == [[0, 0], [0, 0]]
    json.dumps(said, allow_nan=False)


def test_metadata_that_are_too_long_lose_the_least_first():
    facts = {"time": "now", "camera_metadata": {"log": "x" * 50_000}, "properties": {"a": "b"}}
    assert fitting(facts) == {"time": "now", "properties": {"a": "b"}, "left_out": ["camera_metadata"]}
    kept = fitting({"time": "now", "index": {str(n): n for n in range(5000)}})
    assert kept == {"time": "now", "left_out": ["index"]}


def test_a_run_of_very_many_positions_keeps_what_is_short():
    sequence = SimpleNamespace(model_dump=lambda **_: {"stage_positions": [{"x": 1.0, "y": 2.0, "name": "a place"}] * 120_000})
    kept = run_metadata(sequence, {"devices": [{"label": "Camera"}]})
    assert kept["summary"] == {"devices": [{"label": "Camera"}]}
    assert kept["left_out"] == ["sequence"]


# signals


def test_a_run_waits_for_who_takes_its_frames_in():
    signal, emitted, go_on = Signal(), [], threading.Semaphore(0)
    made: list[Brake] = []
    ready = threading.Event()

    def take_in() -> None:
        made.append(Brake(signal, 2))
        ready.set()
        while go_on.acquire(timeout=PATIENCE_S) and len(taken) < 6:
            taken.append(len(emitted))
            made[0].one_less()

    def emit() -> None:
        for number in range(6):
            signal.emit(number)
            emitted.append(number)

    taken: list[int] = []
    taker = threading.Thread(target=take_in)
    taker.start()
    assert ready.wait(PATIENCE_S)
    run = threading.Thread(target=emit)
    run.start()
    while not made[0].holds:
        assert run.is_alive()
    assert len(emitted) == 2
    for _ in range(6):
        go_on.release()
    run.join(PATIENCE_S)
    assert not run.is_alive()
    made[0].close()
    go_on.release()
    taker.join(PATIENCE_S)
    assert signal.slots == []


def test_nobody_waits_for_a_thread_that_is_gone():
    signal, made = Signal(), []
    taker = threading.Thread(target=lambda: made.append(Brake(signal, 2)))
    taker.start()
    taker.join()
    for number in range(10):
        signal.emit(number)
    made[0].close()


def test_a_slot_on_a_qt_signal_is_called_by_who_emits():
    core = pytest.importorskip("PySide6.QtCore", reason="Qt is not installed")

    class Signals(core.QObject):
        frameReady = core.Signal(object)

    signals, called = Signals(), []
    disconnect = connect(signals.frameReady, lambda value: called.append((value, threading.current_thread())))
    run = threading.Thread(target=lambda: signals.frameReady.emit(1))
    run.start()
    run.join(PATIENCE_S)
    assert called == [(1, run)]
    disconnect()
    signals.frameReady.emit(2)
    assert len(called) == 1
