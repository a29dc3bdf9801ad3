"""What hands did to the view and to the annotations is taken back one by one, in the order in which they did it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer.annotations.model import Annotation, AnnotationSet
from rawmosaic.viewer.annotations.shapes import Rectangle
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.channels import ChannelView

pytest.importorskip("imgui_bundle", reason="imgui-bundle is not installed: the window has no panels")

from rawmosaic.viewer.ui.undo import Undo


@pytest.fixture
def engine() -> SimpleNamespace:
    """What a view has that can be adjusted."""
    return SimpleNamespace(
        slide=SyntheticSlide((2, 2), (48, 64), 1),
        camera=Camera(0.0, 0.0, 1.0, 0.5, (640, 480)),
        channels=[ChannelView("C0", (0.0, 100.0), "#ffffff")],
        overlap="top",
        position_set="stage",
        z=0,
        t=0,
        interpolation="auto",
        projection="none",
        show_outlines=False,
        mode="colour",
        background="black",
        color_map=None,
        unmixing=None,
        groups=(),
        bookmarks=(),
    )


@pytest.fixture
def annotations() -> AnnotationSet:
    """One rectangle."""
    return AnnotationSet([Annotation(Rectangle(0, 0, 10, 10))])


@pytest.fixture
def undo(engine: SimpleNamespace, annotations: AnnotationSet) -> Undo:
    """Of both."""
    return Undo(engine, annotations)


def typed(annotations: AnnotationSet, undo: Undo, text: str, visit: int, begin: str = "") -> None:
    """A name typed letter by letter, a frame each, in one visit to its field."""
    for end in range(1, len(text) + 1):
        annotations.update([0], "name", merge=("name", visit), name=begin + text[:end])
        undo.note("hand", True)
    undo.note(None, False)


def test_a_name_is_one_step_however_many_letters_it_has(undo: Undo, annotations: AnnotationSet):
    typed(annotations, undo, "nucleus", 1)
    assert annotations[0].name == "nucleus"
    assert undo.undo()
    assert annotations[0].name == ""
    assert not undo.can_undo
    assert undo.redo()
    assert annotations[0].name == "nucleus"
    assert not undo.can_redo


def test_another_visit_to_the_same_field_is_another_step(undo: Undo, annotations: AnnotationSet):
    typed(annotations, undo, "cell", 1)
    typed(annotations, undo, " 7", 2, "cell")
    undo.undo()
    assert annotations[0].name == "cell"
    undo.undo()
    assert annotations[0].name == ""


def test_what_was_typed_and_taken_out_again_is_no_step(undo: Undo, annotations: AnnotationSet, engine: SimpleNamespace):
    engine.overlap = "max"
    undo.note(None, False)
    annotations.update([0], "name", merge=("name", 1), name="x")
    undo.note("hand", True)
    annotations.update([0], "name", merge=("name", 1), name="")
    undo.note("hand", True)
    assert undo.undo()
    assert engine.overlap == "top", "the step before it was meant"
    assert undo.redo()
    assert engine.overlap == "max"


def test_steps_of_both_kinds_go_back_in_the_order_they_were_made(undo: Undo, annotations: AnnotationSet, engine: SimpleNamespace):
    typed(annotations, undo, "a", 1)
    engine.channels[0].limits = (5.0, 50.0)
    undo.note(None, False)
    annotations.remove([0])
    undo.note(None, False)
    seen = []
    while undo.undo():
        seen.append((0 in annotations, engine.channels[0].limits, annotations[0].name if 0 in annotations else None))
    assert seen == [(True, (5.0, 50.0), "a"), (True, (0.0, 100.0), "a"), (True, (0.0, 100.0), "")]
    while undo.redo():
        pass
    assert 0 not in annotations
    assert engine.channels[0].limits == (5.0, 50.0)


def test_two_edits_between_two_frames_are_two_steps(undo: Undo, annotations: AnnotationSet):
    annotations.add(Annotation(Rectangle(20, 0, 30, 10)))
    annotations.add(Annotation(Rectangle(40, 0, 50, 10)))
    undo.note(None, False)
    undo.undo()
    assert len(annotations) == 2
    undo.undo()
    assert len(annotations) == 1
    assert not undo.can_undo


def test_edits_beyond_those_that_are_kept_are_still_noticed(
    monkeypatch: pytest.MonkeyPatch, undo: Undo, annotations: AnnotationSet
):
    monkeypatch.setattr("rawmosaic.viewer.annotations.model.MOST_STEPS", 3)
    for number in range(6):
        annotations.add(Annotation(Rectangle(20 * number, 0, 20 * number + 10, 10)))
        undo.note(None, False)
    for left in (6, 5, 4):
        assert undo.undo()
        assert len(annotations) == left
    assert not undo.undo()


def test_the_next_step_back_has_a_name(undo: Undo, annotations: AnnotationSet, engine: SimpleNamespace):
    assert (undo.undo_label, undo.redo_label) == ("", "")
    annotations.remove([0])
    undo.note(None, False)
    assert undo.undo_label == "remove annotations"
    engine.overlap = "max"
    undo.note(None, False)
    assert undo.undo_label == "a change of the view"
    undo.undo()
    assert (undo.undo_label, undo.redo_label) == ("remove annotations", "a change of the view")
