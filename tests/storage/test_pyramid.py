"""Zoom layers are area means, and tilings name every pixel once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from contract import area_mean

from rawmosaic.storage.pyramid import PlaneReducer, TileKey, Tiling, default_factors, reduce_plane, reduced_shape

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (31, 64), (64, 31), (100, 255), (257, 130)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("fill", ["noise", "full scale", "zero", "one bright pixel"])
def test_layers_are_area_means_rounded_half_up(shape: tuple[int, int], fill: str):
    plane = {
        "noise": np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16),
        "full scale": np.full(shape, 65535, np.uint16),
        "zero": np.zeros(shape, np.uint16),
        "one bright pixel": np.pad(np.full((1, 1), 65535, np.uint16), ((shape[0] - 1, 0), (shape[1] - 1, 0))),
    }[fill]
    factors = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    layers = reduce_plane(plane, factors)
    assert len(layers) == len(factors)
    for layer, factor in zip(layers, factors, strict=True):
        assert layer.dtype == np.uint16
        assert layer.shape == reduced_shape(shape, factor)
        np.testing.assert_array_equal(layer, area_mean(plane, factor), err_msg=f"factor {factor}")


def test_factors_may_skip_and_start_again():
    plane = np.random.default_rng(1).integers(0, 65536, (70, 90)).astype(np.uint16)
    for factors in ((1,), (1, 4), (1, 8, 64), (1, 2, 32)):
        for layer, factor in zip(reduce_plane(plane, factors), factors, strict=True):
            np.testing.assert_array_equal(layer, area_mean(plane, factor))


def test_sums_of_large_blocks_do_not_overflow():
    plane = np.full((2048, 2050), 65535, np.uint16)
    for layer in reduce_plane(plane, (1, 128, 256, 512, 2048)):
        assert (layer == 65535).all()


@pytest.mark.parametrize("factor", [2, 4, 8, 128, 256])
@pytest.mark.parametrize("bits", [16, 32])
def test_sums_at_the_limit_of_a_type_do_not_overflow(factor: int, bits: int):
    """The brightest plane whose sums, rounded, just fit the narrower type, and one count more."""
    limit = (2**bits - 1 - factor * factor // 2) // (factor * factor)
    for brightest in {min(limit, 65535), min(limit + 1, 65535), 65535}:
        plane = np.random.default_rng(factor).integers(0, brightest + 1, (2 * factor, 3 * factor + 1)).astype(np.uint16)
        plane[:factor, :factor] = brightest
        layers = reduce_plane(plane, default_factors(plane.shape) if factor > 2 else (1, 2))
        for number, layer in enumerate(layers):
            np.testing.assert_array_equal(layer, area_mean(plane, 2**number), err_msg=f"brightest {brightest}, layer {number}")


def test_reducer_takes_planes_of_any_shape_and_brightness_one_after_the_other():
    reducer = PlaneReducer((1, 2, 4, 8, 16))
    random = np.random.default_rng(5)
    for shape, brightest in (((64, 96), 100), ((64, 96), 65535), ((33, 97), 4095), ((1, 5), 65535), ((80, 120), 16383)):
        plane = random.integers(0, brightest + 1, shape).astype(np.uint16)
        for layer, factor in zip(reducer.reduce(plane), (1, 2, 4, 8, 16), strict=True):
            np.testing.assert_array_equal(layer, area_mean(plane, factor), err_msg=f"{shape}, factor {factor}")


def test_plane_is_not_changed_and_may_be_a_view():
    whole = np.random.default_rng(2).integers(0, 65536, (80, 120)).astype(np.uint16)
    before, view = whole.copy(), whole[3:70:2, 5:100:3]
    layers = reduce_plane(view, (1, 2, 4))
    np.testing.assert_array_equal(layers[2], area_mean(view, 4))
    np.testing.assert_array_equal(whole, before)


def test_mean_grey_level_is_the_same_on_all_layers():
    plane = np.random.default_rng(3).integers(0, 65536, (512, 512)).astype(np.uint16)
    for layer in reduce_plane(plane, (1, 2, 4, 8, 16, 32)):
        assert abs(layer.mean() - plane.mean()) < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (9, 8), (2160, 2560), (1040, 1392)])
def test_default_factors_end_when_a_field_is_small(shape: tuple[int, int]):
    factors = default_factors(shape)
    assert factors[0] == 1
    assert all(b == 2 * a for a, b in pairwise(factors))
    assert max(reduced_shape(shape, factors[-1])) <= 8
    assert len(factors) == 1 or max(reduced_shape(shape, factors[-2])) > 8


@pytest.mark.parametrize(
    "shape", [(5, 7), (40, 56), (96, 128), (512, 512), (600, 520), (601, 263), (1040, 1392), (2160, 2560), (64, 4000)]
)
def test_tiling_cuts_every_layer_into_tiles_of_one_shape(shape: tuple[int, int]):
    tiling = Tiling.of(shape)
    assert tiling.field_shape == shape
    assert tiling.factors == default_factors(shape)
    assert all(size > 0 for size in tiling.tile_shape)
    assert tiling.tile_nbytes == 2 * tiling.tile_shape[0] * tiling.tile_shape[1]
    for cut in tiling.levels:
        assert cut.plane_shape == reduced_shape(shape, cut.factor)
        for length, tile, grid, pack in zip(cut.plane_shape, tiling.tile_shape, cut.grid, cut.pack, strict=True):
            assert (grid - 1) * tile < length <= grid * tile or (cut.packed and grid == 1)
            assert pack * length <= tile or pack == 1
        assert cut.grid == (1, 1) or not cut.packed


@pytest.mark.parametrize("shape", [(5, 7), (40, 56), (600, 520), (601, 263)])
@pytest.mark.parametrize("n_fields", [0, 1, 7, 50])
def test_pieces_hold_every_pixel_of_every_field_once(shape: tuple[int, int], n_fields: int):
    tiling = Tiling.of(shape)
    field_of_slot = np.random.default_rng(4).permutation(n_fields)
    for level, cut in enumerate(tiling.levels):
        seen = np.zeros((n_fields, *cut.plane_shape), int)
        for index in range(tiling.tile_count(level, n_fields)):
            taken = np.zeros(tiling.tile_shape, int)
            for field, window, (row, column) in tiling.pieces(TileKey(level, index, 0), field_of_slot):
                piece = seen[field][window]
                piece += 1
                target = taken[row : row + piece.shape[0], column : column + piece.shape[1]]
                assert target.shape == piece.shape
                target += 1
            assert taken.max(initial=0) <= 1
        assert (seen == 1).all()


def test_block_tile_lies_inside_the_tile_above_it():
    tiling = Tiling.of((2160, 2560))
    for finer, coarser in pairwise(tiling.levels):
        if coarser.packed:
            break
        assert coarser.grid == tuple(-(-count // 2) for count in finer.grid)


def test_packed_slots_lie_side_by_side():
    tiling = Tiling.of((512, 512))
    cut = next(cut for cut in tiling.levels if cut.packed)
    assert [cut.slot_origin(slot) for slot in range(cut.fields_per_tile)] == [
        (row * cut.plane_shape[0], column * cut.plane_shape[1]) for row in range(cut.pack[0]) for column in range(cut.pack[1])
    ]
    assert cut.slot_origin(cut.fields_per_tile) == (0, 0)


def test_coarse_layers_cost_few_tiles():
    """An overview of 2,193 fields reads tens of tiles, not thousands of crumbs."""
    tiling = Tiling.of((2160, 2560))
    counts = [tiling.tile_count(level, 2193) for level in range(len(tiling.levels))]
    assert counts[-1] <= 2
    assert counts == sorted(counts, reverse=True)
