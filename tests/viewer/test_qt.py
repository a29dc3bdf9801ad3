"""The Qt widget shows what a picture shows, obeys hands, opens in the background, and gives everything back."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage.testing import FailingSlide, SlowSlide, SyntheticSlide, WrappedSlide, write_slide
from rawmosaic.viewer import OffscreenViewer

pytest.importorskip("PySide6.QtOpenGLWidgets", reason="PySide6 is not installed", exc_type=ImportError)
hands_module = pytest.importorskip("hands", reason="glfw is not installed")

from PySide6.QtCore import QEvent, QEventLoop, QPoint, QPointF, Qt  # noqa: E402
from PySide6.QtGui import QImage, QKeyEvent, QNativeGestureEvent, QPointingDevice, QWheelEvent  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402
from PySide6.QtWidgets import QApplication, QHBoxLayout, QMainWindow, QWidget  # noqa: E402

SIZE = (320, 240)
PATIENCE_S = 20.0
ROOT = Path(__file__).parents[2]
NO_BUTTON, NO_KEY = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier


@pytest.fixture(scope="module")
def app() -> Iterator[QApplication]:
    """A Qt application on a display that nobody sees; it ends before its display does."""
    with hands_module.hidden_display((1000, 800)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("QT_QPA_PLATFORM", "xcb")
            trial = [sys.executable, "-c", "from PySide6.QtWidgets import QApplication; QApplication([])"]
            if subprocess.run(trial, capture_output=True, timeout=60, check=False).returncode != 0:
                pytest.skip("Qt finds not all libraries that it needs for X11 here")  # it would end this process
            from rawmosaic.viewer.qt import application

            app = application(["test"])
            app.setQuitOnLastWindowClosed(False)
            yield app
            app.shutdown()


@pytest.fixture
def slide() -> SyntheticSlide:
    """Six channels, z and t."""
    return SyntheticSlide((3, 3), (96, 128), 6, size_z=2, size_t=2)


@pytest.fixture
def made(app: QApplication) -> Iterator[list[QWidget]]:
    """Top-level widgets that are closed and deleted after the test."""
    widgets: list[QWidget] = []
    yield widgets
    for widget in widgets:
        widget.close()
        widget.deleteLater()
    widgets.clear()
    gc.collect()
    settle(app)


@pytest.fixture
def mosaic(app: QApplication, slide: SyntheticSlide, made: list[QWidget]):
    """A shown widget with the slide, complete."""
    widget = new_mosaic(made)
    widget.open(slide)
    until(app, lambda: widget.complete)
    return widget


def new_mosaic(made: list[QWidget], **budgets):
    """A shown widget without a slide."""
    from rawmosaic.viewer.qt import MosaicWidget

    widget = MosaicWidget(**budgets)
    made.append(widget)
    widget.resize(*SIZE)
    widget.show()
    return widget


def settle(app: QApplication, seconds: float = 0.05) -> None:
    """Let Qt work off what happened."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        app.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 10)
        app.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        time.sleep(0.002)


def until(app: QApplication, condition: Callable[[], bool]) -> None:
    """Let Qt run until a condition holds; fail after a while."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not come true"
        settle(app, 0.01)


def heard(signal) -> list[tuple]:
    """What a signal tells from now on."""
    told: list[tuple] = []
    signal.connect(lambda *arguments: told.append(arguments))
    return told


def grabbed(widget) -> np.ndarray:
    """(h, w, 3) uint8: what the widget shows."""
    image = widget.grabFramebuffer().convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def expected(widget) -> np.ndarray:
    """(h, w, 3) uint8: what a viewer without Qt draws of the same view."""
    engine = widget.engine
    with OffscreenViewer(widget.slide, size=engine.size) as viewer:
        for name in ("camera", "overlap", "position_set", "z", "t"):
            setattr(viewer, name, getattr(engine, name))
        for look, other in zip(viewer.channels, engine.channels, strict=True):
            look.limits, look.color, look.gamma, look.visible = other.limits, other.color, other.gamma, other.visible
        return viewer.render()[..., :3]


def same(widget) -> bool:
    """Whether the widget shows what it should, up to rounding."""
    picture = expected(widget)
    assert picture.any()
    return grabbed(widget).shape == picture.shape and np.abs(grabbed(widget).astype(int) - picture).max() <= 1


# what it shows


@pytest.mark.parametrize("overlap", ["top", "nearest", "feather"])
def test_the_widget_shows_what_a_picture_shows(app: QApplication, mosaic, overlap: str):
    mosaic.look_at(70.3, 60.7, 1.4)
    mosaic.engine.overlap, mosaic.channels[1].visible, mosaic.channels[0].gamma = overlap, False, 0.6
    mosaic.refresh()
    until(app, lambda: mosaic.complete)
    assert same(mosaic)


def test_a_slide_is_shown_whole_at_any_size_until_somebody_moves_it(app: QApplication, mosaic):
    whole = mosaic.engine.geometry.bounds_um
    mosaic.resize(400, 150)
    until(app, lambda: mosaic.engine.size == (400, 150) and mosaic.complete)
    assert mosaic.engine.camera == mosaic.engine.camera.fitted(whole)
    mosaic.look_at(50.0, 40.0, 1.0)
    mosaic.resize(300, 200)
    until(app, lambda: mosaic.engine.size == (300, 200) and mosaic.complete)
    assert (mosaic.engine.camera.x_um, mosaic.engine.camera.scale) == (50.0, 1.0)
    assert same(mosaic)


def test_a_widget_without_a_slide_is_black(app: QApplication, made: list[QWidget]):
    widget = new_mosaic(made)
    settle(app, 0.1)
    assert not grabbed(widget).any()
    assert (widget.engine, widget.channels, widget.complete) == (None, [], False)
    widget.fit()
    widget.look_at(1.0, 2.0)
    QTest.keyClick(widget, Qt.Key.Key_0)
    QTest.mouseMove(widget, QPoint(30, 30))
    settle(app)


def test_tiles_that_arrive_late_are_drawn_by_themselves(app: QApplication, slide: SyntheticSlide, made: list[QWidget]):
    widget = new_mosaic(made, threads=2)
    widget.open(SlowSlide(slide, 0.005))
    until(app, lambda: widget.complete)
    assert same(widget)


def test_what_cannot_be_read_is_tried_again(app: QApplication, slide: SyntheticSlide, made: list[QWidget]):
    failing = FailingSlide(slide, 1.1)
    widget = new_mosaic(made)
    widget.open(failing)
    until(app, lambda: widget.engine is not None and widget.engine.report.tiles_failed > 0)
    assert widget._again.isActive()


class Remote(WrappedSlide):
    """A slide of which a test says whether its server answers."""

    away = ""


def test_a_server_that_does_not_answer_is_told_until_it_does(app: QApplication, slide: SyntheticSlide, made: list[QWidget]):
    widget, remote = new_mosaic(made), Remote(slide)
    told = heard(widget.away_changed)
    widget.open(remote)
    until(app, lambda: widget.complete)
    assert (told, widget.away) == ([], "")
    remote.away = "tcp://microscope.example.org:5555"
    until(app, lambda: bool(told))
    assert widget.away == remote.away
    remote.away = ""
    until(app, lambda: len(told) > 1)
    assert told == [("tcp://microscope.example.org:5555",), ("",)]
    remote.away = "tcp://microscope.example.org:5555"
    until(app, lambda: bool(widget.away))
    widget.open(slide)  # which is on this machine
    assert widget.away == ""
    assert told[-1] == ("",)
    until(app, lambda: widget.complete)


def test_two_widgets_show_two_slides(app: QApplication, slide: SyntheticSlide, made: list[QWidget]):
    from rawmosaic.viewer.qt import MosaicWidget

    window = QWidget()
    made.append(window)
    layout = QHBoxLayout(window)
    widgets = [MosaicWidget(), MosaicWidget()]
    for widget, shown in zip(widgets, (slide, SyntheticSlide((2, 2), (80, 100), 2, seed=4)), strict=True):
        layout.addWidget(widget)
        widget.open(shown)
    window.resize(600, 300)
    window.show()
    until(app, lambda: all(widget.complete for widget in widgets))
    assert same(widgets[0])
    assert same(widgets[1])
    widgets[0].close_slide()
    widgets[1].look_at(20.0, 20.0, 2.0)
    until(app, lambda: widgets[1].complete)
    assert same(widgets[1])


def test_sixty_channels_begin_with_a_few(app: QApplication, made: list[QWidget]):
    widget = new_mosaic(made)
    widget.open(SyntheticSlide((1, 2), (40, 50), 60))
    until(app, lambda: widget.complete)
    assert [look.visible for look in widget.channels] == [number < 4 for number in range(60)]


# slides come and go


def test_a_location_is_opened_in_the_background_and_closed_again(app: QApplication, slide, made: list[QWidget], tmp_path: Path):
    write_slide(slide, tmp_path / "slide.h5")
    widget = new_mosaic(made)
    opened, failed = heard(widget.slide_opened), heard(widget.failed)
    widget.open(tmp_path / "slide.h5")
    assert widget.opening
    until(app, lambda: bool(opened) and widget.complete)
    assert not widget.opening
    assert (len(opened), failed) == (1, [])
    assert widget.slide.header.name == slide.header.name
    assert same(widget)
    widget.close_slide()  # the fixtures see whether the file is closed
    settle(app)
    assert not grabbed(widget).any()


def test_a_location_that_is_no_slide_is_told_and_the_picture_stays(app: QApplication, mosaic, tmp_path: Path):
    failed, before = heard(mosaic.failed), mosaic.slide
    (tmp_path / "notes.txt").write_text("nothing")
    mosaic.open(str(tmp_path / "notes.txt"))
    until(app, lambda: bool(failed))
    ((text,),) = failed
    assert "notes.txt" in text
    assert "\n" not in text
    assert mosaic.slide is before
    assert same(mosaic)


def test_the_last_location_wins_and_the_others_are_closed(app: QApplication, made: list[QWidget], tmp_path: Path):
    for number in range(3):
        write_slide(SyntheticSlide((1, 2), (40, 50), 1, name=f"slide {number}"), tmp_path / f"{number}.h5")
    widget = new_mosaic(made)
    opened = heard(widget.slide_opened)
    for number in range(3):
        widget.open(tmp_path / f"{number}.h5")
    until(app, lambda: widget.complete)
    settle(app, 0.2)
    assert (widget.slide.header.name, len(opened)) == ("slide 2", 1)
    widget.open(tmp_path / "0.h5")
    widget.cancel_opening()
    settle(app, 0.2)
    assert widget.slide.header.name == "slide 2"
    widget.open(tmp_path / "1.h5")
    widget.close_slide()
    settle(app, 0.2)
    assert widget.slide is None


def test_a_slide_that_was_handed_in_is_not_closed(app: QApplication, made: list[QWidget], slide: SyntheticSlide):
    closed = []
    slide.close = lambda: closed.append(True)
    widget = new_mosaic(made)
    widget.open(slide)
    until(app, lambda: widget.complete)
    widget.close_slide()
    widget.close_slide()
    assert closed == []


def test_nothing_is_left_after_a_slide_was_closed(app: QApplication, made: list[QWidget], slide: SyntheticSlide):
    from rawmosaic.viewer.gl.api import live_objects

    objects, threads = live_objects(), threading.active_count()
    widget = new_mosaic(made, threads=3)
    for _ in range(3):
        widget.open(SlowSlide(slide, 0.01))
        until(app, lambda: widget.engine is not None)
        settle(app, 0.03)
        widget.close_slide()
        assert live_objects() == objects
        assert threading.active_count() == threads


def test_nothing_is_left_of_a_widget_that_was_deleted(app: QApplication, slide: SyntheticSlide):
    from rawmosaic.viewer.gl.api import live_objects

    objects, threads = live_objects(), threading.active_count()
    made: list[QWidget] = []
    widget = new_mosaic(made)
    widget.open(slide)
    until(app, lambda: made[0].complete)
    assert live_objects() != objects
    made.clear()
    widget.deleteLater()
    settle(app, 0.1)
    assert live_objects() == objects
    assert threading.active_count() == threads


def test_a_widget_that_moves_into_another_window_looks_as_before(app: QApplication, mosaic, made: list[QWidget]):
    mosaic.look_at(40.0, 30.0, 1.5)
    mosaic.channels[0].limits, mosaic.channels[2].visible = (1.0, 9000.0), False
    mosaic.engine.overlap, first = "max", mosaic.engine
    made.remove(mosaic)
    window = QMainWindow()
    made.append(window)
    window.setCentralWidget(mosaic)
    window.resize(400, 300)
    window.show()
    until(app, lambda: mosaic.engine is not None and mosaic.engine is not first and mosaic.complete)
    assert (mosaic.engine.camera.x_um, mosaic.engine.camera.scale, mosaic.engine.overlap) == (40.0, 1.5, "max")
    assert mosaic.channels[0].limits == (1.0, 9000.0)
    assert not mosaic.channels[2].visible
    assert same(mosaic)


# hands


def test_drags_pan_and_the_right_button_is_contrast(app: QApplication, mosaic):
    camera, limits = mosaic.engine.camera, mosaic.channels[0].limits
    held, looks = camera.to_mosaic(100, 100), heard(mosaic.looks_changed)
    for button in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
        mosaic.engine.camera = camera
        drag(mosaic, button, (100, 100), (130, 85))
        assert mosaic.engine.camera.to_window(*held) == pytest.approx((130, 85))
    mosaic.engine.camera = camera
    assert looks == []
    drag(mosaic, Qt.MouseButton.RightButton, (100, 100), (140, 100))
    assert mosaic.engine.camera == camera
    assert mosaic.channels[0].limits != limits
    assert looks
    limits = mosaic.channels[0].limits
    QTest.keyPress(mosaic, Qt.Key.Key_Space)
    drag(mosaic, Qt.MouseButton.RightButton, (100, 100), (130, 85))
    QTest.keyRelease(mosaic, Qt.Key.Key_Space)
    assert mosaic.channels[0].limits == limits
    assert mosaic.engine.camera.to_window(*held) == pytest.approx((130, 85))
    settle(app)


def drag(widget, button: Qt.MouseButton, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Press, move, release."""
    QTest.mousePress(widget, button, NO_KEY, QPoint(*start))
    QTest.mouseMove(widget, QPoint(*end))
    QTest.mouseRelease(widget, button, NO_KEY, QPoint(*end))


def wheel(
    widget, at: tuple[int, int], angle: tuple[int, int], pixels: tuple[int, int] = (0, 0), keys=NO_KEY, device=None
) -> None:
    """An event of the wheel, or of two fingers on a touchpad."""
    place = QPointF(*at)
    given = (place, place, QPoint(*pixels), QPoint(*angle), NO_BUTTON, keys, Qt.ScrollPhase.NoScrollPhase, False)
    more = () if device is None else (Qt.MouseEventSource.MouseEventNotSynthesized, device)
    QApplication.sendEvent(widget, QWheelEvent(*given, *more))


def touchpad() -> QPointingDevice:
    """A device as Qt makes them for touchpads."""
    from PySide6.QtGui import QInputDevice, QPointingDeviceUniqueId

    kind, pointer = QInputDevice.DeviceType.TouchPad, QPointingDevice.PointerType.Finger
    return QPointingDevice("pad", 7, kind, pointer, QInputDevice.Capability.All, 2, 0, "", QPointingDeviceUniqueId())


def test_the_wheel_zooms_at_the_cursor(mosaic):
    mosaic.look_at(70.0, 60.0, 2.0)
    held = mosaic.engine.camera.to_mosaic(100, 80)
    wheel(mosaic, (100, 80), (0, 480))
    assert mosaic.engine.camera.scale == pytest.approx(4.0)
    assert mosaic.engine.camera.to_window(*held) == pytest.approx((100, 80))
    mosaic.invert = True
    wheel(mosaic, (100, 80), (0, 480))
    assert mosaic.engine.camera.scale == pytest.approx(2.0)


def test_two_fingers_pan_and_with_ctrl_they_zoom(mosaic):
    mosaic.look_at(70.0, 60.0, 2.0)
    before, pad = mosaic.engine.camera, touchpad()
    held = before.to_mosaic(100, 80)
    wheel(mosaic, (100, 80), (0, 30), (12, -7), device=pad)
    assert mosaic.engine.camera.scale == before.scale
    assert mosaic.engine.camera.to_window(*held) == pytest.approx((112, 73))
    wheel(mosaic, (100, 80), (0, 120), (0, 30), Qt.KeyboardModifier.ControlModifier, pad)
    assert mosaic.engine.camera.scale > before.scale


def test_the_wheel_pans_where_that_is_wanted(mosaic):
    mosaic.look_at(70.0, 60.0, 2.0)
    held, mosaic.scroll = mosaic.engine.camera.to_mosaic(100, 80), "pan"
    wheel(mosaic, (100, 80), (0, 120))
    assert mosaic.engine.camera.to_window(*held) == pytest.approx((100, 120))
    wheel(mosaic, (100, 80), (0, 120), keys=Qt.KeyboardModifier.ShiftModifier)
    assert mosaic.engine.camera.to_window(*held) == pytest.approx((140, 120))


def test_pinching_zooms_where_the_fingers_are(mosaic):
    mosaic.look_at(70.0, 60.0, 2.0)
    place, held = QPointF(100, 80), mosaic.engine.camera.to_mosaic(100, 80)
    kind = Qt.NativeGestureType.ZoomNativeGesture
    for value in (0.25, -1.5):  # the second is nonsense
        event = QNativeGestureEvent(kind, touchpad(), 2, place, place, place, value, QPointF())
        QApplication.sendEvent(mosaic, event)
    assert mosaic.engine.camera.scale == pytest.approx(2.5)
    assert mosaic.engine.camera.to_window(*held) == pytest.approx((100, 80))


def test_keys_do_what_they_do_in_the_window(app: QApplication, mosaic):
    engine, whole, looks = mosaic.engine, mosaic.engine.camera, heard(mosaic.looks_changed)
    QTest.keyClick(mosaic, Qt.Key.Key_Right)
    assert engine.camera.x_um > whole.x_um
    QTest.keyClick(mosaic, Qt.Key.Key_0)
    assert engine.camera == whole
    QTest.keyClick(mosaic, Qt.Key.Key_2)
    assert [look.visible for look in engine.channels] == [True, False, True, True, True, True]
    QTest.keyClick(mosaic, Qt.Key.Key_3, Qt.KeyboardModifier.ShiftModifier)
    assert [look.visible for look in engine.channels] == [False, False, True, False, False, False]
    assert len(looks) == 2
    QTest.keyClicks(mosaic, ".]og")
    assert (engine.z, engine.t, engine.overlap, engine.show_outlines) == (1, 1, "nearest", True)
    QTest.keyClick(mosaic, Qt.Key.Key_5, Qt.KeyboardModifier.KeypadModifier)
    assert engine.camera.scale == 1.0
    engine.channels[0].limits = (1.0, 2.0)
    QTest.keyClicks(mosaic, "R")
    assert engine.channels[0].limits != (1.0, 2.0)
    until(app, lambda: mosaic.complete)


def test_page_down_goes_from_well_to_well(app: QApplication, made: list[QWidget]):
    plate = SyntheticSlide((2, 2), (48, 64), 1, scenes=["A01", "A02"])
    mosaic = new_mosaic(made)
    mosaic.open(plate)
    until(app, lambda: mosaic.complete)
    engine, shown, whole = mosaic.engine, heard(mosaic.scene_shown), mosaic.engine.camera
    QTest.keyClick(mosaic, Qt.Key.Key_PageDown)
    first = engine.camera
    QTest.keyClicks(mosaic, "n")
    assert len({whole, first, engine.camera}) == 3
    QTest.keyClick(mosaic, Qt.Key.Key_PageDown)
    assert shown == [(0,), (1,)], "there is nothing after the last"
    QTest.keyClicks(mosaic, "N")
    assert engine.camera == first
    QTest.keyClicks(mosaic, "n")
    QTest.keyClick(mosaic, Qt.Key.Key_PageUp)
    assert engine.camera == first
    assert not mosaic.go_to_scene(-1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the scan codes of X11 and Wayland")
def test_shift_and_a_digit_is_found_on_any_keyboard_layout(app: QApplication):  # noqa: ARG001
    from rawmosaic.viewer.qt import key_name

    def name(key, text: str, scan: int = 0, keys=Qt.KeyboardModifier.ShiftModifier) -> str | None:
        return key_name(QKeyEvent(QEvent.Type.KeyPress, key, keys, scan, 0, 0, text))

    assert name(Qt.Key.Key_Exclam, "!", 10) == "shift+1"
    assert name(Qt.Key.Key_QuoteDbl, '"', 11) == "shift+2"
    assert name(Qt.Key.Key_ParenRight, ")", 18) == "shift+9"
    assert name(Qt.Key.Key_Question, "?", 61) == "?"
    assert name(Qt.Key.Key_Plus, "+", 21) == "+"
    assert name(Qt.Key.Key_O, "\x0f", 0, Qt.KeyboardModifier.ControlModifier) is None
    assert name(Qt.Key.Key_Shift, "", 50) is None


def test_keys_that_are_not_for_the_view_go_to_the_program(app: QApplication, mosaic, made: list[QWidget]):
    pressed = []

    class Window(QMainWindow):
        def keyPressEvent(self, event) -> None:
            pressed.append(event.key())

    made.remove(mosaic)
    window = Window()
    made.append(window)
    window.setCentralWidget(mosaic)
    window.show()
    until(app, lambda: mosaic.complete)
    for key in (Qt.Key.Key_Escape, Qt.Key.Key_Q, Qt.Key.Key_F11, Qt.Key.Key_Right):
        QTest.keyClick(mosaic, key)
    assert pressed == [Qt.Key.Key_Escape, Qt.Key.Key_Q, Qt.Key.Key_F11]


def test_the_cursor_tells_where_it_is_and_over_which_field(app: QApplication, mosaic):
    told, left = heard(mosaic.cursor_moved), heard(mosaic.cursor_left)
    x_um, y_um = mosaic.slide.positions()[4]
    mosaic.look_at(x_um, y_um, 0.5)
    QTest.mouseMove(mosaic, QPoint(SIZE[0] // 2, SIZE[1] // 2))
    until(app, lambda: bool(told))
    assert told[-1][:2] == pytest.approx((x_um, y_um), abs=1e-6)
    assert told[-1][2] == 4
    mosaic.look_at(x_um + 5000, y_um, 0.5)
    QTest.mouseMove(mosaic, QPoint(20, 20))
    until(app, lambda: told[-1][2] == -1)
    QApplication.sendEvent(mosaic, QEvent(QEvent.Type.Leave))
    assert left


def test_the_view_tells_where_it_is_once_for_each_change(app: QApplication, mosaic):
    settle(app)
    told = heard(mosaic.view_changed)
    mosaic.look_at(12.0, 34.0, 0.75)
    until(app, lambda: bool(told))
    settle(app, 0.1)
    assert told == [(12.0, 34.0, 0.75)]


def test_real_keys_and_a_real_wheel_reach_the_view(app: QApplication, mosaic):
    if shutil.which("xdotool") is None:
        pytest.skip("the program xdotool is not installed: no real events can be made")
    number = str(int(mosaic.winId()))

    def do(*words: str) -> None:
        subprocess.run(["xdotool", *words], check=True, timeout=PATIENCE_S, capture_output=True)

    mosaic.look_at(70.0, 60.0, 2.0)
    do("mousemove", "--window", number, "100", "80")
    do("windowfocus", number)
    until(app, mosaic.isActiveWindow)
    held, looks = mosaic.engine.camera.to_mosaic(100, 80), mosaic.channels
    do("click", "4")
    until(app, lambda: mosaic.engine.camera.scale > 2.0)
    assert mosaic.engine.camera.to_window(*held) == pytest.approx((100, 80), abs=1)
    mosaic.setFocus()
    do("key", "shift+3")
    until(app, lambda: [look.visible for look in looks] == [False, False, True, False, False, False])
    do("key", "KP_5")
    until(app, lambda: mosaic.engine.camera.scale == 1.0)
    do("mousedown", "1", "mousemove", "--window", number, "130", "95", "mouseup", "1")
    until(app, lambda: mosaic.engine.camera.to_window(70.0, 60.0)[0] > SIZE[0] / 2 + 20)


def test_a_double_click_fills_the_widget_with_a_field(app: QApplication, mosaic):
    x_um, y_um = mosaic.slide.positions()[0]
    place = QPoint(*(round(value) for value in mosaic.engine.camera.to_window(x_um, y_um)))
    QTest.mouseDClick(mosaic, Qt.MouseButton.LeftButton, NO_KEY, place)
    camera = mosaic.engine.camera
    assert (camera.x_um, camera.y_um) == pytest.approx((x_um, y_um))
    assert camera.scale == pytest.approx(min(SIZE[0] / 128, SIZE[1] / 96))
    settle(app)


def test_a_plane_that_is_not_there_is_told_and_the_picture_stays(app: QApplication, mosaic):
    failed = heard(mosaic.failed)
    mosaic.engine.z = 9
    mosaic.refresh()
    until(app, lambda: bool(failed))
    assert "z 9" in failed[0][0]
    mosaic.engine.z = 0
    mosaic.refresh()
    until(app, lambda: mosaic.complete)


# the panel and the example


def test_the_panel_edits_looks_and_follows_them(app: QApplication, mosaic, made: list[QWidget]):
    from PySide6.QtGui import QColor

    from rawmosaic.viewer.qt_channels import ChannelPanel

    panel = ChannelPanel(mosaic)
    made.append(panel)
    panel.show()
    settle(app)
    rows, looks = panel._rows, mosaic.channels
    assert [row.visible.text() for row in rows] == [look.name for look in looks]
    before = grabbed(mosaic)
    rows[0].visible.setChecked(False)
    rows[1].low.setValue(123)
    rows[1].high.setValue(4567)
    rows[2].gamma.setValue(0.5)
    rows[3].set_color(QColor("#123456"))
    assert (looks[0].visible, looks[1].limits, looks[2].gamma, looks[3].color) == (False, (123.0, 4567.0), 0.5, "#123456")
    until(app, lambda: mosaic.complete)
    assert same(mosaic)
    assert (grabbed(mosaic) != before).any()
    QTest.keyClick(mosaic, Qt.Key.Key_1)
    assert rows[0].visible.isChecked()
    panel._auto_contrast()
    assert rows[1].low.value() == round(looks[1].limits[0]) != 123
    mosaic.open(SyntheticSlide((1, 1), (40, 50), 2, name="other"))
    until(app, lambda: len(panel._rows) == 2)
    mosaic.close_slide()


def test_the_example_opens_a_slide_and_says_where_the_cursor_is(
    app: QApplication, slide, made: list[QWidget], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import qt_viewer

    write_slide(slide, tmp_path / "slide.h5")
    viewer = qt_viewer.Viewer()
    made.append(viewer)
    viewer.show()
    viewer.open(str(tmp_path / "nothing.h5"))
    until(app, lambda: "nothing.h5" in viewer.statusBar().currentMessage() and not viewer.mosaic.opening)
    viewer.open(str(tmp_path / "slide.h5"))
    until(app, lambda: viewer.mosaic.complete)
    until(app, lambda: viewer.windowTitle() == f"{slide.header.name} — rawmosaic")
    assert "9 fields, 6 channels" in viewer.statusBar().currentMessage()
    QTest.mouseMove(viewer.mosaic, QPoint(60, 60))
    QTest.mouseMove(viewer.mosaic, viewer.mosaic.rect().center())
    until(app, lambda: "field" in viewer._place.text())
    assert viewer._scale.text().endswith(" %")


# in processes of their own: other platforms of Qt

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import rawmosaic.viewer.qt as qt
from test_qt import SIZE, MosaicSlide, expected, grabbed, np, settle, until

app = qt.application(["test"])
widget = qt.MosaicWidget()
widget.resize(*SIZE)
widget.open(MosaicSlide())
if app.platformName() != "offscreen":  # which shows no OpenGL, and yet draws it where there is a display behind it
    widget.show()
until(app, lambda: not widget.grabFramebuffer().isNull() and widget.complete)
widget.look_at(60.0, 50.0, 1.3)
until(app, lambda: not widget.grabFramebuffer().isNull() and widget.complete)
shown = grabbed(widget)
if current := qt.QOpenGLContext.currentContext():
    current.doneCurrent()  # GLX and EGL cannot follow each other otherwise
picture = expected(widget)
assert picture.any() and picture.shape == shown.shape, (picture.shape, shown.shape)
assert np.abs(shown.astype(int) - picture).max() <= 1
from OpenGL import EGL
print(app.platformName(), widget.devicePixelRatioF(), shown.shape, bool(EGL.eglGetCurrentContext()), flush=True)
if sys.argv[2] == "keep":  # the program ends with a slide open
    app.quit()
else:
    widget.close_slide()
"""


def MosaicSlide() -> SyntheticSlide:
    """What the script shows."""
    return SyntheticSlide((3, 3), (96, 128), 3)


@pytest.mark.parametrize(
    ("platform", "settings", "shape"),
    [
        ("offscreen", {}, (240, 320)),
        ("xcb", {"QT_XCB_GL_INTEGRATION": "xcb_glx"}, (240, 320)),
        ("xcb", {"QT_SCALE_FACTOR": "2"}, (480, 640)),
        ("xcb", {"QT_SCALE_FACTOR": "1.25"}, (300, 400)),
    ],
    ids=str,
)
@pytest.mark.usefixtures("app")
def test_other_platforms_and_sharper_screens_show_the_same(platform: str, settings: dict[str, str], shape: tuple[int, int]):
    environment = {**os.environ, "QT_QPA_PLATFORM": platform, **settings}
    for name in ("QT_XCB_GL_INTEGRATION",):
        if name not in settings:
            environment.pop(name, None)
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), "close"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    if "Failed to create context" in done.stderr:
        pytest.skip(f"Qt has no OpenGL on {platform} here")
    assert done.returncode == 0, done.stderr
    assert f"({shape[0]}, {shape[1]}, 3)" in done.stdout


@pytest.mark.usefixtures("app")
def test_a_program_that_ends_with_a_slide_open_ends_well():
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), "keep"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_usable_opengl_that_is_told_and_nothing_crashes():
    script = (
        "import rawmosaic.viewer.qt as qt\n"
        "app = qt.application(['test'])\n"
        "widget = qt.MosaicWidget()\n"
        "widget.failed.connect(lambda text: print('failed:', text))\n"
        "widget.show()\n"
        "for _ in range(50): app.processEvents()\n"
    )
    environment = {**os.environ, "QT_QPA_PLATFORM": "minimal"}
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "failed:" in done.stdout
    assert "rawmosaic doctor" in done.stdout


def test_the_engine_needs_no_qt():
    modules = ("engine", "offscreen", "window", "figure", "doctor", "controls")
    imports = "".join(f"import rawmosaic.viewer.{module}\n" for module in modules)
    script = f"import sys\n{imports}assert not [name for name in sys.modules if 'PySide' in name]"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is not counted")
def test_a_pyside_that_would_end_the_program_is_refused(monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.viewer import qt

    counts = iter((5000, 4936))
    monkeypatch.setattr(qt.sys, "getrefcount", lambda _: next(counts))
    with pytest.raises(ImportError, match=r"PySide6-Essentials<6\.12"):
        qt._check_counts()
