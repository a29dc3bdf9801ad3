"""Compressed tiles in memory."""

from __future__ import annotations

from rawmosaic.net.encoded_tiles import EncodedTiles


def test_a_tile_is_found_again():
    tiles = EncodedTiles(10_000)
    tiles.put(1, b"one")
    tiles.put(2, b"")
    assert tiles.get(1) == b"one"
    assert tiles.get(2) == b""
    assert tiles.get(3) is None


def test_the_budget_is_kept_and_the_least_recently_used_goes():
    tiles = EncodedTiles(10_000)
    for number in range(8):
        tiles.put(number, bytes(1000))
    assert tiles.get(0) is not None
    for number in range(8, 12):
        tiles.put(number, bytes(1000))
        assert tiles.nbytes <= tiles.budget_bytes
    assert 0 in tiles
    assert 1 not in tiles
    assert len(tiles) == 8


def test_empty_tiles_count_too():
    tiles = EncodedTiles(10_000)
    for number in range(100_000):
        tiles.put(number, b"")
    assert len(tiles) <= 100


def test_a_tile_larger_than_the_budget_is_not_kept():
    tiles = EncodedTiles(1000)
    tiles.put(1, bytes(500))
    tiles.put(2, bytes(5000))
    assert 1 in tiles
    assert 2 not in tiles


def test_a_tile_that_is_put_again_counts_once():
    tiles = EncodedTiles(10_000)
    for size in (1000, 2000, 3000):
        tiles.put(1, bytes(size))
    before = tiles.nbytes
    tiles.put(1, bytes(3000))
    assert tiles.nbytes == before
    assert len(tiles) == 1
