"""What is on a stage, planes of it that are sent, and the slide that they must have become."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.simulate import place_of, planes_in_order
from rawmosaic.storage import open_slide
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide


def microscope(seed: int = 0, **options) -> SyntheticSlide:
    """What is on the stage: 2 × 3 fields in two colours."""
    return SyntheticSlide(**{"grid": (2, 3), "field_shape": (40, 60), "channels": ["DAPI", "GFP"], "seed": seed, **options})


def send_all(scanner: Scanner, camera: Slide, keys=None) -> None:
    for field, channel, z, t in planes_in_order(camera) if keys is None else keys:
        x_um, y_um, z_um = place_of(camera, field, channel)
        scanner.send(camera.read_plane(field, channel, z, t), channel, x_um=x_um, y_um=y_um, z_um=z_um, z=z, t=t)


def begin(scanner: Scanner, name: str, camera: Slide, **options) -> None:
    shape, channels = camera.field_shape, camera.channels
    scanner.start(
        name, field_shape=shape, channels=channels, pixel_size_um=camera.header.pixel_size_um, size_z=camera.size_z, **options
    )


def assert_same(location: str | Path, camera: Slide) -> None:
    """The slide holds what the camera saw, each plane at its place, and proves it."""
    assert verify_slide(location) == []
    with open_slide(location) as slide:
        assert [channel.name for channel in slide.channels] == [channel.name for channel in camera.channels]
        places = {tuple(place): field for field, place in enumerate(slide.positions().round(6).tolist())}
        n_planes = 0
        for field, channel, z, t in planes_in_order(camera):
            there = places[tuple(camera.positions()[field].round(6).tolist())]
            np.testing.assert_array_equal(
                slide.read_plane(there, channel, z, t), camera.read_plane(field, channel, z, t), f"{field} {channel} {z} {t}"
            )
            n_planes += 1
        assert sum(int(slide.acquired(z, t).sum()) for z in range(slide.size_z) for t in range(slide.size_t)) == n_planes
