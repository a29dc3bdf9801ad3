"""Views that go together: of one slide, or of several, such as two stainings of one section.

The engines know nothing of it. Whoever draws them calls `follow` with the view that the hands are in, and draws those that it
returns. Views may differ in size; they share the centre and the µm that a screen pixel shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.channels import ChannelView
from rawmosaic.viewer.display_state import apply, capture

PARTS = ("place", "scale", "stack", "looks")
"""What views can share: the centre; µm per screen pixel; z and t; channels (matched by name, then number) and rules."""


@dataclass(frozen=True)
class Offset:
    """How one view stands to the common one: its centre minus that, µm, and its screen pixels per µm divided by that's."""

    dx_um: float = 0.0
    dy_um: float = 0.0
    zoom: float = 1.0


def offset_between(common: Camera, own: Camera) -> Offset:
    """The offset that leaves both cameras where they are."""
    return Offset(own.x_um - common.x_um, own.y_um - common.y_um, own.px_per_um / common.px_per_um)


def followed(leader: Camera, lead: Offset, own: Camera, offset: Offset, parts: Iterable[str] = PARTS) -> Camera:
    """Where a camera goes when the leader is there; `lead` and `offset` are the leader's and its own."""
    if "place" in parts:
        own = replace(own, x_um=leader.x_um - lead.dx_um + offset.dx_um, y_um=leader.y_um - lead.dy_um + offset.dy_um)
    if "scale" in parts:
        px_per_um = leader.px_per_um / lead.zoom * offset.zoom
        if not math.isclose(px_per_um, own.px_per_um, rel_tol=1e-12):
            own = replace(own, scale=px_per_um * own.pixel_size_um)
    return own


class LinkedViews:
    """Engines, or whatever has an engine's attributes, that show the same place in the same way."""

    def __init__(self, parts: Iterable[str] = PARTS):
        self.parts = frozenset(parts) & frozenset(PARTS)
        self._members: list[tuple[Any, Offset]] = []

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, engine: Any) -> bool:
        return any(member is engine for member, _ in self._members)

    def add(self, engine: Any, *, as_it_stands: bool = False) -> None:
        """Take a view in. It goes where the others are; `as_it_stands`, it keeps its distance to them and its zoom: two slides
        whose coordinates have nothing to do with each other are brought to the same place by hand, and linked then."""
        if engine in self:
            return
        if not self._members:
            self._members.append((engine, Offset()))
            return
        first, of_first = self._members[0]
        apart = offset_between(first.camera, engine.camera) if as_it_stands else Offset()
        own = Offset(of_first.dx_um + apart.dx_um, of_first.dy_um + apart.dy_um, of_first.zoom * apart.zoom)
        self._members.append((engine, own if as_it_stands else Offset()))
        self.follow(first)

    def remove(self, engine: Any) -> None:
        """Let a view go its own way."""
        self._members = [member for member in self._members if member[0] is not engine]

    def follow(self, leader: Any) -> list[Any]:
        """Have all others show what the leader shows; returns those that changed. Does nothing for a view that is not linked."""
        lead = next((offset for engine, offset in self._members if engine is leader), None)
        if lead is None:
            return []
        return [
            engine for engine, offset in self._members if engine is not leader and self._followed(leader, lead, engine, offset)
        ]

    def _followed(self, leader: Any, lead: Offset, engine: Any, offset: Offset) -> bool:
        before, camera_before = capture(engine), engine.camera
        if "looks" in self.parts:
            apply(capture(leader), engine, preset=True)
            _share_labels(leader.channels, engine.channels)
        if "stack" in self.parts:
            for axis, size in (("z", engine.slide.size_z), ("t", engine.slide.size_t)):
                setattr(engine, axis, min(getattr(leader, axis), size - 1))
        engine.camera = followed(leader.camera, lead, engine.camera, offset, self.parts)
        return engine.camera != camera_before or capture(engine) != before


def _share_labels(lead: Iterable[ChannelView], own: Iterable[ChannelView]) -> None:
    """Channels of one name are called alike, also when the leader's lost the name that its user gave it."""
    labels = {look.name: look.label for look in lead}
    for look in own:
        look.label = labels.get(look.name, look.label)
