"""The slides of a folder for viewers elsewhere: finished ones, and those that grow, as they come."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.keys import ServerCurve
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import ProtocolError, SlideError
from rawmosaic.storage.opening import PART_SUFFIX
from rawmosaic.storage.slide import Slide

SLIDE_SUFFIX = ".h5"

MOST_SLIDES = 256
"""So many are open at once, those that were written last."""

LOOK_S = 0.5
JUST_BEGUN_S, UNREADABLE_LOOK_S = 5.0, 5.0
"""A slide that grows and cannot be read has just been begun; after so long that is told, and it is tried less often."""

CLOSING_S = 10.0

log = logging.getLogger("rawmosaic.net.acquisition")

Stamp = tuple[int, int]
"""(device, inode): which file lies under a name. A slide that is finished keeps it; one that is begun anew has another."""


@dataclass(frozen=True)
class _Served:
    slide: Slide
    stamp: Stamp


@dataclass(frozen=True)
class _Unreadable:
    """A file that could not be read: since when, when it is tried again (both s, monotonic), whether that was told."""

    stamp: Stamp
    since: float
    again: float
    told: bool


class Catalogue:
    """Serves the slides of a folder until it is closed; a context manager. Looks for what is new in a thread of its own.

    `bind`, `curve`, `insecure`: as of `TileDealer`. `address` is where viewers come.
    """

    def __init__(self, data: Path, bind: str, *, curve: ServerCurve | None = None, insecure: bool = False):
        self._data = data
        self._served: dict[str, _Served] = {}
        self._refused: dict[str, Stamp] = {}
        self._unreadable: dict[str, _Unreadable] = {}
        self._dealer = TileDealer({}, bind, curve=curve, insecure=insecure)
        self.address = self._dealer.address
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)
        self._thread.start()

    @property
    def names(self) -> tuple[str, ...]:
        """The slides that are served now."""
        return self._dealer.names

    def close(self) -> None:
        """Serve nothing more; closing twice is harmless. A disk that does not answer is not waited for."""
        self._ending.set()
        self._thread.join(CLOSING_S)
        if self._thread.is_alive():
            log.error("the slides of %s are left open: their disk does not answer", self._data)
            return
        self._dealer.close()
        for served in self._served.values():
            served.slide.close()
        self._served.clear()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._ending.wait(LOOK_S):
            try:
                self._look()
            except Exception:  # a disk that is away for a moment
                log.exception("the slides of %s cannot be looked at", self._data)

    def _look(self) -> None:
        there = slides_in(self._data)
        for name in self._served.keys() - there.keys():
            self._dealer.remove(name)
            self._served.pop(name).slide.close()
        for name, stamp in there.items():
            if self._ending.is_set():
                return
            served = self._served.get(name)
            anew = served is None or served.stamp != stamp or served.slide.replaced
            if anew and self._refused.get(name) != stamp and self._is_due(name, stamp):
                self._serve(name, stamp)

    def _serve(self, name: str, stamp: Stamp) -> None:
        path = self._data / f"{name}{SLIDE_SUFFIX}"
        try:
            slide = open_slide(path)
        except SlideError as error:
            if path.exists():  # one that has just been begun is readable a moment later
                self._refused[name] = stamp
                log.warning("%s is not served: %s", name, error)
            else:
                self._note_unreadable(name, stamp, error)
            return
        self._unreadable.pop(name, None)
        try:
            if stamp_of(path) != stamp:  # another came meanwhile: the next look finds it
                slide.close()
                return
            # a slide whose writer was killed goes on in another file, which is found by the next look
            growing = slide.growing
            self._dealer.add(name, slide, lambda: growing and (not path.exists() or stamp_of(path) != stamp))
        except ProtocolError as error:
            slide.close()
            self._refused[name] = stamp
            log.warning("%s is not served: %s", name, error)
            return
        except BaseException:
            slide.close()
            raise
        if (former := self._served.pop(name, None)) is not None:
            former.slide.close()
        self._served[name] = _Served(slide, stamp)

    def _is_due(self, name: str, stamp: Stamp) -> bool:
        known = self._unreadable.get(name)
        return known is None or known.stamp != stamp or time.monotonic() >= known.again

    def _note_unreadable(self, name: str, stamp: Stamp, error: SlideError) -> None:
        """One that stays unreadable is told once, and goes on being tried: its writer may still make it whole."""
        now, known = time.monotonic(), self._unreadable.get(name)
        if known is None or known.stamp != stamp:
            known = _Unreadable(stamp, now, now, False)
        stays = now - known.since >= JUST_BEGUN_S
        if stays and not known.told:
            log.warning("%s is not served for now: %s", name, error)
        self._unreadable[name] = _Unreadable(stamp, known.since, now + (UNREADABLE_LOOK_S if stays else 0), known.told or stays)


def slides_in(folder: Path) -> dict[str, Stamp]:
    """Name → stamp of the slides in a folder, those that are written counted in; the latest MOST_SLIDES. OSError."""
    found: dict[str, tuple[float, Stamp]] = {}
    with os.scandir(folder) as entries:
        names = sorted(_slide_names(entry.name for entry in entries))
    for name in names:
        path = folder / f"{name}{SLIDE_SUFFIX}"
        try:
            status = _status(path)
        except OSError:
            continue
        found[name] = status.st_mtime, (status.st_dev, status.st_ino)
    latest = sorted(found, key=lambda name: found[name][0])[-MOST_SLIDES:]
    return {name: found[name][1] for name in latest}


def stamp_of(path: Path) -> Stamp | None:
    """Which file is the slide at a path, finished or growing; None where there is none."""
    try:
        status = _status(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        return path.with_name(path.name + PART_SUFFIX).stat()


def _slide_names(files: Iterable[str]) -> set[str]:
    return {
        name.removesuffix(PART_SUFFIX).removesuffix(SLIDE_SUFFIX)
        for name in files
        if name.endswith((SLIDE_SUFFIX, SLIDE_SUFFIX + PART_SUFFIX)) and not name.startswith(".")
    }
