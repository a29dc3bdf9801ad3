"""A renderer that paints what it is asked, and a client that shows every header."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass, field

import numpy as np

from rawmosaic.net.web import WebServer
from rawmosaic.net.web.renderer import FirstLook
from rawmosaic.net.web.style import Look, Style
from rawmosaic.storage.slide import Slide


@dataclass
class FakeRenderer:
    """Paints each region in a colour of its own; `gate` holds it back, `error` and `told_failures` make it fail."""

    gate: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    failures: tuple[str, ...] = ()
    told_failures: tuple[str, ...] = ()
    error: Exception | None = None
    n_closed: int = 0

    def __post_init__(self):
        self.gate.set()

    def looks(self, slide: Slide) -> tuple[FirstLook, ...]:
        colors = ("#0000ff", "#00ff00", "#ff0000")
        return tuple(
            FirstLook(Look(colors[number % 3], (100.0, 4000.0 + number)), ((100.0, 4000.0 + number), (200.0, 3000.0)))
            for number in range(len(slide.channels))
        )

    def render(self, slide: Slide, region_um: tuple, size_px: tuple[int, int], style: Style) -> np.ndarray:  # noqa: ARG002
        self.started.set()
        assert self.gate.wait(20), "the test never opened the gate"
        self.asked.append((region_um, size_px, style))
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        self.failures = self.told_failures
        return np.full((size_px[1], size_px[0], 4), painted(region_um), np.uint8)

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.n_closed += 1


def painted(region_um: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """The colour that the renderer gives a region."""
    left, top, right, bottom = (round(10 * side) for side in region_um)
    return (left * 7 + right) % 256, (top * 5 + bottom) % 256, (left + top * 3) % 256, 255


@dataclass(frozen=True)
class Answer:
    """What a server answered; header names in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


def ask(server: WebServer, path: str, method: str = "GET", host: str | None = None, **headers: str) -> Answer:
    """Send one request, the path as it is given, and read the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=host is not None, skip_accept_encoding=True)
        for name, value in {**({} if host is None else {"host": host}), **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()
