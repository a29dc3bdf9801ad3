"""Whatever lies under the names of a scan's slide: all planes come out, or one error that says where, and nothing is gone."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scans import until
from test_writer import run_until_written
from writing import UID, Scan, Writer

from rawmosaic.net.acquisition import resuming
from rawmosaic.net.acquisition import writer as writer_module
from rawmosaic.net.acquisition.resuming import take_up
from rawmosaic.net.acquisition.writer import COMPLETE, ENDED, FAILED, ScanWriter
from rawmosaic.storage import SlideWriter, open_slide
from rawmosaic.storage.errors import WriteError
from rawmosaic.storage.hdf5.left_behind import damaged_of, kept_of, part_of

N_FIELDS = 10
STEPS = ("begun", "copying", "copied", "forgot kept")
"""What a writer passes while it copies, which a kill may follow."""


class Before:
    """A scan whose writer ended after planes had left the spool, as files that can be put there again and again."""

    def __init__(self, place: Path):
        self.scan = Scan(place / "data")
        self.scan.put_fields(range(N_FIELDS))
        assert run_until_written(self.scan, 2 * N_FIELDS) == ENDED
        assert self.scan.release() >= 1
        self.scan.finish()
        self.scan.close()
        self.own = without_room(part_of(self.scan.location))
        part_of(self.scan.location).unlink()
        self.foreign = made(place / "foreign.h5", scan_uid="another scan", irreplaceable=True)
        self.imported = made(place / "imported.h5")

    def in_folder(self, place: Path) -> Path:
        """The location of the slide in a folder of its own."""
        shutil.copytree(self.scan.folder.parent, place)
        return place / self.scan.location.name


def made(path: Path, **facts: object) -> bytes:
    """An unfinished slide of somebody else."""
    slide_writer = SlideWriter(path, field_shape=(24, 32), channels=["a"], **facts)
    slide_writer.write_plane(np.ones((24, 32), np.uint16), 0, x_um=0, y_um=0)
    slide_writer.sync()
    slide_writer.leave()
    return without_room(part_of(path))


def without_room(part: Path) -> bytes:
    """A slide without most of the room that its writer took for what was to come: fifty times what it holds here."""
    return part.read_bytes().rstrip(b"\0") + bytes(1 << 16)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    return Before(tmp_path_factory.mktemp("before"))


def nothing(path: Path, before: Before) -> None:
    """Nothing of that name."""


def own(path: Path, before: Before) -> None:
    path.write_bytes(before.own)


def torn(path: Path, before: Before) -> None:
    path.write_bytes(before.own[:1500])


def torn_at_its_root(path: Path, before: Before) -> None:
    """HDF5 reads what it finds damaged in a file that may be followed again and again, and would never come back."""
    data = bytearray(before.own)
    data[data.index(b"OHDR") + 8] ^= 0xFF
    data[11] = 5
    path.write_bytes(data)


def empty(path: Path, before: Before) -> None:  # noqa: ARG001
    path.touch()


def foreign(path: Path, before: Before) -> None:
    path.write_bytes(before.foreign)


def imported(path: Path, before: Before) -> None:
    path.write_bytes(before.imported)


def text(path: Path, before: Before) -> None:  # noqa: ARG001
    path.write_text("somebody's notes")


def folder(path: Path, before: Before) -> None:  # noqa: ARG001
    path.mkdir()
    (path / "inside").write_text("somebody's notes")


def dangling(path: Path, before: Before) -> None:  # noqa: ARG001
    path.symlink_to(path.parent / "a disk that is away")


def linked(path: Path, before: Before) -> None:
    (path.parent / f"elsewhere {path.suffix}").write_bytes(before.own)
    path.symlink_to(path.parent / f"elsewhere {path.suffix}")


Puts = Callable[[Path, Before], None]
OFTEN, SELDOM = (nothing, own, torn, empty, foreign, imported), (torn_at_its_root, text, folder, dangling, linked)
PAIRS = [
    *itertools.product(OFTEN, OFTEN),
    *itertools.product(SELDOM, (nothing, own)),
    *itertools.product((nothing, own), SELDOM),
]
HAVE_ALL = {own, linked}
COUNT_FOR_NOTHING = {nothing, empty}
OTHERS = {foreign, imported, folder, dangling}
"""What is told apart from a scan's own file: the scan waits until it is moved away."""


def contents(place: Path) -> list[bytes]:
    """What the files below a folder hold that are slides or stand for them and are not empty, sorted."""
    return sorted(
        path.read_bytes() for path in place.rglob("*") if path.is_file() and ".scan" not in str(path) and path.stat().st_size
    )


def run(location: Path) -> tuple[int, str]:
    """A writer until it ends; its exit code, and what it says is wrong."""
    scan_writer = ScanWriter(location.with_suffix(".scan"), threading.Event())
    code = scan_writer.run()
    return code, scan_writer._status["error"]


def assert_all_planes(location: Path, before: Before) -> None:
    with open_slide(location) as slide:
        assert slide.acquired().sum() == len(before.scan.truth)
        for key, truth in before.scan.truth.items():
            np.testing.assert_array_equal(slide.read_plane(*key), truth)


@pytest.mark.parametrize(("part", "kept"), PAIRS, ids=lambda puts: puts.__name__)
def test_all_planes_are_in_the_slide_or_nothing_is_gone(tmp_path: Path, before: Before, part: Puts, kept: Puts):
    location = before.in_folder(tmp_path / "data")
    part(part_of(location), before)
    kept(kept_of(location), before)
    there = contents(location.parent)
    code, error = run(location)
    expected = not OTHERS & {part, kept} and (kept in HAVE_ALL or (kept in COUNT_FOR_NOTHING and part in HAVE_ALL))
    assert code == (COMPLETE if expected else FAILED), error
    if code == COMPLETE:
        assert_all_planes(location, before)
        return
    assert str(location.parent) in error
    assert len(error) < 600
    after = contents(location.parent)
    for data in there:
        assert data in after, f"a file of {len(data)} bytes is gone: {error}"
    if OTHERS & {part, kept}:
        assert contents(location.parent) == there
        assert "move it away" in error


@pytest.mark.parametrize("kept", [nothing, own])
@pytest.mark.parametrize("note", [b"", b"no note", b"rmchange" + bytes(100)])
def test_note_of_changes_that_is_none_is_told_and_deletes_nothing(tmp_path: Path, before: Before, kept: Puts, note: bytes):
    location = before.in_folder(tmp_path / "data")
    own(part_of(location), before)
    kept(kept_of(location), before)
    told = part_of(location).with_name(part_of(location).name + ".changes")
    told.write_bytes(note)
    there = contents(location.parent)
    code, error = run(location)
    assert code == FAILED
    assert "move them away" in error
    assert contents(location.parent) == there
    told.unlink()
    assert run(location)[0] == COMPLETE


@pytest.mark.parametrize("puts", [foreign, imported, text, folder, dangling])
def test_what_has_the_final_name_is_left_alone(tmp_path: Path, before: Before, puts: Puts):
    location = before.in_folder(tmp_path / "data")
    own(part_of(location), before)
    puts(location, before)
    there = contents(location.parent)
    code, error = run(location)
    assert code == FAILED
    assert "another slide has this name" in error
    assert contents(location.parent) == there


def test_slides_of_which_not_all_could_be_copied_are_all_kept_and_named(tmp_path: Path, before: Before):
    location = before.in_folder(tmp_path / "data")
    for name in ("a scan.h5.damaged", "a scan.h5.damaged-2"):
        location.with_name(name).write_bytes(before.own[:3000])
    code, error = run(location)
    assert code == FAILED
    assert all(str(path) in error for path in damaged_of(location))
    assert len(damaged_of(location)) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are not killed here")
@pytest.mark.parametrize("second", STEPS)
@pytest.mark.parametrize("first", STEPS)
def test_copying_that_is_killed_twice_in_a_row_loses_nothing(tmp_path: Path, before: Before, first: str, second: str):
    location = before.in_folder(tmp_path / "data")
    own(part_of(location), before)
    scan = SimpleNamespace(folder=location.with_suffix(".scan"))
    for step in (first, second):
        assert Writer(scan, step, 7 if step == "copying" else 1).wait() == -signal.SIGKILL
    assert run(location) == (COMPLETE, "")
    assert_all_planes(location, before)
    assert not [path for path in location.parent.iterdir() if path.suffix not in (".h5", ".scan")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "small disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk, on Linux")
    command = ["mount", "-t", "tmpfs", "-o", "size=96m", "none", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this system mounts nothing, not even for root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kills", [0, 2])
def test_disk_that_is_full_while_a_slide_is_copied_holds_the_scan_and_loses_nothing(
    before: Before, small_disk: Path, monkeypatch: pytest.MonkeyPatch, kills: int
):
    location = before.in_folder(small_disk / "data")
    own(part_of(location), before)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    monkeypatch.setattr(writer_module, "FULL_PAUSE_S", 0.01)
    for last in [False] * kills + [True]:
        over, codes = threading.Event(), []
        scan_writer = ScanWriter(location.with_suffix(".scan"), over)
        thread = threading.Thread(target=lambda scan_writer=scan_writer, codes=codes: codes.append(scan_writer.run()))
        thread.start()
        until(lambda scan_writer=scan_writer: "the disk is full" in scan_writer._status["error"])
        assert "a scan.h5.kept is copied" in scan_writer._status["error"]
        assert kept_of(location).read_bytes() == before.own
        if last:
            ballast.unlink()
        else:
            over.set()
        thread.join()
        assert codes == [COMPLETE if last else ENDED]
    assert_all_planes(location, before)


def test_scan_waits_for_viewers_that_have_its_slide_open_and_says_so(
    tmp_path: Path, before: Before, monkeypatch: pytest.MonkeyPatch
):
    """Windows renames and deletes no file that is open."""
    location = before.in_folder(tmp_path / "data")
    own(part_of(location), before)
    refused: dict[Path, int] = {}
    told: list[str] = []
    real, say = resuming.patiently, ScanWriter._say_trouble

    def refusing(change: Callable[[], object], path: Path, waiting: Callable[[str], None]) -> None:
        def changed() -> None:
            refused[path] = refused.get(path, 0) + 1
            if refused[path] <= 3:
                error = PermissionError(13, "it is being used by another process")
                error.winerror = 32
                raise error
            change()

        real(changed, path, waiting)

    def noting(self: ScanWriter, text: str) -> None:
        told.append(text)
        say(self, text)

    for module in (resuming, writer_module):
        monkeypatch.setattr(module, "patiently", refusing)
    monkeypatch.setattr(writer_module, "IN_USE_PAUSE_S", 0.001)
    monkeypatch.setattr(ScanWriter, "_say_trouble", noting)
    code, error = run(location)
    assert (code, error) == (COMPLETE, "")
    assert refused == {part_of(location): 4, kept_of(location): 4}
    assert sum("close the viewers that show a scan.h5" in text for text in told) == 6
    assert not list(location.parent.glob("*.wanted"))


def test_scan_that_is_ended_while_it_waits_for_viewers_ends_in_order(
    tmp_path: Path, before: Before, monkeypatch: pytest.MonkeyPatch
):
    location = before.in_folder(tmp_path / "data")
    own(part_of(location), before)
    over = threading.Event()

    def refused(*_: object) -> None:
        over.set()
        error = PermissionError(13, "it is being used by another process")
        error.winerror = 5
        raise error

    monkeypatch.setattr(resuming.os, "replace", refused)
    scan_writer = ScanWriter(location.with_suffix(".scan"), over)
    with monkeypatch.context():
        assert take_in_order(scan_writer) == ENDED
    assert part_of(location).read_bytes() == before.own


def take_in_order(scan_writer: ScanWriter) -> int:
    """The exit code, without the status file, whose replacement is refused as well."""
    try:
        take_up(scan_writer.location, UID, scan_writer._wait_for_others)
    except writer_module.EndedError:
        return ENDED
    return COMPLETE


def test_folder_that_cannot_be_written_to_is_one_error(tmp_path: Path, before: Before, monkeypatch: pytest.MonkeyPatch):
    location = before.in_folder(tmp_path / "data")
    own(part_of(location), before)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(resuming.os, "replace", refused)
    with pytest.raises(WriteError, match=r"cannot be put aside: .*nothing was deleted"):
        take_up(location, UID)
    assert part_of(location).read_bytes() == before.own
