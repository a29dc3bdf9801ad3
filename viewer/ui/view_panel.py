"""How the view is put together: z and t, overlap rule, position set, interpolation, outlines."""

from __future__ import annotations

import time

from imgui_bundle import imgui

from rawmosaic.viewer.blending import BACKGROUNDS, MODES
from rawmosaic.viewer.engine import INTERPOLATIONS
from rawmosaic.viewer.palettes import COLOR_MAPS
from rawmosaic.viewer.plan import OVERLAP_MODES
from rawmosaic.viewer.preferences import SCROLLS, save_preferences
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.widgets import button, choice, told

PLAY_FRAMES_PER_S = 8.0


class StackPanel:
    """Sliders through z and t, and playing them."""

    def __init__(self):
        self.playing: str | None = None
        self._next_at = 0.0

    def draw(self, desk: Desk) -> None:
        """One line an axis."""
        for axis, size, keys in (("z", desk.slide.size_z, ", ."), ("t", desk.slide.size_t, "[ ]")):
            if size < 2:
                continue
            if button(f"{'stop' if self.playing == axis else 'play'}##{axis}", f"run through {axis}", lit=self.playing == axis):
                self.playing = None if self.playing == axis else axis
                self._next_at = time.monotonic()
            imgui.same_line()
            imgui.set_next_item_width(-1)
            value = getattr(desk.engine, axis)
            changed, value = imgui.slider_int(f"##{axis}", value + 1, 1, size, f"{axis} %d of {size}")
            told(f"{axis} (keys {keys})")
            if changed:
                setattr(desk.engine, axis, min(max(value - 1, 0), size - 1))
                desk.touch()
        if desk.slide.size_z > 1:
            changed, projects = imgui.checkbox("maximum through z", desk.engine.projection == "max")
            told("each pixel shows its brightest plane of the stack")
            if changed:
                desk.engine.projection = "max" if projects else "none"
                desk.touch()

    def step(self, desk: Desk) -> float | None:
        """Go on playing; seconds until the next frame is due, None when nothing plays. It waits for tiles that are late."""
        if self.playing is None:
            return None
        size = desk.slide.size_z if self.playing == "z" else desk.slide.size_t
        now = time.monotonic()
        if now >= self._next_at and desk.engine.report.complete:
            setattr(desk.engine, self.playing, (getattr(desk.engine, self.playing) + 1) % size)
            self._next_at = now + 1.0 / PLAY_FRAMES_PER_S
            desk.touch()
        return max(self._next_at - now, 0.0)


NO_MAP = "its own colour"


def draw(desk: Desk) -> None:
    """Rules of the composition, and what the whole picture looks like."""
    engine = desk.engine
    for name, label, choices, hint in (
        ("mode", "colours", MODES, "grey: every shown channel counts as white"),
        ("background", "ground", BACKGROUNDS, "white: as in bright field, each channel takes its colour's opposite away"),
        ("overlap", "overlap", OVERLAP_MODES, "which field is seen where fields overlap (o)"),
        ("position_set", "positions", desk.slide.position_sets, "where the fields lie (p)"),
        ("interpolation", "pixels", INTERPOLATIONS, "auto: pixels stay pixels when magnified, smooth when reduced (i)"),
    ):
        if len(choices) < 2:
            continue
        value = getattr(engine, name)
        chosen = choice(label, value, choices, hint)
        if chosen != value:
            setattr(engine, name, chosen)
            desk.touch()
    if sum(look.visible for look in engine.channels) == 1:
        value = engine.color_map or NO_MAP
        chosen = choice("map", value, (NO_MAP, *COLOR_MAPS), "colour map of the one shown channel")
        if chosen != value:
            engine.color_map = None if chosen == NO_MAP else chosen
            desk.touch()
    changed, engine.show_outlines = imgui.checkbox("field outlines", engine.show_outlines)
    told("g")
    desk.touch(changed)
    imgui.same_line(0, theme.units(16))
    _, desk.shown.scale_bar = imgui.checkbox("scale bar", desk.shown.scale_bar)
    told("b")
    imgui.same_line(0, theme.units(16))
    _, desk.shown.minimap = imgui.checkbox("minimap", desk.shown.minimap)
    told("m")


def draw_preferences(desk: Desk) -> None:
    """What the user prefers in every window."""
    kept = desk.preferences
    chosen = choice("wheel", kept.scroll, SCROLLS, "what the wheel or two fingers do; Ctrl always zooms, Shift pans sideways")
    changed, kept.invert = imgui.checkbox("the other way round", kept.invert)
    if changed or chosen != kept.scroll:
        kept.scroll = chosen
        save_preferences(kept)
