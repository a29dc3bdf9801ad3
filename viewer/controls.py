"""What hands do: keys, wheel and drags as changes of a view. Knows no window system and no GL; windows translate to it.

Keys have names (`"a"`, `"left"`, `"kp_5"`), with ``shift+`` or ``ctrl+`` in front where it counts. KEYS lists all that there are,
also those of the window, for `?` and for tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from rawmosaic.viewer.channels import AUTO_CONTRAST_TAIL, percentile_limits
from rawmosaic.viewer.engine import Engine
from rawmosaic.viewer.zoom import ZoomManager

KEYS = {
    "wheel": "zoom at the cursor, or pan (see Mouse); Ctrl zooms, Shift pans sideways",
    "drag": "pan (in every tool: with the middle button, or Space held)",
    "right drag": "contrast of the shown channels: sideways wider and narrower, up brighter",
    "double click": "fill the window with the field",
    "+ -": "zoom in and out",
    "0, Ctrl + 0": "show the whole mosaic",
    "5, Ctrl + 1": "1:1 (5 is channel 5 where there is one; keypad 5 never)",
    "arrows": "move by a quarter of the view",
    "Page down, Page up": "next and previous well or scene (also n, Shift + N)",
    "1 … 9": "show or hide a channel",
    "Shift + 1 … 9": "show one channel alone, again to show all",
    "c": "automatic contrast; again: stronger",
    "Shift + C": "contrast panel",
    "Shift + R": "contrast and colours as they were",
    ", .": "z down and up",
    "[ ]": "t back and forward",
    "o": "next overlap rule (top, nearest, feather, max)",
    "p": "next position set",
    "i": "interpolation: automatic, nearest, smooth",
    "g": "field outlines",
    "a": "annotations",
    "d": "detections",
    "f": "follow a running scan: the view goes where the newest field is",
    "b": "scale bar",
    "m": "minimap",
    "\\": "statistics",
    "Tab": "side panel",
    "F11": "full screen",
    "Ctrl + O, G, S, E": "open, go to, screenshot, figure",
    "Ctrl + Z, Y": "undo, redo (also Ctrl + Shift + Z)",
    "?": "these keys",
    "q, Esc": "close",
}

ARROWS = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}
AUTO_REPEAT_S = 3.0
"""Pressing `c` again within this time asks for stronger contrast."""


class Controls:
    """Applies what hands do to an engine. Every method returns whether the picture changed."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._initial = [replace(look) for look in engine.channels]
        self._auto_tail, self._auto_at = AUTO_CONTRAST_TAIL, -AUTO_REPEAT_S
        fit = engine.camera.fitted(engine.geometry.bounds_um).scale
        self.zoom = ZoomManager.for_view(fit)

    def wheel(self, steps: float, w_x: float, w_y: float) -> bool:
        """Zoom by wheel steps with the point under the cursor (window pixels) held."""
        camera = self.engine.camera
        self.engine.camera = camera.zoomed(self.zoom.stepped(camera.scale, steps), w_x, w_y)
        return self.engine.camera != camera

    def pan(self, w_dx: float, w_dy: float) -> bool:
        """Drag the picture by window pixels."""
        self.engine.camera = self.engine.camera.moved(w_dx, w_dy)
        return bool(w_dx or w_dy)

    def contrast_drag(self, w_dx: float, w_dy: float) -> bool:
        """Window and level of all shown channels: half a view doubles the range, a whole one shifts it by itself."""
        width, height = self.engine.size
        for look in self.engine.channels:
            if look.visible:
                low, high = look.limits
                middle, span = 0.5 * (low + high), max(high - low, 1.0)
                middle += span * w_dy / height
                span *= 2.0 ** (2.0 * w_dx / width)
                look.limits = (middle - 0.5 * span, middle + 0.5 * span)
        return True

    def key(self, name: str) -> bool:
        """A key by its name; unknown names do nothing."""
        if name in ARROWS:
            dx, dy = ARROWS[name]
            return self.pan(0.25 * dx * self.engine.size[0], 0.25 * dy * self.engine.size[1])
        digit = name.removeprefix("shift+")
        if digit.isdecimal() and 1 <= int(digit) <= len(self.engine.channels):
            return self.solo(int(digit) - 1) if name != digit else self._toggle(int(digit) - 1)
        action = self._actions().get(name)
        return bool(action and action())

    def _actions(self) -> dict[str, Callable[[], bool]]:
        return {
            "+": lambda: self._zoom_at_centre(4),
            "=": lambda: self._zoom_at_centre(4),
            "-": lambda: self._zoom_at_centre(-4),
            "0": self._fit,
            "kp_0": self._fit,
            "ctrl+0": self._fit,
            "5": self._one_to_one,
            "kp_5": self._one_to_one,
            "ctrl+1": self._one_to_one,
            "c": self.auto_contrast,
            "shift+r": self._reset_looks,
            ",": lambda: self._step("z", -1, self.engine.slide.size_z),
            ".": lambda: self._step("z", 1, self.engine.slide.size_z),
            "[": lambda: self._step("t", -1, self.engine.slide.size_t),
            "]": lambda: self._step("t", 1, self.engine.slide.size_t),
            "o": lambda: self._next("overlap", ("top", "nearest", "feather", "max")),
            "p": lambda: self._next("position_set", self.engine.slide.position_sets),
            "i": lambda: self._next("interpolation", ("auto", "nearest", "smooth")),
            "g": self._outlines,
        }

    def _zoom_at_centre(self, steps: float) -> bool:
        width, height = self.engine.size
        return self.wheel(steps, 0.5 * width, 0.5 * height)

    def _fit(self) -> bool:
        self.engine.fit()
        return True

    def _one_to_one(self) -> bool:
        self.engine.camera = replace(self.engine.camera, scale=1.0)
        return True

    def _toggle(self, channel: int) -> bool:
        self.engine.channels[channel].visible ^= True
        return True

    def solo(self, channel: int) -> bool:
        """Show one channel alone; all, if it is alone already."""
        looks = self.engine.channels
        alone = looks[channel].visible and sum(look.visible for look in looks) == 1
        for number, look in enumerate(looks):
            look.visible = alone or number == channel
        return True

    def auto_contrast(self, channels: Iterable[int] | None = None) -> bool:
        """Automatic limits of these channels (all, if not told) from the stored histograms; soon again: stronger."""
        now = time.monotonic()
        again = now - self._auto_at < AUTO_REPEAT_S
        self._auto_tail = min(4 * self._auto_tail, 0.1) if again else AUTO_CONTRAST_TAIL
        self._auto_at = now
        for number in range(len(self.engine.channels)) if channels is None else channels:
            self.engine.channels[number].limits = percentile_limits(self.engine.slide.histogram(number), self._auto_tail)
        return True

    def _reset_looks(self) -> bool:
        for look, initial in zip(self.engine.channels, self._initial, strict=True):
            look.color, look.visible = initial.color, initial.visible
        return self.reset(range(len(self._initial)))

    def reset(self, channels: Iterable[int]) -> bool:
        """Limits and gamma of these channels as they were at first."""
        for number in channels:
            look, initial = self.engine.channels[number], self._initial[number]
            look.limits, look.gamma = initial.limits, initial.gamma
        return True

    def _step(self, axis: str, by: int, size: int) -> bool:
        before = getattr(self.engine, axis)
        setattr(self.engine, axis, min(max(before + by, 0), size - 1))
        return getattr(self.engine, axis) != before

    def _next(self, name: str, choices: tuple[str, ...]) -> bool:
        setattr(self.engine, name, choices[(choices.index(getattr(self.engine, name)) + 1) % len(choices)])
        return len(choices) > 1

    def _outlines(self) -> bool:
        self.engine.show_outlines ^= True
        return True
