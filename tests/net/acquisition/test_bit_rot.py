"""A bit that flips on the disk after a plane was acknowledged: all planes are in the slide, or the scan says what it lacks."""

from __future__ import annotations

import errno
import random
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scans import header_and_payload, image, plan, saved, until

from rawmosaic.net.acquisition import intake as intake_module
from rawmosaic.net.acquisition import spool as spool_module
from rawmosaic.net.acquisition.files import read_json, replace_json
from rawmosaic.net.acquisition.intake import Arrival, Intake, write_end
from rawmosaic.net.acquisition.safe_mark import MARK_FILE
from rawmosaic.net.acquisition.spool import SpoolWriter, planes_in, segments
from rawmosaic.net.acquisition.writer import COMPLETE, FAILED, ScanWriter
from rawmosaic.net.protocol import ConflictError
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.positional_file import PositionalFile

N_PLANES, SEGMENT_NBYTES = 14, 1 << 13
"""Four planes a segment."""

BYTES_OF_A_HEAD = {
    "magic": 0,
    "segment": 8,
    "facts' size": 13,
    "own place": 16,
    "payload's size": 26,
    "number": 40,
    "checksum": 47,
}
N_RANDOM = 24
MOST_TRIES = 1000
"""Of reading what the disk does not give back, before a test takes that for endless."""


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(intake_module, "SEGMENT_NBYTES", SEGMENT_NBYTES)
    monkeypatch.setattr(intake_module, "SMALLEST_SEGMENT_NBYTES", SEGMENT_NBYTES)
    monkeypatch.setattr("rawmosaic.net.acquisition.spool._PAUSE_S", 0.001)


class Proxy:
    """An intake, and what it answered."""

    def __init__(self, folder: Path):
        self.outcomes: dict[int, object] = {}
        self.intake = Intake(folder, plan(), self._done, spool_nbytes=1 << 30)

    def _done(self, outcomes: Iterable) -> None:
        self.outcomes.update((id(arrival), outcome) for arrival, outcome in outcomes)

    def answer(self, arrival: Arrival) -> object:
        self.intake.put(arrival)
        until(lambda: id(arrival) in self.outcomes)
        return self.outcomes.pop(id(arrival))

    def plane(self, place: int, of: int | None = None) -> object:
        """Send the plane of a place, with the pixels of another one if told so; the answer."""
        header, payload = header_and_payload(place if of is None else of, column=place)
        return self.answer(Arrival(header, payload, len(payload)))

    def finish(self, planes: int | None = None) -> object:
        return self.answer(Arrival(None, end={"planes": planes}))


@contextmanager
def proxy(folder: Path) -> Iterator[Proxy]:
    made = Proxy(folder)
    try:
        yield made
    finally:
        made.intake.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a scan all of whose planes were acknowledged, and whose proxy is gone."""
    folder = saved(tmp_path / "data" / "a scan.scan")
    with proxy(folder) as first:
        for place in range(N_PLANES):
            assert first.plane(place)["repeated"] is False
    assert len(segments(folder / "spool")) == 4
    return folder


def write(folder: Path) -> int:
    """A writer in this process, until it ends; its exit code. A scan that was never ended is none of these."""
    assert (folder / "end.json").exists()
    return ScanWriter(folder, threading.Event()).run()


def write_until(folder: Path, key: str, value: int) -> None:
    """A writer in this process, until it says so much; then it ends in order."""
    over = threading.Event()
    thread = threading.Thread(target=ScanWriter(folder, over).run)
    thread.start()
    try:
        until(lambda: (read_json(folder / "writer.json") or {}).get(key, 0) >= value)
    finally:
        over.set()
        thread.join()


def places_in_slide(path: Path) -> set[int]:
    """Of the planes in a slide, each of which is compared with what was sent."""
    with Hdf5Slide(path) as slide:
        found = set()
        for field, channel in np.argwhere(slide.acquired()).tolist():
            place = int(slide.fields["column"][field])
            np.testing.assert_array_equal(slide.read_plane(field, channel), image(place, channel))
            found.add(place)
        return found


def slide_of(folder: Path) -> Path:
    return folder.parent / "a scan.h5"


def assert_complete(folder: Path) -> None:
    assert places_in_slide(slide_of(folder)) == set(range(N_PLANES))


def assert_failed(folder: Path, lost: set[int], damaged: Path | None, before: bytes) -> None:
    """The scan says how much is missing and where, has all else, and has kept what is damaged."""
    said = read_json(folder / "writer.json")
    assert said["state"] == "failed"
    assert not slide_of(folder).exists()
    assert places_in_slide(slide_of(folder).with_name("a scan.h5.part")) == set(range(N_PLANES)) - lost
    assert f"{len(lost)} acknowledged planes are not" in said["error"] or f"{len(lost)} are missing" in said["error"]
    if damaged is not None:
        assert damaged.name in said["error"]
        assert "at byte " in said["error"]
        kept = [path for path in (folder / "spool" / damaged.name, folder / "damaged" / damaged.name) if path.exists()]
        assert kept
        assert all(path.read_bytes()[: len(before)] == before for path in kept)


def flip(path: Path, at: int, bit: int = 4) -> bytes:
    """Flip one bit of a file; what it holds then."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return bytes(data)


def records(folder: Path) -> list[tuple[int, Path, int, int]]:
    """(place, segment's file, begin, end) of each record."""
    found = planes_in(folder / "spool")
    return [(facts.column, folder / "spool" / f"{at.segment:08d}.spool", at.offset, at.offset + at.nbytes) for facts, at in found]


RECORDS = {"the first": 0, "one in the middle": 5, "the last of a segment": 7, "the last": N_PLANES - 1}
PARTS = {
    **{f"the head's {name}": ("head", at) for name, at in BYTES_OF_A_HEAD.items()},
    "the facts": ("head", 60),
    "the pixels": ("end", -100),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("record", RECORDS)
def test_a_damaged_plane_is_missed_though_a_new_proxy_never_saw_it(folder: Path, record: str, part: str):
    place, path, begin, end = records(folder)[RECORDS[record]]
    anchor, offset = PARTS[part]
    data = flip(path, (begin if anchor == "head" else end) + offset)
    with proxy(folder) as second:
        assert second.intake.acknowledged == N_PLANES - 1
        assert second.finish()["planes"] == N_PLANES
    assert read_json(folder / "end.json")["planes"] == N_PLANES
    assert write(folder) == FAILED
    assert_failed(folder, {place}, path, data)


@pytest.mark.parametrize("part", ["the head's magic", "the facts", "the pixels"])
@pytest.mark.parametrize("record", RECORDS)
def test_a_damaged_plane_is_missed_where_the_manager_ends_the_scan(folder: Path, record: str, part: str):
    """Nobody has counted the planes then."""
    place, path, begin, end = records(folder)[RECORDS[record]]
    anchor, offset = PARTS[part]
    data = flip(path, (begin if anchor == "head" else end) + offset)
    write_end(folder, early=True, reason="nothing was heard")
    assert write(folder) == FAILED
    assert_failed(folder, {place}, path, data)


@contextmanager
def bad_sector(
    monkeypatch: pytest.MonkeyPatch, path: Path, begin: int, end: int, heals_after: int | None = None
) -> Iterator[None]:
    """A disk that does not give back these bytes of a file, or not for so many times."""
    whole, n_failed = PositionalFile._read_at, 0

    def read_at(self: PositionalFile, offset: int, size: int) -> bytes:
        nonlocal n_failed
        if Path(self.path).samefile(path) and offset < end and offset + size > begin:
            n_failed += 1
            if heals_after is not None and n_failed > heals_after:
                return whole(self, offset, size)
            if n_failed > MOST_TRIES:
                raise MemoryError("it is read again and again")
            raise OSError(errno.EIO, "Input/output error")
        return whole(self, offset, size)

    with monkeypatch.context() as patched:
        patched.setattr(PositionalFile, "_read_at", read_at)
        yield


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize(("begin", "end"), [(0, 8), (50, 60), (-200, -100)], ids=["head", "facts", "pixels"])
def test_what_the_disk_does_not_give_back_is_missed_and_all_else_is_in_the_slide(
    folder: Path, monkeypatch: pytest.MonkeyPatch, record: str, begin: int, end: int
):
    place, path, first, last = records(folder)[RECORDS[record]]
    sector = (first + begin, first + end) if begin >= 0 else (last + begin, last + end)
    before = path.read_bytes()
    with bad_sector(monkeypatch, path, *sector):
        with proxy(folder) as second:
            second.finish()
        assert write(folder) == FAILED
        assert_failed(folder, {place}, path, before)


@pytest.mark.parametrize("record", RECORDS)
def test_what_the_disk_gives_back_in_the_end_is_in_the_slide(folder: Path, monkeypatch: pytest.MonkeyPatch, record: str):
    _, path, _, last = records(folder)[RECORDS[record]]
    write_end(folder, planes=N_PLANES)
    with bad_sector(monkeypatch, path, last - 200, last - 100, heals_after=spool_module._LOOKS):
        assert write(folder) == COMPLETE
    assert_complete(folder)
    assert [path.name for path in (folder / "damaged").iterdir()] == [path.name], "it had been taken for damaged"


@pytest.mark.parametrize("seed", range(N_RANDOM))
def test_wherever_bits_flip_all_planes_are_there_or_it_is_told(folder: Path, seed: int):
    chance = random.Random(seed)
    files = sorted((folder / "spool").iterdir())
    damaged = {}
    for _ in range(chance.choice((1, 1, 2, 5))):
        path = chance.choice(files)
        damaged[path] = flip(path, chance.randrange(path.stat().st_size), chance.randrange(8))
    with proxy(folder) as second:
        if chance.random() < 0.5:
            second.finish(chance.choice((None, N_PLANES)))
    if not (folder / "end.json").exists():
        write_end(folder, early=True)
    code = write(folder)
    if len(damaged) == 1 and (folder / "spool" / MARK_FILE) in damaged:
        assert code == COMPLETE
    if code == COMPLETE:
        assert_complete(folder)
        return
    there = places_in_slide(slide_of(folder).with_name("a scan.h5.part"))
    assert_failed(folder, set(range(N_PLANES)) - there, None, b"")
    assert all((folder / "spool" / path.name).read_bytes() == data for path, data in damaged.items() if path.suffix == ".spool")


@pytest.mark.parametrize(
    "what", ["a segment is gone", "the last segment is gone", "cut after a plane", "the last is cut after a plane"]
)
def test_planes_are_missed_though_nothing_that_is_there_is_damaged(folder: Path, what: str):
    number = 3 if "last" in what else 1
    found = [(place, begin, end) for place, path, begin, end in records(folder) if path.name.startswith(f"{number + 1:08d}")]
    path = folder / "spool" / f"{number + 1:08d}.spool"
    if "gone" in what:
        path.unlink()
        lost = {place for place, *_ in found}
    else:
        path.write_bytes(path.read_bytes()[: found[0][2]])
        lost = {place for place, *_ in found[1:]}
    with proxy(folder) as second:
        assert second.finish()["planes"] == N_PLANES
    assert write(folder) == FAILED
    assert_failed(folder, lost, None, b"")


@pytest.mark.parametrize("record", RECORDS)
def test_what_comes_after_the_damage_is_in_the_slide(folder: Path, record: str):
    """And has a field of its own, whose number no lost plane had."""
    place, path, begin, _ = records(folder)[RECORDS[record]]
    data = flip(path, begin)
    with proxy(folder) as second:
        for later in range(100, 110):
            assert second.plane(later)["field"] > N_PLANES - 1
        assert second.finish()["planes"] == N_PLANES + 10
    assert write(folder) == FAILED
    part = slide_of(folder).with_name("a scan.h5.part")
    assert places_in_slide(part) == set(range(N_PLANES)) - {place} | set(range(100, 110))
    assert path.name in read_json(folder / "writer.json")["error"]
    assert (folder / "spool" / path.name).read_bytes()[: len(data)] == data


@pytest.mark.parametrize("part", PARTS)
def test_a_plane_that_comes_again_with_its_pixels_is_whole_again(folder: Path, part: str):
    _, path, begin, end = records(folder)[5]
    anchor, offset = PARTS[part]
    flip(path, (begin if anchor == "head" else end) + offset)
    with proxy(folder) as second:
        answers = [second.plane(place)["repeated"] for place in range(N_PLANES)]
        assert answers == [place != 5 for place in range(N_PLANES)]
        assert isinstance(second.finish(N_PLANES - 1), ConflictError) or part != "the pixels"
        if not (folder / "end.json").exists():
            assert second.finish(N_PLANES)["planes"] == N_PLANES
    assert write(folder) == COMPLETE
    assert_complete(folder)


def test_a_plane_that_comes_again_with_other_pixels_is_refused(folder: Path):
    _, path, _, end = records(folder)[5]
    flip(path, end - 100)
    with proxy(folder) as second:
        assert isinstance(second.plane(5, of=50), ConflictError)
        assert second.plane(5)["repeated"] is False


def test_damage_that_the_writer_finds_while_the_proxy_runs_can_be_mended(folder: Path):
    with proxy(folder) as second:
        place, path, begin, _ = records(folder)[1]
        flip(path, begin + 60)
        shutil.copytree(folder / "spool", folder / "damaged", ignore=lambda _, names: [n for n in names if n != path.name])
        assert second.plane(place)["repeated"] is True, "nobody knows yet"
        second.intake.release_written()
        assert second.plane(place)["repeated"] is False
        assert second.plane(place)["repeated"] is True
        assert second.intake.acknowledged == N_PLANES
        assert second.finish()["planes"] == N_PLANES
    assert write(folder) == COMPLETE
    assert_complete(folder)


@pytest.mark.parametrize("part", ["the head's magic", "the facts", "the pixels"])
@pytest.mark.parametrize("restarts", [1, 2])
def test_damage_is_not_forgotten_once_its_segment_was_released(folder: Path, part: str, restarts: int):
    place, path, begin, end = records(folder)[1]
    anchor, offset = PARTS[part]
    data = flip(path, (begin if anchor == "head" else end) + offset)
    write_until(folder, "releasable_segment", 3)
    with proxy(folder) as second:
        second.intake.release_written()
        assert segments(folder / "spool") == [4]
    for _ in range(restarts):
        with proxy(folder):
            pass
    with proxy(folder) as last:
        assert last.finish()["planes"] == N_PLANES
    assert write(folder) == FAILED
    assert_failed(folder, {place}, path, data)


def test_a_damaged_plane_can_be_mended_though_its_segment_was_released(folder: Path):
    place, path, _, end = records(folder)[1]
    flip(path, end - 100)
    write_until(folder, "releasable_segment", 3)
    with proxy(folder) as second:
        second.intake.release_written()
        assert segments(folder / "spool") == [4]
    with proxy(folder) as third:
        assert third.intake.acknowledged == N_PLANES - 1
        assert [third.plane(number)["repeated"] for number in range(N_PLANES)] == [number != place for number in range(N_PLANES)]
        assert third.finish()["planes"] == N_PLANES
    assert write(folder) == COMPLETE
    assert_complete(folder)


def test_damage_to_what_is_in_the_slide_already_costs_nothing(folder: Path):
    """Also where another writer has to go on: what the first had written is copied, though the spool knows nothing of it."""
    write_until(folder, "written", N_PLANES)
    for _, path, begin, _ in records(folder)[:6:5]:
        flip(path, begin)
    with proxy(folder) as second:
        assert second.finish()["planes"] == N_PLANES
    assert write(folder) == COMPLETE
    assert_complete(folder)


def test_what_was_released_is_known_though_the_disk_does_not_tell(folder: Path):
    """A segment that is damaged between the writer's last look and its release."""
    with proxy(folder) as second:
        _, path, begin, _ = records(folder)[1]
        flip(path, begin)
        replace_json(folder / "writer.json", {"releasable_segment": 2})
        second.intake.release_written()
        assert segments(folder / "spool") == [3, 4]
    with proxy(folder) as third:
        assert third.intake.n_unknown == 0
        assert [third.plane(place)["repeated"] for place in range(N_PLANES)] == [True] * N_PLANES


@pytest.mark.parametrize("n_bytes", [1, 47, 48, 200, 1600])
def test_a_torn_plane_that_nobody_was_told_of_is_no_damage(folder: Path, n_bytes: int):
    with SpoolWriter(folder / "spool", SEGMENT_NBYTES) as spool:
        facts = next(found for found, _ in planes_in(folder / "spool"))
        position = spool.append(facts, [image(0).tobytes()])
    path = folder / "spool" / f"{position.segment:08d}.spool"
    path.write_bytes(path.read_bytes()[: position.offset + n_bytes])
    with proxy(folder) as second:
        assert second.intake.n_unknown == 0
        assert path.stat().st_size == position.offset
        assert second.finish(N_PLANES)["planes"] == N_PLANES
    assert write(folder) == COMPLETE
    assert_complete(folder)


def test_a_mark_that_cannot_be_written_is_not_acknowledged(folder: Path, monkeypatch: pytest.MonkeyPatch):
    broken = [True]
    real = intake_module.SpoolWriter.note_safe

    def note_safe(self: SpoolWriter, *arguments: object, **options: object) -> None:
        if broken[0]:
            error = intake_module.WriteError("cannot be written")
            error.errno = 5
            raise error
        real(self, *arguments, **options)

    monkeypatch.setattr(intake_module.SpoolWriter, "note_safe", note_safe)
    with proxy(folder) as second:
        assert isinstance(second.plane(50), SlideError)
        broken[0] = False
        assert second.plane(50)["repeated"] is False
        assert second.finish(N_PLANES + 1)["planes"] == N_PLANES + 1
