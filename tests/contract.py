"""The contract suite: what every kind of slide does, checked against a synthetic slide that knows every pixel.

A test class inherits `SlideContract` and gives two fixtures: `truth`, a `SyntheticSlide`, and `slide`, the slide under test made
from it. `KINDS` are truths worth trying, as a factory each. What is expected is computed here in float64, not with the code
under test.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rawmosaic.storage.errors import OutOfRangeError, PlaneMissingError, SlideError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import FIELD_DTYPE, Slide
from rawmosaic.storage.testing import SyntheticSlide

SHEAR = np.array([[0.97, -0.12], [0.05, -1.03]])
"""Rotated, sheared and flipped in y: nothing that a transposed or inverted matrix would give as well."""

KINDS: dict[str, Callable[[], SyntheticSlide]] = {
    "dense": lambda: SyntheticSlide((3, 4), (96, 128), ["DAPI", "GFP"]),
    "sparse": lambda: SyntheticSlide((3, 4), (50, 70), 3, sparse=0.4, seed=1),
    "z and t": lambda: SyntheticSlide((2, 3), (40, 56), 2, size_z=3, size_t=2, sparse=0.2, seed=2),
    "field sizes": lambda: SyntheticSlide((3, 3), (96, 128), 2, shapes=[(96, 128), (61, 77), (128, 33), (5, 3)], seed=3),
    "many tiles": lambda: SyntheticSlide((1, 3), (600, 520), 1, seed=4),
    "many tiles, sizes": lambda: SyntheticSlide((1, 4), (601, 523), 2, shapes=[(601, 523), (299, 523), (77, 400)], seed=5),
    "placed": lambda: SyntheticSlide(
        (3, 3),
        (32, 48),
        3,
        plane_offset_px=4,
        channel_offset_px=6,
        orientation=SHEAR,
        extra_sets=("registered", "by hand"),
        scenes=("A1", "B2"),
        pixel_size_um=0.1625,
        seed=6,
    ),
    "a colour a field": lambda: SyntheticSlide((3, 3), (32, 48), 3, one_channel_per_field=True, overlap=0.6, seed=7),
    "one tiny field": lambda: SyntheticSlide((1, 1), (5, 7), 1, seed=8),
    "no plane": lambda: SyntheticSlide((2, 2), (24, 24), 2, sparse=1.1, seed=9),
}


class SlideContract:
    """Inherit, and define the fixtures `truth` and `slide`. Class attributes loosen what a source cannot promise."""

    n_threads = 8

    # facts

    def test_header_says_what_is_known(self, slide: Slide, truth: SyntheticSlide):
        for fact in ("name", "acquired_at", "pixel_size_um", "objective", "assay", "bits"):
            assert getattr(slide.header, fact) == getattr(truth.header, fact), fact
        assert dict(slide.header.extra) == dict(truth.header.extra)

    def test_channels_are_those_of_the_source(self, slide: Slide, truth: SyntheticSlide):
        assert slide.channels == truth.channels

    def test_fields_table_is_complete(self, slide: Slide, truth: SyntheticSlide):
        assert slide.fields.dtype == FIELD_DTYPE
        assert slide.n_fields == len(slide.fields) == truth.n_fields
        for column in FIELD_DTYPE.names:
            if column != "slot":  # the packing is the file's own
                np.testing.assert_array_equal(slide.fields[column], truth.fields[column], err_msg=column)
        assert slide.scenes == truth.scenes

    def test_slots_are_a_permutation_of_the_fields(self, slide: Slide):
        np.testing.assert_array_equal(np.sort(slide.fields["slot"]), np.arange(slide.n_fields))

    def test_sizes_agree(self, slide: Slide, truth: SyntheticSlide):
        tallest, widest = int(truth.fields["height"].max()), int(truth.fields["width"].max())
        assert slide.field_shape == (tallest, widest)
        assert (slide.size_z, slide.size_t) == (truth.size_z, truth.size_t)

    def test_levels_halve_from_one(self, slide: Slide):
        assert slide.levels[0] == 1
        assert all(isinstance(factor, int) for factor in slide.levels)
        assert all(b == 2 * a for a, b in zip(slide.levels, slide.levels[1:], strict=False))

    def test_acquired_planes_are_told_from_missing_ones(self, slide: Slide, truth: SyntheticSlide):
        for z, t in _times(truth):
            acquired = slide.acquired(z, t)
            assert acquired.dtype == bool
            np.testing.assert_array_equal(acquired, truth.acquired(z, t))

    def test_acquired_planes_of_an_unknown_time_raise(self, slide: Slide, truth: SyntheticSlide):
        for z, t, what in ((truth.size_z, 0, "z"), (-1, 0, "z"), (0, truth.size_t, "t"), (0, -1, "t")):
            with pytest.raises(OutOfRangeError, match=f"no {what} .*0 to") as caught:
                slide.acquired(z, t)
            assert caught.value.what == what

    # positions

    def test_position_sets_have_names_and_stage_comes_first(self, slide: Slide, truth: SyntheticSlide):
        assert slide.position_sets[0] == "stage"
        assert slide.position_sets == truth.position_sets

    def test_positions_are_exact(self, slide: Slide, truth: SyntheticSlide):
        for name in truth.position_sets:
            positions = slide.positions(name)
            assert (positions.dtype, positions.shape) == (np.float64, (truth.n_fields, 2))
            np.testing.assert_array_equal(positions, truth.positions(name), err_msg=name)

    def test_placement_is_exact(self, slide: Slide, truth: SyntheticSlide):
        for name in truth.position_sets:
            placed, expected = slide.placement(name), truth.placement(name)
            np.testing.assert_allclose(placed.matrix_um, expected.matrix_um, rtol=0, atol=1e-15, err_msg=name)
            for channel in range(len(truth.channels)):
                np.testing.assert_array_equal(placed.centres_um(channel), expected.centres_um(channel), err_msg=name)

    def test_unknown_position_set_names_the_known_ones(self, slide: Slide):
        with pytest.raises(OutOfRangeError, match="stage"):
            slide.positions("nowhere")
        with pytest.raises(OutOfRangeError, match="stage"):
            slide.placement("nowhere")

    # planes

    def test_planes_are_exactly_as_acquired(self, slide: Slide, truth: SyntheticSlide):
        for plane_key in acquired_planes(truth):
            plane = slide.read_plane(*plane_key)
            assert plane.dtype == np.uint16
            np.testing.assert_array_equal(plane, truth.read_plane(*plane_key), err_msg=str(plane_key))

    def test_zoom_layers_are_area_means(self, slide: Slide, truth: SyntheticSlide):
        for plane_key in acquired_planes(truth):
            full = truth.read_plane(*plane_key)
            for level, factor in enumerate(slide.levels):
                plane = slide.read_plane(*plane_key, level=level)
                assert plane.dtype == np.uint16
                np.testing.assert_array_equal(plane, area_mean(full, factor), err_msg=f"{plane_key} level {level}")

    def test_missing_plane_raises(self, slide: Slide, truth: SyntheticSlide):
        for z, t in _times(truth):
            for field, channel in np.argwhere(~truth.acquired(z, t)):
                for level in (0, len(slide.levels) - 1):
                    with pytest.raises(PlaneMissingError, match=f"field {field}.*channel {channel}") as caught:
                        slide.read_plane(int(field), int(channel), z, t, level)
                    assert isinstance(caught.value, LookupError)

    @pytest.mark.parametrize("what", ["field", "channel", "z", "t", "level"])
    @pytest.mark.parametrize("side", ["below", "above"])
    def test_out_of_range_raises_and_says_the_limits(self, slide: Slide, truth: SyntheticSlide, what: str, side: str):
        sizes = {
            "field": truth.n_fields,
            "channel": len(truth.channels),
            "z": truth.size_z,
            "t": truth.size_t,
            "level": len(slide.levels),
        }
        arguments = dict(zip(("field", "channel", "z", "t"), next(acquired_planes(truth), (0, 0, 0, 0)), strict=True))
        arguments[what] = -1 if side == "below" else sizes[what]
        with pytest.raises(OutOfRangeError) as caught:
            slide.read_plane(**arguments)
        assert isinstance(caught.value, IndexError)
        assert caught.value.what == what
        assert f"0 to {sizes[what] - 1}" in str(caught.value)
        assert str(arguments[what]) in str(caught.value)

    # tiles

    def test_tiles_are_pieces_of_planes(self, slide: Slide, truth: SyntheticSlide):
        for key in tile_keys(slide):
            tile = slide.read_tile(key)
            assert (tile.dtype, tile.shape) == (np.uint16, slide.tiling.tile_shape)
            np.testing.assert_array_equal(tile, expected_tile(slide, truth, key), err_msg=str(key))

    def test_tile_is_read_into_given_memory(self, slide: Slide, truth: SyntheticSlide):
        for key in list(tile_keys(slide))[:: max(1, slide.n_fields // 4)]:
            out = np.full(slide.tiling.tile_shape, 0xABCD, np.uint16)
            assert slide.read_tile(key, out) is out
            np.testing.assert_array_equal(out, expected_tile(slide, truth, key), err_msg=str(key))

    # histograms

    def test_histogram_counts_the_acquired_pixels(self, slide: Slide, truth: SyntheticSlide):
        for channel in range(len(truth.channels)):
            expected = np.zeros(65536, np.uint64)
            for plane_key in acquired_planes(truth):
                if plane_key[1] == channel:
                    expected += np.bincount(truth.read_plane(*plane_key).ravel(), minlength=65536).astype(np.uint64)
            counts = slide.histogram(channel)
            assert (counts.dtype, counts.shape) == (np.uint64, (65536,))
            np.testing.assert_array_equal(counts, expected)

    def test_histogram_of_an_unknown_channel_raises(self, slide: Slide, truth: SyntheticSlide):
        with pytest.raises(OutOfRangeError, match=f"0 to {len(truth.channels) - 1}"):
            slide.histogram(len(truth.channels))

    # life

    def test_threads_read_the_right_pixels(self, slide: Slide, truth: SyntheticSlide):
        keys = list(tile_keys(slide))
        expected = {key: expected_tile(slide, truth, key) for key in keys[:: max(1, len(keys) // 24)]}

        def wrong(seed: int) -> list[TileKey]:
            order = np.random.default_rng(seed).permutation(len(expected))
            chosen = [list(expected)[index] for index in order]
            return [key for key in chosen if not np.array_equal(slide.read_tile(key), expected[key])]

        with ThreadPoolExecutor(self.n_threads) as pool:
            assert [key for keys in pool.map(wrong, range(self.n_threads)) for key in keys] == []

    def test_context_manager_gives_the_slide_and_closes_it(self, slide: Slide, truth: SyntheticSlide):
        with slide as entered:
            assert entered is slide
            assert entered.n_fields == truth.n_fields

    def test_closed_twice_is_harmless(self, slide: Slide):
        slide.close()
        slide.close()

    def test_errors_say_where(self, slide: Slide):
        with pytest.raises(SlideError) as caught:
            slide.read_plane(slide.n_fields, 0)
        assert caught.value.location == slide.location
        assert str(slide.location) in str(caught.value)


def _times(truth: Slide) -> list[tuple[int, int]]:
    return [(z, t) for t in range(truth.size_t) for z in range(truth.size_z)]


def acquired_planes(truth: Slide):
    """(field, channel, z, t) of every plane that exists."""
    for z, t in _times(truth):
        for field, channel in np.argwhere(truth.acquired(z, t)):
            yield int(field), int(channel), z, t


def area_mean(plane: np.ndarray, factor: int) -> np.ndarray:
    """The area mean of what exists in each factor × factor block, rounded once, half up; computed in float64."""
    if factor == 1:
        return plane
    rows, columns = np.arange(0, plane.shape[0], factor), np.arange(0, plane.shape[1], factor)
    sums = np.add.reduceat(np.add.reduceat(plane.astype(np.float64), rows, axis=0), columns, axis=1)
    counts = np.add.reduceat(np.add.reduceat(np.ones(plane.shape), rows, axis=0), columns, axis=1)
    return np.floor(sums / counts + 0.5).astype(np.uint16)


def tile_keys(slide: Slide):
    """Every key of the slide."""
    for z, t in _times(slide):
        for channel in range(len(slide.channels)):
            for level in range(len(slide.levels)):
                for index in range(slide.tiling.tile_count(level, slide.n_fields)):
                    yield TileKey(level, index, channel, z, t)


def expected_tile(slide: Slide, truth: SyntheticSlide, key: TileKey) -> np.ndarray:
    """The tile as the words of `pyramid.py` describe it: a cell of a plane's grid, or whole fields side by side by slot."""
    cut, (tile_height, tile_width) = slide.tiling.levels[key.level], slide.tiling.tile_shape
    tile = np.zeros((tile_height, tile_width), np.uint16)
    acquired = truth.acquired(key.z, key.t)

    def layer(field: int) -> np.ndarray:
        if not acquired[field, key.channel]:
            return np.zeros((0, 0), np.uint16)
        return area_mean(truth.read_plane(field, key.channel, key.z, key.t), cut.factor)

    if cut.pack == (1, 1):
        rows, columns = cut.grid
        field, row, column = key.index // (rows * columns), key.index // columns % rows, key.index % columns
        piece = layer(field)[row * tile_height : (row + 1) * tile_height, column * tile_width : (column + 1) * tile_width]
        tile[: piece.shape[0], : piece.shape[1]] = piece
        return tile
    slots = slide.fields["slot"]
    for place in range(cut.pack[0] * cut.pack[1]):
        for field in np.flatnonzero(slots == key.index * cut.pack[0] * cut.pack[1] + place):
            piece = layer(int(field))
            top, left = place // cut.pack[1] * cut.plane_shape[0], place % cut.pack[1] * cut.plane_shape[1]
            tile[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    return tile
