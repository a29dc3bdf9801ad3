"""What is served under which address, and how it may be cached. The table of routes at the end of the module tells all.

A tile's address holds the version of the slide's content as `v` where whoever asks knows it: such a tile never changes, and may
be kept for good. Whatever is asked for without it is kept too, but asked about each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from string import Template
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rawmosaic.net.web.deepzoom import TileView
from rawmosaic.net.web.files import LIST_PAGE, SLIDE_PAGE, FixedFile
from rawmosaic.net.web.info import ServedSlide, SlideInfo, state_of, summary
from rawmosaic.net.web.pictures import FORMATS
from rawmosaic.net.web.render_queue import BusyError
from rawmosaic.net.web.style import Style, style_of
from rawmosaic.net.web.tiles import TileMaker, TileName
from rawmosaic.storage.errors import OutOfRangeError, SlideError, UnreachableError

ALWAYS_ASK = "private, no-cache"
FOR_GOOD = "private, max-age=31536000, immutable"
FOR_A_MOMENT = "private, max-age=1, must-revalidate"
NOT_AT_ALL = "no-store"

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
INCOMPLETE_HEADER = "rawmosaic-incomplete"
"""On tiles of which a part could not be read: what is missing."""

_TILE_FILE = re.compile(r"([0-9]{1,9})_([0-9]{1,9})\.(png|jpeg)")
_LEVEL = re.compile(r"[0-9]{1,3}")
_log = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that gets an answer of JSON: what is wrong with it."""

    def __init__(self, status: int, error: str, message: str):
        self.status, self.error, self.message = status, error, message
        super().__init__(message)


class App:
    """Answers requests about slides by their names."""

    def __init__(self, slides: Mapping[str, ServedSlide], tiles: TileMaker, files: Mapping[str, FixedFile]):
        self._slides, self._tiles, self._files = slides, tiles, files
        self._made_by = version("rawmosaic")  # tiles of another version may differ

    # pages

    async def list_page(self, request: Request) -> Response:
        """Every slide, with a small picture."""
        cards = []
        for served in self._slides.values():
            facts = summary(served)
            count = f"{facts['n_fields']} field{'s' if facts['n_fields'] != 1 else ''}"
            cards.append(
                _CARD.substitute(
                    url=html.escape(f"slides/{_quoted(served.name)}"),
                    name=html.escape(served.name),
                    facts=html.escape(f"{count} · {', '.join(facts['channels'])}" + (" · growing" if facts["growing"] else "")),
                )
            )
        page = Template(self._files[LIST_PAGE].content.decode()).substitute(cards="\n".join(cards))
        return _cacheable(request, page.encode(), "text/html; charset=utf-8", ALWAYS_ASK)

    async def slide_page(self, request: Request) -> Response:
        """The page that shows one slide."""
        self._slide(request)
        return self._file(request, SLIDE_PAGE)

    async def static(self, request: Request) -> Response:
        """One of the fixed files."""
        name = request.path_params["file"]
        if name not in self._files or name.endswith(".html"):
            raise RequestError(404, "not-found", "there is no such file")
        return self._file(request, name)

    def _file(self, request: Request, name: str) -> Response:
        file = self._files[name]
        return _cacheable(request, file.content, file.media_type, ALWAYS_ASK, file.etag)

    # facts

    async def slide_list(self, request: Request) -> Response:
        """The names and a few facts of all slides."""
        return _json(request, {"slides": [summary(served) for served in self._slides.values()]})

    async def info(self, request: Request) -> Response:
        """All that a page must know of a slide."""
        served = self._slide(request)
        info = await _info(served)
        return _json(request, {"name": served.name, **info.facts})

    async def descriptor(self, request: Request) -> Response:
        """The .dzi file of a slide in a style."""
        info, style, known = await self._asked(request)
        caching = _caching(info, known)
        body = info.deepzooms[style.position_set].descriptor("png").encode()
        return _cacheable(request, body, "application/xml", caching)

    # tiles

    async def tile(self, request: Request) -> Response:
        """One tile, drawn if it is not at hand; not even that if whoever asked has it or has left."""
        served = self._slide(request)
        info, style, known = await self._asked(request)
        file_name = _TILE_FILE.fullmatch(request.path_params["file"])
        level = request.path_params["level"]
        if file_name is None or not _LEVEL.fullmatch(level):
            raise RequestError(404, "not-found", "a tile is named LEVEL/COLUMN_ROW.png or .jpeg, of whole numbers")
        name = TileName(info.version, style.text(), int(level), int(file_name[1]), int(file_name[2]), file_name[3])
        try:
            view = info.deepzooms[style.position_set].tile(name.level, name.column, name.row)
        except OutOfRangeError as error:
            raise RequestError(404, "out-of-range", str(error)) from error
        etag = _etag(self._made_by, *name)
        headers = {"etag": etag, "cache-control": _caching(info, known)}
        if _has(request, etag):
            return Response(status_code=304, headers=headers)
        body, failures = await self._drawn(request, served, name, view, style)
        if failures or state_of(served.slide) != info.state:  # it grew meanwhile: the tile may be of either state
            headers = {"cache-control": NOT_AT_ALL}
        if failures:
            headers[INCOMPLETE_HEADER] = _header_text(failures[0])
        return Response(body, headers=headers, media_type=FORMATS[name.file_format])

    async def _drawn(
        self, request: Request, served: ServedSlide, name: TileName, view: TileView, style: Style
    ) -> tuple[bytes, Sequence[str]]:
        at_hand = self._tiles.at_hand(name)
        if at_hand is not None:
            return at_hand, ()
        drawn = asyncio.ensure_future(self._tiles.make(served.slide, name, view, style))
        left = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({drawn, left}, return_when=asyncio.FIRST_COMPLETED)
            if drawn.done():
                return drawn.result()
            raise RequestError(499, "left", "nobody waits for this tile any more")
        finally:
            for task in (drawn, left):
                task.cancel()
            await asyncio.gather(drawn, left, return_exceptions=True)

    # parts of requests

    def _slide(self, request: Request) -> ServedSlide:
        name = request.path_params["name"]
        if name not in self._slides:
            raise RequestError(404, "not-a-slide", "no slide of this name is served; /slides lists those that are")
        return self._slides[name]

    async def _asked(self, request: Request) -> tuple[SlideInfo, Style, bool]:
        """The slide's info, the style asked for, and whether the address holds the version of the content."""
        served = self._slide(request)
        query, known = _without_version(request.url.query)
        info = await _info(served)
        try:
            style = style_of(query, served.slide, info.defaults)
        except OutOfRangeError as error:
            raise RequestError(400, "out-of-range", _without_location(error)) from error
        return info, style, known == info.version

    def routes(self) -> list[Route]:
        """Every address, and what it answers; GET and HEAD."""
        table: dict[str, Callable[[Request], Any]] = {
            "/": self.list_page,
            "/static/{file}": self.static,
            "/slides": self.slide_list,
            "/slides/{name}": self.slide_page,
            "/slides/{name}/info.json": self.info,
            "/slides/{name}/mosaic.dzi": self.descriptor,
            "/slides/{name}/mosaic_files/{level}/{file}": self.tile,
        }
        return [Route(path, endpoint, methods=["GET"]) for path, endpoint in table.items()]


def asgi_app(app: App, hosts: frozenset[str] | None) -> Callable:
    """The ASGI application: routes, errors as JSON, security headers. `hosts`: names it may be called by; None: any."""
    starlette = Starlette(
        routes=app.routes(),
        exception_handlers={
            RequestError: _request_error,
            SlideError: _slide_error,
            HTTPException: _http_error,
            Exception: _unexpected_error,
        },
    )
    starlette.router.redirect_slashes = False
    return _Guard(starlette, hosts)


class _Guard:
    """Puts the security headers on every answer, and turns away requests that call the server by a name that is not its own.

    A web page of somebody else can have its own name point to this machine; the browser would then let it read what is served
    here to a person alone. It cannot change the name that the browser sends.
    """

    def __init__(self, app: Callable, hosts: frozenset[str] | None):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_guarded(message: dict) -> None:
            if message["type"] == "http.response.start":
                given = {key for key, _ in message["headers"]}
                extra = [(key.encode(), value.encode()) for key, value in SECURITY_HEADERS.items() if key.encode() not in given]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        if scope["type"] != "http":
            return
        if self._hosts is not None and not _is_called(scope, self._hosts):
            message = f"this server answers to {', '.join(sorted(self._hosts))}; ask by one of these names"
            await _json_error(421, "misdirected", message)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def _is_called(scope: dict, hosts: frozenset[str]) -> bool:
    names = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
    if len(names) != 1:
        return False
    host, colon, port = names[0].rpartition(":")
    if not colon or not port.isdecimal():
        host = names[0]
    return host.lower().removeprefix("[").removesuffix("]") in hosts


async def _info(served: ServedSlide) -> SlideInfo:
    return served.known_info() or await asyncio.to_thread(served.info)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _without_version(query: str) -> tuple[str, str | None]:
    """The query without `v=…`, and what that says."""
    parts = query.split("&") if query else []
    known = [part[2:] for part in parts if part.startswith("v=")]
    return "&".join(part for part in parts if not part.startswith("v=")), known[0] if len(known) == 1 else None


def _caching(info: SlideInfo, known: bool) -> str:
    if info.growing:
        return FOR_A_MOMENT
    return FOR_GOOD if known else ALWAYS_ASK


def _etag(*parts: object) -> str:
    return f'"{hashlib.sha256(chr(0).join(map(str, parts)).encode()).hexdigest()[:32]}"'


def _has(request: Request, etag: str) -> bool:
    """Whether the client has what this tag names."""
    told = request.headers.get("if-none-match", "")
    return told.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in told.split(",")]


def _cacheable(request: Request, body: bytes, media_type: str, caching: str, etag: str | None = None) -> Response:
    headers = {"etag": etag or _etag(hashlib.sha256(body).hexdigest()), "cache-control": caching}
    if _has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def _json(request: Request, value: dict) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return _cacheable(request, body, "application/json", ALWAYS_ASK)


def _json_error(status: int, error: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps({"error": error, "message": message}, ensure_ascii=False).encode()
    return Response(body, status, {"cache-control": NOT_AT_ALL, **(headers or {})}, "application/json")


async def _request_error(_: Request, error: RequestError) -> Response:
    return _json_error(error.status, error.error, error.message)


async def _http_error(_: Request, error: HTTPException) -> Response:
    text = {404: "nothing is served under this address", 405: "only GET and HEAD are answered"}.get(
        error.status_code, error.detail
    )
    return _json_error(error.status_code, "not-found" if error.status_code == 404 else "refused", text, error.headers)


async def _slide_error(_: Request, error: SlideError) -> Response:
    if isinstance(error, BusyError):
        return _json_error(503, "busy", str(error), {"retry-after": "1"})
    status, name = (502, "lost") if isinstance(error, UnreachableError) else (500, "failed")
    return _json_error(status, name, _without_location(error))


async def _unexpected_error(_: Request, error: Exception) -> Response:
    return _json_error(500, "failed", f"the server could not answer ({type(error).__name__})")


def _without_location(error: SlideError) -> str:
    """The message without the path: where a server keeps its files is not the client's business."""
    location = getattr(error, "location", None)
    return str(error).removeprefix(f"{location}: ") if location else str(error)


def _header_text(text: str) -> str:
    """A line as a header may hold it."""
    return " ".join(re.sub(r"[^ -~]+", " ", text).split())[:200]


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


_CARD = Template(
    '<li><a href="$url"><img src="$url/mosaic_files/8/0_0.jpeg" alt="" loading="lazy" width="256" height="256">'
    '<span class="name">$name</span> <span class="facts">$facts</span></a></li>'
)
