"""Windows that go together show the same place, whichever the hands are in."""

from __future__ import annotations

import time

import glfw
import pytest
from hands import PATIENCE_S, hidden_display

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SyntheticSlide


@pytest.fixture(scope="module")
def display():
    """An X display that nobody sees."""
    with hidden_display((1300, 500)) as name:
        yield name


@pytest.fixture
def windows(display: str):  # noqa: ARG001
    """Two windows, on two slides."""
    from rawmosaic.viewer.together import open_together

    slides = [SyntheticSlide((3, 4), (96, 128), 2, seed=seed, smooth=True) for seed in (0, 1)]
    try:
        made = open_together(slides, (600, 400), remembers=False)
    except GraphicsError as error:
        pytest.skip(f"no OpenGL window on this display: {error}")
    everything = list(made)
    yield made
    for window in everything:
        window.close()


def rounds(windows, links, condition) -> None:
    """Go round until a condition holds; fail after a while."""
    from rawmosaic.viewer.together import step_together

    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not come true"
        glfw.post_empty_event()
        step_together(windows, links)


def test_the_others_go_where_the_hands_go_and_each_shows_its_own_slide(windows):
    from rawmosaic.viewer.together import links_of

    first, second = windows
    links = links_of(windows)
    rounds(windows, links, lambda: all(window.engine.report.complete and window.engine.report.tiles_wanted for window in windows))
    glfw.focus_window(second.handle)
    rounds(windows, links, lambda: second.has_hands)
    second.engine.look_at(70.0, 50.0, 2.0)
    second.redraw()
    rounds(windows, links, lambda: first.engine.camera.x_um == 70.0)
    assert first.engine.camera.px_per_um == pytest.approx(second.engine.camera.px_per_um)
    pictures = [window.screenshot() for window in windows]
    rounds(windows, links, lambda: all(window.engine.report.complete for window in windows))
    pictures = [window.screenshot() for window in windows]
    assert all(picture[..., :3].any() for picture in pictures)
    assert (pictures[0] != pictures[1]).any()


def test_a_closed_window_leaves_the_others_open(windows):
    from rawmosaic.viewer.together import links_of

    links = links_of(windows)
    glfw.set_window_should_close(windows[0].handle, True)
    rounds(windows, links, lambda: len(windows) == 1)
    rounds(windows, links, lambda: windows[0].engine.report.complete and windows[0].engine.report.tiles_wanted > 0)
    assert windows[0].screenshot()[..., :3].any()
