"""Scans that are over, remembered across restarts: who comes back late to ask learns what became of his scan."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rawmosaic.net.acquisition.files import append_json

MOST_REMEMBERED = 1000
MOST_NBYTES = 2 << 20


@dataclass(frozen=True)
class FinishedScan:
    """What became of a scan: `state` is ``complete`` or ``discarded``; `planes` are in the slide at `location`."""

    uid: str
    name: str
    state: str
    location: str
    planes: int


class FinishedScans:
    """The scans that ended, the latest MOST_REMEMBERED of them; kept in a file of one JSON object a line. One thread."""

    def __init__(self, path: Path):
        self._path = path
        self._scans: dict[str, FinishedScan] = {}
        n_lines = 0
        for scan in self._read():
            n_lines += 1
            self._remember(scan)
        if n_lines > 2 * MOST_REMEMBERED:
            self._write_anew()

    def __iter__(self) -> Iterator[FinishedScan]:
        """The earliest first."""
        return iter(list(self._scans.values()))

    def add(self, scan: FinishedScan) -> None:
        """Remember a scan, on the disk as well. OSError."""
        self._remember(scan)
        append_json(self._path, asdict(scan))

    def by_uid(self, uid: str) -> FinishedScan | None:
        """The scan of that uid, if it is remembered."""
        return self._scans.get(uid)

    def by_name(self, name: str) -> FinishedScan | None:
        """The latest scan of that name."""
        return next((scan for scan in reversed(self._scans.values()) if scan.name == name), None)

    def _remember(self, scan: FinishedScan) -> None:
        self._scans.pop(scan.uid, None)
        self._scans[scan.uid] = scan
        while len(self._scans) > MOST_REMEMBERED:
            del self._scans[next(iter(self._scans))]

    def _read(self) -> Iterator[FinishedScan]:
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - MOST_NBYTES))
                lines = file.read().splitlines()
        except OSError:
            return
        for line in lines:
            with suppress(ValueError, TypeError, KeyError, RecursionError):  # torn, or somebody wrote into it
                said = json.loads(line)
                yield FinishedScan(*(str(said[key]) for key in ("uid", "name", "state", "location")), int(said["planes"]))

    def _write_anew(self) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        with suppress(OSError):  # it stays long, then
            fresh.write_text("".join(json.dumps(asdict(scan)) + "\n" for scan in self), encoding="utf-8")
            os.replace(fresh, self._path)
