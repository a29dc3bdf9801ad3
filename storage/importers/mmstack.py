"""Micro-Manager image stacks (1.4 and 2), files named PREFIX_MMStack_POSITION.ome.tif in one folder.

Stage positions are read from the metadata of each position's first page in every channel: µm, x right, y down as they are (use
the orientation option for a stage that runs the other way; the calibration that Micro-Manager noted stays in `header.extra`).
Planes are found through the file's own index map; a file that was never finished has none and is read page by page.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import tifffile

from rawmosaic.storage.errors import AcquisitionError
from rawmosaic.storage.importers.acquisition import ImportOptions, RawAcquisition, file_stats
from rawmosaic.storage.importers.arranging import PlaneRecord, arrange
from rawmosaic.storage.importers.source import AcquisitionSource
from rawmosaic.storage.importers.tiff_pages import open_tiff, survey
from rawmosaic.storage.slide import Channel, Header

PAGE_TAG = "MicroManagerMetadata"
_FILE = re.compile(r"^(?P<prefix>.*?)_?MMStack(?P<rest>.*?)\.ome\.tiff?$", re.IGNORECASE)


def recognise(path: Path) -> int:
    """A folder with MMStack files, or one of them."""
    if path.is_dir():
        with os.scandir(path) as entries:
            return 9 if any(_FILE.match(entry.name) for entry in entries) else 0
    return 10 if _FILE.match(path.name) else 0


def acquire(path: Path, options: ImportOptions) -> RawAcquisition:
    """The acquisition in a folder; of one file, all files of its prefix."""
    files = _stack_files(path)
    stacks = [_Stack.of(file) for file in files]
    summary = stacks[0].summary
    records = [record for number, stack in enumerate(stacks) for record in stack.records(number)]
    if not records:
        raise AcquisitionError("the stacks hold no plane", location=path)
    facts = survey(files, [size for size, _ in file_stats(files, path)])
    n_channels = max(record.channel for record in records) + 1
    records.sort(key=lambda record: record.place)  # by position index, whatever the files' names; stable, so planes stay in order
    grid = _grid(summary)
    records = [_with_grid(record, grid, stacks) for record in records]
    arranged = arrange(records, [fact.shape for fact in facts], n_channels)
    first = next(iter(stacks[0].pages.values()))
    return RawAcquisition(
        location=path,
        header=Header(
            name=_prefix(files[0]) or path.resolve().name,
            acquired_at=_iso_time(summary.get("StartTime") or first.get("Time") or first.get("ReceivedTime") or ""),
            pixel_size_um=options.pixel_size_um or _pixel_size_um(first, summary, path),
            objective=_objective(first),
            bits=_bits(first, summary),
            extra={
                "source": "Micro-Manager",
                "summary": summary,
                "display_settings": stacks[0].display,
                "comments": stacks[0].comments,
                "first_plane": first,
                "position_names": {str(place): name for stack in stacks for place, name in stack.position_names.items()},
            },
        ),
        channels=_channels(summary, n_channels, stacks),
        fields=arranged.fields,
        files=files,
        planes=arranged.planes,
        dtype=facts[0].dtype,
        options=options,
        plane_offsets_um=arranged.plane_offsets_um,
    )


source = AcquisitionSource(recognise, acquire)


@dataclass(frozen=True)
class _Stack:
    """One file: its summary, the address (channel, z, t, position) of each page, metadata of first pages."""

    file: Path
    summary: dict
    display: object
    comments: object
    addresses: list[tuple[int, int, int, int]]
    pages: dict[tuple[int, int], dict]
    """(position, channel) → metadata of its first page in this file."""

    @classmethod
    def of(cls, file: Path) -> _Stack:
        """What one file says of itself, read once; raises AcquisitionError where it is no MMStack."""
        with open_tiff(file) as tiff:
            known = (tiff.micromanager_metadata if tiff.is_micromanager else None) or {}
            index_map = known.get("IndexMap")
            if index_map is not None and len(index_map):
                in_file_order = index_map[index_map[:, 4].argsort(kind="stable")]  # pages are chained as they were written
                addresses = [tuple(int(value) for value in row[:4]) for row in in_file_order]
                addresses = addresses[: len(tiff.pages)]
            else:
                addresses = [_address(_page_metadata(page, file)) for page in tiff.pages]
            firsts: dict[tuple[int, int], int] = {}
            for page, (channel, _, _, position) in enumerate(addresses):
                firsts.setdefault((position, channel), page)
            pages = {key: _page_metadata(tiff.pages[page], file) for key, page in firsts.items()}
        return cls(file, known.get("Summary") or {}, known.get("DisplaySettings"), known.get("Comments"), addresses, pages)

    @property
    def position_names(self) -> dict[int, str]:
        """Position index → the label that the user gave it."""
        return {position: str(page.get("PositionName", "")) for (position, _), page in reversed(self.pages.items())}

    def records(self, number: int) -> Iterator[PlaneRecord]:
        """A record for each page, with the measured position of its channel and position."""
        places = {key: self._position_um(page, key[0]) for key, page in self.pages.items()}
        for page, (channel, z, t, position) in enumerate(self.addresses):
            x_um, y_um, z_um = places[position, channel]
            yield PlaneRecord(number, page, position, channel, x_um, y_um, z_um, z, t)

    def _position_um(self, page: dict, position: int) -> tuple[float, float, float]:
        x_um, y_um = page.get("XPositionUm"), page.get("YPositionUm")
        if x_um is None or y_um is None:  # a camera frame without stage read-out: where the stage was sent
            x_um, y_um = _planned_um(self.summary, position, str(page.get("PositionName", "")), self.file)
        try:
            return float(x_um), float(y_um), float(page.get("ZPositionUm") or 0.0)
        except (TypeError, ValueError) as error:
            raise AcquisitionError(f"position {position} is ({x_um!r}, {y_um!r}), not numbers", location=self.file) from error


def _stack_files(path: Path) -> list[Path]:
    folder = path if path.is_dir() else path.parent
    found = sorted(entry for entry in folder.iterdir() if _FILE.match(entry.name))
    if path.is_file():
        return [entry for entry in found if _prefix(entry) == _prefix(path)]
    prefixes = sorted({_prefix(entry) for entry in found})
    if len(prefixes) > 1:
        raise AcquisitionError(
            f"the folder holds {len(prefixes)} acquisitions ({', '.join(prefixes)}); open a file of one", location=path
        )
    return found


def _prefix(file: Path) -> str:
    return _FILE.match(file.name)["prefix"]


def _page_metadata(page: tifffile.TiffPage, file: Path) -> dict:
    tag = page.tags.get(PAGE_TAG)
    value = tag.value if tag is not None else None
    if isinstance(value, str | bytes):
        value = json.loads(value)
    if not isinstance(value, dict):
        raise AcquisitionError(f"page {page.index} has no Micro-Manager metadata", location=file)
    return value


def _address(page: dict) -> tuple[int, int, int, int]:
    """(channel, z, t, position); the names with Index are those of 1.4, the short ones older."""
    return tuple(
        int(page.get(name, page.get(short, 0)))
        for name, short in (
            ("ChannelIndex", "Channel"),
            ("SliceIndex", "Slice"),
            ("FrameIndex", "Frame"),
            ("PositionIndex", "Position"),
        )
    )


def _planned(summary: dict) -> list[dict]:
    return summary.get("InitialPositionList") or summary.get("StagePositions") or []


def _planned_um(summary: dict, position: int, name: str, file: Path) -> tuple[float, float]:
    """Where the stage was sent: 1.4 keeps device → [x, y], 2 a list of devices."""
    planned = _planned(summary)
    entry = next((entry for entry in planned if entry.get("Label") == name), None)
    if entry is None and position < len(planned):
        entry = planned[position]
    candidates = list((entry or {}).get("DeviceCoordinatesUm", {}).values())
    candidates += [device.get("Position_um", []) for device in (entry or {}).get("DevicePositions", [])]
    for place in candidates:
        if isinstance(place, list) and len(place) == 2:
            return float(place[0]), float(place[1])
    raise AcquisitionError(
        f"position {position} ({name or 'no name'}) has no stage position, neither in its pages nor in the summary; "
        "write a positions.csv beside the files instead",
        location=file,
    )


def _grid(summary: dict) -> dict[str, tuple[int, int]]:
    """Position label → (row, column)."""
    return {
        str(entry.get("Label")): (
            int(entry.get("GridRowIndex", entry.get("GridRow", -1))),
            int(entry.get("GridColumnIndex", entry.get("GridCol", -1))),
        )
        for entry in _planned(summary)
    }


def _with_grid(record: PlaneRecord, grid: dict[str, tuple[int, int]], stacks: list[_Stack]) -> PlaneRecord:
    row, column = grid.get(stacks[record.file].position_names.get(record.place, ""), (-1, -1))
    return replace(record, row=row, column=column)


def _channels(summary: dict, n_channels: int, stacks: list[_Stack]) -> list[Channel]:
    names, colors = summary.get("ChNames") or [], summary.get("ChColors") or []
    exposures = {
        channel: page.get("Exposure-ms") for stack in reversed(stacks) for (_, channel), page in reversed(stack.pages.items())
    }
    return [
        Channel(
            str(names[n]) if n < len(names) else f"channel {n}",
            color=f"#{int(colors[n]) & 0xFFFFFF:06x}" if n < len(colors) else None,  # Java's signed ARGB
            exposure_ms=float(exposures[n]) if exposures.get(n) is not None else None,
        )
        for n in range(n_channels)
    ]


def _pixel_size_um(page: dict, summary: dict, path: Path) -> float:
    for size in (page.get("PixelSizeUm"), summary.get("PixelSize_um"), summary.get("PixelSizeUm")):
        if size and float(size) > 0:
            return float(size)
    raise AcquisitionError(
        "Micro-Manager was not calibrated (pixel size 0); give it with --pixel-size-um (pixel_size_um= in Python)", location=path
    )


def _bits(page: dict, summary: dict) -> int:
    try:
        return min(16, max(1, int(page.get("BitDepth") or summary.get("BitDepth") or 16)))
    except ValueError:
        return 16


def _objective(page: dict) -> str:
    labels = [value for name, value in page.items() if re.match(r"(?i).*(objective|nosepiece).*-label$", name)]
    return str(labels[0]) if labels else ""


def _iso_time(text: str) -> str:
    for form in ("%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S.%f %z", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S"):
        try:
            return datetime.strptime(str(text), form).isoformat()
        except ValueError:
            continue
    return ""
