"""The minimap: the whole mosaic small, where the view is, what is planned or missing; a click or drag moves the view there.

The engine draws the small picture into a texture of its own, now and then; this panel only shows it.
"""

from __future__ import annotations

import time
from dataclasses import replace

from imgui_bundle import imgui

from rawmosaic.viewer.gl.api import GL
from rawmosaic.viewer.gl.objects import Framebuffer
from rawmosaic.viewer.renderer import Target
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.overlays import Rect
from rawmosaic.viewer.ui.widgets import packed, panel

LARGEST_UNITS = (220.0, 170.0)
LARGEST_PART = 0.36
"""Of the picture's width and height."""
PERIOD_S = 0.25
SMALLEST_BOX_UNITS = 5.0


class Minimap:
    """Owns the small picture. GL thread only."""

    def __init__(self):
        self._picture: Framebuffer | None = None
        self._shows: tuple | None = None
        self._at = 0.0

    def refresh(self, desk: Desk) -> float | None:
        """Draw the small picture anew if it is out of date; seconds until it wants to be, None once it is not."""
        size = self.size_px(desk)
        shows = self._fingerprint(desk, size)
        if shows == self._shows:
            return None
        wait = self._at + PERIOD_S - time.monotonic()
        if wait > 0 and self._picture is not None and self._picture.size == size:
            return wait
        if self._picture is not None and self._picture.size != size:
            self.close()
        if self._picture is None:
            self._picture = Framebuffer(size, GL.GL_RGBA8, depth=True)
        desk.engine.draw_whole(Target(self._picture.name, size, top_row_first=True))
        self._shows, self._at = shows, time.monotonic()
        return None

    def draw(self, desk: Desk, area: Rect) -> None:
        """The panel in the lower right corner of the picture."""
        if self._picture is None:
            return
        x, y, width, height = area
        w, h = self._picture.size
        left, top = x + width - w - theme.units(14), y + height - h - theme.units(14)
        with panel("minimap", left, top, w, h, imgui.WindowFlags_.no_scrollbar.value, (0, 0, 0, 1)):
            imgui.set_cursor_screen_pos((left, top))
            imgui.image(imgui.ImTextureRef(self._picture.texture), (w, h))
            imgui.set_cursor_screen_pos((left, top))
            imgui.invisible_button("##minimap", (w, h))
            camera = desk.engine.camera.fitted(desk.engine.geometry.bounds_um)
            small = replace(camera, size=(w, h)).fitted(desk.engine.geometry.bounds_um)
            if imgui.is_item_active():
                mouse = imgui.get_io().mouse_pos
                x_um, y_um = small.to_mosaic(mouse.x - left, mouse.y - top)
                desk.engine.look_at(x_um, y_um)
                desk.touch()
            drawn = imgui.get_window_draw_list()
            self._view_box(desk, small, (left, top), (w, h))
            drawn.add_rect((left, top), (left + w, top + h), packed(theme.DIM))

    def size_px(self, desk: Desk) -> tuple[int, int]:
        """Of the mosaic's shape, within the largest size."""
        left, top, right, bottom = desk.engine.geometry.bounds_um
        parts = [LARGEST_PART * size for size in desk.engine.size]
        largest = [min(theme.units(most), part) for most, part in zip(LARGEST_UNITS, parts, strict=True)]
        per_um = min(largest[0] / max(right - left, 1e-9), largest[1] / max(bottom - top, 1e-9))
        return max(round((right - left) * per_um), 24), max(round((bottom - top) * per_um), 24)

    def close(self) -> None:
        """Delete the picture; closing twice is harmless."""
        if self._picture is not None:
            self._picture.close()
        self._picture = self._shows = None

    def _fingerprint(self, desk: Desk, size: tuple[int, int]) -> tuple:
        engine = desk.engine
        looks = tuple((look.limits, look.rgb(), look.gamma, look.visible) for look in engine.channels)
        return (
            size,
            looks,
            engine.position_set,
            engine.z,
            engine.t,
            engine.overlap,
            engine.mode,
            engine.background,
            engine.color_map,
            engine.projection,
            None if engine.unmixing is None else engine.unmixing.tobytes(),
            engine.overview_tiles_resident,
            engine.freshness,
            desk.slide.n_fields,
        )

    def _view_box(self, desk: Desk, small, corner: tuple[float, float], size: tuple[int, int]) -> None:
        """The viewport; a cross where it would be too small to see."""
        bounds = desk.engine.camera.bounds_um()
        (x0, y0), (x1, y1) = small.to_window(*bounds[:2]), small.to_window(*bounds[2:])
        drawn, color = imgui.get_window_draw_list(), packed((1.0, 0.85, 0.25), 1.0)
        left, top = corner
        least = theme.units(SMALLEST_BOX_UNITS)
        if x1 - x0 < least or y1 - y0 < least:
            x, y, arm = left + 0.5 * (x0 + x1), top + 0.5 * (y0 + y1), theme.units(6)
            drawn.add_line((x - arm, y), (x + arm, y), color, theme.units(1.5))
            drawn.add_line((x, y - arm), (x, y + arm), color, theme.units(1.5))
            return
        drawn.push_clip_rect((left, top), (left + size[0], top + size[1]), True)
        for line, thickness in ((packed((0, 0, 0), 0.6), 3.5), (color, 1.5)):  # seen on a white ground too
            drawn.add_rect((left + x0, top + y0), (left + x1, top + y1), line, 0.0, theme.units(thickness))
        drawn.pop_clip_rect()
