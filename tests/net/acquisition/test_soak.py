"""A long scan, with readers that look at all of it while it grows: in the machine of the writer, and over the network.

RAWMOSAIC_SOAK_FIELDS says how many fields it has (with 24 × 32 pixels), RAWMOSAIC_SOAK_SHAPE (HEIGHTxWIDTH) how large they are.
RAWMOSAIC_SOAK_KEEP names a file that the figures are appended to, a JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from scans import LONG_S, until
from server_process import ANY, ServerProcess
from specimen import CHANNELS, INDEXED, Specimen

from rawmosaic.net.acquisition import Scanner
from rawmosaic.storage.hdf5.verify import verify_slide

N_FIELDS = int(os.environ.get("RAWMOSAIC_SOAK_FIELDS", "200"))
SHAPE = tuple(int(side) for side in os.environ.get("RAWMOSAIC_SOAK_SHAPE", "24x32").split("x"))
READER = Path(__file__).with_name("following_process.py")
ALL_S = 900.0
MOST_MB = 150
"""What following may add to a reader's memory."""

pytestmark = pytest.mark.timeout(900)


def readers(locations: Sequence[str], specimen: Specimen, folder: Path) -> list[subprocess.Popen]:
    """A reader of each location, in a process of its own."""
    told = json.dumps(dataclasses.asdict(specimen))
    return [
        subprocess.Popen(
            [sys.executable, str(READER), location, told, str(folder / f"reader {number}")], stdin=subprocess.DEVNULL
        )
        for number, location in enumerate(locations)
    ]


def test_readers_of_a_scan_see_each_plane_once_and_right(tmp_path):
    specimen = Specimen(5, N_FIELDS, SHAPE, INDEXED)
    data, began = tmp_path / "data", time.monotonic()
    data.mkdir()
    with ServerProcess(data, "--serve", ANY) as server:
        served = re.search(r"tcp://\S+(?=/NAME)", server.next_line())[0]
        locations = [str(data / "long.h5")] * 2 + [f"{served}/long"]
        processes = readers(locations, specimen, tmp_path)
        try:
            with Scanner(server.address) as scanner:
                scanner.start("long", field_shape=SHAPE, channels=CHANNELS, pixel_size_um=0.5)
                for number, key in enumerate(specimen.keys):
                    if number == len(specimen.keys) // 8:
                        until(lambda: len(list(tmp_path.glob("*.opened"))) == len(processes), ALL_S)
                    scanner.send(specimen.plane(key), key[1], **specimen.where(key))
                location = scanner.finish()
            scanned_s = time.monotonic() - began
            for process in processes:
                process.wait(ALL_S)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        until(lambda: not list(data.glob("*.scan")), LONG_S)
        assert server.end() == 0
    results = [json.loads((tmp_path / f"reader {number}").read_text()) for number in range(len(processes))]
    keep = os.environ.get("RAWMOSAIC_SOAK_KEEP")
    if keep:
        with open(keep, "a", encoding="utf-8") as file:
            file.write(json.dumps({"fields": N_FIELDS, "shape": SHAPE, "scanned_s": scanned_s, "readers": results}) + "\n")
    for result in results:
        assert result["error"] == "", result["error"]
        assert result["read"] >= result["told"] == len(specimen.keys)
        assert result["peak_mb"] - result["own_mb"] <= MOST_MB
    assert verify_slide(location) == []
