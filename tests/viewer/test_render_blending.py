"""Pictures in grey, on white, through a colour map, mixed by hand, unmixed and projected equal the NumPy twin's."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from test_render_twin import SIZE, Shown, assert_equal, difference, view
from twin import ChannelState

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SyntheticSlide
from rawmosaic.viewer import OffscreenViewer
from rawmosaic.viewer.palettes import COLOR_MAPS, color_table

UNMIXING = np.array([[1.0, -0.4, 0.0], [-0.2, 1.1, -0.3], [0.0, 0.25, 0.9]])
SLIDES = {
    "all channels": lambda: SyntheticSlide((4, 5), (48, 64), 3, overlap=0.2),
    "sparse": lambda: SyntheticSlide((5, 6), (48, 64), 3, overlap=0.3, sparse=0.4),
    "a colour a field": lambda: SyntheticSlide((5, 6), (48, 64), 3, overlap=0.55, one_channel_per_field=True),
    "channel offsets": lambda: SyntheticSlide((4, 4), (48, 64), 3, overlap=0.3, plane_offset_px=9, channel_offset_px=5),
    "many tiles": lambda: SyntheticSlide((1, 2), (600, 520), 3, overlap=0.7),
}
BLENDINGS = {
    "grey": {"mode": "grey"},
    "on white": {"background": "white"},
    "grey on white": {"mode": "grey", "background": "white"},
    "unmixed": {"unmixing": UNMIXING},
    "unmixed on white": {"unmixing": UNMIXING, "background": "white"},
}


def states(*hidden: int) -> tuple[ChannelState, ...]:
    """Three channels in colours that add up to more than white, some hidden."""
    looks = (("#2040ff", 1.0), ("#20c010", 0.7), ("#ff8000", 1.6))
    return tuple(
        ChannelState((2000.0 + 900 * n, 64_000.0 - 1000 * n), gamma, color, n not in hidden)
        for n, (color, gamma) in enumerate(looks)
    )


def check(shown: Shown, tolerance: int = 1) -> np.ndarray:
    """The viewer's picture, which is the twin's; options named as the viewer names them."""
    options = dict(shown.options)
    name = options.pop("color_map", None)
    twin = replace(shown, options={**options, "table": None if name is None else color_table(name)})
    image = shown.by_viewer()
    assert_equal(image, twin.by_twin(), tolerance)
    return image


@pytest.mark.parametrize("overlap", ["top", "feather", "max"])
@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize("kind", SLIDES)
def test_blended_picture_is_exact(kind: str, blending: str, overlap: str):
    shown = view(SLIDES[kind](), overlap=overlap)
    darker = 3.0 if "grey" in blending else 1.0
    channels = tuple(replace(state, limits=(state.limits[0], darker * state.limits[1])) for state in states())
    check(replace(shown, channels=channels, options={**shown.options, **BLENDINGS[blending]}))


@pytest.mark.parametrize("scale", [3.7, 0.5])
@pytest.mark.parametrize("blending", BLENDINGS)
def test_blended_picture_is_exact_at_other_scales(blending: str, scale: float):
    shown = view(SLIDES["all channels"](), scale=scale)
    check(replace(shown, channels=states(), options=BLENDINGS[blending]))


@pytest.mark.parametrize("overlap", ["top", "max"])
@pytest.mark.parametrize("kind", ["all channels", "sparse"])
def test_hidden_channels_are_read_where_unmixing_needs_them(kind: str, overlap: str):
    shown = view(SLIDES[kind](), overlap=overlap)
    image = check(replace(shown, channels=states(1, 2), options={"overlap": overlap, "unmixing": UNMIXING}))
    plain = replace(shown, channels=states(1, 2), options={"overlap": overlap}).by_viewer()
    assert difference(image, plain).max() > 20


def test_unmixing_beyond_what_one_pass_and_one_sum_can_hold_is_exact():
    n = 14
    matrix = np.eye(n) + 0.1 * np.random.default_rng(2).normal(size=(n, n))
    slide = SyntheticSlide((3, 3), (48, 64), n, overlap=0.2)
    channels = tuple(
        ChannelState((5_000.0, 62_000.0), 1.0, f"#{(n * 53) % 128:02x}{(n * 31) % 128:02x}40", n % 3 != 0) for n in range(n)
    )
    check(replace(view(slide), channels=channels, options={"unmixing": matrix}), tolerance=2)


def test_a_channel_that_is_made_of_nothing_is_not_shown():
    matrix = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for overlap in ("top", "max"):
        shown = view(SLIDES["all channels"]())
        below_zero = (replace(states()[0], limits=(-10.0, 5.0)), *states()[1:])
        check(replace(shown, channels=below_zero, options={"unmixing": matrix, "overlap": overlap}))
        image = replace(shown, channels=(below_zero[0], *states(0, 1, 2)[1:]), options={"unmixing": matrix}).by_viewer()
        assert image[..., :3].max() == 0


def test_unmixing_by_the_identity_changes_nothing():
    shown = replace(view(SLIDES["all channels"]()), channels=states())
    np.testing.assert_array_equal(replace(shown, options={"unmixing": np.eye(3)}).by_viewer(), shown.by_viewer())


def test_unmixing_takes_apart_what_was_mixed():
    """Two dyes that bleed into each other's channel: each unmixed channel shows its own alone."""
    random = np.random.default_rng(4)
    mixing = np.array([[1.0, 0.3], [0.25, 1.0]])

    class Bleeding(SyntheticSlide):
        """Counts of two dyes, one on the left and one on the right."""

        def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:  # noqa: ARG002
            dyes = np.zeros((2, *self.field_shape))
            half = self.field_shape[1] // 2
            dyes[0, :, :half], dyes[1, :, half:] = 10_000, 20_000
            return np.rint(mixing[channel] @ dyes.reshape(2, -1)).astype(np.uint16).reshape(self.field_shape)

    slide = Bleeding((1, 1), (48, 64), 2, jitter_px=0.0)
    shown = Shown(
        slide,
        tuple(slide.positions()[0] + random.uniform(0.01, 0.02, 2)),
        1.0,
        (ChannelState((0.0, 20_000.0), 1.0, "#ff0000"), ChannelState((0.0, 20_000.0), 1.0, "#00ff00")),
        (64, 48),
        {"unmixing": np.linalg.inv(mixing)},
    )
    image = shown.by_viewer()
    left, right = image[10:38, 4:28, :3].astype(int), image[10:38, 36:60, :3].astype(int)
    assert np.abs(left - (128, 0, 0)).max() <= 1
    assert np.abs(right - (0, 255, 0)).max() <= 1


@pytest.mark.parametrize("background", ["black", "white"])
@pytest.mark.parametrize("overlap", ["top", "max"])
@pytest.mark.parametrize("name", COLOR_MAPS)
def test_colour_map_is_looked_up_after_contrast_and_gamma(name: str, overlap: str, background: str):
    slide = SLIDES["all channels"]()
    shown = replace(view(slide), channels=states(0, 2), options={"color_map": name, "overlap": overlap, "background": background})
    check(shown)


def test_grey_map_is_the_grey_picture():
    slide = SLIDES["all channels"]()
    for background in ("black", "white"):
        shown = replace(view(slide), channels=states(0, 2), options={"background": background})
        by_map = replace(shown, options={"background": background, "color_map": "gray"}).by_viewer()
        by_mode = replace(shown, options={"background": background, "mode": "grey"}).by_viewer()
        assert difference(by_map, by_mode).max() <= 1


def test_colour_map_of_several_channels_has_no_effect():
    shown = replace(view(SLIDES["all channels"]()), channels=states())
    np.testing.assert_array_equal(replace(shown, options={"color_map": "magma"}).by_viewer(), shown.by_viewer())


def test_colour_map_of_an_unmixed_channel_is_exact():
    shown = replace(view(SLIDES["sparse"]()), channels=states(0, 1))
    for overlap in ("top", "max"):
        check(replace(shown, options={"color_map": "viridis", "unmixing": UNMIXING, "overlap": overlap}))


def test_columns_of_the_mixer_may_be_negative_and_above_one():
    columns = ((1.5, -0.5, 0.0), (-0.4, 2.0, 0.3), (0.2, 0.0, -1.0))
    channels = tuple(replace(state, column=column) for state, column in zip(states(), columns, strict=True))
    for overlap in ("top", "max"):
        shown = view(SLIDES["all channels"](), overlap=overlap)
        image = check(replace(shown, channels=channels, options={"overlap": overlap}))
        assert difference(image, replace(shown, channels=states()).by_viewer()).max() > 50


def test_white_is_white_beside_the_mosaic_and_without_channels():
    slide = SLIDES["all channels"]()
    options = {"background": "white"}
    beside = Shown(slide, (1e6, -1e6), 1.0, states(), options=options).by_viewer()
    hidden = replace(view(slide), channels=states(0, 1, 2), options=options).by_viewer()
    for overlap in ("top", "max"):
        assert (Shown(slide, (1e6, -1e6), 1.0, states(), options={**options, "overlap": overlap}).by_viewer() == 255).all()
    assert (beside == 255).all()
    assert (hidden == 255).all()


def test_on_white_green_stays_green_and_white_becomes_black():
    slide = SLIDES["all channels"]()
    for color, expected in (
        ("#00ff00", (0, 255, 0)),
        ("#ffffff", (0, 0, 0)),
        ("#ff8000", (255, 128, 0)),
        ("#800000", (255, 127, 127)),
    ):
        saturated = tuple(ChannelState((-2.0, -1.0), 1.0, color, number == 0) for number in range(3))
        image = replace(view(slide), channels=saturated, options={"background": "white"}).by_viewer()
        middle = image[SIZE[1] // 2, SIZE[0] // 2, :3].astype(int)
        assert np.abs(middle - expected).max() <= 1, color


# projection


@pytest.mark.parametrize("overlap", ["top", "max", "feather"])
@pytest.mark.parametrize("scale", [1.0, 0.25, 3.7])
def test_projected_picture_is_the_maximum_of_all_planes(scale: float, overlap: str):
    slide = SyntheticSlide((4, 5), (48, 64), 3, size_z=3, size_t=2, overlap=0.2, sparse=0.5)
    shown = view(slide, scale=scale, overlap=overlap, projection="max", t=1)
    image = check(replace(shown, channels=states(), options=shown.options))
    single = replace(shown, channels=states(), options={**shown.options, "projection": "none"}).by_viewer()
    assert difference(image, single).max() > 20


def test_projection_of_many_planes_is_exact():
    slide = SyntheticSlide((2, 2), (24, 32), 1, size_z=19, overlap=0.1)
    check(replace(view(slide, projection="max"), channels=(ChannelState((60_000.0, 65_535.0)),)))


def test_projection_of_a_single_plane_is_the_plane():
    slide = SLIDES["all channels"]()
    shown = replace(view(slide), channels=states())
    np.testing.assert_array_equal(replace(shown, options={"projection": "max"}).by_viewer(), shown.by_viewer())


def test_projection_can_be_switched_while_viewing():
    slide = SyntheticSlide((3, 4), (48, 64), 3, size_z=3, overlap=0.2)
    with OffscreenViewer(slide, size=SIZE) as viewer:
        for options in (
            {"projection": "max"},
            {"projection": "none", "z": 2},
            {"projection": "max", "z": 1},
            {"projection": "none", "z": 0},
        ):
            shown = replace(view(slide), channels=states(), options=options)
            shown.apply(viewer)
            viewer.render(wait=False)
            assert_equal(viewer.render(), shown.by_twin())


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("fields_known", [True, False])
def test_projection_of_a_growing_slide_takes_in_every_plane(fields_known: bool, scale: float):
    whole = SyntheticSlide((2, 3), (48, 64), 1, size_z=3, overlap=0.1)
    growing = GrowingSlide(whole, 4, fields_known=fields_known)
    shown = view(whole, scale=scale, projection="max")
    expected = replace(shown, channels=(ChannelState((20_000.0, 65_535.0)),)).by_twin()
    with OffscreenViewer(growing, size=SIZE) as viewer:
        replace(shown, channels=(ChannelState((20_000.0, 65_535.0)),)).apply(viewer)
        end = time.monotonic() + 30
        while difference(viewer.render(wait=False), expected).max() > 1:
            growing.grow(1)
            assert time.monotonic() < end, "never shown"
            time.sleep(0.01)
        assert_equal(viewer.render(), expected)


def test_an_unreadable_plane_makes_its_projection_unreadable():
    sound = SyntheticSlide((1, 1), (48, 64), 1, size_z=3)
    slide = FailingSlide(sound, lambda key: key[3] == 1)  # z, of a plane's key and of a tile's alike
    with OffscreenViewer(slide, size=SIZE) as viewer:
        viewer.projection = "max"
        image = viewer.render()
        assert viewer.report.tiles_failed > 0
        assert viewer.failures()
    assert image[..., :3].max() <= 100  # the outline at most


# what is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "sepia"),
        ("background", "pink"),
        ("color_map", "jet"),
        ("projection", "mean"),
        ("unmixing", np.eye(2)),
        ("unmixing", np.full((3, 3), np.nan)),
    ],
)
def test_unknown_blending_is_refused_by_name(name: str, value: object):
    with OffscreenViewer(SLIDES["all channels"](), size=SIZE) as viewer:
        setattr(viewer, name, value)
        with pytest.raises(OutOfRangeError, match="matrix" if name == "unmixing" else str(value)):
            viewer.render()
