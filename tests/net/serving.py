"""Servers for tests: a dealer in a process of its own, which can be killed and started again at the same address."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from rawmosaic.net.dealer import TileDealer
from rawmosaic.storage import open_slide
from rawmosaic.storage.testing import SlowSlide

LOOPBACK = "tcp://127.0.0.1:*"
LONG_S = 60.0


class ServerProcess:
    """Serves slide files by name from a spawned process, each tile `latency_s` late. A context manager."""

    def __init__(self, files: Mapping[str, Path], address: str = LOOPBACK, latency_s: float = 0.0):
        self._files = {name: str(path) for name, path in files.items()}
        self._latency_s = latency_s
        self.address = address
        self.start()

    def start(self) -> None:
        """Start it, again at the address that it had."""
        method = multiprocessing.get_context("spawn")
        here, there = method.Pipe()
        self._end = here
        self._process = method.Process(target=_serve, args=(there, self._files, self.address, self._latency_s), daemon=True)
        self._process.start()
        there.close()
        assert here.poll(LONG_S)
        self.address = here.recv()

    def kill(self) -> None:
        """End it at once, without a word to anybody (as `kill -9` does)."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._end.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


def _serve(end, files: Mapping[str, str], address: str, latency_s: float) -> None:
    with ExitStack() as stack:
        slides = {name: stack.enter_context(open_slide(path)) for name, path in files.items()}
        if latency_s:
            slides = {name: _Late(slide, latency_s) for name, slide in slides.items()}
        dealer = stack.enter_context(TileDealer(slides, address))
        end.send(dealer.address)
        end.recv()


class _Late(SlowSlide):
    @property
    def identity(self) -> str:
        return self.slide.identity
