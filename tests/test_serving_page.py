"""What docs/serving.md tells a facility to type is typed here, machine by machine, and does what it says."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rawmosaic.storage.testing import SyntheticSlide, write_slide

PAGE = Path(__file__).parents[1] / "docs" / "serving.md"
SERVICES = ("serve", "broker")
PATIENCE_S = 60
PROGRAM = [sys.executable, "-c", "import sys; from rawmosaic.cli.main import main; sys.exit(main(sys.argv[1:]))"]


@dataclass
class Machine:
    """A folder to work in, a key folder, and the public key once there is one."""

    folder: Path
    public: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def sections() -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """(title, [(machine, command lines)]) of each part of the page that has commands."""
    found = []
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        blocks = []
        for block in re.findall(r"```sh\n(.*?)```", part, re.DOTALL):
            first, *lines = [line.strip() for line in block.strip().splitlines()]
            blocks.append((first.removeprefix("# on the "), lines))
        if blocks:
            found.append((part.splitlines()[0], blocks))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def service(arguments: list[str], machine: Machine) -> Iterator[None]:
    """A command that goes on until the section ends, once it has said where it is."""
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=machine.folder,
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline(), process.stderr.read()
            yield
            assert process.poll() is None, "it ended by itself"
        finally:
            process.terminate()
            _, log = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in log


def run(arguments: list[str], machine: Machine) -> str:
    outcome = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=machine.folder,
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert outcome.returncode == 0, f"{arguments}: {outcome.stderr}"
    return outcome.stdout


@pytest.fixture
def machines(tmp_path: Path) -> dict[str, Machine]:
    """The machines of the page, each with folders of its own; the slide lies on the server."""
    made = {}
    for name in ("server", "viewer", "broker"):
        folder = tmp_path / name
        folder.mkdir()
        own = {"RAWMOSAIC_KEYS": str(folder / "keys"), "RAWMOSAIC_CACHE": str(folder / "cache")}
        made[name] = Machine(folder, environment={**os.environ, **own})
    write_slide(SyntheticSlide((2, 3), (60, 80), 2, name="a scan"), made["server"].folder / "scan.h5")
    return made


def test_page_has_all_that_a_facility_needs():
    titles = [title for title, _ in sections()]
    assert titles == ["One machine", "Other machines: keys", "One address for many servers: a broker"]


def test_commands_of_the_page_do_what_it_says(machines: dict[str, Machine]):
    said = []
    for _, blocks in sections():
        ports = {"5555": str(free_port()), "5556": str(free_port())}
        with ExitStack() as services:
            for name, lines in blocks:
                machine = machines[name]
                for line in lines:
                    line = re.sub(r"\b(files|broker)\.example\.org\b", "127.0.0.1", line)
                    line = re.sub(r":(555[56])\b", lambda port: ":" + ports[port[1]], line)  # noqa: B023
                    line = re.sub(r"PUBLIC_OF_(\w+)", lambda who: machines[who[1].lower()].public, line)
                    program, *arguments = shlex.split(line)
                    assert program == "rawmosaic"
                    if arguments[0] == "serve" and not {"--bind", "--broker"} & set(arguments):
                        arguments += ["--bind", f"tcp://127.0.0.1:{ports['5555']}"]  # the default port may be in use here
                    if arguments[0] in SERVICES:
                        services.enter_context(service(arguments, machine))
                        continue
                    out = run(arguments, machine)
                    said.append(out)
                    if arguments[:2] == ["keys", "new"]:
                        machine.public = out.strip()
    assert sum("a scan" in out for out in said) == 3
    assert (machines["server"].folder / "overview.png").stat().st_size > 1000
    assert machines["broker"].public in said[-1]
