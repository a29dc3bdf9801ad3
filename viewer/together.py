"""Several windows in one program, side by side, that show the same place in the same way: of one slide, or of several."""

from __future__ import annotations

from collections.abc import Sequence

import glfw

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.linked import PARTS, LinkedViews
from rawmosaic.viewer.window import DEFAULT_SIZE, MosaicWindow

GAP = 8


def view_together(slides: Sequence[Slide], size: tuple[int, int] | None = None, *, linked: bool = True, **options) -> None:
    """Open a window on each slide and return when all are closed. Raises GraphicsError where no window can be had."""
    windows = open_together(slides, size, **options)
    try:
        run_together(windows, links_of(windows) if linked else LinkedViews())
    finally:
        for window in windows:
            window.close()


def open_together(slides: Sequence[Slide], size: tuple[int, int] | None = None, **options) -> list[MosaicWindow]:
    """The windows, side by side, as wide as the screen has room for if not told."""
    windows: list[MosaicWindow] = []
    try:
        for number, slide in enumerate(slides):
            windows.append(MosaicWindow(slide, size or DEFAULT_SIZE, **options))
            if size is None:
                size = _shared_size(len(slides))
                glfw.set_window_size(windows[0].handle, *size)
            windows[-1].place(number * (size[0] + GAP), 0)
    except BaseException:
        for window in windows:
            window.close()
        raise
    return windows


def links_of(windows: Sequence[MosaicWindow]) -> LinkedViews:
    """Place, scale, z and t together; looks as well where all show the same slide."""
    same = len({window.slide.location for window in windows}) == 1
    links = LinkedViews(PARTS if same else [part for part in PARTS if part != "looks"])
    for window in windows:
        links.add(window.engine)
    return links


def run_together(windows: list[MosaicWindow], links: LinkedViews) -> None:
    """Show them until all are closed; the others follow the one that the hands are in."""
    while windows:
        step_together(windows, links)


def step_together(windows: list[MosaicWindow], links: LinkedViews) -> None:
    """One round: events for all, frames where something is new; closed windows leave the list."""
    for window in windows:
        window.prepare()
    pause = min(window.may_rest_s() for window in windows)
    glfw.wait_events_timeout(pause) if pause else glfw.poll_events()
    for window in [window for window in windows if window.is_closing]:
        links.remove(window.engine)
        windows.remove(window)
        window.close()
    leader = next((window for window in windows if window.has_hands), None)
    drew = {id(window): window.advance() for window in windows}
    if leader is not None and drew[id(leader)]:
        followers = links.follow(leader.engine)
        for window in windows:
            if window.engine in followers:
                window.redraw()


def _shared_size(count: int) -> tuple[int, int]:
    """What each of so many windows gets of the screen, screen units."""
    _, _, across, down = glfw.get_monitor_workarea(glfw.get_primary_monitor())
    width = (across - (count - 1) * GAP) // count
    return max(width, 400), max(min(down, 1000), 300)
