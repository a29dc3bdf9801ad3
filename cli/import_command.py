"""`rawmosaic import`: a raw acquisition as one virtual slide file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rawmosaic.cli.options import Command, acquisition_options, opening_options

EXAMPLES = """\b
Examples:
  rawmosaic import acquisition/ -o slide.h5
  rawmosaic import TileConfiguration.txt -o brain.h5 --pixel-size-um 2.583
  rawmosaic import plate/ -o plate.h5 --codec zstd
"""


@click.command("import", cls=Command, epilog=EXAMPLES)
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="SLIDE.h5", help="The virtual slide to write.")
@click.option(
    "--codec",
    type=click.Choice(["lz4", "zstd"]),
    default="lz4",
    show_default=True,
    help="lz4 reads fastest; zstd makes smaller files.",
)
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@acquisition_options
def command(source: str, output: str, codec: str, force: bool, **acquisition: Any) -> None:
    """Copy the acquisition at SOURCE into one virtual slide file, every plane bit for bit.

    The file appears under its name when it is complete, and not before.
    """
    from rawmosaic.cli.progress import progress_bar
    from rawmosaic.storage import open_slide
    from rawmosaic.storage.importing import import_slide

    path = output_path(output, source, force)
    with open_slide(source, in_place_cache=False, **opening_options(source, acquisition)) as slide:
        with progress_bar(f"Importing {slide.header.name}") as progress:
            import_slide(slide, path, codec=codec, progress=progress)
        fields, colours = slide.n_fields, len(slide.channels)
    click.echo(f"{path}: {fields} fields × {colours} channels, {path.stat().st_size / 1e6:.1f} MB")


def output_path(output: str, source: str, force: bool) -> Path:
    """The path of a slide to be written; raises UsageError at once for what could not or should not be written later."""
    path = Path(output)
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise click.UsageError(f"{path}: {problem}; name a file in a folder that exists")
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise click.UsageError(f"{path}: is the source itself; choose another name")
    if path.exists() and not force:
        raise click.UsageError(f"{path}: exists already; choose another name or add --force")
    return path
