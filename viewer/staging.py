"""Memory of the tile cache that the driver can fetch from by itself: persistently mapped pixel buffers.

Workers decode straight into it, and an upload is then no copy by the processor: the driver (or the card) takes the pixels
from where they lie. Until it has, the tile must not be overwritten; a fence behind each frame's uploads tells when.
Where the driver has no buffer storage (before OpenGL 4.4, macOS) tiles lie in ordinary memory, and uploads copy. So they do on
a software driver, which copies in any case, and would take milliseconds to map each slab.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

import numpy as np

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.tile_cache import TileCache
from rawmosaic.viewer.gl.api import GL
from rawmosaic.viewer.gl.objects import PixelBuffer, TileTexture, can_map_persistently
from rawmosaic.viewer.tile_store import is_software_driver

SLAB_NBYTES = 8 << 20
MOST_NBYTES = 512 << 20
"""Mapped memory cannot be swapped out, so the rest of a large tile cache is ordinary memory."""


class Staging:
    """Mapped slabs of a tile cache, added as it needs memory, and the transfers under way. All calls in the GL thread."""

    def __init__(self, cache: TileCache):
        self._cache = cache
        self._buffers: list[PixelBuffer] = []
        self._begins: list[int] = []
        self._nbytes_left = MOST_NBYTES if can_map_persistently() and not is_software_driver() else 0
        self._bound: PixelBuffer | None = None
        self._fences: deque[tuple[object, list[int]]] = deque()

    def grow(self, tiles: int, slabs: float = float("inf")) -> None:
        """See that the cache has memory for so many more tiles that the driver can fetch, within its budget and ours, and with no
        more than so many new slabs."""
        while slabs > 0 and self._nbytes_left >= SLAB_NBYTES and self._cache.fresh < tiles:
            slabs -= 1
            count = min(max(1, SLAB_NBYTES // self._cache.tile_nbytes), self._cache.unallocated)
            if not count:
                return
            try:
                buffer = PixelBuffer(count * self._cache.tile_nbytes)
            except GraphicsError:  # the driver has no more of it: ordinary memory from now on
                self._nbytes_left = 0
                return
            place = bisect_right(self._begins, buffer.address)
            self._begins.insert(place, buffer.address)
            self._buffers.insert(place, buffer)
            self._nbytes_left -= buffer.nbytes
            self._cache.add_memory(buffer.memory.view(np.uint16).reshape(count, *self._cache.tile_shape))

    def upload(self, texture: TileTexture, layer: int, tile: np.ndarray) -> bool:
        """Have a tile copied into a layer; returns whether the driver may still read the tile afterwards (see `fence`)."""
        address = tile.ctypes.data
        place = bisect_right(self._begins, address) - 1
        if place < 0 or address >= self._begins[place] + self._buffers[place].nbytes:
            self._bind(None)
            texture.upload(layer, address)
            return False
        self._bind(self._buffers[place])
        texture.upload(layer, address - self._begins[place])
        return True

    def _bind(self, buffer: PixelBuffer | None) -> None:
        if buffer is not self._bound:
            buffer.bind() if buffer is not None else PixelBuffer.unbind()
            self._bound = buffer

    def fence(self, numbers: list[int]) -> None:
        """The uploads of a frame are told; these tiles of them are fetched by the driver."""
        self._bind(None)
        if numbers:
            self._fences.append((GL.glFenceSync(GL.GL_SYNC_GPU_COMMANDS_COMPLETE, 0), numbers))

    def fetched(self, timeout_s: float = 0.0) -> list[int]:
        """Tiles that the driver has fetched since the last call; waits for the oldest transfer at most that long."""
        done = []
        while self._fences:
            sync, numbers = self._fences[0]
            status = GL.glClientWaitSync(sync, GL.GL_SYNC_FLUSH_COMMANDS_BIT, int(1e9 * timeout_s))
            if status not in (GL.GL_ALREADY_SIGNALED, GL.GL_CONDITION_SATISFIED):
                break
            GL.glDeleteSync(sync)
            self._fences.popleft()
            done += numbers
        return done

    def close(self) -> None:
        """Unmap everything; the tile cache must be closed before. Closing twice is harmless."""
        for sync, _ in self._fences:
            GL.glDeleteSync(sync)
        self._fences.clear()
        for buffer in self._buffers:
            buffer.close()
        self._buffers.clear()
        self._begins.clear()
