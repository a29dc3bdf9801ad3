"""Annotations: shapes with a name, a class and notes, in a set that knows what lies where and can undo its changes.

An annotation and a class are values. `AnnotationSet` alone has state; it belongs to one thread, and gives `snapshot`s to others.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.annotations.shapes import Box, Shape

CLASS_COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4")
"""Given in turns to classes that come without a colour."""

PLAIN_COLOR = "#ffff00"
"""Of annotations without a class and a colour of their own."""

MOST_STEPS = 500
"""Edits that can be undone."""


@dataclass(frozen=True)
class AnnotationClass:
    """What kind of thing is annotated; `color` is "#rrggbb"."""

    name: str
    color: str

    def __post_init__(self):
        object.__setattr__(self, "color", checked_color(self.color))


@dataclass(frozen=True)
class Annotation:
    """A shape and what is said of it. `class_name` is "" without a class, `color` "" unless it has one of its own.

    `uid` is the same for as long as the annotation lives, also in files. A locked one is not moved or reshaped by hand.
    `foreign` is what a file said of it that rawmosaic does not understand; it is written back.
    """

    shape: Shape
    name: str = ""
    class_name: str = ""
    notes: str = ""
    color: str = ""
    locked: bool = False
    uid: str = field(default_factory=lambda: str(uuid.uuid4()), compare=False)
    foreign: Mapping = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def __post_init__(self):
        if self.color:
            object.__setattr__(self, "color", checked_color(self.color))


class Snapshot(NamedTuple):
    """What a set held at one moment, for other threads: annotations in drawing order, and the classes."""

    annotations: tuple[Annotation, ...]
    classes: tuple[AnnotationClass, ...]
    revision: int


class _Change(NamedTuple):
    number: int
    before: Annotation | None
    after: Annotation | None


@dataclass(frozen=True)
class _Step:
    label: str
    changes: tuple[_Change, ...]
    classes_before: dict[str, AnnotationClass]
    classes_after: dict[str, AnnotationClass]
    merge: object = None

    @property
    def is_empty(self) -> bool:
        """Whether all is as before: what was typed was taken out again."""
        return self.classes_before == self.classes_after and all(before == after for _, before, after in self.changes)

    def undone(self) -> _Step:
        return _Step(
            self.label,
            tuple(_Change(number, after, before) for number, before, after in self.changes),
            self.classes_after,
            self.classes_before,
        )


class AnnotationSet:
    """Annotations by number, in drawing order: a higher number lies on top. A number always means the same annotation.

    Every editing method is one step that `undo` takes back. `revision` counts changes of any kind, `steps` the steps that were
    made, whether they were taken back or not.
    """

    def __init__(self, annotations: Iterable[Annotation] = (), classes: Iterable[AnnotationClass] = ()):
        self.revision = 0
        self.steps = 0
        self._numbers: tuple[int, list[int]] | None = None
        self._items: list[Annotation | None] = list(annotations)
        self._count = len(self._items)
        self._boxes = np.array([item.shape.box_um for item in self._items], np.float64).reshape(-1, 4)
        self._classes = {known.name: known for known in classes}
        for name in dict.fromkeys(item.class_name for item in self._items):
            self._know_class(name)
        self._colors = np.array([rgb(self.color_of(item)) for item in self._items], np.uint8).reshape(-1, 3)
        self._done: list[_Step] = []
        self._undone: list[_Step] = []

    # what there is

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        if self._numbers is None or self._numbers[0] != self.revision:
            self._numbers = self.revision, [number for number, item in enumerate(self._items) if item is not None]
        return iter(self._numbers[1])

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int | np.integer) and 0 <= number < len(self._items) and self._items[number] is not None

    def __getitem__(self, number: int) -> Annotation:
        if number not in self:
            raise OutOfRangeError("annotation", number, f"the slide has {len(self)} annotations, or it was removed")
        return self._items[number]

    @property
    def classes(self) -> tuple[AnnotationClass, ...]:
        """Every class, in the order in which they came; some may have no annotation."""
        return tuple(self._classes.values())

    def color_of(self, annotation: Annotation) -> str:
        """Its own colour, else that of its class, "#rrggbb"."""
        known = self._classes.get(annotation.class_name)
        return annotation.color or (known.color if known else PLAIN_COLOR)

    def class_counts(self) -> dict[str, int]:
        """How many annotations each class has; those without a class under ""."""
        counts = dict.fromkeys(self._classes, 0)
        for item in self._items:
            if item is not None:
                counts[item.class_name] = counts.get(item.class_name, 0) + 1
        return counts

    def snapshot(self) -> Snapshot:
        """What is there now, as values."""
        return Snapshot(tuple(item for item in self._items if item is not None), self.classes, self.revision)

    def meeting(self, window_um: Box) -> np.ndarray:
        """Ascending (k,) int64 numbers of the annotations whose box meets a window."""
        left, top, right, bottom = window_um
        boxes = self._boxes[: len(self._items)]
        # what was removed has no box: NaN meets nothing
        return np.flatnonzero((boxes[:, 0] <= right) & (boxes[:, 2] >= left) & (boxes[:, 1] <= bottom) & (boxes[:, 3] >= top))

    def boxes_um(self, numbers: np.ndarray) -> np.ndarray:
        """(k, 4) float64 left, top, right, bottom."""
        return self._boxes[numbers]

    def colors_of(self, numbers: np.ndarray) -> np.ndarray:
        """(k, 3) uint8 red, green, blue."""
        return self._colors[numbers]

    @property
    def bounds_um(self) -> Box | None:
        """The box around all of them."""
        if not self._count:
            return None
        boxes = self._boxes[: len(self._items)]
        return (*np.nanmin(boxes[:, :2], axis=0).tolist(), *np.nanmax(boxes[:, 2:], axis=0).tolist())

    # editing

    def add(self, annotation: Annotation, label: str = "") -> int:
        """Put one on top; returns its number."""
        return self.add_all([annotation], label or f"add {annotation.shape.kind}")[0]

    def add_all(self, annotations: Iterable[Annotation], label: str = "add annotations") -> list[int]:
        """Put several on top, in one step; returns their numbers."""
        annotations = list(annotations)
        first = len(self._items)
        numbers = list(range(first, first + len(annotations)))
        self._do(label, [_Change(number, None, item) for number, item in zip(numbers, annotations, strict=True)])
        return numbers

    def change(self, number: int, annotation: Annotation, label: str = "", merge: object = None) -> None:
        """Replace one. Changes one after the other with the same `merge` are one step: a name typed letter by letter."""
        self.change_all({number: annotation}, label, merge)

    def change_all(self, annotations: Mapping[int, Annotation], label: str = "", merge: object = None) -> None:
        """Replace several in one step."""
        changes = [_Change(number, self[number], item) for number, item in annotations.items() if self[number] is not item]
        self._do(label or "change annotations", changes, merge=merge)

    def update(self, numbers: Iterable[int], label: str = "", merge: object = None, **values: object) -> None:
        """Give several the same values: ``update([3, 4], class_name="nucleus")``."""
        self.change_all({number: replace(self[number], **values) for number in numbers}, label, merge)

    def remove(self, numbers: Iterable[int], label: str = "") -> None:
        """Take some away."""
        numbers = sorted(set(numbers))
        self._do(label or "remove annotations", [_Change(number, self[number], None) for number in numbers])

    def set_class(self, name: str, color: str | None = None, merge: object = None) -> None:
        """Make a class known, or give it another colour, "#rrggbb". Colours given one after the other with the same `merge` are
        one step."""
        if name:
            classes = dict(self._classes)
            known = classes.get(name)
            classes[name] = AnnotationClass(name, color or (known.color if known else next_color(classes)))
            self._do(f"class {name}", [], classes, merge=("class", name, merge))

    def rename_class(self, name: str, new_name: str) -> None:
        """Give a class another name; under the name of another class the two become one."""
        if name == new_name or name not in self._classes or not new_name:
            return
        classes: dict[str, AnnotationClass] = {}
        for known in self._classes.values():
            renamed = known if known.name != name else self._classes.get(new_name, AnnotationClass(new_name, known.color))
            classes[renamed.name] = renamed
        self._do(f"rename class {name}", self._reclassified(name, new_name), classes)

    def remove_class(self, name: str) -> None:
        """Forget a class; its annotations stay, without one."""
        if name in self._classes:
            classes = {known: value for known, value in self._classes.items() if known != name}
            self._do(f"remove class {name}", self._reclassified(name, ""), classes)

    @property
    def undo_label(self) -> str | None:
        """What `undo` would take back; None if there is nothing."""
        return self._done[-1].label if self._done else None

    @property
    def redo_label(self) -> str | None:
        """What `redo` would do again; None if there is nothing."""
        return self._undone[-1].label if self._undone else None

    def undo(self) -> bool:
        """Take the last step back; False if there is none, or it came to nothing."""
        return self._again(self._done, self._undone, _Step.undone)

    def redo(self) -> bool:
        """Do the step again that was taken back last; False if there is none, or it came to nothing."""
        return self._again(self._undone, self._done, lambda step: step)

    # inside

    def _again(self, source: list[_Step], target: list[_Step], turned: Callable[[_Step], _Step]) -> bool:
        if not source:
            return False
        step = source.pop()
        if step.is_empty:
            return False
        target.append(step)
        self._apply(turned(step))
        return True

    def _do(
        self, label: str, changes: list[_Change], classes: dict[str, AnnotationClass] | None = None, merge: object = None
    ) -> None:
        key = None if merge is None else (merge, _numbers_of(changes))
        last = self._done[-1] if key is not None and self._done and self._done[-1].merge == key else None
        # what the steps made that this one takes over is made anew: a class typed letter by letter leaves no shorter ones
        before = dict(self._classes) if last is None else last.classes_before
        after = dict(before) if classes is None else classes
        for name in dict.fromkeys(change.after.class_name for change in changes if change.after is not None):
            if name and name not in after:
                after[name] = AnnotationClass(name, next_color(after))
        if not changes and after == self._classes:
            return
        self._undone.clear()
        if last is not None:
            self._done.pop()
            first = {change.number: change.before for change in last.changes}
            step = _Step(label, tuple(change._replace(before=first[change.number]) for change in changes), before, after, key)
        else:
            step = _Step(label, tuple(changes), before, after, key)
            self.steps += 1
        self._done.append(step)
        del self._done[:-MOST_STEPS]
        self._apply(step)

    def _apply(self, step: _Step) -> None:
        for number, _, after in step.changes:
            if number >= len(self._items):
                self._grow(number + 1)
            self._count += (after is not None) - (self._items[number] is not None)
            self._items[number] = after
            self._boxes[number] = np.nan if after is None else after.shape.box_um
        changed = [number for number, _, after in step.changes if after is not None]
        before, self._classes = self._classes, dict(step.classes_after)
        if recolored := {name for name in {*before, *self._classes} if before.get(name) != self._classes.get(name)}:
            changed += [n for n, item in enumerate(self._items) if item is not None and item.class_name in recolored]
        for number in changed:
            self._colors[number] = rgb(self.color_of(self._items[number]))
        self.revision += 1

    def _grow(self, size: int) -> None:
        self._items.extend([None] * (size - len(self._items)))
        if size > len(self._boxes):
            boxes = np.full((max(64, 2 * size), 4), np.nan)
            boxes[: len(self._boxes)] = self._boxes
            self._boxes = boxes
            colors = np.zeros((len(boxes), 3), np.uint8)
            colors[: len(self._colors)] = self._colors
            self._colors = colors

    def _reclassified(self, name: str, new_name: str) -> list[_Change]:
        return [
            _Change(number, item, replace(item, class_name=new_name))
            for number, item in enumerate(self._items)
            if item is not None and item.class_name == name
        ]

    def _know_class(self, name: str) -> None:
        if name and name not in self._classes:
            self._classes[name] = AnnotationClass(name, next_color(self._classes))


def next_color(classes: Mapping[str, AnnotationClass]) -> str:
    """The first colour of the palette that the fewest classes have."""
    taken = [known.color for known in classes.values()]
    return min(CLASS_COLORS, key=taken.count)


def _numbers_of(changes: Iterable[_Change]) -> tuple[int, ...]:
    return tuple(change.number for change in changes)


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of "#rrggbb"."""
    value = int(color[1:], 16)
    return value >> 16, value >> 8 & 255, value & 255


def checked_color(color: str) -> str:
    """The colour in small letters; OutOfRangeError for what is not "#rrggbb"."""
    text = str(color).lower()
    if len(text) != 7 or text[0] != "#" or any(letter not in "0123456789abcdef" for letter in text[1:]):
        raise OutOfRangeError("colour", color, "write #rrggbb, such as #ff8000")
    return text
