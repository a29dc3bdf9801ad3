"""Values are made once, kept while there is room, and the one used longest ago goes first."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rawmosaic.storage.importers.byte_cache import ByteCache


def test_oldest_value_goes_first():
    cache = ByteCache(300)
    for key in "abc":
        cache.get(key, lambda: np.zeros(100, np.uint8))
    cache.get("a", lambda: pytest.fail("a is kept"))
    cache.get("d", lambda: np.zeros(100, np.uint8))
    made = []
    for key in "adcb":
        cache.get(key, lambda key=key: made.append(key) or np.zeros(100, np.uint8))
    assert made == ["b"]
    assert cache.nbytes == 300


def test_value_above_the_budget_is_given_but_not_kept():
    cache = ByteCache(10)
    assert cache.get("a", lambda: np.zeros(100, np.uint8)).nbytes == 100
    assert cache.nbytes == 0


def test_value_is_made_once_for_many_threads():
    cache, made = ByteCache(1000), []

    def make() -> np.ndarray:
        made.append(threading.get_ident())
        time.sleep(0.02)
        return np.arange(3)

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: cache.get("a", make), range(8)))
    assert len(made) == 1
    assert all(value is values[0] for value in values)


def test_error_reaches_the_caller_and_is_not_kept():
    cache = ByteCache(1000)
    with pytest.raises(ValueError, match="bad"):
        cache.get("a", lambda: (_ for _ in ()).throw(ValueError("bad")))
    assert cache.get("a", lambda: np.arange(2)).size == 2
