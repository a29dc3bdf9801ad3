"""A slide on a server is a slide: it keeps the contract, grows, and says what is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from contract import KINDS, SlideContract, tile_keys
from scripted_server import Answer, ScriptedServer
from serving import LOOPBACK, ServerProcess

from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.disk_cache import DiskCache
from rawmosaic.net.facts import facts_message
from rawmosaic.net.protocol import SOON, Arrays, Request, unpack_keys
from rawmosaic.net.remote_slide import RemoteSlide, source
from rawmosaic.net.testing import Proxy
from rawmosaic.storage import codec, open_slide
from rawmosaic.storage.errors import (
    AccessError,
    AcquisitionError,
    DamagedSlideError,
    NoLongerWantedError,
    NotASlideError,
    OutOfRangeError,
    ProtocolError,
    SlideError,
    UnreachableError,
)
from rawmosaic.storage.hdf5 import overview
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide, ViewHint
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SyntheticSlide, write_slide

SOON_S = 30.0
BUDGET = 64 << 20


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON_S
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(result)


def read_all(slide: Slide, keys: list[TileKey], **options) -> tuple[list[np.ndarray], list[Exception | None]]:
    outs = [np.full(slide.tiling.tile_shape, 0xABCD, np.uint16) for _ in keys]
    return outs, slide.read_tiles(keys, outs, **options)


def assert_same_pixels(slide: Slide, truth: Slide) -> None:
    keys = list(tile_keys(slide))
    outs, outcomes = read_all(slide, keys)
    assert outcomes == [None] * len(keys)
    for key, out in zip(keys, outs, strict=True):
        np.testing.assert_array_equal(out, truth.read_tile(key), err_msg=str(key))


# the contract


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A virtual slide file of each kind."""
    folder = tmp_path_factory.mktemp("served")
    return {kind: write_slide(make(), folder / f"{number}.h5") for number, (kind, make) in enumerate(KINDS.items())}


@pytest.fixture(scope="module")
def server(files: dict[str, Path]) -> Iterator[ServerProcess]:
    with ServerProcess(files) as server:
        yield server


@pytest.fixture(scope="module")
def truths() -> dict[str, SyntheticSlide]:
    return {kind: make() for kind, make in KINDS.items()}


class RemoteContract(SlideContract):
    @pytest.fixture
    def truth(self, kind: str, truths: dict[str, SyntheticSlide]) -> SyntheticSlide:
        return truths[kind]


@pytest.mark.parametrize("kind", KINDS)
class TestRemoteSlide(RemoteContract):
    @pytest.fixture
    def slide(self, kind: str, server: ServerProcess) -> Iterator[Slide]:
        with RemoteSlide(f"{server.address}/{quote(kind)}", disk_cache=None) as slide:
            yield slide


@pytest.mark.parametrize("kind", ["sparse", "many tiles"])
class TestColdDiskCache(RemoteContract):
    @pytest.fixture
    def slide(self, kind: str, server: ServerProcess) -> Iterator[Slide]:
        with open_slide(f"{server.address}/{quote(kind)}") as slide:
            yield slide


@pytest.fixture(scope="module")
def warm(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that has every tile."""
    folder = tmp_path_factory.mktemp("warm")
    with DiskCache(folder, BUDGET) as cache:
        for kind in ("sparse", "many tiles", "field sizes"):
            with RemoteSlide(f"{server.address}/{quote(kind)}", disk_cache=cache) as slide:
                assert read_all(slide, list(tile_keys(slide)))[1].count(None) == len(list(tile_keys(slide)))
                assert cache.flush()
    return folder


@pytest.mark.parametrize("kind", ["sparse", "many tiles"])
class TestWarmDiskCache(RemoteContract):
    @pytest.fixture
    def slide(self, kind: str, server: ServerProcess, warm: Path) -> Iterator[Slide]:
        with DiskCache(warm, BUDGET) as cache, RemoteSlide(f"{server.address}/{quote(kind)}", disk_cache=cache) as slide:
            yield slide


@pytest.mark.parametrize("kind", ["sparse", "field sizes"])
class TestServerGone(RemoteContract):
    """What the local disk has is shown while the server is away; facts were asked for before."""

    @pytest.fixture
    def slide(self, kind: str, server: ServerProcess, warm: Path) -> Iterator[Slide]:
        with DiskCache(warm, BUDGET) as cache, Proxy(server.address) as proxy:
            with RemoteSlide(f"{proxy.address}/{quote(kind)}", disk_cache=cache) as slide:
                slide.acquired()
                for channel in range(len(slide.channels)):
                    slide.histogram(channel)
                proxy.close()
                yield slide


# where it is


@contextmanager
def served(*slides: Slide, **named: Slide) -> Iterator[str]:
    """The address of a dealer in this process."""
    with TileDealer({**{f"slide {number}": slide for number, slide in enumerate(slides)}, **named}, LOOPBACK) as dealer:
        yield dealer.address


def small(seed: int = 1) -> SyntheticSlide:
    return SyntheticSlide((2, 3), (40, 56), 2, seed=seed)


def test_the_only_slide_needs_no_name():
    with served(small()) as address, RemoteSlide(address) as slide:
        assert slide.location == f"{address}/slide%200"
        with RemoteSlide(slide.location) as again:
            assert again.identity == slide.identity


def test_which_of_several_slides_must_be_said():
    with served(small(), small(2)) as address:
        with pytest.raises(NotASlideError, match="slide 0, slide 1"):
            RemoteSlide(address)
        with pytest.raises(NotASlideError, match="slide 0, slide 1") as caught:
            RemoteSlide(f"{address}/slide")
        assert caught.value.location == f"{address}/slide"


def test_a_server_without_slides_is_said_to_have_none():
    with served() as address, pytest.raises(NotASlideError, match="none"):
        RemoteSlide(address)


@pytest.mark.parametrize("location", ["tcp://", "tcp:///name", "tcp://host:port/name", "tcp://[::1:5/name"])
def test_an_address_that_is_none_is_said_to_be_none(location: str):
    with pytest.raises(AccessError, match="tcp://HOST:PORT"):
        RemoteSlide(location)


def test_nobody_there_raises_in_time_and_leaves_nothing():
    with pytest.raises(UnreachableError, match="nobody listens"):
        RemoteSlide("tcp://127.0.0.1:1/name", timeout_s=0.2)


def test_open_slide_opens_addresses():
    with served(small()) as address, open_slide(f"{address}/slide%200") as slide:
        assert isinstance(slide, RemoteSlide)
        assert_same_pixels(slide, small())
    assert source.score("tcp://host:5555/a") > 0
    assert source.score("slide.h5") == source.score("http://host/a") == 0


def test_options_of_raw_acquisitions_are_refused():
    with pytest.raises(AcquisitionError, match="pixel_size_um"):
        open_slide("tcp://127.0.0.1:5555/name", pixel_size_um=1.0)


def test_the_overview_is_a_remote_slide_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(overview, "FROM_FIELDS", 50)
    path = write_slide(SyntheticSlide((8, 8), (24, 32), 2, seed=3), tmp_path / "many.h5")
    with Hdf5Slide(path) as local, served(local) as address, RemoteSlide(address) as slide:
        assert local.overview is not None
        assert slide.overview is slide.overview
        assert slide.overview.identity != slide.identity
        assert_same_pixels(slide.overview, local.overview)


# tiles


def test_many_tiles_come_in_batches(server: ServerProcess, truths: dict[str, SyntheticSlide]):
    with RemoteSlide(f"{server.address}/{quote('z and t')}") as slide:
        assert len(list(tile_keys(slide))) > 64
        assert_same_pixels(slide, truths["z and t"])


def test_tiles_travel_as_they_lie_in_the_file(server: ServerProcess, files: dict[str, Path]):
    with Hdf5Slide(files["sparse"]) as local, RemoteSlide(f"{server.address}/sparse") as slide:
        for _ in range(2):  # the second time from the local disk
            for key in tile_keys(slide):
                assert slide.read_encoded(key) == local.read_encoded(key)
            assert slide._server.cache.flush()


def test_tiles_are_read_into_any_memory():
    truth = small()
    with served(truth) as address, RemoteSlide(address) as slide:
        height, width = slide.tiling.tile_shape
        for _ in range(2):
            out = np.zeros((2 * height, 2 * width), np.uint16)[::2, ::2]
            assert slide.read_tiles([TileKey(0, 1, 1)], [out]) == [None]
            np.testing.assert_array_equal(out, truth.read_tile(TileKey(0, 1, 1)))
            slide._server.cache.flush()


def test_tiles_that_are_not_wanted_are_not_asked_for():
    truth = small()
    with served(truth) as address, RemoteSlide(address, disk_cache=None) as slide:
        keys = list(tile_keys(slide))[:6]
        outs, outcomes = read_all(slide, keys, wanted=lambda number: number % 2 == 0)
        assert [type(outcome) for outcome in outcomes] == [type(None), NoLongerWantedError] * 3
        for key, out in list(zip(keys, outs, strict=True))[::2]:
            np.testing.assert_array_equal(out, truth.read_tile(key))


def test_one_bad_tile_does_not_spoil_the_others():
    truth = small()
    bad = {TileKey(0, 1, 0), TileKey(0, 4, 1)}
    with served(FailingSlide(truth, lambda key: key in bad)) as address, RemoteSlide(address) as slide:
        keys = [*tile_keys(slide), TileKey(0, 10_000, 0), TileKey(99, 0, 0)]
        outs, outcomes = read_all(slide, keys)
        for key, out, outcome in zip(keys, outs, outcomes, strict=True):
            if key in bad:
                assert isinstance(outcome, DamagedSlideError)
                assert outcome.location == slide.location
            elif key in keys[-2:]:
                assert isinstance(outcome, OutOfRangeError)
            else:
                assert outcome is None
                np.testing.assert_array_equal(out, truth.read_tile(key))
        with pytest.raises(OutOfRangeError):
            slide.read_tile(TileKey(0, 10_000, 0))
        with pytest.raises(DamagedSlideError):
            slide.read_encoded(TileKey(0, 1, 0))


def test_threads_read_at_once():
    truth = KINDS["many tiles"]()
    with served(truth) as address, RemoteSlide(address) as slide, ThreadPoolExecutor(12) as threads:
        for _ in range(2):
            list(threads.map(lambda _: assert_same_pixels(slide, truth), range(12)))


def test_closing_ends_reads():
    class Stuck(SyntheticSlide):
        def _read_plane(self, *key: int) -> np.ndarray:
            reading.set()
            released.wait(SOON_S)
            return super()._read_plane(*key)

    reading, released = threading.Event(), threading.Event()
    with served(Stuck((1, 2), (40, 56), 1)) as address, ThreadPoolExecutor(1) as threads:
        slide = RemoteSlide(address, timeout_s=10 * SOON_S)
        outcome = threads.submit(slide.read_tile, TileKey(0, 0, 0))
        assert reading.wait(SOON_S)
        slide.close()
        with pytest.raises(SlideError, match="closed"):
            outcome.result(SOON_S)
        with pytest.raises(SlideError, match="closed"):
            slide.read_tile(TileKey(0, 1, 0))
        released.set()


# a server that does strange things


class Scripted:
    """A server of one slide named ``s``, as the protocol says but for what `strange` does first (true: it answered)."""

    def __init__(self, slide: Slide, strange: Callable[[Request, Answer], bool] = lambda *_: False):
        self.slide, self.strange = slide, strange
        self.identity: str | None = None
        self.growing = False

    def __call__(self, request: Request, answer: Answer) -> None:
        if self.strange(request, answer):
            return
        identity = self.identity or self.slide.identity
        arrays = Arrays()
        if request.op == "open":
            body, buffers = facts_message(self.slide)
            answer({**body, "identity": identity, "growing": self.growing}, buffers)
        elif request.op == "acquired":
            table = arrays.add(np.packbits(self.slide.acquired(request.body["z"], request.body["t"])))
            answer({"identity": identity, "acquired": table}, arrays.buffers)
        elif request.op == "histogram":
            answer({"identity": identity, "counts": arrays.add(self.slide.histogram(request.body["channel"]))}, arrays.buffers)
        elif request.op == "tiles":
            tiles = [self.slide.read_encoded(key) or b"" for key in unpack_keys(request.buffers[0])]
            answer({"identity": identity, "errors": {}}, tiles)


def test_urgent_tiles_go_first_and_others_later():
    with ScriptedServer(Scripted(small())) as server, RemoteSlide(f"{server.address}/s", disk_cache=None) as slide:
        for urgent in (True, False):
            read_all(slide, [TileKey(0, 0, 0), TileKey(0, 1, 0)], urgent=urgent)
        assert [request.priority for request in server.asked("tiles")] == [0, SOON]
        assert [len(unpack_keys(request.buffers[0])) for request in server.asked("tiles")] == [2, 2]


def test_facts_are_asked_for_once():
    with ScriptedServer(Scripted(small())) as server, RemoteSlide(f"{server.address}/s") as slide:
        for _ in range(3):
            slide.acquired(), slide.histogram(0), slide.overview
        assert [request.op for request in server.requests if request.op != "hello"] == ["open", "acquired", "histogram"]
        slide.histogram(0)[:] = 0
        np.testing.assert_array_equal(slide.histogram(0), small().histogram(0))
        with pytest.raises(ValueError, match="read-only"):
            slide.acquired()[:] = False


def test_what_the_disk_has_is_not_asked_for():
    with ScriptedServer(Scripted(small())) as server, RemoteSlide(f"{server.address}/s") as slide:
        keys = list(tile_keys(slide))
        read_all(slide, keys[:5])
        assert slide._server.cache.flush()
        assert_same_pixels(slide, small())
        assert [unpack_keys(request.buffers[0]) for request in server.asked("tiles")] == [keys[:5], keys[5:]]


def test_a_tile_that_does_not_decode_is_fetched_again_and_the_disk_mended():
    with ScriptedServer(Scripted(small())) as server, RemoteSlide(f"{server.address}/s") as slide:
        cache, key = slide._server.cache, TileKey(0, 0, 0)
        for data in (b"short", codec.compress(np.zeros((3, 3), np.uint16)), bytes(1000)):
            cache.put(slide.identity, key, data)
            assert cache.flush()
            np.testing.assert_array_equal(slide.read_tile(key), small().read_tile(key))
        assert cache.flush()
        np.testing.assert_array_equal(slide.read_tile(key), small().read_tile(key))
        assert len(server.asked("tiles")) == 3


@pytest.mark.parametrize(
    ("body", "buffers", "kind"),
    [
        ({"errors": {}}, [], ProtocolError),
        ({"errors": {}}, [b"", b"", b""], ProtocolError),
        ({"errors": []}, [b"short", b"short"], DamagedSlideError),
        ({"errors": ["0"]}, [b"", b""], ProtocolError),
        ({"errors": {"0": 7, "1": None}}, [b"", b"bad"], SlideError),
        ({"errors": {}}, [bytes(500), b"\xff" * 500], DamagedSlideError),
        ({}, [codec.compress(np.ones((4096, 4096), np.uint16))] * 2, DamagedSlideError),
    ],
)
def test_nonsense_in_place_of_tiles_is_an_error(body: dict, buffers: list[bytes], kind: type[SlideError]):
    def strange(request: Request, answer: Answer) -> bool:
        if request.op == "tiles":
            answer(body, buffers)
        return request.op == "tiles"

    with ScriptedServer(Scripted(small(), strange)) as server, RemoteSlide(f"{server.address}/s") as slide:
        _, outcomes = read_all(slide, [TileKey(0, 0, 0), TileKey(0, 1, 0)])
        assert all(isinstance(outcome, kind) for outcome in outcomes), outcomes
        assert slide._server.cache.get(slide.identity, [TileKey(0, 0, 0)]) == [None]


def test_nonsense_in_place_of_tables_is_an_error():
    def strange(request: Request, answer: Answer) -> bool:
        if request.op in ("acquired", "histogram"):
            arrays = Arrays()
            answer({"acquired": arrays.add(np.zeros(1, np.uint8)), "counts": {"buffer": 5}}, arrays.buffers)
        return request.op in ("acquired", "histogram")

    with ScriptedServer(Scripted(small(), strange)) as server, RemoteSlide(f"{server.address}/s") as slide:
        with pytest.raises(ProtocolError):
            slide.acquired()
        with pytest.raises(ProtocolError):
            slide.histogram(0)


def test_tiles_that_did_not_fit_into_an_answer_are_asked_for_again():
    def strange(request: Request, answer: Answer) -> bool:
        if request.op != "tiles":
            return False
        keys = unpack_keys(request.buffers[0])
        busy = {"error": "busy", "message": "too large"}
        tiles = [truth.read_encoded(key) or b"" for key in keys[:2]] + [b""] * len(keys[2:])
        answer({"errors": {str(place): busy for place in range(2, len(keys))}}, tiles)
        return True

    truth = small()
    with ScriptedServer(Scripted(truth, strange)) as server, RemoteSlide(f"{server.address}/s") as slide:
        assert_same_pixels(slide, truth)


def test_a_slide_that_was_replaced_is_an_error_and_no_mixture():
    first, second = small(1), small(2)
    script = Scripted(first)
    with ScriptedServer(script) as server, RemoteSlide(f"{server.address}/s") as slide:
        assert_same_pixels(slide, first)
        assert slide._server.cache.flush()
        script.slide = second
        other = TileKey(0, 3, 1)
        slide._server.cache.drop(slide.identity, other)
        assert slide._server.cache.flush()
        _, (outcome,) = read_all(slide, [other])
        assert "replaced" in str(outcome)
        assert slide.replaced
        with pytest.raises(SlideError, match="replaced"):
            slide.acquired()
        with RemoteSlide(f"{server.address}/s") as again:  # what lies on the disk of the first is not taken for the second's
            assert_same_pixels(again, second)
        script.slide = first
        assert_same_pixels(slide, first)


def test_hints_are_sent_and_not_too_many():
    with ScriptedServer(Scripted(small())) as server, RemoteSlide(f"{server.address}/s") as slide:
        hint = ViewHint(np.float64(1.5), 2.0, 30.0, 20.0, (np.float32(4.0), 0.0), 1, (0, 1))
        started = time.monotonic()
        while not server.asked("hint") and time.monotonic() < started + SOON_S:
            slide.hint(hint)
        view = server.asked("hint")[0].body["view"]
        assert view == {
            "x_um": 1.5,
            "y_um": 2.0,
            "width_um": 30.0,
            "height_um": 20.0,
            "velocity_um_s": [4.0, 0.0],
            "level": 1,
            "channels": [0, 1],
            "z": 0,
            "t": 0,
            "position_set": "stage",
        }
        for _ in range(500):
            slide.hint(hint)
        elapsed = time.monotonic() - started
        assert len(server.asked("hint")) <= 2 + elapsed / 0.1


# growing


def shown(slide: Slide, truth: Slide) -> bool:
    """Whether a slide has the fields, planes and positions of another."""
    return (
        slide.n_fields == truth.n_fields
        and all(
            np.array_equal(slide.acquired(z, t), truth.acquired(z, t)) for z in range(truth.size_z) for t in range(truth.size_t)
        )
        and all(np.array_equal(slide.positions(name), truth.positions(name)) for name in truth.position_sets)
    )


@pytest.mark.parametrize("kind", ["dense", "z and t", "placed"])
@pytest.mark.parametrize("fields_known", [False, True])
def test_a_growing_slide_is_followed_to_its_end(kind: str, fields_known: bool):
    truth = KINDS[kind]()
    growing = GrowingSlide(truth, 3, fields_known=fields_known)
    with served(growing) as address, RemoteSlide(address) as slide:
        assert slide.growing
        assert np.array_equal(slide.acquired(), growing.acquired())
        planes: list[tuple[int, ...]] = []

        def came() -> bool:
            planes.extend(map(tuple, slide.refresh().tolist()))
            return len(planes) >= growing._n_acquired - 3

        while slide.growing:
            growing.grow(9)
            assert eventually(came)
        assert sorted(planes) == sorted(map(tuple, growing._planes[3:].tolist()))  # each once, and all
        assert shown(slide, growing)
        assert slide.identity == growing.identity
        assert_same_pixels(slide, growing)
        np.testing.assert_array_equal(slide.histogram(0), growing.histogram(0))
        assert len(slide.refresh()) == 0


def test_tiles_of_a_growing_slide_are_never_old():
    growing = GrowingSlide(small(), 2)
    with served(growing) as address, RemoteSlide(address) as slide:
        while slide.growing:
            assert_same_pixels(slide, growing)
            assert slide._server.cache.get(slide.identity, list(tile_keys(slide))) == [None] * len(list(tile_keys(slide)))
            growing.grow(3)
            assert eventually(lambda: slide.refresh().size or not slide.growing)
        assert_same_pixels(slide, growing)


def test_what_came_while_the_network_was_away_is_told_afterwards():
    growing = GrowingSlide(KINDS["z and t"](), 2)
    with served(growing) as address, Proxy(address) as proxy, RemoteSlide(f"{proxy.address}/slide%200") as slide:
        came = [*map(tuple, slide.refresh().tolist())]
        for _ in range(2):
            proxy.refuse()
            growing.grow(5)
            time.sleep(0.2)
            proxy.flow()

            def all_came() -> bool:
                came.extend(map(tuple, slide.refresh().tolist()))
                return len(came) >= growing._n_acquired - 2

            assert eventually(all_came)
        assert sorted(came) == sorted(map(tuple, growing._planes[2 : growing._n_acquired].tolist()))
        assert shown(slide, growing)


def test_a_growing_slide_that_is_closed_leaves_no_thread():
    with served(GrowingSlide(small(), 2)) as address:
        slide = RemoteSlide(address)
        slide.close()
        slide.close()
        assert not [thread for thread in threading.enumerate() if "remote-slide" in thread.name]


def test_a_growing_slide_that_was_replaced_is_an_error():
    script = Scripted(GrowingSlide(small(), 4))
    script.growing = True
    watched: list[Answer] = []

    def strange(request: Request, answer: Answer) -> bool:
        if request.op == "watch":
            answer({"event": "alive", "identity": script.slide.identity}, status="more")
            watched.append(answer)
        return request.op == "watch"

    script.strange = strange
    with ScriptedServer(script) as server, Proxy(server.address) as proxy, RemoteSlide(f"{proxy.address}/s") as slide:
        slide.read_tile(TileKey(0, 0, 0))
        assert eventually(lambda: bool(watched))
        script.slide = GrowingSlide(SyntheticSlide((2, 3), (40, 56), 3), 5)
        proxy.cut()
        assert eventually(lambda: slide._trouble is not None)
        assert slide.replaced
        with pytest.raises(SlideError, match="replaced"):
            slide.read_tile(TileKey(0, 1, 0))
