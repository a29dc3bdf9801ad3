"""Slides to measure on, made once from the synthetic specimen and kept in the benchmark cache."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from benchmarks.harness import CACHE, say
from rawmosaic.storage import SlideWriter
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5.chunk_index import replace_chunk_index
from rawmosaic.storage.hdf5.overview import FROM_FIELDS, add_overview
from rawmosaic.storage.slide import new_fields, spatial_slots
from rawmosaic.storage.specimen import STAINS, camera_image, specimen_field

FIELD_SHAPE = (1040, 1392)
"""The camera of the paper that this project follows."""

PAPER_GRID = (22, 19)
"""Rows and columns: 418 fields."""

PIXEL_SIZE_UM = 0.1625
OVERLAP = 0.1


def specimen_planes(field: int, shape: tuple[int, int] = FIELD_SHAPE, columns: int = PAPER_GRID[1], seed: int = 1) -> np.ndarray:
    """(4, height, width) uint16: the camera images of one field of a regular grid, with 12-bit noise."""
    row, column = divmod(field, columns)
    y0, x0 = (round(index * size * (1 - OVERLAP)) for index, size in zip((row, column), shape, strict=True))
    generator = np.random.default_rng((seed, field))
    return np.stack([camera_image(specimen_field(x0, y0, *shape, channel, seed), generator) for channel in range(len(STAINS))])


def grid_fields(rows: int, columns: int, shape: tuple[int, int] = FIELD_SHAPE, seed: int = 1) -> np.ndarray:
    """The field table of a grid with 10 % overlap and stage positions off by up to a few pixels."""
    fields = new_fields(rows * columns, shape)
    row, column = np.divmod(np.arange(rows * columns), columns)
    jitter = np.random.default_rng(seed).uniform(-4, 4, (rows * columns, 2))
    fields["row"], fields["column"] = row, column
    fields["x_um"] = (column * shape[1] * (1 - OVERLAP) + 0.5 * shape[1] + jitter[:, 0]) * PIXEL_SIZE_UM
    fields["y_um"] = (row * shape[0] * (1 - OVERLAP) + 0.5 * shape[0] + jitter[:, 1]) * PIXEL_SIZE_UM
    fields["slot"] = spatial_slots(np.stack([fields["x_um"], fields["y_um"]], axis=-1))
    return fields


def grid_slide(rows: int, columns: int) -> Path:
    """A slide of rows × columns fields in four colours, every pixel its own (5 GB of pixels for the paper's 418 fields)."""
    path = CACHE / f"grid-{rows}x{columns}.h5"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    say(f"making {path.name}: {rows * columns} fields × {len(STAINS)} channels …")
    fields = grid_fields(rows, columns)
    with (
        SlideWriter(path, field_shape=FIELD_SHAPE, channels=STAINS, pixel_size_um=PIXEL_SIZE_UM, fields=fields) as writer,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for field, planes in enumerate(pool.map(lambda field: specimen_planes(field, columns=columns), range(len(fields)))):
            for channel, plane in enumerate(planes):
                writer.write_plane(plane, channel, field=field)
    return path


def paper_slide() -> Path:
    """418 fields of 1392 × 1040 in four colours, as in the paper."""
    return grid_slide(*PAPER_GRID)


def large_slide(n_fields: int) -> Path:
    """A slide of any number of fields whose tables and chunk index have full size, while its chunks are those of a few fields.

    Fields share the chunks of a 10 × 10 slide through the chunk index; the cost of finding, planning, reading, decoding and
    drawing is that of `n_fields`, the file is small enough to make and to keep in the page cache.
    """
    path = CACHE / f"shared-{n_fields}.h5"
    if path.exists():
        return path
    source = grid_slide(10, 10)
    say(f"making {path.name} …")
    columns = round((n_fields * FIELD_SHAPE[0] / FIELD_SHAPE[1]) ** 0.5)
    fields = grid_fields(-(-n_fields // columns), columns)[:n_fields]
    fields["slot"] = spatial_slots(np.stack([fields["x_um"], fields["y_um"]], axis=-1))
    part = path.with_suffix(".part")
    part.write_bytes(source.read_bytes())
    with h5py.File(part, "r+", libver="latest") as file:
        n_source = file[fmt.FIELDS].shape[0]
        file[fmt.FIELDS].resize(n_fields, axis=0)
        file[fmt.FIELDS][:] = fields
        for name in (fmt.ACQUIRED, fmt.CHECKSUMS):
            table = file[name][:]
            file[name].resize(n_fields, axis=0)
            file[name][:] = table[np.arange(n_fields) % n_source]
        for level in list(file[fmt.CHUNK_INDEX]):
            old = file[fmt.CHUNK_INDEX][level][:]
            shape = file[fmt.level_name(int(level))].shape
            per_major = len(old) // shape[0]
            packed = shape[0] != n_source
            majors = -(-n_fields // -(-n_source // shape[0])) if packed else n_fields
            if packed:
                majors = _pack_count(file, int(level), n_fields)
            # the last tile of a packed layer is only part full, so it is left out where there are others
            usable = max(1, shape[0] - 1) if packed else shape[0]
            rows = old.reshape(shape[0], per_major, 2)[np.arange(majors) % usable].reshape(-1, 2)
            replace_chunk_index(file, int(level), rows)
    if n_fields >= FROM_FIELDS:
        say("  … and its overview")
        add_overview(part)
    part.rename(path)
    return path


def _pack_count(file: h5py.File, level: int, n_fields: int) -> int:
    from rawmosaic.storage.pyramid import Tiling

    attributes = file.attrs
    tiling = Tiling.of(tuple(attributes["field_shape"]), tuple(attributes["levels"]), tuple(attributes["tile_shape"]))
    return tiling.tile_count(level, n_fields)
