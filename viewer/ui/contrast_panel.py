"""Contrast of the active channel: a logarithmic histogram with limits to drag, gamma, automatic limits, and copying.

Where several channels are selected, what is changed by hand is changed for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from imgui_bundle import imgui

from rawmosaic.viewer.channels import ChannelView, parse_color
from rawmosaic.viewer.groups import group_of
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.channels_panel import facts_line
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.histogram import log_bars, shown_range
from rawmosaic.viewer.ui.region_contrast import adjust_to_region
from rawmosaic.viewer.ui.widgets import button, dim, packed, shortened, told, width_of, wrapped

HEIGHT_UNITS = 96
GAMMAS = (0.1, 4.0)

PATIENCE_S = 0.4
"""An answer that takes longer is worth a bar that tells how far it is."""


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
        _heading(desk, number)
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
            problem = desk.later.error(("histogram", number))
            if problem is None:
                dim("the histogram is being read …")
            else:
                wrapped(f"no histogram: {problem}", theme.ERROR)
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
            desk.touch(set_limits(_chosen(desk), self._held, value))
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
                desk.touch(set_limits(_chosen(desk), which, value))
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
            _set_gamma(desk, gamma)
        imgui.same_line()
        if button("linear", "gamma 1: proportional to the counts", enabled=altered):
            _set_gamma(desk, 1.0)

    def _automatic(self, desk: Desk, number: int) -> None:
        finder = desk.act["auto?"]() if "auto?" in desk.act else None
        if finder is not None and finder.busy:
            desk.look_again(PATIENCE_S / 2)
        if finder is not None and finder.waits_s > PATIENCE_S:
            _progress(desk, finder.share or 0.0, finder.cancel)
        else:
            _automatic_buttons(desk)
        if button("reset", "limits and gamma as they were at first"):
            desk.touch(desk.controls.reset(desk.chosen_channels()))
        if len(desk.engine.channels) > 1:
            imgui.same_line()
            _copying(desk, number)


def _heading(desk: Desk, number: int) -> None:
    """Whose contrast it is."""
    chosen, looks = desk.chosen_channels(), desk.engine.channels
    name = looks[number].shown_name or f"channel {number + 1}"
    room = imgui.get_content_region_avail().x
    if len(chosen) == 1:
        imgui.text(shortened(name, room))
        if shortened(name, room) != name:
            told(name)
        facts_line(desk, number)
        return
    group = group_of(desk.engine.groups, chosen)
    together = f"{len(chosen)} channels together" if group is None else desk.engine.groups[group].name
    together = shortened(together, 0.45 * room)
    imgui.text_colored(imgui.ImVec4(*theme.ACCENT), shortened(f"{together}: histogram of {name}", room))
    told("what you change here is given to all of them:\n" + "\n".join(looks[each].shown_name for each in chosen))


def _automatic_buttons(desk: Desk) -> None:
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
    if desk.board is not None and "auto shape" in desk.act:
        imgui.same_line()
        waiting = desk.board.editor.is_asked
        hint = "of the raw counts in the selected annotation, or else in a rectangle that you drag now; Esc: no"
        if button("area", hint, lit=waiting):
            adjust_to_region(desk)


def _progress(desk: Desk, share: float, cancel) -> None:
    """How far it is, and a way out of it."""
    imgui.progress_bar(share, (-(width_of("cancel") + imgui.get_style().item_spacing.x), imgui.get_frame_height()))
    imgui.same_line()
    if button("cancel", "leave the limits as they are"):
        cancel()
        desk.touch()


def _copying(desk: Desk, number: int) -> None:
    look = desk.engine.channels[number]
    if button("copy limits to all shown", "give every shown channel these limits and gamma"):
        for other in desk.engine.channels:
            if other.visible:
                other.limits, other.gamma = look.limits, look.gamma
        desk.touch()


def _chosen(desk: Desk) -> list[ChannelView]:
    """The looks that are changed: the active channel's first."""
    active = min(desk.active_channel, len(desk.engine.channels) - 1)
    numbers = [active, *(number for number in desk.chosen_channels() if number != active)]
    return [desk.engine.channels[number] for number in numbers]


def _set_gamma(desk: Desk, gamma: float) -> None:
    for look in _chosen(desk):
        look.gamma = gamma
    desk.touch()


def set_limits(looks: Sequence[ChannelView], which: int, value: float) -> bool:
    """Move one limit of several channels to the same value; each stops before its other one. Returns whether any moved."""
    moved = [set_limit(look, which, value) for look in looks]
    return any(moved)


def set_limit(look: ChannelView, which: int, value: float) -> bool:
    """Move one limit; it stops before the other. Returns whether it moved."""
    low, high = look.limits
    limits = (min(value, high - 1.0), high) if which == 0 else (low, max(value, low + 1.0))
    if low > high:  # an inverted channel stays one
        limits = (value, high) if which == 0 else (low, value)
    moved, look.limits = limits != look.limits, limits
    return moved
