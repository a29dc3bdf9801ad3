"""A PostgreSQL server for tests: one of its own, in a temporary folder, on loopback, run by a user who is not root."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 60.0
USER = "scientist"


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    port: int
    password: str

    def address(self, database: str) -> str:
        """The library address of a database."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str) -> None:
        """A statement of the server's administrator."""
        import psycopg

        with closing(psycopg.connect(self.address("postgres"), autocommit=True, connect_timeout=5)) as connection:
            connection.execute(statement)


def why_not() -> str | None:
    """Why there can be no server on this machine; None where there can."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed: pip install 'rawmosaic[postgresql]'"
    if _programs() is None:
        return "PostgreSQL is not installed (looked for initdb): sudo apt-get install postgresql"
    if _is_root() and _unprivileged() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


@contextmanager
def running_server() -> Iterator[Server]:
    """A server that runs as long as the block."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="rawmosaic-postgresql-"))
    process = None
    try:
        password = secrets.token_hex(8)
        (folder / "password").write_text(password)
        as_user = {}
        if _is_root():
            name = _unprivileged()
            for path in (folder, folder / "password"):
                shutil.chown(path, name, name)
            as_user = {"user": name, "group": name, "extra_groups": []}
        common = {"cwd": folder, "stdin": subprocess.DEVNULL, **as_user}
        arguments = [
            "-D",
            "data",
            "-U",
            USER,
            "--pwfile=password",
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]
        made = subprocess.run(
            [programs / "initdb", *arguments], capture_output=True, text=True, timeout=120, check=False, **common
        )
        assert made.returncode == 0, made.stderr
        server = Server(_free_port(), password)
        settings = {"listen_addresses": "127.0.0.1", "port": server.port, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen([programs / "postgres", "-D", "data", *options], stdout=log, stderr=log, **common)
        _wait_for(server, process, folder / "log")
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)  # end, whoever is connected
            process.wait(PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(server: Server, process: subprocess.Popen, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text(errors="replace")) from None
            time.sleep(0.05)
        else:
            return


def _programs() -> Path | None:
    """The folder of initdb: Debian keeps it off the path."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in found if (folder / "postgres").exists()), None)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _unprivileged() -> str | None:
    if sys.platform == "win32":
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
