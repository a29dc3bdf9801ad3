"""Pages of one TIFF file are read by many threads at once, and each gets its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from rawmosaic.storage.importers.tiff_pages import TiffPages


def test_finding_a_page_does_not_disturb_who_reads_another(tmp_path: Path):
    path, random = tmp_path / "stack.tif", np.random.default_rng(1)
    planes = random.integers(0, 65536, (24, 32, 40)).astype(np.uint16)
    with tifffile.TiffWriter(path) as writer:
        for plane in planes:
            writer.write(plane, contiguous=False)
    for _ in range(20):  # pages are found when they are first asked for, so with each file anew
        pages = TiffPages()
        try:
            with ThreadPoolExecutor(4) as threads:
                order = random.permutation(np.repeat(np.arange(len(planes)), 2)).tolist()
                read = list(threads.map(partial(pages.read, path), order))
        finally:
            pages.close()
        for page, plane in zip(order, read, strict=True):
            np.testing.assert_array_equal(plane, planes[page])
