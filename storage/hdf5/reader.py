"""A virtual slide file as a `Slide`: chunk addresses from the file's own index, bytes read and decoded outside HDF5."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import MappingProxyType

import h5py
import numpy as np

from rawmosaic.storage import codec
from rawmosaic.storage.errors import (
    DamagedSlideError,
    FormatVersionError,
    NoLongerWantedError,
    NotASlideError,
    SlideError,
)
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.opening import is_virtual_slide
from rawmosaic.storage.positional_file import PositionalFile
from rawmosaic.storage.pyramid import TileKey, Tiling
from rawmosaic.storage.slide import FIELD_DTYPE, PositionSet, Slide

_INDEX_BLOCK_ROWS = 256
_INDEX_BLOCKS_KEPT = 4096

_RUN_NBYTES = 1 << 20
"""At most so many bytes are read at once, for tiles that lie one after the other."""

_RUN_GAP_NBYTES = 4096
"""What HDF5 may have put between two of them is read as well."""


class Hdf5Slide(Slide):
    """A virtual slide opened for reading, finished or still being written.

    h5py is asked for the small tables only. Tiles are found through the chunk index that the writer left, read at their
    file offset and decoded in the calling thread; HDF5's lock is not taken. A file without index (still being written,
    or copied by another HDF5 tool) is read through HDF5, chunk by chunk. `group` is where in the file the slide lies.
    """

    def __init__(self, path: str | os.PathLike, group: str = "/"):
        path = os.fspath(path)
        self._file = _open(path)
        self._bytes = None
        self._overview: Hdf5Slide | None = None
        self._known_as: str | None = None
        self._closed = False  # asked for every tile: h5py's own answer would wait for its lock
        try:
            self._bytes = PositionalFile(path)
            self._root = self._file[group]
            facts = _facts(self._root, path)
            super().__init__(location=path, **facts)
            self._datasets = self._layer_datasets()
            self._check_tables()
            self._index = {level: self._index_of(level) for level in self._datasets}
        except SlideError:
            self.close()
            raise
        except Exception as error:  # h5py raises OSError, KeyError, ValueError, RuntimeError for damaged metadata
            self.close()
            raise DamagedSlideError(f"the slide's tables cannot be read: {error}", location=path) from error
        self._acquired: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()

    @property
    def overview(self) -> Hdf5Slide | None:
        """The reconstructed overview that the writer left in a slide of very many fields, opened when first asked for."""
        if self._overview is None and not self._closed and fmt.OVERVIEW in self._root:
            self._overview = Hdf5Slide(self.location, fmt.OVERVIEW)
        return self._overview

    @property
    def finished(self) -> bool:
        """Whether the writer closed the file properly."""
        return bool(self._root.attrs.get("finished", False))

    @property
    def stores_full_resolution(self) -> bool:
        """False for the zoom layers of an acquisition that is viewed in place."""
        return 0 in self._datasets

    @property
    def identity(self) -> str:
        """32 hexadecimal digits: the same for every copy of a file, others for other tiles. Computed when first asked for."""
        if self._known_as is None:
            try:
                self._known_as = self._content_hash()
            except DamagedSlideError:  # its tiles may be sound all the same
                self._known_as = super().identity
        return self._known_as

    def _content_hash(self) -> str:
        """Of all that decides what a tile holds; the planes themselves are known by their checksums."""
        tiling = self.tiling
        shapes = (tiling.field_shape, tiling.tile_shape, tiling.factors, len(self.channels), self.size_z, self.size_t)
        known = hashlib.blake2b(digest_size=16)
        known.update(repr((str(self._root.attrs.get("uuid", "")), self._root.name, shapes, sorted(self._datasets))).encode())
        for column in ("slot", "height", "width"):
            known.update(np.ascontiguousarray(self.fields[column]))
        n = self.n_fields
        acquired = self._table(fmt.ACQUIRED, np.s_[:n]) != 0
        known.update(np.packbits(acquired))
        known.update(np.where(acquired, self._table(fmt.CHECKSUMS, np.s_[:n]), 0).astype("<u4"))
        return known.hexdigest()

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist."""
        with self._lock:
            if (z, t) not in self._acquired:
                self._check_index("z", z, self.size_z)
                self._check_index("t", t, self.size_t)
                table = self._table(fmt.ACQUIRED, np.s_[: self.n_fields, :, z, t]) != 0
                table.flags.writeable = False
                self._acquired[z, t] = table
            return self._acquired[z, t]

    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of acquired pixels of a channel, as summed by the writer."""
        self.check_channel(channel)
        return self._table(fmt.TOTAL_HISTOGRAM, channel)

    def field_histogram(self, field: int, channel: int) -> np.ndarray:
        """(65536,) uint32 counts of one field and channel, all z and t together."""
        import hdf5plugin  # noqa: F401  registers the Blosc filter with HDF5

        self.check_plane(field, channel, 0, 0)
        return self._table(fmt.PLANE_HISTOGRAMS, (field, channel))

    def checksum(self, field: int, channel: int, z: int = 0, t: int = 0) -> int:
        """CRC-32 of the acquired plane's little-endian bytes, as the writer noted it."""
        self.check_plane(field, channel, z, t)
        return int(self._table(fmt.CHECKSUMS, (field, channel, z, t)))

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._closed = True
        if self._overview is not None:
            self._overview.close()
        if self._bytes is not None:
            self._bytes.close()
        if self._file:
            self._file.close()

    # tiles

    def read_tiles(
        self,
        keys: Sequence[TileKey],
        outs: Sequence[np.ndarray],
        wanted: Callable[[int], bool] = lambda _: True,
        urgent: bool = True,  # noqa: ARG002  nothing queues here
    ) -> list[Exception | None]:
        """Several tiles, most urgent first, each decoded into its `out`: for each None, or why it was not read. Any thread.

        Tiles that lie one after the other in the file, as those of a plane do, are read at once: a thread that reads has to
        wait for the GIL afterwards, and while others draw that may take longer than the reading.
        """
        outcomes: list[Exception | None] = [None] * len(keys)
        for run, places in self._runs(keys):
            chunks = None
            if len(places) > 1:
                run, places = _still_wanted(run, places, outcomes, wanted, self.location)
                chunks = self._read_run(places)
            for number, chunk in zip(run, chunks or [None] * len(run), strict=True):
                try:
                    if chunk is not None:
                        self._decode(chunk, keys[number], outs[number])
                    elif wanted(number):
                        self._read_tile(keys[number], outs[number])
                    else:
                        outcomes[number] = _no_longer_wanted(self.location)
                except Exception as error:  # whatever is wrong with one tile, the others go on
                    outcomes[number] = error
        return outcomes

    def read_encoded(self, key: TileKey) -> bytes | None:
        """One tile as it lies in the file, a Blosc buffer of tiling.tile_shape uint16; None where nothing was written."""
        return self._chunk(key)

    def _read_tile(self, key: TileKey, out: np.ndarray) -> None:
        chunk = self._chunk(key)
        if chunk is None:
            out[:] = 0
            return
        self._decode(chunk, key, out)

    def _decode(self, chunk: bytes | memoryview, key: TileKey, out: np.ndarray) -> None:
        try:
            if out.flags.c_contiguous:
                codec.decode_into(chunk, out)
            else:
                out[:] = codec.decoded(chunk, out.shape)
        except DamagedSlideError as error:
            raise DamagedSlideError(f"{_where(self, key)}: {error}", location=self.location) from error

    def _runs(self, keys: Sequence[TileKey]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Numbers of tiles that lie together in the file, and (offset, bytes) of each; the run with the most urgent tile first.

        A tile whose place is not known, or not to be trusted, is a run of its own without places.
        """
        placed, runs = [], []
        for number, key in enumerate(keys):
            try:
                place = self._address(key)
            except SlideError:  # is met again when the tile is read
                place = None
            if place is None or not place[1]:
                runs.append(([number], []))
            else:
                placed.append((place, number))
        first, end = 0, -1
        for (offset, size), number in sorted(placed):
            if 0 <= offset - end <= _RUN_GAP_NBYTES and offset + size - first <= _RUN_NBYTES and end >= 0:
                runs[-1][0].append(number)
                runs[-1][1].append((offset, size))
            else:
                runs.append(([number], [(offset, size)]))
                first = offset
            end = offset + size
        if len(runs) > 1:
            runs.sort(key=lambda run: min(run[0]))
        return runs

    def _read_run(self, places: list[tuple[int, int]]) -> list[memoryview] | None:
        """The compressed bytes of tiles that lie together, read at once; None where that fails: one by one tells which."""
        if not places:
            return None
        start, end = places[0][0], sum(places[-1])
        try:
            data = memoryview(self._bytes.read(start, end - start))
        except SlideError:
            return None
        return [data[offset - start : offset - start + size] for offset, size in places]

    def _address(self, key: TileKey) -> tuple[int, int] | None:
        """(offset, bytes) of a tile by the file's own index, (0, 0) where nothing was written; None without an index."""
        if self._closed:
            raise SlideError("the slide is closed", location=self.location)
        if key.level not in self._datasets:
            raise DamagedSlideError(f"this file does not hold level {key.level}", location=self.location)
        index = self._index[key.level]
        if index is None:
            return None
        offset, size = index.find(fmt.chunk_row(self.tiling, key, len(self.channels), self.size_z, self.size_t))
        if size > 2 * self.tiling.tile_nbytes + 64:
            raise DamagedSlideError(f"{_where(self, key)}: the chunk index says {size} bytes", location=self.location)
        return offset, size

    def _chunk(self, key: TileKey) -> bytes | None:
        """The compressed bytes of a tile, or None where nothing was written."""
        place = self._address(key)
        if place is not None:
            return self._bytes.read(*place) if place[1] else None
        dataset = self._datasets[key.level]
        coordinates = fmt.chunk_coordinates(self.tiling, key)
        if coordinates[0] >= dataset.shape[0]:
            return None
        try:
            return dataset.id.read_direct_chunk(coordinates)[1]
        except (OSError, RuntimeError, MemoryError):  # what h5py raises for a chunk that was never written (0 bytes)
            return None

    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        return self._assembled_plane(field, channel, z, t, 0)

    def _read_level(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        return self._assembled_plane(field, channel, z, t, level)

    # tables

    def _table(self, name: str, rows: object) -> np.ndarray:
        """Part of a table; HDF5 checks its checksum."""
        if self._closed:
            raise SlideError("the slide is closed", location=self.location)
        try:
            return self._root[name][rows]
        except (KeyError, IndexError, OSError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedSlideError(f"table /{name} cannot be read: {error}", location=self.location) from error

    def _check_tables(self) -> None:
        """Raise ValueError where tables and attributes contradict each other, before anything is allocated by their word."""
        tiling, fields, c = self.tiling, self.fields, len(self.channels)
        if self.size_z < 1 or self.size_t < 1:
            raise ValueError(f"size_z is {self.size_z} and size_t {self.size_t}")
        if not np.array_equal(np.sort(fields["slot"]), np.arange(len(fields))):
            raise ValueError("the slots of the fields are not a permutation")
        for side, largest in zip(("height", "width"), tiling.field_shape, strict=True):
            if len(fields) and not 0 <= fields[side].min() <= fields[side].max() <= largest:
                raise ValueError(f"a field's {side} is outside 0 to {largest}")
        if self.orientation.shape != (2, 2) or self.offsets_um.shape != (c, 2):
            raise ValueError("the orientation or the channel offsets have the wrong shape")
        for name in self.position_sets:
            placement = self.placement(name)
            offsets = placement.plane_offsets_um
            if placement.positions_um.shape != (len(fields), 2) or (offsets is not None and offsets.shape != (len(fields), c, 2)):
                raise ValueError(f"position set {name} has the wrong shape")
            tables = (placement.positions_um, placement.matrix_um, self.offsets_um, 0.0 if offsets is None else offsets)
            if not all(np.isfinite(table).all() for table in tables):
                raise ValueError(f"position set {name} holds what is no number")
            if not abs(np.linalg.det(placement.matrix_um)) > 0:
                raise ValueError(f"position set {name} gives pixels no size (pixel size {self.header.pixel_size_um} µm)")
        if self._root[fmt.ACQUIRED].shape[1:] != (c, self.size_z, self.size_t):
            raise ValueError("the table of acquired planes has the wrong shape")
        for level, dataset in self._datasets.items():
            shape = fmt.level_shape(tiling, level, len(fields), c, self.size_z, self.size_t)
            chunk = (1, 1, 1, 1, *tiling.tile_shape)
            if dataset.shape[1:] != shape[1:] or dataset.chunks != chunk or dataset.dtype != np.uint16:
                raise ValueError(f"level {level} is {dataset.dtype} {dataset.shape} in chunks of {dataset.chunks}")

    def _layer_datasets(self) -> dict[int, h5py.Dataset]:
        group = self._root[fmt.LEVELS]
        return {level: group[str(level)] for level in range(len(self.levels)) if str(level) in group}

    def _index_of(self, level: int) -> _ChunkIndex | None:
        name = f"{fmt.CHUNK_INDEX}/{level}"
        if name not in self._root:
            return None
        dataset = self._root[name]
        offset = dataset.id.get_offset()
        # a tool that copies the file moves the chunks; then the table's own place has changed as well
        if offset is None or offset != dataset.attrs.get("offset"):
            return None
        return _ChunkIndex(self._bytes, offset, dataset.shape[0])


class _ChunkIndex:
    """Chunk addresses of one layer, read from the file a block at a time: opening costs nothing, neighbours are found at once."""

    def __init__(self, file: PositionalFile, offset: int, n_rows: int):
        self._file, self._offset, self._n_rows = file, offset, n_rows
        self._blocks: OrderedDict[int, list[list[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, row: int) -> tuple[int, int]:
        """(offset, bytes) of a chunk; (0, 0) where nothing was written."""
        if row >= self._n_rows:
            return 0, 0
        number, within = divmod(row, _INDEX_BLOCK_ROWS)
        with self._lock:
            block = self._blocks.get(number)
        if block is None:
            first = number * _INDEX_BLOCK_ROWS
            rows = min(_INDEX_BLOCK_ROWS, self._n_rows - first)
            data = self._file.read(self._offset + first * fmt.INDEX_ROW_NBYTES, rows * fmt.INDEX_ROW_NBYTES)
            block = np.frombuffer(data, fmt.INDEX_DTYPE).reshape(-1, 2).tolist()
            with self._lock:
                self._blocks[number] = block
                if len(self._blocks) > _INDEX_BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
        offset, size = block[within]
        return offset, size


def _open(path: str) -> h5py.File:
    """The HDF5 file, following a writer (SWMR) where it was not closed; the slide errors otherwise."""
    if not os.path.exists(path):
        raise NotASlideError("there is no such file", location=path)
    if not is_virtual_slide(path):
        raise NotASlideError("the file is not HDF5, so it is not a virtual slide", location=path)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = str(error)
    if "unable to lock file" in reason:  # file servers without locks
        try:
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            reason = str(error)
    if "already open for write" in reason or "consistency flags" in reason:
        try:
            return h5py.File(path, "r", swmr=True)
        except OSError as error:
            reason = f"its writer did not finish it, and it cannot be followed either: {error}"
    raise DamagedSlideError(f"the HDF5 file cannot be opened ({reason})", location=path)


def _facts(file: h5py.Group, path: str) -> dict:
    """The arguments of `Slide.__init__` from the file's tables."""
    attributes = file.attrs
    if attributes.get("format") != fmt.FORMAT_NAME:
        raise NotASlideError("an HDF5 file, but not a virtual slide (its attribute `format` says otherwise)", location=path)
    version = tuple(int(part) for part in attributes["format_version"])
    if version[0] > fmt.FORMAT_VERSION[0]:
        raise FormatVersionError(
            f"format version {version[0]}.{version[1]} is newer than {fmt.FORMAT_VERSION[0]}.{fmt.FORMAT_VERSION[1]}, "
            "the newest this rawmosaic reads; update rawmosaic",
            location=path,
        )
    if not _sensible(attributes):
        raise ValueError("field_shape, tile_shape or levels make no sense")
    fields = file[fmt.FIELDS][: int(file[fmt.FIELDS].attrs.get("count", file[fmt.FIELDS].shape[0]))]
    channels = fmt.channels_from_json(attributes["channels"])
    field_shape = tuple(int(size) for size in attributes["field_shape"])
    factors = tuple(int(factor) for factor in attributes["levels"])
    tile_shape = tuple(int(size) for size in attributes["tile_shape"])
    return {
        "header": fmt.header_from_json(attributes["header"], json.loads(file[fmt.METADATA][()].tobytes() or b"{}")),
        "channels": channels,
        "fields": fields.astype(FIELD_DTYPE, copy=False),
        "position_sets": _position_sets(file, fields),
        "size_z": int(attributes["size_z"]),
        "size_t": int(attributes["size_t"]),
        "scenes": tuple(json.loads(attributes["scenes"])),
        "tiling": Tiling.of(field_shape, factors, tile_shape),
        "orientation": attributes["orientation"],
        "offsets_um": file[fmt.CHANNEL_OFFSETS][()],
    }


def _sensible(attributes: h5py.AttributeManager) -> bool:
    """Whether the shapes that everything else is computed from can be true."""
    factors = np.atleast_1d(attributes["levels"])
    shapes = [np.atleast_1d(attributes[name]) for name in ("field_shape", "tile_shape")]
    return all(shape.shape == (2,) and 0 < shape.min() <= shape.max() <= fmt.LONGEST_SIDE_PX for shape in shapes) and bool(
        factors[0] == 1 and (np.diff(factors.astype(np.int64)) > 0).all() and factors[-1] <= fmt.LONGEST_SIDE_PX
    )


def _position_sets(file: h5py.File, fields: np.ndarray) -> MappingProxyType:
    """Every position set; `stage` comes from the field table, which is never changed."""
    n = len(fields)
    offsets = file.get(fmt.PLANE_OFFSETS, {})

    def plane_offsets(name: str) -> np.ndarray | None:
        return offsets[name][:n] if name in offsets else None

    sets = {"stage": PositionSet(np.stack([fields["x_um"], fields["y_um"]], axis=-1), None, plane_offsets("stage"))}
    for name, dataset in file[fmt.POSITIONS].items():
        sets[name] = PositionSet(dataset[:n], dataset.attrs.get("matrix"), plane_offsets(name))
    return MappingProxyType(sets)


def _still_wanted(
    run: list[int],
    places: list[tuple[int, int]],
    outcomes: list[Exception | None],
    wanted: Callable[[int], bool],
    location: str,
) -> tuple[list[int], list[tuple[int, int]]]:
    """What is left of a run; the outcome of the others is noted."""
    kept = []
    for number, place in zip(run, places, strict=True):
        if wanted(number):
            kept.append((number, place))
        else:
            outcomes[number] = _no_longer_wanted(location)
    return [number for number, _ in kept], [place for _, place in kept]


def _no_longer_wanted(location: str) -> NoLongerWantedError:
    return NoLongerWantedError("the tile is no longer wanted", location=location)


def _where(slide: Slide, key: TileKey) -> str:
    cut = slide.tiling.levels[key.level]
    if cut.packed:
        first = key.index * cut.fields_per_tile
        fields = slide.field_of_slot[first : first + cut.fields_per_tile]
        place = f"fields {', '.join(map(str, fields[:8]))}{', …' if len(fields) > 8 else ''}"
    else:
        place = f"field {key.index // cut.tiles_per_field}, tile {key.index % cut.tiles_per_field}"
    return f"level {key.level}, {place}, channel {key.channel}, z {key.z}, t {key.t}"
