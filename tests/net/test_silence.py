"""A server that does not answer is told from one that has nothing to say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bare_client import until
from scripted_server import Answer, ScriptedServer

from rawmosaic.net.facts import facts_message
from rawmosaic.net.protocol import Arrays, Request, unpack_keys
from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.net.wire import Line
from rawmosaic.storage.errors import UnreachableError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.testing import SyntheticSlide

LONG_S = 60.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said sooner than people would like to read it."""
    monkeypatch.setattr("rawmosaic.net.remote_slide.AWAY_S", 0.2)
    monkeypatch.setattr("rawmosaic.net.connection.DUE_S", 0.2)


class Dozing:
    """Serves a slide named ``s``; while it dozes, tiles and words about what grows wait until it wakes."""

    def __init__(self, growing: bool = False):
        self.slide, self.growing = SyntheticSlide((1, 2), (40, 56), 1), growing
        self.dozes = threading.Event()
        self._waiting: list[Callable[[], None]] = []
        self._watched: Callable[[], None] = lambda: None

    def __call__(self, request: Request, answer: Answer) -> None:
        self._say_what_waits()
        arrays, identity = Arrays(), self.slide.identity
        if request.op == "open":
            body, buffers = facts_message(self.slide)
            answer({**body, "growing": self.growing}, buffers)
        elif request.op == "acquired":
            table = arrays.add(np.packbits(self.slide.acquired()))
            answer({"identity": identity, "acquired": table}, arrays.buffers)
        elif request.op == "watch":
            self._say(lambda: answer({"event": "alive", "identity": identity}, status="more"))
        elif request.op == "tiles":
            tiles = [self.slide.read_encoded(key) for key in unpack_keys(request.buffers[0])]
            self._say(lambda: answer({"identity": identity, "errors": {}}, tiles))

    def _say(self, word: Callable[[], None]) -> None:
        if self.dozes.is_set():
            self._waiting.append(word)
        else:
            word()

    def _say_what_waits(self) -> None:
        if not self.dozes.is_set():
            waiting, self._waiting = self._waiting, []
            for word in waiting:
                word()


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def read(slide: RemoteSlide, field: int = 0) -> np.ndarray:
    return slide.read_tile(TileKey(0, field, 0))


def test_a_server_that_keeps_somebody_waiting_is_away_until_it_answers(beside):
    script = Dozing()
    with ScriptedServer(script) as server, RemoteSlide(f"{server.address}/s", disk_cache=None, timeout_s=LONG_S) as slide:
        read(slide)
        assert slide.away == ""
        script.dozes.set()
        reading = beside.submit(read, slide)
        until(lambda: slide.away == server.address, LONG_S)
        script.dozes.clear()
        reading.result(LONG_S)  # it was asked again
        assert slide.away == ""


def test_a_server_that_nobody_asks_is_not_away():
    with ScriptedServer(Dozing()) as server, RemoteSlide(f"{server.address}/s", disk_cache=None) as slide:
        read(slide)
        time.sleep(0.5)
        assert slide.away == ""


def test_a_server_stays_away_between_two_tries(beside):
    script = Dozing()
    with ScriptedServer(script) as server, RemoteSlide(f"{server.address}/s", disk_cache=None, timeout_s=0.5) as slide:
        script.dozes.set()
        for _ in range(2):
            with pytest.raises(UnreachableError):
                beside.submit(read, slide).result(LONG_S)
            assert slide.away == server.address
        script.dozes.clear()
        read(slide)
        assert slide.away == ""


def test_a_server_of_a_growing_slide_is_away_when_no_word_comes():
    script = Dozing(growing=True)
    with ScriptedServer(script) as server, RemoteSlide(f"{server.address}/s", disk_cache=None) as slide:
        until(lambda: server.asked("watch"), LONG_S)
        script.dozes.set()
        until(lambda: slide.away == server.address, LONG_S)
        script.dozes.clear()
        read(slide)  # whatever it answers
        until(lambda: slide.away == "", LONG_S)


def test_a_closed_slide_is_not_away(beside):
    script = Dozing()
    with ScriptedServer(script) as server:
        slide = RemoteSlide(f"{server.address}/s", disk_cache=None, timeout_s=0.5)
        script.dozes.set()
        with pytest.raises(UnreachableError):
            beside.submit(read, slide).result(LONG_S)
        assert slide.away
        slide.close()
        assert slide.away == ""


def test_who_asks_for_something_else_has_waited_all_the_same(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rawmosaic.net.wire.time.monotonic", lambda: now[0])
    line = Line()
    assert line.silent_s == 0.0
    line.begin_asking()
    now[0] = 101.5
    line.end_asking()
    assert line.silent_s == 0.0
    now[0] = 102.0
    line.begin_asking()  # somebody pans
    assert line.silent_s == 2.0
    line.heard()
    assert line.silent_s == 0.0
    line.end_asking()
    now[0] = 110.0
    line.begin_asking()
    assert line.silent_s == 0.0


def test_who_was_heard_and_then_fell_silent_stays_away_between_two_tries(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rawmosaic.net.wire.time.monotonic", lambda: now[0])
    line = Line()
    line.begin_asking()
    line.heard()  # another answer
    now[0] = 105.0
    line.given_up = True
    line.end_asking()
    now[0] = 106.0
    assert line.silent_s == 6.0
    line.begin_asking()
    assert line.silent_s == 6.0
    line.end_asking()
    now[0] = 200.0
    assert line.silent_s == 0.0, "nobody wants anything of it any more"
