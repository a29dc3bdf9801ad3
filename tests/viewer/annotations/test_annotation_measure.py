"""Measurements are those of the raw pixels, counted independently; large ones are bounded, and any can be given up."""

from __future__ import annotations

import math
import threading
import tracemalloc

import numpy as np
import pytest
from counting import counts_inside, covers, in_rings

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import NoLongerWantedError, OutOfRangeError
from rawmosaic.storage.placement import orientation_matrix
from rawmosaic.storage.pyramid import Tiling
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SlowSlide, SyntheticSlide, write_slide
from rawmosaic.viewer.annotations import measure
from rawmosaic.viewer.annotations.measure import Intensity, Measurer, measured
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Polygon, Rectangle, Shape

SLIDES = {
    "plain": {},
    "gaps": {"overlap": -0.2},
    "sparse": {"sparse": 0.3},
    "turned": {"orientation": orientation_matrix("rotate-90", 7.0)},
    "flipped": {"orientation": orientation_matrix("flip-x")},
    "channels apart": {"plane_offset_px": 3.0, "channel_offset_px": 2.0},
    "field sizes": {"shapes": [(60, 50), (96, 128), (33, 90)]},
    "one colour a field": {"one_channel_per_field": True},
    "small tiles": {"tiling": Tiling.of((96, 128), tile_shape=(32, 40))},
    "far away": {"origin_um": (40_000.0, -90_000.0)},
}


def slide_of(name: str = "plain", grid=(3, 4), **options) -> SyntheticSlide:
    return SyntheticSlide(grid, (96, 128), 2, **({"overlap": 0.2} | SLIDES[name] | options))


def shapes_on(slide, seed: int = 1, n: int = 9) -> list[Shape]:
    """Rectangles, ellipses and polygons with holes that cross themselves, some beyond the mosaic's edge."""
    rng = np.random.default_rng(seed)
    positions = slide.positions()
    shapes: list[Shape] = []
    for number in range(n):
        at = rng.uniform(positions.min(axis=0) - 25, positions.max(axis=0) + 25)
        box = (*at, *(at + rng.uniform(5, 70, 2)))
        star, holes = at + 30 * rng.normal(size=(9, 2)), [at + 10 * rng.normal(size=(5, 2)) for _ in range(2)]
        shapes.append(
            [Rectangle(*box), Ellipse(*box), Polygon([star, *holes], [at + 60 + 10 * rng.normal(size=(4, 2))])][number % 3]
        )
    return shapes


def truly_inside(shape: Shape):
    """The test of a shape, said again."""
    if isinstance(shape, Rectangle):
        left, top, right, bottom = shape.box_um
        return lambda x, y: (x >= left) & (x < right) & (y >= top) & (y < bottom)
    if isinstance(shape, Ellipse):
        (x0, y0), (width, height) = shape.centre_um, shape.size_um
        return lambda x, y: (2 * (x - x0) / width) ** 2 + (2 * (y - y0) / height) ** 2 <= 1
    return lambda x, y: np.any([in_rings(list(part), x, y) for part in shape.parts], axis=0)


def assert_counted(found: Intensity, counts: np.ndarray) -> None:
    """Whether an intensity is that of these counts."""
    assert found.pixels == len(counts)
    assert found.integrated == int(counts.sum())
    if not len(counts):
        assert all(math.isnan(value) for value in (found.mean, found.sd, found.median, found.minimum, found.maximum))
        return
    assert math.isclose(found.mean, counts.mean(), rel_tol=1e-12)
    assert (found.median, found.minimum, found.maximum) == (np.median(counts), counts.min(), counts.max())
    if len(counts) > 1:
        assert math.isclose(found.sd, counts.std(ddof=1), rel_tol=1e-9, abs_tol=1e-9)
    else:
        assert math.isnan(found.sd)


@pytest.mark.parametrize("overlap", ["top", "every"])
@pytest.mark.parametrize("name", SLIDES)
def test_raw_counts_of_areas_are_those_of_the_pixels_inside(name: str, overlap: str):
    slide = slide_of(name)
    with Measurer(slide, overlap=overlap) as measurer:
        counted = 0
        for shape in shapes_on(slide):
            found = measurer.measure(shape)
            assert found.factor == 1
            assert found.area_um2 == shape.area_um2
            for channel in range(2):
                counts = counts_inside(slide, channel, truly_inside(shape), every=overlap == "every")
                assert_counted(found.intensities[channel], counts)
                counted += len(counts)
    assert counted > 5000


def test_where_fields_overlap_each_place_counts_once():
    slide = slide_of(jitter_px=0)
    left, top = slide.positions().min(axis=0) - 20
    right, bottom = slide.positions().max(axis=0) + 20
    whole = Rectangle(left, top, right, bottom)
    with Measurer(slide) as once, Measurer(slide, overlap="every") as every:
        assert math.isclose(once.measure(whole).intensities[0].pixels, whole.area_um2 / 0.25, rel_tol=0.01)
        assert every.measure(whole).intensities[0].pixels > 1.2 * once.measure(whole).intensities[0].pixels


def test_shapes_that_share_an_edge_count_each_pixel_once():
    slide = slide_of()
    x, y = slide.positions()[5]
    ring = np.array([(x - 20.25, y - 18), (x + 19.75, y - 18), (x + 20, y + 15.5), (x - 20, y + 15)])
    halves = Polygon([ring[[0, 1, 2]]]), Polygon([ring[[0, 2, 3]]])
    with Measurer(slide) as measurer:
        pixels = [measurer.measure(shape).intensities[0].pixels for shape in (*halves, Polygon([ring]))]
    assert pixels[0] + pixels[1] == pixels[2]


@pytest.mark.parametrize("position_set", ["registered", "other"])
def test_the_position_set_decides_where_pixels_lie(position_set: str):
    slide = slide_of(extra_sets=("registered", "other"), size_z=2, size_t=2)
    with Measurer(slide, [1], position_set=position_set, z=1, t=1) as measurer:
        for shape in shapes_on(slide, n=3):
            counts = counts_inside(slide, 1, truly_inside(shape), z=1, t=1, position_set=position_set)
            found = measurer.measure(shape)
            assert list(found.intensities) == [1]
            assert_counted(found.intensities[1], counts)


def test_a_file_is_measured_as_the_slide_that_was_written(tmp_path):
    slide = slide_of("sparse")
    write_slide(slide, tmp_path / "slide.h5")
    shapes = shapes_on(slide, n=6)
    with open_slide(tmp_path / "slide.h5") as stored, Measurer(stored) as of_file, Measurer(slide) as of_truth:
        for shape in shapes:
            assert str(of_file.measure(shape)) == str(of_truth.measure(shape))  # text: NaN is not itself


def test_many_values_are_added_up_as_exactly_as_few(monkeypatch):
    slide = slide_of()
    shape = shapes_on(slide)[0]
    with Measurer(slide) as measurer:
        kept = measurer.measure(shape)
        monkeypatch.setattr(measure, "_VALUES_BEFORE_HISTOGRAM", 10)
        monkeypatch.setattr(measure, "BLOCK_PX", 300)
        assert measurer.measure(shape) == kept


def test_the_largest_sums_are_exact():
    counts = measure._Counts()
    for _ in range(50):
        counts.add(np.full(1_000_000, 65535, np.uint16))
        counts.add(np.array([65534], np.uint16))
    found = counts.intensity(1)
    assert found.integrated == 50 * (65535 * 1_000_000 + 65534)
    n = 50 * 1_000_001
    assert math.isclose(found.sd, math.sqrt(50 * (1 - 50 / n) / (n - 1)), rel_tol=1e-9)


# points and lines


@pytest.mark.parametrize("overlap", ["top", "every"])
@pytest.mark.parametrize("name", ["plain", "sparse", "turned", "channels apart", "small tiles"])
def test_points_take_the_pixel_that_lies_there(name: str, overlap: str):
    slide = slide_of(name)
    rng = np.random.default_rng(0)
    places = Points(rng.uniform(slide.positions().min(axis=0) - 40, slide.positions().max(axis=0) + 40, (60, 2)))
    with Measurer(slide, overlap=overlap) as measurer:
        found = measurer.measure(places)
    for channel in range(2):
        counts = []
        for place in places.points_um:
            fields = [f for f in range(slide.n_fields) if slide.acquired()[f, channel] and covers(slide, f, channel, place)]
            counts += [pixel_at(slide, f, channel, place) for f in (fields if overlap == "every" else fields[-1:])]
        assert_counted(found.intensities[channel], np.array(counts, float))


def pixel_at(slide, field: int, channel: int, place: np.ndarray) -> int:
    """The count of the pixel of a field at a place, one by one."""
    placement = slide.placement()
    size = np.array([slide.fields["width"][field], slide.fields["height"][field]])
    x, y = np.floor(np.linalg.solve(placement.matrix_um, place - placement.centres_um(channel)[field]) + size / 2).astype(int)
    return int(slide.read_plane(field, channel)[y, x])


def test_a_line_takes_a_pixel_for_each_pixel_size_along_it():
    slide = slide_of(jitter_px=0)
    (x, y), width_um = slide.positions()[0], 64.0
    line = Line([(x - 20, y + 0.3), (x + 10, y + 0.3)])
    with Measurer(slide) as measurer:
        found = measurer.measure(line)
    row = slide.read_plane(0, 0)[48, int((width_um / 2 - 20) * 2) : int((width_um / 2 + 10) * 2)]
    assert found.length_um == 30
    assert_counted(found.intensities[0], row.astype(float))


def test_a_profile_along_a_row_is_that_row():
    slide = slide_of("gaps", jitter_px=0)
    x, y = slide.positions()[0]
    line = Line([(x - 63.75 * 0.5, y + 0.25), (x + 30, y + 0.25)])
    with Measurer(slide) as measurer:
        nearest = measurer.profile(line, interpolation="nearest")
        linear = measurer.profile(line)
        wide = measurer.profile(line, width_px=3)
    row = slide.read_plane(0, 1).astype(float)[48]
    assert nearest.step_um == 0.5
    assert nearest.distances_um[3] == 1.5
    assert len(nearest.distances_um) == int(line.length_um / 0.5) + 1
    n = len(nearest.distances_um)
    assert np.array_equal(nearest.counts[1], row[:n])
    # a quarter of a pixel left of each pixel's middle
    assert np.allclose(linear.counts[1, 1:], 0.75 * row[1:n] + 0.25 * row[: n - 1])
    rows = slide.read_plane(0, 1).astype(float)[47:50].mean(axis=0)
    assert np.allclose(wide.counts[1, 1:], 0.75 * rows[1:n] + 0.25 * rows[: n - 1])


@pytest.mark.parametrize("name", ["turned", "channels apart", "small tiles", "sparse"])
def test_a_profile_interpolates_in_the_topmost_field(name: str):
    slide = slide_of(name)
    low, high = slide.positions().min(axis=0) - 40, slide.positions().max(axis=0) + 40
    middle = np.round(slide.positions()[5], 6)
    with Measurer(slide) as measurer:
        profile = measurer.profile(Line([low, middle, (high[0], middle[1] + 9)]))
    placement = slide.placement()
    inverse = np.linalg.inv(placement.matrix_um)
    corners = np.array([low, middle, (high[0], middle[1] + 9)])
    first = np.hypot(*(corners[1] - corners[0]))
    checked = 0
    for channel in range(2):
        for at, found in zip(profile.distances_um[::7], profile.counts[channel, ::7], strict=True):
            edge, rest = (0, at) if at <= first else (1, at - first)
            step = corners[edge + 1] - corners[edge]
            place = corners[edge] + rest * step / np.hypot(*step)
            fields = [f for f in range(slide.n_fields) if slide.acquired()[f, channel] and covers(slide, f, channel, place)]
            if not fields:
                assert math.isnan(found)
                continue
            size = np.array([slide.fields["width"][fields[-1]], slide.fields["height"][fields[-1]]])
            u, v = np.clip(inverse @ (place - placement.centres_um(channel)[fields[-1]]) + size / 2 - 0.5, 0, size - 1)
            plane = slide.read_plane(fields[-1], channel).astype(float)
            x, y = int(u), int(v)
            x1, y1 = min(x + 1, size[0] - 1), min(y + 1, size[1] - 1)
            top = plane[y, x] * (1 - u % 1) + plane[y, x1] * (u % 1)
            bottom = plane[y1, x] * (1 - u % 1) + plane[y1, x1] * (u % 1)
            assert math.isclose(found, top * (1 - v % 1) + bottom * (v % 1), rel_tol=1e-6)
            checked += 1
    assert checked > 50


def test_a_long_profile_takes_longer_steps(monkeypatch):
    monkeypatch.setattr(measure, "MOST_SAMPLES", 100)
    slide = slide_of()
    with Measurer(slide) as measurer:
        profile = measurer.profile(Line([slide.positions()[0], slide.positions()[-1]]), width_px=2)
        assert len(profile.distances_um) * 2 <= 102
        assert profile.step_um > 0.5
        assert measurer.measure(Line([slide.positions()[0], slide.positions()[-1]])).intensities[0].pixels <= 100


# large, damaged, given up


def test_a_huge_shape_is_measured_on_a_zoom_layer_and_says_so():
    slide = slide_of(smooth=True, jitter_px=0)
    whole = Ellipse(*(slide.positions().min(axis=0) - 20), *(slide.positions().max(axis=0) + 20))
    with Measurer(slide) as measurer, Measurer(slide, most_pixels=2000) as bounded:
        exact, found = measurer.measure(whole), bounded.measure(whole)
    assert exact.factor == 1
    assert found.factor == 8
    for channel in range(2):
        assert math.isclose(found.intensities[channel].mean, exact.intensities[channel].mean, rel_tol=0.01)
        assert math.isclose(found.intensities[channel].pixels, exact.intensities[channel].pixels, rel_tol=0.05)
        assert math.isclose(found.intensities[channel].integrated, exact.intensities[channel].integrated, rel_tol=0.05)


def test_a_shape_larger_than_the_mosaic_is_no_reason_to_be_coarse():
    slide = slide_of()
    with Measurer(slide, most_pixels=12 * 96 * 128) as measurer:
        found = measurer.measure(Rectangle(-1e6, -1e6, 1e6, 1e6))
    assert found.factor == 1
    assert_counted(found.intensities[0], counts_inside(slide, 0, lambda x, y: x > y - 1e7))


def test_memory_does_not_grow_with_a_field(monkeypatch):
    monkeypatch.setattr(measure, "CACHE_BYTES", 4 << 20)
    monkeypatch.setattr(measure, "BLOCK_PX", 1 << 18)
    slide = SyntheticSlide((1, 1), (8192, 8192), 1, pixel_size_um=1.0, overlap=0)

    class Tiles(SyntheticSlide):
        """Computes no more than a tile at a time."""

        def _read_tile(self, key, out):
            out[:] = key.index

    slide.__class__ = Tiles
    with Measurer(slide) as measurer:
        tracemalloc.start()
        found = measurer.measure(Ellipse(-3000, -3000, 3000, 3000))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found.factor == 1
    assert math.isclose(found.intensities[0].pixels, math.pi * 3000**2, rel_tol=1e-4)
    assert peak < 60 << 20  # a plane alone takes 128 MB


def test_what_cannot_be_read_is_left_out_and_told():
    sound = slide_of(jitter_px=0, overlap=0)
    slide = FailingSlide(sound, lambda key: _is_of_field(sound, key, 5, 1))
    whole = Rectangle(*(sound.positions().min(axis=0) - 40), *(sound.positions().max(axis=0) + 40))
    with Measurer(slide) as measurer:
        found = measurer.measure(whole)
        profile = measurer.profile(Line([sound.positions()[4], sound.positions()[6]]))
        points = measurer.measure(Points([sound.positions()[5]]))
    assert found.intensities[0].pixels == 12 * 96 * 128
    assert found.intensities[1].pixels == 11 * 96 * 128
    assert len(found.unreadable) == 1
    assert "fails on purpose" in found.unreadable[0]
    assert np.isnan(profile.counts[1]).any()
    assert not np.isnan(profile.counts[0]).any()
    assert profile.unreadable
    assert (points.intensities[0].pixels, points.intensities[1].pixels) == (1, 0)


def _is_of_field(slide, key, field: int, channel: int) -> bool:
    """Whether a tile or a plane is one of a field and channel."""
    if hasattr(key, "index"):
        return key.channel == channel and any(piece[0] == field for piece in slide.tiling.pieces(key, slide.field_of_slot))
    return key[:2] == (field, channel)


def test_a_slide_that_grows_is_measured_as_it_is_now():
    whole = slide_of()
    slide = GrowingSlide(whole, 6)
    around = Rectangle(-1e4, -1e4, 1e4, 1e4)
    with Measurer(slide, overlap="every") as before:
        slide.grow(100)
        slide.refresh()
        assert before.measure(around).intensities[0].pixels == 3 * 96 * 128
    with Measurer(slide, overlap="every") as after:
        assert after.measure(around).intensities[0].pixels == 12 * 96 * 128


def test_many_shapes_are_measured_in_their_order_by_several_threads():
    slide = slide_of()
    shapes = [*shapes_on(slide, n=30), Points([slide.positions()[0]]), Line([(0, 0), (30, 30)])]
    told = []
    with Measurer(slide) as measurer:
        found = measured(measurer, shapes, lambda done, total: told.append((done, total)))
        assert [str(each) for each in found] == [str(measurer.measure(shape)) for shape in shapes]
        assert measured(measurer, []) == []
    assert told[-1] == (32, 32)
    assert told == sorted(told)


def test_a_measurement_can_be_given_up():
    slide = SlowSlide(slide_of(), 0.05)
    stop = threading.Event()
    with Measurer(slide, cancelled=stop.is_set) as measurer:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(NoLongerWantedError, match="cancelled"):
            measured(measurer, shapes_on(slide, n=2000))


def test_an_interruption_ends_all_threads():
    slide = SlowSlide(slide_of(), 0.02)

    def interrupt(done: int, total: int) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    with Measurer(slide) as measurer, pytest.raises(KeyboardInterrupt):
        measured(measurer, shapes_on(slide, n=2000), interrupt)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": "max"}, "choose one of top, every"),
        ({"channels": [2]}, "channel 0 to 1"),
        ({"position_set": "registered"}, "the slide has stage"),
        ({"z": 1}, "z 0 to 0"),
    ],
)
def test_what_the_slide_has_not_is_refused(options: dict, words: str):
    with pytest.raises(OutOfRangeError, match=words):
        Measurer(slide_of(), **options)


@pytest.mark.parametrize("arguments", [(0, "linear"), (5000, "linear"), (1, "cubic")])
def test_a_profile_of_another_kind_is_refused(arguments):
    with Measurer(slide_of()) as measurer, pytest.raises(OutOfRangeError, match="linear"):
        measurer.profile(Line([(0, 0), (1, 1)]), *arguments)
