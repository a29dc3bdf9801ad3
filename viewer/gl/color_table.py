"""A colour map as a texture: 256 colours in a row, read texel by texel."""

from __future__ import annotations

import ctypes

import numpy as np

from rawmosaic.viewer.gl.api import GL
from rawmosaic.viewer.gl.objects import _Owned


class ColorTable(_Owned):
    """A texture of one row of RGB colours; what it holds is replaced when another table is asked for."""

    kind = "texture"

    def __init__(self):
        super().__init__(GL.glGenTextures(1))
        self._holds: np.ndarray | None = None

    def bind(self, unit: int, table: np.ndarray) -> None:
        """Make a (n, 3) uint8 table the texture of a unit; it is uploaded if it is not there yet."""
        GL.glActiveTexture(GL.GL_TEXTURE0 + unit)
        GL.glBindTexture(GL.GL_TEXTURE_2D, self.name)
        if self._holds is not None and np.array_equal(self._holds, table):
            return
        self._holds = colors = np.ascontiguousarray(table, np.uint8)
        for parameter in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
            GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_NEAREST)
        address = ctypes.c_void_p(colors.ctypes.data)
        GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, GL.GL_RGB8, len(colors), 1, 0, GL.GL_RGB, GL.GL_UNSIGNED_BYTE, address)

    def _delete(self) -> None:
        GL.glDeleteTextures([self.name])
