"""PURE: which dealer gets which request, what is remembered of it, and what happens to it when its dealer is lost.

What arrives at a broker goes in, with the time; what is to be sent comes out. No socket, no thread, no clock.

A request is *with a dealer*; or it *waits* because the dealer that served its slide is gone and another may come; or it is
answered and forgotten. A watch stays with its dealer until its last reply, and as long as a viewer watches a slide, the dealer
that tells it what came is the one that answers: another may not have seen it yet.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rawmosaic.net.protocol import (
    ERROR,
    MAX_REQUESTS,
    MORE,
    OK,
    VERSION,
    Buffer,
    Reply,
    Request,
    error_body,
    reply_frames,
    reply_from,
    request_frames,
    request_from,
    slides_page,
)
from rawmosaic.storage.errors import NotASlideError, ProtocolError

OWN = b"\0"
"""The address that stands for the broker itself where it asks a dealer something; no client may have it."""

SILENT_S = 2.0
"""A dealer that says nothing for so long is lost."""

WAIT_S = 5.0
"""So long a request waits for a dealer of its slide."""

START_S = 2.0
"""So long after its start a broker does not know yet what there is: its dealers have to find it."""

LISTING_S = 1.0
"""So long the list of slides waits for a dealer."""

STALE_S = 300.0
"""A request that nobody answered or cancelled for so long is forgotten; watches are not."""

MOST_TRIES = 3
"""A request that outlived so many dealers is not given to another: it may be what ends them."""

MOST_REQUESTS = 1 << 16
MOST_NBYTES = 256 << 20
"""Unanswered requests of all clients together, and their bytes."""

MOST_DEALERS = 1024
MOST_GONE = 10_000
"""Names of slides that were served once and are remembered."""

LONGEST_NAME = 1000
OVERVIEW = "/overview"

log = logging.getLogger("rawmosaic.net.broker")

Frames = Sequence[Buffer]


@dataclass(frozen=True)
class ToClient:
    """A reply to send. `id`: the request that it answers."""

    client: bytes
    id: int
    frames: Frames


@dataclass(frozen=True)
class ToDealer:
    """A request to send. `id`: the client's, None where nobody waits for an answer."""

    dealer: bytes
    client: bytes
    id: int | None
    frames: Frames


Action = ToClient | ToDealer


@dataclass(eq=False)
class _Request:
    """An unanswered request. `dealer`: who has it, None while it waits, until `wait_until`. `home`: where the client sits.
    `name`: what that dealer calls the slide."""

    client: bytes
    id: int
    op: str
    slide: str
    frames: Frames
    asked_at: float
    home: object
    dealer: bytes | None = None
    name: str = ""
    wait_until: float = 0.0
    tries: int = 0

    @property
    def key(self) -> tuple[bytes, int]:
        return self.client, self.id

    @property
    def is_watch(self) -> bool:
        return self.op == "watch"

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.frames))


@dataclass(eq=False)
class _Dealer:
    """Somebody who serves slides. `others`: requests that wait there and did not come through this broker."""

    address: bytes
    heard_at: float
    names: frozenset[str] = frozenset()
    others: int = 0
    requests: dict[tuple[bytes, int], _Request] = field(default_factory=dict)
    n_watches: int = 0

    @property
    def busy(self) -> int:
        """Requests that wait there; watches wait for the microscope."""
        return len(self.requests) - self.n_watches + self.others


@dataclass(eq=False)
class _Listing:
    """The list of slides, while dealers are asked for theirs. `awaited`: id of the question → (dealer, the
    name after which it was asked to go on)."""

    until: float
    awaited: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    entries: dict[str, Mapping] = field(default_factory=dict)
    askers: list[tuple[bytes, int, str]] = field(default_factory=list)


class Routing:
    """The memory of a broker. Every method returns what is to be sent; one thread.

    `backlog` says how many replies a client has not taken yet: they count as unanswered.
    """

    def __init__(self, now: float, server: str = "rawmosaic", backlog: Callable[[bytes], int] = lambda _: 0):
        self._started, self._server, self._backlog = now, server, backlog
        self._requests: dict[tuple[bytes, int], _Request] = {}
        self._by_client: dict[bytes, dict[int, _Request]] = {}
        self._waiting: dict[tuple[bytes, int], _Request] = {}
        self._nbytes = 0
        self._dealers: dict[bytes, _Dealer] = {}
        self._serving: dict[str, dict[bytes, _Dealer]] = {}
        self._gone: dict[str, float] = {}
        self._followed: dict[tuple[object, str], tuple[bytes, int]] = {}
        self._listing: _Listing | None = None
        self._own_id = 0

    @property
    def n_unanswered(self) -> int:
        """Requests that are remembered."""
        return len(self._requests)

    @property
    def dealers(self) -> dict[bytes, frozenset[str]]:
        """Address → names of the slides of each dealer."""
        return {dealer.address: dealer.names for dealer in self._dealers.values()}

    # clients

    def from_client(self, client: bytes, frames: Frames, now: float, home: object = None) -> list[Action]:
        """A message of a client. `home` is the same for all connections of a viewer, where that is known."""
        home = client if home is None else home
        try:
            request = request_from(frames)
        except ProtocolError as error:
            number = getattr(error, "id", None)
            return [] if number is None else [_reply(client, number, ERROR, error_body(error))]
        if client == OWN:
            return []
        match request.op:
            case "hello":
                return [_reply(client, request.id, OK, {"server": self._server, "protocol": VERSION})]
            case "ping":
                return [_reply(client, request.id, OK, {})]
            case "cancel":
                return self._cancelled(client, request)
            case "hint":
                return self._hinted(client, request, frames, home)
            case "slides":
                return self._refused(client, request) or self._listed(client, request, frames, now)
        if not request.slide:
            error = ProtocolError(f"there is no request {request.op[:60]!r} without a slide")
            return [_reply(client, request.id, ERROR, error_body(error))]
        kept = _Request(client, request.id, request.op, request.slide, frames, now, home)
        return self._refused(client, request) or self._taken(kept, now)

    def client_gone(self, client: bytes) -> list[Action]:
        """A client cannot be reached any more: what it asked for is forgotten, and cancelled where it is."""
        return self._cancel(client, list(self._by_client.get(client, ())))

    def give_up(self, client: bytes, number: int) -> list[Action]:
        """Neither the dealer nor the client takes any more: the answer to this request is `busy`."""
        return [
            *self._cancel(client, [number]),
            _busy(client, number, "the connection takes less than what is asked for at once"),
        ]

    def _refused(self, client: bytes, request: Request) -> list[Action]:
        """Why a request is not taken; nothing if it is."""
        own = self._by_client.get(client, {})
        if request.id in own:
            error = ProtocolError(f"`id` {request.id} is that of a request that is not answered yet")
            return [_reply(client, request.id, ERROR, error_body(error))]
        if len(own) + self._backlog(client) >= MAX_REQUESTS:
            return [_busy(client, request.id, f"more than {MAX_REQUESTS} requests of one connection")]
        if len(self._requests) >= MOST_REQUESTS or self._nbytes >= MOST_NBYTES:
            return [_busy(client, request.id, "too many requests of all clients together")]
        return []

    def _taken(self, request: _Request, now: float) -> list[Action]:
        if self._name_of(request.slide) is None and now >= self._started + START_S:
            return [_reply(request.client, request.id, ERROR, _not_a_slide(request.slide))]
        return self._dispatched(self._remember(request), now)

    def _cancelled(self, client: bytes, request: Request) -> list[Action]:
        numbers = request.body.get("ids")
        if not isinstance(numbers, list):
            return []
        return self._cancel(client, [number for number in numbers if isinstance(number, int)], request.id)

    def _cancel(self, client: bytes, numbers: Iterable[int], own_number: int = 0) -> list[Action]:
        """Forget requests of a client, and tell the dealers that have them."""
        told: dict[bytes, list[int]] = {}
        for number in numbers:
            request = self._requests.get((client, number))
            if request is not None:
                if request.dealer is not None:
                    told.setdefault(request.dealer, []).append(number)
                self._forget(request)
        return [
            ToDealer(dealer, client, None, request_frames(Request(own_number, "cancel", body={"ids": ids})))
            for dealer, ids in told.items()
        ]

    def _hinted(self, client: bytes, request: Request, frames: Frames, home: object) -> list[Action]:
        """Whoever answers this viewer while nobody is busy hears where it looks."""
        dealers = self._serving.get(self._name_of(request.slide) or "", {}).values()
        if not dealers:
            return []
        dealer = min(dealers, key=lambda dealer: _affinity(home, request.slide, dealer))
        return [ToDealer(dealer.address, client, None, frames)]

    # dealers

    def from_dealer(self, address: bytes, frames: Frames, now: float) -> list[Action]:
        """A message of a dealer: the address of a client, or nothing, and what it says."""
        dealer = self._dealers.get(address)
        if dealer is not None:
            dealer.heard_at = now
        if len(frames) < 2:
            return []
        client, frames = bytes(frames[0]), frames[1:]
        if not client:
            return self._said(address, request_from(frames), now)
        reply = reply_from(frames)
        if client == OWN:
            return self._told(address, reply)
        request = self._requests.get((client, reply.id))
        if request is None or request.dealer != address:  # cancelled meanwhile, or given to another
            return []
        if reply.status != MORE:
            self._forget(request)
        return [ToClient(client, reply.id, frames)]

    def dealer_gone(self, address: bytes, now: float, why: str = "cannot be reached") -> list[Action]:
        """A dealer is lost: what it had goes to others, or waits for one."""
        dealer = self._dealers.pop(address, None)
        if dealer is None:
            return []
        log.warning("dealer %s %s; %d requests go to others", address.hex(), why, len(dealer.requests))
        self._set_names(dealer, frozenset(), now)
        lost = sorted(dealer.requests.values(), key=lambda request: not request.is_watch)  # the others follow their watch
        for request in lost:
            self._take_back(request)
        actions = [action for request in lost for action in self._dispatched(request, now)]
        if self._listing is not None:
            awaited = self._listing.awaited
            self._listing.awaited = {number: asked for number, asked in awaited.items() if asked[0] != address}
            actions += self._listing_answered()
        return actions

    def probes(self) -> list[Action]:
        """A question for each dealer: sending it shows who is not there any more."""
        frames = request_frames(Request(0, "ping"))
        return [ToDealer(dealer, OWN, None, frames) for dealer in self._dealers]

    def tick(self, now: float) -> list[Action]:
        """What the passing of time brings; to be called a few times a second."""
        actions: list[Action] = []
        for dealer in list(self._dealers.values()):
            if now - dealer.heard_at > SILENT_S:
                actions += self.dealer_gone(dealer.address, now, f"said nothing for {SILENT_S:g} s")
        for request in [request for request in self._waiting.values() if now >= request.wait_until]:
            actions += self._given_up(request)
        if self._listing is not None and now >= self._listing.until:
            self._listing.awaited.clear()
            actions += self._listing_answered()
        return actions

    def forget_stale(self, now: float) -> list[Action]:
        """Give up requests that nobody answered; to be called now and then."""
        stale = [r for r in self._requests.values() if not r.is_watch and now - r.asked_at > STALE_S]
        actions: list[Action] = []
        for request in stale:
            actions += self._cancel(request.client, [request.id])
            body = {"error": "failed", "message": f"no answer came within {STALE_S:g} s"}
            actions.append(_reply(request.client, request.id, ERROR, body))
        return actions

    def _said(self, address: bytes, message: Request, now: float) -> list[Action]:
        if message.op == "bye":
            return self.dealer_gone(address, now, "says goodbye")
        if message.op != "ready":
            raise ProtocolError(f"a dealer says `ready` or `bye`, not {message.op[:60]!r}")
        names, load = message.body.get("slides"), message.body.get("load", 0)
        if not isinstance(names, list) or not all(_is_name(name) for name in names):
            raise ProtocolError(f"`slides` of a dealer are names of 1 to {LONGEST_NAME} printable characters")
        if not isinstance(load, int) or load < 0:
            raise ProtocolError("`load` of a dealer is a number of requests")
        dealer = self._dealers.get(address)
        if dealer is None:
            if len(self._dealers) >= MOST_DEALERS:
                raise ProtocolError(f"a broker has at most {MOST_DEALERS} dealers")
            dealer = self._dealers[address] = _Dealer(address, now)
        dealer.others = max(0, load - len(dealer.requests))
        if dealer.names == (said := frozenset(names)):
            return []
        log.info("dealer %s serves %d slides: %s", address.hex(), len(said), ", ".join(sorted(said)[:20]))
        self._set_names(dealer, said, now)
        waiting = [r for r in self._waiting.values() if self._name_of(r.slide) in said]
        return [action for request in waiting for action in self._dispatched(request, now)]

    def _set_names(self, dealer: _Dealer, names: frozenset[str], now: float) -> None:
        for name in dealer.names - names:
            self._serving[name].pop(dealer.address, None)
            if not self._serving[name]:
                del self._serving[name]
                self._gone[name] = now
        for name in names - dealer.names:
            self._serving.setdefault(name, {})[dealer.address] = dealer
            self._gone.pop(name, None)
        while len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]
        dealer.names = names

    # requests

    def _name_of(self, slide: str) -> str | None:
        """The name that dealers know a slide by, or knew; None where none ever did."""
        for name in (slide, slide.removesuffix(OVERVIEW)):
            if name in self._serving or name in self._gone:
                return name
        return None

    def _dispatched(self, request: _Request, now: float) -> list[Action]:
        """Give a request to the dealer with the least to do; where there is none, it waits."""
        name = self._name_of(request.slide)
        dealers = self._serving.get(name or "", {})
        if not dealers or request.tries >= MOST_TRIES:
            since = self._started + START_S - WAIT_S if name is None else self._gone.get(name, now)
            request.wait_until = since + WAIT_S if request.tries < MOST_TRIES else now
            self._waiting[request.key] = request
            return self._given_up(request) if now >= request.wait_until else []
        self._waiting.pop(request.key, None)
        dealer = self._chosen(request, name, dealers)
        self._give(request, dealer, name)
        return [ToDealer(dealer.address, request.client, request.id, request.frames)]

    def _chosen(self, request: _Request, name: str, dealers: Mapping[bytes, _Dealer]) -> _Dealer:
        """The dealer that tells this viewer what comes, else the one with the least to do."""
        followed, _ = self._followed.get((request.home, name), (b"", 0))
        if followed in dealers:
            return dealers[followed]
        return min(
            dealers.values(),
            key=lambda d: (d.n_watches if request.is_watch else d.busy, _affinity(request.home, request.slide, d)),
        )

    def _give(self, request: _Request, dealer: _Dealer, name: str) -> None:
        request.dealer, request.name, request.tries = dealer.address, name, request.tries + 1
        dealer.requests[request.key] = request
        if request.is_watch:
            dealer.n_watches += 1
            _, count = self._followed.get((request.home, name), (b"", 0))
            self._followed[request.home, name] = dealer.address, count + 1

    def _take_back(self, request: _Request) -> None:
        """No dealer has the request any more."""
        dealer = self._dealers.get(request.dealer or b"")
        if dealer is not None:
            del dealer.requests[request.key]
            dealer.n_watches -= request.is_watch
        if request.is_watch and request.dealer is not None:
            address, count = self._followed.pop((request.home, request.name))
            if count > 1:
                self._followed[request.home, request.name] = address, count - 1
        request.dealer = None

    def _given_up(self, request: _Request) -> list[Action]:
        self._forget(request)
        if self._name_of(request.slide) is None:
            body = _not_a_slide(request.slide)
        else:
            body = {"error": "lost", "message": "the server that held this slide is gone, and no other has it; try again later"}
        return [_reply(request.client, request.id, ERROR, body)]

    def _remember(self, request: _Request) -> _Request:
        self._requests[request.key] = request
        self._by_client.setdefault(request.client, {})[request.id] = request
        self._nbytes += request.nbytes
        return request

    def _forget(self, request: _Request) -> None:
        del self._requests[request.key]
        own = self._by_client[request.client]
        del own[request.id]
        if not own:
            del self._by_client[request.client]
        self._nbytes -= request.nbytes
        self._waiting.pop(request.key, None)
        self._take_back(request)

    # the list of slides

    def _listed(self, client: bytes, request: Request, frames: Frames, now: float) -> list[Action]:
        """Ask the dealers what they serve; clients that ask meanwhile get the same answer."""
        after = request.body.get("after", "")
        if not isinstance(after, str):
            return [_reply(client, request.id, ERROR, error_body(ProtocolError("`after` is a name")))]
        self._remember(_Request(client, request.id, request.op, "", frames, now, None))
        if self._listing is not None:
            self._listing.askers.append((client, request.id, after))
            return []
        self._listing = _Listing(now + LISTING_S, askers=[(client, request.id, after)])
        questions = [self._question(dealer) for dealer in self._dealers]
        return [*questions, *self._listing_answered()]

    def _question(self, dealer: bytes, after: str = "") -> ToDealer:
        self._own_id += 1
        self._listing.awaited[self._own_id] = dealer, after
        body = {"after": after} if after else {}
        return ToDealer(dealer, OWN, None, request_frames(Request(self._own_id, "slides", body=body)))

    def _told(self, address: bytes, reply: Reply) -> list[Action]:
        """An answer to a question of the broker's own."""
        listing = self._listing
        asked, after = listing.awaited.get(reply.id, (None, "")) if listing is not None else (None, "")
        if asked != address:
            return []
        del listing.awaited[reply.id]
        names = self._dealers[address].names if address in self._dealers else frozenset()
        page = reply.body.get("slides")
        entries = [entry for entry in page if _is_entry(entry, names)] if isinstance(page, list) else []
        listing.entries.update((entry["name"], entry) for entry in entries)
        if reply.body.get("rest") is True and entries and entries[-1]["name"] > after:  # a page that leads on
            return [self._question(address, entries[-1]["name"])]
        return self._listing_answered()

    def _listing_answered(self) -> list[Action]:
        """The list for all who asked, once nobody is awaited."""
        listing = self._listing
        if listing is None or listing.awaited:
            return []
        self._listing = None
        actions: list[Action] = []
        for client, number, after in listing.askers:
            request = self._requests.get((client, number))
            if request is not None and request.op == "slides":
                self._forget(request)
                actions.append(_reply(client, number, OK, slides_page(listing.entries.values(), after)))
        return actions


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _is_entry(entry: object, names: frozenset[str]) -> bool:
    """Whether an entry of a list of slides is about one of these names, and can be passed on."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or entry["name"] not in names:
        return False
    try:
        json.dumps(entry, allow_nan=False)
    except ValueError:  # JSON has numbers too large for a float
        return False
    return True


def _affinity(home: object, slide: str, dealer: _Dealer) -> int:
    """The same for the same three: a viewer that nobody else disturbs stays with the dealer whose caches know it."""
    return hash((home, slide, dealer.address))


def _not_a_slide(slide: str) -> dict:
    shown = slide if len(slide) <= 200 else slide[:200] + "…"
    return error_body(NotASlideError(f"no slide {shown!r} is served here; `slides` lists those that are"))


def _reply(client: bytes, number: int, status: str, body: Mapping) -> ToClient:
    return ToClient(client, number, reply_frames(Reply(number, status, body)))


def _busy(client: bytes, number: int, why: str) -> ToClient:
    return _reply(client, number, ERROR, {"error": "busy", "message": f"{why}; ask again later"})
