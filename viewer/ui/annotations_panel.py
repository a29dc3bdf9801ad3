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
from rawmosaic.viewer.ui.widgets import button, dim, told, wrapped

ROWS_SHOWN = 8
_KINDS = {Points: "point", Line: "line", Rectangle: "rectangle", Ellipse: "ellipse", Polygon: "polygon"}


def draw(desk: Desk) -> None:
    """Tools, list, and the selected annotation."""
    board = desk.board
    _tools(desk)
    dim(board.editor.hint) if imgui.calc_text_size(board.editor.hint).x < imgui.get_content_region_avail().x else wrapped(
        board.editor.hint, theme.DIM
    )
    if len(board.annotations):
        _list(desk)
    selected = board.editor.selected
    if selected:
        _selected(desk, selected)
    if board.problem:
        wrapped(board.problem, theme.ERROR)


def _tools(desk: Desk) -> None:
    editor = desk.board.editor
    right = imgui.get_cursor_screen_pos().x + imgui.get_content_region_avail().x
    for place, tool in enumerate(TOOLS):
        width = imgui.calc_text_size(tool).x + 2 * imgui.get_style().frame_padding.x
        if place and imgui.get_item_rect_max().x + imgui.get_style().item_spacing.x + width < right:
            imgui.same_line()
        if button(tool, TOOLS[tool], lit=editor.tool == tool):
            editor.tool = tool
            desk.shown.annotations = True
            desk.touch()


def _list(desk: Desk) -> None:
    board = desk.board
    numbers = list(board.annotations)
    flags = imgui.TableFlags_.row_bg.value | imgui.TableFlags_.scroll_y.value
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
            label = annotation.name or annotation.class_name or f"{_KINDS.get(type(annotation.shape), 'shape')} {number + 1}"
            flags = imgui.SelectableFlags_.span_all_columns.value | imgui.SelectableFlags_.allow_double_click.value
            if imgui.selectable(label, number in board.editor.selected, flags)[0]:
                board.editor.select([number])
                if imgui.is_mouse_double_clicked(0):
                    _go_to(desk, number)
                desk.touch()
            told("double click: go there")
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
    annotations, last = board.annotations, board.annotations[numbers[-1]]
    if len(numbers) > 1:
        dim(f"{len(numbers)} selected")
    else:
        imgui.set_next_item_width(-1)
        changed, name = imgui.input_text_with_hint("##name", "name", last.name)
        if changed:
            annotations.update(numbers, "name", merge=("name", numbers[-1]), name=name)
            desk.touch()
    imgui.set_next_item_width(-theme.units(34))
    changed, name = imgui.input_text_with_hint("##class", "class, for instance: nucleus", last.class_name)
    if changed:
        annotations.update(numbers, "class", merge=("class", numbers[-1]), class_name=name)
        desk.touch()
    imgui.same_line()
    color = [part / 255 for part in rgb(annotations.color_of(last))]
    changed, color = imgui.color_edit3(
        "##color", color, imgui.ColorEditFlags_.no_inputs.value | imgui.ColorEditFlags_.no_label.value
    )
    if changed:
        if last.class_name:
            annotations.set_class(last.class_name, hex_color(color))
        else:
            annotations.update(numbers, "colour", merge=("colour", numbers[-1]), color=hex_color(color))
        desk.touch()
    told("the colour of its class; its own, if it has none")
    if button("remove", "Delete"):
        board.editor.remove_selected()
        desk.touch()
    if "measure" in desk.act:
        imgui.same_line()
        if button("measure", "raw counts of each channel inside"):
            desk.act["measure"](numbers)
    for line in desk.measured:
        wrapped(line)
