"""`rawmosaic keys`: key pairs, the clients that are let in, the servers that are trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rawmosaic.net.keys import KeyFolder

EXAMPLES = """\b
Examples:
  rawmosaic keys new                           on the server, and on each viewer's machine
  rawmosaic keys allow alice PUBLIC            on the server: let in whoever has the key that belongs to PUBLIC
  rawmosaic keys trust tcp://host:5555 PUBLIC  on the viewer's machine: PUBLIC is the server's
  rawmosaic keys list
  rawmosaic keys forget alice
"""

FOLDER = click.option("--keys", metavar="FOLDER", help="Folder of the keys; else RAWMOSAIC_KEYS, else the user's settings.")


@click.group("keys", epilog=EXAMPLES)
def command() -> None:
    """Say who may look at slides from other machines.

    Server and viewer have a key pair each. The public half of the viewer's is allowed on the server, that of the server's is
    trusted by the viewer; both may be told to anybody. The secret half stays in its file.
    """


@command.command("new")
@click.argument("name", default="default")
@FOLDER
def new(name: str, keys: str | None) -> None:
    """Make a key pair, and show its public half."""
    folder = _folder(keys)
    pair = folder.new_pair(name)
    click.echo(pair.public)
    click.echo(f"This is the public key of {name}, kept in {folder.path}.", err=True)


@command.command("allow")
@click.argument("name")
@click.argument("public")
@click.option("--dealer", is_flag=True, help="A server that may come to this machine's broker, not a viewer.")
@FOLDER
def allow(name: str, public: str, dealer: bool, keys: str | None) -> None:
    """Let in the client called NAME, whose public key is PUBLIC; servers that run see it at once."""
    from rawmosaic.net.keys import CLIENTS, DEALERS

    _folder(keys).allow(name, public, DEALERS if dealer else CLIENTS)
    click.echo(f"{name} is let in from now on{' as a server behind the broker' if dealer else ''}.")


@command.command("trust")
@click.argument("address")
@click.argument("public")
@FOLDER
def trust(address: str, public: str, keys: str | None) -> None:
    """Believe the server at ADDRESS (tcp://HOST:PORT) if its public key is PUBLIC, and talk to it in secret only."""
    folder = _folder(keys)
    folder.trust(address, public)
    click.echo(f"{address} is trusted with this key from now on.")
    if not folder.pair_names():
        click.echo("This machine has no key pair of its own yet: `rawmosaic keys new`, and have it allowed there.", err=True)


@command.command("list")
@FOLDER
def show(keys: str | None) -> None:
    """Show the public keys of this machine, of the clients it lets in, and of the servers it trusts."""
    from rawmosaic.net.keys import CLIENTS, DEALERS, SERVERS

    folder = _folder(keys)
    parts = {
        "own": {name: folder.pair(name).public for name in folder.pair_names()},
        "let in": folder.listed(CLIENTS),
        "let in as servers behind the broker": folder.listed(DEALERS),
        "trusted": folder.listed(SERVERS),
    }
    width = max((len(name) for part in parts.values() for name in part), default=0)
    for title, part in parts.items():
        if part:
            click.echo(f"{title}:")
            for name, public in part.items():
                click.echo(f"  {name:<{width}}  {public}")
    if not any(parts.values()):
        click.echo(f"no keys yet in {folder.path}")


@command.command("forget")
@click.argument("name")
@click.option("--pair", is_flag=True, help="Delete the key pair called NAME: what it was allowed for is lost.")
@FOLDER
def forget(name: str, pair: bool, keys: str | None) -> None:
    """Take a client, or a server's address, off its list. A client that is connected stays until it, or the server, ends."""
    folder = _folder(keys)
    if pair:
        folder.forget_pair(name)
        click.echo(f"the key pair {name} is gone.")
    else:
        click.echo(f"{name} is no longer among the {', '.join(folder.forget(name))}.")


def _folder(path: str | None) -> KeyFolder:
    from rawmosaic.net.keys import KeyFolder

    return KeyFolder(path)
