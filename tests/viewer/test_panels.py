"""The panels, with hands: what is clicked, dragged and typed changes the view, at one and at two hundred percent."""

from __future__ import annotations

import glfw
import numpy as np
import pytest
from hands import Hands, hidden_display, shown, until

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SyntheticSlide

pytest.importorskip("imgui_bundle", reason="imgui-bundle is not installed: the window has no panels")

SIZE = (1280, 800)
SCREEN = (1400, 900)


@pytest.fixture(scope="module")
def display():
    """An X display that nobody sees."""
    with hidden_display(SCREEN) as name:
        yield name


@pytest.fixture
def open_window(display: str):  # noqa: ARG001
    """Opens windows with panels, and closes them after the test."""
    from rawmosaic.viewer.window import MosaicWindow

    made = []

    def opener(slide, size: tuple[int, int] = SIZE, **options):
        options.setdefault("remembers", False)
        try:
            window = MosaicWindow(slide, size, **options)
        except GraphicsError as error:
            pytest.skip(f"no OpenGL window on this display: {error}")
        made.append(window)
        until(window, lambda: window.engine.report.complete and window.engine.report.tiles_wanted > 0)
        return window

    yield opener
    for window in made:
        window.close()


def slide(channels: int = 4) -> SyntheticSlide:
    """A mosaic with stacks."""
    return SyntheticSlide((3, 4), (96, 128), channels, size_z=3, size_t=2, smooth=True)


@pytest.fixture
def window(open_window):
    """A window on four channels."""
    return open_window(slide())


@pytest.fixture
def hands(window) -> Hands:
    """Hands on it."""
    return Hands(window)


def side_point(window, x_units: float, y_units: float) -> tuple[int, int]:
    """A place of the side panel, units from its top left, as window pixels."""
    area, scale = window.picture_area(), window.sizes.pixels_per_unit
    return round(area[2] + x_units * scale), round((36 + y_units) * scale)


def test_the_picture_and_the_panels_share_the_window(window):
    x, y, width, height = window.picture_area()
    assert (x, y + height) == (0, SIZE[1])
    assert width < SIZE[0]
    assert window.engine.size == (width, height)


def test_keys_open_and_close_what_lies_over_the_picture(window, hands: Hands):
    shown = window.desk.shown
    for key, name in (("b", "scale_bar"), ("m", "minimap"), ("backslash", "statistics"), ("question", "keys")):
        before = getattr(shown, name)
        hands.key(key)
        until(window, lambda name=name, before=before: getattr(shown, name) is not before)
        hands.key(key)
        until(window, lambda name=name, before=before: getattr(shown, name) is before)
    hands.key("question")
    until(window, lambda: shown.keys)
    hands.key("Escape")
    until(window, lambda: not shown.keys)
    assert not glfw.window_should_close(window._window), "Escape closed what lay on top, not the window"


def test_tab_gives_the_whole_window_to_the_picture(window, hands: Hands):
    narrow = window.engine.size
    hands.key("Tab")
    until(window, lambda: window.engine.size == (SIZE[0], narrow[1]))
    hands.key("Tab")
    until(window, lambda: window.engine.size == narrow)


def test_a_check_mark_hides_its_channel(window, hands: Hands):
    x, y = side_point(window, 22, 46)
    hands.click(x, y)
    until(window, lambda: [look.visible for look in window.engine.channels] == [False, True, True, True])
    hands.click(x, y)
    until(window, lambda: all(look.visible for look in window.engine.channels))


def test_a_click_on_a_panel_does_not_move_the_picture(window, hands: Hands):
    before = window.engine.camera
    hands.drag(1, side_point(window, 100, 600), side_point(window, 200, 500))
    assert window.engine.camera == before


def test_the_wheel_over_a_panel_does_not_zoom(window, hands: Hands):
    before = window.engine.camera
    hands.move(*side_point(window, 100, 600))
    hands.do("click", "4")
    hands.settle()
    assert window.engine.camera == before


def test_the_picture_is_panned_and_zoomed_where_the_cursor_is(window, hands: Hands):
    area = window.picture_area()
    x, y = 300, area[1] + 200
    held = window.engine.camera.to_mosaic(300, 200)
    hands.move(x, y)
    before = window.engine.camera
    hands.do("click", "4")
    until(window, lambda: window.engine.camera.scale > before.scale)
    assert window.engine.camera.to_mosaic(300, 200) == pytest.approx(held, abs=1.0 / window.engine.camera.px_per_um)
    hands.drag(1, (x, y), (x + 40, y + 30))
    assert window.engine.camera.to_window(*held) == pytest.approx((340, 230), abs=2)


def test_a_limit_follows_the_cursor_over_the_histogram(window, hands: Hands):
    window.redraw()
    until(window, lambda: window._panels.contrast.area is not None)
    x, y, width, height = map(round, window._panels.contrast.area)
    low, _ = window.engine.channels[0].limits
    first, last = window._panels.contrast._range
    hands.drag(1, (x + round(0.9 * width), y + height // 2), (x + width // 2, y + height // 2))
    until(window, lambda: window.engine.channels[0].limits[1] == pytest.approx(0.5 * (first + last), rel=0.02))
    assert window.engine.channels[0].limits[0] == low


def test_a_click_on_the_minimap_goes_there(window, hands: Hands):
    until(window, lambda: window._panels.minimap._picture is not None)
    window.engine.look_at(*window.slide.positions()[0], scale=4.0)
    width, height = window._panels.minimap._picture.size
    x, y = window.picture_area()[2] - 14 - width // 2, SIZE[1] - 14 - height // 2
    hands.click(x, y)
    left, top, right, bottom = window.engine.geometry.bounds_um
    middle = ((left + right) / 2, (top + bottom) / 2)
    assert (window.engine.camera.x_um, window.engine.camera.y_um) == pytest.approx(middle, rel=0.05)


def test_what_arrives_for_the_minimap_is_a_frame_and_what_has_no_room_is_not_tried_again(window, monkeypatch: pytest.MonkeyPatch):
    shown(window)
    until(window, lambda: not window._frames.is_due)
    monkeypatch.setattr(type(window.engine), "overview_tiles_arrived", property(lambda _: 3))
    assert window._frames.is_due
    window.step()
    until(window, lambda: not window._frames.is_due)
    monkeypatch.setattr(type(window.engine), "overview_tiles_arrived", property(lambda _: 4))
    assert window._frames.is_due
    window.desk.shown.minimap = False
    assert not window._frames._minimap_grows, "nobody looks at it"


def test_the_status_line_tells_field_and_raw_counts_under_the_cursor(window, hands: Hands):
    from rawmosaic.viewer.ui.overlays import place_text

    area = window.picture_area()
    field = 5
    position = window.slide.positions()[field] - 20.0
    x, y = window.engine.camera.to_window(*position)
    hands.move(round(x), round(y) + area[1])
    until(window, lambda: len(place_text(window.desk).split("    ")) == 3)
    text = place_text(window.desk)
    assert f"field {field}" in text
    from rawmosaic.viewer.probe import spot_at

    spot = spot_at(window.engine.geometry, window.slide.acquired(), 0, *window.desk.cursor_um)
    assert str(window.slide.read_plane(field, 0)[spot.y, spot.x]) in text


def test_sixty_channels_have_a_table_that_scrolls_and_a_filter(open_window):
    window = open_window(slide(60))
    window.desk.channel_filter = "channel 5" if "channel" in window.slide.channels[0].name.lower() else "5"
    from rawmosaic.viewer.ui.channels_panel import matching

    numbers = matching(window.desk)
    assert 0 < len(numbers) < 60
    for _ in range(4):
        window.redraw()
        window.step()


def test_everything_doubles_at_two_hundred_percent(open_window):
    window = open_window(slide(), ui_scale=2.0)
    assert window.sizes.pixels_per_unit == 2.0
    assert window.engine.size[0] == SIZE[0] - 2 * 312
    hands = Hands(window)
    hands.click(*side_point(window, 22, 46))
    until(window, lambda: not window.engine.channels[0].visible)


def test_a_screen_of_another_resolution_is_taken_note_of(open_window):
    window = open_window(slide())
    assert window.engine.size[0] == SIZE[0] - 312
    window.events.on_content_scale(window.handle, 2.0, 2.0)
    assert window.engine.size[0] == SIZE[0] - 2 * 312
    window.step()


def test_a_small_window_keeps_its_picture(open_window):
    window = open_window(slide(), (400, 300))
    assert window.engine.size[0] == 400


def test_a_window_with_panels_and_nothing_to_do_sleeps(window, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rawmosaic.viewer.window.IDLE_S", 0.05)
    frames = []
    draw = window._draw
    monkeypatch.setattr(window, "_draw", lambda: frames.append(1) or draw())
    quiet = 0
    for _ in range(400):
        frames.clear()
        window.step()
        quiet = 0 if frames else quiet + 1
        if quiet == 5:
            return
    pytest.fail("it goes on drawing")


def test_playing_runs_through_the_stack(window):
    window._panels.stack.playing = "z"
    seen = set()
    for _ in range(2000):
        window.redraw()
        window.step()
        seen.add(window.engine.z)
        if len(seen) == 3:
            return
    pytest.fail(f"only {seen}")


def test_the_picture_below_the_panels_is_that_of_the_engine(window):
    from rawmosaic.viewer import OffscreenViewer

    window.engine.look_at(*window.slide.positions().mean(axis=0), scale=2.0)
    window.redraw()
    until(window, lambda: window.engine.report.complete and not window.engine.report.tiles_uploaded)
    shown, camera = window.screenshot(), window.engine.camera
    window.close()
    with OffscreenViewer(window.slide, size=camera.size) as viewer:
        viewer.camera = camera
        expected = viewer.render()
    assert np.abs(shown[..., :3].astype(int) - expected[..., :3]).max() <= 1


def test_a_rectangle_is_drawn_and_kept_beside_the_slide(open_window, tmp_path):
    import json

    from rawmosaic.storage import open_slide
    from rawmosaic.storage.testing import write_slide

    path = write_slide(slide(2), tmp_path / "scan.h5")
    with open_slide(path) as opened:
        window = open_window(opened)
        hands, top = Hands(window), window.picture_area()[1]
        window.desk.board.editor.tool = "rectangle"
        hands.drag(1, (200, top + 150), (300, top + 250))
        until(window, lambda: len(window.desk.board.annotations) == 1)
        (number,) = window.desk.board.annotations
        box = window.desk.board.annotations[number].shape.box_um
        camera = window.engine.camera
        assert box == pytest.approx((*camera.to_mosaic(200, 150), *camera.to_mosaic(300, 250)), abs=2 / camera.px_per_um)
        kept = tmp_path / "scan.h5.annotations.geojson"
        until(window, kept.exists)
        assert json.loads(kept.read_text())["features"][0]["geometry"]["type"] == "Polygon"
        hands.key("Delete")
        until(window, lambda: len(window.desk.board.annotations) == 0)
        window.close()
    assert json.loads(kept.read_text())["features"] == []


def test_the_picture_is_still_panned_while_annotations_are_shown(window, hands: Hands):
    before, top = window.engine.camera, window.picture_area()[1]
    hands.drag(1, (200, top + 150), (260, top + 150))
    until(window, lambda: window.engine.camera.x_um < before.x_um)


def test_a_double_click_fills_the_window_with_a_field(window, hands: Hands):
    top = window.picture_area()[1]
    field = 6
    x, y = window.engine.camera.to_window(*window.slide.positions()[field])
    hands.move(round(x), round(y) + top)
    hands.do("click", "--repeat", "2", "--delay", "40", "1")
    until(window, lambda: window.engine.camera.scale > 3.0)
    assert (window.engine.camera.x_um, window.engine.camera.y_um) == pytest.approx(window.slide.positions()[field])


def test_another_slide_takes_the_place_of_the_first(window, tmp_path):
    from rawmosaic.storage.testing import write_slide

    path = write_slide(slide(2), tmp_path / "other.h5")
    window.open(str(path))
    until(window, lambda: len(window.engine.channels) == 2)
    until(window, lambda: window.engine.report.complete and window.engine.report.tiles_wanted > 0)
    assert window.screenshot()[..., :3].any()


def test_a_location_that_is_no_slide_is_told_and_the_picture_stays(window, tmp_path):
    first = window.engine
    window.open(str(tmp_path / "nothing.h5"))
    until(window, lambda: window.desk.message is not None and window.desk.message.kind == "error")
    assert "nothing.h5" in window.desk.message.text
    assert window.engine is first


def test_a_slide_looks_as_it_was_left(open_window, tmp_path):
    from rawmosaic.storage import open_slide
    from rawmosaic.storage.testing import write_slide
    from rawmosaic.viewer.recent import recent

    path = write_slide(slide(2), tmp_path / "scan.h5")
    with open_slide(path) as opened:
        window = open_window(opened, remembers=True)
        window.engine.look_at(50.0, 60.0, 2.5)
        window.engine.channels[1].color, window.engine.background = "#ff8000", "white"
        window.close()
    assert recent()[0].location == str(path)
    with open_slide(path) as opened:
        window = open_window(opened, remembers=True)
        camera = window.engine.camera
        assert (camera.x_um, camera.y_um, camera.scale) == (50.0, 60.0, 2.5)
        assert (window.engine.channels[1].color, window.engine.background) == ("#ff8000", "white")


def test_what_hands_did_is_undone_in_turn(window, hands: Hands):
    whole, top = window.engine.camera, window.picture_area()[1]
    hands.drag(1, (200, top + 150), (260, top + 150))
    until(window, lambda: window.engine.camera != whole)
    moved = window.engine.camera
    hands.key("2")
    until(window, lambda: not window.engine.channels[1].visible)
    hands.key("ctrl+z")
    until(window, lambda: window.engine.channels[1].visible)
    assert window.engine.camera == moved
    hands.key("ctrl+z")
    until(window, lambda: window.engine.camera == whole)
    hands.key("ctrl+shift+z")
    until(window, lambda: window.engine.camera == moved)


@pytest.mark.parametrize("scope", ["slide", "view", "field"])
def test_automatic_contrast_of_what_is_asked_for_arrives_by_itself(window, scope: str):
    window.engine.channels[1].limits = (0.0, 1.0)
    others = [window.engine.channels[number].limits for number in (0, 2, 3)]
    window.desk.act[f"auto {scope}"]([1])
    until(window, lambda: window.engine.channels[1].limits != (0.0, 1.0))
    assert [window.engine.channels[number].limits for number in (0, 2, 3)] == others


def test_channels_are_unmixed_by_regions_that_bear_their_names(window):
    from rawmosaic.viewer.annotations.model import Annotation
    from rawmosaic.viewer.annotations.shapes import Rectangle

    window.desk.act["unmix"]()
    assert "each dye is alone" in window.desk.message.text
    centres = window.slide.positions()
    for number, (x, y) in zip((0, 1), (centres[0], centres[6]), strict=True):
        name = window.engine.channels[number].name
        window.desk.board.annotations.add(Annotation(Rectangle(x - 20, y - 20, x + 20, y + 20), class_name=name))
    window.desk.act["unmix"]()
    until(window, lambda: window.engine.unmixing is not None)
    assert window.engine.unmixing.shape == (4, 4)


def test_a_measurement_is_of_raw_counts(window):
    from rawmosaic.viewer.annotations.model import Annotation
    from rawmosaic.viewer.annotations.shapes import Rectangle

    x, y = window.slide.positions()[5]
    number = window.desk.board.annotations.add(Annotation(Rectangle(x - 10, y - 10, x + 10, y + 10)))
    window.desk.act["measure"]([number])
    until(window, lambda: len(window.desk.measured) > 1)
    assert window.desk.measured[0] == "area 400 µm²"
    row, column = 96 // 2, 128 // 2
    inside = window.slide.read_plane(5, 0)[row - 20 : row + 20, column - 20 : column + 20]
    assert f"{inside.mean():.1f}" in window.desk.measured[1]
    assert "1600 px" in window.desk.measured[1]


def test_a_figure_of_the_view_is_written_in_the_background(open_window, tmp_path):
    from PIL import Image

    from rawmosaic.storage import open_slide
    from rawmosaic.storage.testing import write_slide

    with open_slide(write_slide(slide(2), tmp_path / "scan.h5")) as opened:
        window = open_window(opened)
        panel = window._panels.figure
        panel.open(window.desk)
        panel.file, panel.width_px, panel.part = str(tmp_path / "figure.png"), 500, "the whole mosaic"
        panel.start(window.desk)
        window.redraw()  # as a click on its button does
        until(window, lambda: not panel.is_writing, patience_s=60)
        assert "figure written" in window.desk.message.text
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width == 500


def test_typing_a_place_goes_there(window, hands: Hands):
    hands.key("ctrl+g")
    until(window, lambda: window._panels.layer.wants_text)
    hands.do("type", "#7")
    hands.key("Return")
    until(window, lambda: (window.engine.camera.x_um, window.engine.camera.y_um) == pytest.approx(window.slide.positions()[7]))
    assert all(look.visible for look in window.engine.channels), "what is typed into a panel is no key of the window"
