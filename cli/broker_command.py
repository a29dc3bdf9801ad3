"""`rawmosaic broker`: one address in front of many servers of slides."""

from __future__ import annotations

import click

from rawmosaic.cli.options import Command

FRONT, BACK = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"

EXAMPLES = """\b
Examples:
  rawmosaic broker
  rawmosaic broker --front tcp://*:5555 --back tcp://*:5556
  rawmosaic serve scan.h5 --broker tcp://broker.example.org:5556
"""


@click.command("broker", cls=Command, epilog=EXAMPLES)
@click.option("--front", metavar="ADDRESS", default=FRONT, show_default=True, help="Where viewers come.")
@click.option("--back", metavar="ADDRESS", default=BACK, show_default=True, help="Where `rawmosaic serve --broker` comes.")
@click.option("--insecure", is_flag=True, help="Let anybody in who can reach the addresses, and encrypt nothing.")
@click.option("--keys", metavar="FOLDER", help="Folder of the key pair and of the lists of who is let in.")
def command(front: str, back: str, insecure: bool, keys: str | None) -> None:
    """Put one address in front of many servers of slides, which may come and go.

    Servers of the same slide share its load; when one is lost, others answer what it was asked. An address that others than this
    machine can reach needs a key pair (`rawmosaic keys new`); viewers are then let in by `rawmosaic keys allow`, servers by
    `rawmosaic keys allow --dealer`.
    """
    from rawmosaic.cli.service import logged, until_stopped
    from rawmosaic.net.addresses import is_local, server_address
    from rawmosaic.net.broker import Broker, for_dealers
    from rawmosaic.net.keys import KeyFolder

    front, back = server_address(front), server_address(back)
    curve = back_curve = None
    if not insecure and not (is_local(front) and is_local(back)):
        found = KeyFolder(keys).server_curve()
        curve = None if is_local(front) else found
        back_curve = None if is_local(back) else for_dealers(found)
    with logged(), Broker(front, back, curve=curve, back_curve=back_curve) as broker:
        click.echo(f"viewers: {broker.front_address}  servers: {broker.back_address}")
        if until_stopped(broker.wait):
            raise click.ClickException("the broker ended by itself; the log above says why")
