"""A slide as a server sees it: checked requests in, bodies and buffers of replies out. No socket, no thread of its own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rawmosaic.net.encoded_tiles import EncodedTiles
from rawmosaic.net.facts import facts_message
from rawmosaic.net.protocol import Arrays, Buffer, BusyError, Request, error_body, unpack_keys
from rawmosaic.net.read_ahead import FieldsInView, tiles_ahead
from rawmosaic.storage.errors import OutOfRangeError, ProtocolError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import GREY_LEVELS, Slide, ViewHint

MOST_REPLY_NBYTES = 32 << 20
"""A reply to `tiles` holds no more; what would not fit is `busy`, to be asked for again."""

MOST_MESSAGE = 300
"""Characters of an error's message."""

COST_OF_FACTS = 4
"""What a request costs that is not for tiles, in tiles."""

Answer = tuple[Mapping, Sequence[Buffer]]
"""(body, buffers) of a reply."""

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Work:
    """A checked request: `cost` in tiles; `answer(is_cancelled)` reads, in any thread, and gives None where it was cancelled;
    `from_memory()` reads nothing, and gives None where it would have to."""

    cost: int
    answer: Callable[[Callable[[], bool]], Answer | None]
    from_memory: Callable[[], Answer | None] = lambda: None


class ServedSlide:
    """One slide under the name that it is served by. Compressed tiles are kept in `cache`.

    `expects`: whether planes will still come under this name, though the slide itself, whose writer is gone, says that none do.
    """

    def __init__(self, name: str, slide: Slide, cache: EncodedTiles, expects: Callable[[], bool] = lambda: False):
        self.name, self.slide, self._expects = name, slide, expects
        self.overview: ServedSlide | None = None
        if slide.overview is not None:
            self.overview = ServedSlide(f"{name}/overview", slide.overview, cache)
        self.growing = slide.growing or expects()
        self._cache = cache
        self._number = next(_NUMBERS)  # in the cache: slides come and go, and the next may lie where one lay in memory
        self._facts: Answer | None = None
        self._changing = threading.Lock()
        self._looking = threading.Lock()
        self._fields_in_view: tuple[int, FieldsInView] | None = None
        # how often planes came, and the identity since: replaced as one, after the slide has changed
        self._state = (0, slide.identity)

    @property
    def identity(self) -> str:
        """Names the content as it was last taken in."""
        return self._state[1]

    def entry(self) -> dict:
        """What the list of slides says."""
        slide = self.slide
        return {
            "name": self.name,
            "title": slide.header.name,
            "n_fields": slide.n_fields,
            "channels": [channel.name for channel in slide.channels],
            "field_shape": [int(side) for side in slide.field_shape],
            "pixel_size_um": float(slide.header.pixel_size_um),
            "growing": self.growing,
        }

    def work(self, request: Request) -> Work:
        """What a request asks for, checked against the slide; ProtocolError, OutOfRangeError."""
        slide, body = self.slide, request.body
        if request.op == "tiles":
            if len(request.buffers) != 1:
                raise ProtocolError(f"a `tiles` request has one buffer, not {len(request.buffers)}")
            keys = unpack_keys(request.buffers[0])
            errors = {str(at): self.error(self.out_of_range(keys[at])) for at in self._impossible(keys)}
            from_memory = (lambda: None) if errors else (lambda: self._tiles_from_memory(keys))
            return Work(len(keys), lambda is_cancelled: self._tiles(keys, errors, is_cancelled), from_memory)
        if request.op == "open":
            return Work(COST_OF_FACTS, lambda _: self._opened())
        if request.op == "acquired":
            z = _index(body, "z", slide.size_z)
            t = _index(body, "t", slide.size_t)
            return Work(COST_OF_FACTS, lambda _: self._acquired(z, t))
        if request.op == "histogram":
            channel = _index(body, "channel", len(slide.channels))
            return Work(COST_OF_FACTS, lambda _: self._histogram(channel))
        raise ProtocolError(f"nothing is called {request.op[:40]!r} here")

    def _impossible(self, keys: Sequence[TileKey]) -> list[int]:
        """Places in the list of tiles that the slide does not have."""
        slide = self.slide
        n_channels, size_z, size_t, tiling = len(slide.channels), slide.size_z, slide.size_t, slide.tiling
        counts = [tiling.tile_count(level, slide.n_fields) for level in range(len(tiling.levels))]
        n_levels = len(counts)
        return [
            at
            for at, (level, index, channel, z, t) in enumerate(keys)
            if not (
                0 <= level < n_levels
                and 0 <= index < counts[level]
                and 0 <= channel < n_channels
                and 0 <= z < size_z
                and 0 <= t < size_t
            )
        ]

    def out_of_range(self, key: TileKey) -> OutOfRangeError:
        """What the slide has not of a tile that it has not."""
        slide = self.slide
        sizes = {"level": len(slide.levels), "channel": len(slide.channels), "z": slide.size_z, "t": slide.size_t}
        values = {"level": key.level, "channel": key.channel, "z": key.z, "t": key.t}
        for what, size in sizes.items():
            if not 0 <= values[what] < size:
                return OutOfRangeError(what, values[what], _limits(what, size))
        n_tiles = slide.tiling.tile_count(key.level, slide.n_fields)
        return OutOfRangeError("tile", key.index, _limits("tile", n_tiles))

    def error(self, error: BaseException) -> dict:
        """An error as keys of a reply, short, and without the place where the server keeps its files."""
        body = error_body(error)
        message = body["message"].replace(self.slide.location, self.name) if self.slide.location else body["message"]
        return {**body, "message": message[:MOST_MESSAGE]}

    def encoded(self, key: TileKey) -> bytes:
        """A tile as a compressed buffer, empty where nothing was acquired; from memory, or read. Any thread."""
        address = (self._number, self._state[0], key)
        tile = self._cache.get(address)
        if tile is None:
            tile = self.slide.read_encoded(key) or b""
            self._cache.put(address, tile)
        return tile

    def ahead_of(self, hint: ViewHint) -> list[TileKey]:
        """Keys of the tiles that a moving viewer will want. Any thread."""
        with self._looking:
            if self._fields_in_view is None or self._fields_in_view[0] != self._state[0]:
                self._close_index()
                self._fields_in_view = self._state[0], FieldsInView(self.slide)
            return tiles_ahead(self.slide, hint, self._fields_in_view[1])

    def close(self) -> None:
        """End what runs in the background. The slide stays open."""
        self._close_index()
        if self.overview is not None:
            self.overview.close()

    def _close_index(self) -> None:
        if self._fields_in_view is not None:
            self._fields_in_view[1].close()

    def grow(self) -> Answer | None:
        """Take in what was acquired since: the event for those who watch, None if nothing came. One thread."""
        slide = self.slide
        fields, positions = slide.fields, slide.positions()
        with self._changing:
            planes = slide.refresh()
            growing = slide.growing or self._expects()
            first = min(_first_difference(fields, slide.fields), _first_difference(positions, slide.positions()))
            if not len(planes) and first == len(slide.fields) and growing:  # a field may come before its first plane
                return None
            self._state = (self._state[0] + 1, slide.identity)
            if not growing:
                if self.overview is None and slide.overview is not None:
                    self.overview = ServedSlide(f"{self.name}/overview", slide.overview, self._cache)
                self.growing = False
        arrays = Arrays()
        body = {
            "event": "grown",
            "growing": self.growing,
            "identity": self.identity,
            "planes": arrays.add(np.asarray(planes, np.int32).reshape(-1, 4)),
            "first_field": first,
            "fields": arrays.add(slide.fields[first:]),
            "positions_um": arrays.add(np.asarray(slide.positions()[first:], np.float64)),
        }
        return body, arrays.buffers

    # answers

    def _opened(self) -> Answer:
        with self._changing:
            if self._facts is not None:
                return self._facts
            body, buffers = facts_message(self.slide)
            body |= {"identity": self.identity, "growing": self.growing, "overview": self.overview is not None}
            if not self.growing:
                self._facts = body, buffers
            return body, buffers

    def _acquired(self, z: int, t: int) -> Answer:
        arrays = Arrays()
        with self._changing:
            body = {"identity": self.identity, "acquired": arrays.add(np.packbits(self.slide.acquired(z, t)))}
        return body, arrays.buffers

    def _histogram(self, channel: int) -> Answer:
        """The counts, kept until planes come: some slides count them from all their pixels."""
        generation, identity = self._state
        address = (self._number, generation, "histogram", channel)
        counts = self._cache.get(address)
        if counts is None:
            arrays = Arrays()
            arrays.add(np.asarray(self.slide.histogram(channel), np.uint64))
            counts = arrays.buffers[0]
            self._cache.put(address, counts)
        return {"identity": identity, "counts": {"buffer": 0, "shape": [GREY_LEVELS]}}, [counts]

    def _tiles_from_memory(self, keys: Sequence[TileKey]) -> Answer | None:
        """The tiles, if all are in memory."""
        generation, identity = self._state
        buffers, room = [], MOST_REPLY_NBYTES
        for key in keys:
            tile = self._cache.get((self._number, generation, key))
            if tile is None or room <= 0:
                return None
            room -= len(tile)
            buffers.append(tile)
        return {"errors": {}, "identity": identity}, buffers

    def _tiles(self, keys: Sequence[TileKey], errors: Mapping[str, dict], is_cancelled: Callable[[], bool]) -> Answer | None:
        """The tiles; where the slide grows while they are read, they are read again, so that they are of one identity."""
        for _ in range(3):
            state = self._state
            answer = self._tiles_now(keys, errors, is_cancelled)
            if answer is None or state == self._state:
                break
        if answer is None:
            return None
        found, buffers = answer
        return {"errors": found, "identity": state[1] if state == self._state else ""}, buffers

    def _tiles_now(
        self, keys: Sequence[TileKey], errors: Mapping[str, dict], is_cancelled: Callable[[], bool]
    ) -> tuple[dict, list[Buffer]] | None:
        found, buffers, room = dict(errors), [], MOST_REPLY_NBYTES
        for at, key in enumerate(keys):
            if is_cancelled():
                return None
            tile: Buffer = b""
            if errors and str(at) in errors:
                pass
            elif room <= 0:
                found[str(at)] = self.error(BusyError("these tiles are too large for one reply; ask for fewer"))
            else:
                try:
                    tile = self.encoded(key)
                except Exception as error:  # whatever a slide raises, the other tiles go out
                    found[str(at)] = self.error(error)
            room -= len(tile)
            buffers.append(tile)
        return found, buffers


def _index(body: Mapping, what: str, size: int) -> int:
    value = body.get(what, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProtocolError(f"`{what}` is a whole number")
    if not 0 <= value < size:
        raise OutOfRangeError(what, value if abs(value) < 1 << 53 else "…", _limits(what, size))
    return value


def _limits(what: str, size: int) -> str:
    return f"the slide has {what} 0 to {size - 1}" if size else f"the slide has no {what}"


def _first_difference(before: np.ndarray, after: np.ndarray) -> int:
    """The first row that is new or another than before."""
    n = min(len(before), len(after))
    changed = np.flatnonzero((_row_bytes(before[:n]) != _row_bytes(after[:n])).any(axis=1))  # what is no number equals itself
    return int(changed[0]) if len(changed) else n


def _row_bytes(rows: np.ndarray) -> np.ndarray:
    return np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), rows.nbytes // max(len(rows), 1))
