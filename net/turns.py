"""Whose request is next: fair turns between connections, the smaller priority first within one. No thread, no socket."""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable

_REMEMBERED = 64


class Turns:
    """A queue of jobs of many connections.

    Whoever has had least is served next, so a connection that asks for much waits for itself, and one that comes with a single
    request waits for at most one job of each other. A connection that was away starts level with the others: it saves nothing up,
    and what it had beyond them is not forgotten. Not locked; the owner does that.
    """

    def __init__(self):
        self._jobs: dict[Hashable, list[tuple[int, int, object]]] = {}
        self._had: dict[Hashable, float] = {}
        self._paused: set[Hashable] = set()
        self._count = self._arrivals = 0
        self._level = 0.0

    def __len__(self) -> int:
        """Jobs that wait, those of paused connections included."""
        return self._count

    def put(self, connection: Hashable, job: object, priority: int = 0) -> None:
        """Queue a job."""
        jobs = self._jobs.get(connection)
        if not self._jobs:  # nobody waits, so nobody has had anything at the cost of others
            self._had.clear()
            self._level = 0.0
        if jobs is None:
            jobs = self._jobs[connection] = []
            self._had[connection] = max(self._had.get(connection, 0.0), self._level)
            if len(self._had) > _REMEMBERED + 2 * len(self._jobs):  # those that the others have caught up with
                self._had = {name: had for name, had in self._had.items() if name in self._jobs or had > self._level}
        self._arrivals += 1
        insort(jobs, (priority, self._arrivals, job))
        self._count += 1

    def take(self) -> tuple[Hashable, object] | None:
        """(connection, job) that is next; None if all that wait are paused. What it costs is told by `charge`."""
        ready = [name for name in self._jobs if name not in self._paused]
        if not ready:
            return None
        connection = min(ready, key=self._had.__getitem__)
        self._level = max(self._level, self._had[connection])
        jobs = self._jobs[connection]
        _, _, job = jobs.pop(0)
        self._count -= 1
        if not jobs:
            del self._jobs[connection]
        return connection, job

    def charge(self, connection: Hashable, cost: float) -> None:
        """Note what a connection had."""
        self._had[connection] = self._had.get(connection, self._level) + cost

    def remove(self, connection: Hashable, job: object) -> bool:
        """Take a job out of the queue; False where it does not wait."""
        jobs = self._jobs.get(connection, [])
        for at, entry in enumerate(jobs):
            if entry[2] is job:
                del jobs[at]
                self._count -= 1
                if not jobs:
                    del self._jobs[connection]
                return True
        return False

    def pause(self, connection: Hashable) -> None:
        """Give a connection no turn until `resume`."""
        self._paused.add(connection)

    def resume(self, connection: Hashable) -> None:
        """Give a connection its turns again."""
        self._paused.discard(connection)

    def forget(self, connection: Hashable) -> None:
        """Drop all that is known of a connection, its jobs included."""
        self._count -= len(self._jobs.pop(connection, ()))
        self._had.pop(connection, None)
        self._paused.discard(connection)
