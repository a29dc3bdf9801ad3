"""Tables of acquired planes are asked for once, ahead of need, and are right while planes come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rawmosaic.net import acquired_tables as module
from rawmosaic.net.acquired_tables import AcquiredTables
from rawmosaic.storage.errors import UnreachableError

SOON_S = 20.0
N_CHANNELS = 2


class Server:
    """What the tables are asked of: field n was acquired in channel c, z and t where the sum of all is even."""

    def __init__(self):
        self.asked: list[tuple[int, int]] = []
        self.ahead: list[tuple[int, int]] = []
        self.fails: Callable[..., bool] = lambda *_: False
        self.meanwhile: Callable[[], None] = lambda: None
        self.grows = 0

    def __call__(self, z: int, t: int, n_fields: int, ahead: bool) -> np.ndarray:
        (self.ahead if ahead else self.asked).append((z, t))
        if self.fails(z, t):
            raise UnreachableError("away")
        table = self.table(z, t, n_fields)
        self.meanwhile()
        return table

    def table(self, z: int, t: int, n_fields: int) -> np.ndarray:
        field, channel = np.ogrid[:n_fields, :N_CHANNELS]
        return (field + channel + z + t) % 2 == self.grows % 2


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def tables(server: Server) -> Iterator[AcquiredTables]:
    tables = AcquiredTables(5, 4, 6, server)
    yield tables
    tables.close()


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON_S
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return bool(result)


def test_a_table_is_asked_for_once_and_cannot_be_written_to(server: Server):
    tables = AcquiredTables(1, 1, 6, server)
    for _ in range(3):
        np.testing.assert_array_equal(tables.get(0, 0), server.table(0, 0, 6))
    assert (server.asked, server.ahead) == ([(0, 0)], [])
    with pytest.raises(ValueError, match="read-only"):
        tables.get(0, 0)[0, 0] = True


def test_the_others_are_asked_for_ahead_the_nearest_first(server: Server, tables: AcquiredTables):
    tables.get(2, 1)
    assert eventually(lambda: len(tables.known()) == 20)
    distances = [abs(z - 2) + abs(t - 1) for z, t in server.ahead]
    assert distances == sorted(distances)
    for z in range(5):
        for t in range(4):
            np.testing.assert_array_equal(tables.get(z, t), server.table(z, t, 6))
    assert server.asked == [(2, 1)]
    assert len(server.ahead) == 19


def test_no_more_than_the_memory_allows_is_asked_for_ahead(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "AHEAD_NBYTES", 5 * 6 * N_CHANNELS)
    tables = AcquiredTables(100, 100, 6, server)
    tables.get(50, 50)
    assert eventually(lambda: len(tables.known()) == 5)
    tables.get(70, 70)
    np.testing.assert_array_equal(tables.get(3, 4), server.table(3, 4, 6))
    tables.close()
    assert len(tables.known()) == 7


def test_a_server_that_is_away_is_asked_again_by_those_who_need_it(server: Server, tables: AcquiredTables):
    server.fails = lambda z, t: (z, t) != (0, 0)
    tables.get(0, 0)
    assert eventually(lambda: bool(server.ahead))
    with pytest.raises(UnreachableError):
        tables.get(1, 0)
    server.fails = lambda *_: False
    np.testing.assert_array_equal(tables.get(1, 0), server.table(1, 0, 6))


def test_closing_ends_what_is_asked_ahead(server: Server):
    asking, released = threading.Event(), threading.Event()
    tables = AcquiredTables(3, 3, 6, server)

    def wait() -> None:
        if server.ahead:
            asking.set()
            released.wait(SOON_S)

    server.meanwhile = wait
    tables.get(0, 0)
    assert asking.wait(SOON_S)
    released.set()
    tables.close()
    tables.close()
    assert len(server.ahead) < 9


def test_planes_that_came_are_noted_where_the_table_is_known(server: Server):
    tables = AcquiredTables(1, 1, 2, server)
    np.testing.assert_array_equal(tables.get(0, 0), [[True, False], [False, True]])
    planes = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [2, 1, 0, 0]], np.int32)
    assert tables.add(planes, 3).tolist() == [True, False, True]
    np.testing.assert_array_equal(tables.get(0, 0), [[True, True], [False, True], [False, True]])
    assert len(server.asked) == 1


def test_planes_that_come_while_a_table_is_asked_for_are_not_missed(server: Server):
    tables = AcquiredTables(1, 1, 4, server)

    def came() -> None:
        server.meanwhile = lambda: None
        server.grows = 1  # the server knows them now; the answer on the way does not
        tables.add(np.array([[0, 1, 0, 0]], np.int32), 4)

    server.meanwhile = came
    np.testing.assert_array_equal(tables.get(0, 0), server.table(0, 0, 4))
    assert len(server.asked) == 2


def test_newer_tables_tell_what_came(server: Server):
    tables = AcquiredTables(1, 1, 2, server)
    tables.get(0, 0)
    newer = np.array([[True, True], [False, True], [True, False]])
    came = tables.replace({(0, 0): newer.copy()}, 3)
    assert came.dtype == np.int32
    assert came.tolist() == [[0, 1, 0, 0], [2, 0, 0, 0]]
    np.testing.assert_array_equal(tables.get(0, 0), newer)
