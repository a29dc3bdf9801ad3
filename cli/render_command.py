"""`rawmosaic render`: a slide, or a part of it, as a PNG, without a display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from rawmosaic.cli.options import (
    LOCATION,
    Command,
    Named,
    Numbers,
    Size,
    acquisition_options,
    budget_options,
    numbers,
    opening_options,
    positive_number,
)

if TYPE_CHECKING:
    from rawmosaic.storage import Slide
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
@click.option("--channels", metavar="A,B", help="Channels to show, by name or number; else all.")
@click.option(
    "--limits",
    multiple=True,
    type=Named("NAME=LOW:HIGH", lambda text: numbers(text, ":"), "DAPI=400:3000"),
    help="Counts shown as black and as full colour; else from the slide's histograms.",
)
@click.option(
    "--colors", multiple=True, type=Named("NAME=COLOR", lambda text: text or None, "DAPI=#0000ff"), help="#rrggbb or a name."
)
@click.option("--gamma", multiple=True, type=Named("NAME=G", positive_number, "DAPI=0.7"), help="Exponent after the limits.")
@click.option(
    "--overlap",
    type=click.Choice(["top", "nearest", "feather", "max"]),
    default="top",
    show_default=True,
    help="Which field wins where fields overlap.",
)
@click.option("--positions", metavar="NAME", default="stage", show_default=True, help="Position set that places the fields.")
@click.option("--z", type=int, default=0, show_default=True, metavar="N", help="Plane of the stack.")
@click.option("--t", type=int, default=0, show_default=True, metavar="N", help="Time point.")
@click.option(
    "--interpolation", type=click.Choice(["nearest", "smooth"]), help="Else nearest when magnified, smooth when reduced."
)
@acquisition_options
@budget_options
def command(
    location: str,
    output: str,
    size: tuple[int, int],
    center: tuple[float, float] | None,
    scale: float | None,
    channels: str | None,
    limits: Sequence[tuple[str, tuple[float, float]]],
    colors: Sequence[tuple[str, str]],
    gamma: Sequence[tuple[str, float]],
    overlap: str,
    positions: str,
    z: int,
    t: int,
    interpolation: str | None,
    ram: str | None,
    vram: str | None,
    **acquisition: Any,
) -> int:
    """Draw the slide or raw acquisition at LOCATION into a PNG: the picture the window would show, complete.

    Exit code 0: drawn. 1: drawn, but parts of the slide could not be read, and are black. 2: nothing was drawn.
    """
    from rawmosaic.cli.picture import PICTURE_MODULES, picture_path, save_png
    from rawmosaic.storage import open_slide

    path = picture_path(output)
    with open_slide(location, **opening_options(location, acquisition)) as slide:
        check_stack(slide, z, t)
        shown = shown_channels(slide, channels)
        looks = [
            (look, channel_number(slide, name), value)
            for look, given in (("limits", limits), ("color", colors), ("gamma", gamma))
            for name, value in given
        ]
        told_limits = {number for look, number, _ in looks if look == "limits"}
        if scale is None or scale < 1 or shown - told_limits:
            finish_zoom_layers(slide)

        from rawmosaic.viewer import OffscreenViewer
        from rawmosaic.viewer.ahead import import_ahead

        import_ahead(PICTURE_MODULES)
        with OffscreenViewer(slide, size=size, ram_bytes=ram, vram_bytes=vram) as viewer:
            for number_, channel in enumerate(viewer.channels):
                channel.visible = number_ in shown
            for look, number_, value in looks:
                setattr(viewer.channels[number_], look, value)
            viewer.overlap, viewer.position_set, viewer.z, viewer.t = overlap, positions, z, t
            if interpolation is not None:
                viewer.interpolation = interpolation
            point_camera(viewer, center, scale)
            save_png(viewer.render(), path)
            failures = sorted({*viewer.failures(), *unreadable_in_view(slide, viewer)})
    if failures:
        click.echo(f"rawmosaic: {path} is incomplete, unreadable parts: {len(failures)}, the first {failures[0]}", err=True)
        return INCOMPLETE
    return 0


def channel_number(slide: Slide, name: str) -> int:
    """The channel of a name (in any case, if that is not ambiguous) or of a number; raises OutOfRangeError with all names."""
    names = [channel.name for channel in slide.channels]
    if name in names:
        return names.index(name)
    alike = [number for number, other in enumerate(names) if other.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    from rawmosaic.storage.errors import OutOfRangeError

    raise OutOfRangeError("channel", name, "the slide has " + ", ".join(names), location=slide.location)


def shown_channels(slide: Slide, names: str | None) -> set[int]:
    """Numbers of the channels to show: those named with commas between, or all."""
    if names is None:
        return set(range(len(slide.channels)))
    # A name may itself hold a comma: then the whole text is that name.
    whole = [names] if any(channel.name == names for channel in slide.channels) else names.split(",")
    return {channel_number(slide, name.strip()) for name in whole}


def check_stack(slide: Slide, z: int, t: int) -> None:
    """Raise OutOfRangeError unless the slide has this z and t."""
    from rawmosaic.storage.errors import OutOfRangeError

    for what, value, count in (("z", z, slide.size_z), ("t", t, slide.size_t)):
        if not 0 <= value < count:
            raise OutOfRangeError(what, value, f"the slide has {what} 0 to {count - 1}", location=slide.location)


def finish_zoom_layers(slide: Slide) -> None:
    """Wait, with a progress bar, for the zoom layers and histograms of a slide that makes them in the background."""
    if hasattr(slide, "wait"):
        from rawmosaic.cli.progress import progress_bar

        with progress_bar("Zoom layers") as progress:
            slide.wait(progress=progress)


def unreadable_in_view(slide: Slide, viewer: OffscreenViewer) -> set[str]:
    """What a slide viewed in place could not read of the planes in view: its zoom layers are black there, and no tile fails."""
    view, geometry = viewer.engine.view(), viewer.engine.geometry
    fields = {channel: set(geometry.in_view(view.camera, channel).tolist()) for channel in view.channels}
    unreadable = dict(getattr(slide, "unreadable", {}))
    return {
        str(error)
        for (field, channel, z, t), error in unreadable.items()
        if (z, t) == (view.z, view.t) and field in fields.get(channel, ())
    }


def point_camera(viewer: OffscreenViewer, center: tuple[float, float] | None, scale: float | None) -> None:
    """Show the whole slide, or as much of that as was not told otherwise."""
    viewer.fit()
    if center is None and scale is None:
        return
    x_um, y_um = center or (viewer.camera.x_um, viewer.camera.y_um)
    viewer.look_at(x_um, y_um, scale=scale)  # None keeps the scale that shows the whole slide
