"""How far a running scan is: fields and planes that came, their rate, the time that is left, and whether it goes on.

Numbers only: no thread, no file, and the time is told by who asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RATE_OVER_S = 20.0
"""The rate is that of so many seconds, …"""

RATE_OVER_ARRIVALS = 6
"""… or, of a slow scan, of so many arrivals."""

SILENT_AFTER_S = 10.0
"""Nothing came for so long, and for so many usual pauses: worth a word."""
SILENT_AFTER_PAUSES = 5.0

MOST_PENDING = 64
"""An unplanned scan may have so many fields whose planes are still being written. More without any plane are a plan."""

Plane = tuple[int, int, int, int]
"""(field, channel, z, t)"""


@dataclass(frozen=True)
class ScanProgress:
    """A running scan at one moment.

    `state`: running; silent: nothing came for a while; finished; ended early: planned fields were left out; abandoned: its writer
    is gone and the file is not finished.
    """

    state: str
    fields: int
    """of which at least one plane came"""
    planned_fields: int | None
    """None where nobody planned, or nobody knows"""
    planes: int
    fields_per_s: float
    planes_per_s: float
    left_s: float | None
    silent_s: float
    """since the last plane came"""
    newest: Plane | None
    """one of the planes that came last; None before any was seen to come"""
    ended_s: float | None
    """since the end, None before"""

    @property
    def goes_on(self) -> bool:
        """Whether planes may still come."""
        return self.ended_s is None

    @property
    def share(self) -> float | None:
        """0 to 1: how much of the plan is done; None without one."""
        return None if not self.planned_fields else min(self.fields / self.planned_fields, 1.0)


def told_planned(extra: Mapping) -> bool | None:
    """Whether the fields of a scan were planned, as its slide's `header.extra` says; None where it does not."""
    scan = extra.get("acquisition")
    planned = scan.get("planned") if isinstance(scan, Mapping) else None
    return planned if isinstance(planned, bool) else None


class ScanCounter:
    """Counts what comes. One thread; seconds are monotonic.

    Parameters
    ----------
    has_plane
        (n_fields,) bool: of which fields there is a plane already.
    n_planes
        How many there are in all.
    planes_per_field
        Channels × z × t: what each field gets, as far as anybody knows.
    is_planned
        Whether the fields were planned, where the slide says so; None has it guessed from what comes.
    """

    def __init__(
        self, has_plane: np.ndarray, n_planes: int, planes_per_field: int, now: float, *, is_planned: bool | None = None
    ):
        self._told_planned = is_planned
        self._has = np.array(has_plane, bool)
        self._n_fields, self._n_planes, self._per_field = int(self._has.sum()), int(n_planes), max(int(planes_per_field), 1)
        self._table_rows = len(self._has)
        self._is_plan = self._unless_told(self._pending > (MOST_PENDING if self._n_fields else 0))
        self._arrivals: deque[tuple[float, int, int]] = deque([(now, self._n_fields, self._n_planes)])
        self._came_at = now
        self._seen_coming = False
        self._newest: Plane | None = None
        self._end: tuple[float, bool] | None = None

    def add(self, planes: np.ndarray, table_rows: int, now: float) -> None:
        """Planes (n, 4) that came, and how many fields the slide's table has now."""
        if not len(planes):
            return
        before = self._table_rows
        if table_rows > len(self._has):
            self._has = np.concatenate([self._has, np.zeros(max(table_rows - len(self._has), len(self._has)), bool)])
        self._table_rows = max(table_rows, before)
        fields = np.unique(planes[:, 0])
        self._n_fields += int((~self._has[fields]).sum())
        self._has[fields] = True
        self._n_planes += len(planes)
        # a table that grows with the scan is no plan; one that has rows to spare while planes come is
        self._is_plan = self._unless_told(
            (self._is_plan or self._pending > 0) if table_rows == before else self._pending > MOST_PENDING
        )
        self._newest = tuple(planes[-1].tolist())
        if not self._seen_coming:  # what lies between the first look at the slide and the first arrival says nothing of the rate
            self._arrivals.clear()
        self._seen_coming, self._came_at = True, now
        self._arrivals.append((now, self._n_fields, self._n_planes))
        while len(self._arrivals) > RATE_OVER_ARRIVALS and now - self._arrivals[1][0] >= RATE_OVER_S:
            self._arrivals.popleft()

    def end(self, now: float, *, finished: bool) -> None:
        """Nothing comes any more. `finished`: its writer said so."""
        # in the end, fields without a plane were planned
        self._is_plan = self._unless_told(self._is_plan or (finished and self._pending > 0))
        self._end = self._end or (now, finished)

    def progress(self, now: float) -> ScanProgress:
        """How far it is."""
        ended_s = None if self._end is None else max(now - self._end[0], 0.0)
        now = now if self._end is None else self._end[0]
        (first, fields, planes), (last, *_) = self._arrivals[0], self._arrivals[-1]
        passed = last - first
        rates = ((self._n_fields - fields) / passed, (self._n_planes - planes) / passed) if passed > 0 else (0.0, 0.0)
        silent_s = max(now - self._came_at, 0.0)
        planned = self._table_rows if self._is_plan else None
        left = None
        if planned is not None and rates[1] > 0 and self._end is None:
            left = max(max(planned * self._per_field - self._n_planes, 0) / rates[1] - silent_s, 0.0)
        return ScanProgress(
            state=self._state(silent_s, passed),
            fields=self._n_fields,
            planned_fields=planned,
            planes=self._n_planes,
            fields_per_s=rates[0],
            planes_per_s=rates[1],
            left_s=left,
            silent_s=silent_s,
            newest=self._newest,
            ended_s=ended_s,
        )

    def _unless_told(self, guess: bool) -> bool:
        """Whether there is a plan: as the slide says, else as it looks."""
        return guess if self._told_planned is None else self._told_planned

    @property
    def _pending(self) -> int:
        return self._table_rows - self._n_fields

    def _state(self, silent_s: float, passed_s: float) -> str:
        if self._end is not None:
            if not self._end[1]:
                return "abandoned"
            return "ended early" if self._is_plan and self._pending else "finished"
        usual_pause = passed_s / max(len(self._arrivals) - 1, 1)
        return "silent" if silent_s > max(SILENT_AFTER_S, SILENT_AFTER_PAUSES * usual_pause) else "running"
