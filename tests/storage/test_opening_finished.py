"""Opening meets a writer at whatever it does: a slide that is finished this very moment is waited for."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5 import reader
from rawmosaic.storage.hdf5.opened import OpenedFile
from rawmosaic.storage.hdf5.writer import SlideWriter


def test_a_slide_that_is_just_being_finished_is_waited_for(tmp_path, monkeypatch):
    path, plane = tmp_path / "a.h5", np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)
    refresh, looks = OpenedFile.refresh, [None, None]
    monkeypatch.setattr(OpenedFile, "refresh", lambda self: looks.pop() if looks else refresh(self))
    with SlideWriter(path, field_shape=(24, 32), channels=["DAPI"]) as writer:
        writer.write_plane(plane, 0, row=0, column=0)
        writer.sync()
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read_plane(0, 0), plane)
    assert not looks


def test_a_slide_that_never_comes_to_its_end_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    monkeypatch.setattr(reader, "_FINISHING_S", 0.001)
    monkeypatch.setattr(OpenedFile, "refresh", lambda _: None)
    with SlideWriter(path, field_shape=(24, 32), channels=["DAPI"]), pytest.raises(SlideError, match="try again"):
        open_slide(path)
