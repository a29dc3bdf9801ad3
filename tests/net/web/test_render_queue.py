"""The queue of the thread that draws."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from rawmosaic.net.web.deepzoom import TileView
from rawmosaic.net.web.render_queue import BusyError, RenderQueue
from rawmosaic.net.web.style import Style

STYLE = Style(())
WAIT_S = 20


def view(number: int) -> TileView:
    return TileView((float(number), 0.0, number + 1.0, 1.0), (2, 2))


def held(queue: RenderQueue, renderer: Any):
    """A first region that keeps the thread busy until the gate opens."""
    renderer.gate.clear()
    first = queue.submit(None, view(0), STYLE)
    assert renderer.started.wait(WAIT_S)
    return first


def drawn(renderer: Any) -> list[int]:
    return [int(region[0]) for region, _, _ in renderer.asked]


def test_the_newest_is_drawn_first(renderer: Any):
    queue = RenderQueue(renderer)
    futures = [held(queue, renderer), *(queue.submit(None, view(number), STYLE) for number in (1, 2, 3))]
    renderer.gate.set()
    for future in futures:
        assert future.result(WAIT_S).pixels.shape == (2, 2, 4)
    assert drawn(renderer) == [0, 3, 2, 1]
    queue.close()


def test_what_was_cancelled_is_not_drawn(renderer: Any):
    queue = RenderQueue(renderer)
    first = held(queue, renderer)
    second, third = (queue.submit(None, view(number), STYLE) for number in (1, 2))
    assert second.cancel()
    renderer.gate.set()
    first.result(WAIT_S)
    third.result(WAIT_S)
    queue.close()
    assert drawn(renderer) == [0, 2]


def test_of_too_many_the_oldest_is_given_up(renderer: Any):
    queue = RenderQueue(renderer, most_waiting=2)
    first = held(queue, renderer)
    waiting = [queue.submit(None, view(number), STYLE) for number in (1, 2, 3)]
    with pytest.raises(BusyError, match="2 tiles"):
        waiting[0].result(WAIT_S)
    renderer.gate.set()
    for future in (first, *waiting[1:]):
        future.result(WAIT_S)
    queue.close()
    assert drawn(renderer) == [0, 3, 2]


def test_what_was_cancelled_takes_no_ones_place(renderer: Any):
    queue = RenderQueue(renderer, most_waiting=2)
    first = held(queue, renderer)
    waiting = [queue.submit(None, view(number), STYLE) for number in (1, 2)]
    assert waiting[1].cancel()
    waiting.append(queue.submit(None, view(3), STYLE))
    renderer.gate.set()
    for future in (first, waiting[0], waiting[2]):
        future.result(WAIT_S)
    queue.close()
    assert drawn(renderer) == [0, 3, 1]


def test_a_region_that_fails_does_not_end_the_thread(renderer: Any):
    queue = RenderQueue(renderer)
    renderer.error = ZeroDivisionError("on purpose")
    with pytest.raises(ZeroDivisionError):
        queue.submit(None, view(0), STYLE).result(WAIT_S)
    renderer.error = None
    assert queue.submit(None, view(1), STYLE).result(WAIT_S).failures == ()
    queue.close()


def test_one_thread_draws_and_closes(renderer: Any):
    queue = RenderQueue(renderer)
    queue.submit(None, view(0), STYLE).result(WAIT_S)
    queue.close()
    queue.close()
    assert renderer.threads == {"web-renderer"}
    assert renderer.n_closed == 1


def test_closing_gives_up_what_waits(renderer: Any):
    queue = RenderQueue(renderer)
    first = held(queue, renderer)
    second = queue.submit(None, view(1), STYLE)
    closing = threading.Thread(target=queue.close)
    closing.start()
    with pytest.raises(BusyError):
        second.result(WAIT_S)
    renderer.gate.set()
    first.result(WAIT_S)
    closing.join(WAIT_S)
    with pytest.raises(BusyError):
        queue.submit(None, view(2), STYLE).result(WAIT_S)
    assert drawn(renderer) == [0]


def test_the_owners_thread_can_draw_instead(renderer: Any):
    queue = RenderQueue(renderer, own_thread=False)
    future = queue.submit(None, view(0), STYLE)
    future.add_done_callback(lambda _: queue.close())
    queue.work()
    assert future.result(0).pixels.shape == (2, 2, 4)
    assert renderer.threads == {threading.current_thread().name}
    assert renderer.n_closed >= 1
