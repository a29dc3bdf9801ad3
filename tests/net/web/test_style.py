"""Styles and their texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.net.web.style import OVERLAP_MODES, Look, Style, number_text, rounded, style_of
from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import plan

SLIDE = SyntheticSlide((2, 2), (16, 16), 4, size_z=7, size_t=3, extra_sets=("by hand & eye=ä", "registered"))
DEFAULTS = tuple(Look(f"#0000{number}0", (10.0 * number, 1000.5), 1.0 + number) for number in range(4))

looks = st.builds(
    Look,
    st.from_regex("#[0-9a-f]{6}", fullmatch=True),
    st.tuples(st.floats(-65536, 131071), st.floats(-65536, 131071)),
    st.floats(0.01, 100),
).map(rounded)
styles = st.builds(
    lambda shown, *rest: Style(tuple(sorted(shown.items())), *rest),
    st.dictionaries(st.integers(0, 3), looks, max_size=4),
    st.sampled_from(OVERLAP_MODES),
    st.sampled_from(SLIDE.position_sets),
    st.integers(0, 6),
    st.integers(0, 2),
)


@given(styles)
def test_the_text_of_a_style_gives_the_style_back(style: Style):
    assert style_of(style.text(), SLIDE, DEFAULTS) == style


@given(styles, styles)
def test_two_styles_have_the_same_text_only_if_they_are_the_same(one: Style, other: Style):
    assert (one.text() == other.text()) == (one == other)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["c", "=", ",", "&", "0", "9", "z", "none", "%", "ff0000", "-", "."])).map("".join)
)
def test_any_query_is_a_style_or_refused(query: str):
    try:
        style = style_of(query, SLIDE, DEFAULTS)
    except OutOfRangeError:
        return
    assert style_of(style.text(), SLIDE, DEFAULTS) == style


def test_nothing_told_is_the_slide_as_at_first():
    assert style_of("", SLIDE, DEFAULTS) == Style(tuple(enumerate(DEFAULTS)))


def test_what_is_left_out_of_a_channel_is_as_at_first():
    shown = dict(style_of("c=1&c=3,,,500&c=2,FF8000", SLIDE, DEFAULTS).looks)
    assert shown == {
        1: DEFAULTS[1],
        2: Look("#ff8000", DEFAULTS[2].limits, DEFAULTS[2].gamma),
        3: Look(DEFAULTS[3].color, (30.0, 500.0), DEFAULTS[3].gamma),
    }


def test_no_channel_can_be_shown():
    style = style_of("c=none&z=2", SLIDE, DEFAULTS)
    assert style.looks == ()
    assert style.text() == "c=none&z=2"


def test_the_order_of_channels_makes_no_other_style():
    assert style_of("c=2&c=0", SLIDE, DEFAULTS).text() == style_of("c=0&c=2", SLIDE, DEFAULTS).text()


def test_limits_may_lie_upside_down_and_beyond_the_bits():
    ((_, look),) = style_of("c=0,ffffff,70000,-3.5", SLIDE, DEFAULTS).looks
    assert look.limits == (70000.0, -3.5)


def test_a_text_is_plain_to_read():
    style = Style(((0, Look("#0000ff", (400.0, 3000.0))), (2, Look("#ff0000", (90.5, 800.0), 0.7))), "max", "registered", 3, 1)
    assert style.text() == "c=0,0000ff,400,3000,1&c=2,ff0000,90.5,800,0.7&overlap=max&positions=registered&z=3&t=1"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("c=4", ("channel '4'", "0 to 3")),
        ("c=-1", ("channel '-1'", "0 to 3")),
        ("c=1e3", ("channel", "0 to 3")),
        ("c=", ("channel ''", "0 to 3")),
        ("c=99999999999999999999", ("channel", "0 to 3")),
        ("c=0&c=0", ("channel 0", "once")),
        ("c=none&c=0", ("channel 'none'",)),
        ("c=0,red", ("color 'red'", "hexadecimal")),
        ("c=0,ff00", ("color",)),
        ("c=0,ffffff,nan", ("contrast limit 'nan'", "-65536 to 131071")),
        ("c=0,ffffff,inf", ("contrast limit",)),
        ("c=0,ffffff,1e9", ("contrast limit",)),
        ("c=0,ffffff,131072", ("contrast limit '131072'",)),
        ("c=0,ffffff,0,٣", ("contrast limit",)),
        ("c=0,ffffff,0,9,0", ("gamma '0'", "0.01 to 100")),
        ("c=0,ffffff,0,9,1000", ("gamma",)),
        ("c=0,ffffff,0,9,1,1", ("look", "number,color,low,high,gamma")),
        ("overlap=sum", ("overlap mode 'sum'", "top, nearest, feather, max")),
        ("positions=../../etc/passwd", ("position set", "stage, by hand")),
        ("z=7", ("z '7'", "0 to 6")),
        ("t=3", ("t '3'", "0 to 2")),
        ("z=1&z=1", ("z", "more than once")),
        ("brightness=3", ("brightness", "overlap, positions, z and t")),
        ("c=0&nonsense", ("style",)),
        ("positions=%ff", ("style",)),
        ("c=0" * 20000, ("style", "may have 32768")),
        ("&".join(["c=0"] * 6000), ("style",)),
    ],
)
def test_what_is_wrong_is_told_with_its_limits(query: str, words: tuple[str, ...]):
    with pytest.raises(OutOfRangeError) as caught:
        style_of(query, SLIDE, DEFAULTS)
    assert all(word in str(caught.value) for word in words)
    assert len(str(caught.value)) < 400


def test_numbers_have_no_digits_that_say_nothing():
    texts = [number_text(value, 2) for value in (400.0, 0.5, 0.25, 1 / 3, -0.001, 100000.0, 0.0)]
    assert texts == ["400", "0.5", "0.25", "0.33", "0", "100000", "0"]


def test_the_overlap_modes_are_those_of_the_viewer():
    assert OVERLAP_MODES == plan.OVERLAP_MODES
