"""The table of measurements: a row an annotation, in columns that say what they are."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import pytest

from rawmosaic.storage.errors import WriteError
from rawmosaic.storage.testing import FailingSlide, SyntheticSlide
from rawmosaic.viewer.annotations.measure import Measurer, measured
from rawmosaic.viewer.annotations.model import Annotation
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Rectangle
from rawmosaic.viewer.annotations.table import header, write_table

SLIDE = SyntheticSlide((2, 2), (60, 80), ["DAPI", "GFP", "GFP"], jitter_px=0, pixel_size_um=0.5)
ANNOTATIONS = [
    Annotation(Rectangle(0, 0, 5, 4), 'a "name", with\nall', "nucleus", "notes, µm"),
    Annotation(Line([(0, 0), (3, 4)])),
    Annotation(Ellipse(500, 500, 510, 510)),
    Annotation(Points([(1, 1)])),
]


def table_of(path: Path, slide=SLIDE, channels=None, **options) -> list[dict[str, str]]:
    with Measurer(slide, channels, **options) as measurer:
        write_table(path, ANNOTATIONS, measured(measurer, [item.shape for item in ANNOTATIONS]), measurer)
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_says_what_and_where_and_how_large(tmp_path: Path):
    rectangle, line, ellipse, point = table_of(tmp_path / "table.csv")
    assert [row["number"] for row in (rectangle, line, ellipse, point)] == ["1", "2", "3", "4"]
    assert rectangle["name"] == 'a "name", with\nall'
    assert (rectangle["class"], rectangle["notes"], rectangle["id"]) == ("nucleus", "notes, µm", ANNOTATIONS[0].uid)
    assert [row["shape"] for row in (rectangle, line, ellipse, point)] == ["rectangle", "line", "ellipse", "point"]
    sizes = ("x_um", "y_um", "width_um", "height_um", "area_um2", "perimeter_um", "length_um")
    assert [rectangle[name] for name in sizes] == ["2.5", "2", "5", "4", "20", "18", ""]
    assert [line[name] for name in sizes] == ["1.5", "2", "3", "4", "", "", "5"]
    assert [point[name] for name in sizes] == ["1", "1", "0", "0", "", "", ""]
    assert math.isclose(float(ellipse["area_um2"]), 25 * math.pi, rel_tol=1e-8)


def test_columns_of_channels_hold_their_counts(tmp_path: Path):
    rectangle, _, ellipse, _ = table_of(tmp_path / "table.csv")
    plane = SLIDE.read_plane(0, 0)[30:38, 40:50].astype(float)  # the field's centre is the origin
    assert rectangle["DAPI pixels"] == "80"
    assert math.isclose(float(rectangle["DAPI mean"]), plane.mean(), rel_tol=1e-8)
    assert math.isclose(float(rectangle["DAPI sd"]), plane.std(ddof=1), rel_tol=1e-8)
    assert float(rectangle["DAPI min"]) == plane.min()
    assert float(rectangle["DAPI max"]) == plane.max()
    assert rectangle["DAPI integrated"] == str(int(plane.sum()))
    assert ellipse["DAPI pixels"] == "0"
    assert {ellipse[f"DAPI {name}"] for name in ("mean", "sd", "median", "min", "max", "integrated")} == {""}


def test_channels_of_one_name_are_told_apart(tmp_path: Path):
    with Measurer(SLIDE) as measurer:
        names = header(measurer)
    assert len(set(names)) == len(names)
    row = table_of(tmp_path / "table.csv", channels=[2])[0]
    assert "GFP (2) mean" in row
    assert not any(name.startswith(("DAPI", "GFP (1)")) for name in row)


def test_a_row_says_how_it_was_measured(tmp_path: Path):
    row = table_of(tmp_path / "table.csv", overlap="every", most_pixels=40)[0]
    facts = {name: row[name] for name in ("z", "t", "positions", "overlap", "reduced_by", "unreadable")}
    assert facts == {"z": "0", "t": "0", "positions": "stage", "overlap": "every", "reduced_by": "2", "unreadable": "0"}
    row = table_of(tmp_path / "table.csv", FailingSlide(SLIDE, lambda _: True))[0]
    assert (row["unreadable"], row["DAPI pixels"]) == ("3", "0")


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WriteError, match="table could not be written"):
        table_of(tmp_path / "none" / "table.csv")

    def held(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", held)
    with pytest.raises(WriteError, match="Permission denied"):
        table_of(tmp_path / "table.csv")
    assert not list(tmp_path.iterdir())
