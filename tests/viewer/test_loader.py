"""The loader reads what is wanted now, most urgent first, survives whatever a source does, and leaves no thread behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rawmosaic.storage.errors import DamagedSlideError, NoLongerWantedError
from rawmosaic.storage.tile_cache import TileCache
from rawmosaic.viewer import loader as loader_module
from rawmosaic.viewer.loader import TileLoader

SHAPE = (8, 16)
NBYTES = 2 * 8 * 16
PATIENCE_S = 10.0


class Source:
    """Tiles that hold their own key; remembers what was read, can be held up and can fail."""

    def __init__(self):
        self.read: list[int] = []
        self.urgent: list[bool] = []
        self.errors: dict[int, list[BaseException]] = {}
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)

    def read_tiles(
        self, keys: list[int], outs: list[np.ndarray], wanted: Callable[[int], bool], urgent: bool
    ) -> list[BaseException | None]:
        """As `Slide.read_tiles` does it, one after the other."""
        self.urgent.append(urgent)
        gone = NoLongerWantedError("gone")
        pairs = enumerate(zip(keys, outs, strict=True))
        return [self._outcome(key, out) if wanted(number) else gone for number, (key, out) in pairs]

    def _outcome(self, key: int, out: np.ndarray) -> BaseException | None:
        try:
            self(key, out)
        except BaseException as error:
            return error
        return None

    def __call__(self, key: int, out: np.ndarray) -> None:
        self.read.append(key)
        self.entered.release()
        assert self.open.wait(PATIENCE_S)
        if self.errors.get(key):
            raise self.errors[key].pop(0)
        out[:] = key


@pytest.fixture
def source() -> Source:
    """A source that answers at once."""
    return Source()


@pytest.fixture
def make(source: Source) -> Iterator[Callable[..., TileLoader]]:
    """Loaders of the source, closed at the end of the test."""
    made: list[TileLoader] = []

    def loader(threads: int = 1, tiles: int = 100, **options) -> TileLoader:
        made.append(TileLoader(source.read_tiles, TileCache(SHAPE, tiles * NBYTES), threads, **options))
        return made[-1]

    yield loader
    source.open.set()
    for each in made:
        each.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail after a while."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.002)


def collected(loader: TileLoader, keys: list[int], *, release: bool = True) -> list[int]:
    """Take tiles as the GL thread does, until all of the keys came or failed; returns the order of arrival."""
    order: list[int] = []
    end = time.monotonic() + PATIENCE_S
    while len(order) + len(loader.failed()) < len(keys):
        assert time.monotonic() < end, f"only {len(order)} of {len(keys)} came"
        for key, tile in loader.wait_for([key for key in keys if key not in order], 0.2):
            assert (tile == key).all()
            order.append(key)
            if release:
                loader.release([key])
    return order


def test_wanted_tiles_arrive_with_their_content(make: Callable[..., TileLoader]):
    loader = make(threads=2)
    keys = list(range(50))
    loader.want(keys)
    assert sorted(collected(loader, keys, release=False)) == keys
    assert [key for key, _ in loader.ready(keys)] == keys  # in the order asked for
    assert loader.idle
    assert loader.pending == 0
    assert loader.tiles_read == 50


def test_most_urgent_tiles_are_read_first(make: Callable[..., TileLoader], source: Source):
    loader = make()
    keys = [9, 3, 7, 1, 8, 2, 30, 4, 25, 11, 12, 10]
    loader.want(keys)
    until(lambda: loader.idle)
    assert source.read == keys


def test_what_is_far_is_asked_for_at_the_same_time(make: Callable[..., TileLoader], source: Source, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(source, "read_tiles", lambda keys, *rest: (asked.extend(keys), Source.read_tiles(source, keys, *rest))[1])
    source.open.clear()
    loader = make(threads=4, far=True)
    keys = list(range(90))
    loader.want(keys)
    until(lambda: len(asked) == len(keys))
    assert len(source.read) == 4  # nothing was answered yet
    source.open.set()
    assert sorted(collected(loader, keys)) == keys


def test_nothing_is_read_twice(make: Callable[..., TileLoader], source: Source):
    loader = make(threads=3)
    source.open.clear()
    keys = list(range(30))
    for _ in range(20):  # frame after frame wants the same while it is under way
        loader.want(keys)
    assert source.entered.acquire(timeout=PATIENCE_S)
    source.open.set()
    for _ in range(20):
        loader.want(keys)
        loader.wait(0.005)
    until(lambda: loader.idle)
    loader.want(keys)
    assert loader.idle
    assert sorted(source.read) == keys


def test_what_left_the_view_is_not_read(make: Callable[..., TileLoader], source: Source):
    loader = make(threads=2)
    source.open.clear()
    loader.want(range(100, 400))
    for _ in range(2):
        assert source.entered.acquire(timeout=PATIENCE_S)
    loader.want([1, 2, 3])  # a jump: two tiles are being read, 298 are not wanted any more
    source.open.set()
    until(lambda: loader.idle)
    assert {1, 2, 3} <= set(source.read)
    assert len(source.read) == 5


def test_a_tile_dropped_and_wanted_again_still_arrives(make: Callable[..., TileLoader], source: Source):
    loader = make()
    keys = list(range(20))
    for round_trip in range(30):
        loader.want(keys)
        loader.want([100 + round_trip])
        loader.want(keys)
    assert sorted(collected(loader, keys)) == keys
    assert source.read.count(0) == 1


def test_wanting_nothing_stops_reading(make: Callable[..., TileLoader], source: Source):
    loader = make()
    source.open.clear()
    loader.want(range(100))
    assert source.entered.acquire(timeout=PATIENCE_S)
    loader.want(())
    source.open.set()
    until(lambda: loader.idle)
    assert len(source.read) == 1


def test_what_may_be_needed_soon_is_read_after_what_is_wanted_now(make: Callable[..., TileLoader], source: Source):
    loader = make()
    loader.want([5, 6], soon=[1, 2, 3])
    until(lambda: loader.idle)
    assert source.read == [5, 6, 1, 2, 3]
    loader.want([1, 5], soon=[9])
    assert [key for key, _ in loader.ready([1, 2, 5])] == [1, 2, 5]
    until(lambda: loader.idle)
    assert source.read == [5, 6, 1, 2, 3, 9]


def test_what_was_read_for_later_makes_room_for_what_is_wanted(make: Callable[..., TileLoader]):
    loader = make(tiles=4)
    loader.want([], soon=range(100, 110))
    until(lambda: loader.idle)
    loader.want([1, 2, 3, 4], soon=[50])
    until(lambda: len(loader.ready([1, 2, 3, 4])) == 4)


@pytest.mark.parametrize("threads", [1, 3])
def test_cache_smaller_than_the_view_still_delivers_all(make: Callable[..., TileLoader], threads: int):
    loader = make(threads=threads, tiles=4)
    keys = list(range(40))
    loader.want(keys)
    assert sorted(collected(loader, keys)) == keys


def test_unreleased_tiles_are_never_overwritten(make: Callable[..., TileLoader]):
    loader = make(threads=2, tiles=4)
    loader.want(range(40))
    until(lambda: len(loader.ready(range(40))) == 4)
    time.sleep(0.03)
    here = loader.ready(range(40))
    assert len(here) == 4
    for key, tile in here:
        assert (tile == key).all()
    assert loader.wait_for(range(40), PATIENCE_S), "returns what is here: no more can come"


def test_failure_is_kept_with_its_reason_and_blocks_nothing(make: Callable[..., TileLoader], source: Source):
    loader = make(threads=2, tiles=4)
    source.errors = {key: [OSError(f"no {key}")] * 99 for key in range(0, 40, 2)}
    keys = list(range(40))
    loader.want(keys)
    assert sorted(collected(loader, keys)) == keys[1::2]
    assert sorted(loader.failed()) == keys[::2]
    assert str(loader.failed()[6].error) == "no 6"
    assert loader.failed()[6].attempts == 1


def test_failed_tile_is_tried_again_later_and_not_at_once(
    make: Callable[..., TileLoader], source: Source, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loader_module, "FIRST_RETRY_S", 0.05)
    loader = make()
    source.errors = {1: [OSError("once"), OSError("twice")]}
    loader.want([1])
    until(lambda: 1 in loader.failed())
    for _ in range(5):
        loader.want([1])
    until(lambda: loader.idle)
    assert source.read == [1]
    attempts = [loader.failed()[1]]
    end = time.monotonic() + PATIENCE_S
    while not loader.ready([1]):
        assert time.monotonic() < end
        loader.want([1])
        loader.wait(0.01)
        time.sleep(0.002)
        failure = loader.failed().get(1)
        if failure is not None and failure != attempts[-1]:
            attempts.append(failure)
    assert source.read == [1, 1, 1]
    assert [failure.attempts for failure in attempts] == [1, 2]
    assert attempts[1].retry_at - attempts[0].retry_at >= 0.1  # each pause is longer than the last
    assert loader.failed() == {}


def test_damaged_bytes_are_not_read_again_soon(make: Callable[..., TileLoader], source: Source):
    loader = make()
    source.errors = {1: [DamagedSlideError("bytes do not mend themselves")]}
    loader.want([1])
    until(lambda: 1 in loader.failed())
    assert loader.failed()[1].retry_at - time.monotonic() > 2


class Odd(BaseException):
    """Not even an `Exception`."""


@pytest.mark.parametrize(
    "error",
    [ValueError("a"), MemoryError(), StopIteration(), AssertionError("b"), SystemExit(3), KeyboardInterrupt(), Odd("c")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_source_raises_the_rest_arrives(make: Callable[..., TileLoader], source: Source, error: BaseException):
    loader = make()
    source.errors = {3: [error]}
    keys = list(range(12))
    loader.want(keys)
    assert sorted(collected(loader, keys)) == [key for key in keys if key != 3]
    assert loader.failed()[3].error is error
    until(lambda: loader.idle)


def test_every_arrival_and_failure_is_told(make: Callable[..., TileLoader], source: Source):
    told = threading.Semaphore(0)
    threads = set()

    def tell() -> None:
        threads.add(threading.current_thread())
        told.release()

    loader = make(on_arrival=tell)
    source.errors = {2: [OSError("no")]}
    for key in (1, 2, 3):
        loader.want([key])
        assert told.acquire(timeout=PATIENCE_S), key
        assert loader.ready([key]) or key in loader.failed()
    assert threading.current_thread() not in threads


def test_a_listener_that_fails_does_not_stop_the_loader(make: Callable[..., TileLoader]):
    def tell() -> None:
        raise RuntimeError("the window is gone")

    loader = make(on_arrival=tell)
    for key in range(3):
        loader.want([key])
        assert collected(loader, [key]) == [key]


def test_wait_returns_at_once_when_nothing_is_under_way(make: Callable[..., TileLoader]):
    loader = make()
    started = time.monotonic()
    loader.wait(PATIENCE_S)
    assert loader.wait_for([1, 2], PATIENCE_S) == []
    assert time.monotonic() - started < PATIENCE_S / 2


def test_wait_ends_with_its_timeout(make: Callable[..., TileLoader], source: Source):
    loader = make()
    source.open.clear()
    loader.want([1])
    assert source.entered.acquire(timeout=PATIENCE_S)
    started = time.monotonic()
    assert loader.wait_for([1], 0.05) == []
    loader.wait(0.05)
    assert 0.08 < time.monotonic() - started < 2


def test_close_joins_the_threads_while_they_work(make: Callable[..., TileLoader], source: Source):
    before = threading.active_count()
    loader = make(threads=4)
    loader.want(range(1000))
    assert source.entered.acquire(timeout=PATIENCE_S)
    loader.close()
    assert threading.active_count() == before
    loader.close()
    assert len(source.read) < 1000


def test_close_ends_threads_that_wait_for_memory(make: Callable[..., TileLoader]):
    before = threading.active_count()
    loader = make(threads=3, tiles=4)
    loader.want(range(40))
    until(lambda: len(loader.ready(range(40))) == 4)
    loader.close()
    assert threading.active_count() == before


def test_want_after_close_is_harmless(make: Callable[..., TileLoader], source: Source):
    loader = make()
    loader.close()
    loader.want([1])
    assert source.read == []


def test_memory_that_the_driver_still_reads_is_not_used_again(make):
    loader = make(tiles=4)
    loader.want([1, 2, 3, 4])
    collected(loader, [1, 2, 3, 4], release=False)
    loader.release([1, 2, 3, 4], held=[1, 2, 3, 4])
    loader.want([5])
    assert loader.wait_for([5], 0.1) == []
    assert [key for key, _ in loader.ready([1, 2, 3, 4])] == [1, 2, 3, 4]
    loader.let_go([2])
    assert collected(loader, [5]) == [5]
    assert [key for key, _ in loader.ready([1, 2, 3, 4])] == [1, 3, 4]


def test_what_may_be_needed_soon_is_not_urgent(make, source: Source):
    loader = make()
    loader.want([1], soon=[2])
    until(lambda: loader.idle)
    assert sorted(zip(source.read, source.urgent, strict=True)) == [(1, True), (2, False)]
