"""Which tile is evicted: the least recently drawn, a stand-in only when nothing else is left, never one of this frame's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.viewer.texture_cache import TextureCache

NO_LAYERS = np.empty(0, np.int64)


def layers_of(cache: TextureCache, *keys: int) -> np.ndarray:
    """(n,) int64 layers of tiles, which must be resident."""
    layers = cache.lookup(np.array(keys, np.int64))
    assert (layers >= 0).all()
    return layers.astype(np.int64)


def draw(cache: TextureCache, own: tuple[int, ...] = (), stand_ins: tuple[int, ...] = ()) -> None:
    """A frame that draws these tiles, those that are resident."""
    resident = [tuple(key for key in keys if key in cache) for keys in (own, stand_ins)]
    cache.begin_frame(layers_of(cache, *resident[0]), layers_of(cache, *resident[1]))


def resident(cache: TextureCache, keys: range) -> list[int]:
    """Which of the keys have a layer."""
    return [key for key in keys if key in cache]


def test_nothing_is_resident_at_first():
    cache = TextureCache(8)
    assert len(cache) == 0
    assert (cache.lookup(np.arange(5)) < 0).all()
    assert 0 not in cache


def test_each_tile_has_a_layer_of_its_own():
    cache = TextureCache(8)
    layers = [cache.allocate(key) for key in range(100, 108)]
    assert sorted(layers) == list(range(8))
    np.testing.assert_array_equal(cache.lookup(np.array([103, 999, 107])), [layers[3], -1, layers[7]])
    assert cache.keys_of(np.array(layers[:3])) == [100, 101, 102]


def test_layers_outside_a_float_do_not_come_up():
    """Layers travel to the shader as float32, which must tell each from the next."""
    cache = TextureCache(2048)
    keys = np.arange(2048, dtype=np.int64) * 2**40
    for key in keys.tolist():
        cache.allocate(key)
    assert len(np.unique(cache.lookup(keys))) == 2048


def test_resident_tile_keeps_its_layer():
    cache = TextureCache(8)
    layer = cache.allocate(5)
    draw(cache, (5,))
    assert cache.allocate(5) == layer
    assert len(cache) == 1


def test_least_recently_drawn_goes_first():
    cache = TextureCache(3)
    for key in (0, 1, 2):
        cache.allocate(key)
    draw(cache, (0, 1, 2))
    draw(cache, (2,))
    draw(cache, (0,))
    draw(cache)
    cache.allocate(10)
    assert resident(cache, range(11)) == [0, 2, 10]
    cache.allocate(11)
    assert resident(cache, range(12)) == [0, 10, 11]


def test_a_tile_of_this_frame_is_never_evicted():
    cache = TextureCache(3)
    for key in (0, 1, 2):
        cache.allocate(key)
    draw(cache, (0, 1, 2))
    assert cache.allocate(10) is None
    assert resident(cache, range(11)) == [0, 1, 2]
    draw(cache, (0, 2))
    assert cache.allocate(10) is not None
    assert cache.allocate(11) is None  # nor one that was uploaded for it
    assert resident(cache, range(12)) == [0, 2, 10]


def test_stand_ins_go_last():
    cache = TextureCache(4)
    for key in range(4):
        cache.allocate(key)
    draw(cache, (0,), (1,))
    cache.allocate(10)
    cache.allocate(11)
    assert resident(cache, range(12)) == [0, 1, 10, 11]
    cache.allocate(12)
    assert resident(cache, range(13)) == [0, 10, 11, 12]
    assert cache.allocate(13) is None


def test_a_tile_that_is_both_own_and_stand_in_counts_as_own():
    cache = TextureCache(1)
    cache.allocate(0)
    draw(cache, (0,), (0,))
    assert cache.allocate(1) is None


def test_cleared_cache_starts_anew():
    cache = TextureCache(4)
    for key in range(4):
        cache.allocate(key)
    draw(cache, (0, 1, 2, 3))
    cache.clear()
    assert len(cache) == 0
    draw(cache)
    assert sorted(cache.allocate(key) for key in range(10, 14)) == [0, 1, 2, 3]


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sets(st.integers(0, 11), max_size=6), st.sets(st.integers(0, 11), max_size=3)), max_size=12),
)
def test_frames_keep_what_they_draw_and_evict_the_oldest(capacity: int, frames: list[tuple[set[int], set[int]]]):
    """Against a model: keys in the order of their last use."""
    cache, model = TextureCache(capacity), []
    for own, stand_ins in frames:
        before = set(model)
        draw(cache, tuple(sorted(own)), tuple(sorted(stand_ins)))
        keep, last = own & before, (stand_ins & before) - own
        model = [key for key in model if key not in keep | last]  # not drawn now, oldest first
        old = len(model)
        fresh: list[int] = []
        for key in sorted(own - before):
            layer = cache.allocate(key)
            assert (layer is None) == (len(keep) + len(fresh) == capacity)
            if layer is not None:
                fresh.append(key)
        now = {key for key in range(12) if key in cache}
        assert keep | set(fresh) <= now
        assert len(now) <= capacity
        if not last <= now:  # a stand-in went: nothing older was left
            assert not now - keep - set(fresh) - last
        assert now <= before | set(fresh)
        survivors = [key for key in model if key in now]
        assert len(survivors) <= old
        model = survivors + sorted(last & now) + sorted((keep | set(fresh)) & now)
        layers = cache.lookup(np.array(sorted(now), np.int64))
        assert len(np.unique(layers)) == len(now)
        assert cache.keys_of(layers.astype(np.int64)) == sorted(now)


@pytest.mark.parametrize("capacity", [1, 2048])
def test_lookup_of_nothing_is_empty(capacity: int):
    assert TextureCache(capacity).lookup(NO_LAYERS).shape == (0,)
