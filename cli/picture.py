"""Pictures on disk: a PNG that is there whole or not at all."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import click
import numpy as np

PICTURE_MODULES = ("PIL.Image", "PIL.PngImagePlugin")
"""What `save_png` imports."""


def picture_path(path: str | os.PathLike) -> Path:
    """The path of a PNG to be written; raises UsageError at once for what could not be written later."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise click.UsageError(f"{path}: only PNG pictures are written; choose a name that ends in .png")
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise click.UsageError(f"{path}: {problem}; name a file in a folder that exists")
    return path


def save_png(image: np.ndarray, path: Path) -> None:
    """Write (h, w, 4) uint8 RGBA as an opaque PNG, under its final name only when complete. Raises OSError."""
    from PIL import Image

    draft = path.with_name(path.name + ".part")
    try:
        # Camera noise hardly compresses: looking for runs only is twice as fast as level 1 and no larger.
        opaque = Image.fromarray(np.ascontiguousarray(image[..., :3]))
        opaque.save(draft, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
        os.replace(draft, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a full disk does not say which
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)
