"""The display state: everything that can be adjusted of a view, as one value, and as JSON (docs/display-state.md).

`capture` takes it from an engine and `apply` gives it back, to the same slide or, as a preset, to another one. Whatever has an
engine's attributes will do, the offscreen viewer for instance. Nothing here reads a file or knows GL.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from rawmosaic.storage.errors import FormatVersionError, SlideError
from rawmosaic.viewer.blending import BACKGROUNDS, MODES, checked_unmixing
from rawmosaic.viewer.channels import ChannelView, parse_color
from rawmosaic.viewer.palettes import COLOR_MAPS
from rawmosaic.viewer.plan import INTERPOLATIONS, OVERLAP_MODES, PROJECTIONS

FORMAT, VERSION = "rawmosaic display state", 1

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ChannelState:
    """The looks of one channel, as `ChannelView`; `column`: its column of the mixer matrix where that is not its colour.

    `name` is the slide's, by which channels are matched; `label` is what the user calls it, if anything else.
    """

    name: str
    limits: tuple[float, float]
    color: str
    gamma: float = 1.0
    visible: bool = True
    column: Triple | None = None
    label: str = ""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are shown, hidden and adjusted together; by their numbers. `folded`: tables do not list them."""

    name: str
    channels: tuple[int, ...]
    folded: bool = False


@dataclass(frozen=True)
class Bookmark:
    """A place to come back to: centre in mosaic µm, scale, z and t."""

    name: str
    x_um: float
    y_um: float
    scale: float
    z: int = 0
    t: int = 0


@dataclass(frozen=True)
class DisplayState:
    """How a view looks. `scale`: screen pixels per image pixel; `unmixing`: the rows of U, or None.

    `extra`: what a file held beside that; kept when it is written again.
    """

    x_um: float
    y_um: float
    scale: float
    channels: tuple[ChannelState, ...] = ()
    overlap: str = "top"
    position_set: str = "stage"
    z: int = 0
    t: int = 0
    interpolation: str = "auto"
    projection: str = "none"
    outlines: bool = False
    mode: str = "colour"
    background: str = "black"
    color_map: str | None = None
    unmixing: tuple[tuple[float, ...], ...] | None = None
    groups: tuple[ChannelGroup, ...] = ()
    bookmarks: tuple[Bookmark, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)


def capture(engine: Any) -> DisplayState:
    """What an engine shows now."""
    camera, unmixing = engine.camera, checked_unmixing(engine.unmixing, len(engine.channels))
    return DisplayState(
        x_um=float(camera.x_um),
        y_um=float(camera.y_um),
        scale=float(camera.scale),
        channels=tuple(_state_of(look) for look in engine.channels),
        overlap=engine.overlap,
        position_set=engine.position_set,
        z=int(engine.z),
        t=int(engine.t),
        interpolation=engine.interpolation,
        projection=engine.projection,
        outlines=bool(engine.show_outlines),
        mode=engine.mode,
        background=engine.background,
        color_map=engine.color_map,
        unmixing=None if unmixing is None else tuple(tuple(row) for row in unmixing.tolist()),
        groups=tuple(engine.groups),
        bookmarks=tuple(engine.bookmarks),
    )


def apply(state: DisplayState, engine: Any, *, preset: bool = False) -> list[str]:
    """Show a state; returns a line for each thing that does not fit this slide and was left as it is.

    Channels are matched by the slide's name, then by what users call them, the others by number. A `preset` is the looks
    alone: camera, position set, z, t and bookmarks stay, and only outlines, rules and channels change.
    """
    told: list[str] = []
    asked, there = [each.name for each in state.channels], [look.name for look in engine.channels]
    labels = [each.label for each in state.channels], [look.label for look in engine.channels]
    matches = matched_channels(asked, there, told, labels)
    for number, at in matches.items():
        _apply_channel(state.channels[number], engine.channels[at])
        _apply_label(state.channels[number], engine.channels[at], preset=preset)
    for name, choices in _CHOICES.items():
        _choose(engine, name, getattr(state, name), choices, told)
    engine.show_outlines = state.outlines
    _apply_unmixing(state, engine, matches, told)
    _apply_groups(state, engine, matches, told)
    if not preset:
        _apply_place(state, engine, told)
    return told


def matched_channels(
    names: Sequence[str],
    there: Sequence[str],
    told: list[str] | None = None,
    labels: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> dict[int, int]:
    """Which channel of a slide takes the looks of each in a state: that of the same name (the n-th of a name the n-th), else one
    that is called so, else that of the same number, if it is free. Lines of what does not match are added to `told`.

    `labels`: what users call the channels of the state, and those of the slide; "" for those that have no other name.
    """
    matches, free = {}, dict.fromkeys(range(len(there)))
    for same in (_same_name, _same_label):
        for number, name in enumerate(names):
            if number in matches:
                continue
            called = _Called(name, _at(labels[0], number))
            if (at := next((p for p in free if same(called, _Called(there[p], _at(labels[1], p)))), None)) is not None:
                matches[number] = at
                free.pop(at)
    said = [] if told is None else told
    for number, name in enumerate(names):
        if number in matches:
            continue
        if number in free:
            matches[number] = number
            free.pop(number)
            said.append(f"channel “{name}” is not here; its looks were given to channel {number + 1}, “{there[number]}”")
        else:
            said.append(f"channel “{name}” is not here")
    if names:
        said += [f"channel “{there[place]}” stays as it was: the settings do not know it" for place in free]
    return matches


# JSON


def to_json(state: DisplayState) -> str:
    """The text of a display state file."""
    known: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "camera": {"x_um": state.x_um, "y_um": state.y_um, "scale": state.scale},
        "channels": [_channel_json(channel) for channel in state.channels],
    }
    known |= {name: getattr(state, name) for name in _PLAIN_KEYS}
    known["unmixing"] = None if state.unmixing is None else [list(row) for row in state.unmixing]
    known["groups"] = [_group_json(group) for group in state.groups]
    known["bookmarks"] = [{each.name: getattr(mark, each.name) for each in fields(mark)} for mark in state.bookmarks]
    return json.dumps(
        {**known, **{key: state.extra[key] for key in state.extra if key not in known}}, indent=1, ensure_ascii=False
    )


def from_json(text: str, location: object = None) -> DisplayState:
    """The display state in a text. Unknown keys are kept. Raises SlideError, which names the file and the key; FormatVersionError
    where a newer rawmosaic wrote it."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SlideError(f"no display state: this is not JSON ({error})", location=location) from None
    read = _Reader(location)
    content = read.mapping(content, "the whole")
    if content.get("format") != FORMAT:
        raise SlideError(f"no display state: “format” is not “{FORMAT}”", location=location)
    version = read.integer(content.get("version"), "version")
    if version > VERSION:
        limits = f"written by a newer rawmosaic (display state version {version}; this one reads up to {VERSION}); update it"
        raise FormatVersionError(limits, location=location)
    camera = read.mapping(content.get("camera"), "camera")
    state = DisplayState(
        x_um=read.number(camera.get("x_um"), "camera.x_um"),
        y_um=read.number(camera.get("y_um"), "camera.y_um"),
        scale=read.positive(camera.get("scale"), "camera.scale"),
        channels=read.each(content.get("channels", []), "channels", read.channel),
        groups=read.each(content.get("groups", []), "groups", read.group),
        bookmarks=read.each(content.get("bookmarks", []), "bookmarks", read.bookmark),
        unmixing=read.matrix(content.get("unmixing"), "unmixing"),
        extra={key: value for key, value in content.items() if key not in _KNOWN_KEYS},
    )
    plain = {name: _PLAIN_KEYS[name](read, content[name], name) for name in _PLAIN_KEYS if name in content}
    return replace(state, **plain)


class _Reader:
    """Values from JSON, each of the kind it must be; raises SlideError with the key otherwise."""

    def __init__(self, location: object):
        self._location = location

    def refuse(self, value: object, key: str, must: str) -> SlideError:
        shown = json.dumps(value, ensure_ascii=False, default=str)
        shown = shown if len(shown) < 60 else shown[:57] + "…"
        return SlideError(f"no display state: “{key}” must be {must}, not {shown}", location=self._location)

    def mapping(self, value: object, key: str) -> dict:
        if not isinstance(value, dict):
            raise self.refuse(value, key, "an object")
        return value

    def each(self, value: object, key: str, read: Callable[[object, str], Any]) -> tuple:
        if not isinstance(value, list):
            raise self.refuse(value, key, "a list")
        return tuple(read(item, f"{key}[{number}]") for number, item in enumerate(value))

    def text(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            raise self.refuse(value, key, "a text")
        return value

    def text_or_nothing(self, value: object, key: str) -> str | None:
        return None if value is None else self.text(value, key)

    def truth(self, value: object, key: str) -> bool:
        if not isinstance(value, bool):
            raise self.refuse(value, key, "true or false")
        return value

    def number(self, value: object, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refuse(value, key, "a finite number")
        return float(value)

    def positive(self, value: object, key: str) -> float:
        number = self.number(value, key)
        if number <= 0:
            raise self.refuse(value, key, "a number above zero")
        return number

    def integer(self, value: object, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.refuse(value, key, "a whole number from 0")
        return value

    def numbers(self, value: object, key: str, count: int | None = None) -> tuple[float, ...]:
        found = self.each(value, key, self.number)
        if count is not None and len(found) != count:
            raise self.refuse(value, key, f"{count} numbers")
        return found

    def matrix(self, value: object, key: str) -> tuple[tuple[float, ...], ...] | None:
        if value is None:
            return None
        rows = self.each(value, key, self.numbers)
        if any(len(row) != len(rows) for row in rows):
            raise self.refuse(value, key, "a square matrix, row by row")
        return rows

    def color(self, value: object, key: str) -> str:
        try:
            parse_color(self.text(value, key))
        except IndexError:
            raise self.refuse(value, key, "a colour as #rrggbb") from None
        return str(value)

    def channel(self, value: object, key: str) -> ChannelState:
        """One entry of ``channels``: name, limits (two raw counts) and colour must be there; `mixer` (three numbers) and `label`
        need not."""
        known = self.mapping(value, key)
        column = known.get("mixer")
        return ChannelState(
            name=self.text(known.get("name"), f"{key}.name"),
            limits=self.numbers(known.get("limits"), f"{key}.limits", 2),
            color=self.color(known.get("color"), f"{key}.color"),
            gamma=self.positive(known.get("gamma", 1.0), f"{key}.gamma"),
            visible=self.truth(known.get("visible", True), f"{key}.visible"),
            column=None if column is None else self.numbers(column, f"{key}.mixer", 3),
            label=self.text(known.get("label", ""), f"{key}.label"),
        )

    def group(self, value: object, key: str) -> ChannelGroup:
        """One entry of ``groups``: a name, and numbers of the file's own channels, from 0; `folded` need not be there."""
        known = self.mapping(value, key)
        numbers = self.each(known.get("channels"), f"{key}.channels", self.integer)
        folded = self.truth(known.get("folded", False), f"{key}.folded")
        return ChannelGroup(self.text(known.get("name"), f"{key}.name"), numbers, folded)

    def bookmark(self, value: object, key: str) -> Bookmark:
        """One entry of ``bookmarks``: name, centre (mosaic µm) and scale must be there; z and t are 0 where they are not."""
        known = self.mapping(value, key)
        return Bookmark(
            name=self.text(known.get("name"), f"{key}.name"),
            x_um=self.number(known.get("x_um"), f"{key}.x_um"),
            y_um=self.number(known.get("y_um"), f"{key}.y_um"),
            scale=self.positive(known.get("scale"), f"{key}.scale"),
            z=self.integer(known.get("z", 0), f"{key}.z"),
            t=self.integer(known.get("t", 0), f"{key}.t"),
        )


_PLAIN_KEYS: dict[str, Callable[[_Reader, object, str], Any]] = {
    "overlap": _Reader.text,
    "position_set": _Reader.text,
    "z": _Reader.integer,
    "t": _Reader.integer,
    "interpolation": _Reader.text,
    "projection": _Reader.text,
    "outlines": _Reader.truth,
    "mode": _Reader.text,
    "background": _Reader.text,
    "color_map": _Reader.text_or_nothing,
}
"""Keys whose value is that of the field of the same name."""

_KNOWN_KEYS = {"format", "version", "camera", "channels", "groups", "bookmarks", "unmixing", *_PLAIN_KEYS}

_CHOICES: dict[str, tuple] = {
    "overlap": OVERLAP_MODES,
    "interpolation": INTERPOLATIONS,
    "projection": PROJECTIONS,
    "mode": MODES,
    "background": BACKGROUNDS,
    "color_map": (None, *COLOR_MAPS),
}


class _Called(NamedTuple):
    """The slide's name of a channel, and the user's; "" where there is none."""

    name: str
    label: str


def _at(labels: Sequence[str], number: int) -> str:
    return labels[number] if number < len(labels) else ""


def _same_name(one: _Called, other: _Called) -> bool:
    return one.name.casefold() == other.name.casefold()


def _same_label(one: _Called, other: _Called) -> bool:
    """Whether two channels are called alike, by users or by one of the slides."""
    return not {name.casefold() for name in one if name}.isdisjoint(name.casefold() for name in other if name)


def _state_of(look: ChannelView) -> ChannelState:
    low, high = look.limits
    column = None if look.column is None else tuple(float(part) for part in look.column)
    limits, gamma = (float(low), float(high)), float(look.gamma)
    return ChannelState(look.name, limits, look.color, gamma, bool(look.visible), column, look.label)


def _channel_json(channel: ChannelState) -> dict[str, Any]:
    known = {
        "name": channel.name,
        "limits": list(channel.limits),
        "color": channel.color,
        "gamma": channel.gamma,
        "visible": channel.visible,
    }
    if channel.column is not None:
        known["mixer"] = list(channel.column)
    if channel.label:
        known["label"] = channel.label
    return known


def _group_json(group: ChannelGroup) -> dict[str, Any]:
    known: dict[str, Any] = {"name": group.name, "channels": list(group.channels)}
    return {**known, "folded": True} if group.folded else known


def _apply_label(state: ChannelState, look: ChannelView, *, preset: bool) -> None:
    """The user's name goes to the channel that it was given to, not to one that stands in for it; a preset takes none away."""
    if state.name.casefold() == look.name.casefold() and (state.label or not preset):
        look.label = state.label


def _apply_channel(state: ChannelState, look: ChannelView) -> None:
    """Everything but the names."""
    look.limits, look.gamma, look.visible = state.limits, state.gamma, state.visible
    look.color = state.color
    look.column = state.column


def _choose(engine: Any, name: str, value: object, choices: Sequence, told: list[str]) -> None:
    if value in choices:
        setattr(engine, name, value)
    else:
        told.append(f"{name.replace('_', ' ')} “{value}” is not known here; it stays “{getattr(engine, name)}”")


def _apply_unmixing(state: DisplayState, engine: Any, matches: Mapping[int, int], told: list[str]) -> None:
    engine.unmixing = None
    if state.unmixing is None:
        return
    if len(matches) < len(state.unmixing):
        told.append("the unmixing matrix is left out: it needs channels that are not here")
        return
    places = [matches[number] for number in range(len(state.unmixing))]
    matrix = np.eye(len(engine.channels))
    matrix[np.ix_(places, places)] = state.unmixing
    engine.unmixing = checked_unmixing(matrix, len(engine.channels))


def _apply_groups(state: DisplayState, engine: Any, matches: Mapping[int, int], told: list[str]) -> None:
    groups = []
    for group in state.groups:
        here = tuple(matches[number] for number in group.channels if number in matches)
        if here:
            groups.append(replace(group, channels=here))
        if len(here) < len(group.channels):
            told.append(f"group “{group.name}” lacks {len(group.channels) - len(here)} of its channels here")
    engine.groups = tuple(groups)


def _apply_place(state: DisplayState, engine: Any, told: list[str]) -> None:
    slide = engine.slide
    _choose(engine, "position_set", state.position_set, slide.position_sets, told)
    for axis, size in (("z", slide.size_z), ("t", slide.size_t)):
        wanted = getattr(state, axis)
        setattr(engine, axis, min(wanted, size - 1))
        if wanted >= size:
            told.append(f"{axis} {wanted} is not here (0 to {size - 1})")
    engine.camera = replace(engine.camera, x_um=state.x_um, y_um=state.y_um, scale=state.scale)
    engine.bookmarks = state.bookmarks
