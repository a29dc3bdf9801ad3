"""The headless face of the engine: a slide in, pictures out, no display."""

from __future__ import annotations

import numpy as np

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.gl.context import HeadlessContext


class OffscreenViewer:
    """Renders views of a slide without a display (EGL). Use it in a with-statement, from one thread.

    `channels`, `overlap` (top, nearest, feather, max), `position_set`, `z`, `t` and `interpolation` (auto, nearest, smooth)
    are set as attributes; the next `render` shows them.
    """

    def __init__(self, slide: Slide, size: tuple[int, int] = (1280, 720), **budgets):
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
        """(height, width, 4) uint8: every visible tile at its own layer; with wait=False, what one frame shows now."""
        self._context.make_current()
        target = self._target()
        if wait:
            self._engine.settled_frame(target)
        else:
            self._engine.frame(target)
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


def _forward(name: str) -> property:
    """A property that reads and sets the engine's."""
    return property(
        lambda self: getattr(self._engine, name),
        lambda self, value: setattr(self._engine, name, value),
        doc=f"The view's {name}.",
    )


for _name in ("channels", "overlap", "position_set", "z", "t", "interpolation", "show_outlines", "camera"):
    setattr(OffscreenViewer, _name, _forward(_name))
