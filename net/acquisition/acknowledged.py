"""What of a scan was acknowledged, by all that lies in its folder; and what of it a slide lacks. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.safe_mark import read_mark, unknown_records
from rawmosaic.net.acquisition.scan_folder import DAMAGED_FOLDER, END_FILE, RELEASED_FILE, SPOOL_FOLDER
from rawmosaic.net.acquisition.spool import planes_in, read_released, segment_path
from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.hdf5.reader import Hdf5Slide

MOST_PLACES = 3
"""Damaged places that are told one by one."""

Key = tuple[int, int, int, int]
"""(field, channel, z, t)."""


@dataclass(frozen=True)
class Acknowledged:
    """All planes that a spool holds or held.

    planes     (key, CRC-32 of the pixels) of all that are known, their pixels sound or not
    n_unknown  how many there were beside them, of which nothing can be read any more
    places     where something is damaged, in words
    """

    planes: list[tuple[Key, int]]
    n_unknown: int
    places: list[str]


def acknowledged(folder: Path) -> Acknowledged:
    """What was acknowledged of the scan in a folder, by its spool, what was released, and how far it was safe.

    Beside a proxy, what comes meanwhile may be there or not. DamagedSlideError where the list of what was released is damaged.
    """
    spool, aside = folder / SPOOL_FOLDER, folder / DAMAGED_FOLDER
    mark = read_mark(spool)  # looked at first: whatever is marked is there, or released
    found = list(planes_in(spool, payloads=False))
    last, rows = read_released(folder / RELEASED_FILE)  # looked at last: what has left the spool meanwhile is in it
    released = [(tuple(int(row[name]) for name in ("field", "channel", "z", "t")), int(row["pixels_crc"])) for row in rows]
    errors, there, ordinals = [], [], [mark.ordinal]
    for item in found:
        position = item.position if isinstance(item, DamagedSlideError) else item[1]
        if position.segment <= last:
            continue
        ordinals.append(position.ordinal)
        if isinstance(item, DamagedSlideError):
            errors.append(item)
        else:
            there.append((item[0].key, item[0].pixels_crc))
    n_unknown = unknown_records(max(ordinals), len(released) + len(there), len(errors))
    told = [error for error in planes_in(aside, payloads=True) if isinstance(error, DamagedSlideError)]
    places = {(at.segment, at.offset): at for at in (error.position for error in (*told, *errors))}
    return Acknowledged(released + there, n_unknown, [f"{segment_path(spool, s).name} at byte {at}" for s, at in sorted(places)])


def was_acknowledged(folder: Path) -> Callable[[Key, int], bool]:
    """Whether a plane (key, CRC-32 of its pixels) of a slide may have been acknowledged, by what the spool holds and held.

    A power failure can leave planes in the slide that the spool lost, and that nobody was told of. Another plane may have the
    number of their field by now. Where planes are gone of which nothing is known, all may be wanted.
    """
    told = acknowledged(folder)
    known: dict[Key, set[int]] = {}
    for key, crc in told.planes:
        known.setdefault(key, set()).add(crc)
    if told.n_unknown:
        return lambda key, crc: crc in known.get(key, {crc})
    return lambda key, crc: crc in known.get(key, ())


def missing_planes(folder: Path, slide: Hdf5Slide) -> str:
    """What of all that was acknowledged the slide lacks, in words; empty if nothing."""
    there = {(z, t): slide.acquired(z, t) for z in range(slide.size_z) for t in range(slide.size_t)}
    checksums = {(z, t): slide.checksums(z, t) for z, t in there}
    told = acknowledged(folder)
    accepted: dict[Key, set[int]] = {}
    for key, crc in told.planes:
        accepted.setdefault(key, set()).add(crc)
    lost = [key for key, crcs in accepted.items() if not _has(slide, there, key) or _checksum(checksums, key) not in crcs]
    said, n_there = (read_json(folder / END_FILE) or {}).get("planes"), sum(int(table.sum()) for table in there.values())
    if not isinstance(said, int):  # nobody counted them while they came
        said = len(accepted) + told.n_unknown
    if not lost and n_there >= said:
        return ""
    where = f", damaged on the disk: {_list(told.places)}" if told.places else ""
    if lost:
        first = "field {}, channel {}, z {}, t {}".format(*lost[0])
        n_lost = max(len(lost), said - n_there)
        return f"{n_lost} acknowledged planes are not in the slide as they came, first: {first}{where}"
    return f"{said} planes were acknowledged, but the slide has {n_there}; {said - n_there} are missing{where}"


def _has(slide: Hdf5Slide, there: Mapping[tuple[int, int], np.ndarray], key: Key) -> bool:
    field, channel, z, t = key
    return (z, t) in there and field < slide.n_fields and bool(there[z, t][field, channel])


def _checksum(checksums: Mapping[tuple[int, int], np.ndarray], key: Key) -> int:
    field, channel, z, t = key
    return int(checksums[z, t][field, channel])


def _list(places: list[str]) -> str:
    more = f" and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
    return "; ".join(places[:MOST_PLACES]) + more
