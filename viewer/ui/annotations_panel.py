"""The list of annotations, the tools that draw them, and what is said of the selected one."""

from __future__ import annotations

from imgui_bundle import imgui

from rawmosaic.viewer.annotations.editing import TOOLS
from rawmosaic.viewer.annotations.geometry import size_text
from rawmosaic.viewer.annotations.model import rgb
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Polygon, Rectangle
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.channels_panel import hex_color
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.widgets import button, dim, same_line_if_fits, shortened, told, wrapped

ROWS_SHOWN = 8
NOTES_LINES = 2
_WRAPS = imgui.InputTextFlags_.word_wrap.value
_KINDS = {Points: "point", Line: "line", Rectangle: "rectangle", Ellipse: "ellipse", Polygon: "polygon"}


def draw(desk: Desk) -> None:
    """Tools, list, and the selected annotation."""
    board = desk.board
    _tools(desk)
    wrapped(board.editor.hint, theme.DIM)
    if len(board.annotations):
        _list(desk)
    selected = board.editor.selected
    if selected:
        _selected(desk, selected)
    if board.problem:
        wrapped(board.problem, theme.ERROR)


def _tools(desk: Desk) -> None:
    editor = desk.board.editor
    for place, tool in enumerate(TOOLS):
        if place:
            same_line_if_fits(tool)
        if button(tool, TOOLS[tool], lit=editor.tool == tool):
            editor.tool = tool
            desk.shown.annotations = True
            desk.touch()


def _list(desk: Desk) -> None:
    board = desk.board
    numbers = list(board.annotations)
    flags = imgui.TableFlags_.row_bg.value | imgui.TableFlags_.scroll_y.value | imgui.TableFlags_.pad_outer_x.value
    row = imgui.get_text_line_height() + 2 * imgui.get_style().cell_padding.y
    height = row * min(len(numbers), ROWS_SHOWN) + theme.units(4)
    if not imgui.begin_table("annotations", 2, flags, (0, height)):
        return
    imgui.table_setup_column("what", imgui.TableColumnFlags_.width_stretch.value)
    imgui.table_setup_column("size", imgui.TableColumnFlags_.width_fixed.value)
    clipper = imgui.ListClipper()
    clipper.begin(len(numbers), row)
    while clipper.step():
        for place in range(clipper.display_start, clipper.display_end):
            number = numbers[place]
            annotation = board.annotations[number]
            imgui.push_id(number)
            imgui.table_next_row()
            imgui.table_next_column()
            color = imgui.ImVec4(*(part / 255 for part in rgb(board.annotations.color_of(annotation))), 1.0)
            imgui.color_button("##class", color, imgui.ColorEditFlags_.no_tooltip.value, (theme.units(10), theme.units(10)))
            imgui.same_line()
            name = annotation.name or annotation.class_name or f"{_KINDS.get(type(annotation.shape), 'shape')} {number + 1}"
            label = f"{shortened(name, imgui.get_content_region_avail().x)}###what"
            flags = imgui.SelectableFlags_.span_all_columns.value | imgui.SelectableFlags_.allow_double_click.value
            if imgui.selectable(label, number in board.editor.selected, flags)[0]:
                board.editor.select([number])
                if imgui.is_mouse_double_clicked(0):
                    _go_to(desk, number)
                desk.touch()
            told(f"{name}\ndouble click: go there")
            imgui.table_next_column()
            dim(size_text(annotation.shape))
            imgui.pop_id()
    imgui.end_table()


def _go_to(desk: Desk, number: int) -> None:
    """Its middle in the middle; nearer or farther only where it would not fit."""
    left, top, right, bottom = desk.board.annotations[number].shape.box_um
    camera = desk.engine.camera
    grown = (left - 0.5 * (right - left), top - 0.5 * (bottom - top), right + 0.5 * (right - left), bottom + 0.5 * (bottom - top))
    fitted = camera.fitted(grown) if right > left or bottom > top else camera
    scale = min(fitted.scale, camera.scale) if right > left or bottom > top else camera.scale
    desk.engine.look_at(0.5 * (left + right), 0.5 * (top + bottom), scale)


def _selected(desk: Desk, numbers: list[int]) -> None:
    board = desk.board
    last = board.annotations[numbers[-1]]
    if len(numbers) > 1:
        dim(f"{len(numbers)} selected")
    else:
        imgui.set_next_item_width(-1)
        changed, name = imgui.input_text_with_hint("##name", "name", last.name)
        _edited(desk, numbers, "name", changed, name=name)
    imgui.set_next_item_width(-theme.units(34))
    changed, name = imgui.input_text_with_hint("##class", "class, for instance: nucleus", last.class_name)
    _edited(desk, numbers, "class", changed, class_name=name)
    imgui.same_line()
    _color(desk, numbers)
    if len(numbers) == 1:
        size = (-1, imgui.get_text_line_height() * NOTES_LINES + 2 * imgui.get_style().frame_padding.y)
        changed, notes = imgui.input_text_multiline("##notes", board.annotations[numbers[-1]].notes, size, _WRAPS)
        told("notes, kept with it")
        _edited(desk, numbers, "notes", changed, notes=notes)
    if button("remove", "Delete"):
        board.editor.remove_selected()
        desk.touch()
    if "measure" in desk.act:
        imgui.same_line()
        if button("measure", "raw counts of each channel inside"):
            desk.measured_of = _subject(desk, numbers)
            desk.act["measure"](numbers)
    if desk.measured and desk.measured_of == _subject(desk, numbers):
        for line in desk.measured:
            wrapped(line)
        if button("copy", "the measurement as text, to the clipboard"):
            imgui.set_clipboard_text("\n".join(desk.measured) + "\n")


def _edited(desk: Desk, numbers: list[int], what: str, changed: bool, **values: object) -> None:
    """After a field that is typed into: a change is made, and all of them from clicking into the field on are one step."""
    if imgui.is_item_activated():
        desk.edits += 1
    if changed:
        desk.board.annotations.update(numbers, what, merge=(what, desk.edits), **values)
        desk.touch()


def _color(desk: Desk, numbers: list[int]) -> None:
    annotations = desk.board.annotations
    last = annotations[numbers[-1]]
    color = [part / 255 for part in rgb(annotations.color_of(last))]
    flags = imgui.ColorEditFlags_.no_inputs.value | imgui.ColorEditFlags_.no_label.value
    changed, color = imgui.color_edit3("##color", color, flags)
    if imgui.is_item_clicked() or imgui.is_mouse_clicked(0):  # each pull in the colour picker is a step
        desk.edits += 1
    if changed:
        if last.class_name:
            annotations.set_class(last.class_name, hex_color(color), merge=desk.edits)
        else:
            annotations.update(numbers, "colour", merge=("colour", desk.edits), color=hex_color(color))
        desk.touch()
    told("the colour of its class; its own, if it has none")


def _subject(desk: Desk, numbers: list[int]) -> tuple:
    """What a measurement is about: it is out of date when the shapes are others, or other planes are shown."""
    engine = desk.engine
    shapes = tuple(desk.board.annotations[number].shape for number in numbers)
    return tuple(numbers), shapes, engine.position_set, engine.z, engine.t
