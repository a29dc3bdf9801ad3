"""A measurement in a few lines, for a narrow panel."""

from __future__ import annotations

from collections.abc import Sequence

from rawmosaic.viewer.annotations.geometry import area_text, length_text
from rawmosaic.viewer.annotations.measure import Measurement


def measured_lines(measurement: Measurement, names: Sequence[str]) -> list[str]:
    """Size, then mean, spread and range of the raw counts of each channel."""
    lines = []
    if measurement.area_um2:
        lines.append(f"area {area_text(measurement.area_um2)}")
    elif measurement.length_um:
        lines.append(f"length {length_text(measurement.length_um)}")
    for channel, found in measurement.intensities.items():
        if found.pixels:
            spread = f"{found.mean:.1f} ± {found.sd:.1f} ({found.minimum:.0f} to {found.maximum:.0f})"
            lines.append(f"{names[channel]}: {spread}, {found.pixels} px")
        else:
            lines.append(f"{names[channel]}: nothing was acquired there")
    if measurement.factor > 1:
        lines.append(f"of pixels reduced {measurement.factor} times, since it is large")
    lines += [f"left out: {problem}" for problem in measurement.unreadable[:2]]
    return lines
