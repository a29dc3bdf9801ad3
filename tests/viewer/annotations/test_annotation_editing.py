"""Drawing by hand: what presses, moves, releases and keys make of a set of annotations."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.annotations.editing import TOOLS, Editor, State
from rawmosaic.viewer.annotations.model import Annotation, AnnotationSet
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Polygon, Rectangle

TOLERANCE = 1.0


class Hand:
    """A hand on an editor, which says what was drawn."""

    def __init__(self, *shapes, tool: str = "select", **said):
        self.annotations = AnnotationSet([Annotation(shape, **said) for shape in shapes])
        self.editor = Editor(self.annotations)
        self.editor.tool = tool

    @property
    def shapes(self) -> list:
        return [self.annotations[number].shape for number in self.annotations]

    def press(self, x, y, *mods) -> bool:
        return self.editor.press(x, y, TOLERANCE, mods)

    def move(self, x, y, *mods) -> bool:
        return self.editor.move(x, y, TOLERANCE, mods)

    def release(self, x, y, *mods, panned=False) -> bool:
        return self.editor.release(x, y, TOLERANCE, mods, panned)

    def click(self, x, y, *mods) -> bool:
        self.move(x, y, *mods)
        taken = self.press(x, y, *mods)
        self.release(x, y, *mods)
        return taken

    def double_click(self, x, y, *mods) -> bool:
        self.click(x, y, *mods)
        taken = self.editor.double_click(x, y, TOLERANCE, mods)
        self.release(x, y, *mods)
        return taken

    def drag(self, *places, mods=()) -> bool:
        taken = self.press(*places[0], *mods)
        for place in places[1:]:
            self.move(*place, *mods)
        self.release(*places[-1], *mods)
        return taken


# drawing


def test_a_click_places_a_point_and_the_tool_stays():
    hand = Hand(tool="point")
    assert hand.click(3, 4)
    assert hand.click(5, 6)
    assert hand.shapes == [Points([(3, 4)]), Points([(5, 6)])]
    assert hand.editor.tool == "point"


@pytest.mark.parametrize(
    ("tool", "shape"),
    [("line", Line([(0, 0), (10, 4)])), ("rectangle", Rectangle(0, 0, 10, 4)), ("ellipse", Ellipse(0, 0, 10, 4))],
)
def test_a_drag_draws_and_selects_and_gives_back_the_arrow(tool, shape):
    hand = Hand(tool=tool)
    hand.editor.class_name = "nucleus"
    hand.press(0, 0)
    hand.move(5, 2)
    assert hand.editor.draft is not None
    assert len(hand.annotations) == 0
    hand.release(10, 4)
    assert hand.shapes == [shape]
    assert hand.annotations[0].class_name == "nucleus"
    assert hand.editor.selected == [0]
    assert (hand.editor.tool, hand.editor.draft, hand.editor.state) == ("select", None, State.IDLE)
    hand.annotations.undo()
    assert hand.shapes == []
    assert hand.editor.selected == []


def test_a_tool_that_is_kept_draws_again():
    hand = Hand(tool="ellipse")
    hand.editor.keep_tool = True
    hand.drag((0, 0), (5, 5))
    hand.drag((10, 0), (15, 5))
    assert len(hand.shapes) == 2


def test_two_clicks_make_a_line():
    hand = Hand(tool="line")
    hand.click(0, 0)
    assert hand.editor.state is State.DRAWING
    hand.move(3, 3)
    assert hand.editor.draft == Line([(0, 0), (3, 3)])
    hand.press(0.1, 0.1)  # not yet: a double click is no line
    hand.release(0.1, 0.1)
    hand.click(10, 4)
    assert hand.shapes == [Line([(0, 0), (10, 4)])]


def test_shift_and_alt_make_squares_and_centres():
    for mods, box in (
        (("shift",), (0, 0, 10, 10)),
        (("alt",), (-10, -4, 10, 4)),
        (("shift", "alt"), (-10, -10, 10, 10)),
    ):
        hand = Hand(tool="rectangle")
        hand.drag((0, 0), (10, 4), mods=mods)
        assert hand.shapes == [Rectangle(*box)]


def test_shift_turns_lines_in_steps():
    hand = Hand(tool="line")
    hand.drag((0, 0), (10, 0.9), mods=("shift",))
    assert hand.shapes[0].points_um[1, 1] == 0
    hand = Hand(tool="polygon")
    hand.click(0, 0)
    hand.click(10, 0.9, "shift")
    hand.click(10.5, 8, "shift")
    hand.editor.key("enter")
    (x1, y1), (x2, _) = hand.shapes[0].parts[0][0][1:].tolist()
    assert y1 == 0
    assert math.isclose(x1, math.hypot(10, 0.9), abs_tol=1e-5)
    assert math.isclose(x2, x1, abs_tol=1e-5)


@pytest.mark.parametrize("tool", ["rectangle", "ellipse", "freehand"])
def test_a_click_where_a_drag_is_due_draws_nothing(tool):
    hand = Hand(tool=tool)
    hand.click(3, 3)
    assert hand.shapes == []
    assert (hand.editor.draft, hand.editor.state, hand.annotations.undo_label) == (None, State.IDLE, None)


CORNERS = [(0, 0), (10, 0), (12, 8), (0, 9)]


@pytest.mark.parametrize("end", ["first corner", "double click", "enter", "double click that also presses"])
def test_corners_make_a_polygon_however_it_is_ended(end):
    hand = Hand(tool="polygon")
    for corner in CORNERS[:-1]:
        hand.click(*corner)
    assert isinstance(hand.editor.draft, Line | Polygon)
    if end.startswith("double click"):
        hand.click(*CORNERS[-1])
        if end.endswith("presses"):
            hand.press(*CORNERS[-1])
        hand.editor.double_click(*CORNERS[-1], TOLERANCE)
        hand.release(*CORNERS[-1])
    else:
        hand.click(*CORNERS[-1])
        hand.click(0.3, 0.3) if end == "first corner" else hand.editor.key("enter")
    assert hand.shapes == [Polygon([CORNERS])]
    assert hand.editor.tool == "select"


def test_corners_make_a_line_with_corners():
    hand = Hand(tool="polyline")
    for corner in CORNERS[:-1]:
        hand.click(*corner)
    hand.double_click(*CORNERS[-1])
    assert hand.shapes == [Line(CORNERS)]


def test_backspace_takes_a_corner_back_and_the_last_one_ends_it():
    hand = Hand(tool="polygon")
    for corner in [*CORNERS, (50, 50)]:
        hand.click(*corner)
    assert hand.editor.key("backspace")
    hand.editor.key("enter")
    assert hand.shapes == [Polygon([CORNERS])]
    hand.editor.tool = "polygon"
    hand.click(1, 1)
    hand.editor.key("backspace")
    assert hand.editor.state is State.IDLE
    assert not hand.editor.key("enter")


def test_two_corners_are_no_polygon_yet():
    hand = Hand(tool="polygon")
    hand.click(0, 0)
    hand.click(10, 0)
    assert not hand.editor.key("enter")
    assert hand.editor.state is State.DRAWING
    hand.click(10, 10)
    assert hand.editor.key("enter")
    assert len(hand.shapes) == 1


def test_a_line_drawn_freehand_becomes_a_polygon_of_few_corners():
    hand = Hand(tool="freehand")
    angles = np.linspace(0, 2 * np.pi, 2000)
    hand.drag(*np.stack([50 * np.cos(angles), 30 * np.sin(angles)], axis=-1).tolist())
    (polygon,) = hand.shapes
    assert 10 < len(polygon.parts[0][0]) < 200
    assert math.isclose(polygon.area_um2, math.pi * 50 * 30, rel_tol=0.01)


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool not in ("select", "point")])
def test_escape_cancels_then_puts_the_tool_away(tool):
    hand = Hand(tool=tool)
    hand.press(0, 0)
    hand.move(5, 5)
    assert hand.editor.key("escape")
    assert (hand.editor.state, hand.editor.draft, hand.shapes) == (State.IDLE, None, [])
    assert hand.editor.tool == tool
    assert hand.editor.key("escape")
    assert hand.editor.tool == "select"
    assert not hand.editor.key("escape")
    assert not hand.release(9, 9)
    assert hand.shapes == []


def test_the_hint_says_how_long_a_line_is_by_now():
    hand = Hand(tool="line")
    assert hand.editor.hint == TOOLS["line"]
    hand.press(0, 0)
    hand.move(3, 4)
    assert hand.editor.hint == "5 µm"


def test_a_tool_that_is_none_is_refused_by_name():
    with pytest.raises(OutOfRangeError, match="choose one of select, point"):
        Hand(tool="lasso")


# selecting


def test_a_press_inside_an_area_pans_and_a_click_selects_it():
    hand = Hand(Rectangle(0, 0, 100, 100))
    assert not hand.press(50, 50)
    hand.release(50, 50, panned=True)
    assert hand.editor.selected == []
    assert not hand.press(50, 50)
    hand.release(50, 50)
    assert hand.editor.selected == [0]
    hand.press(200, 200)
    hand.release(200, 200, panned=True)
    assert hand.editor.selected == [0]
    assert not hand.click(200, 200)
    assert hand.editor.selected == []


@pytest.mark.parametrize("mod", ["shift", "ctrl"])
def test_more_are_selected_with_a_modifier_and_taken_out_again(mod):
    hand = Hand(Rectangle(0, 0, 10, 10), Rectangle(20, 0, 30, 10))
    hand.click(5, 5)
    assert hand.click(25, 5, mod)
    assert hand.editor.selected == [0, 1]
    hand.click(5, 5, mod)
    assert hand.editor.selected == [1]


def test_a_rubber_band_selects_what_lies_in_it():
    hand = Hand(Rectangle(0, 0, 10, 10), Rectangle(20, 0, 30, 10), Rectangle(20, 20, 90, 90))
    assert hand.press(-5, -5, "shift")
    hand.move(40, 40, "shift")
    assert hand.editor.draft == Rectangle(-5, -5, 40, 40)
    hand.release(40, 40, "shift")
    assert hand.editor.selected == [0, 1]
    assert hand.editor.draft is None
    assert len(hand.annotations) == 3


def test_what_was_removed_is_no_longer_selected():
    hand = Hand(Points([(0, 0)]), Points([(50, 0)]))
    hand.click(0, 0)
    hand.click(50, 0, "shift")
    assert hand.editor.key("delete")
    assert hand.shapes == []
    assert hand.editor.selected == []
    assert not hand.editor.key("delete")
    hand.annotations.undo()
    assert len(hand.shapes) == 2


def test_the_cursor_says_what_a_press_would_do():
    hand = Hand(Rectangle(0, 0, 100, 100))
    assert hand.move(50, 50)
    assert (hand.editor.cursor, hand.editor.hovered) == ("hand", 0)
    assert not hand.move(51, 50)
    hand.click(50, 50)
    hand.move(50, 50)
    assert hand.editor.cursor == "move"
    for place, cursor in (((0, 0), "resize-nwse"), ((100, 50), "resize-ew"), ((50, 0), "resize-ns"), ((100, 0), "resize-nesw")):
        hand.move(*place)
        assert hand.editor.cursor == cursor
    hand.move(300, 300)
    assert (hand.editor.cursor, hand.editor.hovered) == ("arrow", None)
    hand.editor.tool = "line"
    assert hand.editor.cursor == "crosshair"


# moving and reshaping


def test_a_selected_area_is_moved_in_one_step():
    hand = Hand(Rectangle(0, 0, 100, 100), Ellipse(0, 200, 10, 210))
    hand.click(50, 50)
    assert hand.press(50, 50)
    hand.move(60, 50)
    assert hand.editor.instead == {0: Rectangle(10, 0, 110, 100)}
    assert hand.shapes[0] == Rectangle(0, 0, 100, 100)
    hand.move(70, 55)
    hand.release(70, 55)
    assert hand.shapes == [Rectangle(20, 5, 120, 105), Ellipse(0, 200, 10, 210)]
    assert hand.editor.instead == {}
    assert hand.annotations.undo()
    assert hand.shapes[0] == Rectangle(0, 0, 100, 100)
    assert not hand.annotations.undo()


def test_all_that_are_selected_move_together_but_locked_ones():
    hand = Hand(Points([(0, 0)]), Points([(50, 0)]))
    locked = hand.annotations.add(Annotation(Points([(90, 0)]), locked=True))
    hand.editor.select([0, 1, locked])
    hand.drag((90, 0), (95, 3))
    assert hand.shapes == [Points([(5, 3)]), Points([(55, 3)]), Points([(90, 0)])]
    hand.editor.key("delete")
    assert hand.shapes == [Points([(90, 0)])]


def test_shift_moves_along_an_axis():
    hand = Hand(Points([(0, 0)]), Points([(50, 0)]))
    hand.editor.select([0])
    hand.press(0, 0)
    hand.move(9, 4, "shift")
    hand.release(9, 4)
    hand.editor.select([0, 1])
    hand.press(50, 0)
    hand.move(50.5, 9, "shift")
    hand.release(50.5, 9, "shift")
    assert hand.shapes[1] == Points([(50, 9)])


def test_an_outline_is_taken_hold_of_at_once():
    hand = Hand(Line([(0, 0), (100, 0)]))
    assert hand.drag((50, 0.5), (50, 10.5))
    assert hand.shapes == [Line([(0, 10), (100, 10)])]


def test_a_click_that_trembles_moves_nothing():
    hand = Hand(Points([(0, 0)]))
    hand.editor.select([0])
    hand.drag((0, 0), (0.3, 0.3))
    assert hand.shapes == [Points([(0, 0)])]
    assert hand.annotations.undo_label is None


def test_a_handle_is_pulled_in_one_step():
    hand = Hand(Rectangle(0, 0, 100, 100))
    hand.click(50, 50)
    hand.drag((100.2, 99.8), (110, 105), (120, 130))
    assert hand.shapes == [Rectangle(0, 0, 120, 130)]
    hand.annotations.undo()
    assert hand.shapes == [Rectangle(0, 0, 100, 100)]


def test_escape_puts_back_what_is_being_moved():
    hand = Hand(Rectangle(0, 0, 100, 100))
    hand.click(50, 50)
    hand.press(0, 0)
    hand.move(-50, -50)
    assert hand.editor.instead
    assert hand.editor.key("escape")
    hand.release(-50, -50)
    assert hand.shapes == [Rectangle(0, 0, 100, 100)]
    assert hand.editor.selected == [0]


def test_a_double_click_on_an_edge_adds_a_corner_and_alt_takes_it_away():
    hand = Hand(Polygon([CORNERS]))
    hand.click(5, 4)
    hand.double_click(5, 0.2)
    assert hand.shapes[0].parts[0][0].tolist() == [[0, 0], [5, 0.2], [10, 0], [12, 8], [0, 9]]
    hand.click(5, 0.2, "alt")
    assert hand.shapes == [Polygon([CORNERS])]


def test_a_locked_annotation_keeps_its_shape():
    hand = Hand(Rectangle(0, 0, 100, 100), locked=True)
    hand.click(50, 50)
    assert hand.editor.selected == [0]
    hand.drag((100, 100), (120, 120))
    hand.drag((50, 50), (70, 70))
    assert hand.shapes == [Rectangle(0, 0, 100, 100)]


def test_an_undo_while_the_hand_moves_is_survived():
    hand = Hand()
    hand.annotations.add(Annotation(Rectangle(0, 0, 100, 100)))
    hand.editor.select([0])
    for place in ((0, 0), (50, 50)):
        hand.press(*place)
        hand.move(20, 20)
        hand.annotations.undo()
        hand.move(30, 30)
        hand.release(30, 30)
        assert hand.shapes == []
        hand.annotations.redo()
        hand.editor.select([0])


def test_no_order_of_events_breaks_the_hand():
    rng = random.Random(3)
    hand = Hand(Rectangle(0, 0, 10, 10), Polygon([CORNERS]), Points([(3, 3), (15, 15)]), Line([(0, 0), (20, 20)]))
    for _ in range(20_000):
        x, y = rng.choice([(rng.uniform(-5, 25), rng.uniform(-5, 25)), (0, 0), (10, 10)])
        mods = [mod for mod in ("shift", "ctrl", "alt") if rng.random() < 0.2]
        match rng.randrange(12):
            case 0:
                hand.editor.tool = rng.choice(list(TOOLS))
            case 1 | 2:
                hand.press(x, y, *mods)
            case 3 | 4:
                hand.release(x, y, *mods, panned=rng.random() < 0.3)
            case 5:
                hand.editor.double_click(x, y, TOLERANCE, mods)
            case 6:
                hand.editor.key(rng.choice(["escape", "enter", "delete", "backspace"]))
            case 7:
                rng.choice([hand.annotations.undo, hand.annotations.redo])()
            case _:
                hand.move(x, y, *mods)
        assert all(number in hand.annotations for number in hand.editor.selected)
        assert hand.editor.hint
