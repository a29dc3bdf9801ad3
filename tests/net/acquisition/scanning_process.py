"""A scanner in a process of its own, which may be killed: python scanning_process.py ORDERS, a folder with `scanner.json`.

What is acknowledged is noted in the file `journal` of that folder, a line a plane, before anybody is told. The file `gate` says
how many planes may be sent; the next one waits. The file `held` has what it was told when it had to wait. Started again, it sends
what the journal lacks, or everything anew, and goes on.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from specimen import CHANNELS, Key, Specimen

from rawmosaic.net.acquisition import scan_line, scanner
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.net.protocol import Reply
from rawmosaic.storage.errors import AcquisitionError, SlideError

JOURNAL, GATE, SCAN, HELD = "journal", "gate", "scanner.json", "held"
SYNC_EACH = 32
PAUSE_S = 0.005


class Journal:
    """The planes that were acknowledged; on the disk, whoever is killed."""

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._unsynced = 0

    def note(self, key: Key) -> None:
        os.write(self._descriptor, b"%d %d\n" % key)
        self._unsynced += 1
        if self._unsynced >= SYNC_EACH:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._descriptor)
        self._unsynced = 0

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)


def journaled(folder: Path) -> set[Key]:
    """What was acknowledged so far; a line that is just written does not count."""
    try:
        text = (folder / JOURNAL).read_text()
    except OSError:
        return set()
    return {tuple(int(number) for number in line.split()) for line in text[: text.rfind("\n") + 1].splitlines()}


def n_journaled(folder: Path) -> int:
    """How many acknowledgements were noted."""
    try:
        return (folder / JOURNAL).read_bytes().count(b"\n")
    except OSError:
        return 0


def main(folder: Path) -> int:
    told = json.loads((folder / SCAN).read_text())
    specimen = Specimen(**told["specimen"])
    journal = Journal(folder / JOURNAL)

    class Line(scan_line.ScanLine):
        def _settle(self, letter: scan_line.Letter) -> None:
            if letter.op == "plane" and letter.error is None and letter.answer:
                place = letter.body.get("field", round(letter.body.get("x_um", 0.0) / 10.0))
                journal.note((place, letter.body["channel"]))
            super()._settle(letter)

        def _hear(self, reply: Reply) -> None:
            super()._hear(reply)
            if self.held:
                (folder / HELD).write_text(self.held)

    scanner.ScanLine = Line
    scan_line.LAST_PAUSE_S = 0.1
    done = journaled(folder) if told["resends"] == "what was not acknowledged" else set()
    keys = [key for key in specimen.keys if key not in done]
    with scanner.Scanner(told["address"], encoding=told["encoding"], window_nbytes=told["window_nbytes"]) as sender:
        if not begun(sender, told, specimen):
            return wait_until_over(told)
        for number, key in enumerate(keys, start=len(done)):
            wait_for_gate(folder, number)
            sender.send(specimen.plane(key), key[1], **specimen.where(key), metadata={"place": key[0]} if told["tells"] else None)
        sender.flush()
        if told["aborts"]:
            sender.abort()
            return wait_until_over(told)
        sender.finish()
    journal.close()
    return 0


def begun(sender: scanner.Scanner, told: dict, specimen: Specimen) -> bool:
    """Begin or go on; False where the scan is over."""
    try:
        sender.start(
            told["name"],
            field_shape=specimen.shape,
            channels=CHANNELS,
            pixel_size_um=0.5,
            fields=specimen.fields,
            uid=told["uid"],
        )
    except AcquisitionError as error:
        if any(f"is {state}" in str(error) for state in ("finishing", "complete")):
            return False
        raise
    return True


def wait_until_over(told: dict) -> int:
    while True:
        try:
            with Server(told["address"]) as server:
                if server.find(told["name"])["state"] == "complete":
                    return 0
        except SlideError:  # it is being started
            pass
        time.sleep(PAUSE_S)


def wait_for_gate(folder: Path, number: int) -> None:
    rest = threading.Event()
    while number >= int((folder / GATE).read_text() or 0):
        rest.wait(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
