"""The mixer by hand: palettes, the colour column of each shown channel, and what is taken from other channels (unmixing)."""

from __future__ import annotations

import numpy as np
from imgui_bundle import imgui

from rawmosaic.viewer.palettes import PALETTES, palette
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.widgets import button, dim, shortened, told

MOST_COLUMNS = 6
"""More channels than this do not fit beside each other: then the unmixing of the active channel alone is edited."""


def draw(desk: Desk) -> None:
    """Palette, columns, unmixing."""
    _palettes(desk)
    _columns(desk)
    if len(desk.engine.channels) > 1:
        _unmixing(desk)


def _palettes(desk: Desk) -> None:
    imgui.set_next_item_width(-1)
    if imgui.begin_combo("##palette", "colours of all channels from a palette …"):
        for name in PALETTES:
            if imgui.selectable(name, False)[0]:
                for look, color in zip(desk.engine.channels, palette(name, len(desk.engine.channels)), strict=True):
                    look.color = color
                desk.touch()
        imgui.end_combo()
    told("all but the first are told apart by colour-blind eyes")


def _columns(desk: Desk) -> None:
    """Red, green and blue of the shown channels; more than 1 and less than 0 are allowed."""
    shown = [number for number, look in enumerate(desk.engine.channels) if look.visible]
    if not shown:
        return
    flags = imgui.TableFlags_.row_bg.value | imgui.TableFlags_.sizing_stretch_prop.value
    if imgui.begin_table("columns", 4, flags):
        for name, weight in (("channel", 1.4), ("red", 1.0), ("green", 1.0), ("blue", 1.0)):
            imgui.table_setup_column(name, 0, weight)
        imgui.table_headers_row()
        for number in shown[:24]:
            imgui.push_id(number)
            imgui.table_next_row()
            imgui.table_next_column()
            imgui.align_text_to_frame_padding()
            name = desk.engine.channels[number].shown_name
            imgui.text(shortened(name, imgui.get_content_region_avail().x))
            told(name)
            column = list(desk.engine.channels[number].rgb())
            for part in range(3):
                imgui.table_next_column()
                imgui.set_next_item_width(-1)
                changed, column[part] = imgui.drag_float(f"##{part}", column[part], 0.005, 0.0, 0.0, "%.2f")
                if changed:
                    desk.engine.channels[number].column = tuple(column)
                    desk.touch()
            imgui.pop_id()
        imgui.end_table()


def _unmixing(desk: Desk) -> None:
    """What is taken of each channel for the active one: 1 of itself, a little less than nothing of what bleeds into it."""
    engine = desk.engine
    number = min(desk.active_channel, len(engine.channels) - 1)
    matrix = np.eye(len(engine.channels)) if engine.unmixing is None else np.array(engine.unmixing, np.float64)
    dim(shortened(f"unmixing: {engine.channels[number].shown_name} is made of", imgui.get_content_region_avail().x))
    others = [number, *(n for n, look in enumerate(engine.channels) if n != number and (look.visible or matrix[number, n]))]
    for other in others[: 2 * MOST_COLUMNS]:
        name, room = engine.channels[other].shown_name, imgui.get_content_region_avail().x - theme.units(120 + 6)
        imgui.set_next_item_width(theme.units(120))
        label = f"× {shortened(name, room - imgui.calc_text_size('× ').x)}###u{other}"
        changed, share = imgui.drag_float(label, float(matrix[number, other]), 0.005, 0.0, 0.0, "%.3f")
        told(f"how much of {name} is taken; less than nothing takes away what bleeds into this channel")
        if changed:
            matrix[number, other] = share
            engine.unmixing = None if np.array_equal(matrix, np.eye(len(matrix))) else matrix
            desk.touch()
    if "unmix" in desk.act:
        if button("from reference regions", "from annotations whose class is a channel's name, drawn where that dye is alone"):
            desk.act["unmix"]()
        imgui.same_line()
    if button("no unmixing", "every channel is what was acquired", enabled=engine.unmixing is not None):
        engine.unmixing = None
        desk.touch()
