"""Does the writer keep up with bare compression and a bare file? Planes a second, with zoom layers, histograms and checksums."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.data import PIXEL_SIZE_UM, grid_fields, specimen_planes
from benchmarks.harness import CACHE, Figure, Result
from rawmosaic.storage import SlideWriter, codec
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.pyramid import Tiling, reduce_plane
from rawmosaic.storage.specimen import STAINS

QUESTION = __doc__
GRID = (8, 9)
SPECIMEN_FIELDS = 12
"""Fields that are made beforehand; the others repeat them, so that the planes fit into memory."""

REPEAT = 5


def run() -> Result:
    """72 fields of 1392 × 1040 in four colours: through `SlideWriter`, and as bare loops over the same tiles."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        specimen = list(pool.map(lambda field: specimen_planes(field, columns=GRID[1]), range(SPECIMEN_FIELDS)))
    CACHE.mkdir(parents=True, exist_ok=True)
    rounds = []
    for _ in range(REPEAT):  # one after the other, so that a busy disk meets both
        seconds, slide_nbytes = written_s(specimen, GRID)
        compress, write, bare_nbytes = bare_s(specimen, GRID, threads)
        rounds.append(((compress + write) / seconds, seconds, compress, write))
    _, seconds, compress, write = sorted(rounds)[REPEAT // 2]
    planes = GRID[0] * GRID[1] * len(STAINS)
    raw_gb = planes * specimen[0][0].nbytes / 1e9
    rate, floor = planes / seconds, planes / (compress + write)
    figures = (
        Figure("planes written", rate, "planes/s", floor=floor, target=0.8, at_least=True, note="1392 × 1040"),
        Figure("raw pixels written", raw_gb / seconds, "GB/s"),
        Figure("bare compression of the same tiles", raw_gb / compress, "GB/s", note=f"{threads} threads"),
        Figure("bare write and sync of the same bytes", bare_nbytes / 1e9 / write, "GB/s"),
        Figure("slide file", 1e2 * slide_nbytes / (raw_gb * 1e9), "% of raw"),
        Figure("compressed tiles alone", 1e2 * bare_nbytes / (raw_gb * 1e9), "% of raw"),
    )
    return Result("write", QUESTION, figures)


def written_s(specimen: list[np.ndarray], grid: tuple[int, int]) -> tuple[float, int]:
    """(seconds until the slide is closed and synced, bytes of its file)."""
    path = CACHE / "write.h5"
    shape = specimen[0].shape[1:]
    fields = grid_fields(*grid, shape)
    start = time.perf_counter()
    with SlideWriter(path, field_shape=shape, channels=STAINS, pixel_size_um=PIXEL_SIZE_UM, fields=fields) as writer:
        for field in range(len(fields)):
            for channel, plane in enumerate(specimen[field % len(specimen)]):
                writer.write_plane(plane, channel, field=field)
    seconds = time.perf_counter() - start
    nbytes = path.stat().st_size
    path.unlink()
    return seconds, nbytes


def bare_s(specimen: list[np.ndarray], grid: tuple[int, int], threads: int) -> tuple[float, float, int]:
    """(seconds to compress all tiles, seconds to write and sync them, bytes), tiles of all zoom layers cut beforehand."""
    n_fields = grid[0] * grid[1]
    tiling = Tiling.of(specimen[0].shape[1:])
    cut = [list(_tiles(plane, tiling)) for planes in specimen for plane in planes]
    per_field = len(STAINS)
    work = [cut[(field % len(specimen)) * per_field + channel] for field in range(n_fields) for channel in range(per_field)]

    def compress(tiles: list[np.ndarray]) -> list[bytes]:
        return [codec.compress(tile, *fmt.CODECS["lz4"]) for tile in tiles]

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        chunks = list(pool.map(compress, work))
        compressed = time.perf_counter() - start
    path = CACHE / "write.bin"
    start = time.perf_counter()
    nbytes = _write(path, chunks)
    seconds = time.perf_counter() - start
    path.unlink()
    return compressed, seconds, nbytes


def _write(path: Path, chunks: list[list[bytes]]) -> int:
    with open(path, "wb", buffering=0) as file:
        nbytes = sum(file.write(chunk) for plane in chunks for chunk in plane)
        os.fsync(file.fileno())
    return nbytes


def _tiles(plane: np.ndarray, tiling: Tiling) -> Iterator[np.ndarray]:
    """The tiles of a plane on all block layers; packed layers are left out, a hundredth of the bytes."""
    height, width = tiling.tile_shape
    for level, layer in enumerate(reduce_plane(plane, tiling.factors)):
        if tiling.levels[level].packed:
            return
        for y in range(0, layer.shape[0], height):
            for x in range(0, layer.shape[1], width):
                piece = layer[y : y + height, x : x + width]
                tile = np.zeros((height, width), np.uint16)
                tile[: piece.shape[0], : piece.shape[1]] = piece
                yield tile
