"""Planes of a slide in the order of their tiles, read by a few threads a little ahead of whoever takes them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Slide

PlaneAddress = tuple[int, int, int, int]
"""field, channel, z, t"""


def planes_in_order(slide: Slide) -> list[PlaneAddress]:
    """Every acquired plane; neighbours follow each other, so that packed tiles fill up and are done with."""
    return [
        (int(field), int(channel), z, t)
        for t in range(slide.size_t)
        for z in range(slide.size_z)
        for acquired in (slide.acquired(z, t),)
        for field in slide.field_of_slot
        for channel in np.flatnonzero(acquired[field])
    ]


def read_ahead(
    read: Callable[[int, int, int, int], np.ndarray], addresses: list[PlaneAddress]
) -> Iterator[tuple[PlaneAddress, np.ndarray | SlideError]]:
    """Each address with its plane, or with the SlideError that reading it raised; in order.

    Never more planes in memory than twice the threads. Closing the iterator ends the threads.
    """
    threads = max(2, min(os.cpu_count() or 1, 8))

    def attempt(address: PlaneAddress) -> np.ndarray | SlideError:
        try:
            return read(*address)
        except SlideError as error:
            return error

    pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
    try:
        waiting: deque = deque()
        for address in addresses:
            waiting.append((address, pool.submit(attempt, address)))
            if len(waiting) >= 2 * threads:
                first, job = waiting.popleft()
                yield first, job.result()
        while waiting:
            first, job = waiting.popleft()
            yield first, job.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
