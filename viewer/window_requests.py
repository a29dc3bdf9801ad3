"""What panels and keys ask a window for, by name: files to open and to write, automatic limits, measurements.

Answers that take a while are worked out by other threads and taken in before the next frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.viewer.renewal import Renewal

if TYPE_CHECKING:
    from rawmosaic.viewer.annotations.shapes import Shape
    from rawmosaic.viewer.ui.desk import Desk
    from rawmosaic.viewer.window import MosaicWindow

MOST_MEASURED = 8
"""Annotations measured at once in the panel; the command line does any number."""

_OF_PANELS = frozenset({"undo", "undo?", "redo", "redo?", "go to", "figure", "follow the scan", "measure", "unmix", "give looks"})

_KINDS_TO_OPEN = ["slides and acquisitions", "*.h5 *.tif *.tiff *.txt *.htd *.HTD *.csv", "all files", "*"]


class Requests:
    """The requests of one window, and the answers that are still to come. GL thread."""

    def __init__(self, window: MosaicWindow):
        from rawmosaic.viewer.auto_contrast import AutoContrast, Strength

        self._window, self._renewal = window, Renewal(window)
        self._auto_contrast, self._strength = AutoContrast(window.wake, window.wake), Strength()
        self._opening: tuple[str, Future] | None = None
        self._dialog = None
        self._waiting: list[tuple[Future, Callable[[object], None]]] = []

    def actions(self, desk: Desk) -> dict[str, Callable[..., object]]:
        """The table that the panels of a desk, and keys, find them in; without panels, what can be done without."""
        window = self._window

        def key(name: str) -> Callable[[], None]:
            return lambda: desk.touch(desk.controls.key(name))

        actions = {
            "fit": key("0"),
            "one to one": key("kp_5"),
            "side": window.toggle_side,
            "auto slide": lambda channels: self.find_limits("slide", channels),
            "auto view": lambda channels: self.find_limits("view", channels),
            "auto field": lambda channels: self.find_limits("field", channels),
            "auto shape": lambda channels, shape: self.find_limits("shape", channels, shape),
            "auto?": lambda: self._auto_contrast,
            "when done": self._when_done,
            "give looks": self.give_looks,
            "unmix": self.unmix,
            "undo": lambda: desk.touch(desk.board.take_back() or window.undo.undo()),
            "undo?": lambda: window.undo.undo_label,
            "redo": lambda: desk.touch(window.undo.redo()),
            "redo?": lambda: window.undo.redo_label,
            "go to": self.ask_where_to,
            "screenshot": self.save_screenshot,
            "figure": lambda: window.panels.figure.open(desk),
            "follow the scan": lambda: window.panels.scan.toggle_following(desk),
            "measure": self.measure,
            "recent": _recent_locations,
            "open": self.ask_what_to_open,
            "open location": self.open,
        }
        return actions if window.panels is not None else {name: actions[name] for name in actions if name not in _OF_PANELS}

    def take_in(self) -> None:
        """What other threads, and the system's dialog, have answered since the last frame."""
        self._take_in_opened()
        self._renewal.take_in()
        self._take_in_dialog()
        self._take_in_done()
        self._take_in_limits()

    def leave_slide(self) -> None:
        """The slide is about to be closed: nothing may read it any more."""
        self._auto_contrast.close()
        self._renewal.forget()

    # slides

    def open(self, location: str) -> None:
        """Show another slide or acquisition as soon as it is opened; the picture stays until then, and if it cannot be."""
        from rawmosaic.storage import open_slide

        self._window.desk.say(f"opening {location} …")
        self._opening = (location, self._window.later.newest("open", lambda: open_slide(location)))
        self._window.redraw()

    def _take_in_opened(self) -> None:
        if self._opening is None or not self._opening[1].done():
            return
        (location, future), self._opening = self._opening, None
        if future.cancelled():
            return
        try:
            slide = future.result()
        except (SlideError, OSError) as error:
            self._window.desk.say(str(error), "error")
            return
        try:
            self._window.show(slide, owned=True)
        except SlideError as error:  # the one that was shown stays
            slide.close()
            self._window.desk.say(f"{location}: {error}", "error")

    def ask_what_to_open(self) -> None:
        """The system's own dialog, which does not stop the window; it comes with imgui-bundle."""
        try:
            from imgui_bundle import portable_file_dialogs
        except ImportError:
            self._window.desk.say("there is no dialog without imgui-bundle: drop a file onto the window", "warning")
            return
        from rawmosaic.viewer.ui import file_question

        if not file_question.can_ask():
            self._window.desk.say(file_question.NO_DIALOG, "warning")
        elif self._dialog is None:
            self._dialog = portable_file_dialogs.open_file("Open a slide or acquisition", "", _KINDS_TO_OPEN)

    def _take_in_dialog(self) -> None:
        if self._dialog is not None and self._dialog.ready(0):
            chosen, self._dialog = self._dialog.result(), None
            if chosen:
                self.open(chosen[0])

    # the view

    def find_limits(self, scope: str, channels: list[int], shape: Shape | None = None) -> None:
        """Automatic contrast of the slide, the view, the field in its middle, or a drawn shape; soon again: stronger."""
        from rawmosaic.viewer.auto_contrast import question_of
        from rawmosaic.viewer.places import field_under

        engine, slide, about = self._window.engine, self._window.slide, {"shape": shape}
        if scope == "view":
            about["region_um"] = engine.camera.bounds_um()
        elif scope == "field":
            camera, z = engine.camera, min(engine.view().z, slide.size_z - 1)
            about["field"] = field_under(slide, engine.geometry, camera.x_um, camera.y_um, channels, z, engine.t)
            if about["field"] is None:
                self._window.desk.say("there is no field in the middle of the view", "warning")
                return
        tail = self._strength.tail((scope, shape, tuple(channels)))
        self._auto_contrast.ask(question_of(engine, channels, tail=tail, **about))

    def _take_in_limits(self) -> None:
        from rawmosaic.viewer.auto_contrast import apply_limits

        answer = self._auto_contrast.arrived()
        self._window.redraw(self._auto_contrast.progressed())
        if answer is not None:
            self._window.redraw(apply_limits(answer, self._window.engine.channels))
            for line in answer.told[:1]:
                self._window.desk.say(line, "warning")

    def give_looks(self, path: str) -> None:
        """Take a display state file as a preset; what does not match is told."""
        from rawmosaic.viewer import presets
        from rawmosaic.viewer.ui.presets_menu import give_looks

        desk = self._window.desk
        reading = self._window.later.newest(("presets", "apply"), lambda: presets.read_from(path))
        self._when_done(reading, lambda state: give_looks(desk, state, f"looks of {path}"))

    def unmix(self) -> None:
        """Unmix by reference regions: annotations whose class is the name of a channel, or `background`."""
        from rawmosaic.viewer.ui.references import reference_boxes, unmixing_of

        engine, desk, slide = self._window.engine, self._window.desk, self._window.slide
        names = [look.shown_name for look in engine.channels]
        boxes = reference_boxes(desk.board.annotations, names)
        if not any(boxes.channels):
            desk.say("draw a region where each dye is alone, and give it the channel's name as class", "warning")
            return
        view, geometry = engine.view(), engine.geometry
        z = min(view.z, slide.size_z - 1)

        def found(matrix: np.ndarray) -> None:
            engine.unmixing = matrix
            desk.say("unmixed by " + ", ".join(names[channel] for channel in boxes.channels))

        self._when_done(self._window.later.newest("unmix", lambda: unmixing_of(slide, geometry, boxes, names, z, view.t)), found)

    def ask_where_to(self) -> None:
        """The cursor into the field for places."""
        self._window.desk.shown.side = True
        self._window.panels.places.wants_focus = True
        self._window.redraw()

    # what is written and measured

    def save_screenshot(self) -> None:
        """The picture as a PNG in the user's folder of pictures; a line says where."""
        from PIL import Image

        from rawmosaic.viewer.ui.figure_panel import pictures_folder, plain_name

        pixels = np.ascontiguousarray(self._window.screenshot()[..., :3])
        name = plain_name(self._window.slide.header.name)
        path = pictures_folder() / f"{name} {time.strftime('%Y-%m-%d %H.%M.%S')}.png"

        def write() -> None:
            Image.fromarray(pixels).save(path, compress_level=1)

        say = self._window.desk.say
        self._when_done(self._window.later.newest("screenshot", write), lambda _: say(f"screenshot written: {path}"))

    def measure(self, numbers: list[int]) -> None:
        """Raw counts inside annotations, worked out in the background."""
        from rawmosaic.viewer.annotations.measure import Measurer
        from rawmosaic.viewer.ui.measured import measured_lines

        engine, desk, slide = self._window.engine, self._window.desk, self._window.slide
        view = engine.view()
        shapes = [desk.board.annotations[number].shape for number in numbers[:MOST_MEASURED]]
        names = [look.shown_name for look in engine.channels]

        def measure() -> list[str]:
            with Measurer(slide, position_set=view.position_set, z=engine.z, t=engine.t) as measurer:
                return [line for shape in shapes for line in measured_lines(measurer.measure(shape), names)]

        desk.measured = ["measuring …"]
        self._when_done(self._window.later.newest("measure", measure), lambda lines: setattr(desk, "measured", lines))

    def _when_done(self, future: Future, take: Callable[[object], None]) -> None:
        self._waiting.append((future, take))

    def _take_in_done(self) -> None:
        """What was asked of other threads and is there now."""
        done = [entry for entry in self._waiting if entry[0].done()]
        self._waiting = [entry for entry in self._waiting if not entry[0].done()]
        for future, take in done:
            if future.cancelled():
                continue
            if (error := future.exception()) is not None:
                self._window.desk.say(str(error), "error")
            else:
                take(future.result())
            self._window.redraw()


def _recent_locations() -> list[str]:
    from rawmosaic.viewer.recent import recent

    return [entry.location for entry in recent()]
