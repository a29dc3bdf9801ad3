"""The tile dealer, asked by a few lines of bare ZeroMQ."""

from __future__ import annotations

import json
import socket as sockets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import blosc
import h5py
import numpy as np
import pytest
import zmq
from bare_client import BareClient, error_of, peak_memory_mb, until
from zmq.utils import z85

from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.facts import slide_facts
from rawmosaic.net.keys import ClientCurve, KeyFolder
from rawmosaic.net.protocol import array_from
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AccessError, DamagedSlideError, ProtocolError, UnreachableError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import FIELD_DTYPE, Slide
from rawmosaic.storage.testing import FailingSlide, GrowingSlide, SlowSlide, SyntheticSlide, WrappedSlide, write_slide

ANY = "tcp://127.0.0.1:*"
GONE_S = 0.5


@pytest.fixture
def slide() -> SyntheticSlide:
    return SyntheticSlide((2, 3), (96, 128), ["DAPI", "GFP"], sparse=0.3, size_z=2, seed=7)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[TileDealer, BareClient]]]:
    """Start a dealer and a client of it; both are closed at the end."""
    opened: list = []

    def start(slides: dict[str, Slide] | Slide, **options) -> tuple[TileDealer, BareClient]:
        dealer = TileDealer({"a": slides} if isinstance(slides, Slide) else slides, ANY, **options)
        client = BareClient(dealer.address)
        opened.extend((dealer, client))
        return dealer, client

    yield start
    for thing in reversed(opened):
        thing.__exit__(None, None, None)


class GatedSlide(WrappedSlide):
    """Every read waits until `gate` is set; `begun` lists what was begun."""

    def __init__(self, slide: Slide):
        super().__init__(slide)
        self.gate, self.begun = threading.Event(), []

    def _before(self, key) -> None:
        self.begun.append(key)
        assert self.gate.wait(30)


def decoded(buffer: bytes, shape: tuple[int, int]) -> np.ndarray:
    """A tile by Blosc alone."""
    return np.frombuffer(blosc.decompress(buffer), "<u2").reshape(shape)


# answers


def test_hello_names_the_server_and_the_protocol(serve, slide):
    _, client = serve(slide)
    header, buffers = client.ask("hello")
    assert (header["status"], header["protocol"], buffers) == ("ok", 1, [])
    assert header["server"].startswith("rawmosaic ")
    assert client.ask("ping")[0]["status"] == "ok"


def test_the_list_of_slides_says_what_they_are(serve, slide):
    _, client = serve({"b": slide, "a": GrowingSlide(slide, 3)})
    entries = client.ask("slides")[0]["slides"]
    assert [entry["name"] for entry in entries] == ["a", "b"]
    assert [entry["growing"] for entry in entries] == [True, False]
    assert entries[1] == {
        "name": "b",
        "title": "synthetic",
        "n_fields": 6,
        "channels": ["DAPI", "GFP"],
        "field_shape": [96, 128],
        "pixel_size_um": 0.5,
        "growing": False,
    }


def test_a_long_list_comes_in_pages(serve, slide):
    names = {f"slide {number:04}": slide for number in range(700)}
    _, client = serve(names)
    found, after, rest = [], "", True
    while rest:
        page = client.ask("slides", after=after)[0]
        rest = page["rest"]
        found += [entry["name"] for entry in page["slides"]]
        after = found[-1]
    assert found == sorted(names)


def test_the_facts_are_those_of_the_slide(serve, slide):
    _, client = serve(slide)
    header, buffers = client.ask("open", "a")
    facts = slide_facts(header, buffers)
    np.testing.assert_array_equal(facts["fields"], slide.fields)
    np.testing.assert_array_equal(facts["position_sets"]["stage"].positions_um, slide.positions())
    assert facts["header"] == slide.header
    assert facts["channels"] == slide.channels
    assert facts["tiling"] == slide.tiling
    assert header["identity"] == slide.identity
    assert not header["growing"]
    assert not header["overview"]


def test_tiles_are_those_of_the_slide(serve, slide):
    _, client = serve(slide)
    keys = [(level, 0, channel, z, 0) for level in range(len(slide.levels)) for channel in (0, 1) for z in (0, 1)]
    header, buffers = client.reply_to(client.tiles("a", keys))
    assert header["errors"] == {}
    assert header["identity"] == slide.identity
    assert len(buffers) == len(keys)
    for key, buffer in zip(keys, buffers, strict=True):
        expected = slide.read_tile(TileKey(*key))
        if buffer:
            np.testing.assert_array_equal(decoded(buffer, slide.tiling.tile_shape), expected)
        else:
            assert not expected.any()
    assert not all(buffers)


def test_tiles_of_a_virtual_slide_go_out_as_they_lie_in_the_file(serve, slide, tmp_path):
    path = write_slide(slide, tmp_path / "slide.h5")
    with open_slide(path) as local, h5py.File(path) as file:
        _, client = serve(local)
        stored = {}
        for level in range(len(local.levels)):
            dataset = file[f"levels/{level}"]
            for number in range(dataset.id.get_num_chunks()):
                info = dataset.id.get_chunk_info(number)
                stored[dataset.id.read_direct_chunk(info.chunk_offset)[1]] = level
        for level in range(len(local.levels)):
            count = local.tiling.tile_count(level, local.n_fields)
            keys = [(level, index, channel, z, 0) for index in range(count) for channel in (0, 1) for z in (0, 1)]
            _, buffers = client.reply_to(client.tiles("a", keys[:64]))
            assert {stored[buffer] for buffer in buffers if buffer} == {level}
        client.__exit__()


def test_acquired_and_histogram_are_exact(serve, slide):
    _, client = serve(slide)
    for z in (0, 1):
        header, buffers = client.ask("acquired", "a", z=z, t=0)
        bits = array_from(header["acquired"], buffers, np.uint8, (None,))
        flags = np.unpackbits(bits)[: slide.n_fields * 2].reshape(slide.n_fields, 2) != 0
        np.testing.assert_array_equal(flags, slide.acquired(z))
    for _ in range(2):  # the second comes from memory
        header, buffers = client.ask("histogram", "a", channel=1)
        counts = np.frombuffer(blosc.decompress(buffers[header["counts"]["buffer"]]), "<u8")
        np.testing.assert_array_equal(counts, slide.histogram(1))


def test_the_overview_is_served_beside_its_slide(serve, slide):
    class WithOverview(WrappedSlide):
        overview = SyntheticSlide((1, 1), (64, 64), 2, name="seen from afar")

    _, client = serve(WithOverview(slide))
    assert client.ask("open", "a")[0]["overview"] is True
    assert client.ask("open", "a/overview")[0]["header"]["name"] == "seen from afar"
    _, [tile] = client.reply_to(client.tiles("a/overview", [(0, 0, 1, 0, 0)]))
    np.testing.assert_array_equal(decoded(tile, (64, 64)), WithOverview.overview.read_tile(TileKey(0, 0, 1)))


# errors


def test_what_the_slide_has_not_is_told_tile_by_tile(serve, slide):
    _, client = serve(slide)
    keys = [(0, 0, 0, 0, 0), (99, 0, 0, 0, 0), (0, 10**6, 0, 0, 0), (0, 0, 7, 0, 0), (0, 0, 0, -1, 0), (0, 0, 0, 0, 1)]
    header, buffers = client.reply_to(client.tiles("a", keys))
    assert {number: entry["what"] for number, entry in header["errors"].items()} == {
        "1": "level",
        "2": "tile",
        "3": "channel",
        "4": "z",
        "5": "t",
    }
    assert [bool(buffer) for buffer in buffers] == [bool(slide.acquired()[0, 0]), *[False] * 5]


def test_one_damaged_tile_does_not_spoil_the_others(serve, slide):
    _, client = serve(FailingSlide(slide, lambda key: key[1] == 1))
    header, buffers = client.reply_to(client.tiles("a", [(0, 1, 0, 0, 0), (3, 0, 1, 0, 0)]))
    assert {number: entry["error"] for number, entry in header["errors"].items()} == {"0": "damaged"}
    assert buffers[0] == b""
    np.testing.assert_array_equal(decoded(buffers[1], slide.tiling.tile_shape), slide.read_tile(TileKey(3, 0, 1)))


def test_no_message_tells_where_the_file_lies(serve, slide, tmp_path):
    class Leaky(WrappedSlide):
        def __init__(self, slide):
            super().__init__(slide)
            self.location = str(tmp_path / "secret.h5")

        def _before(self, key):
            raise DamagedSlideError(f"tile {key}: {self.location}: broken", location=self.location)

        def histogram(self, channel):  # noqa: ARG002
            raise OSError(5, "Input/output error", self.location)

    _, client = serve(Leaky(slide))
    header, _ = client.reply_to(client.tiles("a", [(0, 0, 0, 0, 0)]))
    assert "broken" in header["errors"]["0"]["message"]
    assert str(tmp_path) not in json.dumps(header)
    header, _ = client.ask("histogram", "a", channel=0)
    assert header["error"] == "failed"
    assert str(tmp_path) not in json.dumps(header)


@pytest.mark.parametrize(
    ("op", "keys", "error"),
    [
        ("open", {"slide": "b"}, "not-a-slide"),
        ("open", {"slide": "../a"}, "not-a-slide"),
        ("open", {"slide": "/etc/passwd"}, "not-a-slide"),
        ("open", {"slide": "a/overview"}, "not-a-slide"),
        ("open", {}, "not-a-slide"),
        ("watch", {"slide": "b"}, "not-a-slide"),
        ("nonsense", {"slide": "a"}, "protocol"),
        ("open", {"slide": 3}, "protocol"),
        ("open", {"slide": "a", "priority": 10}, "protocol"),
        ("open", {"slide": "a", "v": 2}, "version"),
        ("histogram", {"slide": "a", "channel": 2}, "out-of-range"),
        ("histogram", {"slide": "a", "channel": "0"}, "protocol"),
        ("acquired", {"slide": "a", "z": 2}, "out-of-range"),
        ("acquired", {"slide": "a", "t": 10**40}, "out-of-range"),
        ("tiles", {"slide": "a"}, "protocol"),
        ("slides", {"after": 1}, "protocol"),
    ],
)
def test_a_wrong_request_is_answered_with_its_error(serve, slide, op, keys, error):
    _, client = serve(slide)
    reply = client.ask(op, **keys)
    assert error_of(reply) == error
    assert 0 < len(reply[0]["message"]) < 1000
    assert client.ask("ping")[0]["status"] == "ok"


@pytest.mark.parametrize(
    "frames", [[b""], [b"{}"], [b"\xff\xfe"], [b"[1]"], [b'{"v":1,"op":"ping"}'], [b"{" * 70000], [b""] * 300]
)
def test_a_message_without_a_header_is_dropped(serve, slide, frames):
    _dealer, client = serve(slide)
    client.socket.send_multipart(frames)
    assert client.hears_nothing(50)
    assert client.ask("ping")[0]["status"] == "ok"


# order


def test_the_smaller_priority_is_read_first(serve, slide):
    gated = GatedSlide(slide)
    _, client = serve(gated, workers=1)
    first = client.tiles("a", [(0, 0, 0, 0, 0)])
    until(lambda: gated.begun)
    later, now = (client.tiles("a", [(0, number, 0, 0, 0)], priority=priority) for number, priority in ((1, 5), (2, 0)))
    client.ask("ping")
    gated.gate.set()
    assert [client.receive()[0]["id"] for _ in range(3)] == [first, now, later]


def test_a_client_with_many_requests_does_not_hold_up_another(serve, slide):
    gated = GatedSlide(slide)
    dealer, greedy = serve(gated, workers=1)
    for _ in range(60):
        greedy.tiles("a", [(0, 0, 0, 0, 0)] * 4)
    until(lambda: dealer.stats().queue == 59)
    with BareClient(dealer.address) as modest:
        modest.tiles("a", [(0, 5, 1, 0, 0)])
        until(lambda: dealer.stats().queue == 60)
        gated.gate.set()
        modest.receive()
        read_before = gated.begun.index(TileKey(0, 5, 1))
        assert read_before <= 3 * 4


def test_a_slow_disk_does_not_hold_up_another_slide(serve, slide):
    gated = GatedSlide(slide)
    _, client = serve({"slow": gated, "fast": slide}, workers=1)
    for _ in range(20):
        client.tiles("slow", [(0, 0, 0, 0, 0)])
    assert client.ask("histogram", "fast", channel=0)[0]["status"] == "ok"
    number = client.tiles("fast", [(0, 0, 0, 0, 0)])
    assert client.receive()[0]["id"] == number
    gated.gate.set()
    assert len([client.receive() for _ in range(20)]) == 20


def test_a_server_holds_so_many_requests_and_says_busy_to_more(serve, slide):
    gated = GatedSlide(slide)
    _dealer, client = serve(gated, workers=1)
    numbers = [client.tiles("a", [(0, 0, 0, 0, 0)]) for _ in range(70)]
    refused = [client.receive() for _ in range(6)]
    assert {error_of(reply) for reply in refused} == {"busy"}
    assert [reply[0]["id"] for reply in refused] == numbers[64:]
    assert error_of(client.ask("ping")) is None  # what needs no place is answered all the same
    gated.gate.set()
    assert {client.receive()[0]["id"] for _ in range(64)} == set(numbers[:64])
    assert client.ask("open", "a")[0]["status"] == "ok"


def test_an_id_that_is_under_way_is_refused(serve, slide):
    gated = GatedSlide(slide)
    _, client = serve(gated)
    number = client.tiles("a", [(0, 0, 0, 0, 0)])
    client._last -= 1
    assert client.tiles("a", [(0, 1, 0, 0, 0)]) == number
    assert error_of(client.receive()) == "protocol"
    gated.gate.set()
    header, buffers = client.receive()
    assert (header["id"], header["status"], len(buffers)) == (number, "ok", 1)


def test_what_was_cancelled_is_neither_read_nor_answered(serve, slide):
    gated = GatedSlide(slide)
    dealer, client = serve(gated, workers=1)
    running = client.tiles("a", [(0, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 2, 0, 0, 0)])
    until(lambda: gated.begun)
    waiting = [client.tiles("a", [(0, 3, 0, 0, 0)]) for _ in range(10)]
    wanted = client.tiles("a", [(0, 4, 0, 0, 0)])
    client.send("cancel", ids=[running, *waiting, 10**6, -1, True, "x", None])
    client.ask("ping")
    assert dealer.stats().queue == 1
    gated.gate.set()
    assert client.receive()[0]["id"] == wanted
    assert client.hears_nothing(50)
    assert [key.index for key in gated.begun if isinstance(key, TileKey)] == [0, 4]


def test_cancelling_nonsense_is_harmless(serve, slide):
    _, client = serve(slide)
    for ids in (None, 3, {}, "all", [[]], [{}]):
        client.send("cancel", ids=ids)
    client.send("cancel")
    assert client.ask("ping")[0]["status"] == "ok"


# clients that are slow, or gone


def test_a_client_that_takes_nothing_holds_up_nobody_and_costs_little(serve):
    large = SyntheticSlide((3, 4), (512, 512), 2, seed=1)
    dealer, client = serve(large)
    keys = [(0, index, 0, 0, 0) for index in range(24)]  # 3 MB
    client.reply_to(client.tiles("a", keys))
    with BareClient(dealer.address, receive_queue=1) as stuck:
        for _ in range(64):
            stuck.tiles("a", keys)
        before = peak_memory_mb()
        until(lambda: dealer._stuck)
        for _ in range(10_000):  # it goes on asking
            stuck.send("ping")
        started = time.monotonic()
        for _ in range(20):
            client.reply_to(client.tiles("a", keys))
        assert time.monotonic() - started < 30
        assert dealer.stats().queue > 32  # not read, since nobody takes it
        assert peak_memory_mb() - before < 150  # all that it asked for is 200 MB, and its pings would be endless
        # and when it reads again, it finds what it asked for
        assert [len(buffer) for buffer in stuck.receive()[1]] == [
            len(buffer) for buffer in client.reply_to(client.tiles("a", keys))[1]
        ]
        for _ in range(40):
            stuck.receive()


def test_a_client_that_is_gone_is_forgotten(serve, slide):
    gated = GatedSlide(slide)
    dealer, client = serve(gated, workers=1)
    client.ask("ping")
    with BareClient(dealer.address) as leaving:
        for _ in range(30):
            leaving.tiles("a", [(0, 0, 0, 0, 0)])
        until(lambda: dealer.stats().queue == 29)
    assert dealer.stats().clients == 2
    time.sleep(GONE_S)
    gated.gate.set()
    until(lambda: dealer.stats().clients == 1)
    until(lambda: dealer.stats().queue == 0)
    assert len(gated.begun) <= 4
    assert client.ask("ping")[0]["status"] == "ok"


def test_idle_connections_are_forgotten(serve, slide, monkeypatch):
    monkeypatch.setattr("rawmosaic.net.dealer.IDLE_S", 0.1)
    monkeypatch.setattr("rawmosaic.net.dealer.SWEEP_S", 0.1)
    dealer, client = serve(slide)
    client.ask("ping")
    assert dealer.stats().clients == 1
    until(lambda: dealer.stats().clients == 0)
    assert client.ask("ping")[0]["status"] == "ok"


def test_a_dealer_that_comes_back_at_its_address_is_found_again(slide):
    with TileDealer({"a": slide}, ANY) as dealer:
        address = dealer.address
        client = BareClient(address)
        assert client.ask("ping")[0]["status"] == "ok"
    with client, TileDealer({"a": slide}, address):
        assert client.ask("ping")[0]["status"] == "ok"


def test_a_dealer_closes_while_it_is_asked_and_twice(slide):
    slow = SlowSlide(slide, 0.02)
    dealer = TileDealer({"a": slow}, ANY)
    with BareClient(dealer.address) as client:
        for _ in range(60):
            client.tiles("a", [(0, 0, 0, 0, 0)] * 20)
        client.receive()
        dealer.close()
        dealer.close()
        assert dealer.wait(0)


# slides that grow


def rows(header: dict, buffers: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """planes, fields, positions of a `grown` event."""
    return (
        array_from(header["planes"], buffers, np.int32, (None, 4)),
        array_from(header["fields"], buffers, FIELD_DTYPE, (None,)),
        array_from(header["positions_um"], buffers, np.float64, (None, 2)),
    )


def test_those_who_watch_hear_of_every_plane(serve, slide):
    growing = GrowingSlide(slide, 3)
    dealer, client = serve(growing)
    with BareClient(dealer.address) as other:
        header = client.ask("watch", "a")[0]
        assert (header["status"], header["event"]) == ("more", "alive")
        assert header["identity"] == client.ask("open", "a")[0]["identity"]
        watch = other.send("watch", "a")
        other.receive()
        fields, planes = growing.fields.copy(), []
        identities = {header["identity"]}
        growing.grow(4)
        while True:
            header, buffers = other.receive()
            assert header["id"] == watch
            if header["status"] == "ok":
                break
            if header["event"] == "alive":
                continue
            came, changed, positions = rows(header, buffers)
            planes += came.tolist()
            fields = np.concatenate([fields[: header["first_field"]], changed])
            np.testing.assert_array_equal(positions, slide.positions()[header["first_field"] : len(fields)])
            identities.add(header["identity"])
            growing.grow(7)
        assert header["identity"] in identities
        expected = [(f, c, z, 0) for z in (0, 1) for f, c in np.argwhere(slide.acquired(z)).tolist()]
        assert sorted(map(tuple, planes)) == sorted(set(expected) - {tuple(p) for p in growing._planes[:3].tolist()})
        for column in ("x_um", "y_um", "height", "width", "row", "column"):
            np.testing.assert_array_equal(fields[column], slide.fields[column])
        assert len(identities) >= 3
        assert any(client.receive()[0]["status"] == "ok" for _ in range(50))
        assert client.ask("open", "a")[0]["growing"] is False


def test_tiles_of_a_growing_slide_are_never_out_of_date(serve, slide):
    growing = GrowingSlide(slide, 2, fields_known=True)
    _dealer, client = serve(growing)
    watch = client.send("watch", "a")
    level = len(slide.levels) - 1
    client.receive()
    for _ in range(4):
        for key in ((level, 0, 0, 0, 0), (level, 0, 1, 1, 0)):
            header, [tile] = client.reply_to(client.tiles("a", [key]))
            expected = growing.read_tile(TileKey(*key))
            assert header["identity"] == growing.identity
            np.testing.assert_array_equal(decoded(tile, slide.tiling.tile_shape) if tile else 0 * expected, expected)
        if not growing.grow(3):
            break
        while client.reply_to(watch)[0]["event"] != "grown":
            pass


def test_watchers_hear_that_the_server_lives(serve, slide, monkeypatch):
    monkeypatch.setattr("rawmosaic.net.dealer.ALIVE_S", 0.05)
    _, client = serve(GrowingSlide(slide, 3))
    watch = client.send("watch", "a")
    for _ in range(4):
        header, _ = client.receive()
        assert (header["id"], header["status"], header["event"]) == (watch, "more", "alive")


def test_watching_a_finished_slide_ends_at_once(serve, slide):
    _, client = serve(slide)
    header, _ = client.ask("watch", "a")
    assert (header["status"], header["identity"]) == ("ok", slide.identity)


def test_a_cancelled_watch_is_silent(serve, slide, monkeypatch):
    monkeypatch.setattr("rawmosaic.net.dealer.ALIVE_S", 0.05)
    growing = GrowingSlide(slide, 3)
    _dealer, client = serve(growing)
    watch = client.send("watch", "a")
    client.receive()
    client.send("cancel", ids=[watch])
    client.ask("ping")
    while not client.hears_nothing(0):
        client.receive()
    growing.grow(5)
    assert client.hears_nothing(500)


def test_a_slide_that_cannot_be_followed_for_a_moment_is_followed_again(serve, slide):
    class Shaky(GrowingSlide):
        failures = 2

        def refresh(self):
            if self.failures:
                self.failures -= 1
                raise DamagedSlideError("half written")
            return super().refresh()

    growing = Shaky(slide, 3)
    _, client = serve(growing)
    watch = client.send("watch", "a")
    growing.grow(2)
    header, buffers = client.reply_to(watch)
    while header["event"] != "grown":
        header, buffers = client.reply_to(watch)
    assert len(rows(header, buffers)[0]) == 2


# reading ahead


def hint(slide: Slide, field: int, velocity=(1.0, 0.0), channels=(0,), **more) -> dict:
    x, y = slide.positions()[field].tolist()
    view = {"x_um": x, "y_um": y, "width_um": 10.0, "height_um": 10.0, "velocity_um_s": list(velocity)}
    return {"view": {**view, "level": 0, "channels": list(channels), "z": 0, "t": 0, "position_set": "stage", **more}}


def test_a_moving_view_is_read_before_it_is_asked_for(serve):
    slide = SyntheticSlide((2, 3), (96, 128), 2, overlap=-0.5)
    gated = GatedSlide(slide)
    gated.gate.set()
    _, client = serve(gated)
    client.send("hint", "a", **hint(slide, 4, channels=(0, 1)))
    until(lambda: len(gated.begun) >= 2)
    begun = list(gated.begun)
    assert {key[:3] for key in begun if isinstance(key, TileKey)} == {(0, 4, 0), (0, 4, 1)}
    _, buffers = client.reply_to(client.tiles("a", [(0, 4, 0, 0, 0), (0, 4, 1, 0, 0)]))
    assert gated.begun == begun  # from memory
    np.testing.assert_array_equal(decoded(buffers[1], (96, 128)), slide.read_tile(TileKey(0, 4, 1)))


def test_who_stands_still_or_errs_makes_nothing_be_read(serve, slide):
    gated = GatedSlide(slide)
    gated.gate.set()
    _, client = serve(gated)
    client.send("hint", "a", **hint(slide, 4, velocity=(0.0, 0.0)))
    client.send("hint", "b", **hint(slide, 4))
    client.send("hint", "a", view={"x_um": "nan"})
    client.send("hint", "a", **hint(slide, 4, position_set="nowhere"))
    client.ask("open", "a")
    assert gated.begun == []


def test_requests_go_before_reading_ahead_and_a_new_hint_drops_the_old(serve):
    slide = SyntheticSlide((6, 6), (96, 128), 2)
    gated = GatedSlide(slide)
    _dealer, client = serve(gated, workers=1)
    whole = {"width_um": 1e5, "height_um": 1e5}
    client.send("hint", "a", **hint(slide, 20, **whole))
    until(lambda: gated.begun)
    client.tiles("a", [(0, 35, 1, 0, 0)])
    client.send("hint", "a", **hint(slide, 0, velocity=(0.0, 0.0)))
    client.ask("ping")
    gated.gate.set()
    client.receive()
    client.ask("open", "a")
    assert [key[1:3] for key in gated.begun if isinstance(key, TileKey)][1:] == [(35, 1)]


# brokers


def test_a_dealer_offers_its_slides_to_a_broker_and_answers_through_it(slide):
    context = zmq.Context()
    back = context.socket(zmq.ROUTER)
    back.linger = 0
    port = back.bind_to_random_port("tcp://127.0.0.1")

    def receive() -> list[bytes]:
        assert back.poll(20_000)
        return back.recv_multipart()

    try:
        with TileDealer({"b": slide, "a": slide}, None, brokers=[f"tcp://127.0.0.1:{port}"]) as dealer:
            assert dealer.address is None
            who, empty, header = receive()
            ready = json.loads(header)
            assert (empty, ready["op"], ready["slides"], ready["load"]) == (b"", "ready", ["a", "b"], 0)
            request = json.dumps({"v": 1, "id": 5, "op": "tiles", "slide": "a"}).encode()
            back.send_multipart([who, b"client 1", request, np.zeros(5, "<i4").tobytes()])
            back.send_multipart([who, b"client 2", json.dumps({"v": 1, "id": 5, "op": "ping"}).encode()])
            back.send_multipart([who, b""])
            replies = {}
            while len(replies) < 2:
                _, client, header, *buffers = receive()
                if client:
                    replies[client] = (json.loads(header), buffers)
            assert replies[b"client 2"][0]["id"] == 5
            header, [tile] = replies[b"client 1"]
            assert header["status"] == "ok"
            expected = slide.read_tile(TileKey(0, 0, 0))
            np.testing.assert_array_equal(decoded(tile, slide.tiling.tile_shape) if tile else 0 * expected, expected)
        while (message := receive())[1] or json.loads(message[2])["op"] != "bye":
            pass
    finally:
        back.close()
        context.term()


# who gets in


def test_only_the_loopback_interface_is_open_without_keys(slide):
    for bind in ("tcp://*:0", "tcp://0.0.0.0:*", "tcp://[::]:*"):
        with pytest.raises(AccessError, match="keys"):
            TileDealer({"a": slide}, bind)
    with pytest.raises(AccessError, match="keys trust"):
        TileDealer({"a": slide}, None, brokers=["tcp://192.0.2.1:5556"])
    with TileDealer({"a": slide}, "tcp://0.0.0.0:*", insecure=True) as dealer:
        assert dealer.address.startswith("tcp://0.0.0.0:")


def test_an_address_in_use_is_an_error_that_says_so(slide):
    with TileDealer({"a": slide}, ANY) as dealer:
        with pytest.raises(UnreachableError, match="cannot be bound"):
            TileDealer({"a": slide}, dealer.address)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, "a/overview"])
def test_a_name_that_cannot_be_asked_for_is_refused(slide, name):
    with pytest.raises(ProtocolError, match="cannot name"):
        TileDealer({name: slide}, ANY)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    folder.new_pair()
    return folder


def curve_of(keys: KeyFolder, name: str) -> ClientCurve:
    own = KeyFolder(keys.path / name)
    own.new_pair()
    own.trust("tcp://127.0.0.1:5555", keys.pair("default").public)
    return own.client_curve("tcp://127.0.0.1:5555")


def test_a_client_without_a_listed_key_receives_nothing(keys, slide):
    alice, mallory = curve_of(keys, "alice"), curve_of(keys, "mallory")
    keys.allow("alice", z85.decode(alice.public).hex())
    with TileDealer({"a": slide}, ANY, curve=keys.server_curve()) as dealer:
        for curve in (mallory, None):
            with BareClient(dealer.address, curve=curve) as stranger:
                stranger.send("hello")
                stranger.send("open", "a")
                assert stranger.hears_nothing(300)
        assert dealer.stats().requests == 0
        with BareClient(dealer.address, curve=alice) as client:
            assert client.ask("open", "a")[0]["status"] == "ok"


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "open to all"])
def test_who_speaks_plain_gets_no_byte_of_a_slide(keys, slide, guarded):
    """A raw TCP connection that wants no security, and asks all the same: understood where that is allowed, and only there."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    request = b'{"v":1,"id":1,"op":"open","slide":"a"}'
    with TileDealer({"a": slide}, ANY, curve=keys.server_curve() if guarded else None) as dealer:
        host, port = dealer.address.removeprefix("tcp://").split(":")
        heard = b""
        with sockets.create_connection((host, int(port)), timeout=0.3) as wire:
            for said in (greeting, bytes([4, len(ready)]) + ready, bytes([0, len(request)]) + request):
                try:
                    wire.sendall(said)
                    while data := wire.recv(1 << 16):
                        heard += data
                except OSError:  # the server hung up, or says nothing more
                    continue
        if guarded:
            assert len(heard) <= 64  # the server's greeting, if that
            assert dealer.stats().requests == 0
        else:
            assert slide.identity.encode() in heard


def test_what_an_admitted_client_hears_is_encrypted(keys, slide):
    alice = curve_of(keys, "alice")
    keys.allow("alice", z85.decode(alice.public).hex())
    with TileDealer({"a": slide}, ANY, curve=keys.server_curve()) as dealer:
        with sockets.create_server(("127.0.0.1", 0)) as tap:
            said = bytearray()
            done = threading.Event()

            def relay() -> None:
                near, _ = tap.accept()
                host, port = dealer.address.removeprefix("tcp://").split(":")
                with near, sockets.create_connection((host, int(port))) as far:
                    near.settimeout(0.02)
                    far.settimeout(0.02)
                    while not done.is_set():
                        for source, sink in ((near, far), (far, near)):
                            try:
                                data = source.recv(1 << 16)
                            except TimeoutError:
                                continue
                            except OSError:
                                return
                            said.extend(data)
                            sink.sendall(data)

            thread = threading.Thread(target=relay)
            thread.start()
            with BareClient(f"tcp://127.0.0.1:{tap.getsockname()[1]}", curve=alice) as client:
                header, _ = client.ask("open", "a")
            done.set()
            thread.join()
        assert header["status"] == "ok"
        assert len(said) > 500
        assert b"tiling" not in said
        assert header["identity"].encode() not in said
