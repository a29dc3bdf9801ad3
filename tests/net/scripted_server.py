"""A server that does what a test tells it: every request goes to a function, which answers or does not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq

from rawmosaic.net.keys import ServerCurve
from rawmosaic.net.protocol import VERSION, Reply, Request, reply_frames, request_from

Answer = Callable[..., None]
"""answer(body=None, buffers=(), status="ok", id=the request's)"""


class ScriptedServer:
    """A ROUTER in a thread. `script(request, answer)` is called there for each request but `hello`, which is answered rightly."""

    def __init__(
        self, script: Callable[[Request, Answer], None], address: str = "tcp://127.0.0.1:*", curve: ServerCurve | None = None
    ):
        self._script = script
        self.requests: list[Request] = []
        self.hello = {"server": "scripted", "protocol": VERSION}
        self._context = zmq.Context()
        self._gate = curve.gate(self._context) if curve else None
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        if curve:
            curve.apply(self._socket)
        self._socket.bind(address)
        self.address = self._socket.get_string(zmq.LAST_ENDPOINT)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def asked(self, op: str) -> list[Request]:
        """The requests of a kind so far."""
        return [request for request in list(self.requests) if request.op == op]

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        if self._gate:
            self._gate.close()
        self._context.term()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            if not self._socket.poll(20):
                continue
            client, *frames = self._socket.recv_multipart()
            request = request_from(frames)
            self.requests.append(request)

            def answer(body=None, buffers=(), status="ok", id=None, client=client, request=request) -> None:
                reply = Reply(request.id if id is None else id, status, body or {}, buffers)
                self._socket.send_multipart([client, *reply_frames(reply)])

            if request.op == "hello":
                answer(self.hello)
            else:
                self._script(request, answer)
        self._socket.close()
