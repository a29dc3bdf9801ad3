"""A folder of TIFF files with `positions.csv`: one line a plane, positions in µm of the images' centres, x right, y down.

Columns: ``file, channel, x_um, y_um``, and if known ``z_um, row, column, scene, z, t, page``. `channel` may be left out where
there is one. Lines with the same (scene, row, column), or without those at the same position, are one field.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.storage.errors import AcquisitionError
from rawmosaic.storage.importers.acquisition import ImportOptions, RawAcquisition, file_stats
from rawmosaic.storage.importers.arranging import PlaneRecord, arrange
from rawmosaic.storage.importers.source import AcquisitionSource
from rawmosaic.storage.importers.tiff_pages import described, pixel_size_um, survey
from rawmosaic.storage.slide import Channel, Header

TABLE_NAME = "positions.csv"
REQUIRED = ("file", "x_um", "y_um")
ONLY_CHANNEL = "channel 0"
SAME_PLACE_DIGITS = 3
"""Positions that agree to the nanometre are one place."""


def recognise(path: Path) -> int:
    """A folder with positions.csv, or a table whose first line names the columns."""
    if path.is_dir():
        return 10 if (path / TABLE_NAME).is_file() else 0
    if path.suffix.lower() != ".csv":
        return 0
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(4096).lower()
    return 10 if all(name in first for name in REQUIRED) else 0


def acquire(path: Path, options: ImportOptions) -> RawAcquisition:
    """The acquisition that a table describes; files lie relative to it."""
    table_path = path / TABLE_NAME if path.is_dir() else path
    text = table_path.read_text(encoding="utf-8-sig", errors="replace")
    lines = _lines(text, table_path)
    folder = table_path.parent
    names = list(dict.fromkeys(line.text("file") for line in lines))
    files = [folder / name for name in names]
    sizes = [size for size, _ in file_stats(files, table_path)]
    facts = survey(files, sizes)
    size_um = options.pixel_size_um or pixel_size_um(files[0])
    if size_um is None:
        raise AcquisitionError(
            f"{files[0].name} does not tell its pixel size; give it with --pixel-size-um (pixel_size_um= in Python)",
            location=table_path,
        )
    channels = list(dict.fromkeys(line.text("channel", ONLY_CHANNEL) for line in lines))
    scenes = list(dict.fromkeys(scene for line in lines if (scene := line.text("scene", ""))))
    file_number = {name: number for number, name in enumerate(names)}
    records = [_record(line, file_number, channels, scenes) for line in lines]
    arranged = arrange(records, [fact.shape for fact in facts], len(channels))
    description, taken = described(files[0])
    return RawAcquisition(
        location=path,
        header=Header(
            name=folder.resolve().name,
            acquired_at=taken,
            pixel_size_um=size_um,
            extra={"source": "TIFF folder", table_path.name: text, "image_description": description},
        ),
        channels=[Channel(name) for name in channels],
        fields=arranged.fields,
        files=files,
        planes=arranged.planes,
        dtype=facts[0].dtype,
        options=options,
        plane_offsets_um=arranged.plane_offsets_um,
        scenes=scenes,
    )


source = AcquisitionSource(recognise, acquire)


@dataclass(frozen=True)
class _Line:
    """One line of the table; what is wrong in it is named by line and column."""

    number: int
    values: dict[str, str]
    table: Path
    decimal_comma: bool

    def text(self, column: str, default: str | None = None) -> str:
        value = self.values.get(column, "")
        if not value and default is None:
            raise self.wrong(column, "is empty")
        return value or default or ""

    def number_in(self, column: str, default: float | None = None) -> float:
        """A finite number from a column, `default` where it is empty; AcquisitionError names line and column."""
        text = self.text(column, None if default is None else "-")
        if text == "-" and default is not None:
            return default
        try:
            value = float(text.replace(",", ".") if self.decimal_comma else text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.wrong(column, f"is {text!r}, not a number")
        return value

    def index(self, column: str, default: int) -> int:
        value = self.number_in(column, default)
        if value != int(value) or (value < 0 and value != default):
            raise self.wrong(column, f"is {self.values.get(column)!r}, not a whole number from 0")
        return int(value)

    def wrong(self, column: str, what: str) -> AcquisitionError:
        return AcquisitionError(f"row {self.number}, column {column} {what}", location=self.table)


def _record(line: _Line, file_number: dict[str, int], channels: list[str], scenes: list[str]) -> PlaneRecord:
    x_um, y_um = line.number_in("x_um"), line.number_in("y_um")
    row, column = line.index("row", -1), line.index("column", -1)
    scene_name = line.text("scene", "")
    scene = scenes.index(scene_name) if scene_name else -1
    indexed = row >= 0 and column >= 0
    place = (scene, row, column) if indexed else (scene, round(x_um, SAME_PLACE_DIGITS), round(y_um, SAME_PLACE_DIGITS))
    return PlaneRecord(
        file=file_number[line.text("file")],
        page=line.index("page", 0),
        place=(indexed, *place),
        channel=channels.index(line.text("channel", ONLY_CHANNEL)),
        x_um=x_um,
        y_um=y_um,
        z_um=line.number_in("z_um", 0.0),
        z=line.index("z", 0),
        t=line.index("t", 0),
        row=row,
        column=column,
        scene=scene,
    )


def _lines(text: str, table: Path) -> list[_Line]:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    columns = [name.strip().lower() for name in next(reader, [])]
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise AcquisitionError(
            f"column {', '.join(missing)} is missing; the table needs file, channel, x_um, y_um, "
            f"but its first line is {first.strip()!r}",
            location=table,
        )
    lines = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        values = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        lines.append(_Line(reader.line_num, values, table, decimal_comma=delimiter == ";"))
    if not lines:
        raise AcquisitionError("the table has no line below its column names", location=table)
    return lines
