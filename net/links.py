"""The sockets of a server of slides: one that clients come to, and one to each broker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import zmq

from rawmosaic.net.addresses import is_local
from rawmosaic.net.keys import ServerCurve, curve_for
from rawmosaic.net.protocol import MAX_REQUEST_NBYTES
from rawmosaic.storage.errors import AccessError, UnreachableError

CLIENT_QUEUE, BROKER_QUEUE = 8, 64
"""Replies that ZeroMQ holds for one client, and for a broker; more wait where nothing is read for them."""

LINGER_MS = 500
"""How long the last replies may take once a server ends."""

HEARTBEAT_S, DEAD_S = 10.0, 60.0
"""A connection whose other end is gone without a word is noticed after so long."""


@dataclass(eq=False)
class Link:
    """A socket: the ROUTER that clients come to, or a DEALER to a broker. `stuck_since`: it takes nothing (monotonic seconds)."""

    socket: zmq.Socket
    is_broker: bool
    stuck_since: float | None = None


def opened_links(
    context: zmq.Context,
    stack: ExitStack,
    bind: str | None,
    brokers: Sequence[str],
    curve: ServerCurve | None,
    *,
    insecure: bool = False,
    keys: str | None = None,
) -> list[Link]:
    """The sockets, that for clients first; what must be closed with them goes onto the stack. AccessError, UnreachableError.

    Other machines get in, and are spoken to, with keys only, unless `insecure` is said.
    """
    links = [] if bind is None else [_bound(context, stack, bind, curve, insecure)]
    return links + [_connected(context, address, insecure, keys) for address in brokers]


def _bound(context: zmq.Context, stack: ExitStack, address: str, curve: ServerCurve | None, insecure: bool) -> Link:
    if curve is None and not insecure and not is_local(address):
        raise AccessError("other machines can reach this address, so it needs keys (or say `insecure`)", location=address)
    router = _socket(context, zmq.ROUTER, address, CLIENT_QUEUE)
    router.router_mandatory = True
    if curve is not None:
        stack.enter_context(curve.gate(context))
        curve.apply(router)
    try:
        router.bind(address)
    except zmq.ZMQError as error:
        reason = f"the address cannot be bound ({error.strerror}); choose another, or end the server that has it"
        raise UnreachableError(reason, location=address) from error
    return Link(router, is_broker=False)


def _connected(context: zmq.Context, address: str, insecure: bool, keys: str | None) -> Link:
    known = curve_for(address, keys)
    if known is None and not insecure and not is_local(address):
        reason = "no key is remembered for this broker; `rawmosaic keys trust ADDRESS KEY` (or say `insecure`)"
        raise AccessError(reason, location=address)
    dealer = _socket(context, zmq.DEALER, address, BROKER_QUEUE)
    dealer.immediate = True  # what a broker that is gone was to hear is of no use to the next one
    if known is not None:
        known.apply(dealer)
    try:
        dealer.connect(address)
    except zmq.ZMQError as error:
        raise UnreachableError(f"this is no address of a broker ({error.strerror})", location=address) from error
    return Link(dealer, is_broker=True)


def _socket(context: zmq.Context, kind: int, address: str, queue: int) -> zmq.Socket:
    socket = context.socket(kind)
    socket.linger = LINGER_MS
    socket.sndhwm = queue
    socket.maxmsgsize = MAX_REQUEST_NBYTES
    socket.ipv6 = "[" in address
    socket.heartbeat_ivl = int(HEARTBEAT_S * 1000)
    socket.heartbeat_timeout = int(DEAD_S * 1000)
    return socket
