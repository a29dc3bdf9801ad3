"""Drawing slides: camera, plan, loader, texture cache, renderer, and the engine's faces (offscreen, window)."""

__all__ = ["OffscreenViewer"]


def __getattr__(name: str):
    if name == "OffscreenViewer":
        from rawmosaic.viewer.offscreen import OffscreenViewer

        return OffscreenViewer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
