"""The list of what was told: each line with its time, to be copied or cleared."""

from __future__ import annotations

import time
from collections.abc import Iterable

from imgui_bundle import imgui

from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk, Message
from rawmosaic.viewer.ui.overlays import Rect
from rawmosaic.viewer.ui.widgets import button, dim, place_within, stay_within, told

KIND_COLORS = {"info": theme.TEXT, "warning": theme.WARNING, "error": theme.ERROR}
SIZE_UNITS = (560.0, 260.0)


def draw(desk: Desk, area: Rect) -> None:
    """All that was told, newest first, over the lower part of the picture; what is seen is read."""
    place_within(area, SIZE_UNITS, (0.5, 1.0))
    shown, desk.shown.messages = imgui.begin("Messages", True, imgui.WindowFlags_.no_saved_settings.value)
    stay_within(area)
    if shown:
        desk.read_messages()
        if button("copy all", "every line with its time, to the clipboard", enabled=bool(desk.messages)):
            imgui.set_clipboard_text(as_text(desk.messages))
        imgui.same_line()
        if button("clear", "forget all lines", enabled=bool(desk.messages)):
            desk.clear_messages()
        _lines(desk)
    imgui.end()


def _lines(desk: Desk) -> None:
    if not desk.messages:
        dim("nothing was told")
        return
    imgui.begin_child("lines")
    for number, message in enumerate(reversed(desk.messages)):
        imgui.push_id(number)
        dim(clock(message))
        imgui.same_line()
        _line(message)
        imgui.pop_id()
    imgui.end_child()


def _line(message: Message) -> None:
    """A text that breaks at the panel's edge, and is copied by a click."""
    text = message.text + (f"  ({message.times} times)" if message.times > 1 else "")
    corner, room = imgui.get_cursor_screen_pos(), max(imgui.get_content_region_avail().x, theme.units(60))
    size = imgui.calc_text_size(text, False, room)
    if imgui.invisible_button("##line", (room, max(size.y, 1.0))):
        imgui.set_clipboard_text(message.text)
    hovered = imgui.is_item_hovered()
    told("click: copy this line")
    drawn, color = imgui.get_window_draw_list(), KIND_COLORS[message.kind]
    if hovered:
        drawn.add_rect_filled(corner, (corner.x + room, corner.y + size.y), imgui.get_color_u32(imgui.Col_.header_hovered.value))
    drawn.add_text(imgui.get_font(), imgui.get_font_size(), corner, imgui.get_color_u32(imgui.ImVec4(*color)), text, room)


def clock(message: Message) -> str:
    """When it was told: hours, minutes and seconds of this place."""
    return time.strftime("%H:%M:%S", time.localtime(message.told_at))


def as_text(messages: Iterable[Message]) -> str:
    """A line for each, with its day and time, its kind unless it is mere information, and how often it was told."""
    lines = []
    for message in messages:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message.told_at))
        kind = "" if message.kind == "info" else f"{message.kind}: "
        times = f" ({message.times} times)" if message.times > 1 else ""
        lines.append(f"{when}  {kind}{message.text}{times}")
    return "\n".join(lines) + "\n"
