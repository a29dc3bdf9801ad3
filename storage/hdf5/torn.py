"""A slide that a power failure tore while it was written: its tables cannot be read, but most of its tiles can.

Tables are written again and again in their places; a tile of the full resolution lies where it was written first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from rawmosaic.storage.hdf5.facts import read_facts
from rawmosaic.storage.hdf5.opened import OpenedFile
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.slide import PositionSet


class TornSlide(Hdf5Slide):
    """The planes of such a file by what somebody else knows of its `fields`, a FIELD_DTYPE table: slots and shapes count.

    Every plane seems to be there, and none is proven: compare what is read with a checksum. Raises SlideError where even the
    file's facts cannot be read.
    """

    def __init__(self, path: str | os.PathLike, fields: np.ndarray):
        self._known_fields = fields
        super().__init__(path)

    def _first_look(self, opened: OpenedFile) -> tuple[dict, np.ndarray | None, np.ndarray, Mapping[str, PositionSet]]:
        facts, fields = read_facts(opened.root, self.location), self._known_fields
        there = np.ones((len(fields), len(facts["channels"]), facts["size_z"], facts["size_t"]), bool)
        return facts, there, fields, {"stage": PositionSet(np.stack([fields["x_um"], fields["y_um"]], axis=-1))}
