"""GL objects, each with one owner and a `close()`. All calls need the context current; none is made from a finaliser."""

from __future__ import annotations

import ctypes

import numpy as np

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.gl.api import GL, note_created, note_deleted


class _Owned:
    """A GL name that is deleted once."""

    kind = "object"

    def __init__(self, name: int):
        self.name = int(name)
        note_created(self.kind)

    def close(self) -> None:
        """Delete the object; closing twice is harmless."""
        if self.name:
            self._delete()
            self.name = 0
            note_deleted(self.kind)

    def _delete(self) -> None:
        raise AssertionError("each kind of object says how it is deleted")


class TileTexture(_Owned):
    """A texture array of R16 (65535 is full scale), one layer per tile."""

    kind = "texture"

    def __init__(self, tile_shape: tuple[int, int], layers: int):
        super().__init__(GL.glGenTextures(1))
        self.tile_shape, self.layers = tile_shape, layers
        GL.glBindTexture(GL.GL_TEXTURE_2D_ARRAY, self.name)
        GL.glTexParameteri(GL.GL_TEXTURE_2D_ARRAY, GL.GL_TEXTURE_MAX_LEVEL, 0)
        for parameter, value in (
            (GL.GL_TEXTURE_MIN_FILTER, GL.GL_NEAREST),
            (GL.GL_TEXTURE_MAG_FILTER, GL.GL_NEAREST),
            (GL.GL_TEXTURE_WRAP_S, GL.GL_CLAMP_TO_EDGE),
            (GL.GL_TEXTURE_WRAP_T, GL.GL_CLAMP_TO_EDGE),
        ):
            GL.glTexParameteri(GL.GL_TEXTURE_2D_ARRAY, parameter, value)
        while GL.glGetError():
            pass
        height, width = tile_shape
        GL.glTexImage3D(
            GL.GL_TEXTURE_2D_ARRAY, 0, GL.GL_R16, width, height, layers, 0, GL.GL_RED, GL.GL_UNSIGNED_SHORT, ctypes.c_void_p(0)
        )
        if GL.glGetError():
            self.close()
            raise GraphicsError(f"the driver refuses a texture array of {layers} layers of {height} × {width} pixels of 16 bit")

    def upload(self, layer: int, address: int) -> None:
        """Copy a C-contiguous uint16 tile of the whole tile shape into a layer; the texture must be bound.

        `address`: where the tile lies in memory, or in the pixel buffer that is bound.
        """
        height, width = self.tile_shape
        GL.glTexSubImage3D(
            *(GL.GL_TEXTURE_2D_ARRAY, 0, 0, 0, layer, width, height, 1),
            *(GL.GL_RED, GL.GL_UNSIGNED_SHORT, ctypes.c_void_p(address)),
        )

    def bind(self, unit: int = 0) -> None:
        """Make this the array of a texture unit."""
        GL.glActiveTexture(GL.GL_TEXTURE0 + unit)
        GL.glBindTexture(GL.GL_TEXTURE_2D_ARRAY, self.name)

    def _delete(self) -> None:
        GL.glDeleteTextures([self.name])


class PixelBuffer(_Owned):
    """Memory that both the processor and the driver reach, mapped for as long as it lives; a source of uploads while bound."""

    kind = "pixel buffer"

    def __init__(self, nbytes: int):
        super().__init__(GL.glGenBuffers(1))
        self.nbytes = nbytes
        flags = GL.GL_MAP_WRITE_BIT | GL.GL_MAP_READ_BIT | GL.GL_MAP_PERSISTENT_BIT | GL.GL_MAP_COHERENT_BIT
        while GL.glGetError():
            pass
        self.bind()
        GL.glBufferStorage(GL.GL_PIXEL_UNPACK_BUFFER, nbytes, None, flags | GL.GL_CLIENT_STORAGE_BIT)
        mapped = GL.glMapBufferRange(GL.GL_PIXEL_UNPACK_BUFFER, 0, nbytes, flags)
        self.unbind()
        self.address = int(mapped if isinstance(mapped, int) else ctypes.cast(mapped, ctypes.c_void_p).value or 0)
        if GL.glGetError() or not self.address:
            self.close()
            raise GraphicsError(f"the driver has no {nbytes} bytes of mapped memory")
        self.memory = np.frombuffer((ctypes.c_char * nbytes).from_address(self.address), np.uint8)
        """(nbytes,) uint8; nobody may look at it after `close`."""

    def bind(self) -> None:
        """Uploads read from here, by offsets, from now on."""
        GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, self.name)

    @staticmethod
    def unbind() -> None:
        """Uploads read from addresses again."""
        GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)

    def _delete(self) -> None:
        GL.glDeleteBuffers(1, [self.name])  # which ends the mapping


def can_map_persistently() -> bool:
    """Whether the current context has buffer storage (OpenGL 4.4, or the extension)."""
    version = GL.glGetIntegerv(GL.GL_MAJOR_VERSION), GL.glGetIntegerv(GL.GL_MINOR_VERSION)
    if tuple(map(int, version)) >= (4, 4):
        return True
    count = int(GL.glGetIntegerv(GL.GL_NUM_EXTENSIONS))
    return any(GL.glGetStringi(GL.GL_EXTENSIONS, i) == b"GL_ARB_buffer_storage" for i in range(count))


class Sampler(_Owned):
    """How a texture unit is filtered: `linear` or not, always clamped."""

    kind = "sampler"

    def __init__(self, linear: bool):
        name = (ctypes.c_uint * 1)()
        GL.glGenSamplers(1, name)
        super().__init__(name[0])
        chosen = GL.GL_LINEAR if linear else GL.GL_NEAREST
        for parameter in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
            GL.glSamplerParameteri(self.name, parameter, chosen)
        for parameter in (GL.GL_TEXTURE_WRAP_S, GL.GL_TEXTURE_WRAP_T):
            GL.glSamplerParameteri(self.name, parameter, GL.GL_CLAMP_TO_EDGE)

    def _delete(self) -> None:
        GL.glDeleteSamplers(1, (ctypes.c_uint * 1)(self.name))


class TableTexture(_Owned):
    """A buffer texture of RGBA32F rows that is filled anew for every frame."""

    kind = "buffer"

    def __init__(self):
        super().__init__(GL.glGenBuffers(1))
        GL.glBindBuffer(GL.GL_TEXTURE_BUFFER, self.name)
        GL.glBufferData(GL.GL_TEXTURE_BUFFER, 16, None, GL.GL_STREAM_DRAW)
        self._texture = int(GL.glGenTextures(1))
        GL.glBindTexture(GL.GL_TEXTURE_BUFFER, self._texture)
        GL.glTexBuffer(GL.GL_TEXTURE_BUFFER, GL.GL_RGBA32F, self.name)

    def fill(self, rows: np.ndarray) -> None:
        """Replace the content by (n, 4) float32 rows; the old storage is orphaned, so no frame waits for the last."""
        GL.glBindBuffer(GL.GL_TEXTURE_BUFFER, self.name)
        GL.glBufferData(GL.GL_TEXTURE_BUFFER, max(rows.nbytes, 16), ctypes.c_void_p(rows.ctypes.data), GL.GL_STREAM_DRAW)

    def bind(self, unit: int) -> None:
        """Make this the buffer texture of a unit."""
        GL.glActiveTexture(GL.GL_TEXTURE0 + unit)
        GL.glBindTexture(GL.GL_TEXTURE_BUFFER, self._texture)

    def _delete(self) -> None:
        GL.glDeleteTextures([self._texture])
        GL.glDeleteBuffers(1, [self.name])


class VertexArray(_Owned):
    """An empty vertex array: all geometry comes from gl_VertexID and the tables."""

    kind = "vertex array"

    def __init__(self):
        super().__init__(GL.glGenVertexArrays(1))

    def bind(self) -> None:
        """Make this the current vertex array."""
        GL.glBindVertexArray(self.name)

    def _delete(self) -> None:
        GL.glDeleteVertexArrays(1, [self.name])


class Framebuffer(_Owned):
    """One colour attachment of a given internal format and size, with a depth buffer on request."""

    kind = "framebuffer"

    def __init__(self, size: tuple[int, int], internal_format: int, *, depth: bool = False):
        super().__init__(GL.glGenFramebuffers(1))
        self.size = width, height = size
        self.texture = int(GL.glGenTextures(1))
        self._depth = 0
        GL.glActiveTexture(GL.GL_TEXTURE0)
        GL.glBindTexture(GL.GL_TEXTURE_2D, self.texture)
        GL.glTexImage2D(
            GL.GL_TEXTURE_2D, 0, internal_format, width, height, 0, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, ctypes.c_void_p(0)
        )
        for parameter in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
            GL.glTexParameteri(GL.GL_TEXTURE_2D, parameter, GL.GL_NEAREST)
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, self.name)
        GL.glFramebufferTexture2D(GL.GL_FRAMEBUFFER, GL.GL_COLOR_ATTACHMENT0, GL.GL_TEXTURE_2D, self.texture, 0)
        if depth:
            self._depth = int(GL.glGenRenderbuffers(1))
            GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, self._depth)
            GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, GL.GL_DEPTH_COMPONENT24, width, height)
            GL.glFramebufferRenderbuffer(GL.GL_FRAMEBUFFER, GL.GL_DEPTH_ATTACHMENT, GL.GL_RENDERBUFFER, self._depth)
        if GL.glCheckFramebufferStatus(GL.GL_FRAMEBUFFER) != GL.GL_FRAMEBUFFER_COMPLETE:
            self.close()
            raise GraphicsError(f"the driver refuses a picture of {width} × {height} pixels; ask for a smaller one")

    def bind(self) -> None:
        """Draw into this from now on, over its whole area."""
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, self.name)
        GL.glViewport(0, 0, *self.size)

    def read_rgba(self) -> np.ndarray:
        """(height, width, 4) uint8, first row first."""
        width, height = self.size
        pixels = np.empty((height, width, 4), np.uint8)
        GL.glBindFramebuffer(GL.GL_READ_FRAMEBUFFER, self.name)
        GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 1)
        GL.glReadPixels(0, 0, width, height, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, ctypes.c_void_p(pixels.ctypes.data))
        return pixels

    def _delete(self) -> None:
        GL.glDeleteTextures([self.texture])
        if self._depth:
            GL.glDeleteRenderbuffers(1, [self._depth])
        GL.glDeleteFramebuffers(1, [self.name])
