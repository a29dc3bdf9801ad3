"""Measurements as a table: one row an annotation, columns for every channel; CSV that spreadsheets, R and pandas read."""

from __future__ import annotations

import csv
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rawmosaic.storage.errors import WriteError
from rawmosaic.viewer.annotations.measure import Measurement, Measurer
from rawmosaic.viewer.annotations.model import Annotation

SIZES = ("x_um", "y_um", "width_um", "height_um", "area_um2", "perimeter_um", "length_um")
STATISTICS = ("pixels", "mean", "sd", "median", "min", "max", "integrated")
HEADER = ("number", "name", "class", "shape", *SIZES)
TRAILER = ("z", "t", "positions", "overlap", "reduced_by", "unreadable", "notes", "id")

Cell = str | int | float | None


def header(measurer: Measurer, labels: Sequence[str] = ()) -> list[str]:
    """The names of the columns: of a channel "DAPI" there are "DAPI pixels", "DAPI mean" and so on."""
    names = channel_names(measurer, labels)
    return [*HEADER, *(f"{name} {statistic}" for name in names for statistic in STATISTICS), *TRAILER]


def channel_names(measurer: Measurer, labels: Sequence[str] = ()) -> list[str]:
    """Of the channels measured, each different: those of one name are told apart by their number. `labels`: what users call the
    channels of the slide, "" for those that have no other name."""
    known = [channel.name for channel in measurer.slide.channels]
    known = [label or name for name, label in zip(known, labels or known, strict=True)]
    return [f"{known[n]} ({n})" if known.count(known[n]) > 1 else known[n] for n in measurer.channels]


def row(number: int, annotation: Annotation, measured: Measurement, measurer: Measurer) -> list[Cell]:
    """One annotation, by the columns of `header`; None where there is no value."""
    shape = annotation.shape
    left, top, right, bottom = shape.box_um
    lengths = (None, measured.length_um) if shape.kind == "line" else (measured.length_um or None, None)
    sizes = [*shape.centre_um, right - left, bottom - top, measured.area_um2 if shape.is_area else None, *lengths]
    cells: list[Cell] = [number, annotation.name, annotation.class_name, shape.kind, *sizes]
    for channel in measurer.channels:
        found = measured.intensities[channel]
        cells += [found.pixels, found.mean, found.sd, found.median, found.minimum, found.maximum]
        cells.append(found.integrated if found.pixels else None)
    facts = [measurer.z, measurer.t, measurer.position_set, measurer.overlap, measured.factor, len(measured.unreadable)]
    return [*cells, *facts, annotation.notes, annotation.uid]


def rows(annotations: Sequence[Annotation], measurements: Sequence[Measurement], measurer: Measurer) -> Iterator[list[Cell]]:
    """The rows of many annotations, numbered from 1."""
    for number, (annotation, found) in enumerate(zip(annotations, measurements, strict=True), start=1):
        yield row(number, annotation, found, measurer)


def write_table(
    path: str | os.PathLike,
    annotations: Sequence[Annotation],
    measurements: Sequence[Measurement],
    measurer: Measurer,
    labels: Sequence[str] = (),
) -> None:
    """Write a CSV file (UTF-8, commas, decimal points) whole or not at all; raises WriteError. `labels`: see `channel_names`."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(unfinished, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header(measurer, labels))
            writer.writerows([_text(cell) for cell in cells] for cells in rows(annotations, measurements, measurer))
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise WriteError(f"the table could not be written: {error.strerror or error}", location=path) from error


def _text(cell: Cell) -> str:
    """As few digits as tell the value: nine, for counts and µm more than enough; nothing where there is no value."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return f"{cell:.9g}" if isinstance(cell, float) else str(cell)
