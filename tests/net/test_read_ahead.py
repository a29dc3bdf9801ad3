"""From a hint to the tiles that a viewer will want."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from rawmosaic.net.read_ahead import MOST_TILES, FieldsInView, hint_from, tiles_ahead
from rawmosaic.storage.errors import ProtocolError
from rawmosaic.storage.placement import orientation_matrix
from rawmosaic.storage.slide import Slide, ViewHint
from rawmosaic.storage.testing import SyntheticSlide

SHEAR = np.array([[0.97, -0.12], [0.05, -1.03]])

SLIDES = {
    "blocks": lambda: SyntheticSlide((3, 3), (600, 520), 2, overlap=0.1, seed=1),
    "turned": lambda: SyntheticSlide((3, 3), (600, 520), 2, orientation=SHEAR, seed=2),
    "quarter turn": lambda: SyntheticSlide((2, 3), (300, 520), 2, orientation=orientation_matrix("rotate-90"), seed=3),
    "sizes": lambda: SyntheticSlide((3, 3), (600, 520), 2, shapes=[(600, 520), (299, 520), (77, 400)], seed=4),
    "offsets": lambda: SyntheticSlide((3, 3), (300, 260), 3, plane_offset_px=40, channel_offset_px=60, seed=5),
}


def tiles_seen(slide: Slide, hint: ViewHint, x_um: float, y_um: float) -> set:
    """The tiles under a grid of points of a view centred there, pixel by pixel: independent of any box or index."""
    placement, cut = slide.placement(hint.position_set), slide.tiling.levels[hint.level]
    tile_height, tile_width = slide.tiling.tile_shape
    xs = x_um + np.linspace(-0.499, 0.499, 40) * hint.width_um
    ys = y_um + np.linspace(-0.499, 0.499, 40) * hint.height_um
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    found = set()
    for channel in hint.channels:
        for field, row in enumerate(slide.fields):
            size = np.array([row["width"], row["height"]])
            pixels = (points - placement.centres_um(channel)[field]) @ np.linalg.inv(placement.matrix_um).T + size / 2
            inside = pixels[((pixels >= 0) & (pixels < size)).all(axis=1)]
            for x, y in inside:
                if cut.packed:
                    index = int(row["slot"]) // cut.fields_per_tile
                else:
                    block = int(y / cut.factor) // tile_height * cut.grid[1] + int(x / cut.factor) // tile_width
                    index = field * cut.tiles_per_field + block
                found.add((hint.level, index, channel, hint.z, hint.t))
    return found


@pytest.mark.parametrize("kind", SLIDES)
@pytest.mark.parametrize("level", [0, 1, 3, 5])
def test_every_tile_of_the_view_to_come_is_named(kind, level):
    slide = SLIDES[kind]()
    middle = slide.positions().mean(axis=0)
    speed = (300.0, -140.0)
    hint = ViewHint(middle[0] - 0.5 * speed[0], middle[1] - 0.5 * speed[1], 260, 190, speed, level, (0, 1))
    fields = FieldsInView(slide)
    keys = tiles_ahead(slide, hint, fields)
    fields.close()
    seen = tiles_seen(slide, hint, *middle)
    assert seen <= set(keys)
    assert len(keys) == len(set(keys))
    # boxes of turned fields are larger than they are, but not everything
    total = 2 * slide.tiling.tile_count(level, slide.n_fields)
    assert len(keys) <= min(total, 4 * len(seen) + 8)


def test_no_key_is_outside_the_slide():
    slide = SLIDES["sizes"]()
    fields = FieldsInView(slide)
    for level in range(len(slide.levels)):
        hint = ViewHint(*slide.positions().mean(axis=0), 1e6, 1e6, (0, 0), level, (0, 1))
        for key in tiles_ahead(slide, hint, fields):
            assert 0 <= key.index < slide.tiling.tile_count(level, slide.n_fields)
    fields.close()


def test_a_hint_never_asks_for_the_whole_slide():
    slide = SyntheticSlide((40, 40), (600, 520), 8)
    fields = FieldsInView(slide)
    hint = ViewHint(*slide.positions().mean(axis=0), 1e6, 1e6, (0, 0), 0, tuple(range(8)))
    keys = tiles_ahead(slide, hint, fields)
    fields.close()
    assert len(keys) == MOST_TILES
    assert {key.channel for key in keys} == set(range(8))


def test_nothing_lies_beside_the_mosaic():
    slide = SLIDES["blocks"]()
    fields = FieldsInView(slide)
    assert tiles_ahead(slide, ViewHint(1e6, 1e6, 10, 10, (0, 0), 0, (0,)), fields) == []
    fields.close()


GOOD = ViewHint(10.0, 20.0, 100.0, 80.0, (1.0, -2.0), 1, (0, 1))


def message(hint: ViewHint = GOOD, **changed) -> dict:
    view = {**asdict(hint), "velocity_um_s": list(hint.velocity_um_s), "channels": list(hint.channels)}
    return {"view": {**view, **changed}}


def test_a_hint_survives_its_message():
    slide = SLIDES["blocks"]()
    assert hint_from(message(), slide) == GOOD
    assert hint_from(message(replace(GOOD, level=0, channels=())), slide).channels == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"x_um": float("inf")},
        {"x_um": "1"},
        {"x_um": None},
        {"y_um": 1e300},
        {"width_um": -1},
        {"velocity_um_s": [1]},
        {"velocity_um_s": [1, float("nan")]},
        {"velocity_um_s": "ab"},
        {"level": 99},
        {"level": -1},
        {"level": True},
        {"level": 1.0},
        {"channels": [7]},
        {"channels": [0] * 65},
        {"channels": 0},
        {"z": 1},
        {"t": -1},
        {"position_set": "nowhere"},
        {"position_set": ["stage"]},
    ],
)
def test_a_hint_that_cannot_be_is_refused(changed):
    with pytest.raises(ProtocolError):
        hint_from(message(**changed), SLIDES["blocks"]())


@pytest.mark.parametrize("body", [{}, {"view": 1}, {"view": []}, {"view": {}}])
def test_a_hint_without_a_view_is_refused(body):
    with pytest.raises(ProtocolError):
        hint_from(body, SLIDES["blocks"]())
