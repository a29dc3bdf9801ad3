"""A set of annotations knows what lies where, and every edit can be taken back."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.annotations.model import CLASS_COLORS, MOST_STEPS, PLAIN_COLOR, Annotation, AnnotationClass, AnnotationSet
from rawmosaic.viewer.annotations.shapes import Points, Rectangle


def box(x: float = 0, y: float = 0, side: float = 1, **said) -> Annotation:
    """A square annotation."""
    return Annotation(Rectangle(x, y, x + side, y + side), **said)


def state(annotations: AnnotationSet) -> tuple:
    """All that there is to see of a set."""
    numbers = list(annotations)
    return (
        {number: annotations[number] for number in numbers},
        annotations.classes,
        annotations.meeting((-1e6, -1e6, 1e6, 1e6)).tolist(),
        annotations.boxes_um(np.array(numbers, int)).tolist(),
        annotations.colors_of(np.array(numbers, int)).tolist(),
        len(annotations),
        annotations.class_counts(),
    )


def test_what_was_added_is_found_where_it_lies():
    annotations = AnnotationSet([box(0, 0), box(10, 0)])
    third = annotations.add(box(10.5, 0.5))
    assert annotations.meeting((9, -1, 12, 2)).tolist() == [1, third]
    assert annotations.meeting((2, 2, 3, 3)).tolist() == []
    assert annotations.bounds_um == (0, 0, 11.5, 1.5)
    annotations.remove([1])
    assert annotations.meeting((9, -1, 12, 2)).tolist() == [third]
    assert len(annotations) == 2


def test_a_number_stays_with_its_annotation():
    annotations = AnnotationSet([box(n) for n in range(3)])
    annotations.remove([0])
    fourth = annotations.add(box(9))
    assert list(annotations) == [1, 2, fourth]
    assert annotations[2].shape.box_um[0] == 2
    with pytest.raises(OutOfRangeError, match="removed"):
        annotations[0]
    annotations.undo()
    annotations.undo()
    assert annotations[0].shape.box_um[0] == 0
    assert fourth not in annotations


def test_every_edit_can_be_taken_back_and_done_again():
    rng = random.Random(1)
    annotations = AnnotationSet([box(n) for n in range(5)], [AnnotationClass("nucleus", "#0000ff")])
    states = [state(annotations)]
    for _ in range(200):
        numbers = list(annotations)
        chosen = rng.sample(numbers, min(len(numbers), rng.randint(1, 3)))
        names = [known.name for known in annotations.classes] or ["a"]
        edit = rng.choice(["add", "change", "remove", "update", "rename", "recolor", "forget", "class"])
        match edit:
            case "add":
                annotations.add_all([box(rng.random(), class_name=rng.choice(["", "x", "y"])) for _ in range(rng.randint(1, 3))])
            case "change" if chosen:
                annotations.change(chosen[0], replace(annotations[chosen[0]], shape=Points([(rng.random(), 5)])))
            case "remove":
                annotations.remove(chosen)
            case "update":
                annotations.update(chosen, class_name=rng.choice(["", "nucleus", "z"]))
            case "rename":
                annotations.rename_class(rng.choice(names), rng.choice(["q", "nucleus"]))
            case "recolor":
                annotations.set_class(rng.choice(names), f"#{rng.randrange(1 << 24):06x}")
            case "forget":
                annotations.remove_class(rng.choice(names))
            case "class":
                annotations.set_class(rng.choice(["one", "two"]))
        now = state(annotations)
        if annotations.undo_label is None or now == states[-1]:
            states[-1] = now
            if annotations.undo():  # an edit that shows nothing is a step all the same
                assert state(annotations) in states
                annotations.redo()
            continue
        states.append(now)
    seen = [state(annotations)]
    while annotations.undo():
        seen.append(state(annotations))
    assert seen[-1] == states[0]
    again = [state(annotations)]
    while annotations.redo():
        again.append(state(annotations))
    assert again == seen[::-1]


def test_a_new_edit_ends_what_could_be_done_again():
    annotations = AnnotationSet([box()])
    annotations.update([0], name="one")
    annotations.undo()
    assert annotations.redo_label
    annotations.update([0], name="two")
    assert annotations.redo_label is None
    assert not annotations.redo()


def test_a_name_typed_letter_by_letter_is_one_step():
    annotations = AnnotationSet([box(), box(2)])
    for text in ("c", "ce", "cell"):
        annotations.update([0], "name", merge="name", name=text)
    annotations.update([1], "name", merge="name", name="x")
    annotations.undo()
    assert (annotations[0].name, annotations[1].name) == ("cell", "")
    annotations.undo()
    assert annotations[0].name == ""
    assert annotations.undo_label is None


def test_a_class_typed_letter_by_letter_leaves_no_shorter_ones():
    annotations = AnnotationSet([box()])
    for text in ("n", "nu", "nucleus"):
        annotations.update([0], "class", merge="class", class_name=text)
    assert [known.name for known in annotations.classes] == ["nucleus"]
    annotations.undo()
    assert annotations.classes == ()


def test_a_renamed_class_takes_its_annotations_and_its_colour_along():
    annotations = AnnotationSet([box(class_name="a"), box(class_name="b"), box()], [AnnotationClass("a", "#112233")])
    annotations.rename_class("a", "nucleus")
    assert annotations[0].class_name == "nucleus"
    assert annotations.color_of(annotations[0]) == "#112233"
    annotations.rename_class("nucleus", "b")
    assert annotations.class_counts() == {"b": 2, "": 1}
    annotations.undo()
    annotations.undo()
    assert annotations.class_counts() == {"a": 1, "b": 1, "": 1}


def test_a_removed_class_leaves_its_annotations():
    annotations = AnnotationSet([box(class_name="a")])
    annotations.remove_class("a")
    assert annotations[0].class_name == ""
    assert annotations.classes == ()


def test_new_classes_get_colours_that_others_do_not_have():
    annotations = AnnotationSet([box(class_name=f"c{n}") for n in range(2 * len(CLASS_COLORS))])
    colors = [known.color for known in annotations.classes]
    assert sorted(colors) == sorted(CLASS_COLORS * 2)


def test_an_own_colour_comes_before_that_of_the_class():
    annotations = AnnotationSet([box(class_name="a"), box(class_name="a", color="#00FF00"), box()])
    assert annotations.color_of(annotations[1]) == "#00ff00"
    assert annotations.color_of(annotations[2]) == PLAIN_COLOR
    annotations.set_class("a", "#123456")
    assert annotations.colors_of(np.arange(3)).tolist() == [[0x12, 0x34, 0x56], [0, 255, 0], [255, 255, 0]]


@pytest.mark.parametrize("color", ["red", "#12345", "#gggggg", ""])
def test_what_is_no_colour_is_refused(color):
    with pytest.raises(OutOfRangeError, match="#rrggbb"):
        AnnotationClass("a", color)


def test_old_steps_are_forgotten_and_the_rest_can_be_taken_back():
    annotations = AnnotationSet([box()])
    for n in range(MOST_STEPS + 10):
        annotations.update([0], name=str(n))
    taken_back = 0
    while annotations.undo():
        taken_back += 1
    assert taken_back == MOST_STEPS
    assert annotations[0].name == "9"


def test_a_snapshot_stays_what_it_was():
    annotations = AnnotationSet([box(name="a"), box(name="b")])
    before = annotations.snapshot()
    annotations.remove([0])
    annotations.update([1], name="c")
    assert [item.name for item in before.annotations] == ["a", "b"]
    assert [item.name for item in annotations.snapshot().annotations] == ["c"]
    assert annotations.snapshot().revision > before.revision


def test_an_edit_that_changes_nothing_is_no_step():
    annotations = AnnotationSet([box(class_name="a")])
    annotations.remove([])
    annotations.change(0, annotations[0])
    annotations.set_class("a", annotations.classes[0].color)
    annotations.rename_class("a", "a")
    annotations.rename_class("nobody", "b")
    annotations.remove_class("nobody")
    assert annotations.undo_label is None
