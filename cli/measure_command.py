"""`rawmosaic measure`: sizes and raw counts of annotations, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rawmosaic.cli.options import LOCATION, Command, acquisition_options, opening_options

INCOMPLETE = 1

EXAMPLES = """\b
Examples:
  rawmosaic measure slide.h5 -o cells.csv
  rawmosaic measure slide.h5 cells.geojson -o cells.csv --channels DAPI,FITC
  rawmosaic measure acquisition/ cells.geojson -o cells.csv --z 3 --positions registered
"""


@click.command("measure", cls=Command, epilog=EXAMPLES)
@LOCATION
@click.argument("annotations", required=False, metavar="[ANNOTATIONS.geojson]")
@click.option("-o", "--output", required=True, metavar="TABLE.csv", help="The table to write.")
@click.option(
    "--channels", metavar="A,B", help="Channels to measure, by name (the slide's, or yours in the window) or number; else all."
)
@click.option("--positions", metavar="NAME", default="stage", show_default=True, help="Position set that places the fields.")
@click.option("--z", type=int, default=0, show_default=True, metavar="N", help="Plane of the stack.")
@click.option("--t", type=int, default=0, show_default=True, metavar="N", help="Time point.")
@click.option(
    "--overlap",
    type=click.Choice(["top", "every"]),
    default="top",
    show_default=True,
    help="Where fields overlap: the pixels of the field that is seen on top, or those of every field.",
)
@acquisition_options
def command(
    location: str,
    annotations: str | None,
    output: str,
    channels: str | None,
    positions: str,
    z: int,
    t: int,
    overlap: str,
    **acquisition: Any,
) -> int:
    """Measure annotations on the slide or raw acquisition at LOCATION: lengths, areas, and raw counts of each channel.

    The annotations are those drawn in the window and saved beside the slide, unless a GeoJSON file, of QuPath for example,
    is named. Channels that were renamed in the window have that name in the table.

    Exit code 0: measured. 1: measured, but some planes could not be read. 2: there is no table.
    """
    from rawmosaic.cli.looks import channel_labels, shown_channels
    from rawmosaic.cli.progress import progress_bar
    from rawmosaic.storage import open_slide
    from rawmosaic.storage.errors import SlideError, WriteError
    from rawmosaic.viewer.annotations.files import annotations_path
    from rawmosaic.viewer.annotations.geojson import Frame, read_geojson
    from rawmosaic.viewer.annotations.measure import Measurer, measured
    from rawmosaic.viewer.annotations.table import write_table

    path = Path(output)
    if path.is_dir():
        raise WriteError("is a folder; name a file in it", location=path)
    if not path.parent.is_dir():
        raise WriteError(f"there is no folder {path.parent}; name a file in a folder that exists", location=path)
    with open_slide(location, **opening_options(location, acquisition)) as slide:
        chosen = None if channels is None else sorted(shown_channels(slide, channels))
        source = Path(annotations) if annotations else annotations_path(slide.location)
        if not annotations and not source.exists():
            raise SlideError("no annotations are kept for it; draw some in the window, or name a GeoJSON file", location=location)
        document = read_geojson(source, Frame.of(slide))
        shapes = [annotation.shape for annotation in document.annotations]
        with (
            Measurer(slide, chosen, position_set=positions, z=z, t=t, overlap=overlap) as measurer,
            progress_bar("Measuring") as progress,
        ):
            found = measured(measurer, shapes, progress)
            write_table(path, document.annotations, found, measurer, channel_labels(slide))
    if document.unshown:
        left_out = f"{len(document.unshown)} of its features are of a kind that is not measured"
        click.echo(f"rawmosaic: {source}: {left_out}", err=True)
    if unreadable := sorted({problem for each in found for problem in each.unreadable}):
        click.echo(f"rawmosaic: {path} is incomplete, unreadable parts: {len(unreadable)}, the first {unreadable[0]}", err=True)
        return INCOMPLETE
    return 0
