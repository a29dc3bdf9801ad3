"""A request is answered, or fails with a reason, whatever the server and the network do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scripted_server import Answer, ScriptedServer

from rawmosaic.net import connection as module
from rawmosaic.net.connection import Connection, ConnectionPool
from rawmosaic.net.keys import ClientCurve, KeyFolder
from rawmosaic.net.protocol import Request
from rawmosaic.net.testing import Proxy
from rawmosaic.storage.errors import (
    AccessError,
    DamagedSlideError,
    NoLongerWantedError,
    NotASlideError,
    OutOfRangeError,
    ProtocolError,
    SlideError,
    UnreachableError,
)

SOON_S = 20.0
"""Generous: longer than anything here should take, on a busy machine."""


def echo(request: Request, answer: Answer) -> None:
    answer({"said": request.body.get("say")}, request.buffers)


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON_S
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(result)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that do not take long."""
    monkeypatch.setattr(module, "FIRST_TRY_S", 0.2)


def test_an_answer_comes_with_its_buffers():
    with ScriptedServer(echo) as server, Connection(server.address) as connection:
        reply = connection.request("tell", body={"say": "hé"}, buffers=[b"one", b""])
    assert reply.body["said"] == "hé"
    assert list(reply.buffers) == [b"one", b""]


def test_the_first_request_is_a_greeting_and_there_is_one():
    with ScriptedServer(echo) as server, Connection(server.address) as connection:
        for _ in range(3):
            connection.request("tell", "slide", priority=4)
        assert [request.op for request in server.requests] == ["hello", "tell", "tell", "tell"]
        assert [(request.slide, request.priority) for request in server.asked("tell")] == [("slide", 4)] * 3
        assert len({request.id for request in server.requests}) == 4


def test_answers_to_others_are_dropped():
    def confused(request: Request, answer: Answer) -> None:
        answer({"said": "stale"}, id=request.id + 1000)
        answer({"said": "stale"}, id=max(request.id - 2, 0))
        answer({"said": "more"}, status="more")
        answer({"said": "mine"})

    with ScriptedServer(confused) as server, Connection(server.address) as connection:
        assert [connection.request("tell").body["said"] for _ in range(3)] == ["mine"] * 3


@pytest.mark.usefixtures("quick")
def test_a_request_without_answer_is_cancelled_and_asked_again():
    def sleepy(request: Request, answer: Answer) -> None:
        if request.op == "tell" and len(server.asked("tell")) == 3:
            answer({"said": "at last"})

    with ScriptedServer(sleepy) as server, Connection(server.address) as connection:
        assert connection.request("tell").body["said"] == "at last"
        first, second, _ = server.asked("tell")
        assert [first.id] in [request.body["ids"] for request in server.asked("cancel")]
        assert any(second.id in request.body["ids"] for request in server.asked("cancel"))
        assert len(server.asked("hello")) == 3  # a fresh socket each time


def test_nobody_there_is_said_with_address_and_advice():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with Connection(address) as connection:
        with pytest.raises(UnreachableError, match=r"no answer for 0\.[3-9] s: nobody listens.*rawmosaic serve") as caught:
            connection.request("tell", "a b", timeout_s=0.3)
        assert caught.value.location == f"{address}/a%20b"


def test_a_stranger_is_said_to_be_one():
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        with Connection(f"tcp://127.0.0.1:{stranger.getsockname()[1]}") as connection:
            with pytest.raises(UnreachableError, match="does not speak as a server"):
                connection.request("tell", timeout_s=0.5)


def test_a_server_that_hangs_is_given_up():
    with ScriptedServer(lambda *_: None) as server, Connection(server.address) as connection:
        with pytest.raises(UnreachableError, match="connected, but it does not answer"):
            connection.request("tell", timeout_s=0.3)


def test_a_server_that_was_given_up_is_given_less_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IMPATIENCE_S", 0.1)
    with ScriptedServer(lambda *_: None) as server, Connection(server.address) as connection:
        waited = []
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(UnreachableError):
                connection.request("tell", timeout_s=2.0)
            waited.append(time.monotonic() - started)
    assert waited[0] >= 2.0
    assert waited[1] < 1.5


def test_what_is_no_longer_wanted_is_cancelled():
    with ScriptedServer(lambda *_: None) as server, Connection(server.address) as connection:
        with pytest.raises(NoLongerWantedError):
            connection.request("tell", wanted=lambda: not server.asked("tell"), timeout_s=SOON_S)
        assert eventually(lambda: len(server.asked("cancel")) == 1)
        assert server.asked("cancel")[0].body["ids"] == [server.asked("tell")[0].id]


def test_a_busy_server_is_asked_again():
    def busy(request: Request, answer: Answer) -> None:
        if len(server.asked("tell")) < 4:
            answer({"error": "busy", "message": "later"}, status="error")
        else:
            echo(request, answer)

    with ScriptedServer(busy) as server, Connection(server.address) as connection:
        assert connection.request("tell", body={"say": 1}).body["said"] == 1
        assert len({request.id for request in server.asked("tell")}) == 4


def test_a_server_that_stays_busy_is_given_up():
    def busy(_: Request, answer: Answer) -> None:
        answer({"error": "lost", "message": "nobody has it"}, status="error")

    with ScriptedServer(busy) as server, Connection(server.address) as connection:
        with pytest.raises(UnreachableError, match="nobody has it"):
            connection.request("tell", timeout_s=0.3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("not-a-slide", NotASlideError), ("damaged", DamagedSlideError), ("failed", SlideError), ("new", SlideError)],
)
def test_errors_are_raised_as_what_they_are(name: str, kind: type[SlideError]):
    def refusing(_: Request, answer: Answer) -> None:
        answer({"error": name, "message": "because"}, status="error")

    with ScriptedServer(refusing) as server, Connection(server.address) as connection:
        with pytest.raises(kind, match="because") as caught:
            connection.request("tell", "slide")
        assert type(caught.value) is kind
        assert caught.value.location == f"{server.address}/slide"


def test_limits_travel_with_the_error():
    def refusing(_: Request, answer: Answer) -> None:
        error = {"error": "out-of-range", "message": "no", "what": "z", "value": 7, "limits": "the slide has z 0 to 2"}
        answer(error, status="error")

    with ScriptedServer(refusing) as server, Connection(server.address) as connection:
        with pytest.raises(OutOfRangeError, match="0 to 2") as caught:
            connection.request("tell")
    assert (caught.value.what, caught.value.value) == ("z", 7)


def test_another_version_is_named():
    with ScriptedServer(echo) as server, Connection(server.address) as connection:
        server.hello = {"server": "newer", "protocol": 2}
        with pytest.raises(ProtocolError, match=r"version 1 .*version 2.*update"):
            connection.request("tell")


def test_a_message_that_breaks_the_protocol_is_an_error():
    def rude(_: Request, answer: Answer) -> None:
        answer({}, status="perhaps")

    with ScriptedServer(rude) as server, Connection(server.address) as connection:
        with pytest.raises(ProtocolError, match="status"):
            connection.request("tell")


def test_a_request_that_was_under_way_when_the_connection_broke_is_sent_again():
    def forgetful(request: Request, answer: Answer) -> None:
        if len(server.asked("tell")) == 1:
            proxy.cut()
        else:
            echo(request, answer)

    with ScriptedServer(forgetful) as server, Proxy(server.address) as proxy, Connection(proxy.address) as connection:
        assert connection.request("tell", body={"say": 2}, timeout_s=SOON_S).body["said"] == 2
        assert len(server.asked("tell")) == 2
        assert not server.asked("cancel")  # it did not wait for a time-out


def test_a_server_that_was_restarted_is_found_again():
    with ScriptedServer(echo) as server:
        address = server.address
        connection = Connection(address)
        connection.request("tell")
    with connection:
        with pytest.raises(UnreachableError):
            connection.request("tell", timeout_s=0.2)
        with ScriptedServer(echo, address) as server:
            assert connection.request("tell", body={"say": 3}, timeout_s=SOON_S).body["said"] == 3
            assert [request.op for request in server.requests] == ["hello", "tell"]


def test_a_far_server_answers():
    with ScriptedServer(echo) as server, Proxy(server.address, delay_s=0.1) as proxy, Connection(proxy.address) as connection:
        started = time.monotonic()
        assert connection.request("tell", body={"say": 4}).body["said"] == 4
        assert time.monotonic() - started >= 0.2  # the proxy does delay
        assert len(server.asked("tell")) == 1


@pytest.mark.usefixtures("quick")
def test_a_large_answer_over_a_slow_network_is_asked_for_once():
    def large(_: Request, answer: Answer) -> None:
        answer({}, [bytes(400_000)])

    with ScriptedServer(large) as server, Proxy(server.address, bytes_per_s=500_000) as proxy:
        with Connection(proxy.address) as connection:
            reply = connection.request("tell", timeout_s=0.3, answer_nbytes=400_000)
        assert len(reply.buffers[0]) == 400_000
        assert len(server.asked("tell")) == 1


def test_a_stalled_network_is_noticed_and_left():
    with ScriptedServer(echo) as server, Proxy(server.address) as proxy, Connection(proxy.address) as connection:
        connection.request("tell")
        proxy.stall()
        with pytest.raises(UnreachableError):
            connection.request("tell", timeout_s=0.3)
        proxy.flow()
        assert connection.request("tell", body={"say": 5}, timeout_s=SOON_S).body["said"] == 5


def test_something_without_an_answer_can_be_said():
    with ScriptedServer(lambda *_: None) as server, Connection(server.address) as connection:
        assert eventually(lambda: connection.tell("hint", "slide", {"view": {"x_um": 1.5}}))
        assert eventually(lambda: bool(server.asked("hint")))
        assert server.asked("hint")[0].body == {"view": {"x_um": 1.5}}


def test_closing_twice_is_harmless_and_nothing_is_said_afterwards():
    with ScriptedServer(echo) as server:
        connection = Connection(server.address)
        connection.request("tell")
        connection.close()
        connection.close()
        with pytest.raises(SlideError, match="closed"):
            connection.request("tell")


# requests that go on


def test_what_goes_on_is_asked_for_again_when_the_connection_broke():
    def news(request: Request, answer: Answer) -> None:
        if request.op == "watch":
            n = len(server.asked("watch"))
            answer({"n": n}, status="more")
            answer({"n": n}, status="more")
            if n == 3:
                answer({"n": n})
            else:
                proxy.cut()

    with ScriptedServer(news) as server, Proxy(server.address) as proxy, Connection(proxy.address) as connection:
        heard = [(first, reply.status, reply.body["n"]) for first, reply in connection.follow("watch", "slide")]
    assert heard[-3:] == [(True, "more", 3), (False, "more", 3), (False, "ok", 3)]
    assert all(first for (first, _, n), (_, _, before) in zip(heard[1:], heard, strict=False) if n != before)


def test_what_goes_on_is_asked_for_again_when_it_is_quiet():
    def news(request: Request, answer: Answer) -> None:
        if request.op == "watch" and len(server.asked("watch")) > 1:
            answer({})

    with ScriptedServer(news) as server, Connection(server.address) as connection:
        assert [reply.status for _, reply in connection.follow("watch", quiet_s=0.2)] == ["ok"]
        assert len(server.asked("watch")) == 2


def test_what_goes_on_ends_when_told_to():
    ending = threading.Event()
    with ScriptedServer(lambda *_: ending.set()) as server, Connection(server.address) as connection:
        assert list(connection.follow("watch", ended=ending.is_set)) == []
        assert eventually(lambda: len(server.asked("cancel")) == 1)


def test_what_goes_on_and_is_refused_raises():
    def refusing(_: Request, answer: Answer) -> None:
        answer({"error": "not-a-slide", "message": "gone"}, status="error")

    with ScriptedServer(refusing) as server, Connection(server.address) as connection:
        with pytest.raises(NotASlideError, match="gone"):
            list(connection.follow("watch"))


# keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    """A server and a client, each with a pair; the client is let in and trusts the server at any address it asks for."""
    folder = KeyFolder(tmp_path / "keys")
    pairs = {name: folder.new_pair(name) for name in ("server", "client", "stranger")}
    folder.allow("client", pairs["client"].public)
    return folder


def client_curve(keys: KeyFolder, client: str, server: str = "server") -> ClientCurve:
    own, other = keys.server_curve(client), keys.server_curve(server)
    return ClientCurve(other.public, own.public, own.secret)


def test_a_listed_client_is_let_in(keys: KeyFolder):
    with ScriptedServer(echo, curve=keys.server_curve("server")) as server:
        with Connection(server.address, client_curve(keys, "client")) as connection:
            assert connection.request("tell", body={"say": 6}, timeout_s=SOON_S).body["said"] == 6


@pytest.mark.parametrize(
    ("client", "message"), [("stranger", "does not know this machine's key"), (None, "lets in listed keys only")]
)
def test_who_is_not_listed_is_told_so(keys: KeyFolder, client: str | None, message: str):
    with ScriptedServer(echo, curve=keys.server_curve("server")) as server:
        with Connection(server.address, client_curve(keys, client) if client else None) as connection:
            for _ in range(2):
                with pytest.raises(AccessError, match=message):
                    connection.request("tell", timeout_s=SOON_S)
        assert server.requests == []


def test_who_is_let_in_later_gets_in(keys: KeyFolder):
    with ScriptedServer(echo, curve=keys.server_curve("server")) as server:
        with Connection(server.address, client_curve(keys, "stranger")) as connection:
            with pytest.raises(AccessError):
                connection.request("tell", timeout_s=SOON_S)
            keys.allow("stranger", keys.pair("stranger").public)
            assert connection.request("tell", body={"say": 7}, timeout_s=SOON_S).body["said"] == 7


def test_another_server_than_the_trusted_one_is_not_believed(keys: KeyFolder):
    with ScriptedServer(echo, curve=keys.server_curve("server")) as server:
        with Connection(server.address, client_curve(keys, "client", server="stranger")) as connection:
            with pytest.raises(UnreachableError, match="public key"):
                connection.request("tell", timeout_s=0.5)
        assert server.requests == []


def test_keys_for_a_server_without_are_told(keys: KeyFolder):
    with ScriptedServer(echo) as server, Connection(server.address, client_curve(keys, "client")) as connection:
        with pytest.raises(AccessError, match="does not use keys"):
            connection.request("tell", timeout_s=SOON_S)


# pools


def test_threads_get_their_own_answers():
    with ScriptedServer(echo) as server, ConnectionPool(server.address, size=3) as pool, ThreadPoolExecutor(8) as threads:
        said = list(threads.map(lambda n: pool.request("tell", body={"say": n}).body["said"], range(200)))
        assert said == list(range(200))
        assert len(server.asked("hello")) <= 3


def test_closing_ends_all_waiting():
    with ScriptedServer(lambda *_: None) as server, ThreadPoolExecutor(4) as threads:
        pool = ConnectionPool(server.address, size=2)
        waiting = [threads.submit(pool.request, "tell", timeout_s=10 * SOON_S) for _ in range(4)]
        assert eventually(lambda: len(server.asked("tell")) == 2)
        pool.close()
        pool.close()
        for each in waiting:
            with pytest.raises(SlideError, match="closed"):
                each.result(SOON_S)
    with pytest.raises(SlideError, match="closed"):
        pool.request("tell")


def test_who_waits_for_a_turn_may_leave():
    leaving = threading.Event()
    with ScriptedServer(lambda *_: None) as server, ThreadPoolExecutor(2) as threads:
        with ConnectionPool(server.address, size=1) as pool:
            first = threads.submit(pool.request, "tell", timeout_s=10 * SOON_S)
            assert eventually(lambda: len(server.asked("tell")) == 1)
            second = threads.submit(pool.request, "tell", wanted=lambda: not leaving.is_set())
            leaving.set()
            with pytest.raises(NoLongerWantedError):
                second.result(SOON_S)
        with pytest.raises(SlideError, match="closed"):
            first.result(SOON_S)


def test_connections_are_made_before_they_are_needed():
    with ScriptedServer(echo) as server, Proxy(server.address) as proxy, ConnectionPool(proxy.address, size=4) as pool:
        pool.request("tell")
        pool.prepare()
        assert eventually(lambda: proxy.connections == 4)
        assert len(server.asked("hello")) == 1
