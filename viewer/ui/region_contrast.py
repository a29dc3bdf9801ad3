"""Automatic contrast of a drawn area: of the selected annotation, or of a rectangle that is dragged for the purpose."""

from __future__ import annotations

from rawmosaic.viewer.annotations.shapes import Shape
from rawmosaic.viewer.ui.desk import Desk


def adjust_to_region(desk: Desk) -> None:
    """Adjust the chosen channels to the selected area; with none selected, to the next rectangle that is dragged."""
    board = desk.board
    if board.editor.is_asked:
        board.editor.tool = "select"
        return
    channels = desk.chosen_channels()
    shape = selected_area(desk)
    if shape is not None:
        desk.act["auto shape"](channels, shape)
        return
    desk.shown.annotations = True  # else the hand that draws is not heard
    board.editor.ask("rectangle", lambda drawn: desk.act["auto shape"](channels, drawn))
    desk.say("drag a rectangle over what the contrast is to fit; Esc: no")
    desk.touch()


def selected_area(desk: Desk) -> Shape | None:
    """The area that was selected last; lines and points are none."""
    board = desk.board
    if not desk.shown.annotations:
        return None
    shapes = (board.annotations[number].shape for number in reversed(board.editor.selected))
    return next((shape for shape in shapes if shape.is_area), None)
