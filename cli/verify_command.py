"""`rawmosaic verify`: whether a virtual slide is as it was written."""

from __future__ import annotations

import click

from rawmosaic.cli.options import Command

DAMAGED = 1

EXAMPLES = """\b
Examples:
  rawmosaic verify slide.h5
  rawmosaic verify slide.h5 && rsync slide.h5 archive:
"""


@click.command("verify", cls=Command, epilog=EXAMPLES)
@click.argument("slide")
def command(slide: str) -> int:
    """Read every plane of the virtual slide SLIDE and compare it with its checksum.

    Exit code 0: intact. 1: damaged, one line for each damaged plane. 2: not a slide, or unreadable as a whole.
    """
    if "://" in slide:
        raise click.UsageError(f"{slide} is on a server: verify the file where it lies")
    from rawmosaic.cli.progress import progress_bar
    from rawmosaic.storage.hdf5.verify import verify_slide

    planes = 0
    with progress_bar("Verifying") as show:

        def progress(done: int, total: int) -> None:
            nonlocal planes
            planes = total
            show(done, total)

        damages = verify_slide(slide, progress=progress)
    for damage in damages:
        text = str(damage)
        click.echo(text if text.startswith(slide) else f"{slide}: {text}")
    if damages:
        click.echo(f"{slide}: damaged, {len(damages)} of {planes} planes")
        return DAMAGED
    click.echo(f"{slide}: intact, {planes} planes")
    return 0
