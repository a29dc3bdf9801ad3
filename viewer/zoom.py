"""The zoom manager: how far, in which steps, and which scales are skipped."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ZoomManager:
    """Limits of the scale (screen pixels per image pixel), the factor of one step, and ranges that steps jump over.

    A scale inside an excluded range (low, high) snaps to the end in the direction of travel; the ends are allowed, so a range
    on either side of 1:1 makes 1:1 itself easy to hit. Ranges do not overlap.
    """

    minimum: float = 1e-4
    maximum: float = 64.0
    step: float = 2**0.25
    excluded: tuple[tuple[float, float], ...] = ()

    def stepped(self, scale: float, steps: float) -> float:
        """The scale after a number of steps (positive: closer); 1:1 is stopped at when a whole step passes it."""
        target = scale * self.step**steps
        if (scale < 1.0 < target or scale > 1.0 > target) and not math.isclose(scale, 1.0, rel_tol=1e-6):
            target = 1.0
        return self.allowed(target, rising=steps > 0)

    def allowed(self, scale: float, rising: bool = True) -> float:
        """The nearest scale within the limits and outside excluded ranges."""
        for low, high in self.excluded:
            if low < scale < high:
                scale = high if rising else low
        return min(max(scale, self.minimum), self.maximum)

    @classmethod
    def for_view(cls, fit_scale: float) -> ZoomManager:
        """From half of what shows everything, to 64 screen pixels per image pixel (more if that is what shows everything)."""
        return cls(minimum=min(0.5 * fit_scale, 1.0), maximum=max(cls.maximum, fit_scale))


def digits(value: float) -> str:
    """A number to read at a glance: three digits, all of those before the point, no power of ten."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
