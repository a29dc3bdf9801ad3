"""Whatever fonts a machine has, nothing is written as an empty box."""

from __future__ import annotations

import pytest

from rawmosaic.viewer import lettering
from rawmosaic.viewer.lettering import Letters, letters_for


def test_plain_letters_are_in_pillows_own_font():
    assert Letters(None).spelled("DAPI 405/450 (far-red)") == "DAPI 405/450 (far-red)"


def test_letters_that_a_font_lacks_are_spelled_otherwise():
    letters = Letters(None)
    assert letters.lacks("µ")
    assert letters.spelled("20 µm · 中") == "20 um · ?"


def test_a_font_with_all_letters_is_preferred():
    letters = letters_for(["20 µm", "α-SMA"])
    if letters.path is None:
        pytest.skip("this machine has no font with µ and Greek")
    assert letters.spelled("20 µm α-SMA") == "20 µm α-SMA"


def test_a_machine_without_fonts_writes_with_pillows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lettering, "_font_files", lambda: (None,))
    assert letters_for(["20 µm"]) == Letters(None)
