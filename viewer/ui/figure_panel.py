"""A figure from what is shown: which part, how wide, with what on it. It is written by a process of its own, in its own time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imgui_bundle import imgui

from rawmosaic.viewer.display_state import capture
from rawmosaic.viewer.saved_state import save_preset
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.overlays import Rect
from rawmosaic.viewer.ui.widgets import button, choice, dim, place_within, same_line_if_fits, stay_within, told

PARTS = ("the view", "the whole mosaic", "the selected annotation")
WIDTH_UNITS = 430
PROGRAM = "from rawmosaic.cli.main import run; run()"


@dataclass
class _Job:
    """A figure that is being written."""

    process: subprocess.Popen
    path: Path
    state: Path
    started: float


class FigurePanel:
    """What is asked for, and the process that writes it."""

    def __init__(self):
        self.opened = False
        self.part, self.width_px = PARTS[0], 2400
        self.scale_bar = self.legend = True
        self.annotations = False
        self.file = ""
        self._job: _Job | None = None

    @property
    def is_writing(self) -> bool:
        """Whether a figure is being written."""
        return self._job is not None

    def open(self, desk: Desk) -> None:
        """Show the panel."""
        self.opened = True
        if not self.file:
            self.file = str(pictures_folder() / f"{plain_name(desk.slide.header.name)} figure.png")

    def draw(self, desk: Desk, area: Rect) -> None:
        """The panel over the picture; it stands in nobody's way."""
        if not self.opened:
            return
        place_within(area, (WIDTH_UNITS, 0), (0.5, 0.1))
        flags = imgui.WindowFlags_.no_saved_settings.value | imgui.WindowFlags_.no_collapse.value
        _, self.opened = imgui.begin("Figure", True, flags)
        stay_within(area)
        self.part = choice("shows", self.part, self._parts(desk), "the part of the mosaic")
        imgui.set_next_item_width(-theme.units(92))
        _, self.width_px = imgui.input_int("pixels wide", self.width_px, 100, 1000)
        self.width_px = min(max(self.width_px, 16), 100_000)
        _, self.scale_bar = imgui.checkbox("scale bar", self.scale_bar)
        same_line_if_fits("channel legend", boxed=True)
        _, self.legend = imgui.checkbox("channel legend", self.legend)
        if desk.board is not None and len(desk.board.annotations):
            same_line_if_fits("annotations", boxed=True)
            _, self.annotations = imgui.checkbox("annotations", self.annotations)
        imgui.set_next_item_width(-theme.units(92))
        _, self.file = imgui.input_text("file", self.file)
        told("ends in .png or .tif; a TIFF may be larger than any screen")
        if self._job is None:
            if button("write", "the figure is written in the background"):
                self.start(desk)
        else:
            dim(f"writing for {time.monotonic() - self._job.started:.0f} s …")
            imgui.same_line()
            if button("cancel", "nothing of it is left"):
                self.cancel()
        imgui.end()

    def start(self, desk: Desk) -> None:
        """Begin to write what is asked for."""
        path = Path(self.file).expanduser()
        handle, name = tempfile.mkstemp(suffix=".view.json", prefix="rawmosaic-")
        os.close(handle)
        state = Path(name)
        save_preset(state, capture(desk.engine))
        region = ",".join(f"{value:.4f}" for value in self._bounds(desk))
        command = [sys.executable, "-c", PROGRAM, "export", "figure", desk.slide.location, "-o", str(path), "--state", str(state)]
        command += [f"--region={region}", "--width-px", str(self.width_px)]
        command += [f"--{'' if self.scale_bar else 'no-'}scale-bar", f"--{'' if self.legend else 'no-'}legend"]
        if self.annotations and desk.board is not None and desk.board.path:
            desk.board.close()
            command += ["--annotations", desk.board.path]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._job = _Job(process, path, state, time.monotonic())

    def step(self, desk: Desk) -> float | None:
        """See whether it is done; seconds until it is worth asking again, None when nothing is written."""
        job = self._job
        if job is None:
            return None
        if job.process.poll() is None:
            return 0.2
        problem = (job.process.stderr.read() or "").strip().splitlines()
        job.process.stderr.close()
        if job.process.returncode == 0:
            desk.say(f"figure written: {job.path}")
            self.opened = False
        else:
            desk.say(problem[-1] if problem else "the figure was not written", "error")
        self._end()
        return 0.0

    def cancel(self) -> None:
        """Give up what is being written."""
        if self._job is not None:
            self._job.process.terminate()
            self._job.process.wait()
            self._job.process.stderr.close()
            self._end()

    def _end(self) -> None:
        with suppress(OSError):
            self._job.state.unlink()
        self._job = None

    def _parts(self, desk: Desk) -> tuple[str, ...]:
        return PARTS if desk.board is not None and desk.board.editor.selected else PARTS[:2]

    def _bounds(self, desk: Desk) -> tuple[float, float, float, float]:
        if self.part == PARTS[1]:
            return desk.engine.geometry.bounds_um
        if self.part == PARTS[2] and desk.board is not None and desk.board.editor.selected:
            return desk.board.annotations[desk.board.editor.selected[-1]].shape.box_um
        return desk.engine.camera.bounds_um()


def pictures_folder() -> Path:
    """Where a user looks for pictures."""
    from platformdirs import user_pictures_path

    folder = user_pictures_path()
    return folder if folder.is_dir() else Path.home()


def plain_name(name: str) -> str:
    """A name that every file system takes."""
    return "".join(letter if letter.isalnum() or letter in " -_.," else "_" for letter in name).strip(" .") or "slide"
