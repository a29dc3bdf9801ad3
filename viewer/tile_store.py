"""The tiles on the graphics card: one texture array and the cache that says which tile lies in which layer.

A card gets its whole budget at once. A software driver clears every layer when it makes the array, a tenth of a second for
all, so there the array begins with next to nothing and grows when a view needs more; what it held comes again from the
tile cache.
"""

from __future__ import annotations

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.gl.api import GL
from rawmosaic.viewer.gl.objects import TileTexture
from rawmosaic.viewer.texture_cache import TextureCache

FEWEST_LAYERS = 8
_SOFTWARE_DRIVERS = ("llvmpipe", "softpipe", "swiftshader", "software", "gdi generic")


class TileStore:
    """Texture layers for tiles of one shape, within a budget in bytes. All calls in the GL thread."""

    def __init__(self, tile_shape: tuple[int, int], budget_bytes: int):
        self.tile_nbytes = 2 * tile_shape[0] * tile_shape[1]
        most = int(GL.glGetIntegerv(GL.GL_MAX_ARRAY_TEXTURE_LAYERS))
        self.capacity = max(FEWEST_LAYERS, min(most, budget_bytes // self.tile_nbytes))
        self.texture = self._allocate(tile_shape, FEWEST_LAYERS if is_software_driver() else self.capacity)
        self.cache = TextureCache(self.texture.layers)

    def __len__(self) -> int:
        return len(self.cache)

    @property
    def nbytes(self) -> int:
        """Bytes of the texture array."""
        return self.texture.layers * self.tile_nbytes

    def make_room(self, tiles: int) -> bool:
        """See that a view of so many tiles fits; returns whether the array was made anew, and is empty."""
        if tiles <= self.texture.layers or self.texture.layers >= self.capacity:
            return False
        tile_shape = self.texture.tile_shape
        self.texture.close()
        self.texture = self._allocate(tile_shape, min(self.capacity, tiles + tiles // 2))
        self.cache = TextureCache(self.texture.layers)
        return True

    def close(self) -> None:
        """Delete the texture; closing twice is harmless."""
        self.texture.close()

    def _allocate(self, tile_shape: tuple[int, int], layers: int) -> TileTexture:
        """A texture array; a driver that refuses is asked for half, and that is the budget from now on."""
        while True:
            try:
                return TileTexture(tile_shape, layers)
            except GraphicsError:
                if layers <= FEWEST_LAYERS:
                    raise
                layers = self.capacity = max(FEWEST_LAYERS, layers // 2)


def is_software_driver() -> bool:
    """Whether the current context draws on the processor."""
    name = GL.glGetString(GL.GL_RENDERER) or b""
    return any(driver in name.decode(errors="replace").lower() for driver in _SOFTWARE_DRIVERS)


def layers_for_view(size: tuple[int, int], tile_shape: tuple[int, int], channels: int) -> int:
    """Layers that a view of `size` (width, height) can need at its densest, two layer pixels for one of the screen."""
    across, down = (-(-2 * side // tile) + 2 for side, tile in zip(size, tile_shape[::-1], strict=True))
    return across * down * max(channels, 1)
