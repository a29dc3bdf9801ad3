"""Slides in a browser: the mosaic as DeepZoom, drawn live. `WebServer` serves it; deepzoom.py and style.py know no HTTP."""

__all__ = ["WebServer"]


def __getattr__(name: str):
    if name == "WebServer":
        from rawmosaic.net.web.server import WebServer

        return WebServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
