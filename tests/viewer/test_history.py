"""Undo goes back by what hands did, redo forward again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.viewer.history import MERGE_S, History


def test_undo_and_redo_walk_the_steps():
    history = History("a")
    assert (history.can_undo, history.can_redo, history.undo(), history.redo()) == (False, False, None, None)
    history.record("b")
    history.record("c")
    assert (history.undo(), history.undo(), history.undo()) == ("b", "a", None)
    assert (history.redo(), history.redo(), history.redo()) == ("b", "c", None)
    assert history.state == "c"


def test_what_was_undone_is_gone_once_something_is_done():
    history = History("a")
    history.record("b")
    history.undo()
    history.record("c")
    assert not history.can_redo
    assert history.undo() == "a"


def test_an_equal_state_is_no_step():
    history = History("a")
    assert not history.record("a")
    assert len(history) == 0


def test_turns_of_the_wheel_are_one_step_until_a_pause():
    history = History(0)
    for number in range(1, 6):
        history.record(number, "wheel", now=10.0 + 0.5 * MERGE_S * number)
    assert len(history) == 1
    history.record(6, "wheel", now=10.0 + 2.5 * MERGE_S + 1.1 * MERGE_S)
    assert len(history) == 2
    assert (history.undo(), history.undo()) == (5, 0)


def test_a_drag_is_one_step_however_long_it_rests():
    history = History(0)
    history.record(0, "drag", held=True, now=0.0)
    history.record(1, "drag", held=True, now=0.1)
    history.record(2, "drag", held=True, now=500.0)
    history.release()
    history.record(3, "drag", held=True, now=500.1)
    assert len(history) == 2
    assert (history.undo(), history.undo()) == (2, 0)


def test_the_state_before_a_gesture_stays():
    """A gesture that begins without a change does not swallow what was before it."""
    history = History("start")
    history.record("moved")
    history.record("moved", "drag", held=True, now=1.0)
    history.record("dragged", "drag", held=True, now=1.1)
    assert (history.undo(), history.undo()) == ("moved", "start")


def test_another_gesture_is_another_step():
    history = History(0)
    history.record(1, "wheel", now=1.0)
    history.record(2, "limits of 1", now=1.01)
    history.record(3, "limits of 2", now=1.02)
    history.record(4, now=1.03)
    history.record(5, now=1.04)
    assert len(history) == 5


def test_a_gesture_after_undo_does_not_change_what_was_undone_to():
    history = History(0)
    history.record(1, "wheel", now=1.0)
    history.record(2, "drag", now=1.1)
    history.undo()
    history.record(3, "wheel", now=1.2)
    assert (history.undo(), history.undo()) == (1, 0)


def test_steps_are_bounded_and_the_newest_stay():
    history = History(0, most=5)
    for number in range(1, 50):
        history.record(number)
    assert len(history) == 5
    assert [history.undo() for _ in range(6)] == [48, 47, 46, 45, 44, None]


@given(st.lists(st.sampled_from(["do", "undo", "redo"]), max_size=60))
def test_any_sequence_is_that_of_a_plain_list(actions: list[str]):
    history, states, at, fresh = History(0, most=1000), [0], 0, 0
    for action in actions:
        if action == "do":
            fresh += 1
            history.record(fresh)
            states, at = [*states[: at + 1], fresh], at + 1
        elif action == "undo":
            assert history.undo() == (states[at - 1] if at else None)
            at = max(at - 1, 0)
        else:
            assert history.redo() == (states[at + 1] if at + 1 < len(states) else None)
            at = min(at + 1, len(states) - 1)
        assert history.state == states[at]
