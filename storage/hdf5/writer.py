"""Writing a virtual slide: planes in any order, with zoom layers, checksums and histograms made on the way.

`write_plane` copies the image and returns; worker threads reduce, count and compress it (Blosc releases the GIL), and
whoever finishes hands compressed chunks to HDF5 under one lock. The file grows under a temporary name and takes its
final one only when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from rawmosaic.storage import codec
from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError, SlideError, WriteError
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5.chunk_index import write_chunk_index
from rawmosaic.storage.hdf5.room import Room, give_back_unused
from rawmosaic.storage.histogram import grey_level_counts
from rawmosaic.storage.pyramid import TileKey, Tiling, reduce_plane
from rawmosaic.storage.slide import FIELD_DTYPE, GREY_LEVELS, Channel, Header, PositionSet, new_fields

_TABLE_ROWS = 1024
_TABLE_NBYTES = 1 << 20
_SLACK_NBYTES = 8 << 20
"""More than HDF5 may write on its own account between two planes: tables that grow, and what it kept in memory."""

_HDF5_NBYTES = 1024
"""More than HDF5 and the codec may add to a chunk."""

_GROW_FIELDS = 256
_OPEN_PACKS_NBYTES = 512 << 20
_PENDING_CHECKSUMS = 4096


class SlideWriter:
    """Writes one virtual slide file. Use it in a with-statement: an exception inside leaves nothing behind.

    Parameters
    ----------
    path
        The final name. While writing, the data lie beside it under ``NAME.part``.
    field_shape
        (height, width) of the largest field, pixels.
    channels
        Names, or `Channel` values.
    fields
        Table of `FIELD_DTYPE` when the fields are known beforehand (importers); then planes are written by field number, and
        the table's `slot` decides which fields share a packed tile. Without it fields come into being as they are written.
    position_sets
        Named sets beside `stage`; a set named `stage` gives measured offsets of single planes.
    tile_shape
        (height, width) of the tiles, as the fields divide evenly if not told.
    store_full_resolution
        False keeps zoom layers and histograms only, for an acquisition that is viewed in place.

    Raises WriteError where the file cannot be written, AcquisitionError for facts that no slide can have and for planes that
    contradict each other.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        field_shape: tuple[int, int],
        channels: Sequence[str | Channel],
        pixel_size_um: float = 1.0,
        header: Header | None = None,
        size_z: int = 1,
        size_t: int = 1,
        scenes: Sequence[str] = (),
        codec: str = "lz4",
        fields: np.ndarray | None = None,
        position_sets: Mapping[str, PositionSet] | None = None,
        orientation: np.ndarray | None = None,
        offsets_um: np.ndarray | None = None,
        store_full_resolution: bool = True,
        tile_shape: tuple[int, int] | None = None,
    ):
        if codec not in fmt.CODECS:
            raise OutOfRangeError("codec", codec, "choose one of " + ", ".join(fmt.CODECS))
        self.path = Path(path)
        self.channels = tuple(c if isinstance(c, Channel) else Channel(str(c)) for c in channels)
        self.header = header or Header(name=self.path.stem, pixel_size_um=float(pixel_size_um))
        self.size_z, self.size_t = size_z, size_t
        self.scenes = list(scenes)
        _check_facts(self.path, self.channels, self.header, tuple(field_shape), (size_z, size_t))
        _check_positions(self.path, fields, position_sets or {})
        self.tiling = Tiling.of(tuple(int(size) for size in field_shape), tile_shape=tile_shape)
        self._codec = fmt.CODECS[codec]
        self._levels = range(0 if store_full_resolution else 1, len(self.tiling.levels))
        self._planned = fields is not None
        self._fields = np.array(fields, FIELD_DTYPE) if self._planned else new_fields(0, (0, 0))
        self._n_fields = len(self._fields)
        self._position_sets = dict(position_sets or {})
        self._orientation = np.eye(2) if orientation is None else np.asarray(orientation, np.float64)
        self._offsets_um = np.zeros((len(self.channels), 2)) if offsets_um is None else np.asarray(offsets_um, np.float64)
        self._field_of_place: dict[tuple, int] = {}
        self._positions_of_planes: dict[tuple[int, int], tuple[float, float]] = {}
        self._written: set[tuple[int, int, int, int]] = set()
        self._totals = np.zeros((len(self.channels), GREY_LEVELS), np.uint64)
        self._checksums: dict[tuple[int, int, int, int], int] = {}
        self._histograms: dict[tuple[int, int], np.ndarray] = {}
        self._packs: OrderedDict[TileKey, tuple[np.ndarray, int]] = OrderedDict()
        self._stored_packs: set[TileKey] = set()
        self._table_lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._failure: BaseException | None = None
        workers = max(1, min(os.cpu_count() or 1, 8))
        self._room = threading.BoundedSemaphore(2 * workers)
        self._buffers: list[np.ndarray] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="slide-writer")
        self._part = self.path.with_name(self.path.name + ".part")
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}
        self._histogram_space = h5py.h5s.create_simple((1, 1, GREY_LEVELS))
        self._rows = 0
        self._room_ahead: Room | None = None
        try:
            if _is_being_written(self._part):
                self._stop()
                raise WriteError(f"another program is writing this slide: it has locked {self._part.name}", location=self.path)
            self._room_ahead = Room(self._part)
            self._file = h5py.File(self._part, "w", libver="latest")
            self._room_ahead.reach(_SLACK_NBYTES + self._totals.nbytes)
            self._create()
        except WriteError:
            raise
        except (OSError, RuntimeError) as error:
            self.abort()
            raise WriteError(f"cannot be created: {error}", location=self.path) from error

    # planes

    def write_plane(
        self,
        image: np.ndarray,
        channel: int,
        *,
        field: int | None = None,
        row: int | None = None,
        column: int | None = None,
        x_um: float | None = None,
        y_um: float | None = None,
        z_um: float = 0.0,
        scene: int | None = None,
        z: int = 0,
        t: int = 0,
    ) -> int:
        """Add one (height, width) uint16 plane; the caller may reuse `image` at once. Returns the field's number.

        The field is named by its number, or by (row, column, scene), or by its position alone. `x_um`, `y_um` is the centre of
        the image in the mosaic frame. A plane of a known field at another position is kept as that plane's measured offset.
        """
        self._raise_failure()
        if self._file is None:
            raise WriteError("the writer is closed; planes are written before close()", location=self.path)
        image = _checked_image(image, self.tiling.field_shape)
        for what, value, size in (("channel", channel, len(self.channels)), ("z", z, self.size_z), ("t", t, self.size_t)):
            if not 0 <= value < size:
                raise OutOfRangeError(what, value, f"the slide has {what} 0 to {size - 1}", location=self.path)
        for what, value in (("x_um", x_um), ("y_um", y_um)):
            if value is not None and not math.isfinite(value):
                raise AcquisitionError(f"{what} is {value}; a field's position is finite µm", location=self.path)
        with self._table_lock:
            number = self._field_number(field, row, column, scene, x_um, y_um)
            self._note_field(number, image.shape, row, column, x_um, y_um, z_um, scene, channel)
            key = (number, channel, z, t)
            if key in self._written:
                raise AcquisitionError(
                    f"field {number}, channel {channel}, z {z}, t {t} was written already; each plane is written once",
                    location=self.path,
                )
            self._written.add(key)
        self._room.acquire()
        buffer = self._buffers.pop() if self._buffers else np.empty(math.prod(self.tiling.field_shape), np.uint16)
        pixels = buffer[: image.size].reshape(image.shape)
        pixels[...] = image
        self._pool.submit(self._store, pixels, number, channel, z, t).add_done_callback(lambda job: self._stored(job, buffer))
        return number

    def close(self) -> None:
        """Finish the file: wait for the workers, write what is pending, sync, and take the final name."""
        if self._file is None:
            return
        try:
            self._pool.shutdown(wait=True)
            self._raise_failure()
            self._finish()
            self._file.close()
            self._file = None
            self._room_ahead.close()
            give_back_unused(self._part)
            self._add_overview()
            _sync(self._part)
            os.replace(self._part, self.path)
        except (OSError, RuntimeError) as error:
            self.abort()
            if isinstance(error, SlideError):
                raise
            raise WriteError(f"could not be finished: {error}", location=self.path) from error
        except BaseException:
            self.abort()
            raise

    def _add_overview(self) -> None:
        from rawmosaic.storage.hdf5 import overview  # reads the finished file with the reader, which writing does not need

        if self._n_fields >= overview.FROM_FIELDS:
            overview.add_overview(self._part)

    def abort(self) -> None:
        """Give up: nothing stays under the final name nor beside it."""
        self._stop()
        self._part.unlink(missing_ok=True)

    def _stop(self) -> None:
        self._failure = self._failure or WriteError("writing was given up", location=self.path)
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._file is not None:
            with contextlib.suppress(OSError, RuntimeError):  # a full disk fails the close as well; the file goes anyway
                self._file.close()
            self._file = None
        if self._room_ahead is not None:
            self._room_ahead.close()

    def __enter__(self) -> SlideWriter:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    # the table of fields

    def _field_number(self, field, row, column, scene, x_um, y_um) -> int:
        if field is not None:
            if not 0 <= field < self._n_fields and (self._planned or field < 0):
                limits = f"the slide was planned with fields 0 to {self._n_fields - 1}"
                raise OutOfRangeError("field", field, limits, location=self.path)
            return int(field)
        if self._planned:
            raise AcquisitionError("the fields are known beforehand, so planes are written by field=number", location=self.path)
        if row is not None and column is not None:
            place = ("index", scene, row, column)
        elif x_um is not None and y_um is not None:
            place = ("position", scene, float(x_um), float(y_um))
        else:
            raise AcquisitionError("a plane needs field=, or row= and column=, or x_um= and y_um=", location=self.path)
        return self._field_of_place.setdefault(place, self._n_fields)

    def _note_field(self, number, shape, row, column, x_um, y_um, z_um, scene, channel) -> None:
        new = number >= self._n_fields
        if new:
            self._grow(number + 1)
        entry = self._fields[number]
        if new or entry["height"] == 0:
            entry["height"], entry["width"] = shape
            entry["row"], entry["column"] = (-1 if value is None else value for value in (row, column))
            entry["scene"] = -1 if scene is None else scene
            entry["x_um"], entry["y_um"], entry["z_um"] = x_um or 0.0, y_um or 0.0, z_um
            return
        if (entry["height"], entry["width"]) != shape:
            raise AcquisitionError(
                f"field {number} is {entry['height']} × {entry['width']} pixels, "
                f"but channel {channel} came with {shape[0]} × {shape[1]}",
                location=self.path,
            )
        if x_um is not None and y_um is not None and (x_um, y_um) != (entry["x_um"], entry["y_um"]):
            self._positions_of_planes.setdefault((number, channel), (float(x_um), float(y_um)))

    def _grow(self, n_fields: int) -> None:
        if n_fields > len(self._fields):
            grown = new_fields(max(n_fields, len(self._fields) + _GROW_FIELDS), (0, 0))
            grown[: len(self._fields)] = self._fields
            self._fields = grown
        self._n_fields = n_fields

    # workers

    def _store(self, pixels: np.ndarray, field: int, channel: int, z: int, t: int) -> None:
        if self._failure:
            return
        layers = reduce_plane(pixels, self.tiling.factors)
        checksum = zlib.crc32(pixels)
        counts = grey_level_counts(pixels)
        chunks = []
        for level in self._levels:
            if not self.tiling.levels[level].packed:
                chunks += self._block_chunks(layers[level], level, field, channel, z, t)
        with self._file_lock:
            if self._file is None or self._failure:
                return
            self._reach(sum(len(data) for _, data in chunks) + len(layers) * self.tiling.tile_nbytes)
            self._make_room(field)
            for level in self._levels:
                if self.tiling.levels[level].packed:
                    self._pack(layers[level], level, field, channel, z, t)
            for key, data in chunks:
                self._write_chunk(key, data)
            self._checksums[field, channel, z, t] = checksum
            if len(self._checksums) >= _PENDING_CHECKSUMS:
                self._flush_checksums()
            self._add_histogram(field, channel, counts)

    def _stored(self, job: Future, buffer: np.ndarray) -> None:
        self._buffers.append(buffer)
        self._room.release()
        if not job.cancelled() and job.exception() is not None:
            self._failure = self._failure or job.exception()

    def _block_chunks(
        self, plane: np.ndarray, level: int, field: int, channel: int, z: int, t: int
    ) -> list[tuple[TileKey, bytes]]:
        cut = self.tiling.levels[level]
        height, width = self.tiling.tile_shape
        chunks = []
        padded = np.empty((height, width), np.uint16)  # for all tiles of the plane, one after the other
        for row in range(-(-plane.shape[0] // height)):
            for column in range(-(-plane.shape[1] // width)):
                piece = plane[row * height : (row + 1) * height, column * width : (column + 1) * width]
                if piece.shape != padded.shape:
                    padded[...] = 0
                padded[: piece.shape[0], : piece.shape[1]] = piece
                index = field * cut.tiles_per_field + row * cut.grid[1] + column
                chunks.append((TileKey(level, index, channel, z, t), codec.compress(padded, *self._codec)))
        return chunks

    # the file; every method below is called with the file lock held, or by the only thread left

    def _create(self) -> None:
        file = self._file
        n, c = self._n_fields, len(self.channels)
        attributes = {
            "format": fmt.FORMAT_NAME,
            "format_version": fmt.FORMAT_VERSION,
            "uuid": uuid.uuid4().hex,
            "header": fmt.header_json(self.header),
            "channels": fmt.channels_json(self.channels),
            "scenes": json.dumps(self.scenes),
            "field_shape": self.tiling.field_shape,
            "tile_shape": self.tiling.tile_shape,
            "levels": self.tiling.factors,
            "size_z": self.size_z,
            "size_t": self.size_t,
            "orientation": self._orientation,
            "finished": False,
        }
        for name, value in attributes.items():
            file.attrs[name] = value
        _add_table(file, fmt.METADATA, np.frombuffer(json.dumps(dict(self.header.extra), default=str).encode(), np.uint8))
        _add_table(file, fmt.CHANNEL_OFFSETS, self._offsets_um)
        file.create_group(fmt.POSITIONS)
        file.create_dataset(fmt.FIELDS, (n,), FIELD_DTYPE, maxshape=(None,), chunks=(_TABLE_ROWS,), fletcher32=True)
        planes = (c, self.size_z, self.size_t)
        rows = max(1, min(_TABLE_ROWS, (1 << 18) // max(1, int(np.prod(planes)))))
        table = {"maxshape": (None, *planes), "chunks": (rows, *planes), "fletcher32": True}
        file.create_dataset(fmt.ACQUIRED, (n, *planes), np.uint8, **table)
        file.create_dataset(fmt.CHECKSUMS, (n, *planes), np.uint32, **table)
        blosc = hdf5plugin.Blosc(cname=self._codec[0], clevel=self._codec[1], shuffle=hdf5plugin.Blosc.BITSHUFFLE)
        histogram = {"maxshape": (None, c, GREY_LEVELS), "chunks": (1, 1, GREY_LEVELS), "fletcher32": True, **blosc}
        file.create_dataset(fmt.PLANE_HISTOGRAMS, (n, c, GREY_LEVELS), np.uint32, **histogram)
        _add_table(file, fmt.TOTAL_HISTOGRAM, self._totals)
        for level in self._levels:
            shape = fmt.level_shape(self.tiling, level, n, c, self.size_z, self.size_t)
            chunk = (1, 1, 1, 1, *self.tiling.tile_shape)
            file.create_dataset(fmt.level_name(level), shape, np.uint16, maxshape=(None, *shape[1:]), chunks=chunk, **blosc)
        names = (fmt.FIELDS, fmt.ACQUIRED, fmt.CHECKSUMS, fmt.PLANE_HISTOGRAMS, *map(fmt.level_name, self._levels))
        self._datasets, self._rows = {name: file[name] for name in names}, n

    def _reach(self, nbytes: int) -> None:
        """Take the space on disk before HDF5 is given so many more bytes, and some for its own tables."""
        self._room_ahead.reach(self._file.id.get_filesize() + nbytes + _SLACK_NBYTES)

    def _make_room(self, field: int) -> None:
        """Grow every table that has a row per field; by steps, so that HDF5 is not asked for each."""
        if field >= self._rows:
            self._resize(field + _GROW_FIELDS)

    def _resize(self, n_fields: int) -> None:
        for name in (fmt.FIELDS, fmt.ACQUIRED, fmt.CHECKSUMS, fmt.PLANE_HISTOGRAMS):
            self._datasets[name].resize(n_fields, axis=0)
        for level in self._levels:
            self._datasets[fmt.level_name(level)].resize(
                n_fields if not self.tiling.levels[level].packed else self.tiling.tile_count(level, n_fields), axis=0
            )
        self._rows = n_fields

    def _write_chunk(self, key: TileKey, data: bytes) -> None:
        self._datasets[fmt.level_name(key.level)].id.write_direct_chunk(fmt.chunk_coordinates(self.tiling, key), data)

    def _pack(self, plane: np.ndarray, level: int, field: int, channel: int, z: int, t: int) -> None:
        """Put a field into its packed tile; the tile is written once all its fields are there, or at the end."""
        cut = self.tiling.levels[level]
        slot = int(self._fields["slot"][field])
        key = TileKey(level, slot // cut.fields_per_tile, channel, z, t)
        tile, filled = self._packs.pop(key, (None, 0))
        if tile is None:
            tile = self._stored_pack(key)
        row, column = cut.slot_origin(slot)
        tile[row : row + plane.shape[0], column : column + plane.shape[1]] = plane
        if filled + 1 == cut.fields_per_tile:
            self._write_chunk(key, codec.compress(tile, *self._codec))
            return
        self._packs[key] = (tile, filled + 1)
        if len(self._packs) * self.tiling.tile_nbytes > _OPEN_PACKS_NBYTES:
            oldest, (tile, _) = self._packs.popitem(last=False)
            self._write_chunk(oldest, codec.compress(tile, *self._codec))
            self._stored_packs.add(oldest)

    def _stored_pack(self, key: TileKey) -> np.ndarray:
        """A packed tile as it lies in the file, zeros where it was not written yet."""
        tile = np.zeros(self.tiling.tile_shape, np.uint16)
        if key in self._stored_packs:
            data = self._datasets[fmt.level_name(key.level)].id.read_direct_chunk(fmt.chunk_coordinates(self.tiling, key))[1]
            codec.decode_into(data, tile)
        return tile

    def _add_histogram(self, field: int, channel: int, counts: np.ndarray) -> None:
        self._totals[channel] += counts
        if self.size_z * self.size_t > 1:
            if (field, channel) in self._histograms:
                counts = counts + self._histograms.pop((field, channel))
            self._histograms[field, channel] = counts
            if len(self._histograms) > 256:
                self._flush_histogram(*next(iter(self._histograms)))
            return
        # HDF5's own call, for this is done for every plane and under the lock: half of what h5py's indexing takes
        histograms = self._datasets[fmt.PLANE_HISTOGRAMS].id
        place = histograms.get_space()
        place.select_hyperslab((field, channel, 0), (1, 1, GREY_LEVELS))
        histograms.write(self._histogram_space, place, counts)

    def _flush_histogram(self, field: int, channel: int) -> None:
        self._datasets[fmt.PLANE_HISTOGRAMS][field, channel] += self._histograms.pop((field, channel))

    def _flush_checksums(self) -> None:
        """Write which planes are there, and their checksums, a chunk of the tables at a time."""
        acquired, checksums = self._datasets[fmt.ACQUIRED], self._datasets[fmt.CHECKSUMS]
        step = checksums.chunks[0]
        planes, values = np.array(list(self._checksums)), np.array(list(self._checksums.values()), np.uint32)
        blocks = sorted(set((planes[:, 0] // step).tolist()))
        self._reach(len(blocks) * (checksums.dtype.itemsize + acquired.dtype.itemsize) * math.prod(checksums.chunks))
        for block in blocks:
            inside = planes[:, 0] // step == block
            rows = slice(block * step, (block + 1) * step)
            for table, new in ((acquired, np.uint8(1)), (checksums, values[inside])):
                stored = table[rows]
                stored[(planes[inside, 0] - rows.start, *planes[inside, 1:].T)] = new
                table[rows] = stored
        self._checksums.clear()

    def _finish(self) -> None:
        file = self._file
        n_planes = self._n_fields * len(self.channels)
        tables = [table for chosen in self._position_sets.values() for table in (chosen.positions_um, chosen.plane_offsets_um)]
        self._reach(
            len(self._packs) * (self.tiling.tile_nbytes + _HDF5_NBYTES)
            + len(self._histograms) * (4 * GREY_LEVELS + _HDF5_NBYTES)
            + sum(self.tiling.tile_count(level, n_planes * self.size_z * self.size_t) for level in range(len(self.tiling.levels)))
            * fmt.INDEX_ROW_NBYTES
            + self._fields.nbytes
            + n_planes * 2 * 8  # measured positions
            + sum(np.asarray(table).nbytes for table in tables if table is not None)
        )
        while self._packs:
            key, (tile, _) = self._packs.popitem(last=False)
            self._write_chunk(key, codec.compress(tile, *self._codec))
        while self._histograms:
            self._flush_histogram(*next(iter(self._histograms)))
        if self._checksums:
            self._flush_checksums()
        self._resize(self._n_fields)
        file[fmt.FIELDS][:] = self._fields[: self._n_fields]
        file[fmt.TOTAL_HISTOGRAM][:] = self._totals
        self._write_positions()
        for level in self._levels:
            write_chunk_index(file, level, self.tiling, self._n_fields, (len(self.channels), self.size_z, self.size_t))
        file.attrs["finished"] = True

    def _write_positions(self) -> None:
        offsets = {name: chosen.plane_offsets_um for name, chosen in self._position_sets.items()}
        if self._positions_of_planes:
            stage = np.zeros((self._n_fields, len(self.channels), 2))
            for (field, channel), (x_um, y_um) in self._positions_of_planes.items():
                stage[field, channel] = x_um - self._fields["x_um"][field], y_um - self._fields["y_um"][field]
            offsets["stage"] = stage
        for name, table in offsets.items():
            if table is not None:
                _add_table(self._file, f"{fmt.PLANE_OFFSETS}/{name}", np.asarray(table, np.float64))
        for name, chosen in self._position_sets.items():
            if name == "stage":  # lies in the table of fields
                continue
            dataset = _add_table(self._file, f"{fmt.POSITIONS}/{name}", np.asarray(chosen.positions_um, np.float64))
            if chosen.matrix is not None:
                dataset.attrs["matrix"] = chosen.matrix

    def _raise_failure(self) -> None:
        failure = self._failure
        if failure is None:
            return
        if isinstance(failure, SlideError):
            raise failure
        if isinstance(failure, OSError | RuntimeError):
            raise WriteError(f"a plane could not be written: {failure}", location=self.path) from failure
        raise failure


def _add_table(file: h5py.File, name: str, data: np.ndarray) -> h5py.Dataset:
    """A small table with a checksum, which HDF5 gives to chunked datasets only, and which an empty one cannot have."""
    if not data.size:
        return file.create_dataset(name, data=data)
    chunks = (max(1, min(len(data), _TABLE_NBYTES * len(data) // data.nbytes)), *data.shape[1:])
    return file.create_dataset(name, data=data, chunks=chunks, fletcher32=True)


def _check_facts(
    path: Path, channels: Sequence[Channel], header: Header, field_shape: tuple[int, ...], sizes: tuple[int, int]
) -> None:
    """Raise AcquisitionError for what would make a file that no reader opens, or that nothing can be seen of."""
    if not channels:
        raise AcquisitionError("a slide has at least one channel", location=path)
    if len(field_shape) != 2 or not all(1 <= side <= fmt.LONGEST_SIDE_PX for side in field_shape):
        raise AcquisitionError(
            f"field_shape is {field_shape}; give (height, width), each 1 to {fmt.LONGEST_SIDE_PX} pixels", location=path
        )
    if min(sizes) < 1:
        raise AcquisitionError(f"size_z is {sizes[0]} and size_t {sizes[1]}; each is at least 1", location=path)
    if not (math.isfinite(header.pixel_size_um) and header.pixel_size_um > 0):
        raise AcquisitionError(f"pixel_size_um is {header.pixel_size_um}; give a positive number of µm", location=path)


def _check_positions(path: Path, fields: np.ndarray | None, position_sets: Mapping[str, PositionSet]) -> None:
    """Raise AcquisitionError for the first field that lies nowhere."""
    tables = {name: chosen.positions_um for name, chosen in position_sets.items()}
    if fields is not None:
        tables["stage"] = np.stack([fields["x_um"], fields["y_um"]], axis=-1)
    for name, table in tables.items():
        nowhere = np.flatnonzero(~np.isfinite(table).all(axis=-1))
        if len(nowhere):
            place = tuple(table[nowhere[0]].tolist())
            raise AcquisitionError(f"field {nowhere[0]} lies at {place} in position set {name}; give finite µm", location=path)


def _checked_image(image: np.ndarray, field_shape: tuple[int, int]) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise AcquisitionError(f"a plane is a (height, width) array of uint16 or uint8, not {image.dtype} {image.shape}")
    if not (0 < image.shape[0] <= field_shape[0] and 0 < image.shape[1] <= field_shape[1]):
        raise AcquisitionError(f"a plane of {image.shape} pixels does not fit the slide's field_shape {field_shape}")
    return image


def _is_being_written(part: Path) -> bool:
    """Whether a living writer holds the file. Asked before creating it: HDF5 empties a file first and looks at its lock then."""
    try:
        if part.exists():
            h5py.File(part, "r+").close()
    except BlockingIOError:
        return True
    except OSError:  # what a writer that was killed left behind
        pass
    return False


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
