"""What lies over the picture: status line, scale bar, statistics, keys."""

from __future__ import annotations

from itertools import zip_longest

from imgui_bundle import imgui

from rawmosaic.viewer.controls import KEYS
from rawmosaic.viewer.places import equivalent_magnification
from rawmosaic.viewer.probe import counts_at, spot_at
from rawmosaic.viewer.scale_bar import fitting_bar
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk, silence_text
from rawmosaic.viewer.ui.widgets import overlay, packed, panel, place_within, shortened, stay_within, told, wrapped
from rawmosaic.viewer.zoom import digits

Rect = tuple[float, float, float, float]
"""x, y, width, height, window pixels."""

STATUS_UNITS = 26
MESSAGE_SHARE = 0.4
"""Of the status line: so much of a message is seen however much there is under the cursor."""
KEYS_UNITS, TWO_COLUMNS_UNITS = 1060, 700
MOST_COUNTS = 6
"""Channels whose counts are told in the status line."""

_KIND_COLORS = {"info": theme.TEXT, "warning": theme.WARNING, "error": theme.ERROR}


def status_line(desk: Desk, area: Rect) -> None:
    """Scale, cursor, field and counts on the left; what is going on, or what went wrong, on the right."""
    x, y, width, height = area
    flags = imgui.WindowFlags_.no_scrollbar.value | imgui.WindowFlags_.no_scroll_with_mouse.value
    with panel("status", x, y, width, height, flags, theme.PANEL):
        imgui.set_cursor_pos_y(0.5 * (height - imgui.get_text_line_height()))
        imgui.text(scale_text(desk))
        place, (message, kind) = place_text(desk), news(desk)
        left = imgui.get_item_rect_max().x + theme.units(18) - x
        if place:
            room = width - left
            if desk.message is not None or desk.away:
                room -= min(imgui.calc_text_size(message).x, MESSAGE_SHARE * width) + theme.units(28)
            imgui.same_line(left)
            imgui.text(shortened(place, room))
            left = imgui.get_item_rect_max().x + theme.units(18) - x
        if message:
            text = shortened(message, width - left - theme.units(10))
            imgui.same_line(max(left, width - theme.units(10) - imgui.calc_text_size(text).x))
            imgui.text_colored(imgui.ImVec4(*_KIND_COLORS[kind]), text)
            if text != message:
                told(message)


def scale_text(desk: Desk) -> str:
    """µm of a screen pixel, the scale, and the objective that would show it at 1:1."""
    camera = desk.engine.camera
    magnification, known = equivalent_magnification(camera, desk.slide.header.objective)
    about = "" if known else "about "
    return (
        f"{digits(camera.pixel_size_um / camera.scale)} µm/px   {digits(100 * camera.scale)} %   {about}{digits(magnification)}×"
    )


def place_text(desk: Desk) -> str:
    """Where the cursor is: mosaic µm, field, its mosaic index, raw counts as soon as they are read."""
    if desk.cursor_um is None:
        return ""
    x_um, y_um = desk.cursor_um
    parts = [f"x {x_um:.1f}  y {y_um:.1f} µm"]
    engine, slide = desk.engine, desk.slide
    view, geometry = engine.view(), engine.geometry
    spot = next((spot for c in view.channels if (spot := spot_at(geometry, slide.acquired(view.z, view.t), c, x_um, y_um))), None)
    if spot is not None:
        row, column, scene = (int(slide.fields[name][spot.field]) for name in ("row", "column", "scene"))
        index = f" (r{row} c{column})" if row >= 0 and column >= 0 else ""
        well = f" {slide.scenes[scene]}" if 0 <= scene < len(slide.scenes) else ""
        parts.append(f"field {spot.field}{index}{well}")
        channels = view.channels[:MOST_COUNTS]
        key = ("counts", view.position_set, view.z, view.t, channels, spot.field, spot.x, spot.y)
        counts = desk.later.get(key, lambda: counts_at(slide, geometry, channels, view.z, view.t, x_um, y_um))
        if counts:
            parts.append("  ".join(f"{engine.channels[c].shown_name} {count}" for c, count in counts.items()))
    return "    ".join(parts)


def news(desk: Desk) -> tuple[str, str]:
    """(text, kind): who does not answer, else a message, else what is being loaded or cannot be read."""
    if desk.away:
        return silence_text(desk.away), "warning"
    if (message := desk.message) is not None:
        return message.text, message.kind
    report = desk.engine.report
    if report.tiles_failed:
        failures = desk.engine.failures()
        return f"{report.tiles_failed} tiles cannot be read: {failures[0] if failures else ''}", "error"
    if report.tiles_missing:
        return f"loading {report.tiles_missing} tiles", "info"
    return ("overview" if report.overview else ""), "info"


def scale_bar(desk: Desk, area: Rect) -> None:
    """A bar of a round length in the lower left corner of the picture."""
    x, y, width, height = area
    bar = fitting_bar(desk.engine.camera.px_per_um, width)
    left, bottom, thick = x + theme.units(18), y + height - theme.units(18), theme.units(4)
    drawn = imgui.get_background_draw_list()
    ink, halo = ((0, 0, 0), (1, 1, 1)) if desk.engine.background == "white" else ((1, 1, 1), (0, 0, 0))
    for grow, color in ((theme.units(1.5), packed(halo, 0.75)), (0.0, packed(ink, 1.0))):
        drawn.add_rect_filled((left - grow, bottom - thick - grow), (left + bar.length_px + grow, bottom + grow), color)
    text_width = imgui.calc_text_size(bar.text).x
    at = (left + 0.5 * (bar.length_px - text_width), bottom - thick - theme.units(5) - imgui.get_text_line_height())
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        drawn.add_text((at[0] + dx * theme.units(1), at[1] + dy * theme.units(1)), packed(halo, 0.9), bar.text)
    drawn.add_text(at, packed(ink, 1.0), bar.text)


def statistics(desk: Desk, area: Rect) -> None:
    """What the last frames did."""
    with overlay("statistics", area[0] + theme.units(10), area[1] + theme.units(10)):
        for line in desk.statistics.lines():
            imgui.text(line)


def keys(desk: Desk) -> None:
    """All keys over the whole window, in two columns where there is room; `?`, Escape or the cross closes."""
    size = imgui.get_io().display_size
    area = (0.0, 0.0, size.x, size.y)
    columns = 2 if area[2] >= theme.units(TWO_COLUMNS_UNITS) else 1
    place_within(area, (KEYS_UNITS * columns / 2, 0), (0.5, 0.5))
    flags = imgui.WindowFlags_.no_collapse.value | imgui.WindowFlags_.no_saved_settings.value
    _, desk.shown.keys = imgui.begin("Keys and mouse", True, flags)
    stay_within(area)
    lines = list(KEYS.items())
    rows = -(-len(lines) // columns)
    width = max(imgui.calc_text_size(key).x for key in KEYS)
    if imgui.begin_table("keys", 2 * columns, imgui.TableFlags_.row_bg.value):
        for number in range(columns):
            imgui.table_setup_column(f"key {number}", imgui.TableColumnFlags_.width_fixed.value, width)
            imgui.table_setup_column(f"what {number}", imgui.TableColumnFlags_.width_stretch.value)
        for row in zip_longest(*(lines[first : first + rows] for first in range(0, len(lines), rows)), fillvalue=("", "")):
            imgui.table_next_row()
            for key, what in row:
                imgui.table_next_column()
                imgui.text(key)
                imgui.table_next_column()
                wrapped(what, theme.DIM)
        imgui.end_table()
    imgui.end()
