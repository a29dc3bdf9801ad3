"""Annotations in the window: the hand that draws them, their outlines over the picture, and saving them by and by."""

from __future__ import annotations

import time
from concurrent.futures import Future

import numpy as np
from imgui_bundle import imgui

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.annotations.editing import Editor, State
from rawmosaic.viewer.annotations.files import AnnotationFile
from rawmosaic.viewer.annotations.geometry import Drawing, size_text, w_handles, w_paths
from rawmosaic.viewer.annotations.model import AnnotationSet, rgb
from rawmosaic.viewer.annotations.shapes import Points
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.later import Later
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.widgets import packed

SAVE_AFTER_S = 1.0
TOLERANCE_UNITS = 6.0
MOST_LABELS = 300
LABEL_GROUND = 0.8
"""How opaque the black behind a label is: dark colours are read on a white ground too."""

_DRAFT = (1.0, 1.0, 1.0)


class Board:
    """The annotations of one slide and the hand on them. GL thread; files are written by another."""

    def __init__(self, slide: Slide):
        self.problem = ""
        """Why there is no file to keep them, in a line."""
        self._file: AnnotationFile | None = None
        try:
            self._file = AnnotationFile.of(slide)
        except (SlideError, OSError) as error:
            self.problem = f"annotations are not kept: {error}"
        self.annotations = self._file.annotations if self._file is not None else AnnotationSet()
        self.editor = Editor(self.annotations)
        self._drawing = Drawing()
        self._revision, self._changed_at = self.annotations.revision, 0.0
        self._saving: Future | None = None

    @property
    def path(self) -> str:
        """Where they are kept."""
        return "" if self._file is None else str(self._file.path)

    def save_when_due(self, later: Later) -> float | None:
        """Have them written once the hand rests; seconds until then, None when all is saved."""
        if self._file is None:
            return None
        if self._saving is not None and self._saving.done():
            (future, self._saving) = (self._saving, None)
            self.problem = str(future.exception()) if not future.cancelled() and future.exception() else ""
            if not future.cancelled() and not future.exception() and (kept := future.result()) is not None:
                self.problem = f"another program had changed the annotations; what it wrote is kept as {kept.name}"
            if future.cancelled() or future.exception():
                self._changed_at = time.monotonic() + 10.0  # a full disk is not asked many times a second
        if self.annotations.revision != self._revision:
            self._revision, self._changed_at = self.annotations.revision, time.monotonic()
        if not self._file.changed or self._saving is not None:
            return None
        wait = self._changed_at + SAVE_AFTER_S - time.monotonic()
        if wait > 0:
            return wait
        snapshot = self.annotations.snapshot()
        self._saving = later.newest("annotations", lambda: self._file.save(snapshot))
        return None

    def take_back(self) -> bool:
        """Take back the last corner of what is being drawn; False if nothing is."""
        return self.editor.state is State.DRAWING and self.editor.key("backspace")

    def close(self) -> None:
        """Write what is not written yet; raises WriteError."""
        if self._file is not None and self._file.changed:
            self._file.save()

    def draw(self, camera: Camera, area: tuple[float, float, float, float], labels: bool = True) -> None:
        """Outlines, drafts and handles over the picture."""
        x, y, width, height = area
        drawn, offset = imgui.get_background_draw_list(), np.array([x, y])
        drawn.push_clip_rect((x, y), (x + width, y + height), True)
        picture = self._drawing.picture(self.annotations, camera, self.editor.instead)
        selected = set(self.editor.selected)
        for outline in picture.outlines:
            color = tuple(part / 255 for part in rgb(outline.color))
            bold = outline.number in selected or outline.number == self.editor.hovered
            self._paths(drawn, outline.paths, offset, color, theme.units(2.5 if bold else 1.5))
            for mark in outline.marks + offset:
                _mark(drawn, mark, color, theme.units(6.0 if bold else 5.0))
            if labels and (bold or len(picture.outlines) <= MOST_LABELS):
                self._label(drawn, outline, offset, color)
        for (dot_x, dot_y), color in zip((picture.w_dots + offset).tolist(), picture.dot_colors.tolist(), strict=True):
            drawn.add_rect_filled((dot_x - 1, dot_y - 1), (dot_x + 1, dot_y + 1), packed(tuple(part / 255 for part in color)))
        if (draft := self.editor.draft) is not None:
            self._paths(drawn, w_paths(draft, camera), offset, _DRAFT, theme.units(1.5))
            if isinstance(draft, Points):
                for mark in draft.points_um:
                    _mark(drawn, np.array(camera.to_window(*mark)) + offset, _DRAFT, theme.units(5))
        for number in self.editor.selected[:1] if len(selected) == 1 else ():
            shape = self.editor.instead.get(number) or self.annotations[number].shape
            for hx, hy in (w_handles(shape, camera) + offset).tolist():
                half = theme.units(3.5)
                drawn.add_rect_filled((hx - half, hy - half), (hx + half, hy + half), packed((0, 0, 0), 0.9))
                half -= theme.units(1)
                drawn.add_rect_filled((hx - half, hy - half), (hx + half, hy + half), packed((1, 1, 1)))
        drawn.pop_clip_rect()

    def _paths(self, drawn, paths, offset: np.ndarray, color: tuple, thickness: float) -> None:
        for points, closed in paths:
            corners = [imgui.ImVec2(px, py) for px, py in (points + offset).tolist()]
            flags = imgui.ImDrawFlags_.closed.value if closed else 0
            drawn.add_polyline(corners, packed((0, 0, 0), 0.5), thickness + theme.units(1.5), flags)
            drawn.add_polyline(corners, packed(color), thickness, flags)

    def _label(self, drawn, outline, offset: np.ndarray, color: tuple) -> None:
        annotation = self.annotations[outline.number]
        shape = self.editor.instead.get(outline.number) or annotation.shape
        text = " ".join(part for part in (annotation.name or annotation.class_name, size_text(shape)) if part)
        if not text:
            return
        x, y = outline.w_label[0] + offset[0], outline.w_label[1] + offset[1]
        size = imgui.calc_text_size(text)
        at = (x - 0.5 * size.x, y - size.y - theme.units(4))
        pad = theme.units(3)
        drawn.add_rect_filled(
            (at[0] - pad, at[1]), (at[0] + size.x + pad, at[1] + size.y), packed((0, 0, 0), LABEL_GROUND), theme.units(3)
        )
        drawn.add_text(at, packed(color), text)


def _mark(drawn, place: np.ndarray, color: tuple, radius: float) -> None:
    """A point: a ring with its middle, seen on any ground."""
    center = (float(place[0]), float(place[1]))
    drawn.add_circle(center, radius, packed((0, 0, 0), 0.6), 0, theme.units(3))
    drawn.add_circle(center, radius, packed(color), 0, theme.units(1.5))
    drawn.add_circle_filled(center, theme.units(1.2), packed(color))
