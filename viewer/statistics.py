"""The statistics panel: what the last frames did, as lines of text and as a picture of them in the window's corner."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from rawmosaic.viewer.engine import FrameReport
from rawmosaic.viewer.gl.api import GL
from rawmosaic.viewer.gl.objects import PictureTexture
from rawmosaic.viewer.gl.program import Program
from rawmosaic.viewer.renderer import Target

WINDOW_S = 1.0
_FONT_PX, _MARGIN_PX, _BACKGROUND, _TEXT = 14, 8, (0, 0, 0, 170), (235, 235, 235, 255)


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


class TextPanel:
    """Draws lines of text in the top left corner. GL thread only."""

    def __init__(self):
        self._program = Program("text.vert", "text.frag")
        self._texture = PictureTexture()
        self._lines: list[str] = []

    def draw(self, lines: list[str], target: Target) -> None:
        """Draw over what is there; the text is set anew only when it changed."""
        if lines != self._lines:
            self._texture.fill(picture_of(lines))
            self._lines = list(lines)
        height, width = self._texture.shape
        target.bind()
        self._program.use()
        self._program.set_floats("screen_size", np.array(target.size))
        self._program.set_floats("y_sign", np.array([1.0 if target.top_row_first else -1.0]))
        self._program.set_floats("rect", np.array([_MARGIN_PX, _MARGIN_PX, _MARGIN_PX + width, _MARGIN_PX + height]))
        self._texture.bind(1)
        self._program.set_int("text", 1)
        GL.glEnable(GL.GL_BLEND)
        GL.glBlendEquation(GL.GL_FUNC_ADD)
        GL.glBlendFunc(GL.GL_SRC_ALPHA, GL.GL_ONE_MINUS_SRC_ALPHA)
        GL.glDrawArrays(GL.GL_TRIANGLE_STRIP, 0, 4)
        GL.glDisable(GL.GL_BLEND)

    def close(self) -> None:
        """Delete the GL objects; closing twice is harmless."""
        self._program.close()
        self._texture.close()


def picture_of(lines: list[str]) -> np.ndarray:
    """(height, width, 4) uint8: the lines in a legible font on a translucent ground."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_PX)
    step = round(1.4 * _FONT_PX)
    width = max((int(font.getlength(line)) + 1 for line in lines), default=1)
    image = Image.new("RGBA", (width + 2 * _MARGIN_PX, step * len(lines) + 2 * _MARGIN_PX), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((_MARGIN_PX, _MARGIN_PX + number * step), line, _TEXT, font)
    return np.asarray(image)


def _of(used: int, budget: int) -> str:
    return f"{used / 2**20:.0f} of {budget / 2**20:.0f} MB"
