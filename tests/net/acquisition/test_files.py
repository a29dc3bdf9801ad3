"""Small files that processes of a scan tell each other things by."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawmosaic.net.acquisition.files import append_json, overwrite_json, read_json, replace_json


def test_what_is_no_text_is_told_all_the_same(tmp_path: Path):
    """As the name of a folder is that another system wrote, in an error about it."""
    path = tmp_path / "writer.json"
    replace_json(path, {"error": "/data/caf\udce9 is full"})
    assert read_json(path) == {"error": "/data/caf? is full"}


def test_a_file_that_is_overwritten_in_place_is_read_whole(tmp_path: Path):
    path = tmp_path / "writer.json"
    replace_json(path, {"error": "a long reason", "written": 7})
    overwrite_json(path, {"written": 8})
    assert read_json(path) == {"written": 8}


@pytest.mark.parametrize("before", [b"", b'{"n": 0}\n', b'{"n": 0}\n{"to', b'{"to'])
def test_what_is_appended_has_a_line_of_its_own(tmp_path: Path, before: bytes):
    path = tmp_path / "lines"
    path.write_bytes(before)
    for number in (1, 2):
        append_json(path, {"n": number})
    assert path.read_bytes().splitlines()[-2:] == [b'{"n": 1}', b'{"n": 2}']
    assert path.read_bytes().startswith(before)
