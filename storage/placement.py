"""Where field pixels lie in the mosaic frame (µm, x right, y down): position set, orientation, camera angle, offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError

ORIENTATIONS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "identity": ((1, 0), (0, 1)),
    "flip-x": ((-1, 0), (0, 1)),
    "flip-y": ((1, 0), (0, -1)),
    "rotate-180": ((-1, 0), (0, -1)),
    "transpose": ((0, 1), (1, 0)),
    "rotate-90": ((0, -1), (1, 0)),
    "rotate-270": ((0, 1), (-1, 0)),
    "anti-transpose": ((0, -1), (-1, 0)),
}
"""The eight ways a camera can be mounted: image (x, y) → mosaic (x, y), rows of a matrix. Rotations are clockwise on screen."""


def orientation_matrix(orientation: str = "identity", camera_angle_deg: float = 0.0) -> np.ndarray:
    """(2, 2) float64 image axes → mosaic axes: first the orientation, then a clockwise turn of `camera_angle_deg`."""
    if orientation not in ORIENTATIONS:
        raise OutOfRangeError("orientation", orientation, "choose one of " + ", ".join(ORIENTATIONS))
    angle = math.radians(camera_angle_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.array(ORIENTATIONS[orientation], dtype=np.float64)


@dataclass(frozen=True)
class Placement:
    """All that turns field pixels into mosaic µm.

    positions_um    (n, 2) float64, the centres of the fields
    matrix_um       (2, 2) float64, image pixels → mosaic µm: pixel size, orientation, rotation and shear in one
    offsets_um      (n_channels, 2) float64, added to every field of a channel
    plane_offsets_um  (n, n_channels, 2) float64 or None, added to one field and channel (one mosaic per colour)
    """

    positions_um: np.ndarray
    matrix_um: np.ndarray
    offsets_um: np.ndarray
    plane_offsets_um: np.ndarray | None = field(default=None)

    def centres_um(self, channel: int) -> np.ndarray:
        """(n, 2) float64 field centres of one channel."""
        centres = self.positions_um + self.offsets_um[channel]
        return centres if self.plane_offsets_um is None else centres + self.plane_offsets_um[:, channel]

    @property
    def shared_by_channels(self) -> bool:
        """Whether all channels of a field lie at the same place."""
        same = bool((self.offsets_um == self.offsets_um[:1]).all())
        plane = self.plane_offsets_um
        return same and (plane is None or bool((plane == plane[:, :1]).all()))

    def half_extents_um(self, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
        """(n, 2) float64 half sizes of the axis-aligned boxes around fields of these pixel sizes."""
        sizes = np.stack([widths, heights], axis=-1).astype(np.float64)
        return 0.5 * sizes @ np.abs(self.matrix_um).T
