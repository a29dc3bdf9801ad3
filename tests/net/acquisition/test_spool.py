"""The spool: what was appended is found again, whatever happens to the end of it, and while it grows."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scans import LONG_S, facts_of, image, until

from rawmosaic.net.acquisition import spool as module
from rawmosaic.net.acquisition.safe_mark import SafeMark
from rawmosaic.net.acquisition.spool import (
    PlaneFacts,
    Position,
    ReleasedList,
    SpoolReader,
    SpoolWriter,
    append_released,
    payload_pixels,
    planes_in,
    planes_of_segment,
    read_released,
    released_rows,
    segment_path,
    segments,
)
from rawmosaic.storage.errors import DamagedSlideError, WriteError

SMALL = (3, 5)
TWO = 500
"""A segment of so many bytes holds two such planes."""


def plane(number: int, shape: tuple[int, int] = SMALL, **more) -> tuple[PlaneFacts, bytes]:
    payload = image(number, 0, shape).tobytes()
    return facts_of(number, payload, shape, **more), payload


def written(folder: Path, count: int, segment_nbytes: int = 1 << 20, first: int = 0) -> list[tuple[PlaneFacts, bytes]]:
    planes = [plane(number) for number in range(first, first + count)]
    with SpoolWriter(folder, segment_nbytes) as writer:
        for facts, payload in planes:
            writer.append(facts, [payload])
    return planes


def append(writer: SpoolWriter, facts: PlaneFacts, payload: bytes) -> Position:
    return writer.append(facts, [payload])


def read(folder: Path, segment: int = 1) -> tuple[list[tuple[PlaneFacts, bytes]], list[DamagedSlideError]]:
    """All that a reader gives, and the damage that it tells of."""
    planes, damage = [], []
    with SpoolReader(folder, segment) as reader:
        while True:
            try:
                found = reader.next()
            except DamagedSlideError as error:
                damage.append(error)
                continue
            if found is None:
                return planes, damage
            planes.append(found[:2])


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch):
    """Files of these tests do not change while they are wrong."""
    monkeypatch.setattr(module, "_LOOKS", 1)


# what was appended


def test_what_was_appended_is_read_in_order(tmp_path):
    planes = written(tmp_path / "spool", 7)
    assert read(tmp_path / "spool") == (planes, [])
    for (facts, payload), number in zip(planes, range(7), strict=True):
        assert np.array_equal(payload_pixels(facts, payload), image(number, 0, SMALL))


def test_all_facts_survive(tmp_path):
    facts, payload = plane(3, row=4, scene=1, x_um=-0.1, y_um=1 / 3, z_um=7.0, metadata={"a": [1, {"µ": None}], "b": "x" * 9000})
    with SpoolWriter(tmp_path) as writer:
        writer.append(facts, [payload])
    assert read(tmp_path) == ([(facts, payload)], [])


def test_a_payload_may_come_in_parts(tmp_path):
    facts, payload = plane(1)
    with SpoolWriter(tmp_path) as writer:
        writer.append(facts, [payload[:7], memoryview(payload)[7:20], b"", payload[20:]])
    assert read(tmp_path) == ([(facts, payload)], [])


@pytest.mark.parametrize("most", [1, 7, 1000])
@pytest.mark.parametrize("gathers", [True, False])
def test_a_system_that_writes_little_at_once_writes_all(tmp_path, monkeypatch, most, gathers):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:most]))
    if gathers and hasattr(os, "writev"):
        monkeypatch.setattr(os, "writev", lambda descriptor, buffers: real(descriptor, bytes(buffers[0])[:most]))
    else:
        monkeypatch.delattr(os, "writev", raising=False)
    planes = written(tmp_path / "spool", 3)
    assert read(tmp_path / "spool") == (planes, [])


def test_a_spool_goes_on_where_it_ended(tmp_path):
    first, second = written(tmp_path, 3), written(tmp_path, 2, first=3)
    assert read(tmp_path) == (first + second, [])
    assert segments(tmp_path) == [1]


def test_a_full_segment_is_followed_by_another(tmp_path):
    planes = written(tmp_path, 10, segment_nbytes=TWO)
    assert len(segments(tmp_path)) > 3
    assert segments(tmp_path) == list(range(1, len(segments(tmp_path)) + 1))
    assert all(segment_path(tmp_path, number).stat().st_size <= TWO for number in segments(tmp_path))
    assert read(tmp_path) == (planes, [])
    assert [facts for number in segments(tmp_path) for facts in planes_of_segment(tmp_path, number)] == [
        facts for facts, _ in planes
    ]


def test_a_plane_larger_than_a_segment_has_one_of_its_own(tmp_path):
    planes = written(tmp_path, 3, segment_nbytes=1)
    assert segments(tmp_path) == [1, 2, 3]
    assert read(tmp_path) == (planes, [])


def test_what_is_used_is_what_lies_on_the_disk(tmp_path):
    with SpoolWriter(tmp_path, 700) as writer:
        for number in range(6):
            append(writer, *plane(number))
            assert writer.used_nbytes == sum(path.stat().st_size for path in tmp_path.glob("*.spool"))


def test_positions_say_where_records_lie(tmp_path):
    with SpoolWriter(tmp_path, 900) as writer:
        positions = [writer.append(facts, [payload]) for facts, payload in (plane(number) for number in range(5))]
    assert [position for _, position in planes_in(tmp_path)] == positions
    assert all(position.offset % 8 == 0 for position in positions)


# torn, damaged


def test_a_tail_torn_at_any_byte_is_cut_off_and_nothing_else(tmp_path):
    planes = written(tmp_path / "whole", 3)
    whole = segment_path(tmp_path / "whole", 1).read_bytes()
    (*_, (_, last)) = planes_in(tmp_path / "whole")
    for end in range(last.offset, last.offset + last.nbytes):
        folder = tmp_path / "torn"
        folder.mkdir()
        segment_path(folder, 1).write_bytes(whole[:end])
        assert read(folder) == (planes[:2], [])
        with SpoolWriter(folder) as writer:
            assert writer.used_nbytes == last.offset
            append(writer, *planes[2])
        assert segment_path(folder, 1).read_bytes() == whole
        shutil.rmtree(folder)


@pytest.mark.parametrize("rubbish", [b"\0" * 4096, b"rmspool1" * 100, os.urandom(333)], ids=["zeros", "heads", "noise"])
def test_rubbish_at_the_end_is_cut_off(tmp_path, rubbish):
    planes = written(tmp_path, 3)
    size = segment_path(tmp_path, 1).stat().st_size
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(rubbish)
    assert read(tmp_path) == (planes, [])
    with SpoolWriter(tmp_path) as writer:
        assert writer.used_nbytes == size


def test_a_byte_that_flipped_costs_its_plane_and_no_other(tmp_path):
    planes = written(tmp_path, 3)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    (_, first), (_, middle), _ = planes_in(tmp_path)
    for at in range(middle.offset, middle.offset + middle.nbytes):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        found, damage = read(tmp_path)
        if found == planes:  # padding, which says nothing
            assert at >= middle.offset + middle.nbytes - 7
            continue
        assert found == [planes[0], planes[2]]
        assert len(damage) == 1
        assert damage[0].facts in (None, planes[1][0])
        assert damage[0].location == str(path)
        SpoolWriter(tmp_path).close()
        assert path.stat().st_size == len(whole), "what was acknowledged is not cut off"
    assert first.segment == 1


def test_the_last_plane_is_kept_though_it_is_damaged(tmp_path):
    """It may have been acknowledged; that it is damaged is told."""
    planes = written(tmp_path, 2)
    mark_all_as_safe(tmp_path)
    path, data = with_a_wrong_byte(tmp_path, -20)
    SpoolWriter(tmp_path).close()
    assert path.read_bytes() == data
    found, damage = read(tmp_path)
    assert found == planes[:1]
    assert damage[0].facts == planes[1][0]


def test_a_last_plane_of_which_nobody_was_told_is_cut_off_though_it_has_its_length(tmp_path):
    """A power failure may leave the length of what was written, and not the bytes."""
    planes = written(tmp_path, 1)
    mark_all_as_safe(tmp_path)
    with SpoolWriter(tmp_path) as writer:
        whole = writer.open_nbytes
        append(writer, *plane(1))
    path, _ = with_a_wrong_byte(tmp_path, -20)
    assert read(tmp_path) == (planes, []), "it is not there yet"
    assert [facts for facts, _ in planes_in(tmp_path, payloads=False)] == [facts for facts, _ in planes]
    SpoolWriter(tmp_path).close()
    assert path.stat().st_size == whole
    with SpoolWriter(tmp_path) as writer:
        append(writer, *plane(2))
    assert [facts for facts, _ in read(tmp_path)[0]] == [plane(0)[0], plane(2)[0]]


def test_a_plane_that_another_follows_was_there_whoever_was_told(tmp_path):
    with SpoolWriter(tmp_path) as writer:
        first = append(writer, *plane(0))
        append(writer, *plane(1))
    path, data = with_a_wrong_byte(tmp_path, first.nbytes - 20)
    SpoolWriter(tmp_path).close()
    assert path.read_bytes() == data
    found, damage = read(tmp_path)
    assert [facts for facts, _ in found] == [plane(1)[0]]
    assert damage[0].facts == plane(0)[0]


def test_without_a_mark_the_last_plane_is_kept_though_it_is_damaged(tmp_path):
    """A spool of a version that had none, or whose mark is gone: it may have been acknowledged."""
    written(tmp_path, 2)
    (tmp_path / "safe.mark").unlink()
    path, data = with_a_wrong_byte(tmp_path, -20)
    SpoolWriter(tmp_path).close()
    assert path.read_bytes() == data


def mark_all_as_safe(folder) -> None:
    with SpoolWriter(folder) as writer:
        writer.note_safe(SafeMark(writer.reached.ordinal, writer.segment, writer.open_nbytes))


def with_a_wrong_byte(folder, at: int) -> tuple[Path, bytes]:
    """The first segment, one byte of which is another now."""
    path = segment_path(folder, 1)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return path, bytes(data)


def test_a_record_inside_a_payload_is_no_record(tmp_path):
    """Pixels that are, byte for byte, a spool of their own; and the head before them is damaged."""
    written(tmp_path / "inner", 2)
    inner = segment_path(tmp_path / "inner", 1).read_bytes()
    shape = (1, len(inner) // 2)
    outer = facts_of(9, inner, shape)
    with SpoolWriter(tmp_path / "outer") as writer:
        writer.append(outer, [inner])
        position = append(writer, *plane(1))
    path = segment_path(tmp_path / "outer", 1)
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    found, damage = read(tmp_path / "outer")
    assert found == [plane(1)]
    assert len(damage) == 1
    assert position.offset > 0


def test_a_segment_that_was_cut_in_the_middle_is_told_and_the_next_is_read(tmp_path):
    planes = written(tmp_path, 6, segment_nbytes=TWO)
    path = segment_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-9])
    found, damage = read(tmp_path)
    assert found == planes[:1] + planes[2:]
    assert len(damage) == 1


def test_a_segment_of_another_place_is_not_believed(tmp_path):
    written(tmp_path, 6, segment_nbytes=TWO)
    segment_path(tmp_path, 2).write_bytes(segment_path(tmp_path, 1).read_bytes())
    found, damage = read(tmp_path)
    assert [facts.field for facts, _ in found] == [0, 1, 4, 5]
    assert damage


RECORDS = st.lists(st.integers(0, 5000), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=RECORDS, cut=st.floats(0, 1), segment_nbytes=st.integers(1, 20_000), flips=st.lists(st.floats(0, 0.999), max_size=2))
def test_whatever_happens_to_the_last_segment_only_right_planes_come_out(tmp_path, sizes, cut, segment_nbytes, flips):
    folder = tmp_path / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    planes = [plane(number, (1, size + 1)) for number, size in enumerate(sizes)]
    with SpoolWriter(folder, segment_nbytes) as writer:
        for facts, payload in planes:
            writer.append(facts, [payload])
    path = segment_path(folder, segments(folder)[-1])
    data = bytearray(path.read_bytes())
    for at in flips:
        data[int(at * len(data))] ^= 0x41
    path.write_bytes(data[: int(cut * len(data))])
    before, _ = read(folder)
    SpoolWriter(folder, segment_nbytes).close()
    after, _ = read(folder)
    assert before == after
    fields = [facts.field for facts, _ in after]
    assert fields == sorted(set(fields))
    assert all(planes[facts.field] == (facts, payload) for facts, payload in after)


# beside a writer


def test_a_reader_beside_a_writer_gets_every_plane_once_and_whole(tmp_path):
    count, read_so_far = 400, []
    go_on = threading.Semaphore(20)  # the writer is never more than so many ahead: both are at the end most of the time

    def write() -> None:
        with SpoolWriter(tmp_path, 3000) as writer:
            for number in range(count):
                assert go_on.acquire(timeout=LONG_S)
                facts, payload = plane(number, (2, 1 + number % 200))
                writer.append(facts, [payload])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with SpoolReader(tmp_path) as reader:

            def next_one() -> bool:
                found = reader.next()
                if found is None:
                    return False
                read_so_far.append(found)
                go_on.release()
                return len(read_so_far) == count

            until(next_one)
            assert reader.next() is None
    finally:
        for _ in range(count):
            go_on.release()
        thread.join()
    for number, (facts, payload, _) in enumerate(read_so_far):
        assert (facts, payload) == plane(number, (2, 1 + number % 200))
    assert [segment for *_, segment in read_so_far] == sorted(segment for *_, segment in read_so_far)


def test_a_plane_that_is_not_complete_yet_is_not_there(tmp_path):
    planes = written(tmp_path / "whole", 1)
    whole = segment_path(tmp_path / "whole", 1).read_bytes()
    folder = tmp_path / "grows"
    with SpoolReader(folder) as reader:
        assert reader.next() is None
        folder.mkdir()
        assert reader.next() is None
        with open(segment_path(folder, 1), "ab", buffering=0) as file:
            for byte in whole:
                assert reader.next() is None
                file.write(bytes([byte]))
        assert reader.next() == (*planes[0], 1)
        assert reader.next() is None


def test_a_reader_knows_when_a_closed_segment_is_done_with(tmp_path):
    with SpoolWriter(tmp_path, TWO) as writer, SpoolReader(tmp_path) as reader:
        for number in range(2):
            append(writer, *plane(number))
        reader.next()
        assert not reader.finished_segment(1)
        reader.next()
        assert not reader.finished_segment(1), "more may come"
        writer.rotate()
        assert reader.finished_segment(1)
        assert not reader.finished_segment(2)
        append(writer, *plane(2))
        assert reader.next() == (*plane(2), 2)


def test_a_reader_begins_where_it_is_told_or_with_what_is_left(tmp_path):
    planes = written(tmp_path, 8, segment_nbytes=TWO)
    assert read(tmp_path, segment=3)[0] == planes[4:]
    with SpoolWriter(tmp_path, TWO) as writer:
        writer.release(2)
    assert segments(tmp_path)[0] == 3
    assert read(tmp_path)[0] == planes[4:]


def test_the_segment_that_grows_is_never_released(tmp_path):
    with SpoolWriter(tmp_path, TWO) as writer:
        for number in range(5):
            append(writer, *plane(number))
        writer.release(1000)
        assert segments(tmp_path) == [writer.segment]
        assert writer.used_nbytes == segment_path(tmp_path, writer.segment).stat().st_size
        append(writer, *plane(5))
    assert [facts.field for facts, _ in read(tmp_path)[0]] == [4, 5]


# disks that do not do what they are asked


def test_what_did_not_fit_leaves_nothing_behind(tmp_path, monkeypatch):
    real, room = module._write_all, [None]

    def full(descriptor, buffers):
        if room[0] is None:
            return real(descriptor, buffers)
        os.write(descriptor, b"".join(buffers)[: room[0]])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write_all", full)
    planes = [plane(number) for number in range(3)]
    with SpoolWriter(tmp_path) as writer:
        append(writer, *planes[0])
        used = writer.used_nbytes
        for room[0] in (0, 5, 100):
            with pytest.raises(WriteError, match="No space left") as caught:
                append(writer, *planes[1])
            assert caught.value.errno == errno.ENOSPC
            assert writer.used_nbytes == used == segment_path(tmp_path, 1).stat().st_size
        room[0] = None
        for facts, payload in planes[1:]:
            writer.append(facts, [payload])
    assert read(tmp_path) == (planes, [])


def test_what_cannot_be_cut_off_is_written_over(tmp_path, monkeypatch):
    """A disk that breaks in the midst of a plane may refuse to forget the half as well."""

    def broken(descriptor, *rest):  # noqa: ARG001
        raise OSError(errno.EIO, "Input/output error")

    def half(descriptor, buffers):
        os.write(descriptor, b"".join(buffers)[:100])
        broken(descriptor)

    planes = [plane(number) for number in range(3)]
    with SpoolWriter(tmp_path) as writer:
        append(writer, *planes[0])
        with monkeypatch.context() as breaking:
            breaking.setattr(module, "_write_all", half)
            breaking.setattr(module.os, "ftruncate", broken)
            with pytest.raises(WriteError, match="Input/output"):
                append(writer, *planes[1])
        for facts, payload in planes[1:]:
            writer.append(facts, [payload])
    assert read(tmp_path) == (planes, [])


def test_a_segment_that_goes_while_it_is_looked_for_is_not_the_end(tmp_path, monkeypatch):
    planes = [plane(number) for number in range(6)]
    with SpoolWriter(tmp_path, TWO) as writer:
        for facts, payload in planes:
            writer.append(facts, [payload])
        first, real = segment_path(tmp_path, 1), module.PositionalFile

        def gone(path):
            first.unlink(missing_ok=True)
            return real(path)

        monkeypatch.setattr(module, "PositionalFile", gone)
        assert read(tmp_path) == (planes[2:], [])


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_segment_that_goes_while_its_planes_are_told_is_left_out(tmp_path, monkeypatch, looks):
    planes = written(tmp_path, 6, TWO)
    gone, size = segment_path(tmp_path, 1), module._size
    left = iter(range(looks))

    def sometime(path):
        if Path(path) == gone and next(left, None) is None:
            gone.unlink(missing_ok=True)
        return size(path)

    monkeypatch.setattr(module, "_size", sometime)
    found = [facts for facts, _ in planes_in(tmp_path)]
    assert not gone.exists()
    assert found[-4:] == [facts for facts, _ in planes[2:]]


def test_a_sync_that_failed_is_told_and_can_be_tried_again(tmp_path, monkeypatch):
    outcomes, synced = [OSError(errno.EIO, "Input/output error"), None, None, None], []

    def sync(descriptor: int) -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        synced.append(descriptor)

    with SpoolWriter(tmp_path, TWO) as writer:
        monkeypatch.setattr(module, "sync_file", sync)
        for number in range(5):
            append(writer, *plane(number))
        with pytest.raises(WriteError, match="Input/output") as caught:
            writer.sync()
        assert caught.value.errno == errno.EIO
        writer.sync()
        assert len(synced) == 3, "each segment that was not synced"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot be written"):
        SpoolWriter(tmp_path / "file" / "spool")


# what was released


def test_released_planes_are_remembered(tmp_path):
    path = tmp_path / "released.index"
    assert read_released(path)[0] == 0
    first = [facts_of(n, b"", (2, 3), row=n) for n in range(3)]
    second = [facts_of(9, b"x", (4, 5), row=None, column=None, scene=3, y_um=-1.5)]
    append_released(path, 2, released_rows(first))
    append_released(path, 5, released_rows([]))
    append_released(path, 6, released_rows(second))
    last, rows = read_released(path)
    assert last == 6
    assert rows["field"].tolist() == [0, 1, 2, 9]
    assert rows["row"].tolist() == [0, 1, 2, -1]
    assert rows["pixels_crc"].tolist() == [0, 0, 0, zlib.crc32(b"x")]
    assert (rows["height"][3], rows["width"][3], rows["scene"][3], rows["y_um"][3]) == (4, 5, 3, -1.5)
    assert np.isnan(rows["y_um"][0])


def test_a_torn_list_of_released_planes_counts_up_to_where_it_is_whole(tmp_path):
    path = tmp_path / "released.index"
    append_released(path, 1, released_rows([facts_of(n, b"") for n in range(2)]))
    size = path.stat().st_size
    append_released(path, 2, released_rows([facts_of(2, b"")]))
    whole = path.read_bytes()
    for end in range(size, len(whole)):
        path.write_bytes(whole[:end])
        last, rows = read_released(path)
        assert (last, len(rows)) == (1, 2)
        append_released(path, 2, released_rows([facts_of(2, b"")]))
        assert path.read_bytes() == whole


def test_a_list_of_released_planes_is_read_once_however_long_it_gets(tmp_path, monkeypatch):
    path, reads = tmp_path / "released.index", []
    real = module._batches
    monkeypatch.setattr(module, "_batches", lambda path: reads.append(path) or real(path))
    released = ReleasedList(path)
    for segment in range(1, 40):
        released.append(segment, released_rows([facts_of(segment, b"")]))
    assert len(reads) == 1
    last, rows = read_released(path)
    assert (last, rows["field"].tolist()) == (39, list(range(1, 40)))
    again = ReleasedList(path)
    assert (again.last, again.rows["field"].tolist()) == (39, list(range(1, 40)))
    again.append(40, released_rows([]))
    assert read_released(path)[0] == 40


def test_what_could_not_be_noted_as_released_is_noted_by_the_next_call(tmp_path, monkeypatch):
    path = tmp_path / "released.index"
    released = ReleasedList(path)
    released.append(1, released_rows([facts_of(1, b"")]))
    whole = path.read_bytes()
    real = module._write_all

    def half(descriptor, buffers):
        os.write(descriptor, b"".join(bytes(buffer) for buffer in buffers)[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write_all", half)
    with pytest.raises(WriteError, match="No space left"):
        released.append(2, released_rows([facts_of(2, b"")]))
    assert path.read_bytes()[: len(whole)] == whole
    assert read_released(path)[0] == 1
    monkeypatch.setattr(module, "_write_all", real)
    released.append(2, released_rows([facts_of(3, b"")]))
    last, rows = read_released(path)
    assert (last, rows["field"].tolist()) == (2, [1, 3])


def test_a_damaged_list_of_released_planes_is_told(tmp_path):
    path = tmp_path / "released.index"
    for segment in (1, 2):
        append_released(path, segment, released_rows([facts_of(segment, b"")]))
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedSlideError, match="released"):
        read_released(path)
