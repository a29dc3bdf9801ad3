"""`rawmosaic render`: a slide, or a part of it, as a PNG, without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rawmosaic.cli.looks import finish_zoom_layers, look_options, read_looks, unreadable_in_view
from rawmosaic.cli.options import (
    LOCATION,
    Command,
    Numbers,
    Size,
    acquisition_options,
    budget_options,
    opening_options,
    take_acquisition,
)

if TYPE_CHECKING:
    from rawmosaic.viewer import OffscreenViewer

INCOMPLETE = 1
SMALLEST_SCALE, LARGEST_SCALE = 1e-6, 1e4
"""Beyond these a whole slide is a fraction of a pixel, or a pixel many pictures."""

EXAMPLES = """\b
Examples:
  rawmosaic render slide.h5 -o overview.png
  rawmosaic render acquisition/ -o overview.png --size 3840x2160
  rawmosaic render slide.h5 -o nuclei.png --center 1200,850 --scale 1 --channels DAPI
  rawmosaic render slide.h5 -o cells.png --limits DAPI=400:3000 FITC=600:2000 --colors FITC=#00ff00
"""


@click.command("render", cls=Command, epilog=EXAMPLES)
@LOCATION
@click.option("-o", "--output", required=True, metavar="FILE.png", help="The picture to write.")
@click.option("--size", type=Size(), default="1280x720", show_default=True, help="Size of the picture in pixels.")
@click.option("--center", type=Numbers("X_UM,Y_UM", ",", "1200,850"), help="What lies in the middle, µm; else the whole slide's.")
@click.option(
    "--scale",
    type=click.FloatRange(SMALLEST_SCALE, LARGEST_SCALE),
    help="Picture pixels per camera pixel: 1 is 1:1; else as small as shows the whole slide.",
)
@look_options
@acquisition_options
@budget_options
def command(
    location: str,
    output: str,
    size: tuple[int, int],
    center: tuple[float, float] | None,
    scale: float | None,
    ram: str | None,
    vram: str | None,
    **told: Any,
) -> int:
    """Draw the slide or raw acquisition at LOCATION into a PNG: the picture the window would show, complete.

    Exit code 0: drawn. 1: drawn, but parts of the slide could not be read, and are black. 2: nothing was drawn.
    """
    from rawmosaic.cli.picture import PICTURE_MODULES, picture_path, save_png
    from rawmosaic.storage import open_slide

    path = picture_path(output)
    with open_slide(location, **opening_options(location, take_acquisition(told))) as slide:
        looks = read_looks(slide, told)
        if scale is None or scale < 1 or not looks.tells_limits(len(slide.channels)):
            finish_zoom_layers(slide)

        from rawmosaic.viewer import OffscreenViewer
        from rawmosaic.viewer.ahead import import_ahead

        import_ahead(PICTURE_MODULES)
        with OffscreenViewer(slide, size=size, ram_bytes=ram, vram_bytes=vram) as viewer:
            looks.apply(viewer)
            point_camera(viewer, center, scale)
            save_png(viewer.render(), path)
            failures = sorted({*viewer.failures(), *unreadable_in_view(slide, viewer)})
    if failures:
        click.echo(f"rawmosaic: {path} is incomplete, unreadable parts: {len(failures)}, the first {failures[0]}", err=True)
        return INCOMPLETE
    return 0


def point_camera(viewer: OffscreenViewer, center: tuple[float, float] | None, scale: float | None) -> None:
    """Show the whole slide, or as much of that as was not told otherwise."""
    viewer.fit()
    if center is None and scale is None:
        return
    x_um, y_um = center or (viewer.camera.x_um, viewer.camera.y_um)
    viewer.look_at(x_um, y_um, scale=scale)  # None keeps the scale that shows the whole slide
