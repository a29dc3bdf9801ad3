"""Clients that ended a scan in its scanner's place, and wait until that is on the disk. No socket, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rawmosaic.net.protocol import BusyError

MOST_WAITING = 1000
HEARD_S = 1.0
"""How often a client hears why it waits."""

PATIENCE_S = 60.0
"""Then it hears that it should ask again later: it may have something better to do."""


@dataclass
class Awaited:
    """One request, and what it asked for. Times are monotonic seconds."""

    client: bytes
    number: int
    uid: str
    discard: bool
    since: float
    next_word: float

    def word_is_due(self, now: float) -> bool:
        """Whether the client should hear that it is not forgotten; counts as said."""
        if now < self.next_word:
            return False
        self.next_word = now + HEARD_S
        return True

    def is_long(self, now: float) -> bool:
        """Whether it has waited enough."""
        return now - self.since >= PATIENCE_S


class AwaitedEnds:
    """The requests that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, int], Awaited] = {}

    def __iter__(self) -> Iterator[Awaited]:
        return iter(list(self._waiting.values()))

    def add(self, client: bytes, number: int, uid: str, discard: bool, now: float) -> None:
        """Keep a request. BusyError where there are too many."""
        if len(self._waiting) >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} clients wait for the ends of scans already; ask again later")
        self._waiting[client, number] = Awaited(client, number, uid, discard, now, now + HEARD_S)

    def forget(self, client: bytes, numbers: Collection[int]) -> None:
        """These were answered, or their answers are no longer wanted."""
        for number in numbers:
            self._waiting.pop((client, number), None)
