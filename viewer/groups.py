"""Groups of channels: made, named, taken apart; what is shown of them; the rows of a table that lists them.

Groups are values (`ChannelGroup`); a tuple of them belongs to an engine. What changes groups returns another tuple.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from rawmosaic.viewer.channels import ChannelView
from rawmosaic.viewer.display_state import ChannelGroup

Groups = tuple[ChannelGroup, ...]

LEAST_PREFIX = 2
"""Letters that names must have in common to name a group."""


class Row(NamedTuple):
    """One line of the channel table: a group's heading (`channel` None), or a channel, in a group or in none (`group` None)."""

    group: int | None
    channel: int | None


def grouped(groups: Groups, channels: Iterable[int], name: str = "") -> Groups:
    """With one more group at the end; its channels leave the groups they were in, and a group without channels goes."""
    chosen = tuple(dict.fromkeys(channels))
    return (*without_channels(groups, chosen), ChannelGroup(name, chosen)) if chosen else groups


def joined(groups: Groups, number: int, channels: Iterable[int]) -> Groups:
    """With these channels in a group, and in no other."""
    chosen = dict.fromkeys([*groups[number].channels, *channels])
    changed = []
    for place, group in enumerate(groups):
        kept = tuple(chosen) if place == number else tuple(channel for channel in group.channels if channel not in chosen)
        if kept:
            changed.append(replace(group, channels=kept))
    return tuple(changed)


def without_channels(groups: Groups, channels: Collection[int]) -> Groups:
    """With these channels in no group."""
    left = (replace(group, channels=tuple(c for c in group.channels if c not in channels)) for group in groups)
    return tuple(group for group in left if group.channels)


def ungrouped(groups: Groups, number: int) -> Groups:
    """Without a group; its channels stay."""
    return groups[:number] + groups[number + 1 :]


def renamed(groups: Groups, number: int, name: str) -> Groups:
    """With another name for a group."""
    return (*groups[:number], replace(groups[number], name=name), *groups[number + 1 :])


def folded(groups: Groups, number: int) -> Groups:
    """With a group folded, or unfolded if it was."""
    return (*groups[:number], replace(groups[number], folded=not groups[number].folded), *groups[number + 1 :])


def proposed_name(groups: Groups, names: Sequence[str]) -> str:
    """A name for a group of channels with these names: what they begin with alike, else "group" and a number; none twice."""
    taken = {group.name for group in groups}
    common = _common_start([name.strip() for name in names]).rstrip(" -_.:/(")
    if len(common) >= LEAST_PREFIX and common not in taken:
        return common
    return next(name for number in range(1, len(taken) + 2) if (name := f"group {number}") not in taken)


def group_of(groups: Groups, channels: Collection[int]) -> int | None:
    """The group that has exactly these channels."""
    wanted = set(channels)
    return next((number for number, group in enumerate(groups) if set(group.channels) == wanted), None)


def shown(looks: Sequence[ChannelView], channels: Iterable[int]) -> bool | None:
    """Whether these channels are shown: all of them, none, or (None) some."""
    seen = {looks[channel].visible for channel in channels}
    return seen.pop() if len(seen) == 1 else None


def show(looks: Sequence[ChannelView], channels: Iterable[int], visible: bool = True) -> None:
    """Show or hide channels."""
    for channel in channels:
        looks[channel].visible = visible


def show_alone(looks: Sequence[ChannelView], channels: Collection[int]) -> None:
    """Show these and no others; all, if they are alone already."""
    alone = is_alone(looks, channels)
    for number, look in enumerate(looks):
        look.visible = alone or number in channels


def is_alone(looks: Sequence[ChannelView], channels: Collection[int]) -> bool:
    """Whether these channels are shown, and no others."""
    return {number for number, look in enumerate(looks) if look.visible} == set(channels)


def table_rows(groups: Groups, names: Sequence[str], words: str = "") -> list[Row]:
    """What the channel table lists: groups with their channels, then those in no group, by number.

    `words` must all be in a channel's name, or in that of its group; then nothing is hidden by folding.
    """
    wanted = words.casefold().split()
    rows: list[Row] = []
    placed: set[int] = set()
    for number, group in enumerate(groups):
        members = [channel for channel in group.channels if channel < len(names)]
        placed.update(members)
        found = members if _has(group.name, wanted) else [c for c in members if _has(f"{group.name} {names[c]}", wanted)]
        if not found:
            continue
        rows.append(Row(number, None))
        if wanted or not group.folded:
            rows += [Row(number, channel) for channel in found]
    rows += [Row(None, channel) for channel, name in enumerate(names) if channel not in placed and _has(name, wanted)]
    return rows


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names, default=""), max(names, default="")  # those between share what the outermost share
    return first[: next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))]


def _has(name: str, words: list[str]) -> bool:
    name = name.casefold()
    return all(word in name for word in words)
