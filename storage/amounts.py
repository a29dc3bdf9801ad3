"""Amounts of memory as people write them."""

from __future__ import annotations

from rawmosaic.storage.errors import OutOfRangeError

SMALLEST_BYTES = 1 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_bytes(text: str | int) -> int:
    """Bytes from a number or a text such as ``512M`` or ``2G``; OutOfRangeError for anything else or less than 1 MB."""
    number = str(text).strip().upper().removesuffix("IB").removesuffix("B")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        value = int(float(number.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        value = 0
    if value < SMALLEST_BYTES:
        raise OutOfRangeError("amount of memory", text, "write a number with K, M or G, at least 1M, such as 512M or 2G")
    return value
