"""Where a moving camera will be: what is fetched ahead of it."""

from __future__ import annotations

import time
from dataclasses import replace

from rawmosaic.storage.slide import ViewHint
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.plan import View

LOOK_AHEAD_S = 0.3
MARGIN = 1.25
"""The predicted viewport is larger than the present one by this factor: neighbours on every side."""

FORGOTTEN_AFTER_S = 0.25
"""A camera that was not seen for so long stands still."""


class Motion:
    """The velocity of a camera, from when and where it was seen."""

    def __init__(self):
        self._seen: tuple[float, Camera] | None = None
        self._velocity_um = (0.0, 0.0)

    def follow(self, camera: Camera, now: float | None = None) -> None:
        """The camera is here now (monotonic seconds)."""
        now = time.monotonic() if now is None else now
        self._velocity_um = (0.0, 0.0)
        if self._seen is not None and self._seen[1].scale == camera.scale:
            before, last = self._seen
            if 0 < now - before < FORGOTTEN_AFTER_S:
                self._velocity_um = ((camera.x_um - last.x_um) / (now - before), (camera.y_um - last.y_um) / (now - before))
        self._seen = (now, camera)

    def predicted(self, camera: Camera) -> Camera:
        """A viewport around where the camera will be soon; never further than one view away."""
        width_um, height_um = (side / camera.px_per_um for side in camera.size)
        dx, dy = (
            min(max(velocity * LOOK_AHEAD_S, -side), side)
            for velocity, side in zip(self._velocity_um, (width_um, height_um), strict=True)
        )
        size = tuple(round(MARGIN * side) for side in camera.size)
        return replace(camera, x_um=camera.x_um + dx, y_um=camera.y_um + dy, size=size)

    def hint(self, view: View, level: int) -> ViewHint:
        """What a slide may read ahead for."""
        camera = view.camera
        width_um, height_um = (side / camera.px_per_um for side in camera.size)
        return ViewHint(
            camera.x_um,
            camera.y_um,
            width_um,
            height_um,
            self._velocity_um,
            level,
            view.channels,
            view.z,
            view.t,
            view.position_set,
        )
