"""How much memory the caches may take: asked for, from the environment, else from the machine."""

from __future__ import annotations

import os

from rawmosaic.storage.amounts import parse_bytes

RAM_VARIABLE, VRAM_VARIABLE = "RAWMOSAIC_RAM", "RAWMOSAIC_VRAM"
SOFTWARE_VRAM_BYTES = 256 << 20
"""Textures of a software driver lie in main memory, beside the tile cache: more would hold everything twice."""

CARD_VRAM_BYTES = 1 << 30


def ram_bytes(asked: str | int | None = None) -> int:
    """The tile cache's budget: as asked, else RAWMOSAIC_RAM, else an eighth of the machine's memory (256 MB to 4 GB)."""
    if asked is not None or RAM_VARIABLE in os.environ:
        return parse_bytes(asked if asked is not None else os.environ[RAM_VARIABLE])
    return min(max(physical_memory() // 8, 256 << 20), 4 << 30)


def vram_bytes(asked: str | int | None, software: bool) -> int:
    """The texture cache's budget: as asked, else RAWMOSAIC_VRAM, else by the kind of driver."""
    if asked is not None or VRAM_VARIABLE in os.environ:
        return parse_bytes(asked if asked is not None else os.environ[VRAM_VARIABLE])
    return SOFTWARE_VRAM_BYTES if software else CARD_VRAM_BYTES


def physical_memory() -> int:
    """Bytes of main memory; 4 GB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return _windows_memory() or 4 << 30


def _windows_memory() -> int:
    import ctypes

    if not hasattr(ctypes, "windll"):
        return 0
    kilobytes = ctypes.c_ulonglong()
    found = ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
    return kilobytes.value << 10 if found else 0
