"""Whatever is killed, at whatever moment: what was acknowledged is in the slide, bit for bit, and nothing stays behind.

The runs and what they assert are in `killing`. RAWMOSAIC_KILLS says how many are chosen by their seeds, RAWMOSAIC_KILLS_FROM
which is the first of these. `tools/kills.py` does the same without pytest.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kill_points import PROXY, SERVE, WRITER
from killing import CUT, EVERYBODY, GARBAGE, HALF, SCANNER, FullDiskRun, Kill, Run, Script, SmallDiskRun
from specimen import INDEXED, PLANNED, POSITIONED

from rawmosaic.cli.main import main

AT_ONCE = 3
"""Most of a run is waiting for processes."""

FIRST, COUNT = (int(os.environ.get(name, otherwise)) for name, otherwise in (("RAWMOSAIC_KILLS_FROM", 0), ("RAWMOSAIC_KILLS", 6)))
PORTIONS = [range(first, min(first + AT_ONCE, FIRST + COUNT)) for first in range(FIRST, FIRST + COUNT, AT_ONCE)]
N_PLACES = 40
SMALL_DISK = "24m"

pytestmark = pytest.mark.timeout(300)


def done(runs: Sequence[Run]) -> None:
    """Do the runs, at once."""
    with ThreadPoolExecutor(len(runs)) as pool:
        results = [pool.submit(run.run) for run in runs]
    for run, result in zip(runs, results, strict=True):
        assert result.result().acknowledged == run.result.planned, f"seed {run.script.seed}"
        assert main(["verify", str(run.location)]) == 0


def scripted(seed: int, *kills: Kill, **options: object) -> Script:
    """What else the seed decides, with these kills."""
    return dataclasses.replace(Script.of(seed, N_PLACES), kills=kills, **options)


@pytest.mark.parametrize("seeds", PORTIONS, ids=lambda seeds: "seeds " + ", ".join(map(str, seeds)))
def test_nothing_is_lost_whatever_a_seed_has_killed(tmp_path, seeds):
    done([Run(Script.of(seed, N_PLACES), tmp_path) for seed in seeds])


def test_nothing_is_lost_by_kills_at_the_steps_of_the_end(tmp_path):
    ends = 2 * N_PLACES
    done(
        [
            Run(
                scripted(
                    1,
                    Kill(30, 0.0, (WRITER,)),
                    Kill(40, 0.0, (WRITER, SERVE), "copying", 7),
                    Kill(ends, 0.0, (WRITER,), "carrying over"),
                    Kill(ends, 0.0, (WRITER, PROXY), "sealed"),
                    Kill(ends, 0.0, (SERVE, WRITER), "before clearing"),
                ),
                tmp_path,
            ),
            Run(
                scripted(
                    2,
                    Kill(25, 0.0, (WRITER,), "forgot kept"),
                    Kill(ends, 0.0, (PROXY,), "before the end"),
                    Kill(ends, 0.0, (WRITER, SCANNER), "before naming"),
                    Kill(ends, 0.0, (SERVE,), "clearing"),
                ),
                tmp_path,
            ),
            Run(
                scripted(
                    3,
                    Kill(20, 0.0, (PROXY, SERVE), "half appended", 3, damage=GARBAGE),
                    Kill(50, 0.0, (PROXY,), "noted released"),
                    Kill(ends, 0.0, (WRITER, *EVERYBODY[:2]), "verified"),
                    Kill(ends, 0.0, (SERVE,), "renamed"),
                ),
                tmp_path,
            ),
        ]
    )


def test_nothing_is_lost_where_the_end_of_the_spool_is_torn(tmp_path):
    runs = []
    for seed, (damage, naming) in enumerate(((GARBAGE, PLANNED), (HALF, INDEXED), (CUT, POSITIONED)), start=10):
        kills = [Kill(after, 0.01, EVERYBODY, damage=damage) for after in (20, 45)]
        script = scripted(seed, *kills, resends="what was not acknowledged", window_nbytes=1 << 20)
        specimen = dataclasses.replace(script.specimen, naming=naming, sorted=False)
        runs.append(Run(dataclasses.replace(script, specimen=specimen), tmp_path))
    done(runs)
    for run in runs:
        assert set(run.result.damages) <= {run.script.kills[0].damage}


DISKS = {"nobody is killed": (), "all are killed": (EVERYBODY[:3],)}


def test_a_disk_that_seems_full_holds_a_scan_that_goes_on(tmp_path):
    scripts = [scripted(seed, *(Kill(0, 0.0, who) for who in victims)) for seed, victims in enumerate(DISKS.values(), start=20)]
    done([FullDiskRun(script, tmp_path) for script in scripts])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "small disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "none", str(place)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk, on Linux")
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this system mounts nothing, not even for root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_holds_a_scan_that_goes_on(tmp_path, small_disk):
    script = scripted(22, Kill(0, 0.0, (WRITER,)), Kill(0, 0.2, EVERYBODY[:3]))
    done([SmallDiskRun(script, tmp_path, data=small_disk / "data")])
