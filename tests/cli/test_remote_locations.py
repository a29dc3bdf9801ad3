"""The commands take the address of a slide on a server like the path of a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.disk_cache import cache_folder
from rawmosaic.storage import open_slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_slide(SyntheticSlide((2, 3), (80, 96), 2, sparse=0.2, seed=1, name="cells"), tmp_path / "cells.h5")


@pytest.fixture
def location(path: Path) -> Iterator[str]:
    with open_slide(path) as slide, TileDealer({"my cells": slide}, "tcp://127.0.0.1:*") as dealer:
        yield f"{dealer.address}/my%20cells"


def test_info_says_the_same_of_both(rawmosaic: Callable, path: Path, location: str):
    facts = {}
    for place in (path, location):
        done = rawmosaic("info", place, "--json")
        assert done.code == 0, done.err
        facts[place] = json.loads(done.out)
        assert facts[place].pop("location") == str(place)
    assert facts[path] == facts[location]


def test_info_without_a_name_takes_the_only_slide(rawmosaic: Callable, location: str):
    done = rawmosaic("info", location.rpartition("/")[0])
    assert done.code == 0
    assert "cells" in done.out


def test_render_draws_the_same_and_keeps_the_tiles(rawmosaic: Callable, path: Path, location: str, tmp_path: Path):
    pictures = []
    for number, place in enumerate((path, location, location)):
        picture = tmp_path / f"{number}.png"
        done = rawmosaic("render", place, "-o", picture, "--size", "160x120")
        assert done.code == 0, done.err
        pictures.append(np.asarray(Image.open(picture)))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert any(cache_folder().iterdir())


def test_import_copies_bit_for_bit_and_keeps_nothing_else(rawmosaic: Callable, path: Path, location: str, tmp_path: Path):
    copy = tmp_path / "copy.h5"
    done = rawmosaic("import", location, "-o", copy)
    assert done.code == 0, done.err
    assert rawmosaic("verify", copy).code == 0
    with open_slide(path) as one, open_slide(copy) as other:
        np.testing.assert_array_equal(one.acquired(), other.acquired())
        for field, channel in np.argwhere(one.acquired()):
            np.testing.assert_array_equal(one.read_plane(field, channel), other.read_plane(field, channel))
    assert not cache_folder().exists()


def test_verify_says_where_to_verify(rawmosaic: Callable, location: str):
    done = rawmosaic("verify", location)
    assert done.complains_once_about(location, "where it lies")


def test_options_of_raw_acquisitions_are_refused(rawmosaic: Callable, location: str):
    done = rawmosaic("info", location, "--pixel-size-um", "2")
    assert done.complains_once_about(location, "leave out", "pixel_size_um")
