"""Each key, wheel step and drag does to the view what the list of keys says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import OffscreenViewer
from rawmosaic.viewer.channels import percentile_limits

SIZE = (160, 120)


@pytest.fixture
def slide() -> SyntheticSlide:
    """Six channels, z, t and two position sets."""
    return SyntheticSlide((2, 3), (64, 80), 6, size_z=3, size_t=2, extra_sets=("registered",))


@pytest.fixture
def viewer(slide: SyntheticSlide) -> Iterator[OffscreenViewer]:
    """An engine with a face; skipped where there is no OpenGL."""
    try:
        made = OffscreenViewer(slide, size=SIZE)
    except GraphicsError as error:
        pytest.skip(f"no OpenGL here: {error}")
    with made:
        yield made


@pytest.fixture
def engine(viewer: OffscreenViewer):
    """The engine that is controlled."""
    return viewer.engine


@pytest.fixture
def controls(engine):
    """What is tested."""
    from rawmosaic.viewer.controls import Controls

    return Controls(engine)


def shown(engine) -> list[int]:
    """Numbers of the visible channels."""
    return [number for number, look in enumerate(engine.channels) if look.visible]


def looks(engine) -> list[tuple]:
    """All that may be changed of how channels look."""
    return [(look.limits, look.color, look.gamma, look.visible) for look in engine.channels]


def test_every_listed_key_has_a_test():
    from test_keyboard_and_mouse import LISTED

    from rawmosaic.viewer.controls import KEYS

    assert set(KEYS) == set(LISTED)
    assert all(KEYS.values())


def test_wheel_zooms_at_the_cursor(controls, engine):
    before = engine.camera
    held = before.to_mosaic(30.0, 90.0)
    assert controls.wheel(1, 30.0, 90.0)
    assert engine.camera.scale > before.scale
    assert engine.camera.to_mosaic(30.0, 90.0) == pytest.approx(held)
    assert controls.wheel(-1, 30.0, 90.0)
    assert engine.camera.scale == pytest.approx(before.scale)
    assert (engine.camera.x_um, engine.camera.y_um) == pytest.approx((before.x_um, before.y_um))


def test_wheel_stops_at_the_limits_and_says_so(controls, engine):
    for steps in (1, -1):
        for _ in range(100):
            if not controls.wheel(steps, 80.0, 60.0):
                break
        else:
            pytest.fail("never stops")
    assert engine.camera.scale == controls.zoom.minimum


def test_drag_moves_the_picture_with_the_hand(controls, engine):
    held = engine.camera.to_mosaic(50.0, 50.0)
    assert controls.pan(12.0, -7.0)
    assert engine.camera.to_window(*held) == pytest.approx((62.0, 43.0))
    assert not controls.pan(0.0, 0.0)


@pytest.mark.parametrize(("drag", "wider", "brighter"), [((40, 0), 1, 0), ((-40, 0), -1, 0), ((0, -30), 0, 1), ((0, 30), 0, -1)])
def test_right_drag_is_contrast(controls, engine, drag: tuple[float, float], wider: int, brighter: int):
    engine.channels[2].visible = False
    for look in engine.channels:
        look.limits = (1000.0, 3000.0)
    assert controls.contrast_drag(*drag)
    low, high = engine.channels[0].limits
    assert np.sign(round((high - low) - 2000)) == wider
    assert np.sign(round(2000 - (low + high) / 2)) == brighter  # lower limits, brighter picture
    assert engine.channels[2].limits == (1000.0, 3000.0)  # hidden ones stay


def test_contrast_drag_there_and_back_is_nothing(controls, engine):
    before = [look.limits for look in engine.channels]
    for step in ((10, 0), (-10, 0)):
        controls.contrast_drag(*step)
    np.testing.assert_allclose([look.limits for look in engine.channels], before)


def test_plus_and_minus_zoom_at_the_centre(controls, engine):
    engine.look_at(20.0, 10.0, scale=1.5)
    before = engine.camera
    assert controls.key("+")
    assert engine.camera.scale == pytest.approx(2 * before.scale)
    assert (engine.camera.x_um, engine.camera.y_um) == pytest.approx((before.x_um, before.y_um))
    assert controls.key("-")
    assert engine.camera.scale == pytest.approx(before.scale)
    assert controls.key("=")  # the same key without Shift
    assert engine.camera.scale == pytest.approx(2 * before.scale)


@pytest.mark.parametrize("key", ["0", "kp_0"])
def test_zero_shows_the_whole_mosaic(controls, engine, key: str):
    whole = engine.camera
    engine.look_at(1.0, 2.0, 3.0)
    assert controls.key(key)
    assert engine.camera == whole
    left, top, right, bottom = engine.geometry.bounds_um
    shown_um = engine.camera.bounds_um()
    assert shown_um[0] <= left + 1e-6
    assert shown_um[1] <= top + 1e-6
    assert shown_um[2] >= right - 1e-6
    assert shown_um[3] >= bottom - 1e-6


def test_keypad_five_is_one_to_one(controls, engine):
    place = engine.camera.x_um, engine.camera.y_um
    assert controls.key("kp_5")
    assert engine.camera.scale == 1.0
    assert (engine.camera.x_um, engine.camera.y_um) == place
    assert shown(engine) == [0, 1, 2, 3, 4, 5]


def test_five_is_a_channel_where_there_is_one_else_one_to_one(controls, engine):
    scale = engine.camera.scale
    assert controls.key("5")
    assert shown(engine) == [0, 1, 2, 3, 5]
    assert engine.camera.scale == scale


def test_five_is_one_to_one_where_there_is_no_channel_five():
    from rawmosaic.viewer.controls import Controls

    with OffscreenViewer(SyntheticSlide((1, 2), (64, 80), 4), size=SIZE) as viewer:
        assert Controls(viewer.engine).key("5")
        assert viewer.camera.scale == 1.0
        assert shown(viewer.engine) == [0, 1, 2, 3]


@pytest.mark.parametrize(("key", "dx", "dy"), [("left", -0.25, 0), ("right", 0.25, 0), ("up", 0, -0.25), ("down", 0, 0.25)])
def test_arrows_move_by_a_quarter_of_the_view(controls, engine, key: str, dx: float, dy: float):
    left, top, right, bottom = engine.camera.bounds_um()
    before = engine.camera
    assert controls.key(key)
    assert engine.camera.x_um == pytest.approx(before.x_um + dx * (right - left))
    assert engine.camera.y_um == pytest.approx(before.y_um + dy * (bottom - top))


@pytest.mark.parametrize("digit", [1, 2, 6])
def test_digits_show_and_hide_a_channel(controls, engine, digit: int):
    assert controls.key(str(digit))
    assert shown(engine) == [number for number in range(6) if number != digit - 1]
    assert controls.key(str(digit))
    assert shown(engine) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("key", ["7", "9", "shift+7", "shift+0"])
def test_digits_without_a_channel_do_nothing(controls, engine, key: str):
    before, camera = looks(engine), engine.camera
    assert not controls.key(key)
    assert looks(engine) == before
    assert engine.camera == camera


def test_shifted_digits_show_one_channel_alone_and_again_all(controls, engine):
    assert controls.key("shift+2")
    assert shown(engine) == [1]
    assert controls.key("shift+4")
    assert shown(engine) == [3]
    assert controls.key("shift+4")
    assert shown(engine) == [0, 1, 2, 3, 4, 5]


def test_solo_of_a_hidden_channel_shows_it(controls, engine):
    controls.key("2")
    assert controls.key("shift+2")
    assert shown(engine) == [1]


def test_c_is_automatic_contrast_and_again_stronger(controls, engine, slide):
    for look in engine.channels:
        look.limits = (1.0, 2.0)
    assert controls.key("c")
    assert [look.limits for look in engine.channels] == [percentile_limits(slide.histogram(n)) for n in range(6)]
    widths = [np.subtract(*look.limits[::-1]) for look in engine.channels]
    for _ in range(3):
        assert controls.key("c")
        narrower = [np.subtract(*look.limits[::-1]) for look in engine.channels]
        assert all(now < before for now, before in zip(narrower, widths, strict=True))
        widths = narrower


def test_c_after_a_while_begins_anew(controls, engine, monkeypatch: pytest.MonkeyPatch):
    controls.key("c")
    first = [look.limits for look in engine.channels]
    controls.key("c")
    monkeypatch.setattr("rawmosaic.viewer.controls.AUTO_REPEAT_S", 0.0)
    controls.key("c")
    assert [look.limits for look in engine.channels] == first


def test_shift_r_restores_contrast_and_colors(controls, engine):
    before = looks(engine)
    controls.key("c")
    controls.contrast_drag(30, 30)
    controls.key("shift+3")
    engine.channels[0].color, engine.channels[0].gamma = "#123456", 3.0
    assert looks(engine) != before
    assert controls.key("shift+r")
    assert looks(engine) == before


@pytest.mark.parametrize(("axis", "down", "up", "size"), [("z", ",", ".", 3), ("t", "[", "]", 2)])
def test_z_and_t_step_to_their_ends(controls, engine, axis: str, down: str, up: str, size: int):
    assert not controls.key(down)
    for expected in range(1, size):
        assert controls.key(up)
        assert getattr(engine, axis) == expected
    assert not controls.key(up)
    assert controls.key(down)
    assert getattr(engine, axis) == size - 2


@pytest.mark.parametrize(
    ("key", "name", "choices"),
    [
        ("o", "overlap", ["top", "nearest", "feather", "max"]),
        ("p", "position_set", ["stage", "registered"]),
        ("i", "interpolation", ["auto", "nearest", "smooth"]),
    ],
)
def test_keys_go_round_the_choices(controls, engine, key: str, name: str, choices: list[str]):
    seen = [getattr(engine, name)]
    for _ in choices:
        assert controls.key(key)
        seen.append(getattr(engine, name))
    assert seen == [*choices, choices[0]]


def test_p_with_one_position_set_changes_nothing():
    from rawmosaic.viewer.controls import Controls

    with OffscreenViewer(SyntheticSlide((1, 1), (64, 80), 1), size=SIZE) as viewer:
        assert not Controls(viewer.engine).key("p")
        assert viewer.position_set == "stage"


def test_g_shows_and_hides_field_outlines(viewer: OffscreenViewer, controls):
    without = viewer.render()
    assert controls.key("g")
    assert (viewer.render() != without).any()
    assert controls.key("g")
    np.testing.assert_array_equal(viewer.render(), without)


@pytest.mark.parametrize("key", ["x", "", "shift+", "shift+x", "enter", "²", "½", "10", "-1"])
def test_unknown_keys_do_nothing(controls, engine, key: str):
    before, camera = looks(engine), engine.camera
    assert not controls.key(key)
    assert looks(engine) == before
    assert engine.camera == camera


KEYS_PRESSED = [*"+-=05123456co,.[]pgi", "left", "right", "up", "down", "kp_0", "kp_5", "shift+r", "shift+1", "shift+6"]


def test_every_key_leaves_a_view_that_can_be_drawn(viewer: OffscreenViewer, controls: Callable):
    random = np.random.default_rng(3)
    for key in random.choice(KEYS_PRESSED, 60):
        controls.key(str(key))
        viewer.render(wait=False)
    assert viewer.render().shape == (120, 160, 4)
