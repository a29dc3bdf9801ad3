"""Pixels as the bytes of a PNG or a JPEG."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np

FORMATS = {"png": "image/png", "jpeg": "image/jpeg"}
"""Names of files' ends, and media types."""

JPEG_QUALITY = 90
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRUECOLOR, _UP = 2, 2


def encoded(pixels: np.ndarray, file_format: str) -> bytes:
    """The opaque picture of (h, w, 4) uint8 pixels; PNG is exact, JPEG smaller, with each pixel's own colour."""
    if file_format == "png":
        return png_of(pixels[..., :3])
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    image.save(file, format="JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    return file.getvalue()


def png_of(pixels: np.ndarray) -> bytes:
    """(h, w, 3) uint8 as a PNG.

    Written here because a library tries five filters on each row and looks far for repetitions, which camera noise has not: that
    takes three times as long, and the file is as large. Each row is told as its difference to the one above, and only runs of
    equal bytes are looked for.
    """
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    flat = pixels.reshape(height, 3 * width)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])  # modulo 256, as PNG has it
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, _TRUECOLOR, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packer.compress(rows) + packer.flush()), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
