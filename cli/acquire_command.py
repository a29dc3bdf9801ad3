"""`rawmosaic acquire`: the acquisition server, what it does, and scans that are made up."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from rawmosaic.cli.options import LOCATION, Command, acquisition_options, opening_options, take_acquisition

if TYPE_CHECKING:
    from rich.table import Table

BIND = "tcp://127.0.0.1:5556"
WATCH_S = 0.5

EXAMPLES = """\b
Examples:
  rawmosaic acquire serve --data /data/scans
  rawmosaic acquire serve --data /data/scans --serve tcp://127.0.0.1:5555
  rawmosaic acquire simulate slide.h5 --rate 20
  rawmosaic acquire status --watch
  rawmosaic acquire finish "my scan"
"""

ADDRESS = click.argument("address", default=BIND)
AT = click.option("--at", "address", metavar="ADDRESS", default=BIND, show_default=True, help="Where the server is.")
KEYS = click.option("--keys", metavar="FOLDER", help="Folder of the keys; else RAWMOSAIC_KEYS, else the user's settings.")


@click.group("acquire", epilog=EXAMPLES)
def command() -> None:
    """Take in what microscopes acquire: from the camera to the slide, nothing lost.

    Programs that scan send their planes to the server (Python: rawmosaic.net.acquisition.Scanner). A plane that it acknowledged
    is in the slide, whatever is killed in between.
    """


@command.command("serve", cls=Command)
@click.option(
    "--data",
    metavar="DIR",
    required=True,
    type=click.Path(exists=True, file_okay=False),
    help="Folder for the slides, and for what belongs to scans that are not finished.",
)
@click.option("--bind", metavar="ADDRESS", default=BIND, show_default=True, help="Where scanners come.")
@click.option("--ports", metavar="FIRST-LAST", help="Ports for the planes of scans, one each; else the system chooses.")
@click.option(
    "--durability",
    type=click.Choice(["fsync", "page-cache"]),
    default="fsync",
    show_default=True,
    help="A plane is acknowledged when the disk has it; or when the system has it, which a power failure may cost.",
)
@click.option(
    "--spool-gb",
    type=click.FloatRange(min=0.01),
    default=16.0,
    show_default=True,
    help="Room for planes to be written, for each scan.",
)
@click.option(
    "--idle",
    "idle_min",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="MINUTES",
    help="A scan that nothing is heard of for so long is finished as it is.",
)
@click.option(
    "--serve",
    "serve",
    metavar="ADDRESS",
    help="Serve the slides, those that grow as well, to viewers, as `rawmosaic serve` does.",
)
@click.option("--library", metavar="URL", help="Slide database that is told of each scan.")
@click.option("--keys", metavar="FOLDER", help="Folder of the key pair and of the list of clients.")
@click.option("--insecure", is_flag=True, help="Let anybody in who can reach the addresses, and encrypt nothing.")
def serve(
    data: str,
    bind: str,
    ports: str | None,
    durability: str,
    spool_gb: float,
    idle_min: float,
    serve: str | None,
    library: str | None,
    keys: str | None,
    insecure: bool,
) -> None:
    """Take in scans and write them as slides into DIR, until Ctrl+C.

    Scans that were not finished when the server ended, or was killed, go on where they were. An address that other machines can
    reach needs keys: see `rawmosaic keys --help`.
    """
    from contextlib import ExitStack

    from rawmosaic.cli.serve_command import reachable, server_curve
    from rawmosaic.cli.service import logged, until_stopped
    from rawmosaic.net.acquisition.manager import Manager

    if not insecure:  # what is missing is told here, with what to type
        for address in filter(None, (bind, serve)):
            server_curve(address, keys)
    with ExitStack() as stack:
        stack.enter_context(logged())
        manager = stack.enter_context(
            Manager(
                data,
                bind,
                ports=ports,
                durability=durability,
                spool_nbytes=int(spool_gb * 1e9),
                idle_s=60 * idle_min,
                serve=serve,
                library=_library(library, stack),
                keys=keys,
                insecure=insecure,
            )
        )
        lines = [f"scanners: {reachable(manager.address)}"]
        if manager.serving_address is not None:
            lines.append(f"viewers: rawmosaic view {reachable(manager.serving_address)}/NAME")

        def ended(wait_s: float) -> bool:
            while lines:  # told from here on, where the system's word to end is heeded
                click.echo(lines.pop(0))
            return manager.wait(wait_s)

        if until_stopped(ended):
            raise click.ClickException("the server ended by itself; the log above says why")


@command.command("status", cls=Command)
@ADDRESS
@click.option("--watch", is_flag=True, help="Show it anew twice a second, until Ctrl+C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a scan and line, for programs.")
@KEYS
def status(address: str, watch: bool, as_json: bool, keys: str | None) -> None:
    """Say what the server at ADDRESS does: one line for each scan."""
    from rawmosaic.net.acquisition.asking import Server

    with Server(address, keys) as server:
        if as_json:
            for scan in server.scans():
                click.echo(json.dumps(scan, ensure_ascii=False))
        elif watch:
            _watch(server)
        else:
            from rich.console import Console

            scans = server.scans()
            console = Console(width=None if sys.stdout.isatty() else 160)
            console.print(table_of(scans) if scans else "no scans")


@command.command("simulate", cls=Command)
@LOCATION
@click.argument("address", default=BIND)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="PLANES/S", help="Else as fast as the server takes them."
)
@click.option("--name", help="What the new slide is called; else like the one that is replayed.")
@click.option("--wait/--no-wait", default=True, help="Whether to wait until the new slide is complete.")
@acquisition_options
@KEYS
def simulate(
    location: str, address: str, rate: float | None, name: str | None, wait: bool, keys: str | None, **acquisition: Any
) -> None:
    """Acquire the slide at LOCATION once more, as a microscope would: field by field, all planes, at its stage positions."""
    from rawmosaic.cli.progress import progress_bar
    from rawmosaic.cli.serve_command import names_for
    from rawmosaic.net.acquisition import Scanner
    from rawmosaic.net.acquisition.simulate import simulate as replay
    from rawmosaic.storage import open_slide

    name = name or next(iter(names_for([location], [])))
    options = opening_options(location, take_acquisition(acquisition))
    with open_slide(location, **options) as slide, Scanner(address, keys=keys) as scanner, progress_bar(name) as progress:
        click.echo(replay(slide, scanner, name=name, planes_per_s=rate, wait=wait, progress=progress))


@command.command("finish", cls=Command)
@click.argument("name")
@AT
@KEYS
def finish(name: str, address: str, keys: str | None) -> None:
    """End the scan called NAME in its scanner's place; its slide holds what was acquired."""
    from rawmosaic.net.acquisition.asking import Server

    with Server(address, keys) as server:
        click.echo(server.finish(name))


@command.command("abort", cls=Command)
@click.argument("name")
@click.option("--discard", is_flag=True, help="Delete all that was acquired, for good.")
@AT
@KEYS
def abort(name: str, discard: bool, address: str, keys: str | None) -> None:
    """End the scan called NAME early: its slide holds what was acquired, and says that it ended early."""
    from rawmosaic.net.acquisition.asking import Server

    with Server(address, keys) as server:
        location = server.abort(name, discard)
        click.echo(f"{name} is deleted" if discard else location)


# what `status` shows


def table_of(scans: Iterable[Mapping]) -> Table:
    """One row a scan."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("scan", "state"):
        table.add_column(title, overflow="fold")
    for title in ("planes", "planes/s", "MB/s", "spool", "written"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("codec", "remark"):
        table.add_column(title, overflow="fold")
    for scan in scans:
        table.add_row(*(Text(cell) for cell in row_of(scan)))
    return table


def row_of(scan: Mapping) -> list[str]:
    """The cells of one scan's row: what is not known, or does not matter any more, is left empty."""
    planes, planned = scan.get("planes"), scan.get("planned")
    runs = scan.get("state") in ("waiting", "acquiring")
    remark = scan.get("error") or (f"held: {scan['held']}" if scan.get("held") else "")
    unfinished = scan.get("state") not in ("complete", "discarded")
    return [
        str(scan.get("name", "")),
        str(scan.get("state", "")),
        f"{planes:,}/{planned:,}" if planned else f"{planes:,}" if planes is not None else "",
        f"{scan.get('planes_per_s') or 0:.1f}" if runs else "",
        f"{(scan.get('bytes_per_s') or 0) / 1e6:.1f}" if runs else "",
        f"{(scan.get('spool_nbytes') or 0) / 1e9:.2f}/{(scan.get('spool_budget') or 0) / 1e9:.0f} GB" if unfinished else "",
        f"{scan.get('written') or 0:,}" if unfinished else "",
        str(scan.get("codec") or ""),
        str(remark),
    ]


def _watch(server) -> None:
    """The table, again and again; a server that is away is waited for."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from rawmosaic.storage.errors import UnreachableError

    with Live(console=Console(), refresh_per_second=4, transient=False) as live:
        while True:
            try:
                scans = server.scans()
                live.update(table_of(scans) if scans else Text("no scans"))
            except UnreachableError as error:
                live.update(Text(str(error)))
            except KeyboardInterrupt:
                return
            try:
                time.sleep(WATCH_S)
            except KeyboardInterrupt:
                return


def _library(url: str | None, stack):
    if url is None:
        return None
    try:
        from rawmosaic.storage.database import Library
    except ImportError as error:
        raise click.ClickException(f"the slide database cannot be used: {error}") from error
    library = Library(url)
    stack.callback(library.close)
    return library
