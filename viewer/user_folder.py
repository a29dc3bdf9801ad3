"""Where the viewer keeps what belongs to the user and not to a slide, and how it writes there: whole files or none."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

FOLDER_VARIABLE = "RAWMOSAIC_DATA"


def user_folder() -> Path:
    """The system's folder for a user's data, or what RAWMOSAIC_DATA names. It may not exist yet."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("rawmosaic", appauthor=False))


def write_whole(path: Path, text: str) -> None:
    """Replace a file by another content at once: whoever reads meanwhile sees the old one or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def read_text(path: Path, most_bytes: int) -> str:
    """A file's text. Raises OSError, and ValueError where it is larger or not UTF-8."""
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes} bytes")
    return content.decode("utf-8")
