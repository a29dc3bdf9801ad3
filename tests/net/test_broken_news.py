"""A message of a server that is broken once: who follows a slide misses nothing of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.protocol import Arrays, array_from
from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.testing import GrowingSlide, SyntheticSlide

LONG_S = 60.0

Frames = list[bytes]
Spoil = Callable[[dict, Frames], Frames | None]
"""(header, buffers) of a reply → what comes instead; None: this one is not meant."""


class Spoiler:
    """Lies between a dealer and its clients, and breaks one reply. A context manager.

    Every client has a connection of its own to the dealer, as if nobody were between.
    """

    def __init__(self, dealer: str):
        self._dealer, self._spoil = dealer, None
        self.spoiled = threading.Event()
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.bind("tcp://127.0.0.1:*")
        self.address = self._front.last_endpoint.decode()
        self._backs: dict[bytes, zmq.Socket] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def spoil_next(self, spoil: Spoil) -> None:
        """Break the next reply that `spoil` is about."""
        self.spoiled.clear()
        self._spoil = spoil

    def __enter__(self) -> Spoiler:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ending.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        while not self._ending.is_set():
            zmq.zmq_poll([(socket, zmq.POLLIN) for socket in (self._front, *self._backs.values())], 20)
            while self._front.poll(0):
                client, *frames = self._front.recv_multipart()
                self._back_of(client).send_multipart(frames)
            for client, back in self._backs.items():
                while back.poll(0):
                    self._front.send_multipart([client, *self._passed(back.recv_multipart())])

    def _back_of(self, client: bytes) -> zmq.Socket:
        if client not in self._backs:
            self._backs[client] = self._context.socket(zmq.DEALER)
            self._backs[client].connect(self._dealer)
        return self._backs[client]

    def _passed(self, frames: Frames) -> Frames:
        spoil = self._spoil
        spoiled = None if spoil is None else spoil(json.loads(frames[0]), frames[1:])
        if spoiled is None:
            return frames
        self._spoil = None
        self.spoiled.set()
        return spoiled


def changed(**keys: object) -> Callable[[dict, Frames], Frames]:
    """The same, with other values in the header."""
    return lambda header, buffers: [json.dumps({**header, **keys}).encode(), *buffers]


def without(key: str) -> Callable[[dict, Frames], Frames]:
    return lambda header, buffers: [json.dumps({name: header[name] for name in header if name != key}).encode(), *buffers]


def with_planes_elsewhere(header: dict, buffers: Frames) -> Frames:
    """Planes of channels that the slide has not; well formed otherwise."""
    planes = array_from(header["planes"], buffers, "<i4", (None, 4)) + np.array([0, 100, 0, 0], "<i4")
    arrays = Arrays()
    arrays.add(planes)
    buffers[header["planes"]["buffer"]] = arrays.buffers[0]
    return [json.dumps(header).encode(), *buffers]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a broken message the server is asked again soon."""
    monkeypatch.setattr("rawmosaic.net.following.LAST_PAUSE_S", 0.02)


NONSENSE = {
    "header that is no JSON": lambda _, buffers: [b'{"v": 1, "id": ', *buffers],
    "another version": changed(v=7),
    "no buffers": lambda header, _: [json.dumps(header).encode()],
    "buffers that do not decode": lambda header, buffers: [json.dumps(header).encode(), *(b"\xff" * len(b) for b in buffers)],
    "fields that come too late": changed(first_field=1_000_000),
    "fields before the first": changed(first_field=-1),
    "fields that become fewer": changed(first_field=0),
    "planes that are none": changed(planes=[1, 2, 3]),
    "planes that the slide has no room for": with_planes_elsewhere,
    "no identity": without("identity"),
    "no growing": without("growing"),
}


def of(event: str, spoil: Callable[[dict, Frames], Frames]) -> Spoil:
    """The next word of a server about a growing slide."""
    return lambda header, buffers: spoil(header, buffers) if header.get("event") == event else None


def of_open(spoil: Callable[[dict, Frames], Frames]) -> Spoil:
    """The next answer to `open`."""
    return lambda header, buffers: spoil(header, buffers) if "tiling" in header else None


class Follower:
    """Follows a slide through a spoiler, and keeps what it told."""

    def __init__(self, growing: GrowingSlide, spoiler: Spoiler):
        self.growing, self.slide = growing, RemoteSlide(f"{spoiler.address}/s", disk_cache=None)
        self.came: list[tuple[int, ...]] = []

    def grow(self, n: int) -> None:
        self.growing.grow(n)

    def has_all(self) -> bool:
        self.came.extend(map(tuple, self.slide.refresh().tolist()))
        return len(self.came) >= self.growing._n_acquired - FIRST

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + LONG_S
        while not condition():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.01)


FIRST = 2


@contextmanager
def following() -> Iterator[tuple[Follower, Spoiler]]:
    growing = GrowingSlide(SyntheticSlide((3, 4), (40, 56), 2), FIRST)
    with TileDealer({"s": growing}, "tcp://127.0.0.1:*") as dealer, Spoiler(dealer.address) as spoiler:
        follower = Follower(growing, spoiler)
        with follower.slide:
            follower.grow(2)
            follower.until(follower.has_all)  # it listens
            yield follower, spoiler


def assert_nothing_missed(follower: Follower) -> None:
    slide, growing = follower.slide, follower.growing
    while slide.growing:
        follower.grow(9)
        follower.until(follower.has_all)
    follower.until(follower.has_all)
    assert sorted(follower.came) == sorted(map(tuple, growing._planes[FIRST:].tolist()))  # each once, and all
    np.testing.assert_array_equal(slide.fields, growing.fields)
    np.testing.assert_array_equal(slide.positions(), growing.positions())
    np.testing.assert_array_equal(slide.acquired(), growing.acquired())
    np.testing.assert_array_equal(slide.histogram(0), growing.histogram(0))
    for field in range(slide.n_fields):
        np.testing.assert_array_equal(slide.read_tile(TileKey(0, field, 0)), growing.read_tile(TileKey(0, field, 0)))


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_news_that_are_broken_once_are_learned_all_the_same(nonsense):
    with following() as (follower, spoiler):
        spoiler.spoil_next(of("grown", NONSENSE[nonsense]))
        follower.grow(5)
        follower.until(spoiler.spoiled.is_set)
        follower.until(follower.has_all)  # without anything else that grows
        assert_nothing_missed(follower)


def test_news_after_broken_ones_are_taken_in_as_they_come():
    with following() as (follower, spoiler):
        spoiler.spoil_next(of("grown", with_planes_elsewhere))
        follower.grow(3)
        follower.until(spoiler.spoiled.is_set)
        follower.grow(3)
        follower.until(follower.has_all)
        assert_nothing_missed(follower)


@pytest.mark.parametrize("nonsense", ["header that is no JSON", "no identity"])
def test_a_sign_of_life_that_is_broken_is_no_end(nonsense):
    with following() as (follower, spoiler):
        spoiler.spoil_next(of("alive", NONSENSE[nonsense]))
        follower.until(spoiler.spoiled.is_set)
        assert_nothing_missed(follower)


@pytest.mark.parametrize("nonsense", ["header that is no JSON", "no buffers", "buffers that do not decode"])
def test_a_slide_that_cannot_be_read_when_it_is_asked_for_anew_is_asked_for_again(nonsense):
    with following() as (follower, spoiler):
        spoiler.spoil_next(of("grown", NONSENSE["no identity"]))
        follower.grow(3)
        follower.until(spoiler.spoiled.is_set)
        spoiler.spoil_next(of_open(NONSENSE[nonsense]))
        follower.until(spoiler.spoiled.is_set)
        follower.until(follower.has_all)
        assert_nothing_missed(follower)


def test_reads_go_on_while_news_are_broken():
    with following() as (follower, spoiler):
        spoiler.spoil_next(of("grown", NONSENSE["no identity"]))
        follower.grow(3)
        while not spoiler.spoiled.is_set():
            follower.slide.read_tile(TileKey(0, 0, 0))
        for _ in range(20):
            follower.slide.read_tile(TileKey(0, 1, 0))
        assert_nothing_missed(follower)
