"""A network for tests and benchmarks: a proxy in front of a server that delays, throttles, stalls and cuts connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

_PIECE_NBYTES = 1 << 16


class Proxy:
    """Forwards every connection made to `address` to the server at `target` (both ``tcp://host:port``), byte for byte.

    A context manager; runs in a thread of its own. What it does to the traffic may be changed at any time, from any thread.

    Attributes
    ----------
    delay_s
        Added to each way, as by a far server; the bandwidth stays what it is.
    bytes_per_s
        How much passes in each direction of a connection; None: all.
    connections
        How many were made so far.
    """

    def __init__(self, target: str, delay_s: float = 0.0, bytes_per_s: float | None = None):
        self.delay_s, self.bytes_per_s = delay_s, bytes_per_s
        self.connections = 0
        self._target = _host_and_port(target)
        self._flowing: asyncio.Event
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task] = set()
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        try:
            self._server = self._do(self._begin())
        except BaseException:
            self.close()
            raise
        self.address = "tcp://{}:{}".format(*self._server.sockets[0].getsockname()[:2])

    def stall(self) -> None:
        """Nothing passes until `flow`; connections stay."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """What was stalled passes again, and connections are made again."""
        self._refuses = False
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self) -> None:
        """Break all connections; new ones can be made at once."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Break all connections, and each new one, until `flow`."""
        self._refuses = True
        self.cut()

    def close(self) -> None:
        """Break all connections and stop; closing twice is harmless."""
        if self._loop.is_closed():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _do(self, coroutine: Coroutine) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _begin(self) -> asyncio.Server:
        self._flowing = asyncio.Event()
        self._flowing.set()
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            if self._refuses:
                writer.transport.abort()
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        finally:
            if writer.transport.is_closing():
                self._open.discard(writer)
        self._open.add(far_writer)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pump = asyncio.ensure_future(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """One direction of one connection: what comes waits in a queue until its time."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        leaving = asyncio.ensure_future(self._leave(queue, sink))
        try:
            while piece := await source.read(_PIECE_NBYTES):
                await queue.put((self._loop.time() + self.delay_s, piece))
            await queue.put((self._loop.time() + self.delay_s, b""))
            await leaving
        except OSError:
            pass
        finally:
            leaving.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await leaving
            self._open.discard(sink)
            sink.transport.abort()

    async def _leave(self, queue: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await queue.get()
            if (early := due - self._loop.time()) > 0:
                await asyncio.sleep(early)
            await self._flowing.wait()
            if not piece:
                return
            sink.write(piece)
            await sink.drain()
            if self.bytes_per_s:
                await asyncio.sleep(len(piece) / self.bytes_per_s)

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        self._open.clear()
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _end(self) -> None:
        if hasattr(self, "_server"):
            self._server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # for the connections to be told that they are lost


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "127.0.0.1", int(parts.port or 0)
