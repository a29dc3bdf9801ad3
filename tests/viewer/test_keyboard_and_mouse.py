"""Every key and every habit of the mouse, by real events: the state changes as the list says, and the window shows it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hands import Hands, hidden_display, shown, until

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import key_names
from rawmosaic.viewer.channels import percentile_limits

glfw = pytest.importorskip("glfw", reason="glfw is not installed")
pytest.importorskip("imgui_bundle", reason="imgui-bundle is not installed: the window has no panels")

SIZE = (720, 460)
SCREEN = (1000, 700)
PATIENCE_S = 60.0
WELLS = ("A01", "A02", "B01")

pytestmark = pytest.mark.skipif(shutil.which("xdotool") is None, reason="the program xdotool is not installed: no real events")


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X display that nobody sees."""
    with hidden_display(SCREEN) as name:
        yield name


@pytest.fixture
def open_window(display: str, monkeypatch: pytest.MonkeyPatch, tmp_path):  # noqa: ARG001
    """Opens windows with panels, and closes them after the test. Nothing was preferred before."""
    from rawmosaic.viewer.window import MosaicWindow

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("rawmosaic.viewer.window_events.DOUBLE_CLICK_S", PATIENCE_S)  # a slow machine is no slow hand
    monkeypatch.setattr("rawmosaic.viewer.window.IDLE_S", 0.02)  # the tests look often whether something came true
    made = []

    def opener(channels: int = 6, size: tuple[int, int] = SIZE, **options):
        slide = SyntheticSlide(
            (3, 4), (96, 128), channels, size_z=3, size_t=2, scenes=WELLS, extra_sets=("registered",), smooth=True
        )
        try:
            window = MosaicWindow(slide, size, remembers=False, **options)
        except GraphicsError as error:
            pytest.skip(f"no OpenGL window on this display: {error}")
        made.append(window)
        until(window, lambda: window.engine.report.complete and window.engine.report.tiles_wanted > 0, PATIENCE_S)
        return window

    yield opener
    for window in made:
        window.close()


@pytest.fixture
def window(open_window):
    """Six channels, three z, two t, three wells."""
    return open_window()


@pytest.fixture
def hands(window) -> Hands:
    """Hands on it, the cursor over a field."""
    made = Hands(window)
    made.move(200, 250)
    return made


# what keys change


def camera(window) -> object:
    """Where the view is."""
    return window.engine.camera


def visible(window) -> list[int]:
    """Numbers of the shown channels, from 1."""
    return [number for number, look in enumerate(window.engine.channels, 1) if look.visible]


def of_engine(name: str) -> Callable:
    """An attribute of the view."""
    return lambda window: getattr(window.engine, name)


def of_shown(name: str) -> Callable:
    """Whether something lies over or beside the picture."""
    return lambda window: getattr(window.desk.shown, name)


def limits(window) -> list[tuple]:
    """Contrast limits."""
    return [look.limits for look in window.engine.channels]


def near(window) -> None:
    """Look at the middle, magnified."""
    window.engine.look_at(*window.slide.positions().mean(axis=0), scale=3.0)


def dull(window) -> None:
    """Limits that nobody would choose."""
    for look in window.engine.channels:
        look.limits = (0.0, 65535.0)


def in_well(window) -> None:
    """Look at the second well."""
    from rawmosaic.viewer.scenes import next_scene

    engine = window.engine
    for _ in range(2):
        engine.camera = next_scene(window.slide, engine.geometry, engine.camera, 1)[1]


def annotated(window) -> None:
    """Draw a rectangle over the middle."""
    from rawmosaic.viewer.annotations.model import Annotation
    from rawmosaic.viewer.annotations.shapes import Rectangle

    x, y = window.slide.positions().mean(axis=0)
    window.desk.board.annotations.add(Annotation(Rectangle(x - 40, y - 30, x + 40, y + 30)))


@dataclass(frozen=True)
class Row:
    """Keys, what they change, to what (any other value if not told), and the keys that bring it back."""

    listed: str
    press: tuple[str, ...]
    state: Callable
    after: object = None
    back: tuple[str, ...] = ()
    start: Callable | None = None
    everywhere: bool = False
    """Whether it shows in the panels; else in the picture."""


def row(listed: str, press: str, state: Callable, after: object = None, back: str = "", **more) -> Row:
    """A row, its keys parted by spaces."""
    return Row(listed, tuple(press.split()), state, after, tuple(back.split()), **more)


def scale(window) -> float:
    """Screen pixels per image pixel."""
    return round(window.engine.camera.scale, 6)


VIEW = [
    row("+ -", "plus", scale, 6.0, "minus", start=near),
    row("+ -", "equal", scale, 6.0, "minus", start=near),
    row("+ -", "KP_Add", scale, 6.0, "KP_Subtract", start=near),
    row("0, Ctrl + 0", "0", scale, start=near),
    row("0, Ctrl + 0", "ctrl+0", scale, start=near),
    row("0, Ctrl + 0", "KP_0", scale, start=near),
    row("5, Ctrl + 1", "5", visible, [1, 2, 3, 4, 6], "5"),
    row("5, Ctrl + 1", "ctrl+1", scale, 1.0, start=near),
    row("5, Ctrl + 1", "KP_5", scale, 1.0, start=near),
    row("arrows", "Right", camera, None, "Left", start=near),
    row("arrows", "Down", camera, None, "Up", start=near),
    row("Page down, Page up", "Next", camera, None, "Prior", start=in_well),
    row("Page down, Page up", "n", camera, None, "shift+n", start=in_well),
]

CHANNELS = [
    *(row("1 … 9", str(n), visible, [each for each in range(1, 7) if each != n], str(n)) for n in (1, 2, 3, 4, 6)),
    row("Shift + 1 … 9", "shift+2", visible, [2], "shift+2"),
    row("Shift + 1 … 9", "shift+6", visible, [6], "shift+6"),
    row("Shift + R", "shift+r", limits, start=dull),
    row("c", "c", lambda window: window.engine.channels[5].limits, start=dull),
    row("Shift + C", "shift+c", of_shown("contrast"), False, "shift+c", everywhere=True),
]

STACK = [
    row(", .", "period", of_engine("z"), 1, "comma"),
    row(", .", "period period", of_engine("z"), 2, "comma comma"),
    row("[ ]", "bracketright", of_engine("t"), 1, "bracketleft"),
    row("o", "o", of_engine("overlap"), "nearest", "o o o", start=near),
    row("p", "p", of_engine("position_set"), "registered", "p"),
    row("i", "i i", of_engine("interpolation"), "smooth", "i", start=near),
    row("g", "g", of_engine("show_outlines"), True, "g"),
    row("g", "shift+g", of_engine("show_outlines"), True, "shift+g"),
]

OVERLAYS = [
    row("a", "a", of_shown("annotations"), False, "a", start=annotated),
    row("a", "shift+a", of_shown("annotations"), False, "shift+a"),
    row("b", "b", of_shown("scale_bar"), False, "b"),
    row("m", "m", of_shown("minimap"), False, "m"),
    row("\\", "backslash", of_shown("statistics"), True, "backslash"),
    row("?", "question", of_shown("keys"), True, "question"),
    row("?", "question", of_shown("keys"), True, "Escape"),
    row("Tab", "Tab", of_shown("side"), False, "Tab", everywhere=True),
    row("d", "d", lambda window: window.desk.message.text if window.desk.message else "", everywhere=True),
]

TESTED_BELOW = (
    *("wheel", "drag", "right drag", "double click"),
    *("F11", "Ctrl + O, G, S, E", "Ctrl + Z, Y", "q, Esc"),
    "f",  # needs a scan that runs: test_live_scan.py
)
LISTED = {*(each.listed for each in (*VIEW, *CHANNELS, *STACK, *OVERLAYS)), *TESTED_BELOW}


def crop(window, picture: np.ndarray, everywhere: bool) -> np.ndarray:
    """What a row is seen by."""
    if everywhere:
        return picture
    x, y, width, height = window.picture_area()
    return picture[y : y + height, x : x + width]


@pytest.mark.parametrize("rows", [VIEW, CHANNELS, STACK, OVERLAYS], ids=["view", "channels", "stack", "overlays"])
def test_every_key_does_what_the_list_says_and_the_window_shows_it(window, hands: Hands, rows: list[Row]):
    for each in rows:
        window.engine.fit()
        if each.start is not None:
            each.start(window)
        before, unseen = each.state(window), crop(window, shown(window), each.everywhere)
        hands.do("key", *each.press)
        expected = (lambda now, each=each: now == each.after) if each.after is not None else (lambda now, was=before: now != was)
        until(window, lambda each=each, expected=expected: expected(each.state(window)), PATIENCE_S)
        seen = crop(window, shown(window), each.everywhere)
        assert seen.shape != unseen.shape or (seen != unseen).any(), f"nothing is seen of {each.press}"
        if each.back:
            hands.do("key", *each.back)
            until(window, lambda each=each, before=before: each.state(window) == before, PATIENCE_S)
            if each.listed != "\\":  # its figures are others in each frame
                np.testing.assert_array_equal(crop(window, shown(window), each.everywhere), unseen, err_msg=str(each.press))


def test_digits_without_a_channel_and_unknown_keys_do_nothing(window, hands: Hands):
    from rawmosaic.viewer.display_state import capture

    before, shown_before = capture(window.engine), replace(window.desk.shown)
    hands.key("7", "9", "shift+8", "x", "shift+x", "ctrl+q", "ctrl+x", "space", "F5", "Home", "eacute", "slash")
    hands.key("b")  # when it is taken in, so are the others
    until(window, lambda: not window.desk.shown.scale_bar, PATIENCE_S)
    assert capture(window.engine) == before
    assert window.desk.shown == replace(shown_before, scale_bar=False)
    assert not window.is_closing


def test_five_is_one_to_one_where_there_is_no_channel_five(open_window):
    window = open_window(4)
    near(window)
    Hands(window).key("5")
    until(window, lambda: window.engine.camera.scale == 1.0, PATIENCE_S)
    assert visible(window) == [1, 2, 3, 4]


def test_c_again_is_stronger(window, hands: Hands, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rawmosaic.viewer.auto_contrast.REPEAT_S", PATIENCE_S)
    hands.key("c")
    plain = [percentile_limits(window.slide.histogram(n)) for n in range(6)]
    until(window, lambda: limits(window) == plain, PATIENCE_S)
    hands.key("c")
    until(window, lambda: limits(window) != plain, PATIENCE_S)
    assert all(high - low < was[1] - was[0] for (low, high), was in zip(limits(window), plain, strict=True))


def test_wells_are_gone_through_from_the_whole_to_the_last(window, hands: Hands):
    from rawmosaic.viewer.scenes import scene_boxes

    for well, box in zip(WELLS, scene_boxes(window.slide, window.engine.geometry).values(), strict=True):
        hands.key("Next")
        until(window, lambda well=well: well in (window.desk.message.text if window.desk.message else ""), PATIENCE_S)
        middle = (0.5 * (box[0] + box[2]), 0.5 * (box[1] + box[3]))
        assert (window.engine.camera.x_um, window.engine.camera.y_um) == pytest.approx(middle)
    last = camera(window)
    hands.key("Next")
    until(window, lambda: "after the last" in window.desk.message.text, PATIENCE_S)
    assert camera(window) == last


def test_commands_are_given_with_ctrl(window, hands: Hands):
    asked: list[str] = []
    keys = {"ctrl+o": "open", "ctrl+g": "go to", "ctrl+s": "screenshot", "ctrl+e": "figure"}
    for name in keys.values():
        window.desk.act[name] = lambda name=name: asked.append(name)
    for key, name in keys.items():
        hands.key(key)
        until(window, lambda name=name: asked[-1:] == [name], PATIENCE_S)
    assert asked == list(keys.values())


def test_what_keys_did_is_undone_and_done_again(window, hands: Hands):
    before = shown(window)
    for undo, redo in (("ctrl+z", "ctrl+y"), ("ctrl+z", "ctrl+shift+z")):
        hands.key("2")
        until(window, lambda: 2 not in visible(window), PATIENCE_S)
        after = crop(window, shown(window), False)
        hands.key(undo)
        until(window, lambda: 2 in visible(window), PATIENCE_S)
        np.testing.assert_array_equal(crop(window, shown(window), False), crop(window, before, False))
        hands.key(redo)
        until(window, lambda: 2 not in visible(window), PATIENCE_S)
        np.testing.assert_array_equal(crop(window, shown(window), False), after)
        hands.key("ctrl+z")
        until(window, lambda: 2 in visible(window), PATIENCE_S)


def test_escape_ends_the_full_screen_before_it_closes_the_window(window, hands: Hands):
    hands.key("F11")
    until(window, lambda: window.sizes.size_px == SCREEN, PATIENCE_S)
    assert shown(window).shape[:2] == SCREEN[::-1]
    hands.key("Escape")
    until(window, lambda: window.sizes.size_px == SIZE, PATIENCE_S)
    assert not window.is_closing
    hands.key("F11")
    until(window, lambda: window.sizes.size_px == SCREEN, PATIENCE_S)
    hands.key("F11")
    until(window, lambda: window.sizes.size_px == SIZE, PATIENCE_S)
    hands.do("key", "Escape")
    until(window, lambda: window.is_closing, PATIENCE_S)


@pytest.mark.parametrize("ui_scale", [1.0, 1.25])
def test_the_list_of_keys_fits_into_a_small_window(open_window, ui_scale: float):
    from rawmosaic.viewer.controls import KEYS

    size = (960, 640)
    window = open_window(size=size, ui_scale=ui_scale)
    beside = shown(window)
    window.desk.shown.keys = True
    rows = np.flatnonzero((shown(window) != beside).any(axis=(1, 2)))
    assert rows[0] > 0
    assert rows[-1] < size[1] - 1
    assert np.ptp(rows) > 15 * ui_scale * len(KEYS) / 2


def test_a_key_that_is_held_moves_on_but_switches_once(window):
    keyboard, handle = window.keyboard, window.handle
    start = camera(window)
    for action in (glfw.PRESS, glfw.REPEAT, glfw.REPEAT):
        keyboard.on_key(handle, glfw.KEY_RIGHT, 0, action, 0)
        keyboard.on_key(handle, glfw.KEY_B, 0, action, 0)
        keyboard.on_char(handle, ord("b"))
        keyboard.on_key(handle, glfw.KEY_2, 0, action, 0)
        keyboard.on_char(handle, ord("2"))
        keyboard.on_key(handle, glfw.KEY_PERIOD, 0, action, 0)
        keyboard.on_char(handle, ord("."))
    left, _, right, _ = start.bounds_um()
    assert camera(window).x_um == pytest.approx(start.x_um + 0.75 * (right - left))
    assert (window.desk.shown.scale_bar, visible(window), window.engine.z) == (False, [1, 3, 4, 5, 6], 2)


def test_keys_are_a_lists_while_one_is_open(window, hands: Hands):
    before = shown(window)
    hands.click(98, 18)  # Recent
    until(window, lambda: window.panels.layer.on_key(glfw.KEY_F5, True, 0), PATIENCE_S)
    hands.key("2", "b", "Escape")
    until(window, lambda: not window.panels.layer.on_key(glfw.KEY_F5, True, 0), PATIENCE_S)
    assert visible(window) == [1, 2, 3, 4, 5, 6]
    assert not window.is_closing
    np.testing.assert_array_equal(crop(window, shown(window), False), crop(window, before, False))
    hands.key("2")
    until(window, lambda: 2 not in visible(window), PATIENCE_S)


def test_a_window_without_panels_has_the_same_keys(open_window):
    window = open_window(panels=False)
    hands = Hands(window)
    hands.key("2")
    until(window, lambda: 2 not in visible(window), PATIENCE_S)
    hands.key("question", "a", "m", "d", "Tab", "ctrl+z", "ctrl+g", "ctrl+e", "f", "Delete", "n")
    until(window, lambda: "A01" in (window.desk.message.text if window.desk.message else ""), PATIENCE_S)
    hands.do("key", "q")
    until(window, lambda: window.is_closing, PATIENCE_S)


# the mouse


def over(window, x: float, y: float) -> tuple[int, int]:
    """A place of the picture, as window pixels."""
    left, top, _, _ = window.picture_area()
    return round(left + x), round(top + y)


def picture(window) -> np.ndarray:
    """What the picture shows."""
    return crop(window, shown(window), False)


def test_the_wheel_zooms_and_the_specimen_under_the_cursor_stays(window, hands: Hands):
    near(window)
    start, unseen = camera(window), picture(window)
    there = start.to_mosaic(180, 140)
    hands.move(*over(window, 180, 140))
    for scroll, held, wheel in (
        ("zoom", None, "4"),
        ("zoom", None, "5"),
        ("zoom", "ctrl", "4"),
        ("pan", "ctrl", "4"),
        ("pan", "ctrl", "5"),
    ):
        window.preferences.scroll, window.engine.camera = scroll, start
        hands.do(*(("keydown", held) if held else ()), "click", wheel, *(("keyup", held) if held else ()))
        until(window, lambda: camera(window) != start, PATIENCE_S)
        assert (camera(window).scale > start.scale) is (wheel == "4")
        assert camera(window).to_window(*there) == pytest.approx((180, 140))
        seen = picture(window)
        assert (seen != unseen).any()
        np.testing.assert_array_equal(seen[140, 180], unseen[140, 180])  # a raw pixel is three screen pixels wide there


def test_two_fingers_pan_where_the_user_prefers_it(window, hands: Hands):
    from rawmosaic.viewer.window_events import PAN_PX

    window.preferences.scroll = "pan"
    near(window)
    start, unseen = camera(window), picture(window)
    there = start.to_mosaic(180, 140)
    hands.move(*over(window, 180, 140))
    for invert, wheel, across, down in (
        *((False, "4", 0, 1), (False, "5", 0, -1), (False, "6", 1, 0), (False, "7", -1, 0)),
        *((True, "4", 0, -1), (True, "7", 1, 0)),
    ):
        window.preferences.invert, window.engine.camera = invert, start
        hands.do("click", wheel)
        until(window, lambda: camera(window) != start, PATIENCE_S)
        assert camera(window).scale == start.scale
        assert camera(window).to_window(*there) == pytest.approx((180 + PAN_PX * across, 140 + PAN_PX * down))
        assert (picture(window) != unseen).any()


def test_the_wheel_the_other_way_round_zooms_out(window, hands: Hands):
    window.preferences.invert = True
    near(window)
    hands.do("click", "4")
    until(window, lambda: camera(window).scale < 3.0, PATIENCE_S)


def test_shift_and_wheel_pan_sideways(window, hands: Hands):
    near(window)
    before = camera(window)
    hands.do("keydown", "shift", "click", "5")
    until(window, lambda: camera(window).x_um != before.x_um, PATIENCE_S)
    hands.do("keyup", "shift")
    assert (camera(window).y_um, camera(window).scale) == (before.y_um, before.scale)


@pytest.mark.parametrize("how", ["space", "middle"])
def test_space_and_the_middle_button_pan_in_every_tool(window, hands: Hands, how: str):
    from rawmosaic.viewer.annotations.editing import TOOLS

    board = window.desk.board
    near(window)
    start, unseen = camera(window), picture(window)
    held = start.to_mosaic(150, 160)
    for tool in TOOLS:
        board.editor.tool, window.engine.camera = tool, start
        if how == "space":
            hands.do("keydown", "space")
        hands.drag(1 if how == "space" else 2, over(window, 150, 160), over(window, 190, 130))
        there = lambda: camera(window).to_window(*held) == pytest.approx((190, 130), abs=0.01)  # noqa: E731
        until(window, there, PATIENCE_S)
        if how == "space":
            hands.do("keyup", "space")
        assert camera(window).scale == start.scale
        hands.move(*over(window, 60, 60))  # the button is up
        assert there()
        assert (board.editor.tool, board.editor.draft, len(board.annotations)) == (tool, None, 0)
    assert (picture(window) != unseen).any()


def test_a_drag_pans_and_one_to_the_right_with_the_right_button_lowers_contrast(window, hands: Hands):
    near(window)
    before, limits_before = camera(window), limits(window)
    hands.drag(1, over(window, 150, 160), over(window, 180, 150))
    until(window, lambda: camera(window).to_window(*before.to_mosaic(150, 160)) == pytest.approx((180, 150)), PATIENCE_S)
    moved, unseen = camera(window), picture(window)
    assert limits(window) == limits_before
    hands.drag(3, over(window, 150, 160), over(window, 250, 160))
    until(window, lambda: limits(window) != limits_before, PATIENCE_S)
    low, high = limits(window)[0]
    assert high - low > limits_before[0][1] - limits_before[0][0]
    assert camera(window) == moved
    assert (picture(window) != unseen).any()


def test_one_button_drags_at_a_time(window, hands: Hands):
    near(window)
    before = limits(window)
    held = camera(window).to_mosaic(150, 160)
    hands.move(*over(window, 150, 160))
    hands.do("mousedown", "1")
    hands.settle()
    hands.do("mousedown", "3")
    hands.move(*over(window, 170, 160))
    hands.do("mouseup", "3")
    hands.move(*over(window, 200, 170))
    hands.do("mouseup", "1")
    until(window, lambda: camera(window).to_window(*held) == pytest.approx((200, 170), abs=0.01), PATIENCE_S)
    assert limits(window) == before


def test_a_double_click_fills_the_window_with_the_field_under_it(window, hands: Hands):
    unseen, field = picture(window), 6
    x, y = camera(window).to_window(*window.slide.positions()[field])
    hands.move(*over(window, x, y))
    hands.do("click", "--repeat", "2", "1")
    until(window, lambda: camera(window).scale > 2.0, PATIENCE_S)
    assert (camera(window).x_um, camera(window).y_um) == pytest.approx(window.slide.positions()[field])
    assert (picture(window) != unseen).any()
    hands.key("0")
    until(window, lambda: camera(window).scale < 2.0, PATIENCE_S)
    np.testing.assert_array_equal(picture(window), unseen)


def test_arrows_and_space_are_the_windows_after_a_click_on_a_panel(window, hands: Hands):
    """Dear ImGui would move its own highlight, and press what it lies on."""
    side = window.picture_area()[2]
    hands.click(side + 22, 36 + 46)
    until(window, lambda: len(visible(window)) == 5, PATIENCE_S)
    before = camera(window)
    hands.key("Down", "space", "Return", "Down")
    height = before.bounds_um()[3] - before.bounds_um()[1]
    until(window, lambda: camera(window).y_um == pytest.approx(before.y_um + 0.5 * height), PATIENCE_S)
    shown(window)
    assert len(visible(window)) == 5


# other keyboards


@pytest.fixture
def keyboard(display: str) -> Iterator[Callable[[str], None]]:
    """Gives the display another keyboard, until the test ends."""
    if shutil.which("setxkbmap") is None:
        pytest.skip("the program setxkbmap is not installed: the display has one keyboard only")

    def chosen(layout: str) -> None:
        done = subprocess.run(["setxkbmap", "-display", display, *layout.split()], capture_output=True, timeout=60, check=False)
        if done.returncode:
            pytest.skip(f"no keyboard {layout} here: {done.stderr.decode(errors='replace')}")

    yield chosen
    chosen("us")


CODES = {"1": "10", "2": "11", "5": "14", "6": "15", "0": "19"}
"""X key codes of the row above the letters, the same on every keyboard."""

PRINTED = {
    "de": {"[": "ISO_Level3_Shift+17", "]": "ISO_Level3_Shift+18", "?": "shift+20", "+": "35", "ctrl+z": "ctrl+29"},
    "fr": {"[": "ISO_Level3_Shift+14", "]": "ISO_Level3_Shift+20", "?": "shift+58", "m": "47", ",": "58", "ctrl+z": "ctrl+25"},
    "ru": {"[": "34", "]": "35", "m": "58", ",": "59", "ctrl+z": "ctrl+52"},
    "cz": {"ctrl+z": "ctrl+29"},
    "us -variant dvorak": {"m": "58", ",": "25", "ctrl+z": "ctrl+61"},
}
"""Key codes of what is printed on a keyboard; of a Russian one, where these lie on an American one."""


@pytest.mark.parametrize("layout", list(PRINTED))
def test_keys_are_what_is_printed_on_them_and_digits_where_they_lie(keyboard: Callable, open_window, layout: str):
    keyboard(layout)
    window = open_window()
    hands, codes = Hands(window), PRINTED[layout]

    def pressed(key: str, condition: Callable[[], bool]) -> None:
        hands.do("key", key)
        until(window, condition, PATIENCE_S)

    for name, becomes_true in (
        ("]", lambda: window.engine.t == 1),
        ("[", lambda: window.engine.t == 0),
        (",", lambda: window.engine.z == 1),
        ("m", lambda: not window.desk.shown.minimap),
        ("?", lambda: window.desk.shown.keys),
        ("+", lambda: window.engine.camera.scale > 3.0),
    ):
        window.engine.z = 2
        near(window)
        if name in codes:
            pressed(codes[name], becomes_true)
    assert visible(window) == [1, 2, 3, 4, 5, 6], "AltGr and a digit is a sign, no channel"
    pressed(CODES["2"], lambda: visible(window) == [1, 3, 4, 5, 6])
    pressed(codes["ctrl+z"], lambda: visible(window) == [1, 2, 3, 4, 5, 6])
    for digit in ("1", "5", "6"):
        pressed(CODES[digit], lambda digit=digit: int(digit) not in visible(window))
    pressed("shift+" + CODES["2"], lambda: visible(window) == [2])
    near(window)
    pressed("ctrl+" + CODES["1"], lambda: window.engine.camera.scale == 1.0)
    near(window)
    pressed(CODES["0"], lambda: window.engine.camera.scale < 3.0)


# names, without a window


@pytest.mark.parametrize(
    ("character", "key", "shift", "name"),
    [
        ("a", glfw.KEY_A, False, "a"),
        ("A", glfw.KEY_A, True, "shift+a"),
        ("A", glfw.KEY_A, False, "a"),  # Caps Lock
        ("a", glfw.KEY_A, True, "shift+a"),  # Caps Lock and Shift
        ("?", glfw.KEY_SLASH, True, "?"),
        ("?", glfw.KEY_MINUS, True, "?"),
        ("+", glfw.KEY_EQUAL, True, "+"),
        ("и", glfw.KEY_B, False, "b"),
        ("И", glfw.KEY_B, True, "shift+b"),
        ("х", glfw.KEY_LEFT_BRACKET, False, "["),
        ("ψ", glfw.KEY_C, False, "c"),
        ("é", glfw.KEY_2, False, "é"),
        ("и", glfw.KEY_UNKNOWN, False, "и"),
        ("µ", glfw.KEY_UNKNOWN, False, "µ"),
    ],
)
def test_a_character_has_the_name_of_its_key(character: str, key: int, shift: bool, name: str):
    assert key_names.of_character(character, key, shift) == name


@pytest.mark.parametrize(
    ("key", "printed", "shift", "name"),
    [
        (glfw.KEY_Z, "z", False, "ctrl+z"),
        (glfw.KEY_Y, "z", True, "ctrl+shift+z"),
        (glfw.KEY_W, "z", False, "ctrl+z"),
        (glfw.KEY_Z, "я", False, "ctrl+z"),
        (glfw.KEY_1, "&", False, "ctrl+1"),
        (glfw.KEY_1, "1", False, "ctrl+1"),
        (glfw.KEY_O, "", False, "ctrl+o"),  # where the system does not tell
        (glfw.KEY_ENTER, "", False, "ctrl+enter"),
    ],
)
def test_a_command_has_the_name_of_what_is_printed(key: int, printed: str, shift: bool, name: str):
    assert key_names.command_of(key, printed, shift) == name


def test_digits_are_what_is_written_or_else_where_they_lie():
    keys = ((glfw.KEY_1, "1"), (glfw.KEY_6, "-"), (glfw.KEY_0, "à"))
    assert [key_names.digit_of(key, printed) for key, printed in keys] == [1, 6, 0]
    assert key_names.digit_of(glfw.KEY_2, "7") == 7  # a keyboard for programmers has them in another order
    assert key_names.digit_of(glfw.KEY_A, "a") is None
    assert key_names.digit_of(glfw.KEY_KP_1, "1") is None


def test_a_text_field_hears_the_letter_that_is_printed():
    assert key_names.letter_key(glfw.KEY_Q, "a") == glfw.KEY_A  # a French keyboard
    assert key_names.letter_key(glfw.KEY_V, "м") == glfw.KEY_V
    assert key_names.letter_key(glfw.KEY_LEFT, "") == glfw.KEY_LEFT
    assert key_names.letter_key(glfw.KEY_2, "é") == glfw.KEY_2
