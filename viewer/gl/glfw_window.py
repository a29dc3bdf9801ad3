"""glfw windows with an OpenGL 3.3 core context, and the errors a user can understand when there is none.

glfw is started with the first window and ends with the process. To end it sooner would close every window of the process, also
those of other libraries, for what the process gives back anyway.
"""

from __future__ import annotations

from collections import deque

import glfw

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.desktop import current_desktop, no_window_text
from rawmosaic.viewer.gl.context import USES_EGL

_said: deque[str] = deque(maxlen=8)
"""What glfw complained of lately. It says little of use later on (a Wayland window cannot be placed), so nobody is told then."""


def create_window(title: str, size: tuple[int, int], *, visible: bool = True):
    """A glfw window of `size` (width, height) screen units whose context is current; GraphicsError where that cannot be."""
    _check_display()
    _said.clear()
    glfw.set_error_callback(_note)
    if not glfw.init():
        raise GraphicsError(no_window_text("; ".join(_said) or "glfw did not start"))
    glfw.window_hint(glfw.CONTEXT_VERSION_MAJOR, 3)
    glfw.window_hint(glfw.CONTEXT_VERSION_MINOR, 3)
    glfw.window_hint(glfw.OPENGL_PROFILE, glfw.OPENGL_CORE_PROFILE)
    glfw.window_hint(glfw.OPENGL_FORWARD_COMPAT, True)
    glfw.window_hint(glfw.VISIBLE, visible)
    glfw.window_hint(glfw.SCALE_TO_MONITOR, True)
    if USES_EGL:
        glfw.window_hint(glfw.CONTEXT_CREATION_API, glfw.EGL_CONTEXT_API)
    window = glfw.create_window(*size, title, None, None)
    if not window:
        raise GraphicsError(no_window_text("; ".join(_said)))
    glfw.make_context_current(window)
    return window


def _check_display() -> None:
    if current_desktop().kind == "none":
        raise GraphicsError(no_window_text())


def _note(_code: int, description: bytes | str) -> None:
    _said.append(description.decode(errors="replace") if isinstance(description, bytes) else str(description))
