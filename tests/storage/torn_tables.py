"""Slides with one table torn, read to the end: what the tests of torn tables run in a process of its own, since HDF5 may hang.

Called with a folder (of what `prepared` made), the kind of slide, and seeds; prints a line before each tear, then what is wrong.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from rawmosaic.storage import SlideError, SlideWriter, open_slide
from rawmosaic.storage.hdf5 import opened, reader
from rawmosaic.storage.hdf5.claim import claim
from rawmosaic.storage.hdf5.left_behind import part_of
from rawmosaic.storage.testing import hashed_plane

SHAPE, N_FIELDS, CHANNELS = (24, 32), 12, ("a", "b")
FINISHED, LEFT, CLAIMED = "finished", "left", "claimed"
SIGNATURES = (b"OHDR", b"OCHK", b"EAHD", b"EAIB", b"EADB", b"EASB", b"FAHD", b"FADB", b"BTHD", b"BTIN", b"BTLF", b"FRHP")
SIGNATURES += (b"FHDB", b"FHIB", b"FSHD", b"FSSE", b"GCOL")
"""What HDF5's tables begin with: object headers, chunk indexes, B-trees, heaps of names, attributes and texts."""

SIZES = {b"GCOL": 4096, b"EAHD": 72, b"BTHD": 38, b"FSSE": 27, b"FSHD": 82, b"FRHP": 146}
LEAST_NBYTES = 256
"""A table is as long as this, or longer: what follows it may be pixels."""

SECTOR_NBYTES = 512


def prepared(folder: Path) -> None:
    """One slide that was finished, and the same as a writer that was killed left it."""
    path = folder / "finished.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=list(CHANNELS), scan_uid="scan") as writer:
        for field in range(N_FIELDS):
            for channel in range(len(CHANNELS)):
                writer.write_plane(plane(field, channel), channel, row=0, column=field, x_um=30.0 * field, y_um=0.0)
        writer.publish()
        data = part_of(path).read_bytes().rstrip(b"\0")  # the room that the writer took for what comes
        (folder / "left.h5.part").write_bytes(data + bytes(SECTOR_NBYTES))


def plane(field: int, channel: int) -> np.ndarray:
    return hashed_plane(SHAPE, field, channel, 0, 0)


def tables(path: Path) -> dict[str, list[tuple[int, int]]]:
    """(begin, end) of all tables in a file, by their kind."""
    data = path.read_bytes()
    begins = sorted((at, kind) for kind in SIGNATURES for at in _places(data, kind))
    found: dict[str, list[tuple[int, int]]] = {"superblock": [(0, 48)]}
    for number, (at, kind) in enumerate(begins):
        follows = begins[number + 1][0] if number + 1 < len(begins) else len(data)
        found.setdefault(kind.decode(), []).append((at, min(follows, at + SIZES.get(kind, LEAST_NBYTES))))
    found["root header"] = found["OHDR"][:1]
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        for name in ("fields", "planes/acquired", "planes/checksum"):
            chunk = file[name].id.get_chunk_info(0)
            found[name] = [(chunk.byte_offset, chunk.byte_offset + chunk.size)]
        if "chunk_index" in file:
            rows = [(index.id.get_offset(), index.id.get_storage_size()) for index in file["chunk_index"].values()]
            found["chunk_index"] = [(begin, begin + nbytes) for begin, nbytes in rows]
    return found


def tears(begin: int, end: int, random: np.random.Generator) -> Iterator[tuple[str, int, bytes | None]]:
    """(name, offset, bytes instead) of some ways to tear a table: a bit, noise, zeros, a copy that was broken off."""
    at = int(random.integers(begin, end))
    yield "noise", at, random.bytes(int(random.integers(1, 64)))[: end - at]
    yield "zeros", at, bytes(min(SECTOR_NBYTES - at % SECTOR_NBYTES, end - at))
    yield "broken off", at, None


def run(folder: Path, kind: str, seeds: range) -> list[str]:
    """What went wrong in reading that slide with each of its tables torn."""
    opened._PATIENCE_S = reader._OPENING_S = reader._ASKING_S = 0.01  # a living writer is waited for, but it mends nothing here
    opened._PAUSE_S = reader._PAUSE_S = 0.001
    source = folder / ("finished.h5" if kind == FINISHED else "left.h5.part")
    path = folder / (f"{kind}-torn.h5" + source.suffix.removeprefix(".h5"))
    shutil.copyfile(source, path)
    file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    if kind == CLAIMED:
        assert claim(file)
    wrong, size = [], path.stat().st_size
    assert read(path) is None
    for name, places in tables(source).items():
        for seed in seeds:
            random = np.random.default_rng([seed, *name.encode()])
            begin, end = places[random.integers(len(places))]
            for how, at, data in _tears_and_a_bit(source, begin, end, random):
                print(f"{kind}: {name} at {begin}, {how} at {at}, seed {seed}", flush=True)
                before = _replaced(file, at, size if data is None else at + len(data), data)
                found = read(path)
                os.ftruncate(file, size)
                _write(file, at, before)
                if found is not None:
                    wrong.append(f"{kind}: {name} at {begin}, {how} at {at}, seed {seed}: {found}")
    assert read(path) is None
    os.close(file)
    return wrong


def read(path: Path) -> str | None:
    """None where all pixels are right, or a slide's error says why not; else what happened instead."""
    begin = time.monotonic()
    try:
        with open_slide(path) as slide:
            for field, channel in np.argwhere(slide.acquired()).tolist():
                for level in (0, len(slide.levels) - 1):
                    problem = _read_plane(slide, field, channel, level)
                    if problem is not None:
                        return problem
    except SlideError as error:
        return None if str(path) in str(error) else f"an error that does not say where: {error}"
    except BaseException:
        return traceback.format_exc()
    return None if time.monotonic() - begin < 60 else "too long"


def _read_plane(slide, field: int, channel: int, level: int) -> str | None:
    try:
        pixels = slide.read_plane(field, channel, level=level)
    except SlideError:
        return None
    right = plane(field, channel).astype(np.float64)
    if (factor := slide.levels[level]) > 1:
        right = _means(right, factor)
    return None if np.array_equal(pixels, right) else f"wrong pixels: field {field}, channel {channel}, level {level}"


def _means(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares, fewer pixels at the edge, rounded half up."""
    rows, columns = (np.arange(0, side, factor) for side in pixels.shape)
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, 0), columns, 1)
    counts = np.add.reduceat(np.add.reduceat(np.ones_like(pixels), rows, 0), columns, 1)
    return np.floor(sums / counts + 0.5)


def _tears_and_a_bit(source: Path, begin: int, end: int, random: np.random.Generator) -> Iterator[tuple[str, int, bytes | None]]:
    at = int(random.integers(begin, end))
    with open(source, "rb") as file:
        file.seek(at)
        yield "a bit", at, bytes([file.read(1)[0] ^ (1 << int(random.integers(8)))])
    yield from tears(begin, end, random)


def _replaced(file: int, begin: int, end: int, data: bytes | None) -> bytes:
    os.lseek(file, begin, os.SEEK_SET)
    before = os.read(file, end - begin)
    if data is None:
        os.ftruncate(file, begin)
    else:
        _write(file, begin, data[: len(before)])
    return before


def _write(file: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    os.lseek(file, at, os.SEEK_SET)
    while len(view):
        view = view[os.write(file, view) :]


def _places(data: bytes, kind: bytes) -> Iterator[int]:
    at: Callable[[int], int] = lambda begin: data.find(kind, begin)  # noqa: E731
    place = at(0)
    while place >= 0:
        yield place
        place = at(place + 1)


if __name__ == "__main__":
    problems = run(Path(sys.argv[1]), sys.argv[2], range(int(sys.argv[3]), int(sys.argv[4])))
    print(*problems, sep="\n")
    sys.exit(bool(problems))
