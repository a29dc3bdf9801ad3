"""A MetaXpress/ImageXpress plate: TIFFs named PLATE_WELL[_sSITE][_wWAVE], in TimePoint_N and ZStep_N folders.

Stage positions are read from the MetaSeries tag of each site's first file in every colour: µm, x right, y down (row A is at the
top of the plate, as stage y grows from A to H). Wells become scenes.

Every file is kept. In a z series, ZStep_0 is MetaXpress's projection and ZStep_1, 2 … are the slices; z has the number of the
folder, so z 0 shows the projection (what MetaXpress shows first) and the slices follow. `header.extra["z_steps"]` tells which is
which. Where no projection was exported, z 0 is the first slice.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError
from rawmosaic.storage.importers.acquisition import ImportOptions, RawAcquisition, file_stats
from rawmosaic.storage.importers.arranging import PlaneRecord, arrange
from rawmosaic.storage.importers.placing import how_to_place
from rawmosaic.storage.importers.source import AcquisitionSource
from rawmosaic.storage.importers.tiff_pages import open_tiff, survey
from rawmosaic.storage.slide import Channel, Header

DEEPEST_FOLDER = 6
_GUID = r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}"
_FILE = re.compile(
    rf"^(?P<plate>.+)_(?P<well>[A-Z]{{1,2}}\d{{2}})(?:_s(?P<site>\d+))?(?:_w(?P<wave>\d{{1,2}}?))?(?P<guid>{_GUID})?\.tiff?$",
    re.IGNORECASE,
)
_FOLDER = re.compile(r"^(TimePoint|ZStep)_(\d+)$", re.IGNORECASE)
_PROPERTY = re.compile(r'<(?:prop|custom-prop) id="(?P<name>[^"]*)" type="(?P<type>[^"]*)" value="(?P<value>[^"]*)"')


def recognise(path: Path) -> int:
    """A plate folder, a folder above one, or its .HTD file."""
    if path.is_file():
        return 9 if path.suffix.lower() == ".htd" else 0
    entries = list(_first_entries(path))
    if _looks_like_plate(entries) or (_FOLDER.match(path.resolve().name) and any(_FILE.match(entry.name) for entry in entries)):
        return 9
    if any(_looks_like_plate(list(_first_entries(entry))) for entry in entries[:50] if entry.is_dir()):
        return 5
    named = [entry for entry in entries if _FILE.match(entry.name)]
    return 6 if named and _is_metaseries(named[0]) else 0


def acquire(path: Path, options: ImportOptions) -> RawAcquisition:
    """The acquisition in a plate folder, or in one TimePoint or ZStep folder of it."""
    folder = path.parent if path.is_file() else path
    found = sorted(
        _only_plate(_images(folder), path), key=lambda image: (image.time, image.z, image.well, image.site, image.wave)
    )
    files = [image.path for image in found]
    facts = survey(files, [size for size, _ in file_stats(files, path)])
    plate = found[0].plate_folder
    sheet = _sheet(plate)
    waves = sorted({image.wave for image in found})
    wells = sorted({image.well for image in found}, key=lambda well: (len(well), well))
    times = sorted({image.time for image in found})
    steps = sorted({image.z for image in found})
    tags: dict[tuple[str, int, int], dict[str, str]] = {}
    records = []
    for number, image in enumerate(found):
        site = image.well, image.site, image.wave
        if site not in tags:
            tags[site] = _stage_tag(image.path)
        tag = tags[site]
        row, column = int(_float(tag, "SiteY", 0)) - 1, int(_float(tag, "SiteX", 0)) - 1
        records.append(
            PlaneRecord(
                file=number,
                page=0,
                place=site[:2],
                channel=waves.index(image.wave),
                x_um=_float(tag, "stage-position-x"),
                y_um=_float(tag, "stage-position-y"),
                z_um=_float(tag, "z-position", 0.0),
                z=steps.index(image.z),
                t=times.index(image.time),
                row=row if column >= 0 else -1,
                column=column if row >= 0 else -1,
                scene=wells.index(image.well),
            )
        )
    arranged = arrange(records, [fact.shape for fact in facts], len(waves))
    firsts = {wave: next(tag for (_, _, w), tag in tags.items() if w == wave) for wave in waves}
    any_tag = firsts[waves[0]]
    return RawAcquisition(
        location=path,
        header=Header(
            name=plate.resolve().name,
            acquired_at=_iso_time(any_tag.get("acquisition-time-local", "")),
            pixel_size_um=options.pixel_size_um or _pixel_size_um(any_tag, files[0]),
            objective=any_tag.get("_MagSetting_", any_tag.get("ImageXpress Micro Objective", "")),
            assay=" / ".join(re.findall(r"[ -~]+", sheet.get("Description", ""))),
            extra={
                "source": "MetaXpress",
                "htd": sheet.get("text", ""),
                "metaseries": {str(wave): tag["verbatim"] for wave, tag in firsts.items()},
                "time_points": times,
                "z_steps": [_step_name(step, steps, sheet) for step in steps],
            },
        ),
        channels=[_channel(wave, firsts[wave], sheet) for wave in waves],
        fields=arranged.fields,
        files=files,
        planes=arranged.planes,
        dtype=facts[0].dtype,
        options=options,
        plane_offsets_um=arranged.plane_offsets_um,
        scenes=wells,
    )


source = AcquisitionSource(recognise, acquire)


@dataclass(frozen=True)
class _Image:
    path: Path
    plate_folder: Path
    plate: str
    well: str
    site: int
    wave: int
    time: int
    z: int


def _images(folder: Path) -> Iterator[_Image]:
    """Every image below a folder, thumbnails left out; times and z steps from the folders' names."""
    folder = folder.resolve()
    for place, below, names in os.walk(folder):
        here = Path(place)
        if len(here.relative_to(folder).parts) >= DEEPEST_FOLDER:
            below.clear()
        numbers, plate = {"timepoint": 1, "zstep": 0}, here
        while match := _FOLDER.match(plate.name):
            numbers[match[1].lower()] = int(match[2])
            plate = plate.parent
        for name in names:
            match = _FILE.match(name)
            if match and not name.lower().rpartition(".")[0].endswith("_thumb"):
                site, wave = int(match["site"] or 1), int(match["wave"] or 1)
                yield _Image(
                    here / name, plate, match["plate"], match["well"].upper(), site, wave, numbers["timepoint"], numbers["zstep"]
                )


def _only_plate(images: Iterator[_Image], path: Path) -> list[_Image]:
    found = list(images)
    if not found:
        raise AcquisitionError("no image named PLATE_WELL_sSITE_wWAVE.tif lies here or in the folders below", location=path)
    plates = sorted({(image.plate_folder, image.plate) for image in found})
    if len(plates) > 1:
        shown = ", ".join(str(folder.relative_to(folder.parent)) if folder != path else plate for folder, plate in plates[:8])
        raise AcquisitionError(f"holds {len(plates)} plates; open one of them: {shown}", location=path)
    return found


def _stage_tag(path: Path) -> dict[str, str]:
    """Properties of the MetaSeries tag, the tag itself under `verbatim`. Raises AcquisitionError where it has no position."""
    with open_tiff(path) as tiff:
        text = str(tiff.pages[0].description or "")
    tag = {match["name"]: html.unescape(match["value"]) for match in _PROPERTY.finditer(text)}
    if "stage-position-x" not in tag or "stage-position-y" not in tag:
        raise AcquisitionError(
            "has no MetaSeries tag with a stage position; export from MetaXpress as TIFF with its metadata, "
            f"or {how_to_place(path.name)}",
            location=path,
        )
    return {**tag, "verbatim": text}


def _float(tag: dict[str, str], name: str, default: float | None = None) -> float:
    try:
        return float(tag[name])
    except (KeyError, ValueError) as error:
        if default is not None:
            return default
        raise DamagedSlideError(f"MetaSeries property {name} is {tag.get(name)!r}, not a number") from error


def _pixel_size_um(tag: dict[str, str], path: Path) -> float:
    size = _float(tag, "spatial-calibration-x", 0.0)
    unit = tag.get("spatial-calibration-units", "").lower()
    if size <= 0 or unit not in ("um", "µm", "micron", "microns"):
        raise AcquisitionError(
            f"{path.name} is not calibrated in µm; give the pixel size with --pixel-size-um (pixel_size_um= in Python)",
            location=path,
        )
    return size


def _channel(wave: int, tag: dict[str, str], sheet: dict[str, str]) -> Channel:
    name = tag.get("_IllumSetting_") or sheet.get(f"WaveName{wave}") or tag.get("image-name") or f"w{wave}"
    exposure = re.match(r"\s*([\d.]+)\s*ms", tag.get("Exposure Time", ""))
    emission = _float(tag, "wavelength", 0.0)
    return Channel(name, emission_nm=emission or None, exposure_ms=float(exposure[1]) if exposure else None)


def _sheet(plate: Path) -> dict[str, str]:
    """The plate's .HTD file: its values by name, the file itself under `text`; nothing where there is none."""
    for path in sorted(plate.iterdir()):
        if path.suffix.lower() == ".htd":
            text = path.read_bytes().decode("latin-1")
            pairs = re.findall(r'^"([^"]*)",\s*"?(.*?)"?\s*$', text, re.MULTILINE)
            return {**dict(pairs), "text": text}
    return {}


def _step_name(step: int, steps: list[int], sheet: dict[str, str]) -> str:
    if step == 0 and len(steps) > 1 and sheet.get("ZSeries", "TRUE").upper() == "TRUE":
        return "projection (ZStep_0)"
    return f"ZStep_{step}" if len(steps) > 1 or step else "single plane"


def _iso_time(text: str) -> str:
    for form in ("%Y%m%d %H:%M:%S.%f", "%Y%m%d %H:%M:%S"):
        try:
            return datetime.strptime(text, form).isoformat()
        except ValueError:
            continue
    return ""


def _first_entries(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= 200:
                return
            yield Path(entry.path)


def _looks_like_plate(entries: list[Path]) -> bool:
    return any(_FOLDER.match(entry.name) and entry.is_dir() for entry in entries) or (
        any(entry.suffix.lower() == ".htd" for entry in entries) and any(_FILE.match(entry.name) for entry in entries)
    )


def _is_metaseries(path: Path) -> bool:
    try:
        with open_tiff(path) as tiff:
            return bool(tiff.is_metaseries)
    except (AcquisitionError, DamagedSlideError):
        return False
