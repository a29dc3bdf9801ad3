"""Viewers, a broker and dealers together: what is looked at through a broker is what lies behind it, whoever comes and goes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from contract import KINDS, SlideContract

from rawmosaic.net.broker import Broker, for_dealers
from rawmosaic.net.connection import Connection
from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.keys import CLIENTS, DEALERS, KeyFolder
from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import GrowingSlide, SlowSlide, SyntheticSlide, write_slide

ANY = "tcp://127.0.0.1:*"
LONG_S = 30.0


def specimen() -> SyntheticSlide:
    """The same in every process."""
    return SyntheticSlide((3, 4), (96, 128), 2, seed=11)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(ANY, ANY) as broker:
        yield broker


class Sleepy(SlowSlide):
    """A slide on slow storage that names its content as the one it wraps."""

    @property
    def identity(self) -> str:
        return self.slide.identity


def looked_at(broker: Broker, name: str) -> RemoteSlide:
    """A slide through a broker; nothing is kept on the disk."""
    return RemoteSlide(f"{broker.front_address}/{name}", disk_cache=None)


def served(broker: Broker) -> list[str]:
    with Connection(broker.front_address) as connection:
        return [entry["name"] for entry in connection.request("slides").body["slides"]]


def all_tiles(slide: Slide) -> list[TileKey]:
    return [
        TileKey(level, index, channel, 0, 0)
        for level in range(len(slide.levels))
        for index in range(slide.tiling.tile_count(level, slide.n_fields))
        for channel in range(len(slide.channels))
    ]


def assert_pixels_are_right(slide: Slide, truth: Slide, keys: list[TileKey]) -> None:
    outs = [np.empty(slide.tiling.tile_shape, np.uint16) for _ in keys]
    assert slide.read_tiles(keys, outs) == [None] * len(keys)
    for key, out in zip(keys, outs, strict=True):
        np.testing.assert_array_equal(out, truth.read_tile(key), err_msg=str(key))


def _serve(end, path: str, back: str) -> None:
    """A dealer in a process of its own, slow enough to be killed at work."""
    with open_slide(path) as slide, TileDealer({"s": Sleepy(slide, 0.005)}, None, brokers=[back], workers=1, cache_bytes=0):
        end.send("here")
        end.recv()


@contextmanager
def in_process(target: Callable, *arguments: object) -> Iterator[tuple[multiprocessing.Process, object]]:
    """A spawned process, and what it said when it was ready; killed in the end."""
    method = multiprocessing.get_context("spawn")
    here, there = method.Pipe()
    process = method.Process(target=target, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        assert here.poll(LONG_S)
        yield process, here.recv()
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


@pytest.fixture(scope="module")
def truths() -> dict[str, SyntheticSlide]:
    return {kind: make() for kind, make in KINDS.items()}


def _serve_all_kinds(end) -> None:
    """A broker and two dealers of all kinds of slides."""
    truths = {kind: make() for kind, make in KINDS.items()}
    with Broker(ANY, ANY) as broker, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(TileDealer(truths, None, brokers=[broker.back_address]))
        until(lambda: served(broker) == sorted(truths))
        end.send(broker.front_address)
        end.recv()


@pytest.fixture(scope="module")
def front_of_all_kinds() -> Iterator[str]:
    with in_process(_serve_all_kinds) as (_, front):
        yield front


@pytest.mark.parametrize("kind", KINDS)
class TestBrokeredSlide(SlideContract):
    """The contract suite through a broker."""

    @pytest.fixture
    def truth(self, truths: dict[str, SyntheticSlide], kind: str) -> SyntheticSlide:
        return truths[kind]

    @pytest.fixture
    def slide(self, front_of_all_kinds: str, kind: str) -> Iterator[Slide]:
        with RemoteSlide(f"{front_of_all_kinds}/{quote(kind)}", disk_cache=None) as slide:
            yield slide


def test_different_slides_lie_on_different_dealers(broker: Broker):
    slides = {name: SyntheticSlide((2, 2), (48, 64), 1, seed=seed) for seed, name in enumerate("abc")}
    with ExitStack() as stack:
        for name, slide in slides.items():
            stack.enter_context(TileDealer({name: slide}, None, brokers=[broker.back_address]))
        for name, truth in slides.items():
            with looked_at(broker, name) as slide:
                assert_pixels_are_right(slide, truth, all_tiles(truth))
        assert served(broker) == ["a", "b", "c"]


def test_one_dealer_serves_several_brokers():
    truth = specimen()
    with Broker(ANY, ANY) as here, Broker(ANY, ANY) as there:
        with TileDealer({"s": truth}, brokers=[here.back_address, there.back_address], bind=None):
            for broker in (here, there):
                with looked_at(broker, "s") as slide:
                    assert_pixels_are_right(slide, truth, all_tiles(truth)[:10])


def test_of_three_dealers_one_is_killed_at_work_and_nothing_is_lost(broker: Broker, tmp_path: Path):
    truth = specimen()
    path = str(write_slide(truth, tmp_path / "s.h5"))
    keys = all_tiles(truth)
    with ExitStack() as stack:
        processes = [stack.enter_context(in_process(_serve, path, broker.back_address))[0] for _ in range(3)]
        slide = stack.enter_context(looked_at(broker, "s"))
        until_served_by_all(broker, 3)
        n_read = count()

        def read(part: list[TileKey]) -> None:
            for at in range(0, len(part), 2):
                assert_pixels_are_right(slide, truth, part[at : at + 2])
                if next(n_read) == 6:
                    processes[1].kill()

        with ThreadPoolExecutor(6) as pool:
            for outcome in [pool.submit(read, keys[number::6]) for number in range(6)]:
                outcome.result(LONG_S)
        assert next(n_read) > 15
        assert processes[1].exitcode is not None or processes[1].join(LONG_S) is None


def test_viewers_go_on_when_the_broker_was_restarted():
    truth = specimen()
    keys = all_tiles(truth)
    with ExitStack() as stack:
        first = Broker(ANY, ANY)
        front, back = first.front_address, first.back_address
        stack.callback(first.close)
        stack.enter_context(TileDealer({"s": truth}, None, brokers=[back]))
        slide = stack.enter_context(looked_at(first, "s"))
        assert_pixels_are_right(slide, truth, keys[:8])
        first.close()
        second = stack.enter_context(Broker(front, back))
        assert_pixels_are_right(slide, truth, keys)
        assert served(second) == ["s"]


def test_a_growing_slide_is_followed_through_a_broker_and_from_one_dealer_to_the_next(broker: Broker):
    def scan() -> GrowingSlide:
        return GrowingSlide(specimen(), 6)

    one, two = scan(), scan()
    with ExitStack() as stack:
        first = stack.enter_context(TileDealer({"s": one}, None, brokers=[broker.back_address]))
        slide = stack.enter_context(looked_at(broker, "s"))
        assert slide.growing
        one.grow(4)
        until(lambda: (slide.refresh(), int(slide.acquired().sum()))[1] == 10)
        two.grow(7)
        stack.enter_context(TileDealer({"s": two}, None, brokers=[broker.back_address]))
        until(lambda: served(broker) == ["s"])
        first.close()
        until(lambda: (slide.refresh(), int(slide.acquired().sum()))[1] == 13)
        two.grow(1000)
        until(lambda: (slide.refresh(), slide.growing)[1] is False)
        assert_pixels_are_right(slide, two, all_tiles(two))


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, KeyFolder]:
    """Key folders of a broker, a dealer and a viewer, each with a key pair; nobody is let in yet."""
    made = {who: KeyFolder(tmp_path / who) for who in ("broker", "dealer", "viewer")}
    for folder in made.values():
        folder.new_pair()
    return made


@pytest.fixture
def locked(folders: dict[str, KeyFolder]) -> Iterator[Broker]:
    """A broker that wants keys at both ends, and is trusted by the others."""
    curve = folders["broker"].server_curve()
    with Broker(ANY, ANY, curve=curve, back_curve=for_dealers(curve)) as broker:
        public = folders["broker"].pair().public
        folders["dealer"].trust(broker.back_address, public)
        folders["viewer"].trust(broker.front_address, public)
        yield broker


def pixels_through(locked: Broker, folders: dict[str, KeyFolder], patience_s: float) -> bool:
    """Whether a viewer sees the right pixels of a dealer's slide."""
    truth = specimen()
    curve = folders["viewer"].client_curve(locked.front_address)
    with TileDealer({"s": truth}, None, brokers=[locked.back_address], keys=folders["dealer"].path):
        try:
            with RemoteSlide(f"{locked.front_address}/s", disk_cache=None, curve=curve, timeout_s=patience_s) as slide:
                assert_pixels_are_right(slide, truth, all_tiles(truth)[:4])
                return True
        except SlideError:
            return False


def test_listed_viewers_see_the_slides_of_listed_dealers(locked: Broker, folders: dict[str, KeyFolder]):
    folders["broker"].allow("v", folders["viewer"].pair().public)
    folders["broker"].allow("d", folders["dealer"].pair().public, DEALERS)
    assert pixels_through(locked, folders, LONG_S)


@pytest.mark.parametrize(
    ("viewer_among", "dealer_among"), [(CLIENTS, CLIENTS), (DEALERS, DEALERS), (CLIENTS, None), (None, DEALERS)], ids=str
)
def test_nobody_comes_in_by_the_wrong_list(
    locked: Broker, folders: dict[str, KeyFolder], viewer_among: str | None, dealer_among: str | None
):
    for who, among in (("viewer", viewer_among), ("dealer", dealer_among)):
        if among is not None:
            folders["broker"].allow(who, folders[who].pair().public, among)
    assert not pixels_through(locked, folders, 1.5)
    assert set(locked._routing.dealers) == set() or dealer_among == DEALERS


def until_served_by_all(broker: Broker, n_dealers: int) -> None:
    """Wait until so many dealers have announced themselves, which the broker's log alone tells."""
    until(lambda: len(broker._routing.dealers) == n_dealers)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
