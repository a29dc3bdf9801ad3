"""Helpers of the importer tests: small synthetic acquisitions on disk, and shifts measured by correlation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from rawmosaic.storage.importers.acquisition import PLANE_DTYPE, RawAcquisition
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide, specimen


def raw_of(truth: SyntheticSlide, folder: Path) -> RawAcquisition:
    """A raw acquisition of one file whose pages are the planes of a synthetic slide."""
    addresses = [
        (int(field), int(channel), z, t)
        for t in range(truth.size_t)
        for z in range(truth.size_z)
        for field, channel in np.argwhere(truth.acquired(z, t))
    ]
    file = folder / "planes.raw"
    if not file.exists():  # a second slide of the same acquisition finds the file unchanged
        file.write_bytes(b"one file")
    planes = np.array([(0, page, *address) for page, address in enumerate(addresses)], PLANE_DTYPE)
    sets = truth.all_position_sets
    return RawAcquisition(
        location=folder,
        header=truth.header,
        channels=truth.channels,
        fields=truth.fields,
        files=[file],
        planes=planes,
        read=lambda _, page: truth.read_plane(*addresses[page]).copy(),
        orientation=truth.orientation,
        offsets_um=truth.offsets_um,
        plane_offsets_um=sets.pop("stage").plane_offsets_um,
        other_sets=sets,
        scenes=truth.scenes,
    )


def cut(centre_px: tuple[float, float], shape: tuple[int, int] = (40, 60), channel: int = 0) -> np.ndarray:
    """(height, width) uint16 of one continuous specimen about a place in pixels, x right and y down."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.rint(specimen(x - shape[1] / 2 + centre_px[0], y - shape[0] / 2 + centre_px[1], channel)).astype(np.uint16)


def csv_folder(
    folder: Path, columns: str, lines: list[str], images: dict[str, np.ndarray], um_per_px: float | None = 0.5
) -> Path:
    """A folder of TIFFs with positions.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "positions.csv").write_text("\n".join([columns, *lines]) + "\n")
    for name, image in images.items():
        tags = {} if um_per_px is None else {"resolution": (1e4 / um_per_px, 1e4 / um_per_px), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / name, image, photometric="minisblack", **tags)
    return folder


def every_plane(slide: Slide):
    """(field, channel, z, t, pixels) of all planes."""
    for t in range(slide.size_t):
        for z in range(slide.size_z):
            for field, channel in np.argwhere(slide.acquired(z, t)):
                yield int(field), int(channel), z, t, slide.read_plane(int(field), int(channel), z, t)


def texture(plane: np.ndarray) -> np.ndarray:
    """Details of about 5 to 25 pixels: without noise and without the camera's vignetting, which does not move with the stage."""
    return _box_mean(plane.astype(float), 5) - _box_mean(plane.astype(float), 25)


def _box_mean(plane: np.ndarray, size: int) -> np.ndarray:
    padded = np.pad(plane, (size // 2 + 1, size // 2), mode="edge")
    sums = padded.cumsum(axis=0).cumsum(axis=1)
    return (sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]) / size**2


def best_shift(first: np.ndarray, second: np.ndarray, around: tuple[int, int], reach: int = 12) -> tuple[tuple[int, int], float]:
    """Where `second` lies in `first`'s pixels, ((x, y), correlation), looked for up to `reach` pixels about `around`."""
    best = ((0, 0), -2.0)
    height, width = first.shape
    first, second = texture(first), texture(second)
    for x in range(around[0] - reach, around[0] + reach + 1):
        for y in range(around[1] - reach, around[1] + reach + 1):
            a = first[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
            b = second[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
            if min(a.shape) < 8:
                continue
            a, b = a - a.mean(), b - b.mean()
            correlation = float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-12))
            if correlation > best[1]:
                best = ((x, y), correlation)
    return best
