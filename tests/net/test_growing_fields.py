"""What a server tells of a slide that grows: every field, also one that comes before its first plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from rawmosaic.net.encoded_tiles import EncodedTiles
from rawmosaic.net.protocol import array_from
from rawmosaic.net.served_slide import ServedSlide
from rawmosaic.storage.slide import FIELD_DTYPE, new_fields


class Growing:
    """Stands for a slide: at each look it has as many fields, and as many planes more, as was said."""

    location, growing, overview, identity = "", True, None, "i"

    def __init__(self, *looks: tuple[int, int]):
        self._looks, self.fields = list(looks), new_fields(0, (24, 32))

    def positions(self) -> np.ndarray:
        return np.stack([self.fields["x_um"], self.fields["y_um"]], -1)

    def refresh(self) -> np.ndarray:
        n_fields, n_planes = self._looks.pop(0)
        self.fields = new_fields(n_fields, (24, 32))
        self.fields["x_um"], self.fields["z_um"] = np.arange(n_fields), np.nan
        return np.zeros((n_planes, 4), np.int32)


def told(served: ServedSlide) -> tuple[int, int, int] | None:
    """(first field, fields, planes) of the next event; None where nothing is told."""
    if (answer := served.grow()) is None:
        return None
    body, buffers = answer
    fields = array_from(body["fields"], buffers, FIELD_DTYPE, (None,))
    return body["first_field"], len(fields), len(array_from(body["planes"], buffers, "<i4", (None, 4)))


def served(slide: Any) -> ServedSlide:
    return ServedSlide("a", slide, EncodedTiles(1 << 20))


def test_fields_that_come_before_their_planes_are_told():
    slide = served(Growing((4, 8), (7, 0), (7, 0), (9, 5)))
    assert told(slide) == (0, 4, 8)
    assert told(slide) == (4, 3, 0), "whoever watches has no gap before what comes next"
    assert told(slide) is None
    assert told(slide) == (7, 2, 5)
    slide.close()
