"""`rawmosaic demo`: a sample acquisition, imported and shown."""

from __future__ import annotations

import math
from pathlib import Path

import click

from rawmosaic.cli.options import Command

EXAMPLES = """\b
Examples:
  rawmosaic demo
  rawmosaic demo --fields 4 --no-window
  rawmosaic demo --folder sample/
"""

PICTURE_SIZE = (1600, 1000)


@click.command("demo", cls=Command, epilog=EXAMPLES)
@click.option("--fields", type=click.IntRange(1, 10_000), default=30, show_default=True, help="Fields at least; 12 MB each.")
@click.option("--folder", metavar="FOLDER", help="Where to keep the sample; else in the user's data folder.")
@click.option("--window/--no-window", default=True, help="Open a window, or only write a PNG.")
def command(fields: int, folder: str | None, window: bool) -> None:
    """Make a realistic raw acquisition, import it, and look at it; without a display, write a PNG.

    The acquisition is synthetic: overlapping fields of one continuous specimen in four stains, at irregular positions, with the
    noise of a 12-bit camera. What an earlier call made is used again.
    """
    columns, rows = mosaic_of(fields)
    home = demo_folder(folder) / f"{columns}x{rows}"
    acquisition, path = home / "acquisition", home / "slide.h5"
    if not _can_be_opened(path):
        _acquire(acquisition, columns, rows)
        _import(acquisition, path)
    click.echo(f"Raw acquisition  {acquisition}\nVirtual slide    {path}")
    if window and _show(path):
        return
    picture = home / "picture.png"
    _draw(path, picture)
    click.echo(f"Picture          {picture}")


def demo_folder(folder: str | None) -> Path:
    """Where samples are kept: the folder that was told, or one in the user's data folder."""
    if folder is not None:
        return Path(folder)
    import platformdirs

    return Path(platformdirs.user_data_dir("rawmosaic", appauthor=False)) / "demo"


def mosaic_of(fields: int) -> tuple[int, int]:
    """(columns, rows) of the most nearly square mosaic with that many fields or a few more."""
    columns = math.ceil(math.sqrt(fields))
    return columns, math.ceil(fields / columns)


def _can_be_opened(path: Path) -> bool:
    """Whether an earlier call left a slide that this version reads."""
    from rawmosaic.storage import SlideError, open_slide

    try:
        open_slide(path).close()
    except SlideError:
        return False
    return True


def _acquire(folder: Path, columns: int, rows: int) -> None:
    from rawmosaic.cli.progress import progress_bar
    from rawmosaic.storage.specimen import POSITIONS_FILE, write_acquisition

    if not (folder / POSITIONS_FILE).exists():
        with progress_bar("Acquiring") as progress:
            write_acquisition(folder, columns=columns, rows=rows, progress=progress)


def _import(acquisition: Path, path: Path) -> None:
    from rawmosaic.cli.progress import progress_bar
    from rawmosaic.storage import open_slide
    from rawmosaic.storage.importing import import_slide

    with open_slide(acquisition, in_place_cache=False) as slide, progress_bar("Importing") as progress:
        import_slide(slide, path, progress=progress)


def _show(path: Path) -> bool:
    """Whether a window could be opened (and has been closed again)."""
    from rawmosaic.storage import open_slide
    from rawmosaic.storage.errors import GraphicsError

    with open_slide(path) as slide:
        try:
            from rawmosaic.viewer.window import view

            view(slide)
        except GraphicsError as error:
            click.echo(f"No window: {error}", err=True)
            return False
    return True


def _draw(path: Path, picture: Path) -> None:
    from rawmosaic.cli.picture import save_png
    from rawmosaic.storage import open_slide
    from rawmosaic.viewer import OffscreenViewer

    with open_slide(path) as slide, OffscreenViewer(slide, size=PICTURE_SIZE) as viewer:
        viewer.fit()
        save_png(viewer.render(), picture)
