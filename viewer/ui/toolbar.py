"""The strip above the picture: open, navigate, undo, save."""

from __future__ import annotations

from imgui_bundle import imgui

from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.overlays import Rect
from rawmosaic.viewer.ui.widgets import button, dim, panel

HEIGHT_UNITS = 36


def draw(desk: Desk, area: Rect) -> None:
    """The buttons, grouped; those whose action the window does not offer are left out."""
    x, y, width, height = area
    flags = imgui.WindowFlags_.no_scrollbar.value | imgui.WindowFlags_.no_scroll_with_mouse.value
    with panel("toolbar", x, y, width, height, flags):
        imgui.set_cursor_pos_y(0.5 * (height - imgui.get_frame_height()))
        first = True
        for group in GROUPS:
            offered = [entry for entry in group if entry[0] in desk.act]
            for place, (name, label, hint) in enumerate(offered):
                if not first:
                    imgui.same_line(0, theme.units(14) if place == 0 else -1.0)
                first = False
                state = desk.act.get(f"{name}?")
                if button(label, hint, enabled=state is None or bool(state())):
                    desk.act[name]()
        if "recent" in desk.act:
            _recent(desk)
        side = "hide panel" if desk.shown.side else "show panel"
        right = width - theme.units(10) - _width(side) - _width("?") - imgui.get_style().item_spacing.x
        imgui.same_line(max(right, imgui.get_cursor_pos_x()))
        if button(side, "Tab"):
            desk.act["side"]()
        imgui.same_line()
        if button("?", "keys and mouse"):
            desk.shown.keys ^= True


GROUPS = (
    (("open", "Open …", "another slide or acquisition, in this window (Ctrl+O); or drop it here"),),
    (
        ("fit", "Fit", "the whole mosaic (0)"),
        ("one to one", "1:1", "one screen pixel for one image pixel (keypad 5)"),
        ("go to", "Go to …", "field, well or stage position (Ctrl+G)"),
    ),
    (("undo", "Undo", "Ctrl+Z"), ("redo", "Redo", "Ctrl+Shift+Z")),
    (
        ("screenshot", "Screenshot", "the picture as it is, without panels (Ctrl+S)"),
        ("figure", "Figure …", "a region with scale bar and legend, at any resolution (Ctrl+E)"),
    ),
)


def _recent(desk: Desk) -> None:
    if imgui.begin_popup("recent"):
        locations = desk.act["recent"]()
        for location in locations:
            if imgui.selectable(location, False)[0]:
                desk.act["open location"](location)
        if not locations:
            dim("nothing was opened yet")
        imgui.end_popup()
    imgui.same_line()
    if button("Recent", "slides that were opened lately"):
        imgui.open_popup("recent")


def _width(label: str) -> float:
    return imgui.calc_text_size(label).x + 2 * imgui.get_style().frame_padding.x
