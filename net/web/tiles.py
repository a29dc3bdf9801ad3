"""From a tile's name to its bytes: from memory, from whoever makes it already, or drawn and encoded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from rawmosaic.net.web.cache import BytesCache
from rawmosaic.net.web.deepzoom import TileView
from rawmosaic.net.web.pictures import encoded
from rawmosaic.net.web.render_queue import RenderQueue
from rawmosaic.net.web.style import Style
from rawmosaic.storage.slide import Slide


class TileName(NamedTuple):
    """All that a tile's pixels depend on, and how they are written."""

    version: str
    style: str
    level: int
    column: int
    row: int
    file_format: str


@dataclass
class _Work:
    """A tile being made, and how many wait for it."""

    task: asyncio.Task
    n_waiting: int = 0


class TileMaker:
    """Makes tiles, each once however many ask at the same time. All calls in the thread of one event loop."""

    def __init__(self, queue: RenderQueue, cache: BytesCache):
        self._queue, self._cache = queue, cache
        self._under_way: dict[TileName, _Work] = {}

    def at_hand(self, name: TileName) -> bytes | None:
        """The tile if it was made before and is still kept."""
        return self._cache.get(name)

    async def make(self, slide: Slide, name: TileName, view: TileView, style: Style) -> tuple[bytes, tuple[str, ...]]:
        """The tile's bytes, and what could not be read; such a tile is not kept.

        A caller that is cancelled leaves; when the last has left before the tile's turn came, it is not drawn.
        """
        work = self._under_way.get(name)
        if work is None:
            work = self._under_way[name] = _Work(asyncio.ensure_future(self._made(slide, name, view, style)))
            work.task.add_done_callback(lambda task: self._forget(name, task))
        work.n_waiting += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            work.n_waiting -= 1
            if not work.n_waiting and not work.task.done():
                self._under_way.pop(name, None)
                work.task.cancel()

    def _forget(self, name: TileName, task: asyncio.Task) -> None:
        work = self._under_way.get(name)
        if work is not None and work.task is task:
            del self._under_way[name]
        if not task.cancelled():
            task.exception()  # it was told to whoever waited

    async def _made(self, slide: Slide, name: TileName, view: TileView, style: Style) -> tuple[bytes, tuple[str, ...]]:
        future = self._queue.submit(slide, view, style)
        picture = await asyncio.wrap_future(future)  # cancelling it cancels the future
        body = await asyncio.to_thread(encoded, picture.pixels, name.file_format)
        if not picture.failures:
            self._cache.put(name, body)
        return body, picture.failures
