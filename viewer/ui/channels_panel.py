"""The channel table: swatch, name, what is known of it, shown or not, alone; groups, and presets below it.

Good at four channels and at sixty: a filter, rows only as far as they are seen, groups that fold.
"""

from __future__ import annotations

from collections.abc import Sequence

from imgui_bundle import imgui

from rawmosaic.viewer import groups
from rawmosaic.viewer.channels import parse_color
from rawmosaic.viewer.groups import Row
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk, Naming
from rawmosaic.viewer.ui.presets_menu import PresetsMenu
from rawmosaic.viewer.ui.widgets import button, dim, shortened, told

ROWS_SHOWN = 12
FILTER_FROM = 8
"""Fewer channels need no search."""

INDENT_UNITS = 8
MENU_UNITS = 200
"""What of a name is written in a menu."""

_NAME_HINT = (
    "(click: edit its contrast; double click: give it another name; Ctrl+click, Shift+click: select several; right click: more)"
)
_RIGHT = imgui.PopupFlags_.mouse_button_right.value


class ChannelsPanel:
    """The panel, and its menu of presets."""

    def __init__(self):
        self._presets = PresetsMenu()

    def draw(self, desk: Desk) -> None:
        """The table, above it a filter where there are many, below it groups and presets."""
        looks = desk.engine.channels
        rows = listed(desk)
        if len(looks) >= FILTER_FROM:
            _filter(desk, [row.channel for row in rows if row.channel is not None])
        _table(desk, rows)
        if len(looks) > 1:
            _grouping(desk)
            imgui.same_line()
        self._presets.draw(desk)


def listed(desk: Desk) -> list[Row]:
    """The rows of the table, as filter and folded groups leave them."""
    return groups.table_rows(desk.engine.groups, _names(desk), desk.channel_filter)


def matching(desk: Desk) -> list[int]:
    """Numbers of the channels that the filter leaves."""
    return sorted({row.channel for row in listed(desk) if row.channel is not None})


def _names(desk: Desk) -> list[str]:
    """What is searched: names as they are shown, and the slide's."""
    return [f"{look.label} {look.name}" if look.label else look.name for look in desk.engine.channels]


def _filter(desk: Desk, numbers: list[int]) -> None:
    looks = desk.engine.channels
    imgui.set_next_item_width(-theme.units(116))
    _, desk.channel_filter = imgui.input_text_with_hint("##filter", "find a channel", desk.channel_filter)
    told("words that are in a channel's name, or in that of its group")
    imgui.same_line()
    if button("all", "show all that are listed"):
        groups.show(looks, numbers)
        desk.touch()
    imgui.same_line()
    if button("none", "hide all that are listed"):
        groups.show(looks, numbers, False)
        desk.touch()


def _table(desk: Desk, rows: list[Row]) -> None:
    flags = imgui.TableFlags_.row_bg.value | imgui.TableFlags_.scroll_y.value | imgui.TableFlags_.pad_outer_x.value
    row = imgui.get_frame_height() + 2 * imgui.get_style().cell_padding.y
    if not rows:
        dim("no channel has such a name")
        return
    if not imgui.begin_table("channels", 4, flags, (0, row * min(len(rows), ROWS_SHOWN) + theme.units(1))):
        return
    fixed, stretch = imgui.TableColumnFlags_.width_fixed.value, imgui.TableColumnFlags_.width_stretch.value
    imgui.table_setup_column("shown", fixed)
    imgui.table_setup_column("colour", fixed)
    imgui.table_setup_column("name", stretch)
    imgui.table_setup_column("alone", fixed)
    clipper = imgui.ListClipper()
    clipper.begin(len(rows), row)
    while clipper.step():
        for place in range(clipper.display_start, clipper.display_end):
            imgui.push_id(place)
            group, channel = rows[place]
            if channel is not None:
                _row(desk, channel, rows, inside=group is not None)
            elif group < len(desk.engine.groups):  # else a row above has just taken one apart
                _heading(desk, group)
            imgui.pop_id()
    imgui.end_table()


# channels


def _row(desk: Desk, number: int, rows: Sequence[Row], *, inside: bool) -> None:
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
    if inside:
        imgui.set_cursor_pos_x(imgui.get_cursor_pos_x() + theme.units(INDENT_UNITS))
    _name(desk, number, rows)
    imgui.table_next_column()
    alone = groups.is_alone(desk.engine.channels, (number,))
    if button("S", "show this one alone; again: all" + (f" (Shift+{number + 1})" if number < 9 else ""), lit=alone):
        desk.touch(desk.controls.solo(number))


def _name(desk: Desk, number: int, rows: Sequence[Row]) -> None:
    """The name, which selects, and is typed anew after a double click; the whole of it, wavelengths and exposure in the hint."""
    if desk.naming is not None and desk.naming.channel == number:
        _type_name(desk, desk.naming)
        return
    look, active = desk.engine.channels[number], number == desk.active_channel
    imgui.align_text_to_frame_padding()
    label = shortened(look.shown_name or f"channel {number + 1}", imgui.get_content_region_avail().x)
    flags = imgui.SelectableFlags_.allow_double_click.value
    if imgui.selectable(f"{label}###name", active or number in desk.selected, flags)[0]:
        if imgui.is_mouse_double_clicked(imgui.MouseButton_.left):
            _begin_name(desk, number)
        else:
            _select(desk, number, [row.channel for row in rows if row.channel is not None])
    told(known(desk, number) + "\n" + _NAME_HINT)
    if imgui.begin_popup_context_item("menu", _RIGHT):
        _channel_menu(desk, number)
        imgui.end_popup()


def _begin_name(desk: Desk, number: int) -> None:
    desk.naming = Naming(number, desk.engine.channels[number].shown_name)


def _type_name(desk: Desk, naming: Naming) -> None:
    """The field of a channel's name: Enter or a click elsewhere takes it, Escape leaves it as it was, empty is the slide's."""
    if not naming.begun:
        imgui.set_keyboard_focus_here()
    imgui.set_next_item_width(-1)
    select = imgui.InputTextFlags_.auto_select_all.value
    own = desk.engine.channels[naming.channel].name
    naming.text = imgui.input_text_with_hint("##channel-name", own, naming.text, select)[1]
    told(f"what you call it; empty: “{own}”, as it was acquired")
    if imgui.is_item_active():
        naming.begun = True
    elif naming.begun:
        text, look = naming.text.strip(), desk.engine.channels[naming.channel]
        look.label = "" if text == look.name else text
        desk.naming = None
        desk.touch()


def _select(desk: Desk, number: int, order: list[int]) -> None:
    """By a click: this one; with Ctrl one more or less; with Shift all from the active one, as they are listed."""
    io = imgui.get_io()
    if io.key_ctrl:
        desk.selected = (desk.selected or {desk.active_channel}) ^ {number}
        if number not in desk.selected and desk.selected:
            number = min(desk.selected)
    elif io.key_shift and desk.active_channel in order:
        low, high = sorted((order.index(desk.active_channel), order.index(number)))
        desk.selected = set(order[low : high + 1])
    else:
        desk.selected = set()
    desk.active_channel = number


def _channel_menu(desk: Desk, number: int) -> None:
    engine = desk.engine
    chosen = desk.chosen_channels() if number in desk.selected else [number]
    many = f" the {len(chosen)} selected" if len(chosen) > 1 else ""
    if imgui.menu_item_simple("rename …"):
        _begin_name(desk, number)
    if engine.channels[number].label and imgui.menu_item_simple(
        f"call it “{shortened(engine.channels[number].name, theme.units(MENU_UNITS))}” again"
    ):
        engine.channels[number].label = ""
        desk.touch()
    if imgui.menu_item_simple(f"new group of{many or ' this channel'}"):
        _make_group(desk, chosen)
    for place, group in enumerate(engine.groups):
        if not set(chosen) <= set(group.channels) and imgui.menu_item_simple(f"add{many} to {group.name}###add{place}"):
            engine.groups = groups.joined(engine.groups, place, chosen)
    if any(set(chosen) & set(group.channels) for group in engine.groups) and imgui.menu_item_simple(
        f"take{many} out of the group"
    ):
        engine.groups = groups.without_channels(engine.groups, chosen)


# groups


def _heading(desk: Desk, number: int) -> None:
    """A group's line: shown or not, folded or not, its name, alone."""
    engine = desk.engine
    group = engine.groups[number]
    imgui.table_next_row()
    imgui.table_next_column()
    seen = groups.shown(engine.channels, group.channels)
    changed, _ = imgui.checkbox_flags("##shown", {True: 3, False: 0, None: 1}[seen], 3)
    told("show or hide the whole group")
    if changed:
        groups.show(engine.channels, group.channels, seen is not True)
        desk.touch()
    imgui.table_next_column()
    if imgui.arrow_button("##fold", imgui.Dir.right if group.folded else imgui.Dir.down):
        engine.groups = groups.folded(engine.groups, number)
    told("list its channels" if group.folded else "fold it")
    imgui.table_next_column()
    _group_name(desk, number)
    imgui.table_next_column()
    if button("S", "show this group alone; again: all", lit=groups.is_alone(engine.channels, group.channels)):
        groups.show_alone(engine.channels, group.channels)
        desk.touch()


def _group_name(desk: Desk, number: int) -> None:
    """The name, which selects its channels; typed into when it is double-clicked."""
    group = desk.engine.groups[number]
    imgui.align_text_to_frame_padding()
    selected = desk.selected == set(group.channels)
    label = shortened(f"{group.name or 'no name'} ({len(group.channels)})", imgui.get_content_region_avail().x)
    flags = imgui.SelectableFlags_.allow_double_click.value
    if imgui.selectable(f"{label}###group", selected, flags)[0]:
        _select_group(desk, number)
    names = [desk.engine.channels[channel].shown_name for channel in group.channels]
    told(f"{group.name}: {_few(names)}\n(click: select its channels, then contrast is theirs; right click: more)")
    if imgui.begin_popup_context_item("menu", _RIGHT):
        _group_menu(desk, number)
        imgui.end_popup()


def _group_menu(desk: Desk, number: int) -> None:
    engine = desk.engine
    if imgui.menu_item_simple("rename"):
        _select_group(desk, number)
        desk.renaming = number
    if "auto slide" in desk.act and imgui.menu_item_simple("automatic contrast, each its own"):
        desk.act["auto slide"](list(engine.groups[number].channels))
    if imgui.menu_item_simple("contrast as it was at first"):
        desk.touch(desk.controls.reset(engine.groups[number].channels))
    if imgui.menu_item_simple("take the group apart"):
        _take_apart(desk, number)


def _grouping(desk: Desk) -> None:
    """Below the table: a group of what is selected; or, where that is one, its name, and taking it apart."""
    chosen = desk.chosen_channels()
    number = groups.group_of(desk.engine.groups, chosen) if desk.selected else None
    if number is None:
        desk.renaming = None
        several = len(chosen) > 1
        label = f"group these {len(chosen)}" if several else "group"
        hint = (
            "shown, hidden, folded and adjusted together"
            if several
            else "select several channels first: Ctrl+click or Shift+click"
        )
        if button(f"{label}###make", hint, enabled=several):
            _make_group(desk, chosen)
        return
    group = desk.engine.groups[number]
    imgui.set_next_item_width(theme.units(118))
    if desk.renaming == number:
        imgui.set_keyboard_focus_here()
        desk.renaming = None
    changed, name = imgui.input_text_with_hint("##group-name", "name of the group", group.name)
    told("the name of the selected group")
    if changed:
        desk.engine.groups = groups.renamed(desk.engine.groups, number, name)
    imgui.same_line()
    if button("ungroup", "take the group apart; its channels stay"):
        _take_apart(desk, number)


def _make_group(desk: Desk, channels: list[int]) -> None:
    engine = desk.engine
    name = groups.proposed_name(engine.groups, [engine.channels[channel].shown_name for channel in channels])
    engine.groups = groups.grouped(engine.groups, channels, name)
    _select_group(desk, len(engine.groups) - 1)
    desk.renaming = len(engine.groups) - 1


def _select_group(desk: Desk, number: int) -> None:
    members = desk.engine.groups[number].channels
    desk.selected = set(members)
    if desk.active_channel not in desk.selected:
        desk.active_channel = members[0]


def _take_apart(desk: Desk, number: int) -> None:
    desk.engine.groups = groups.ungrouped(desk.engine.groups, number)
    desk.selected, desk.renaming = set(), None


def _few(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# what is known


def known(desk: Desk, number: int) -> str:
    """What the acquisition says of a channel, in one line each."""
    channel = desk.slide.channels[number]
    look = desk.engine.channels[number]
    facts = [f"{look.label} (acquired as {channel.name})" if look.label else channel.name]
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
