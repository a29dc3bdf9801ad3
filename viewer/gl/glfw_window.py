"""glfw windows with an OpenGL 3.3 core context, and the errors a user can understand when there is none."""

from __future__ import annotations

import os
import sys

import glfw

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.gl.context import INSTALL_HINT, USES_EGL


def create_window(title: str, size: tuple[int, int], *, visible: bool = True):
    """A glfw window of `size` (width, height) screen units whose context is current; GraphicsError where that cannot be."""
    _check_display()
    messages: list[str] = []
    glfw.set_error_callback(lambda _, description: messages.append(_text(description)))
    if not glfw.init():
        raise GraphicsError(f"no window can be opened ({'; '.join(messages) or 'glfw did not start'}); is there a display?")
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
        raise GraphicsError(f"no OpenGL 3.3 window ({'; '.join(messages) or 'unknown reason'}); {INSTALL_HINT}")
    glfw.make_context_current(window)
    return window


def _check_display() -> None:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise GraphicsError(
            "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set); use `rawmosaic render` for a picture without one"
        )


def _text(description: bytes | str) -> str:
    return description.decode(errors="replace") if isinstance(description, bytes) else str(description)
