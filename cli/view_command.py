"""`rawmosaic view`: a slide in a window."""

from __future__ import annotations

from typing import Any

import click

from rawmosaic.cli.options import Command, acquisition_options, budget_options, opening_options

EXAMPLES = """\b
Examples:
  rawmosaic view slide.h5
  rawmosaic view acquisition/
  rawmosaic view tcp://host:5555/slide-name
  rawmosaic view TileConfiguration.txt --pixel-size-um 2.583
  rawmosaic view slide.h5 slide.h5
  rawmosaic view slide.h5 --ram 2G --vram 512M
"""


@click.command("view", cls=Command, epilog=EXAMPLES)
@click.argument("locations", metavar="LOCATION...", nargs=-1, required=True)
@click.option(
    "--linked/--unlinked", default=True, help="Whether several windows show the same place; else each goes its own way."
)
@acquisition_options
@budget_options
def command(locations: tuple[str, ...], linked: bool, ram: str | None, vram: str | None, **acquisition: Any) -> None:
    """Look at the slide or raw acquisition at LOCATION in a window; at several in windows that go together.

    Drag to move, turn the wheel to zoom, press ? for all keys. A raw acquisition is shown in place: its zoom layers are made in
    the background and kept for the next time. Of a slide on a server, what was seen is kept on this disk, 10 GB at most or what
    RAWMOSAIC_DISK_CACHE says (such as 50G; 0 for nothing).
    """
    from contextlib import ExitStack

    from rawmosaic.storage import open_slide

    with ExitStack() as stack:
        slides = [stack.enter_context(open_slide(location, **opening_options(location, acquisition))) for location in locations]
        if len(slides) > 1:
            from rawmosaic.viewer.together import view_together

            view_together(slides, linked=linked, ram_bytes=ram, vram_bytes=vram)
        else:
            from rawmosaic.viewer.window import view

            view(slides[0], ram_bytes=ram, vram_bytes=vram)
