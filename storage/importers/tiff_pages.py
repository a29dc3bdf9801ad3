"""TIFF files as pages: what a header says, and one page's pixels, with errors that say which file and what to do."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, SlideError

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
FILES_KEPT_OPEN = 16
SURVEYED_ALL = 512
"""Up to so many files every header is looked at; of more, all if their sizes in bytes differ, else a sample."""

COARSEST_PIXEL_UM = 25.0
"""Resolution tags in inches or centimetres that mean larger pixels are a printer's (72 to 1000 dpi), not a microscope's."""

_UNIT_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4}


class PageFacts(NamedTuple):
    """(height, width) in pixels, and the data type, of a page."""

    shape: tuple[int, int]
    dtype: np.dtype


@contextlib.contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF file for looking at; what goes wrong with it becomes a slide error that names the file."""
    with _named_errors(path), tifffile.TiffFile(path) as tiff:
        yield tiff


def page_facts(path: Path, page: int = 0) -> PageFacts:
    """Shape and type of one page, from its header. Raises DamagedSlideError, or AcquisitionError for colour pages."""
    with open_tiff(path) as tiff:
        return _facts(tiff.pages[page], path)


def survey(paths: Sequence[Path], sizes: Sequence[int]) -> list[PageFacts]:
    """Facts of the first page of every file, from as few headers as are enough; `sizes` are the files' in bytes.

    A header that cannot be read is taken to be like the first good one: the rest of the mosaic is still worth seeing, and
    reading that file says what is wrong. Raises the first file's error where no header is readable.
    """
    chosen = range(len(paths))
    if len(paths) > SURVEYED_ALL and len(set(sizes)) == 1:
        chosen = sorted({int(index) for index in np.linspace(0, len(paths) - 1, 16)})

    def look(index: int) -> PageFacts | SlideError:
        try:
            return page_facts(paths[index])
        except DamagedSlideError as error:
            return error

    if len(chosen) > 64:  # a file server answers several at a time
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(look, chosen))
    else:
        seen = [look(index) for index in chosen]
    good = next((facts for facts in seen if isinstance(facts, PageFacts)), None)
    if good is None:
        raise seen[0]
    found = dict(zip(chosen, seen, strict=True))
    result = [facts if isinstance(facts := found.get(index), PageFacts) else good for index in range(len(paths))]
    for path, facts in zip(paths, result, strict=True):
        if facts.dtype != good.dtype:
            raise AcquisitionError(
                f"holds {facts.dtype} pixels, but {Path(paths[0]).name} holds {good.dtype}; "
                "the planes of an acquisition have one type: convert the odd ones, or take them out",
                location=path,
            )
    return result


def pixel_size_um(path: Path) -> float | None:
    """Pixel size that the tags of a TIFF tell (ImageJ, OME, MetaSeries, resolution tags), or None."""
    with open_tiff(path) as tiff:
        page = tiff.pages[0]
        across = page.tags.get("XResolution")
        per_unit = across.value[0] / across.value[1] if across is not None and across.value[0] and across.value[1] else None
        plane = tiff.metaseries_metadata.get("PlaneInfo", {}) if tiff.is_metaseries else {}
        if plane.get("spatial-calibration-state") and str(plane.get("spatial-calibration-units")).lower() in ("um", "µm"):
            return float(plane["spatial-calibration-x"])
        if tiff.is_ome:
            pixels = _first_pixels(tiff)
            size = pixels.get("PhysicalSizeX")
            if size is not None:
                return float(size) * _UNIT_UM.get(pixels.get("PhysicalSizeXUnit", "µm").lower(), 1.0)
        if tiff.is_imagej and per_unit:
            unit = _UNIT_UM.get(str((tiff.imagej_metadata or {}).get("unit", "")).lower())
            if unit is not None:
                return unit / per_unit
        unit_um = {2: 25400.0, 3: 10000.0}.get(int(page.resolutionunit or 1))
        if per_unit and unit_um and unit_um / per_unit <= COARSEST_PIXEL_UM:
            return unit_um / per_unit
    return None


def described(path: Path) -> tuple[str, str]:
    """(ImageDescription verbatim, time of acquisition as ISO 8601) of a file's first page; empty where it does not say."""
    with open_tiff(path) as tiff:
        page = tiff.pages[0]
        tag = page.tags.get("DateTime")
        try:
            taken = datetime.strptime(str(tag.value).strip(), "%Y:%m:%d %H:%M:%S").isoformat() if tag is not None else ""
        except ValueError:
            taken = ""
        return str(page.description or ""), taken


class TiffPages:
    """Pixels of pages, with the last few files kept open. Any thread; one lock a file while finding, none while decoding."""

    def __init__(self):
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, page: int) -> np.ndarray:
        """(height, width) array of the page's own type. Raises DamagedSlideError, or AcquisitionError for colour pages."""
        with _named_errors(path), self._borrowed(path) as file:
            with file.tiff.filehandle.lock:  # the one that reading pixels takes: both move the same place in the file
                if page >= len(file.tiff.pages):
                    raise DamagedSlideError(f"has no page {page}: it holds {len(file.tiff.pages)}", location=path)
                found = file.tiff.pages[page]
                facts = _facts(found, path)
            _check_extent(found, file.tiff.filehandle.size, path)
            return found.asarray(maxworkers=1).reshape(facts.shape)

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            files, self._open = list(self._open.values()), OrderedDict()
            idle = [file for file in files if _retire(file)]
        for file in idle:
            file.tiff.close()

    @contextlib.contextmanager
    def _borrowed(self, path: Path) -> Iterator[_OpenFile]:
        with self._lock:
            file = self._open.get(path)
            if file is not None:
                self._open.move_to_end(path)
                file.users += 1
        if file is None:
            file = self._opened(path)
        try:
            yield file
        finally:
            with self._lock:
                file.users -= 1
                done = file.retired and file.users == 0
            if done:
                file.tiff.close()

    def _opened(self, path: Path) -> _OpenFile:
        new = _OpenFile(tifffile.TiffFile(path))
        new.tiff.filehandle.set_lock(True)
        with self._lock:
            other = self._open.get(path)
            if other is not None:  # two threads opened it at the same time
                other.users += 1
            else:
                new.users = 1
                self._open[path] = new
            idle = []
            while len(self._open) > FILES_KEPT_OPEN:
                oldest = self._open.popitem(last=False)[1]
                idle += [oldest] if _retire(oldest) else []
        if other is not None:
            idle.append(new)
        for file in idle:
            file.tiff.close()
        return other or new


class _OpenFile:
    def __init__(self, tiff: tifffile.TiffFile):
        self.tiff = tiff
        self.users = 0
        self.retired = False


def _retire(file: _OpenFile) -> bool:
    """Mark a file as no longer wanted; whether nobody is reading it."""
    file.retired = True
    return file.users == 0


def _facts(page: tifffile.TiffPage, path: Path) -> PageFacts:
    shape = tuple(size for size in page.shape if size != 1) if len(page.shape) > 2 else page.shape
    if len(shape) != 2:
        raise AcquisitionError(
            f"page {page.index} is {page.shape} ({page.axes}), not one grey plane; save each colour as a channel of its own",
            location=path,
        )
    if page.dtype is None:
        raise AcquisitionError(f"page {page.index} has {page.bitspersample} bits a sample, which cannot be read", location=path)
    return PageFacts((int(shape[0]), int(shape[1])), np.dtype(page.dtype))


def _check_extent(page: tifffile.TiffPage, file_size: int, path: Path) -> None:
    """A strip beyond the end of the file would be filled up silently: refuse it."""
    end = max((offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > file_size:
        raise DamagedSlideError(
            f"is truncated: page {page.index} ends at byte {end}, but the file has {file_size}; copy it again from its source",
            location=path,
        )


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except SlideError:
        raise
    except FileNotFoundError as error:
        raise DamagedSlideError("the file is not there any more", location=path) from error
    except PermissionError as error:
        raise DamagedSlideError("the file may not be read (no permission)", location=path) from error
    except Exception as error:  # tifffile raises what its parsers and codecs raise
        if "imagecodecs" in str(error):
            raise AcquisitionError(
                f"{error}; install it with: pip install 'rawmosaic[tiff]'",
                location=path,
            ) from error
        size = os.path.getsize(path) if os.path.exists(path) else 0
        raise DamagedSlideError(f"cannot be read as TIFF ({size} bytes): {error}", location=path) from error


def _first_pixels(tiff: tifffile.TiffFile) -> dict[str, str]:
    """Attributes of the first Pixels element of the OME-XML; none where there is no such element."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
    except ElementTree.ParseError:
        return {}
    pixels = root.find(".//{*}Pixels")
    return {} if pixels is None else dict(pixels.attrib)
