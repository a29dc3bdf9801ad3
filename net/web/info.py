"""What a page must know of a slide, made once for each state of its content: facts, looks, histograms, DeepZoom sizes."""

from __future__ import annotations

import hashlib
import math
import threading

import numpy as np

from rawmosaic.net.web.deepzoom import OVERLAP_PX, TILE_PX, DeepZoom, mosaic_bounds_um, scene_bounds_um
from rawmosaic.net.web.renderer import FirstLook, RegionRenderer
from rawmosaic.net.web.style import OVERLAP_MODES, Look, rounded
from rawmosaic.storage.slide import GREY_LEVELS, Slide

HISTOGRAM_BINS = 256
MOST_SCENES = 2000
"""Scenes that a page can choose from."""


class SlideInfo:
    """A slide as it was when made, in its `state`. `version` names that for good, short enough for a URL."""

    def __init__(self, slide: Slide, looks: tuple[FirstLook, ...]):
        self.state = state_of(slide)
        self.version = version_of(slide)
        self.growing = slide.growing
        self.defaults: tuple[Look, ...] = tuple(rounded(first.look) for first in looks)
        self.deepzooms = {
            name: DeepZoom.of(mosaic_bounds_um(slide, name), slide.header.pixel_size_um) for name in slide.position_sets
        }
        self.facts = {**_facts(slide), "version": self.version, "channels": self._channels(slide, looks)}
        self.facts["position_sets"] = [
            {"name": name, "bounds_um": mosaic_bounds_um(slide, name), "size_px": zoom.l0_size, "levels": zoom.last_level + 1}
            for name, zoom in self.deepzooms.items()
        ]

    def _channels(self, slide: Slide, looks: tuple[FirstLook, ...]) -> list[dict]:
        return [
            {
                "name": channel.name,
                "color": default.color,
                "limits": default.limits,
                "gamma": default.gamma,
                "auto": [rounded(Look(default.color, limits)).limits for limits in first.auto_limits],
                "histogram": compact_histogram(slide.histogram(number), worth_showing(first)),
                "excitation_nm": _finite(channel.excitation_nm),
                "emission_nm": _finite(channel.emission_nm),
                "exposure_ms": _finite(channel.exposure_ms),
            }
            for number, (channel, first, default) in enumerate(zip(slide.channels, looks, self.defaults, strict=True))
        ]


class ServedSlide:
    """A slide under its name, with its `SlideInfo` of now. Any thread."""

    def __init__(self, name: str, slide: Slide, renderer: RegionRenderer):
        self.name, self.slide, self._renderer = name, slide, renderer
        self._lock = threading.Lock()
        self._info: SlideInfo | None = None

    def known_info(self) -> SlideInfo | None:
        """The info if it is at hand; reads nothing."""
        info = self._info
        return info if info is not None and info.state == state_of(self.slide) else None

    def info(self) -> SlideInfo:
        """The info of the slide as it is now; may read histograms. SlideError."""
        with self._lock:
            info = self.known_info()
            if info is None:
                info = SlideInfo(self.slide, self._renderer.looks(self.slide))
                if getattr(self.slide, "complete", True):  # histograms of one that is viewed in place become exact later
                    self._info = info
            return info


def state_of(slide: Slide) -> tuple:
    """What differs whenever a slide is not what it was a moment ago, quickly told."""
    return slide.identity, slide.n_fields, slide.growing


def version_of(slide: Slide) -> str:
    """Names all that pictures of a slide depend on beside their style: its tiles, and where they lie."""
    known = hashlib.sha256(slide.identity.encode())
    for name in slide.position_sets:
        placement = slide.placement(name)
        offsets = placement.plane_offsets_um
        known.update(repr((name, offsets is None)).encode())
        for table in (placement.positions_um, placement.matrix_um, placement.offsets_um, offsets):
            if table is not None:
                known.update(np.ascontiguousarray(table, np.float64))
    for column in ("width", "height"):
        known.update(np.ascontiguousarray(slide.fields[column]))
    return known.hexdigest()[:20]


def worth_showing(first: FirstLook) -> int:
    """The last grey level of a histogram's picture: one glaring speck of dirt shall not squeeze all else into its corner."""
    highest = max(high for _, high in (first.look.limits, *first.auto_limits))
    lowest = min(low for low, _ in (first.look.limits, *first.auto_limits))
    return int(highest + 0.5 * max(highest - lowest, 0))


def compact_histogram(counts: np.ndarray, last: int = GREY_LEVELS - 1, bins: int = HISTOGRAM_BINS) -> dict:
    """At most `bins` counts of `width` grey levels each from `first` on, with every pixel up to `last`; `above`: the others."""
    occurring = np.flatnonzero(counts)
    low, high = (int(occurring[0]), int(occurring[-1])) if len(occurring) else (0, len(counts) - 1)
    high = max(low, min(high, last))
    width = 1
    while high // width - low // width >= bins:
        width *= 2
    first = low // width * width
    end = (high // width + 1) * width
    levels = np.zeros(end - first, np.uint64)
    inside = counts[first:end]
    levels[: len(inside)] = inside
    above = int(counts[end:].sum())
    return {"first": first, "width": width, "counts": levels.reshape(-1, width).sum(axis=1).tolist(), "above": above}


def summary(served: ServedSlide) -> dict:
    """What a list of slides says of one."""
    slide = served.slide
    return {
        "name": served.name,
        "title": slide.header.name,
        "n_fields": slide.n_fields,
        "channels": [channel.name for channel in slide.channels],
        "field_shape": slide.field_shape,
        "pixel_size_um": slide.header.pixel_size_um,
        "growing": slide.growing,
    }


def _facts(slide: Slide) -> dict:
    header = slide.header
    return {
        "title": header.name,
        "acquired_at": header.acquired_at,
        "objective": header.objective,
        "assay": header.assay,
        "bits": header.bits,
        "pixel_size_um": header.pixel_size_um,
        "growing": slide.growing,
        "n_fields": slide.n_fields,
        "field_shape": slide.field_shape,
        "size_z": slide.size_z,
        "size_t": slide.size_t,
        "scenes": [
            {"name": name, "bounds_um": scene_bounds_um(slide, number)} for number, name in enumerate(slide.scenes[:MOST_SCENES])
        ],
        "overlap_modes": OVERLAP_MODES,
        "tile_px": TILE_PX,
        "overlap_px": OVERLAP_PX,
    }


def _finite(value: float | None) -> float | None:
    """JSON has no word for what is no number."""
    return value if value is not None and math.isfinite(value) else None
