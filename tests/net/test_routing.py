"""The decisions of a broker, by numbers: what goes in, with the time, and what is to be sent."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

import pytest

from rawmosaic.net import routing as module
from rawmosaic.net.protocol import MAX_REQUEST_NBYTES, MAX_REQUESTS, Reply, Request, reply_frames, request_frames
from rawmosaic.net.routing import OWN, SILENT_S, START_S, WAIT_S, Action, Routing, ToClient, ToDealer
from rawmosaic.storage.errors import ProtocolError

NOW = 1000.0
"""A time long after the start, 0."""


def routing(**dealers: list[str]) -> Routing:
    """A broker that knows dealers by name, with what they serve."""
    made = Routing(0.0, "test")
    for dealer, slides in dealers.items():
        ready(made, dealer, slides)
    return made


def ready(broker: Routing, dealer: str, slides: list[str], load: int = 0, now: float = NOW) -> list[Action]:
    frames = request_frames(Request(0, "ready", body={"slides": slides, "load": load}))
    return broker.from_dealer(dealer.encode(), [b"", *frames], now)


def ask(broker: Routing, number: int, slide: str = "s", op: str = "tiles", client: bytes = b"c", now: float = NOW, **body):
    return broker.from_client(client, request_frames(Request(number, op, slide, body=body, buffers=[b"keys"])), now)


def answer(
    broker: Routing, dealer: str, number: int, status: str = "ok", client: bytes = b"c", now: float = NOW, **body
) -> list[Action]:
    frames = reply_frames(Reply(number, status, body, [b"pixels"]))
    return broker.from_dealer(dealer.encode(), [client, *frames], now)


def said(actions: Iterable[Action]) -> list[tuple]:
    """(client, id, status or error) of replies; (dealer, client, op, id or ids) of requests."""
    lines = []
    for action in actions:
        header = json.loads(bytes(action.frames[0]))
        if isinstance(action, ToClient):
            lines.append((action.client, header["id"], header.get("error", header["status"])))
        else:
            lines.append((action.dealer.decode(), action.client, header["op"], header.get("ids", header["id"])))
    return lines


def test_a_request_goes_to_a_dealer_of_its_slide_and_the_reply_back():
    broker = routing(one=["a"], two=["b"])
    assert said(ask(broker, 7, "b")) == [("two", b"c", "tiles", 7)]
    (reply,) = answer(broker, "two", 7)
    assert (reply.client, reply.id, list(reply.frames[1:])) == (b"c", 7, [b"pixels"])
    assert broker.n_unanswered == 0


def test_requests_pass_as_they_came():
    broker = routing(one=["s"])
    frames = request_frames(Request(3, "tiles", "s", priority=5, body={"more": "to come"}, buffers=[b"keys"]))
    (action,) = broker.from_client(b"c", frames, NOW)
    assert list(action.frames) == frames


def test_the_overview_is_where_the_slide_is():
    broker = routing(one=["a", "x/overview"], two=["b"])
    assert said(ask(broker, 1, "b/overview"))[0][0] == "two"
    assert said(ask(broker, 2, "x/overview"))[0][0] == "one"


def test_the_dealer_with_the_least_to_do_is_asked():
    broker = routing(one=["s"], two=["s"], three=["s"])
    for number in range(30):
        ask(broker, number)
    assert set(map(len, (d.requests for d in broker._dealers.values()))) == {10}
    for number, dealer in [(n, d) for (_, n), d in _holders(broker).items() if d == "two"]:
        answer(broker, dealer, number)
    assert {said(ask(broker, number))[0][0] for number in range(100, 110)} == {"two"}


def test_what_a_dealer_has_from_other_brokers_counts():
    broker = routing(one=["s"])
    ready(broker, "two", ["s"], load=8)
    assert Counter(said(ask(broker, number))[0][0] for number in range(8)) == {"one": 8}


def test_watches_are_shared_out_by_themselves():
    broker = routing(one=["s"], two=["s"])
    watched = Counter(said(ask(broker, 0, op="watch", client=b"c%d" % number))[0][0] for number in range(6))
    assert watched == {"one": 3, "two": 3}


def test_who_tells_what_came_also_answers():
    broker = routing(one=["s", "t"], two=["s", "t"])
    (watch,) = ask(broker, 0, op="watch")
    assert {ask(broker, number, slide)[0].dealer for number, slide in enumerate(["s", "s/overview"] * 10, 1)} == {watch.dealer}
    other = {b"one", b"two"} - {watch.dealer}
    assert {ask(broker, number, "t")[0].dealer for number in range(30, 35)} == other
    assert {ask(broker, number, client=b"another")[0].dealer for number in range(5)} == other
    answer(broker, watch.dealer.decode(), 0, "ok")
    assert {ask(broker, number)[0].dealer for number in range(50, 55)} == other
    assert broker._followed == {}


def test_requests_follow_their_watch_to_another_dealer():
    broker = routing(one=["s"], two=["s"], three=["s"])
    numbers = [3, 1, 2]
    (watch,) = ask(broker, 0, op="watch")
    for number in numbers:
        ask(broker, number)
    moved = broker.dealer_gone(watch.dealer, NOW)
    assert [line[2:] for line in said(moved)] == [("watch", 0), *(("tiles", number) for number in numbers)]
    assert len({action.dealer for action in moved}) == 1


def test_a_quiet_client_stays_with_its_dealer():
    broker = routing(one=["s"], two=["s"], three=["s"])
    used = set()
    for number in range(5):
        (action,) = ask(broker, number)
        used.add(action.dealer)
        answer(broker, action.dealer.decode(), number)
    (hint,) = ask(broker, 9, op="hint")
    assert used == {hint.dealer}
    assert broker.n_unanswered == 0


def test_connections_of_one_viewer_meet_the_same_dealer():
    broker = routing(one=["s"], two=["s"], three=["s"])
    used = set()
    for number in range(20):
        client = b"connection %d" % number
        (action,) = broker.from_client(client, request_frames(Request(number, "tiles", "s")), NOW, "10.0.0.7")
        answer(broker, action.dealer.decode(), number, client=client)
        used.add(action.dealer)
    assert len(used) == 1


def test_a_lost_dealer_does_not_lose_a_request():
    broker = routing(one=["s"], two=["s"])
    for number in range(6):
        ask(broker, number)
    had = {number for (_, number), dealer in _holders(broker).items() if dealer == "one"}
    ready(broker, "two", ["s"], now=NOW + SILENT_S)
    moved = said(broker.tick(NOW + SILENT_S + 0.1))
    assert {line[3] for line in moved} == had
    assert {line[0] for line in moved} == {"two"}
    assert len(had) == 3


def test_a_dealer_that_leaves_hands_over_at_once():
    broker = routing(one=["s"], two=["s"])
    for number in range(4):
        ask(broker, number)
    moved = broker.from_dealer(b"one", [b"", *request_frames(Request(0, "bye"))], NOW)
    assert [line[0] for line in said(moved)] == ["two"] * 2


def test_a_late_answer_of_a_lost_dealer_is_not_a_second_answer():
    broker = routing(one=["s"], two=["s"])
    (first,) = ask(broker, 1)
    broker.dealer_gone(first.dealer, NOW)
    assert answer(broker, first.dealer.decode(), 1) == []
    other = ({"one", "two"} - {first.dealer.decode()}).pop()
    assert len(answer(broker, other, 1)) == 1
    assert answer(broker, other, 1) == []


def test_a_dealer_answers_only_what_it_was_asked():
    broker = routing(one=["s"], two=["t"])
    ask(broker, 1, "s")
    assert answer(broker, "two", 1) == []
    assert answer(broker, "one", 2) == []
    assert answer(broker, "one", 1, client=b"another") == []
    assert broker.n_unanswered == 1


def test_without_another_dealer_a_request_waits_and_goes_to_the_one_that_comes():
    broker = routing(one=["s"])
    ask(broker, 1)
    assert broker.dealer_gone(b"one", NOW) == []
    assert broker.tick(NOW + WAIT_S - 0.1) == []
    assert said(ready(broker, "new", ["s"], now=NOW + WAIT_S - 0.1)) == [("new", b"c", "tiles", 1)]


def test_without_another_dealer_a_request_is_lost_in_the_end():
    broker = routing(one=["s"])
    ask(broker, 1)
    broker.dealer_gone(b"one", NOW)
    assert said(ask(broker, 2, now=NOW + 1)) == []
    assert said(broker.tick(NOW + WAIT_S)) == [(b"c", 1, "lost"), (b"c", 2, "lost")]
    assert broker.n_unanswered == 0
    assert said(ask(broker, 3, now=NOW + 60)) == [(b"c", 3, "lost")]


def test_an_unknown_slide_is_named():
    (reply,) = ask(routing(one=["s"]), 1, "other")
    assert said([reply]) == [(b"c", 1, "not-a-slide")]
    assert b"'other'" in reply.frames[0]


def test_a_broker_that_just_began_lets_dealers_find_it():
    broker = Routing(0.0)
    assert ask(broker, 1, "s", now=0.1) == []
    assert ask(broker, 2, "other", now=0.1) == []
    assert said(ready(broker, "one", ["s"], now=0.6)) == [("one", b"c", "tiles", 1)]
    assert said(broker.tick(START_S)) == [(b"c", 2, "not-a-slide")]


def test_a_request_that_ends_its_dealers_is_not_passed_on_for_ever():
    broker = routing(**{name: ["s"] for name in ("one", "two", "three", "four", "five")})
    actions = ask(broker, 1)
    for _ in range(module.MOST_TRIES - 1):
        actions = broker.dealer_gone(actions[0].dealer, NOW)
        assert isinstance(actions[0], ToDealer)
    assert said(broker.dealer_gone(actions[0].dealer, NOW)) == [(b"c", 1, "lost")]


def test_a_watch_goes_on_at_another_dealer():
    broker = routing(one=["s"], two=["s"])
    (action,) = ask(broker, 1, op="watch")
    for _ in range(3):
        assert said(answer(broker, action.dealer.decode(), 1, "more", event="alive")) == [(b"c", 1, "more")]
    (moved,) = broker.dealer_gone(action.dealer, NOW)
    assert said([moved])[0][2:] == ("watch", 1)
    assert moved.dealer != action.dealer
    assert said(answer(broker, moved.dealer.decode(), 1, "ok")) == [(b"c", 1, "ok")]
    assert [d.n_watches for d in broker._dealers.values()] == [0]


def test_a_cancel_goes_where_the_requests_are_and_they_are_forgotten():
    broker = routing(one=["a"], two=["b"])
    for number, slide in enumerate("abab"):
        ask(broker, number, slide)
    lines = said(broker.from_client(b"c", request_frames(Request(9, "cancel", body={"ids": [0, 1, 2, 77, "x", None, []]})), NOW))
    assert sorted(lines) == [("one", b"c", "cancel", [0, 2]), ("two", b"c", "cancel", [1])]
    assert broker.n_unanswered == 1
    assert answer(broker, "one", 0) == []


def test_nobody_cancels_what_another_asked():
    broker = routing(one=["s"])
    ask(broker, 1, client=b"c")
    assert broker.from_client(b"d", request_frames(Request(1, "cancel", body={"ids": [1]})), NOW) == []
    assert broker.n_unanswered == 1


def test_a_client_that_vanished_is_forgotten():
    broker = routing(one=["s"])
    ask(broker, 1)
    ask(broker, 2, op="watch")
    ask(broker, 3, client=b"d")
    assert said(broker.client_gone(b"c")) == [("one", b"c", "cancel", [1, 2])]
    assert broker.n_unanswered == 1
    assert broker._by_client.keys() == {b"d"}


def test_a_client_has_its_share_and_no_more():
    broker = routing(one=["s"])
    for number in range(MAX_REQUESTS):
        assert isinstance(ask(broker, number)[0], ToDealer)
    assert said(ask(broker, 99)) == [(b"c", 99, "busy")]
    assert isinstance(ask(broker, 99, client=b"d")[0], ToDealer)
    answer(broker, "one", 0)
    assert isinstance(ask(broker, 99)[0], ToDealer)


def test_replies_that_a_client_does_not_take_count_as_unanswered():
    broker = Routing(0.0, backlog=lambda client: MAX_REQUESTS if client == b"slow" else 0)
    ready(broker, "one", ["s"])
    assert said(ask(broker, 1, client=b"slow")) == [(b"slow", 1, "busy")]
    assert isinstance(ask(broker, 1, client=b"quick")[0], ToDealer)


def test_all_clients_together_have_a_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_REQUESTS", 10)
    broker = routing(one=["s"])
    replies = [ask(broker, 1, client=bytes([number]))[0] for number in range(1, 13)]
    assert [isinstance(reply, ToDealer) for reply in replies] == [True] * 10 + [False] * 2


def test_an_id_in_use_is_refused():
    broker = routing(one=["s"])
    ask(broker, 1)
    assert said(ask(broker, 1)) == [(b"c", 1, "protocol")]
    assert len(answer(broker, "one", 1)) == 1


def test_greetings_are_answered_without_a_dealer():
    broker = Routing(0.0, "test 1")
    (hello,) = ask(broker, 1, "", "hello", now=0.0)
    assert json.loads(hello.frames[0]) == {"v": 1, "id": 1, "status": "ok", "server": "test 1", "protocol": 1}
    assert said(ask(broker, 2, "", "ping", now=0.0)) == [(b"c", 2, "ok")]


def listed(actions: list[Action], client: bytes = b"c") -> list[str]:
    (reply,) = [action for action in actions if isinstance(action, ToClient) and action.client == client]
    return [entry["name"] for entry in json.loads(reply.frames[0])["slides"]]


def test_the_list_of_slides_is_that_of_all_dealers():
    broker = routing(one=["a", "c"], two=["b", "c"])
    questions = ask(broker, 5, "", "slides")
    assert {(action.dealer, action.client) for action in questions} == {(b"one", OWN), (b"two", OWN)}
    ids = {action.dealer.decode(): json.loads(action.frames[0])["id"] for action in questions}
    later = ask(broker, 6, "", "slides", client=b"d", after="a")
    assert later == []
    assert answer(broker, "one", ids["one"], client=OWN, slides=[{"name": "a"}, {"name": "c"}, {"name": "made up"}]) == []
    actions = answer(broker, "two", ids["two"], client=OWN, slides=[{"name": "b"}, {"name": "c"}, "nonsense", {"name": 3}])
    assert listed(actions) == ["a", "b", "c"]
    assert listed(actions, b"d") == ["b", "c"]
    assert broker.n_unanswered == 0


def test_long_lists_of_slides_come_page_by_page():
    broker = routing(one=["a", "b"])
    (question,) = ask(broker, 5, "", "slides")
    (second,) = answer(broker, "one", json.loads(question.frames[0])["id"], client=OWN, slides=[{"name": "a"}], rest=True)
    header = json.loads(second.frames[0])
    assert header["after"] == "a"
    assert listed(answer(broker, "one", header["id"], client=OWN, slides=[{"name": "b"}], rest=False)) == ["a", "b"]


def test_a_dealer_that_leads_in_circles_is_not_followed():
    broker = routing(one=["a"])
    (question,) = ask(broker, 5, "", "slides")
    (second,) = answer(broker, "one", json.loads(question.frames[0])["id"], client=OWN, slides=[{"name": "a"}], rest=True)
    number = json.loads(second.frames[0])["id"]
    assert listed(answer(broker, "one", number, client=OWN, slides=[{"name": "a"}], rest=True)) == ["a"]


def test_an_entry_that_cannot_be_passed_on_does_not_spoil_the_list():
    broker = routing(one=["a", "b", "c"])
    (question,) = ask(broker, 5, "", "slides")
    header = (
        b'{"v":1,"id":%d,"status":"ok","slides":[{"name":"a","pixel_size_um":1e999},{"name":"b","title":"\\ud800"},{"name":"c"}]}'
    )
    actions = broker.from_dealer(b"one", [OWN, header % json.loads(question.frames[0])["id"]], NOW)
    assert listed(actions) == ["b", "c"]


def test_a_silent_dealer_does_not_hold_up_the_list():
    broker = routing(one=["a"], two=["b"])
    questions = ask(broker, 5, "", "slides")
    number = next(json.loads(action.frames[0])["id"] for action in questions if action.dealer == b"one")
    answer(broker, "one", number, client=OWN, slides=[{"name": "a"}])
    assert listed(broker.tick(NOW + module.LISTING_S)) == ["a"]


def test_a_dealer_lost_while_it_is_asked_does_not_hold_up_the_list():
    broker = routing(one=["a"])
    ask(broker, 5, "", "slides")
    assert listed(broker.dealer_gone(b"one", NOW)) == []


def test_without_dealers_the_list_is_empty():
    assert listed(ask(Routing(0.0), 1, "", "slides")) == []


def test_who_poses_as_the_broker_is_not_heard():
    assert ask(routing(one=["s"]), 1, client=OWN) == []


@pytest.mark.parametrize(
    ("header", "outcome"),
    [
        (b"", []),
        (b"not JSON", []),
        (b"[]", []),
        (b'{"v": 1, "op": "ping"}', []),
        (b'{"v": 1, "id": -1, "op": "ping"}', []),
        (b'{"v": 1, "id": 1e9, "op": "ping"}', []),
        (b'{"v": 2, "id": 4, "op": "ping"}', ["version"]),
        (b'{"v": 1, "id": 4}', ["protocol"]),
        (b'{"v": 1, "id": 4, "op": "tiles"}', ["protocol"]),
        (b'{"v": 1, "id": 4, "op": "ready", "slides": ["s"]}', ["protocol"]),
        (b'{"v": 1, "id": 4, "op": "tiles", "slide": 5}', ["protocol"]),
        (b'{"v": 1, "id": 4, "op": "slides", "after": 5}', ["protocol"]),
        (b'{"v": 1, "id": 4, "op": "cancel", "ids": 5}', []),
        (b'{"v": 1, "id": 4, "op": "hint", "slide": "nowhere"}', []),
        (b'{"v": 1, "id": 4, "op": "tiles", "slide": "s", "priority": 10}', ["protocol"]),
    ],
)
def test_messages_of_clients_that_break_the_protocol(header: bytes, outcome: list[str]):
    broker = routing(one=["s"])
    assert [line[2] for line in said(broker.from_client(b"c", [header], NOW))] == outcome
    assert broker.n_unanswered == 0


def test_large_requests_are_refused():
    frames = [*request_frames(Request(1, "tiles", "s")), bytes(MAX_REQUEST_NBYTES)]
    assert said(routing(one=["s"]).from_client(b"c", frames, NOW)) == [(b"c", 1, "protocol")]


@pytest.mark.parametrize(
    "message",
    [
        Request(0, "hello"),
        Request(0, "ready"),
        Request(0, "ready", body={"slides": "s"}),
        Request(0, "ready", body={"slides": [1]}),
        Request(0, "ready", body={"slides": [""]}),
        Request(0, "ready", body={"slides": ["x" * 2000]}),
        Request(0, "ready", body={"slides": ["two\nlines"]}),
        Request(0, "ready", body={"slides": ["s"], "load": -1}),
        Request(0, "ready", body={"slides": ["s"], "load": "much"}),
    ],
    ids=lambda message: f"{message.op} {str(message.body)[:30]}",
)
def test_messages_of_dealers_that_break_the_protocol_change_nothing(message: Request):
    broker = routing(one=["s"])
    with pytest.raises(ProtocolError):
        broker.from_dealer(b"two", [b"", *request_frames(message)], NOW)
    assert broker.dealers == {b"one": frozenset("s")}


@pytest.mark.parametrize("frames", [[], [b""], [b"c"], [b"c", b"no header"], [b"c", b'{"v": 1, "id": 1, "status": "perhaps"}']])
def test_broken_replies_reach_nobody(frames: list[bytes]):
    broker = routing(one=["s"])
    ask(broker, 1)
    with suppress(ProtocolError):
        assert broker.from_dealer(b"one", frames, NOW) == []
    assert broker.n_unanswered == 1


def test_dealers_have_a_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_DEALERS", 1)
    broker = routing(one=["s"])
    with pytest.raises(ProtocolError, match="at most 1 dealers"):
        ready(broker, "two", ["s"])


def test_what_nobody_answers_is_forgotten_in_the_end():
    broker = routing(one=["s"])
    ask(broker, 1)
    ask(broker, 2, op="watch")
    lines = said(broker.forget_stale(NOW + module.STALE_S + 1))
    assert lines == [("one", b"c", "cancel", [1]), (b"c", 1, "failed")]
    assert broker.n_unanswered == 1


def test_nothing_is_left_of_a_long_day():
    """Random clients, dealers that come and go: every request has one last answer, and no table keeps anything."""
    draw = random.Random(1)
    broker, now, asked, answered = Routing(0.0), 10.0, set(), Counter()
    alive: dict[str, list] = {}

    def take(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, ToClient):
                answered[action.client, action.id] += 1
            elif action.id is not None and action.dealer.decode() in alive:
                alive[action.dealer.decode()].append((action.client, action.id))

    for step in range(3000):
        now += 0.01
        match draw.choice(["ask"] * 5 + ["answer"] * 6 + ["come", "go", "tick"]):
            case "ask":
                client = bytes([draw.randrange(1, 9)])
                asked.add((client, step))
                take(ask(broker, step, draw.choice("abc"), draw.choice(("tiles", "watch")), client, now))
            case "answer":
                if busy := [dealer for dealer, work in alive.items() if work]:
                    dealer = draw.choice(busy)
                    client, number = alive[dealer].pop(draw.randrange(len(alive[dealer])))
                    take(answer(broker, dealer, number, client=client, now=now))
            case "come":
                dealer = f"d{step}"
                alive[dealer] = []
                take(ready(broker, dealer, draw.sample("abc", 2), now=now))
            case "go":
                if alive:
                    dealer = draw.choice(list(alive))
                    del alive[dealer]
                    take(broker.dealer_gone(dealer.encode(), now))
            case "tick":
                for dealer in broker._dealers.values():
                    dealer.heard_at = now
                take(broker.tick(now))
    alive.clear()
    for dealer in list(broker.dealers):
        take(broker.dealer_gone(dealer, now))
    take(broker.tick(now + WAIT_S))
    assert set(answered) == asked
    assert set(answered.values()) == {1}
    tables = broker._requests, broker._by_client, broker._waiting, broker._dealers, broker._serving, broker._followed
    assert tables == ({},) * 6
    assert broker._nbytes == 0


def test_a_hundred_thousand_mutated_messages_change_nothing_for_others():
    """Bytes flipped, cut, doubled and mixed up, as clients and dealers: nothing but ProtocolError, and bounded memory."""
    draw = random.Random(2)
    broker = routing(good=["s"])
    from_clients = [
        request_frames(Request(1, "tiles", "s", buffers=[bytes(160)])),
        request_frames(Request(2, "slides", body={"after": "a"})),
        request_frames(Request(3, "cancel", body={"ids": [1, 2, 3]})),
        request_frames(Request(4, "watch", "s")),
        request_frames(Request(5, "hint", "s", body={"view": {"x_um": 1.0}})),
    ]
    from_dealers = [
        [b"", *request_frames(Request(0, "ready", body={"slides": ["s", "t"], "load": 3}))],
        [b"", *request_frames(Request(0, "bye"))],
        [b"c", *reply_frames(Reply(1, "ok", {"errors": {}}, [bytes(100)]))],
        [b"\0", *reply_frames(Reply(1, "ok", {"slides": [{"name": "s"}], "rest": True}))],
    ]
    for number in range(100_000):
        now = NOW + 1e-4 * number
        who = bytes([draw.randrange(1, 30)])
        with suppress(ProtocolError):
            if draw.random() < 0.6:
                broker.from_client(who, mutated(draw.choice(from_clients), draw), now)
            else:
                broker.from_dealer(b"bad" + who, mutated(draw.choice(from_dealers), draw), now)
        if number % 1000 == 0:
            ready(broker, "good", ["s"], now=now)
            broker.tick(now)
            assert broker.n_unanswered <= 30 * MAX_REQUESTS
            assert len(broker.dealers) <= 31
    for dealer in list(broker.dealers):
        if dealer != b"good":
            broker.dealer_gone(dealer, now)
    assert said(ask(broker, 7, client=b"well-formed", now=now)) == [("good", b"well-formed", "tiles", 7)]


def mutated(frames: list, draw: random.Random) -> list[bytes]:
    """The frames with something wrong with them, most of the time."""
    frames = [bytes(frame) for frame in frames]
    for _ in range(draw.randrange(3)):
        at = draw.randrange(len(frames))
        data = bytearray(frames[at])
        match draw.randrange(6):
            case 0 if data:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case 1:
                del data[draw.randrange(len(data) + 1) :]
            case 2:
                data *= 2
            case 3 if data:
                place = draw.randrange(len(data))
                data[place:place] = draw.choice([b"null", b"1e999", b"[", b'"', b"-1", b"9" * 30, b"{}", b"\xff"])
            case 4:
                frames.insert(at, draw.randbytes(draw.randrange(20)))
                continue
            case 5 if len(frames) > 1:
                del frames[at]
                continue
        frames[at] = bytes(data)
    return frames


def _holders(broker: Routing) -> dict[tuple[bytes, int], str]:
    return {key: request.dealer.decode() for key, request in broker._requests.items() if request.dealer}
