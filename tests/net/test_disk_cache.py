"""The disk cache gives back exactly what was put into it, or nothing, whatever happens to the disk and to the process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawmosaic.net import disk_cache as module
from rawmosaic.net.disk_cache import NAME, PAGE_NBYTES, DiskCache, cache_folder, default_budget_nbytes
from rawmosaic.storage.pyramid import TileKey

BUDGET = 64 << 20
KEYS = [TileKey(level, index, channel) for level in range(2) for index in range(10) for channel in range(2)]


def tile_bytes(identity: str, key: TileKey, nbytes: int = 20_000) -> bytes:
    """What belongs under a key, and under no other."""
    return random.Random(f"{identity}{key}").randbytes(nbytes + 13 * key.index)


def put_all(cache: DiskCache, identity: str, keys: list[TileKey] = KEYS) -> None:
    for key in keys:
        cache.put(identity, key, tile_bytes(identity, key))
    assert cache.flush()


def found(cache: DiskCache, identity: str, keys: list[TileKey] = KEYS) -> int:
    """How many of the tiles are there; those that are, are right."""
    count = 0
    for key, data in zip(keys, cache.get(identity, keys), strict=True):
        if data is not None:
            assert data == tile_bytes(identity, key)
            count += 1
    return count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> Iterator[DiskCache]:
    with DiskCache(folder, BUDGET) as cache:
        yield cache


def test_what_was_put_is_found(cache: DiskCache):
    put_all(cache, "a")
    assert found(cache, "a") == len(KEYS)


def test_what_was_not_put_is_not_found(cache: DiskCache):
    put_all(cache, "a", KEYS[:5])
    assert cache.get("a", KEYS[5:]) == [None] * len(KEYS[5:])
    assert cache.get("b", KEYS) == [None] * len(KEYS)
    assert cache.get("a", []) == []


def test_nothing_acquired_is_told_from_not_known(cache: DiskCache):
    cache.put("a", KEYS[0], b"")
    assert cache.flush()
    assert cache.get("a", KEYS[:2]) == [b"", None]


def test_every_number_of_a_key_counts(cache: DiskCache):
    keys = [TileKey(*(int(place == other) for other in range(5))) for place in range(5)]
    put_all(cache, "a", keys)
    assert found(cache, "a", keys) == 5


def test_what_is_put_twice_is_the_last(cache: DiskCache):
    for data in (b"old" * 1000, b"new" * 1000):
        cache.put("a", KEYS[0], data)
    assert cache.flush()
    assert cache.get("a", KEYS[:1]) == [b"new" * 1000]


def test_what_was_dropped_is_not_found(cache: DiskCache):
    put_all(cache, "a")
    cache.drop("a", KEYS[3])
    assert cache.flush()
    assert found(cache, "a") == len(KEYS) - 1


def test_it_is_there_the_next_time(folder: Path):
    with DiskCache(folder, BUDGET) as cache:
        for key in KEYS:
            cache.put("a", key, tile_bytes("a", key))  # closing writes what waits
    with DiskCache(folder, BUDGET) as cache:
        assert found(cache, "a") == len(KEYS)


def test_the_budget_holds_and_the_oldest_go(folder: Path, monkeypatch: pytest.MonkeyPatch):
    budget = 40 * PAGE_NBYTES
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    with DiskCache(folder, budget) as cache:
        keys = [TileKey(0, 0, channel) for channel in range(60)]
        for number, key in enumerate(keys):
            clock[0] += 1
            cache.put("a", key, tile_bytes("a", key))
            assert cache.flush()
            assert cache.nbytes <= budget
            if number > 5:
                assert found(cache, "a", [key]) == 1
        alive = [found(cache, "a", [key]) for key in keys]
    assert 1 <= sum(alive) < len(keys)
    assert alive == sorted(alive)  # the oldest are gone, the newest there
    assert (folder / NAME).stat().st_size <= budget + module.EVICTED_AT_ONCE * 2 * PAGE_NBYTES


def test_what_is_used_stays(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "EVICTED_AT_ONCE", 1)
    monkeypatch.setattr(module, "TOUCH_S", 0)
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    with DiskCache(folder, 40 * PAGE_NBYTES) as cache:
        for number in range(60):
            clock[0] += 1
            key = TileKey(0, 0, number)
            cache.put("a", key, tile_bytes("a", key))
            assert cache.flush()
            clock[0] += 1
            assert found(cache, "a", [TileKey(0, 0, 0)]) == 1  # used each time, so never the oldest


def test_a_smaller_budget_gives_the_disk_back(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "QUEUE_NBYTES", 1 << 20)
    many = [TileKey(0, 0, channel) for channel in range(150)]
    with DiskCache(folder, BUDGET) as cache:
        for key in many:
            cache.put("a", key, tile_bytes("a", key, 40_000))
            cache.flush()
    with DiskCache(folder, 1 << 20) as cache:
        cache.put("a", KEYS[0], b"x" * 1000)
        assert cache.flush()
        assert cache.get("a", KEYS[:1]) == [b"x" * 1000]
    assert (folder / NAME).stat().st_size < 3 << 20


def test_more_than_can_be_written_is_dropped_and_nobody_waits(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "QUEUE_NBYTES", 200_000)
    writing = threading.Event()
    monkeypatch.setattr(DiskCache, "_write", lambda *_: writing.wait(20))
    with DiskCache(folder, BUDGET) as cache:
        for number in range(100):
            cache.put("a", TileKey(0, 0, number), bytes(20_000))
        writing.set()
        assert cache.dropped >= 80


def test_without_a_budget_there_is_no_cache(folder: Path):
    with DiskCache(folder, 0) as cache:
        cache.put("a", KEYS[0], b"x")
        assert not cache.enabled
        assert cache.get("a", KEYS[:1]) == [None]
    assert not folder.exists()


def test_closed_twice_is_harmless_and_finds_nothing(folder: Path):
    cache = DiskCache(folder, BUDGET)
    put_all(cache, "a")
    cache.close()
    cache.close()
    cache.put("a", KEYS[0], b"x")
    assert cache.get("a", KEYS) == [None] * len(KEYS)


def test_threads_read_and_write_at_once(cache: DiskCache):
    def work(number: int) -> None:
        identity = str(number % 3)
        for key in KEYS:
            cache.put(identity, key, tile_bytes(identity, key))
            found(cache, identity, [key])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(16)))
    assert cache.flush()
    assert [found(cache, identity) for identity in "012"] == [len(KEYS)] * 3


# the environment


def test_folder_and_budget_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAWMOSAIC_CACHE", str(tmp_path))
    monkeypatch.setenv("RAWMOSAIC_DISK_CACHE", "3G")
    assert cache_folder().parent == tmp_path
    assert default_budget_nbytes(tmp_path) == 3 << 30
    monkeypatch.setenv("RAWMOSAIC_DISK_CACHE", "0")
    assert not DiskCache().enabled
    monkeypatch.delenv("RAWMOSAIC_DISK_CACHE")
    free = shutil.disk_usage(tmp_path).free
    assert default_budget_nbytes(tmp_path / "not" / "there") == pytest.approx(min(10 << 30, free // 10), rel=0.1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="write protection does not stop this user")
def test_a_folder_that_cannot_be_written_is_done_without(folder: Path, caplog: pytest.LogCaptureFixture):
    folder.mkdir()
    folder.chmod(0o500)
    try:
        _check_done_without(folder, caplog)
    finally:
        folder.chmod(0o700)


def test_a_file_in_place_of_the_folder_is_done_without(folder: Path, caplog: pytest.LogCaptureFixture):
    folder.write_text("not a folder")
    _check_done_without(folder, caplog)


def _check_done_without(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rawmosaic"), DiskCache(folder, BUDGET) as cache:
        for key in KEYS:
            cache.put("a", key, b"x" * 100)
            assert cache.get("a", [key]) == [None]
        cache.flush()
        assert not cache.enabled
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text


def test_a_full_disk_is_said_once_and_done_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    opened = module._opened

    def small(*arguments) -> sqlite3.Connection:
        database = opened(*arguments)
        database.execute("PRAGMA max_page_count = 20")  # SQLite's own full disk
        return database

    monkeypatch.setattr(module, "_opened", small)
    with caplog.at_level(logging.WARNING, "rawmosaic"), DiskCache(folder, BUDGET) as cache:
        for key in KEYS:
            cache.put("a", key, tile_bytes("a", key, 50_000))
            cache.flush()
        assert not cache.enabled
        assert cache.get("a", KEYS) == [None] * len(KEYS)
    assert len(caplog.records) == 1
    assert "full" in caplog.text


# damage


def filled(folder: Path) -> bytes:
    """A database with tiles of two slides, closed; its bytes."""
    with DiskCache(folder, BUDGET) as cache:
        put_all(cache, "a")
        put_all(cache, "b", KEYS[:7])
    assert os.listdir(folder) == [NAME]
    return (folder / NAME).read_bytes()


def test_flipped_bytes_on_any_page_give_no_wrong_tile(folder: Path):
    """Each page of the file in turn, at a few places; what is found is right, and after putting again all is there again."""
    whole = filled(folder)
    pages = len(whole) // PAGE_NBYTES
    assert pages > 30
    dice = random.Random(1)
    for page in range(pages):
        spoiled = bytearray(whole)
        for _ in range(dice.choice((1, 1, 4, 40))):
            at = page * PAGE_NBYTES + dice.randrange(100 if dice.random() < 0.4 else PAGE_NBYTES)
            spoiled[at] ^= dice.randrange(1, 256)
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / NAME).write_bytes(spoiled)
        with DiskCache(folder, BUDGET) as cache:
            for _ in range(2):  # what was noticed the first time is mended by the second
                found(cache, "a"), found(cache, "b", KEYS[:7])
                put_all(cache, "a")
            put_all(cache, "a")
            assert cache.enabled
            assert found(cache, "a") == len(KEYS), f"page {page}"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=200))
def test_flipped_bytes_anywhere_give_no_wrong_tile(tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]]):
    folder = tmp_path_factory.mktemp("flipped") / "cache"
    spoiled = bytearray(filled(folder))
    for place, flip in flips:
        spoiled[int(place * len(spoiled))] ^= flip
    (folder / NAME).write_bytes(spoiled)
    with DiskCache(folder, BUDGET) as cache:
        found(cache, "a"), found(cache, "b", KEYS[:7])  # what is found is right
        for _ in range(3):
            put_all(cache, "a")
            found(cache, "a")
        assert cache.enabled
        assert found(cache, "a") == len(KEYS)
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("what", ["zeros", "noise", "half", "text", "nothing"])
def test_a_spoiled_file_is_begun_anew(folder: Path, what: str):
    whole = filled(folder)
    noise = random.Random(2).randbytes(len(whole))
    spoiled = {"zeros": bytes(len(whole)), "noise": noise, "half": whole[: len(whole) // 2], "text": b"hello", "nothing": b""}[
        what
    ]
    (folder / NAME).write_bytes(spoiled)
    with DiskCache(folder, BUDGET) as cache:
        found(cache, "a")
        put_all(cache, "a")
        put_all(cache, "a")
        assert cache.enabled
        assert found(cache, "a") == len(KEYS)


def test_a_file_spoiled_while_it_is_used_is_begun_anew(folder: Path):
    filled(folder)
    with DiskCache(folder, BUDGET) as cache, DiskCache(folder, BUDGET) as other:
        assert found(cache, "a", KEYS[:2]) == found(other, "a", KEYS[:2]) == 2
        with open(folder / NAME, "r+b") as file:
            file.write(random.Random(3).randbytes(20 * PAGE_NBYTES))
        for each in (cache, other):
            for _ in range(4):
                found(each, "a")
                put_all(each, "a")
            assert each.enabled
            assert found(each, "a") == len(KEYS)
    with DiskCache(folder, BUDGET) as cache:
        assert found(cache, "a") == len(KEYS)  # the second did not throw away what the first had begun


def test_another_version_s_database_is_begun_anew(folder: Path):
    folder.mkdir()
    with sqlite3.connect(folder / NAME) as database:
        database.execute("CREATE TABLE tiles (something TEXT)")
        database.execute("PRAGMA user_version = 77")
    database.close()
    with DiskCache(folder, BUDGET) as cache:
        put_all(cache, "a")
        assert found(cache, "a") == len(KEYS)


# several processes


def _write_for_ever(folder: str, identity: str) -> None:
    with DiskCache(folder, BUDGET) as cache:
        print("writing", flush=True)
        while True:
            put_all(cache, identity)


def _write_once(folder: str, identity: str) -> None:
    with DiskCache(folder, BUDGET) as cache:
        for _ in range(3):
            put_all(cache, identity)
            found(cache, identity)


def test_several_processes_share_a_cache(folder: Path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_once, args=(str(folder), identity)) for identity in "abc"]
    for writer in writers:
        writer.start()
    with DiskCache(folder, BUDGET) as cache:
        while any(writer.is_alive() for writer in writers):
            for identity in "abc":
                found(cache, identity)
        for writer in writers:
            writer.join(60)
            assert writer.exitcode == 0
            writer.close()
        assert [found(cache, identity) for identity in "abc"] == [len(KEYS)] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_kill_in_the_middle_of_a_write_leaves_a_sound_cache(folder: Path):
    context = multiprocessing.get_context("spawn")
    for delay_s in (0.0, 0.013, 0.05):
        writer = context.Process(target=_write_for_ever, args=(str(folder), "k"))
        writer.start()
        while not (folder / f"{NAME}-wal").exists() or not (folder / f"{NAME}-wal").stat().st_size:
            assert writer.is_alive()
            time.sleep(0.005)
        time.sleep(delay_s)
        writer.kill()
        writer.join(60)
        writer.close()
        with DiskCache(folder, BUDGET) as cache:
            found(cache, "k")
            put_all(cache, "a")
            assert found(cache, "a") == len(KEYS)
        database = sqlite3.connect(folder / NAME)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
    assert not (folder / f"{NAME}.damaged").exists()
