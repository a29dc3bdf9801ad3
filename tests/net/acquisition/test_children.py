"""Processes that are looked after: started again with patience, and given up for hopeless only while they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from scans import until

from rawmosaic.net.acquisition.children import ENDING_S, HOPELESS, KILLED_S, LAST_REST_S, STEADY_S, Child, end_all


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """A program that waits for the end of its standard input: what Python reads there."""
    child = Child("code", [], tmp_path / "log")
    yield child
    child.end()


def fail(child: Child, now: float) -> None:
    """Start it, and have it killed."""
    child.keep(now)
    child.kill()
    until(lambda: child.look(now) is not None)


def test_a_process_that_fails_is_started_again_after_a_rest(child):
    fail(child, 100.0)
    child.keep(100.0)
    assert not child.running
    child.keep(100.0 + LAST_REST_S)
    assert child.running
    assert child.failures == 1


def test_a_process_that_fails_again_and_again_is_hopeless_until_it_runs_steadily(child):
    now = 100.0
    for _ in range(HOPELESS):
        fail(child, now)
        now += LAST_REST_S
    assert child.hopeless
    child.keep(now)
    assert child.running
    assert child.hopeless, "it has only just been started"
    child.look(now + 2 * STEADY_S)
    assert not child.hopeless


def test_a_process_that_was_told_to_end_has_not_failed(child):
    child.keep(100.0)
    child.end()
    assert not child.running
    assert child.failures == 0


STOPS = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")


@STOPS
def test_a_process_that_hangs_is_killed_when_its_time_is_over_and_nobody_waits_meanwhile(child):
    child.keep(100.0)
    os.kill(child.pid, signal.SIGSTOP)
    for passed in (0.0, ENDING_S - 1.0):
        assert child.press(100.0 + passed) == ""
        assert child.running
    child.press(100.0 + ENDING_S)
    until(lambda: child.press(100.0 + ENDING_S) == "" and not child.running)
    assert child.failures == 0


@STOPS
def test_processes_that_hang_are_ended_together(tmp_path):
    children = [Child("code", [], tmp_path / str(number)) for number in range(3)]
    for child in children:
        child.keep(0.0)
    os.kill(children[1].pid, signal.SIGSTOP)
    assert end_all(children, 0.1, 60.0) == []
    assert not any(child.running for child in children)


class Unkillable:
    """A process that waits for a disk: nothing ends it."""

    pid = 4711

    class stdin:
        close = staticmethod(lambda: None)

    def poll(self) -> None:
        """It is there."""

    def kill(self) -> None:
        """It does not help."""


def test_a_process_that_cannot_be_killed_is_told_of_and_not_waited_for(child):
    child._process = Unkillable()
    assert child.press(0.0) == ""
    assert child.press(ENDING_S) == ""
    assert "4711" in child.press(ENDING_S + KILLED_S)
    assert end_all([child], 0.01, 0.01) == [child]
    child._process = None
