"""What the library notes of a slide: taken from an open one, or told by who is about to acquire it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from rawmosaic.storage.database.identity import acquisition_uid, content_identity
from rawmosaic.storage.slide import Channel, Header, Slide

LONGEST_EXTRA = 1 << 16
"""Characters of a source's own metadata that are kept; longer ones stay in the slide."""

OF_THE_SCAN = ("acquisition", "ended_early")
"""What an acquisition server noted is kept in any case."""

_DATE = re.compile(r"(\d{4})[-/.:]?(\d{2})[-/.:]?(\d{2})(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")


@dataclass(frozen=True)
class SlideFacts:
    """All that describes a slide; None and "" where it is not known. `n_pixels` counts acquired planes only."""

    name: str = ""
    identity: str | None = None
    uid: str | None = None
    growing: bool = False
    acquired_at: str = ""
    objective: str = ""
    assay: str = ""
    pixel_size_um: float | None = None
    bits: int | None = None
    n_fields: int | None = None
    field_height: int | None = None
    field_width: int | None = None
    size_z: int | None = None
    size_t: int | None = None
    n_planes: int | None = None
    n_pixels: int | None = None
    extra: str = ""
    channels: tuple[Channel, ...] = ()

    @classmethod
    def of(cls, slide: Slide) -> SlideFacts:
        """The facts of an open slide. Reads no pixel, but for samples of a raw acquisition. Raises SlideError, OSError."""
        header, (height, width) = slide.header, slide.field_shape
        n_planes, n_pixels = _acquired(slide)
        return cls(
            name=plain(header.name),
            identity=content_identity(slide),
            uid=acquisition_uid(header.extra),
            growing=slide.growing,
            acquired_at=plain(header.acquired_at),
            objective=plain(header.objective),
            assay=plain(header.assay),
            pixel_size_um=float(header.pixel_size_um),
            bits=int(header.bits),
            n_fields=slide.n_fields,
            field_height=height,
            field_width=width,
            size_z=slide.size_z,
            size_t=slide.size_t,
            n_planes=n_planes,
            n_pixels=n_pixels,
            extra=_extra_text(header.extra),
            channels=tuple(replace(channel, name=plain(channel.name)) for channel in slide.channels),
        )

    @classmethod
    def told(cls, name: str, uid: str, facts: Mapping[str, Any] | SlideFacts | None) -> SlideFacts:
        """The facts of a slide that does not exist yet, from names and values as above; those that are no facts are left out.

        `channels` may be names; `fields` is taken for `n_fields`, and a `header` for all that it says.
        """
        if isinstance(facts, SlideFacts):
            return replace(facts, name=plain(name), uid=str(uid))
        known = {field.name for field in fields(cls)}
        facts = dict(facts or {})
        header = vars(facts["header"]) if isinstance(facts.get("header"), Header) else {}
        facts = {"n_fields": facts.get("fields"), **{key: header[key] for key in header if key != "extra"}, **facts}
        given = {key: value for key, value in facts.items() if key in known}
        given["channels"] = tuple(_as_channel(channel) for channel in given.get("channels", ()))
        for text in ("acquired_at", "objective", "assay", "extra"):
            given[text] = plain(given.get(text) or "")
        return cls(**{**given, "name": plain(name), "uid": str(uid), "identity": None, "growing": True})

    @property
    def acquired(self) -> str:
        """When it was acquired as ISO 8601, as exactly as the source's words were understood; "" if not at all."""
        return iso_date(self.acquired_at)


def iso_date(text: str) -> str:
    """``2026-11-03T12:00:00`` from what microscopes write; the date alone without a time, "" without a date."""
    found = _DATE.search(text)
    if not found or not (1 <= int(found[2]) <= 12 and 1 <= int(found[3]) <= 31):
        return ""
    date = f"{found[1]}-{found[2]}-{found[3]}"
    return date if found[4] is None else f"{date}T{int(found[4]):02d}:{found[5]}:{found[6] or '00'}"


def plain(value: object) -> str:
    """Text that every database takes: no zero bytes, no halves of characters."""
    return str(value).replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _acquired(slide: Slide) -> tuple[int, int]:
    """(planes, pixels) that were acquired."""
    area = slide.fields["height"].astype(np.int64) * slide.fields["width"]
    planes = pixels = 0
    for z in range(slide.size_z):
        for t in range(slide.size_t):
            per_field = slide.acquired(z, t).sum(axis=1)
            planes, pixels = planes + int(per_field.sum()), pixels + int(per_field @ area)
    return planes, pixels


def _extra_text(extra: Mapping) -> str:
    text = plain(json.dumps(dict(extra), default=str, ensure_ascii=False))
    if len(text) > LONGEST_EXTRA:
        of_scan = {key: extra[key] for key in OF_THE_SCAN if key in extra}
        text = plain(json.dumps(of_scan, default=str, ensure_ascii=False))
    return text if 2 < len(text) <= LONGEST_EXTRA else ""


def _as_channel(channel: Channel | Mapping | str) -> Channel:
    if isinstance(channel, Channel):
        return replace(channel, name=plain(channel.name))
    if isinstance(channel, Mapping):
        known: Sequence[str] = tuple(Channel.__dataclass_fields__)
        return _as_channel(Channel(**{key: value for key, value in channel.items() if key in known}))
    return Channel(plain(channel))
