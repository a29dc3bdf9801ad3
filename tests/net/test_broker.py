"""The broker on real sockets: bare ZeroMQ on both sides of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import zmq

from rawmosaic.net import broker as module
from rawmosaic.net.broker import Broker
from rawmosaic.net.protocol import (
    MAX_REQUEST_NBYTES,
    MAX_REQUESTS,
    Reply,
    Request,
    reply_frames,
    reply_from,
    request_frames,
    request_from,
)
from rawmosaic.storage.errors import UnreachableError

ANY = "tcp://127.0.0.1:*"
LONG_S = 20.0
"""No test waits so long unless something is wrong."""

Answer = Callable[[Request], Reply | None]


def pixels(request: Request) -> Reply:
    """What a fake dealer answers: the slide's name as pixels."""
    return Reply(request.id, body={"of": request.slide}, buffers=[request.slide.encode() * 100])


class FakeDealer:
    """Serves slides by a function, in a thread of its own. `die` is a kill: nothing is said any more."""

    def __init__(self, back: str, slides: list[str], answer: Answer = pixels):
        self.back, self.slides, self.answer = back, slides, answer
        self.served: Counter[str] = Counter()
        self.seen: list[Request] = []
        self._end, self._farewell = threading.Event(), True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 200
            socket.reconnect_ivl = 50
            socket.connect(self.back)
            ready_at = 0.0
            while not self._end.is_set():
                if time.monotonic() >= ready_at:
                    ready_at = time.monotonic() + 0.3
                    self._say(socket, "ready", slides=self.slides, load=0)
                if socket.poll(20):
                    client, *frames = socket.recv_multipart()
                    request = request_from(frames)
                    self.seen.append(request)
                    self.served[request.op] += 1
                    if request.op == "slides":
                        reply = Reply(request.id, body={"slides": [{"name": name} for name in self.slides], "rest": False})
                    elif request.op in ("cancel", "hint", "ping"):
                        continue
                    else:
                        reply = self.answer(request)
                    if reply is not None:
                        socket.send_multipart([client, *reply_frames(reply)])
            if self._farewell:
                self._say(socket, "bye")
            else:
                socket.linger = 0

    @staticmethod
    def _say(socket: zmq.Socket, op: str, **body) -> None:
        socket.send_multipart([b"", *request_frames(Request(0, op, body=body))])

    def die(self) -> None:
        self._farewell = False
        self.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Client:
    """A bare client."""

    def __init__(self, front: str):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(front)

    def send(self, number: int, op: str = "tiles", slide: str = "s", **body) -> None:
        self.socket.send_multipart(request_frames(Request(number, op, slide, body=body)))

    def reply(self, timeout_s: float = LONG_S) -> Reply:
        assert self.socket.poll(1e3 * timeout_s), "no reply came"
        return reply_from(self.socket.recv_multipart())

    def ask(self, number: int, op: str = "tiles", slide: str = "s", **body) -> Reply:
        self.send(number, op, slide, **body)
        return self.reply()

    def until_served(self, slide: str = "s") -> None:
        """Wait until the broker lists a slide."""
        end = time.monotonic() + LONG_S
        while slide not in [entry["name"] for entry in self.ask(0, "slides", "").body["slides"]]:
            assert time.monotonic() < end
            time.sleep(0.02)

    def close(self) -> None:
        self.socket.close()
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(ANY, ANY) as broker:
        yield broker


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    with Client(broker.front_address) as client:
        yield client


def test_addresses_are_those_really_bound(broker: Broker):
    assert broker.front_address != broker.back_address
    for address in (broker.front_address, broker.back_address):
        assert address.startswith("tcp://127.0.0.1:")
        assert address[-1].isdigit()


def test_an_address_in_use_is_told(broker: Broker):
    with pytest.raises(UnreachableError, match=f"{broker.front_address}.*cannot be bound"):
        Broker(broker.front_address, ANY)
    with pytest.raises(UnreachableError, match="another server"):
        Broker(ANY, broker.back_address)


def test_closing_twice_is_harmless():
    broker = Broker(ANY, ANY)
    assert not broker.wait(0)
    broker.close()
    broker.close()
    assert broker.wait(0)


def test_slides_of_different_dealers_are_found(broker: Broker, client: Client):
    with FakeDealer(broker.back_address, ["a"]), FakeDealer(broker.back_address, ["b", "c"]):
        client.until_served("a")
        client.until_served("c")
        for number, slide in enumerate("abcabc"):
            reply = client.ask(number, slide=slide)
            assert reply.body == {"of": slide}
            assert bytes(reply.buffers[0]) == slide.encode() * 100
        assert client.ask(99, slide="d").body["error"] == "not-a-slide"
        assert [entry["name"] for entry in client.ask(100, "slides", "").body["slides"]] == ["a", "b", "c"]


def test_dealers_of_one_slide_share_its_load(broker: Broker, client: Client):
    def slowly(request: Request) -> Reply:
        time.sleep(0.01)
        return pixels(request)

    with ExitStack() as stack:
        dealers = [stack.enter_context(FakeDealer(broker.back_address, ["s"], slowly)) for _ in range(3)]
        client.until_served()
        while not all(dealer.served["slides"] for dealer in dealers):
            client.ask(0, "slides", "")
        for number in range(60):
            client.send(number)
        assert {client.reply().id for _ in range(60)} == set(range(60))
        assert sorted(dealer.served["tiles"] for dealer in dealers) == [20, 20, 20]


def test_a_dealer_that_dies_in_mid_flow_loses_nothing(broker: Broker, client: Client):
    held = threading.Event()

    def never(_: Request) -> None:
        held.set()

    with FakeDealer(broker.back_address, ["s"], never) as doomed:
        client.until_served()
        for number in range(20):
            client.send(number)
        assert held.wait(LONG_S)
        with FakeDealer(broker.back_address, ["s"]) as other:
            while not other.served["slides"]:
                client.ask(1000, "slides", "")
            doomed.die()
            assert {client.reply().id for _ in range(20)} == set(range(20))
            assert other.served["tiles"] == 20


def test_a_broken_connection_is_noticed_long_before_the_silence(broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.net import routing

    monkeypatch.setattr(routing, "SILENT_S", 1e9)
    with FakeDealer(broker.back_address, ["s"], lambda _: None) as doomed:
        client.until_served()
        client.send(1)
        while not doomed.served["tiles"]:
            time.sleep(0.01)
        doomed.die()
        with FakeDealer(broker.back_address, ["s"]):
            assert client.reply().id == 1


def test_a_dealer_that_leaves_is_not_asked_any_more(broker: Broker, client: Client):
    with FakeDealer(broker.back_address, ["s"]) as staying:
        client.until_served()
        with FakeDealer(broker.back_address, ["s"]):
            for number in range(10):
                client.ask(number)
        for number in range(10, 30):
            assert client.ask(number).id == number
        assert staying.served["tiles"] >= 20


def test_a_restarted_broker_is_found_again_by_both_sides():
    with Broker(ANY, ANY) as broker:
        front, back = broker.front_address, broker.back_address
        dealer, client = FakeDealer(back, ["s"]), Client(front)
        client.until_served()
    try:
        with Broker(front, back):
            client.send(1)
            assert client.reply().body == {"of": "s"}  # asked before the dealer had announced itself again
    finally:
        dealer.close()
        client.close()


def test_a_watch_is_answered_many_times_and_goes_on_elsewhere(broker: Broker, client: Client):
    def alive(request: Request) -> Reply:
        return Reply(request.id, "more", {"event": "alive", "identity": "i"})

    with FakeDealer(broker.back_address, ["s"], alive) as first:
        client.until_served()
        assert client.ask(5, "watch").body["event"] == "alive"
        with FakeDealer(broker.back_address, ["s"], alive) as second:
            first.close()
            assert client.reply().body["event"] == "alive"
            assert second.served["watch"] == 1


def test_a_cancel_reaches_the_dealer_and_silences_it(broker: Broker, client: Client):
    with FakeDealer(broker.back_address, ["s"], lambda _: None) as dealer:
        client.until_served()
        for number in (1, 2):
            client.send(number)
        client.send(3, "cancel", "", ids=[1, 2])
        assert client.ask(4, "ping", "").id == 4
        end = time.monotonic() + LONG_S
        while not dealer.served["cancel"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert [request.body["ids"] for request in dealer.seen if request.op == "cancel"] == [[1, 2]]


def test_a_client_that_vanished_has_its_requests_cancelled(broker: Broker, client: Client):
    go = threading.Event()

    def when_told(request: Request) -> Reply | None:
        if request.id == 1:
            go.wait(LONG_S)
            return pixels(request)
        return None

    with FakeDealer(broker.back_address, ["s"], when_told) as dealer:
        client.until_served()
        with Client(broker.front_address) as leaving:
            for number in (1, 2):
                leaving.send(number)
            while not dealer.served["tiles"]:
                time.sleep(0.01)
        time.sleep(0.1)
        go.set()
        end = time.monotonic() + LONG_S
        while not dealer.served["cancel"]:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_too_many_requests_are_answered_busy(broker: Broker, client: Client):
    with FakeDealer(broker.back_address, ["s"], lambda _: None):
        client.until_served()
        for number in range(MAX_REQUESTS + 3):
            client.send(number)
        for _ in range(3):
            reply = client.reply()
            assert (reply.id >= MAX_REQUESTS, reply.body["error"]) == (True, "busy")


def test_a_client_that_takes_nothing_keeps_only_itself_waiting(broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_WAITING_NBYTES", 8 << 20)
    large = bytes(1 << 20)

    def many_pixels(request: Request) -> Reply:
        return Reply(request.id, buffers=[large])

    with FakeDealer(broker.back_address, ["s"], many_pixels), zmq.Context() as context, context.socket(zmq.DEALER) as slow:
        client.until_served()
        slow.linger, slow.rcvhwm, slow.rcvbuf = 0, 1, 1 << 16
        slow.connect(broker.front_address)
        for number in range(60):
            slow.send_multipart(request_frames(Request(number, "tiles", "s")))
        for number in range(20):
            assert client.ask(number).id == number
        outcomes = Counter()
        for _ in range(60):  # what it was sent, and for the rest the word to ask again
            assert slow.poll(1e3 * LONG_S)
            reply = reply_from(slow.recv_multipart())
            outcomes[reply.body.get("error", "pixels")] += 1
        assert outcomes["pixels"] + outcomes["busy"] == 60
        assert outcomes["pixels"] >= module.CLIENT_QUEUE
        assert outcomes["busy"] > 0


def test_hostile_messages_on_either_side_end_nothing(broker: Broker, client: Client):
    rubbish = [
        [b""],
        [b"", b"", b""],
        [b"{}"],
        [b"[" * 5000],
        [b'{"v":1,"id":1,"op":"tiles","slide":"s"}'] * 300,
        [b'{"v":1,"id":1,"op":"ready","slides":["x"]}'],
        [b"c", b'{"v":1,"id":1,"status":"ok"}'],
        [b"\0", b'{"v":1,"id":1,"status":"ok","slides":5}'],
        [b"", b'{"v":1,"id":1,"op":"ready","slides":{"x":1}}'],
        [b"", b"\xff\xfe"],
        [bytes(2 * MAX_REQUEST_NBYTES)],
    ]
    with FakeDealer(broker.back_address, ["s"]), zmq.Context() as context:
        client.until_served()
        for address in (broker.front_address, broker.back_address):
            for identity in (None, b"\0", b"x" * 255):
                with context.socket(zmq.DEALER) as bad:
                    bad.linger = 500
                    if identity is not None:
                        bad.routing_id = identity
                    bad.connect(address)
                    for frames in rubbish:
                        bad.send_multipart(frames)
                    bad.poll(50)
        assert client.ask(1).body == {"of": "s"}
        assert [entry["name"] for entry in client.ask(2, "slides", "").body["slides"]] == ["s"]
