"""What a `useq` sequence is going to take, as a slide knows it: channels, fields, scenes, z and t; and which of them a frame is.

A place is a (position, grid) index pair of the sequence. Places are known beforehand where the sequence can tell them; random
points that are drawn anew each time, and events that somebody makes one by one, are placed as they come. Nothing here needs
`useq` itself: sequences and events are asked for what they have.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError
from rawmosaic.storage.slide import Channel, new_fields, spatial_slots

PlaceKey = tuple[int, int]
"""Position index and grid index, 0 where the sequence does not have the axis."""

ChannelKey = tuple[str, str, int]
"""Group ("": any), configuration, and the how-manieth of that name in the list that it stands in."""

AS_IT_IS: ChannelKey = ("", "", 0)
"""The channel of events that change nothing."""


@dataclass(frozen=True)
class PlaneAddress:
    """Where a frame belongs. `field` is None where fields are placed as they come; `scene` is None without scenes."""

    field: int | None
    scene: int | None
    channel: int
    z: int
    t: int


@dataclass(frozen=True, eq=False)
class SequencePlan:
    """What a sequence will take.

    channels    as the slide has them; with several cameras, each colour once a camera
    fields      (n,) FIELD_DTYPE, or None: the fields come as they come
    """

    channels: tuple[Channel, ...]
    size_z: int
    size_t: int
    scenes: tuple[str, ...]
    fields: np.ndarray | None
    n_cameras: int
    channel_numbers: Mapping[ChannelKey, int]
    field_numbers: Mapping[PlaceKey, int]
    scene_numbers: Mapping[int, int]
    channel_lists: Mapping[int, Sequence[ChannelKey]]
    """Position index → the colours that it takes; −1 for all other positions."""

    def address(self, event: Any) -> PlaneAddress:
        """Where the frame of an event belongs; OutOfRangeError for what was not announced."""
        place = place_of(event)
        if self.fields is not None and place not in self.field_numbers:
            raise OutOfRangeError("place", place, f"the sequence announced {len(self.fields)} places as (position, grid) numbers")
        z, t = int(event.index.get("z", 0)), int(event.index.get("t", 0))
        for what, value, size in (("z", z, self.size_z), ("t", t, self.size_t)):
            if not 0 <= value < size:
                limits = f"the scan was started with {what} 0 to {size - 1}; give size_{what}= for events that come one by one"
                raise OutOfRangeError(what, value, limits)
        return PlaneAddress(self.field_numbers.get(place), self.scene_numbers.get(place[0]), self._channel(event), z, t)

    def _channel(self, event: Any) -> int:
        key = self._channel_key(event)
        number = self.channel_numbers.get(key, self.channel_numbers.get(("", key[1], 0)))
        if number is None:
            names = ", ".join(channel.name for channel in self.channels)
            limits = f"the scan was started with {names}; give channels= for events that come one by one"
            raise OutOfRangeError("channel", key[1] or "(none)", limits)
        camera = int(event.index.get("cam", 0))
        if not 0 <= camera < self.n_cameras:
            raise OutOfRangeError("camera", camera, f"the scan was started with {self.n_cameras}")
        return number * self.n_cameras + camera

    def _channel_key(self, event: Any) -> ChannelKey:
        if event.channel is None:
            return AS_IT_IS
        named = (event.channel.group, event.channel.config)
        keys = self.channel_lists.get(place_of(event)[0], self.channel_lists.get(-1, ()))
        number = int(event.index.get("c", 0))
        if number < len(keys) and keys[number][:2] == named:
            return keys[number]
        return (*named, 0)


def place_of(event: Any) -> PlaceKey:
    """(position, grid) index of an event."""
    return int(event.index.get("p", 0)), int(event.index.get("g", 0))


def is_open_ended(sequence: Any) -> bool:
    """Whether the sequence only stands for events that come one by one, from a generator or a list."""
    return sequence is None or not sequence.axis_order


def plan_sequence(
    sequence: Any,
    *,
    field_shape: tuple[int, int],
    stage_um: tuple[float, float] = (0.0, 0.0),
    cameras: Sequence[str] = ("",),
    channels: Sequence[str | Channel] | None = None,
    unnamed: str = "camera",
    size_z: int | None = None,
    size_t: int | None = None,
) -> SequencePlan:
    """What a `useq.MDASequence` will take.

    `stage_um`: where the stage is, for events that do not move it. `cameras`: their names, in the order of the `cam` index.
    `channels`, `size_z`, `size_t`: for sequences that do not tell; otherwise `channels` gives more facts of channels so named.
    `unnamed`: what the channel is called that is whatever is set. Raises AcquisitionError for a sequence that takes nothing.
    """
    open_ended = is_open_ended(sequence)
    positions = [] if open_ended else list(sequence.stage_positions)
    lists = _channel_lists(sequence, positions, open_ended)
    keys = list(dict.fromkeys(key for number in sorted(lists) for key in lists[number]))
    given = [channel if isinstance(channel, Channel) else Channel(str(channel)) for channel in channels or ()]
    if open_ended:
        keys = [("", channel.name, 0) for channel in given] or [AS_IT_IS]
        lists = {-1: keys}
    colours = _named(keys, _exposures(sequence, positions), given, unnamed)
    places = None if open_ended or _is_drawn_anew(sequence, positions) else _places(sequence, positions)
    if places is not None and not places:
        raise AcquisitionError("the sequence takes no frame: give it a channel, a position, a grid, z or t")
    n_places = {} if places is None else _count(place.key[0] for place in places)
    scenes, scene_numbers = _scenes(positions, n_places)
    return SequencePlan(
        channels=tuple(_of_camera(colour, camera, len(cameras)) for colour in colours for camera in cameras),
        size_z=size_z or _longest(sequence, positions, "z"),
        size_t=size_t or _longest(sequence, positions, "t"),
        scenes=scenes,
        fields=None if places is None else _field_table(places, field_shape, stage_um, scene_numbers),
        n_cameras=len(cameras),
        channel_numbers={key: number for number, key in enumerate(keys)},
        field_numbers={} if places is None else {place.key: number for number, place in enumerate(places)},
        scene_numbers=scene_numbers,
        channel_lists=lists,
    )


# places


@dataclass(frozen=True)
class _Place:
    key: PlaceKey
    x_um: float | None
    y_um: float | None
    z_um: float | None
    row: int
    column: int


def _places(sequence: Any, positions: Sequence) -> list[_Place]:
    """Every place of the sequence, in the order in which they are visited, from a sequence that goes to each of them once."""
    bare = sequence.replace(
        stage_positions=[_bare_position(position) for position in positions],
        channels=(),
        z_plan=None,
        time_plan=None,
        autofocus_plan=None,
        keep_shutter_open_across=(),
    )
    grids: dict[int, list] = {}
    found: dict[PlaceKey, _Place] = {}
    for event in bare:
        key = place_of(event)
        if key not in found:
            if key[0] not in grids:
                grids[key[0]] = _grid_of(sequence, positions, key[0])
            found[key] = _place(key, event, grids[key[0]], positions)
    if not found and any(sequence.sizes.values()):
        found[0, 0] = _Place((0, 0), None, None, None, -1, -1)  # one place: where the stage is
    return list(found.values())


def _bare_position(position: Any) -> Any:
    """A position that only says where it is, and of which grid it is the middle."""
    inner = position.sequence
    if inner is not None:
        grid = inner.grid_plan
        inner = inner.replace(channels=(), z_plan=None, time_plan=None, autofocus_plan=None) if grid else None
    return position.model_copy(update={"sequence": inner})


def _grid_of(sequence: Any, positions: Sequence, number: int) -> list:
    """The points of the grid around a position, by their index; empty without one."""
    inner = positions[number].sequence if number < len(positions) else None
    plan = inner.grid_plan if inner is not None and inner.grid_plan else sequence.grid_plan
    return list(plan) if plan else []


def _place(key: PlaceKey, event: Any, grid: list, positions: Sequence) -> _Place:
    point = grid[key[1]] if key[1] < len(grid) else positions[key[0]] if key[0] < len(positions) else None
    row, column = (getattr(point, name, None) for name in ("grid_row", "grid_col"))
    if row is None or column is None:
        row = column = -1
    return _Place(key, event.x_pos, event.y_pos, event.z_pos, int(row), int(column))


def _is_drawn_anew(sequence: Any, positions: Sequence) -> bool:
    """Whether points are random, and others each time somebody asks for them."""
    plans = [sequence.grid_plan, *(position.sequence.grid_plan for position in positions if position.sequence is not None)]
    return any(hasattr(plan, "random_seed") and plan.random_seed is None for plan in plans)


def _field_table(
    places: Sequence[_Place], field_shape: tuple[int, int], stage_um: tuple[float, float], scene_numbers: Mapping[int, int]
) -> np.ndarray:
    fields = new_fields(len(places), field_shape)
    for entry, place in zip(fields, places, strict=True):
        entry["row"], entry["column"] = place.row, place.column
        entry["scene"] = scene_numbers.get(place.key[0], -1)
        entry["x_um"] = stage_um[0] if place.x_um is None else place.x_um
        entry["y_um"] = stage_um[1] if place.y_um is None else place.y_um
        entry["z_um"] = place.z_um or 0.0
    fields["slot"] = spatial_slots(np.stack([fields["x_um"], fields["y_um"]], axis=-1))
    return fields


# scenes


def _scenes(positions: Sequence, n_places: Mapping[int, int]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of the scenes, and position index → scene: wells of a plate; else positions, where they have grids; else none."""
    wells = [(position.plate_row, position.plate_col) for position in positions]
    if any(None not in well for well in wells):
        groups: list = wells
        names = ["" if None in well else _well_name(*well) for well in wells]
    elif len(positions) > 1 and max(n_places.values(), default=1) > 1:
        groups = list(range(len(positions)))
        names = [position.name or "" for position in positions]
    else:
        return (), {}
    scenes: list[str] = []
    numbers: dict = {}
    for group, name in zip(groups, names, strict=True):
        if group not in numbers:
            numbers[group] = len(scenes)
            scenes.append(name if name and name not in scenes else f"{name or 'position'} {len(scenes) + 1}")
    return tuple(scenes), {position: numbers[group] for position, group in enumerate(groups)}


def _well_name(row: int, column: int) -> str:
    """As it is printed on a plate: A1 … Z24, AA1 …"""
    letters = string.ascii_uppercase
    name = ""
    row += 1
    while row:
        row, digit = divmod(row - 1, len(letters))
        name = letters[digit] + name
    return f"{name}{column + 1}"


# channels


def _channel_lists(sequence: Any, positions: Sequence, open_ended: bool) -> dict[int, list[ChannelKey]]:
    """Position index → its colours, where a position has its own; −1 → those of the others, if there are others."""
    if open_ended:
        return {}
    lists = {
        number: _channel_keys(position.sequence.channels)
        for number, position in enumerate(positions)
        if position.sequence is not None and position.sequence.channels
    }
    if len(lists) < len(positions) or not positions:
        lists[-1] = _channel_keys(sequence.channels) or [AS_IT_IS]
    return lists


def _channel_keys(channels: Iterable) -> list[ChannelKey]:
    seen: dict[tuple[str, str], int] = {}
    keys = []
    for channel in channels:
        named = (channel.group, channel.config)
        keys.append((*named, seen.get(named, 0)))
        seen[named] = seen.get(named, 0) + 1
    return keys


def _exposures(sequence: Any, positions: Sequence) -> dict[ChannelKey, float]:
    """Exposure in ms, of the channels that tell it."""
    sequences = [sequence, *(position.sequence for position in positions)]
    found: dict[ChannelKey, float] = {}
    for channels in (part.channels for part in sequences if part is not None):
        for key, channel in zip(_channel_keys(channels), channels, strict=True):
            if channel.exposure is not None:
                found.setdefault(key, float(channel.exposure))
    return found


def _named(
    keys: Sequence[ChannelKey], exposures: Mapping[ChannelKey, float], given: Sequence[Channel], unnamed: str
) -> list[Channel]:
    """A channel for each key: named by its configuration, and by more than that only where two would be called alike."""
    known = {channel.name: channel for channel in given}
    groups = {config: {key[0] for key in keys if key[1] == config} for _, config, _ in keys}
    channels = []
    for key in keys:
        group, config, again = key
        name = unnamed if key == AS_IT_IS else config if len(groups[config]) == 1 else f"{group} {config}"
        if again:
            name = f"{name} {again + 1}"
        channels.append(known.get(name) or Channel(name, exposure_ms=exposures.get(key)))
    return channels


def _of_camera(channel: Channel, camera: str, n_cameras: int) -> Channel:
    if n_cameras == 1:
        return channel
    return Channel(**{**vars(channel), "name": f"{channel.name} {camera}"})


# z and t


def _longest(sequence: Any, positions: Sequence, axis: str) -> int:
    """How many steps an axis has at most, 1 without it."""
    parts = [] if is_open_ended(sequence) else [sequence, *(position.sequence for position in positions)]
    return max([1, *(int(part.sizes.get(axis, 0)) for part in parts if part is not None)])


def _count(values: Iterable[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
