"""The web server: slides in a browser, each drawn live."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
from collections.abc import Mapping, Sequence

import uvicorn

from rawmosaic.net.web.app import App, asgi_app
from rawmosaic.net.web.cache import BytesCache
from rawmosaic.net.web.files import fixed_files
from rawmosaic.net.web.info import ServedSlide
from rawmosaic.net.web.render_queue import RenderQueue
from rawmosaic.net.web.renderer import RegionRenderer
from rawmosaic.net.web.tiles import TileMaker
from rawmosaic.storage.errors import OutOfRangeError, UnreachableError
from rawmosaic.storage.slide import Slide

CACHE_BYTES = 128 << 20
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0
IDLE_CONNECTION_S = 20
MOST_CONNECTIONS = 512
LONGEST_REQUEST_HEAD = 1 << 16
"""Bytes: a style of very many channels makes a long address."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class WebServer:
    """Serves slides to browsers over HTTP while it is open. Use it in a with-statement.

    Parameters
    ----------
    slides
        By the names that they are served under; they stay their owner's.
    renderer
        Draws; from now on it is the server's, which closes it.
    bind
        ``HOST:PORT``; port 0 picks a free one.
    hosts
        Further names that requests may call the server by, where it is bound to a loopback address.
    draws_in_thread
        False: whoever owns the server calls `draw`, and the drawing is done there, and `close` from the same thread. Some systems
        make OpenGL contexts in the main thread only.
    """

    def __init__(
        self,
        slides: Mapping[str, Slide],
        renderer: RegionRenderer,
        bind: str = "127.0.0.1:8080",
        *,
        cache_bytes: int = CACHE_BYTES,
        hosts: Sequence[str] = (),
        draws_in_thread: bool = True,
    ):
        self._socket = self._queue = self._thread = None
        try:
            host, port = host_and_port(bind)
            files = fixed_files()
            self._socket = _bound(host, port)
        except BaseException:
            renderer.close()
            raise
        self._host, self.port = host, self._socket.getsockname()[1]
        self._queue = RenderQueue(renderer, own_thread=draws_in_thread)
        served = {name: ServedSlide(name, slide, renderer) for name, slide in slides.items()}
        app = App(served, TileMaker(self._queue, BytesCache(cache_bytes)), files)
        names = frozenset({*LOOPBACK_NAMES, host.lower(), *map(str.lower, hosts)}) if is_loopback(self._socket) else None
        self._server = uvicorn.Server(
            uvicorn.Config(
                asgi_app(app, names),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE_CONNECTION_S,
                timeout_graceful_shutdown=2,
                limit_concurrency=MOST_CONNECTIONS,
                h11_max_incomplete_event_size=LONGEST_REQUEST_HEAD,
            )
        )
        self._thread = threading.Thread(target=self._serve, name="web-server", daemon=True)
        self._thread.start()
        self._wait_until_started()

    @property
    def url(self) -> str:
        """Where the list of slides is."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}/"

    @property
    def n_drawn(self) -> int:
        """Tiles drawn so far."""
        return self._queue.n_drawn

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def draw(self, for_s: float = math.inf) -> None:
        """Draw what is asked for in the calling thread, until `close` or for about so long; with draws_in_thread=False."""
        self._queue.work(for_s)

    def close(self) -> None:
        """Answer no more, stop drawing, close the renderer; closing twice is harmless."""
        self._server.should_exit = True
        if self._queue is not None:
            self._queue.close()  # what is waited for is given up first, or the server would wait for it
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _serve(self) -> None:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            self._server.run(sockets=[self._socket])

    def _wait_until_started(self) -> None:
        pause = threading.Event()
        for _ in range(int(START_TIMEOUT_S / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            pause.wait(0.01)
        if not self._server.started:
            self.close()
            raise UnreachableError("the web server did not start", location=self.url)


def host_and_port(bind: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT`` as its parts; OutOfRangeError."""
    host, colon, port = bind.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    port = "0" if port == "*" else port
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise OutOfRangeError("HTTP address", bind, "write HOST:PORT, such as 127.0.0.1:8080, with a port from 0 to 65535")
    return host, int(port)


def is_loopback(bound: socket.socket) -> bool:
    """Whether only programs on this machine reach a bound socket."""
    address = bound.getsockname()[0]
    return address == "::1" or address.startswith("127.")


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket; UnreachableError, with what the system says."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.create_server(address, family=family, backlog=256)
        # asyncio sends at once, not when the last packet was acknowledged, only over sockets that name their protocol
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=bound.detach())
    except OSError as error:
        raise UnreachableError(
            f"nothing can be served there ({error.strerror or error}); choose another port or end the program that has it",
            location=f"http://{host}:{port}/",
        ) from error
