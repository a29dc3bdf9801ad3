"""Who follows a slide whose writer is killed finds it again, whatever the writer was about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scans import until
from writing import Scan, Writer

from rawmosaic.net.acquisition.writer import COMPLETE
from rawmosaic.storage import open_slide
from rawmosaic.storage.slide import Slide


@pytest.fixture
def scan(tmp_path: Path) -> Iterator[Scan]:
    scan = Scan(tmp_path)
    yield scan
    scan.close()


@pytest.mark.parametrize("step", ["written", "before noting", "noted", "carried over", "sealed"])
def test_who_gave_up_a_slide_whose_writer_was_killed_learns_that_it_was_finished(scan, step):
    """The next writer may finish the very file that the last one left: there is no other that the follower could find."""
    scan.put_fields(range(10))
    writer = Writer(scan, kill_at=step)
    try:
        until(lambda: scan.said().get("written") == len(scan.truth))
        with open_slide(scan.location) as follower:
            scan.put_fields(range(10, 20))
            scan.finish()
            writer.wait()
            for _ in range(3):
                follower.refresh()
            assert Writer(scan).wait() == COMPLETE
            assert follower.replaced or not len(set(scan.truth) - shown(follower))
            with open_slide(scan.location) as slide:
                assert shown(slide) == set(scan.truth)
                assert not slide.replaced
    finally:
        writer.kill()


def shown(slide: Slide) -> set[tuple[int, int, int, int]]:
    """The planes of a slide."""
    return {(field, channel, 0, 0) for field, channel in np.argwhere(slide.acquired()).tolist()}
