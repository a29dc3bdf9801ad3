"""Groups, presets, contrast of an area and messages, with hands: what is clicked, dragged and typed does what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hands import Hands, hidden_display, until

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SyntheticSlide

pytest.importorskip("imgui_bundle", reason="imgui-bundle is not installed: the window has no panels")

from imgui_bundle import imgui

SIZE = (1280, 800)


@pytest.fixture(scope="module")
def display():
    """An X display that nobody sees."""
    with hidden_display((1400, 900)) as name:
        yield name


@pytest.fixture
def open_window(display: str):  # noqa: ARG001
    """Opens windows with panels, and closes them after the test."""
    from rawmosaic.viewer.window import MosaicWindow

    made = []

    def opener(slide, **options):
        options.setdefault("remembers", False)
        try:
            window = MosaicWindow(slide, SIZE, **options)
        except GraphicsError as error:
            pytest.skip(f"no OpenGL window on this display: {error}")
        made.append(window)
        until(window, lambda: window.engine.report.complete and window.engine.report.tiles_wanted > 0, 60)
        return window

    yield opener
    for window in made:
        window.close()


def slide(channels: int = 4) -> SyntheticSlide:
    """A mosaic."""
    return SyntheticSlide((3, 4), (96, 128), channels, smooth=True)


class Widgets:
    """Where widgets lie, by their labels, as the last frame drew them: window pixels."""

    NAMES = ("button", "selectable", "checkbox", "checkbox_flags", "small_button", "input_text_with_hint", "menu_item_simple")

    def __init__(self, window, monkeypatch: pytest.MonkeyPatch):
        self._window = window
        self._seen: dict[str, list[tuple[int, int]]] = {}
        for name in (*self.NAMES, "arrow_button"):
            monkeypatch.setattr(imgui, name, self._watched(getattr(imgui, name)))

    def _watched(self, widget):
        def watched(label: str, *rest: object, **more: object):
            result = widget(label, *rest, **more)
            low, high = imgui.get_item_rect_min(), imgui.get_item_rect_max()
            self._seen.setdefault(label, []).append((round((low.x + high.x) / 2), round((low.y + high.y) / 2)))
            return result

        return watched

    def at(self, label: str, number: int = 0) -> tuple[int, int]:
        """The middle of the n-th widget whose label begins so, once it is there."""
        until(self._window, lambda: len(self.all(label)) > number, 60)
        return self.all(label)[number]

    def first(self, label: str) -> tuple[int, int]:
        """The middle of the uppermost widget with just this label, once it is there."""

        def found() -> list[tuple[int, int]]:
            self.all("")
            return self._seen.get(label, [])

        until(self._window, lambda: bool(found()), 60)
        return min(found(), key=lambda place: place[1])

    def all(self, label: str) -> list[tuple[int, int]]:
        """Of all of them."""
        self._seen.clear()
        for _ in range(2):
            self._seen.clear()
            self._window.redraw()
            self._window.step()
        return [place for name, places in self._seen.items() if name.split("##")[0].startswith(label) for place in places]


@pytest.fixture
def window(open_window):
    """A window on four channels."""
    return open_window(slide())


@pytest.fixture
def hands(window) -> Hands:
    """Hands on it."""
    return Hands(window)


@pytest.fixture
def widgets(window, monkeypatch: pytest.MonkeyPatch) -> Widgets:
    """What there is to click."""
    return Widgets(window, monkeypatch)


def select(window, hands: Hands, widgets: Widgets, numbers: set[int]) -> None:
    """Click names, all but the first with Ctrl held."""
    first, *others = sorted(numbers)
    hands.click(*widgets.at(f"C{first}"))
    until(window, lambda: window.desk.active_channel == first, 60)
    for count, number in enumerate(others, 2):
        hands.do("keydown", "ctrl")
        hands.settle()
        hands.click(*widgets.at(f"C{number}"))
        hands.do("keyup", "ctrl")
        until(window, lambda count=count: len(window.desk.selected) == count, 60)
    assert window.desk.selected == numbers


def test_selected_channels_become_a_group_that_is_named_shown_folded_and_taken_apart(window, hands: Hands, widgets: Widgets):
    engine = window.engine
    select(window, hands, widgets, {1, 3})
    hands.click(*widgets.at("group these 2"))
    until(window, lambda: len(engine.groups) == 1)
    assert engine.groups[0].channels == (1, 3)
    until(window, lambda: window.panels.layer.wants_text)  # its name can be typed at once
    hands.key("ctrl+a")
    hands.do("type", "--delay", "30", "dyes")
    until(window, lambda: engine.groups[0].name == "dyes")
    hands.key("Return")

    assert widgets.all("dyes (2)")
    hands.click(*widgets.first("##shown"))
    until(window, lambda: [look.visible for look in engine.channels] == [True, False, True, False])
    hands.click(*widgets.first("##shown"))
    until(window, lambda: all(look.visible for look in engine.channels))

    alone = widgets.first("S")
    hands.click(*alone)
    until(window, lambda: [look.visible for look in engine.channels] == [False, True, False, True])
    hands.click(*alone)
    until(window, lambda: all(look.visible for look in engine.channels))

    fold = widgets.first("##fold")
    hands.click(*fold)
    until(window, lambda: not widgets.all("C1"))
    hands.click(*fold)
    until(window, lambda: bool(widgets.all("C1")))

    hands.click(*widgets.at("ungroup"))
    until(window, lambda: engine.groups == ())
    hands.key("ctrl+z")
    until(window, lambda: len(engine.groups) == 1)
    assert engine.groups[0].name == "dyes", "a name is one step, and stays with the group that comes back"


def double_click(window, hands: Hands, x: int, y: int) -> None:
    """Two clicks that are one and not the third and fourth of some before, however long a frame takes here."""

    def within(seconds: float) -> None:
        window.panels.layer.make_current()
        imgui.get_io().mouse_single_click_delay, imgui.get_io().mouse_double_click_time = seconds + 1.0, seconds

    within(0.0)
    hands.click(x, y)
    within(60.0)
    hands.click(x, y)
    within(0.3)


def type_text(hands: Hands, text: str) -> None:
    """Into the field that has the keyboard, in place of what is there."""
    until(hands.window, lambda: hands.window.panels.layer.wants_text)
    hands.key("ctrl+a")
    hands.do("type", "--delay", "30", text)
    hands.settle()


def test_a_channel_is_named_by_a_double_click_and_that_is_undone(window, hands: Hands, widgets: Widgets):
    look = window.engine.channels[1]
    double_click(window, hands, *widgets.at("C1"))
    type_text(hands, "tubulin")
    assert look.label == "", "a name counts when it is finished"
    hands.key("Return")
    until(window, lambda: look.shown_name == "tubulin")
    assert look.name == window.slide.channels[1].name == "C1"
    assert widgets.all("tubulin")
    assert not widgets.all("C1")
    hands.key("ctrl+z")
    until(window, lambda: look.label == "")
    hands.key("ctrl+y")
    until(window, lambda: look.label == "tubulin")

    double_click(window, hands, *widgets.at("tubulin"))
    type_text(hands, "something else")
    hands.key("Escape")
    until(window, lambda: window.desk.naming is None)
    assert look.label == "tubulin", "Escape leaves it as it was"
    assert not window.is_closing

    double_click(window, hands, *widgets.at("tubulin"))
    type_text(hands, "actin")
    hands.click(*widgets.at("C3"))
    until(window, lambda: look.label == "actin")
    until(window, lambda: window.desk.naming is None)

    double_click(window, hands, *widgets.at("actin"))
    until(window, lambda: window.panels.layer.wants_text)
    hands.key("ctrl+a")
    hands.key("BackSpace")
    hands.key("Return")
    until(window, lambda: look.shown_name == "C1")
    assert look.label == "", "without a name it has that of the slide"


def test_a_channel_is_named_from_its_menu_and_gets_its_own_name_back(window, hands: Hands, widgets: Widgets):
    look = window.engine.channels[2]

    def menu() -> None:
        hands.move(*widgets.at(look.shown_name))
        hands.do("mousedown", "3")
        hands.settle()
        hands.do("mouseup", "3")
        hands.settle()

    menu()
    hands.click(*widgets.at("rename …"))
    type_text(hands, "Ki-67")
    hands.key("Return")
    until(window, lambda: look.label == "Ki-67")
    menu()
    hands.click(*widgets.at("call it “C2” again"))
    until(window, lambda: look.label == "")


def test_names_of_channels_and_folds_of_groups_are_kept_beside_the_slide(open_window, tmp_path: Path, monkeypatch):
    from rawmosaic.storage import open_slide
    from rawmosaic.storage.testing import write_slide
    from rawmosaic.viewer import groups
    from rawmosaic.viewer.figure import legend_entries

    path = write_slide(slide(3), tmp_path / "scan.h5")
    with open_slide(path) as opened:
        first = open_window(opened, remembers=True)
        first.engine.groups = groups.grouped((), [0, 2], "outer")
        hands, widgets = Hands(first), Widgets(first, monkeypatch)
        double_click(first, hands, *widgets.at("C1"))
        type_text(hands, "lamin")
        hands.key("Return")
        until(first, lambda: first.engine.channels[1].label == "lamin")
        hands.click(*widgets.first("##fold"))
        until(first, lambda: first.engine.groups[0].folded)
        first.close()
        again = open_window(opened, remembers=True)
        assert [look.shown_name for look in again.engine.channels] == ["C0", "lamin", "C2"]
        assert [name for name, _ in legend_entries(again.engine)] == ["C0", "lamin", "C2"]
        assert again.engine.groups[0].folded
        widgets_of(again, widgets)
        assert widgets.all("lamin")
        assert not widgets.all("C2")
        assert [place.name for place in again.slide.channels] == ["C0", "C1", "C2"]


def test_a_display_state_that_is_dropped_is_a_preset(window, tmp_path: Path):
    from dataclasses import replace

    from rawmosaic.viewer.display_state import capture
    from rawmosaic.viewer.saved_state import save_preset

    engine, shown = window.engine, window.slide
    state = capture(engine)
    looks = (replace(state.channels[0], limits=(5.0, 777.0), label="nuclei"), *state.channels[1:])
    save_preset(tmp_path / "a b.view.json", replace(state, x_um=state.x_um + 1000, channels=looks))
    window.events.on_drop(None, [str(tmp_path / "a b.view.json")])
    until(window, lambda: engine.channels[0].limits == (5.0, 777.0))
    assert engine.channels[0].shown_name == "nuclei"
    assert window.slide is shown
    assert engine.camera.x_um == state.x_um, "a preset is looks, no place"
    assert "a b.view.json" in window.desk.messages[-1].text
    (tmp_path / "bad.view.json").write_text("no")
    window.events.on_drop(None, [str(tmp_path / "bad.view.json")])
    until(window, lambda: window.desk.messages[-1].kind == "error")
    assert "bad.view.json" in window.desk.messages[-1].text
    assert window.engine is engine


def test_a_limit_that_is_dragged_is_given_to_every_selected_channel(window, hands: Hands, widgets: Widgets):
    select(window, hands, widgets, {0, 2})
    until(window, lambda: window.panels.contrast.area is not None)
    for _ in range(3):
        window.redraw()
        window.step()
    others = [window.engine.channels[number].limits for number in (1, 3)]
    x, y, width, height = map(round, window.panels.contrast.area)
    hands.drag(1, (x + round(0.9 * width), y + height // 2), (x + width // 2, y + height // 2))
    looks = window.engine.channels
    until(window, lambda: looks[0].limits[1] == looks[2].limits[1])
    assert [looks[number].limits for number in (1, 3)] == others


def test_looks_are_kept_under_a_name_and_given_to_another_slide(window, hands: Hands, widgets: Widgets, open_window):
    from rawmosaic.viewer import presets

    looks = window.engine.channels
    looks[1].limits, looks[1].color, looks[2].visible = (111.0, 2222.0), "#123456", False
    hands.click(*widgets.at("presets"))
    hands.click(*widgets.first("##name"))
    hands.do("type", "--delay", "30", "dim dyes")
    hands.settle()
    hands.click(*widgets.at("keep"))
    until(window, lambda: presets.names() == ["dim dyes"], 60)
    window.close()

    other = open_window(SyntheticSlide((2, 2), (48, 64), ["C2", "C1", "x", "C9"], smooth=True))
    other_hands, before = Hands(other), other.engine.camera
    other_hands.click(*widgets_of(other, widgets).at("presets"))
    until(other, lambda: bool(widgets.all("dim dyes")), 60)
    other_hands.click(*widgets.at("dim dyes"))
    until(other, lambda: other.engine.channels[1].limits == (111.0, 2222.0), 60)
    assert other.engine.channels[1].color == "#123456"
    assert not other.engine.channels[0].visible, "matched by name, not by place"
    assert other.engine.camera == before, "a preset is looks, no place"
    told = [message.text for message in other.desk.messages]
    assert any("“C3”" in line and "“C9”" in line for line in told), "by its number, and that is told"
    assert any("“C0” is not here" in line for line in told)
    assert any("“x” stays as it was" in line for line in told)
    other_hands.key("Escape")
    other_hands.key("ctrl+z")
    until(other, lambda: other.engine.channels[1].limits != (111.0, 2222.0), 60)


def widgets_of(window, widgets: Widgets) -> Widgets:
    """The same watch on another window."""
    widgets._window = window
    return widgets


def test_the_looks_of_a_slide_are_offered_while_another_is_seen(window, tmp_path: Path):
    from rawmosaic.viewer.display_state import capture
    from rawmosaic.viewer.presets import read_from
    from rawmosaic.viewer.recent import remember
    from rawmosaic.viewer.saved_state import save_preset
    from rawmosaic.viewer.ui.presets_menu import give_looks, offered_beside

    seen, unseen = tmp_path / "seen.h5", tmp_path / "unseen.h5"
    for path in (seen, unseen):
        path.write_bytes(b"")
        remember(str(path), path.stem)
    state = capture(window.engine)
    save_preset(tmp_path / "seen.h5.view.json", state)
    assert offered_beside("elsewhere").slides == [(str(seen), "seen")]
    assert offered_beside(str(seen)).slides == []
    window.engine.channels[0].limits = (1.0, 2.0)
    give_looks(window.desk, read_from(seen), "looks of seen")
    assert window.engine.channels[0].limits == state.channels[0].limits
    assert window.desk.message.kind == "info"


def test_contrast_fits_a_rectangle_that_is_dragged_for_it_and_is_no_annotation(window, hands: Hands, widgets: Widgets):
    window.engine.look_at(*window.slide.positions()[5], scale=4.0)
    window.engine.channels[0].limits = (0.0, 1.0)
    top = window.picture_area()[1]
    hands.click(*widgets.at("area"))
    until(window, lambda: window.desk.board.editor.is_asked)
    start, end = (300, 200), (420, 320)
    hands.drag(1, (start[0], top + start[1]), (end[0], top + end[1]))
    until(window, lambda: window.engine.channels[0].limits != (0.0, 1.0), 60)
    assert len(window.desk.board.annotations) == 0
    assert window.desk.board.editor.tool == "select"
    assert window.engine.channels[0].limits == pytest.approx(
        percentiles(window, start, end), abs=200
    )  # a hand's rectangle is known to a pixel or two


def percentiles(window, start: tuple[int, int], end: tuple[int, int]) -> tuple[float, float]:
    """0.1 % and 99.9 % of channel 0 in a rectangle of the picture, from all planes, pixel by pixel."""
    camera, placement = window.engine.camera, window.slide.placement()
    (left, top), (right, bottom) = camera.to_mosaic(*start), camera.to_mosaic(*end)
    found = []
    for field in range(window.slide.n_fields):
        plane = window.slide.read_plane(field, 0)
        height, width = plane.shape
        u, v = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
        x, y = np.tensordot(placement.matrix_um, np.stack([u, v]), 1) + placement.centres_um(0)[field][:, None, None]
        found.append(plane[(x >= left) & (x < right) & (y >= top) & (y < bottom)])
    values = np.sort(np.concatenate(found)).astype(float)
    return values[int(0.001 * len(values))], values[min(int(0.999 * len(values)), len(values) - 1)]


def test_contrast_fits_the_selected_annotation(window, hands: Hands, widgets: Widgets):
    from rawmosaic.viewer.annotations.model import Annotation
    from rawmosaic.viewer.annotations.shapes import Ellipse, Line

    x, y = window.slide.positions()[5]
    number = window.desk.board.annotations.add(Annotation(Ellipse(x - 8, y - 8, x + 8, y + 8)))
    window.desk.board.editor.select([number])
    window.engine.channels[0].limits = (0.0, 1.0)
    hands.click(*widgets.at("area"))
    until(window, lambda: window.engine.channels[0].limits != (0.0, 1.0), 60)
    assert not window.desk.board.editor.is_asked
    line = window.desk.board.annotations.add(Annotation(Line([(x, y), (x + 5, y)])))
    window.desk.board.editor.select([line])
    hands.click(*widgets.at("area"))
    until(window, lambda: window.desk.board.editor.is_asked)
    hands.key("Escape")
    until(window, lambda: not window.desk.board.editor.is_asked)


def test_messages_are_counted_until_they_are_read_copied_and_cleared(window, hands: Hands, widgets: Widgets):
    desk = window.desk
    desk.say("first")
    desk.say("the disk is full", "error")
    desk.note("and this is only in the list", "warning")
    assert desk.message.text == "the disk is full"
    assert (desk.unread, desk.gravest_unread) == (2, "error"), "mere information was read where it passed by"
    hands.click(*widgets.at("Messages (2)"))
    until(window, lambda: desk.shown.messages and desk.unread == 0)
    assert desk.message is None, "an error that was read does not stay in the status line"
    hands.click(*widgets.at("copy all"))
    window.panels.layer.make_current()
    lines = imgui.get_clipboard_text().splitlines()
    assert [line[21:] for line in lines] == ["first", "error: the disk is full", "warning: and this is only in the list"]
    hands.click(*widgets.at("clear"))
    until(window, lambda: not desk.messages)
    hands.click(*widgets.at("Messages"))
    until(window, lambda: not desk.shown.messages)


def test_the_same_line_again_is_counted_and_shown_again(window):
    desk = window.desk
    desk.say("there is no field in the middle of the view", "warning")
    desk.read_messages()
    desk.say("there is no field in the middle of the view", "warning")
    (message,) = [message for message in desk.messages if message.kind == "warning"]
    assert message.times == 2
    assert desk.unread == 1


def test_tiles_that_cannot_be_read_are_lines_and_each_of_them_once(open_window):
    from rawmosaic.storage.testing import FailingSlide

    window = open_window(FailingSlide(slide(1), 1.0))
    until(window, lambda: any(message.kind == "error" for message in window.desk.messages), 60)
    for _ in range(5):
        window.redraw()
        window.step()
    texts = [message.text for message in window.desk.messages if message.kind == "error"]
    assert len(texts) == len(set(texts)) <= 21
    assert window.desk.gravest_unread == "error"
    window.desk.clear_messages()
    assert window.desk.gravest_unread == "info"


def test_text_that_is_typed_into_an_annotation_is_one_step(window, hands: Hands, widgets: Widgets):
    from rawmosaic.viewer.annotations.model import Annotation
    from rawmosaic.viewer.annotations.shapes import Rectangle

    annotations = window.desk.board.annotations
    x, y = window.slide.positions()[5]
    number = annotations.add(Annotation(Rectangle(x, y, x + 9, y + 9)))
    window.desk.board.editor.select([number])
    window.redraw()
    window.step()
    window.panels.layer.make_current()
    place = widgets.first("##name")
    if place[1] > SIZE[1] - 10:  # below the edge of a window of this height: the wheel brings it into view
        hands.move(place[0], 600)
        while (place := widgets.first("##name"))[1] > SIZE[1] - 60:
            hands.do("click", "5")
            hands.settle()
    hands.click(*place)
    until(window, lambda: window.panels.layer.wants_text)
    hands.do("type", "--delay", "30", "cell 7")
    until(window, lambda: annotations[number].name == "cell 7")
    hands.key("Return")
    hands.click(300, 300)  # elsewhere
    until(window, lambda: not window.panels.layer.wants_text)
    hands.key("ctrl+z")
    until(window, lambda: annotations[number].name == "")
    hands.key("ctrl+shift+z")
    until(window, lambda: annotations[number].name == "cell 7")


def test_groups_are_kept_with_the_looks_of_a_slide(open_window, tmp_path: Path):
    from rawmosaic.storage import open_slide
    from rawmosaic.storage.testing import write_slide
    from rawmosaic.viewer import groups

    path = write_slide(slide(3), tmp_path / "scan.h5")
    with open_slide(path) as opened:
        window = open_window(opened, remembers=True)
        window.engine.groups = groups.grouped((), [0, 2], "outer")
        window.close()
    kept = json.loads((tmp_path / "scan.h5.view.json").read_text())
    assert kept["groups"] == [{"name": "outer", "channels": [0, 2]}]


def test_a_desktop_without_a_dialog_for_files_is_told_what_to_do(window, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rawmosaic.viewer.ui.file_question.can_ask", lambda: False)
    window.desk.act["open"]()
    assert "zenity" in window.desk.message.text
    assert window.desk.gravest_unread == "warning"


def test_contrast_that_takes_long_shows_how_far_it_is_and_can_be_given_up(open_window, monkeypatch: pytest.MonkeyPatch):
    import threading

    from rawmosaic.storage.slide import Slide

    stuck = slide(1)
    window = open_window(stuck)
    hands, widgets, gate = Hands(window), Widgets(window, monkeypatch), threading.Event()

    def gated(*arguments: object, **more: object) -> list:
        assert gate.wait(60)
        return Slide.read_tiles(stuck, *arguments, **more)

    before = window.engine.channels[0].limits
    try:
        monkeypatch.setattr(stuck, "read_tiles", gated)
        window.desk.act["auto view"]([0])
        until(window, lambda: "cancel" in widgets._seen, 60)  # by itself: no event wakes the window
        hands.click(*widgets.at("cancel"))
        until(window, lambda: bool(widgets.all("slide")), 60)
    finally:
        gate.set()
    window.step()
    assert window.engine.channels[0].limits == before


def test_undo_while_drawing_takes_back_the_last_corner_and_no_step(window, hands: Hands):
    editor, top = window.desk.board.editor, window.picture_area()[1]
    whole = window.engine.camera
    hands.drag(1, (100, top + 400), (130, top + 400))  # far from the clicks: two at one place are a double click
    until(window, lambda: window.engine.camera != whole)
    moved = window.engine.camera
    editor.tool = "polygon"

    def corners_are(count: int) -> None:
        until(window, lambda: len(editor._corners) == count, 60)

    for count, (x, y) in enumerate(((200, 150), (300, 150), (300, 250)), 1):
        hands.click(x, top + y)
        corners_are(count)
    for count in (2, 1):
        hands.key("ctrl+z")
        corners_are(count)
    for count, (x, y) in enumerate(((280, 280), (220, 260)), 2):
        hands.click(x, top + y)
        corners_are(count)
    hands.key("Return")
    until(window, lambda: len(window.desk.board.annotations) == 1, 60)
    (number,) = window.desk.board.annotations
    (corners,) = window.desk.board.annotations[number].shape.arrays()
    expected = [window.engine.camera.to_mosaic(x, y) for x, y in ((200, 150), (280, 280), (220, 260))]
    assert corners == pytest.approx(np.array(expected), abs=2 / window.engine.camera.px_per_um)
    assert window.engine.camera == moved
    hands.key("ctrl+z")
    until(window, lambda: len(window.desk.board.annotations) == 0)
    hands.key("ctrl+z")
    until(window, lambda: window.engine.camera == whole)
