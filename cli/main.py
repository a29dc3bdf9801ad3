"""`rawmosaic COMMAND …`: finds the command, and turns every error into one line and an exit code.

Exit codes: 0 done; 1 the slide is damaged (`verify`), or the picture incomplete for that reason (`render`); 2 something is
wrong with the input, the machine or the arguments; 130 interrupted.
A command's module is imported when the command runs, so that `rawmosaic render` starts without what it does not need.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

WRONG_INPUT, INTERRUPTED = 2, 130

COMMANDS = {
    "view": "Look at a slide in a window.",
    "render": "Draw a slide, or a part of it, into a PNG.",
    "export": "Write a slide, or a part of it, in another form: figures.",
    "acquire": "Take in what microscopes acquire: from the camera to the slide, nothing lost.",
    "import": "Copy a raw acquisition into one virtual slide file.",
    "info": "Say what a slide holds.",
    "measure": "Measure annotations: lengths, areas and raw counts, as a table.",
    "verify": "Prove that a virtual slide is as it was written.",
    "library": "Keep account of slides: find them, know where they lie, see what is missing.",
    "serve": "Serve slides to viewers on other machines.",
    "keys": "Say who may look at what is served.",
    "doctor": "Say whether this machine will do, and what to do where it will not.",
    "broker": "Put one address in front of many servers of slides.",
    "demo": "Make a sample acquisition, import it and look at it.",
}
"""Every command and its first help line. Command NAME lives in the module NAME_command, as `command`."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"rawmosaic.cli.{cmd_name}_command").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


EXAMPLES = """\b
Examples:
  rawmosaic demo
  rawmosaic view acquisition/
  rawmosaic render acquisition/ -o overview.png
  rawmosaic import acquisition/ -o slide.h5
  rawmosaic COMMAND --help
"""


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"rawmosaic {version('rawmosaic')}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show where in the program an error arose.")
def rawmosaic() -> None:
    """Look at a raw microscope mosaic the moment it is acquired: no stitching, no conversion, no loss.

    A LOCATION is a virtual slide (.h5) or a raw acquisition, as a file or a folder: TIFFs with positions.csv, Fiji's
    TileConfiguration.txt, OME-TIFF, MetaXpress/ImageXpress, Micro-Manager MMStack.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process by default); returns the exit code and never raises for wrong input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]  # it may stand anywhere
    try:
        code = rawmosaic.main(arguments, prog_name="rawmosaic", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        if debug or not _is_about_the_input(error):
            raise
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            click.echo(error.ctx.get_help(), err=True)
        else:
            _say(_one_line(error))
        return WRONG_INPUT


def run() -> None:
    """The entry point of the `rawmosaic` command."""
    sys.exit(main())


def _is_about_the_input(error: Exception) -> bool:
    """Whether an error tells the user something; anything else is a fault of ours and keeps its traceback."""
    if isinstance(error, click.ClickException | OSError | MemoryError):
        return True
    from rawmosaic.storage.errors import SlideError

    return isinstance(error, SlideError)


def _one_line(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "rawmosaic"
        text = f"{error.format_message().rstrip('.')} (see {command} --help)"
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, MemoryError):
        text = "out of memory" + (f": {error}" if str(error) else "") + "; close other programs or choose a smaller --size"
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def _say(text: str) -> None:
    click.echo(f"rawmosaic: {text}", err=True)
