"""Drawing and changing annotations by hand: a state machine of mouse and keys that knows no window.

Places are mosaic µm; a tolerance is what a hand misses by, some six screen pixels, in µm. Modifiers are "shift", "ctrl", "alt".

    idle ──press──► drawing ──release, or the last click──► idle      a shape was added, and is selected
      │ ▲             └─Escape─► idle                                 nothing happened
      │ └──────────────────────────────┐
      ├─press on a handle──► reshaping ─┤ release: one step that can be undone
      ├─press on a selected one, or on an outline──► moving ─┤        Escape: nothing happened
      ├─Shift + press beside──► rubber band ─────────────────┘
      └─press elsewhere──► clicking: the window pans meanwhile; released where it was, the click selects, or selects nothing
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from enum import Enum

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.annotations.geometry import (
    distance_um,
    found_at,
    found_within,
    handle_at,
    handle_cursor,
    reshaped,
    simplified,
    size_text,
    snapped,
    squared,
    with_corner,
    without_corner,
)
from rawmosaic.viewer.annotations.model import Annotation, AnnotationSet
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Polygon, Rectangle, Shape

TOOLS = {
    "select": "Click selects, Shift adds; drag moves; pull a handle; double-click an edge adds a corner, Alt+click removes one",
    "point": "Click places a point",
    "line": "Drag, or click both ends; Shift turns in steps",
    "polyline": "Click corners; double-click or Enter ends, Backspace takes one back; Shift turns in steps",
    "rectangle": "Drag from corner to corner; Shift: square, Alt: from the centre",
    "ellipse": "Drag from corner to corner; Shift: circle, Alt: from the centre",
    "polygon": "Click corners; the first one, a double-click or Enter closes, Backspace takes one back",
    "freehand": "Draw around it with the button held",
}
"""Every tool, and what to do with it."""

_STRAY_PART = 0.5
"""Of the tolerance: a hand that clicks moves less than this."""

_FREEHAND_PART = 0.15
"""Of the tolerance, a pixel: as near as corners follow a line drawn freehand."""

Place = tuple[float, float]


class State(Enum):
    """What a hand is doing."""

    IDLE = "idle"
    DRAWING = "drawing"
    RESHAPING = "reshaping"
    MOVING = "moving"
    BAND = "rubber band"
    CLICKING = "clicking"


class Editor:
    """A hand on a set of annotations.

    Methods for events return whether there is something new to draw, but `press` and `double_click` whether the event was
    taken: where it was not, the window pans. `draft` is the shape that is being drawn; `instead` holds the shapes of
    annotations that are being moved or reshaped. The set changes only when the hand is done.
    """

    def __init__(self, annotations: AnnotationSet, class_name: str = ""):
        self.annotations = annotations
        self.class_name = class_name
        self.keep_tool = False
        """Whether a tool stays in hand when its shape is done; points always do."""
        self.hovered: int | None = None
        self.instead: dict[int, Shape] = {}
        self.cursor = "arrow"
        """"arrow", "crosshair", "hand", "move", "resize-ns", "resize-ew", "resize-nwse" or "resize-nesw"."""
        self.state = State.IDLE
        self._tool = "select"
        self._selected: list[int] = []
        self._corners: list[Place] = []
        self._start: Place = (0.0, 0.0)
        self._at: Place = (0.0, 0.0)
        self._draft: Shape | None = None
        self._handle = 0
        self._strayed = False
        self._clicked: int | None = None
        self._asker: Callable[[Shape], None] | None = None

    @property
    def tool(self) -> str:
        """The tool in hand, a key of TOOLS."""
        return self._tool

    @tool.setter
    def tool(self, tool: str) -> None:
        if tool not in TOOLS:
            raise OutOfRangeError("drawing tool", tool, "choose one of " + ", ".join(TOOLS))
        self.cancel()
        self._tool, self._asker = tool, None
        self.hovered = None
        self.cursor = "arrow" if tool == "select" else "crosshair"

    def ask(self, tool: str, take: Callable[[Shape], None]) -> None:
        """Have one shape drawn that is no annotation: `take` gets it. Another tool, or Escape, is a refusal."""
        self.tool = tool
        self._asker = take

    @property
    def is_asked(self) -> bool:
        """Whether the next shape is drawn for somebody who asked for it."""
        return self._asker is not None

    @property
    def draft(self) -> Shape | None:
        """The shape that is being drawn, or the rubber band, to be drawn over the annotations."""
        return self._draft

    @property
    def hint(self) -> str:
        """What to do now, or how large what is drawn is by now."""
        shape = self._draft or next(iter(self.instead.values()), None)
        return (size_text(shape) if shape is not None and self.state is not State.BAND else "") or TOOLS[self._tool]

    @property
    def selected(self) -> list[int]:
        """Numbers of the selected annotations that exist, the one that was selected last at the end."""
        return [number for number in self._selected if number in self.annotations]

    def select(self, numbers: Collection[int]) -> None:
        """Select these and no others."""
        self._selected = [number for number in dict.fromkeys(numbers) if number in self.annotations]

    # events

    def press(self, x_um: float, y_um: float, tolerance_um: float, mods: Collection[str] = ()) -> bool:
        """The button went down; returns whether the press was taken."""
        self._at = (x_um, y_um)
        if self._tool == "select":
            return self._press_to_select(x_um, y_um, tolerance_um, mods)
        if self.state is not State.DRAWING:
            self._start, self._corners, self._strayed = (x_um, y_um), [], False
            self.state = State.DRAWING
        if self._tool == "point":
            self._finish(Points([(x_um, y_um)]))
        elif self._tool in ("polygon", "polyline"):
            self._add_corner(self._aimed(x_um, y_um, mods), tolerance_um)
        elif self._tool == "line" and self._corners:  # the second click
            if _far(self._start, self._at, tolerance_um):
                self._draw(x_um, y_um, mods)
                self._finish(self._draft)
            self._strayed = False
        else:
            self._corners = [(x_um, y_um)]
        return True

    def move(self, x_um: float, y_um: float, tolerance_um: float, mods: Collection[str] = ()) -> bool:
        """The mouse moved, with or without the button; returns whether there is something new to draw."""
        self._at = (x_um, y_um)
        self._strayed = self._strayed or _far(self._start, self._at, tolerance_um)
        match self.state:
            case State.IDLE if self._tool == "select":
                return self._hover(x_um, y_um, tolerance_um)
            case State.DRAWING:
                if self._tool == "freehand" and _far(self._corners[-1], self._at, 0.5 * tolerance_um):
                    self._corners.append(self._at)
                self._draw(x_um, y_um, mods)
            case State.RESHAPING if self._strayed:
                number = self._only_free()
                if number is None:  # taken back by an undo meanwhile
                    return self.cancel()
                self.instead = {number: reshaped(self.annotations[number].shape, self._handle, x_um, y_um, "shift" in mods)}
            case State.MOVING if self._strayed:
                self._carry(mods)
            case State.BAND:
                self._draft = Rectangle(*self._start, *self._at)
            case _:
                return False
        return True

    def release(self, x_um: float, y_um: float, tolerance_um: float, mods: Collection[str] = (), panned: bool = False) -> bool:
        """The button went up, also of a press that was not taken; `panned`: the window moved meanwhile, so it was no click."""
        state = self.state
        if state in (State.RESHAPING, State.MOVING, State.BAND, State.DRAWING):
            self.move(x_um, y_um, tolerance_um, mods)
        match state:
            case State.CLICKING:
                self.state = State.IDLE
                if not panned:
                    self._click(mods)
            case State.BAND:
                found = found_within(self.annotations, self._draft.box_um) if self._draft is not None else []
                self.select([*self._selected, *found])
                self.cancel()
            case State.MOVING | State.RESHAPING:
                self._put_down()
            case State.DRAWING:
                self._release_drawing(tolerance_um)
            case _:
                return False
        return True

    def double_click(self, x_um: float, y_um: float, tolerance_um: float, mods: Collection[str] = ()) -> bool:
        """The button went down a second time, instead of another press; returns whether that was taken."""
        if self._tool in ("polygon", "polyline"):
            return self._finish_corners(tolerance_um) or self.state is State.DRAWING
        if self._tool != "select":
            return self.press(x_um, y_um, tolerance_um, mods)
        if (number := self._only_free()) is not None:
            shape = self.annotations[number].shape
            changed = with_corner(shape, x_um, y_um, tolerance_um)
            if changed is not None and handle_at(shape, x_um, y_um, 0.5 * tolerance_um) is None:
                self.cancel()
                self._reshape(number, changed[0], "add corner")
                return True
        return self.press(x_um, y_um, tolerance_um, mods)

    def key(self, name: str) -> bool:
        """ "escape", "enter", "delete" or "backspace"; returns whether it meant something."""
        drawing = self.state is State.DRAWING
        if name == "escape":
            return self._escape()
        if name == "enter" and drawing:
            return self._finish_corners(0.0)
        if name == "backspace" and drawing and self._corners:
            self._corners.pop()
            if not self._corners:
                self.cancel()
            else:
                self._draw(*self._at, ())
            return True
        if name in ("delete", "backspace") and self.state is State.IDLE:
            return self.remove_selected()
        return False

    def remove_selected(self) -> bool:
        """Remove what is selected, but for locked annotations; False if there is none."""
        free = [number for number in self.selected if not self.annotations[number].locked]
        if free:
            self.annotations.remove(free)
            self.hovered = None
        return bool(free)

    def cancel(self) -> bool:
        """Give up what is being done; returns whether there was something."""
        busy = self.state is not State.IDLE
        self.state, self._draft, self.instead, self._corners = State.IDLE, None, {}, []
        return busy

    # selecting, moving, reshaping

    def _press_to_select(self, x_um: float, y_um: float, tolerance_um: float, mods: Collection[str]) -> bool:
        self.cancel()
        self._start, self._strayed = (x_um, y_um), False
        if (number := self._only_free()) is not None:
            shape = self.annotations[number].shape
            handle = handle_at(shape, x_um, y_um, tolerance_um)
            if handle is not None and "alt" in mods:
                fewer = without_corner(shape, handle)
                if fewer is not None:
                    self._reshape(number, fewer, "remove corner")
                return True
            if handle is not None:
                self.state, self._handle = State.RESHAPING, handle
                return True
        found = found_at(self.annotations, x_um, y_um, tolerance_um)
        adds = "shift" in mods or "ctrl" in mods
        if found is None and "shift" in mods:
            self.state = State.BAND
            return True
        if adds or found is None or not self._is_held(found, x_um, y_um, tolerance_um):
            # a large area must not stand in the way of panning: it is selected by a click, and moved once it is selected
            self.state, self._clicked = State.CLICKING, found
            return adds and found is not None
        if found not in self._selected:
            self.select([found])
        self.state = State.MOVING
        return True

    def _is_held(self, number: int, x_um: float, y_um: float, tolerance_um: float) -> bool:
        return number in self._selected or distance_um(self.annotations[number].shape, x_um, y_um) <= tolerance_um

    def _click(self, mods: Collection[str]) -> None:
        if not ("shift" in mods or "ctrl" in mods):
            self.select([] if self._clicked is None else [self._clicked])
        elif self._clicked in self._selected:
            self._selected.remove(self._clicked)
        elif self._clicked is not None:
            self._selected.append(self._clicked)

    def _carry(self, mods: Collection[str]) -> None:
        dx, dy = self._at[0] - self._start[0], self._at[1] - self._start[1]
        if "shift" in mods:
            dx, dy = (dx, 0.0) if abs(dx) >= abs(dy) else (0.0, dy)
        free = [number for number in self.selected if not self.annotations[number].locked]
        self.instead = {number: self.annotations[number].shape.moved(dx, dy) for number in free}

    def _put_down(self) -> None:
        label = "move" if self.state is State.MOVING else "reshape"
        changed = {
            number: replace(self.annotations[number], shape=shape)
            for number, shape in self.instead.items()
            if number in self.annotations
        }
        self.cancel()
        if changed:
            self.annotations.change_all(changed, label)

    def _reshape(self, number: int, shape: Shape, label: str) -> None:
        self.annotations.change(number, replace(self.annotations[number], shape=shape), label)

    def _only_free(self) -> int | None:
        selected = self.selected
        return selected[0] if len(selected) == 1 and not self.annotations[selected[0]].locked else None

    def _hover(self, x_um: float, y_um: float, tolerance_um: float) -> bool:
        before = self.hovered, self.cursor
        self.hovered = found_at(self.annotations, x_um, y_um, tolerance_um)
        self.cursor = "arrow" if self.hovered is None else "hand"
        if self.hovered in self.selected and not self.annotations[self.hovered].locked:
            self.cursor = "move"
        if (number := self._only_free()) is not None:
            shape = self.annotations[number].shape
            if (handle := handle_at(shape, x_um, y_um, tolerance_um)) is not None:
                self.cursor = handle_cursor(shape, handle)
        return (self.hovered, self.cursor) != before

    def _escape(self) -> bool:
        if self.cancel():
            return True
        if self._tool != "select":
            self.tool = "select"
            return True
        if self.selected:
            self._selected = []
            return True
        return False

    # drawing

    def _aimed(self, x_um: float, y_um: float, mods: Collection[str]) -> Place:
        return snapped(self._corners[-1], (x_um, y_um)) if "shift" in mods and self._corners else (x_um, y_um)

    def _add_corner(self, place: Place, tolerance_um: float) -> None:
        closes = self._tool == "polygon" and len(self._corners) >= 3 and not _far(self._corners[0], place, 2 * tolerance_um)
        if closes:
            self._finish_corners(tolerance_um)
            return
        self._corners.append(place)
        self._draw(*place, ())

    def _draw(self, x_um: float, y_um: float, mods: Collection[str]) -> None:
        """Make the draft as it would be if the hand were done here."""
        start, place = self._start, (x_um, y_um)
        match self._tool:
            case "line":
                self._draft = Line([start, snapped(start, place) if "shift" in mods else place])
            case "rectangle" | "ellipse":
                place = squared(start, place) if "shift" in mods else place
                first = (2 * start[0] - place[0], 2 * start[1] - place[1]) if "alt" in mods else start
                self._draft = (Rectangle if self._tool == "rectangle" else Ellipse)(*first, *place)
            case "freehand":
                self._draft = _chain(self._corners, closed=True)
            case "polygon" | "polyline":
                self._draft = _chain([*self._corners, self._aimed(x_um, y_um, mods)], closed=self._tool == "polygon")

    def _release_drawing(self, tolerance_um: float) -> None:
        match self._tool:
            case "line" if self._strayed:
                self._finish(self._draft)
            case "rectangle" | "ellipse":
                self._finish(self._draft if self._strayed and min(self._draft.size_um) > 0 else None)
            case "freehand":
                points = simplified(np.array([*self._corners, self._corners[0]]), _FREEHAND_PART * tolerance_um)[:-1]
                self._finish(Polygon([points]) if len(points) >= 3 else None)

    def _finish_corners(self, tolerance_um: float) -> bool:
        """End a polygon or line with corners, without those that were clicked twice."""
        if self.state is not State.DRAWING or self._tool not in ("polygon", "polyline"):
            return False
        distinct = [place for n, place in enumerate(self._corners) if n == 0 or _far(self._corners[n - 1], place, tolerance_um)]
        if self._tool == "polygon" and len(distinct) > 1 and not _far(distinct[0], distinct[-1], tolerance_um):
            distinct.pop()
        closed = self._tool == "polygon"
        if len(distinct) < (3 if closed else 2):
            return False
        self._finish(_chain(distinct, closed))
        return True

    def _finish(self, shape: Shape | None) -> None:
        self.cancel()
        if shape is None:
            return
        if self._asker is not None:
            take = self._asker
            self.tool = "select"
            take(shape)
            return
        number = self.annotations.add(Annotation(shape, class_name=self.class_name))
        if self._tool != "point" and not self.keep_tool:
            self.tool = "select"
        self.select([number])


def _chain(places: list[Place], closed: bool) -> Shape | None:
    """What so many corners make: nothing, a line, a polygon."""
    if len(places) < 2:
        return None
    return Polygon([places]) if closed and len(places) >= 3 else Line(places)


def _far(one: Place, other: Place, tolerance_um: float) -> bool:
    """Whether a hand that went from one place to the other meant to."""
    return float(np.hypot(other[0] - one[0], other[1] - one[1])) > _STRAY_PART * tolerance_um
