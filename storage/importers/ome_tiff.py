"""OME-TIFF with plane positions, one file or many: each Image of the OME-XML is a field.

PositionX and PositionY are taken as stage positions of the image centre, x right, y down, in the unit the XML says. A folder, or
one file of a set, opens the whole set; files that only refer to a companion or to each other are followed by name.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError
from rawmosaic.storage.importers.acquisition import ImportOptions, RawAcquisition, file_stats
from rawmosaic.storage.importers.arranging import PlaneRecord, arrange
from rawmosaic.storage.importers.placing import how_to_place
from rawmosaic.storage.importers.source import AcquisitionSource
from rawmosaic.storage.importers.tiff_pages import TIFF_SUFFIXES, open_tiff, survey
from rawmosaic.storage.slide import Channel, Header

OME_SUFFIXES = (".ome.tif", ".ome.tiff", ".ome.btf", ".ome.tf2", ".ome.tf8")
COMPANION_SUFFIX = ".companion.ome"
_UM = {"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0}
_NO_UNIT = ("reference frame", "pixel")


def recognise(path: Path) -> int:
    """An OME-TIFF by name or by its description, a companion file, or a folder of them."""
    if path.is_dir():
        with os.scandir(path) as entries:
            return 6 if any(entry.name.lower().endswith((*OME_SUFFIXES, COMPANION_SUFFIX)) for entry in entries) else 0
    name = path.name.lower()
    if name.endswith((*OME_SUFFIXES, COMPANION_SUFFIX)):
        return 8
    if not name.endswith(TIFF_SUFFIXES):
        return 0
    try:
        with open_tiff(path) as tiff:
            return 7 if tiff.is_ome else 0
    except (AcquisitionError, DamagedSlideError):
        return 0


def acquire(path: Path, options: ImportOptions) -> RawAcquisition:
    """The acquisition in one OME-TIFF, in the set that a file belongs to, or in a folder."""
    texts = _descriptions(path)
    roots = {file: _parsed(text, file) for file, text in texts.items()}
    images = [_Image(element, file) for file, root in roots.items() for element in root.findall("{*}Image")]
    images = _without_repeats(images)
    if not images:
        raise AcquisitionError("the OME-XML describes no image", location=path)
    channels = _channels(images)
    names = [channel.name for channel in channels]
    _refuse_unplaced(images, path)
    file_number: dict[Path, int] = {}
    records = []
    for place, image in enumerate(images):
        for address in image.planes():
            x_um, y_um, z_um = image.position_um(address)
            records.append(
                PlaneRecord(
                    file=file_number.setdefault(address.file, len(file_number)),
                    page=address.page,
                    place=place,
                    channel=names.index(image.channel_names[address.channel]),
                    x_um=x_um,
                    y_um=y_um,
                    z_um=z_um,
                    z=address.z,
                    t=address.t,
                )
            )
    files = list(file_number)
    facts = survey(files, [size for size, _ in file_stats(files, path)])
    arranged = arrange(records, [fact.shape for fact in facts], len(channels))
    for field, image in zip(arranged.fields, images, strict=True):
        field["height"], field["width"] = image.shape
    size_um = options.pixel_size_um or images[0].pixel_size_um
    if size_um is None:
        raise AcquisitionError(
            "the OME-XML has no PhysicalSizeX; give the pixel size with --pixel-size-um (pixel_size_um= in Python)", location=path
        )
    first_root = next(iter(roots.values()))
    return RawAcquisition(
        location=path,
        header=Header(
            name=_name_of(path),
            acquired_at=images[0].text("AcquisitionDate"),
            pixel_size_um=size_um,
            objective=_objective(first_root),
            extra={"source": "OME-TIFF", "ome_xml": {file.name: text for file, text in texts.items()}},
        ),
        channels=channels,
        fields=arranged.fields,
        files=files,
        planes=arranged.planes,
        dtype=facts[0].dtype,
        options=options,
        plane_offsets_um=arranged.plane_offsets_um,
    )


source = AcquisitionSource(recognise, acquire)


@dataclass(frozen=True)
class _Address:
    """Where a plane of an Image lies: file, page, and which of its channels, z and t it is."""

    file: Path
    page: int
    channel: int
    z: int
    t: int


class _Image:
    """One Image element: a field."""

    def __init__(self, element: ElementTree.Element, file: Path):
        self.element, self.file = element, file
        pixels = element.find("{*}Pixels")
        if pixels is None:
            raise DamagedSlideError(f"image {element.get('ID')} has no Pixels", location=file)
        self.pixels = pixels
        try:
            self.size = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "XYZCT"}
        except ValueError as error:
            raise DamagedSlideError(f"image {element.get('ID')}: {error}", location=file) from error
        self.shape = self.size["Y"], self.size["X"]
        self.channel_elements = pixels.findall("{*}Channel")
        samples = [int(channel.get("SamplesPerPixel", 1)) for channel in self.channel_elements]
        if max(samples, default=1) > 1:
            raise AcquisitionError(
                f"image {element.get('ID')} is a colour picture; save each colour as a channel of its own", location=file
            )
        self.channel_names = [
            (self.channel_elements[n].get("Name") if n < len(self.channel_elements) else None) or f"channel {n}"
            for n in range(self.size["C"])
        ]
        if len(set(self.channel_names)) < len(self.channel_names):  # two of one name are still two
            self.channel_names = [f"{name} ({n})" for n, name in enumerate(self.channel_names)]

    @property
    def pixel_size_um(self) -> float | None:
        """PhysicalSizeX in µm."""
        size = self.pixels.get("PhysicalSizeX")
        return None if size is None else float(size) * _unit_um(self.pixels.get("PhysicalSizeXUnit", "µm"), self.file)

    def text(self, name: str) -> str:
        """Text of a child element, empty where there is none."""
        return (self.element.findtext(f"{{*}}{name}") or "").strip()

    def planes(self) -> Iterator[_Address]:
        """Every plane that TiffData elements place in a file; without any, all pages of this file in order."""
        order = self.pixels.get("DimensionOrder", "XYZCT")[2:]
        if sorted(order) != ["C", "T", "Z"]:
            raise DamagedSlideError(f"DimensionOrder is {self.pixels.get('DimensionOrder')!r}", location=self.file)
        total = self.size["Z"] * self.size["C"] * self.size["T"]
        blocks = self.pixels.findall("{*}TiffData")
        if not blocks:
            blocks = [ElementTree.Element("TiffData", IFD="0", PlaneCount=str(total))]
        for block in blocks:
            uuid = block.find("{*}UUID")
            named = uuid.get("FileName") if uuid is not None else None
            file = self.file.parent / named if named else self.file
            page = int(block.get("IFD", 0))
            first = [int(block.get(f"First{axis}", 0)) for axis in order]
            rest = total - _linear(first, order, self.size)
            count = int(block.get("PlaneCount", 1 if block.get("IFD") is not None else rest))
            for step in range(min(count, rest)):
                place = _unravelled(_linear(first, order, self.size) + step, order, self.size)
                yield _Address(file, page + step, place["C"], place["Z"], place["T"])

    @cached_property
    def positions_um(self) -> dict[tuple[int, int, int], tuple[float, float, float]]:
        """(channel, z, t) → (x, y, z) of the planes whose position is told; the StageLabel's if none is."""
        found = {}
        for plane in self.pixels.findall("{*}Plane"):
            if plane.get("PositionX") is not None and plane.get("PositionY") is not None:
                key = tuple(int(plane.get(f"The{axis}", 0)) for axis in "CZT")
                found[key] = tuple(self._length_um(plane, f"Position{axis}") for axis in "XYZ")
        label = self.element.find("{*}StageLabel")
        if not found and label is not None and label.get("X") is not None and label.get("Y") is not None:
            found[0, 0, 0] = tuple(self._length_um(label, axis) for axis in "XYZ")
        return found

    def position_um(self, address: _Address) -> tuple[float, float, float]:
        """Where a plane was measured; else where its channel's first plane was; else the image's first; else the origin."""
        table = self.positions_um
        told = table.get((address.channel, address.z, address.t)) or self._first_of_channel.get(address.channel)
        return told or next(iter(table.values()), (0.0, 0.0, 0.0))

    @cached_property
    def _first_of_channel(self) -> dict[int, tuple[float, float, float]]:
        return {channel: place for (channel, _, _), place in reversed(self.positions_um.items())}

    def _length_um(self, element: ElementTree.Element, name: str) -> float:
        text = element.get(name, "0")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise AcquisitionError(f"image {self.element.get('ID')}, {name} is {text!r}, not a number", location=self.file)
        unit = element.get(f"{name}Unit", "µm" if element.tag.endswith("Plane") else "reference frame")
        if unit in _NO_UNIT:  # what the specification calls unknown; pixels where it says so, else µm as everybody writes
            return value * (self.pixel_size_um or 1.0) if unit == "pixel" else value
        return value * _unit_um(unit, self.file)


def _refuse_unplaced(images: list[_Image], path: Path) -> None:
    nowhere = [image.element.get("ID", "?") for image in images if not image.positions_um]
    if nowhere and len(images) > 1:
        raise AcquisitionError(
            f"{len(nowhere)} of {len(images)} images have no position (PositionX, PositionY): {', '.join(nowhere[:5])}; "
            f"{how_to_place(images[0].file.name)}",
            location=path,
        )


def _ome_files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.lower().endswith((*OME_SUFFIXES, COMPANION_SUFFIX)):
            yield entry


def _descriptions(path: Path) -> dict[Path, str]:
    """The OME-XML of each file that has its own; a file that another one describes is left out, a companion is followed."""
    texts: dict[Path, str] = {}
    described: set[Path] = set()
    for file in list(_ome_files(path)) if path.is_dir() else [path]:
        if file in described or file in texts:
            continue
        text = _description(file)
        root = _parsed(text, file)
        reference = root.find("{*}BinaryOnly")
        if reference is not None:
            file = file.parent / reference.get("MetadataFile", "")
            if not file.is_file():
                raise AcquisitionError(f"its metadata file {file.name} is missing; put it back beside the images", location=path)
            if file in texts:
                continue
            text = _description(file)
            root = _parsed(text, file)
        texts[file] = text
        described |= {file.parent / uuid.get("FileName") for uuid in root.iter(f"{_namespace(root)}UUID") if uuid.get("FileName")}
    return texts


def _description(file: Path) -> str:
    if file.name.lower().endswith(COMPANION_SUFFIX):
        return file.read_text(encoding="utf-8")
    with open_tiff(file) as tiff:
        if not tiff.ome_metadata:
            raise AcquisitionError(f"has no OME-XML, so nothing says where it lies; {how_to_place(file.name)}", location=file)
        return tiff.ome_metadata


def _parsed(text: str, file: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DamagedSlideError(f"the OME-XML cannot be read: {error}", location=file) from error


def _namespace(root: ElementTree.Element) -> str:
    return root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""


def _without_repeats(images: list[_Image]) -> list[_Image]:
    """Every file of a set may describe the whole set: images whose first plane was seen already are dropped."""
    seen: set[tuple[Path, int]] = set()
    kept = []
    for image in images:
        first = next(image.planes(), None)
        if first is None or (first.file, first.page) in seen:
            continue
        seen.add((first.file, first.page))
        kept.append(image)
    return kept


def _channels(images: list[_Image]) -> list[Channel]:
    """The channels of all images, by name, in the order of their appearance."""
    found: dict[str, Channel] = {}
    for image in images:
        exposures = {int(p.get("TheC", 0)): _exposure_ms(p) for p in reversed(image.pixels.findall("{*}Plane"))}
        for number, name in enumerate(image.channel_names):
            if name in found:
                continue
            known = image.channel_elements[number] if number < len(image.channel_elements) else ElementTree.Element("Channel")
            found[name] = Channel(
                name,
                color=_color(known.get("Color")),
                excitation_nm=_wavelength_nm(known, "ExcitationWavelength"),
                emission_nm=_wavelength_nm(known, "EmissionWavelength"),
                exposure_ms=exposures.get(number),
            )
    return list(found.values())


def _color(text: str | None) -> str | None:
    """#rrggbb from OME's signed RGBA; white, its default, says nothing."""
    try:
        value = int(text or "-1") & 0xFFFFFFFF
    except ValueError:
        return None
    return None if value >> 8 == 0xFFFFFF else f"#{value >> 8:06x}"


def _wavelength_nm(channel: ElementTree.Element, name: str) -> float | None:
    text = channel.get(name)
    return None if text is None else float(text) * _UM.get(channel.get(f"{name}Unit", "nm"), 1e-3) * 1e3


def _exposure_ms(plane: ElementTree.Element) -> float | None:
    text = plane.get("ExposureTime")
    return None if text is None else float(text) * {"s": 1e3, "ms": 1.0, "µs": 1e-3}.get(plane.get("ExposureTimeUnit", "s"), 1e3)


def _objective(root: ElementTree.Element) -> str:
    objective = root.find("{*}Instrument/{*}Objective")
    if objective is None:
        return ""
    power, aperture = objective.get("NominalMagnification"), objective.get("LensNA")
    return objective.get("Model") or " ".join(part for part in (f"{power}x" if power else "", aperture or "") if part)


def _unit_um(unit: str, file: Path) -> float:
    if unit not in _UM:
        raise AcquisitionError(f"lengths are in {unit!r}, which cannot be turned into µm", location=file)
    return _UM[unit]


def _name_of(path: Path) -> str:
    name = path.resolve().name
    return next((name[: -len(suffix)] for suffix in (*OME_SUFFIXES, COMPANION_SUFFIX) if name.lower().endswith(suffix)), name)


def _linear(place: list[int], order: str, size: dict[str, int]) -> int:
    """Number of a plane in the dimension order, fastest axis first."""
    number, stride = 0, 1
    for value, axis in zip(place, order, strict=True):
        number, stride = number + value * stride, stride * size[axis]
    return number


def _unravelled(number: int, order: str, size: dict[str, int]) -> dict[str, int]:
    place = {}
    for axis in order:
        number, place[axis] = divmod(number, size[axis])
    return place
