"""The acquisition server: from the camera to the slide, nothing lost (docs/design/acquisition.md).

with Scanner("tcp://127.0.0.1:5556") as scanner:
    scanner.start("my scan", field_shape=(1040, 1392), channels=["DAPI", "GFP"], pixel_size_um=0.645)
    scanner.send(image, 0, x_um=0.0, y_um=0.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rawmosaic.net.acquisition.scanner import Scanner

__all__ = ["Scanner"]


def __getattr__(name: str) -> object:
    if name == "Scanner":  # naming the package loads no socket
        from rawmosaic.net.acquisition.scanner import Scanner

        return Scanner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
