"""How a Micro-Manager camera lies on the stage: from what the core knows of it to the mosaic frame.

The mosaic frame is the stage's own: µm, x and y as the stage counts them, y drawn downwards. A stage position is where the middle
of the camera's chip looks. Everything here is pure: it takes what pymmcore-plus says in its summary of a run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rawmosaic.net.acquisition.micromanager_metadata import device_properties
from rawmosaic.storage.errors import AcquisitionError
from rawmosaic.storage.placement import orientation_matrix


@dataclass(frozen=True, eq=False)
class CameraView:
    """What the camera sees of the stage: from the summary of a run."""

    image: Mapping
    field_shape: tuple[int, int]
    n_cameras: int
    bits: int
    pixel_size_um: float
    orientation: np.ndarray
    stage_um: tuple[float, float]
    shift_um: tuple[float, float]
    sensor_shape: tuple[int, int] | None

    @classmethod
    def of(
        cls,
        summary: Mapping,
        pixel_size_um: float | None,
        orientation: str | None,
        camera_angle_deg: float,
        sensor_shape: tuple[int, int] | None,
    ) -> CameraView:
        """Raises AcquisitionError for a camera that no slide can be made with, and for an unknown size of pixels."""
        images = list(summary.get("image_infos") or ())
        if not images:
            raise AcquisitionError("the core has no camera: load one and set it as the core's camera")
        image = images[0]
        _check_camera(image)
        affine = calibrated_affine(image, summary.get("pixel_size_configs") or ())
        own_um = core_pixel_size_um(image, affine)
        size_um = pixel_size_um or own_um
        if not size_um:
            raise AcquisitionError(
                "Micro-Manager does not know the size of a pixel (it says 0): calibrate it for this objective, or give "
                "pixel_size_um="
            )
        properties = device_properties(summary, str(image.get("camera_label", "")))
        matrix = orientation_of(affine, own_um, properties, orientation, camera_angle_deg)
        roi = image.get("roi") or (0, 0, int(image["width"]), int(image["height"]))  # it is told where it is not at the corner
        position = summary.get("position") or {}
        return cls(
            image=image,
            field_shape=(int(image["height"]), int(image["width"])),
            n_cameras=int(image.get("num_camera_adapter_channels") or 1),
            bits=bits_of(images[:1]),
            pixel_size_um=size_um,
            orientation=matrix,
            stage_um=(float(position.get("x") or 0.0), float(position.get("y") or 0.0)),
            shift_um=roi_shift_um(roi, sensor_shape, matrix * size_um),
            sensor_shape=sensor_shape,
        )

    def shift_of(self, event: Any) -> tuple[float, float]:
        """As `shift_um`, for an event that may have a region of interest of its own."""
        if event.roi is None:
            return self.shift_um
        roi = (event.roi.offset_x, event.roi.offset_y, event.roi.width, event.roi.height)
        return roi_shift_um(roi, self.sensor_shape, self.orientation * self.pixel_size_um)


def core_pixel_size_um(image: Mapping, affine: np.ndarray | None) -> float:
    """Size of a pixel of the image as it comes, binning included: as the core says, else its affine transform, else 0."""
    size = float(image.get("pixel_size_um") or 0.0)
    if size <= 0 and affine is not None:
        size = math.sqrt(abs(np.linalg.det(affine)))
    return size if math.isfinite(size) and size > 0 else 0.0


def calibrated_affine(image: Mapping, configurations: Sequence[Mapping]) -> np.ndarray | None:
    """(2, 2) float64 pixels → stage µm, where somebody calibrated it for the objective in use; else None.

    Column 0 is how the stage moves from one pixel to the next on the right, column 1 to the next below. A core that was never
    told has the identity instead, scaled by the binning: it counts as not calibrated.
    """
    in_use = image.get("pixel_size_config_name")
    told = any(entry.get("name") == in_use and "pixel_size_affine" in entry for entry in configurations)
    numbers = image.get("pixel_size_affine")
    if not told or numbers is None or len(numbers) != 6:
        return None
    matrix = np.array([numbers[:2], numbers[3:5]], np.float64)
    usable = np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0
    return matrix if usable else None


def orientation_of(
    affine: np.ndarray | None,
    size_um: float,
    properties: Mapping[str, object],
    given: str | None = None,
    camera_angle_deg: float = 0.0,
) -> np.ndarray:
    """(2, 2) float64 image axes → mosaic axes, without the pixel size.

    The orientation that was given; else that of the calibrated affine transform, turned, mirrored and sheared as it was measured
    for pixels of `size_um`; else that of the camera's transposition `properties`. Then a clockwise turn of `camera_angle_deg`.
    Raises OutOfRangeError.
    """
    if given is not None:
        return orientation_matrix(given, camera_angle_deg)
    native = transposition(properties) if affine is None else affine / size_um
    return orientation_matrix("identity", camera_angle_deg) @ native


def transposition(properties: Mapping[str, object]) -> np.ndarray:
    """(2, 2) float64: how the camera's properties say that it is mounted. The identity where it mends its images itself."""
    if _is_set(properties, "TransposeCorrection"):
        return np.eye(2)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]]) if _is_set(properties, "TransposeXY") else np.eye(2)
    mirror = [-1.0 if _is_set(properties, name) else 1.0 for name in ("TransposeMirrorX", "TransposeMirrorY")]
    return np.diag(mirror) @ swap


def roi_shift_um(roi: Sequence[int], sensor_shape: tuple[int, int] | None, matrix_um: np.ndarray) -> tuple[float, float]:
    """(x, y) µm from the middle of the chip to the middle of the part of it that is read out.

    `roi`: x, y, width, height in pixels of the image; `sensor_shape`: (height, width) of the whole chip in such pixels, which no
    core tells; without it the middle of the part is taken for that of the chip.
    """
    if sensor_shape is None:
        return 0.0, 0.0
    x, y, width, height = roi
    pixels = np.array([x + width / 2 - sensor_shape[1] / 2, y + height / 2 - sensor_shape[0] / 2])
    shift = matrix_um @ pixels
    return float(shift[0]), float(shift[1])


def bits_of(images: Sequence[Mapping]) -> int:
    """How many bits of a count matter, of the deepest of the cameras in use: 1 to 16."""
    found = [int(digits[0]) for image in images if (digits := re.findall(r"\d+", str(image.get("pixel_format", ""))))]
    return min(16, max(found, default=16))


def _is_set(properties: Mapping[str, object], name: str) -> bool:
    return str(properties.get(name, "0")).strip().lower() not in ("", "0", "false", "no", "off")


def _check_camera(image: Mapping) -> None:
    """Raise AcquisitionError for pixels that are no counts."""
    if len(image.get("plane_shape", (0, 0))) != 2:
        raise AcquisitionError(
            f"{image.get('camera_label')} takes colour images ({image.get('pixel_format')}); set it to grey ones, of 8 to 16 bits"
        )
    if image.get("dtype") not in ("uint8", "uint16"):
        several = int(image.get("num_camera_adapter_channels") or 1) > 1
        unlike = "its cameras differ, or give something else than counts; set all of them to the same 8 to 16 bits a pixel"
        told = unlike if several else f"gives {image.get('dtype')}; set it to 8 to 16 bits a pixel"
        raise AcquisitionError(f"{image.get('camera_label')}: {told}" if several else f"{image.get('camera_label')} {told}")
