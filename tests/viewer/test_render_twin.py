"""The viewer's picture equals the NumPy twin's, pixel by pixel."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from twin import ChannelState, clearance_px, render, rgb, screen_points_um

from rawmosaic.storage.placement import ORIENTATIONS, orientation_matrix
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import FailingSlide, SlowSlide, SyntheticSlide
from rawmosaic.viewer import OffscreenViewer

SIZE = (211, 157)
SHEAR = np.array([[0.97, -0.12], [0.05, -1.03]])
COLORS = ("#0000ff", "#00ff00", "#ff00ff", "#00ffff", "#ffff00", "#ff8000", "#ffffff", "#804020")
CLEARANCE_PX = 1e-3


@dataclass(frozen=True)
class Shown:
    """A view of a slide, for the viewer and for the twin."""

    slide: Slide
    center_um: tuple[float, float]
    scale: float
    channels: tuple[ChannelState, ...]
    size: tuple[int, int] = SIZE
    options: dict = field(default_factory=dict)

    def by_twin(self, shift_px: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """(height, width, 4) uint8 of the twin; with the view shifted by some image pixels."""
        step_um = self.slide.header.pixel_size_um
        center_um = (self.center_um[0] + shift_px[0] * step_um, self.center_um[1] + shift_px[1] * step_um)
        return render(self.slide, center_um, self.scale, self.size, self.channels, **self.options)

    def by_viewer(self, interpolation: str | None = "nearest") -> np.ndarray:
        """(height, width, 4) uint8 of the viewer."""
        with OffscreenViewer(self.slide, size=self.size) as viewer:
            self.apply(viewer, interpolation)
            image = viewer.render()
            assert sys.modules["rawmosaic.viewer.gl.api"].check_errors() == []
            return image

    def apply(self, viewer: object, interpolation: str | None = "nearest") -> None:
        """Set the viewer to this view."""
        viewer.look_at(*self.center_um, scale=self.scale)
        for shown, state in zip(viewer.channels, self.channels, strict=True):
            shown.limits, shown.gamma, shown.color, shown.visible = state.limits, state.gamma, state.color, state.visible
            shown.column = state.column
        for name, value in self.options.items():
            setattr(viewer, name, value)
        if interpolation is not None:
            viewer.interpolation = interpolation


def states(n: int) -> tuple[ChannelState, ...]:
    """A colour for each channel; white for one. Limits leave both ends cut off."""
    if n == 1:
        return (ChannelState(),)
    return tuple(
        ChannelState((2000.0 + 500 * c, 65535.0 - 1000 * c), (1.0, 0.7, 1.6)[c % 3], COLORS[c % len(COLORS)]) for c in range(n)
    )


def view(slide: Slide, scale: float = 1.0, size: tuple[int, int] = SIZE, *, clear: bool = True, **options) -> Shown:
    """A view about the middle of the slide, where no screen pixel's centre lies on a boundary between image pixels."""
    positions = slide.positions(options.get("position_set", "stage"))
    middle = positions.mean(axis=0)
    random = np.random.default_rng(17)
    best, best_clearance = tuple(middle), -1.0
    if not clear:
        best = tuple(middle + random.uniform(-3, 3, 2) * slide.header.pixel_size_um)
        return Shown(slide, best, scale, states(len(slide.channels)), size, options)
    for _ in range(200):
        center = tuple(middle + random.uniform(-3, 3, 2) * slide.header.pixel_size_um)
        clearance = clearance_px(slide, center, scale, size, position_set=options.get("position_set", "stage"))
        if clearance > best_clearance:
            best, best_clearance = center, clearance
        if clearance >= CLEARANCE_PX:
            break
    assert best_clearance >= CLEARANCE_PX, f"no clear view found: {best_clearance}"
    return Shown(slide, best, scale, states(len(slide.channels)), size, options)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(height, width) largest difference over the colours."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.uint8
    return np.abs(a.astype(int) - b.astype(int)).max(axis=-1)


def assert_equal(image: np.ndarray, expected: np.ndarray, tolerance: int = 1, allowed: float = 0.0) -> None:
    """Every pixel within `tolerance` levels, but for the `allowed` part of them; says where and what else."""
    assert (expected[..., :3] > 0).any(), "the test shows nothing"
    off = difference(image, expected)
    wrong = off > tolerance
    if wrong.mean() > allowed:
        _keep_images(image, expected)
        places = np.argwhere(wrong)
        lines = [f"({x}, {y}): {image[y, x].tolist()}, expected {expected[y, x].tolist()}" for y, x in places[:8]]
        box = f"x {places[:, 1].min()}..{places[:, 1].max()}, y {places[:, 0].min()}..{places[:, 0].max()}"
        raise AssertionError(f"{len(places)} of {wrong.size} pixels differ, by up to {off.max()}, in {box}:\n" + "\n".join(lines))
    assert (off > 0).mean() < 0.05, "rounding differs too often"


def _keep_images(image: np.ndarray, expected: np.ndarray) -> None:
    """Where RAWMOSAIC_TEST_IMAGES names a folder, the pictures and their difference go there."""
    folder = os.environ.get("RAWMOSAIC_TEST_IMAGES")
    if not folder:
        return
    from PIL import Image

    os.makedirs(folder, exist_ok=True)
    name = os.environ.get("PYTEST_CURRENT_TEST", "test").split("::")[-1].split(" ")[0].replace("/", "-")
    amplified = np.minimum(difference(image, expected) * 16, 255).astype(np.uint8)
    side_by_side = np.concatenate([image[..., :3], expected[..., :3], np.repeat(amplified[..., None], 3, axis=-1)], axis=1)
    Image.fromarray(side_by_side).save(os.path.join(folder, f"{name}.png"))


def assert_equals_twin(shown: Shown, image: np.ndarray, tolerance: int = 1) -> None:
    """Every pixel as the twin's, or, where its centre lies within CLEARANCE_PX of a boundary, as the twin's beyond it.

    For views with rotation or shear, in which some centre always comes close to a boundary.
    """
    twin = shown.by_twin()
    assert (twin[..., :3] > 0).any(), "the test shows nothing"
    right = difference(image, twin) <= tolerance
    assert (~right).mean() < 0.01, f"{(~right).sum()} of {right.size} pixels differ"
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            if (dx, dy) != (0, 0):
                right |= difference(image, shown.by_twin((dx * CLEARANCE_PX, dy * CLEARANCE_PX))) <= tolerance
    assert right.all(), f"{(~right).sum()} pixels are nobody's, e.g. (x, y) = {np.argwhere(~right)[:5, ::-1].tolist()}"


SLIDES: dict[str, Callable[[], SyntheticSlide]] = {
    "one channel": lambda: SyntheticSlide((5, 6), (48, 64), 1, overlap=0.2),
    "four channels": lambda: SyntheticSlide((5, 6), (48, 64), 4, overlap=0.2),
    "twelve channels": lambda: SyntheticSlide((4, 5), (48, 64), 12),
    "sparse": lambda: SyntheticSlide((5, 6), (48, 64), 3, overlap=0.3, sparse=0.4),
    "a colour a field": lambda: SyntheticSlide((5, 6), (48, 64), 3, overlap=0.55, one_channel_per_field=True),
    "odd field": lambda: SyntheticSlide((5, 6), (47, 61), 2),
    "field sizes": lambda: SyntheticSlide((5, 6), (48, 64), 2, overlap=0.4, shapes=[(48, 64), (31, 45), (64, 20), (9, 5)]),
    "offsets": lambda: SyntheticSlide((4, 4), (48, 64), 2, overlap=0.3, plane_offset_px=9, channel_offset_px=5),
    "many tiles": lambda: SyntheticSlide((1, 2), (600, 520), 2, overlap=0.7),
    "gaps": lambda: SyntheticSlide((5, 6), (48, 64), 2, overlap=-0.3),
    "tiny fields": lambda: SyntheticSlide((30, 30), (5, 7), 1, overlap=0.2, jitter_px=0.6),
    "far from the origin": lambda: SyntheticSlide((5, 6), (48, 64), 2, origin_um=(81234.567, -56789.123), pixel_size_um=0.1625),
    "hundred thousand fields": lambda: SyntheticSlide((250, 400), (48, 64), 2, jitter_px=2),
}


@pytest.mark.parametrize("overlap", ["top", "max"])
@pytest.mark.parametrize("kind", SLIDES)
def test_picture_at_1_to_1_is_exact(kind: str, overlap: str):
    shown = view(SLIDES[kind](), overlap=overlap)
    assert_equal(shown.by_viewer(), shown.by_twin(), tolerance=0 if len(shown.channels) == 1 else 1)


@pytest.mark.parametrize("kind", ["four channels", "sparse", "field sizes", "offsets", "many tiles", "far from the origin"])
def test_magnified_picture_keeps_pixels_as_pixels(kind: str):
    shown = view(SLIDES[kind](), scale=3.7)
    assert_equal(shown.by_viewer(), shown.by_twin())


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125, 0.4, 0.21], ids="scale {}".format)
@pytest.mark.parametrize("kind", ["four channels", "field sizes", "many tiles", "sparse"])
def test_reduced_picture_shows_the_right_layer(kind: str, scale: float):
    shown = view(SLIDES[kind](), scale=scale, clear=False)
    assert_equals_twin(shown, shown.by_viewer())


@pytest.mark.parametrize("kind", ["four channels", "sparse", "field sizes", "offsets"])
def test_feathered_picture_is_the_weighted_mean(kind: str):
    shown = view(SLIDES[kind](), overlap="feather")
    assert_equal(shown.by_viewer(), shown.by_twin())


@pytest.mark.parametrize("kind", ["four channels", "sparse", "field sizes", "offsets", "a colour a field"])
def test_nearest_field_wins(kind: str):
    shown = view(SLIDES[kind](), overlap="nearest")
    assert_equal(shown.by_viewer(), shown.by_twin(), allowed=0.001)


@pytest.mark.parametrize("overlap", ["top", "max", "feather", "nearest"])
@pytest.mark.parametrize("scale", [1.0, 3.7, 0.4])
def test_sheared_mosaic_is_exact(overlap: str, scale: float):
    slide = SyntheticSlide((6, 7), (48, 64), 2, overlap=0.3, orientation=SHEAR)
    shown = view(slide, scale=scale, clear=False, overlap=overlap)
    if overlap == "nearest":  # ties between two fields are nobody's
        assert_equal(shown.by_viewer(), shown.by_twin(), allowed=0.005)
    else:
        assert_equals_twin(shown, shown.by_viewer())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_mounted_camera_is_undone(orientation: str):
    slide = SyntheticSlide(
        (5, 5), (40, 64), 2, overlap=0.2, orientation=orientation_matrix(orientation), shapes=[(40, 64), (33, 51)]
    )
    shown = view(slide)
    assert_equal(shown.by_viewer(), shown.by_twin())


@pytest.mark.parametrize("angle", [0.9, -14.0, 45.0])
def test_turned_camera_is_undone(angle: float):
    slide = SyntheticSlide((6, 7), (48, 64), 2, orientation=orientation_matrix("flip-y", angle))
    shown = view(slide, clear=False)
    assert_equals_twin(shown, shown.by_viewer())


@pytest.mark.parametrize("name", ["registered", "by hand"])
def test_position_set_can_be_chosen(name: str):
    slide = SyntheticSlide((5, 6), (48, 64), 2, extra_sets=("registered", "by hand"))
    shown = view(slide, clear=False, position_set=name)
    assert_equals_twin(shown, shown.by_viewer())


def test_z_and_t_can_be_chosen():
    slide = SyntheticSlide((3, 4), (48, 64), 2, size_z=3, size_t=2, sparse=0.2)
    pictures = set()
    with OffscreenViewer(slide, size=SIZE) as viewer:
        for z, t in ((0, 0), (2, 0), (2, 1), (1, 1), (0, 0)):
            shown = view(slide, z=z, t=t)
            shown.apply(viewer)
            image = viewer.render()
            assert_equal(image, shown.by_twin())
            pictures.add(image.tobytes())
    assert len(pictures) == 4


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 1), (1, 77), (640, 3), (333, 256), (17, 401)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_any_window_size_is_exact(size: tuple[int, int]):
    slide = SyntheticSlide((12, 12), (48, 64), 2, overlap=0.2)
    shown = view(slide, size=size)
    assert_equal(shown.by_viewer(), shown.by_twin())


def test_picture_beside_the_mosaic_is_black_and_opaque():
    slide = SLIDES["four channels"]()
    shown = Shown(slide, (1e6, -1e6), 1.0, states(4))
    expected = np.zeros((SIZE[1], SIZE[0], 4), np.uint8)
    expected[..., 3] = 255
    np.testing.assert_array_equal(shown.by_viewer(), expected)


def test_edge_of_the_mosaic_is_exact():
    slide = SLIDES["four channels"]()
    shown = view(slide)
    for corner in (slide.positions().min(axis=0), slide.positions().max(axis=0)):
        at_corner = Shown(slide, (corner[0] + 0.1234, corner[1] + 0.0567), 1.0, shown.channels)
        assert (at_corner.by_twin()[..., :3].max(axis=-1) == 0).mean() > 0.2
        assert_equals_twin(at_corner, at_corner.by_viewer())


# channels


def test_contrast_limits_cut_both_ends():
    slide = SLIDES["one channel"]()
    for limits in ((20_000, 40_000), (0, 100), (65_000, 65_535), (30_000, 30_001), (-5_000.5, 90_000.25)):
        shown = view(slide)
        shown = Shown(slide, shown.center_um, 1.0, (ChannelState(limits),))
        image, expected = shown.by_viewer(), shown.by_twin()
        assert difference(image, expected).max() <= 1


@pytest.mark.parametrize("gamma", [0.2, 0.45, 1.0, 2.2, 5.0])
def test_gamma_bends_the_scale(gamma: float):
    slide = SLIDES["one channel"]()
    shown = view(slide)
    shown = Shown(slide, shown.center_um, 1.0, (ChannelState((10_000, 60_000), gamma),))
    assert_equal(shown.by_viewer(), shown.by_twin())


def test_invisible_channels_do_not_show():
    slide = SLIDES["four channels"]()
    shown = view(slide)
    for visible in ((1, 0, 0, 0), (0, 0, 1, 1), (0, 1, 1, 1)):
        channels = tuple(
            ChannelState(s.limits, s.gamma, s.color, bool(on)) for s, on in zip(shown.channels, visible, strict=True)
        )
        some = Shown(slide, shown.center_um, 1.0, channels)
        assert_equal(some.by_viewer(), some.by_twin())


def test_no_channel_shown_is_black():
    slide = SLIDES["four channels"]()
    image = Shown(slide, view(slide).center_um, 1.0, tuple(ChannelState(visible=False) for _ in range(4))).by_viewer()
    assert (image[..., :3] == 0).all()
    assert (image[..., 3] == 255).all()


def test_colours_add_up_and_clamp():
    slide = SLIDES["four channels"]()
    channels = tuple(ChannelState((0, 20_000), 1.0, color) for color in ("#ff0000", "#808080", "#0000ff", "#40c020"))
    shown = Shown(slide, view(slide).center_um, 1.0, channels)
    expected = shown.by_twin()
    assert (expected[..., :3] == 255).mean() > 0.2
    assert_equal(shown.by_viewer(), expected)


def test_single_colour_is_the_colour_at_full_intensity():
    slide = SLIDES["one channel"]()
    shown = Shown(slide, view(slide).center_um, 1.0, (ChannelState((-2, -1), 1.0, "#12a3fe"),))
    image = shown.by_viewer()
    covered = shown.by_twin()[..., :3].any(axis=-1)
    assert covered.mean() > 0.5
    np.testing.assert_array_equal(image[covered][:, :3], np.broadcast_to(rgb("#12a3fe") * 255, (covered.sum(), 3)))


def test_one_viewer_follows_every_change():
    """What was rendered before leaves no trace: the same viewer, many views."""
    slide = SyntheticSlide((6, 7), (48, 64), 4, overlap=0.3, sparse=0.1, extra_sets=("registered",))
    random = np.random.default_rng(5)
    with OffscreenViewer(slide, size=SIZE) as viewer:
        for number in range(12):
            scale = float(random.choice([1.0, 3.7, 0.5, 0.31]))
            middle = slide.positions().mean(axis=0) + random.uniform(-40, 40, 2)
            channels = tuple(
                ChannelState(
                    (0, float(random.integers(20_000, 65_535))), 1.0, COLORS[int(random.integers(8))], bool(random.random() < 0.7)
                )
                for _ in range(4)
            )
            options = {
                "overlap": str(random.choice(["top", "max", "feather"])),
                "position_set": "registered" if number % 4 == 3 else "stage",
            }
            shown = Shown(slide, tuple(middle), scale, channels, options=options)
            shown.apply(viewer)
            if not any(state.visible for state in channels):
                continue
            assert_equals_twin(shown, viewer.render())


# waiting, failing


def test_frame_without_waiting_has_its_shape_and_the_next_is_complete():
    slide = SlowSlide(SLIDES["four channels"](), 0.005)
    shown = view(slide)
    with OffscreenViewer(slide, size=SIZE) as viewer:
        shown.apply(viewer)
        frame = viewer.render(wait=False)
        assert (frame.shape, frame.dtype) == ((SIZE[1], SIZE[0], 4), np.uint8)
        assert (frame[..., 3] == 255).all()
        assert_equal(viewer.render(), shown.by_twin())


def test_view_shows_the_rest_of_a_damaged_slide():
    sound = SyntheticSlide((5, 6), (48, 64), 2, overlap=-0.1)
    bad = 14  # about the middle

    def fails(key: tuple) -> bool:
        if not isinstance(key, TileKey):
            return key[0] == bad
        return any(field == bad for field, _, _ in sound.tiling.pieces(key, sound.field_of_slot)) if key.level == 0 else False

    shown = view(FailingSlide(sound, fails))
    image = shown.by_viewer()
    expected = Shown(sound, shown.center_um, 1.0, shown.channels).by_twin()
    x_um, y_um = screen_points_um(sound, shown.center_um, 1.0, SIZE)
    dx, dy = np.abs(x_um - sound.fields["x_um"][bad]) / 0.5, np.abs(y_um - sound.fields["y_um"][bad]) / 0.5
    elsewhere = (dx > 33) | (dy > 25)
    assert 0.3 < elsewhere.mean() < 0.97
    assert difference(image, expected)[elsewhere].max() <= 1


def test_default_interpolation_is_nearest_when_magnified():
    shown = view(SLIDES["four channels"](), scale=3.7)
    assert_equal(shown.by_viewer(interpolation=None), shown.by_twin())
    at_1 = view(SLIDES["four channels"]())
    assert_equal(at_1.by_viewer(interpolation=None), at_1.by_twin())
