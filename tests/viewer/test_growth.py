"""A slide that grows is seen to grow, and ends as the picture that a new viewer of the whole slide shows."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from rawmosaic.storage.pyramid import Tiling
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SyntheticSlide
from rawmosaic.viewer import OffscreenViewer

SIZE = (160, 120)


def mosaic() -> SyntheticSlide:
    """Nine fields that share tiles on all layers but the first."""
    return SyntheticSlide((3, 3), (150, 170), 2, tiling=Tiling.of((150, 170), tile_shape=(256, 256)))


def until(viewer: OffscreenViewer, shows: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Frames that do not wait, until one shows what is expected."""
    end = time.monotonic() + 20
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
