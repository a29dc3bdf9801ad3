"""Small pictures of slides for the library, drawn by the same engine as all others."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rawmosaic.storage import Slide

LONGEST_SIDE_PX = 256
MOST_RAW_PIXELS = 50_000_000
"""A raw acquisition of more pixels, all planes counted, gets none: it has no zoom layers, and would be read as a whole."""


def thumbnails() -> Callable[[Slide], bytes | None]:
    """A callable that draws a slide as a PNG; it gives None where that would take long, or cannot be done, and tells why not."""
    told = False

    def draw(slide: Slide) -> bytes | None:
        nonlocal told
        from rawmosaic.storage.errors import SlideError

        try:
            return None if told or _would_take_long(slide) else _drawn(slide)
        except SlideError as error:
            from rawmosaic.storage.errors import GraphicsError

            told = isinstance(error, GraphicsError)  # the next would say the same
            click.echo(f"rawmosaic: {slide.header.name} gets no thumbnail: {' '.join(str(error).split())}", err=True)
            return None

    return draw


def _would_take_long(slide: Slide) -> bool:
    if not getattr(slide, "files", None):
        return False
    planes = len(slide.channels) * slide.size_z * slide.size_t
    return int((slide.fields["height"].astype(int) * slide.fields["width"]).sum()) * planes > MOST_RAW_PIXELS


def _drawn(slide: Slide) -> bytes | None:
    from rawmosaic.cli.info_command import mosaic_bounds
    from rawmosaic.viewer import OffscreenViewer

    bounds = mosaic_bounds(slide)
    if bounds is None:
        return None
    width_um, height_um = max(bounds[2] - bounds[0], 1e-9), max(bounds[3] - bounds[1], 1e-9)
    scale = LONGEST_SIDE_PX / max(width_um, height_um)
    size = tuple(max(round(side * scale), 16) for side in (width_um, height_um))
    with OffscreenViewer(slide, size=size) as viewer:
        viewer.fit()
        image = viewer.render()
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(image[..., :3].copy()).save(png, format="PNG")
    return png.getvalue()
