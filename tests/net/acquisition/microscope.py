"""A microscope for tests: Micro-Manager's demo devices, and a camera that sees a specimen which is known pixel by pixel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5.writer import SlideWriter

pytest.importorskip("pymmcore_plus", reason="pymmcore-plus is not installed: pip install 'rawmosaic[micromanager-demo]'")
pytest.importorskip("mm_test_adapters", reason="there are no demo devices: pip install 'rawmosaic[micromanager-demo]'")

from pymmcore_plus.experimental.unicore import SimpleCameraDevice, UniMMCore

SENSOR = (24, 40)
"""(height, width) of the camera's chip."""

REACH = 200
"""The specimen ends so many µm from the stage's origin."""


def specimen(channel: str) -> np.ndarray:
    """(400, 400) uint16: one number a µm of the stage, x right and y down, unlike its neighbours', and other for each channel."""
    y, x = np.mgrid[0 : 2 * REACH, 0 : 2 * REACH].astype(np.int64)
    return ((x * 167 + y * 40_009 + sum(map(ord, channel)) * 7919) % 65_521).astype(np.uint16)


def seen(channel: str, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
    """The specimen at stage positions in µm: the number of the µm in which each lies."""
    return specimen(channel)[np.floor(y_um).astype(int) + REACH, np.floor(x_um).astype(int) + REACH]


class SpecimenCamera(SimpleCameraDevice):
    """Sees the specimen where the stage stands: pixels of 1 µm, image axes → stage axes by `matrix`."""

    def __init__(self, where: Callable[[], tuple[float, float]], colour: Callable[[], str]):
        super().__init__()
        self._where, self._colour = where, colour
        self._exposure_ms = 1.0
        self.matrix = np.eye(2)
        self.kind: type = np.uint16
        self.on_snap: Callable[[], None] = lambda: None

    def get_exposure(self) -> float:
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        self._exposure_ms = exposure

    def sensor_shape(self) -> tuple[int, int]:
        return SENSOR

    def dtype(self) -> type:
        return self.kind

    def snap(self, buffer: np.ndarray) -> Mapping:
        self.on_snap()
        x_um, y_um = pixel_places(SENSOR, self._where(), self.matrix)
        buffer[...] = seen(self._colour(), x_um, y_um).astype(self.kind)
        return {}


def pixel_places(shape: tuple[int, int], centre_um: tuple[float, float], matrix_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) µm of the middle of each pixel of an image whose middle is at `centre_um`."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    along, across = columns + 0.5 - shape[1] / 2, rows + 0.5 - shape[0] / 2
    x_um = centre_um[0] + matrix_um[0, 0] * along + matrix_um[0, 1] * across
    y_um = centre_um[1] + matrix_um[1, 0] * along + matrix_um[1, 1] * across
    return x_um, y_um


class Microscope:
    """The demo configuration with a `SpecimenCamera`; `frames` are those that the core handed out, as it emitted them."""

    def __init__(self):
        self.core = UniMMCore()
        self.core.loadSystemConfiguration()
        self.camera = SpecimenCamera(self.core.getXYPosition, lambda: self.core.getCurrentConfig("Channel"))
        self.core.loadPyDevice("Specimen camera", self.camera)
        self.core.initializeDevice("Specimen camera")
        self.core.setCameraDevice("Specimen camera")
        self.core.setChannelGroup("Channel")
        self.frames: list[tuple[np.ndarray, object, Mapping]] = []
        self.core.mda.events.frameReady.connect(self._keep)

    def reset(self) -> None:
        """As it was at first."""
        self.frames.clear()
        self.camera.matrix, self.camera.kind, self.camera.on_snap = np.eye(2), np.uint16, lambda: None
        self.camera.clear_roi()
        self.core.setCameraDevice("Specimen camera")
        self.core.setConfig("Channel", "DAPI")
        self.core.setPixelSizeAffine("Res10x", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
        self.core.setPixelSizeUm("Res10x", 1.0)
        self.core.setXYPosition(0.0, 0.0)
        self.core.waitForSystem()

    def turn_camera(self, matrix: np.ndarray) -> None:
        """Mount the camera otherwise, and calibrate it."""
        self.camera.matrix = np.asarray(matrix, float)
        (a, b), (c, d) = self.camera.matrix
        self.core.setPixelSizeAffine("Res10x", (a, b, 0.0, c, d, 0.0))

    def _keep(self, image: np.ndarray, event: object, meta: Mapping) -> None:
        self.frames.append((image.copy(), event, meta))


class LocalScanner:
    """Has the methods of a `Scanner`, and writes the slide itself; what it is told is kept in `planes`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.uid, self.location, self.held = "", "", ""
        self.planes: list[dict] = []
        self.facts: dict = {}
        self.ended = self.reason = ""
        self.refuse: Callable[[dict], SlideError | None] = lambda _: None
        self.before_send: Callable[[], None] = lambda: None
        self.thread: threading.Thread | None = None
        self._writer: SlideWriter | None = None

    @property
    def acknowledged(self) -> int:
        return len(self.planes)

    def start(self, name: str, **facts: object) -> None:
        self.facts = {"name": name, **facts}
        self.uid, self.location = name, str(self.folder / f"{name}.h5")
        self._writer = SlideWriter(self.location, **facts)

    def send(self, image: np.ndarray, channel: int, *, metadata: Mapping | None = None, **facts: object) -> None:
        self.before_send()
        self.thread = threading.current_thread()
        plane = {"image": np.array(image), "channel": channel, "metadata": metadata, **facts}
        if (error := self.refuse(plane)) is not None:
            raise error
        self._writer.write_plane(image, channel, **facts)
        self.planes.append(plane)

    def flush(self) -> None:
        pass

    def finish(self, wait: bool = True) -> str:  # noqa: ARG002
        self._end("finished")
        return self.location

    def abort(self, discard: bool = False, reason: str = "") -> None:
        self.reason = reason
        self._end("discarded" if discard else "ended early")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _end(self, how: str) -> None:
        self.ended = how
        self._writer.close()
        self._writer = None
