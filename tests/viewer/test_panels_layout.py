"""Panels lie inside the window and apart, at any size and scale, and nothing that is said is cut without a sign of it."""

from __future__ import annotations

import itertools

import pytest
from hands import hidden_display, until

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SyntheticSlide

pytest.importorskip("imgui_bundle", reason="imgui-bundle is not installed: the window has no panels")

from imgui_bundle import imgui

SCREEN = (3840, 2160)
LONG = "pan-cytokeratin AE1/AE3 Alexa Fluor 555, of the third round of staining"


@pytest.fixture(scope="module")
def display():
    """A large X display that nobody sees."""
    with hidden_display(SCREEN) as name:
        yield name


@pytest.fixture
def open_window(display: str):  # noqa: ARG001
    """Opens windows with panels, and closes them after the test."""
    from rawmosaic.viewer.window import MosaicWindow

    made = []

    def opener(channels: int, size: tuple[int, int], ui_scale: float):
        names = [f"{LONG} {number}" if number % 3 == 2 else f"C{number}" for number in range(channels)]
        slide = SyntheticSlide((2, 3), (48, 64), names, size_z=2, size_t=2, smooth=True)
        try:
            window = MosaicWindow(slide, size, remembers=False, ui_scale=ui_scale)
        except GraphicsError as error:
            pytest.skip(f"no OpenGL window on this display: {error}")
        made.append(window)
        until(window, lambda: window.engine.report.complete and window.engine.report.tiles_wanted > 0, 60)
        return window

    yield opener
    for window in made:
        window.close()


class Watch:
    """Takes down, during one frame, where each panel lies and each button, pixels: (left, top, right, bottom)."""

    def __init__(self, window, monkeypatch: pytest.MonkeyPatch):
        self.windows: dict[str, tuple[float, float, float, float]] = {}
        self.buttons: list[tuple[str, str, tuple[float, float, float, float]]] = []
        self._open: list[str] = []
        begin, end, button = imgui.begin, imgui.end, imgui.button

        def watched_begin(name: str, *rest: object):
            shown = begin(name, *rest)
            self._open.append(name)
            at, size = imgui.get_window_pos(), imgui.get_window_size()
            self.windows[name] = (at.x, at.y, at.x + size.x, at.y + size.y)
            return shown

        def watched_end() -> None:
            self._open.pop()
            end()

        def watched_button(label: str, *rest: object) -> bool:
            pressed = button(label, *rest)
            low, high = imgui.get_item_rect_min(), imgui.get_item_rect_max()
            self.buttons.append((self._open[-1], label, (low.x, low.y, high.x, high.y)))
            return pressed

        monkeypatch.setattr(imgui, "begin", watched_begin)
        monkeypatch.setattr(imgui, "end", watched_end)
        monkeypatch.setattr(imgui, "button", watched_button)
        for _ in range(6):  # ImGui knows the size of what is in a window a frame later
            self.windows.clear()
            self.buttons.clear()
            window.redraw()
            window.step()


def inside(part: tuple, whole: tuple, slack: float = 1.0) -> bool:
    """Whether one box lies in another."""
    return (
        part[0] >= whole[0] - slack
        and part[1] >= whole[1] - slack
        and part[2] <= whole[2] + slack
        and part[3] <= whole[3] + slack
    )


def apart(one: tuple, other: tuple, slack: float = 0.5) -> bool:
    """Whether two boxes have nothing in common."""
    return one[2] <= other[0] + slack or other[2] <= one[0] + slack or one[3] <= other[1] + slack or other[3] <= one[1] + slack


SIZES = [((1280, 800), 1.0), ((1280, 800), 2.0), ((800, 500), 1.0), ((560, 400), 1.0), ((3840, 2160), 2.0), ((640, 1000), 1.5)]


@pytest.mark.parametrize(("size", "scale"), SIZES)
@pytest.mark.parametrize("channels", [1, 4, 60])
def test_panels_lie_in_the_window_and_apart(
    open_window, monkeypatch: pytest.MonkeyPatch, channels: int, size: tuple[int, int], scale: float
):
    window = open_window(channels, size, scale)
    desk = window.desk
    desk.say("a long line on something that could not be read, " * 8, "error")
    watch = Watch(window, monkeypatch)
    frame = (0, 0, *size)
    for name, box in watch.windows.items():
        assert inside(box, frame), f"{name} leaves the window: {box}"
    fixed = {name: watch.windows[name] for name in ("toolbar", "side", "status") if name in watch.windows}
    for one, other in itertools.combinations(fixed, 2):
        assert apart(fixed[one], fixed[other]), f"{one} lies over {other}"
    x, y, width, height = window.picture_area()
    if "minimap" in watch.windows:
        box = watch.windows["minimap"]
        assert inside(box, (x, y, x + width, y + height)), "the minimap leaves the picture"
        assert (box[2] - box[0]) * (box[3] - box[1]) <= 0.2 * width * height + 1000, "the minimap hides the picture"


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_buttons_lie_in_their_panel_and_apart(open_window, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], scale: float):
    window = open_window(4, size, scale)
    window.desk.say("something", "warning")
    window.desk.selected = {0, 1, 2}
    watch = Watch(window, monkeypatch)
    for panel, label, box in watch.buttons:
        left, top, right, _ = watch.windows[panel]
        assert box[0] >= left - 1, f"{label} begins left of {panel}"
        assert box[2] <= right + 1, f"{label} ends right of {panel}"
        if panel == "toolbar":
            assert inside(box, watch.windows[panel]), label
        assert box[1] >= top - 4000  # what is scrolled away has a place too
    for panel in {panel for panel, _, _ in watch.buttons}:
        own = [(label, box) for where, label, box in watch.buttons if where == panel]
        for (one, first), (other, second) in itertools.combinations(own, 2):
            assert apart(first, second), f"{one} lies over {other} in {panel}"
    labels = [label.split("#")[0] for _, label, _ in watch.buttons]
    for label in ("?", "Messages (1)", "group these 3", "presets") if "side" in watch.windows else ("?", "Messages (1)"):
        assert label in labels


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_what_opens_over_the_picture_stays_in_its_place(
    open_window, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], scale: float
):
    window = open_window(4, size, scale)
    desk, panels = window.desk, window.panels
    for title, opened in (
        ("Figure", lambda: panels.figure.open(desk)),
        ("Messages", lambda: setattr(desk.shown, "messages", True)),
        ("Keys and mouse", lambda: setattr(desk.shown, "keys", True)),
    ):
        opened()
        with monkeypatch.context() as patch:
            watch = Watch(window, patch)
        x, y, width, height = window.picture_area()
        room = (0, 0, *size) if title == "Keys and mouse" else (x, y, x + width, y + height)
        assert inside(watch.windows[title], room), f"{title} leaves its place"


def test_a_narrow_toolbar_keeps_what_does_not_fit_in_a_menu():
    from rawmosaic.viewer.ui.toolbar import fitting_count

    assert fitting_count([50, 60, 70], 180, 40) == 3
    assert fitting_count([50, 60, 70], 179, 40) == 2
    assert fitting_count([50, 60, 70], 149, 40) == 1
    assert fitting_count([50, 60, 70], 30, 40) == 0
    assert fitting_count([], 0, 40) == 0


def test_what_is_too_long_ends_in_an_ellipsis_and_fits(open_window):
    from rawmosaic.viewer.ui.widgets import shortened

    window = open_window(1, (800, 500), 1.0)
    window.panels.layer.make_current()
    for room in (0.0, 5.0, 40.0, 200.0, 1e6):
        text = shortened(LONG, room)
        assert LONG.startswith(text.removesuffix("…"))
        assert text == LONG or text.endswith("…") or not text
        assert imgui.calc_text_size(text).x <= max(room, 0.0)
    assert shortened(LONG, 1e6) == LONG
