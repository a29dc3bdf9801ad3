"""Values on the command line."""

from __future__ import annotations

import click
import pytest

from rawmosaic.cli.options import Named, Numbers, Size, number, numbers, spread

REPEATABLE = {"--limits", "--colors"}


def test_size_is_width_then_height():
    assert Size().convert("1280x720", None, None) == (1280, 720)


@pytest.mark.parametrize("text", ["", "1280", "1280x", "x720", "0x720", "-1x5", "1280x720x3", "axb", "1.5x2"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(click.BadParameter, match="1280x720"):
        Size().convert(text, None, None)


def test_numbers_may_be_negative_and_broken():
    assert Numbers("X,Y", ",", "1,2").convert("-12.5,1e3", None, None) == (-12.5, 1000.0)


@pytest.mark.parametrize("text", ["", "1", "1,", "1,2,3", "nan,1", "inf,0", "a,b"])
def test_what_are_not_two_numbers_is_refused(text):
    with pytest.raises(click.BadParameter, match="two numbers"):
        Numbers("X,Y", ",", "1,2").convert(text, None, None)


def test_channel_names_may_hold_an_equals_sign():
    named = Named("NAME=LOW:HIGH", lambda text: numbers(text, ":"), "DAPI=1:2")
    assert named.convert("c=3=100:4000", None, None) == ("c=3", (100.0, 4000.0))


@pytest.mark.parametrize("text", ["DAPI", "DAPI=", "=1:2", "DAPI=1", "DAPI=1:2:3"])
def test_named_values_that_cannot_be_read_are_refused(text):
    with pytest.raises(click.BadParameter, match="DAPI=1:2"):
        Named("NAME=LOW:HIGH", lambda value: numbers(value, ":"), "DAPI=1:2").convert(text, None, None)


def test_numbers_are_finite():
    assert number("1.5") == 1.5
    assert number("nan") is None
    assert number("-inf") is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s.h5", "-o", "x.png"], ["s.h5", "-o", "x.png"]),
        (["--limits", "A=1:2", "s.h5"], ["--limits", "A=1:2", "s.h5"]),
        (["--limits", "A=1:2", "B=3:4", "s.h5"], ["--limits", "A=1:2", "--limits", "B=3:4", "s.h5"]),
        (["--limits", "A=1:2", "--colors", "A=red", "B=#00f"], ["--limits", "A=1:2", "--colors", "A=red", "--colors", "B=#00f"]),
        (["--limits", "A=1:2", "-o", "a=b.png"], ["--limits", "A=1:2", "-o", "a=b.png"]),
        (["--limits"], ["--limits"]),
    ],
)
def test_values_in_a_row_belong_to_their_option(arguments, expected):
    assert spread(arguments, REPEATABLE) == expected


def test_existing_file_is_a_location_and_not_a_value(tmp_path):
    path = tmp_path / "plate=3.h5"
    path.touch()
    assert spread(["--limits", "A=1:2", str(path)], REPEATABLE) == ["--limits", "A=1:2", str(path)]
