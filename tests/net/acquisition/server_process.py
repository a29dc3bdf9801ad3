"""An acquisition server in a process of its own, as it is run at a microscope; it can be killed, and started again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rawmosaic.storage.hdf5.claim import is_claimed

LONG_S = 60.0
ANY = "tcp://127.0.0.1:*"
RUN = [sys.executable, "-c", "from rawmosaic.cli.main import run; run()", "acquire"]


class ServerProcess:
    """`rawmosaic acquire serve` for a folder; a context manager. `address`: where scanners come, the same after each start."""

    def __init__(self, data: Path, *options: object):
        self.data, self._options = data, [str(option) for option in options]
        self.address = ANY
        self.start()

    def start(self) -> None:
        """Start it; returns when it takes scanners in."""
        command = [*RUN, "serve", "--data", str(self.data), "--bind", self.address, *self._options]
        self.log = (self.data / "server.log").open("ab")
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True, encoding="utf-8"
        )
        line = self._process.stdout.readline()
        assert line.startswith("scanners: "), (self.data / "server.log").read_text()
        self.address = re.search(r"tcp://\S+", line)[0]

    def next_line(self) -> str:
        """What it says next, after where scanners come."""
        return self._process.stdout.readline()

    def kill(self) -> None:
        """End it at once, without a word to anybody."""
        self._process.kill()
        self._gone()

    def end(self) -> int:
        """Have it end in order; its exit code."""
        self._process.terminate()
        return self._gone()

    def _gone(self) -> int:
        self._process.communicate(timeout=LONG_S)
        self.log.close()
        return self._process.returncode

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self.kill()
        elif not self.log.closed:
            self._gone()


def processes_there(data: Path) -> list[Path]:
    """The locks of processes of scans that are alive."""
    return [path for path in data.glob("*.scan/*.lock") if is_claimed(path)]
