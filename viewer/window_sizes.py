"""How large a window is, in the three measures that meet in it: screen units of the cursor, pixels, and units of the panels."""

from __future__ import annotations

import glfw


class Sizes:
    """The sizes of one window. `ui_scale`: pixels a unit of the panels, as the screen says if not told."""

    def __init__(self, handle, ui_scale: float | None = None):
        self._handle, self._ui_scale = handle, ui_scale
        self._size_px: tuple[int, int] | None = None
        self._content_scale: float | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Pixels of the window; asked once for each change, since the window system takes half a millisecond to answer."""
        if self._size_px is None:
            width, height = glfw.get_framebuffer_size(self._handle)
            self._size_px = max(width, 1), max(height, 1)
        return self._size_px

    def resized(self, width: int, height: int) -> bool:
        """The window has so many pixels now; returns False for a minimised one, which has none."""
        if width > 0 and height > 0:
            self._size_px = (width, height)
        return width > 0 and height > 0

    @property
    def pixels_per_unit(self) -> float:
        """How large panels are drawn: 2 at 200 %."""
        if self._ui_scale:
            return self._ui_scale
        if self._content_scale is None:
            self._content_scale = max(glfw.get_window_content_scale(self._handle)[0], 0.5)
        return self._content_scale

    def rescaled(self, content_scale: float) -> None:
        """The window came to a screen of another resolution."""
        self._content_scale = max(content_scale, 0.5)

    @property
    def cursor_ratio(self) -> tuple[float, float]:
        """Pixels per cursor unit: 2 on a high-resolution Mac screen."""
        width, height = glfw.get_window_size(self._handle)
        pixels = self.size_px
        return pixels[0] / max(width, 1), pixels[1] / max(height, 1)
