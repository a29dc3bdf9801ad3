"""Pixels as the bytes of a PNG or a JPEG."""

from __future__ import annotations

import io
import zlib

import numpy as np
from PIL import Image

FORMATS = {"png": "image/png", "jpeg": "image/jpeg"}
"""Names of files' ends, and media types."""

JPEG_QUALITY = 90


def encoded(pixels: np.ndarray, file_format: str) -> bytes:
    """The opaque picture of (h, w, 4) uint8 pixels; PNG is exact, JPEG smaller, with each pixel's own colour."""
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    file = io.BytesIO()
    if file_format == "png":
        # camera noise hardly compresses: looking for runs only is twice as fast as level 1 and no larger
        image.save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    else:
        image.save(file, format="JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    return file.getvalue()
