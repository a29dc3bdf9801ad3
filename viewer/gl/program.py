"""Shader programs from files and defines; a failed one is shown with the source around the line."""

from __future__ import annotations

import ctypes
import re

import numpy as np

from rawmosaic.shaders import shader_source
from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.gl.api import GL, note_created, note_deleted


class ShaderError(GraphicsError):
    """A shader does not compile or link; the message shows the driver's log and the lines it names."""


class Program:
    """A linked vertex and fragment shader. Uniforms are set by name; unknown names are ignored, as the compiler may drop them."""

    def __init__(self, vertex: str, fragment: str, defines: dict[str, int] | None = None):
        shaders = []
        self.name = 0
        try:
            for kind, file in ((GL.GL_VERTEX_SHADER, vertex), (GL.GL_FRAGMENT_SHADER, fragment)):
                shaders.append(_compile(kind, file, defines or {}))
            program = GL.glCreateProgram()
            for shader in shaders:
                GL.glAttachShader(program, shader)
            GL.glLinkProgram(program)
            if not GL.glGetProgramiv(program, GL.GL_LINK_STATUS):
                log = GL.glGetProgramInfoLog(program)
                GL.glDeleteProgram(program)
                raise ShaderError(f"{vertex} and {fragment} do not link: {_text(log)}")
        finally:
            for shader in shaders:
                GL.glDeleteShader(shader)
        self.name = int(program)
        note_created("program")
        self._locations: dict[str, int] = {}

    def use(self) -> None:
        """Make this the current program; uniforms can be set from now on."""
        GL.glUseProgram(self.name)

    def location(self, uniform: str) -> int:
        """The location of a uniform, -1 if the program has none of that name."""
        if uniform not in self._locations:
            self._locations[uniform] = int(GL.glGetUniformLocation(self.name, uniform))
        return self._locations[uniform]

    def set_int(self, uniform: str, value: int) -> None:
        """An int or sampler uniform."""
        GL.glUniform1i(self.location(uniform), value)

    def set_floats(self, uniform: str, values: np.ndarray) -> None:
        """A float, vec2, vec3 or vec4 (an array of them) from (n, components) or (components,) values."""
        data = np.ascontiguousarray(values, np.float32)
        components = data.shape[-1] if data.ndim else 1
        count = data.shape[0] if data.ndim == 2 else 1
        setter = (GL.glUniform1fv, GL.glUniform2fv, GL.glUniform3fv, GL.glUniform4fv)[components - 1]
        setter(self.location(uniform), count, data.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))

    def set_mat2(self, uniform: str, matrix: np.ndarray) -> None:
        """A mat2 from a (2, 2) array whose rows are rows."""
        data = np.ascontiguousarray(matrix, np.float32)
        GL.glUniformMatrix2fv(self.location(uniform), 1, GL.GL_TRUE, data.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))

    def close(self) -> None:
        """Delete the program; closing twice is harmless."""
        if self.name:
            GL.glDeleteProgram(self.name)
            self.name = 0
            note_deleted("program")


def _compile(kind: int, file: str, defines: dict[str, int]) -> int:
    source = shader_source(file, defines)
    shader = GL.glCreateShader(kind)
    GL.glShaderSource(shader, source)
    GL.glCompileShader(shader)
    if GL.glGetShaderiv(shader, GL.GL_COMPILE_STATUS):
        return shader
    log = _text(GL.glGetShaderInfoLog(shader))
    GL.glDeleteShader(shader)
    raise ShaderError(f"{file} does not compile with {defines}:\n{log}\n{_around(source, log)}")


def _around(source: str, log: str, margin: int = 3) -> str:
    """The lines of the source near the first line number in the driver's log."""
    found = re.search(r"\b0[:(](\d+)", log)
    if not found:
        return ""
    lines, number = source.splitlines(), int(found.group(1))
    first = max(1, number - margin)
    return "\n".join(f"{i:4} {lines[i - 1]}" for i in range(first, min(number + margin, len(lines)) + 1))


def _text(log: bytes | str) -> str:
    return (log.decode(errors="replace") if isinstance(log, bytes) else log).strip()
