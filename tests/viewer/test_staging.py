"""Tiles reach their texture layer from mapped memory, from ordinary memory, and from both in turn."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.tile_cache import TileCache
from rawmosaic.viewer.gl.context import HeadlessContext

SHAPE = (24, 40)
NBYTES = 2 * 24 * 40


@pytest.fixture
def context(monkeypatch) -> Iterator[HeadlessContext]:
    """A current GL context that counts as a card's, for which memory is mapped."""
    context = HeadlessContext()
    from rawmosaic.viewer import staging

    monkeypatch.setattr(staging, "is_software_driver", lambda: False)
    yield context
    context.close()


def layers_of(texture) -> np.ndarray:
    """(layers, height, width) uint16 as the driver has them."""
    from rawmosaic.viewer.gl.api import GL

    out = np.empty((texture.layers, *texture.tile_shape), np.uint16)
    texture.bind()
    address = ctypes.c_void_p(out.ctypes.data)
    GL.glGetTexImage(GL.GL_TEXTURE_2D_ARRAY, 0, GL.GL_RED, GL.GL_UNSIGNED_SHORT, address)
    return out


def test_tiles_arrive_from_mapped_and_ordinary_memory_alike(context, monkeypatch):  # noqa: ARG001
    from rawmosaic.viewer import staging
    from rawmosaic.viewer.gl.objects import TileTexture

    monkeypatch.setattr(staging, "SLAB_NBYTES", 3 * NBYTES)
    monkeypatch.setattr(staging, "MOST_NBYTES", 6 * NBYTES)
    cache = TileCache(SHAPE, 10 * NBYTES)
    memory, texture = staging.Staging(cache), TileTexture(SHAPE, 10)
    memory.grow(10)
    assert cache.fresh == 6, "no more than it may map"
    tiles = [cache.reserve() for _ in range(10)]
    truth = np.random.default_rng(0).integers(0, 65536, (10, *SHAPE), np.uint16)
    texture.bind()
    mapped = []
    for layer in np.random.default_rng(1).permutation(10).tolist():
        tiles[layer][:] = truth[layer]
        if memory.upload(texture, layer, tiles[layer]):
            mapped.append(layer)
    memory.fence(mapped)
    assert len(mapped) == 6
    assert sorted(memory.fetched(5.0)) == sorted(mapped)
    assert memory.fetched() == []
    np.testing.assert_array_equal(layers_of(texture), truth)
    tiles.clear()
    texture.close()
    cache.close()
    memory.close()
    memory.close()


def test_a_driver_without_mapped_memory_is_no_fault(context, monkeypatch):  # noqa: ARG001
    from rawmosaic.viewer import staging

    def refuse(nbytes: int):
        raise GraphicsError(f"no {nbytes} bytes")

    monkeypatch.setattr(staging, "PixelBuffer", refuse)
    cache = TileCache(SHAPE, 10 * NBYTES)
    memory = staging.Staging(cache)
    memory.grow(4)
    assert cache.fresh == 0
    assert cache.reserve() is not None
    memory.close()


def test_nothing_is_mapped_for_a_driver_that_copies_anyway(context, monkeypatch):  # noqa: ARG001
    from rawmosaic.viewer import staging

    monkeypatch.setattr(staging, "is_software_driver", lambda: True)
    cache = TileCache(SHAPE, 10 * NBYTES)
    memory = staging.Staging(cache)
    memory.grow(4)
    assert cache.fresh == 0
    memory.close()


def test_an_old_context_is_not_asked_for_it(context, monkeypatch):  # noqa: ARG001
    from rawmosaic.viewer import staging

    monkeypatch.setattr(staging, "can_map_persistently", lambda: False)
    cache = TileCache(SHAPE, 10 * NBYTES)
    memory = staging.Staging(cache)
    memory.grow(4)
    assert cache.fresh == 0
    memory.close()
