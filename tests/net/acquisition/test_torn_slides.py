"""A slide that a power failure tore holds up nobody: it is told, the others are served, and it is tried again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from scans import until

from rawmosaic.net.acquisition import catalogue as catalogue_module
from rawmosaic.net.acquisition.catalogue import Catalogue
from rawmosaic.storage import SlideWriter, open_slide
from rawmosaic.storage.hdf5.left_behind import part_of

SHAPE = (24, 32)


def unfinished(path: Path) -> Path:
    """A slide that its writer left as it was; where it grows."""
    writer = SlideWriter(path, field_shape=SHAPE, channels=["a"])
    writer.write_plane(np.ones(SHAPE, np.uint16), 0, x_um=0, y_um=0)
    writer.publish()
    writer.leave()
    return part_of(path)


def flip_root(part: Path) -> None:
    """Damage the header of the file's root group; done twice, it is whole."""
    with open(part, "rb+") as file:
        head = file.read(4096)
        at = head.index(b"OHDR") + 30
        file.seek(at)
        file.write(bytes([head[at] ^ 0x10]))


def test_torn_slide_is_told_once_while_others_are_served_and_served_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(catalogue_module, "LOOK_S", 0.02)
    monkeypatch.setattr(catalogue_module, "JUST_BEGUN_S", 0.0)
    monkeypatch.setattr(catalogue_module, "UNREADABLE_LOOK_S", 0.02)
    tried = []

    def trying(path: Path):
        tried.append(path.name)
        return open_slide(path)

    monkeypatch.setattr(catalogue_module, "open_slide", trying)
    torn = unfinished(tmp_path / "a.h5")
    flip_root(torn)
    unfinished(tmp_path / "b.h5")
    with caplog.at_level(logging.WARNING), Catalogue(tmp_path, "tcp://127.0.0.1:*") as catalogue:
        until(lambda: catalogue.names == ("b",) and tried.count("a.h5") > 2)
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 1
        assert "a is not served for now" in told[0]
        assert "a.h5.part" in told[0]
        flip_root(torn)
        until(lambda: set(catalogue.names) == {"a", "b"})
