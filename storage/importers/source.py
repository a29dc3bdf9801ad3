"""A raw format as a source of slides: how it is recognised, and how it is opened, in place or bare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.storage.errors import NotASlideError
from rawmosaic.storage.importers.acquisition import ImportOptions, RawAcquisition
from rawmosaic.storage.slide import Slide


@dataclass(frozen=True)
class AcquisitionSource:
    """What an importer registers under ``rawmosaic.sources``.

    recognise  path → score, 0 (not mine) to 10 (surely mine); cheap: names and a few bytes
    acquire    (path, options) → the acquisition; raises SlideError
    """

    recognise: Callable[[Path], int]
    acquire: Callable[[Path, ImportOptions], RawAcquisition]

    def score(self, location: str) -> int:
        """0: not mine; 10: surely mine. Never raises."""
        if "://" in str(location):
            return 0
        path = Path(location)
        try:
            return self.recognise(path) if path.is_file() or path.is_dir() else 0
        except (OSError, ValueError):
            return 0

    def open(self, location: str, *, in_place_cache: bool = True, **options: object) -> Slide:
        """The acquisition for viewing in place (zoom layers made in the background); the bare one with in_place_cache=False.

        Options are those of ImportOptions. Raises SlideError.
        """
        path = Path(location)
        if not path.exists():
            raise NotASlideError("there is no such file or folder", location=location)
        acquisition = self.acquire(path, ImportOptions.of(options, location))
        if not in_place_cache:
            return acquisition
        from rawmosaic.storage.importers.zoom_cache import ZoomCachedSlide

        return ZoomCachedSlide(acquisition)
