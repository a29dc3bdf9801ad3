"""A slide that grows is seen to grow, and ends as the picture that a new viewer of the whole slide shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rawmosaic.storage.errors import UnreachableError
from rawmosaic.storage.pyramid import TileKey, Tiling
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SyntheticSlide
from rawmosaic.viewer import OffscreenViewer
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.plan import Geometry, View
from rawmosaic.viewer.planned import planned_fields, planned_rows
from rawmosaic.viewer.renderer import PLANNED_COLOR

SIZE = (160, 120)


def mosaic() -> SyntheticSlide:
    """Nine fields that share tiles on all layers but the first."""
    return SyntheticSlide((3, 3), (150, 170), 2, tiling=Tiling.of((150, 170), tile_shape=(256, 256)))


def until(viewer: OffscreenViewer, shows: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Frames that do not wait, until one shows what is expected."""
    end = time.monotonic() + 60
    while not shows(image := viewer.render(wait=False)):
        assert time.monotonic() < end, "never shown"
        time.sleep(0.005)
    return image


@pytest.mark.parametrize("scale", [0.05, 0.25, 1.0])
def test_what_was_acquired_meanwhile_is_shown(scale: float):
    whole = mosaic()
    centre = whole.positions().mean(axis=0)
    with OffscreenViewer(whole, size=SIZE) as viewer:
        viewer.look_at(*centre, scale=scale)
        looks = [(look.limits, look.color) for look in viewer.channels]
        expected = viewer.render()
    growing = GrowingSlide(whole)
    with OffscreenViewer(growing, size=SIZE) as viewer:
        for look, (limits, color) in zip(viewer.channels, looks, strict=True):
            look.limits, look.color = limits, color
        viewer.look_at(*centre, scale=scale)
        assert not viewer.render()[..., :3].any()
        for _ in range(18):
            growing.grow(1)
            viewer.render(wait=False)
        assert not np.array_equal(viewer.render(), np.zeros_like(expected))
        until(viewer, lambda image: np.array_equal(image, expected))
        np.testing.assert_array_equal(viewer.render(), expected)


def test_fields_nobody_planned_find_their_place():
    whole = mosaic()
    growing = GrowingSlide(whole)
    growing.grow(2)
    with OffscreenViewer(growing, size=SIZE) as viewer:
        viewer.fit()
        before = viewer.render()
        growing.grow(16)
        until(viewer, lambda image: not np.array_equal(image, before))


def test_a_source_that_fails_meanwhile_is_asked_again():
    whole = mosaic()
    growing = GrowingSlide(whole)
    refused = iter([True] * 3)
    refresh = growing.refresh

    def sometimes():
        from rawmosaic.storage.errors import UnreachableError

        if next(refused, False):
            raise UnreachableError("away")
        return refresh()

    growing.refresh = sometimes
    with OffscreenViewer(growing, size=SIZE) as viewer:
        viewer.fit()
        growing.grow(18)
        until(viewer, lambda image: bool(image[..., :3].any()))


def test_a_finished_slide_has_no_thread_that_follows_it():
    with OffscreenViewer(FailingSlide(mosaic(), 0.0), size=SIZE) as viewer:
        assert viewer.engine._follower is None
        assert viewer.engine.scan is None
        assert not viewer.engine.wants_frame


class Gated(GrowingSlide):
    """A slide whose tiles are read only while the gate is open."""

    def __init__(self, *arguments, **options):
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(*arguments, **options)

    def _before(self, key: TileKey) -> None:  # noqa: ARG002
        assert self.gate.wait(60)


@pytest.mark.parametrize("scale", [0.05, 0.25])
def test_what_was_seen_stays_while_the_tiles_it_shares_are_read_anew(scale: float):
    growing = Gated(mosaic(), 8, fields_known=True)
    with OffscreenViewer(growing, size=SIZE) as viewer:
        viewer.look_at(*growing.slide.positions().mean(axis=0), scale=scale)
        for look in viewer.channels:
            look.limits = (0, 1)
        seen = viewer.render()[..., :3] > 0
        growing.gate.clear()
        try:
            before = viewer.engine.growth
            growing.grow(4)
            until(viewer, lambda _: viewer.engine.growth > before)
            for _ in range(3):
                assert (viewer.render(wait=False)[..., :3] > 0)[seen].all(), "something went dark"
        finally:
            growing.gate.set()
        until(viewer, lambda image: (image[..., :3] > 0).sum() > seen.sum())


class Losing(GrowingSlide):
    """A slide whose server loses the questions that it was asked while it hung: they fail when nothing else comes any more."""

    def __init__(self, *arguments, **options):
        self.hangs, self.asked, self.answers = False, threading.Event(), threading.Event()
        super().__init__(*arguments, **options)

    def _before(self, key: TileKey) -> None:
        if self.hangs:
            self.asked.set()
            assert self.answers.wait(60)
            raise UnreachableError(f"no answer for {key}")


def test_the_last_fields_of_a_scan_come_though_the_first_question_for_them_was_lost():
    growing = Losing(mosaic(), 8, fields_known=True)
    with OffscreenViewer(growing, size=SIZE) as viewer:
        viewer.fit()
        viewer.look_at(*growing.slide.positions().mean(axis=0), scale=0.05)
        viewer.render()
        engine, growing.hangs = viewer.engine, True

        def attended(done: Callable[[], bool]) -> None:
            """Frames as a window draws them: only while one has a reason."""
            end = time.monotonic() + 60
            while not done():
                assert time.monotonic() < end, "did not come true"
                report = viewer.report
                if engine.wants_frame or not report.complete or report.tiles_uploaded or report.tiles_failed:
                    viewer.render(wait=False)
                time.sleep(0.01)

        growing.grow(10)
        try:
            attended(lambda: engine.growth > 0 and growing.asked.is_set())
        finally:
            growing.hangs = False
            growing.answers.set()
        attended(lambda: engine.freshness[1] == 0)
        np.testing.assert_array_equal(viewer.render(wait=False), viewer.render())


def test_a_picture_that_waits_is_made_of_what_is_there_now():
    growing = GrowingSlide(mosaic(), 2, fields_known=True)
    with OffscreenViewer(growing, size=SIZE) as viewer:
        viewer.fit()
        viewer.render()
        before = viewer.engine.growth
        growing.grow(16)
        until(viewer, lambda _: viewer.engine.growth > before)
        with OffscreenViewer(mosaic(), size=SIZE) as whole:
            whole.camera = viewer.camera
            for look, other in zip(whole.channels, viewer.channels, strict=True):
                look.limits, look.color = other.limits, other.color
            np.testing.assert_array_equal(viewer.render(), whole.render())


def test_a_planned_scan_keeps_its_geometry_and_another_gets_a_new_one():
    for planned in (True, False):
        growing = GrowingSlide(mosaic(), 2, fields_known=planned)
        with OffscreenViewer(growing, size=SIZE) as viewer:
            viewer.render()
            geometry, before = viewer.engine.geometry, viewer.engine.growth
            growing.grow(6)
            until(viewer, lambda _, viewer=viewer, before=before: viewer.engine.growth > before)
            assert (viewer.engine.geometry is geometry) is planned


def test_a_scan_is_counted_until_it_is_finished():
    growing = GrowingSlide(mosaic(), 4, fields_known=True)
    with OffscreenViewer(growing, size=SIZE) as viewer:
        until(viewer, lambda _: viewer.engine.scan is not None)
        first = viewer.engine.scan
        assert (first.state, first.fields, first.planes) == ("running", 2, 4)
        growing.grow(3)
        until(viewer, lambda _: viewer.engine.scan.planes == 7)
        assert (viewer.engine.scan.fields, viewer.engine.scan.planned_fields) == (4, 9)
        assert viewer.engine.scan.newest == (3, 0, 0, 0)
        growing.grow(11)
        until(viewer, lambda _: not viewer.engine.scan.goes_on)
        assert (viewer.engine.scan.state, viewer.engine.scan.fields) == ("finished", 9)


# planned positions


def around(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The pixels within one of a place, (k, 3)."""
    column, row = int(x), int(y)
    return image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, :3].reshape(-1, 3)


def test_what_is_planned_is_outlined_until_it_is_acquired():
    growing = GrowingSlide(mosaic(), 0, fields_known=True)
    dim = np.round(255 * np.array(PLANNED_COLOR)).astype(int)
    with OffscreenViewer(growing, size=SIZE) as viewer:
        viewer.fit()
        viewer.engine.camera = viewer.engine.camera.zoomed(0.8 * viewer.engine.camera.scale)
        viewer.engine.show_planned = True
        acquired = 0
        for n_planes in (0, 8, 10):
            growing.grow(n_planes)
            acquired += n_planes // 2
            until(viewer, lambda _, acquired=acquired: viewer.engine.scan is not None and viewer.engine.scan.fields == acquired)
            image, camera, geometry = viewer.render(), viewer.engine.camera, viewer.engine.geometry
            for field in range(9):
                left, top, right, bottom = geometry.box_of(field, 0)
                sides = [(right, 0.5 * (top + bottom)), (0.5 * (left + right), bottom)]  # beside fields that come later
                dims = [(np.abs(around(image, *camera.to_window(*side)) - dim).max(axis=1) <= 1).any() for side in sides]
                assert field < acquired or all(dims), f"field {field} has no outline"
        assert not (np.abs(image[..., :3] - dim).max(axis=-1) <= 1).any()


def test_planned_means_what_would_be_seen():
    slide = mosaic()
    geometry, has = Geometry(slide, "stage"), np.zeros((9, 2), bool)
    has[:4, 0] = True
    view = View(Camera(0.0, 0.0, 1.0, (160, 120)).fitted(geometry.bounds_um), (0, 1))
    assert planned_fields(view, geometry, has).tolist() == [4, 5, 6, 7, 8]
    assert planned_fields(replace(view, channels=(1,)), geometry, has).tolist() == list(range(9))
    assert planned_fields(replace(view, channels=()), geometry, has).tolist() == [4, 5, 6, 7, 8]
    near = replace(view.camera, scale=8.0, x_um=geometry.centres_um(0)[5, 0], y_um=geometry.centres_um(0)[5, 1])
    assert planned_fields(replace(view, camera=near), geometry, has).tolist() == [5], "only what is in view"
    assert planned_fields(view, geometry, has[:6]).tolist() == [4, 5], "fields that the table has not heard of are left out"
    assert len(planned_rows(view, geometry, has)) == 5
    far = replace(view.camera, scale=0.01)
    assert len(planned_rows(replace(view, camera=far), geometry, has)) == 0, "lines would be all there is to see"


def test_a_field_that_is_still_to_come_is_not_kept_as_black():
    """The whole of a small slide is kept resident in its finest layer: only what was acquired of it is asked for."""
    growing = GrowingSlide(SyntheticSlide((2, 3), (96, 128), 1, smooth=True), 4, fields_known=True)
    asked: set[TileKey] = set()
    read = growing.read_tiles
    growing.read_tiles = lambda keys, *rest: (asked.update(keys), read(keys, *rest))[1]
    with OffscreenViewer(growing, size=SIZE) as viewer:
        viewer.look_at(*growing.positions()[0], scale=1.0)
        engine = viewer.engine
        engine.store.make_room(200)
        until(viewer, lambda _: engine.report.complete and engine.overview_tiles_resident == 4 and engine._loader.idle)
        assert {key.index for key in asked if key.level == 0} == {0, 1, 2, 3}
        growing.grow(2)
        until(viewer, lambda _: engine.overview_tiles_resident == 6)
