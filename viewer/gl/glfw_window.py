"""glfw windows with an OpenGL 3.3 core context, and the errors a user can understand when there is none."""

from __future__ import annotations

import glfw

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.desktop import current_desktop, no_window_text
from rawmosaic.viewer.gl.context import USES_EGL


def create_window(title: str, size: tuple[int, int], *, visible: bool = True):
    """A glfw window of `size` (width, height) screen units whose context is current; GraphicsError where that cannot be."""
    _check_display()
    messages: list[str] = []
    glfw.set_error_callback(lambda _, description: messages.append(_text(description)))
    if not glfw.init():
        raise GraphicsError(no_window_text("; ".join(messages) or "glfw did not start"))
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
        glfw.terminate()
        raise GraphicsError(no_window_text("; ".join(messages)))
    glfw.make_context_current(window)
    return window


def _check_display() -> None:
    if current_desktop().kind == "none":
        raise GraphicsError(no_window_text())


def _text(description: bytes | str) -> str:
    return description.decode(errors="replace") if isinstance(description, bytes) else str(description)
