"""A power failure may leave planes in the slide that the spool lost: nobody was told of them, and others may have their place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scans import until
from writing import Scan, Writer, pixels

from rawmosaic.net.acquisition.spool import SpoolWriter, planes_in, segment_path
from rawmosaic.net.acquisition.writer import COMPLETE
from rawmosaic.storage import open_slide


@pytest.fixture
def scan(tmp_path: Path) -> Iterator[Scan]:
    scan = Scan(tmp_path)
    yield scan
    scan.close()


def test_a_plane_that_the_spool_lost_gives_its_place_to_the_one_that_is_acknowledged(scan):
    """Fields are numbered as they come: what comes first after the failure has the number of what was lost."""
    scan.put_fields(range(3))
    lose_all_but(scan, 4)
    scan.spool = SpoolWriter(scan.folder / "spool")
    scan.put(2, 0, image=pixels(70), column=70, x_um=700.0)
    scan.finish()
    assert Writer(scan).wait() == COMPLETE, scan.said()
    with open_slide(scan.location) as slide:
        for key, truth in scan.truth.items():
            np.testing.assert_array_equal(slide.read_plane(*key), truth)
        assert slide.acquired().sum() == len(scan.truth)
        assert (slide.fields["column"][2], slide.fields["x_um"][2]) == (70, 700.0)
    assert not list(scan.location.parent.glob("*.damaged"))


def test_a_plane_that_the_spool_holds_otherwise_is_taken_from_the_spool(scan):
    """What was lost comes again with other pixels: nobody was told that the first were there."""
    scan.put_fields(range(3))
    lose_all_but(scan, 5)
    scan.spool = SpoolWriter(scan.folder / "spool")
    scan.put(2, 1, image=pixels(99, 1))
    scan.finish()
    assert Writer(scan).wait() == COMPLETE, scan.said()
    with open_slide(scan.location) as slide:
        np.testing.assert_array_equal(slide.read_plane(2, 1), pixels(99, 1))
        assert slide.acquired().sum() == len(scan.truth) == 6


def lose_all_but(scan: Scan, n_planes: int) -> None:
    """Have a writer make all planes part of the slide, kill it, and take all but the first `n_planes` out of the spool."""
    writer = Writer(scan)
    until(lambda: scan.said().get("written") == len(scan.truth))
    part = scan.location.with_name("a scan.h5.part")
    until(lambda: shown(part) == len(scan.truth))
    writer.kill()
    scan.close()
    [*found] = planes_in(scan.folder / "spool")
    for facts, _ in found[n_planes:]:
        del scan.truth[facts.key]
    cut = found[n_planes][1]
    os.truncate(segment_path(scan.folder / "spool", cut.segment), cut.offset)


def shown(part: Path) -> int:
    with open_slide(part) as slide:
        return int(slide.acquired().sum())
