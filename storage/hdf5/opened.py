"""A slide file that is open: HDF5's own handle for the tables, and a plain one for the tiles whose places are known."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from rawmosaic.storage.errors import DamagedSlideError, NotASlideError, SlideError
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.hdf5.at_once import being_changed
from rawmosaic.storage.hdf5.attempts import opened_to_follow
from rawmosaic.storage.hdf5.chunk_index import ChunkIndex
from rawmosaic.storage.hdf5.claim import is_claimed
from rawmosaic.storage.hdf5.letting_go import is_wanted
from rawmosaic.storage.hdf5.plain_look import look_at_attributes
from rawmosaic.storage.opening import PART_SUFFIX, is_virtual_slide
from rawmosaic.storage.positional_file import PositionalFile, file_identity

_PATIENCE_S, _PAUSE_S = 10.0, 0.05
"""A writer that begins or finishes a file keeps it to itself for a moment, and a table that it replaces is torn for a moment."""

_ATTEMPTS = 5

_SUPERBLOCK_NBYTES = 48
_CONSISTENCY_FLAGS, _SINGLE_WRITER = 11, 4
"""Where superblocks of version 3 say how the file is open, and the bit for the single-writer mode."""

_GROWING_TABLES = (
    fmt.FIELDS,
    fmt.CHECKSUMS,
    fmt.TOTAL_HISTOGRAM,
    fmt.PLANE_HISTOGRAMS,
    fmt.STAGE_OFFSETS,
    fmt.METADATA_LINES,
    fmt.PLANE_METADATA,
)


@dataclass(frozen=True)
class OpenedFile:
    """Everything that is open of one slide file. `following`: it is being written, and HDF5 reads it in SWMR mode."""

    path: str
    file: h5py.File
    root: h5py.Group
    bytes: PositionalFile
    datasets: dict[int, h5py.Dataset]
    index: Mapping[int, ChunkIndex | None]
    following: bool

    @classmethod
    def open(cls, path: str, group: str, driver: str | None = None) -> OpenedFile:
        """Raises the slide errors for what HDF5 cannot open, and for what is no slide."""
        deadline, attempts = time.monotonic() + _PATIENCE_S, 0
        while True:
            before, opened, error = _state_of(path), None, None
            patient = driver is None and time.monotonic() < deadline
            if not being_changed(path) and not is_wanted(path):
                try:
                    opened = cls._open(path, group, driver)
                except (DamagedSlideError, NotASlideError) as damage:
                    error = damage
                unchanged = before == _state_of(path) and not being_changed(path)
                if unchanged and error is not None and not (patient and may_be_written(path)):
                    raise error
                if unchanged and opened is not None and opened.bytes.identity == before[0]:
                    return opened
                if opened is not None:
                    opened.close()  # another file took the name meanwhile, or it was just being finished
            attempts += 1
            still = is_claimed(path) if error is None else may_be_written(path)
            if attempts >= _ATTEMPTS and not (patient and still):
                raise DamagedSlideError(_why_not_now(path), location=path)
            time.sleep(_PAUSE_S)

    @classmethod
    def _open(cls, path: str, group: str, driver: str | None) -> OpenedFile:
        file = _hdf5_file(path, group) if driver is None else _hdf5_file_apart(path, group, driver)
        data = None
        try:
            data = PositionalFile(path)
            root = file[group]
            if root.attrs.get("format") != fmt.FORMAT_NAME:
                raise NotASlideError(
                    "an HDF5 file, but not a virtual slide (its attribute `format` says otherwise)", location=path
                )
            following = file.swmr_mode and not root.attrs.get("finished", False)
            levels = root[fmt.LEVELS]
            datasets = {int(level): levels[level] for level in levels if level.isdecimal()}
            # a writer leaves its index last, and what HDF5 reads meanwhile is not to be mixed with what lies there
            index = {level: None if following else _index_of(root, level, data) for level in datasets}
            return cls(path, file, root, data, datasets, index, following)
        except BaseException as error:
            if data is not None:
                data.close()
            file.close()
            if isinstance(error, SlideError) or not isinstance(error, Exception):
                raise
            raise DamagedSlideError(
                with_way_out(f"the slide's datasets cannot be opened ({error})", path), location=path
            ) from error

    @property
    def uuid(self) -> str:
        """What the writer named the file by; empty in files of format 1.0."""
        return str(self.root.attrs.get("uuid", ""))

    @property
    def may_be_followed(self) -> bool:
        """Whether the file is in single-writer mode: who closes it in order ends that before anything else is changed."""
        try:
            return bool(self.bytes.read(_CONSISTENCY_FLAGS, 1)[0] & _SINGLE_WRITER)
        except DamagedSlideError:
            return False

    @property
    def has_lost_its_name(self) -> bool:
        """Whether the name is another file's by now, or nobody's."""
        there = file_identity(self.path)
        return not os.path.exists(self.path) if there is None else there != self.bytes.identity

    @property
    def finished(self) -> bool:
        """Whether the writer closed the file properly."""
        return bool(self.root.attrs.get("finished", False))

    def dataset(self, level: int) -> h5py.Dataset:
        """The planes of a zoom layer. HDF5 gives up a dataset that it finds torn when it reads it anew: that is opened again."""
        dataset = self.datasets[level]
        if not dataset:
            dataset = self.datasets[level] = self.root[fmt.level_name(level)]
        return dataset

    def refresh(self) -> np.ndarray | None:
        """Have HDF5 read anew what it remembers of a file that is being written; which planes are there, with all that belongs
        to them: (fields, channels, z, t) bool. None where the writer does not write this way any more: nothing is known then."""
        acquired = self.root[fmt.ACQUIRED]
        acquired.refresh()
        planes = acquired[()] != 0  # the writer notes them last, so they are read first
        for name in _GROWING_TABLES:
            if name in self.root:
                self.root[name].refresh()
        for level in self.datasets:
            self.dataset(level).refresh()
        return planes if self.may_be_followed else None

    def close(self) -> None:
        """Give all handles back; closing twice is harmless."""
        self.bytes.close()
        if self.file:
            self.file.close()


def place_of(path: str | os.PathLike) -> str:
    """Where the file of that name lies: under it, or, while it is being written and there is no older one, under NAME.part."""
    path = os.fspath(path)
    part = path + PART_SUFFIX
    return part if not os.path.exists(path) and os.path.exists(part) else path


def may_be_written(path: str) -> bool:
    """Whether a living writer may be what is wrong with a file; also where nobody can know."""
    return path.endswith(PART_SUFFIX) and is_claimed(path) is not False


def with_way_out(reason: str, path: str) -> str:
    """What is wrong with a file's tables, and what to do."""
    if path.endswith(PART_SUFFIX):
        return f"{reason}; if an acquisition server wrote it, starting the server again makes it whole; else take it from a copy"
    return f"{reason}; take it from a copy"


def _why_not_now(path: str) -> str:
    if is_wanted(path):
        return "it is about to be renamed, which waits until nobody has it open; try again"
    if being_changed(path) and is_claimed(path) is False:
        return "its writer was killed while it finished the file; its server finishes it, or it is to be written again"
    return "it is just being finished; try again"


def _state_of(path: str) -> tuple:
    """What of a file is another before it is finished and after: which one it is, and how it begins once nobody writes to it."""
    try:
        with open(path, "rb") as file:
            head = file.read(_SUPERBLOCK_NBYTES)
    except OSError:
        head = b""
    single_writer = len(head) > _CONSISTENCY_FLAGS and head[_CONSISTENCY_FLAGS] & _SINGLE_WRITER
    return file_identity(path), head[: _CONSISTENCY_FLAGS + 1] if single_writer else head


def _index_of(root: h5py.Group, level: int, data: PositionalFile) -> ChunkIndex | None:
    name = f"{fmt.CHUNK_INDEX}/{level}"
    if name not in root:
        return None
    dataset = root[name]
    offset = dataset.id.get_offset()
    # a tool that copies the file moves the chunks; then the table's own place has changed as well
    if offset is None or offset != dataset.attrs.get("offset"):
        return None
    return ChunkIndex(data, offset, dataset.shape[0])


def _hdf5_file(path: str, group: str) -> h5py.File:
    """The HDF5 file of a slide that lies in a group of it, following a writer (SWMR) where it was not closed; or slide errors."""
    if not os.path.exists(path):
        raise NotASlideError("there is no such file", location=path)
    if not is_virtual_slide(path):
        raise NotASlideError("the file is not HDF5, so it is not a virtual slide", location=path)
    try:
        look_at_attributes(path, group)
        return _opened_somehow(path)
    except OSError as error:
        raise DamagedSlideError(with_way_out(f"the HDF5 file cannot be opened ({error})", path), location=path) from error


def _hdf5_file_apart(path: str, group: str, driver: str) -> h5py.File:
    """The HDF5 file apart from what this process has open of it already. OSError."""
    look_at_attributes(path, group)
    return h5py.File(path, "r", driver=driver)


def _opened_somehow(path: str) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = str(error)
    if "unable to lock file" in reason:  # file servers without locks
        try:
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            reason = str(error)
    shared = "locking flag" in reason
    if shared:  # this process follows or writes the file already; one that was finished since is opened apart from that
        with contextlib.suppress(OSError):
            return h5py.File(path, "r", driver="stdio")
    if shared or "already open for write" in reason or "consistency flags" in reason:
        try:
            return opened_to_follow(path)
        except OSError as error:
            reason = f"its writer did not finish it, and it cannot be followed either: {error}"
    raise OSError(reason)
