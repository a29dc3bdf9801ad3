"""pymmcore-plus acquisitions as scans: every frame that the core hands out becomes a plane of a slide, while the run goes on.

    handler = SlideHandler("tcp://127.0.0.1:5556", name="section 12", core=core)
    with handler:
        core.mda.run(sequence)
    print(handler.result())

Inside the with-statement, or between `attach()` and `detach()`, each run of the core becomes a slide of its own, whoever
starts it. A handler may also be given to one run: ``core.mda.run(sequence, output=handler)``. Where the server is slower than
the camera, the run waits for it between two frames. Trouble with the server never disturbs a run: it is logged once, kept as
`error`, and raised by `result()` and at the end of the with-statement; ``on_error="cancel"`` has the run cancelled as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal

import numpy as np

from rawmosaic.net.acquisition import micromanager_metadata as metadata
from rawmosaic.net.acquisition.asking import MANAGER, Server
from rawmosaic.net.acquisition.mda_signals import Brake, connect
from rawmosaic.net.acquisition.micromanager_geometry import CameraView
from rawmosaic.net.acquisition.plan import check_name
from rawmosaic.net.acquisition.scanner import Scanner
from rawmosaic.net.acquisition.useq_plan import SequencePlan, place_of, plan_sequence
from rawmosaic.net.protocol import EndedError, ExistsError
from rawmosaic.storage.errors import (
    AccessError,
    AcquisitionError,
    OutOfRangeError,
    ProtocolError,
    SlideError,
    UnreachableError,
    WriteError,
)
from rawmosaic.storage.placement import ORIENTATIONS
from rawmosaic.storage.slide import Channel, Header

WAITING_NBYTES = 256 << 20
"""Frames that pymmcore-plus may queue for a handler that is given to a run; then the run waits."""

TIMEOUT_S = 60.0
"""How long a run is held up by a server that is not there; a restart takes less."""

LOOK_S = 0.2
"""A wait is made of such pieces, so that it sees what else happens."""

FATAL = (UnreachableError, AccessError, ProtocolError, WriteError, EndedError)
"""What makes every further frame futile; of anything else, only the frame is lost that it is about."""

log = logging.getLogger("rawmosaic.net.acquisition")


class SlideHandler:
    """Sends the frames of pymmcore-plus runs to an acquisition server; one slide a run.

    Parameters
    ----------
    address, keys
        Of the server, ``tcp://host:port``, and the folder of the keys; as `Scanner` takes them.
    name
        Of the slide; a second run of the handler, and a name that the server has already, get the time added. None: the time.
    core
        The `CMMCorePlus`; None: the global instance.
    pixel_size_um
        Instead of the core's.
    orientation, camera_angle_deg
        One of `placement.ORIENTATIONS` instead of what the core knows, and a clockwise turn of the images.
    sensor_shape
        (height, width) of the camera's whole chip in pixels, binning included: with it, the images of a region of interest lie
        where that region looks; without it, as if it were in the middle of the chip.
    channels, size_z, size_t
        For runs of single events, which do not announce what they take: names or `Channel` values, and how many steps of z and t
        there may be. For sequences, `channels` gives more facts of channels of those names.
    timeout_s
        How long the run waits for a server that does not answer, before it goes on without.
    on_error
        ``"continue"``: the run goes on without the server; ``"cancel"``: it is cancelled.
    scanner
        Makes the scanner of a run, instead of ``Scanner(address, keys, timeout_s=timeout_s)``.

    Attributes
    ----------
    error
        The first thing that went wrong with the latest run, or None.
    taken, missed
        Frames of the latest run that were handed to the server, and that could not be.
    location
        Where on the server the slide of the latest run lies, or will.
    """

    def __init__(
        self,
        address: str = MANAGER,
        *,
        name: str | None = None,
        core: Any = None,
        keys: str | None = None,
        pixel_size_um: float | None = None,
        orientation: str | None = None,
        camera_angle_deg: float = 0.0,
        sensor_shape: tuple[int, int] | None = None,
        channels: Sequence[str | Channel] | None = None,
        size_z: int | None = None,
        size_t: int | None = None,
        timeout_s: float = TIMEOUT_S,
        on_error: Literal["continue", "cancel"] = "continue",
        scanner: Callable[[], Scanner] | None = None,
    ):
        if on_error not in ("continue", "cancel"):
            raise OutOfRangeError("on_error", on_error, "choose continue or cancel")
        if orientation is not None and orientation not in ORIENTATIONS:
            raise OutOfRangeError("orientation", orientation, "choose one of " + ", ".join(ORIENTATIONS))
        if name is not None:
            check_name(f"{check_name(name)} 2000-01-01 00.00.00 1000")  # with all that may be added to it
        self.address, self.name, self.on_error = address, name, on_error
        self.error: Exception | None = None
        self.taken = self.missed = 0
        self.location = ""
        self._core, self._keys = core, keys
        self._pixel_size_um, self._sensor_shape = pixel_size_um, sensor_shape
        self._orientation, self._camera_angle_deg = orientation, camera_angle_deg
        self._announced = {"channels": channels, "size_z": size_z, "size_t": size_t}
        self._open_scanner = scanner or (lambda: Scanner(address, keys, timeout_s=timeout_s))
        self._run: _Run | None = None
        self._slide_name, self._uid = "", ""
        self._nothing_because = ""
        self._runs = 0
        self._one_at_a_time = threading.RLock()
        self._connections: list[Callable[[], None]] = []
        self._brake: Brake | None = None

    @property
    def core(self) -> Any:
        """The core whose runs are taken."""
        if self._core is None:
            from pymmcore_plus import CMMCorePlus

            self._core = CMMCorePlus.instance()
        return self._core

    # which runs

    def attach(self) -> SlideHandler:
        """Make a slide of each run from now on, until `detach`; returns the handler. Twice is harmless."""
        if not self._connections:
            signals = self.core.mda.events
            self._connections = [
                connect(signals.sequenceStarted, lambda sequence, summary: self._began(sequence, summary)),
                connect(signals.frameReady, lambda image, event, meta: self._came(image, event, meta)),
                connect(signals.sequenceCanceled, lambda _: self._was_cancelled()),
                connect(signals.sequenceFinished, lambda _: self._ended()),
            ]
        return self

    def detach(self) -> None:
        """Take no more runs; one that is under way is ended early on the server. Twice is harmless."""
        connections, self._connections = self._connections, []
        for disconnect in connections:
            disconnect()
        self._was_cancelled()
        self._ended()

    def __enter__(self) -> SlideHandler:
        return self.attach()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()
        if error is None and self.error is not None:
            raise self.error

    def result(self, timeout_s: float | None = None) -> str:
        """Wait until the slide of the latest run is complete on the server; returns where it lies there.

        Raises what went wrong with the run, AcquisitionError where none has ended, UnreachableError after `timeout_s`.
        """
        if self.error is not None:
            raise self.error
        if self._nothing_because:
            raise AcquisitionError(f"there is no slide: {self._nothing_because}, before the first frame")
        if self._run is not None or not self._uid:
            raise AcquisitionError("no run has ended yet whose slide one could wait for")
        with Server(self.address, self._keys) as server:
            return _completed(server, self._slide_name, timeout_s)

    # slots of a handler that is given to a run: pymmcore-plus knows them by name, and calls them behind an endless queue

    def sequenceStarted(self, sequence: Any, summary: Mapping) -> None:
        """A run begins."""
        if not self._connections:
            self._brake = Brake(self.core.mda.events.frameReady, WAITING_NBYTES // max(1, _frame_nbytes(summary)))
            self._began(sequence, summary)

    def frameReady(self, image: np.ndarray, event: Any, meta: Mapping) -> None:
        """A frame was taken."""
        if not self._connections:
            try:
                self._came(image, event, meta)
            finally:
                if self._brake is not None:
                    self._brake.one_less()

    def sequenceCanceled(self, _: Any) -> None:
        """The run was cancelled."""
        if not self._connections:
            self._was_cancelled()

    def sequenceFinished(self, _: Any) -> None:
        """The run is over."""
        if not self._connections:
            if self._brake is not None:
                self._brake.close()
                self._brake = None
            self._ended()

    # what happens then; whatever goes wrong here stays here

    def _began(self, sequence: Any, summary: Mapping) -> None:
        with self._one_at_a_time:
            self._was_cancelled()
            self._ended()  # a run that never said its end
            self.error, self.taken, self.missed, self.location, self._uid = None, 0, 0, "", ""
            self._nothing_because = ""
            try:
                self._begin(sequence, summary)
            except Exception as error:
                self._fail(error, "the run is not taken to the server")

    def _begin(self, sequence: Any, summary: Mapping) -> None:
        """Start a scan for a run. Raises SlideError."""
        view = CameraView.of(summary, self._pixel_size_um, self._orientation, self._camera_angle_deg, self._sensor_shape)
        plan = plan_sequence(
            sequence,
            field_shape=view.field_shape,
            stage_um=view.stage_um,
            cameras=_camera_names(self.core, view.n_cameras),
            unnamed=_what_is_set(self.core) or str(view.image.get("camera_label") or "camera"),
            **self._announced,
        )
        if plan.fields is not None:
            plan.fields["x_um"] += view.shift_um[0]
            plan.fields["y_um"] += view.shift_um[1]
        began = metadata.time_of(summary.get("datetime")) or datetime.now().astimezone()
        scanner = self._open_scanner()
        try:
            self._slide_name = self._started(scanner, sequence, summary, view, plan, began)
        except BaseException:
            scanner.close()
            raise
        self._uid, self.location = scanner.uid, scanner.location
        self._run = _Run(scanner, plan, view, began)

    def _started(
        self, scanner: Scanner, sequence: Any, summary: Mapping, view: CameraView, plan: SequencePlan, began: datetime
    ) -> str:
        """Start the scan under a name that the server has not; returns the name."""
        self._runs += 1
        moment = f"{datetime.now():%Y-%m-%d %H.%M.%S}"
        names = [f"{self.name} {moment}", f"{self.name} {moment} {self._runs}"] if self.name else [f"scan {moment}"]
        if self.name and self._runs == 1:
            names.insert(0, self.name)
        trouble: ExistsError | None = None
        for name in names:
            header = Header(
                name=name,
                acquired_at=began.isoformat(timespec="seconds"),
                pixel_size_um=view.pixel_size_um,
                objective=metadata.objective(summary),
                bits=view.bits,
                extra=metadata.run_metadata(sequence, summary),
            )
            try:
                scanner.start(
                    name,
                    field_shape=view.field_shape,
                    channels=plan.channels,
                    header=header,
                    fields=plan.fields,
                    size_z=plan.size_z,
                    size_t=plan.size_t,
                    scenes=plan.scenes,
                    orientation=view.orientation,
                )
            except ExistsError as error:
                trouble = trouble or error
            else:
                return name
        raise trouble

    def _came(self, image: np.ndarray, event: Any, meta: Mapping) -> None:
        with self._one_at_a_time:
            if self._run is None:
                self.missed += 1
                return
            try:
                self._send(self._run, image, event, meta)
            except Exception as error:
                self.missed += 1
                self._fail(error, "frames of the run are missing on the server")
                if isinstance(error, FATAL):
                    self._leave(self._run.scanner.close)

    def _send(self, run: _Run, image: np.ndarray, event: Any, meta: Mapping) -> None:
        address = run.plan.address(event)
        x_um, y_um, z_um = run.where(event, meta)
        facts = {"x_um": x_um, "y_um": y_um, "z_um": z_um, "z": address.z, "t": address.t}
        facts["metadata"] = metadata.plane_metadata(event, meta, run.began)
        if address.field is None:
            facts["scene"] = address.scene
        else:
            facts["field"] = address.field
        pixels = _grey(image)
        try:
            run.scanner.send(pixels, address.channel, **facts)
        except FATAL:
            raise
        except SlideError as error:  # it may be about a frame before this one, which goes out all the same
            self._fail(error, "frames of the run are missing on the server")
            run.scanner.send(pixels, address.channel, **facts)
        self.taken += 1

    def _was_cancelled(self) -> None:
        with self._one_at_a_time:
            if self._run is not None:
                self._run.cancelled = True

    def _ended(self) -> None:
        with self._one_at_a_time:
            run = self._run
            if run is None:
                return
            early = "the run was cancelled" if run.cancelled else _broken_off(self.core)
            self._leave(lambda: self._finish(run.scanner, early))

    def _finish(self, scanner: Scanner, early: str) -> None:
        """End the scan when all frames are acknowledged, but for those that were refused. `early`: why, if it was broken off.

        A run that was broken off before its first frame leaves no slide, and its name to the next.
        """
        try:
            scanner.flush()
        except FATAL:
            raise
        except SlideError as error:
            self._fail(error, "frames of the run are missing on the server")
        if early and not (self.taken or self.missed):
            scanner.abort(discard=True)
            self._uid, self.location, self._nothing_because = "", "", early
            self._runs -= 1
        elif early:
            scanner.abort(reason=early)
        else:
            scanner.finish(wait=False)

    def _leave(self, end: Callable[[], None]) -> None:
        """End the scan of the run, whatever comes of it."""
        run, self._run = self._run, None
        try:
            end()
        except EndedError as error:
            self._fail(error, "somebody else ended the scan on the server")
        except Exception as error:
            self._fail(error, "the scan could not be ended on the server, which ends it by itself after a while")
        finally:
            run.scanner.close()

    def _fail(self, error: Exception, consequence: str) -> None:
        """Keep the first thing that goes wrong, and say it once."""
        if self.error is not None:
            return
        self.error = error
        log.error("%s: %s", consequence, error if isinstance(error, SlideError) else repr(error), exc_info=_bug(error))
        if self.on_error == "cancel":
            self.core.mda.cancel()


@dataclass(eq=False)
class _Run:
    """One run of the core, and the scan that it becomes."""

    scanner: Scanner
    plan: SequencePlan
    view: CameraView
    began: datetime
    cancelled: bool = False
    places: dict[tuple, tuple[float, float]] = field(default_factory=dict)
    """Of fields that come as they come: where each was first."""

    def where(self, event: Any, meta: Mapping) -> tuple[float, float, float]:
        """(x, y, z) µm of a frame in the mosaic frame: as measured, else as commanded, else where the stage was before."""
        measured = meta.get("position") or {}
        stage = {
            axis: _first(measured.get(axis), commanded, otherwise)
            for axis, commanded, otherwise in zip(
                "xyz", (event.x_pos, event.y_pos, event.z_pos), (*self.view.stage_um, 0.0), strict=True
            )
        }
        shift = self.view.shift_of(event)
        x_um, y_um = stage["x"] + shift[0], stage["y"] + shift[1]
        if self.plan.fields is None:  # the field is named by its place, which must not waver with the stage
            x_um, y_um = self.places.setdefault((place_of(event), event.x_pos, event.y_pos), (x_um, y_um))
        return x_um, y_um, stage["z"]


def _broken_off(core: Any) -> str:
    """Why the run that ends was broken off; empty where it was not."""
    reason = getattr(getattr(core.mda, "status", None), "finish_reason", None)
    reasons = {"errored": "the run was broken off by an error", "canceled": "the run was cancelled"}
    return reasons.get(str(getattr(reason, "value", reason)), "")


def _completed(server: Server, name: str, timeout_s: float | None) -> str:
    """Where the slide lies, once it is complete."""
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        found = server.find(name)
        state = str(found.get("state"))
        if state == "complete":
            return str(found.get("location", ""))
        if state == "discarded":
            raise AcquisitionError("somebody had the scan discarded", location=name)
        if state == "failed":
            raise WriteError(f"the slide is not complete yet, the server tries on: {found.get('error')}", location=name)
        if ends is not None and time.monotonic() > ends:
            raise UnreachableError(f"the slide is {state} after {timeout_s:.0f} s; the server goes on with it", location=name)
        time.sleep(LOOK_S)


def _camera_names(core: Any, n_cameras: int) -> list[str]:
    """Labels of the cameras that take each frame together; one unnamed where there is one."""
    return [""] if n_cameras == 1 else [str(core.getPhysicalCameraDevice(number)) for number in range(n_cameras)]


def _what_is_set(core: Any) -> str:
    """The channel that the microscope is set to, as its channel group names it; empty where it has none."""
    try:
        group = core.getChannelGroup()
        return str(core.getCurrentConfig(group)) if group else ""
    except Exception:  # a core that was set up otherwise says so by RuntimeError, or worse
        return ""


def _grey(image: np.ndarray) -> np.ndarray:
    """The image; AcquisitionError where it is not (height, width) of uint8 or uint16."""
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise AcquisitionError(f"a frame is a (height, width) array of uint8 or uint16, not {image.dtype} {image.shape}")
    return image


def _frame_nbytes(summary: Mapping) -> int:
    return max((int(image["height"]) * int(image["width"]) * 2 for image in summary.get("image_infos") or ()), default=0)


def _first(*values: float | None) -> float:
    """The first that is told."""
    return next(float(value) for value in values if value is not None)


def _bug(error: Exception) -> Exception | None:
    """What is to be logged with its traceback."""
    return None if isinstance(error, SlideError) else error
