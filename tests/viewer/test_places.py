"""What a user types is the place that is meant, or is answered with what could be typed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.storage.slide import Header
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.places import (
    NoPlace,
    Place,
    camera_at,
    equivalent_magnification,
    field_place,
    field_under,
    find_place,
    nominal_magnification,
    suggestions,
)
from rawmosaic.viewer.plan import Geometry

SLIDE = SyntheticSlide((8, 9), (48, 64), 2, scenes=("A01", "A02", "B01", "B11"), origin_um=(1000.0, -500.0))
GEOMETRY = Geometry(SLIDE, "stage")
CAMERA = Camera(1100.0, -400.0, 0.7, (640, 480), SLIDE.header.pixel_size_um)


def go(text: str, slide: SyntheticSlide = SLIDE) -> Place | NoPlace:
    """What is found for a text."""
    return find_place(text, slide, Geometry(slide, "stage"))


@pytest.mark.parametrize(
    "text", ["#30", "30", "field 30", "field #30", "f30", " # 30 ", "r3 c3", "R3C3", "row 3 column 3", "row 3, col 3"]
)
def test_a_field_is_found_by_number_and_by_row_and_column(text: str):
    found = go(text)
    assert isinstance(found, Place)
    assert found.field == 30
    assert found.bounds_um == pytest.approx(GEOMETRY.box_of(30, 0))


@pytest.mark.parametrize("text", ["3,7", "3, 7", "3;7", "3/7", "3 7", "c7 r3", "column 7 row 3"])
def test_two_numbers_are_row_and_column(text: str):
    assert go(text).field == 3 * 9 + 7


@pytest.mark.parametrize(("text", "scene"), [("A01", 0), ("a1", 0), ("a001", 0), ("b11", 3), ("B01", 2)])
def test_a_scene_is_found_however_its_zeros_are_written(text: str, scene: int):
    found = go(text)
    own = np.flatnonzero(SLIDE.fields["scene"] == scene)
    boxes = np.array([GEOMETRY.box_of(int(field), 0) for field in own])
    assert found.what == SLIDE.scenes[scene]
    assert found.bounds_um == pytest.approx((*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)))


@pytest.mark.parametrize(
    "text",
    [
        "x 1100 y -400",
        "x=1100 y=-400",
        "x: 1100, y: -400",
        "x1100y-400",
        "1100, -400",
        "1100 -400",
        "1100 −400",
        "1100.0, -400.00 µm",
        "1.1 mm, -0.4 mm",
        "1.1, -0.4 mm",
        "X 1.1mm Y -400um",
    ],
)
def test_a_stage_position_is_understood_in_um_and_mm(text: str):
    found = go(text)
    assert found.point_um == pytest.approx((1100.0, -400.0))
    assert found.bounds_um is None


def test_where_fields_have_no_index_two_numbers_are_a_position():
    slide = SyntheticSlide((3, 3), (48, 64), 1)
    slide.fields["row"] = slide.fields["column"] = -1
    assert go("20, 30", slide).point_um == (20.0, 30.0)
    assert "no rows" in go("r0 c0", slide).why


def test_a_magnification_and_a_percentage_are_scales():
    assert go("20x").scale == pytest.approx(2.0)  # the objective is 10×
    assert go("5 ×").scale == pytest.approx(0.5)
    assert go("50 %").scale == pytest.approx(0.5)
    assert isinstance(go("0 %"), NoPlace)


@pytest.mark.parametrize(
    ("text", "told", "suggested"),
    [
        ("#72", "0 to 71", "#71"),
        ("r3 c12", "columns 0 to 8", "r3 c8"),
        ("x 0 y 0", "beside the mosaic", "x "),
        ("b", "no field", "B01"),
        ("b12", "no field", "B11"),
        ("nonsense", "nonsense", "#36"),
        ("", "type", "#36"),
        ("A01 north", "row and column", "A01"),
        ("A01 r7 c0", "rows are 0 to 1", "A01 r1 c0"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(text: str, told: str, suggested: str):
    found = go(text)
    assert isinstance(found, NoPlace)
    assert told in found.why
    assert any(each.startswith(suggested) for each in found.suggestions), found.suggestions


@pytest.mark.parametrize("text", ["", "b", "r99 c99", "x 1e9 y 0", "nonsense", "#9999"])
def test_every_suggestion_can_be_typed(text: str):
    for each in go(text).suggestions:
        assert isinstance(go(each), Place), each


def test_a_field_of_a_scene_is_found_where_indices_repeat():
    slide = SyntheticSlide((4, 3), (48, 64), 1, scenes=("A1", "A2"))
    slide.fields["row"] %= 2
    assert "2 fields" in go("r1 c2", slide).why
    assert go("r1 c2", slide).suggestions == ("A1 r1 c2", "A2 r1 c2")
    assert (go("A1 r1 c2", slide).field, go("a02 1,2", slide).field) == (5, 11)


@given(st.text(max_size=30))
def test_any_text_is_answered(text: str):
    assert isinstance(find_place(text, SLIDE, GEOMETRY), Place | NoPlace)


def test_suggestions_grow_fewer_as_one_types():
    assert suggestions("a", SLIDE, GEOMETRY)[:2] == ("A01", "A02")
    assert suggestions("a02", SLIDE, GEOMETRY)[0] == "A02"


def test_a_field_fills_the_window():
    camera = camera_at(field_place(30, SLIDE, GEOMETRY), CAMERA)
    left, top, right, bottom = camera.bounds_um()
    box = GEOMETRY.box_of(30, 0)
    assert left < box[0] < box[2] < right
    assert top < box[1] < box[3] < bottom
    assert min((box[2] - box[0]) / (right - left), (box[3] - box[1]) / (bottom - top)) > 0.9


def test_a_position_keeps_the_scale_and_a_scale_the_position():
    there = camera_at(go("x 1100 y -400"), CAMERA)
    assert (there.x_um, there.y_um, there.scale) == (1100.0, -400.0, 0.7)
    closer = camera_at(go("200 %"), CAMERA)
    assert (closer.x_um, closer.y_um, closer.scale) == (CAMERA.x_um, CAMERA.y_um, 2.0)


def test_the_field_under_a_point_is_the_one_that_is_seen():
    slide = SyntheticSlide((2, 3), (48, 64), 2, overlap=0.3, jitter_px=0.0, one_channel_per_field=True)
    geometry = Geometry(slide, "stage")
    x_um, y_um = slide.positions()[1]
    assert field_under(slide, geometry, x_um, y_um) == 1
    between = 0.5 * (slide.positions()[0] + slide.positions()[1])
    assert [field_under(slide, geometry, *between, channels=(channel,)) for channel in (0, 1)] == [0, 1]
    assert field_under(slide, geometry, -1e5, 0.0) is None


@pytest.mark.parametrize(
    ("objective", "magnification"),
    [
        ("10x/0.3", 10),
        ("Plan Apo 20x/0.75", 20),
        ("63×/1.4 oil", 63),
        ("2,5x", 2.5),
        ("X40", 40),
        ("", None),
        ("none", None),
        ("0x", None),
    ],
)
def test_the_objective_tells_its_magnification(objective: str, magnification: float | None):
    assert nominal_magnification(objective) == magnification


def test_one_to_one_is_the_objectives_magnification():
    camera = Camera(0.0, 0.0, 1.0, (100, 100), 0.325)
    assert equivalent_magnification(camera, "20x/0.75") == (20.0, True)
    assert equivalent_magnification(camera.zoomed(0.5), "20x/0.75") == (10.0, True)
    assert equivalent_magnification(Camera(0.0, 0.0, 1.0, (9, 9), 0.25)) == (40.0, False)
    assert Header("a").objective == ""
