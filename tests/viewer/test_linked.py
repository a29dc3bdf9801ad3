"""Linked views show the same place in the same way, whichever of them is moved, and lose nothing when they part."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_display_state import engine_like

from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.display_state import capture
from rawmosaic.viewer.linked import LinkedViews, Offset, followed, offset_between


def view(x_um: float = 0.0, scale: float = 1.0, pixel_size_um: float = 0.5, **what: object) -> SimpleNamespace:
    """A view of some slide."""
    engine = engine_like(**what)
    engine.camera = Camera(x_um, 10.0, scale, (640, 480), pixel_size_um)
    return engine


def test_views_share_centre_and_um_per_screen_pixel():
    first, second = view(), view(500.0, 3.0, pixel_size_um=0.25)
    linked = LinkedViews()
    linked.add(first)
    linked.add(second)
    assert (second.camera.x_um, second.camera.y_um) == (0.0, 10.0)
    assert second.camera.px_per_um == pytest.approx(first.camera.px_per_um)
    second.camera = second.camera.moved(100, -40).zoomed(7.0)
    assert linked.follow(second) == [first]
    assert (first.camera.x_um, first.camera.y_um) == (second.camera.x_um, second.camera.y_um)
    assert first.camera.px_per_um == pytest.approx(second.camera.px_per_um)
    assert linked.follow(second) == []


def test_views_linked_as_they_stand_keep_their_distance():
    first, second, third = view(), view(5000.0, 2.0), view(-70.0, 0.5)
    linked = LinkedViews()
    for each in (first, second, third):
        linked.add(each, as_it_stands=True)
    assert [each.camera.x_um for each in (first, second, third)] == [0.0, 5000.0, -70.0]
    assert [each.camera.scale for each in (first, second, third)] == pytest.approx([1.0, 2.0, 0.5])
    third.camera = replace(third.camera, x_um=third.camera.x_um + 12.0, scale=1.5)
    linked.follow(third)
    assert [each.camera.x_um for each in (first, second, third)] == pytest.approx([12.0, 5012.0, -58.0])
    assert [each.camera.scale for each in (first, second, third)] == pytest.approx([3.0, 6.0, 1.5])


def test_a_name_that_is_given_and_taken_back_goes_along():
    first, second = view(), view(names=("GFP", "DAPI"))
    linked = LinkedViews()
    linked.add(first)
    linked.add(second)
    first.channels[0].label = "nuclei"
    assert linked.follow(first) == [second]
    assert [look.shown_name for look in second.channels] == ["GFP", "nuclei"]
    first.channels[0].label = ""
    assert linked.follow(first) == [second]
    assert [look.shown_name for look in second.channels] == ["GFP", "DAPI"]


def test_stack_and_looks_go_along_as_far_as_they_can():
    first, second = view(), view(names=("GFP", "DAPI"), size_z=2, size_t=1)
    linked = LinkedViews()
    linked.add(first)
    linked.add(second)
    first.z, first.t, first.overlap = 2, 1, "max"
    first.channels[0].limits = (7.0, 9.0)
    assert linked.follow(first) == [second]
    assert (second.z, second.t, second.overlap) == (1, 0, "max")
    assert [look.name for look in second.channels if look.limits == (7.0, 9.0)] == ["DAPI"]


def test_parts_that_are_not_shared_stay():
    first, second = view(), view(300.0)
    linked = LinkedViews(("scale",))
    linked.add(first)
    linked.add(second)
    first.camera, first.z, first.background = first.camera.zoomed(4.0), 1, "white"
    linked.follow(first)
    assert (second.camera.x_um, second.camera.scale, second.z, second.background) == (300.0, 4.0, 0, "black")


def test_a_view_that_was_let_go_stays():
    first, second = view(), view()
    linked = LinkedViews()
    linked.add(first)
    linked.add(second)
    linked.add(second)
    assert (len(linked), second in linked) == (2, True)
    linked.remove(second)
    before = capture(second)
    first.camera = first.camera.moved(50, 50)
    assert linked.follow(first) == []
    assert linked.follow(second) == []
    assert capture(second) == before


numbers = st.floats(-1e5, 1e5, allow_nan=False)
scales = st.floats(1e-4, 64.0)


@given(numbers, numbers, scales, numbers, numbers, scales)
def test_following_back_and_forth_goes_nowhere(
    x: float, y: float, scale: float, other_x: float, other_y: float, other_scale: float
):
    first, second = Camera(x, y, scale, (640, 480), 0.5), Camera(other_x, other_y, other_scale, (300, 700), 0.1625)
    apart = offset_between(first, second)
    there = followed(first, Offset(), second, apart)
    assert (there.x_um, there.y_um) == pytest.approx((second.x_um, second.y_um), abs=1e-6)
    back = followed(there, apart, first, Offset())
    assert (back.x_um, back.y_um, back.scale) == pytest.approx((first.x_um, first.y_um, first.scale), rel=1e-9, abs=1e-6)
