"""pymmcore-plus runs as scans: with Micro-Manager's demo devices, and a camera that sees a specimen which is known."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

os.environ["PYMM_LOG_FILE"] = "0"  # read at import: otherwise it writes into the user's folder
pytest.importorskip("pymmcore_plus", reason="pymmcore-plus is not installed: pip install 'rawmosaic[micromanager-demo]'")
pytest.importorskip("mm_test_adapters", reason="there are no demo devices: pip install 'rawmosaic[micromanager-demo]'")

import useq
from bare_client import until
from microscope import SENSOR, LocalScanner, Microscope, pixel_places, seen
from pymmcore_plus import CMMCorePlus

from rawmosaic.net.acquisition import micromanager
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.net.acquisition.micromanager import SlideHandler
from rawmosaic.net.protocol import EndedError
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError, SlideError, UnreachableError
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer import OffscreenViewer

PATIENCE_S = 60
COLOURS = ("DAPI", "FITC")
TURNS = {
    "as it is": [[1, 0], [0, 1]],
    "mirrored": [[1, 0], [0, -1]],
    "turned": [[0, -1], [1, 0]],
    "turned and mirrored": [[0, 1], [1, 0]],
}


@pytest.fixture(scope="module")
def shared_microscope() -> Microscope:
    return Microscope()


@pytest.fixture
def microscope(shared_microscope: Microscope) -> Microscope:
    shared_microscope.reset()
    return shared_microscope


@pytest.fixture
def scanners() -> list[LocalScanner]:
    """Those that were opened, the latest last."""
    return []


@pytest.fixture
def handler_of(microscope: Microscope, scanners: list[LocalScanner], tmp_path: Path) -> Iterator[Callable[..., SlideHandler]]:
    """Makes handlers that write slides here."""

    def opened() -> LocalScanner:
        scanners.append(LocalScanner(tmp_path))
        return scanners[-1]

    made = []

    def make(**options: object) -> SlideHandler:
        made.append(SlideHandler(core=microscope.core, scanner=opened, **{"name": "scan", **options}))
        return made[-1]

    yield make
    for handler in made:
        handler.detach()


def grid(rows: int, columns: int, overlap: float = 25.0, **facts: object) -> useq.GridRowsColumns:
    """A grid whose steps are whole µm, multiples of the demo stage's."""
    return useq.GridRowsColumns(rows=rows, columns=columns, overlap=overlap, **facts)


def channels(*names: str) -> list[dict]:
    return [{"config": name, "exposure": 1.0} for name in names or COLOURS]


def taken(microscope: Microscope, handler: SlideHandler, sequence: useq.MDASequence) -> Slide:
    """Run the sequence, and open the slide that it became."""
    with handler:
        microscope.core.mda.run(sequence)
    return open_slide(handler.location)


def assert_mosaic_is_the_specimen(slide: Slide) -> None:
    """Every pixel of every plane lies where the slide says, on the specimen."""
    placement = slide.placement()
    for channel, colour in enumerate(slide.channels):
        centres = placement.centres_um(channel)
        for number in np.flatnonzero(slide.acquired()[:, channel]):
            x_um, y_um = pixel_places(slide.field_shape, tuple(centres[number]), placement.matrix_um)
            np.testing.assert_array_equal(slide.read_plane(number, channel), seen(colour.name, x_um, y_um))


def assert_planes_are_the_frames(slide: Slide, planes: list[tuple[int, int, int, int]], microscope: Microscope) -> None:
    """Plane for plane: `planes` are the addresses (field, channel, z, t) of the frames, in the order of their taking."""
    assert len(planes) == len(set(planes)) == len(microscope.frames)
    for address, (image, _, _) in zip(planes, microscope.frames, strict=True):
        np.testing.assert_array_equal(slide.read_plane(*address), image)
    n_planes = sum(int(slide.acquired(z, t).sum()) for z in range(slide.size_z) for t in range(slide.size_t))
    assert n_planes == len(planes)


# where images lie


@pytest.mark.parametrize("matrix", TURNS.values(), ids=TURNS)
def test_the_mosaic_of_a_grid_is_the_specimen(matrix: list, microscope: Microscope, handler_of: Callable):
    microscope.turn_camera(matrix)
    sequence = useq.MDASequence(channels=channels(), grid_plan=grid(2, 3))
    with taken(microscope, handler_of(), sequence) as slide:
        assert slide.n_fields == 6
        np.testing.assert_allclose(slide.orientation, matrix)
        assert_mosaic_is_the_specimen(slide)
        columns, rows = slide.fields["column"], slide.fields["row"]
        assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(r, c) for r in range(2) for c in range(3)]
        step_um = 0.75 * SENSOR[1]
        np.testing.assert_allclose(slide.positions()[:, 0], (columns - 1) * step_um, atol=0.02)


@pytest.mark.parametrize("matrix", [[[1, 0], [0, 1]], [[-1, 0], [0, 1]]], ids=["as it is", "mirrored"])
def test_the_viewer_shows_the_specimen(matrix: list, microscope: Microscope, handler_of: Callable):
    microscope.turn_camera(matrix)
    sequence = useq.MDASequence(channels=channels("DAPI"), grid_plan=grid(3, 3))
    with taken(microscope, handler_of(), sequence) as slide, OffscreenViewer(slide, size=(80, 48)) as viewer:
        viewer.look_at(0, 0, scale=1.0)
        viewer.channels[0].limits, viewer.channels[0].color = (0, 65535), "#ffffff"
        image = viewer.render()
    x_um, y_um = pixel_places((48, 80), (0, 0), np.eye(2))
    expected = np.round(255 * (seen("DAPI", x_um, y_um) / 65535)).astype(np.uint8)
    np.testing.assert_allclose(image[..., 0].astype(int), expected, atol=1)  # of 255: the driver rounds as it likes


def test_a_camera_that_says_how_it_is_mounted_needs_no_calibration(microscope: Microscope, handler_of: Callable):
    microscope.camera.matrix = np.array([[-1.0, 0.0], [0.0, 1.0]])
    sequence = useq.MDASequence(channels=channels("DAPI"), grid_plan=grid(2, 2))
    with taken(microscope, handler_of(orientation="flip-x"), sequence) as slide:
        assert_mosaic_is_the_specimen(slide)


def test_a_region_of_interest_lies_where_it_looks(microscope: Microscope, handler_of: Callable):
    microscope.turn_camera([[0, -1], [1, 0]])
    microscope.camera.set_roi(6, 4, 30, 16)
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0), (30, 15)])
    with taken(microscope, handler_of(sensor_shape=SENSOR), sequence) as slide:
        assert slide.field_shape == (16, 30)
        assert_mosaic_is_the_specimen(slide)


def test_binned_pixels_of_a_camera_that_was_never_calibrated_are_not_scaled_twice(microscope: Microscope, handler_of: Callable):
    microscope.core.setPixelSizeUm("Res10x", 0.5)
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0)])
    with taken(microscope, handler_of(), sequence) as slide:
        assert slide.header.pixel_size_um == 0.5
        np.testing.assert_array_equal(slide.orientation, np.eye(2))


def test_a_pixel_size_that_nobody_knows_is_asked_for(microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]):
    microscope.core.setPixelSizeUm("Res10x", 0.0)
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0)])
    with pytest.raises(AcquisitionError, match="pixel_size_um="), handler_of():
        microscope.core.mda.run(sequence)
    assert len(microscope.frames) == 1
    assert not scanners
    with taken(microscope, handler_of(pixel_size_um=0.25), sequence) as slide:
        assert slide.header.pixel_size_um == 0.25


# which plane a frame is


def test_channels_z_and_t_are_those_of_the_sequence(microscope: Microscope, handler_of: Callable):
    sequence = useq.MDASequence(
        axis_order="tpgcz",
        channels=[
            useq.Channel(config="DAPI", exposure=1),
            useq.Channel(config="FITC", exposure=2, do_stack=False),
            useq.Channel(config="Cy5", exposure=1, acquire_every=2),
        ],
        stage_positions=[(0, 0), (30, 0)],
        z_plan=useq.ZRangeAround(range=2, step=1),
        time_plan=useq.TIntervalLoops(interval=0, loops=3),
    )
    with taken(microscope, handler_of(), sequence) as slide:
        assert [(channel.name, channel.exposure_ms) for channel in slide.channels] == [("DAPI", 1), ("FITC", 2), ("Cy5", 1)]
        assert (slide.size_z, slide.size_t, slide.n_fields) == (3, 3, 2)
        addresses = [(e.index["p"], e.index["c"], e.index["z"], e.index["t"]) for _, e, _ in microscope.frames]
        assert_planes_are_the_frames(slide, addresses, microscope)


def test_a_stage_position_with_a_grid_is_a_scene(microscope: Microscope, handler_of: Callable):
    inner = useq.MDASequence(channels=channels("FITC"), grid_plan=grid(1, 2))
    sequence = useq.MDASequence(
        channels=channels("DAPI"),
        stage_positions=[useq.Position(x=-60, y=0, name="left"), useq.Position(x=60, y=0, name="right", sequence=inner)],
        grid_plan=grid(2, 2),
    )
    with taken(microscope, handler_of(), sequence) as slide:
        assert slide.scenes == ("left", "right")
        assert slide.fields["scene"].tolist() == [0, 0, 0, 0, 1, 1]
        assert slide.acquired().tolist() == [[True, False]] * 4 + [[False, True]] * 2
        assert_mosaic_is_the_specimen(slide)


def test_a_well_is_a_scene(microscope: Microscope, handler_of: Callable):
    plate = useq.WellPlatePlan(
        plate=useq.WellPlate(rows=2, columns=2, well_spacing=0.09, well_size=0.08),
        a1_center_xy=(-45, 45),
        selected_wells=([0, 1], [0, 1]),
        well_points_plan=grid(1, 2, fov_width=SENSOR[1], fov_height=SENSOR[0]),
    )
    with taken(microscope, handler_of(), useq.MDASequence(channels=channels("DAPI"), stage_positions=plate)) as slide:
        assert slide.scenes == ("A1", "B2")
        assert slide.fields["scene"].tolist() == [0, 0, 1, 1]
        assert_mosaic_is_the_specimen(slide)


def test_random_places_are_fields_where_they_came_to_lie(microscope: Microscope, handler_of: Callable):
    sequence = useq.MDASequence(
        channels=channels(), grid_plan=useq.RandomPoints(num_points=4, max_width=200, max_height=200), axis_order="tpgzc"
    )
    with taken(microscope, handler_of(), sequence) as slide:
        assert slide.n_fields == 4
        assert slide.acquired().all()
        went = {(meta["position"]["x"], meta["position"]["y"]) for _, _, meta in microscope.frames}
        assert {tuple(place) for place in slide.positions().tolist()} == went
        assert_mosaic_is_the_specimen(slide)


def test_events_that_come_one_by_one_are_fields_by_position(microscope: Microscope, handler_of: Callable):
    places = [(0.0, 0.0), (30.0, 0.0), (0.0, 15.0)]
    events = [
        useq.MDAEvent(x_pos=x, y_pos=y, channel=name, exposure=1, index={"t": t})
        for t in range(2)
        for x, y in places
        for name in COLOURS
    ]
    with handler_of(channels=COLOURS, size_t=2) as handler:
        microscope.core.mda.run(iter(events))
    with open_slide(handler.location) as slide:
        assert slide.n_fields == 3
        addresses = [
            (places.index((event.x_pos, event.y_pos)), COLOURS.index(event.channel.config), 0, event.index["t"])
            for _, event, _ in microscope.frames
        ]
        assert_planes_are_the_frames(slide, addresses, microscope)


def test_an_event_that_nobody_announced_is_told_and_the_others_are_kept(microscope: Microscope, handler_of: Callable):
    events = [useq.MDAEvent(x_pos=30 * n, y_pos=0, channel=name) for n, name in enumerate(("DAPI", "Cy5", "DAPI"))]
    handler = handler_of(channels=["DAPI"])
    with pytest.raises(SlideError, match=r"Cy5.*channels="), handler:
        microscope.core.mda.run(iter(events))
    assert (handler.taken, handler.missed) == (2, 1)
    with open_slide(handler.location) as slide:
        assert slide.n_fields == 2


def test_frames_that_were_not_taken_are_holes(microscope: Microscope, handler_of: Callable):
    microscope.core.setAutoFocusDevice("Autofocus")
    sequence = useq.MDASequence(
        channels=channels("DAPI"),
        stage_positions=[(0, 0), (30, 0), (60, 0)],
        autofocus_plan=useq.AxesBasedAF(autofocus_motor_offset=1, axes=("p",)),
    )
    microscope.camera.on_snap = Failing(at=2)
    with taken(microscope, handler_of(), sequence) as slide:
        assert slide.n_fields == 3
        assert slide.acquired()[:, 0].tolist() == [True, False, True]
        assert_mosaic_is_the_specimen(slide)


class Failing:
    """A camera's shutter that sticks once, and once only."""

    def __init__(self, at: int):
        self._at, self._n = at, 0

    def __call__(self) -> None:
        self._n += 1
        if self._n == self._at:
            raise RuntimeError("the shutter sticks")


def test_each_camera_has_its_channels(tmp_path: Path, two_cameras: CMMCorePlus):
    frames: list[tuple] = []
    two_cameras.setCameraDevice("Both")
    two_cameras.mda.events.frameReady.connect(lambda *frame: frames.append(frame))
    sequence = useq.MDASequence(channels=channels(), stage_positions=[(0, 0), (30, 0)])
    with SlideHandler(core=two_cameras, scanner=lambda: LocalScanner(tmp_path)) as handler:
        two_cameras.mda.run(sequence)
    with open_slide(handler.location) as slide:
        names = [f"{colour} {camera}" for colour in COLOURS for camera in ("Camera", "Second")]
        assert [channel.name for channel in slide.channels] == names
        assert len(frames) == 8
        for image, event, _ in frames:
            channel = 2 * event.index["c"] + event.index["cam"]
            np.testing.assert_array_equal(slide.read_plane(event.index["p"], channel), image)


@pytest.fixture(scope="module")
def two_cameras() -> CMMCorePlus:
    """Demo cameras that take each frame together."""
    core = CMMCorePlus()
    core.loadSystemConfiguration()
    core.loadDevice("Second", "DemoCamera", "DCam")
    core.loadDevice("Both", "Utilities", "Multi Camera")
    core.initializeDevice("Second")
    core.initializeDevice("Both")
    core.setProperty("Second", "PixelType", "16bit")
    core.setProperty("Both", "Physical Camera 1", "Camera")
    core.setProperty("Both", "Physical Camera 2", "Second")
    core.setCameraDevice("Both")
    return core


def test_frames_that_the_hardware_triggers_are_told_apart(tmp_path: Path, two_cameras: CMMCorePlus):
    """The core takes a stack at once, and the frames do not say where the stage was: where it was sent counts."""
    core = two_cameras
    core.setCameraDevice("Camera")
    core.setProperty("Z", "UseSequences", "Yes")
    core.setROI(0, 0, 64, 48)
    frames: list[tuple] = []

    def keep(*frame: object) -> None:
        frames.append(frame)

    core.mda.events.frameReady.connect(keep)
    try:
        z_plan = useq.ZRangeAround(range=4, step=1)
        sequence = useq.MDASequence(channels=channels(), stage_positions=[(0, 0), (30, 15)], z_plan=z_plan)
        with SlideHandler(core=core, scanner=lambda: LocalScanner(tmp_path)) as handler:
            core.mda.run(sequence)
    finally:
        core.mda.events.frameReady.disconnect(keep)
        core.setProperty("Z", "UseSequences", "No")
        core.clearROI()
    assert any(meta.get("hardware_triggered") for _, _, meta in frames)
    assert len(frames) == 2 * 2 * 5
    with open_slide(handler.location) as slide:
        assert slide.positions().tolist() == [[0, 0], [30, 15]]
        for image, event, _ in frames:
            np.testing.assert_array_equal(slide.read_plane(event.index["p"], event.index["c"], event.index["z"]), image)


def test_counts_of_an_8_bit_camera_stay_what_they_are(microscope: Microscope, handler_of: Callable):
    microscope.camera.kind = np.uint8
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0)])
    with taken(microscope, handler_of(), sequence) as slide:
        assert slide.header.bits == 8
        frame = microscope.frames[0][0]
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(slide.read_plane(0, 0), frame)


# what is kept with them


def test_a_plane_keeps_when_and_where_it_was_taken(microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]):
    sequence = useq.MDASequence(
        metadata={"user": "somebody"}, channels=channels("DAPI"), stage_positions=[useq.Position(x=30, y=15, z=3, name="here")]
    )
    with taken(microscope, handler_of(), sequence) as slide:
        extra, header = slide.header.extra, slide.header
    assert header.objective == "Nikon 10X S Fluor"
    assert header.acquired_at
    assert extra["sequence"]["metadata"] == {"user": "somebody"}
    assert {device["label"] for device in extra["summary"]["devices"]} >= {"XY", "Z", "Specimen camera"}
    kept = scanners[-1].planes[0]["metadata"]
    meta = microscope.frames[0][2]
    assert kept["stage_um"] == {axis: meta["position"][axis] for axis in "xyz"}
    assert kept["commanded_um"] == {"x": 30, "y": 15, "z": 3}
    assert kept["position_name"] == "here"
    assert kept["exposure_ms"] == 1.0
    assert kept["camera"] == "Specimen camera"
    assert kept["properties"]["Dichroic-Label"] == "400DCLP"
    assert kept["elapsed_ms"] == meta["runner_time_ms"]
    assert kept["time"] > header.acquired_at[:19]


# runs that do not go as planned


def test_a_cancelled_run_is_a_slide_of_what_was_taken(microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]):
    def stop_after_two() -> None:
        if len(microscope.frames) == 2:
            microscope.core.mda.cancel()

    microscope.camera.on_snap = stop_after_two
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(30 * n, 0) for n in range(5)])
    with taken(microscope, handler_of(), sequence) as slide:
        assert scanners[-1].ended == "ended early"
        assert slide.acquired()[:, 0].tolist() == [n < len(microscope.frames) for n in range(5)]


def test_a_run_that_breaks_off_is_a_slide_of_what_was_taken(
    microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]
):
    def events() -> Iterator[useq.MDAEvent]:
        yield useq.MDAEvent(x_pos=0, y_pos=0)
        raise RuntimeError("the program that thinks of events fails")

    handler = handler_of()
    with handler, pytest.raises(RuntimeError, match="thinks of events"):
        microscope.core.mda.run(events())
    assert scanners[-1].ended == "ended early"
    with open_slide(handler.location) as slide:
        assert slide.n_fields == 1


@pytest.mark.parametrize("given_to_the_run", [False, True], ids=["attached", "given to the run"])
def test_a_run_that_breaks_off_before_its_first_frame_leaves_no_slide_and_its_name(
    given_to_the_run: bool, microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]
):
    mistyped = useq.MDASequence(channels=channels("DAPY"), stage_positions=[(0, 0)])
    handler = handler_of(name="a run")
    with nullcontext() if given_to_the_run else handler, pytest.raises(ValueError, match="DAPY"):
        microscope.core.mda.run(mistyped, output=handler if given_to_the_run else None)
    assert scanners[-1].ended == "discarded"
    with pytest.raises(AcquisitionError, match="no slide: the run was broken off by an error, before the first frame"):
        handler.result()
    with handler:
        microscope.core.mda.run(useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0)]))
    assert scanners[-1].facts["name"] == "a run"
    assert scanners[-1].ended == "finished"


def test_a_run_whose_scan_somebody_ended_goes_on_without_it_and_says_so(microscope: Microscope, server: Manager):
    def end_it() -> None:
        if len(microscope.frames) == 4:
            with Server(server.address) as asked:
                until(lambda: asked.find("a run")["planes"] == 4, PATIENCE_S)  # they are safe
                asked.abort("a run")

    microscope.camera.on_snap = end_it
    handler = SlideHandler(server.address, name="a run", core=microscope.core)
    with pytest.raises(EndedError, match="ended on the server"), handler:
        microscope.core.mda.run(whole_sequence())
    assert handler.taken + handler.missed == len(microscope.frames) == 32
    with Server(server.address) as asked:
        until(lambda: asked.find("a run")["state"] == "complete", PATIENCE_S)
        location = asked.find("a run")["location"]
    with open_slide(location) as slide:
        planes = addresses(microscope)[:4]
        for address, (image, _, _) in zip(planes, microscope.frames, strict=False):
            np.testing.assert_array_equal(slide.read_plane(*address), image)
        assert sum(int(slide.acquired(z, t).sum()) for z in range(slide.size_z) for t in range(slide.size_t)) == 4


def test_a_run_goes_on_without_the_server(microscope: Microscope, caplog: pytest.LogCaptureFixture):
    def unreachable() -> LocalScanner:
        raise UnreachableError("nobody answers", location="tcp://nowhere:5556")

    handler = SlideHandler(core=microscope.core, scanner=unreachable)
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0), (30, 0)])
    with caplog.at_level(logging.ERROR, "rawmosaic"):
        with pytest.raises(UnreachableError, match="nobody answers"), handler:
            microscope.core.mda.run(sequence)
    assert len(microscope.frames) == handler.missed == 2
    assert [record.getMessage().count("nobody answers") for record in caplog.records if record.name.startswith("rawmosaic")] == [
        1
    ]


def test_a_run_can_be_cancelled_when_the_server_is_lost(
    microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]
):
    handler = handler_of(on_error="cancel")

    def lose_the_server() -> None:
        if len(microscope.frames) == 1:
            scanners[-1].refuse = lambda _: UnreachableError("the server went away")

    microscope.camera.on_snap = lose_the_server
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(30 * n, 0) for n in range(5)])
    with pytest.raises(UnreachableError, match="went away"), handler:
        microscope.core.mda.run(sequence)
    assert len(microscope.frames) == 2
    assert (handler.taken, handler.missed) == (1, 1)


def test_a_frame_that_the_server_refuses_costs_no_other(
    microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]
):
    handler = handler_of()

    def refuse_field_1(plane: dict) -> SlideError | None:
        return AcquisitionError("this one is not wanted") if plane["field"] == 1 else None

    def refuse() -> None:
        scanners[-1].refuse = refuse_field_1

    microscope.camera.on_snap = refuse
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(30 * n, 0) for n in range(4)])
    with pytest.raises(AcquisitionError, match="not wanted"), handler:
        microscope.core.mda.run(sequence)
    assert len(microscope.frames) == 4
    assert (handler.taken, handler.missed) == (3, 1)
    assert scanners[-1].ended == "finished"
    with open_slide(handler.location) as slide:
        assert slide.acquired()[:, 0].tolist() == [True, False, True, True]


def test_an_error_of_ours_never_reaches_the_run(microscope: Microscope, handler_of: Callable, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(micromanager.metadata, "plane_metadata", broken)
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0), (30, 0)])
    with pytest.raises(KeyError, match="a bug"), handler_of():
        microscope.core.mda.run(sequence)
    assert len(microscope.frames) == 2


def test_each_run_is_a_slide_of_its_own(microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]):
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0)])
    with handler_of(name="specimen"):
        microscope.core.mda.run(sequence)
        microscope.core.mda.run(sequence)
    first, second = (scanner.facts["name"] for scanner in scanners)
    assert first == "specimen"
    assert second.startswith("specimen ")
    assert [scanner.ended for scanner in scanners] == ["finished", "finished"]


@pytest.mark.parametrize("name", ["a/b", "", "x" * 110])
def test_a_name_that_may_not_do_for_every_run_is_refused_at_once(name: str):
    with pytest.raises(AcquisitionError, match="cannot name a scan"):
        SlideHandler(name=name)


def test_options_that_mean_nothing_are_refused_at_once():
    with pytest.raises(OutOfRangeError, match="flip-x"):
        SlideHandler(orientation="upside down")
    with pytest.raises(OutOfRangeError, match="cancel"):
        SlideHandler(on_error="give up")


# a handler that is given to one run


def test_a_handler_can_be_the_output_of_a_run(microscope: Microscope, handler_of: Callable):
    handler = handler_of()
    sequence = useq.MDASequence(channels=channels(), grid_plan=grid(2, 2))
    microscope.core.mda.run(sequence, output=handler)
    with open_slide(handler.location) as slide:
        assert slide.acquired().all()
        assert_mosaic_is_the_specimen(slide)


def test_an_attached_handler_that_is_the_output_as_well_takes_each_frame_once(microscope: Microscope, handler_of: Callable):
    handler = handler_of()
    with handler:
        microscope.core.mda.run(useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0), (30, 0)]), output=handler)
    assert handler.taken == 2


def test_an_attached_handler_works_in_the_thread_of_the_run(
    microscope: Microscope, handler_of: Callable, scanners: list[LocalScanner]
):
    with handler_of():
        microscope.core.mda.run(useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0)]))
    assert scanners[-1].thread is threading.current_thread()


def test_a_run_does_not_get_far_ahead_of_a_slow_server(microscope: Microscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The frames in pymmcore-plus's queue are bounded: the run waits."""
    most, n_frames = 3, 12
    monkeypatch.setattr(micromanager, "WAITING_NBYTES", most * 2 * SENSOR[0] * SENSOR[1])
    scanner = LocalScanner(tmp_path)
    handler = SlideHandler(core=microscope.core, scanner=lambda: scanner, name="slow")
    came: list[int] = []

    def wait_until_the_run_waits() -> None:
        ends = time.monotonic() + PATIENCE_S
        while not handler._brake.holds and len(microscope.frames) < n_frames and time.monotonic() < ends:
            time.sleep(0.005)
        came.append(len(microscope.frames))

    scanner.before_send = wait_until_the_run_waits
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(9 * n, 0) for n in range(n_frames)])
    microscope.core.mda.run(sequence, output=handler)
    assert handler.error is None
    assert handler.taken == n_frames
    assert came[0] <= most + 2  # one is taken in, and one was handed out while the run waits


# the acquisition server itself


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path, "tcp://127.0.0.1:*") as server:
        yield server


def whole_sequence() -> useq.MDASequence:
    """Everything at once: two positions with grids, two colours, z and t."""
    return useq.MDASequence(
        axis_order="tpgcz",
        channels=channels(),
        stage_positions=[useq.Position(x=-60, y=0, z=1, name="left"), useq.Position(x=60, y=0, z=1, name="right")],
        grid_plan=grid(1, 2),
        z_plan=useq.ZRangeAround(range=1, step=1),
        time_plan=useq.TIntervalLoops(interval=0, loops=2),
    )


def addresses(microscope: Microscope) -> list[tuple[int, int, int, int]]:
    """(field, channel, z, t) of the frames of `whole_sequence`, from what its events say."""
    indices = [event.index for _, event, _ in microscope.frames]
    return [(2 * index["p"] + index["g"], index["c"], index["z"], index["t"]) for index in indices]


@pytest.mark.parametrize("given_to_the_run", [False, True], ids=["attached", "given to the run"])
def test_the_slide_on_the_server_equals_plane_for_plane_what_the_core_handed_out(
    given_to_the_run: bool, microscope: Microscope, server: Manager
):
    microscope.turn_camera([[0, -1], [1, 0]])
    handler = SlideHandler(server.address, name="section 12", core=microscope.core)
    if given_to_the_run:
        microscope.core.mda.run(whole_sequence(), output=handler)
    else:
        with handler:
            microscope.core.mda.run(whole_sequence())
    location = handler.result(PATIENCE_S)
    with open_slide(location) as slide:
        assert Path(location).name == "section 12.h5"
        assert slide.header.name == "section 12"
        assert slide.scenes == ("left", "right")
        assert_planes_are_the_frames(slide, addresses(microscope), microscope)
        assert_mosaic_is_the_specimen(slide)
        for address, (_, event, meta) in zip(addresses(microscope), microscope.frames, strict=True):
            kept = slide.plane_metadata(*address)
            assert kept["index"] == {str(axis.value): number for axis, number in event.index.items()}
            assert kept["stage_um"]["z"] == meta["position"]["z"]
    assert verify_slide(location) == []


def test_a_killed_process_of_the_server_costs_no_frame(microscope: Microscope, server: Manager, tmp_path: Path):
    def kill_the_proxy() -> None:
        if len(microscope.frames) == 5:
            said = json.loads((tmp_path / "a run.scan" / "proxy.json").read_text())
            os.kill(said["pid"], signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

    microscope.camera.on_snap = kill_the_proxy
    with SlideHandler(server.address, name="a run", core=microscope.core) as handler:
        microscope.core.mda.run(whole_sequence())
    with open_slide(handler.result(PATIENCE_S)) as slide:
        assert_planes_are_the_frames(slide, addresses(microscope), microscope)


def test_a_cancelled_run_is_marked_on_the_server(microscope: Microscope, server: Manager):
    def stop_after_three() -> None:
        if len(microscope.frames) == 3:
            microscope.core.mda.cancel()

    microscope.camera.on_snap = stop_after_three
    with SlideHandler(server.address, name="a run", core=microscope.core) as handler:
        microscope.core.mda.run(whole_sequence())
    with open_slide(handler.result(PATIENCE_S)) as slide:
        assert slide.header.extra["ended_early"] == "the run was cancelled"
        assert_planes_are_the_frames(slide, addresses(microscope), microscope)


def test_a_name_that_the_server_has_already_loses_no_run(microscope: Microscope, server: Manager):
    sequence = useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0)])
    locations = []
    for _ in range(2):
        with SlideHandler(server.address, name="the same", core=microscope.core) as handler:
            microscope.core.mda.run(sequence)
        locations.append(handler.result(PATIENCE_S))
    first, second = (Path(location).name for location in locations)
    assert first == "the same.h5"
    assert second.startswith("the same ")


def test_a_run_goes_on_where_no_server_is(microscope: Microscope):
    handler = SlideHandler("tcp://127.0.0.1:9", name="a run", core=microscope.core, timeout_s=0.3)
    with pytest.raises(UnreachableError), handler:
        microscope.core.mda.run(useq.MDASequence(channels=channels("DAPI"), stage_positions=[(0, 0), (30, 0)]))
    assert len(microscope.frames) == handler.missed == 2


# the page


def scripts_of_the_page(server: Manager) -> list[str]:
    page = (Path(__file__).parents[3] / "docs" / "micromanager.md").read_text(encoding="utf-8")
    scripts = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return [script.replace("tcp://127.0.0.1:5556", server.address).replace("MyMicroscope", "MMConfig_demo") for script in scripts]


def said_by(script: str) -> str:
    """What a program says that is typed from the page."""
    outcome = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()


def test_the_script_of_the_page_makes_a_slide(server: Manager, tmp_path: Path):
    script, _ = scripts_of_the_page(server)
    assert said_by(script) == str(tmp_path / "section 12.h5")
    with open_slide(tmp_path / "section 12.h5") as slide:
        assert slide.n_fields == 12
        assert [channel.exposure_ms for channel in slide.channels] == [20, 50]
        assert slide.acquired().all()


def test_what_the_page_says_in_a_console_takes_every_run(server: Manager, tmp_path: Path):
    _, typed = scripts_of_the_page(server)
    program = f"""
from pymmcore_plus import CMMCorePlus
core = CMMCorePlus.instance()
core.loadSystemConfiguration()
{typed}
import useq
for _ in range(2):
    core.mda.run(useq.MDASequence(channels=["DAPI"]))
    print(handler.result())
"""
    first, second = (Path(location) for location in said_by(program).splitlines())
    assert first == tmp_path / "today.h5"
    assert second.name.startswith("today ")
    assert second.is_file()
