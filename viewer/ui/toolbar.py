"""The strip above the picture: open, navigate, undo, save, messages. What a narrow window has no room for is in a menu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from imgui_bundle import imgui

from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.overlays import Rect
from rawmosaic.viewer.ui.widgets import button, dim, panel, told, width_of

HEIGHT_UNITS = 36
GAP_UNITS = 14
"""Between groups of buttons."""

MORE = "More …"

GROUPS = (
    (
        ("open", "Open …", "another slide or acquisition, in this window (Ctrl+O); or drop it here"),
        ("recent", "Recent", "slides that were opened lately"),
    ),
    (
        ("fit", "Fit", "the whole mosaic (0)"),
        ("one to one", "1:1", "one screen pixel for one image pixel (Ctrl+1)"),
        ("go to", "Go to …", "field, well or stage position (Ctrl+G)"),
    ),
    (("undo", "Undo", "Ctrl+Z"), ("redo", "Redo", "Ctrl+Shift+Z")),
    (
        ("screenshot", "Screenshot", "the picture as it is, without panels (Ctrl+S)"),
        ("figure", "Figure …", "a region with scale bar and legend, at any resolution (Ctrl+E)"),
    ),
)


def draw(desk: Desk, area: Rect) -> None:
    """The buttons, grouped; those whose action the window does not offer are left out."""
    x, y, width, height = area
    flags = imgui.WindowFlags_.no_scrollbar.value | imgui.WindowFlags_.no_scroll_with_mouse.value
    with panel("toolbar", x, y, width, height, flags):
        imgui.set_cursor_pos_y(0.5 * (height - imgui.get_frame_height()))
        entries = [entry for group in GROUPS for entry in _offered(desk, group)]
        spacing, ends = imgui.get_style().item_spacing.x, _ends(desk)
        right = width - theme.units(10) - sum(width_of(label) + spacing for _, label in ends) + spacing
        room = right - imgui.get_cursor_pos_x() - theme.units(GAP_UNITS)
        fitting = fitting_count([_step(entry) for entry in entries], room, width_of(MORE) + spacing)
        for place, entry in enumerate(entries[:fitting]):
            if place:
                imgui.same_line(0, theme.units(GAP_UNITS) if entry.begins else -1.0)
            _draw_entry(desk, entry)
        if fitting < len(entries):
            if fitting:
                imgui.same_line()
            _more(desk, entries[fitting:])
        _recent_menu(desk)
        imgui.same_line(max(right, 0.0))
        _right_end(desk, ends)


class Entry(NamedTuple):
    """A button: the name of its action, what it says, its hint, and whether it begins a group."""

    name: str
    label: str
    hint: str
    begins: bool = False


def fitting_count(widths: Sequence[float], room: float, more: float) -> int:
    """How many of things of these widths fit beside each other; if not all, beside one more of the width `more`."""
    if sum(widths) <= room:
        return len(widths)
    left = room - more
    for number, width in enumerate(widths):
        left -= width
        if left < 0:
            return number
    return len(widths)


def _offered(desk: Desk, group: Sequence[tuple[str, str, str]]) -> list[Entry]:
    known = [Entry(*entry) for entry in group if entry[0] in desk.act]
    return [known[0]._replace(begins=True), *known[1:]] if known else []


def _step(entry: Entry) -> float:
    return width_of(entry.label) + (theme.units(GAP_UNITS) if entry.begins else imgui.get_style().item_spacing.x)


def _draw_entry(desk: Desk, entry: Entry) -> None:
    state = desk.act.get(f"{entry.name}?")
    answer = state() if state is not None else True
    hint = f"{entry.hint}\n{answer}" if isinstance(answer, str) else entry.hint
    if button(entry.label, hint, enabled=bool(answer)):
        _do(desk, entry)


def _do(desk: Desk, entry: Entry) -> None:
    if entry.name == "recent":
        imgui.open_popup("recent")
    else:
        desk.act[entry.name]()


def _more(desk: Desk, entries: Sequence[Entry]) -> None:
    """What does not fit, in a menu."""
    if button(MORE, "what this narrow window has no room for"):
        imgui.open_popup("more")
    chosen = None
    if imgui.begin_popup("more"):
        for entry in entries:
            state = desk.act.get(f"{entry.name}?")
            if imgui.menu_item_simple(entry.label, enabled=state is None or bool(state())):
                chosen = entry
            told(entry.hint)
        imgui.end_popup()
    if chosen is not None:
        _do(desk, chosen)


def _recent_menu(desk: Desk) -> None:
    if not imgui.begin_popup("recent"):
        return
    locations = desk.act["recent"]()
    for location in locations:
        if imgui.selectable(location, False)[0]:
            desk.act["open location"](location)
    if not locations:
        dim("nothing was opened yet")
    imgui.end_popup()


def _ends(desk: Desk) -> list[tuple[str, str]]:
    """Names and labels of the buttons at the right end."""
    count = f" ({desk.unread})" if desk.unread else ""
    return [("messages", f"Messages{count}"), ("side", "hide panel" if desk.shown.side else "show panel"), ("keys", "?")]


def _right_end(desk: Desk, ends: Sequence[tuple[str, str]]) -> None:
    for place, (name, label) in enumerate(ends):
        if place:
            imgui.same_line()
        if name == "messages":
            _messages(desk, label)
        elif name == "side":
            if button(label, "Tab"):
                desk.act["side"]()
        elif button(label, "keys and mouse"):
            desk.shown.keys ^= True


def _messages(desk: Desk, label: str) -> None:
    """Opens the list; coloured as the gravest of what was not read."""
    color = {"info": theme.TEXT, "warning": theme.WARNING, "error": theme.ERROR}[desk.gravest_unread]
    imgui.push_style_color(imgui.Col_.text.value, color)
    pressed = imgui.button(f"{label}###messages")
    imgui.pop_style_color()
    told(f"what was told; {desk.unread} not read yet" if desk.unread else "what was told")
    if pressed:
        desk.shown.messages ^= True
