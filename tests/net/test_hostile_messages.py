"""Wrong messages, a hundred thousand and more: each is refused or understood, and none does harm.

What decodes messages is asked directly, and a living dealer over its socket.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import socket as sockets
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zmq
from bare_client import BareClient, until
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation import Mutator

from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.encoded_tiles import EncodedTiles
from rawmosaic.net.facts import facts_message, slide_facts
from rawmosaic.net.protocol import (
    Arrays,
    Reply,
    Request,
    array_from,
    error_body,
    error_from,
    pack_keys,
    reply_frames,
    reply_from,
    request_frames,
    request_from,
    slides_page,
    unpack_keys,
)
from rawmosaic.net.read_ahead import hint_from
from rawmosaic.net.served_slide import ServedSlide
from rawmosaic.storage.errors import ProtocolError, SlideError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import FIELD_DTYPE, Slide
from rawmosaic.storage.testing import GrowingSlide, SyntheticSlide, WrappedSlide

N_REQUESTS, N_REPLIES, N_ARRAYS, N_FACTS = 50_000, 30_000, 30_000, 6_000
N_LIVE = 60_000
LAST_ID = 2**40
MORE_MB = 100
"""What the process may grow by: the largest message that a dealer takes is 128 kB."""


def view(slide: Slide) -> dict:
    x, y = slide.positions()[0].tolist()
    more = {"level": 0, "channels": [0, 1], "z": 0, "t": 0, "position_set": "stage"}
    return {"x_um": x, "y_um": y, "width_um": 100.0, "height_um": 50.0, "velocity_um_s": [5.0, 0.0], **more}


def right_requests(slide: Slide, name: str = "a") -> list[list[bytes]]:
    """One of each kind."""
    keys = pack_keys([TileKey(0, 0, 0), TileKey(1, 2, 1), TileKey(2, 0, 0)])
    return [
        request_frames(request)
        for request in (
            Request(1, "hello"),
            Request(2, "ping"),
            Request(3, "slides", body={"after": "a"}),
            Request(4, "open", name),
            Request(5, "acquired", name, body={"z": 0, "t": 0}),
            Request(6, "histogram", name, body={"channel": 1}),
            Request(7, "tiles", name, 5, buffers=[keys]),
            Request(8, "tiles", name, buffers=[keys * 20]),
            Request(9, "hint", name, body={"view": view(slide)}),
            Request(10, "watch", name),
            Request(11, "cancel", body={"ids": [7, 8, 10]}),
        )
    ]


@pytest.fixture(scope="module")
def slide() -> SyntheticSlide:
    return SyntheticSlide((2, 3), (24, 32), ["DAPI", "GFP"], size_z=2, extra_sets=("by hand",), scenes=("A1",), seed=1)


# what decodes, directly


def test_wrong_requests_are_refused_or_answered(slide):
    """Through all that a request meets on its way, but for the socket; whatever it earns can be told to the client."""
    mutator, right = Mutator(1), right_requests(slide)
    served = ServedSlide("a", slide, EncodedTiles(1 << 20))
    served.slide.histogram(0)
    refused = 0
    for number in range(N_REQUESTS):
        frames = mutator.mutated(right[number % len(right)])
        try:
            request = request_from(frames)
            if request.op == "hint":
                hint_from(request.body, slide)
            elif request.op == "slides":
                slides_page([served.entry()], "")
            else:
                served.work(request)
        except SlideError as error:
            refused += 1
            reply_frames(Reply(1, "error", error_body(error)))  # which raises where it would be too long, or no text
    served.close()
    assert refused > N_REQUESTS // 2


def test_wrong_replies_are_refused_or_understood():
    mutator = Mutator(2)
    right = [
        reply_frames(reply)
        for reply in (
            Reply(1, body={"server": "rawmosaic", "protocol": 1}),
            Reply(2, "error", {"error": "out-of-range", "message": "no", "what": "z", "value": 3, "limits": "0 to 1"}),
            Reply(3, body={"errors": {"1": {"error": "damaged", "message": "no"}}, "identity": "x"}, buffers=[b"tile", b""]),
            Reply(
                4, "more", {"event": "grown", "growing": True, "first_field": 3, "planes": {"buffer": 0, "shape": [1, 4]}}, [b"x"]
            ),
        )
    ]
    for number in range(N_REPLIES):
        try:
            reply = reply_from(mutator.mutated(right[number % len(right)]))
        except ProtocolError:
            continue
        assert isinstance(error_from(reply.body, "tcp://host:1/a"), SlideError)


def test_wrong_arrays_are_refused_or_have_their_shape():
    mutator = Mutator(3)
    cases = []
    for array, shape in (
        (np.arange(40, dtype=np.float64).reshape(20, 2), (None, 2)),
        (np.zeros(7, FIELD_DTYPE), (7,)),
        (np.arange(1000, dtype=np.uint8), (None,)),
    ):
        arrays = Arrays()
        cases.append((arrays.add(array), arrays.buffers, array.dtype, shape))
    for number in range(N_ARRAYS):
        description, buffers, dtype, shape = cases[number % len(cases)]
        kind = mutator.random.random()
        if kind < 0.4:
            description = mutator.value(description)
        elif kind < 0.7:
            buffers = [mutator.bytes(buffers[0])]
        elif kind < 0.8:  # the sizes that Blosc's own header states
            at = mutator.random.randrange(16)
            buffers = [buffers[0][:at] + mutator.random.randbytes(mutator.random.randrange(1, 5)) + buffers[0][at + 4 :]]
        else:
            buffers = [mutator.length(buffers[0])]
        try:
            array = array_from(description, buffers, dtype, shape)
        except ProtocolError:
            continue
        assert array.dtype == dtype
        assert len(array.shape) == len(shape)
        assert all(due in (None, size) for size, due in zip(array.shape, shape, strict=True))


def test_wrong_facts_are_refused_or_make_a_slide(slide):
    mutator = Mutator(4)
    body, buffers = facts_message(slide)
    body = json.loads(json.dumps(body))
    for _ in range(N_FACTS):
        wrong_body, wrong_buffers = body, list(buffers)
        if mutator.random.random() < 0.6:
            wrong_body = mutator.value(body)
        if wrong_body is body or mutator.random.random() < 0.2:
            at = mutator.random.randrange(len(buffers))
            change = mutator.random.choice((mutator.bytes, mutator.length, lambda _: mutator.random.choice(buffers)))
            wrong_buffers[at] = change(buffers[at])
        try:
            facts = slide_facts(wrong_body, wrong_buffers)
        except ProtocolError:
            continue
        assert len(facts["position_sets"]["stage"].positions_um) == len(facts["fields"])


def test_wrong_keys_are_refused_or_are_keys():
    mutator, right = Mutator(5), pack_keys([TileKey(0, 1, 2, 3, 4)] * 5)
    for _ in range(5_000):
        try:
            keys = unpack_keys(mutator.length(mutator.bytes(right)))
        except ProtocolError:
            continue
        assert 1 <= len(keys) <= 64


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["v", "id", "op", "slide", "priority", "status", "error", "message", "view", "ids", "z", "channel", "after"]
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=8), st.lists(st.binary(max_size=40), max_size=3))
def test_any_json_is_refused_or_understood(slide, header, buffers):
    frames = [json.dumps({"v": 1, "id": 1, "op": "acquired", "status": "ok", **header}).encode(), *buffers]
    served = ServedSlide("a", slide, EncodedTiles(1 << 20))
    for decode in (lambda: served.work(request_from(frames)), lambda: error_from(reply_from(frames).body, "x")):
        try:
            decode()
        except SlideError as error:
            reply_frames(Reply(1, "error", error_body(error)))


@settings(max_examples=300, deadline=None)
@given(JSON, st.lists(st.binary(max_size=64), max_size=3))
def test_any_json_describes_an_array_or_none(description, buffers):
    for shape in ((None,), (None, 2)):
        try:
            array_from(description, buffers, np.float64, shape)
        except ProtocolError:
            continue


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_json_in_place_of_a_fact_is_refused_or_believed(slide, data):
    body, buffers = facts_message(slide)
    body[data.draw(st.sampled_from(sorted(body)))] = data.draw(JSON)
    with suppress(ProtocolError):
        slide_facts(body, buffers)


# a living dealer


def memory_mb() -> float:
    """What this process holds now; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if status.exists() else 0.0


class WithOverview(WrappedSlide):
    """A slide that has an overview."""

    overview = SyntheticSlide((1, 1), (24, 32), 2)


@pytest.fixture
def dealer(slide):
    slides = {"a": WithOverview(slide), "g": GrowingSlide(slide, 3), "ä b": slide}
    with TileDealer(slides, "tcp://127.0.0.1:*", cache_bytes=4 << 20) as dealer:
        yield dealer


def answers_as_ever(dealer: TileDealer, slide: Slide) -> None:
    """A well-formed client finds what it asks for."""
    with BareClient(dealer.address) as client:
        header, buffers = client.reply_to(client.tiles("a", [(0, 1, 1, 0, 0)]))
        assert (header["status"], header["errors"]) == ("ok", {})
        assert bool(buffers[0]) == bool(slide.read_tile(TileKey(0, 1, 1)).any())
        assert client.ask("open", "ä b")[0]["header"]["name"] == slide.header.name


def test_a_dealer_outlives_wrong_messages_and_stays_small(dealer, slide, caplog):
    right = [frames for name in ("a", "g", "a/overview", "ä b") for frames in right_requests(slide, name)]
    mutator = Mutator(6)
    caplog.set_level(logging.WARNING)
    answers_as_ever(dealer, slide)
    understood = 0

    def send(first: int, count: int) -> None:
        nonlocal understood
        with BareClient(dealer.address) as client:
            for number in range(first, first + count):
                frames = right[number % len(right)]
                client.socket.send_multipart(frames if number % 10 == 0 else mutator.mutated(frames))
                while client.socket.poll(0):
                    understood += reply_from(client.socket.recv_multipart()).status != "error"
            heard = None
            while heard != LAST_ID:  # all that was sent before is handled by then
                if not client.socket.poll(100):  # what floods a server may be dropped
                    client.send("ping", id=LAST_ID)
                    continue
                reply, _ = client.receive()
                heard, understood = reply["id"], understood + (reply["status"] != "error")

    send(0, 2_000)
    gc.collect()
    before = memory_mb()
    for first in range(2_000, N_LIVE, 2_000):
        send(first, 2_000)
    assert memory_mb() - before < MORE_MB
    assert understood > 1_000
    answers_as_ever(dealer, slide)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert dealer.stats().queue < 64


def test_a_dealer_outlives_what_is_no_message_at_all(dealer, slide):
    mutator = Mutator(7)
    host, port = dealer.address.removeprefix("tcp://").split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    for number in range(300):
        said = mutator.random.choice((mutator.random.randbytes(100), b"GET / HTTP/1.1\r\n\r\n", greeting[: number % 64], b""))
        if number % 3 == 0:
            said = greeting + mutator.length(
                mutator.bytes(b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00")
            )
        if number % 7 == 0:  # a frame that says it is of 2^60 bytes
            ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
            said = greeting + bytes([4, len(ready)]) + ready + b"\x02" + (1 << 60).to_bytes(8, "big") + bytes(100)
        with sockets.create_connection((host, int(port)), timeout=5) as wire:
            try:
                wire.sendall(said)
                wire.settimeout(0.001)
                wire.recv(1)
            except OSError:  # hung up, or nothing said: as it should be
                pass
    answers_as_ever(dealer, slide)


def test_messages_that_are_too_large_end_their_own_connection_only(dealer, slide):
    before = memory_mb()
    with BareClient(dealer.address) as good:
        for _ in range(20):
            with BareClient(dealer.address) as client:
                client.socket.send_multipart([b'{"v":1,"id":1,"op":"ping"}', bytes(8 << 20)])
                assert client.hears_nothing(10)
            assert good.ask("ping")[0]["status"] == "ok"
    assert memory_mb() - before < MORE_MB
    answers_as_ever(dealer, slide)


def test_asking_without_ever_listening_costs_little(dealer, slide):
    context = zmq.Context()
    deaf = context.socket(zmq.DEALER)
    deaf.linger, deaf.rcvhwm, deaf.rcvbuf = 0, 1, 1 << 14
    deaf.connect(dealer.address)
    before, asked = memory_mb(), right_requests(slide)
    try:
        for number in range(20_000):
            deaf.send_multipart(asked[3 + number % 4])
        until(lambda: dealer.stats().requests > 1_000)
        answers_as_ever(dealer, slide)
        assert memory_mb() - before < MORE_MB
    finally:
        deaf.close()
        context.term()
