"""The scale bar is round, fits, and says its length as people do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.scale_bar import bar_of, fitting_bar, length_text, round_length


@given(st.floats(1e-6, 1e6), st.integers(1, 100_000), st.floats(0.01, 1.0))
def test_a_bar_is_round_and_takes_between_two_fifths_and_all_of_its_share(px_per_um: float, width_px: int, share: float):
    bar = fitting_bar(px_per_um, width_px, share)
    digits = f"{bar.length_um:e}".partition("e")[0].rstrip("0").rstrip(".")
    assert digits in ("1", "2", "5")
    assert 0.4 * (1 - 1e-6) <= bar.length_px / (share * width_px) <= 1 + 1e-6
    assert bar.length_px == pytest.approx(bar.length_um * px_per_um)


@pytest.mark.parametrize(
    ("most", "length"), [(1.0, 1.0), (0.999, 0.5), (1.999, 1.0), (2.0, 2.0), (4.9, 2.0), (5.0, 5.0), (9.99, 5.0), (10.0, 10.0)]
)
@pytest.mark.parametrize("exponent", range(-6, 7))
def test_the_longest_round_length_is_taken(most: float, length: float, exponent: int):
    assert round_length(most * 10.0**exponent) == pytest.approx(length * 10.0**exponent, rel=1e-12)


@pytest.mark.parametrize(
    ("length_um", "text"),
    [
        (0.0002, "0.2 nm"),
        (0.05, "50 nm"),
        (0.5, "500 nm"),
        (1.0, "1 µm"),
        (2.5, "2.5 µm"),
        (500.0, "500 µm"),
        (1000.0, "1 mm"),
        (20_000.0, "20 mm"),
        (5_000_000.0, "5000 mm"),
        (0.1 + 0.2, "300 nm"),
    ],
)
def test_a_length_is_told_in_the_unit_that_people_use(length_um: float, text: str):
    assert length_text(length_um) == text


def test_a_bar_of_a_wanted_length_is_that_long():
    assert bar_of(25.0, 4.0) == bar_of(25.0, 4.0)
    assert (bar_of(25.0, 4.0).length_px, bar_of(25.0, 4.0).text) == (100.0, "25 µm")


@pytest.mark.parametrize("given", [(0.0, 100), (1.0, 0), (math.nan, 100), (math.inf, 100), (-1.0, 100)])
def test_what_has_no_scale_has_no_bar(given: tuple[float, float]):
    with pytest.raises(OutOfRangeError, match="above zero"):
        fitting_bar(*given)


@pytest.mark.parametrize("length_um", [0.0, -5.0, math.nan, math.inf])
def test_a_bar_without_a_length_is_refused(length_um: float):
    with pytest.raises(OutOfRangeError, match="scale bar"):
        bar_of(length_um, 1.0)
