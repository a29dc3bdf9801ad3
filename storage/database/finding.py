"""The slides in a folder and below: virtual slides, those being written, raw acquisitions. Opens none of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from rawmosaic.storage.opening import PART_SUFFIX, Source, installed_sources, is_virtual_slide

SURE_OF_A_FOLDER = 6
"""A source that gives a folder less only guesses, or means one below."""

_OURS_BUT_NO_SLIDE = (".zoom.h5", ".kept")


def find_slides(
    folder: str, cancelled: Callable[[], bool] = lambda: False, trouble: Callable[[str, OSError], None] = lambda *_: None
) -> Iterator[str]:
    """Locations, in the order of their names. What lies inside a raw acquisition is part of it, but for virtual slides.

    Links to folders are not followed, and names that begin with a dot are left out. `trouble` hears of unreadable folders.
    """
    sources = installed_sources()
    waiting = [folder]
    while waiting and not cancelled():
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                inside = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            trouble(place, error)
            continue
        is_acquisition = _score(sources, place) >= SURE_OF_A_FOLDER
        if is_acquisition:
            yield place
        folders = []
        for entry in inside:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif (location := _slide_in(entry.path, sources, is_acquisition)) is not None:
                yield location
        if not is_acquisition:
            waiting.extend(reversed(folders))


def _slide_in(path: str, sources: Mapping[str, Source], of_acquisition: bool) -> str | None:
    """The location of the slide that a file is; None for any other file."""
    if path.endswith(_OURS_BUT_NO_SLIDE):
        return None
    if path.endswith(PART_SUFFIX):
        location = path.removesuffix(PART_SUFFIX)
        return location if not os.path.exists(location) and is_virtual_slide(path) else None
    if is_virtual_slide(path):
        return path
    return path if not of_acquisition and _score(sources, path) > 0 else None


def _score(sources: Mapping[str, Source], location: str) -> int:
    return max((source.score(location) for source in sources.values()), default=0)
