"""Which layout and codec of the file? Bytes on disk, time to write, and time to read a 1:1 view and an overview."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc
import h5py
import numpy as np

from benchmarks.data import specimen_planes
from benchmarks.harness import Figure, Result, median_ms, timed
from rawmosaic.storage import codec
from rawmosaic.storage.pyramid import Tiling, reduce_plane

QUESTION = __doc__
N_FIELDS = 16
VIEW = (720, 1280)
CODECS = {
    "LZ4 + byte-shuffle": ("lz4", 5, blosc.SHUFFLE),
    "LZ4 + bit-shuffle": ("lz4", 5, blosc.BITSHUFFLE),
    "Zstd 1 + bit-shuffle": ("zstd", 1, blosc.BITSHUFFLE),
    "Zstd 3 + bit-shuffle": ("zstd", 3, blosc.BITSHUFFLE),
}
TILES = {"128": (130, 144), "256": (260, 280), "512": (520, 464), "plane": (1040, 1392)}


def run() -> Result:
    """Every codec at the chosen tile, every tile size at the chosen codec, and how whole layers are arranged."""
    planes = np.stack([specimen_planes(field, columns=4) for field in range(N_FIELDS)])
    figures = [figure for name, how in CODECS.items() for figure in _codec_figures(name, how, planes)]
    figures += [figure for name, shape in TILES.items() for figure in _tile_figures(name, shape, planes)]
    figures += _overview_figures(planes)
    figures += _index_figures(planes)
    return Result("layouts", QUESTION, tuple(figures))


def _codec_figures(name: str, how: tuple, planes: np.ndarray) -> list[Figure]:
    tiles = _tiles(planes, TILES["256"])[:1200]
    raw = sum(tile.nbytes for tile in tiles)
    packed = [codec.compress(tile, *how) for tile in tiles]
    compress = min(timed(lambda: [codec.compress(tile, *how) for tile in tiles], 3, 0))
    out = np.empty(TILES["256"], np.uint16)
    decode = min(timed(lambda: [codec.decode_into(data, out) for data in packed], 3, 1))
    both = min(timed(lambda: _in_threads(lambda data: codec.decode_into(data, _own_tile()), packed), 3, 1))
    size = sum(map(len, packed)) / raw
    return [
        Figure(f"{name}: bytes on disk", 100 * size, "% of raw"),
        Figure(f"{name}: compress", raw / compress / 1e9, "GB/s", note="one thread"),
        Figure(f"{name}: decode", raw / decode / 1e9, "GB/s", note="one thread"),
        Figure(f"{name}: decode", raw / both / 1e9, "GB/s", note=f"{os.cpu_count()} threads"),
    ]


def _tile_figures(name: str, shape: tuple[int, int], planes: np.ndarray) -> list[Figure]:
    """A 1:1 view of 1280 × 720 at a random place of one field: bytes that must be read and decoded, and the time."""
    per_plane = [codec.compress(tile) for tile in _tiles(planes[:1, :1], shape)]
    columns = -(-planes.shape[3] // shape[1])
    generator = np.random.default_rng(0)
    touched = []
    for _ in range(200):
        y0, x0 = (int(generator.integers(0, size)) for size in shape)
        across = -(-(x0 + VIEW[1]) // shape[1])
        down = -(-(y0 + VIEW[0]) // shape[0])
        touched.append(across * down)
    out = np.empty(shape, np.uint16)
    n_tiles = round(float(np.mean(touched)) * planes.shape[1])
    work = list(itertools.islice(itertools.cycle(per_plane), n_tiles))
    ms = median_ms(timed(lambda: [codec.decode_into(data, out) for data in work], 9, 2))
    return [
        Figure(
            f"tile {name} ({shape[0]} × {shape[1]}, {columns} across): decode a 1:1 view in four channels", ms, note="one thread"
        ),
        Figure(
            f"tile {name}: pixels decoded ÷ pixels on screen",
            n_tiles * shape[0] * shape[1] / planes.shape[1] / VIEW[0] / VIEW[1],
            "",
        ),
    ]


def _overview_figures(planes: np.ndarray) -> list[Figure]:
    """The layer reduced by 16, field by field against packed tiles."""
    tiling = Tiling.of(planes.shape[2:], tile_shape=TILES["256"])
    level = tiling.factors.index(16)
    cut = tiling.levels[level]
    small = [reduce_plane(plane, tiling.factors)[level] for plane in planes.reshape(-1, *planes.shape[2:])]
    crumbs = [codec.compress(np.ascontiguousarray(plane)) for plane in small]
    packed = []
    for first in range(0, len(small), cut.fields_per_tile):
        tile = np.zeros(tiling.tile_shape, np.uint16)
        for slot, plane in enumerate(small[first : first + cut.fields_per_tile]):
            row, column = cut.slot_origin(slot)
            tile[row : row + plane.shape[0], column : column + plane.shape[1]] = plane
        packed.append(codec.compress(tile))
    crumb, tile = np.empty(cut.plane_shape, np.uint16), np.empty(tiling.tile_shape, np.uint16)
    per_field = 1e3 * min(timed(lambda: [codec.decode_into(data, crumb) for data in crumbs], 9, 2))
    together = 1e3 * min(timed(lambda: [codec.decode_into(data, tile) for data in packed], 9, 2))
    return [
        Figure("overview at 1/16, a chunk per field: decode", per_field * 418 * 4 / len(small), note="scaled to 418 fields × 4"),
        Figure("overview at 1/16, packed: decode", together * 418 * 4 / len(small), note="scaled to 418 fields × 4"),
        Figure("overview at 1/16, a chunk per field: chunks", 418 * 4, "chunks"),
        Figure("overview at 1/16, packed: chunks", -(-418 // cut.fields_per_tile) * 4, "chunks"),
    ]


def _index_figures(planes: np.ndarray) -> list[Figure]:
    """How a tile is found and read: a dimension per axis through HDF5, a linear list of tiles, our chunk index."""
    shape = TILES["256"]
    tiles = [codec.compress(tile) for tile in _tiles(planes[:, :1], shape)]
    grid = (planes.shape[2] // shape[0], -(-planes.shape[3] // shape[1]))
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layout.h5"
        with h5py.File(path, "w", libver="latest") as file:
            opts = {"chunks": (1, *shape), "compression": 32001, "compression_opts": (2, 2, 2, shape[0] * shape[1] * 2, 5, 2, 1)}
            import hdf5plugin  # noqa: F401  registers the filter

            full = (len(planes), grid[0] * shape[0], grid[1] * shape[1])
            start = time.perf_counter()
            axes = file.create_dataset("axes", full, np.uint16, maxshape=(None, *full[1:]), **opts)
            for number, data in enumerate(tiles):
                field, within = divmod(number, grid[0] * grid[1])
                row, column = divmod(within, grid[1])
                axes.id.write_direct_chunk((field, row * shape[0], column * shape[1]), data)
            figures.append(Figure("write: a dimension per axis", 1e6 * (time.perf_counter() - start) / len(tiles), "µs a tile"))
            start = time.perf_counter()
            linear = file.create_dataset("linear", (len(tiles), *shape), np.uint16, maxshape=(None, *shape), **opts)
            for number, data in enumerate(tiles):
                linear.id.write_direct_chunk((number, 0, 0), data)
            figures.append(Figure("write: linear list of tiles", 1e6 * (time.perf_counter() - start) / len(tiles), "µs a tile"))
        figures += _reading_figures(path, tiles, shape, grid)
    return figures


def _reading_figures(path: Path, tiles: list[bytes], shape: tuple[int, int], grid: tuple[int, int]) -> list[Figure]:
    out = np.empty(shape, np.uint16)
    raw = len(tiles) * out.nbytes
    with h5py.File(path) as file:
        axes, linear = file["axes"], file["linear"]
        index: list[tuple[int, int]] = []
        linear.id.chunk_iter(lambda chunk: index.append((chunk.byte_offset, chunk.size)))
        places = [
            (field, slice(row * shape[0], (row + 1) * shape[0]), slice(column * shape[1], (column + 1) * shape[1]))
            for field in range(axes.shape[0])
            for row in range(grid[0])
            for column in range(grid[1])
        ]
        descriptor = os.open(path, os.O_RDONLY)

        def pread(place: tuple[int, int]) -> None:
            codec.decode_into(os.pread(descriptor, place[1], place[0]), _own_tile())

        ways = {
            "h5py slicing, a dimension per axis": lambda: [axes[place] for place in places],
            "h5py slicing, linear": lambda: [linear[number] for number in range(len(tiles))],
            "h5py direct chunk + Blosc": lambda: [
                codec.decode_into(linear.id.read_direct_chunk((number, 0, 0))[1], out) for number in range(len(tiles))
            ],
            "chunk index, pread + Blosc": lambda: [pread(place) for place in index],
            f"chunk index, pread + Blosc, {os.cpu_count()} threads": lambda: _in_threads(pread, index),
        }
        figures = [Figure(f"read all tiles: {name}", raw / min(timed(way, 3, 1)) / 1e9, "GB/s") for name, way in ways.items()]
        last = (axes.shape[0] - 1, (grid[0] - 1) * shape[0], (grid[1] - 1) * shape[1])
        found = 1e6 * min(timed(lambda: axes.id.get_chunk_info_by_coord(last), 9, 1))
        figures.append(Figure(f"HDF5's own look-up of one chunk among {len(tiles)}", found, "µs"))
        os.close(descriptor)
    return figures


def _tiles(planes: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """All tiles of (fields, channels, height, width) planes, padded at the edges."""
    tiles = []
    for plane in planes.reshape(-1, *planes.shape[2:]):
        for y, x in itertools.product(range(0, plane.shape[0], shape[0]), range(0, plane.shape[1], shape[1])):
            piece = plane[y : y + shape[0], x : x + shape[1]]
            tile = np.zeros(shape, np.uint16)
            tile[: piece.shape[0], : piece.shape[1]] = piece
            tiles.append(tile)
    return tiles


def _own_tile() -> np.ndarray:
    return np.empty(TILES["256"], np.uint16)


def _in_threads(function, items: list) -> None:
    n = os.cpu_count() or 1
    with ThreadPoolExecutor(n) as pool:
        list(pool.map(lambda part: [function(item) for item in part], [items[i::n] for i in range(n)]))
