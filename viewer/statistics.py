"""The statistics panel: what the last frames did, as lines of text."""

from __future__ import annotations

import time
from collections import deque

from rawmosaic.viewer.engine import FrameReport

WINDOW_S = 1.0


class Statistics:
    """Collects frame reports and sums them over the last second."""

    def __init__(self):
        self._frames: deque[tuple[float, float, FrameReport]] = deque()

    def add(self, report: FrameReport, seconds: float, now: float | None = None) -> None:
        """One frame, which took so many seconds in all."""
        now = time.monotonic() if now is None else now
        self._frames.append((now, seconds, report))
        while self._frames and now - self._frames[0][0] > WINDOW_S:
            self._frames.popleft()

    def lines(self) -> list[str]:
        """The panel's text; empty before the first frame."""
        if not self._frames:
            return []
        _, seconds, last = self._frames[-1]
        longest = max(frame[1] for frame in self._frames)
        decoded = sum(frame[2].bytes_decoded for frame in self._frames) / WINDOW_S
        uploaded = sum(frame[2].bytes_uploaded for frame in self._frames) / WINDOW_S
        what = "overview" if last.overview else f"layer {last.level}"
        return [
            f"frame {1e3 * seconds:.1f} ms (longest {1e3 * longest:.1f}) · {len(self._frames)} in the last second",
            f"plan {1e3 * last.plan_s:.1f} · upload {1e3 * last.upload_s:.1f} · draw {1e3 * last.draw_s:.1f} ms",
            f"{what} · {last.fields_in_view} fields · {last.quads} quads",
            f"tiles: {last.tiles_wanted} wanted · {last.tiles_missing} missing · {last.tiles_failed} unreadable · "
            f"{last.tiles_pending} on the way",
            f"decoded {decoded / 1e6:.0f} MB/s · uploaded {uploaded / 1e6:.0f} MB/s",
            f"memory {_of(last.ram_bytes, last.ram_budget_bytes)} · {last.tiles_in_ram} tiles",
            f"textures {_of(last.vram_bytes, last.vram_budget_bytes)} · {last.tiles_in_texture} tiles",
        ]


def _of(used: int, budget: int) -> str:
    return f"{used / 2**20:.0f} of {budget / 2**20:.0f} MB"
