"""A virtual slide file as a `Slide`: chunk addresses from the file's own index, bytes read and decoded outside HDF5."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import h5py
import numpy as np

from rawmosaic.storage import codec
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.errors import DamagedSlideError, NoLongerWantedError, SlideError
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5.at_once import being_changed
from rawmosaic.storage.hdf5.claim import is_claimed
from rawmosaic.storage.hdf5.facts import check_planes, read_facts, read_fields
from rawmosaic.storage.hdf5.followed import PATIENCE_S, FollowedFile, open_file
from rawmosaic.storage.hdf5.letting_go import is_wanted
from rawmosaic.storage.hdf5.opened import OpenedFile, may_be_written, place_of, with_way_out
from rawmosaic.storage.hdf5.plane_memory import PlaneMemory
from rawmosaic.storage.opening import PART_SUFFIX
from rawmosaic.storage.positional_file import file_identity
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import PositionSet, Slide

_RUN_NBYTES = 1 << 20
"""At most so many bytes are read at once, for tiles that lie one after the other."""

_RUN_GAP_NBYTES = 4096
"""What HDF5 may have put between two of them is read as well."""

_LOOKS, _PAUSE_S, _FINISHING_S = 20, 0.02, 0.1
_OPENING_S, _ASKING_S = 10.0, 2.0
"""So long tables that cannot be read are read again while somebody writes the file: to open it, and later, each time."""

_HDF5_ERRORS = (OSError, KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError)
"""What h5py raises for damaged metadata."""

_TORN = (OSError, KeyError, RuntimeError)
"""What it raises for tables with a wrong checksum."""

_UNREADABLE = (*_HDF5_ERRORS, MemoryError)
"""And for a chunk, whose size may be anything then."""

Answer = TypeVar("Answer")


class BeingFinishedError(SlideError):
    """The writer finishes the file this moment: it can be opened the next."""


def open_patiently(path: str | os.PathLike) -> Hdf5Slide:
    """The slide in a file; one that is being finished is waited for. Raises the slide errors."""
    for _ in range(_LOOKS):
        with contextlib.suppress(BeingFinishedError):
            return Hdf5Slide(path)
        time.sleep(_FINISHING_S)
    return Hdf5Slide(path)


class Hdf5Slide(Slide):
    """A virtual slide opened for reading, finished or still being written.

    h5py is asked for the small tables only. Tiles are found through the chunk index that the writer left, read at their
    file offset and decoded in the calling thread; HDF5's lock is not taken. A file without index (still being written,
    or copied by another HDF5 tool) is read through HDF5, chunk by chunk. `group` is where in the file the slide lies.
    """

    def __init__(self, path: str | os.PathLike, group: str = "/"):
        path = self.location = os.fspath(path)
        self._closed = False  # asked for every tile: h5py's own answer would wait for its lock
        self._group = group
        self._overview: Hdf5Slide | None = None
        self._known_as: str | None = None
        self._planes: np.ndarray | None = None
        self._acquired: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()
        self._own_lock = threading.Lock()
        self._lost_sight = self._gave_way = self._stepped_aside = False
        self._opened, self._shared = _open(path, group)
        self._uuid, self._growing = self._opened.uuid, self._opened.following
        try:
            with self._hdf5() as opened:
                self._facts, planes, fields, sets = self._first_look(opened)
            super().__init__(location=path, fields=fields, position_sets=sets, **self._facts)
        except SlideError:
            self.close()
            raise
        except Exception as error:
            self.close()
            reason = with_way_out(f"the slide's tables cannot be read ({error})", self._opened.path)
            raise DamagedSlideError(reason, location=path) from error
        if planes is not None:
            self._planes = planes[: len(fields)] & (fields["height"] > 0)[:, None, None, None]

    def _first_look(self, opened: OpenedFile) -> tuple[dict, np.ndarray | None, np.ndarray, Mapping[str, PositionSet]]:
        """Facts, the planes that are there (None in a finished file), fields and position sets."""
        looks, deadline = 0, time.monotonic() + _OPENING_S
        while True:
            try:
                facts = read_facts(opened.root, self.location)
                planes = opened.refresh() if self._growing else None
                if self._growing and planes is None:
                    raise BeingFinishedError("it is just being finished; try again", location=self.location)
                fields, sets = read_fields(opened.root, facts, None if planes is None else len(planes))
                check_planes(opened.root, opened.datasets, len(fields), facts)
            except _HDF5_ERRORS:
                looks += 1
                if not self._growing or (looks >= _LOOKS and not self._is_worth_asking_again(deadline)):
                    raise
                time.sleep(_PAUSE_S)  # met in the middle of a change: a writer in this very process is seen at everything it does
            else:
                return facts, planes, fields, sets

    def _is_worth_asking_again(self, deadline: float) -> bool:
        """Whether what HDF5 could not read may be what a living writer is just replacing."""
        opened = self._opened
        return opened.following and not self._closed and time.monotonic() < deadline and may_be_written(opened.path)

    def _asked(self, look: Callable[[OpenedFile], Answer]) -> Answer:
        """What a look through HDF5 finds; while the file is being written, it is asked again before it is called damaged.

        Raises what `look` does.
        """
        deadline = time.monotonic() + _ASKING_S
        while True:
            try:
                with self._hdf5() as opened:
                    return look(opened)
            except _TORN:
                if not self._is_worth_asking_again(deadline):
                    raise
            time.sleep(_PAUSE_S)

    @property
    def overview(self) -> Hdf5Slide | None:
        """The reconstructed overview that the writer left in a slide of very many fields, opened when first asked for."""
        if self._overview is None and not self._closed and not self._growing:
            with self._hdf5() as opened:
                there = fmt.OVERVIEW in opened.root
            if there:
                path = self._opened.path
                renamed = self._opened.has_lost_its_name
                self._overview = Hdf5Slide(path.removesuffix(PART_SUFFIX) if renamed else path, fmt.OVERVIEW)
        return self._overview

    @property
    def finished(self) -> bool:
        """Whether the writer closed the file properly."""
        with self._hdf5() as opened:
            return opened.finished

    @property
    def scan_uid(self) -> str:
        """Of the scan that the file was written for; empty where none is named."""
        with self._hdf5() as opened:
            return str(opened.root.attrs.get("scan_uid", ""))

    @property
    def stores_full_resolution(self) -> bool:
        """False for the zoom layers of an acquisition that is viewed in place."""
        return 0 in self._opened.datasets

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
        with self._hdf5() as opened:
            known.update(repr((opened.uuid, opened.root.name, shapes, sorted(opened.datasets))).encode())
        fields, planes = self.fields, self._planes
        for column in ("slot", "height", "width"):
            known.update(np.ascontiguousarray(fields[column]))
        acquired = planes if planes is not None else self._table(fmt.ACQUIRED, np.s_[: len(fields)]) != 0
        known.update(np.packbits(acquired))
        known.update(np.where(acquired, self._table(fmt.CHECKSUMS, np.s_[: len(acquired)]), 0).astype("<u4"))
        return known.hexdigest()

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist."""
        with self._lock:
            if (z, t) not in self._acquired:
                self._check_index("z", z, self.size_z)
                self._check_index("t", t, self.size_t)
                if self._planes is not None:
                    table = self._planes[:, :, z, t]
                    table.flags.writeable = False
                    return table
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

    def checksums(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) uint32: `checksum` of all planes at once, 0 where there is none."""
        self._check_index("z", z, self.size_z)
        self._check_index("t", t, self.size_t)
        return self._table(fmt.CHECKSUMS, np.s_[: self.n_fields, :, z, t])

    @property
    def has_plane_metadata(self) -> bool:
        """Whether anything was noted with any plane."""
        with self._hdf5() as opened:
            return fmt.METADATA_LINES in opened.root

    def plane_metadata(self, field: int, channel: int, z: int = 0, t: int = 0) -> Mapping:
        """What was noted with one plane, as its writer was given it; empty where nothing was."""
        self.check_plane(field, channel, z, t)
        try:
            data = self._asked(lambda opened: _metadata_line(opened.root, field, channel, z, t))
        except _HDF5_ERRORS as error:
            raise DamagedSlideError(f"table /{fmt.PLANE_METADATA} cannot be read: {error}", location=self.location) from error
        if not data:
            return {}
        return self._metadata_in(data, (field, channel, z, t))

    def _metadata_in(self, data: bytes, plane: tuple[int, int, int, int]) -> Mapping:
        """The metadata of a plane from the line that the data begin with."""
        line, ended, _ = data.partition(b"\n")
        try:
            known = json.loads(line)
            if ended and tuple(known[name] for name in ("field", "channel", "z", "t")) == plane:
                return dict(known["metadata"])
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        where = "field {}, channel {}, z {}, t {}".format(*plane)
        raise DamagedSlideError(f"{where}: its metadata are not where the slide says", location=self.location)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._closed = True
        if self._overview is not None:
            self._overview.close()
        shared = self._shared
        if shared is None:
            self._opened.close()
        elif shared.lock.acquire(timeout=PATIENCE_S):  # whoever reads through HDF5 comes to an end first
            if self._shared is shared:
                self._shared = None
                shared.leave()
            else:
                self._opened.close()
            shared.lock.release()

    # a file that is being written

    @property
    def growing(self) -> bool:
        """Whether planes may still come: the file is being written, and its writer lives."""
        return self._growing

    @property
    def awaits_name(self) -> bool:
        """Whether the file is finished, but its writer has still to give it its final name: `replaced` is to be asked until then,
        since Windows renames no file that is open."""
        opened = self._opened
        if self._closed or self._growing or not opened.path.endswith(PART_SUFFIX):
            return False
        if all(index is None for index in opened.index.values()):  # its writer left it as it was
            return False
        return self._stepped_aside or not opened.has_lost_its_name

    @property
    def replaced(self) -> bool:
        """Whether another file lies there by now: a writer began anew, after one that was killed or gave up.

        Or the same one, which was given up here and finished after all. Where somebody waits for the file to be closed, which
        Windows does not rename while it is open, this closes it: what lies there afterwards is another.
        """
        if not self._closed and self._has_let_go():
            place = place_of(self.location)
            return os.path.exists(place) and not is_wanted(place)
        with contextlib.suppress(SlideError):
            if self._stepped_aside and not is_wanted(self._opened.path):
                self._come_back()
        place, own = place_of(self.location), self._opened.bytes.identity
        there = file_identity(place)
        if self._closed or None in (there, own):
            return False
        if (not self._was_finished_since(place)) if there == own else self._is_copy(place):
            return False
        if (shared := self._shared) is not None:
            shared.outlived()
        return True

    def _has_let_go(self) -> bool:
        """Whether the file was closed for good, since somebody wants to rename it. A finished one is opened again afterwards."""
        shared = self._shared
        if is_wanted(self._opened.path):
            if self.awaits_name:
                self._step_aside()
            elif any(index is not None for index in self._opened.index.values()):
                pass  # that is about another file: this one has its name
            elif shared is not None:
                shared.let_go()
            else:
                with self._own_lock:
                    self._gave_way = True
                    self._opened.close()
        return self._gave_way if shared is None else shared.gave_way

    def _step_aside(self) -> None:
        """Close a finished file while its writer renames it: it is the same slide afterwards."""
        if self._overview is not None:
            self._overview._step_aside()
        with self._own_lock:
            self._stepped_aside = True
            self._opened.close()

    def _come_back(self) -> None:
        """Open the finished file again, by whichever name it has; one that is just being renamed is waited for."""
        deadline = time.monotonic() + _ASKING_S
        while self._stepped_aside and not self._closed:
            with self._own_lock:
                part = self._opened.path
                if self._stepped_aside and not self._closed and not is_wanted(part):
                    settled = self._finished_at(part.removesuffix(PART_SUFFIX)) or self._finished_at(part)
                    if settled is not None:
                        self._opened, self._stepped_aside = settled, False
                        return
            if time.monotonic() > deadline:
                raise SlideError("its file is just being renamed; try again", location=self.location)
            time.sleep(_PAUSE_S)

    def _was_finished_since(self, path: str) -> bool:
        """Whether the file was finished by another writer, after the one that was followed had left."""
        if self._growing or not self._opened.following or being_changed(path):
            return False
        settled = self._finished_at(path)
        if settled is not None:
            settled.close()
        return settled is not None

    def _is_copy(self, path: str) -> bool:
        """Whether a finished file is the same slide: where a file that is followed cannot be renamed, it was copied."""
        try:
            other = OpenedFile.open(path, self._group, driver="stdio")
        except (*_HDF5_ERRORS, SlideError):
            return False
        with contextlib.closing(other):
            return other.finished and other.uuid == self._uuid

    def refresh(self) -> np.ndarray:
        """Take in what was acquired since: (n, 4) int32 planes (field, channel, z, t) that came.

        What the writer is just about to write comes the next time. Called by one thread; others may read meanwhile.
        """
        if not self._growing:
            return super().refresh()
        try:
            with self._hdf5() as opened:
                growing, left = opened.following, self._writer_has_left(opened)
                if growing and (left or not opened.may_be_followed):
                    opened = self._settled() or opened
                    if opened.following and not left:
                        return super().refresh()  # it is being finished
                    # what was written until the writer left is taken in the next time
                    growing, self._lost_sight = opened.following and not self._lost_sight, True
                planes = opened.refresh() if opened.following and opened.may_be_followed else None
                if planes is None and opened.following:
                    self._growing = growing
                    return super().refresh()
                if planes is None:
                    planes = opened.root[fmt.ACQUIRED][()] != 0
                fields, sets = read_fields(opened.root, self._facts, len(planes))
        except _HDF5_ERRORS:  # met in the middle of a change
            return super().refresh()
        except SlideError:
            self._growing = False  # closed, or given up by its writer
            raise
        planes = planes[: len(fields)] & (fields["height"] > 0)[:, None, None, None]
        before = np.zeros_like(planes)
        before[: len(self._planes)] = self._planes[: len(planes)]
        new = np.argwhere(planes & ~before).astype(np.int32)
        self._planes = planes | before
        self._set_fields(fields, sets)
        if len(new):
            self._known_as = None
        self._growing = growing
        return new

    @staticmethod
    def _writer_has_left(opened: OpenedFile) -> bool:
        return opened.has_lost_its_name or is_claimed(opened.path) is False

    def _settled(self) -> OpenedFile | None:
        """The finished file, if it is the one that was followed. With the shared lock held."""
        part = self._opened.path
        # it has its final name, or is about to have it
        settled = self._finished_at(part.removesuffix(PART_SUFFIX)) or self._finished_at(part)
        if settled is not None:
            shared = self._shared
            self._opened, self._shared = settled, None
            shared.leave()
        return settled

    def _finished_at(self, path: str) -> OpenedFile | None:
        try:
            # another driver: for HDF5 the file that it follows and the finished one are the same, and it remembers the former
            settled = OpenedFile.open(path, self._group, driver="stdio")
        except (*_HDF5_ERRORS, SlideError):
            return None
        if settled.finished and settled.uuid == self._uuid:
            return settled
        settled.close()
        return None

    @contextlib.contextmanager
    def _hdf5(self) -> Iterator[OpenedFile]:
        """The open file for one look through HDF5, which lets one thread in at a time anyway."""
        while True:
            self._come_back()
            shared = self._shared
            lock = self._own_lock if shared is None else shared.lock
            if not lock.acquire(timeout=PATIENCE_S):
                raise SlideError(f"its writer has not finished it within {PATIENCE_S:g} s; try again", location=self.location)
            if shared is self._shared and (self._closed or not self._stepped_aside):
                break
            lock.release()
        try:
            if self._closed:
                raise SlideError("the slide is closed", location=self.location)
            if self._gave_way:
                raise SlideError("its file was renamed, and may be written anew; open it again", location=self.location)
            if shared is not None and shared.opened is None and self._settled() is None:
                raise SlideError("its writer gave it up", location=self.location)
            yield self._opened
        finally:
            lock.release()

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
        chunk = self._chunk(key)
        return codec.compress(chunk) if isinstance(chunk, np.ndarray) else chunk

    def stored_crc(self, keys: Sequence[TileKey]) -> int:
        """CRC-32 of the compressed bytes of tiles, in this order, as they lie in the file; nothing is decoded."""
        crc = 0
        for chunk in map(self._chunk, keys):
            crc = crc32(b"" if chunk is None else chunk, crc)
        return crc

    def plane_sums(self, field: int, channel: int, z: int = 0, t: int = 0, memory: PlaneMemory | None = None) -> tuple[int, int]:
        """(CRC-32 of a plane's pixels, decoded; that of its compressed tiles), read once for both into `memory`.

        In a file that grows each tile is found and read by HDF5 itself.
        """
        memory = memory or self.plane_memory()
        tiles = list(self._tiles_of_plane(field, channel, z, t, 0))
        chunks, nbytes = self._gathered([key for key, _, _ in tiles], memory)
        width = self._plane_shape(field, 0)[1]
        crc, tile = 0, memory.tile
        for (key, (rows, columns), source), chunk in zip(tiles, chunks, strict=True):
            # a row of tiles at a time, while it is in the processor's cache
            band = memory.band[: (rows.stop - rows.start) * width].reshape(-1, width)
            if chunk is None:
                band[:, columns] = 0
            elif self._lies_as_is(chunk):
                band[:, columns] = chunk.view("<u2").reshape(tile.shape)[source]
            else:
                self._decode(chunk.data, key, tile)
                band[:, columns] = tile[source]
            if columns.stop == width:
                crc = crc32(band, crc)
        return crc, crc32(memory.stored[:nbytes])

    def plane_memory(self) -> PlaneMemory:
        """Memory for `plane_sums` and `stored_bytes`, used again from plane to plane. One thread at a time."""
        return PlaneMemory.of(self.tiling)

    def _gathered(self, keys: Sequence[TileKey], memory: PlaneMemory) -> tuple[list[np.ndarray | None], int]:
        """The bytes of tiles as they lie in the file, None where nothing was written, in a row; how many they are together."""
        try:
            return self._asked(lambda opened: self._gather(opened, keys, memory))
        except _UNREADABLE as error:
            raise DamagedSlideError(f"{_where(self, keys[0])}: {error}", location=self.location) from error

    def _gather(self, opened: OpenedFile, keys: Sequence[TileKey], memory: PlaneMemory) -> tuple[list[np.ndarray | None], int]:
        chunks, at, most = [], 0, memory.chunk_nbytes
        for key in keys:
            out, place = memory.stored[at : at + most], self._address(opened, key)
            if place is None:
                nbytes = self._read_chunk_into(opened, key, out)
            elif (nbytes := place[1]) <= most:
                opened.bytes.read_into(place[0], out[:nbytes].data)
            if nbytes > most:
                raise DamagedSlideError(f"{_where(self, key)}: a chunk of {nbytes} bytes", location=self.location)
            chunks.append(out[:nbytes] if nbytes else None)
            at += nbytes
        return chunks, at

    def _read_chunk_into(self, opened: OpenedFile, key: TileKey, out: np.ndarray) -> int:
        """Have HDF5 find a tile and read it into memory; its bytes, 0 where nothing was written. Raises what h5py raises."""
        try:
            chunk = _written_chunk(opened.dataset(key.level).id, fmt.chunk_coordinates(self.tiling, key), out)
        except ValueError as error:  # it does not fit
            raise DamagedSlideError(f"{_where(self, key)}: {error}", location=self.location) from error
        return 0 if chunk is None else len(chunk)

    def stored_bytes(
        self, field: int, channel: int, z: int, t: int, levels: Sequence[int], memory: PlaneMemory
    ) -> list[np.ndarray] | None:
        """For each of these block levels the compressed bytes of a plane's tiles that were written, one behind the other, uint8.

        Found by the file's own index, and read at once where they lie together. None without an index, and where it leads
        nowhere: reading tile by tile tells why. The arrays lie in `memory`.
        """
        places, sizes = [], []
        planes = len(self.channels), self.size_z, self.size_t
        for level in levels:
            index, count = self._opened.index.get(level), self.tiling.levels[level].tiles_per_field
            if index is None:
                return None
            first = fmt.chunk_row(self.tiling, TileKey(level, field * count, channel, z, t), *planes)
            found = [place for place in index.rows(first, count).tolist() if place[1]]
            sizes.append(sum(nbytes for _, nbytes in found))
            places += found
        if sum(sizes) > len(memory.stored):
            return None
        at = 0
        for offset, nbytes in _joined(places):
            self._opened.bytes.read_into(offset, memory.stored[at : at + nbytes].data)
            at += nbytes
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        return [memory.stored[end - nbytes : end] for end, nbytes in zip(ends, sizes, strict=True)]

    def tiles_of_plane(self, field: int, channel: int, z: int = 0, t: int = 0, level: int = 0) -> list[TileKey]:
        """The tiles that a plane lies in, row by row."""
        return [key for key, _, _ in self._tiles_of_plane(field, channel, z, t, level)]

    def _read_tile(self, key: TileKey, out: np.ndarray) -> None:
        chunk = self._chunk(key)
        if chunk is None:
            out[:] = 0
        elif isinstance(chunk, np.ndarray):
            out[:] = chunk
        else:
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
        opened = self._opened
        for number, key in enumerate(keys):
            try:
                place = self._address(opened, key)
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
            data = memoryview(self._opened.bytes.read(start, end - start))
        except SlideError:
            return None
        return [data[offset - start : offset - start + size] for offset, size in places]

    def _address(self, opened: OpenedFile, key: TileKey) -> tuple[int, int] | None:
        """(offset, bytes) of a tile by the file's own index, (0, 0) where nothing was written; None without an index."""
        if self._closed:
            raise SlideError("the slide is closed", location=self.location)
        if key.level not in opened.datasets:
            raise DamagedSlideError(f"this file does not hold level {key.level}", location=self.location)
        index = opened.index[key.level]
        if index is None:
            return None
        offset, size = index.find(fmt.chunk_row(self.tiling, key, len(self.channels), self.size_z, self.size_t))
        if size > 2 * self.tiling.tile_nbytes + 64:
            raise DamagedSlideError(f"{_where(self, key)}: the chunk index says {size} bytes", location=self.location)
        return offset, size

    def _chunk(self, key: TileKey) -> bytes | np.ndarray | None:
        """The compressed bytes of a tile, its pixels where they lie uncompressed, or None where nothing was written."""
        while True:
            self._come_back()
            opened = self._opened
            try:
                place = self._address(opened, key)
                if place is not None:
                    return opened.bytes.read(*place) if place[1] else self._nothing(key)
            except DamagedSlideError:
                if opened is self._opened and not self._stepped_aside:
                    raise
            else:
                break  # no index: HDF5 knows
        coordinates = fmt.chunk_coordinates(self.tiling, key)
        try:
            data = self._asked(lambda opened: _written_chunk(opened.dataset(key.level).id, coordinates))
        except _UNREADABLE as error:
            raise DamagedSlideError(f"{_where(self, key)}: {error}", location=self.location) from error
        if data is None:
            return self._nothing(key)
        if len(data) > 2 * self.tiling.tile_nbytes + 64:
            raise DamagedSlideError(f"{_where(self, key)}: a chunk of {len(data)} bytes", location=self.location)
        return np.frombuffer(data, "<u2").reshape(self.tiling.tile_shape) if self._lies_as_is(data) else data

    def _nothing(self, key: TileKey) -> None:
        """For a tile that was never written. DamagedSlideError where planes that were acquired lie in it: they are no zeros."""
        if self._should_hold(key):
            reason = "the file does not say where it lies, though it was acquired"
            raise DamagedSlideError(f"{_where(self, key)}: {reason}", location=self.location)

    def _should_hold(self, key: TileKey) -> bool:
        """Whether a plane that was acquired has pixels in the tile."""
        cut = self.tiling.levels[key.level]
        if cut.packed:
            first = key.index * cut.fields_per_tile
            fields = self.field_of_slot[first : first + cut.fields_per_tile]
            return bool(self.acquired(key.z, key.t)[fields, key.channel].any())
        field, minor = divmod(key.index, cut.tiles_per_field)
        if field >= self.n_fields or not self.acquired(key.z, key.t)[field, key.channel]:
            return False
        begins = (side * place for side, place in zip(self.tiling.tile_shape, divmod(minor, cut.grid[1]), strict=True))
        return all(begin < size for begin, size in zip(begins, self._plane_shape(field, key.level), strict=True))

    def _lies_as_is(self, data: bytes | np.ndarray) -> bool:
        """Whether a tile lies uncompressed: by what its chunk holds, since HDF5 mistakes its filter mask where this very process
        wrote it."""
        return len(data) == self.tiling.tile_nbytes and not codec.is_encoded(data, self.tiling.tile_nbytes)

    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        return self._assembled_plane(field, channel, z, t, 0)

    def _read_level(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        return self._assembled_plane(field, channel, z, t, level)

    # tables

    def _table(self, name: str, rows: object) -> np.ndarray:
        """Part of a table; HDF5 checks its checksum."""
        try:
            return self._asked(lambda opened: opened.root[name][rows])
        except _HDF5_ERRORS as error:
            raise DamagedSlideError(f"table /{name} cannot be read: {error}", location=self.location) from error


def _open(path: str, group: str) -> tuple[OpenedFile, FollowedFile | None]:
    """The file, or the one that is being written under that name."""
    while True:
        place = place_of(path)
        try:
            return open_file(place, group)
        except SlideError:
            if place == place_of(path) or os.path.exists(place):
                raise  # else it was finished, and took its final name, between the look and the opening


def _metadata_line(root: h5py.Group, field: int, channel: int, z: int, t: int) -> bytes:
    """What begins with a plane's line of metadata; empty where it has none. Raises what h5py raises."""
    if fmt.METADATA_LINES not in root:
        return b""
    table, text = root[fmt.METADATA_LINES], root[fmt.PLANE_METADATA]
    begin = int(table[field, channel, z, t]) if field < len(table) else 0
    return text[begin - 1 : begin - 1 + fmt.METADATA_LINE_NBYTES].tobytes() if begin else b""


def _written_chunk(dataset: h5py.h5d.DatasetID, coordinates: tuple[int, ...], out: np.ndarray | None = None) -> bytes | None:
    """A chunk as it lies in the file, into `out` if that is given; None where nothing was written.

    Raises what h5py raises where it cannot be read: the same as for one that was never written, so HDF5 is asked which it is.
    """
    if coordinates[0] >= dataset.shape[0]:
        return None
    try:
        return dataset.read_direct_chunk(coordinates, out=out)[1]
    except (OSError, RuntimeError, MemoryError):
        if dataset.get_chunk_info_by_coord(coordinates).byte_offset is None:
            return None
        raise


def _joined(places: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """(offset, bytes) of the pieces that places in this order form, where one begins at the end of the one before."""
    pieces: list[tuple[int, int]] = []
    for offset, nbytes in places:
        if pieces and sum(pieces[-1]) == offset:
            pieces[-1] = pieces[-1][0], pieces[-1][1] + nbytes
        else:
            pieces.append((offset, nbytes))
    return pieces


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
