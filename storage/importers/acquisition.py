"""A raw acquisition as a `Slide`: a table says which file holds which plane, one function reads it, the rest is here.

An importer builds the facts (header, channels, fields, the table of planes) and hands them over; see README.md of this
folder for how to add a format.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, OutOfRangeError
from rawmosaic.storage.importers.byte_cache import ByteCache
from rawmosaic.storage.importers.read_ahead import planes_in_order, read_ahead
from rawmosaic.storage.importers.tiff_pages import TiffPages
from rawmosaic.storage.placement import ORIENTATIONS, orientation_matrix
from rawmosaic.storage.slide import GREY_LEVELS, Channel, Header, PositionSet, Slide, spatial_slots

PLANE_DTYPE = np.dtype([("file", "<i4"), ("page", "<i4"), ("field", "<i4"), ("channel", "<i4"), ("z", "<i4"), ("t", "<i4")])
"""One row per acquired plane: index into the list of files, page in that file, and which plane it is."""

DECODED_NBYTES = 128 << 20
"""Decoded planes kept: a window at 1:1 asks for several tiles of each."""

ReadPage = Callable[[Path, int], np.ndarray]


@dataclass(frozen=True)
class ImportOptions:
    """What a user may say about any raw acquisition.

    pixel_size_um    instead of what the source says, if anything
    orientation      one of placement.ORIENTATIONS: image axes → mosaic axes
    camera_angle_deg clockwise turn of the images in the mosaic frame
    scale_float      (low, high): maps these values of floating-point planes to 0 and 65535
    """

    pixel_size_um: float | None = None
    orientation: str | None = None
    camera_angle_deg: float = 0.0
    scale_float: tuple[float, float] | None = None

    @classmethod
    def of(cls, given: Mapping[str, object], location: object) -> ImportOptions:
        """Checked options; raises AcquisitionError for unknown names and impossible values."""
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise AcquisitionError(
                    f"unknown option {name!r}; a raw acquisition takes {', '.join(sorted(known | {'in_place_cache'}))}",
                    location=location,
                )
        options = cls(**{name: value for name, value in given.items() if value is not None})
        size = options.pixel_size_um
        if size is not None and not (_is_number(size) and size > 0):
            raise AcquisitionError(f"pixel_size_um is {size!r}; give a positive number of µm", location=location)
        if not _is_number(options.camera_angle_deg):
            raise AcquisitionError(f"camera_angle_deg is {options.camera_angle_deg!r}; give degrees", location=location)
        if options.orientation is not None and options.orientation not in ORIENTATIONS:
            raise OutOfRangeError(
                "orientation", options.orientation, "choose one of " + ", ".join(ORIENTATIONS), location=location
            )
        if options.scale_float is not None:
            scale = tuple(options.scale_float)
            if len(scale) != 2 or not all(map(_is_number, scale)) or scale[0] == scale[1]:
                raise AcquisitionError(
                    f"scale_float is {options.scale_float!r}; give two numbers, low and high", location=location
                )
            options = replace(options, scale_float=(float(scale[0]), float(scale[1])))
        return options

    def matrix(self, native: np.ndarray | None = None) -> np.ndarray:
        """(2, 2) float64, image axes → mosaic axes: the user's orientation instead of the source's, then the camera angle."""
        if self.orientation is None and native is not None:
            return orientation_matrix("identity", self.camera_angle_deg) @ np.asarray(native, np.float64)
        return orientation_matrix(self.orientation or "identity", self.camera_angle_deg)


class RawAcquisition(Slide):
    """A raw acquisition read from its own files, nothing converted and nothing kept on disk.

    Parameters
    ----------
    location
        What the user opened.
    header, channels, fields, scenes
        As for any slide. `slot` of the fields is set here.
    files
        Every file that holds planes.
    planes
        Table of `PLANE_DTYPE`.
    dtype
        The pixels' type in the files. uint16 is kept; uint8 keeps its values and sets `header.bits` to 8; others need
        `scale_float`.
    options
        The user's; orientation and camera angle are applied here, the pixel size by the importer.
    orientation
        (2, 2) image axes → mosaic axes as the source tells them, or None for equal axes.
    offsets_um
        (n_channels, 2) added to every field of a channel, or None.
    plane_offsets_um
        (n, n_channels, 2) measured position of each plane minus the field's, or None.
    other_sets
        Position sets beside `stage`.
    read
        (file, page) → (height, width) array; TIFF pages if not given.
    close
        Gives back what `read` holds.

    Raises AcquisitionError where the table contradicts itself, a file is missing, or the type cannot be taken.
    """

    def __init__(
        self,
        *,
        location: str | os.PathLike,
        header: Header,
        channels: Sequence[Channel],
        fields: np.ndarray,
        files: Sequence[Path],
        planes: np.ndarray,
        dtype: np.dtype | type = np.uint16,
        options: ImportOptions | None = None,
        orientation: np.ndarray | None = None,
        offsets_um: np.ndarray | None = None,
        plane_offsets_um: np.ndarray | None = None,
        other_sets: Mapping[str, PositionSet] | None = None,
        scenes: Sequence[str] = (),
        read: ReadPage | None = None,
        close: Callable[[], None] | None = None,
    ):
        location = os.fspath(location)
        options = options or ImportOptions()
        self.files = [Path(file) for file in files]
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.options = options
        _check_dtype(self.dtype, options, location)
        self._stats = file_stats(self.files, location)
        if self.dtype == np.uint8:
            header = replace(header, bits=8)
        stage = np.stack([fields["x_um"], fields["y_um"]], axis=-1).astype(np.float64).reshape(-1, 2)
        fields = fields.copy()
        fields["slot"] = spatial_slots(stage)
        planes = np.asarray(planes, PLANE_DTYPE)
        if not len(planes):
            raise AcquisitionError("the acquisition has no plane", location=location)
        super().__init__(
            location=location,
            header=replace(header, extra=_as_json(header.extra)),
            channels=tuple(channels),
            fields=fields,
            position_sets={"stage": PositionSet(stage, plane_offsets_um=plane_offsets_um), **(other_sets or {})},
            size_z=int(planes["z"].max()) + 1,
            size_t=int(planes["t"].max()) + 1,
            scenes=tuple(scenes),
            orientation=options.matrix(orientation),
            offsets_um=offsets_um,
        )
        self._planes = planes
        self._plane_of = self._indexed(planes)
        self._pages = TiffPages() if read is None else None
        self._read_page = read or self._pages.read
        self._close = close
        self._decoded = ByteCache(DECODED_NBYTES)
        self._histograms: dict[int, np.ndarray] = {}
        self._histogram_lock = threading.Lock()

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist."""
        self.check_plane(0, 0, z, t)
        return self._plane_of[t, z] >= 0

    def load(self, field: int, channel: int, z: int = 0, t: int = 0) -> np.ndarray:
        """(height, width) uint16 from the file itself, not kept: for who reads everything once. Read-only where it is shared."""
        row = self._planes[self._plane_of[t, z, field, channel]]
        path, page = self.files[row["file"]], int(row["page"])
        pixels = self._read_page(path, page)
        where = f"page {page} (field {field}, channel {channel}, z {z}, t {t})"
        expected = int(self.fields["height"][field]), int(self.fields["width"][field])
        if pixels.shape != expected:
            raise DamagedSlideError(
                f"{where} is {pixels.shape[0]} × {pixels.shape[1]} pixels, but {expected[0]} × {expected[1]} were announced",
                location=path,
            )
        if pixels.dtype.newbyteorder("=") != self.dtype:
            raise DamagedSlideError(f"{where} holds {pixels.dtype}, but {self.dtype} was announced", location=path)
        return _as_counts(pixels, self.options.scale_float)

    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of all acquired pixels of a channel. The first call reads every plane of it."""
        self.check_plane(0, channel, 0, 0)
        with self._histogram_lock:
            if channel not in self._histograms:
                counts = np.zeros(GREY_LEVELS, np.uint64)
                wanted = [address for address in planes_in_order(self) if address[1] == channel]
                for _, plane in read_ahead(self.load, wanted):
                    if isinstance(plane, np.ndarray):  # a damaged file does not hide what the others hold
                        counts += np.bincount(plane.ravel(), minlength=GREY_LEVELS).astype(np.uint64)
                self._histograms[channel] = counts
            return self._histograms[channel].copy()

    def fingerprint(self) -> str:
        """Hash of all that the pixels depend on: the files with their sizes and times, the table, the scaling."""
        known = hashlib.sha256(repr((self.options.scale_float, self.size_z, self.size_t, len(self.channels))).encode())
        known.update(self._planes.tobytes())
        for column in ("slot", "height", "width"):
            known.update(np.ascontiguousarray(self.fields[column]).tobytes())
        for path, (size, modified_ns) in zip(self.files, self._stats, strict=True):
            known.update(f"{path.resolve()}\0{size}\0{modified_ns}\n".encode("utf-8", "surrogateescape"))
        return known.hexdigest()

    def close(self) -> None:
        """Close the files; closing twice is harmless."""
        self._decoded.clear()
        if self._pages is not None:
            self._pages.close()
        if self._close is not None:
            self._close()
            self._close = None

    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        def make() -> np.ndarray:
            plane = self.load(field, channel, z, t)
            plane.flags.writeable = False  # several readers share it
            return plane

        return self._decoded.get((field, channel, z, t), make)

    def _is_acquired(self, field: int, channel: int, z: int, t: int) -> bool:
        return bool(self._plane_of[t, z, field, channel] >= 0)

    def _indexed(self, planes: np.ndarray) -> np.ndarray:
        """(t, z, field, channel) int32 row of each plane in the table, -1 where none was acquired."""
        index = np.full((self.size_t, self.size_z, self.n_fields, len(self.channels)), -1, np.int32)
        address = planes["t"], planes["z"], planes["field"], planes["channel"]
        index[address] = np.arange(len(planes))
        twice = np.flatnonzero(index[address] != np.arange(len(planes)))
        if len(twice):
            row, other = planes[twice[0]], planes[index[tuple(axis[twice[0]] for axis in address)]]
            first, second = (f"{self.files[one['file']].name} page {one['page']}" for one in (row, other))
            raise AcquisitionError(
                f"{first} and {second} are both field {row['field']}, channel {self.channels[row['channel']].name}, "
                f"z {row['z']}, t {row['t']}",
                location=self.location,
            )
        return index


def file_stats(files: Sequence[Path], location: object) -> list[tuple[int, int]]:
    """(bytes, modification time in ns) of each file; raises AcquisitionError that lists what is missing."""
    stats, missing = [], []
    for path in files:
        try:
            status = os.stat(path)
            stats.append((status.st_size, status.st_mtime_ns))
        except OSError:
            missing.append(Path(path).name)
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise AcquisitionError(
            f"{len(missing)} of {len(files)} files of the acquisition are missing: {shown}; "
            "put them back, or take their lines out of the table",
            location=location,
        )
    return stats


def _check_dtype(dtype: np.dtype, options: ImportOptions, location: str) -> None:
    plain = dtype in (np.uint16, np.uint8)
    if plain and options.scale_float:
        raise AcquisitionError(
            f"scale_float is for floating-point planes; these are {dtype} and stay as they are", location=location
        )
    if not plain and dtype.kind not in "fiu":
        raise AcquisitionError(f"the planes hold {dtype}; rawmosaic takes uint16 and uint8", location=location)
    if not plain and not options.scale_float:
        raise AcquisitionError(
            f"the planes hold {dtype}, but rawmosaic keeps raw counts of 16 bits; say which values become 0 and 65535 with "
            "--scale-float LOW,HIGH (scale_float=(low, high) in Python)",
            location=location,
        )


def _as_counts(pixels: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """uint16, C-contiguous: the values themselves, or mapped linearly from (low, high) to (0, 65535); not-a-number is 0."""
    if scale is not None:
        low, high = scale
        mapped = np.clip((pixels.astype(np.float64) - low) * ((GREY_LEVELS - 1) / (high - low)), 0, GREY_LEVELS - 1)
        pixels = np.rint(np.nan_to_num(mapped))
    return np.ascontiguousarray(pixels, np.uint16)


def _as_json(extra: Mapping) -> dict:
    """What the source told, as JSON keeps it, so that a slide opened in place and an imported one say the same."""
    return json.loads(json.dumps(dict(extra), default=str))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and math.isfinite(value)
