"""How channels look: automatic limits from exact histograms, colours by name and wavelength, and the two matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.slide import GREY_LEVELS, Channel
from rawmosaic.viewer.channels import (
    SMALLEST_AUTO_RANGE,
    ChannelView,
    default_colors,
    mixer_matrix,
    parse_color,
    percentile_limits,
    status_matrix,
)


def counted(pixels: np.ndarray) -> np.ndarray:
    """(65536,) counts of some pixels."""
    return np.bincount(np.asarray(pixels, np.int64).ravel(), minlength=GREY_LEVELS).astype(np.uint64)


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(
    st.integers(1, 5000),
    st.floats(10, 60000),
    st.floats(1, 9000),
    st.sampled_from([0.001, 0.004, 0.05, 0.1]),
    st.integers(0, 2**31),
)
def test_automatic_limits_leave_the_tail_on_each_side(n: int, mean: float, spread: float, tail: float, seed: int):
    random = np.random.default_rng(seed)
    pixels = np.clip(random.normal(mean, spread, n), 0, 65535).astype(np.uint16)
    low, high = percentile_limits(counted(pixels), tail)
    # what the words say: no more than the tail lies outside, and no narrower limits would keep that promise
    assert (pixels < low).mean() <= tail
    assert (pixels <= low).mean() > tail
    assert (pixels > high).mean() <= tail
    if high > low + SMALLEST_AUTO_RANGE:
        assert (pixels >= high).mean() > tail * (1 - 1e-9)
    assert high - low >= SMALLEST_AUTO_RANGE


def test_default_tail_is_one_in_a_thousand():
    pixels = np.arange(10_000)
    assert percentile_limits(counted(pixels)) == (10.0, 9989.0)


def test_no_pixel_at_all_gives_the_full_range():
    assert percentile_limits(np.zeros(GREY_LEVELS, np.uint64)) == (0.0, 65535.0)


def test_empty_wells_do_not_explode():
    """A dark, empty well: nothing but camera offset and a few counts of noise stays dark."""
    random = np.random.default_rng(2)
    pixels = random.normal(410, 1.0, 100_000).astype(np.int64)
    low, high = percentile_limits(counted(pixels))
    assert high - low >= SMALLEST_AUTO_RANGE
    assert low <= 410 <= high
    noise = np.clip((pixels - low) / (high - low), 0, 1).std()
    assert noise < 0.1


@pytest.mark.parametrize("value", [0, 1, 700, 65535])
def test_one_single_grey_level_gives_finite_limits(value: int):
    low, high = percentile_limits(counted(np.full(9, value)))
    assert low == value
    assert high == value + SMALLEST_AUTO_RANGE


def test_counts_beyond_float32_still_count():
    histogram = np.zeros(GREY_LEVELS, np.uint64)
    histogram[100], histogram[5000] = 2**40, 2**40
    assert percentile_limits(histogram) == (100.0, 5000.0)


# colours


@pytest.mark.parametrize(
    ("text", "rgb"),
    [
        ("#ff8000", (1.0, 128 / 255, 0.0)),
        ("FF8000", (1.0, 128 / 255, 0.0)),
        ("#0f8", (0.0, 1.0, 136 / 255)),
        ("green", (0.0, 1.0, 0.0)),
        ("Magenta", (1.0, 0.0, 1.0)),
        ("grey", (1.0, 1.0, 1.0)),
        ("gray", (1.0, 1.0, 1.0)),
    ],
)
def test_colors_are_read(text: str, rgb: tuple[float, float, float]):
    assert parse_color(text) == pytest.approx(rgb)


@pytest.mark.parametrize("text", ["", "#", "#12", "#12345", "#1234567", "#gg0000", "mauve-ish", "+f+f+f", " f f f", None, 7])
def test_what_is_no_color_is_refused_with_the_choices(text: object):
    with pytest.raises(OutOfRangeError, match=r"#rrggbb.*red.*green") as caught:
        parse_color(text)
    assert caught.value.value == text


def test_colors_follow_stain_wavelength_and_order():
    channels = [
        Channel("Hoechst 33342"),
        Channel("GFP", emission_nm=509.0),
        Channel("one"),
        Channel("Cy5", emission_nm=670.0),
        Channel("two"),
        Channel("three", color="#123456"),
    ]
    assert default_colors(channels) == ["#0000ff", "#00ff00", "#00ffff", "#ff00ff", "#ffff00", "#123456"]


def test_colors_without_any_knowledge_come_in_the_usual_order():
    names = [Channel(f"C{i}") for i in range(6)]
    assert default_colors(names) == ["#00ff00", "#ff00ff", "#00ffff", "#ffff00", "#ff8000", "#ffffff"]
    assert default_colors([Channel("DAPI"), Channel("A"), Channel("B")]) == ["#0000ff", "#00ff00", "#ff00ff"]


def test_a_single_channel_is_grey_unless_the_file_says():
    assert default_colors([Channel("DAPI")]) == ["#ffffff"]
    assert default_colors([Channel("DAPI", color="#0000ff")]) == ["#0000ff"]
    assert default_colors([]) == []


def test_colors_of_the_file_are_not_given_twice():
    colors = default_colors([Channel("a", color="#00FF00"), Channel("b"), Channel("c", color="magenta"), Channel("d")])
    assert len({parse_color(color) for color in colors}) == 4
    assert colors[0] == "#00FF00"


def test_many_channels_all_get_a_color():
    colors = default_colors([Channel(f"C{i}") for i in range(20)])
    assert len(colors) == 20
    for color in colors:
        parse_color(color)


@pytest.mark.parametrize("nm", [float("nan"), float("inf"), None])
def test_a_wavelength_that_is_no_number_does_not_matter(nm: float | None):
    assert default_colors([Channel("a", emission_nm=nm), Channel("b", emission_nm=nm)]) == ["#00ff00", "#ff00ff"]


# matrices and what the shader is given


def test_mixer_and_status_matrices_make_the_picture():
    looks = [
        ChannelView("a", (0, 100), "#ff0000"),
        ChannelView("b", (0, 100), "#00ff00", visible=False),
        ChannelView("c", (0, 100), "#0080ff"),
    ]
    mixer, status = mixer_matrix(looks), status_matrix(looks)
    np.testing.assert_allclose(mixer, [[1, 0, 0], [0, 1, 128 / 255], [0, 0, 1]])
    np.testing.assert_array_equal(status, np.diag([1, 0, 1]))
    np.testing.assert_allclose(mixer @ status @ [0.5, 1.0, 0.25], [0.5, 0.25 * 128 / 255, 0.25])


def test_matrices_of_no_channel_are_empty():
    assert mixer_matrix([]).shape == (3, 0)
    assert status_matrix([]).shape == (0, 0)


def contrasted(look: ChannelView, counts: np.ndarray) -> np.ndarray:
    """What the shader makes of counts, given these limits."""
    low, per_count, gamma = look.shader_limits()
    return np.clip((counts - low) * per_count, 0, 1) ** gamma


def test_shader_limits_are_the_formula():
    look = ChannelView("a", (100, 4100), "#fff", gamma=0.5)
    counts = np.array([0, 100, 1100, 4100, 65535])
    np.testing.assert_allclose(contrasted(look, counts), [0, 0, 0.5, 1, 1])


def test_equal_limits_are_a_step():
    look = ChannelView("a", (500, 500), "#fff")
    np.testing.assert_array_equal(contrasted(look, np.array([499, 500, 501])), [0, 0, 1])


def test_limits_upside_down_invert_the_picture():
    look = ChannelView("a", (1000, 0), "#fff")
    np.testing.assert_allclose(contrasted(look, np.array([0, 250, 1000, 2000])), [1, 0.75, 0, 0])
