"""GeoJSON: what was drawn is read back exactly, what QuPath wrote is kept, nonsense is refused with its place."""

from __future__ import annotations

import json
import math
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.storage.errors import DamagedSlideError, FormatVersionError, SlideError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer.annotations.files import write_geojson
from rawmosaic.viewer.annotations.geojson import Document, Frame, composed, parsed, read_geojson
from rawmosaic.viewer.annotations.model import Annotation, AnnotationClass
from rawmosaic.viewer.annotations.shapes import Ellipse, Line, Points, Polygon, Rectangle

FRAME = Frame(0.1625, (-1234.5678, 88.25))
TRIANGLE = [(0, 0), (10, 0), (3, 7)]
ORIGIN = {"type": "Point", "coordinates": [0, 0]}

coordinates = st.floats(-2e5, 2e5)
places = st.tuples(coordinates, coordinates)
rings = st.lists(places, min_size=3, max_size=6).filter(lambda ring: len(ring) != 4 and ring[0] != ring[-1])
shapes = st.one_of(
    st.lists(places, min_size=1, max_size=4).map(Points),
    st.lists(places, min_size=2, max_size=5).map(Line),
    st.builds(Rectangle, *[coordinates] * 4),
    st.builds(Ellipse, *[coordinates] * 4),
    st.lists(st.lists(rings, min_size=1, max_size=3), min_size=1, max_size=3).map(lambda parts: Polygon(*parts)),
)
frames = st.builds(Frame, st.floats(0.01, 20), st.tuples(coordinates, coordinates))


def text_of(document: Document) -> str:
    return "".join(composed(document))


def data_of(*annotations: Annotation, frame: Frame = FRAME, classes=()) -> dict:
    return json.loads(text_of(Document(annotations, tuple(classes), frame)))


def feature(geometry: dict | None, **properties) -> dict:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features: dict, **members) -> dict:
    return {"type": "FeatureCollection", "features": list(features), **members}


# there and back


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(shapes, st.text(), st.text(), st.text()), max_size=3), frames)
def test_what_was_written_is_read_back_exactly(said, frame):
    annotations = tuple(
        Annotation(shape, name, class_name, notes, color="#0080ff" if name else "", locked=bool(notes))
        for shape, name, class_name, notes in said
    )
    classes = tuple(AnnotationClass(name, "#010203") for name in dict.fromkeys(item.class_name for item in annotations) if name)
    document = Document(annotations, classes, frame)
    text = text_of(document)
    again = parsed(json.loads(text), Frame())
    assert again == document
    assert [item.uid for item in again.annotations] == [item.uid for item in annotations]
    assert text_of(again) == text


def test_the_file_counts_in_pixels_from_the_corner_of_the_picture():
    data = data_of(Annotation(Rectangle(10, 20, 11, 22)), frame=Frame(0.5, (-5, 10)))
    (only,) = data["features"]
    assert only["geometry"] == {"type": "Polygon", "coordinates": [[[30, 20], [32, 20], [32, 24], [30, 24], [30, 20]]]}
    assert data["rawmosaic"] == {"version": 1, "pixel_size_um": 0.5, "origin_um": [-5, 10], "classes": []}


def test_the_frame_of_a_slide_begins_where_its_picture_does():
    slide = SyntheticSlide((3, 3), (40, 60), 2, pixel_size_um=0.5, origin_um=(500, -70), jitter_px=4, channel_offset_px=3)
    frame = Frame.of(slide)
    corners = [slide.placement().centres_um(channel) - np.array([60, 40]) * 0.25 for channel in range(2)]
    assert frame.pixel_size_um == 0.5
    assert np.allclose(frame.origin_um, np.concatenate(corners).min(axis=0), atol=1e-6)
    assert Frame.of(SyntheticSlide((0, 0))) == Frame(0.5)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), frames)
def test_whole_pixels_stay_whole(x, y, frame):
    data = collection(feature({"type": "Point", "coordinates": [x, y]}))
    assert json.loads(text_of(parsed(data, frame)))["features"][0]["geometry"]["coordinates"] == [x, y]


# as QuPath wants it


def test_every_feature_is_what_qupath_reads():
    """The members, types and names that QuPath's reader looks at."""
    shape = Polygon([TRIANGLE])
    data = data_of(
        Annotation(shape, "cell 1", "Tumor", "seen twice", "#ff8000", locked=True),
        Annotation(Points([(1, 2)])),
        classes=[AnnotationClass("Tumor", "#c80000")],
    )
    assert data["type"] == "FeatureCollection"
    first, second = data["features"]
    assert first["type"] == "Feature"
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "cell 1",
        "color": [255, 128, 0],
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "isLocked": True,
        "metadata": {"ANNOTATION_DESCRIPTION": "seen twice"},
    }
    assert second["properties"] == {"objectType": "annotation"}  # a name of null ends QuPath's reading
    assert str(uuid.UUID(first["id"])) == first["id"]
    ring = first["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]


def test_an_ellipse_is_a_polygon_whose_box_is_the_ellipses():
    frame = Frame(0.5, (3, 4))
    (only,) = data_of(Annotation(Ellipse(10, 20, 50, 40)), frame=frame)["features"]
    assert only["geometry"]["type"] == "Polygon"
    assert only["geometry"]["isEllipse"] is True
    ring = np.array(only["geometry"]["coordinates"][0])
    assert (ring.min(axis=0).tolist(), ring.max(axis=0).tolist()) == ([14, 32], [94, 72])
    radii = ((ring - (54, 52)) / (40, 20)) ** 2
    assert np.allclose(radii.sum(axis=1), 1)


def test_kinds_of_geometry_are_those_of_geojson():
    said = {
        "Point": Points([(1, 2)]),
        "MultiPoint": Points([(1, 2), (3, 4)]),
        "LineString": Line([(1, 2), (3, 4)]),
        "Polygon": Polygon([TRIANGLE]),
        "MultiPolygon": Polygon([TRIANGLE], [TRIANGLE]),
    }
    data = data_of(*(Annotation(shape) for shape in said.values()))
    assert [item["geometry"]["type"] for item in data["features"]] == list(said)


# what others wrote

QUPATH = collection(
    {
        "type": "Feature",
        "id": "6d8c5a1e-3a8e-4c53-9a3b-0f6d1c3f7e11",
        "geometry": {
            "type": "MultiPolygon",
            "coordinates": [
                [[[0, 0], [100, 0], [100, 80], [0, 0]], [[60, 20], [80, 20], [80, 30], [60, 20]]],
                [[[200, 0], [300, 0], [300, 80], [200, 0]]],
            ],
            "plane": {"c": -1, "z": 3, "t": 0},
        },
        "properties": {
            "objectType": "annotation",
            "name": "region",
            "classification": {"names": ["Tumor", "Positive"], "color": [200, 10, 20]},
            "measurements": {"Area µm^2": 12.5, "Nucleus: NaN": math.nan},
            "metadata": {"ANNOTATION_DESCRIPTION": "odd", "Source": "model 3"},
        },
    },
    {
        "type": "Feature",
        "id": "PathDetectionObject",
        "geometry": {"type": "Polygon", "coordinates": [[[10, 10], [20, 10], [20, 15], [10, 15], [10, 10]]]},
        "nucleusGeometry": {"type": "Polygon", "coordinates": [[[11, 11], [12, 11], [12, 12], [11, 11]]]},
        "properties": {
            "object_type": "cell",
            "classification": {"name": "Stroma", "colorRGB": -6895466},
            "isLocked": True,
            "measurements": [{"name": "a", "value": 1}],
        },
    },
    feature({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4], [5.5, 6.25]]}, name="seeds", color=[1, 2, 3]),
    feature({"type": "Polygon", "coordinates": [[[0, 0], [4, 2], [2, 4], [0, 0]]], "isEllipse": True}),
    feature({"type": "LineString", "coordinates": [[0, 0, 7], [4, 2, 8]]}, classification=None),
    feature({"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [0, 0]}]}, name="kept"),
    feature(None, objectType="root"),
    crs={"type": "name", "properties": {"name": "pixels"}},
)


def test_an_export_of_qupath_is_read():
    document = parsed(QUPATH, Frame(0.5, (10, 20)))
    region, cell, seeds, ellipse, line = document.annotations
    assert (region.name, region.class_name, region.notes) == ("region", "Tumor: Positive", "odd")
    assert [len(part) for part in region.shape.parts] == [2, 1]
    assert region.shape.box_um == (10, 20, 160, 60)
    assert cell.shape == Rectangle(15, 25, 20, 27.5)
    assert cell.locked
    assert {known.name: known.color for known in document.classes} == {"Tumor: Positive": "#c80a14", "Stroma": "#96c896"}
    assert seeds.shape == Points([(10.5, 21), (11.5, 22), (12.75, 23.125)])
    assert seeds.color == "#010203"
    assert ellipse.shape == Ellipse(10, 20, 12, 22)
    assert line.shape == Line([(10, 20), (12, 21)])
    assert len(document.unshown) == 2


def test_nothing_of_an_export_of_qupath_is_lost():
    written = json.loads(text_of(parsed(QUPATH, Frame(0.5, (10, 20)))))
    assert written.pop("rawmosaic")["origin_um"] == [10, 20]
    assert written["crs"] == QUPATH["crs"]
    for before, after in zip(QUPATH["features"], written["features"], strict=True):
        geometry, properties = dict(before["geometry"] or {}), dict(before["properties"])
        for member in {*before, *after} - {"geometry", "properties", "id"}:
            assert after[member] == before[member]
        if "id" in before:
            assert after["id"] == before["id"]
        if geometry.get("isEllipse"):  # drawn anew, in the same box
            ring = np.array(after["geometry"].pop("coordinates")[0])
            assert (*ring.min(axis=0), *ring.max(axis=0)) == (0, 0, 4, 4)
            del geometry["coordinates"]
        assert (after["geometry"] or {}) == geometry
        lost = {name: value for name, value in properties.items() if name not in ("classification", "measurements") and value}
        assert lost.items() <= after["properties"].items()
        assert str(after["properties"].get("measurements")) == str(properties.get("measurements"))
        if said := properties.get("classification"):
            color = said.get("color", [150, 200, 150])
            classification = after["properties"]["classification"]
            assert classification["color"] == color
            assert classification.get("names", [classification["name"]]) == said.get("names", [said.get("name")])


def test_a_moved_shape_is_not_written_as_it_was():
    (line,) = parsed(collection(QUPATH["features"][4]), FRAME).annotations
    kept = data_of(replace(line, name="x"))["features"][0]["geometry"]
    assert kept == {"type": "LineString", "coordinates": [[0, 0, 7], [4, 2, 8]]}
    moved = data_of(replace(line, shape=line.shape.moved(FRAME.pixel_size_um, 0)))["features"][0]["geometry"]
    assert moved == {"type": "LineString", "coordinates": [[1, 0], [5, 2]]}


def test_another_class_does_not_keep_the_parts_of_the_first():
    (region, *_) = parsed(QUPATH, FRAME).annotations
    (written,) = data_of(replace(region, class_name="Stroma"))["features"]
    assert written["properties"]["classification"] == {"name": "Stroma"}


@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: [item], lambda item: collection(item)])
def test_a_feature_a_list_and_a_collection_are_read(wrap):
    document = parsed(wrap(feature({"type": "Point", "coordinates": [2, 4]})), Frame(0.5))
    assert [item.shape for item in document.annotations] == [Points([(1, 2)])]


def test_classes_that_nothing_has_are_kept():
    data = data_of(classes=[AnnotationClass("later", "#00ff00")])
    assert parsed(data, Frame()).classes == (AnnotationClass("later", "#00ff00"),)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "geometry", "coordinates", "properties", "name", "names", "id"]), inner)
        ),
        max_leaves=12,
    ),
    st.sampled_from(["Point", "LineString", "Polygon", "MultiPolygon", "MultiPoint", "Cube"]),
)
def test_whatever_json_says_it_is_read_or_refused_in_words(value, kind):
    for data in (
        value,
        collection(feature({"type": kind, "coordinates": value})),
        collection(feature(value)),
        collection({"type": "Feature", "geometry": ORIGIN, "properties": value}),
        collection(
            feature({"type": "Point", "coordinates": [0, 0]}, name=value, classification=value, metadata=value, color=value)
        ),
        collection(rawmosaic=value),
        collection(rawmosaic={"version": 1, "pixel_size_um": value, "origin_um": [value, value], "classes": value}),
    ):
        with suppress(ValueError, FormatVersionError):  # refused
            document = parsed(data, FRAME)
            assert len(parsed(json.loads(text_of(document)), FRAME).annotations) == len(document.annotations)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is not GeoJSON"]),
        ('{"type": "FeatureCollection", "features": [', ["is not GeoJSON", "line 1"]),
        ("[" * 100_000, ["nested too deeply"]),
        (b"\xff\xfe\x00", ["byte 0", "UTF-8"]),
        ("3", ["FeatureCollection"]),
        ('{"type": "Topology"}', ["FeatureCollection"]),
        ('{"type": "FeatureCollection", "features": {}}', ["list of features"]),
        ('[{"type": "Polygon"}]', ["feature 0", "not a GeoJSON Feature"]),
        (json.dumps([feature({"type": "Cube"})]), ["feature 0", "'Cube'"]),
        (json.dumps([feature({"type": "Point", "coordinates": [1, "x"]})]), ["feature 0", "positions"]),
        (json.dumps([feature({"type": "Point", "coordinates": [[1, 2]]})]), ["feature 0", "positions"]),
        (json.dumps([feature({"type": "Polygon", "coordinates": [[1, 2], [3, 4]]})]), ["feature 0", "positions"]),
        (json.dumps([feature({"type": "LineString", "coordinates": [[1, 2]]}, name="axis")]), ["feature 0 (axis)", "at least 2"]),
        (
            json.dumps([QUPATH["features"][2], feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, name="b")]),
            ["feature 1 (b)", "at least 3"],
        ),
        ('[{"type":"Feature","geometry":{"type":"Point","coordinates":[NaN,1]},"properties":{}}]', ["feature 0", "within"]),
        ('[{"type":"Feature","geometry":{"type":"Point","coordinates":[1e300,1]},"properties":{}}]', ["feature 0", "within"]),
        (json.dumps(collection(rawmosaic={"version": 1, "pixel_size_um": 0, "origin_um": [0, 0]})), ["pixel size 0"]),
        (json.dumps(collection(rawmosaic={"version": 1, "pixel_size_um": 1, "origin_um": [0]})), ["origin [0]"]),
        (json.dumps(collection(rawmosaic={"version": "x"})), ["version 'x'"]),
    ],
)
def test_nonsense_is_refused_with_what_is_wrong_and_where(tmp_path: Path, content: str | bytes, words: list[str]):
    path = tmp_path / "bad.geojson"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DamagedSlideError) as caught:
        read_geojson(path, FRAME)
    assert all(word in str(caught.value) for word in ["bad.geojson", *words])
    assert "\n" not in str(caught.value)


def test_a_newer_file_is_refused_by_its_version(tmp_path: Path):
    path = tmp_path / "new.geojson"
    path.write_text(json.dumps(collection(rawmosaic={"version": 2})))
    with pytest.raises(FormatVersionError, match=r"new\.geojson.*format 2"):
        read_geojson(path, FRAME)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SlideError, match=r"none\.geojson"):
        read_geojson(tmp_path / "none.geojson", FRAME)


def test_half_a_character_is_written_as_it_was_read(tmp_path: Path):
    path = tmp_path / "half.geojson"
    path.write_text(json.dumps(feature(ORIGIN, name="\ud83d")))
    document = read_geojson(path, FRAME)
    write_geojson(path, document)
    assert read_geojson(path, Frame()) == document


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path):
    path = tmp_path / "windows.geojson"
    path.write_text(json.dumps(QUPATH), encoding="utf-8-sig")
    assert len(read_geojson(path, FRAME).annotations) == 5


def test_many_annotations_are_read_in_seconds(tmp_path: Path):
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 1e4, (10_000, 1, 2)) + 10 * rng.normal(size=(10_000, 20, 2))
    path = tmp_path / "many.geojson"
    write_geojson(path, Document(tuple(Annotation(Polygon([ring]), class_name="cell") for ring in centres), (), FRAME))
    started = time.monotonic()
    assert len(read_geojson(path, Frame()).annotations) == 10_000
    assert time.monotonic() - started < 20  # a generous limit: it is half a second
