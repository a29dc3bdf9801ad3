"""`rawmosaic export KIND …`: slides, or parts of them, in other forms. One file a kind: export_KIND.py."""

from __future__ import annotations

import importlib

import click

EXPORTS = {"figure": "A region at any resolution, with scale bar and legend, as PNG or TIFF."}
"""Every kind and its first help line. Kind NAME lives in the module export_NAME, as `command`."""

EXAMPLES = """\b
Examples:
  rawmosaic export figure slide.h5 -o figure.png
  rawmosaic export figure --help
"""


class _Exports(click.Group):
    """Imports the module of a kind when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(EXPORTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in EXPORTS:
            return None
        return importlib.import_module(f"rawmosaic.cli.export_{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Kinds"):
            formatter.write_dl(list(EXPORTS.items()))


@click.group("export", cls=_Exports, epilog=EXAMPLES, subcommand_metavar="KIND ...")
def command() -> None:
    """Write a slide, or a part of it, in another form."""
