"""Every name, dtype and version of the virtual slide file. No I/O; docs/format.md is the specification."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import MappingProxyType

import numpy as np

from rawmosaic.storage.pyramid import TileKey, Tiling
from rawmosaic.storage.slide import Channel, Header

FORMAT_NAME = "rawmosaic virtual slide"
FORMAT_VERSION = (1, 2)
"""(major, minor): a reader refuses a newer major, and ignores what a newer minor adds."""

FIELDS = "fields"
METADATA = "metadata"
POSITIONS = "positions"
PLANE_OFFSETS = "plane_offsets"
STAGE_OFFSETS = f"{PLANE_OFFSETS}/stage"
CHANNEL_OFFSETS = "channel_offsets"
ACQUIRED = "planes/acquired"
CHECKSUMS = "planes/checksum"
PLANE_METADATA = "plane_metadata"
METADATA_LINES = "planes/metadata"
PLANE_HISTOGRAMS = "histograms/planes"
TOTAL_HISTOGRAM = "histograms/total"
LEVELS = "levels"
OVERVIEW = "overview"
CHUNK_INDEX = "chunk_index"

INDEX_DTYPE = np.dtype("<u8")
INDEX_ROW_NBYTES = 2 * INDEX_DTYPE.itemsize
"""One row per chunk: (offset in the file, bytes); (0, 0) where nothing was written."""

LONGEST_SIDE_PX = 1 << 20
"""No field is wider or higher: a reader refuses what a damaged attribute says beyond."""

BLOSC_FILTER = 32001
CODECS = {"lz4": ("lz4", 5), "zstd": ("zstd", 3)}
"""Codec name → (Blosc compressor, level); both with bit-shuffle."""

FAST_CODEC = ("lz4", 1)
"""For planes that come faster than the chosen codec compresses; a buffer says itself what it was compressed with."""

METADATA_LINE_NBYTES = 64 << 10
"""No plane has more metadata: a reader looks no further for the end of a line."""


def level_name(level: int) -> str:
    """Where the planes of a zoom layer lie."""
    return f"{LEVELS}/{level}"


def level_shape(tiling: Tiling, level: int, n_fields: int, n_channels: int, size_z: int, size_t: int) -> tuple[int, ...]:
    """Shape of a layer's dataset: (fields, channels, z, t, height, width), whole tiles; packed layers have tiles for fields."""
    cut = tiling.levels[level]
    height, width = (count * side for count, side in zip(cut.grid, tiling.tile_shape, strict=True))
    return (n_fields if not cut.packed else tiling.tile_count(level, n_fields), n_channels, size_z, size_t, height, width)


def chunk_coordinates(tiling: Tiling, key: TileKey) -> tuple[int, ...]:
    """Where a tile begins in its layer's dataset."""
    cut = tiling.levels[key.level]
    major, minor = divmod(key.index, cut.tiles_per_field)
    row, column = divmod(minor, cut.grid[1])
    return (major, key.channel, key.z, key.t, row * tiling.tile_shape[0], column * tiling.tile_shape[1])


def chunk_row(tiling: Tiling, key: TileKey, n_channels: int, size_z: int, size_t: int) -> int:
    """The row of a tile in its layer's chunk index."""
    major, minor = divmod(key.index, tiling.levels[key.level].tiles_per_field)
    plane = ((major * n_channels + key.channel) * size_z + key.z) * size_t + key.t
    return plane * tiling.levels[key.level].tiles_per_field + minor


def header_json(header: Header) -> str:
    """The header without `extra`, which has a dataset of its own."""
    facts = {name: value for name, value in vars(header).items() if name != "extra"}
    return json.dumps(facts)


def header_from_json(text: str, extra: dict) -> Header:
    """The header from its attribute; names that a newer minor version added are ignored."""
    known = Header.__dataclass_fields__
    return Header(**{k: v for k, v in json.loads(text).items() if k in known}, extra=MappingProxyType(extra))


def channels_json(channels: tuple[Channel, ...]) -> str:
    """All channels as a JSON list."""
    return json.dumps([asdict(channel) for channel in channels])


def channels_from_json(text: str) -> tuple[Channel, ...]:
    """Channels from their attribute; names that a newer minor version added are ignored."""
    known = Channel.__dataclass_fields__
    channels = []
    for facts in json.loads(text):
        facts = {k: v for k, v in facts.items() if k in known}
        if facts.get("contrast_limits") is not None:
            facts["contrast_limits"] = tuple(facts["contrast_limits"])
        channels.append(Channel(**facts))
    return tuple(channels)
