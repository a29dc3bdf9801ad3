"""From a slide that its writer did not finish into one that is begun anew: every plane whose checksum is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.importers.read_ahead import read_ahead

if TYPE_CHECKING:
    from rawmosaic.storage.hdf5.reader import Hdf5Slide
    from rawmosaic.storage.hdf5.writer import SlideWriter

Address = tuple[int, int, int, int]
"""(field, channel, z, t)."""


def copy_planes(
    old: Hdf5Slide,
    writer: SlideWriter,
    copied: Callable[[int], None] = lambda _: None,
    wanted: Callable[[Address, int], bool] | None = None,
) -> list[Address]:
    """Write every plane of `old` that is what was written there, with its place and metadata, under its field's number.

    `copied(n)` is called after each; `wanted(address, checksum)` leaves planes out. Returns the planes that cannot be read, or
    are not what their checksum says; WriteError.
    """
    offsets_um = old.position_set("stage").plane_offsets_um
    lost: list[Address] = []
    placed: set[int] = set()
    addresses = [address for address in _addresses(old, offsets_um) if wanted is None or wanted(address, old.checksum(*address))]
    with closing(read_ahead(old.read_plane, addresses)) as planes:
        for number, (address, plane) in enumerate(planes, start=1):  # read by other threads
            try:
                if isinstance(plane, Exception):
                    raise plane
                right = crc32(plane) == old.checksum(*address)
                metadata = old.plane_metadata(*address)
            except SlideError:
                right = False
            if right:
                _write(old, writer, address, plane, metadata, offsets_um if address[0] in placed else None)
                placed.add(address[0])
            else:
                lost.append(address)
            copied(number)
    return lost


def _addresses(old: Hdf5Slide, offsets_um: np.ndarray | None) -> Iterator[Address]:
    """All planes, fields in their order; of each the first where it was the first, which says where the field lies.

    Where all channels of a field have an offset, it is that of their later planes.
    """
    tables = {(z, t): old.acquired(z, t) for t in range(old.size_t) for z in range(old.size_z)}
    for field in range(old.n_fields):
        moved = np.zeros(len(old.channels), bool) if offsets_um is None else offsets_um[field].any(axis=-1)
        for channel in np.argsort(moved, kind="stable").tolist():
            for (z, t), table in tables.items():
                if table[field, channel]:
                    yield field, channel, z, t


def _write(
    old: Hdf5Slide, writer: SlideWriter, address: Address, plane: np.ndarray, metadata: dict, offsets_um: np.ndarray | None
) -> None:
    field, channel, z, t = address
    entry = old.fields[field]
    row, column, scene = (None if entry[name] < 0 else int(entry[name]) for name in ("row", "column", "scene"))
    dx_um, dy_um = (0.0, 0.0) if offsets_um is None else offsets_um[field, channel].tolist()
    writer.write_plane(
        plane,
        channel,
        field=field,
        row=row,
        column=column,
        scene=scene,
        x_um=float(entry["x_um"]) + dx_um,
        y_um=float(entry["y_um"]) + dy_um,
        z_um=float(entry["z_um"]),
        z=z,
        t=t,
        metadata=metadata or None,
    )
