"""What several commands share: the kinds of values on the command line, and the options of raw acquisitions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from rawmosaic.storage.placement import ORIENTATIONS


class Size(click.ParamType):
    """``1280x720`` → (1280, 720), pixels."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        width, _, height = value.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not a size; write WIDTHxHEIGHT in pixels, such as 1280x720", param, ctx)
        return int(width), int(height)


class Numbers(click.ParamType):
    """Two finite numbers: ``100:4000`` → (100.0, 4000.0)."""

    def __init__(self, name: str, separator: str, example: str):
        self.name, self.separator, self.example = name, separator, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        pair = numbers(value, self.separator)
        if pair is None:
            self.fail(f"{value!r} is not {self.name}; write two numbers, such as {self.example}", param, ctx)
        return pair


class Region(click.ParamType):
    """``1200,850,1600,1100`` → (left, top, right, bottom), µm."""

    name = "X0,Y0,X1,Y1"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float, float, float]:
        if isinstance(value, tuple):
            return value
        sides = tuple(number(part) for part in value.split(","))
        if len(sides) != 4 or None in sides or not (sides[0] < sides[2] and sides[1] < sides[3]):
            told = "write left, top, right and bottom in µm, such as 1200,850,1600,1100"
            self.fail(f"{value!r} is not a region; {told}", param, ctx)
        return sides


class Named(click.ParamType):
    """``NAME=VALUE`` → ("NAME", value), the value read by `read`, which gives None for what it cannot read."""

    def __init__(self, name: str, read: Callable[[str], Any], example: str):
        self.name, self.read, self.example = name, read, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.rpartition("=")  # a channel's name may hold an equals sign
        found = self.read(text) if equals and name else None
        if found is None:
            self.fail(f"{value!r} is not {self.name}; write for example {self.example}", param, ctx)
        return name, found


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def positive_number(text: str) -> float | None:
    """A finite number above zero, or None."""
    value = number(text)
    return value if value is not None and value > 0 else None


def numbers(text: str, separator: str) -> tuple[float, float] | None:
    """Two finite numbers with a separator between, or None."""
    first, _, second = text.partition(separator)
    pair = number(first), number(second)
    return None if None in pair else pair


class Command(click.Command):
    """A command whose repeatable options also take several values in a row: ``--limits DAPI=100:4000 FITC=90:900``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {name for parameter in self.params if getattr(parameter, "multiple", False) for name in parameter.opts}
        return super().parse_args(ctx, spread(args, repeatable))


def spread(arguments: Sequence[str], repeatable: set[str]) -> list[str]:
    """The arguments with a repeatable option before each of its NAME=VALUE values; an existing file is none of them."""
    result: list[str] = []
    option, value_is_next = None, False
    for argument in arguments:
        if value_is_next:
            value_is_next = False
        elif argument in repeatable:
            option, value_is_next = argument, True
        elif option is not None and "=" in argument and not argument.startswith("-") and not os.path.exists(argument):
            result.append(option)
        else:
            option = None
        result.append(argument)
    return result


LOCATION = click.argument("location")

ACQUISITION_OPTIONS = (
    click.option(
        "--pixel-size-um", type=click.FloatRange(min=0, min_open=True), help="Size of a camera pixel on the specimen, µm."
    ),
    click.option(
        "--orientation",
        type=click.Choice(list(ORIENTATIONS)),
        help="How the camera is mounted: turns each image in its place, not the stage; a wrong one looks like bad stitching.",
    ),
    click.option("--camera-angle", type=float, metavar="DEGREES", help="Clockwise turn of the camera against the stage."),
    click.option(
        "--scale-float",
        type=Numbers("LOW:HIGH", ":", "0:1"),
        help="For floating-point images: the values that become 0 and 65535.",
    ),
)

_OPENING_NAMES = {
    "pixel_size_um": "pixel_size_um",
    "orientation": "orientation",
    "camera_angle": "camera_angle_deg",
    "scale_float": "scale_float",
}
"""Options of raw acquisitions → arguments of `open_slide`."""


def acquisition_options(function: Callable) -> Callable:
    """Add the options of raw acquisitions to a command; `opening_options` takes them from its keyword arguments."""
    for option in reversed(ACQUISITION_OPTIONS):
        function = option(function)
    return function


def take_acquisition(told: dict[str, Any]) -> dict[str, Any]:
    """Take the options of raw acquisitions out of a command's keyword arguments."""
    return {name: told.pop(name) for name in _OPENING_NAMES if name in told}


def budget_options(function: Callable) -> Callable:
    """Add --ram and --vram, as ``ram`` and ``vram``: texts that the viewer reads and, if they make no sense, refuses."""
    vram = click.option("--vram", metavar="SIZE", help="Budget of the texture cache, such as 512M; else RAWMOSAIC_VRAM.")
    return click.option("--ram", metavar="SIZE", help="Budget of the tile cache, such as 2G; else RAWMOSAIC_RAM.")(vram(function))


def opening_options(location: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """The options to open a location with: those that were told. Raises UsageError where they would be ignored."""
    from rawmosaic.storage.opening import is_virtual_slide

    options = {_OPENING_NAMES[name]: value for name, value in told.items() if value is not None}
    if options and is_virtual_slide(location):
        given = ", ".join("--" + name.replace("_", "-") for name, value in told.items() if value is not None)
        raise click.UsageError(f"{location} is a virtual slide, which says itself how it was acquired; leave out {given}")
    return options
