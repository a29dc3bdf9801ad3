"""A window on a slide whose server does not answer says so, by itself and for as long as that lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hands import hidden_display, until

from rawmosaic.storage.errors import GraphicsError, UnreachableError
from rawmosaic.storage.testing import GrowingSlide, SyntheticSlide, WrappedSlide

pytest.importorskip("imgui_bundle", reason="imgui-bundle is not installed: the window has no panels")

SIZE, SCREEN = (900, 600), (1000, 700)
SERVER = "tcp://microscope.example.org:5555"
SAID = f"{SERVER} does not answer; trying again"

Opener = Callable[..., object]


class Remote(WrappedSlide):
    """A slide of which a test says whether its server answers."""

    away = ""


class GrowingRemote(GrowingSlide):
    """The same, of one that grows."""

    away = ""


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
        until(window, lambda: not window.engine.wants_frame)
        return window

    yield opener
    for window in made:
        window.close()


def news_of(window) -> tuple[str, str]:
    from rawmosaic.viewer.ui.overlays import news

    return news(window.desk)


def mosaic() -> SyntheticSlide:
    return SyntheticSlide((2, 3), (96, 128), 1, smooth=True)


def test_a_server_that_does_not_answer_is_told_in_the_line_and_in_the_list_until_it_does(open_window: Opener):
    slide = Remote(mosaic())
    window = open_window(slide)
    window.desk.say("something else", "error")
    slide.away = SERVER
    window.redraw()
    until(window, lambda: news_of(window) == (SAID, "warning"))
    assert [(message.text, message.kind) for message in window.desk.messages][-1] == (SAID, "warning")
    assert window.desk.unread == 2
    assert not window.desk.shown.messages, "no box comes up"
    slide.away = ""
    until(window, lambda: news_of(window) == ("something else", "error"))  # without a hand
    slide.away = SERVER
    window.redraw()
    until(window, lambda: news_of(window)[0] == SAID)
    assert window.desk.messages[-1].times == 2


def test_the_title_says_it_where_there_are_no_panels():
    from types import SimpleNamespace

    from rawmosaic.viewer.window_frames import title

    slide, engine = Remote(mosaic()), SimpleNamespace(z=0, t=0, camera=SimpleNamespace(scale=1.0))
    assert "answer" not in title(slide, engine)
    slide.away = SERVER
    assert f"{SERVER} does not answer" in title(slide, engine)


def test_a_growing_slide_of_a_server_that_went_away_is_told_of_without_a_hand(open_window: Opener):
    slide = GrowingRemote(mosaic(), 2, fields_known=True)
    window = open_window(slide)
    until(window, lambda: window.engine.scan is not None)
    slide.away = SERVER
    until(window, lambda: news_of(window)[0] == SAID)
    slide.away = ""
    until(window, lambda: news_of(window)[0] != SAID)


def test_tiles_that_a_server_does_not_give_are_not_told_one_by_one(open_window: Opener):
    class Failing(Remote):
        fails = False

        def _before(self, key: object) -> None:
            if self.fails:
                raise UnreachableError(f"no answer for {key}")

    slide = Failing(SyntheticSlide((6, 6), (96, 128), 1, smooth=True))
    window = open_window(slide)
    slide.fails, slide.away = True, SERVER
    window.engine.camera = window.engine.camera.zoomed(8.0)  # to what was not read yet
    window.redraw()
    until(window, lambda: window.engine.report.tiles_failed > 0)
    until(window, lambda: news_of(window)[0] == SAID)
    assert [message.text for message in window.desk.messages] == [SAID]
