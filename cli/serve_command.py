"""`rawmosaic serve`: slides for viewers on other machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from rawmosaic.cli.options import Command, Named

if TYPE_CHECKING:
    from rawmosaic.net.dealer import DealerStats
    from rawmosaic.net.keys import ServerCurve

BIND = "tcp://127.0.0.1:5555"
STATUS_S = 1.0

EXAMPLES = """\b
Examples:
  rawmosaic serve slide.h5
  rawmosaic serve scans/*.h5 --name today=acquisition/
  rawmosaic serve slide.h5 --bind tcp://*:5555                       after `rawmosaic keys new`
  rawmosaic serve slide.h5 --http 127.0.0.1:8080                     a page for browsers as well
  rawmosaic serve slide.h5 --broker tcp://broker.example.org:5556
"""


@click.command("serve", cls=Command, epilog=EXAMPLES)
@click.argument("locations", nargs=-1, metavar="LOCATION...")
@click.option(
    "--name",
    "named",
    type=Named("NAME=LOCATION", lambda text: text or None, "today=scan.h5"),
    multiple=True,
    metavar="NAME=LOCATION",
    help="Serve a slide under a name of your choice; else it is called like its file.",
)
@click.option("--bind", metavar="ADDRESS", help=f"Where viewers come; {BIND} unless there is a broker.")
@click.option("--broker", "brokers", multiple=True, metavar="ADDRESS", help="Offer the slides to a broker.")
@click.option("--http", metavar="HOST:PORT", help="Serve a page for browsers as well, such as 127.0.0.1:8080.")
@click.option(
    "--http-name", "http_names", multiple=True, metavar="NAME", help="What browsers call the page behind another server."
)
@click.option("--insecure", is_flag=True, help="Let anybody look who can reach the address, and encrypt nothing.")
@click.option("--keys", metavar="FOLDER", help="Folder of the key pair and of the list of clients.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads that read, for each slide.")
def command(
    locations: Sequence[str],
    named: Sequence[tuple[str, str]],
    bind: str | None,
    brokers: Sequence[str],
    http: str | None,
    http_names: Sequence[str],
    insecure: bool,
    keys: str | None,
    workers: int | None,
) -> None:
    """Serve the slides or raw acquisitions at each LOCATION to viewers, until Ctrl+C.

    On this machine nothing is needed: `rawmosaic view tcp://127.0.0.1:5555/NAME`. An address that other machines can reach needs
    keys: `rawmosaic keys new` on both sides, `rawmosaic keys allow` here, `rawmosaic keys trust` there.
    """
    if not locations and not named:
        raise click.UsageError("name at least one LOCATION to serve")
    if bind is None and not brokers:
        bind = BIND
    from rawmosaic.cli.service import logged, until_stopped
    from rawmosaic.net.dealer import TileDealer
    from rawmosaic.storage import open_slide

    if http is not None:
        from rawmosaic.cli.web import DRAWS_IN_MAIN_THREAD, check_http, web_server

        check_http(http, insecure)
    curve = None if insecure or bind is None else server_curve(bind, keys)
    with ExitStack() as stack:
        slides = {name: stack.enter_context(open_slide(location)) for name, location in names_for(locations, named).items()}
        stack.enter_context(logged())
        dealer = stack.enter_context(
            TileDealer(slides, bind, brokers=brokers, curve=curve, workers=workers, insecure=insecure, keys=keys)
        )
        lines = announced(slides, dealer.address, brokers, curve)
        page = None if http is None else stack.enter_context(web_server(slides, http, http_names))
        if page is not None:
            lines.append(f"in a browser: {reachable(page.url)}")
        status = Status()

        def ended(wait_s: float) -> bool:
            while lines:  # told from here on, where the system's word to end is heeded
                click.echo(lines.pop(0))
            status.show(dealer.stats())
            if page is not None and DRAWS_IN_MAIN_THREAD:
                page.draw(wait_s)
                wait_s = 0
            return dealer.wait(wait_s) or (page is not None and not page.alive)

        try:
            over = until_stopped(ended)
        finally:
            status.close()
        if over:
            raise click.ClickException("the server ended by itself; the log above says why")


def names_for(locations: Sequence[str], named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Name → location: the names that were told, and those of the files, made unique by a number."""
    found: dict[str, str] = {}
    for name, location in named:
        if name in found:
            raise click.UsageError(f"two slides are to be called {name}")
        found[name] = location
    for location in locations:
        stem = _name_of(location)
        name, number = stem, 1
        while name in found:
            number += 1
            name = f"{stem}-{number}"
        found[name] = location
    return found


def _name_of(location: str) -> str:
    """The file's or folder's name without its ending; of an address its last part."""
    path = PurePath(location.rstrip("/\\") or location)
    text = path.stem if path.suffix.lower() in (".h5", ".hdf5", ".tif", ".tiff", ".txt", ".csv", ".htd", ".nd") else path.name
    text = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in text)
    return text.strip(". ")[:100] or "slide"


def server_curve(bind: str, keys: str | None) -> ServerCurve | None:
    """Keys for an address that other machines can reach, None for any other. AccessError, with what to type, without any."""
    from rawmosaic.net.addresses import is_local, server_address
    from rawmosaic.net.keys import CLIENTS, KeyFolder
    from rawmosaic.storage.errors import AccessError

    if is_local(server_address(bind)):
        return None
    folder = KeyFolder(keys)
    if not folder.pair_names():
        raise AccessError(
            "other machines can reach this address, so it needs keys: type `rawmosaic keys new` here and where the viewers are, "
            "then `rawmosaic keys allow NAME PUBLIC` here for each of them; or serve everybody with --insecure",
            location=bind,
        )
    if not folder.listed(CLIENTS):
        click.echo("rawmosaic: nobody is let in yet; `rawmosaic keys allow NAME PUBLIC` may be typed while this runs", err=True)
    return folder.server_curve()


def announced(names: Iterable[str], address: str | None, brokers: Sequence[str], curve: ServerCurve | None) -> list[str]:
    """What to paste where."""
    lines = []
    if address is not None:
        address = reachable(address)
        lines += [f"{name}: rawmosaic view {address}/{quote(name)}" for name in names]
    else:
        lines += [f"{name}: behind {', '.join(brokers)}" for name in names]
    if curve is not None:
        from zmq.utils import z85

        lines.append(f"once on each viewer's machine: rawmosaic keys trust {address} {z85.decode(curve.public).hex()}")
    return lines


def reachable(address: str) -> str:
    """A bound address as others write it: the name of this machine where all its interfaces are bound."""
    import socket

    for everywhere in ("//0.0.0.0:", "//[::]:", "//*:"):
        address = address.replace(everywhere, f"//{socket.gethostname()}:")
    return address


class Status:
    """A line that tells what goes on, on a terminal only."""

    def __init__(self):
        self._on = sys.stderr.isatty()
        self._last: DealerStats | None = None
        self._shown_at = time.monotonic()

    def show(self, stats: DealerStats) -> None:
        """Show the line anew, where it is due."""
        passed = time.monotonic() - self._shown_at
        if not self._on or (self._last is not None and passed < STATUS_S):
            return
        self._shown_at += passed
        sys.stderr.write("\r\x1b[K" + status_line(self._last or stats, stats, passed))
        sys.stderr.flush()
        self._last = stats

    def close(self) -> None:
        """Leave the line behind."""
        if self._last is not None:
            sys.stderr.write("\n")


def status_line(before: DealerStats, now: DealerStats, passed_s: float) -> str:
    """What was done in the last seconds, and by whom it was asked for."""
    passed_s = max(passed_s, 1e-3)
    return (
        f"{now.clients} viewer{'' if now.clients == 1 else 's'} · {(now.tiles - before.tiles) / passed_s:.0f} tiles/s · "
        f"{(now.bytes - before.bytes) / passed_s / 1e6:.1f} MB/s · {now.queue} waiting"
    )
