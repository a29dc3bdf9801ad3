"""Writing a virtual slide: planes in any order, with zoom layers, checksums and histograms made on the way.

`write_plane` copies the image and returns; worker threads reduce, count and compress it without the GIL, and hand it to the
file. It grows under a temporary name, where others may follow it, and takes its final one only when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError, SlideError, WriteError
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5.at_once import forget_changes
from rawmosaic.storage.hdf5.final_name import take_final_name
from rawmosaic.storage.hdf5.followed import taken_away
from rawmosaic.storage.hdf5.growing_file import GrowingFile, Tables
from rawmosaic.storage.hdf5.left_behind import part_of, refuse_beside_kept, refuse_to_overwrite
from rawmosaic.storage.hdf5.prepared import Preparer
from rawmosaic.storage.hdf5.room import Room, give_back_unused
from rawmosaic.storage.hdf5.stored_crcs import StoredCrcs
from rawmosaic.storage.pyramid import Tiling
from rawmosaic.storage.slide import FIELD_DTYPE, Channel, Header, PositionSet, new_fields

PUBLISH_S = 0.5
"""How long a plane that was written may stay unseen by who follows the file."""

_GROW_FIELDS = 256

_PLANES_A_WORKER = 4
"""Planes in memory: so many that the workers have work while the file is published."""


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
        Table of `FIELD_DTYPE` when the fields are known beforehand (importers, planned scans); then planes are written by field
        number, and the table's `slot` decides which fields share a packed tile. A field lies where it was planned until its first
        plane says where it was taken. Without the table fields come into being as they are written.
    position_sets
        Named sets beside `stage`; a set named `stage` gives measured offsets of single planes.
    tile_shape
        (height, width) of the tiles, as the fields divide evenly if not told.
    store_full_resolution
        False keeps zoom layers and histograms only, for an acquisition that is viewed in place.
    scan_uid
        Of the scan that the slide is written for, kept in the file.
    irreplaceable
        The planes cannot be had again: a full disk is waited for (`full` says so meanwhile), and whatever fails, what was
        published stays under ``NAME.part``.

    Attributes
    ----------
    stored
        What is remembered of the bytes of irreplaceable planes, for `verify_slide`; None for others.

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
        scan_uid: str = "",
        irreplaceable: bool = False,
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
        self.effort = "normal"
        self._codec = fmt.CODECS[codec]
        self._levels = range(0 if store_full_resolution else 1, len(self.tiling.levels))
        self._planned = fields is not None
        self._fields = np.array(fields, FIELD_DTYPE) if self._planned else new_fields(0, (0, 0))
        self._n_fields = len(self._fields)
        self._field_of_place: dict[tuple, int] = {}
        self._irreplaceable = irreplaceable
        self.stored = StoredCrcs(self.tiling, (len(self.channels), size_z, size_t)) if irreplaceable else None
        self._placed: set[int] = set()
        self._offsets_measured: set[tuple[int, int]] = set()
        self._unpublished_offsets: dict[tuple[int, int], tuple[float, float]] = {}
        self._written: set[tuple[int, int, int, int]] = set()
        self._table_lock = threading.Lock()
        self._failure: BaseException | None = None
        workers = max(1, min(os.cpu_count() or 1, 8))
        self._room_for_planes = threading.BoundedSemaphore(_PLANES_A_WORKER * workers)
        self._n_handed_in = self._n_stored = 0
        self._progress = threading.Condition()
        self._buffers: list[np.ndarray] = []
        self._preparers = threading.local()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="slide-writer")
        self._keeper: threading.Thread | None = None
        self._wake, self._ending = threading.Event(), False
        self._part = part_of(self.path)
        self._file: GrowingFile | None = None
        self._sealed = False
        self._room_ahead: Room | None = None
        mine = False
        try:
            self._claim_part(scan_uid)
            mine = True
            forget_changes(self._part)
            self._file = GrowingFile(
                self._part,
                self._room_ahead,
                tiling=self.tiling,
                levels=self._levels,
                compression=self._codec,
                header=self.header,
                channels=self.channels,
                scenes=self.scenes,
                size_z=size_z,
                size_t=size_t,
                fields=self._fields,
                position_sets=dict(position_sets or {}),
                orientation=np.eye(2) if orientation is None else np.asarray(orientation, np.float64),
                offsets_um=np.zeros((len(self.channels), 2)) if offsets_um is None else np.asarray(offsets_um, np.float64),
                scan_uid=scan_uid,
                planned=self._planned,
                tables=self._unpublished,
                patient=irreplaceable,
                stored=self.stored,
            )
        except WriteError:
            raise
        except (OSError, RuntimeError) as error:
            if mine:
                self._delete()
            else:
                self._stop()
            raise WriteError(f"cannot be created: {error}", location=self.path) from error
        self._keeper = threading.Thread(target=self._keep, name="slide-keeper", daemon=True)
        self._keeper.start()

    def _claim_part(self, scan_uid: str) -> None:
        """Have NAME.part to itself: claimed, then looked at, and only then to be overwritten. WriteError, OSError."""
        refuse_beside_kept(self.path, scan_uid)
        self._room_ahead = Room(self._part)
        try:
            if not self._room_ahead.claimed:
                raise WriteError(f"another program is writing this slide: it has locked {self._part.name}", location=self.path)
            refuse_to_overwrite(self._part)
            refuse_beside_kept(self.path, scan_uid)  # what lay there may have taken that name just now
        except WriteError:
            empty = self._room_ahead.claimed and self._room_ahead.is_empty
            self._stop()
            if empty:
                with contextlib.suppress(OSError):
                    self._part.unlink()
            raise

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
        metadata: Mapping | None = None,
        checksum: int | None = None,
    ) -> int:
        """Add one (height, width) uint16 plane; the caller may reuse `image` at once. Returns the field's number.

        The field is named by its number, or by (row, column, scene), or by its position alone. `x_um`, `y_um` is the centre of
        the image in the mosaic frame. A plane of a known field at another position is kept as that plane's measured offset; but
        the first plane of a planned field says where the field lies. `metadata`, what JSON can say, is kept with the plane.
        `checksum` is the CRC-32 of the pixels as little-endian uint16 where it is known; it is believed, for a reader to compare.
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
        facts = {"channel": channel, "z": z, "t": t, "metadata": dict(metadata)} if metadata else None
        line = b"" if facts is None else _metadata_line(facts, self.path)
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
            self._n_handed_in += 1
            slot = int(self._fields["slot"][number])
        self._room_for_planes.acquire()
        buffer = self._buffers.pop() if self._buffers else np.empty(math.prod(self.tiling.field_shape), np.uint16)
        pixels = buffer[: image.size].reshape(image.shape)
        pixels[...] = image
        if line:
            line = b'{"field": %d, ' % number + line[1:]
        job = self._pool.submit(self._store, buffer, pixels, number, slot, channel, z, t, line, checksum)
        job.add_done_callback(lambda job: self._stored() if job.cancelled() else None)
        return number

    def publish(self) -> None:
        """Make every plane that was handed in so far visible to who follows the file; it happens by itself twice a second."""
        self._raise_failure()
        if self._file is None:
            raise WriteError("the writer is closed; what it wrote is visible", location=self.path)
        self._wait_for_stored()
        self._file.publish()
        self._raise_failure()

    def sync(self) -> None:
        """Publish, and return once everything that was handed in so far survives a power failure. Any thread."""
        self._raise_failure()
        if self._file is None:
            raise WriteError("the writer is closed; what it wrote is on the disk", location=self.path)
        self._wait_for_stored()
        self._file.publish_durably()
        self._raise_failure()

    def _wait_for_stored(self) -> None:
        handed_in = self._n_handed_in
        with self._progress:
            self._progress.wait_for(lambda: self._n_stored >= handed_in or self._failed())

    def has_plane(self, field: int, channel: int, z: int = 0, t: int = 0) -> bool:
        """Whether the plane was handed in."""
        return (field, channel, z, t) in self._written

    @property
    def full(self) -> str:
        """Why writing waits: the disk is full. Empty where it does not."""
        return "" if self._file is None else self._file.full

    def stop_waiting(self) -> None:
        """A full disk is a failure from now on. Any thread."""
        if (file := self._file) is not None:
            file.give_up()

    @property
    def part(self) -> Path:
        """Where the slide lies until it has its final name."""
        return self._part

    def close(self, ended_early: str = "") -> None:
        """Finish the file: wait for the workers, write what is pending, sync, and take the final name.

        `ended_early`: why not everything was acquired that was meant to be; kept in the file.
        """
        if self._file is None and not self._sealed:
            return
        with self._giving_up_on_failure():
            if self._file is not None:
                self._complete()
            with taken_away(self._part):
                if self._file is not None:
                    self._seal(ended_early)
                self._sealed = False
                self._check_name()
                take_final_name(self._part, self.path, self._room_ahead.close)

    def seal(self, ended_early: str = "") -> None:
        """The same as `close`, but leave the finished file under ``NAME.part``, for somebody to look at first."""
        if self._file is None:
            return
        with self._giving_up_on_failure():
            self._complete()
            with taken_away(self._part):
                self._seal(ended_early)

    def _complete(self) -> None:
        self._pool.shutdown(wait=True)
        self._end_keeper()
        self._raise_failure()
        self._file.complete()
        self._raise_failure()

    def _check_name(self) -> None:
        """Raise WriteError where another file is NAME.part by now, which is neither to be changed nor to be renamed."""
        if not self._room_ahead.has_its_name:
            raise WriteError(f"{self._part.name} was moved away or replaced by another program", location=self.path)

    def _seal(self, ended_early: str) -> None:
        self._check_name()
        self._file.seal(self._n_fields, ended_early)
        self._file = None
        give_back_unused(self._part)
        self._add_overview()
        self._room_ahead.sync()
        self._sealed = True

    @contextlib.contextmanager
    def _giving_up_on_failure(self) -> Iterator[None]:
        try:
            yield
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
        """Give up: nothing stays under the final name nor beside it, unless the planes are irreplaceable."""
        if self._irreplaceable:
            self.leave()
        else:
            self._delete()

    def leave(self) -> None:
        """Stop writing: what was published stays under ``NAME.part``, unfinished, and is not followed any longer."""
        with taken_away(self._part):
            self._stop()

    def _delete(self) -> None:
        with taken_away(self._part):
            own = self._room_ahead is not None and self._room_ahead.has_its_name
            self._stop()
            if own:
                forget_changes(self._part)
                self._part.unlink(missing_ok=True)

    def _stop(self) -> None:
        self._failure = self._failure or WriteError("writing was given up", location=self.path)
        self._sealed = False
        if self._file is not None:
            self._file.give_up()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._end_keeper()
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
        measured = x_um is not None and y_um is not None
        if new or (entry["height"] == 0 and not self._planned):
            entry["height"], entry["width"] = shape
            entry["row"], entry["column"] = (-1 if value is None else value for value in (row, column))
            entry["scene"] = -1 if scene is None else scene
            entry["x_um"], entry["y_um"], entry["z_um"] = x_um or 0.0, y_um or 0.0, z_um
            return
        if entry["height"] == 0:  # planned before its size was known
            entry["height"], entry["width"] = shape
        if (entry["height"], entry["width"]) != shape:
            raise AcquisitionError(
                f"field {number} is {entry['height']} × {entry['width']} pixels, "
                f"but channel {channel} came with {shape[0]} × {shape[1]}",
                location=self.path,
            )
        if self._planned and number not in self._placed:
            self._placed.add(number)
            if measured:
                entry["x_um"], entry["y_um"], entry["z_um"] = x_um, y_um, z_um
        elsewhere = measured and (x_um, y_um) != (entry["x_um"], entry["y_um"])
        if elsewhere and (number, channel) not in self._offsets_measured:
            self._offsets_measured.add((number, channel))
            self._unpublished_offsets[number, channel] = (float(x_um - entry["x_um"]), float(y_um - entry["y_um"]))

    def _grow(self, n_fields: int) -> None:
        if n_fields > len(self._fields):
            grown = new_fields(max(n_fields, len(self._fields) + _GROW_FIELDS), (0, 0))
            grown[: len(self._fields)] = self._fields
            self._fields = grown
        self._n_fields = n_fields

    # other threads

    def _store(
        self,
        buffer: np.ndarray,
        pixels: np.ndarray,
        field: int,
        slot: int,
        channel: int,
        z: int,
        t: int,
        metadata: bytes,
        checksum: int | None,
    ) -> None:
        """Prepare one plane and hand it in; by a worker."""
        try:
            if self._failed():
                self._stored()
                return
            if not hasattr(self._preparers, "own"):
                self._preparers.own = Preparer(self.tiling, self._levels, self._codec)
            self._preparers.own.compression = fmt.FAST_CODEC if self.effort == "fast" else self._codec
            prepared = self._preparers.own.prepare(pixels, field, slot, channel, z, t, metadata, checksum)
        except BaseException as error:
            self._failure = self._failure or error
            self._stored()
            return
        self._buffers.append(buffer)
        self._file.hand_in(prepared, self._stored)

    def _stored(self) -> None:
        """A plane is in the file, or was given up; by whichever worker wrote it."""
        self._room_for_planes.release()
        with self._progress:
            self._n_stored += 1
            self._progress.notify_all()
        if self._file.wants_sync:
            self._wake.set()

    def _keep(self) -> None:
        """Publish what came, and have the disk write it, until the writer ends; in a thread of its own."""
        published, due = 0, time.monotonic() + PUBLISH_S
        while not self._ending:
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            if self._ending or self._failed():
                continue
            try:
                if time.monotonic() >= due:
                    stored = self._n_stored
                    if stored != published:
                        self._file.publish()
                    published, due = stored, time.monotonic() + PUBLISH_S
                self._file.sync()
            except BaseException as error:
                self._failure = self._failure or error

    def _end_keeper(self) -> None:
        self._ending = True
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join()

    def _unpublished(self) -> Tables:
        """The table of fields as it is, and the offsets that were measured since the last call."""
        with self._table_lock:
            fields, offsets = self._fields[: self._n_fields].copy(), self._unpublished_offsets
            self._unpublished_offsets = {}
        return fields, offsets

    def _failed(self) -> bool:
        return self._failure is not None or (self._file is not None and self._file.failure is not None)

    def _raise_failure(self) -> None:
        failure = self._failure or (self._file.failure if self._file is not None else None)
        if failure is None:
            return
        if isinstance(failure, SlideError):
            raise failure
        if isinstance(failure, OSError | RuntimeError):
            raise WriteError(f"a plane could not be written: {failure}", location=self.path) from failure
        raise failure


def _metadata_line(facts: Mapping, path: Path) -> bytes:
    """What a slide keeps with one plane, as a line; AcquisitionError for what JSON cannot say, or too much of it."""
    try:
        line = json.dumps(facts, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise AcquisitionError(f"the metadata of a plane are what JSON can say: {error}", location=path) from error
    most = fmt.METADATA_LINE_NBYTES - 64  # the field's number comes on top
    if len(line) > most:
        raise AcquisitionError(f"the metadata of a plane are {len(line)} bytes as JSON; keep them below {most}", location=path)
    return line


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
