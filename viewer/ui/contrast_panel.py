"""Contrast of the active channel: a logarithmic histogram with limits to drag, gamma, automatic limits, and copying."""

from __future__ import annotations

import numpy as np
from imgui_bundle import imgui

from rawmosaic.viewer.channels import parse_color
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.channels_panel import facts_line
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.histogram import log_bars, shown_range
from rawmosaic.viewer.ui.widgets import button, dim, packed, told

HEIGHT_UNITS = 96
GAMMAS = (0.1, 4.0)


class ContrastPanel:
    """The panel, and which limit is being dragged."""

    def __init__(self):
        self._held: int | None = None
        self._range: tuple[float, float] | None = None
        self._range_for: tuple | None = None
        self._bars: tuple[object, np.ndarray] | None = None
        self.area: tuple[float, float, float, float] | None = None
        """Where the histogram was drawn last: x, y, width, height, window pixels."""

    def draw(self, desk: Desk) -> None:
        """Everything about the active channel's contrast."""
        if not desk.engine.channels:
            return
        number = min(desk.active_channel, len(desk.engine.channels) - 1)
        look = desk.engine.channels[number]
        imgui.text(look.name or f"channel {number + 1}")
        facts_line(desk, number)
        self._histogram(desk, number)
        self._numbers(desk, number)
        self._automatic(desk, number)

    def _histogram(self, desk: Desk, number: int) -> None:
        look = desk.engine.channels[number]
        counts = desk.later.get(("histogram", number), lambda: desk.slide.histogram(number))
        width, height = imgui.get_content_region_avail().x, theme.units(HEIGHT_UNITS)
        corner = imgui.get_cursor_screen_pos()
        if counts is None:
            imgui.dummy((width, height))
            imgui.set_cursor_screen_pos((corner.x + theme.units(8), corner.y + theme.units(8)))
            dim("the histogram is being read …")
            imgui.set_cursor_screen_pos((corner.x, corner.y + height + imgui.get_style().item_spacing.y))
            imgui.dummy((0, 0))
            return
        asked = (number, look.limits, id(counts))
        if self._range is None or (self._held is None and asked != self._range_for):  # while a limit is dragged the axis stays
            self._range, self._range_for = shown_range(counts, look.limits, desk.slide.header.bits), asked
        first, last = self._range
        key = (number, self._range, id(counts), int(width))
        if self._bars is None or self._bars[0] != key:
            self._bars = (key, log_bars(counts, first, last, max(int(width), 1)))
        rgb = parse_color(look.color)
        bright = tuple(0.35 + 0.65 * part for part in rgb)
        imgui.push_style_color(imgui.Col_.plot_histogram.value, imgui.ImVec4(*bright, 0.8))
        imgui.push_style_var(imgui.StyleVar_.frame_padding.value, (0, 0))
        imgui.set_next_item_allow_overlap()
        imgui.plot_histogram("##histogram", self._bars[1], scale_min=0.0, scale_max=1.05, graph_size=(width, height))
        imgui.pop_style_var()
        imgui.pop_style_color()
        self._limits_on(desk, number, (corner.x, corner.y), (width, height))

    def _limits_on(self, desk: Desk, number: int, corner: tuple[float, float], size: tuple[float, float]) -> None:
        """The two limits as lines over the histogram, the curve between them, and dragging."""
        look, (first, last) = desk.engine.channels[number], self._range
        (x, y), (width, height) = corner, size
        self.area = (x, y, width, height)
        per_count = width / (last - first)
        at = [x + (limit - first) * per_count for limit in look.limits]
        imgui.set_cursor_screen_pos(corner)
        imgui.invisible_button("##limits", size)
        mouse = imgui.get_io().mouse_pos
        if imgui.is_item_activated():
            self._held = int(abs(mouse.x - at[1]) < abs(mouse.x - at[0]))
        if not imgui.is_item_active():
            self._held = None
        if self._held is not None and imgui.is_mouse_dragging(0, 0.0):
            value = first + (min(max(mouse.x, x), x + width) - x) / per_count
            desk.touch(set_limit(look, self._held, value))
        if imgui.is_item_hovered() and self._held is None:
            level = first + (mouse.x - x) / per_count
            imgui.set_tooltip(f"{level:.0f} counts\ndrag: move the nearer limit")
        drawn = imgui.get_window_draw_list()
        drawn.push_clip_rect(corner, (x + width, y + height), True)
        shade = packed((0, 0, 0), 0.45)
        left, right = min(at), max(at)
        drawn.add_rect_filled((x, y), (max(left, x), y + height), shade)
        drawn.add_rect_filled((min(right, x + width), y), (x + width, y + height), shade)
        curve = [
            imgui.ImVec2(at[0] + share * (at[1] - at[0]), y + height * (1.0 - share**look.gamma))
            for share in np.linspace(0, 1, 24)
        ]
        drawn.add_polyline(curve, packed((1, 1, 1), 0.55), theme.units(1), 0)
        for place in at:
            drawn.add_line((place, y), (place, y + height), packed((1, 1, 1), 0.95), theme.units(1.5))
            drawn.add_triangle_filled(
                (place - theme.units(5), y + height),
                (place + theme.units(5), y + height),
                (place, y + height - theme.units(7)),
                packed((1, 1, 1), 0.95),
            )
        drawn.pop_clip_rect()

    def _numbers(self, desk: Desk, number: int) -> None:
        look = desk.engine.channels[number]
        half = 0.5 * (imgui.get_content_region_avail().x - imgui.get_style().item_spacing.x)
        for which, label in ((0, "##low"), (1, "##high")):
            imgui.set_next_item_width(half)
            changed, value = imgui.drag_float(label, look.limits[which], max(1.0, 0.002 * abs(look.limits[1])), 0.0, 0.0, "%.0f")
            told(("what is black" if which == 0 else "what is full colour") + ", raw counts (double click: type)")
            if changed:
                desk.touch(set_limit(look, which, value))
            if which == 0:
                imgui.same_line()
        altered = abs(look.gamma - 1.0) > 1e-3
        if altered:
            imgui.push_style_color(imgui.Col_.text.value, theme.WARNING)
        imgui.set_next_item_width(-theme.units(92))
        flags = imgui.SliderFlags_.logarithmic.value | imgui.SliderFlags_.always_clamp.value
        changed, gamma = imgui.slider_float("##gamma", look.gamma, *GAMMAS, "gamma %.2f", flags)
        if altered:
            imgui.pop_style_color()
        told("exponent after the limits; other than 1 the picture is no longer proportional to the counts")
        if changed:
            look.gamma = gamma
            desk.touch()
        imgui.same_line()
        if button("linear", "gamma 1: proportional to the counts", enabled=altered):
            look.gamma = 1.0
            desk.touch()

    def _automatic(self, desk: Desk, number: int) -> None:
        imgui.align_text_to_frame_padding()
        dim("auto")
        for name, hint in (
            ("slide", "0.1 % to 99.9 % of all acquired pixels of the slide; again: stronger (c)"),
            ("view", "of what the view shows"),
            ("field", "of the field in the middle of the view"),
        ):
            if f"auto {name}" in desk.act:
                imgui.same_line()
                if button(name, hint):
                    desk.act[f"auto {name}"](desk.chosen_channels())
        imgui.same_line()
        if button("reset", "limits and gamma as they were at first"):
            desk.touch(desk.controls.reset(desk.chosen_channels()))
        if len(desk.engine.channels) > 1 and button(
            "copy limits to all shown", "give every shown channel these limits and gamma"
        ):
            look = desk.engine.channels[number]
            for other in desk.engine.channels:
                if other.visible:
                    other.limits, other.gamma = look.limits, look.gamma
            desk.touch()


def set_limit(look, which: int, value: float) -> bool:
    """Move one limit; it stops before the other. Returns whether it moved."""
    low, high = look.limits
    limits = (min(value, high - 1.0), high) if which == 0 else (low, max(value, low + 1.0))
    if low > high:  # an inverted channel stays one
        limits = (value, high) if which == 0 else (low, value)
    moved, look.limits = limits != look.limits, limits
    return moved
