"""The window, under a display of its own: real keys, wheel and drags change it, it shows what a picture does, it closes clean."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hands import PATIENCE_S, Hands, hidden_display, until

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SlowSlide, SyntheticSlide, WrappedSlide
from rawmosaic.viewer import OffscreenViewer

glfw = pytest.importorskip("glfw", reason="glfw is not installed")

SIZE = (320, 240)
SCREEN = (800, 600)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X display that nobody sees."""
    with hidden_display(SCREEN) as name:
        yield name


@pytest.fixture
def slide() -> SyntheticSlide:
    """Six channels, z and t."""
    return SyntheticSlide((3, 3), (96, 128), 6, size_z=2, size_t=2)


Opener = Callable[..., object]


@pytest.fixture
def open_window(display: str) -> Iterator[Opener]:  # noqa: ARG001
    """Opens windows, waits until they stand, and closes them after the test."""
    from rawmosaic.viewer.window import MosaicWindow

    made = []

    def opener(slide, size: tuple[int, int] = SIZE, **budgets):
        try:
            window = MosaicWindow(slide, size, panels=False, **budgets)
        except GraphicsError as error:
            pytest.skip(f"no OpenGL window on this display: {error}")
        made.append(window)
        until(window, lambda: window.engine.report.complete and window.engine.report.tiles_wanted > 0)
        return window

    yield opener
    for window in made:
        window.close()


@pytest.fixture
def window(open_window: Opener, slide: SyntheticSlide):
    """A window on the slide, complete."""
    return open_window(slide)


@pytest.fixture
def hands(window) -> Hands:
    """Hands on the window; skipped where xdotool is not installed."""
    if shutil.which("xdotool") is None:
        pytest.skip("the program xdotool is not installed: no real events can be made")
    return Hands(window)


# what it shows


@pytest.mark.parametrize(
    ("overlap", "place"),
    [("top", None), ("top", (33.3, 41.7, 2.7)), ("top", (60.0, 50.0, 0.61)), ("nearest", (70.0, 60.0, 1.0)), ("feather", None)],
    ids=str,
)
def test_window_shows_what_a_picture_shows(open_window: Opener, slide: SyntheticSlide, overlap: str, place: tuple | None):
    window = open_window(slide)
    window.engine.overlap = overlap
    window.engine.channels[1].visible = False
    if place is not None:
        window.engine.look_at(*place)
    window.screenshot()
    until(window, lambda: window.engine.report.complete)
    until(window, lambda: not window.engine.report.tiles_uploaded)
    shown, camera = window.screenshot(), window.engine.camera
    window.close()
    with OffscreenViewer(slide, size=camera.size) as viewer:
        viewer.camera, viewer.overlap = camera, overlap
        viewer.channels[1].visible = False
        expected = viewer.render()
    assert shown.shape == expected.shape
    assert shown[..., :3].any()
    assert np.abs(shown[..., :3].astype(int) - expected[..., :3]).max() <= 1


def test_window_fills_itself_while_tiles_arrive(open_window: Opener, slide: SyntheticSlide):
    window = open_window(SlowSlide(slide, 0.01), threads=2)
    assert window.engine.report.complete
    assert window.engine.report.tiles_missing == 0


class Mending(WrappedSlide):
    """A slide on a drive that is away for a while."""

    away = True

    def _before(self, key) -> None:  # noqa: ARG002
        if self.away:
            raise OSError("the drive is away")


def test_window_shows_by_itself_what_can_be_read_again(
    open_window: Opener, slide: SyntheticSlide, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rawmosaic.viewer.window.IDLE_S", 0.05)
    mending = Mending(slide)
    window = open_window(mending)
    assert window.engine.report.tiles_failed > 0
    mending.away = False
    until(window, lambda: window.engine.report.tiles_failed == 0 and window.engine.report.complete)


def test_window_with_nothing_to_do_sleeps(window, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rawmosaic.viewer.window.IDLE_S", 0.1)
    drawn, frame = [], window.engine.frame
    window.engine.frame = lambda *given, **options: drawn.append(time.monotonic()) or frame(*given, **options)
    naps = 0
    end = time.monotonic() + PATIENCE_S
    while naps < 3:  # tiles that are read ahead, and the display itself, may wake it before
        assert time.monotonic() < end, "never sleeps"
        drawn.clear()
        started = time.monotonic()
        window.step()
        naps = naps + 1 if not drawn and time.monotonic() - started > 0.05 else 0


def test_title_says_what_is_shown(window, slide: SyntheticSlide):
    window.engine.look_at(70.0, 60.0, 0.5)
    title = glfw.get_window_title if hasattr(glfw, "get_window_title") else None
    window.screenshot()
    window.redraw()
    window.step()
    if title is None:
        pytest.skip("this glfw cannot read a title")
    text = title(window._window)
    assert slide.header.name in text
    assert "50 %" in text


def test_resized_window_shows_the_whole_size(window):
    glfw.set_window_size(window._window, 410, 305)
    until(window, lambda: window.engine.size == (410, 305))
    until(window, lambda: window.engine.report.complete)
    assert window.screenshot().shape == (305, 410, 4)


# hands


def test_wheel_zooms_at_the_cursor(window, hands: Hands):
    window.engine.look_at(70.0, 60.0, 2.0)
    hands.move(100, 80)
    before = window.engine.camera
    held = before.to_mosaic(100, 80)
    hands.do("click", "4")
    hands.settle()
    assert window.engine.camera.scale > before.scale
    assert window.engine.camera.to_mosaic(100, 80) == pytest.approx(held, abs=1.0 / before.px_per_um)
    hands.do("click", "5")
    hands.settle()
    assert window.engine.camera.scale == pytest.approx(before.scale)


@pytest.mark.parametrize("button", [1, 2], ids=["left", "middle"])
def test_drag_pans(window, hands: Hands, button: int):
    before = window.engine.camera
    held = before.to_mosaic(100, 100)
    hands.drag(button, (100, 100), (130, 85))
    assert window.engine.camera.scale == before.scale
    assert window.engine.camera.to_window(*held) == pytest.approx((130, 85), abs=1)
    moved = window.engine.camera
    hands.move(30, 30)  # the button is up
    assert window.engine.camera == moved


def test_right_drag_is_contrast_and_with_space_held_it_pans(window, hands: Hands):
    limits = [look.limits for look in window.engine.channels]
    camera = window.engine.camera
    hands.drag(3, (100, 100), (140, 100))
    assert [look.limits for look in window.engine.channels] != limits
    assert window.engine.camera == camera
    limits = [look.limits for look in window.engine.channels]
    hands.do("keydown", "space")
    hands.drag(3, (100, 100), (140, 100))
    hands.do("keyup", "space")
    hands.settle()
    assert [look.limits for look in window.engine.channels] == limits
    assert window.engine.camera.x_um < camera.x_um


def test_keys_reach_the_view(window, hands: Hands):
    engine = window.engine
    whole = engine.camera
    hands.key("Right")
    assert engine.camera.x_um > whole.x_um
    hands.key("0")
    assert engine.camera == whole
    hands.key("2")
    assert [look.visible for look in engine.channels] == [True, False, True, True, True, True]
    hands.key("shift+3")
    assert [look.visible for look in engine.channels] == [False, False, True, False, False, False]
    hands.key("shift+3")
    assert all(look.visible for look in engine.channels)
    hands.key("period")
    assert (engine.z, engine.t) == (1, 0)
    hands.key("bracketright")
    assert (engine.z, engine.t) == (1, 1)
    hands.key("o")
    assert engine.overlap == "nearest"
    hands.key("g")
    assert engine.show_outlines
    engine.channels[0].limits = (1.0, 2.0)
    hands.key("shift+r")
    assert engine.channels[0].limits != (1.0, 2.0)
    assert engine.report.complete or engine.report.tiles_missing


@pytest.mark.parametrize(("plus", "minus"), [("plus", "minus"), ("KP_Add", "KP_Subtract")])
def test_plus_zooms_once_on_every_part_of_the_keyboard(window, hands: Hands, plus: str, minus: str):
    window.engine.look_at(70.0, 60.0, 2.0)
    hands.key(plus)
    assert window.engine.camera.scale == pytest.approx(4.0)
    hands.key(minus)
    assert window.engine.camera.scale == pytest.approx(2.0)


def test_keypad_five_is_one_to_one_and_toggles_no_channel(window, hands: Hands):
    window.engine.look_at(70.0, 60.0, 2.0)
    hands.key("KP_5")
    assert window.engine.camera.scale == 1.0
    assert all(look.visible for look in window.engine.channels)


def test_f11_is_the_full_screen_and_back(window, hands: Hands):
    hands.key("F11")
    until(window, lambda: window.engine.size == SCREEN)
    hands.key("F11")
    until(window, lambda: window.engine.size == SIZE)


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_q_and_escape_close(window, hands: Hands, key: str):
    assert not glfw.window_should_close(window._window)
    hands.do("key", key)
    window.run()


# without hands: the same through glfw's callbacks


def test_callbacks_do_what_hands_do(window):
    engine, handle = window.engine, window._window
    before = engine.camera
    window.events.on_cursor(handle, 100.0, 80.0)
    window.events.on_scroll(handle, 0.0, 1.0)
    assert engine.camera.scale > before.scale
    assert engine.camera.to_mosaic(100, 80) == pytest.approx(before.to_mosaic(100, 80))
    held = engine.camera.to_mosaic(100, 80)
    window.events.on_button(handle, glfw.MOUSE_BUTTON_LEFT, glfw.PRESS, 0)
    window.events.on_cursor(handle, 120.0, 70.0)
    window.events.on_button(handle, glfw.MOUSE_BUTTON_LEFT, glfw.RELEASE, 0)
    assert engine.camera.to_window(*held) == pytest.approx((120, 70))
    window.keyboard.on_char(handle, ord("1"))
    assert not engine.channels[0].visible
    window.keyboard.on_key(handle, glfw.KEY_1, 0, glfw.PRESS, glfw.MOD_SHIFT)
    assert [look.visible for look in engine.channels] == [True, False, False, False, False, False]
    window.events.on_resize(handle, 0, 0)  # minimised
    assert engine.size == SIZE
    window.step()


@pytest.mark.parametrize("character", ["²", "€", "é", "\x00", "🔬"])
def test_any_character_may_be_typed(window, character: str):
    window.keyboard.on_char(window._window, ord(character))
    window.step()


# closing


def test_closing_while_loading_leaves_nothing(display: str, slide: SyntheticSlide):  # noqa: ARG001
    from rawmosaic.viewer.gl.api import live_objects
    from rawmosaic.viewer.window import MosaicWindow

    threads = threading.active_count()
    window = MosaicWindow(SlowSlide(slide, 0.05), SIZE, threads=3)
    window.step()
    assert sum(thread.name.startswith("tile-loader") for thread in threading.enumerate()) == 3
    window.close()
    window.close()
    assert threading.active_count() == threads
    assert live_objects() == {}


def test_window_opens_again_after_it_was_closed(open_window: Opener, slide: SyntheticSlide):
    open_window(slide).close()
    assert open_window(slide).screenshot()[..., :3].any()


def test_a_window_that_cannot_open_says_why(display: str, monkeypatch: pytest.MonkeyPatch, slide: SyntheticSlide):  # noqa: ARG001
    from rawmosaic.viewer.window import MosaicWindow

    monkeypatch.delenv("DISPLAY")
    with pytest.raises(GraphicsError, match=r"no display.*rawmosaic render"):
        MosaicWindow(slide, SIZE)


def test_a_window_that_cannot_be_had_leaves_the_others_open(
    open_window: Opener, slide: SyntheticSlide, monkeypatch: pytest.MonkeyPatch
):
    from rawmosaic.viewer.window import MosaicWindow

    window = open_window(slide)
    with monkeypatch.context() as patch:
        patch.setattr("glfw.create_window", lambda *_: None)
        with pytest.raises(GraphicsError):
            MosaicWindow(slide, SIZE)
    assert window.screenshot()[..., :3].any()
