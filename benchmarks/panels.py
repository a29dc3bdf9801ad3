"""What do the panels cost a frame in Python, beside what is drawn of them?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from benchmarks.harness import Figure, Result
from rawmosaic.storage.testing import SyntheticSlide

QUESTION = __doc__
TARGET_MS = 2.0
SIZE = (1280, 800)
FRAMES, WARM = 200, 40


def run() -> Result:
    """Of four channels and of sixty: a window's frames with the usual panels and without any, neither drawn by OpenGL."""
    figures = []
    for channels in (4, 60):
        without = frames_ms(channels, panels=False)
        usual = frames_ms(channels, panels=True)
        note = f"{channels} channels"
        added = float(np.median(usual)) - float(np.median(without))
        figures += [
            Figure("window's own code of a frame without panels, median", float(np.median(without)), note=note),
            Figure("with the usual panels, median", float(np.median(usual)), note=note),
            Figure("with the usual panels, p95", float(np.percentile(usual, 95)), note=note),
            Figure("what the panels add, median", added, target=TARGET_MS, note=note),
        ]
    return Result("panels", QUESTION, tuple(figures))


def frames_ms(channels: int, *, panels: bool) -> list[float]:
    """Milliseconds of processor time of each frame's Python, the picture moving under the cursor.

    What OpenGL does is left out, the engine's frame and the drawing of the panels: time is that of this thread alone.
    """
    from rawmosaic.viewer.window import MosaicWindow

    slide = SyntheticSlide((6, 8), (96, 128), channels, size_z=3, size_t=2, smooth=True)
    with MosaicWindow(slide, SIZE, panels=panels, remembers=False) as window:
        _settle(window)
        window.events.on_cursor(window.handle, 300.0, 300.0)
        return _measured(window)


def _settle(window) -> None:
    while not (window.engine.report.complete and window.engine.overview_tiles_resident):
        window.redraw()
        window.step()


def _measured(window) -> list[float]:
    """Frames of the window with the engine's and ImGui's calls of OpenGL taken away, once histograms and counts are there."""
    import glfw

    report, camera, seconds = window.engine.report, window.engine.camera, []
    window.engine.frame = lambda _target: report
    swap, glfw.swap_buffers = glfw.swap_buffers, lambda _handle: None
    try:
        with _without_drawing():
            for number in range(WARM + FRAMES):
                window.engine.camera = replace(camera, x_um=camera.x_um + 0.1 * (number % 20))
                window.redraw()
                window.prepare()
                begun = time.thread_time()
                window.advance()
                seconds.append(time.thread_time() - begun)
    finally:
        glfw.swap_buffers = swap
        del window.engine.frame
    return [1e3 * each for each in seconds[WARM:]]


@contextmanager
def _without_drawing() -> Iterator[None]:
    """ImGui builds its frame up to the data that would be drawn; its OpenGL is left out."""
    from imgui_bundle import imgui

    drawn = imgui.backends.opengl3_render_draw_data
    imgui.backends.opengl3_render_draw_data = lambda _data: None
    try:
        yield
    finally:
        imgui.backends.opengl3_render_draw_data = drawn
