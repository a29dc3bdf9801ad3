"""One order for what can be undone: steps of the view and of the annotations, in the order in which hands made them."""

from __future__ import annotations

from rawmosaic.viewer.annotations.model import AnnotationSet
from rawmosaic.viewer.display_state import DisplayState, apply, capture
from rawmosaic.viewer.engine import Engine
from rawmosaic.viewer.history import History

MOST_STEPS = 400
VIEW, ANNOTATIONS = "view", "annotations"


class Undo:
    """The histories of an engine's view and of a set of annotations (or None), walked through together. GL thread."""

    def __init__(self, engine: Engine, annotations: AnnotationSet | None):
        self._engine, self._annotations = engine, annotations
        self._views: History[DisplayState] = History(capture(engine))
        self._steps_seen = annotations.steps if annotations is not None else 0
        self._done: list[str] = []
        self._undone: list[str] = []

    def note(self, gesture: str | None, held: bool) -> None:
        """After a frame: take down what has changed since the last; see `History` for gestures."""
        if self._views.record(capture(self._engine), gesture, held=held):
            self._push(VIEW)
        while self._annotations is not None and self._steps_seen < self._annotations.steps:
            self._steps_seen += 1
            self._push(ANNOTATIONS)

    @property
    def state(self) -> DisplayState:
        """What the view looks like now."""
        return self._views.state

    @property
    def can_undo(self) -> bool:
        """Whether there is something before."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether something was undone, and nothing done since."""
        return bool(self._undone)

    @property
    def undo_label(self) -> str:
        """What `undo` would take back, in a word or two; "" if there is nothing."""
        return self._label(self._done, "undo_label")

    @property
    def redo_label(self) -> str:
        """What `redo` would do again; "" if there is nothing."""
        return self._label(self._undone, "redo_label")

    def undo(self) -> bool:
        """Take the last step back; returns whether there was one."""
        return self._walk(self._done, self._undone, "undo")

    def redo(self) -> bool:
        """Do again what was undone last; returns whether there was something."""
        return self._walk(self._undone, self._done, "redo")

    def _walk(self, source: list[str], target: list[str], way: str) -> bool:
        while source:
            kind = source.pop()
            target.append(kind)
            if kind == VIEW:
                state = getattr(self._views, way)()
                if state is not None:
                    apply(state, self._engine)
                    return True
            elif getattr(self._annotations, way)():
                return True
            target.pop()  # steps that came to nothing leave nothing to walk to
        return False

    def _label(self, steps: list[str], name: str) -> str:
        if not steps:
            return ""
        return "a change of the view" if steps[-1] == VIEW else getattr(self._annotations, name) or "a change of the annotations"

    def _push(self, kind: str) -> None:
        self._done.append(kind)
        del self._done[:-MOST_STEPS]
        self._undone.clear()
