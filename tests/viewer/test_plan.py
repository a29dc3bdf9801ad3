"""The plan of a frame, by numbers: which tiles, which stand-ins, which pixels each quad covers, and in which order to fetch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.storage.placement import ORIENTATIONS, orientation_matrix
from rawmosaic.storage.pyramid import TileKey, Tiling
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.plan import (
    MOST_CHANNELS_AT_ONCE,
    FramePlan,
    Geometry,
    TileNumbers,
    View,
    choose_level,
    plan_frame,
    screen_rects,
)

QUICK = settings(derandomize=True, deadline=None, database=None, max_examples=40)
SIZE = (201, 143)
SMALL_TILES = (40, 48)
SHAPE = (150, 170)


@dataclass
class Planner:
    """Plans frames of a slide; `resident` says which tiles have which texture layer."""

    slide: Slide
    capacity: int = 10_000
    resident: dict[int, int] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    position_set: str = "stage"

    def __post_init__(self) -> None:
        self.numbers = TileNumbers(self.slide)
        self.geometry = Geometry(self.slide, self.position_set)

    def lookup(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) float32 texture layers."""
        return np.array([self.resident.get(number, -1) for number in numbers.tolist()], np.float32)

    def plan(self, view: View, lookup: Callable[[np.ndarray], np.ndarray] | None = None) -> FramePlan:
        """The plan of a view."""
        return plan_frame(
            view,
            self.geometry,
            self.slide.tiling,
            self.numbers,
            self.slide.acquired(view.z, view.t),
            lookup or self.lookup,
            self.capacity,
            self.failed,
        )

    def keys(self, numbers: Iterable[int]) -> list[TileKey]:
        """Which tiles the numbers stand for."""
        return [self.numbers.decode(number) for number in numbers]

    def number(self, key: TileKey) -> int:
        """The number of a tile."""
        return int(self.numbers.encode(key.level, np.array([key.index]), key.channel, key.z, key.t)[0])

    def upload(self, keys: Iterable[TileKey]) -> None:
        """Make tiles resident, each in a layer of its own."""
        for key in keys:
            self.resident.setdefault(self.number(key), len(self.resident))

    def key_of_layer(self, layer: float) -> TileKey:
        """The tile that lies in a texture layer."""
        (number,) = [number for number, at in self.resident.items() if at == int(layer)]
        return self.numbers.decode(number)


def small_tiles(shape: tuple[int, int] = SHAPE) -> Tiling:
    """A tiling of several blocks a field, and packed layers above."""
    return Tiling.of(shape, tile_shape=SMALL_TILES)


def mosaic(grid: tuple[int, int] = (3, 3), channels: int = 1, **options) -> SyntheticSlide:
    """A slide of fields of several tiles."""
    return SyntheticSlide(grid, SHAPE, channels, tiling=small_tiles(), **options)


def view_of(slide: Slide, scale: float, shift: tuple[float, float] = (0.0, 0.0), size: tuple[int, int] = SIZE, **options) -> View:
    """A view about the middle of the slide, shifted by image pixels."""
    middle = slide.positions().mean(axis=0) + np.array(shift) * slide.header.pixel_size_um
    options.setdefault("channels", tuple(range(len(slide.channels))))
    return View(Camera(*middle, scale, size, slide.header.pixel_size_um), **options)


def field_pixels(slide: Slide, view: View, field_number: int, channel: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y) field pixel under the centre of each screen pixel, and whether it is inside: from the conventions alone."""
    camera = view.camera
    width, height = camera.size
    step_um = slide.header.pixel_size_um / camera.scale
    x_um = camera.x_um + (np.arange(width) + 0.5 - width / 2) * step_um
    y_um = camera.y_um + (np.arange(height) + 0.5 - height / 2) * step_um
    placement = slide.placement(view.position_set)
    offset = np.stack(np.meshgrid(x_um, y_um), axis=-1) - placement.centres_um(channel)[field_number]
    row = slide.fields[field_number]
    p = offset @ np.linalg.inv(placement.matrix_um).T + (row["width"] / 2, row["height"] / 2)
    inside = (p >= 0).all(axis=-1) & (p[..., 0] < row["width"]) & (p[..., 1] < row["height"])
    return p[..., 0], p[..., 1], inside


def needed_tiles(slide: Slide, view: View, level: int) -> set[TileKey]:
    """Tiles of a level that hold the pixel under some screen pixel's centre, of every field, hidden by others or not."""
    needed, cut = set(), slide.tiling.levels[level]
    height, width = slide.tiling.tile_shape
    acquired = slide.acquired(view.z, view.t)
    for channel in view.channels:
        for number in np.flatnonzero(acquired[:, channel]):
            x, y, inside = field_pixels(slide, view, number, channel)
            if not inside.any():
                continue
            if cut.packed:
                indices = {int(slide.fields["slot"][number]) // cut.fields_per_tile}
            else:
                across = np.floor(x[inside] / cut.factor).astype(int) // width
                down = np.floor(y[inside] / cut.factor).astype(int) // height
                indices = set((number * cut.tiles_per_field + down * cut.grid[1] + across).tolist())
            needed |= {TileKey(level, int(index), channel, view.z, view.t) for index in indices}
    return needed


# numbers


def test_every_tile_has_a_number_of_its_own():
    slide = SyntheticSlide((2, 3), SHAPE, 3, size_z=2, size_t=3, tiling=small_tiles())
    planner = Planner(slide)
    seen = set()
    for level in range(len(slide.levels)):
        for index in range(slide.tiling.tile_count(level, slide.n_fields)):
            for channel in range(3):
                for z in range(3):  # two planes and their projection
                    for t in range(3):
                        key = TileKey(level, index, channel, z, t)
                        number = planner.number(key)
                        assert planner.numbers.decode(number) == key
                        seen.add(number)
    assert seen == set(range(len(seen)))


def test_numbers_of_large_slides_do_not_overflow():
    tiling = Tiling.of((2160, 2560))
    numbers = TileNumbers(
        SimpleNamespace(tiling=tiling, n_fields=1_000_000, channels=range(12), size_z=50, size_t=1000, growing=False)
    )
    key = TileKey(0, tiling.tile_count(0, 1_000_000) - 1, 11, 49, 999)
    number = int(numbers.encode(0, np.array([key.index]), 11, 49, 999)[0])
    assert number > 2**40
    assert numbers.decode(number) == key


# which layer, which tiles


@pytest.mark.parametrize(
    ("scale", "factor"), [(64, 1), (1, 1), (0.51, 1), (0.5, 2), (0.4999, 2), (0.26, 2), (0.25, 4), (0.1, 8), (1e-6, 16)]
)
def test_layer_is_the_one_at_or_above_the_density_of_the_screen(scale: float, factor: int):
    factors = (1, 2, 4, 8, 16)
    assert factors[choose_level(scale, factors)] == factor


@QUICK
@given(
    st.floats(0.03, 4.0),
    st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
    st.sampled_from(sorted(ORIENTATIONS)),
    st.sampled_from([0.0, 0.0, 7.0]),
    st.booleans(),
    st.integers(0, 5),
)
def test_tiles_under_every_screen_pixel_are_wanted(
    scale: float, shift: tuple[float, float], orientation: str, angle: float, smooth: bool, seed: int
):
    slide = mosaic(orientation=orientation_matrix(orientation, angle), seed=seed)
    planner = Planner(slide)
    view = view_of(slide, scale, shift, (97, 61), smooth=smooth)
    plan = planner.plan(view)
    wanted = set(planner.keys(plan.fetch))
    assert plan.level == choose_level(scale, slide.levels)
    assert {key.level for key in wanted} <= {plan.level}
    assert needed_tiles(slide, view, plan.level) <= wanted
    assert plan.tiles_wanted == plan.tiles_missing == len(wanted)
    if angle == 0.0:  # and none that does not even touch the screen, or the reach of its filter
        wider = view_of(slide, scale, shift, (97 + 4, 61 + 4))
        assert len(wanted) <= len(needed_tiles(slide, wider, plan.level))


def test_a_view_beside_the_mosaic_wants_nothing():
    slide = mosaic()
    plan = Planner(slide).plan(view_of(slide, 1.0, (5000, 5000)))
    assert plan.fetch == ()
    assert plan.draws == ()
    assert plan.tiles_wanted == plan.fields_in_view == 0


def test_only_shown_channels_are_wanted():
    slide = mosaic(channels=4)
    planner = Planner(slide)
    both = planner.plan(view_of(slide, 1.0, channels=(3, 1)))
    assert {key.channel for key in planner.keys(both.fetch)} == {1, 3}
    assert planner.plan(view_of(slide, 1.0, channels=())).fetch == ()


def test_planes_that_were_not_acquired_are_not_wanted():
    slide = mosaic((4, 4), 2, sparse=0.5)
    planner = Planner(slide)
    view = view_of(slide, 1.0, size=(800, 700))
    acquired = slide.acquired()
    keys = planner.keys(planner.plan(view).fetch)
    fields = {(key.index // slide.tiling.levels[0].tiles_per_field, key.channel) for key in keys}
    assert fields
    assert all(acquired[number, channel] for number, channel in fields)
    assert set(keys) >= needed_tiles(slide, view, 0)


def test_tiles_are_those_of_the_views_z_and_t():
    slide = SyntheticSlide((2, 2), SHAPE, 1, size_z=3, size_t=4, tiling=small_tiles())
    planner = Planner(slide)
    keys = planner.keys(planner.plan(view_of(slide, 1.0, z=2, t=1)).fetch)
    assert {(key.z, key.t) for key in keys} == {(2, 1)}


def test_position_set_decides_which_fields_are_in_view():
    slide = mosaic(extra_sets=("registered",), channels=1)
    planner = Planner(slide, position_set="registered")
    view = view_of(slide, 2.0, (140, 10), position_set="registered")
    assert needed_tiles(slide, view, 0) <= set(planner.keys(planner.plan(view).fetch))


# capacity


def test_a_view_that_does_not_fit_goes_coarser():
    slide = mosaic((4, 4))
    planner = Planner(slide)
    view = view_of(slide, 1.0, size=(400, 400))
    fine = planner.plan(view)
    assert fine.level == 0
    planner.capacity = fine.tiles_wanted
    assert planner.plan(view).level == 0
    planner.capacity = fine.tiles_wanted - 1
    coarse = planner.plan(view)
    assert coarse.level == 1
    assert coarse.tiles_wanted <= planner.capacity
    assert needed_tiles(slide, view, 1) <= set(planner.keys(coarse.fetch))


@pytest.mark.parametrize("capacity", [1, 2, 5, 9, 20, 45, 60])
def test_the_finest_layer_that_fits_is_chosen(capacity: int):
    slide = mosaic((3, 3))
    view = view_of(slide, 1.0, size=(300, 300))
    plan = Planner(slide, capacity).plan(view)
    assert plan.tiles_wanted <= capacity or plan.level == len(slide.levels) - 1
    if plan.level > 0:  # one layer finer would not have fitted
        wider = view_of(slide, 1.0, size=(304, 304))
        assert len(needed_tiles(slide, wider, plan.level - 1)) > capacity


# stand-ins


def drawn_keys(planner: Planner, plan: FramePlan, channel: int = 0) -> dict[tuple[int, int], TileKey]:
    """(field, screen quad) → tile that is drawn there, from the rows of the only draw."""
    (draw,) = plan.draws
    return {
        (tuple(row[0].tolist()), tuple(row[1].tolist())): planner.key_of_layer(row[3 + channel, 0])
        for row in draw.rows
        if row[3 + channel, 0] >= 0
    }


def ancestor(slide: Slide, key: TileKey, level: int) -> TileKey:
    """The tile of a coarser level that holds a block of a finer one: through the block's first pixel."""
    cut, coarse = slide.tiling.levels[key.level], slide.tiling.levels[level]
    field_number, block = divmod(key.index, cut.tiles_per_field)
    if coarse.packed:
        return key._replace(level=level, index=int(slide.fields["slot"][field_number]) // coarse.fields_per_tile)
    row, column = divmod(block, cut.grid[1])
    height, width = slide.tiling.tile_shape
    y, x = row * height * cut.factor // coarse.factor // height, column * width * cut.factor // coarse.factor // width
    return key._replace(level=level, index=field_number * coarse.tiles_per_field + y * coarse.grid[1] + x)


def test_nothing_resident_draws_nothing_but_outlines():
    slide = mosaic()
    plan = Planner(slide).plan(view_of(slide, 1.0))
    assert plan.draws == ()
    assert len(plan.outlines) == plan.fields_in_view > 0
    assert len(plan.layers) == len(plan.stand_ins) == 0


@QUICK
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10_000)), max_size=60), st.floats(0.3, 2.0), st.booleans())
def test_nearest_coarser_resident_tile_stands_in(uploads: list[tuple[int, int]], scale: float, smooth: bool):
    slide = mosaic((2, 2))
    planner = Planner(slide)
    counts = [slide.tiling.tile_count(level, slide.n_fields) for level in range(len(slide.levels))]
    planner.upload(TileKey(level % len(counts), index % counts[level % len(counts)], 0) for level, index in uploads)
    view = view_of(slide, scale, smooth=smooth)
    plan = planner.plan(view)
    full = Planner(slide)
    full.upload(full.keys(full.plan(view).fetch))
    own, stand_ins = set(), set()
    for key in full.keys(full.resident):
        chain = [key, *(ancestor(slide, key, level) for level in range(plan.level + 1, len(counts)))]
        best = next((each for each in chain if planner.number(each) in planner.resident), None)
        if best == key:
            own.add(key)
        elif best is not None:
            stand_ins.add(best)
    used = {planner.key_of_layer(layer) for layer in plan.stand_ins.tolist()}
    assert {planner.key_of_layer(layer) for layer in plan.layers.tolist()} == own
    assert used == stand_ins
    drawn = {planner.key_of_layer(row[3, 0]) for draw in plan.draws for row in draw.rows if row[3, 0] >= 0}
    assert drawn == own | stand_ins
    assert set(planner.keys(plan.fetch)) == set(full.keys(full.resident)) - own


def test_complete_view_fetches_nothing_and_names_its_layers():
    slide = mosaic(channels=2)
    planner = Planner(slide)
    view = view_of(slide, 1.0)
    planner.upload(planner.keys(planner.plan(view).fetch))
    plan = planner.plan(view)
    assert plan.fetch == ()
    assert plan.tiles_missing == 0
    assert sorted(plan.layers.tolist()) == sorted(planner.resident.values())
    assert len(plan.stand_ins) == len(plan.outlines) == 0


def test_stand_ins_are_scaled_to_their_own_layer():
    slide = mosaic((1, 1))
    planner = Planner(slide)
    view = view_of(slide, 1.0)
    level = 1
    planner.upload(TileKey(level, index, 0) for index in range(slide.tiling.tile_count(level, 1)))
    (draw,) = planner.plan(view).draws
    cut = slide.tiling.levels[level]
    height, width = slide.tiling.tile_shape
    for row in draw.rows:
        layer, per_px, x, y = row[3]
        block = planner.key_of_layer(layer).index % cut.tiles_per_field
        assert per_px == 1 / cut.factor
        assert (x, y) == (block % cut.grid[1] * width, block // cut.grid[1] * height)


# failures


def test_failed_tiles_are_not_fetched_but_replaced_by_the_next_coarser():
    slide = mosaic()
    planner = Planner(slide)
    view = view_of(slide, 1.0)
    all_keys = planner.keys(planner.plan(view).fetch)
    broken = all_keys[:3]
    planner.failed = {planner.number(key) for key in broken}
    plan = planner.plan(view)
    fetched = planner.keys(plan.fetch)
    assert not set(broken) & set(fetched)
    assert {ancestor(slide, key, 1) for key in broken} == {key for key in fetched if key.level == 1}
    assert plan.tiles_failed == 3
    planner.upload(fetched)
    done = planner.plan(view)
    assert done.fetch == ()
    assert done.tiles_missing == 0
    assert done.tiles_failed == 3
    assert {planner.key_of_layer(layer) for layer in done.stand_ins.tolist()} == {ancestor(slide, key, 1) for key in broken}


def test_where_every_layer_fails_the_plan_is_complete_without():
    slide = mosaic((1, 2))
    planner = Planner(slide)
    view = view_of(slide, 1.0)
    for _ in slide.levels:
        planner.failed |= set(planner.plan(view).fetch)
    plan = planner.plan(view)
    assert plan.fetch == ()
    assert plan.draws == ()
    assert plan.tiles_missing == 0
    assert plan.tiles_failed == plan.tiles_wanted > 0


def test_a_coarser_tile_of_a_far_layer_does_not_hide_that_a_nearer_one_is_to_come():
    slide = mosaic((1, 1))
    planner = Planner(slide)
    view = view_of(slide, 1.0)
    planner.failed = set(planner.plan(view).fetch)
    last = len(slide.levels) - 1
    planner.upload([TileKey(last, 0, 0)])
    plan = planner.plan(view)
    assert {key.level for key in planner.keys(plan.fetch)} == {1}
    assert len(plan.stand_ins) > 0


# quads


def covered(rects: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) how many of the whole-pixel rectangles lie over each screen pixel."""
    width, height = size
    count = np.zeros((height, width), int)
    for x0, y0, x1, y1 in rects:
        (x0, x1), (y0, y1) = sorted((int(x0), int(x1))), sorted((int(y0), int(y1)))
        count[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] += 1
    return count


@QUICK
@given(
    st.floats(0.05, 5.0),
    st.tuples(st.floats(-200, 200), st.floats(-200, 200)),
    st.sampled_from(sorted(ORIENTATIONS)),
    st.booleans(),
    st.integers(0, 5),
)
def test_quads_of_a_field_cover_each_of_its_pixels_once(
    scale: float, shift: tuple[float, float], orientation: str, smooth: bool, seed: int
):
    """Joints included: where tiles meet, the filtered strips take over from the quads."""
    slide = mosaic((2, 2), orientation=orientation_matrix(orientation), seed=seed)
    planner = Planner(slide)
    view = view_of(slide, scale, shift, (97, 61), smooth=smooth)
    planner.upload(planner.keys(planner.plan(view).fetch))
    plan = planner.plan(view)
    rows = np.concatenate([np.empty((0, 2, 4)), *(part[:, :2] for draw in plan.draws for part in (draw.rows, draw.joints))])
    found = 0
    for number in range(slide.n_fields):
        x, y, inside = field_pixels(slide, view, number)
        row = slide.fields[number]
        edges = np.minimum.reduce([np.abs(x), np.abs(y), np.abs(x - row["width"]), np.abs(y - row["height"])])
        if edges.min() < 1e-7:  # a pixel's centre on the very edge may fall on either side
            continue
        # the row's first two numbers are the field's pixel at the screen's centre, which tells fields apart
        p_centre = (view.camera.x_um, view.camera.y_um) - slide.placement().centres_um(0)[number]
        p_centre = np.linalg.inv(slide.placement().matrix_um) @ p_centre + (row["width"] / 2, row["height"] / 2)
        own = rows[np.abs(rows[:, 0, :2] - p_centre).max(axis=1, initial=0) < 0.01, 1]
        np.testing.assert_array_equal(covered(own, view.camera.size), inside.astype(int))
        found += len(own)
    assert found <= len(rows)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("angle", [3.0, 45.0, -100.0])
def test_quads_of_turned_fields_meet_without_gap_or_overlap(angle: float, smooth: bool):
    """There quads are given in field pixels: each place of the field that is on the screen lies in exactly one."""
    slide = mosaic((1, 1), orientation=orientation_matrix("identity", angle))
    planner = Planner(slide)
    view = view_of(slide, 1.3, (20, -30), smooth=smooth)
    planner.upload(planner.keys(planner.plan(view).fetch))
    (draw,) = planner.plan(view).draws
    rects = np.concatenate([draw.rows[:, 1], draw.joints[:, 1]])
    x, y, inside = field_pixels(slide, view, 0)
    x, y = x[inside].astype(np.float32), y[inside].astype(np.float32)
    count = sum(((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).astype(int) for x0, y0, x1, y1 in rects)
    assert inside.sum() > 1000
    np.testing.assert_array_equal(count, 1)


@QUICK
@given(
    st.sampled_from(sorted(ORIENTATIONS)),
    st.floats(0.01, 40),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.lists(st.tuples(*[st.floats(-40, 40)] * 4), min_size=1, max_size=5),
)
def test_screen_rects_hold_the_pixels_whose_centre_lies_inside(
    orientation: str, scale: float, size: tuple[int, int], rects: list[tuple[float, float, float, float]]
):
    """Against the definition: x0 ≤ p < x1 for the field pixel p under each screen pixel's centre, mirrored axes too."""
    matrix = orientation_matrix(orientation) * scale
    p_rects = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rects])
    p_centres = np.array([(3.25, -1.5)] * len(rects))
    got = screen_rects(p_rects, p_centres, matrix, size)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, np.round(got))
    width, height = size
    w = np.stack(np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2), axis=-1)
    p = w @ np.linalg.inv(matrix).T + p_centres[0]
    for rect, (x0, y0, x1, y1) in zip(got, p_rects, strict=True):
        inside = (p[..., 0] >= x0) & (p[..., 0] < x1) & (p[..., 1] >= y0) & (p[..., 1] < y1)
        near = np.minimum.reduce([np.abs(p[..., 0] - x0), np.abs(p[..., 0] - x1), np.abs(p[..., 1] - y0), np.abs(p[..., 1] - y1)])
        sure = near > 1e-9
        np.testing.assert_array_equal(covered(rect[None], size)[sure], inside.astype(int)[sure])


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_screen_rects_keep_the_closed_end_of_a_mirrored_axis(mirror: float):
    """Screen pixel centres that lie exactly on edges: a pixel belongs to the part that begins there."""
    matrix = np.diag([mirror, 1.0])
    parts = np.array([(0.0, 0.0, 4.0, 8.0), (4.0, 0.0, 8.0, 8.0)])
    centres = np.full((2, 2), 4.0)
    rects = screen_rects(parts, centres, matrix, (9, 9))  # pixel centres at whole field pixels
    first, second = covered(rects[:1], (9, 9))[4], covered(rects[1:], (9, 9))[4]
    p = 4.0 + mirror * (np.arange(9) - 4.0)
    np.testing.assert_array_equal(first, (p >= 0) & (p < 4))
    np.testing.assert_array_equal(second, (p >= 4) & (p < 8))


def test_pixels_far_from_the_origin_are_still_exact():
    """Stages count from far away: what is handed to the graphics card in float32 is relative to the screen."""
    near, far = (mosaic((2, 2), origin_um=origin, jitter_px=0.0) for origin in ((0.0, 0.0), (2.0**23, -(2.0**23))))
    rows = []
    for slide in (near, far):
        planner = Planner(slide)
        view = view_of(slide, 1.0, (0.25, 0.25))
        planner.upload(planner.keys(planner.plan(view).fetch))
        rows.append(planner.plan(view).draws[0].rows)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_later_fields_are_nearer_in_depth_and_drawn_first():
    slide = mosaic((3, 3))
    planner = Planner(slide)
    view = view_of(slide, 0.6, size=(400, 400))
    planner.upload(planner.keys(planner.plan(view).fetch))
    (draw,) = planner.plan(view).draws
    per_field = slide.tiling.levels[0].tiles_per_field
    fields = [planner.key_of_layer(row[3, 0]).index // per_field for row in draw.rows]
    depths = draw.rows[:, 2, 3]
    assert fields == sorted(fields, reverse=True)
    assert len(set(fields)) > 4
    for (f, d), (g, e) in zip(zip(fields, depths, strict=True), zip(fields[1:], depths[1:], strict=True), strict=False):
        assert (d == e) if f == g else (d < e)
    assert np.abs(depths).max() <= 1


# passes


def test_all_channels_are_one_draw_where_every_field_has_them():
    slide = mosaic(channels=4)
    planner = Planner(slide)
    view = view_of(slide, 1.0)
    planner.upload(planner.keys(planner.plan(view).fetch))
    plan = planner.plan(view)
    assert plan.direct
    assert [draw.channels for draw in plan.draws] == [(0, 1, 2, 3)]
    assert not plan.draws[0].mixed


@pytest.mark.parametrize("why", ["sparse", "offsets", "one channel per field", "too many channels", "nearest", "feather", "max"])
def test_channels_are_decided_one_by_one_where_they_differ(why: str):
    options = {
        "sparse": {"sparse": 0.4},
        "offsets": {"channel_offset_px": 5.0},
        "one channel per field": {"one_channel_per_field": True},
    }.get(why, {})
    slide = mosaic((3, 3), MOST_CHANNELS_AT_ONCE + 1 if why == "too many channels" else 3, **options)
    planner = Planner(slide)
    overlap = why if why in ("nearest", "feather", "max") else "top"
    view = view_of(slide, 1.0, size=(500, 400), overlap=overlap)
    planner.upload(planner.keys(planner.plan(view).fetch))
    plan = planner.plan(view)
    assert not plan.direct
    assert sorted(draw.channels for draw in plan.draws) == [(position,) for position in range(len(slide.channels))]


# order


def quad_distances(planner: Planner, view: View) -> dict[TileKey, float]:
    """Screen pixels from the screen's centre to the middle of each tile in view; of several fields in a tile, the nearest."""
    slide, distances = planner.slide, {}
    camera, placement = view.camera, slide.placement()
    tile_height, tile_width = slide.tiling.tile_shape
    for key in planner.keys(planner.plan(view).fetch):
        cut = slide.tiling.levels[key.level]
        for number, window, _ in slide.tiling.pieces(key, slide.field_of_slot):
            row = slide.fields[number]
            x0, y0 = (0, 0) if cut.packed else (window[1].start * cut.factor, window[0].start * cut.factor)
            x1 = row["width"] if cut.packed else min(x0 + tile_width * cut.factor, row["width"])
            y1 = row["height"] if cut.packed else min(y0 + tile_height * cut.factor, row["height"])
            p = np.array([(x0 + x1) / 2 - row["width"] / 2, (y0 + y1) / 2 - row["height"] / 2])
            w = (
                placement.centres_um(key.channel)[number] + placement.matrix_um @ p - (camera.x_um, camera.y_um)
            ) * camera.px_per_um
            distances[key] = min(distances.get(key, np.inf), float(np.hypot(*w)))
    return distances


@pytest.mark.parametrize("scale", [1.0, 0.4, 0.06])
def test_what_is_looked_at_comes_first(scale: float):
    slide = mosaic((8, 8), 2)
    planner = Planner(slide)
    view = view_of(slide, scale, (30, 10), (400, 300))
    fetched = planner.keys(planner.plan(view).fetch)
    distance = quad_distances(planner, view)
    order = [distance[key] for key in fetched]
    assert len(fetched) == len(set(fetched))
    assert order == pytest.approx(sorted(order), abs=1e-6)


def test_channels_of_one_place_come_together():
    slide = mosaic(channels=3)
    planner = Planner(slide)
    keys = planner.keys(planner.plan(view_of(slide, 1.0)).fetch)
    for three in zip(keys[::3], keys[1::3], keys[2::3], strict=True):
        assert {key.channel for key in three} == {0, 1, 2}
        assert len({key.index for key in three}) == 1


# cost


def lines_run(function: Callable[[], object]) -> int:
    """How many lines of Python of the plan and the index run, loops counted each time round."""
    count = 0

    def trace(frame, event, _argument):
        nonlocal count
        if "rawmosaic" not in frame.f_globals.get("__name__", ""):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def none_resident(numbers: np.ndarray) -> np.ndarray:
    """A lookup without a loop."""
    return np.full(len(numbers), -1, np.float32)


def all_resident(numbers: np.ndarray) -> np.ndarray:
    """A lookup without a loop."""
    return np.zeros(len(numbers), np.float32)


@pytest.fixture(scope="module")
def planners() -> tuple[Planner, Planner]:
    """A mosaic of 400 fields and one of 100,000, alike otherwise."""
    return tuple(Planner(SyntheticSlide(grid, (96, 128), 2)) for grid in ((20, 20), (250, 400)))


@pytest.mark.parametrize("lookup", [none_resident, all_resident])
@pytest.mark.parametrize("overlap", ["top", "feather"])
def test_a_view_of_a_few_fields_costs_the_same_among_a_hundred_thousand(
    planners: tuple[Planner, Planner], lookup: Callable[[np.ndarray], np.ndarray], overlap: str
):
    plans, costs = [], []
    for planner in planners:
        view = view_of(planner.slide, 1.0, overlap=overlap)
        planner.plan(view, lookup)  # the index is built once
        costs.append(lines_run(lambda planner=planner, view=view: plans.append(planner.plan(view, lookup))))
    few, many = plans
    assert 0 < many.fields_in_view <= few.fields_in_view + 4
    assert abs(many.tiles_wanted - few.tiles_wanted) <= 8
    assert sum(len(draw.rows) for draw in many.draws) <= sum(len(draw.rows) for draw in few.draws) + 8
    assert costs[1] <= costs[0] + 100


def test_the_whole_of_a_hundred_thousand_fields_is_planned_without_a_loop_over_them(planners: tuple[Planner, Planner]):
    costs = []
    for planner in planners:
        camera = Camera(0.0, 0.0, 1.0, SIZE, planner.slide.header.pixel_size_um).fitted(planner.geometry.bounds_um)
        plan = planner.plan(View(camera, (0, 1)), all_resident)
        assert plan.fields_in_view == planner.slide.n_fields
        assert sum(len(draw.rows) for draw in plan.draws) == planner.slide.n_fields
        costs.append(lines_run(lambda planner=planner, camera=camera: planner.plan(View(camera, (0, 1)), all_resident)))
    assert costs[1] <= costs[0] + 100
