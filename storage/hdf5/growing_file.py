"""The HDF5 file while it grows: planes go in, and become visible to followers in an order that never shows half of one.

HDF5's single-writer mode (SWMR) lets others read meanwhile. It forbids new datasets and attributes, so all that followers
need is created first, and the rest is added once it has ended. A tile that several fields share is rewritten as they come:
until it is complete it lies uncompressed, always in the same place and size, since HDF5 does not use space again in this mode.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from rawmosaic.storage import codec
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.durable import sync_folder
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5.at_once import changed_at_once
from rawmosaic.storage.hdf5.chunk_index import write_chunk_index
from rawmosaic.storage.hdf5.packs import OpenPacks
from rawmosaic.storage.hdf5.prepared import PreparedPlane
from rawmosaic.storage.hdf5.room import Room
from rawmosaic.storage.hdf5.stored_crcs import StoredCrcs
from rawmosaic.storage.pyramid import TileKey, Tiling
from rawmosaic.storage.slide import FIELD_DTYPE, GREY_LEVELS, Channel, Header, PositionSet

_TABLE_ROWS = 1024
_TABLE_NBYTES = 1 << 20
_TEXT_NBYTES = 16 << 10
_SLACK_NBYTES = 8 << 20
"""More than HDF5 may write on its own account between two planes: tables that grow, and what it kept in memory."""

_HDF5_NBYTES = 1024
"""More than HDF5 and the codec may add to a chunk."""

_GROW_FIELDS = 256
_OPEN_PACKS_NBYTES = 512 << 20
_PENDING_CHECKSUMS = 4096
_PENDING_HISTOGRAMS = 256
_UNSYNCED_NBYTES = 64 << 20
_FULL_DISK = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FULL_PAUSE_S = 0.5
_STORED_AS_IS = 1
"""Filter mask of a chunk that skips the only filter, Blosc."""

OffsetsUm = Mapping[tuple[int, int], tuple[float, float]]
"""Measured offsets of single planes, µm, by (field, channel)."""

Tables = tuple[np.ndarray, OffsetsUm]


class GrowingFile:
    """A slide file from its creation until it is complete. `hand_in`, `publish` and `sync` may be called from any thread.

    Whoever hands a plane in writes it, and what others handed in meanwhile; nobody waits for another's writing.
    The first failure is kept in `failure`; nothing is written after it. `full` says that the disk is full and waited for.

    Parameters
    ----------
    tables
        Gives the whole table of fields as of now, and the measured offsets that came since it was asked last.
    patient
        A full disk is no failure: whoever writes waits for room, until `give_up` is called.
    stored
        Where to note what was stored.
    """

    def __init__(
        self,
        path: Path,
        room: Room,
        *,
        tiling: Tiling,
        levels: range,
        compression: tuple[str, int],
        header: Header,
        channels: Sequence[Channel],
        scenes: Sequence[str],
        size_z: int,
        size_t: int,
        fields: np.ndarray,
        position_sets: Mapping[str, PositionSet],
        orientation: np.ndarray,
        offsets_um: np.ndarray,
        scan_uid: str = "",
        planned: bool = False,
        tables: Callable[[], Tables],
        patient: bool = False,
        stored: StoredCrcs | None = None,
    ):
        self.failure: BaseException | None = None
        self.full = ""
        self._tables, self._patient, self._given_up = tables, patient, threading.Event()
        self._stored = stored
        self._folder_synced = False
        self._metadata: dict[tuple[int, int, int, int], bytes] = {}
        self._metadata_nbytes = 0
        self._unsynced_nbytes = 0
        self._path, self._room = path, room
        self._tiling, self._levels, self._compression = tiling, levels, compression
        self._planes = (len(channels), size_z, size_t)
        self._fields, self._rows = fields.copy(), len(fields)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[PreparedPlane, Callable[[], None]]] = deque()
        self._totals = np.zeros((len(channels), GREY_LEVELS), np.uint64)
        self._counted: set[int] = set()
        self._checksums: dict[tuple[int, int, int, int], int] = {}
        self._histograms: dict[tuple[int, int], np.ndarray] = {}
        self._packs = OpenPacks(tiling, _OPEN_PACKS_NBYTES, self._stored_pack)
        self._as_is: set[TileKey] = set()
        self._offsets_measured = False
        self._datasets: dict[str, h5py.Dataset] = {}
        self._file = h5py.File(path, "w", libver="latest", locking=False)
        attributes = {
            "format": fmt.FORMAT_NAME,
            "format_version": fmt.FORMAT_VERSION,
            "uuid": uuid.uuid4().hex,
            "header": fmt.header_json(header),
            "channels": fmt.channels_json(tuple(channels)),
            "scenes": json.dumps(list(scenes)),
            "field_shape": tiling.field_shape,
            "tile_shape": tiling.tile_shape,
            "levels": tiling.factors,
            "size_z": size_z,
            "size_t": size_t,
            "orientation": orientation,
            "finished": False,
        }
        attributes |= {"scan_uid": scan_uid, "planned": planned} if scan_uid else {}
        attributes |= {"irreplaceable": True} if patient else {}
        try:
            room.reach(_SLACK_NBYTES + self._totals.nbytes + fields.nbytes + _tables_nbytes(position_sets))
            self._create(attributes, dict(header.extra), offsets_um, position_sets)
            self._file.swmr_mode = True
            room.forget()
            self._reach(0)
        except BaseException:
            with contextlib.suppress(OSError, RuntimeError):  # a full disk fails the close as well
                self.close()
            raise

    # planes

    def hand_in(self, plane: PreparedPlane, done: Callable[[], None]) -> None:
        """Have the plane written, by this thread or by one that is writing already; `done` is called then, or on a failure."""
        self._waiting.append((plane, done))
        self._write_waiting()

    def _write_waiting(self) -> None:
        while self._waiting and self._lock.acquire(blocking=False):  # who has the lock looks again after giving it back
            try:
                self._write_all()
            finally:
                self._lock.release()

    def _write_all(self) -> None:
        while self._waiting:
            plane, done = self._waiting.popleft()
            try:
                if self.failure is None:
                    self._write(plane)
            except BaseException as error:  # belongs to a plane that another thread may have handed in
                self.failure = error
            finally:
                done()

    # every method from here to `publish` is called with the lock held, or by the only thread left

    def _write(self, plane: PreparedPlane) -> None:
        nbytes = sum(len(data) for _, data in plane.chunks) + len(plane.histogram)
        self._reach(nbytes + len(self._tiling.levels) * (self._tiling.tile_nbytes + _HDF5_NBYTES))
        self._make_room_for(plane.field)
        for level, layer in plane.packed:
            complete = self._packs.add(layer, level, plane.slot, plane.channel, plane.z, plane.t)
            if complete is not None:
                self._write_complete(*complete)
        for tile in self._packs.beyond_budget():
            self._write_as_is(*tile)
        for key, data in plane.chunks:
            self._write_chunk(key, data)
        self._note_zoomed(plane)
        self._checksums[plane.field, plane.channel, plane.z, plane.t] = plane.checksum
        if plane.metadata:
            self._metadata[plane.field, plane.channel, plane.z, plane.t] = plane.metadata
        if len(self._checksums) >= _PENDING_CHECKSUMS:
            self._publish()
        self._add_histogram(plane)
        self._unsynced_nbytes += nbytes

    def _reach(self, nbytes: int) -> None:
        """Take the space on disk before HDF5 is given so many more bytes, and some for its own tables."""
        end = self._file.id.get_filesize() + nbytes + _SLACK_NBYTES
        while True:
            try:
                self._room.reach(end)
            except OSError as error:
                if not self._patient or error.errno not in _FULL_DISK:
                    raise
                self.full = f"the disk is full, {nbytes + _SLACK_NBYTES:,} bytes more do not fit; make room, and writing goes on"
                if self._given_up.wait(_FULL_PAUSE_S):
                    raise
            else:
                self.full = ""
                return

    def give_up(self) -> None:
        """Wait no longer for room on a full disk: who waits fails."""
        self._given_up.set()

    def _make_room_for(self, field: int) -> None:
        """Grow every table that has a row per field; by steps, so that HDF5 is not asked for each."""
        if field >= self._rows:
            self._resize(field + _GROW_FIELDS)

    def _resize(self, n_fields: int) -> None:
        for name in (fmt.ACQUIRED, fmt.CHECKSUMS, fmt.METADATA_LINES, fmt.PLANE_HISTOGRAMS):
            self._datasets[name].resize(n_fields, axis=0)
        for level in self._levels:
            packed = self._tiling.levels[level].packed
            rows = self._tiling.tile_count(level, n_fields) if packed else n_fields
            self._datasets[fmt.level_name(level)].resize(rows, axis=0)
        self._rows = n_fields

    def _write_chunk(self, key: TileKey, data: bytes, filter_mask: int = 0) -> None:
        level = self._datasets[fmt.level_name(key.level)].id
        level.write_direct_chunk(fmt.chunk_coordinates(self._tiling, key), data, filter_mask)

    def _write_complete(self, key: TileKey, tile: np.ndarray) -> None:
        data = codec.compress(tile, *self._compression)
        self._write_chunk(key, data)
        self._as_is.discard(key)
        if self._stored is not None:
            self._stored.shared[key.level].note(*key[1:], crc32(data))

    def _note_zoomed(self, plane: PreparedPlane) -> None:
        if self._stored is not None:
            crc = 0
            for key, data in plane.chunks:
                if key.level:
                    crc = crc32(data, crc)
            self._stored.zoomed.note(plane.field, plane.channel, plane.z, plane.t, crc)

    def _write_as_is(self, key: TileKey, tile: np.ndarray) -> None:
        self._write_chunk(key, tile.tobytes(), _STORED_AS_IS)
        self._as_is.add(key)

    def _stored_pack(self, key: TileKey) -> np.ndarray:
        """A packed tile that was set aside, as it lies in the file."""
        level = self._datasets[fmt.level_name(key.level)].id
        data = level.read_direct_chunk(fmt.chunk_coordinates(self._tiling, key))[1]
        return np.frombuffer(data, np.uint16).reshape(self._tiling.tile_shape).copy()

    def _add_histogram(self, plane: PreparedPlane) -> None:
        field, channel = plane.field, plane.channel
        self._totals[channel] += plane.counts
        self._counted.add(channel)
        if math.prod(self._planes[1:]) == 1:
            self._datasets[fmt.PLANE_HISTOGRAMS].id.write_direct_chunk((field, channel, 0), plane.histogram)
            return
        self._histograms[field, channel] = plane.counts + self._histograms.pop((field, channel), np.uint32(0))
        if len(self._histograms) > _PENDING_HISTOGRAMS:
            self._flush_histogram(*next(iter(self._histograms)))

    def _flush_histogram(self, field: int, channel: int) -> None:
        self._datasets[fmt.PLANE_HISTOGRAMS][field, channel] += self._histograms.pop((field, channel))

    # what followers see

    def publish(self) -> None:
        """Make everything that was written visible to followers."""
        self._publish_and(lambda: None)

    def publish_durably(self) -> None:
        """The same; and once this returns, what was published survives a power failure."""
        self._publish_and(lambda: self._file.flush())
        if self.failure is None:
            self._room.sync()  # beside the lock: others go on writing
            if not self._folder_synced:
                sync_folder(self._path.resolve().parent)
                self._folder_synced = True

    def _publish_and(self, then: Callable[[], None]) -> None:
        with self._lock:
            self._write_all()
            try:
                if self.failure is None:
                    self._publish()
                    then()
            except BaseException as error:
                self.failure = error
        self._write_waiting()

    def _publish(self) -> None:
        """Tiles first, then the tables that describe them, and last the word that they are there."""
        changed = list(self._packs.changed())
        fields, offsets_um = self._tables()
        self._reach(len(changed) * self._tiling.tile_nbytes + self._totals.nbytes + self._news_nbytes(fields, offsets_um))
        for tile in changed:
            self._write_as_is(*tile)
        for level in self._levels:
            self._datasets[fmt.level_name(level)].flush()
        self._write_fields(fields)
        if offsets_um:
            self._write_offsets(offsets_um)
        self._write_metadata()
        total = self._datasets[fmt.TOTAL_HISTOGRAM]
        for channel in self._counted:
            total[channel] = self._totals[channel]
        self._counted.clear()
        total.flush()
        self._flush_checksums()

    def _write_fields(self, fields: np.ndarray) -> None:
        table, known = self._datasets[fmt.FIELDS], self._fields
        differ = np.flatnonzero(known != fields[: len(known)])
        first = int(differ[0]) if len(differ) else len(known)
        if first == len(fields):
            return
        if len(fields) > len(known):
            table.resize(len(fields), axis=0)
        table[first:] = fields[first:]
        table.flush()
        self._fields = fields.copy()

    def _write_offsets(self, offsets_um: OffsetsUm) -> None:
        table = self._datasets[fmt.STAGE_OFFSETS]
        places = np.array(list(offsets_um))
        if places[:, 0].max() >= len(table):
            table.resize(int(places[:, 0].max()) + 1, axis=0)
        _scatter(table, places, np.array(list(offsets_um.values()), np.float64))
        table.flush()
        self._offsets_measured = True

    def _write_metadata(self) -> None:
        """Append the lines that came, and then say where each begins."""
        if not self._metadata:
            return
        text, table = self._datasets[fmt.PLANE_METADATA], self._datasets[fmt.METADATA_LINES]
        sizes = np.array([len(line) for line in self._metadata.values()], np.uint64)
        begins = np.uint64(self._metadata_nbytes) + np.cumsum(sizes) - sizes
        data = np.frombuffer(b"".join(self._metadata.values()), np.uint8)
        text.resize(self._metadata_nbytes + len(data), axis=0)
        text[self._metadata_nbytes :] = data
        text.flush()
        _scatter(table, np.array(list(self._metadata)), begins + np.uint64(1))
        table.flush()
        self._metadata_nbytes += len(data)
        self._metadata.clear()

    def _news_nbytes(self, fields: np.ndarray, offsets_um: OffsetsUm) -> int:
        return fields.nbytes + len(offsets_um) * 2 * 8 * _TABLE_ROWS + sum(len(line) for line in self._metadata.values())

    def _flush_checksums(self) -> None:
        """Write which planes are there, and their checksums."""
        if not self._checksums:
            return
        planes, values = np.array(list(self._checksums)), np.array(list(self._checksums.values()), np.uint32)
        for name, new in ((fmt.CHECKSUMS, values), (fmt.ACQUIRED, np.ones(len(planes), np.uint8))):
            _scatter(self._datasets[name], planes, new)
            self._datasets[name].flush()
        self._checksums.clear()

    @property
    def wants_sync(self) -> bool:
        """Whether so much was written that the disk should begin."""
        return self._unsynced_nbytes >= _UNSYNCED_NBYTES

    def sync(self) -> None:
        """Have the disk write while planes still come, and not all at the end, where somebody waits for it."""
        if self.wants_sync:
            self._unsynced_nbytes = 0
            self._room.sync()

    # the end

    def complete(self) -> None:
        """Write all that was kept back; followers see everything then. By the only thread left."""
        self._write_all()
        if self.failure is not None:
            return
        self._reach(
            2 * len(self._packs) * (self._tiling.tile_nbytes + _HDF5_NBYTES)
            + len(self._histograms) * (4 * GREY_LEVELS + _HDF5_NBYTES)
        )
        for tile in self._packs.rest():
            self._write_complete(*tile)
        while self._histograms:
            self._flush_histogram(*next(iter(self._histograms)))
        self._publish()

    def seal(self, n_fields: int, ended_early: str = "") -> None:
        """Add what followers do without, and close the file. Nobody else in this process has it open."""
        names = list(self._datasets)
        n_tiles = sum(self._tiling.tile_count(level, n_fields) for level in self._levels) * math.prod(self._planes)
        self._reach(n_tiles * fmt.INDEX_ROW_NBYTES)
        self.close()
        with changed_at_once(self._path) as file:
            self._datasets = {name: file[name] for name in names}
            try:
                self._cut_tables(file, n_fields)
            finally:
                self._datasets = {}
            for level in self._levels:
                write_chunk_index(file, level, self._tiling, n_fields, self._planes)
            if ended_early:
                file.attrs["ended_early"] = ended_early
            file.attrs["finished"] = True
        self._room.forget()

    def _cut_tables(self, file: h5py.File, n_fields: int) -> None:
        """Give back the rows that no field has, and the tables that nothing was written to."""
        self._resize(n_fields)
        offsets = self._datasets[fmt.STAGE_OFFSETS]
        if self._offsets_measured or len(offsets):
            offsets.resize(n_fields, axis=0)
        else:
            del file[fmt.PLANE_OFFSETS]["stage"]
            if not len(file[fmt.PLANE_OFFSETS]):
                del file[fmt.PLANE_OFFSETS]
        if not self._metadata_nbytes:
            del file[fmt.PLANE_METADATA], file[fmt.METADATA_LINES]

    def close(self) -> None:
        """Close the HDF5 file as it is; closing twice is harmless."""
        self._datasets = {}
        if self._file is not None:
            self._file.close()
            self._file = None

    # creation

    def _create(
        self, attributes: Mapping, metadata: Mapping, offsets_um: np.ndarray, position_sets: Mapping[str, PositionSet]
    ) -> None:
        for name, value in attributes.items():
            self._file.attrs[name] = value
        _add_table(self._file, fmt.METADATA, np.frombuffer(json.dumps(metadata, default=str).encode(), np.uint8))
        _add_table(self._file, fmt.CHANNEL_OFFSETS, offsets_um)
        self._datasets = self._created_tables(self._fields) | self._created_levels()
        self._create_positions(position_sets)

    def _created_tables(self, fields: np.ndarray) -> dict[str, h5py.Dataset]:
        file, n = self._file, len(fields)
        table = {"maxshape": (None,), "chunks": (_TABLE_ROWS,), "fletcher32": True}
        created = {fmt.FIELDS: file.create_dataset(fmt.FIELDS, data=fields.astype(FIELD_DTYPE), **table)}
        rows = max(1, min(_TABLE_ROWS, (1 << 18) // max(1, math.prod(self._planes))))
        table = {"maxshape": (None, *self._planes), "chunks": (rows, *self._planes), "fletcher32": True}
        created[fmt.ACQUIRED] = file.create_dataset(fmt.ACQUIRED, (n, *self._planes), np.uint8, **table)
        created[fmt.CHECKSUMS] = file.create_dataset(fmt.CHECKSUMS, (n, *self._planes), np.uint32, **table)
        created[fmt.METADATA_LINES] = file.create_dataset(fmt.METADATA_LINES, (n, *self._planes), np.uint64, **table)
        text = {"maxshape": (None,), "chunks": (_TEXT_NBYTES,), "fletcher32": True}
        created[fmt.PLANE_METADATA] = file.create_dataset(fmt.PLANE_METADATA, (0,), np.uint8, **text)
        c = self._planes[0]
        table = {"maxshape": (None, c, GREY_LEVELS), "chunks": (1, 1, GREY_LEVELS), "fletcher32": True, **self._blosc()}
        created[fmt.PLANE_HISTOGRAMS] = file.create_dataset(fmt.PLANE_HISTOGRAMS, (n, c, GREY_LEVELS), np.uint32, **table)
        created[fmt.TOTAL_HISTOGRAM] = _add_table(file, fmt.TOTAL_HISTOGRAM, self._totals)
        return created

    def _created_levels(self) -> dict[str, h5py.Dataset]:
        created = {}
        for level in self._levels:
            shape = fmt.level_shape(self._tiling, level, self._rows, *self._planes)
            table = {"maxshape": (None, *shape[1:]), "chunks": (1, 1, 1, 1, *self._tiling.tile_shape), **self._blosc()}
            created[fmt.level_name(level)] = self._file.create_dataset(fmt.level_name(level), shape, np.uint16, **table)
        return created

    def _blosc(self) -> Mapping[str, object]:
        compressor, level = self._compression
        return hdf5plugin.Blosc(cname=compressor, clevel=level, shuffle=hdf5plugin.Blosc.BITSHUFFLE)

    def _create_positions(self, position_sets: Mapping[str, PositionSet]) -> None:
        """All position sets that are known, and room for the measured offsets of single planes."""
        self._file.create_group(fmt.POSITIONS)
        stage = np.zeros((0, self._planes[0], 2))
        for name, chosen in position_sets.items():
            offsets = None if chosen.plane_offsets_um is None else np.asarray(chosen.plane_offsets_um, np.float64)
            if name == "stage":  # its positions lie in the table of fields
                stage = stage if offsets is None else offsets
                continue
            if offsets is not None:
                _add_table(self._file, f"{fmt.PLANE_OFFSETS}/{name}", offsets)
            dataset = _add_table(self._file, f"{fmt.POSITIONS}/{name}", np.asarray(chosen.positions_um, np.float64))
            if chosen.matrix is not None:
                dataset.attrs["matrix"] = chosen.matrix
        table = {"maxshape": (None, *stage.shape[1:]), "chunks": (_TABLE_ROWS, *stage.shape[1:]), "fletcher32": True}
        self._datasets[fmt.STAGE_OFFSETS] = self._file.create_dataset(fmt.STAGE_OFFSETS, data=stage, **table)


def _scatter(table: h5py.Dataset, places: np.ndarray, values: np.ndarray) -> None:
    """Set single entries of a table, `places` being (n, k) indices, a chunk of rows at a time: HDF5 is slow at points."""
    step = table.chunks[0]
    for block in sorted(set((places[:, 0] // step).tolist())):  # numpy.unique imports all of masked arrays
        inside = places[:, 0] // step == block
        rows = slice(block * step, (block + 1) * step)
        stored = table[rows]
        stored[(places[inside, 0] - rows.start, *places[inside, 1:].T)] = values[inside]
        table[rows] = stored


def _add_table(file: h5py.File, name: str, data: np.ndarray) -> h5py.Dataset:
    """A small table with a checksum, which HDF5 gives to chunked datasets only, and which an empty one cannot have."""
    if not data.size:
        return file.create_dataset(name, data=data)
    chunks = (max(1, min(len(data), _TABLE_NBYTES * len(data) // data.nbytes)), *data.shape[1:])
    return file.create_dataset(name, data=data, chunks=chunks, fletcher32=True)


def _tables_nbytes(position_sets: Mapping[str, PositionSet]) -> int:
    tables = [table for chosen in position_sets.values() for table in (chosen.positions_um, chosen.plane_offsets_um)]
    return sum(np.asarray(table).nbytes for table in tables if table is not None)
