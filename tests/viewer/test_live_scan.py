"""A window on a running scan: it draws by itself, counts, follows while asked to, and survives a scan that begins anew."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hands import Hands, hidden_display, until

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import GraphicsError, SlideError
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SyntheticSlide

pytest.importorskip("imgui_bundle", reason="imgui-bundle is not installed: the window has no panels")

SIZE, SCREEN = (900, 600), (1000, 700)
PATIENCE_S = 60.0

Opener = Callable[..., object]


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X display that nobody sees."""
    with hidden_display(SCREEN) as name:
        yield name


@pytest.fixture
def open_window(display: str) -> Iterator[Opener]:  # noqa: ARG001
    """Opens windows with panels, and closes them after the test."""
    from rawmosaic.viewer.window import MosaicWindow

    made = []

    def opener(slide):
        try:
            window = MosaicWindow(slide, SIZE, remembers=False)
        except GraphicsError as error:
            pytest.skip(f"no OpenGL window on this display: {error}")
        made.append(window)
        until(window, lambda: slide.growing <= (window.engine.scan is not None), PATIENCE_S)
        return window

    yield opener
    for window in made:
        window.close()


def mosaic(channels: int = 1) -> SyntheticSlide:
    """4 × 5 fields."""
    return SyntheticSlide((4, 5), (96, 128), channels, smooth=True)


def comes(window, fields: int) -> None:
    """Step until so many fields were counted and drawn."""
    until(window, lambda: window.engine.scan.fields == fields and not window.engine.wants_frame, PATIENCE_S)


def in_view(window, field: int) -> bool:
    """Whether a field is wholly in view."""
    left, top, right, bottom = window.engine.camera.bounds_um()
    box = window.engine.geometry.box_of(field, 0)
    return left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom


def test_what_comes_is_drawn_without_a_hand(open_window: Opener):
    growing = GrowingSlide(mosaic(), 4, fields_known=True)
    window = open_window(growing)
    drawn = []
    draw = window._draw
    window._draw = lambda: (draw(), drawn.append(window.engine.growth))
    growing.grow(3)
    until(window, lambda: bool(drawn) and drawn[-1] == 1, PATIENCE_S)
    grey_of_an_outline = 64

    def is_bright(field: int) -> bool:
        x, y = map(int, window.engine.camera.to_window(*growing.positions()[field]))  # anew: the window is still being laid out
        inside = window.screenshot()[y - 20 : y + 20, x - 30 : x + 30, :3]
        return bool((inside > grey_of_an_outline).mean() > 0.1)

    until(window, lambda: is_bright(6), PATIENCE_S)


def test_the_counter_is_there_while_the_scan_runs_and_goes_some_time_after(open_window: Opener, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.viewer.ui import scan_panel

    growing = GrowingSlide(mosaic(), 4, fields_known=True)
    window = open_window(growing)
    until(window, lambda: window.panels.scan.area is not None, PATIENCE_S)
    growing.grow(16)
    until(window, lambda: not window.engine.scan.goes_on, PATIENCE_S)
    until(window, lambda: any("finished" in message.text for message in window.desk.messages), PATIENCE_S)
    assert window.panels.scan.area is None, "there is nothing to follow any more"
    assert window.panels.scan.step(window.desk) is not None
    monkeypatch.setattr(scan_panel, "END_SHOWN_S", 0.0)
    assert window.panels.scan.step(window.desk) is None, "it asks for no frame any more"


def test_a_slide_that_does_not_grow_has_no_counter_and_wants_no_frame_for_one(open_window: Opener):
    window = open_window(mosaic())
    window.redraw()
    window.step()
    assert window.panels.scan.step(window.desk) is None
    assert window.panels.scan.area is None
    assert not window.engine.show_planned


def test_a_window_on_a_scan_of_which_nothing_comes_sleeps(open_window: Opener, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.viewer.ui import scan_panel

    monkeypatch.setattr("rawmosaic.viewer.window.IDLE_S", 0.05)
    monkeypatch.setattr(scan_panel, "TICK_S", 3600.0)
    window = open_window(GrowingSlide(mosaic(), 4, fields_known=True))
    frames, quiet = [], 0
    draw = window._draw
    monkeypatch.setattr(window, "_draw", lambda: frames.append(1) or draw())
    for _ in range(2000):
        frames.clear()
        window.step()
        quiet = 0 if frames else quiet + 1
        if quiet == 5:
            return
    pytest.fail("it goes on drawing")


@pytest.mark.skipif(shutil.which("xdotool") is None, reason="the program xdotool is not installed: no real events can be made")
def test_f_follows_the_newest_field_until_a_hand_moves_the_picture(open_window: Opener):
    growing = GrowingSlide(mosaic(), 1, fields_known=True)
    window = open_window(growing)
    window.engine.look_at(*growing.positions()[0], scale=3.0)
    start = window.engine.camera
    growing.grow(3)
    comes(window, 4)
    assert window.engine.camera == start, "nobody asked to follow"
    hands = Hands(window)
    hands.key("f")
    until(window, lambda: window.panels.scan.follows and in_view(window, 3), PATIENCE_S)
    growing.grow(9)
    until(window, lambda: in_view(window, 12), PATIENCE_S)
    assert window.engine.camera.scale == 3.0
    hands.key("plus")
    until(window, lambda: window.engine.camera.scale > 3.0, PATIENCE_S)
    assert window.panels.scan.follows, "a zoom is no pan"
    top = window.picture_area()[1]
    hands.drag(1, (150, top + 300), (250, top + 330))
    until(window, lambda: not window.panels.scan.follows, PATIENCE_S)
    moved = window.engine.camera
    growing.grow(6)
    comes(window, 19)
    assert window.engine.camera == moved


@pytest.mark.skipif(shutil.which("xdotool") is None, reason="the program xdotool is not installed: no real events can be made")
def test_the_buttons_of_the_counter_do_what_they_say(open_window: Opener):
    growing = GrowingSlide(mosaic(), 2, fields_known=True)
    window = open_window(growing)
    window.engine.look_at(*growing.positions()[0], scale=3.0)
    hands = Hands(window)
    hands.settle()
    until(window, lambda: window.panels.scan.area is not None and not window.panels.layer.frames_due, PATIENCE_S)
    x, y, width, height = window.panels.scan.area
    hands.click(round(x + 20), round(y + 0.5 * height))
    until(window, lambda: window.panels.scan.follows and not window.panels.scan.contrasts, PATIENCE_S)
    hands.click(round(x + width - 20), round(y + 0.5 * height))
    until(window, lambda: window.panels.scan.contrasts, PATIENCE_S)


def test_automatic_contrast_follows_only_when_asked(open_window: Opener, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.viewer.ui import scan_panel

    monkeypatch.setattr(scan_panel, "CONTRAST_PERIOD_S", 0.0)
    growing = GrowingSlide(mosaic(), 2, fields_known=True)
    window = open_window(growing)
    (look,) = window.engine.channels
    look.limits = (7.0, 1234.0)
    growing.grow(4)
    comes(window, 6)
    assert look.limits == (7.0, 1234.0)
    window.panels.scan.contrasts = True
    growing.grow(4)
    from rawmosaic.viewer.channels import percentile_limits

    until(window, lambda: look.limits == percentile_limits(growing.histogram(0)), PATIENCE_S)
    window.panels.scan.contrasts = False
    look.limits = (7.0, 1234.0)
    growing.grow(4)
    comes(window, 14)
    assert look.limits == (7.0, 1234.0)


def test_a_channel_that_was_empty_gets_its_limits_with_its_first_planes(open_window: Opener):
    growing = GrowingSlide(mosaic(), 0, fields_known=True)
    window = open_window(growing)
    (look,) = window.engine.channels
    assert look.limits == (0.0, 65535.0)
    growing.grow(4)
    until(window, lambda: look.limits != (0.0, 65535.0), PATIENCE_S)


def test_undo_takes_one_step_back_from_where_a_scan_led(open_window: Opener):
    growing = GrowingSlide(mosaic(), 1, fields_known=True)
    window = open_window(growing)
    window.engine.look_at(*growing.positions()[0], scale=3.0)
    window.redraw()
    window.step()
    window.panels.scan.toggle_following(window.desk)
    growing.grow(15)
    until(window, lambda: in_view(window, 15), PATIENCE_S)
    window.step()
    assert window.undo.can_undo


# a scan that begins anew

WRITER = """
import sys
import numpy as np
from rawmosaic.storage import SlideWriter
from rawmosaic.storage.slide import new_fields
fields = new_fields(12, (96, 128))
fields["x_um"], fields["y_um"] = 110.0 * (np.arange(12) % 4), 80.0 * (np.arange(12) // 4)
with SlideWriter(sys.argv[1], field_shape=(96, 128), channels=["a"], fields=fields) as writer:
    n = 0
    for line in sys.stdin:
        for _ in range(int(line)):
            writer.write_plane(np.full((96, 128), 1000 + n, np.uint16), channel=0, field=n)
            n += 1
        writer.publish()
        print(n, flush=True)
"""


class Writer:
    """A process that writes a planned scan of twelve fields, as many at a time as it is told."""

    def __init__(self, path: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def write(self, n: int) -> None:
        """Returns once followers can see them."""
        self.process.stdin.write(f"{n}\n")
        assert self.process.stdout.readline().strip(), "the writer has ended"

    def finish(self) -> None:
        """Seal the file and end."""
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_S) == 0
        self.process.stdout.close()

    def kill(self) -> None:
        """As a power cut would; harmless after the end."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Callable[[], Writer]]:
    """Starts writers of one and the same slide."""
    started: list[Writer] = []

    def start() -> Writer:
        started.append(Writer(tmp_path / "scan.h5"))
        return started[-1]

    yield start
    for writer in started:
        writer.kill()


def test_a_scan_that_begins_anew_is_opened_anew_and_the_view_stays(open_window: Opener, writers, tmp_path: Path):
    from rawmosaic.viewer.annotations.model import Annotation
    from rawmosaic.viewer.annotations.shapes import Rectangle

    first, path = writers(), tmp_path / "scan.h5"
    first.write(5)
    slide = open_slide(str(path))
    try:
        window = open_window(slide)
        comes(window, 5)
        window.engine.look_at(150.0, 90.0, scale=2.5)
        window.engine.channels[0].limits, window.engine.channels[0].color = (12.0, 3456.0), "#ff8800"
        window.desk.board.annotations.add(Annotation(Rectangle(10.0, 10.0, 60.0, 50.0)))
        window.panels.scan.follows = False
        camera = window.engine.camera
        first.kill()
        until(window, lambda: window.engine.scan.state == "abandoned", PATIENCE_S)
        assert window.slide is slide
        (tmp_path / "scan.h5.part").rename(tmp_path / "scan.h5.kept")
        second = writers()
        second.write(7)
        until(window, lambda: window.slide is not slide, PATIENCE_S)
        comes(window, 7)
        assert window.engine.camera == camera
        assert (window.engine.channels[0].limits, window.engine.channels[0].color) == ((12.0, 3456.0), "#ff8800")
        assert len(window.desk.board.annotations) == 1
        assert any("another slide has this name" in message.text for message in window.desk.messages)
        second.write(5)
        second.finish()
        until(window, lambda: window.engine.scan.state == "finished", PATIENCE_S)
        assert not window.engine.replaced, "a file that takes its final name is the same"
        np.testing.assert_array_equal(window.slide.read_plane(11, 0), np.full((96, 128), 1011))
        window.close()
    finally:
        slide.close()


def test_a_slide_that_cannot_be_opened_yet_is_tried_again(open_window: Opener, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.viewer import renewal

    class Replaced(GrowingSlide):
        replaced = False

    growing, anew = Replaced(mosaic(), 4, fields_known=True), GrowingSlide(mosaic(), 9, fields_known=True)
    refused = iter([True, True])

    def opened(location: str):
        assert location == growing.location
        if next(refused, False):
            raise SlideError("it is just being begun")
        return anew

    monkeypatch.setattr(renewal, "AGAIN_S", 0.0)
    monkeypatch.setattr("rawmosaic.storage.open_slide", opened)
    window = open_window(growing)
    growing.replaced = True
    until(window, lambda: window.slide is anew, PATIENCE_S)
    comes(window, 9)


def test_a_finished_slide_whose_tiles_fail_since_there_is_another_is_opened_anew(
    open_window: Opener, monkeypatch: pytest.MonkeyPatch
):
    class Served(FailingSlide):
        replaced = False

    served, anew = Served(mosaic(), lambda _: served.replaced), mosaic()
    monkeypatch.setattr("rawmosaic.storage.open_slide", lambda _: anew)
    window = open_window(served)
    until(window, lambda: window.engine.report.complete and not window.engine.report.tiles_pending, PATIENCE_S)
    served.replaced = True
    window.engine.forget()
    window.redraw()
    until(window, lambda: window.slide is anew, PATIENCE_S)


def test_a_scan_that_ended_early_says_so(open_window: Opener, writers, tmp_path: Path):
    writer = writers()
    writer.write(5)
    slide = open_slide(str(tmp_path / "scan.h5"))
    try:
        window = open_window(slide)
        comes(window, 5)
        writer.finish()
        until(window, lambda: window.engine.scan.state == "ended early", PATIENCE_S)
        until(window, lambda: any("5 of 12 fields" in message.text for message in window.desk.messages), PATIENCE_S)
        window.close()
    finally:
        slide.close()
