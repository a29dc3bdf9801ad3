"""The Qt face of the engine: a mosaic as a widget of somebody else's program. Needs PySide6, the extra `qt`.

Import this before the QApplication is made: on Linux it then asks Qt for EGL, as the rest of rawmosaic uses, and everywhere for
OpenGL 3.3. A program that has made its application already works as well, wherever Qt's own choice has OpenGL 3.3 (GLX too).

Threads never touch the widget: they ring a bell (a queued signal), and the widget draws again when Qt is ready.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from contextlib import suppress
from typing import Any

try:
    from PySide6.QtCore import QCoreApplication, QEvent, QObject, QPointF, Qt, QTimer, Signal
    from PySide6.QtGui import QInputDevice, QKeyEvent, QOffscreenSurface, QOpenGLContext, QSurfaceFormat
    from PySide6.QtOpenGLWidgets import QOpenGLWidget
    from PySide6.QtWidgets import QApplication, QWidget
    from shiboken6 import getCppPointer, wrapInstance
except ImportError as error:
    raise ImportError(f'the Qt widget needs PySide6 ({error}); type: pip install "rawmosaic[qt]"') from error

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.desktop import no_window_text
from rawmosaic.viewer.display_state import DisplayState, apply, capture
from rawmosaic.viewer.gl import context as _gl_context  # noqa: F401  decides how PyOpenGL finds its functions

WHEEL_STEP = 120.0
"""Qt's eighths of a degree in one step of an ordinary wheel."""

PAN_PX = 40.0
"""What a step of the wheel pans by, where it pans."""

LOADING_MS, RETRY_MS = 100, 500
"""When an incomplete picture, and one with unreadable tiles, is looked at again if nothing arrives before."""

SILENCE_LOOK_MS = 250
"""How often one looks whether a slide's server answers; only of slides that may have one."""

MOST_SHOWN_AT_FIRST, SHOWN_OF_MANY = 12, 4
"""A slide of more channels than the first begins with so many of them shown, as in rawmosaic's own window."""

_KEYS = {
    Qt.Key.Key_Left: "left",
    Qt.Key.Key_Right: "right",
    Qt.Key.Key_Up: "up",
    Qt.Key.Key_Down: "down",
    Qt.Key.Key_PageDown: "pagedown",
    Qt.Key.Key_PageUp: "pageup",
}
_SCENES = {"pagedown": 1, "n": 1, "pageup": -1, "shift+n": -1}
_COMMANDS = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier | Qt.KeyboardModifier.MetaModifier
_MAC_DIGITS = (18, 19, 20, 21, 23, 22, 26, 28, 25)
"""Virtual key codes of 1 to 9 on a Mac."""


def _check_counts() -> None:
    """PySide6 6.12.0 gives None away once too often in every call, and Python before 3.12 counts: the program would soon end."""
    if sys.version_info >= (3, 12):  # None is not counted
        return
    calls, before = 64, sys.getrefcount(None)
    for _ in range(calls):
        QCoreApplication.sendPostedEvents()
    if before - sys.getrefcount(None) > calls // 2:
        from PySide6 import __version__

        raise ImportError(
            f"PySide6 {__version__} ends programs in Python {sys.version_info[0]}.{sys.version_info[1]} after a while; "
            'type: pip install "PySide6-Essentials<6.12", or use Python 3.12 or newer'
        )


def prepare() -> None:
    """Have Qt make OpenGL 3.3 contexts, through EGL on X11. Without effect once there is an application."""
    if QCoreApplication.instance() is None:
        if sys.platform.startswith("linux"):
            os.environ.setdefault("QT_XCB_GL_INTEGRATION", "xcb_egl")
        QSurfaceFormat.setDefaultFormat(surface_format())


def surface_format() -> QSurfaceFormat:
    """OpenGL 3.3 core with a depth buffer, one sample."""
    wanted = QSurfaceFormat(QSurfaceFormat.defaultFormat())
    wanted.setRenderableType(QSurfaceFormat.RenderableType.OpenGL)
    wanted.setVersion(3, 3)
    wanted.setProfile(QSurfaceFormat.OpenGLContextProfile.CoreProfile)
    wanted.setDepthBufferSize(24)
    wanted.setSamples(0)
    return wanted


_check_counts()
prepare()


class MosaicWidget(QOpenGLWidget):
    """A slide in a Qt 6 widget: mouse, wheel, touchpad and keys as in rawmosaic's own window. Use it from the GUI thread.

    Parameters
    ----------
    ram_bytes, vram_bytes, threads
        Budgets and number of reading threads, as for the engine.

    Signals
    -------
    slide_opened()
        A slide is there: `engine`, `slide` and `channels` can be used.
    failed(text)
        A location could not be opened, or there is no usable OpenGL: one line that says why and what to do.
    away_changed(away)
        The slide's server does not answer, and its tiles are waited for: who that is, as it is told to people; empty once it
        answers again, or another slide is shown. What was seen stays.
    cursor_moved(x_um, y_um, field)
        Where the cursor is in the mosaic frame, and over which field (-1: none).
    cursor_left()
        It is no longer over the picture.
    view_changed(x_um, y_um, scale)
        The centre of the view, and screen pixels per image pixel; after the frame that shows it.
    looks_changed()
        Keys or drags changed channels, z, t, overlap or position set.
    scene_shown(number)
        Keys, or `go_to_scene`, went to a well or scene: its number in `slide.scenes`.

    Keys that it has no use for go on to the program: `a` and `d`, since it draws neither annotations nor detections (an overlay
    of the program's own can), and those of panels that it does not have.
    """

    slide_opened = Signal()
    failed = Signal(str)
    away_changed = Signal(str)
    cursor_moved = Signal(float, float, int)
    cursor_left = Signal()
    view_changed = Signal(float, float, float)
    looks_changed = Signal()
    scene_shown = Signal(int)

    def __init__(self, parent: QWidget | None = None, **budgets: Any):
        super().__init__(parent)
        self.setFormat(surface_format())
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)  # the right button is for contrast
        self.setMouseTracking(True)
        self.scroll, self.invert = "zoom", False
        self._budgets = budgets
        self._slide: Slide | None = None
        self._owns_slide = False
        self._gl: _Resources | None = None
        self._opening: _Opening | None = None
        self._bell = _Bell()
        self._bell.arrived.connect(self._on_arrival, Qt.ConnectionType.QueuedConnection)
        self._bell.opened.connect(self._on_opened, Qt.ConnectionType.QueuedConnection)
        self._again = QTimer(self)
        self._again.setSingleShot(True)
        self._again.timeout.connect(self.update)
        self._away = ""
        self._silence = QTimer(self)
        self._silence.setInterval(SILENCE_LOOK_MS)
        self._silence.timeout.connect(self._look_for_silence)
        self._warm = False
        self._dirty = self._fits = True
        self._shown: tuple[float, float, float] | None = None
        self._dragging: str | None = None
        self._space = False
        self._cursor = QPointF()
        QCoreApplication.instance().aboutToQuit.connect(self.close_slide)

    # the slide

    def open(self, slide: str | os.PathLike | Slide, **options: Any) -> None:
        """Look at a slide, or at a location, which is opened in the background; `slide_opened` or `failed` says the outcome.

        `options` are those of `open_slide`. A slide that is handed in stays its owner's; what is opened here is closed here.
        What was shown before goes on being shown until then.
        """
        self._forget_opening()
        if isinstance(slide, Slide):
            self._show_slide(slide, owned=False)
        else:
            self._opening = _Opening(slide, options, self._bell)
            self._opening.start()

    @property
    def opening(self) -> bool:
        """Whether a location is being opened."""
        return self._opening is not None

    def cancel_opening(self) -> None:
        """What is being opened is not wanted any longer."""
        self._forget_opening()

    def close_slide(self) -> None:
        """Show nothing; gives back threads, OpenGL objects and the slide, if it was opened here. Twice is harmless."""
        self._forget_opening()
        self._leave_slide()
        self._again.stop()
        self.update()

    @property
    def slide(self) -> Slide | None:
        """What is shown."""
        return self._slide

    @property
    def away(self) -> str:
        """Who does not answer just now, as `away_changed` told last; empty while all goes well."""
        return self._away

    @property
    def engine(self):
        """The Engine behind the widget; None until the widget was shown with a slide. After changing it, call `refresh`."""
        return self._gl.engine if self._gl is not None else None

    @property
    def _controls(self):
        return self._gl.controls if self._gl is not None else None

    @property
    def channels(self) -> list:
        """The looks of the channels: change them, then `refresh()`. Empty until `slide_opened`."""
        return self.engine.channels if self.engine is not None else []

    # the view

    def fit(self) -> None:
        """Show the whole mosaic."""
        if self.engine is not None:
            self.engine.fit()
            self.refresh()

    def look_at(self, x_um: float, y_um: float, scale: float | None = None) -> None:
        """Centre on a point of the mosaic frame, µm; `scale` is screen pixels per image pixel. Raises OutOfRangeError."""
        if self.engine is not None:
            self.engine.look_at(x_um, y_um, scale)
            self.refresh()

    def go_to_scene(self, step: int) -> bool:
        """Show the well or scene that comes so many after the one in view (before it: negative); False if there is none.

        `scene_shown` tells which it is.
        """
        from rawmosaic.viewer.scenes import next_scene

        engine = self.engine
        found = next_scene(engine.slide, engine.geometry, engine.camera, step) if engine is not None else None
        if found is None:
            return False
        number, engine.camera = found
        self.scene_shown.emit(number)
        self.refresh()
        return True

    def refresh(self) -> None:
        """Draw what was changed in the engine or its channels."""
        self._dirty = True
        if self.engine is not None:
            self._fits = self._is_fitted()
        self.update()

    @property
    def complete(self) -> bool:
        """Whether what is asked for was drawn, everything at its own resolution."""
        report = self.engine.report if self.engine is not None else None
        return report is not None and not self._dirty and report.complete and not report.tiles_uploaded

    # Qt's side

    def initializeGL(self) -> None:
        """Qt made a context, the first or another one: what was shown before is shown again."""
        kept = self._gl.kept if self._gl is not None else None
        self._gl = None
        version = tuple(self.context().format().version())
        if not self.context().isValid() or version < (3, 3):
            self._say(no_window_text("Qt gave OpenGL {}.{}".format(*version)))
            return
        self._gl = _Resources(self.context())
        if self._slide is not None:
            self._start_engine(kept)

    def paintGL(self) -> None:
        """One frame, which never waits for a tile."""
        from rawmosaic.viewer.gl.api import GL
        from rawmosaic.viewer.renderer import Target

        self._dirty, engine = False, self.engine
        if engine is None:
            GL.glClearColor(0.0, 0.0, 0.0, 1.0)
            GL.glClear(GL.GL_COLOR_BUFFER_BIT)
            return
        size = self._size_px()
        if size != engine.size:
            engine.resize(size)
            if self._fits:
                engine.fit()
        try:
            report = engine.frame(Target(self.defaultFramebufferObject(), size, top_row_first=False))
        except SlideError as error:  # what was asked for is not there, a z for example: the picture stays
            self._say(str(error))
            return
        if report.tiles_uploaded:
            self.update()
        elif not report.complete or report.tiles_failed:
            self._again.start(RETRY_MS if report.complete else LOADING_MS)
        elif not self._warm:
            self._warm = True
            QTimer.singleShot(0, self._warm_up)
        if self._view() != self._shown:
            QTimer.singleShot(0, self._tell_view)  # nobody's slot runs inside a frame

    def resizeEvent(self, event) -> None:
        """Another size: the centre and the scale stay, but for a slide that is shown whole."""
        self._dirty = True
        super().resizeEvent(event)

    def showEvent(self, event) -> None:
        """Shown: where no context could be made, that is said."""
        super().showEvent(event)
        QTimer.singleShot(0, self._check_context)

    def event(self, event: QEvent) -> bool:
        """Pinching on a touchpad zooms where the fingers are."""
        if event.type() == QEvent.Type.NativeGesture and event.gestureType() == Qt.NativeGestureType.ZoomNativeGesture:
            if self._controls is not None and event.value() > -1:
                zoomed = self._controls.wheel(
                    math.log2(1 + event.value()) / math.log2(self._controls.zoom.step), *self._px(event)
                )
                self._changed(zoomed)
            return True
        return super().event(event)

    def wheelEvent(self, event) -> None:
        """The wheel zooms at the cursor (or pans, see `scroll`); fingers on a touchpad pan, with Ctrl they zoom."""
        if self._controls is None:
            return
        fingers = event.device() is not None and event.device().type() == QInputDevice.DeviceType.TouchPad
        sign, ratio = -1.0 if self.invert else 1.0, self.devicePixelRatioF()
        ctrl = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        steps = event.angleDelta().x() / WHEEL_STEP, event.angleDelta().y() / WHEEL_STEP
        if not ctrl and (fingers or shift or self.scroll == "pan"):
            if not event.pixelDelta().isNull():
                across, down = ratio * event.pixelDelta().x(), ratio * event.pixelDelta().y()
            else:
                across, down = (PAN_PX * ratio * step for step in steps)
            if shift and not across:
                across, down = down, 0.0
            self._changed(self._controls.pan(sign * across, sign * down))
        else:
            self._changed(self._controls.wheel(sign * (steps[1] or steps[0]), *self._px(event)))
        event.accept()

    def mousePressEvent(self, event) -> None:
        """Left and middle pan, right changes the contrast; with Space held all pan."""
        self._cursor = event.position()
        contrast = event.button() == Qt.MouseButton.RightButton and not self._space
        self._dragging = "contrast" if contrast else "pan"

    def mouseReleaseEvent(self, event) -> None:  # noqa: ARG002  Qt's signature
        """The end of a drag."""
        self._dragging = None

    def mouseMoveEvent(self, event) -> None:
        """A drag, or where the cursor is."""
        ratio, moved = self.devicePixelRatioF(), event.position() - self._cursor
        self._cursor = event.position()
        if self._controls is None:
            return
        if self._dragging == "pan":
            self._changed(self._controls.pan(ratio * moved.x(), ratio * moved.y()))
        elif self._dragging == "contrast" and self._controls.contrast_drag(ratio * moved.x(), ratio * moved.y()):
            self._changed(True, looks=True)
        x_um, y_um = self.engine.camera.to_mosaic(*self._px(event))
        self.cursor_moved.emit(x_um, y_um, self._field_at(x_um, y_um))

    def mouseDoubleClickEvent(self, event) -> None:
        """The field under the cursor fills the widget."""
        engine = self.engine
        if engine is None or event.button() != Qt.MouseButton.LeftButton:
            return
        field = self._field_at(*engine.camera.to_mosaic(*self._px(event)))
        shown = engine.view().channels
        if field >= 0 and shown:
            engine.camera = engine.camera.fitted(engine.geometry.box_of(field, shown[0]))
            self._changed(True)

    def leaveEvent(self, event) -> None:
        """The cursor is elsewhere."""
        super().leaveEvent(event)
        self.cursor_left.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """The keys of controls.KEYS that concern the view; all others go on to the program."""
        if event.key() == Qt.Key.Key_Space and self._controls is not None:
            self._space = True
            return
        name = key_name(event)
        if name is None or self._controls is None:
            super().keyPressEvent(event)
            return
        if name in _SCENES:
            event.setAccepted(self.go_to_scene(_SCENES[name]))
            return
        before = self.engine.camera
        changed = self._controls.key(name)
        self._changed(changed, looks=changed and self.engine.camera == before)
        event.setAccepted(changed)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Space is no longer held."""
        if event.key() == Qt.Key.Key_Space and not event.isAutoRepeat():
            self._space = False
        else:
            super().keyReleaseEvent(event)

    def focusOutEvent(self, event) -> None:
        """Keys that are held now are somebody else's."""
        self._space = False
        super().focusOutEvent(event)

    # inside

    def _show_slide(self, slide: Slide, owned: bool) -> None:
        self._leave_slide()
        self._slide, self._owns_slide = slide, owned
        self._warm, self._dirty, self._fits, self._shown = False, True, True, None
        if self._gl is not None:
            with self._gl:
                self._start_engine()
        if type(slide).away is not Slide.away:
            self._silence.start()
        self.update()

    def _look_for_silence(self) -> None:
        away = self._slide.away if self._slide is not None else ""
        if away != self._away:
            self._away = away
            self.away_changed.emit(away)
            self.update()  # what could not be read is asked for again

    def _start_engine(self, kept: DisplayState | None = None) -> None:
        """An engine for the slide, which looks as is told in `kept`; a context is current."""
        from rawmosaic.viewer.controls import Controls
        from rawmosaic.viewer.engine import Engine

        try:
            engine = Engine(self._slide, self._size_px(), on_arrival=self._bell.ring, **self._budgets)
        except SlideError as error:
            slide, self._slide = self._slide, None
            if self._owns_slide:
                slide.close()
            self._say(str(error))
            return
        self._gl.engine, self._gl.controls = engine, Controls(engine)
        if kept is not None:  # the same slide, in another context
            apply(kept, engine)
            return
        if len(engine.channels) > MOST_SHOWN_AT_FIRST:  # sixty colours at once are white, and slow
            for look in engine.channels[SHOWN_OF_MANY:]:
                look.visible = False
        QTimer.singleShot(0, self._tell_opened)

    def _tell_opened(self) -> None:
        if self.engine is not None:
            self.slide_opened.emit()

    def _leave_slide(self) -> None:
        if self._gl is not None:
            self._gl.close_engine()
            self._gl.kept = None
        slide, self._slide = self._slide, None
        self._silence.stop()
        self._look_for_silence()
        if slide is not None and self._owns_slide:
            slide.close()

    def _forget_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None

    def _on_opened(self, opening: _Opening) -> None:
        if opening is not self._opening:
            return
        self._opening = None
        if opening.error is not None:
            self.failed.emit(opening.error)
        else:
            self._show_slide(opening.take(), owned=True)

    def _on_arrival(self) -> None:
        self._bell.heard()
        self.update()

    def _warm_up(self) -> None:
        """Once, when the first picture stands."""
        from rawmosaic.viewer.renderer import Target

        if self.engine is not None:
            self.makeCurrent()
            self.engine.warm_up(Target(self.defaultFramebufferObject(), self._size_px(), top_row_first=False))
            self.doneCurrent()
            self.update()

    def _check_context(self) -> None:
        if self.isVisible() and not self.isValid():
            self.failed.emit(no_window_text("Qt could make no OpenGL context"))

    def _changed(self, changed: bool, looks: bool = False) -> None:
        if changed:
            self.refresh()
            if looks:
                self.looks_changed.emit()

    def _tell_view(self) -> None:
        if self.engine is not None and (view := self._view()) != self._shown:
            self._shown = view
            self.view_changed.emit(*view)

    def _view(self) -> tuple[float, float, float]:
        camera = self.engine.camera
        return camera.x_um, camera.y_um, camera.scale

    def _is_fitted(self) -> bool:
        camera = self.engine.camera
        return camera == camera.fitted(self.engine.geometry.bounds_um)

    def _field_at(self, x_um: float, y_um: float) -> int:
        from rawmosaic.viewer.probe import spot_at

        engine = self.engine
        has = self._slide.acquired(engine.z, engine.t)
        spots = (spot_at(engine.geometry, has, channel, x_um, y_um) for channel in engine.view().channels)
        spot = next((spot for spot in spots if spot is not None), None)
        return -1 if spot is None else spot.field

    def _px(self, event) -> tuple[float, float]:
        """Where an event is, framebuffer pixels."""
        place, ratio = event.position(), self.devicePixelRatioF()
        return ratio * place.x(), ratio * place.y()

    def _size_px(self) -> tuple[int, int]:
        """The size of the framebuffer, pixels, as Qt rounds it."""
        size = self.size() * self.devicePixelRatioF()
        return max(size.width(), 1), max(size.height(), 1)

    def _say(self, text: str) -> None:
        QTimer.singleShot(0, lambda: self.failed.emit(text))


def key_name(event: QKeyEvent) -> str | None:
    """The name that Controls knows a key by; None for keys that are not for the view."""
    if event.modifiers() & _COMMANDS:
        return None
    key, text = event.key(), event.text()
    if key in _KEYS:
        return _KEYS[key]
    if event.modifiers() & Qt.KeyboardModifier.KeypadModifier and text in ("0", "5"):
        return f"kp_{text}"
    if event.modifiers() & Qt.KeyboardModifier.ShiftModifier and (digit := _digit(event)):
        return f"shift+{digit}"
    if text in ("R", "C", "N"):
        return f"shift+{text.lower()}"
    return text.lower() if text.isprintable() and text else None


def _digit(event: QKeyEvent) -> int:
    """1 to 9 of the key that is pressed, whatever Shift makes of it; 0 for other keys."""
    if Qt.Key.Key_1 <= event.key() <= Qt.Key.Key_9:
        return int(event.key()) - int(Qt.Key.Key_0)
    if sys.platform.startswith("linux"):  # X11 and Wayland count alike
        code = event.nativeScanCode() - 9
    elif sys.platform == "win32":
        code = event.nativeVirtualKey() - 0x30
    else:
        code = _MAC_DIGITS.index(event.nativeVirtualKey()) + 1 if event.nativeVirtualKey() in _MAC_DIGITS else 0
    return code if 1 <= code <= 9 else 0


class _Resources:
    """What lives in one OpenGL context: at most one engine. Closed when Qt is about to destroy the context.

    Not a QObject, and it does not know the widget: that may be half destroyed by then.
    """

    def __init__(self, context):
        self.engine = self.controls = None
        self.kept: DisplayState | None = None
        """how the engine looked that went with the context"""
        self._address = getCppPointer(context)[0]
        self._surface = QOffscreenSurface()
        self._surface.setFormat(context.format())
        self._surface.create()
        context.aboutToBeDestroyed.connect(lambda: self._on_context_lost())  # a bound method would not keep this alive

    def __enter__(self) -> None:
        # a reset driver refuses, and a program that ends may have no surface left: OpenGL's objects are gone then as well, and
        # deleting them without a context does nothing
        with suppress(RuntimeError):
            self._context().makeCurrent(self._surface)

    def __exit__(self, *exception) -> None:
        with suppress(RuntimeError):
            self._context().doneCurrent()

    def _context(self) -> QOpenGLContext:
        """The context, which lives until it says that it is about to be destroyed; PySide may have given it up before."""
        return wrapInstance(self._address, QOpenGLContext)

    def close_engine(self) -> None:
        """Give the engine's threads and objects back; twice is harmless."""
        engine, self.engine, self.controls = self.engine, None, None
        if engine is not None:
            with self:
                engine.close()

    def _on_context_lost(self) -> None:
        if self.engine is not None:
            self.kept = capture(self.engine)
        self.close_engine()
        with suppress(RuntimeError):
            self._surface.destroy()


class _Bell(QObject):
    """How other threads call the widget. Several rings before the first is heard are one."""

    arrived = Signal()
    opened = Signal(object)

    def __init__(self):
        super().__init__()
        self._rung = threading.Event()

    def ring(self) -> None:
        """Something arrived. Any thread."""
        if not self._rung.is_set():
            self._rung.set()
            with suppress(RuntimeError):  # the program is ending, and Qt's side of the bell is gone
                self.arrived.emit()

    def heard(self) -> None:
        """From now on it rings again."""
        self._rung.clear()


class _Opening:
    """A location that is opened by a thread. Whoever cancels it never hears of it, and the slide is closed."""

    def __init__(self, location: str | os.PathLike, options: dict[str, Any], bell: _Bell):
        self.error: str | None = None
        self._location, self._options, self._bell = location, options, bell
        self._slide: Slide | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="open-slide", daemon=True).start()

    def take(self) -> Slide:
        """The slide, which is now the caller's."""
        with self._lock:
            slide, self._slide = self._slide, None
        return slide

    def cancel(self) -> None:
        """The outcome is not wanted."""
        with self._lock:
            self._cancelled = True
            slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()

    def _run(self) -> None:
        from rawmosaic.storage import open_slide

        slide = None
        try:
            slide = open_slide(self._location, **self._options)
        except Exception as error:  # whatever a source raises, it becomes a line of text
            self.error = " ".join(str(error).split()) or type(error).__name__
        with self._lock:
            if not self._cancelled:
                self._slide, slide = slide, None
        if slide is not None:
            slide.close()
            return
        with suppress(RuntimeError):  # the program is ending
            self._bell.opened.emit(self)


def application(arguments: list[str] | None = None) -> QApplication:
    """The program's QApplication, made if there is none, with what the widget needs."""
    prepare()
    return QApplication.instance() or QApplication(sys.argv if arguments is None else arguments)
