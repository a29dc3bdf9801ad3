"""Small pieces that several panels use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imgui_bundle import imgui

from rawmosaic.viewer.ui import theme

HINT_UNITS = 420
"""A hint that is longer breaks."""

FIXED = (
    imgui.WindowFlags_.no_move.value
    | imgui.WindowFlags_.no_resize.value
    | imgui.WindowFlags_.no_collapse.value
    | imgui.WindowFlags_.no_title_bar.value
    | imgui.WindowFlags_.no_saved_settings.value
    | imgui.WindowFlags_.no_bring_to_front_on_focus.value
)
OVERLAY = (
    FIXED | imgui.WindowFlags_.no_inputs.value | imgui.WindowFlags_.no_nav.value | imgui.WindowFlags_.always_auto_resize.value
)


@contextmanager
def panel(
    name: str, x: float, y: float, width: float, height: float, flags: int = 0, color: tuple = theme.PANEL
) -> Iterator[None]:
    """A fixed panel at a place, pixels."""
    imgui.set_next_window_pos((x, y))
    imgui.set_next_window_size((width, height))
    imgui.push_style_color(imgui.Col_.window_bg.value, color)
    imgui.push_style_var(imgui.StyleVar_.window_rounding.value, 0.0)
    imgui.begin(name, None, FIXED | flags)
    try:
        yield
    finally:
        imgui.end()
        imgui.pop_style_var()
        imgui.pop_style_color()


@contextmanager
def overlay(name: str, x: float, y: float, pivot: tuple[float, float] = (0, 0)) -> Iterator[None]:
    """A translucent box over the picture that takes no events; `pivot`: which of its points lies at (x, y)."""
    imgui.set_next_window_pos((x, y), imgui.Cond_.always.value, pivot)
    imgui.push_style_color(imgui.Col_.window_bg.value, theme.OVERLAY)
    imgui.begin(name, None, OVERLAY)
    try:
        yield
    finally:
        imgui.end()
        imgui.pop_style_color()


def place_within(area: tuple[float, float, float, float], size_units: tuple[float, float], pivot: tuple[float, float]) -> None:
    """Where the next window that can be moved appears: in an area (x, y, width, height, pixels), no larger than that.

    `pivot`: (0.5, 1) at the middle of the lower edge, for instance. A height of 0 units is that of what is in it.
    """
    x, y, width, height = area
    margin = theme.units(10)
    room = max(width - 2 * margin, 1.0), max(height - 2 * margin, 1.0)
    size = min(theme.units(size_units[0]), room[0]), min(theme.units(size_units[1]), room[1])
    at = x + margin + pivot[0] * room[0], y + margin + pivot[1] * room[1]
    appearing = imgui.Cond_.appearing.value
    imgui.set_next_window_size(size, imgui.Cond_.always.value if not size_units[1] else appearing)
    imgui.set_next_window_size_constraints((min(theme.units(120), room[0]), 0), room)
    imgui.set_next_window_pos(at, appearing, pivot)


def stay_within(area: tuple[float, float, float, float]) -> None:
    """Bring the current window back into an area that became smaller, or out of which it was dragged."""
    x, y, width, height = area
    at, size = imgui.get_window_pos(), imgui.get_window_size()
    inside = min(max(at.x, x), x + max(width - size.x, 0.0)), min(max(at.y, y), y + max(height - size.y, 0.0))
    if inside != (at.x, at.y):
        imgui.set_window_pos(inside)


def shortened(text: str, room: float) -> str:
    """The text, cut with an ellipsis to so many pixels."""
    if imgui.calc_text_size(text).x <= room:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if imgui.calc_text_size(text[:middle] + "…").x <= room else (low, middle - 1)
    return text[:low] + "…" if low else ""


def width_of(label: str) -> float:
    """Of a button with this label, pixels."""
    return imgui.calc_text_size(label, True).x + 2 * imgui.get_style().frame_padding.x


def same_line_if_fits(label: str, *, boxed: bool = False) -> None:
    """Beside the last widget, if a button with this label (or a check box) has room there; else below it."""
    style = imgui.get_style()
    box = imgui.get_frame_height() + style.item_inner_spacing.x + imgui.calc_text_size(label, True).x
    right = imgui.get_cursor_screen_pos().x + imgui.get_content_region_avail().x
    if imgui.get_item_rect_max().x + style.item_spacing.x + (box if boxed else width_of(label)) <= right:
        imgui.same_line()


def section(title: str, *, opened: bool = True) -> bool:
    """A foldable heading; whether it is unfolded."""
    return imgui.collapsing_header(title, imgui.TreeNodeFlags_.default_open.value if opened else 0)


def button(label: str, hint: str, *, enabled: bool = True, lit: bool = False) -> bool:
    """A button with a hint; `lit` while what it stands for is on."""
    imgui.begin_disabled(not enabled)
    if lit:
        imgui.push_style_color(imgui.Col_.button.value, (0.20, 0.38, 0.55, 1.0))
    pressed = imgui.button(label)
    if lit:
        imgui.pop_style_color()
    imgui.end_disabled()
    told(hint)
    return pressed


def told(hint: str) -> None:
    """A hint for the last widget."""
    hovered = imgui.HoveredFlags_  # by the cursor: a field that the keyboard is in would cover what is below it
    flags = hovered.delay_short.value | hovered.allow_when_disabled.value | hovered.no_nav_override.value
    if imgui.is_item_hovered(flags) and imgui.begin_tooltip():
        imgui.push_text_wrap_pos(theme.units(HINT_UNITS))
        imgui.text_unformatted(hint)
        imgui.pop_text_wrap_pos()
        imgui.end_tooltip()


def choice(label: str, value: str, choices: tuple[str, ...], hint: str) -> str:
    """A drop-down list; the chosen one."""
    imgui.set_next_item_width(-theme.units(92))
    if imgui.begin_combo(label, value):
        for each in choices:
            if imgui.selectable(each, each == value)[0]:
                value = each
        imgui.end_combo()
    told(hint)
    return value


def dim(text: str) -> None:
    """Text of less weight."""
    imgui.text_colored(imgui.ImVec4(*theme.DIM), text)


def wrapped(text: str, color: tuple = theme.TEXT) -> None:
    """Text that breaks at the panel's edge."""
    imgui.push_style_color(imgui.Col_.text.value, color)
    imgui.text_wrapped(text)
    imgui.pop_style_color()


def packed(color: tuple, alpha: float = 1.0) -> int:
    """An (r, g, b) or (r, g, b, a) colour, 0 to 1, as ImGui's draw lists take it."""
    return imgui.get_color_u32(imgui.ImVec4(*color[:3], alpha if len(color) == 3 else color[3]))
