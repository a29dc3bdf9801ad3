"""`rawmosaic library`, and names of the library as locations of other commands."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sqlalchemy", reason="the library needs SQLAlchemy: pip install 'rawmosaic[library]'")
pytest.importorskip("alembic", reason="the library needs Alembic: pip install 'rawmosaic[library]'")

from rawmosaic.cli import library_command, tables
from rawmosaic.storage import Header, SlideWriter
from rawmosaic.storage.database import Library
from rawmosaic.storage.errors import GraphicsError
from rawmosaic.storage.testing import SyntheticSlide, write_slide


@pytest.fixture(autouse=True)
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library that commands use without being told another."""
    path = tmp_path / "own" / "library.sqlite"
    monkeypatch.setenv("RAWMOSAIC_LIBRARY", str(path))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slides."""
    place = tmp_path / "slides"
    place.mkdir()
    for number, name in enumerate(["brain 17", "liver 3"]):
        write_slide(SyntheticSlide((1, 2), (20, 30), ["DAPI", "GFP"], seed=number, name=name), place / f"{number}.h5")
    return place.resolve()


@pytest.fixture
def filled(rawmosaic, folder: Path) -> Path:
    """Their folder, after it was scanned."""
    assert rawmosaic("library", "scan", folder, "--no-thumbnails").code == 0
    return folder


def test_a_scan_says_what_is_new_moved_and_missing(rawmosaic, filled: Path):
    (filled / "0.h5").rename(filled / "moved.h5")
    (filled / "1.h5").unlink()
    outcome = rawmosaic("library", "scan", filled)
    assert outcome.code == 0
    assert f"moved:       brain 17  {filled / 'moved.h5'} (was {filled / '0.h5'})" in outcome.out.splitlines()
    assert f"missing:     liver 3  {filled / '1.h5'}" in outcome.out.splitlines()
    assert outcome.out.splitlines()[-1] == f"{filled}: 1 with news, 0 unchanged, 1 missing"


def test_what_cannot_be_read_is_told(rawmosaic, folder: Path):
    (folder / "0.h5").write_bytes((folder / "0.h5").read_bytes()[:3000])
    outcome = rawmosaic("library", "scan", folder, "--no-thumbnails")
    assert outcome.code == 0
    assert f"{folder / '0.h5'}: cannot be read" in outcome.err
    assert "1 with news" in outcome.out


def test_lists_are_lines_for_programs(rawmosaic, filled: Path):
    lines = [line.split("\t") for line in rawmosaic("library", "list").out.splitlines()]
    assert lines[0][:3] == ["identity", "name", "state"]
    assert sorted(line[1] for line in lines[1:]) == ["brain 17", "liver 3"]
    assert {line[-1] for line in lines[1:]} == {str(filled / "0.h5"), str(filled / "1.h5")}


def test_tables_are_drawn_for_people(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    tables.echo_table(("name", "size"), [("[red]brain", "1.0 GB")], right=("size",))
    assert "[red]brain" in terminal.getvalue()
    assert "1.0 GB" in terminal.getvalue()


@pytest.mark.usefixtures("filled")
def test_a_search_takes_words_and_filters(rawmosaic):
    found = rawmosaic("library", "search", "brain", "channel:dapi", "--json")
    assert [slide["name"] for slide in json.loads(found.out)] == ["brain 17"]
    nothing = rawmosaic("library", "search", "kidney")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no slide found\n")
    assert rawmosaic("library", "search", "stain:x").complains_once_about("channel:", "stain")
    limited = rawmosaic("library", "search", "state:complete", "--limit", "1")
    assert "1 of 2 slides" in limited.err


def test_a_slide_is_shown_with_its_copies(rawmosaic, filled: Path):
    shutil.copy(filled / "0.h5", filled / "copy.h5")
    rawmosaic("library", "scan", filled, "--no-thumbnails")
    rawmosaic("library", "tag", "brain 17", "publish")
    rawmosaic("library", "note", "brain 17", "cracked")
    out = rawmosaic("library", "show", "brain 17").out
    for text in ("brain 17", "complete", "10x/0.3", "DAPI", "publish", "cracked", str(filled / "0.h5"), str(filled / "copy.h5")):
        assert text in out
    facts = json.loads(rawmosaic("library", "show", "brain 17", "--json").out)
    assert (facts["n_fields"], len(facts["copies"]), facts["extra"]) == (2, 2, {"seed": 0})
    rawmosaic("library", "tag", "brain 17", "publish", "--remove")
    assert "publish" not in rawmosaic("library", "show", "brain 17").out


def test_the_slide_of_a_scan_is_shown_with_what_became_of_it(rawmosaic, tmp_path: Path):
    long = {"positions.csv": "x" * 100_000}
    header = Header("scan 3", "2026-11-03T10:00:00", extra=long)
    writer = SlideWriter(tmp_path / "scan.h5", field_shape=(20, 30), channels=["DAPI"], scan_uid="scan-7", header=header)
    writer.write_plane(np.zeros((20, 30), np.uint16), 0, row=0, column=0)
    writer.close(ended_early="the lamp broke")
    rawmosaic("library", "scan", tmp_path, "--no-thumbnails")
    out = rawmosaic("library", "show", "scan-7").out
    for words in ("acquisition scan-7", "acquired at 2026-11-03T10:00:00", "planned no", "ended early the lamp broke"):
        assert words in " ".join(out.split())


def test_verify_proves_copies_and_tells_damage_by_its_exit_code(rawmosaic, filled: Path):
    outcome = rawmosaic("library", "verify", "brain 17")
    assert (outcome.code, outcome.out) == (0, f"{filled / '0.h5'}: sound\n")
    (filled / "0.h5").unlink()
    outcome = rawmosaic("library", "verify")
    assert outcome.code == 1
    assert sorted(outcome.out.splitlines()) == [f"{filled / '0.h5'}: missing", f"{filled / '1.h5'}: sound"]
    assert "verified" in rawmosaic("library", "list").out


def test_what_is_forgotten_keeps_its_files(rawmosaic, filled: Path):
    assert rawmosaic("library", "forget", "brain 17").code == 0
    assert (filled / "0.h5").exists()
    assert rawmosaic("library", "show", "brain 17").complains_once_about("no slide", "brain 17")


def test_a_name_in_the_library_is_a_location(rawmosaic, filled: Path, tmp_path: Path):
    facts = json.loads(rawmosaic("info", "library:liver 3", "--json").out)
    assert facts["location"] == str(filled / "1.h5")
    outcome = rawmosaic("render", "library:liver 3", "-o", tmp_path / "picture.png", "--size", "64x48")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "picture.png").stat().st_size > 100
    assert rawmosaic("info", "library:kidney").complains_once_about("no slide", "kidney")
    assert rawmosaic("info", "library:").complains_once_about("name a slide")


def test_ambiguous_names_are_one_error_that_lists_them(rawmosaic, filled: Path):
    write_slide(SyntheticSlide((1, 1), (20, 30), 1, seed=9, name="brain 17"), filled / "other.h5")
    rawmosaic("library", "add", filled / "other.h5", "--no-thumbnails")
    outcome = rawmosaic("info", "library:brain 17")
    assert outcome.complains_once_about("2 slides", str(filled / "0.h5"), str(filled / "other.h5"))


def test_options_of_a_raw_acquisition_are_used_whenever_it_is_opened(rawmosaic, acquisition: Path):
    assert rawmosaic("library", "add", acquisition, "--pixel-size-um", "0.25", "--no-thumbnails").code == 0
    assert json.loads(rawmosaic("info", "library:acquisition", "--json").out)["pixel_size_um"] == 0.25


def test_a_thumbnail_is_drawn_and_written(rawmosaic, folder: Path, tmp_path: Path):
    from PIL import Image

    assert rawmosaic("library", "add", folder / "0.h5").err == ""
    assert rawmosaic("library", "show", "brain 17", "--thumbnail", tmp_path / "small.png").code == 0
    with Image.open(tmp_path / "small.png") as picture:
        assert max(picture.size) == 256
        assert picture.getextrema() != ((0, 0), (0, 0), (0, 0))


def test_without_opengl_slides_are_taken_in_all_the_same(
    rawmosaic, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: object) -> bytes:
        raise GraphicsError("no OpenGL 3.3")

    monkeypatch.setattr("rawmosaic.cli.thumbnails._drawn", fail)
    outcome = rawmosaic("library", "scan", folder)
    assert outcome.code == 0
    assert outcome.err.count("no OpenGL 3.3") == 1
    assert "2 with news" in outcome.out
    missing = rawmosaic("library", "show", "brain 17", "--thumbnail", tmp_path / "small.png")
    assert missing.code == 2
    assert "no small picture" in missing.err


def test_another_library_may_be_named(rawmosaic, folder: Path, tmp_path: Path, own_library: Path):
    other = tmp_path / "other.sqlite"
    assert rawmosaic("library", "add", folder / "0.h5", "--no-thumbnails", "--library", other).code == 0
    assert not own_library.exists()
    with Library(other) as library:
        assert library.count() == 1
    assert rawmosaic("library", "list").complains_once_about("no library yet", "scan")
    assert rawmosaic("library", "list", "--library", "mysql://here").complains_once_about("postgresql://")


def test_ctrl_c_stops_a_scan_and_keeps_what_was_found(rawmosaic, folder: Path, monkeypatch: pytest.MonkeyPatch):
    from contextlib import contextmanager

    @contextmanager
    def interrupting_bar(_: str):
        def interrupt(done: int, _: int) -> None:
            if done == 1:
                raise KeyboardInterrupt

        yield interrupt

    monkeypatch.setattr("rawmosaic.cli.progress.progress_bar", interrupting_bar)
    outcome = rawmosaic("library", "scan", folder, "--no-thumbnails")
    assert (outcome.code, outcome.err.strip()) == (130, "rawmosaic: interrupted")
    assert [line.split("\t")[1] for line in rawmosaic("library", "list").out.splitlines()[1:]] == ["brain 17"]


def test_missing_packages_are_named_with_what_to_install(rawmosaic, monkeypatch: pytest.MonkeyPatch):
    from importlib import util

    find_spec = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == "alembic" else find_spec(name, *more))
    assert rawmosaic("library", "list").complains_once_about("alembic", "rawmosaic[library]")


def test_every_command_says_what_it_does(rawmosaic):
    for name in library_command.command.commands:
        outcome = rawmosaic("library", name, "--help")
        assert outcome.code == 0
        assert len(outcome.out.splitlines()) > 4


@pytest.mark.parametrize(
    ("nbytes", "text"), [(None, ""), (0, "0 B"), (999, "999 B"), (1303584, "1.3 MB"), (4.8e9, "4.8 GB"), (2.5e15, "2500.0 TB")]
)
def test_sizes_are_told_in_decimal_units(nbytes: int | None, text: str):
    assert tables.bytes_text(nbytes) == text
