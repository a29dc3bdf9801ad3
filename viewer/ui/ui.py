"""All panels of a window: where they lie, and one call that draws them. They edit the desk and the engine, nothing else."""

from __future__ import annotations

from imgui_bundle import imgui

from rawmosaic.viewer.ui import (
    annotations_panel,
    messages_panel,
    mixer_panel,
    overlays,
    theme,
    toolbar,
    view_panel,
)
from rawmosaic.viewer.ui.channels_panel import ChannelsPanel
from rawmosaic.viewer.ui.contrast_panel import ContrastPanel
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.figure_panel import FigurePanel
from rawmosaic.viewer.ui.layer import Layer
from rawmosaic.viewer.ui.minimap import Minimap
from rawmosaic.viewer.ui.overlays import Rect
from rawmosaic.viewer.ui.places_panel import PlacesPanel
from rawmosaic.viewer.ui.scan_panel import ScanPanel
from rawmosaic.viewer.ui.widgets import panel, section

SIDE_UNITS = 312
LEAST_PICTURE_UNITS = 240
"""A window so narrow that less would be left of the picture has no panels."""


class Panels:
    """ImGui's layer and the panels that remember something. GL thread only."""

    def __init__(self, window):
        self.layer = Layer(window)
        self.minimap = Minimap()
        self.channels, self.contrast = ChannelsPanel(), ContrastPanel()
        self.stack = view_panel.StackPanel()
        self.places = PlacesPanel()
        self.figure = FigurePanel()
        self.scan = ScanPanel()

    def picture_area(self, desk: Desk, size_px: tuple[int, int], scale: float) -> Rect:
        """Where the picture lies in the window: x, y, width, height, pixels. Its lower left corner is the window's."""
        width, height = size_px
        side = round(SIDE_UNITS * scale) if self._has_side(desk, size_px, scale) else 0
        top = round(self._toolbar_height(desk, scale)) + round(overlays.STATUS_UNITS * scale * desk.shown.status)
        return 0, top, max(width - side, 1), max(height - top, 1)

    def _toolbar_height(self, desk: Desk, scale: float) -> float:
        return toolbar.HEIGHT_UNITS * scale * desk.shown.toolbar

    def draw(self, desk: Desk, size_px: tuple[int, int], scale: float) -> None:
        """Over the picture that is in the framebuffer."""
        area = self.picture_area(desk, size_px, scale)
        self.layer.draw(size_px, scale, lambda: self._build(desk, area, size_px, scale))

    def forget(self) -> None:
        """Another slide is shown from now on."""
        self.scan.forget()
        self.minimap.close()
        self.contrast = ContrastPanel()
        self.stack = view_panel.StackPanel()
        self.places = PlacesPanel()

    def close(self) -> None:
        """Delete the GL objects; closing twice is harmless."""
        self.figure.cancel()
        self.scan.close()
        self.minimap.close()
        self.layer.close()

    def _has_side(self, desk: Desk, size_px: tuple[int, int], scale: float) -> bool:
        return desk.shown.side and size_px[0] >= (SIDE_UNITS + LEAST_PICTURE_UNITS) * scale

    def _build(self, desk: Desk, area: Rect, size_px: tuple[int, int], scale: float) -> None:
        desk.note_silence()
        desk.note_problems()
        below = round(self._toolbar_height(desk, scale))
        if desk.shown.toolbar:
            toolbar.draw(desk, (0, 0, size_px[0], below))
        if self._has_side(desk, size_px, scale):
            with panel("side", area[2], below, size_px[0] - area[2], size_px[1] - below):
                self._side(desk)
        if desk.shown.status:
            overlays.status_line(desk, (0, below, area[2], area[1] - below))
        if desk.board is not None and desk.shown.annotations:
            desk.board.draw(desk.engine.camera, area)
        if desk.shown.scale_bar:
            overlays.scale_bar(desk, area)
        if desk.shown.minimap:
            self.minimap.draw(desk, area)
        self.scan.draw(desk, area)
        if desk.shown.statistics:
            overlays.statistics(desk, area)
        self.figure.draw(desk, area)
        if desk.shown.keys:
            overlays.keys(desk)
        if desk.shown.messages:
            messages_panel.draw(desk, area)

    def _side(self, desk: Desk) -> None:
        if section("Channels"):
            self.channels.draw(desk)
        if desk.shown.contrast and section("Contrast"):
            self.contrast.draw(desk)
        if max(desk.slide.size_z, desk.slide.size_t) > 1 and section("z and t"):
            self.stack.draw(desk)
        if section("View"):
            view_panel.draw(desk)
        if section("Places"):
            self.places.draw(desk)
        if desk.board is not None and section("Annotations"):
            annotations_panel.draw(desk)
        if section("Mixer", opened=False):
            mixer_panel.draw(desk)
        if section("Mouse", opened=False):
            view_panel.draw_preferences(desk)
        imgui.dummy((0, theme.units(4)))
