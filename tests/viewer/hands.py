"""A display that nobody sees, and hands on its windows: real key presses and mouse moves through the display's own input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import glfw
import numpy as np
import pytest

PATIENCE_S = 60.0
SETTLED = 3
"""Frames in which Dear ImGui finds the size of a panel that is new."""


@contextmanager
def hidden_display(screen: tuple[int, int]) -> Iterator[str]:
    """An X display of a size that nobody sees; the tests are skipped where Xvfb is not installed."""
    if not sys.platform.startswith("linux") or shutil.which("Xvfb") is None:
        pytest.skip("the program Xvfb is not installed: there is no display to test windows on")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{screen[0]}x{screen[1]}x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as pipe:
        number = pipe.readline().strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", f":{number}")
        patch.delenv("WAYLAND_DISPLAY", raising=False)
        patch.delenv("XDG_SESSION_TYPE", raising=False)
        try:
            if not number or not glfw.init():
                pytest.skip("Xvfb or glfw does not start here")
            yield f":{number}"
        finally:
            glfw.terminate()
            server.terminate()
            server.wait(PATIENCE_S)


def until(window, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Step until a condition holds; fail after a while."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "did not come true"
        window.step()


def shown(window) -> np.ndarray:
    """(height, width, 3) uint8: all that a window shows, panels too, once it has come to rest."""
    from rawmosaic.viewer.gl.api import GL

    def rests() -> bool:
        report, panels, desk = window.engine.report, window.panels, window.desk
        if not report.complete or report.tiles_uploaded or (panels is not None and panels.layer.frames_due):
            return False
        minimap = panels.minimap if panels is not None and desk.shown.minimap else None
        engine = window.engine
        if minimap is not None and engine.prefetches and not report.tiles_failed and engine._missing_overview():
            return False  # the picture is complete before the minimap's is
        return minimap is None or minimap._shows == minimap._fingerprint(desk, minimap.size_px(desk))

    pictures: list[np.ndarray] = []
    swap, end = glfw.swap_buffers, time.monotonic() + 60

    def kept(handle) -> None:
        width, height = window.sizes.size_px
        pixels = np.empty((height, width, 3), np.uint8)
        GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 1)
        GL.glReadPixels(0, 0, width, height, GL.GL_RGB, GL.GL_UNSIGNED_BYTE, pixels)
        pictures.append(pixels[::-1])
        del pictures[:-SETTLED]
        swap(handle)

    until(window, lambda: window._frames._warm)  # then there is room for a finer minimap
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glfw, "swap_buffers", kept)
        while len(pictures) < SETTLED or not rests():
            assert time.monotonic() < end, "does not come to rest"
            window.redraw()
            window.step()
    return pictures[-1]


class Hands:
    """Real events through the display's own input, when xdotool is there."""

    def __init__(self, window):
        self.window = window
        self.number = str(glfw.get_x11_window(window._window))
        self.do("windowfocus", "--sync", self.number)
        until(window, lambda: bool(glfw.get_window_attrib(window._window, glfw.FOCUSED)))

    def do(self, *words: str) -> None:
        """An xdotool command."""
        subprocess.run(["xdotool", *words], check=True, timeout=PATIENCE_S, capture_output=True)

    def key(self, *names: str) -> None:
        """Press and release keys, and let the window take note."""
        self.do("key", *names)
        self.settle()

    def settle(self) -> None:
        """Let the window take in what was done, and its panels come to rest."""
        end, patience = time.monotonic() + 0.06, time.monotonic() + PATIENCE_S
        while (now := time.monotonic()) < end or (self._moves() and now < patience):
            glfw.post_empty_event()
            self.window.step()
            time.sleep(0.004)

    def _moves(self) -> bool:
        panels = self.window._panels
        return panels is not None and panels.layer.frames_due > 0

    def move(self, x: int, y: int) -> None:
        """The cursor to a place in the window."""
        self.do("mousemove", "--window", self.number, str(x), str(y))
        until(self.window, lambda: max(abs(at - to) for at, to in zip(self.cursor(), (x, y), strict=True)) < 1)
        self.settle()

    def cursor(self) -> tuple[float, float]:
        """Where the display has the cursor, in the window; what it did until then reaches the window with its next step."""
        return glfw.get_cursor_pos(self.window._window)

    def drag(self, button: int, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press, move, release."""
        self.move(*start)
        self.do("mousedown", str(button))
        self.settle()
        self.move(*end)
        self.do("mouseup", str(button))
        self.settle()

    def click(self, x: int, y: int) -> None:
        """The left button at a place in the window."""
        self.move(x, y)
        self.do("mousedown", "1")
        self.settle()
        self.do("mouseup", "1")
        self.settle()
