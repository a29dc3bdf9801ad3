"""The tile cache keeps to its budget, forgets what was used least recently, never takes what is pinned, and serves threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.storage.tile_cache import TileCache

SHAPE = (8, 16)
NBYTES = 2 * 8 * 16


def filled(cache: TileCache, *keys: int) -> None:
    """Reserve, fill with the key, and put."""
    for key in keys:
        tile = cache.reserve()
        tile[:] = key
        cache.put(key, tile)


def kept(cache: TileCache, keys: range) -> list[int]:
    """Which of the keys are here."""
    return [key for key in keys if key in cache]


def test_tile_comes_back_as_it_was_put():
    cache = TileCache(SHAPE, 10 * NBYTES)
    filled(cache, 1, 2, 3)
    tile = cache.get(2)
    assert tile.shape == SHAPE
    assert tile.dtype == np.uint16
    assert tile.flags.c_contiguous
    assert (tile == 2).all()
    assert cache.get(4) is None
    assert 4 not in cache
    assert len(cache) == 3


def test_reserved_tile_is_not_seen_before_it_is_put():
    cache = TileCache(SHAPE, 10 * NBYTES)
    cache.reserve()
    assert len(cache) == 0
    assert cache.get(0) is None


@pytest.mark.parametrize("tiles", [4, 5, 37, 100])
def test_budget_holds(tiles: int):
    cache = TileCache(SHAPE, tiles * NBYTES)
    filled(cache, *range(3 * tiles))
    assert len(cache) == cache.capacity == tiles
    assert cache.nbytes <= tiles * NBYTES


def test_budget_holds_for_tiles_larger_than_a_slab():
    cache = TileCache((2048, 2304), 4 * 2 * 2048 * 2304)
    first = cache.reserve()
    assert first.shape == (2048, 2304)
    assert cache.nbytes <= 4 * cache.tile_nbytes


def test_smallest_budget_still_has_room_to_work():
    cache = TileCache(SHAPE, 0)
    filled(cache, 1, 2, 3)
    assert len(cache) == 3


def test_memory_comes_as_needed():
    cache = TileCache((512, 512), 1 << 30)
    assert cache.nbytes == 0
    filled(cache, 1)
    assert 0 < cache.nbytes <= 32 << 20


def test_least_recently_used_goes_first():
    cache = TileCache(SHAPE, 4 * NBYTES)
    filled(cache, 0, 1, 2, 3)
    cache.get(0)
    filled(cache, 4, 5)
    assert kept(cache, range(6)) == [0, 3, 4, 5]


def test_put_again_counts_as_used_and_replaces():
    cache = TileCache(SHAPE, 4 * NBYTES)
    filled(cache, 0, 1, 2)
    tile = cache.reserve()
    tile[:] = 99
    cache.put(0, tile)
    assert (cache.get(0) == 99).all()
    filled(cache, 3, 4)  # one into the room of the tile that was replaced
    assert kept(cache, range(5)) == [0, 2, 3, 4]


def test_pinned_tiles_are_never_taken():
    cache = TileCache(SHAPE, 4 * NBYTES)
    filled(cache, 0, 1, 2, 3)
    assert cache.has_room(pinned={0, 1, 3})
    cache.put(4, cache.reserve(pinned={0, 1, 3}))
    assert kept(cache, range(5)) == [0, 1, 3, 4]
    assert not cache.has_room(pinned={0, 1, 3, 4})
    assert cache.reserve(pinned={0, 1, 3, 4}) is None
    assert kept(cache, range(5)) == [0, 1, 3, 4]


def test_room_given_back_is_used_again():
    cache = TileCache(SHAPE, 4 * NBYTES)
    filled(cache, 0, 1, 2)
    tile = cache.reserve(pinned={0, 1, 2})
    assert cache.reserve(pinned={0, 1, 2}) is None
    cache.give_back(tile)
    assert cache.reserve(pinned={0, 1, 2}) is tile


def test_cleared_cache_is_empty_and_keeps_its_memory():
    cache = TileCache(SHAPE, 4 * NBYTES)
    filled(cache, 0, 1, 2, 3)
    before = cache.nbytes
    cache.clear()
    assert len(cache) == 0
    filled(cache, 5, 6, 7, 8)
    assert cache.nbytes == before


def test_closed_twice_is_harmless_and_gives_memory_back():
    cache = TileCache(SHAPE, 4 * NBYTES)
    filled(cache, 0)
    cache.close()
    cache.close()
    assert cache.nbytes == 0


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["put", "get", "pinned"]), st.integers(0, 9)), max_size=60))
def test_what_is_kept_equals_a_plain_list(actions: list[tuple[str, int]]):
    """Against a list of keys in the order of their last use."""
    cache, model = TileCache(SHAPE, 4 * NBYTES), []
    for action, key in actions:
        if action == "get":
            tile = cache.get(key)
            assert (tile is not None) == (key in model)
            if tile is not None:
                assert (tile == key).all()
                model = [other for other in model if other != key] + [key]
            continue
        if key in model:
            continue
        pinned = set(model[:3]) if action == "pinned" else set()
        tile = cache.reserve(pinned)
        if len(model) == 4:
            model.remove(next(other for other in model if other not in pinned))
        tile[:] = key
        cache.put(key, tile)
        model.append(key)
    assert kept(cache, range(10)) == sorted(model)


def test_threads_never_share_memory_and_never_see_another_tile():
    cache = TileCache((32, 32), 12 * 2 * 32 * 32)
    wrong: list[object] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        mine = range(100 * seed, 100 * seed + 3)
        try:
            for _ in range(400):
                key = int(random.choice(mine))
                if key in cache:
                    continue
                tile = cache.reserve(pinned=())
                if tile is None:
                    continue
                tile[:] = key
                if not (tile == key).all():  # another thread writes into the same memory
                    wrong.append(("shared", key))
                cache.put(key, tile)
                if len(cache) > cache.capacity:
                    wrong.append(("budget", len(cache)))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert cache.nbytes <= 12 * cache.tile_nbytes
    for key in range(600):
        tile = cache.get(key)
        assert tile is None or (tile == key).all()
