"""From planes with measured positions to fields: the table of fields, the table of planes, and what positions differ by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.importers.acquisition import PLANE_DTYPE
from rawmosaic.storage.slide import new_fields


@dataclass(frozen=True, slots=True)
class PlaneRecord:
    """One acquired plane as a source describes it. Planes of equal `place` are one field; µm, mosaic frame, image centre."""

    file: int
    page: int
    place: Hashable
    channel: int
    x_um: float
    y_um: float
    z_um: float = 0.0
    z: int = 0
    t: int = 0
    row: int = -1
    column: int = -1
    scene: int = -1


@dataclass(frozen=True)
class Arrangement:
    """`fields` of FIELD_DTYPE, `planes` of PLANE_DTYPE, `plane_offsets_um` (n, n_channels, 2) or None where nothing differs."""

    fields: np.ndarray
    planes: np.ndarray
    plane_offsets_um: np.ndarray | None


def arrange(records: Sequence[PlaneRecord], shapes: Sequence[tuple[int, int]], n_channels: int) -> Arrangement:
    """Fields in the order in which they appear; `shapes` is the (height, width) of the planes in each file.

    A field lies where its first plane was measured. Another channel's first plane that was measured elsewhere is an offset.
    """
    number: dict[Hashable, int] = {}
    first: dict[tuple[int, int], tuple[float, float]] = {}
    firsts: list[PlaneRecord] = []
    planes = np.empty(len(records), PLANE_DTYPE)
    for index, record in enumerate(records):
        field = number.setdefault(record.place, len(number))
        if field == len(firsts):
            firsts.append(record)
        first.setdefault((field, record.channel), (record.x_um, record.y_um))
        planes[index] = record.file, record.page, field, record.channel, record.z, record.t
    fields = new_fields(len(firsts), (0, 0))
    for field, record in enumerate(firsts):
        entry = fields[field]
        entry["height"], entry["width"] = shapes[record.file]
        entry["row"], entry["column"], entry["scene"] = record.row, record.column, record.scene
        entry["x_um"], entry["y_um"], entry["z_um"] = record.x_um, record.y_um, record.z_um
    offsets = np.zeros((len(firsts), n_channels, 2))
    for (field, channel), (x_um, y_um) in first.items():
        offsets[field, channel] = x_um - firsts[field].x_um, y_um - firsts[field].y_um
    return Arrangement(fields, planes, offsets if offsets.any() else None)
