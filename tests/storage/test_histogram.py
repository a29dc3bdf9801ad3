"""Grey levels are counted exactly, whichever way is quicker on this machine."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.storage import histogram
from rawmosaic.storage.histogram import grey_level_counts

RANDOM = np.random.default_rng(0)
PLANES = {
    "twelve bits": RANDOM.integers(0, 4096, (130, 271)),
    "sixteen bits": RANDOM.integers(0, 65536, (130, 271)),
    "all levels": np.arange(65536).reshape(256, 256),
    "one level": np.full((40, 50), 4711),
    "zeros": np.zeros((3, 3)),
    "full scale": np.full((3, 3), 65535),
    "extremes": np.array([[0, 65535]]),
    "one pixel": np.array([[65535]]),
    "eight thousand levels": RANDOM.permutation(8192)[None],
    "and one more": RANDOM.permutation(8193)[None] + 57342,
    "nothing": np.zeros((0, 5)),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("sorting", [False, True])
@pytest.mark.parametrize("name", PLANES)
def test_every_pixel_is_counted_once(name: str, sorting: bool, overwrite: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(histogram, "_sorts_quickly", lambda: sorting)
    plane = PLANES[name].astype(np.uint16)
    expected = np.bincount(plane.ravel(), minlength=65536)
    counts = grey_level_counts(plane.copy() if overwrite else plane, overwrite)
    assert (counts.dtype, counts.shape) == (np.uint32, (65536,))
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("sorting", [False, True])
def test_plane_is_not_changed_unless_it_may_be(sorting: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(histogram, "_sorts_quickly", lambda: sorting)
    whole = PLANES["sixteen bits"].astype(np.uint16)
    before = whole.copy()
    grey_level_counts(whole)
    np.testing.assert_array_equal(grey_level_counts(whole[::2, 3:]), np.bincount(whole[::2, 3:].ravel(), minlength=65536))
    np.testing.assert_array_equal(whole, before)
