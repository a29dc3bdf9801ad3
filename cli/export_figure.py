"""`rawmosaic export figure`: any region of a slide at any resolution, as the screen shows it, for a paper or a poster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rawmosaic.cli.looks import check_index, finish_zoom_layers, look_options, read_looks, unreadable_in_view
from rawmosaic.cli.options import (
    LOCATION,
    Command,
    Numbers,
    Region,
    Size,
    acquisition_options,
    budget_options,
    opening_options,
    take_acquisition,
)
from rawmosaic.cli.render_command import INCOMPLETE, LARGEST_SCALE, SMALLEST_SCALE

if TYPE_CHECKING:
    from rawmosaic.storage import Slide
    from rawmosaic.viewer import OffscreenViewer
    from rawmosaic.viewer.camera import Camera
    from rawmosaic.viewer.figure import Outline

FIGURE_RAM, FIGURE_VRAM = "96M", "64M"
"""Caches of a figure, if not told otherwise: it is drawn strip by strip and comes back to nothing."""

EXAMPLES = """\b
Examples:
  rawmosaic export figure slide.h5 -o whole.png
  rawmosaic export figure slide.h5 -o cells.tif --region 1200,850,1600,1100 --width-px 3000
  rawmosaic export figure slide.h5 -o field.png --field 17 --scale-bar-um 50 --channels DAPI,FITC
  rawmosaic export figure slide.h5 -o everything.tif --scale 1 --no-legend
"""


@click.command("figure", cls=Command, epilog=EXAMPLES)
@LOCATION
@click.option("-o", "--output", required=True, metavar="FIGURE.png|.tif", help="The figure to write.")
@click.option("--region", type=Region(), help="What to show: left, top, right and bottom, µm.")
@click.option("--field", type=int, metavar="N", help="Show one field.")
@click.option("--scene", metavar="NAME", help="Show one scene: a well, a piece of tissue.")
@click.option("--center", type=Numbers("X_UM,Y_UM", ",", "1200,850"), help="What lies in the middle, µm; with --size.")
@click.option("--size", type=Size(), help="Size in pixels around --center (else around the slide's middle).")
@click.option(
    "--scale",
    type=click.FloatRange(SMALLEST_SCALE, LARGEST_SCALE),
    help="Figure pixels per camera pixel; else 1, or less so that the longer side has 4000 pixels.",
)
@click.option("--width-px", type=click.IntRange(min=1), help="Width of the figure in pixels, instead of --scale.")
@click.option(
    "--dpi", type=click.FloatRange(1, 10_000), default=300, show_default=True, help="Pixels per inch, noted for printing."
)
@click.option("--scale-bar/--no-scale-bar", default=True, help="Draw a scale bar in the lower right corner.")
@click.option("--scale-bar-um", type=click.FloatRange(min=0, min_open=True), help="Its length, µm; else a round one.")
@click.option("--legend/--no-legend", default=True, help="Write the channels' names in their colours.")
@click.option(
    "--state",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE.view.json",
    help="Looks as a window left them; what is told below counts more.",
)
@click.option(
    "--annotations",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE.geojson",
    help="Draw the annotations of a file, with their names and sizes.",
)
@look_options
@acquisition_options
@budget_options
def command(
    location: str,
    output: str,
    region: tuple[float, float, float, float] | None,
    field: int | None,
    scene: str | None,
    center: tuple[float, float] | None,
    size: tuple[int, int] | None,
    scale: float | None,
    width_px: int | None,
    dpi: float,
    scale_bar: bool,
    scale_bar_um: float | None,
    legend: bool,
    state: str | None,
    annotations: str | None,
    ram: str | None,
    vram: str | None,
    **told: Any,
) -> int:
    """Draw a region of the slide or raw acquisition at LOCATION as a figure: what the window shows, with scale bar and legend.

    Shows the whole slide if not told otherwise. Figures of any size are drawn in parts, in little memory. What they show
    (slide, region, channels with their limits, position set, …) is noted in the file's description.

    Exit code 0: drawn. 1: drawn, but parts of the slide could not be read, and are black. 2: nothing was drawn.
    """
    _check_place(region, field, scene, center or size, width_px, scale, size)
    from rawmosaic.storage import open_slide
    from rawmosaic.viewer.picture_file import check_path

    path = check_path(output)
    with open_slide(location, **opening_options(location, take_acquisition(told))) as slide:
        looks = read_looks(slide, told)
        fields = _fields(slide, field, scene)
        finish_zoom_layers(slide)

        from rawmosaic.cli.progress import progress_bar
        from rawmosaic.viewer import OffscreenViewer
        from rawmosaic.viewer.figure import FigureStyle, figure_marks, figure_notes, legend_entries, write_figure

        with OffscreenViewer(slide, ram_bytes=ram or FIGURE_RAM, vram_bytes=vram or FIGURE_VRAM) as viewer:
            if state is not None:
                _apply_state(viewer, state)
            looks.apply(viewer)  # what is told counts more than what was kept
            camera = _camera(viewer, region, fields, center, size, scale, width_px)
            style = FigureStyle(scale_bar, scale_bar_um, legend, dpi)
            marks = figure_marks(camera, legend_entries(viewer.engine), style, _outlines(slide, annotations, camera))
            notes = figure_notes(viewer.engine, camera)
            render = Rendering(viewer)
            with progress_bar("Figure") as progress:
                write_figure(path, render, camera, marks, notes, dpi=dpi, progress=progress)
            viewer.camera = camera
            failures = sorted(render.failures | unreadable_in_view(slide, viewer))
    if failures:
        click.echo(f"rawmosaic: {path} is incomplete, unreadable parts: {len(failures)}, the first {failures[0]}", err=True)
        return INCOMPLETE
    return 0


def _apply_state(viewer: OffscreenViewer, path: str) -> None:
    """Looks from a display state file, with a line for each that does not fit this slide."""
    from rawmosaic.viewer.display_state import apply
    from rawmosaic.viewer.saved_state import load_preset

    for line in apply(load_preset(path), viewer.engine):
        click.echo(f"rawmosaic: {line}", err=True)


def _outlines(slide: Slide, path: str | None, camera: Camera) -> list[Outline]:
    """The annotations of a file that the figure shows."""
    if path is None:
        return []
    from rawmosaic.viewer.annotations.files import AnnotationFile
    from rawmosaic.viewer.annotations.outlines import figure_outlines

    return figure_outlines(AnnotationFile.of(slide, path).annotations, camera)


class Rendering:
    """Draws the parts of a figure with a viewer, and remembers what could not be read of any of them."""

    def __init__(self, viewer: OffscreenViewer):
        self.failures: set[str] = set()
        self._viewer = viewer

    def __call__(self, camera: Camera):
        """(height, width, 4) uint8 of a part."""
        self._viewer.camera = camera
        pixels = self._viewer.render()
        self.failures.update(self._viewer.failures())
        return pixels


def _check_place(region, field, scene, center_or_size, width_px, scale, size) -> None:
    places = {"--region": region, "--field": field, "--scene": scene, "--center or --size": center_or_size}
    given = [name for name, value in places.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"choose one of {' and '.join(given)}: each says what to show")
    if width_px is not None and (scale is not None or size is not None):
        raise click.UsageError(f"leave out --width-px or {'--scale' if scale is not None else '--size'}: both say how large")
    if center_or_size is not None and size is None:
        raise click.UsageError("--center needs --size, the size of the figure in pixels, such as --size 1280x720")


def _fields(slide: Slide, field: int | None, scene: str | None) -> list[int] | None:
    """The fields that a figure is to show; None for all. Raises OutOfRangeError."""
    if field is not None:
        check_index(slide, "field", field, slide.n_fields)
        return [field]
    if scene is None:
        return None
    from rawmosaic.storage.errors import OutOfRangeError

    fields = []
    if scene in slide.scenes:
        fields = (slide.fields["scene"] == slide.scenes.index(scene)).nonzero()[0].tolist()
    if not fields:
        limits = "the slide has " + (", ".join(slide.scenes) or "no scenes")
        raise OutOfRangeError("scene", scene, limits, location=slide.location)
    return fields


def _camera(viewer: OffscreenViewer, region, fields, center, size, scale, width_px) -> Camera:
    from dataclasses import replace

    from rawmosaic.viewer.figure import bounds_of_fields, check_size, figure_camera

    geometry = viewer.engine.geometry
    if size is not None:
        check_size(size)
        fitted = replace(viewer.camera, size=size).fitted(geometry.bounds_um)
        x_um, y_um = center or (fitted.x_um, fitted.y_um)
        return replace(fitted, x_um=x_um, y_um=y_um, scale=scale or fitted.scale)
    if fields is not None:
        region = bounds_of_fields(geometry, fields, len(viewer.channels))
    pixel_size_um = viewer.camera.pixel_size_um
    return figure_camera(region or geometry.bounds_um, pixel_size_um, scale=scale, width_px=width_px)
