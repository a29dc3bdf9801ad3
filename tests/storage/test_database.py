"""The library: everything holds on SQLite and on a real PostgreSQL server alike."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("sqlalchemy", reason="the library needs SQLAlchemy: pip install 'rawmosaic[library]'")
pytest.importorskip("alembic", reason="the library needs Alembic: pip install 'rawmosaic[library]'")

import postgresql_server
import sqlalchemy as sa
from postgresql_server import Server

from rawmosaic.storage import SlideWriter, open_slide
from rawmosaic.storage.database import Library, describing, migrating, scanning, store
from rawmosaic.storage.database.connecting import Database
from rawmosaic.storage.database.facts import iso_date
from rawmosaic.storage.database.schema import VERSION, metadata
from rawmosaic.storage.database.searching import joined
from rawmosaic.storage.database.words import words_in
from rawmosaic.storage.errors import (
    FormatVersionError,
    LibraryError,
    NotASlideError,
    OutOfRangeError,
    SlideError,
    UnreachableError,
    WriteError,
)
from rawmosaic.storage.slide import Channel, Header
from rawmosaic.storage.testing import SyntheticSlide, write_slide

PATIENCE_S = 60.0
NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if (reason := postgresql_server.why_not()) is not None:
        pytest.skip(reason)
    with postgresql_server.running_server() as running:
        yield running


@pytest.fixture
def new_database(server: Server) -> Iterator[Callable[[], str]]:
    """Addresses of empty databases on the server."""
    names = []

    def make() -> str:
        names.append(f"library{next(NUMBERS)}")
        server.run(f"CREATE DATABASE {names[-1]}")
        return server.address(names[-1])

    yield make
    for name in names:
        server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a library that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "library" / "library.sqlite")
    return request.getfixturevalue("new_database")()


@pytest.fixture
def library(address: str) -> Iterator[Library]:
    with Library(address) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the slides of a test lie, as the library spells it."""
    place = tmp_path / "slides"
    place.mkdir()
    return place.resolve()


@pytest.fixture(scope="session")
def acquisition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw acquisition of four fields in two colours."""
    folder = tmp_path_factory.mktemp("raw") / "plate"
    folder.mkdir()
    noise = np.random.default_rng(1)
    lines = ["file,channel,x_um,y_um"]
    for field, channel in itertools.product(range(4), ("DAPI", "GFP")):
        write_tiff(folder / f"{field}-{channel}.tif", noise.integers(0, 4096, (30, 40), np.uint16))
        lines.append(f"{field}-{channel}.tif,{channel},{field * 20},0")
    (folder / "positions.csv").write_text("\n".join(lines))
    return folder


def write_tiff(path: Path, image: np.ndarray) -> None:
    """An image of 0.5 µm pixels."""
    tifffile.imwrite(path, image, imagej=True, resolution=(2, 2), metadata={"unit": "um"})


def new_slide(path: Path, name: str = "brain", seed: int = 0, channels: tuple[str, ...] = ("DAPI", "GFP")) -> Path:
    """A small virtual slide; each call makes other content."""
    write_slide(SyntheticSlide((1, 2), (20, 30), channels, seed=seed, name=name), path)
    return path


def news(report: scanning.ScanReport) -> list[tuple[str, str]]:
    """(what, file name) of all that a scan found."""
    return [(noted.news, Path(noted.location).name) for noted in report.noted]


def names(slides: list) -> list[str]:
    return sorted(slide.name for slide in slides)


# what is noted of a slide


def test_a_slide_is_known_with_what_its_header_says(library: Library, folder: Path):
    shapes = [(20, 30), (15, 10)]
    slide = SyntheticSlide((2, 3), (20, 30), ["DAPI", "Cy5 long"], size_z=2, sparse=0.3, shapes=shapes, seed=4, name="Brain 17")
    write_slide(slide, folder / "s.h5")
    noted = library.add(folder / "s.h5")
    assert noted.news == "new"
    known = library.find("Brain 17")
    assert (known.name, known.state, known.n_fields, known.size_z, known.size_t) == ("Brain 17", "complete", 6, 2, 1)
    assert (known.objective, known.assay, known.pixel_size_um) == ("10x/0.3", "synthetic", 0.5)
    assert (known.acquired_at, known.acquired) == ("2012-07-01T12:00:00", "2012-07-01T12:00:00")
    assert [channel.name for channel in known.channels] == ["DAPI", "Cy5 long"]
    area = slide.fields["height"].astype(int) * slide.fields["width"]
    acquired = np.stack([slide.acquired(z) for z in range(2)])
    assert known.n_planes == acquired.sum()
    assert known.n_pixels == (acquired * area[:, None]).sum()
    assert json.loads(known.extra) == {"seed": 4}
    (copy,) = known.copies
    assert (copy.location, copy.kind, copy.state) == (str(folder / "s.h5"), "file", "complete")
    assert (copy.nbytes, copy.mtime_ns) == ((folder / "s.h5").stat().st_size, (folder / "s.h5").stat().st_mtime_ns)


def test_copies_are_one_slide_whatever_they_are_called(library: Library, folder: Path):
    new_slide(folder / "a.h5")
    shutil.copy(folder / "a.h5", folder / "other name.h5")
    new_slide(folder / "b.h5", seed=1)
    assert news(library.scan(folder)) == [("new", "a.h5"), ("new", "b.h5"), ("copied", "other name.h5")]
    first, second = sorted(library.slides(), key=lambda slide: slide.id)
    assert [Path(copy.location).name for copy in first.copies] == ["a.h5", "other name.h5"]
    assert [Path(copy.location).name for copy in second.copies] == ["b.h5"]


def test_a_raw_acquisition_is_known_by_its_content_too(library: Library, acquisition: Path, folder: Path):
    shutil.copytree(acquisition, folder / "one")
    shutil.copytree(acquisition, folder / "deep" / "two")
    report = library.scan(folder)
    assert sorted(news(report)) == [("copied", "one"), ("new", "two")]
    (slide,) = library.slides()
    assert (slide.n_fields, slide.n_planes, len(slide.channels)) == (4, 8, 2)
    assert {copy.kind for copy in slide.copies} == {"folder"}
    files = [path for path in acquisition.rglob("*") if path.is_file()]
    assert slide.copies[0].nbytes == sum(path.stat().st_size for path in files)
    assert slide.copies[0].n_files == len(files)


def test_another_acquisition_of_the_same_shape_is_another_slide(library: Library, acquisition: Path, folder: Path):
    shutil.copytree(acquisition, folder / "one")
    shutil.copytree(acquisition, folder / "two")
    victim = folder / "two" / "2-GFP.tif"
    write_tiff(victim, tifffile.imread(victim)[::-1])
    library.scan(folder)
    assert library.count() == 2


def test_the_name_in_a_server_of_names_is_no_place(library: Library):
    with pytest.raises(NotASlideError, match="name in a library"):
        library.add("library:brain")


def test_a_thumbnail_is_kept_as_it_was_drawn(library: Library, folder: Path):
    noted = library.add(new_slide(folder / "a.h5"), thumbnail=lambda slide: f"png of {slide.header.name}".encode())
    assert library.thumbnail(noted.slide_id) == b"png of brain"
    library.add(folder / "a.h5")
    assert library.thumbnail(noted.slide_id) == b"png of brain"


def test_texts_that_no_database_takes_are_mended(library: Library, folder: Path):
    slide = SyntheticSlide((1, 1), (20, 30), ["DA\0PI"], name="nul\0in it \ud800")
    write_slide(slide, folder / "a.h5")
    library.scan(folder)
    (known,) = library.slides()
    assert "\0" not in known.name
    assert known.channels[0].name == "DAPI"


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2026-11-03T12:00:05", "2026-11-03T12:00:05"),
        ("2026-11-03T12:00:05.123+01:00", "2026-11-03T12:00:05"),
        ("20140512 10:22:33.123", "2014-05-12T10:22:33"),
        ("2019/01/31 9:05", "2019-01-31T09:05:00"),
        ("2019-01-31", "2019-01-31"),
        ("Tue Jan 5 2021", ""),
        ("2019-13-31", ""),
        ("", ""),
    ],
)
def test_dates_are_understood_as_microscopes_write_them(text: str, date: str):
    assert iso_date(text) == date


# scanning


def test_a_scan_opens_nothing_that_looks_as_it_did(
    library: Library, folder: Path, acquisition: Path, monkeypatch: pytest.MonkeyPatch
):
    new_slide(folder / "a.h5")
    shutil.copytree(acquisition, folder / "raw")
    library.scan(folder)
    monkeypatch.setattr(describing, "open_slide", lambda *_, **__: pytest.fail("was opened"))
    report = library.scan(folder)
    assert (report.noted, report.missing, report.problems, report.unchanged) == ([], [], [], 2)


def test_a_scan_tells_what_moved_and_what_is_missing(library: Library, folder: Path):
    for number in range(3):
        new_slide(folder / f"{number}.h5", f"scan {number}", number)
    library.scan(folder)
    (folder / "new place").mkdir()
    (folder / "1.h5").rename(folder / "new place" / "one.h5")
    (folder / "2.h5").unlink()
    report = library.scan(folder)
    assert [(noted.news, noted.name, noted.before) for noted in report.noted] == [("moved", "scan 1", str(folder / "1.h5"))]
    assert report.missing == [("scan 2", str(folder / "2.h5"))]
    assert report.unchanged == 1
    assert {slide.name: slide.state for slide in library.slides()} == {
        "scan 0": "complete",
        "scan 1": "complete",
        "scan 2": "missing",
    }
    assert [copy.location for copy in library.find("scan 1").copies] == [str(folder / "new place" / "one.h5")]


def test_what_was_missing_is_found_again(library: Library, folder: Path, tmp_path: Path):
    new_slide(folder / "a.h5")
    library.scan(folder)
    shutil.move(folder / "a.h5", tmp_path / "a.h5")
    assert library.scan(folder).missing
    shutil.move(tmp_path / "a.h5", folder / "a.h5")
    assert news(library.scan(folder)) == [("found again", "a.h5")]
    assert library.find("brain").state == "complete"


def test_other_content_under_the_same_name_is_another_slide(library: Library, folder: Path):
    library.add(new_slide(folder / "a.h5", "yesterday"))
    library.tag(library.find("yesterday").id, ["mine"])
    (folder / "a.h5").unlink()
    new_slide(folder / "a.h5", "today", seed=1)
    assert news(library.scan(folder)) == [("replaced", "a.h5")]
    assert (library.find("yesterday").state, library.find("yesterday").tags) == ("missing", ("mine",))
    assert (library.find("today").state, library.find("today").tags) == ("complete", ())


def test_an_acquisition_imported_again_keeps_its_tags(library: Library, folder: Path):
    library.add(new_slide(folder / "a.h5"))
    library.tag(library.find("brain").id, ["mine"])
    (folder / "a.h5").unlink()
    new_slide(folder / "a.h5", channels=("DAPI", "GFP", "Cy5"))
    assert news(library.scan(folder)) == [("changed", "a.h5")]
    slide = library.find("brain")
    assert (slide.tags, len(slide.channels)) == (("mine",), 3)


def test_a_scan_goes_on_where_something_cannot_be_read(library: Library, folder: Path):
    new_slide(folder / "good.h5")
    broken = new_slide(folder / "broken.h5", seed=1)
    broken.write_bytes(broken.read_bytes()[:3000])
    report = library.scan(folder)
    assert news(report) == [("new", "good.h5")]
    assert [Path(location).name for location, _ in report.problems] == ["broken.h5"]


def test_hdf5_of_another_program_is_no_problem(library: Library, folder: Path):
    import h5py

    with h5py.File(folder / "results.h5", "w") as file:
        file["x"] = 1
    report = library.scan(folder)
    assert (report.noted, report.problems) == ([], [])


def test_a_slide_that_breaks_is_known_as_damaged(library: Library, folder: Path):
    path = new_slide(folder / "a.h5")
    library.scan(folder)
    path.write_bytes(path.read_bytes()[:3000])
    assert library.scan(folder).problems
    assert library.find("brain").state == "damaged"


def test_an_interrupted_scan_keeps_what_it_found(library: Library, folder: Path):
    for number in range(3):
        new_slide(folder / f"{number}.h5", f"scan {number}", number)

    def interrupt(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.scan(folder, progress=interrupt)
    assert names(library.slides()) == ["scan 0", "scan 1"]
    assert news(library.scan(folder)) == [("new", "2.h5")]


def test_a_running_acquisition_becomes_a_complete_slide(library: Library, folder: Path):
    path = folder / "run.h5"
    plane = np.full((20, 30), 7, np.uint16)
    with SlideWriter(path, field_shape=(20, 30), channels=["DAPI"], header=Header("run", pixel_size_um=0.5)) as writer:
        writer.write_plane(plane, channel=0, row=0, column=0, x_um=0, y_um=0)
        library.scan(folder)
        running = library.find("run")
        assert (running.state, running.identity) == ("acquiring", None)
        assert running.copies[0].location == str(path)
    library.scan(folder)
    (slide,) = library.slides()
    assert (slide.id, slide.state, slide.n_planes) == (running.id, "complete", 1)
    assert slide.identity


def test_a_writer_that_was_killed_leaves_no_running_acquisition(library: Library, folder: Path):
    script = (
        "import os, sys, numpy as np\n"
        "from rawmosaic.storage import SlideWriter\n"
        "writer = SlideWriter(sys.argv[1], field_shape=(20, 30), channels=['DAPI'], pixel_size_um=0.5)\n"
        "writer.write_plane(np.ones((20, 30), np.uint16), channel=0, row=0, column=0, x_um=0, y_um=0)\n"
        "os._exit(3)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(folder / "run.h5")], timeout=PATIENCE_S, check=False)
    assert ended.returncode == 3
    library.scan(folder)
    assert {slide.state for slide in library.slides()} <= {"damaged"}


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_links_do_not_lead_a_scan_in_circles(library: Library, folder: Path):
    new_slide(folder / "a.h5")
    (folder / "again").symlink_to(folder)
    (folder / "b.h5").symlink_to(folder / "a.h5")
    library.scan(folder)
    (slide,) = library.slides()
    assert [copy.location for copy in slide.copies] == [str(folder / "a.h5")]


def test_a_folder_that_is_not_there_is_told(library: Library, folder: Path):
    with pytest.raises(NotASlideError, match="no such folder"):
        library.scan(folder / "nowhere")


def test_options_of_a_raw_acquisition_are_kept(library: Library, folder: Path, acquisition: Path):
    shutil.copytree(acquisition, folder / "raw")
    library.add(folder / "raw", {"pixel_size_um": 0.123})
    (folder / "raw" / "remark.txt").write_text("looks other now")
    assert news(library.scan(folder)) == [("changed", "raw")]
    assert library.find("raw").pixel_size_um == pytest.approx(0.123)
    with library.open_slide("raw", in_place_cache=False) as slide:
        assert slide.header.pixel_size_um == pytest.approx(0.123)


# searching


@pytest.fixture
def shelf(library: Library, folder: Path) -> Library:
    """A library of four slides."""
    for number, (name, channels, acquired_at) in enumerate(
        [
            ("Brain section_7", ("DAPI", "Cy5 long"), "2026-11-03T10:00:00"),
            ("brainstem", ("DAPI",), "2026-11-30T23:59:59"),
            ("Leber größe", ("GFP", "Hoechst 33342"), "2025-01-02"),
            ("100%_liver", ("mCherry",), ""),
        ]
    ):
        slide = SyntheticSlide((1, 1), (20, 30), channels, seed=number, name=name)
        slide.header = Header(name, acquired_at, 0.5, "20x/0.8" if number % 2 else "40x/1.3 oil", "smFISH" if number else "IHC")
        write_slide(slide, folder / f"{number}.h5")
        library.add(folder / f"{number}.h5")
    return library


QUERIES = [
    ("brain", ["Brain section_7", "brainstem"]),
    ("BRAIN dapi", ["Brain section_7", "brainstem"]),
    ("section", ["Brain section_7"]),
    ("stem", []),
    ("*stem", ["brainstem"]),
    ("*rainst*", ["brainstem"]),
    ("name:7", ["Brain section_7"]),
    ("GRÖSSE", ["Leber größe"]),
    ("channel:cy5", ["Brain section_7"]),
    ('channel:"cy5 long"', ["Brain section_7"]),
    ("channel:brain", []),
    ("name:dapi", []),
    ("name:brain", ["Brain section_7", "brainstem"]),
    ("objective:20x/0.8", ["brainstem", "100%_liver"]),
    ("assay:ihc", ["Brain section_7"]),
    ("path:slides", ["Brain section_7", "brainstem", "Leber größe", "100%_liver"]),
    ("path:2.h5", ["Leber größe"]),
    ("acquired:2026-11", ["Brain section_7", "brainstem"]),
    ("acquired:2026-11-03", ["Brain section_7"]),
    ("acquired:2025..2026-11-03", ["Brain section_7", "Leber größe"]),
    ("acquired:2026-11-04..", ["brainstem"]),
    ("acquired:..2025", ["Leber größe"]),
    ("acquired:2026-12", []),
    ("state:complete brain", ["Brain section_7", "brainstem"]),
    ("state:missing", []),
    ("33342", ["Leber größe"]),
    ("name:100%", ["100%_liver"]),
    ("nothing brain", []),
    ("name:it's \\", []),
]


def test_a_search_finds_what_it_should(shelf: Library):
    for query, found in QUERIES:
        assert names(shelf.search(query)) == sorted(found), query
        assert shelf.count_found(query) == len(found), query


def test_the_latest_comes_first_and_so_many_as_were_asked_for(shelf: Library):
    assert [slide.name for slide in shelf.search("acquired:2020..", limit=2)] == ["brainstem", "Brain section_7"]
    assert [slide.name for slide in shelf.slides(limit=2, offset=1)] == ["Brain section_7", "Leber größe"]


def test_a_filter_that_does_not_exist_is_named_with_those_that_do(shelf: Library):
    for query, told in {
        "microscope:x": "channel:",
        "acquired:yesterday": "2026-11",
        "acquired:2026-11..soon": "2026-11",
        "state:lost": "acquiring",
    }.items():
        with pytest.raises(OutOfRangeError, match=told):
            shelf.search(query)


def test_tags_and_notes_are_found(shelf: Library):
    brain = shelf.find("brainstem")
    shelf.tag(brain.id, ["to publish", "Figure2"])
    shelf.annotate(brain.id, "the coverslip is cracked")
    assert names(shelf.search("tag:publish")) == ["brainstem"]
    assert names(shelf.search("coverslip")) == ["brainstem"]
    assert shelf.find("brainstem").tags == ("Figure2", "to publish")
    shelf.tag(brain.id, ["to publish"], remove=True)
    shelf.annotate(brain.id, "")
    assert shelf.search("tag:publish") == shelf.search("coverslip") == []


def test_a_search_agrees_with_reading_everything(library: Library):
    chosen = random.Random(5)
    parts = ["brain", "brainstem", "bra", "cortex", "cor", "liver", "20x", "s1", "s12"]
    texts = [" ".join(chosen.sample(parts, 3)) for _ in range(60)]
    for number, text in enumerate(texts):
        library.acquiring(text, f"uid{number}", f"/nowhere/{number}.h5")
    for words in [["bra"], ["brains"], ["cor", "s1"], ["s12", "20"], ["brain", "liver"], ["er"]]:
        having = [text for text in texts if all(any(own.startswith(word) for own in text.split()) for word in words)]
        assert names(library.search("name:" + " name:".join(words))) == sorted(having)


def test_quotes_that_the_shell_took_away_are_put_back(shelf: Library):
    assert names(shelf.search(joined(["channel:cy5 long", "brain"]))) == ["Brain section_7"]


def test_words_are_letters_and_digits_without_case():
    assert words_in("/data/Größe_7/10x 0.3,a.h5") == ["data", "grösse", "7", "10x", "0.3,a.h5"]
    assert words_in("ﬁne") == ["fine"]
    assert words_in("%_'\"\\") == []


# names


def test_a_slide_is_meant_by_name_identity_or_place(shelf: Library, folder: Path):
    slide = shelf.find("brainstem")
    assert shelf.find("BrainStem").id == slide.id
    assert shelf.find(slide.identity[:8]).id == slide.id
    assert shelf.find(str(folder / "1.h5")).id == slide.id


def test_a_name_of_several_slides_lists_them(library: Library, folder: Path):
    for number in range(2):
        library.add(new_slide(folder / f"{number}.h5", "brain", number))
    with pytest.raises(LibraryError, match="2 slides are called 'brain'") as caught:
        library.find("brain")
    for slide in library.slides():
        assert slide.short_identity in str(caught.value)
        assert slide.copies[0].location in str(caught.value)
    library.add(new_slide(folder / "2.h5", "Brain", 2))
    assert library.find("Brain").copies[0].location == str(folder / "2.h5")


def test_a_name_of_no_slide_says_what_is_alike(shelf: Library):
    with pytest.raises(LibraryError, match="brainstem"):
        shelf.find("brains")
    with pytest.raises(LibraryError, match="no slide is called"):
        shelf.find("xyz")


def test_what_is_forgotten_is_found_again_by_a_scan(library: Library, folder: Path):
    library.scan(new_slide(folder / "a.h5").parent)
    slide = library.find("brain")
    library.tag(slide.id, ["x"])
    library.forget(slide.id)
    assert library.slides() == library.search("brain") == []
    assert (folder / "a.h5").exists()
    with pytest.raises(LibraryError, match="not in the library any more"):
        library.annotate(slide.id, "too late")
    assert news(library.scan(folder)) == [("new", "a.h5")]


def test_a_name_in_the_library_is_a_location(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAWMOSAIC_LIBRARY", address)
    with Library() as library:
        library.add(new_slide(folder / "a.h5"))
    with open_slide("library:brain") as slide, open_slide(folder / "a.h5") as same:
        assert np.array_equal(slide.read_plane(1, 1), same.read_plane(1, 1))


def test_copies_are_tried_in_turn(library: Library, folder: Path):
    new_slide(folder / "a.h5")
    shutil.copy(folder / "a.h5", folder / "b.h5")
    library.scan(folder)
    (folder / "a.h5").unlink()
    with library.open_slide("brain") as slide:
        assert slide.location == str(folder / "b.h5")
    (folder / "b.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(SlideError, match=r"no copy of the slide can be read") as caught:
        library.open_slide("brain")
    assert str(folder / "a.h5") in str(caught.value)
    assert str(folder / "b.h5") in str(caught.value)


# verifying


def test_a_sound_slide_is_verified_until_it_changes(library: Library, folder: Path):
    path = new_slide(folder / "a.h5")
    library.scan(folder)
    verdict = library.verify(library.find("brain").copies[0])
    assert (verdict.problem, verdict.known) == ("", True)
    assert verdict.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert library.find("brain").state == "verified"
    library.scan(folder)
    assert library.find("brain").state == "verified"
    os.utime(path, ns=(0, 10**18))
    assert news(library.scan(folder)) == [("changed", "a.h5")]
    assert library.find("brain").state == "complete"


def test_damage_is_noted_for_the_copy_that_has_it(library: Library, folder: Path):
    path = new_slide(folder / "a.h5")
    shutil.copy(path, folder / "b.h5")
    library.scan(folder)
    content = bytearray(path.read_bytes())
    stat = path.stat()
    content[_place_of_a_chunk(path)] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    damaged, sound = library.find("brain").copies
    assert library.verify(damaged).problem
    assert not library.verify(sound).problem
    slide = library.find("brain")
    assert [copy.state for copy in slide.copies] == ["damaged", "verified"]
    assert slide.state == "verified"
    with library.open_slide("brain") as opened:
        assert opened.location == str(folder / "b.h5")


def _place_of_a_chunk(path: Path) -> int:
    """Of a byte that belongs to a pixel."""
    import h5py

    with h5py.File(path) as file:
        chunk = file["levels/0"].id.get_chunk_info(0)
    return chunk.byte_offset + chunk.size - 8


def test_a_raw_acquisition_is_compared_with_what_was_read_first(library: Library, acquisition: Path, folder: Path):
    shutil.copytree(acquisition, folder / "raw")
    library.scan(folder)
    first = library.verify(library.find("raw").copies[0])
    assert (first.problem, first.known) == ("", False)
    assert library.verify(library.find("raw").copies[0]).known
    victim = next((folder / "raw").glob("*.tif"))
    content, stat = bytearray(victim.read_bytes()), victim.stat()
    content[-1] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "not those that were noted" in library.verify(library.find("raw").copies[0]).problem
    assert library.find("raw").state == "damaged"


def test_what_is_gone_cannot_be_verified(library: Library, folder: Path):
    path = new_slide(folder / "a.h5")
    library.scan(folder)
    path.unlink()
    with pytest.raises(NotASlideError, match="no such file"):
        library.verify(library.find("brain").copies[0])


# acquisition servers


def test_a_scan_is_known_from_its_beginning_to_its_end(library: Library, folder: Path):
    facts = {"channels": ["DAPI", "GFP"], "fields": 2, "size_z": 1, "header": Header("run", "2026-11-03T10:00:00", 0.3, "20x")}
    library.acquiring("run 5", "uid-5", folder / "run.h5", facts)
    running = library.find("uid-5")
    assert (running.name, running.state, running.n_fields, running.objective) == ("run 5", "acquiring", 2, "20x")
    assert names(library.search("channel:gfp state:acquiring acquired:2026-11")) == ["run 5"]
    new_slide(folder / "run.h5", "run 5")
    library.complete("uid-5", folder / "run.h5")
    done = library.find("uid-5")
    assert (done.id, done.state, done.n_planes) == (running.id, "complete", 4)
    report = library.scan(folder)
    assert (news(report), report.unchanged) == ([], 1)


def test_a_scan_that_failed_says_why_until_it_is_there_all_the_same(library: Library, folder: Path):
    library.acquiring("run", "uid", folder / "run.h5")
    library.failed("uid", "the disk is full")
    assert (library.find("uid").state, library.find("uid").error) == ("failed", "the disk is full")
    new_slide(folder / "run.h5", "run")
    library.scan(folder)
    assert (library.find("uid").state, library.find("uid").error) == ("complete", "")
    assert library.count() == 1


def test_an_end_without_a_beginning_is_noted(library: Library, folder: Path):
    new_slide(folder / "run.h5", "run")
    library.complete("uid-7", folder / "run.h5")
    library.failed("uid-8", "it burned")
    assert (library.find("uid-7").name, library.find("uid-7").state) == ("run", "complete")
    assert library.find("uid-8").state == "failed"


def test_a_finished_scan_that_was_copied_already_is_one_slide(library: Library, folder: Path):
    library.acquiring("run", "uid", folder / "run.h5")
    new_slide(folder / "copy.h5", "run")
    library.add(folder / "copy.h5")
    shutil.copy(folder / "copy.h5", folder / "run.h5")
    library.complete("uid", folder / "run.h5")
    (slide,) = library.slides()
    assert (slide.uid, slide.state, len(slide.copies)) == ("uid", "complete", 2)


def test_news_may_come_from_many_threads(library: Library):
    def tell(number: int) -> None:
        for each in range(5):
            library.acquiring(f"run {number}-{each}", f"uid {number}-{each}", f"/nowhere/{number}-{each}.h5")

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert library.count() == 20


def test_news_may_be_repeated_and_the_last_is_true(library: Library, folder: Path):
    new_slide(folder / "run.h5", "run")
    for _ in range(2):
        library.acquiring("run", "uid", folder / "run.h5", {"channels": ["DAPI"], "objective": "20x"})
        library.failed("uid", "it burned")
        library.acquiring("run", "uid", folder / "run.h5")
        library.complete("uid", folder / "run.h5")
        (slide,) = library.slides()
        assert (slide.uid, slide.state, slide.error, slide.n_planes, len(slide.copies)) == ("uid", "complete", "", 4, 1)


def test_a_library_that_cannot_be_used_says_so_to_who_brings_news(tmp_path: Path):
    (tmp_path / "library.sqlite").write_bytes(b"no database at all " * 100)
    with Library(tmp_path / "library.sqlite") as library:
        with pytest.raises(SlideError):
            library.acquiring("run", "uid", tmp_path / "run.h5")
        with pytest.raises(SlideError):
            library.complete("uid", tmp_path / "run.h5")
        with pytest.raises(SlideError):
            library.failed("uid", "it burned")


# several programs at once


WRITER = """
import sys
from rawmosaic.storage.database import Library
address, own, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with Library(address) as library:
    for number in range(count):
        library.acquiring(f"{own} {number}", f"{own}-{number}", f"/nowhere/{own}/{number}.h5", {"channels": ["DAPI"]})
    library.acquiring("common", "common", "/nowhere/common.h5")
    for number in range(count):
        library.tag(library.find(f"{own}-{number}").id, [own])
"""


def test_two_writers_lose_nothing(address: str):
    count = 15
    command = [sys.executable, "-W", "error", "-c", WRITER, address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, name, str(count)], **pipes) for name in ("one", "two")]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:  # neither makes the tables before the other is ready to
            writer.stdin.write("\n")
            writer.stdin.flush()
        for writer in writers:
            _, errors = writer.communicate(timeout=PATIENCE_S)
            assert writer.returncode == 0, errors
    finally:
        for writer in writers:
            with suppress(OSError):
                writer.kill()
            writer.wait()
            for pipe in (writer.stdin, writer.stdout, writer.stderr):
                pipe.close()
    with Library(address) as library:
        assert library.count() == 2 * count + 1
        assert library.count_found("tag:one") == library.count_found("tag:two") == count


def test_readers_go_on_while_somebody_writes(library: Library, address: str, folder: Path):
    library.add(new_slide(folder / "a.h5"))
    with closing(Database(address)) as other, other.writing() as connection:
        connection.execute(sa.text("UPDATE slides SET note = 'not yet'"))
        assert library.find("brain").note == ""
    assert library.find("brain").note == "not yet"


def test_what_fails_in_the_middle_leaves_nothing(library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch):
    new_slide(folder / "a.h5")

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(store, "index", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            library.add(folder / "a.h5")
    assert library.count() == 0
    assert library.add(folder / "a.h5").news == "new"


# versions


def first_version(address: str) -> None:
    """A library as version 1 left it, with a slide in it."""
    if "://" not in address:
        Path(address).parent.mkdir(parents=True, exist_ok=True)
    with closing(Database(address)) as database, database.writing() as connection:
        migrating.migrate(connection, "1")
        values = "('abcdef0123', 'Old brain', 'old brain', 'complete', '10x', 'cracked', 'then', 'then')"
        columns = "(identity, name, name_key, state, objective, note, added_at, changed_at)"
        for statement in (
            f"INSERT INTO slides {columns} VALUES {values}",
            "INSERT INTO channels (slide_id, number, name) VALUES (1, 0, 'DAPI'), (1, 1, 'Cy5')",
            "INSERT INTO copies (slide_id, host, location, kind, state, seen_at)"
            " VALUES (1, '', '/data/old/brain.h5', 'file', 'complete', 'then')",
            "INSERT INTO tags (slide_id, tag) VALUES (1, 'mine')",
        ):
            connection.execute(sa.text(statement))


def version_of(address: str) -> str:
    with closing(Database(address)) as database, database.reading() as connection:
        return connection.execute(sa.text(f"SELECT version_num FROM {migrating.VERSION_TABLE}")).scalar()


def test_a_library_of_version_1_is_brought_up_to_date(address: str):
    first_version(address)
    with Library(address) as library:
        for query in ("old", "channel:cy5", "tag:mine", "cracked", "path:data", "10x"):
            assert names(library.search(query)) == ["Old brain"], query
        assert library.find("abcdef").channels[1].name == "Cy5"
        library.acquiring("new", "uid", "/nowhere/new.h5", {"channels": ["DAPI"]})
        assert names(library.search("channel:dapi")) == ["Old brain", "new"]
    assert version_of(address) == VERSION


def test_an_old_file_is_copied_before_it_is_changed(tmp_path: Path):
    address = str(tmp_path / "library.sqlite")
    first_version(address)
    (tmp_path / "library-version-1.sqlite").write_text("an older backup")
    with Library(address) as library:
        assert library.count() == 1
    assert (tmp_path / "library-version-1.sqlite").read_text() == "an older backup"
    backup = tmp_path / "library-version-1-2.sqlite"
    assert version_of(str(backup)) == "1"
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT name FROM slides").fetchall() == [("Old brain",)]


def test_a_step_that_fails_leaves_the_old_version(address: str, monkeypatch: pytest.MonkeyPatch):
    first_version(address)
    with monkeypatch.context() as patch:
        patch.setattr("rawmosaic.storage.database.words.words_in", lambda _: 1 / 0)
        with Library(address) as library, pytest.raises(ZeroDivisionError):
            library.count()
    assert version_of(address) == "1"
    with Library(address) as library:
        assert names(library.search("old")) == ["Old brain"]


def test_two_programs_bring_it_up_to_date_once(address: str):
    first_version(address)
    together = threading.Barrier(2)
    outcomes: list[object] = []

    def open_it() -> None:
        with Library(address) as library:
            together.wait(PATIENCE_S)
            try:
                outcomes.append(names(library.search("old")))
            except Exception as error:
                outcomes.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert outcomes == [["Old brain"], ["Old brain"]]
    assert len(list(Path(address).parent.glob("*version-1*"))) == (0 if "://" in address else 1)


def test_a_newer_library_is_left_alone(library: Library, address: str):
    assert library.count() == 0
    with closing(Database(address)) as database, database.writing() as connection:
        connection.execute(sa.text(f"UPDATE {migrating.VERSION_TABLE} SET version_num = '999'"))
    with Library(address) as other, pytest.raises(FormatVersionError, match=r"newer rawmosaic .*999.*update rawmosaic"):
        other.count()
    assert version_of(address) == "999"


def test_the_steps_make_the_tables_that_the_program_uses(library: Library, address: str):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    assert library.count() == 0
    with closing(Database(address)) as database, database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrating.VERSION_TABLE})
        assert compare_metadata(context, metadata) == []


# what cannot be used


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path):
    path = tmp_path / "library.sqlite"
    path.write_bytes(b"this was a library once" * 500)
    with Library(path) as library, pytest.raises(LibraryError, match=r"damaged.*backup") as caught:
        library.count()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"this was a library once" * 500


def test_a_file_that_breaks_inside_is_named_too(tmp_path: Path, folder: Path):
    path = tmp_path / "library.sqlite"
    with Library(path) as library:
        library.add(new_slide(folder / "a.h5"))
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with Library(path) as library, pytest.raises(LibraryError, match="damaged"):
        library.search("brain")


def test_the_database_of_another_program_is_left_alone(address: str):
    if "://" not in address:
        Path(address).parent.mkdir()
    with closing(Database(address)) as database, database.writing() as connection:
        connection.execute(sa.text("CREATE TABLE slides (number INTEGER)"))
    with Library(address) as library, pytest.raises(LibraryError, match=r"another program.*slides"):
        library.count()


def test_no_file_is_made_for_who_only_looks(tmp_path: Path):
    with (
        Library(tmp_path / "new" / "library.sqlite", create=False) as library,
        pytest.raises(LibraryError, match="no library yet"),
    ):
        library.slides()
    assert not (tmp_path / "new").exists()


READER = """
import os, sys
from rawmosaic.storage.database import Library
from rawmosaic.storage.errors import WriteError
with Library(sys.argv[1], create=False) as library:
    library.search("brain")  # whatever is to be imported is
if os.geteuid() == 0:  # for root everything is writable
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with Library(sys.argv[1], create=False) as library:
    print([slide.name for slide in library.search("brain")])
    try:
        library.annotate(1, "mine")
    except WriteError as error:
        print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="rights are other things elsewhere")
def test_a_library_that_may_only_be_read_is_read(folder: Path):
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        path = place / "library.sqlite"
        with Library(path) as library:
            library.add(new_slide(folder / "a.h5"))
        before = path.read_bytes()
        path.chmod(0o444)
        place.chmod(0o555)
        try:
            command = [sys.executable, "-c", READER, str(path)]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout.splitlines()[0] == "['brain']"
            assert "can only be read" in ended.stdout.splitlines()[1]
            assert [entry.name for entry in place.iterdir()] == ["library.sqlite"]
            assert path.read_bytes() == before
        finally:
            place.chmod(0o755)


def test_a_server_that_does_not_answer_is_named_without_its_password():
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
    with Library("postgresql://me:secret@127.0.0.1:1/slides") as library, pytest.raises(UnreachableError) as caught:
        library.count()
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wrong_password_is_told(server: Server):
    address = server.address("postgres").replace(server.password, "wrong")
    with Library(address) as library, pytest.raises(UnreachableError, match="password"):
        library.count()


@pytest.mark.parametrize("address", ["mysql://me@host/slides", "sqlite://", "postgresql"])
def test_an_address_of_no_library_is_told(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    if address == "postgresql":
        assert Library(address).host == ""  # a file of that name
        return
    with pytest.raises(LibraryError, match="no address of a library"):
        Library(address)


def test_a_write_that_is_refused_is_a_write_error(tmp_path: Path):
    (tmp_path / "a file").write_text("")
    with Library(tmp_path / "a file" / "library.sqlite") as library, pytest.raises(WriteError, match="folder"):
        library.count()


def test_facts_may_be_channels_of_any_kind():
    from rawmosaic.storage.database.facts import SlideFacts

    told = SlideFacts.told("run", "uid", {"channels": ["DAPI", Channel("GFP", "#00ff00"), {"name": "Cy5", "other": 1}], "x": io})
    assert [channel.name for channel in told.channels] == ["DAPI", "GFP", "Cy5"]
    assert told.channels[1].color == "#00ff00"
