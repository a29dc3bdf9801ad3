"""Fiji's TileConfiguration.txt: top left corners of the images in pixels, x right, y down, in two or three dimensions.

``TileConfiguration.registered.txt`` beside it, Fiji's own result, becomes the position set `registered`. A line
``file; series; (x, y)`` names a series of a multi-series file. Stacks inside a file follow its own axes: z, channels, time.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rawmosaic.storage.errors import AcquisitionError
from rawmosaic.storage.importers.acquisition import ImportOptions, RawAcquisition, file_stats
from rawmosaic.storage.importers.arranging import PlaneRecord, arrange
from rawmosaic.storage.importers.source import AcquisitionSource
from rawmosaic.storage.importers.tiff_pages import described, open_tiff, pixel_size_um, survey
from rawmosaic.storage.slide import Channel, Header, PositionSet

TABLE_NAME = "TileConfiguration.txt"
REGISTERED = ".registered"
_LINE = re.compile(r"^(?P<file>[^;]+);(?P<series>[^;]*);\s*\((?P<position>[^)]*)\)\s*$")
_DIM = re.compile(r"^\s*dim\s*=\s*(\d+)", re.MULTILINE)


def recognise(path: Path) -> int:
    """A folder with such a table, or the table itself."""
    if path.is_dir():
        return 9 if (path / TABLE_NAME).is_file() or _tables(path) else 0
    return 10 if path.suffix.lower() == ".txt" and _is_table(path) else 0


def acquire(path: Path, options: ImportOptions) -> RawAcquisition:
    """The acquisition that a table describes; files lie relative to it."""
    table = _chosen_table(path)
    folder = table.parent
    text = table.read_text(encoding="utf-8", errors="replace")
    tiles = parse_tiles(text, table)
    twin = _registered_twin(table)
    names = list(dict.fromkeys(tile.file for tile in tiles))
    files = [folder / name for name in names]
    facts = survey(files, [size for size, _ in file_stats(files, table)])
    size_um = options.pixel_size_um or pixel_size_um(files[0]) or 1.0
    many_series = any(tile.series for tile in tiles)
    file_number = {name: number for number, name in enumerate(names)}
    first_of_series = {tile.series: files[file_number[tile.file]] for tile in reversed(tiles)}
    layouts = {series: _layout(file, series, tiles[0].is_3d, many_series) for series, file in first_of_series.items()}
    shapes = [fact.shape for fact in facts]
    records = []
    for number, tile in enumerate(tiles):
        file = file_number[tile.file]
        records += _records(number, tile, file, shapes[file], layouts[tile.series], size_um)
    channel_names = layouts[tiles[0].series].channels
    arranged = arrange(records, shapes, len(channel_names))
    extra = {"source": "Fiji TileConfiguration", table.name: text}
    other_sets = {}
    if twin is not None:
        registered_text = twin.read_text(encoding="utf-8", errors="replace")
        extra[twin.name] = registered_text
        other_sets["registered"] = _registered(tiles, parse_tiles(registered_text, twin), arranged.fields, size_um)
    extra["image_description"], taken = described(files[0])
    return RawAcquisition(
        location=path,
        header=Header(name=folder.resolve().name, acquired_at=taken, pixel_size_um=size_um, extra=extra),
        channels=[Channel(name) for name in channel_names],
        fields=arranged.fields,
        files=files,
        planes=arranged.planes,
        dtype=facts[0].dtype,
        options=options,
        other_sets=other_sets,
    )


source = AcquisitionSource(recognise, acquire)


@dataclass(frozen=True)
class Tile:
    """One line of the table; `corner_px` is the top left (x, y) or (x, y, z), pixels."""

    file: str
    series: int
    corner_px: tuple[float, ...]

    @property
    def is_3d(self) -> bool:
        """Whether the tile has a place in z as well."""
        return len(self.corner_px) == 3


def parse_tiles(text: str, table: Path) -> list[Tile]:
    """The tiles of a table, in its order. Raises AcquisitionError that names the line."""
    dim = _DIM.search(text)
    n_axes = int(dim.group(1)) if dim else 2
    if n_axes not in (2, 3):
        raise AcquisitionError(f"dim is {n_axes}; 2 and 3 can be shown", location=table)
    tiles = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#") or "=" in line.split(";")[0]:
            continue
        match = _LINE.match(line)
        if match is None:
            raise AcquisitionError(f"row {number} is {line!r}, not 'file; series; (x, y)'", location=table)
        corner = [_number(cell, number, axis, table) for axis, cell in zip("xyz", match["position"].split(","), strict=False)]
        if len(corner) != n_axes:
            raise AcquisitionError(f"row {number} has {len(corner)} coordinates, but dim is {n_axes}", location=table)
        series = match["series"].strip()
        if series and not series.isdigit():
            raise AcquisitionError(f"row {number}, column series is {series!r}, not a whole number from 0", location=table)
        tiles.append(Tile(match["file"].strip(), int(series or 0), tuple(corner)))
    if not tiles:
        raise AcquisitionError("the table names no file", location=table)
    return tiles


@dataclass(frozen=True)
class _Layout:
    """What each page of a series is: (page, channel, z, t); names of the channels; step in z, µm."""

    pages: tuple[tuple[int, int, int, int], ...]
    channels: tuple[str, ...]
    step_um: float


def _layout(path: Path, series_number: int, is_3d: bool, many_series: bool) -> _Layout:
    with open_tiff(path) as tiff:
        if len(tiff.pages) == 1:
            return _Layout(((0, 0, 0, 0),), ("channel 0",), 1.0)
        if series_number >= len(tiff.series):
            raise AcquisitionError(f"has no series {series_number}: it holds {len(tiff.series)}", location=path)
        series = tiff.series[series_number if many_series else 0]
        first, axes = series.keyframe.index, series.axes
        counts = dict(zip(axes, series.shape, strict=True))
        imagej = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    outer = [axis for axis in axes if axis not in "YX"]
    pages = []
    for page, index in enumerate(np.ndindex(*(counts[axis] for axis in outer))):
        place = {"C": 0, "Z": 0, "T": 0}
        for axis, value in zip(outer, index, strict=True):
            known = axis if axis in place else "Z" if is_3d else "C"  # a plain stack of pages
            place[known] = place[known] * counts[axis] + value
        pages.append((first + page, place["C"], place["Z"], place["T"]))
    n_channels = max(channel for _, channel, _, _ in pages) + 1
    return _Layout(tuple(pages), tuple(f"channel {n}" for n in range(n_channels)), float(imagej.get("spacing") or 1.0))


def _records(number: int, tile: Tile, file: int, shape: tuple[int, int], layout: _Layout, size_um: float) -> list[PlaneRecord]:
    x_um, y_um = _centre_um(tile, shape, size_um)
    z_um = tile.corner_px[2] * layout.step_um if tile.is_3d else 0.0
    return [PlaneRecord(file, page, number, channel, x_um, y_um, z_um, z, t) for page, channel, z, t in layout.pages]


def _centre_um(tile: Tile, shape: tuple[int, int], size_um: float) -> tuple[float, float]:
    return (tile.corner_px[0] + shape[1] / 2) * size_um, (tile.corner_px[1] + shape[0] / 2) * size_um


def _registered(tiles: list[Tile], registered: list[Tile], fields: np.ndarray, size_um: float) -> PositionSet:
    """Fiji's result; a tile that it left out keeps its place relative to the others (their median move).

    Fiji moves images without turning them, so this set lies in the images' own axes whatever the stage's orientation.
    """
    found = {(tile.file, tile.series): tile for tile in registered}
    positions = np.full((len(tiles), 2), np.nan)
    for number, tile in enumerate(tiles):
        if (moved := found.get((tile.file, tile.series))) is not None:
            positions[number] = _centre_um(moved, (fields["height"][number], fields["width"][number]), size_um)
    stage = np.stack([fields["x_um"], fields["y_um"]], axis=-1)
    lost = np.isnan(positions[:, 0])
    move = np.median((positions - stage)[~lost], axis=0) if not lost.all() else np.zeros(2)
    positions[lost] = stage[lost] + move
    return PositionSet(positions, matrix=np.eye(2))


def _number(text: str, row: int, axis: str, table: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AcquisitionError(f"row {row}, column {axis} is {text.strip()!r}, not a number", location=table)
    return value


def _is_table(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    return _DIM.search(head) is not None and any(_LINE.match(line.strip()) for line in head.splitlines())


def _tables(folder: Path) -> list[Path]:
    named = sorted(path for path in folder.glob("TileConf*.txt") if REGISTERED not in path.name)
    return named or sorted(folder.glob("TileConf*.txt"))


def _chosen_table(path: Path) -> Path:
    if path.is_dir():
        tables = [path / TABLE_NAME] if (path / TABLE_NAME).is_file() else _tables(path)
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables)
            raise AcquisitionError(f"the folder holds several tables; open one of {names}", location=path)
        return tables[0]
    if path.name.endswith(REGISTERED + ".txt"):
        nominal = path.with_name(path.name.removesuffix(REGISTERED + ".txt") + ".txt")
        return nominal if nominal.is_file() else path
    return path


def _registered_twin(table: Path) -> Path | None:
    twin = table.with_name(table.stem + REGISTERED + ".txt")
    return twin if twin.is_file() and twin != table else None
