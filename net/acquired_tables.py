"""Which planes of a remote slide exist: a table for each z and t, asked for once, and ahead of need.

Whoever draws looks at the table of the z and t in view for each frame, and must not wait for the network: so a thread asks for
the other tables, those next to what was last looked at first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np

from rawmosaic.storage.errors import SlideError

REACH = 24
"""Tables are asked for ahead of need so many z and t around the one looked at, …"""

AHEAD_NBYTES = 64 << 20
"""… until those at hand take so much memory."""

PAUSE_S = 2.0
"""After an error nothing is asked ahead for so long."""

Time = tuple[int, int]
"""(z, t)"""


class AcquiredTables:
    """(n_fields, n_channels) bool for each (z, t), not to be written to. Any thread.

    `ask(z, t, n_fields, ahead)` brings one from the server; `ahead` says that nobody waits for it. A slide that grows changes the
    tables through `add` and `replace`.
    """

    def __init__(self, size_z: int, size_t: int, n_fields: int, ask: Callable[[int, int, int, bool], np.ndarray]):
        self._size_z, self._size_t, self._n_fields, self._ask = size_z, size_t, n_fields, ask
        self._tables: dict[Time, np.ndarray] = {}
        self._generation = 0
        self._changed = threading.Condition()
        self._looked_at: Time | None = None
        self._ahead: list[Time] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    def get(self, z: int, t: int) -> np.ndarray:
        """The table, asked for if it is not known. Raises SlideError."""
        table = self._tables.get((z, t))
        if table is None:
            table = self._asked(z, t, ahead=False)
        if self._looked_at != (z, t):
            self._look_ahead(z, t)
        return table

    def known(self) -> list[Time]:
        """The (z, t) whose tables are here."""
        with self._changed:
            return list(self._tables)

    def add(self, planes: np.ndarray, n_fields: int) -> np.ndarray:
        """Note planes (m, 4) that came, and how many fields there are now; (m,) bool, which of them were not known before."""
        new = np.ones(len(planes), bool)
        with self._changed:
            self._generation += 1
            self._n_fields = n_fields
            for (z, t), table in self._tables.items():
                table = with_rows(table, n_fields).copy()
                here = np.flatnonzero((planes[:, 2] == z) & (planes[:, 3] == t))
                at = tuple(planes[here, :2].T)
                new[here] = ~table[at]
                table[at] = True
                self._tables[z, t] = _fixed(table)
        return new

    def replace(self, tables: Mapping[Time, np.ndarray], n_fields: int) -> np.ndarray:
        """Take newer tables, and forget the others; (m, 4) int32 planes that were not known before."""
        came = [np.empty((0, 4), np.int32)]
        with self._changed:
            self._generation += 1
            self._n_fields = n_fields
            for (z, t), table in tables.items():
                before = self._tables.get((z, t))
                if before is not None:
                    field, channel = np.nonzero(table & ~with_rows(before, len(table)))
                    came.append(np.stack([field, channel, np.full_like(field, z), np.full_like(field, t)], axis=1))
            self._tables = {time: _fixed(with_rows(table, n_fields)) for time, table in tables.items()}
        return np.concatenate(came).astype(np.int32)

    def close(self) -> None:
        """Stop asking ahead; closing twice is harmless."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _asked(self, z: int, t: int, *, ahead: bool) -> np.ndarray:
        while True:
            generation, n_fields = self._generation, self._n_fields
            asked = self._ask(z, t, n_fields, ahead)
            with self._changed:
                if generation == self._generation:  # else planes came meanwhile, and may be missing in it
                    return self._tables.setdefault((z, t), _fixed(asked))

    # ahead of need

    def _look_ahead(self, z: int, t: int) -> None:
        with self._changed:
            self._looked_at = (z, t)
            around = [
                (other_z, other_t)
                for other_z in range(max(0, z - REACH), min(z + REACH + 1, self._size_z))
                for other_t in range(max(0, t - REACH), min(t + REACH + 1, self._size_t))
                if (other_z, other_t) not in self._tables
            ]
            self._ahead = sorted(around, key=lambda other: abs(other[0] - z) + abs(other[1] - t), reverse=True)
            self._changed.notify_all()
            if self._thread is None and self._ahead and not self._closed:
                self._thread = threading.Thread(target=self._run, name="remote-slide-tables", daemon=True)
                self._thread.start()

    def _next(self) -> Time | None:
        """The nearest table that is not known."""
        while self._ahead:
            time = self._ahead.pop()
            if time not in self._tables:
                room = AHEAD_NBYTES - sum(table.nbytes for table in self._tables.values())
                return time if room > 0 else None
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (time := self._next()) is None:
                    self._changed.wait()
                if self._closed:
                    return
            try:
                self._asked(*time, ahead=True)
            except SlideError:  # whoever needs it will be told
                with self._changed:
                    if not self._closed:
                        self._changed.wait(PAUSE_S)


def with_rows(table: np.ndarray, n: int) -> np.ndarray:
    """The first n rows of a table of bool, False where it has fewer."""
    if len(table) == n:
        return table
    rows = np.zeros((n, *table.shape[1:]), bool)
    rows[: min(n, len(table))] = table[:n]
    return rows


def _fixed(table: np.ndarray) -> np.ndarray:
    table.flags.writeable = False
    return table
