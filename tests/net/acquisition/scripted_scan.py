"""A manager and a proxy in one socket, that do what a test tells them: planes are answered when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue

import zmq

from rawmosaic.net.acquisition.messages import MAX_START_NBYTES
from rawmosaic.net.acquisition.plan import plan_from_body
from rawmosaic.net.protocol import VERSION, Reply, Request, reply_frames, request_from

LONG_S = 60.0
ANY = "tcp://127.0.0.1:*"


class Asked:
    """A request that waits for its answer."""

    def __init__(self, server: ScriptedScan, client: bytes, request: Request):
        self._server, self._client, self.request = server, client, request
        self.body: Mapping = request.body

    def answer(self, status: str = "ok", **body: object) -> None:
        """Answer it; any thread."""
        frames = [self._client, *reply_frames(Reply(self.request.id, status, body))]
        self._server.calls.put(lambda: self._server.socket.send_multipart(frames))

    def hold(self, reason: str) -> None:
        """Say that nothing is taken in now."""
        self.answer("more", event="held", reason=reason)


class ScriptedScan:
    """Answers `hello`, `ping`, `start` and `find` by itself, from `found`; everything else waits in `asked` for the test.

    Attributes
    ----------
    found
        What `find` and `start` are answered with; `address` is the server's own unless it says another.
    ops
        Every op that came.
    """

    def __init__(self, address: str = ANY, *, over: bool = False, **found: object):
        self.found = {"state": "acquiring", "location": "/slides/a.h5", "window_nbytes": 1 << 28, "error": "", **found}
        self.refusal: Mapping | None = None
        self.asked: SimpleQueue[Asked] = SimpleQueue()
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.ops: list[str] = []
        self.plans: list = []
        self.given_up: list[str] = []
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(address)
        self.address = self.socket.last_endpoint.decode()
        self.found.setdefault("address", "" if over else self.address)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted scan", daemon=True)
        self._thread.start()

    def next(self) -> Asked:
        """The next request that waits for an answer."""
        return self.asked.get(timeout=LONG_S)

    def nothing_asked(self) -> bool:
        """Whether nothing waits for an answer."""
        return self.asked.empty()

    def close(self) -> None:
        """End; whoever is connected is cut off."""
        self._ending.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def __enter__(self) -> ScriptedScan:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            if self.socket.poll(5):
                client, *frames = self.socket.recv_multipart()
                self._hear(Asked(self, client, request_from(frames, MAX_START_NBYTES)))
            try:
                while True:
                    self.calls.get_nowait()()
            except Empty:
                pass

    def _hear(self, asked: Asked) -> None:
        op = asked.request.op
        self.ops.append(op)
        if op == "hello":
            asked.answer(server="scripted", protocol=VERSION)
        elif op == "ping":
            asked.answer()
        elif op in ("start", "find") and self.refusal is not None:
            asked.answer("error", **self.refusal)
        elif op == "start":
            plan = plan_from_body(asked.request.body, asked.request.buffers)
            self.plans.append(plan)
            asked.answer(uid=plan.uid, **self.found)
        elif op == "find":
            asked.answer(uid=asked.body["uid"], **self.found)
        elif op == "abort" and "uid" in asked.body:
            self.given_up.append(asked.body["uid"])
            asked.answer(**self.found)
        elif op != "cancel":
            self.asked.put(asked)
