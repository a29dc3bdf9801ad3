"""From well to well, by numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.places import fitted
from rawmosaic.viewer.plan import Geometry
from rawmosaic.viewer.scenes import next_scene, scene_boxes

WELLS = ("A01", "A02", "A03")


def slide(scenes: tuple[str, ...] = WELLS) -> SyntheticSlide:
    """One row of two fields a well."""
    return SyntheticSlide((3, 2), (96, 128), 1, scenes=scenes, jitter_px=0.0)


def mosaic_of(made: SyntheticSlide):
    """Where its fields lie, and the camera that shows all of them."""
    geometry = Geometry(made, "stage")
    return geometry, Camera(0.0, 0.0, 1.0, (640, 480), made.header.pixel_size_um).fitted(geometry.bounds_um)


def test_a_scene_covers_its_fields_and_no_others():
    made = slide()
    geometry, _ = mosaic_of(made)
    boxes = scene_boxes(made, geometry)
    assert list(boxes) == [0, 1, 2]
    for scene, (left, top, right, bottom) in boxes.items():
        inside = [left < x < right and top < y < bottom for x, y in made.positions()]
        assert inside == (made.fields["scene"] == scene).tolist()


def test_from_the_whole_one_comes_to_the_first_and_back_to_the_last():
    made = slide()
    geometry, whole = mosaic_of(made)
    assert next_scene(made, geometry, whole, 1)[0] == 0
    assert next_scene(made, geometry, whole, -1)[0] == 2


@pytest.mark.parametrize("step", [1, -1])
def test_all_are_gone_through_once_and_then_there_is_none(step: int):
    made = slide()
    geometry, camera = mosaic_of(made)
    seen = []
    while (found := next_scene(made, geometry, camera, step)) is not None:
        number, camera = found
        assert camera == fitted(camera, scene_boxes(made, geometry)[number])
        seen.append(number)
        assert len(seen) <= 3
    assert seen == [0, 1, 2][::step]


def test_a_view_within_a_scene_goes_on_from_that():
    made = slide()
    geometry, camera = mosaic_of(made)
    inside = replace(camera.zoomed(8.0), x_um=made.positions()[2, 0], y_um=made.positions()[2, 1])
    assert next_scene(made, geometry, inside, 1)[0] == 2
    assert next_scene(made, geometry, inside, -1)[0] == 0


def test_without_scenes_there_is_nothing_to_go_to():
    made = slide(())
    geometry, camera = mosaic_of(made)
    assert next_scene(made, geometry, camera, 1) is None
    one = slide(("tissue",))
    geometry, camera = mosaic_of(one)
    assert next_scene(one, geometry, camera, 1)[0] == 0  # as it fills the window
    assert next_scene(one, geometry, next_scene(one, geometry, camera, 1)[1], 1) is None
