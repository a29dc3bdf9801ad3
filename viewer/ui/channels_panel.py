"""The channel table: swatch, name, what is known of it, shown or not, alone. Good at four channels and at sixty."""

from __future__ import annotations

from imgui_bundle import imgui

from rawmosaic.viewer.channels import parse_color
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.widgets import button, dim, told

ROWS_SHOWN = 12
FILTER_FROM = 8
"""Fewer channels need no search."""


def draw(desk: Desk) -> None:
    """The table, and above it a filter where there are many."""
    looks = desk.engine.channels
    numbers = matching(desk)
    if len(looks) >= FILTER_FROM:
        _filter(desk, numbers)
    flags = imgui.TableFlags_.row_bg.value | imgui.TableFlags_.scroll_y.value | imgui.TableFlags_.pad_outer_x.value
    row = imgui.get_frame_height() + 2 * imgui.get_style().cell_padding.y
    height = row * min(max(len(numbers), 1), ROWS_SHOWN) + theme.units(4)
    if not imgui.begin_table("channels", 4, flags, (0, height)):
        return
    fixed, stretch = imgui.TableColumnFlags_.width_fixed.value, imgui.TableColumnFlags_.width_stretch.value
    imgui.table_setup_column("shown", fixed)
    imgui.table_setup_column("colour", fixed)
    imgui.table_setup_column("name", stretch)
    imgui.table_setup_column("alone", fixed)
    clipper = imgui.ListClipper()
    clipper.begin(len(numbers), row)
    while clipper.step():
        for place in range(clipper.display_start, clipper.display_end):
            imgui.push_id(numbers[place])
            _row(desk, numbers[place])
            imgui.pop_id()
    imgui.end_table()


def matching(desk: Desk) -> list[int]:
    """Numbers of the channels whose name holds the filter's words."""
    words = desk.channel_filter.lower().split()
    return [n for n, look in enumerate(desk.engine.channels) if all(word in look.name.lower() for word in words)]


def _filter(desk: Desk, numbers: list[int]) -> None:
    looks = desk.engine.channels
    imgui.set_next_item_width(-theme.units(116))
    _, desk.channel_filter = imgui.input_text_with_hint("##filter", "find a channel", desk.channel_filter)
    imgui.same_line()
    if button("all", "show all that are listed"):
        for number in numbers:
            looks[number].visible = True
        desk.touch()
    imgui.same_line()
    if button("none", "hide all that are listed"):
        for number in numbers:
            looks[number].visible = False
        desk.touch()


def _row(desk: Desk, number: int) -> None:
    look = desk.engine.channels[number]
    imgui.table_next_row()
    imgui.table_next_column()
    changed, look.visible = imgui.checkbox("##shown", look.visible)
    told(f"show or hide ({number + 1})" if number < 9 else "show or hide")
    desk.touch(changed)
    imgui.table_next_column()
    flags = imgui.ColorEditFlags_.no_inputs.value | imgui.ColorEditFlags_.no_label.value
    changed, color = imgui.color_edit3("##colour", list(parse_color(look.color)), flags)
    if changed:
        look.color = hex_color(color)
        desk.touch()
    imgui.table_next_column()
    _name(desk, number)
    imgui.table_next_column()
    alone = look.visible and sum(each.visible for each in desk.engine.channels) == 1
    if button("S", "show this one alone; again: all" + (f" (Shift+{number + 1})" if number < 9 else ""), lit=alone):
        desk.touch(desk.controls.solo(number))


def _name(desk: Desk, number: int) -> None:
    """The name, which selects; wavelengths and exposure in the hint."""
    look, active = desk.engine.channels[number], number == desk.active_channel
    imgui.align_text_to_frame_padding()
    if imgui.selectable(look.name or f"channel {number + 1}", active or number in desk.selected)[0]:
        _select(desk, number)
    hint = known(desk, number)
    told(hint + "\n(click: edit its contrast; Ctrl+click: select several)")


def _select(desk: Desk, number: int) -> None:
    io = imgui.get_io()
    if io.key_ctrl:
        desk.selected = (desk.selected or {desk.active_channel}) ^ {number}
    elif io.key_shift:
        low, high = sorted((desk.active_channel, number))
        desk.selected = set(range(low, high + 1))
    else:
        desk.selected = set()
    desk.active_channel = number


def known(desk: Desk, number: int) -> str:
    """What the acquisition says of a channel, in one line each."""
    channel = desk.slide.channels[number]
    facts = [channel.name]
    if channel.excitation_nm:
        facts.append(f"excitation {channel.excitation_nm:g} nm")
    if channel.emission_nm:
        facts.append(f"emission {channel.emission_nm:g} nm")
    if channel.exposure_ms:
        facts.append(f"exposure {channel.exposure_ms:g} ms")
    return "\n".join(facts)


def facts_line(desk: Desk, number: int) -> None:
    """Wavelengths and exposure, where known."""
    lines = known(desk, number).split("\n")[1:]
    if lines:
        dim(" · ".join(lines))


def hex_color(rgb: list[float] | tuple[float, ...]) -> str:
    """``#rrggbb`` of (r, g, b), 0 to 1."""
    return "#" + "".join(f"{round(255 * min(max(part, 0.0), 1.0)):02x}" for part in rgb[:3])
