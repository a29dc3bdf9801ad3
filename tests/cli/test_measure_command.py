"""`rawmosaic measure`: the table is the measurements', every option reaches it, and bad ones are named."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage import open_slide
from rawmosaic.viewer import OffscreenViewer, saved_state
from rawmosaic.viewer.annotations.files import AnnotationFile, write_geojson
from rawmosaic.viewer.annotations.geojson import Document, Frame
from rawmosaic.viewer.annotations.measure import Measurer
from rawmosaic.viewer.annotations.model import Annotation
from rawmosaic.viewer.annotations.shapes import Ellipse, Rectangle


@pytest.fixture
def drawn(slide_file: Path, tmp_path: Path) -> Path:
    """Annotations on the slide: one inside a field, one over all."""
    with open_slide(slide_file) as slide:
        x, y = slide.positions()[0]
        annotations = (
            Annotation(Ellipse(x - 9, y - 6, x + 9, y + 6), "cell"),
            Annotation(Rectangle(-999, -999, 999, 999), "all"),
        )
        path = tmp_path / "cells.geojson"
        write_geojson(path, Document(annotations, (), Frame.of(slide)))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_what_is_measured(rawmosaic, slide_file: Path, drawn: Path, tmp_path: Path):
    outcome = rawmosaic("measure", slide_file, drawn, "-o", tmp_path / "table.csv")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    cell, everything = rows_of(tmp_path / "table.csv")
    assert (cell["name"], everything["name"]) == ("cell", "all")
    with open_slide(slide_file) as slide, Measurer(slide) as measurer:
        x, y = slide.positions()[0]
        found = measurer.measure(Ellipse(x - 9, y - 6, x + 9, y + 6))
        for number, channel in enumerate(slide.channels):
            assert cell[f"{channel.name} pixels"] == str(found.intensities[number].pixels)
            assert np.isclose(float(cell[f"{channel.name} mean"]), found.intensities[number].mean)


def test_annotations_beside_the_slide_need_no_name(rawmosaic, slide_file: Path, tmp_path: Path):
    slide_path = Path(shutil.copy(slide_file, tmp_path / "own.h5"))
    with open_slide(slide_path) as slide:
        file = AnnotationFile.of(slide)
        file.annotations.add(Annotation(Rectangle(0, 0, 5, 5), "beside"))
        file.save()
    assert rawmosaic("measure", slide_path, "-o", tmp_path / "table.csv").code == 0
    assert [row["name"] for row in rows_of(tmp_path / "table.csv")] == ["beside"]


def test_options_reach_the_table(rawmosaic, slide_file: Path, drawn: Path, tmp_path: Path):
    rawmosaic("measure", slide_file, drawn, "-o", tmp_path / "top.csv")
    outcome = rawmosaic("measure", slide_file, drawn, "-o", tmp_path / "every.csv", "--channels", "fitc,3", "--overlap", "every")
    assert outcome.code == 0
    top, every = rows_of(tmp_path / "top.csv")[1], rows_of(tmp_path / "every.csv")[1]
    assert "FITC mean" in every
    assert "Cy5 mean" in every
    assert "DAPI mean" not in every
    assert int(every["FITC pixels"]) == 6 * 72 * 96 > int(top["FITC pixels"])


def test_a_raw_acquisition_is_measured_as_its_virtual_slide(rawmosaic, acquisition, slide_file, drawn: Path, tmp_path: Path):
    assert rawmosaic("measure", acquisition, drawn, "-o", tmp_path / "raw.csv").code == 0
    assert rawmosaic("measure", slide_file, drawn, "-o", tmp_path / "slide.csv").code == 0
    assert rows_of(tmp_path / "raw.csv") == rows_of(tmp_path / "slide.csv")


def test_what_cannot_be_read_is_told(rawmosaic, acquisition: Path, drawn: Path, tmp_path: Path):
    folder = shutil.copytree(acquisition, tmp_path / "acquisition")
    damaged = folder / "r000_c001_DAPI.tif"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    outcome = rawmosaic("measure", folder, drawn, "-o", tmp_path / "table.csv")
    assert outcome.code == 1
    assert "table.csv is incomplete" in outcome.err
    assert damaged.name in outcome.err
    assert [row["unreadable"] for row in rows_of(tmp_path / "table.csv")] == ["0", "1"]


def test_features_that_are_not_measured_are_told(rawmosaic, slide_file: Path, tmp_path: Path):
    path = tmp_path / "mixed.geojson"
    path.write_text(json.dumps([{"type": "Feature", "geometry": {"type": "GeometryCollection"}, "properties": {}}]))
    outcome = rawmosaic("measure", slide_file, path, "-o", tmp_path / "table.csv")
    assert outcome.code == 0
    assert "1 of its features" in outcome.err
    assert rows_of(tmp_path / "table.csv") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--channels", "Cy7"], ["Cy7", "DAPI"]),
        (["--z", "1"], ["z 1", "0 to 0"]),
        (["--t", "-1"], ["t -1"]),
        (["--positions", "registered"], ["registered", "stage"]),
        (["--overlap", "max"], ["max", "every"]),
        (["--pixel-size-um", "0.3"], ["virtual slide", "--pixel-size-um"]),
    ],
)
def test_a_wrong_option_is_named_with_what_there_is(rawmosaic, slide_file, drawn, tmp_path, arguments, words):
    outcome = rawmosaic("measure", slide_file, drawn, "-o", tmp_path / "table.csv", *arguments)
    assert outcome.complains_once_about(*words), outcome
    assert not (tmp_path / "table.csv").exists()


def test_wrong_files_are_named(rawmosaic, slide_file: Path, drawn: Path, tmp_path: Path):
    table = tmp_path / "table.csv"
    (tmp_path / "bad.geojson").write_text("{")
    assert rawmosaic("measure", slide_file, tmp_path / "bad.geojson", "-o", table).complains_once_about("bad.geojson", "GeoJSON")
    assert rawmosaic("measure", slide_file, tmp_path / "none.geojson", "-o", table).complains_once_about("none.geojson")
    assert rawmosaic("measure", slide_file, "-o", table).complains_once_about("slide.h5", "no annotations", "GeoJSON")
    assert rawmosaic("measure", slide_file, drawn, "-o", tmp_path).complains_once_about("folder")
    assert rawmosaic("measure", slide_file, drawn, "-o", tmp_path / "no" / "t.csv").complains_once_about("no folder")
    assert not table.exists()


def test_ctrl_c_leaves_no_table(rawmosaic, slide_file: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Measurer, "measure", interrupted)
    outcome = rawmosaic("measure", slide_file, drawn, "-o", tmp_path / "table.csv")
    assert (outcome.code, outcome.err.strip()) == (130, "rawmosaic: interrupted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.geojson"]


def test_channels_go_by_the_name_that_they_were_given_in_the_window(rawmosaic, slide_file: Path, drawn: Path, tmp_path: Path):
    slide_path = Path(shutil.copy(slide_file, tmp_path / "own.h5"))
    with open_slide(slide_path) as slide, OffscreenViewer(slide, size=(64, 48)) as viewer:
        own = [channel.name for channel in slide.channels]
        viewer.channels[1].label = "border, inner"
        saved_state.keep(viewer.engine)
    for asked in ("border, inner", own[1], "1"):
        outcome = rawmosaic("measure", slide_path, drawn, "-o", tmp_path / "table.csv", "--channels", asked)
        assert (outcome.code, outcome.err) == (0, ""), asked
        columns = rows_of(tmp_path / "table.csv")[0]
        assert "border, inner mean" in columns
        assert f"{own[0]} mean" not in columns
    assert rawmosaic("render", slide_path, "-o", tmp_path / "a.png", "--channels", "border, inner").code == 0
    assert rawmosaic("render", slide_path, "-o", tmp_path / "b.png", "--channels", own[1]).code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    refused = rawmosaic("measure", slide_path, drawn, "-o", tmp_path / "table.csv", "--channels", "nothing")
    assert refused.code == 2
    assert f"{own[1]} (called border, inner)" in refused.err
