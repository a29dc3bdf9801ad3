"""What the library says of a slide and of its copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rawmosaic.storage.slide import Channel

ACQUIRING, COMPLETE, VERIFIED, DAMAGED, MISSING, FAILED = "acquiring", "complete", "verified", "damaged", "missing", "failed"
STATES = (ACQUIRING, COMPLETE, VERIFIED, DAMAGED, MISSING, FAILED)
"""States of slides. Those of copies are the same, but for `failed`."""


@dataclass(frozen=True)
class CopyRecord:
    """One place where a slide lies. Times are ISO 8601, UTC; `host` is empty in a library of one machine."""

    id: int
    slide_id: int
    host: str
    location: str
    kind: str
    state: str
    error: str
    nbytes: int | None
    mtime_ns: int | None
    n_files: int | None
    checksum: str
    options: Mapping[str, Any]
    seen_at: str
    verified_at: str

    def place(self, host: str) -> str:
        """The location as it is told on machine `host`: with the machine's name where that is another one."""
        return self.location if self.host in ("", host) or "://" in self.location else f"{self.location} on {self.host}"


@dataclass(frozen=True)
class SlideRecord:
    """One slide. `channels`, `copies` and `tags` are filled where they were asked for."""

    id: int
    identity: str | None
    uid: str | None
    name: str
    state: str
    error: str
    acquired_at: str
    acquired: str
    objective: str
    assay: str
    pixel_size_um: float | None
    bits: int | None
    n_fields: int | None
    field_height: int | None
    field_width: int | None
    size_z: int | None
    size_t: int | None
    n_planes: int | None
    n_pixels: int | None
    nbytes: int | None
    extra: str
    note: str
    added_at: str
    changed_at: str
    channels: tuple[Channel, ...] = ()
    copies: tuple[CopyRecord, ...] = ()
    tags: tuple[str, ...] = field(default=())

    @property
    def short_identity(self) -> str:
        """Enough of the identity to name the slide by; "-" while it has none."""
        return self.identity[:12] if self.identity else "-"


def settled_state(states: list[str], failed: bool) -> str:
    """The state of a slide whose copies have these states."""
    for state in (ACQUIRING, VERIFIED, COMPLETE):
        if state in states:
            return state
    return FAILED if failed else DAMAGED if DAMAGED in states else MISSING
