"""Undo and redo: the states that a view went through, one step for each thing that hands did."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

MERGE_S = 0.8
"""Changes by the same gesture within this time of each other are one step: a few turns of the wheel."""

MOST_STEPS = 200

State = TypeVar("State")


class History(Generic[State]):
    """States before and after the present one. States are values that never change; equal ones are no step.

    A *gesture* is a name for what the hands do ("wheel", "drag", "limits of 2"): changes by one gesture merge while it is held,
    and otherwise while they follow each other within MERGE_S. A change without a name is a step of its own.
    """

    def __init__(self, state: State, most: int = MOST_STEPS):
        self._states, self._at, self._most = [state], 0, max(1, most)
        self._gesture: str | None = None
        self._gesture_at, self._held, self._stepped = 0.0, False, False

    @property
    def state(self) -> State:
        """The present one."""
        return self._states[self._at]

    @property
    def can_undo(self) -> bool:
        """Whether there is something before."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether something was undone, and nothing done since."""
        return self._at < len(self._states) - 1

    def record(self, state: State, gesture: str | None = None, *, held: bool = False, now: float | None = None) -> bool:
        """The view looks like this now; returns whether that is a new step. What was undone is gone then.

        `held`: the mouse button or key of the gesture is still down: until `release` it merges however long it rests.
        """
        now = time.monotonic() if now is None else now
        goes_on = gesture is not None and gesture == self._gesture and (self._held or now - self._gesture_at <= MERGE_S)
        if state == self.state:
            if gesture is not None and (goes_on or held):
                self._gesture, self._gesture_at, self._held = gesture, now, held
                self._stepped = self._stepped and goes_on
            return False
        merges = goes_on and self._stepped
        self._gesture, self._gesture_at, self._held, self._stepped = gesture, now, held, True
        if merges:
            self._states[self._at] = state
            return False
        del self._states[self._at + 1 :]
        self._states.append(state)
        del self._states[: -self._most - 1]
        self._at = len(self._states) - 1
        return True

    def release(self) -> None:
        """The hands let go: what comes next is another step, even by a gesture of the same name."""
        self._gesture, self._held, self._stepped = None, False, False

    def undo(self) -> State | None:
        """The state before, now the present one; None where there is none."""
        return self._go(-1) if self.can_undo else None

    def redo(self) -> State | None:
        """The state that was undone last, now the present one; None where there is none."""
        return self._go(1) if self.can_redo else None

    def __len__(self) -> int:
        return len(self._states) - 1

    def _go(self, by: int) -> State:
        self.release()
        self._at += by
        return self.state
