"""What a server says of itself to whoever connects."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def program() -> str:
    """The program and its version."""
    try:
        return f"rawmosaic {version('rawmosaic')}"
    except PackageNotFoundError:
        return "rawmosaic of unknown version"
