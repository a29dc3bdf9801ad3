"""What was synced or sealed stays, whenever the writer is killed; and a slide that is begun anew is known as another."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from test_hdf5_following import SHAPE, TIMEOUT_S, Acquisition, acquire, assert_read_back, plane

from rawmosaic.storage import SlideWriter, open_slide
from rawmosaic.storage.errors import DamagedSlideError, SlideError, WriteError
from rawmosaic.storage.hdf5 import at_once, final_name
from rawmosaic.storage.hdf5.at_once import carry_over_changes, changed_at_once
from rawmosaic.storage.hdf5.copying import copy_planes
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.room import Room
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.slide import PositionSet, new_fields


class KilledError(Exception):
    """Stands for a kill: nothing of what follows happens."""


def sealed_but_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int, irreplaceable: bool = True) -> Path:
    """A slide whose writer was killed while it was sealed: a copy of its folder at that moment."""
    path = tmp_path / "writing" / "slide.h5"
    path.parent.mkdir()
    slide_writer = SlideWriter(path, field_shape=SHAPE, channels=["a", "b"], irreplaceable=irreplaceable)
    acquire(slide_writer, range(8))
    right = getattr(at_once, step)
    calls = []

    def killed(*arguments: object) -> None:
        calls.append(step)
        if step == "_carry_over" and after:
            raw, data, where = arguments
            right(_Torn(raw, after), data, where)
        if not after:
            raise KilledError
        right(*arguments)
        raise KilledError

    monkeypatch.setattr(at_once, step, killed)
    monkeypatch.setattr(slide_writer, "abort", slide_writer.leave)  # who is killed clears nothing away
    with pytest.raises(KilledError):
        slide_writer.seal()
    assert calls
    monkeypatch.undo()
    return path


class _Torn:
    """A file that takes so many pieces, and then its writer is killed."""

    def __init__(self, raw, pieces: int):
        self._raw, self._left = raw, pieces

    def write(self, data):
        if self._left == 0:
            raise KilledError
        self._left -= 1
        return self._raw.write(data)

    def __getattr__(self, name):
        return getattr(self._raw, name)


KILLED_AT = [("_keep", 0), ("_keep", 1), ("_carry_over", 0), ("_carry_over", 1), ("_carry_over", 2)]


@pytest.mark.parametrize(("step", "after"), KILLED_AT)
def test_slide_killed_while_it_is_sealed_is_as_before_or_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int
):
    path = sealed_but_for(tmp_path, monkeypatch, step, after)
    part = path.with_name("slide.h5.part")
    noted = part.with_name("slide.h5.part.changes").exists()
    assert noted == ((step, after) != ("_keep", 0))
    if noted:
        with pytest.raises(SlideError, match="killed while it finished"):
            open_slide(part)
    assert carry_over_changes(part) == noted
    assert not carry_over_changes(part), "once is enough"
    with Hdf5Slide(part) as slide:
        assert slide.finished == noted
        assert slide.acquired().all()
        assert_read_back(slide, np.argwhere(np.ones((8, 2, 1, 1))).astype(np.int32))
    assert verify_slide(part) == []


def test_slide_that_is_written_again_knows_nothing_of_changes_to_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = sealed_but_for(tmp_path, monkeypatch, "_carry_over", 1, irreplaceable=False)
    with SlideWriter(path, field_shape=SHAPE, channels=["a", "b"]) as slide_writer:
        acquire(slide_writer, range(2))
        slide_writer.publish()
        with open_slide(path) as slide:
            assert slide.n_fields == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["slide.h5"]
    assert verify_slide(path) == []


def test_note_of_changes_that_is_damaged_is_not_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    part = sealed_but_for(tmp_path, monkeypatch, "_carry_over", 0).with_name("slide.h5.part")
    note = part.with_name(part.name + ".changes")
    data = bytearray(note.read_bytes())
    data[len(data) // 2] ^= 1
    note.write_bytes(data)
    before = part.read_bytes()
    with pytest.raises(DamagedSlideError, match="changes"):
        carry_over_changes(part)
    assert part.read_bytes() == before


def test_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path):
    path = tmp_path / "file.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["numbers"] = np.arange(1000)
        file.create_dataset("table", data=np.arange(5000), chunks=(100,))

    def change() -> None:
        with changed_at_once(path) as file:
            file["numbers"][:] = 0
            del file["table"]
            file["more"] = np.ones(10_000)
            raise KilledError

    with pytest.raises(KilledError):
        change()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["numbers"], np.arange(1000))
        np.testing.assert_array_equal(file["table"], np.arange(5000))
        assert "more" not in file


def test_changes_are_all_there_afterwards(tmp_path: Path):
    path = tmp_path / "file.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["numbers"] = np.arange(1000)
        file["gone"] = np.arange(10)
    with changed_at_once(path) as file:
        file["numbers"][::2] = 0
        file["more"] = np.ones(10_000)
        np.testing.assert_array_equal(file["numbers"][:4], [0, 1, 0, 3])
        del file["gone"]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["numbers"], np.where(np.arange(1000) % 2, np.arange(1000), 0))
        np.testing.assert_array_equal(file["more"], np.ones(10_000))
        assert "gone" not in file
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.h5"]


def test_sync_returns_after_the_disk_has_everything_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    slide_writer = SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a", "b"])
    sync = Room.sync

    def looking(self: Room) -> None:
        with open_slide(tmp_path / "slide.h5") as slide:
            seen.append(int(slide.acquired().sum()))
        sync(self)

    monkeypatch.setattr(Room, "sync", looking)
    acquire(slide_writer, range(5))
    slide_writer.sync()
    assert seen == [10]
    slide_writer.close()
    with pytest.raises(WriteError, match="closed"):
        slide_writer.sync()


def test_effort_may_change_at_any_time(tmp_path: Path):
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a", "b"], codec="zstd") as slide_writer:
        assert slide_writer.effort == "normal"
        for field in range(20):
            slide_writer.effort = "fast" if field % 2 else "normal"
            acquire(slide_writer, range(field, field + 1))
    assert verify_slide(tmp_path / "slide.h5") == []
    with open_slide(tmp_path / "slide.h5") as slide:
        assert_read_back(slide, np.argwhere(np.ones((20, 2, 1, 1))).astype(np.int32))


def test_irreplaceable_planes_stay_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slide_writer = SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a", "b"], irreplaceable=True)
    acquire(slide_writer, range(5))
    slide_writer.sync()
    monkeypatch.setattr(at_once, "_keep", lambda *_: (_ for _ in ()).throw(OSError(5, os.strerror(5))))
    with pytest.raises(WriteError, match="could not be finished"):
        slide_writer.close()
    monkeypatch.undo()
    with open_slide(tmp_path / "slide.h5") as slide:
        assert not slide.finished
        assert slide.acquired().sum() == 10
        with SlideWriter(tmp_path / "other.h5", field_shape=SHAPE, channels=["a", "b"]) as other:
            assert copy_planes(slide, other) == []
    assert verify_slide(tmp_path / "other.h5") == []


def test_field_whose_stage_moved_between_its_planes_lies_where_it_lay_when_it_is_copied(tmp_path: Path):
    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    with SlideWriter(old, field_shape=SHAPE, channels=["a"], size_z=2) as slide_writer:
        slide_writer.write_plane(plane(0), 0, row=0, column=0, x_um=10.0, y_um=5.0)
        slide_writer.write_plane(plane(1), 0, row=0, column=0, x_um=10.5, y_um=5.0, z=1)
    with open_slide(old) as slide, SlideWriter(new, field_shape=SHAPE, channels=["a"], size_z=2) as slide_writer:
        assert copy_planes(slide, slide_writer) == []
    with open_slide(new) as slide:
        assert slide.positions().tolist() == [[10.0, 5.0]]
        assert slide.position_set("stage").plane_offsets_um.tolist() == [[[0.5, 0.0]]]


def test_copy_that_takes_the_final_name_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Windows renames no file that somebody follows: its copy is renamed."""
    part, path, steps = tmp_path / "a.h5.part", tmp_path / "a.h5", []
    part.write_bytes(b"planes")

    def renamed(source: Path, target: Path) -> None:
        steps.append("renamed")
        if source == part:
            raise PermissionError
        os.replace(source, target)

    monkeypatch.setattr(final_name, "os", SimpleNamespace(name="nt", replace=renamed))
    monkeypatch.setattr(final_name, "sync_file", lambda _: steps.append("synced"))
    monkeypatch.setattr(final_name, "PATIENCE_S", 0.0)
    final_name.take_final_name(part, path)
    assert steps == ["renamed", "synced", "renamed"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]
    assert path.read_bytes() == b"planes"


def test_planned_field_lies_where_its_first_plane_was_taken(tmp_path: Path):
    planned = new_fields(3, SHAPE)
    planned["x_um"] = [0, 50, 100]
    sets = {"planned": PositionSet(np.stack([planned["x_um"], planned["y_um"]], -1))}
    path = tmp_path / "slide.h5"
    with SlideWriter(path, field_shape=SHAPE, channels=["a", "b"], fields=planned, position_sets=sets) as slide_writer:
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.positions()[:, 0], [0, 50, 100])
            slide_writer.write_plane(plane(1), 0, field=1, x_um=51.5, y_um=0.25, z_um=3.0)
            slide_writer.write_plane(plane(1, 1), 1, field=1, x_um=52.0, y_um=0.25)
            slide_writer.publish()
            slide.refresh()
            np.testing.assert_array_equal(slide.positions(), [[0, 0], [51.5, 0.25], [100, 0]])
            assert slide.fields["z_um"].tolist() == [0, 3, 0]
            np.testing.assert_array_equal(slide.placement().centres_um(1)[1], [52.0, 0.25])
            np.testing.assert_array_equal(slide.positions("planned")[:, 0], [0, 50, 100])


def test_follower_of_a_slide_that_is_begun_anew_says_so_and_reads_on(tmp_path: Path):
    path, part = tmp_path / "scan.h5", tmp_path / "scan.h5.part"
    first = Acquisition(path)
    first.ask("acquire(writer, range(4)); writer.publish()")
    with open_slide(path) as slide, open_slide(path) as other:
        assert not slide.replaced
        first.process.kill()
        first.process.wait(TIMEOUT_S)
        first.end()
        os.replace(part, tmp_path / "scan.h5.kept")
        assert not slide.replaced, "nothing is there yet"
        second = Acquisition(path)
        try:
            second.ask("acquire(writer, range(2)); writer.publish()")
            assert slide.replaced
            for _ in range(3):
                assert len(slide.refresh()) == 0
            assert not slide.growing
            assert_read_back(slide, np.argwhere(np.ones((4, 2, 1, 1))).astype(np.int32))
            with open_slide(path) as anew:
                assert anew.growing
                assert not anew.replaced
                assert anew.n_fields == 2
                assert anew.identity != slide.identity
                second.ask("writer.close()")
                assert other.replaced
                assert len(anew.refresh()) == 0
                assert not anew.growing
                assert not anew.replaced
                assert slide.replaced
        finally:
            second.end()


def test_finished_slide_without_its_name_is_settled_on(tmp_path: Path):
    path = tmp_path / "scan.h5"
    acquisition = Acquisition(path)
    try:
        acquisition.ask("acquire(writer, range(4)); writer.publish()")
        with open_slide(path) as slide:
            acquisition.ask("acquire(writer, range(4, 6)); writer.seal()")
            assert not path.exists()
            assert len(slide.refresh()) == 4
            assert not slide.growing
            assert slide.finished
            acquisition.ask("writer.close()")
            assert path.exists()
            assert not slide.replaced
            assert_read_back(slide, np.argwhere(np.ones((6, 2, 1, 1))).astype(np.int32))
    finally:
        acquisition.end()


def test_in_the_writers_own_process_a_slide_opens_at_every_moment(tmp_path: Path):
    failures: list[BaseException] = []
    over = threading.Event()
    with SlideWriter(tmp_path / "slide.h5", field_shape=SHAPE, channels=["a", "b"]) as slide_writer:

        def look() -> None:
            try:
                while not over.is_set():
                    with open_slide(tmp_path / "slide.h5") as slide:
                        assert_read_back(slide, np.argwhere(slide.acquired()[..., None, None]).astype(np.int32)[-2:])
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            for field in range(60):
                acquire(slide_writer, range(field, field + 1))
                slide_writer.publish()
        finally:
            over.set()
            thread.join()
    assert not failures, failures
