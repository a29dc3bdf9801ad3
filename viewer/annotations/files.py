"""Where a slide's annotations are kept, and how they get there whole: beside the slide, or with the user's data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
from pathlib import Path

from rawmosaic.storage.errors import WriteError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.annotations.geojson import Document, Frame, composed, no_collection, read_geojson
from rawmosaic.viewer.annotations.model import AnnotationSet, Snapshot
from rawmosaic.viewer.beside import address_of, path_beside
from rawmosaic.viewer.user_folder import user_folder

ENDING = ".annotations.geojson"


def annotations_path(location: str) -> Path:
    """Where the annotations of a slide are, or will be: beside a file, inside a folder; else `user_path`.

    That is used for slides on a server, and where nothing can be written beside the slide; a file beside the slide comes first.
    """
    beside = path_beside(location, ENDING)
    if beside is None:
        return user_path(location)
    if beside.exists() or (not user_path(location).exists() and _takes_files(beside.parent)):
        return beside
    return user_path(location)


def user_path(location: str) -> Path:
    """In the folder of the user's data, by the name and the whole address of the slide."""
    name = re.sub(r"[^\w.-]+", "_", re.split(r"[/\\]", location.rstrip("/\\"))[-1])[:80]
    return user_folder() / "annotations" / f"{name}-{hashlib.sha256(address_of(location).encode()).hexdigest()[:16]}{ENDING}"


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made there; asked by making one, as permissions tell little on a network drive."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def write_geojson(path: str | os.PathLike, document: Document) -> None:
    """Write a file whole or not at all; raises WriteError."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # half a character, which UTF-8 cannot say, becomes the escape that JSON has for it
        options = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
        with open(unfinished, "w", **options) as file, no_collection():
            file.writelines(composed(document))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise WriteError(f"annotations could not be saved: {error.strerror or error}", location=path) from error


class AnnotationFile:
    """A slide's annotations and the file that keeps them.

    `annotations` belongs to the thread of the window; `save` takes a snapshot and may run in any thread.
    """

    def __init__(self, path: str | os.PathLike, frame: Frame):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._seen = _stamp(self.path)
        self._document = read_geojson(self.path, frame) if self._seen else Document(frame=frame)
        self.annotations = AnnotationSet(self._document.annotations, self._document.classes)
        self._saved = self.annotations.revision

    @classmethod
    def of(cls, slide: Slide, path: str | os.PathLike | None = None) -> AnnotationFile:
        """Of a slide, where they belong or as told; raises SlideError for a file that is no GeoJSON."""
        return cls(annotations_path(slide.location) if path is None else path, Frame.of(slide))

    @property
    def frame(self) -> Frame:
        """How the file counts: fixed when it was made, also while the slide grows."""
        return self._document.frame

    @property
    def unshown(self) -> int:
        """Features of the file that rawmosaic keeps, but does not draw."""
        return len(self._document.unshown)

    @property
    def changed(self) -> bool:
        """Whether there is something to save."""
        return self.annotations.revision != self._saved

    def save(self, snapshot: Snapshot | None = None) -> Path | None:
        """Write what the set holds, or held at a snapshot; raises WriteError.

        If another program changed the file since it was read, what it wrote is kept beside it: returns the path of that.
        """
        annotations, classes, revision = snapshot or self.annotations.snapshot()
        kept = None
        with self._lock:
            document = self._document
            document = Document(annotations, classes, document.frame, document.unshown, document.foreign)
            if (now := _stamp(self.path)) is not None and now != self._seen:
                kept = self.path.with_name(self.path.name + "~")
                try:
                    os.replace(self.path, kept)
                except OSError as error:
                    raise WriteError(f"another program holds it: {error.strerror or error}", location=self.path) from error
            write_geojson(self.path, document)
            self._seen = _stamp(self.path)
            self._saved = revision
        return kept


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells one state of a file from another; None without one."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
