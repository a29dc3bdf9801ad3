"""How a picture looks, on the command line: channels, limits, colours, placement, plane. Shared by what draws pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rawmosaic.cli.options import Named, numbers, positive_number

if TYPE_CHECKING:
    from rawmosaic.storage import Slide
    from rawmosaic.viewer import OffscreenViewer

LOOK_OPTIONS = (
    click.option("--channels", metavar="A,B", help="Channels to show, by name or number; else all."),
    click.option(
        "--limits",
        multiple=True,
        type=Named("NAME=LOW:HIGH", lambda text: numbers(text, ":"), "DAPI=400:3000"),
        help="Counts shown as black and as full colour; else from the slide's histograms.",
    ),
    click.option(
        "--colors", multiple=True, type=Named("NAME=COLOR", lambda text: text or None, "DAPI=#0000ff"), help="#rrggbb or a name."
    ),
    click.option("--gamma", multiple=True, type=Named("NAME=G", positive_number, "DAPI=0.7"), help="Exponent after the limits."),
    click.option(
        "--overlap",
        type=click.Choice(["top", "nearest", "feather", "max"]),
        show_default="top",
        help="Which field wins where fields overlap.",
    ),
    click.option("--positions", metavar="NAME", show_default="stage", help="Position set that places the fields."),
    click.option("--z", type=int, show_default="0", metavar="N", help="Plane of the stack."),
    click.option("--t", type=int, show_default="0", metavar="N", help="Time point."),
    click.option(
        "--interpolation", type=click.Choice(["nearest", "smooth"]), help="Else nearest when magnified, smooth when reduced."
    ),
)

_ATTRIBUTES = {"overlap": "overlap", "positions": "position_set", "z": "z", "t": "t", "interpolation": "interpolation"}
_LOOKS = {"limits": "limits", "colors": "color", "gamma": "gamma"}


def look_options(function: Callable) -> Callable:
    """Add the options of the picture's looks to a command; `read_looks` takes them out of its keyword arguments."""
    for option in reversed(LOOK_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True)
class Looks:
    """What was told of the looks: attributes of a viewer, channels to show, and (channel, attribute, value) of others."""

    view: Mapping[str, Any]
    shown: frozenset[int] | None
    values: tuple[tuple[int, str, Any], ...]

    def apply(self, viewer: OffscreenViewer) -> None:
        """Set them; what was not told stays as it is. Raises OutOfRangeError for what the slide does not have."""
        for name, value in self.view.items():
            setattr(viewer, name, value)
        for number, look in enumerate(viewer.channels):
            if self.shown is not None:
                look.visible = number in self.shown
        for number, name, value in self.values:
            setattr(viewer.channels[number], name, value)

    def tells_limits(self, n_channels: int) -> bool:
        """Whether the limits of all channels to show were told, so that no histogram is needed."""
        shown = range(n_channels) if self.shown is None else self.shown
        return set(shown) <= {number for number, name, _ in self.values if name == "limits"}


def read_looks(slide: Slide, told: dict[str, Any]) -> Looks:
    """Take the looks out of a command's arguments, checked against the slide; raises OutOfRangeError."""
    view = {_ATTRIBUTES[name]: value for name in _ATTRIBUTES if (value := told.pop(name)) is not None}
    for axis, count in (("z", slide.size_z), ("t", slide.size_t)):
        check_index(slide, axis, view.get(axis, 0), count)
    names = told.pop("channels")
    values = tuple((channel_number(slide, name), _LOOKS[look], value) for look in _LOOKS for name, value in told.pop(look))
    return Looks(view, None if names is None else frozenset(shown_channels(slide, names)), values)


def channel_number(slide: Slide, name: str) -> int:
    """The channel of a name, the slide's or else the user's (in any case, if that is not ambiguous), or of a number; raises
    OutOfRangeError with all names."""
    names = [channel.name for channel in slide.channels]
    if (number := _number_of(name, names)) is not None:
        return number
    labels = channel_labels(slide)
    if name and (number := _number_of(name, labels)) is not None:
        return number
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    from rawmosaic.storage.errors import OutOfRangeError

    known = [f"{own} (called {label})" if label else own for own, label in zip(names, labels, strict=True)]
    raise OutOfRangeError("channel", name, "the slide has " + ", ".join(known), location=slide.location)


def _number_of(name: str, names: Sequence[str]) -> int | None:
    """Where a name stands, in any case if that is not ambiguous."""
    if name in names:
        return names.index(name)
    alike = [number for number, other in enumerate(names) if other.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None


def channel_labels(slide: Slide) -> list[str]:
    """What the user called each channel in the window, from what was kept for the slide; "" where nothing else than it does."""
    from rawmosaic.viewer.display_state import matched_channels
    from rawmosaic.viewer.saved_state import load

    labels = [""] * len(slide.channels)
    if (state := load(slide).state) is not None:
        asked, there = [channel.name for channel in state.channels], [channel.name for channel in slide.channels]
        for number, at in matched_channels(asked, there).items():
            if asked[number].casefold() == there[at].casefold():  # else it is another channel at the same place
                labels[at] = state.channels[number].label
    return labels


def shown_channels(slide: Slide, names: str) -> set[int]:
    """Numbers of the channels that are named with commas between."""
    # A name may itself hold a comma: then the whole text is that name.
    known = [channel.name for channel in slide.channels]
    whole = [names] if names in known or ("," in names and names in channel_labels(slide)) else names.split(",")
    return {channel_number(slide, name.strip()) for name in whole}


def check_index(slide: Slide, what: str, value: int, count: int) -> None:
    """Raise OutOfRangeError unless the slide has this z, t or field."""
    from rawmosaic.storage.errors import OutOfRangeError

    if not 0 <= value < count:
        raise OutOfRangeError(what, value, f"the slide has {what} 0 to {count - 1}", location=slide.location)


def finish_zoom_layers(slide: Slide) -> None:
    """Wait, with a progress bar, for the zoom layers and histograms of a slide that makes them in the background."""
    if hasattr(slide, "wait"):
        from rawmosaic.cli.progress import progress_bar

        with progress_bar("Zoom layers") as progress:
            slide.wait(progress=progress)


def unreadable_in_view(slide: Slide, viewer: OffscreenViewer) -> set[str]:
    """What a slide viewed in place could not read of the planes in view: its zoom layers are black there, and no tile fails."""
    view, geometry = viewer.engine.view(), viewer.engine.geometry
    fields = {channel: set(geometry.in_view(view.camera, channel).tolist()) for channel in view.channels}
    unreadable = dict(getattr(slide, "unreadable", {}))
    return {
        str(error)
        for (field, channel, z, t), error in unreadable.items()
        if (z, t) == (view.z, view.t) and field in fields.get(channel, ())
    }
