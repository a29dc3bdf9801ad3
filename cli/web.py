"""The engine as the region renderer of the web page."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from rawmosaic.net.web.deepzoom import Bounds
from rawmosaic.net.web.renderer import FirstLook
from rawmosaic.net.web.style import Look, Style
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer import budgets

if TYPE_CHECKING:
    from rawmosaic.net.web import WebServer
    from rawmosaic.viewer import OffscreenViewer

MOST_OPEN = 2
"""Slides that have textures at the same time; they share the budgets."""

DRAWS_IN_MAIN_THREAD = sys.platform == "darwin"
"""macOS makes the hidden windows, which OpenGL contexts are there, in the main thread only."""

FIRST_SIZE = (514, 514)
AUTO_TAILS = (0.001, 0.004, 0.016, 0.064, 0.1)
"""Shares of pixels beyond automatic limits: the first is the window's, each further one what asking again gives there."""


def check_http(bind: str, insecure: bool) -> None:
    """Raise what is wrong with an address for the web page: not an address, or one that others can reach."""
    from rawmosaic.net.addresses import is_local
    from rawmosaic.storage.errors import AccessError

    try:
        from rawmosaic.net.web.server import host_and_port
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the web page needs more than is installed ({error.name}): pip install 'rawmosaic[web]'"
        ) from error
    host, port = host_and_port(bind)
    if not insecure and not is_local(f"tcp://{f'[{host}]' if ':' in host else host}:{port}"):
        raise AccessError(
            "other machines can reach this address, and the web page knows no keys and encrypts nothing: keep it on 127.0.0.1, "
            "behind a web server that asks for passwords and encrypts; or let everybody look with --insecure",
            location=bind,
        )


def web_server(slides: Mapping[str, Slide], bind: str, names: Sequence[str] = ()) -> WebServer:
    """The page of these slides, drawn by the engine; `names` are further ones that browsers may call it by."""
    from rawmosaic.net.web import WebServer

    return WebServer(slides, EngineRenderer(), bind, hosts=names, draws_in_thread=not DRAWS_IN_MAIN_THREAD)


class EngineRenderer:
    """Draws regions of slides with the engine of the window: the same pixels as `rawmosaic render`.

    All calls but `looks` come from one thread, whose OpenGL contexts are made when first needed. Budgets as `budgets.parse_bytes`
    reads them, for all slides together.
    """

    def __init__(self, ram_bytes: int | str | None = None, vram_bytes: int | str | None = None, most_open: int = MOST_OPEN):
        self.failures: tuple[str, ...] = ()
        self._most_open = most_open
        self._ram_bytes = budgets.ram_bytes(ram_bytes) // most_open
        self._vram_bytes = None if vram_bytes is None else budgets.parse_bytes(vram_bytes) // most_open
        self._viewers: OrderedDict[int, tuple[tuple, OffscreenViewer]] = OrderedDict()

    def looks(self, slide: Slide) -> tuple[FirstLook, ...]:
        """How the window would show each channel at first. Any thread; may read histograms."""
        from rawmosaic.viewer.channels import default_colors, parse_color, percentile_limits

        found = []
        for number, (channel, color) in enumerate(zip(slide.channels, default_colors(slide.channels), strict=True)):
            histogram = slide.histogram(number)
            steps = tuple(percentile_limits(histogram, tail) for tail in AUTO_TAILS)
            rgb = "#" + "".join(f"{round(255 * part):02x}" for part in parse_color(color))
            found.append(FirstLook(Look(rgb, channel.contrast_limits or steps[0]), steps))
        return tuple(found)

    def render(self, slide: Slide, region_um: Bounds, size_px: tuple[int, int], style: Style) -> np.ndarray:
        """(h, w, 4) uint8 of a region (left, top, right, bottom) µm of the mosaic frame, complete."""
        from rawmosaic.cli.render_command import unreadable_in_view
        from rawmosaic.viewer.camera import Camera

        viewer = self._viewer(slide)
        left, top, right, bottom = region_um
        scale = whole_scale(size_px[0] * slide.header.pixel_size_um / (right - left))
        viewer.camera = Camera(0.5 * (left + right), 0.5 * (top + bottom), scale, tuple(size_px), slide.header.pixel_size_um)
        looks = dict(style.looks)
        for number, channel in enumerate(viewer.channels):
            channel.visible = number in looks
            if number in looks:
                channel.color, channel.limits, channel.gamma = looks[number].color, looks[number].limits, looks[number].gamma
        viewer.overlap, viewer.position_set, viewer.z, viewer.t = style.overlap, style.position_set, style.z, style.t
        pixels = viewer.render()
        failed = viewer.failures() if viewer.report.tiles_failed else ()  # those of other regions are not this one's
        self.failures = tuple(sorted({*failed, *unreadable_in_view(slide, viewer)}))
        return pixels

    def close(self) -> None:
        """Close the engines; closing twice is harmless."""
        while self._viewers:
            self._viewers.popitem()[1][1].close()

    def _viewer(self, slide: Slide) -> OffscreenViewer:
        """The engine of a slide in its state of now."""
        from rawmosaic.viewer import OffscreenViewer

        state = slide.identity, slide.n_fields, slide.growing
        known, viewer = self._viewers.get(id(slide), (None, None))
        if viewer is not None and known != state:  # it grew: fields and tiles are others
            self._viewers.pop(id(slide))[1].close()
            viewer = None
        if viewer is None:
            while len(self._viewers) >= self._most_open:
                self._viewers.popitem(last=False)[1][1].close()
            vram = self._vram_bytes
            viewer = OffscreenViewer(
                slide, FIRST_SIZE, ram_bytes=self._ram_bytes, **({} if vram is None else {"vram_bytes": vram})
            )
            self._viewers[id(slide)] = state, viewer
        self._viewers.move_to_end(id(slide))
        return viewer


class _Still:
    """A growing slide as a finished one. Whoever serves it takes in what comes; an engine that did so too would take it away."""

    growing = False

    def __init__(self, slide: Slide):
        self._slide = slide

    def refresh(self) -> np.ndarray:
        """Nothing comes by this way."""
        return np.empty((0, 4), np.int32)

    def __getattr__(self, name: str) -> object:
        return getattr(self._slide, name)


def whole_scale(scale: float) -> float:
    """The power of two that a scale is but for rounding: 0.9999999 would be filtered, and 1.0 is not. Else the scale."""
    nearest = 2.0 ** round(math.log2(scale))
    return nearest if math.isclose(scale, nearest, rel_tol=1e-9) else scale
