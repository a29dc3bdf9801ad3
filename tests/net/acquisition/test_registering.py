"""A slide database hears of every scan, in order, whenever it can be told; no scan waits for it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from scans import until
from sending import begin, microscope, send_all
from server_process import LONG_S, ServerProcess

from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.registering import Registrar
from rawmosaic.storage.errors import LibraryError, UnreachableError

QUICK_S = 0.001
AWAY = UnreachableError("the library's server does not let us in")


class Library:
    """Notes what it is told, after it has raised what it was given to raise."""

    def __init__(self, *faults: Exception, away: bool = False):
        self.faults, self.away = list(faults), away
        self.told: list[tuple] = []
        self.refused = threading.Event()

    def _take(self, *news: object) -> None:
        if self.away or self.faults:
            self.refused.set()
            raise AWAY if self.away else self.faults.pop(0)
        self.told.append(news)

    def acquiring(self, name, uid, location, facts):
        self._take("acquiring", name, uid, location, facts)

    def complete(self, uid, location):
        self._take("complete", uid, location)

    def failed(self, uid, error):
        self._take("failed", uid, error)


BEGINS = ("acquiring", "a", "u1", "/x/a.h5", {"channels": ["DAPI"], "fields": None, "pixel_size_um": 0.5})
ENDS = ("complete", "u1", "/x/a.h5")


def told(library: Library, outbox: Path, n_news: int) -> None:
    until(lambda: len(library.told) == n_news and not outbox.exists())


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "library.news"


def test_a_library_that_was_away_hears_all_of_it_once_and_in_order(outbox):
    library = Library(AWAY, OSError("disk full"), LibraryError("another program has kept the library to itself"))
    registrar = Registrar(library, outbox, QUICK_S)
    registrar.tell(*BEGINS)
    registrar.tell(*ENDS)
    told(library, outbox, 2)
    registrar.close()
    assert library.told == [BEGINS, ENDS]


def test_what_a_library_did_not_hear_the_next_manager_tells_it_and_first(outbox):
    library = Library(away=True)
    first = Registrar(library, outbox)
    first.tell(*BEGINS)
    first.tell(*ENDS)
    assert library.refused.wait(LONG_S)
    first.close()
    with outbox.open("a") as file:
        file.write('{"what": "torn')
    library.away = False
    second = Registrar(library, outbox)
    second.tell("failed", "u2", "it burned")
    told(library, outbox, 3)
    second.close()
    assert library.told == [BEGINS, ENDS, ("failed", "u2", "it burned")]


def test_news_that_no_library_takes_does_not_keep_the_others_waiting(outbox):
    library = Library(RuntimeError("a fault of ours"))
    registrar = Registrar(library, outbox, QUICK_S)
    registrar.tell(*BEGINS)
    registrar.tell(*ENDS)
    told(library, outbox, 1)
    registrar.close()
    assert library.told == [ENDS]


def test_news_that_cannot_be_kept_is_told_all_the_same(tmp_path):
    library = Library()
    registrar = Registrar(library, tmp_path / "nowhere" / "library.news")
    registrar.tell(*ENDS)
    until(lambda: library.told == [ENDS])
    registrar.close()


def test_without_a_library_nothing_is_kept(outbox):
    registrar = Registrar(None, outbox)
    registrar.tell(*ENDS)
    registrar.close()
    assert not outbox.exists()


def test_a_scan_that_ended_while_the_library_was_away_is_in_it_after_a_restart(tmp_path):
    database = pytest.importorskip("rawmosaic.storage.database", reason="the library needs SQLAlchemy")
    data, place = tmp_path / "data", tmp_path / "library"
    data.mkdir()
    place.write_text("no folder")
    camera = microscope(1)
    with ServerProcess(data, "--library", place / "library.sqlite") as server:
        with Scanner(server.address) as scanner:
            begin(scanner, "a", camera, fields=None)
            send_all(scanner, camera)
            location, uid = scanner.finish(), scanner.uid
        until(lambda: "will be" in (data / "server.log").read_text(), LONG_S)
        assert (data / "library.news").exists()
        server.kill()
        place.unlink()
        place.mkdir()
        server.start()
        until(lambda: not (data / "library.news").exists(), LONG_S)
        server.end()
    with database.Library(place / "library.sqlite") as library:
        (slide,) = library.slides()
        assert (slide.name, slide.uid, slide.state, slide.n_planes) == ("a", uid, "complete", 12)
        assert [copy.location for copy in slide.copies] == [location]
        assert json.loads(slide.extra)["acquisition"] == {"uid": uid, "planned": False}
