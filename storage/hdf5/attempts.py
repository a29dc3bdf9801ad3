"""Following a file without waiting for good: how often HDF5 reads a table again whose checksum is wrong.

Whoever follows a file may meet a table while its writer replaces it. So HDF5 reads it up to a hundred times, with a pause that
doubles each time: where a table is torn for good, that is longer than anybody lives. Python's own threads stand still meanwhile.
Here it gives up after a few milliseconds, and whoever asked may ask again, as long as there is a writer.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
from h5py._objects import phil  # HDF5 lets one thread in at a time, and h5py has the only key

from rawmosaic.storage.hdf5.plain_look import look_at_tables

ATTEMPTS = 22
"""The pauses are 1, 2, 4, … ns: some 4 ms in all."""


def opened_to_follow(path: str) -> h5py.File:
    """The file in HDF5's single-writer read mode, without locks. OSError where it cannot be opened.

    What is read of it later raises what h5py raises for a wrong checksum, within milliseconds.
    """
    with phil:
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
        access.set_file_locking(False, False)
        set_attempts = _set_attempts()
        if set_attempts is None or set_attempts(access.id, ATTEMPTS) < 0:
            look_at_tables(path)
        flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
        return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=access))


@functools.cache
def _set_attempts() -> Callable[[int, int], int] | None:
    """HDF5's own function, which h5py does not offer: (property list, attempts), negative where it failed. None without."""
    for library in _libraries():
        with contextlib.suppress(OSError, AttributeError):
            function = ctypes.CDLL(str(library)).H5Pset_metadata_read_attempts
            function.argtypes, function.restype = (ctypes.c_int64, ctypes.c_uint), ctypes.c_int
            return function
    return None


def _libraries() -> Iterator[str | Path]:
    """Where h5py's own HDF5 is found, which is loaded: behind a module that is linked with it; on Windows by its name."""
    yield Path(h5py.h5p.__file__)
    if os.name == "nt":
        yield "hdf5.dll"
    folder = Path(h5py.__file__).parent
    for place in (folder, folder.with_name("h5py.libs")):
        yield from sorted(path for path in place.glob("hdf5*.dll") if not path.name.startswith("hdf5_hl"))
