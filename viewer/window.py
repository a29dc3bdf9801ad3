"""The window: one slide, one engine, one glfw window, and their life. Draws when something changed and sleeps otherwise.

Its parts lie beside it: `window_events` takes the mouse, `window_keys` the keyboard, `window_requests` does what panels and keys
ask for, `window_frames` draws, `window_sizes` knows pixels from units. They share the window and meet only in it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import glfw
import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.gl.glfw_window import create_window
from rawmosaic.viewer.window_events import Events
from rawmosaic.viewer.window_frames import Frames, title
from rawmosaic.viewer.window_keys import Keyboard
from rawmosaic.viewer.window_requests import Requests
from rawmosaic.viewer.window_sizes import Sizes

if TYPE_CHECKING:
    from rawmosaic.viewer.controls import Controls
    from rawmosaic.viewer.display_state import DisplayState
    from rawmosaic.viewer.engine import Engine
    from rawmosaic.viewer.later import Later
    from rawmosaic.viewer.preferences import Preferences
    from rawmosaic.viewer.ui.desk import Desk
    from rawmosaic.viewer.ui.ui import Panels
    from rawmosaic.viewer.ui.undo import Undo

DEFAULT_SIZE = (1280, 800)
IDLE_S = 0.5
"""A window with nothing to do looks again after this time: tiles that could not be read are tried again."""

MOST_SHOWN_AT_FIRST, SHOWN_OF_MANY = 12, 4
"""A slide of more channels than the first begins with so many of them shown."""


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
        self._budgets, self._remembers = budgets, remembers and panels
        self._engine: Engine | None = None
        self._panels: Panels | None = None
        self._later: Later | None = None
        self._undo: Undo | None = None
        self._owns_slide = False
        self._windowed: tuple[int, int, int, int] | None = None
        self._window = create_window(title(slide), size, visible=visible)
        try:
            glfw.swap_interval(1)
            from rawmosaic.viewer.later import Later
            from rawmosaic.viewer.preferences import load_preferences

            self._preferences = load_preferences()
            self._later = Later(self.wake)
            self._sizes = Sizes(self._window, ui_scale)
            self._events, self._keyboard, self._requests, self._frames = (
                Events(self),
                Keyboard(self),
                Requests(self),
                Frames(self),
            )
            self._panels = _panels(self._window) if panels else None
            self.show(slide)
        except BaseException:
            self.close()
            raise
        self._events.connect()

    # the slide

    def show(self, slide: Slide, owned: bool = False) -> None:
        """Look at a slide, in place of another. `owned`: the window closes it. Raises SlideError; the other stays then."""
        from rawmosaic.viewer.controls import Controls
        from rawmosaic.viewer.engine import Engine

        engine = Engine(slide, self._sizes.size_px, on_arrival=self.wake, **self._budgets)
        self._leave_slide()
        self.slide, self._owns_slide, self._engine = slide, owned, engine
        self._controls = Controls(engine)
        self._desk = self._new_desk()
        self._frames.begin_anew()
        if len(engine.channels) > MOST_SHOWN_AT_FIRST:  # sixty colours at once are white, and slow
            for look in engine.channels[SHOWN_OF_MANY:]:
                look.visible = False
            self._desk.say(f"{SHOWN_OF_MANY} of {len(engine.channels)} channels are shown")
        self.fit_picture()
        engine.fit()
        if self._remembers:
            self._recall()
        if self._panels is not None:
            from rawmosaic.viewer.ui.undo import Undo

            self._undo = Undo(engine, self._desk.board.annotations)

    def renew(self, slide: Slide) -> None:
        """Look at a slide in place of one of the same name; view, looks, annotations and panels stay. Raises SlideError."""
        from rawmosaic.viewer.display_state import apply

        state, desk = self._engine_state(), self._desk
        self.show(slide, owned=True)
        apply(state, self._engine)
        desk.engine, desk.controls, desk.act = self._engine, self._controls, self._requests.actions(desk)
        self._desk = desk
        self.fit_picture()
        if self._panels is not None:
            from rawmosaic.viewer.ui.undo import Undo

            self._undo = Undo(self._engine, desk.board.annotations)

    def open(self, location: str) -> None:
        """Show another slide or acquisition as soon as it is opened; the picture stays until then, and if it cannot be."""
        self._requests.open(location)

    def _new_desk(self) -> Desk:
        from rawmosaic.viewer.statistics import Statistics
        from rawmosaic.viewer.ui.desk import Desk

        desk = Desk(self._engine, self._controls, self._later, Statistics(), self._preferences)
        shown, kept = desk.shown, self._preferences
        shown.side, shown.minimap, shown.scale_bar = kept.side_panel, kept.minimap, kept.scale_bar
        desk.act = self._requests.actions(desk)
        if self._panels is not None:
            from rawmosaic.viewer.ui.board import Board

            desk.board = Board(self.slide)
        return desk

    def _recall(self) -> None:
        """Show the slide as it was left, and note that it was opened."""
        from rawmosaic.viewer import recent, saved_state

        for line in saved_state.restore(self._engine):
            self._desk.say(line, "warning")
        recent.remember(self.slide.location, self.slide.header.name)
        self._kept = self._engine_state()

    def _engine_state(self) -> DisplayState:
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
        self._requests.leave_slide()
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

    # what it is made of

    @property
    def engine(self) -> Engine:
        """The engine behind the window."""
        return self._engine

    @property
    def desk(self) -> Desk:
        """The state that the panels share."""
        return self._desk

    @property
    def controls(self) -> Controls:
        """What hands do to the engine."""
        return self._controls

    @property
    def panels(self) -> Panels | None:
        """The panels; None for the bare picture."""
        return self._panels

    @property
    def undo(self) -> Undo | None:
        """What was done; None for the bare picture."""
        return self._undo

    @property
    def preferences(self) -> Preferences:
        """What the user prefers in every window."""
        return self._preferences

    @property
    def later(self) -> Later:
        """Where answers are worked out that take a while."""
        return self._later

    @property
    def sizes(self) -> Sizes:
        """Its pixels and units."""
        return self._sizes

    @property
    def events(self) -> Events:
        """The hands on it."""
        return self._events

    @property
    def keyboard(self) -> Keyboard:
        """Its keys."""
        return self._keyboard

    @property
    def handle(self):
        """glfw's window."""
        return self._window

    # frames

    def run(self) -> None:
        """Show the window until it is closed."""
        while not self.is_closing:
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
        self._requests.take_in()

    def may_rest_s(self) -> float:
        """Seconds that may pass without an event before the next frame; 0 if it is due."""
        return self._frames.may_rest_s(IDLE_S)

    def advance(self) -> bool:
        """Draw, if there is something new to see; returns whether there was."""
        if not (self._frames.is_due or self._engine.report.tiles_failed):
            return False
        glfw.make_context_current(self._window)
        self._draw()
        return True

    def _draw(self) -> None:
        self._frames.draw()

    def redraw(self, changed: bool = True) -> None:
        """Something changed that the next frame shows."""
        if changed:
            self._frames.wanted()

    def wake(self) -> None:
        """End a wait for events; from any thread."""
        glfw.post_empty_event()

    def screenshot(self) -> np.ndarray:
        """(height, width, 4) uint8: the picture as the window shows it, drawn anew, without panels."""
        glfw.make_context_current(self._window)
        return self._frames.screenshot()

    # the picture in the window

    def picture_area(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the picture in the window, pixels."""
        size = self._sizes.size_px
        if self._panels is None:
            return 0, 0, *size
        return self._panels.picture_area(self._desk, size, self._sizes.pixels_per_unit)

    def in_picture(self, x: float, y: float) -> tuple[float, float]:
        """Window pixels → pixels of the picture."""
        left, top, _, _ = self.picture_area()
        return x - left, y - top

    def fit_picture(self) -> None:
        """Give the engine the part of the window that the panels leave; what was in the middle stays there."""
        size = self.picture_area()[2:]
        if size != self._engine.size:
            self._engine.resize(size)
            self.redraw()

    def is_over_picture(self) -> bool:
        """Whether the cursor is over the picture and no panel lies between."""
        x, y = self.in_picture(*self._events.cursor)
        width, height = self._engine.size
        return 0 <= x < width and 0 <= y < height and not (self._panels is not None and self._panels.layer.wants_mouse)

    def fill_with_field(self) -> None:
        """The field under the cursor fills the picture."""
        from rawmosaic.viewer.probe import spot_at

        engine, view = self._engine, self._engine.view()
        has, place = self.slide.acquired(view.z, view.t), engine.camera.to_mosaic(*self.in_picture(*self._events.cursor))
        spots = (spot_at(engine.geometry, has, channel, *place) for channel in view.channels)
        spot = next((spot for spot in spots if spot is not None), None)
        if spot is not None:
            engine.camera = engine.camera.fitted(engine.geometry.box_of(spot.field, view.channels[0]))
            self.redraw()

    def note_hands(self) -> None:
        """After the panels of a frame: what the hands have done is a step to undo, and the panels hear where the cursor is.

        That is known only now, since they may lie under it.
        """
        events, layer = self._events, self._panels.layer
        held = events.is_dragging or layer.is_held
        self._undo.note("hand" if held else events.gesture, held)
        events.gesture = None
        place = self._engine.camera.to_mosaic(*self.in_picture(*events.cursor)) if self.is_over_picture() else None
        if place is not None:
            layer.set_pointer(glfw.CROSSHAIR_CURSOR)
        if place != self._desk.cursor_um:
            self._desk.cursor_um = place
            self.redraw()

    # the window on the screen

    @property
    def is_closing(self) -> bool:
        """Whether the user has closed it."""
        return bool(glfw.window_should_close(self._window))

    def ask_to_close(self) -> None:
        """Have `run` return."""
        glfw.set_window_should_close(self._window, True)

    @property
    def has_hands(self) -> bool:
        """Whether the keyboard is its own."""
        return bool(glfw.get_window_attrib(self._window, glfw.FOCUSED))

    def place(self, x: int, y: int) -> None:
        """Move the window's upper left corner there, screen units."""
        glfw.set_window_pos(self._window, x, y)

    @property
    def is_full_screen(self) -> bool:
        """Whether it has all of the screen."""
        return self._windowed is not None

    def toggle_full_screen(self) -> None:
        """All of the screen, or as large as before."""
        window = self._window
        if self._windowed is None:
            self._windowed = (*glfw.get_window_pos(window), *glfw.get_window_size(window))
            monitor = glfw.get_primary_monitor()
            mode = glfw.get_video_mode(monitor)
            glfw.set_window_monitor(window, monitor, 0, 0, mode.size.width, mode.size.height, mode.refresh_rate)
        else:
            glfw.set_window_monitor(window, None, *self._windowed, 0)
            self._windowed = None
        self.redraw()

    def toggle_side(self) -> None:
        """Show or hide the side panel."""
        self._desk.shown.side ^= True
        self.keep_preferences()
        self.redraw()

    def keep_preferences(self) -> None:
        """What is shown now is shown in the next window too."""
        from rawmosaic.viewer.preferences import save_preferences

        shown, kept = self._desk.shown, self._preferences
        kept.side_panel, kept.minimap, kept.scale_bar = shown.side, shown.minimap, shown.scale_bar
        save_preferences(kept)

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


def _panels(handle) -> Panels | None:
    """The panels, or None on a machine without imgui-bundle: then the window is the bare picture."""
    with suppress(ImportError):
        from rawmosaic.viewer.ui.ui import Panels

        return Panels(handle)
    return None
