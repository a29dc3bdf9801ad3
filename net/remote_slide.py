"""A slide on a server, as a `Slide`: ``tcp://host:port/name``. Who looks at it cannot tell that it is far away.

Facts come once, tiles in batches, as the compressed bytes that lie in the server's file, decoded in the thread that asks. What
was seen stays on the local disk. The server may go away and come back: reads fail after some seconds meanwhile, and go on then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

import numpy as np

from rawmosaic.net.acquired_tables import AcquiredTables
from rawmosaic.storage.errors import (
    AccessError,
    AcquisitionError,
    DamagedSlideError,
    NoLongerWantedError,
    NotASlideError,
    ProtocolError,
    SlideError,
    UnreachableError,
)
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import GREY_LEVELS, PositionSet, Slide, ViewHint

if TYPE_CHECKING:  # ZeroMQ and SQLite are loaded when a remote slide is opened, not when some other slide is
    from rawmosaic.net.connection import ConnectionPool
    from rawmosaic.net.disk_cache import DiskCache
    from rawmosaic.net.following import Follower, Grown, Opened
    from rawmosaic.net.keys import ClientCurve
    from rawmosaic.net.protocol import Reply

SCHEME = "tcp://"
PARALLEL_READS = 8
"""Requests under way at once: while some wait for the network, others decode."""

FACTS_NBYTES = 4 << 20
AWAY_S = 2.0
"""A server that somebody has been waiting for so long is said not to answer."""

HINT_S = 0.1
"""A hint is not sent sooner than this after the last."""

MOST_TIMES_FOLLOWED = 64
"""Up to so many (z, t), all tables of acquired planes of a growing slide are known from the start."""


class RemoteSlide(Slide):
    """The slide that a server offers under a name. Reading is safe from any thread.

    Parameters
    ----------
    location
        ``tcp://host:port/name``, the name percent-encoded; without a name, the only slide that the server has.
    disk_cache
        Where tiles are kept; one in the user's cache folder if nothing is said, none if None. Closed by whoever made it.
    curve
        The keys to use; else what this machine keeps for that server.
    timeout_s
        How long a server may be silent before a read fails with UnreachableError.

    Raises UnreachableError, NotASlideError (naming the slides that are there), AccessError and ProtocolError.
    """

    parallel_reads = PARALLEL_READS

    def __init__(
        self,
        location: str,
        *,
        disk_cache: DiskCache | Literal["default"] | None = "default",
        curve: ClientCurve | None = None,
        timeout_s: float | None = None,
    ):
        self._begin(_Server.connected(location, disk_cache, curve, timeout_s), _name_in(location), is_owner=True)

    def _begin(self, server: _Server, name: str, *, is_owner: bool) -> None:
        self._server, self._is_owner = server, is_owner
        self._closed = self._replaced = False
        self._lock = threading.RLock()
        self._hint_lock = threading.Lock()
        self._hinted_at = float("-inf")
        self._hinter = None
        self._follower: Follower | None = None
        self._overview: RemoteSlide | None = None
        self._trouble: SlideError | None = None
        self._tables: AcquiredTables | None = None
        self._histograms: dict[int, np.ndarray] = {}
        self._generation = 0
        self.location = server.address
        try:
            self._name = name or self._only_name()
            self.location = f"{server.address}/{quote(self._name)}"
            facts = self._open()
            super().__init__(location=self.location, **facts.facts)
            self._identity, self._growing, self._has_overview = facts.identity, facts.growing, facts.overview
            self._tables = AcquiredTables(self.size_z, self.size_t, self.n_fields, self._ask_acquired)
            if self._growing:
                self._follow()
            server.pool.prepare()
        except BaseException:
            self.close()
            raise

    # facts

    @property
    def identity(self) -> str:
        """Names the content, as the server knows it."""
        return self._identity

    @property
    def growing(self) -> bool:
        """Whether planes may still come."""
        return self._growing

    @property
    def replaced(self) -> bool:
        """Whether the server has another slide under this name now."""
        return self._replaced

    @property
    def away(self) -> str:
        """The server's address while it does not answer."""
        return self._server.address if not self._closed and self._server.pool.silent_s > AWAY_S else ""

    @property
    def overview(self) -> RemoteSlide | None:
        """The reconstructed overview, where the server's slide has one; opened when first asked for."""
        with self._lock:
            if self._overview is None and self._has_overview and not self._closed:
                part = RemoteSlide.__new__(RemoteSlide)
                part._begin(self._server, f"{self._name}/overview", is_owner=False)
                self._overview = part
            return self._overview

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool, not to be written to: which planes exist. Asked for once, but for what `refresh` adds."""
        self._check_index("z", z, self.size_z)
        self._check_index("t", t, self.size_t)
        return self._tables.get(z, t)

    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of acquired pixels of a channel."""
        from rawmosaic.net.protocol import array_from

        self.check_channel(channel)
        counts = self._histograms.get(channel)
        if counts is None:
            generation = self._generation
            reply = self._ask("histogram", {"channel": int(channel)})
            counts = array_from(reply.body.get("counts"), reply.buffers, np.uint64, (GREY_LEVELS,))
            with self._lock:
                if generation == self._generation:
                    self._histograms[channel] = counts
        return counts.copy()

    def refresh(self) -> np.ndarray:
        """(n, 4) int32 planes that the server told of since; asks nothing, waits for nothing."""
        follower = self._follower
        if follower is None:
            return super().refresh()
        came = []
        for news in follower.take():
            try:
                came.append(self._take_in(news))
            except ProtocolError:  # what it was to tell is not known: the slide is asked for as a whole, and that comes later
                follower.look_again()
        if not self._growing:  # its thread has ended by itself
            self._follower = None
            follower.close()
        return np.concatenate(came) if came else super().refresh()

    def hint(self, hint: ViewHint) -> None:
        """Tell the server where the view goes, at most ten times a second; returns at once, and never fails."""
        now = time.monotonic()
        if now - self._hinted_at < HINT_S or not self._hint_lock.acquire(blocking=False):
            return
        try:
            if self._closed:
                return
            self._hinted_at = now
            if self._hinter is None:
                self._hinter = self._server.pool.connection()
            with suppress(SlideError):
                self._hinter.tell("hint", self._name, {"view": _plain(asdict(hint))})
        finally:
            self._hint_lock.release()

    def close(self) -> None:
        """Close the connections and the disk cache, if it is the slide's own; whoever still reads gets a SlideError."""
        self._closed = True
        if self._follower is not None:
            self._follower.close()
        if self._tables is not None:
            self._tables.close()
        with self._hint_lock:
            if self._hinter is not None:
                self._hinter.close()
        if self._overview is not None:
            self._overview.close()
        if self._is_owner:
            self._server.close()

    # pixels

    def read_tiles(
        self,
        keys: Sequence[TileKey],
        outs: Sequence[np.ndarray],
        wanted: Callable[[int], bool] = lambda _: True,
        urgent: bool = True,
    ) -> list[Exception | None]:
        """Several tiles, from the local disk or in batches from the server, each decoded into its `out` in this thread."""
        from rawmosaic.net.protocol import MAX_TILES

        outcomes: list[Exception | None] = [None] * len(keys)
        for first in range(0, len(keys), MAX_TILES):
            places = range(first, min(first + MAX_TILES, len(keys)))
            rest = [place for place in self._not_on_disk(places, keys, outs) if self._is_wanted(place, wanted, outcomes)]
            if not rest:
                continue
            try:
                self._read_from_server(rest, keys, outs, outcomes, wanted, urgent)
            except SlideError as error:
                for place in rest:
                    outcomes[place] = error
                if isinstance(error, UnreachableError | AccessError):  # nor will it answer what comes after
                    outcomes[places.stop :] = [error] * (len(keys) - places.stop)
                    break
        return outcomes

    def read_encoded(self, key: TileKey) -> bytes | None:
        """One tile as the Blosc buffer that the server has; None where nothing was acquired."""
        identity = self._kept_as()
        if identity is not None and (data := self._server.cache.get(identity, [key])[0]) is not None:
            return data or None
        (answer,), told = self._ask_tiles([key], lambda: True, urgent=True)
        if isinstance(answer, SlideError):
            raise answer
        if identity is not None and told == identity:
            self._server.cache.put(identity, key, answer)
        return answer or None

    def _read_tile(self, key: TileKey, out: np.ndarray) -> None:
        (outcome,) = self.read_tiles([key], [out])
        if outcome is not None:
            raise outcome

    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        return self._read_level(field, channel, z, t, 0)

    def _read_level(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        keys, targets, sources = zip(*self._tiles_of_plane(field, channel, z, t, level), strict=True)
        tiles = np.empty((len(keys), *self.tiling.tile_shape), np.uint16)
        for outcome in self.read_tiles(keys, tiles):
            if outcome is not None:
                raise outcome
        plane = np.empty(self._plane_shape(field, level), np.uint16)
        for tile, target, source in zip(tiles, targets, sources, strict=True):
            plane[target] = tile[source]
        return plane

    def _is_wanted(self, place: int, wanted: Callable[[int], bool], outcomes: list[Exception | None]) -> bool:
        if wanted(place):
            return True
        outcomes[place] = NoLongerWantedError("the tile is no longer wanted", location=self.location)
        return False

    def _kept_as(self) -> str | None:
        """The identity under which the local disk has tiles; None for a slide whose tiles may still change."""
        return self._identity if self._server.cache is not None and not self._growing else None

    def _not_on_disk(self, places: Iterable[int], keys: Sequence[TileKey], outs: Sequence[np.ndarray]) -> list[int]:
        """Decode what the local disk has; the places of the rest."""
        identity, rest = self._kept_as(), list(places)
        if identity is None or self._closed:
            return rest
        cache, missing = self._server.cache, []
        for place, data in zip(rest, cache.get(identity, [keys[place] for place in rest]), strict=True):
            try:
                if data is None:
                    missing.append(place)
                else:
                    self._decode(keys[place], data, outs[place])
            except DamagedSlideError:
                cache.drop(identity, keys[place])
                missing.append(place)
        return missing

    def _read_from_server(
        self,
        places: list[int],
        keys: Sequence[TileKey],
        outs: Sequence[np.ndarray],
        outcomes: list[Exception | None],
        wanted: Callable[[int], bool],
        urgent: bool,
    ) -> None:
        """Ask for tiles, decode and keep them; what did not fit into the answer is asked for again."""
        identity = self._kept_as()
        while places:
            asked = places
            answers, told = self._ask_tiles(
                [keys[place] for place in asked], lambda asked=asked: any(map(wanted, asked)), urgent=urgent
            )
            places = []
            for place, answer in zip(asked, answers, strict=True):
                try:
                    if isinstance(answer, SlideError):
                        raise answer
                    self._decode(keys[place], answer, outs[place])
                    if identity is not None and told == identity:
                        self._server.cache.put(identity, keys[place], answer)
                except UnreachableError as error:
                    outcomes[place] = error
                    places.append(place)
                except SlideError as error:
                    outcomes[place] = error
                else:
                    outcomes[place] = None
            if len(places) == len(asked):  # it makes no progress
                return

    def _decode(self, key: TileKey, data: bytes, out: np.ndarray) -> None:
        from rawmosaic.storage import codec

        if not data:
            out[:] = 0
            return
        try:
            if out.flags.c_contiguous:
                codec.decode_into(data, out)
            else:
                out[:] = codec.decoded(data, out.shape)
        except DamagedSlideError as error:
            raise DamagedSlideError(f"{key}: {error}", location=self.location) from error

    # asking

    def _ask(
        self,
        op: str,
        body: Mapping | None = None,
        *,
        answer_nbytes: int = FACTS_NBYTES,
        wanted: Callable[[], bool] | None = None,
        in_trouble: bool = False,
        **options,
    ) -> Reply:
        """The server's answer about this slide, and no other: a slide that was replaced meanwhile is an error."""
        for _ in range(2):  # an answer that was under way when the slide was finished names it as it was before
            if self._closed:
                raise SlideError("the slide is closed", location=self.location)
            if self._trouble is not None and not in_trouble:
                raise self._trouble
            reply = self._server.pool.request(
                op,
                self._name,
                body=body,
                answer_nbytes=answer_nbytes,
                timeout_s=self._server.timeout_s,
                wanted=wanted,
                **options,
            )
            told = reply.body.get("identity")
            if op == "open" or self._growing or not told or told == self._identity:
                return reply
        self._replaced = True
        raise SlideError(_REPLACED, location=self.location)

    def _ask_tiles(
        self, keys: Sequence[TileKey], wanted: Callable[[], bool], *, urgent: bool
    ) -> tuple[list[bytes | SlideError], str]:
        """For each of at most 64 tiles its compressed bytes or why there are none; and the identity they belong to."""
        from rawmosaic.net.protocol import SOON, error_from, pack_keys

        reply = self._ask(
            "tiles",
            buffers=[pack_keys(keys)],
            priority=0 if urgent else SOON,
            wanted=wanted,
            answer_nbytes=len(keys) * self.tiling.tile_nbytes // 2,
        )
        errors, buffers = reply.body.get("errors") or {}, reply.buffers
        if len(buffers) != len(keys) or not isinstance(errors, Mapping):
            raise ProtocolError(f"{len(buffers)} tiles came where {len(keys)} were asked for", location=self.location)
        answers: list[bytes | SlideError] = list(buffers)
        for place in range(len(keys)):
            error = errors.get(str(place)) if errors else None
            if error is not None:
                answers[place] = error_from(error if isinstance(error, Mapping) else {}, self.location)
        return answers, str(reply.body.get("identity", ""))

    def _ask_acquired(self, z: int, t: int, n_fields: int, ahead: bool = False, *, in_trouble: bool = False) -> np.ndarray:
        from rawmosaic.net.protocol import SOON, array_from

        reply = self._ask(
            "acquired",
            {"z": int(z), "t": int(t)},
            priority=SOON if ahead else 0,
            wanted=lambda: not self._closed,
            in_trouble=in_trouble,
        )
        bits = np.unpackbits(array_from(reply.body.get("acquired"), reply.buffers, np.uint8, (None,)))
        shape = n_fields, len(self.channels)
        count = shape[0] * shape[1]
        if len(bits) < count:
            raise ProtocolError(f"the table of acquired planes has {len(bits)} entries, not {count}", location=self.location)
        return bits[:count].reshape(shape).astype(bool)

    def _open(self, **options) -> Opened:
        """All facts. An unknown name is answered with the known ones."""
        from rawmosaic.net.following import opened

        try:
            return opened(self._ask("open", **options), {})
        except NotASlideError as error:
            names = ", ".join(self._names()) or "none"
            raise NotASlideError(f"the server has no slide of this name; it has: {names}", location=self.location) from error

    def _only_name(self) -> str:
        names = self._names()
        if len(names) == 1:
            return names[0]
        known = "it has: " + ", ".join(names) if names else "it has none"
        raise NotASlideError(
            f"which slide? Write {self._server.address}/NAME with the name of one that the server has; {known}",
            location=self.location,
        )

    def _names(self) -> list[str]:
        names: list[str] = []
        body: dict = {}
        while True:
            reply = self._server.pool.request("slides", body=body, timeout_s=self._server.timeout_s)
            entries = reply.body.get("slides")
            page = [entry.get("name") for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
            names += [name for name in page if isinstance(name, str)]
            if not reply.body.get("rest") or not page or len(names) > 1000:
                return names
            body = {"after": names[-1]}

    # growing

    def _follow(self) -> None:
        from rawmosaic.net.following import Follower

        times = [(z, t) for z in range(self.size_z) for t in range(self.size_t)]
        for z, t in times if len(times) <= MOST_TIMES_FOLLOWED else times[:1]:
            self.acquired(z, t)
        self._follower = Follower(
            self._server.pool.connection(),
            self._name,
            self._identity,
            self._open_again,
            self._note_trouble,
            has_only_stage=self.position_sets == ("stage",) and self.position_set("stage").plane_offsets_um is None,
        )

    def _open_again(self) -> Opened:
        """The slide as a whole, for the follower, in its thread."""
        from rawmosaic.net.following import Opened

        now = self._open(wanted=lambda: not self._closed, in_trouble=True)
        facts = now.facts
        same = (self.channels, self.tiling, self.size_z, self.size_t, self.header.name, self.header.acquired_at)
        names = ("channels", "tiling", "size_z", "size_t")
        told = (*(facts[name] for name in names), facts["header"].name, facts["header"].acquired_at)
        self._replaced = told != same or len(facts["fields"]) < self.n_fields
        if self._replaced:
            raise SlideError(_REPLACED, location=self.location)
        tables = {time: self._ask_acquired(*time, len(facts["fields"]), in_trouble=True) for time in self._tables.known()}
        return Opened(facts, tables, now.identity, now.growing, now.overview)

    def _note_trouble(self, error: SlideError | None) -> None:
        """What the server says about the slide that is followed; reads need not ask it again."""
        self._trouble = error

    def _take_in(self, news: Grown | Opened) -> np.ndarray:
        """Apply what came: (n, 4) int32 planes that were not known before. First the tables of planes, then the fields."""
        from rawmosaic.net.following import Opened

        with self._lock:
            planes = self._reopened(news) if isinstance(news, Opened) else self._grown(news)
            self._identity = news.identity
            self._generation += 1
            self._histograms.clear()
        return planes

    def _reopened(self, news: Opened) -> np.ndarray:
        fields = news.facts["fields"]
        came = self._tables.replace(news.acquired, len(fields))
        self._set_fields(fields, news.facts["position_sets"])
        self._has_overview = news.overview
        self._growing = news.growing
        return came

    def _grown(self, news: Grown) -> np.ndarray:
        from rawmosaic.net.facts import check_fields

        first = news.first_field
        if first > self.n_fields:
            raise ProtocolError(f"fields from {first} on came, but only {self.n_fields} are known", location=self.location)
        fields = np.concatenate([self.fields[:first], news.fields]) if len(news.fields) else self.fields
        if len(fields) < self.n_fields:
            raise ProtocolError(f"{len(fields)} fields are told of where {self.n_fields} are known", location=self.location)
        check_fields(fields, self.tiling)
        planes = news.planes
        if not ((planes >= 0) & (planes < (len(fields), len(self.channels), self.size_z, self.size_t))).all():
            raise ProtocolError("planes came that the slide has no room for", location=self.location)
        new = self._tables.add(planes, len(fields))
        if len(news.fields):
            stage = PositionSet(np.concatenate([self.positions()[:first], news.positions_um]))
            self._set_fields(fields, {**self._position_sets, "stage": stage})
        return planes[new]


_REPLACED = "the server has another slide under this name now: it was replaced since it was opened here; open it again"


@dataclass
class _Server:
    """What a slide and its overview share: connections, and tiles on the local disk."""

    address: str
    pool: ConnectionPool
    cache: DiskCache | None
    owns_cache: bool
    timeout_s: float

    @classmethod
    def connected(
        cls, location: str, disk_cache: DiskCache | str | None, curve: ClientCurve | None, timeout_s: float | None
    ) -> _Server:
        """The server of a location; nothing is asked of it yet."""
        from rawmosaic.net.addresses import server_address
        from rawmosaic.net.connection import PATIENCE_S, ConnectionPool
        from rawmosaic.net.keys import curve_for

        address = server_address(location)
        pool = ConnectionPool(address, curve or curve_for(address), PARALLEL_READS)
        owns_cache = disk_cache == "default"
        if owns_cache:
            from rawmosaic.net.disk_cache import DiskCache

            disk_cache = DiskCache()
        return cls(address, pool, disk_cache, owns_cache, PATIENCE_S if timeout_s is None else timeout_s)

    def close(self) -> None:
        self.pool.close()
        if self.owns_cache and self.cache is not None:
            self.cache.close()


class RemoteSource:
    """What is registered under ``rawmosaic.sources``."""

    def score(self, location: str) -> int:
        """10 for an address of a server, else 0."""
        return 10 if str(location).lower().startswith(SCHEME) else 0

    def open(self, location: str, *, in_place_cache: bool = True, **options: object) -> RemoteSlide:
        """The slide at the address; without in_place_cache nothing is kept on the local disk."""
        if options:
            given = ", ".join(sorted(options))
            raise AcquisitionError(f"a slide on a server says itself how it was acquired; leave out {given}", location=location)
        return RemoteSlide(location, disk_cache="default" if in_place_cache else None)


source = RemoteSource()


def _name_in(location: str) -> str:
    """The slide's name in ``tcp://host:port/name``, "" where there is none."""
    return unquote(str(location).partition("://")[2].partition("/")[2]).strip("/")


def _plain(facts: Mapping) -> dict:
    """The facts of a hint in the types of JSON."""
    return {name: value if isinstance(value, str) else np.asarray(value).tolist() for name, value in facts.items()}
