"""Whose request is next."""

from __future__ import annotations

import random

from rawmosaic.net.turns import Turns


def taken(turns: Turns, cost: float = 1.0) -> list:
    """Everything in the order in which it is served."""
    order = []
    while (next_one := turns.take()) is not None:
        turns.charge(next_one[0], cost)
        order.append(next_one[1])
    return order


def test_one_connection_is_served_in_the_order_of_its_requests():
    turns = Turns()
    for number in range(5):
        turns.put("a", number)
    assert taken(turns) == [0, 1, 2, 3, 4]


def test_the_smaller_priority_goes_first_within_a_connection():
    turns = Turns()
    for job, priority in [("later", 9), ("soon", 5), ("now", 0), ("now too", 0)]:
        turns.put("a", job, priority)
    assert taken(turns) == ["now", "now too", "soon", "later"]


def test_connections_take_turns():
    turns = Turns()
    for number in range(3):
        turns.put("a", f"a{number}")
    for number in range(3):
        turns.put("b", f"b{number}")
    assert taken(turns) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_one_request_waits_for_at_most_one_of_each_other():
    turns = Turns()
    for name in "abc":
        for number in range(60):
            turns.put(name, f"{name}{number}")
    for _ in range(30):
        turns.charge(turns.take()[0], 64)
    turns.put("new", "the one")
    assert taken(turns, 64).index("the one") < 4


def test_who_asks_for_more_at_once_does_not_get_more():
    turns, had = Turns(), {"large": 0, "small": 0}
    cost = {"large": 64, "small": 1}
    for name in had:
        for _ in range(2):
            turns.put(name, name)
    for _ in range(5000):
        name, _ = turns.take()
        turns.charge(name, cost[name])
        had[name] += cost[name]
        turns.put(name, name)
    assert abs(had["large"] - had["small"]) <= 2 * 64


def test_absence_saves_nothing_up():
    turns = Turns()
    for _ in range(100):
        turns.put("busy", "busy")
    for _ in range(50):
        turns.charge(turns.take()[0], 1)
    for _ in range(50):
        turns.put("late", "late")
    assert taken(turns)[:20].count("late") <= 11


def test_leaving_for_a_moment_forgives_nothing():
    turns, had = Turns(), {"always": 0, "leaves": 0}
    turns.put("leaves", "leaves")
    for _ in range(4):
        turns.put("always", "always")
    for _ in range(2000):
        name, _ = turns.take()
        cost = 50 if name == "leaves" else 1
        turns.charge(name, cost)
        had[name] += cost
        turns.put(name, name)
    assert had["leaves"] <= had["always"] + 100


def test_a_paused_connection_waits_and_others_go_on():
    turns = Turns()
    turns.put("a", "a0")
    turns.put("b", "b0")
    turns.pause("a")
    assert taken(turns) == ["b0"]
    assert len(turns) == 1
    turns.resume("a")
    assert taken(turns) == ["a0"]


def test_a_removed_job_is_not_served():
    turns, jobs = Turns(), [object() for _ in range(3)]
    for job in jobs:
        turns.put("a", job)
    assert turns.remove("a", jobs[1])
    assert not turns.remove("a", jobs[1])
    assert not turns.remove("nobody", jobs[0])
    assert len(turns) == 2
    assert taken(turns) == [jobs[0], jobs[2]]


def test_nothing_is_kept_of_who_is_forgotten():
    turns = Turns()
    for number in range(10_000):
        turns.put(number, "job")
        turns.charge(turns.take()[0], random.randint(1, 64))
    assert len(turns._had) < 1000
    turns.put("a", "job")
    turns.pause("a")
    turns.forget("a")
    assert len(turns) == 0
    assert taken(turns) == []
    turns.put("a", "again")
    assert taken(turns) == ["again"]
