"""Pictures of any size on disk, written as they come: rows in, a PNG or tiled TIFF out, whole or not at all."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError, SlideError, WriteError

SUFFIXES = (".png", ".tif", ".tiff")
TILE_PX = 256
"""Strips are this many rows, or a multiple of it, but for the last: TIFF tiles are made of them."""

_CLASSIC_TIFF_BYTES = 2**32 - 2**25
_INCH_M = 0.0254
_LEVEL = 1
"""Of the compression: camera noise hardly compresses, however long one tries."""

Strips = Iterable[np.ndarray]
"""(rows, width, 3) uint8 each, from the top."""


def check_path(path: str | os.PathLike) -> Path:
    """The path of a picture to be written; raises OutOfRangeError or WriteError for what could not be written later."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise OutOfRangeError("kind of picture", path.suffix, "choose a name that ends in " + ", ".join(SUFFIXES), location=path)
    if path.is_dir():
        raise WriteError("is a folder; name a file in it", location=path)
    if not path.parent.is_dir():
        raise WriteError(f"there is no folder {path.parent}; name a file in a folder that exists", location=path)
    return path


def write_picture(
    path: Path, size: tuple[int, int], strips: Strips, *, dpi: float, notes: Mapping[str, str], software: str
) -> None:
    """Write strips that together are `size` (width, height) into `path`, by its suffix; under that name only once complete.

    `notes` go into the picture's description, one line each. Raises WriteError; whatever the strips raise goes through, and
    leaves no file.
    """
    write = _write_png if path.suffix.lower() == ".png" else _write_tiff
    description = "\n".join(f"{name}: {text}" for name, text in notes.items())
    with _draft_of(path) as draft:
        write(draft, size, strips, dpi, description, software)


@contextmanager
def _draft_of(path: Path) -> Iterator[Path]:
    draft = path.with_name(path.name + ".part")
    try:
        yield draft
        os.replace(draft, path)
    except SlideError:  # from the strips
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"the picture could not be written ({reason}); nothing was left", location=path) from error
    finally:
        draft.unlink(missing_ok=True)


def _write_png(draft: Path, size: tuple[int, int], strips: Strips, dpi: float, description: str, software: str) -> None:
    width, height = size
    with open(draft, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        per_metre = round(dpi / _INCH_M)
        _chunk(file, b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1))
        for keyword, text in (("Software", software), ("Description", description)):
            _chunk(file, b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode())
        compressor = zlib.compressobj(_LEVEL, strategy=zlib.Z_FILTERED)
        above = np.zeros((1, 3 * width), np.uint8)
        for strip in strips:
            rows = strip.reshape(len(strip), 3 * width)
            lines = np.empty((len(rows), 1 + 3 * width), np.uint8)
            lines[:, 0] = 2  # each byte less the one above: magnified pixels become zeros
            np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
            np.subtract(rows[:1], above, out=lines[:1, 1:])
            above = rows[-1:].copy()
            _data(file, compressor.compress(lines))
        _data(file, compressor.flush())
        _chunk(file, b"IEND", b"")


def _data(file: BinaryIO, data: bytes) -> None:
    if data:
        _chunk(file, b"IDAT", data)


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _write_tiff(draft: Path, size: tuple[int, int], strips: Strips, dpi: float, description: str, software: str) -> None:
    from tifffile import TiffWriter

    width, height = size
    with TiffWriter(draft, bigtiff=3 * width * height > _CLASSIC_TIFF_BYTES) as writer:
        writer.write(
            _tiles(strips, width),
            shape=(height, width, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(TILE_PX, TILE_PX),
            compression="zlib",
            compressionargs={"level": _LEVEL},
            maxworkers=1,
            resolution=(dpi, dpi),
            resolutionunit="INCH",
            software=software,
            description=description.encode(),
            metadata=None,
        )


def _tiles(strips: Strips, width: int) -> Iterator[np.ndarray]:
    """(TILE_PX, TILE_PX, 3) uint8 tiles, row by row; those at the edges are filled up with black."""
    for strip in strips:
        for top in range(0, len(strip), TILE_PX):
            for left in range(0, width, TILE_PX):
                piece = strip[top : top + TILE_PX, left : left + TILE_PX]
                if piece.shape[:2] == (TILE_PX, TILE_PX):
                    yield piece
                else:
                    tile = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
                    tile[: piece.shape[0], : piece.shape[1]] = piece
                    yield tile
