"""The only door to OpenGL's functions. Import it once a context is current (`viewer.gl.context`)."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress

import OpenGL

from rawmosaic.viewer.gl.context import USES_EGL

if "OpenGL.GL" not in sys.modules:
    if USES_EGL:
        with suppress(ImportError, AttributeError, OSError):  # no libEGL here: making a context says so
            import OpenGL.EGL
    # checking each call costs more than the call; programs and framebuffers are checked by hand, tests check every frame
    OpenGL.ERROR_CHECKING = False
    OpenGL.ERROR_LOGGING = False

from OpenGL import GL

__all__ = ["GL", "check_errors", "live_objects", "note_created", "note_deleted"]

_live: Counter[str] = Counter()


def note_created(kind: str) -> None:
    """Count a GL object that an owner made."""
    _live[kind] += 1


def note_deleted(kind: str) -> None:
    """Count a GL object that its owner deleted."""
    _live[kind] -= 1


def live_objects() -> dict[str, int]:
    """How many GL objects of each kind are alive in this process; empty when all were closed."""
    return {kind: count for kind, count in _live.items() if count}


def check_errors() -> list[int]:
    """All pending GL error codes, oldest first; reading clears them."""
    errors = []
    while (code := int(GL.glGetError())) != 0 and len(errors) < 32:
        errors.append(code)
    return errors
