"""A web server with a renderer that paints what it is asked; nothing here needs OpenGL or npm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_client import FakeRenderer

from rawmosaic.net.web import WebServer
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide

LIBRARY_TEXT = b"window.OpenSeadragon = null; // stands in for the real one\n"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something in the place of OpenSeadragon: these tests need no npm."""
    path = tmp_path / "openseadragon.min.js"
    path.write_bytes(LIBRARY_TEXT)
    monkeypatch.setenv("RAWMOSAIC_OPENSEADRAGON", str(path))
    return path


@pytest.fixture
def slide() -> SyntheticSlide:
    """Three channels, 3 × 4 fields, about 1,000 × 560 pixels."""
    return SyntheticSlide((3, 4), (200, 280), 3, size_z=2, extra_sets=("registered",), scenes=("left", "right"), name="made up")


@pytest.fixture
def renderer() -> FakeRenderer:
    return FakeRenderer()


@pytest.fixture
def serve(library: Path) -> Iterator[Callable[..., WebServer]]:  # noqa: ARG001
    """`serve(slides, renderer, **options)` on a free port; closed after the test."""
    servers: list[WebServer] = []

    def start(slides: dict[str, Slide], renderer: FakeRenderer, **options: object) -> WebServer:
        servers.append(WebServer(slides, renderer, options.pop("bind", "127.0.0.1:0"), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve: Callable[..., WebServer], slide: SyntheticSlide, renderer: FakeRenderer) -> WebServer:
    """The slide under the name `one`."""
    return serve({"one": slide}, renderer)
