"""The window: glfw events in, frames of the engine and the panels out. Draws when something changed and sleeps otherwise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import glfw
import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.gl.glfw_window import create_window

DEFAULT_SIZE = (1280, 800)
LOADING_S = 0.1
IDLE_S = 0.5
"""A window with nothing to do looks again after this time: tiles that could not be read are tried again."""

MOST_SHOWN_AT_FIRST, SHOWN_OF_MANY = 12, 4
"""A slide of more channels than the first begins with so many of them shown."""

MOST_MEASURED = 8
"""Annotations measured at once in the panel; the command line does any number."""

PAN_PX = 40.0
"""What a step of the wheel pans by, where it pans."""

DOUBLE_CLICK_S = 0.35
DOUBLE_CLICK_PX = 5.0

_CTRL_KEYS = (glfw.KEY_LEFT_CONTROL, glfw.KEY_RIGHT_CONTROL, glfw.KEY_LEFT_SUPER, glfw.KEY_RIGHT_SUPER)
_ALT_KEYS = (glfw.KEY_LEFT_ALT, glfw.KEY_RIGHT_ALT)
_EDITING_KEYS = {
    glfw.KEY_ESCAPE: "escape",
    glfw.KEY_ENTER: "enter",
    glfw.KEY_KP_ENTER: "enter",
    glfw.KEY_DELETE: "delete",
    glfw.KEY_BACKSPACE: "backspace",
}
_SHIFT_KEYS = (glfw.KEY_LEFT_SHIFT, glfw.KEY_RIGHT_SHIFT)
_NAMED_KEYS = {
    glfw.KEY_LEFT: "left",
    glfw.KEY_RIGHT: "right",
    glfw.KEY_UP: "up",
    glfw.KEY_DOWN: "down",
    glfw.KEY_KP_ADD: "+",
    glfw.KEY_KP_SUBTRACT: "-",
    glfw.KEY_KP_0: "kp_0",
    glfw.KEY_KP_5: "kp_5",
    glfw.KEY_ESCAPE: "escape",
    glfw.KEY_F11: "f11",
    glfw.KEY_TAB: "tab",
}
_SHIFTED_DIGITS = {getattr(glfw, f"KEY_{digit}"): str(digit) for digit in range(10)}
_COMMANDS = {glfw.KEY_O: "open", glfw.KEY_S: "screenshot", glfw.KEY_E: "figure", glfw.KEY_G: "go to"}
"""With Ctrl (or Command) held."""


def view(slide: Slide, size: tuple[int, int] = DEFAULT_SIZE, **options) -> None:
    """Open a window on a slide and return when it is closed. Raises GraphicsError where no window can be had."""
    with MosaicWindow(slide, size, **options) as window:
        window.run()


class MosaicWindow:
    """A glfw window with one engine. `run()` until closed, or `step()` by step; from the main thread.

    `panels=False` is the bare picture; so is a machine without imgui-bundle. `ui_scale`: pixels a unit of the panels, as the
    screen says if not told. `remembers`: whether a slide looks as it was left, and is listed among the recent ones.
    """

    def __init__(
        self,
        slide: Slide,
        size: tuple[int, int] = DEFAULT_SIZE,
        *,
        visible: bool = True,
        panels: bool = True,
        ui_scale: float | None = None,
        remembers: bool = True,
        **budgets,
    ):
        self._ui_scale, self._budgets, self._remembers = ui_scale, budgets, remembers and panels
        self._engine = self._panels = self._later = self._opening = self._dialog = self._undo = None
        self._gesture: str | None = None
        self._size_px: tuple[int, int] | None = None
        self._waiting: list[tuple[Future, Callable[[object], None]]] = []
        self._owns_slide = False
        self._window = create_window(_title(slide), size, visible=visible)
        try:
            glfw.swap_interval(1)
            from rawmosaic.viewer.auto_contrast import AutoContrast, Strength
            from rawmosaic.viewer.later import Later
            from rawmosaic.viewer.preferences import load_preferences

            self._preferences = load_preferences()
            self._later = Later(glfw.post_empty_event)
            self._auto_contrast, self._strength = AutoContrast(glfw.post_empty_event), Strength()
            self._panels = _panels(self._window) if panels else None
            self._show(slide)
        except BaseException:
            self.close()
            raise
        self._dragging: str | None = None
        self._panned = False
        self._handled_key = False
        self._cursor = (-1.0, -1.0)
        self._pressed_at = (-1e9, 0.0, 0.0)
        self._windowed: tuple[int, int, int, int] | None = None
        self._connect()

    def _show(self, slide: Slide, owned: bool = False) -> None:
        """Look at a slide, in place of another. `owned`: the window closes it."""
        from rawmosaic.viewer.controls import Controls
        from rawmosaic.viewer.engine import Engine
        from rawmosaic.viewer.statistics import Statistics

        engine = Engine(slide, self._framebuffer_size(), on_arrival=glfw.post_empty_event, **self._budgets)
        self._leave_slide()
        self.slide, self._owns_slide, self._engine = slide, owned, engine
        self._controls, self._statistics = Controls(engine), Statistics()
        self._desk = self._new_desk()
        self._warm, self._wake_at, self._dirty = False, math.inf, True
        if len(engine.channels) > MOST_SHOWN_AT_FIRST:  # sixty colours at once are white, and slow
            for look in engine.channels[SHOWN_OF_MANY:]:
                look.visible = False
            self._desk.say(f"{SHOWN_OF_MANY} of {len(engine.channels)} channels are shown")
        self._fit_picture()
        engine.fit()
        if self._remembers:
            self._recall()
        if self._panels is not None:
            from rawmosaic.viewer.ui.undo import Undo

            self._undo = Undo(engine, self._desk.board.annotations)

    def _recall(self) -> None:
        """Show the slide as it was left, and note that it was opened."""
        from rawmosaic.viewer import recent, saved_state

        for line in saved_state.restore(self._engine):
            self._desk.say(line, "warning")
        recent.remember(self.slide.location, self.slide.header.name)
        self._kept = self._engine_state()

    def _engine_state(self):
        from rawmosaic.viewer.display_state import capture

        return capture(self._engine)

    def _keep(self) -> None:
        """Keep what the view looks like, if that is something else than was kept."""
        from rawmosaic.viewer import saved_state

        state = self._engine_state()
        if state != self._kept:
            with suppress(SlideError):  # a read-only disk: the next window begins anew
                saved_state.save(self.slide, state)

    def _leave_slide(self) -> None:
        if self._engine is None:
            return
        self._auto_contrast.close()
        self._later.forget_all()
        if self._remembers:
            self._keep()
        if self._desk.board is not None:
            with suppress(SlideError):  # it was told while there was somebody to hear it
                self._desk.board.close()
        self._engine.close()
        self._engine = None
        if self._panels is not None:
            self._panels.forget()
        if self._owns_slide:
            self.slide.close()

    @property
    def engine(self):
        """The engine behind the window."""
        return self._engine

    @property
    def desk(self):
        """The state that the panels share."""
        return self._desk

    def run(self) -> None:
        """Show the window until it is closed."""
        while not glfw.window_should_close(self._window):
            self.step()

    def step(self) -> None:
        """Handle events, waiting for one if the picture is complete and nothing changed; draw if needed."""
        self.prepare()
        pause = self.may_rest_s()
        glfw.wait_events_timeout(pause) if pause else glfw.poll_events()
        self.advance()

    def prepare(self) -> None:
        """Take in what other threads have done since the last frame."""
        glfw.make_context_current(self._window)
        self._take_in_opened()
        self._take_in_dialog()
        self._take_in_done()
        self._take_in_limits()

    def may_rest_s(self) -> float:
        """Seconds that may pass without an event before the next frame; 0 if it is due."""
        report = self._engine.report
        if self._dirty or report.tiles_uploaded or (self._panels is not None and self._panels.layer.frames_due):
            return 0.0
        if not report.complete:
            return LOADING_S  # an arriving tile ends it
        self._warm_up()
        return 0.0 if self._dirty else max(min(self._wake_at - time.monotonic(), IDLE_S), 1e-3)

    def advance(self) -> bool:
        """Draw, if there is something new to see; returns whether there was."""
        if not (self._needs_frame() or self._engine.report.tiles_failed):
            return False
        glfw.make_context_current(self._window)
        self._draw()
        return True

    def place(self, x: int, y: int) -> None:
        """Move the window's upper left corner there, screen units."""
        glfw.set_window_pos(self._window, x, y)

    def redraw(self) -> None:
        """Something changed that the window does not know of."""
        self._changed(True)

    @property
    def handle(self):
        """glfw's window."""
        return self._window

    @property
    def is_closing(self) -> bool:
        """Whether the user has closed it."""
        return bool(glfw.window_should_close(self._window))

    @property
    def has_hands(self) -> bool:
        """Whether the keyboard is its own."""
        return bool(glfw.get_window_attrib(self._window, glfw.FOCUSED))

    def screenshot(self) -> np.ndarray:
        """(height, width, 4) uint8: the picture as the window shows it, drawn anew, without panels."""
        from rawmosaic.viewer.gl.api import GL

        glfw.make_context_current(self._window)
        self._engine.frame(self._target())
        width, height = self._engine.size
        pixels = np.empty((height, width, 4), np.uint8)
        GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 1)
        GL.glReadPixels(0, 0, width, height, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, pixels)
        self._changed(True)
        return pixels[::-1]

    def close(self) -> None:
        """Close the window and everything behind it but the slide; closing twice is harmless."""
        if self._window is None:
            return
        glfw.make_context_current(self._window)
        if self._later is not None:
            self._later.close()
        self._leave_slide()
        if self._panels is not None:
            self._panels.close()
        glfw.destroy_window(self._window)
        self._window = None

    def __enter__(self) -> MosaicWindow:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    # frames

    def _needs_frame(self) -> bool:
        report = self._engine.report
        panels_move = self._panels is not None and self._panels.layer.frames_due > 0
        due = time.monotonic() >= self._wake_at
        return self._dirty or panels_move or due or not report.complete or report.tiles_uploaded > 0

    def _warm_up(self) -> None:
        """Once, when the first picture stands."""
        if not self._warm:
            glfw.make_context_current(self._window)
            self._warm = True
            self._engine.warm_up(self._target())
            self._changed(True)

    def _target(self):
        from rawmosaic.viewer.renderer import Target

        return Target(0, self._engine.size, top_row_first=False)

    def _draw(self) -> None:
        self._dirty = False
        started = time.perf_counter()
        self._fit_picture()
        desk, panels = self._desk, self._panels
        if panels is not None:
            panels.layer.make_current()
        wake = [panels.stack.step(desk)] if panels is not None else []
        report = self._engine.frame(self._target())
        self._statistics.add(report, time.perf_counter() - started)
        if panels is not None:
            if desk.shown.minimap:
                wake.append(panels.minimap.refresh(desk))
            self._target().bind()
            panels.draw(desk, self._framebuffer_size(), self._pixels_per_unit())
            self._changed(desk.picture_changed)
            desk.picture_changed = False
            wake.append(desk.message_fades_in())
            wake.append(desk.board.save_when_due(self._later))
            wake.append(panels.figure.step(desk))
            held = self._dragging is not None or panels.layer.is_held
            self._undo.note("hand" if held else self._gesture, held)
            self._gesture = None
            self._note_cursor()
        self._wake_at = time.monotonic() + min((seconds for seconds in wake if seconds is not None), default=math.inf)
        glfw.swap_buffers(self._window)
        glfw.set_window_title(self._window, _title(self.slide, self._engine))

    def _fit_picture(self) -> None:
        """Give the engine the part of the window that the panels leave; what was in the middle stays there."""
        size = self._picture_area()[2:]
        if size != self._engine.size:
            self._engine.resize(size)
            self._dirty = True

    def _picture_area(self) -> tuple[int, int, int, int]:
        """x, y, width, height in the window, pixels."""
        size = self._framebuffer_size()
        if self._panels is None:
            return 0, 0, *size
        return self._panels.picture_area(self._desk, size, self._pixels_per_unit())

    def _over_picture(self) -> bool:
        """Whether the cursor is over the picture and no panel lies between."""
        x, y = self._in_picture(*self._cursor)
        width, height = self._engine.size
        return 0 <= x < width and 0 <= y < height and not (self._panels is not None and self._panels.layer.wants_mouse)

    def _note_cursor(self) -> None:
        """Where the cursor is, for the panels; known once they are drawn, since they may lie under it."""
        place = self._engine.camera.to_mosaic(*self._in_picture(*self._cursor)) if self._over_picture() else None
        if place is not None:
            self._panels.layer.set_pointer(glfw.CROSSHAIR_CURSOR)
        if place != self._desk.cursor_um:
            self._desk.cursor_um = place
            self._changed(True)

    # what panels and keys ask for

    def _new_desk(self):
        from rawmosaic.viewer.ui.desk import Desk

        desk = Desk(self._engine, self._controls, self._later, self._statistics, self._preferences)
        shown = desk.shown
        shown.side, shown.minimap, shown.scale_bar = (
            getattr(self._preferences, name) for name in ("side_panel", "minimap", "scale_bar")
        )
        desk.act = self._actions(desk)
        if self._panels is not None:
            from rawmosaic.viewer.ui.board import Board

            desk.board = Board(self.slide)
        return desk

    def _actions(self, desk) -> dict[str, Callable[..., object]]:
        def key(name: str) -> Callable[[], None]:
            return lambda: desk.touch(self._controls.key(name))

        return {
            "fit": key("0"),
            "one to one": key("kp_5"),
            "side": self._toggle_side,
            "auto slide": lambda channels: self._find_limits("slide", channels),
            "auto view": lambda channels: self._find_limits("view", channels),
            "auto field": lambda channels: self._find_limits("field", channels),
            "unmix": self._unmix,
            "undo": lambda: desk.touch(self._undo.undo()),
            "undo?": lambda: self._undo.can_undo,
            "redo": lambda: desk.touch(self._undo.redo()),
            "redo?": lambda: self._undo.can_redo,
            "go to": self._ask_where_to,
            "screenshot": self._save_screenshot,
            "figure": lambda: self._panels.figure.open(desk),
            "measure": self._measure,
            "recent": _recent_locations,
            "open": self._ask_what_to_open,
            "open location": self.open,
        }

    def open(self, location: str) -> None:
        """Show another slide or acquisition as soon as it is opened; the picture stays until then, and if it cannot be."""
        from rawmosaic.storage import open_slide

        self._desk.say(f"opening {location} …")
        self._opening = (location, self._later.newest("open", lambda: open_slide(location)))
        self._changed(True)

    def _take_in_opened(self) -> None:
        if self._opening is None or not self._opening[1].done():
            return
        (location, future), self._opening = self._opening, None
        if future.cancelled():
            return
        try:
            slide = future.result()
        except (SlideError, OSError) as error:
            self._desk.say(str(error), "error")
            return
        try:
            self._show(slide, owned=True)
        except SlideError as error:  # the one that was shown stays
            slide.close()
            self._desk.say(f"{location}: {error}", "error")

    def _find_limits(self, scope: str, channels: list[int]) -> None:
        """Automatic contrast of the slide, the view, or the field in its middle; soon again: stronger."""
        from rawmosaic.viewer.auto_contrast import question_of
        from rawmosaic.viewer.places import field_under

        engine, about = self._engine, {}
        if scope == "view":
            about["region_um"] = engine.camera.bounds_um()
        elif scope == "field":
            camera, z = engine.camera, min(engine.view().z, self.slide.size_z - 1)
            about["field"] = field_under(self.slide, engine.geometry, camera.x_um, camera.y_um, channels, z, engine.t)
            if about["field"] is None:
                self._desk.say("there is no field in the middle of the view", "warning")
                return
        tail = self._strength.tail((scope, tuple(channels)))
        self._auto_contrast.ask(question_of(engine, channels, tail=tail, **about))

    def _take_in_limits(self) -> None:
        from rawmosaic.viewer.auto_contrast import apply_limits

        answer = self._auto_contrast.arrived()
        if answer is not None:
            self._changed(apply_limits(answer, self._engine.channels))
            for line in answer.told[:1]:
                self._desk.say(line, "warning")

    def _unmix(self) -> None:
        """Unmix by reference regions: annotations whose class is the name of a channel, or `background`."""
        from rawmosaic.viewer.ui.references import reference_boxes, unmixing_of

        engine, desk = self._engine, self._desk
        boxes = reference_boxes(desk.board.annotations, [look.name for look in engine.channels])
        if not any(boxes.channels):
            desk.say("draw a region where each dye is alone, and give it the channel's name as class", "warning")
            return
        names, view, geometry = [look.name for look in engine.channels], engine.view(), engine.geometry
        z = min(view.z, self.slide.size_z - 1)

        def found(matrix: np.ndarray) -> None:
            engine.unmixing = matrix
            desk.say("unmixed by " + ", ".join(names[channel] for channel in boxes.channels))

        future = self._later.newest("unmix", lambda: unmixing_of(self.slide, geometry, boxes, names, z, view.t))
        self._waiting.append((future, found))

    def _ask_where_to(self) -> None:
        self._desk.shown.side = True
        self._panels.places.wants_focus = True
        self._changed(True)

    def _save_screenshot(self) -> None:
        """The picture as a PNG in the user's folder of pictures; a line says where."""
        from PIL import Image

        from rawmosaic.viewer.ui.figure_panel import pictures_folder, plain_name

        pixels = np.ascontiguousarray(self.screenshot()[..., :3])
        path = pictures_folder() / f"{plain_name(self.slide.header.name)} {time.strftime('%Y-%m-%d %H.%M.%S')}.png"

        def write() -> None:
            Image.fromarray(pixels).save(path, compress_level=1)

        self._tell_when_done(self._later.newest("screenshot", write), f"screenshot written: {path}")

    def _measure(self, numbers: list[int]) -> None:
        """Raw counts inside annotations, worked out in the background."""
        from rawmosaic.viewer.annotations.measure import Measurer
        from rawmosaic.viewer.ui.measured import measured_lines

        engine, desk = self._engine, self._desk
        view = engine.view()
        shapes = [desk.board.annotations[number].shape for number in numbers[:MOST_MEASURED]]
        names = [look.name for look in engine.channels]

        def measure() -> list[str]:
            with Measurer(self.slide, position_set=view.position_set, z=engine.z, t=engine.t) as measurer:
                return [line for shape in shapes for line in measured_lines(measurer.measure(shape), names)]

        desk.measured = ["measuring …"]
        self._waiting.append((self._later.newest("measure", measure), lambda lines: setattr(desk, "measured", lines)))

    def _tell_when_done(self, future, text: str) -> None:
        self._waiting.append((future, lambda _: self._desk.say(text)))

    def _take_in_done(self) -> None:
        """What was asked of other threads and is there now."""
        done = [entry for entry in self._waiting if entry[0].done()]
        self._waiting = [entry for entry in self._waiting if not entry[0].done()]
        for future, take in done:
            if future.cancelled():
                continue
            if (error := future.exception()) is not None:
                self._desk.say(str(error), "error")
            else:
                take(future.result())
            self._changed(True)

    def _ask_what_to_open(self) -> None:
        """The system's own dialog, which does not stop the window."""
        from imgui_bundle import portable_file_dialogs

        if self._dialog is None:
            kinds = ["slides and acquisitions", "*.h5 *.tif *.tiff *.txt *.htd *.HTD *.csv", "all files", "*"]
            self._dialog = portable_file_dialogs.open_file("Open a slide or acquisition", "", kinds)

    def _take_in_dialog(self) -> None:
        if self._dialog is not None and self._dialog.ready(0):
            chosen, self._dialog = self._dialog.result(), None
            if chosen:
                self.open(chosen[0])

    def _toggle_side(self) -> None:
        self._desk.shown.side ^= True
        self._keep_preferences()
        self._changed(True)

    def _keep_preferences(self) -> None:
        from rawmosaic.viewer.preferences import save_preferences

        shown = self._desk.shown
        kept = self._preferences
        kept.side_panel, kept.minimap, kept.scale_bar = shown.side, shown.minimap, shown.scale_bar
        save_preferences(kept)

    # events

    def _connect(self) -> None:
        window = self._window
        glfw.set_framebuffer_size_callback(window, self._on_resize)
        glfw.set_window_refresh_callback(window, lambda _: self._changed(True))
        glfw.set_scroll_callback(window, self._on_scroll)
        glfw.set_cursor_pos_callback(window, self._on_cursor)
        glfw.set_cursor_enter_callback(window, self._on_enter)
        glfw.set_mouse_button_callback(window, self._on_button)
        glfw.set_key_callback(window, self._on_key)
        glfw.set_char_callback(window, self._on_char)
        glfw.set_window_focus_callback(window, self._on_focus)
        glfw.set_drop_callback(window, self._on_drop)

    def _changed(self, changed: bool) -> None:
        self._dirty = self._dirty or changed

    def _on_resize(self, _window, width: int, height: int) -> None:
        if width > 0 and height > 0:  # a minimised window has no size
            self._size_px = (width, height)
            self._fit_picture()
            self._changed(True)

    def _on_focus(self, _window, focused: int) -> None:
        if self._panels is not None:
            self._panels.layer.on_focus(bool(focused))

    def _on_enter(self, _window, entered: int) -> None:
        if not entered:
            self._cursor = (-1.0, -1.0)
            if self._panels is not None:
                self._panels.layer.on_cursor_left()

    def _on_drop(self, _window, paths: list[str]) -> None:
        if paths:
            self.open(paths[0])

    def _on_scroll(self, window, dx: float, dy: float) -> None:
        if self._panels is not None:
            self._panels.layer.on_scroll(dx, dy)
        if not self._over_picture():
            return
        self._gesture = "wheel"
        sign = -1.0 if self._preferences.invert else 1.0
        ctrl, shift = (_is_down(window, keys) for keys in (_CTRL_KEYS, _SHIFT_KEYS))
        if not ctrl and (shift or self._preferences.scroll == "pan"):
            if shift and not dx:
                dx, dy = dy, 0.0
            self._changed(self._controls.pan(sign * dx * PAN_PX, sign * dy * PAN_PX))
        else:  # fingers that pinch come as a wheel with Ctrl
            self._changed(self._controls.wheel(sign * dy, *self._in_picture(*self._cursor)))

    def _on_cursor(self, _window, x: float, y: float) -> None:
        ratio = self._cursor_ratio()
        cursor = (x * ratio[0], y * ratio[1])
        moved = (cursor[0] - self._cursor[0], cursor[1] - self._cursor[1])
        self._cursor = cursor
        if self._panels is not None:
            self._panels.layer.on_cursor(*cursor)
        if self._dragging == "pan":
            self._panned = True
            self._changed(self._controls.pan(*moved))
        elif self._dragging == "contrast":
            self._changed(self._controls.contrast_drag(*moved))
        elif self._dragging == "draw" or self._over_picture():
            self._hand("move")

    def _on_button(self, window, button: int, action: int, _mods: int) -> None:
        pressed = action != glfw.RELEASE
        if self._panels is not None:
            self._panels.layer.on_button(button, pressed)
        if not pressed:
            if button == glfw.MOUSE_BUTTON_LEFT and self._dragging is not None:
                self._hand("release", panned=self._panned)
            self._dragging = None
            return
        if not self._over_picture():
            return
        self._panned = False
        space = glfw.get_key(window, glfw.KEY_SPACE) == glfw.PRESS
        if button == glfw.MOUSE_BUTTON_LEFT and not space:
            double = self._is_double_click()
            if self._hand("double_click" if double else "press"):
                self._dragging = "draw"
                return
            if double:
                self._fill_with_field()
                return
        contrast = button == glfw.MOUSE_BUTTON_RIGHT and not space
        self._dragging = "contrast" if contrast else "pan"

    def _hand(self, event: str, **more) -> bool:
        """Tell the annotations' editor of the mouse; whether it took the event."""
        board = self._desk.board
        if board is None or not self._desk.shown.annotations:
            return False
        from rawmosaic.viewer.ui.board import TOLERANCE_UNITS

        camera = self._engine.camera
        place = camera.to_mosaic(*self._in_picture(*self._cursor))
        tolerance_um = TOLERANCE_UNITS * self._pixels_per_unit() / camera.px_per_um
        held = (("shift", _SHIFT_KEYS), ("ctrl", _CTRL_KEYS), ("alt", _ALT_KEYS))
        mods = [name for name, keys in held if _is_down(self._window, keys)]
        taken = getattr(board.editor, event)(*place, tolerance_um, mods, **more)
        self._changed(taken)
        return taken

    def _is_double_click(self) -> bool:
        now, (before, x, y) = time.monotonic(), self._pressed_at
        near = abs(x - self._cursor[0]) + abs(y - self._cursor[1]) < DOUBLE_CLICK_PX * self._pixels_per_unit()
        double = now - before < DOUBLE_CLICK_S and near
        self._pressed_at = (-1e9, 0.0, 0.0) if double else (now, *self._cursor)
        return double

    def _fill_with_field(self) -> None:
        """The field under the cursor fills the picture."""
        from rawmosaic.viewer.probe import spot_at

        engine, view = self._engine, self._engine.view()
        has, place = self.slide.acquired(view.z, view.t), engine.camera.to_mosaic(*self._in_picture(*self._cursor))
        spots = (spot_at(engine.geometry, has, channel, *place) for channel in view.channels)
        spot = next((spot for spot in spots if spot is not None), None)
        if spot is not None:
            engine.camera = engine.camera.fitted(engine.geometry.box_of(spot.field, view.channels[0]))
            self._changed(True)

    def _on_key(self, window, key: int, _scancode: int, action: int, mods: int) -> None:
        pressed = action != glfw.RELEASE
        typing = self._panels is not None and self._panels.layer.on_key(key, pressed, mods)
        self._handled_key = False
        if not pressed or (typing and key != glfw.KEY_F11):
            self._handled_key = typing
            return
        if mods & (glfw.MOD_CONTROL | glfw.MOD_SUPER):
            self._handled_key = True
            self._command(key, mods)
            return
        board = self._desk.board
        if board is not None and key in _EDITING_KEYS and board.editor.key(_EDITING_KEYS[key]):
            self._handled_key = True
            self._changed(True)
            return
        name = _NAMED_KEYS.get(key)
        if mods & glfw.MOD_SHIFT and key in _SHIFTED_DIGITS:
            name = f"shift+{_SHIFTED_DIGITS[key]}"
        self._handled_key = name is not None
        if action == glfw.REPEAT and name in ("escape", "f11", "tab"):
            return
        if name == "escape":
            self._escape(window)
        elif name == "f11":
            self._toggle_full_screen()
        elif name == "tab":
            self._toggle_side()
        elif name is not None:
            self._changed(self._controls.key(name))

    def _command(self, key: int, mods: int) -> None:
        name = _COMMANDS.get(key)
        if key == glfw.KEY_Z:
            name = "redo" if mods & glfw.MOD_SHIFT else "undo"
        action = self._desk.act.get(name or "")
        if action is not None:
            action()
            self._changed(True)

    def _escape(self, window) -> None:
        """Close what lies on top; with nothing there, the window."""
        shown = self._desk.shown
        if shown.keys or shown.messages:
            shown.keys = shown.messages = False
            self._changed(True)
        else:
            glfw.set_window_should_close(window, True)

    def _on_char(self, window, codepoint: int) -> None:
        """Characters, as the keyboard's own layout gives them; a key of the number pad is both, and acts once."""
        typing = self._panels is not None and self._panels.layer.on_character(codepoint)
        if self._handled_key or typing:
            return
        character, shown = chr(codepoint), self._desk.shown
        toggled = {"?": "keys", "\\": "statistics", "b": "scale_bar", "m": "minimap", "A": "annotations"}.get(character)
        if character in ("q", "Q"):
            glfw.set_window_should_close(window, True)
        elif toggled is not None:
            setattr(shown, toggled, not getattr(shown, toggled))
            self._keep_preferences()
            self._changed(True)
        elif character == "C":
            shown.side, shown.contrast = True, not (shown.side and shown.contrast)
            self._changed(True)
        elif character == "c" and "auto slide" in self._desk.act:
            self._find_limits("slide", list(range(len(self._engine.channels))))
        elif character == "R":
            self._changed(self._controls.key("shift+r"))
        else:
            self._changed(self._controls.key(character.lower()))

    def _toggle_full_screen(self) -> None:
        window = self._window
        if self._windowed is None:
            self._windowed = (*glfw.get_window_pos(window), *glfw.get_window_size(window))
            monitor = glfw.get_primary_monitor()
            mode = glfw.get_video_mode(monitor)
            glfw.set_window_monitor(window, monitor, 0, 0, mode.size.width, mode.size.height, mode.refresh_rate)
        else:
            glfw.set_window_monitor(window, None, *self._windowed, 0)
            self._windowed = None
        self._changed(True)

    # sizes

    def _framebuffer_size(self) -> tuple[int, int]:
        """Pixels of the window; asked once for each change, since the window system takes half a millisecond to answer."""
        if self._size_px is None:
            width, height = glfw.get_framebuffer_size(self._window)
            self._size_px = max(width, 1), max(height, 1)
        return self._size_px

    def _in_picture(self, x: float, y: float) -> tuple[float, float]:
        """Window pixels → pixels of the picture."""
        left, top, _, _ = self._picture_area()
        return x - left, y - top

    def _pixels_per_unit(self) -> float:
        """How large panels are drawn: 2 at 200 %."""
        return self._ui_scale or max(glfw.get_window_content_scale(self._window)[0], 0.5)

    def _cursor_ratio(self) -> tuple[float, float]:
        """Framebuffer pixels per cursor unit: 2 on a high-resolution Mac screen."""
        width, height = glfw.get_window_size(self._window)
        pixels = self._framebuffer_size()
        return pixels[0] / max(width, 1), pixels[1] / max(height, 1)


def _recent_locations() -> list[str]:
    from rawmosaic.viewer.recent import recent

    return [entry.location for entry in recent()]


def _is_down(window, keys: tuple[int, ...]) -> bool:
    return any(glfw.get_key(window, key) == glfw.PRESS for key in keys)


def _panels(window):
    """The panels, or None on a machine without imgui-bundle: then the window is the bare picture."""
    with suppress(ImportError):
        from rawmosaic.viewer.ui.ui import Panels

        return Panels(window)
    return None


def _title(slide: Slide, engine=None) -> str:
    parts = [slide.header.name]
    if engine is not None:
        for axis, size in (("z", slide.size_z), ("t", slide.size_t)):
            if size > 1:
                parts.append(f"{axis} {getattr(engine, axis) + 1}/{size}")
        parts.append(f"{100 * engine.camera.scale:.3g} %")
        if unreadable := len(getattr(slide, "unreadable", ())):
            parts.append(f"{unreadable} planes unreadable")
    return "  ·  ".join(parts) + " — rawmosaic"
