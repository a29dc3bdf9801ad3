"""The headless face of the engine: a slide in, pictures out, no display."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.ahead import import_ahead
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.gl.context import HeadlessContext

_NEEDED_BY_ENGINE = ("rawmosaic.viewer.plan", "rawmosaic.viewer.loader", "rawmosaic.viewer.channels", "rawmosaic.viewer.follower")
"""The engine's imports that need no context."""

SMALLEST_PART_PX = 64
"""A picture is not cut into parts smaller than this, however small the texture cache."""


class OffscreenViewer:
    """Renders views of a slide without a display (EGL). Use it in a with-statement, from one thread.

    `channels`, `overlap` (top, nearest, feather, max), `position_set`, `z`, `t`, `interpolation` (auto, nearest, smooth),
    `projection` (none, max), `mode` (colour, grey), `background` (black, white), `color_map` (a name of palettes.COLOR_MAPS) and
    `unmixing` (a matrix) are set as attributes; the next `render` shows them.
    """

    def __init__(self, slide: Slide, size: tuple[int, int] = (1280, 720), **budgets):
        import_ahead(_NEEDED_BY_ENGINE)
        self._context = HeadlessContext()
        self._engine = None
        self._framebuffer = None
        try:
            # OpenGL's functions can only be loaded once a context is current
            from rawmosaic.viewer.engine import Engine

            self._engine = Engine(slide, size, **budgets)
        except BaseException:
            self.close()
            raise

    def fit(self) -> None:
        """Show the whole mosaic."""
        self._engine.fit()

    def look_at(self, x_um: float, y_um: float, scale: float | None = None) -> None:
        """Centre on a point of the mosaic frame, µm; `scale` is screen pixels per image pixel (1.0 is 1:1)."""
        self._engine.look_at(x_um, y_um, scale)

    def render(self, wait: bool = True) -> np.ndarray:
        """(height, width, 4) uint8: every visible tile at its own layer; with wait=False, what one frame shows now.

        A picture whose tiles do not fit into the texture cache together is drawn in parts, never from a coarser layer.
        """
        self._context.make_current()
        if wait:
            camera = self._engine.camera
            try:
                return self._settled(camera)
            finally:
                self._engine.camera = camera
        self._engine.frame(self._target())
        return self._framebuffer.read_rgba()

    def failures(self) -> list[str]:
        """One line for each part of the picture that could not be read."""
        return self._engine.failures()

    @property
    def report(self):
        """The FrameReport of the last render."""
        return self._engine.report

    @property
    def engine(self):
        """The engine itself, for benchmarks and tests."""
        return self._engine

    def close(self) -> None:
        """Give everything back but the slide; closing twice is harmless."""
        if self._context is None:
            return
        self._context.make_current()
        for owned in (self._engine, self._framebuffer):
            if owned is not None:
                owned.close()
        self._context.close()
        self._context = self._framebuffer = None

    def __enter__(self) -> OffscreenViewer:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _settled(self, camera: Camera) -> np.ndarray:
        """The complete picture of a camera; `report` is that of its last part."""
        from rawmosaic.viewer.plan import choose_level

        self._engine.camera = camera
        if max(camera.size) >= 2 * SMALLEST_PART_PX:
            plan = self._engine.plan()
            if not plan.overview and plan.level > choose_level(camera.scale, self._engine.slide.levels):
                upright = camera.size[1] > camera.size[0]
                return np.concatenate([self._settled(half) for half in halves(camera)], axis=0 if upright else 1)
        self._engine.settled_frame(self._target())
        return self._framebuffer.read_rgba()

    def _target(self):
        from rawmosaic.viewer.gl.api import GL
        from rawmosaic.viewer.gl.objects import Framebuffer
        from rawmosaic.viewer.renderer import Target

        size = self._engine.size
        if self._framebuffer is not None and self._framebuffer.size != size:
            self._framebuffer.close()
            self._framebuffer = None
        if self._framebuffer is None:
            self._framebuffer = Framebuffer(size, GL.GL_RGBA8, depth=True)
        return Target(self._framebuffer.name, size, top_row_first=True)


def halves(camera: Camera) -> tuple[Camera, Camera]:
    """The left and right half of a viewport, or the upper and lower one of a tall one; whole pixels, the same pixels."""
    axis = int(camera.size[1] > camera.size[0])
    size = camera.size[axis]
    parts = []
    for begin, end in ((0, size // 2), (size // 2, size)):
        shift_px = [0.0, 0.0]
        shift_px[axis] = 0.5 * (size - begin - end)
        cut = [*camera.size]
        cut[axis] = end - begin
        parts.append(replace(camera.moved(*shift_px), size=tuple(cut)))
    return parts[0], parts[1]


def _forward(name: str) -> property:
    """A property that reads and sets the engine's."""
    return property(
        lambda self: getattr(self._engine, name),
        lambda self, value: setattr(self._engine, name, value),
        doc=f"The view's {name}.",
    )


_STATE = ("channels", "overlap", "position_set", "z", "t", "interpolation", "show_outlines", "camera")
_LOOKS = ("projection", "mode", "background", "color_map", "unmixing", "groups", "bookmarks")
for _name in (*_STATE, *_LOOKS):
    setattr(OffscreenViewer, _name, _forward(_name))
