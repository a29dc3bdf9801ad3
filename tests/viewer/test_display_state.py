"""A display state is what an engine shows, survives JSON, fits another slide as far as it can, and says what does not."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rawmosaic.storage.errors import FormatVersionError, SlideError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import OffscreenViewer
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.channels import ChannelView
from rawmosaic.viewer.display_state import (
    Bookmark,
    ChannelGroup,
    ChannelState,
    DisplayState,
    apply,
    capture,
    from_json,
    matched_channels,
    to_json,
)

FULL = DisplayState(
    x_um=12034.5,
    y_um=-5600.25,
    scale=0.375,
    channels=(
        ChannelState("DAPI", (120.0, 3900.5), "#0000ff", 1.0, True),
        ChannelState("GFP", (90.0, 1500.0), "#00ff00", 0.8, False, (0.0, 1.2, -0.1)),
        ChannelState("Cy5 µ", (-5.0, 70_000.0), "#ff00ff", 2.0, True),
    ),
    overlap="feather",
    position_set="registered",
    z=2,
    t=1,
    interpolation="smooth",
    projection="max",
    outlines=True,
    mode="grey",
    background="white",
    color_map="magma",
    unmixing=((1.0, -0.1, 0.0), (-0.25, 1.0, 0.0), (0.0, 0.125, 1.0)),
    groups=(ChannelGroup("nuclei", (0,)), ChannelGroup("others", (1, 2))),
    bookmarks=(Bookmark("border", 900.0, 40.0, 1.0, 1, 0),),
)


def engine_like(names: tuple[str, ...] = ("DAPI", "GFP", "Cy5 µ"), size_z: int = 3, size_t: int = 2) -> SimpleNamespace:
    """What has an engine's attributes."""
    return SimpleNamespace(
        slide=SimpleNamespace(size_z=size_z, size_t=size_t, position_sets=("stage", "registered")),
        camera=Camera(0.0, 0.0, 1.0, (640, 480), 0.5),
        channels=[ChannelView(name, (0.0, 100.0 + n), "#ffffff") for n, name in enumerate(names)],
        overlap="top",
        position_set="stage",
        z=0,
        t=0,
        interpolation="auto",
        projection="none",
        show_outlines=False,
        mode="colour",
        background="black",
        color_map=None,
        unmixing=None,
        groups=(),
        bookmarks=(),
    )


def test_a_state_comes_back_from_an_engine_as_it_was_given():
    engine = engine_like()
    assert apply(FULL, engine) == []
    assert capture(engine) == FULL
    assert engine.camera.size == (640, 480)


def test_a_state_of_a_new_engine_changes_nothing():
    engine = engine_like()
    before = capture(engine)
    apply(before, engine)
    assert capture(engine) == before


def test_a_state_survives_json():
    assert from_json(to_json(FULL)) == FULL
    plain = DisplayState(0.0, 0.0, 1.0)
    assert from_json(to_json(plain)) == plain


def test_a_picture_comes_back_with_its_state():
    slide = SyntheticSlide((3, 3), (48, 64), 3, size_z=2, extra_sets=("registered",))
    with OffscreenViewer(slide, size=(120, 90)) as viewer:
        first = viewer.render()
        before = capture(viewer.engine)
        changed = replace(FULL, x_um=before.x_um, y_um=before.y_um, z=0, t=0)
        assert any("DAPI" in line for line in apply(changed, viewer.engine))
        assert not np.array_equal(viewer.render(), first)
        apply(from_json(to_json(before)), viewer.engine)
        np.testing.assert_array_equal(viewer.render(), first)


def test_every_field_of_the_state_is_in_the_document():
    text = Path(__file__).parents[2].joinpath("docs", "display-state.md").read_text(encoding="utf-8")
    example = re.search(r"```json\n(.*?)```", text, re.DOTALL).group(1)
    state = from_json(example)
    assert state.channels[1].column == (0.0, 1.2, -0.1)
    assert set(json.loads(to_json(state))) == set(json.loads(example))
    known = {each.name for each in fields(DisplayState)} - {"x_um", "y_um", "extra"}
    assert known <= set(re.findall(r"`(\w+)`", text)) | set(json.loads(example)) | {"scale"}


def test_unknown_keys_are_kept():
    content = {**json.loads(to_json(FULL)), "annotations": {"shown": True}, "z_play": 3}
    state = from_json(json.dumps(content))
    assert state == FULL
    assert json.loads(to_json(state)) == content


def test_a_newer_version_is_refused_with_what_to_do():
    content = {**json.loads(to_json(FULL)), "version": 2}
    with pytest.raises(FormatVersionError, match="update"):
        from_json(json.dumps(content), "a.view.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), "1"),
        (("camera",), [1, 2, 3]),
        (("camera", "scale"), 0),
        (("camera", "x_um"), None),
        (("camera", "y_um"), True),
        (("channels",), {}),
        (("channels", 1, "limits"), [1]),
        (("channels", 1, "limits"), [1, "2"]),
        (("channels", 0, "name"), 7),
        (("channels", 0, "color"), "greenish"),
        (("channels", 0, "color"), 255),
        (("channels", 0, "gamma"), 0.0),
        (("channels", 2, "visible"), 1),
        (("channels", 1, "mixer"), [1, 2]),
        (("overlap",), 3),
        (("z",), -1),
        (("t",), 1.5),
        (("outlines",), "yes"),
        (("color_map",), 1),
        (("unmixing",), [[1, 0], [0]]),
        (("unmixing",), [["1"]]),
        (("groups", 0, "channels"), [-1]),
        (("bookmarks", 0, "scale"), -1.0),
        (("bookmarks", 0, "name"), None),
    ],
)
def test_a_wrong_type_is_refused_with_file_and_key(path: tuple, value: object):
    content = json.loads(to_json(FULL))
    at = content
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    with pytest.raises(SlideError, match=re.escape(key)) as caught:
        from_json(json.dumps(content), "slide.h5.view.json")
    assert "slide.h5.view.json" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', "[" * 100_000, '{"format": "rawmosaic display state"}']
)
def test_what_is_no_display_state_is_refused(text: str):
    with pytest.raises(SlideError):
        from_json(text, "x.json")


def test_infinities_are_refused():
    with pytest.raises(SlideError, match=r"camera\.x_um"):
        from_json(to_json(replace(FULL, x_um=float("inf"))))


# on another slide


def test_channels_are_matched_by_name_then_by_number():
    told: list[str] = []
    assert matched_channels(["DAPI", "GFP", "Cy5"], ["gfp", "dapi", "TRITC", "extra"], told) == {0: 1, 1: 0, 2: 2}
    assert any("Cy5" in line and "TRITC" in line for line in told)
    assert any("extra" in line for line in told)


def test_channels_of_one_name_are_matched_in_order():
    assert matched_channels(["a", "a", "b"], ["b", "a", "a"]) == {0: 1, 1: 2, 2: 0}


def test_a_channel_without_a_counterpart_is_said():
    told: list[str] = []
    assert matched_channels(["a", "b", "c"], ["b"], told) == {1: 0}
    assert len(told) == 2


def test_a_channel_is_found_by_what_it_is_called():
    called = (["nuclei", ""], ["", "DAPI"])
    assert matched_channels(["DAPI", "GFP"], ["nuclei", "C1"], None, called) == {0: 0, 1: 1}
    assert matched_channels(["C0", "C1"], ["DAPI", "GFP"], None, (["gfp", "dapi"], ["", ""])) == {0: 1, 1: 0}
    assert matched_channels(["a", "b"], ["b", "c"], None, (["b", ""], ["", ""])) == {1: 0}, "the slide's name counts first"


def test_a_user_s_name_goes_to_the_channel_of_that_name_and_to_no_other():
    state = replace(FULL, channels=tuple(replace(each, label=f"my {each.name}") for each in FULL.channels))
    engine = engine_like(("GFP", "TRITC", "DAPI"))
    apply(state, engine)
    assert [look.shown_name for look in engine.channels] == ["my GFP", "TRITC", "my DAPI"]
    assert [look.name for look in engine.channels] == ["GFP", "TRITC", "DAPI"]
    assert from_json(to_json(state)) == state
    apply(FULL, engine, preset=True)
    assert engine.channels[0].label == "my GFP", "a preset takes no name away"
    apply(FULL, engine)
    assert engine.channels[0].label == "", "the state of the slide does"


def test_folded_groups_are_kept():
    state = replace(FULL, groups=(ChannelGroup("nuclei", (0,), folded=True), ChannelGroup("others", (1, 2))))
    assert from_json(to_json(state)) == state
    engine = engine_like()
    apply(state, engine)
    assert [group.folded for group in engine.groups] == [True, False]


def test_a_preset_leaves_the_place_alone():
    engine = engine_like(("Cy5 µ", "GFP", "DAPI"), size_z=1, size_t=1)
    engine.bookmarks = FULL.bookmarks[:0]
    assert apply(FULL, engine, preset=True) == []
    assert (engine.camera.x_um, engine.camera.scale, engine.z, engine.position_set, engine.bookmarks) == (
        0.0,
        1.0,
        0,
        "stage",
        (),
    )
    by_name = {look.name: look for look in engine.channels}
    assert by_name["DAPI"].limits == (120.0, 3900.5)
    assert by_name["GFP"].column == (0.0, 1.2, -0.1)
    assert (engine.mode, engine.background, engine.color_map) == ("grey", "white", "magma")
    assert engine.groups == (ChannelGroup("nuclei", (2,)), ChannelGroup("others", (1, 0)))
    expected = np.array([[1.0, 0.125, 0.0], [0.0, 1.0, -0.25], [0.0, -0.1, 1.0]])
    np.testing.assert_array_equal(engine.unmixing, expected)


def test_what_does_not_fit_is_said_and_left():
    engine = engine_like(("DAPI",), size_z=2, size_t=1)
    engine.slide.position_sets = ("stage",)
    state = replace(FULL, overlap="median", color_map="jet")
    told = "\n".join(apply(state, engine))
    for what in ("GFP", "Cy5", "median", "jet", "registered", "z 2", "t 1", "unmixing", "others"):
        assert what in told, what
    assert (engine.overlap, engine.color_map, engine.position_set, engine.z, engine.t) == ("top", None, "stage", 1, 0)
    assert engine.unmixing is None
    assert engine.groups == (ChannelGroup("nuclei", (0,)),)


def test_a_colour_picked_by_hand_ends_a_mixed_column():
    look = ChannelView("a", (0.0, 1.0), "#00ff00", column=(2.0, -1.0, 0.0))
    assert look.rgb() == (2.0, -1.0, 0.0)
    assert replace(look).column == (2.0, -1.0, 0.0)
    look.color = "#ff0000"
    assert look.rgb() == (1.0, 0.0, 0.0)
