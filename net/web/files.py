"""The page's own files and OpenSeadragon, read once when a server starts: no request reaches the file system."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from rawmosaic.net.web.openseadragon import find_openseadragon

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
SLIDE_PAGE, LIST_PAGE = "slide.html", "list.html"
LIBRARY = "openseadragon.js"


@dataclass(frozen=True)
class FixedFile:
    """What is served under a fixed name."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> FixedFile:
        """A file whose name ends tell its type."""
        return cls(content, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def fixed_files() -> dict[str, FixedFile]:
    """Every file by its name. SlideError where OpenSeadragon is not installed."""
    found = {LIBRARY: FixedFile.of(LIBRARY, find_openseadragon().read_bytes())}
    for file in resources.files("rawmosaic.net.web").joinpath("page").iterdir():
        if file.name.rpartition(".")[2] in _TYPES:
            found[file.name] = FixedFile.of(file.name, file.read_bytes())
    return found
