"""Processes that are looked after: started again with patience, and given up for hopeless only while they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scans import until

from rawmosaic.net.acquisition.children import HOPELESS, LAST_REST_S, STEADY_S, Child


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
