"""Colours and sizes of the panels: dark and quiet, so that the picture is the brightest thing on the screen."""

from __future__ import annotations

from imgui_bundle import imgui

FONT_UNITS = 15.0
ACCENT = (0.30, 0.62, 0.92, 1.0)
TEXT = (0.88, 0.88, 0.88, 1.0)
DIM = (0.58, 0.58, 0.58, 1.0)
WARNING = (0.98, 0.76, 0.30, 1.0)
ERROR = (1.0, 0.48, 0.42, 1.0)
PANEL = (0.105, 0.110, 0.120, 1.0)
OVERLAY = (0.06, 0.06, 0.07, 0.72)


def apply() -> None:
    """Set the style of the current context."""
    imgui.style_colors_dark()
    style = imgui.get_style()
    style.window_rounding = style.frame_rounding = style.grab_rounding = style.popup_rounding = 4.0
    style.window_border_size = 0.0
    style.frame_padding = imgui.ImVec2(6, 3)
    style.item_spacing = imgui.ImVec2(6, 5)
    style.cell_padding = imgui.ImVec2(4, 2)
    style.scrollbar_size = 11.0
    style.indent_spacing = 12.0
    col = imgui.Col_
    for name, color in {
        col.text: TEXT,
        col.text_disabled: DIM,
        col.window_bg: PANEL,
        col.popup_bg: (0.13, 0.135, 0.145, 0.98),
        col.child_bg: (0, 0, 0, 0),
        col.frame_bg: (0.18, 0.19, 0.205, 1.0),
        col.frame_bg_hovered: (0.24, 0.26, 0.285, 1.0),
        col.frame_bg_active: (0.28, 0.31, 0.35, 1.0),
        col.button: (0.20, 0.215, 0.235, 1.0),
        col.button_hovered: (0.27, 0.30, 0.34, 1.0),
        col.button_active: (0.23, 0.45, 0.66, 1.0),
        col.header: (0.20, 0.215, 0.235, 1.0),
        col.header_hovered: (0.25, 0.28, 0.32, 1.0),
        col.header_active: (0.23, 0.40, 0.58, 1.0),
        col.check_mark: ACCENT,
        col.slider_grab: (0.27, 0.36, 0.45, 1.0),  # dark enough for the number that is written over it
        col.slider_grab_active: (0.23, 0.45, 0.66, 1.0),
        col.separator: (0.24, 0.25, 0.27, 1.0),
        col.table_row_bg_alt: (1, 1, 1, 0.025),
        col.table_header_bg: (0.15, 0.155, 0.17, 1.0),
        col.title_bg: PANEL,
        col.title_bg_active: (0.15, 0.17, 0.20, 1.0),
    }.items():
        style.set_color_(name.value, imgui.ImVec4(*color))


def scale_to(scale: float) -> None:
    """Make the current context's panels so many pixels a unit; does nothing when they are already."""
    style = imgui.get_style()
    before = style.font_scale_dpi
    if abs(before - scale) > 1e-3:
        style.scale_all_sizes(scale / before)
        style.font_scale_dpi = scale


def units(value: float) -> float:
    """Pixels of so many units in the current context."""
    return value * imgui.get_style().font_scale_dpi
