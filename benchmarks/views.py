"""Measuring an engine against the floors of the very frame it draws: shared by jump, pan, zoom, first_frame and scale."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.floors import BareDraw, decode_s, upload_s
from benchmarks.harness import timed
from rawmosaic.storage import Slide, open_slide
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.viewer import OffscreenViewer


@dataclass(frozen=True)
class Floors:
    """Seconds of the bare operations for one view."""

    decode: float
    upload: float
    draw: float
    tiles: int

    @property
    def total(self) -> float:
        """One after the other."""
        return self.decode + self.upload + self.draw


class Bench:
    """An offscreen viewer on a slide, or on what lies at a path, with the means to time single frames to their end."""

    def __init__(self, path, size: tuple[int, int] = (1280, 720), **budgets):
        self.slide = path if isinstance(path, Slide) else open_slide(path)
        self.viewer = OffscreenViewer(self.slide, size, **budgets)
        self.engine = self.viewer.engine
        from rawmosaic.viewer.gl.api import GL
        from rawmosaic.viewer.gl.objects import Framebuffer
        from rawmosaic.viewer.renderer import Target

        self.GL = GL
        self._framebuffer = Framebuffer(size, GL.GL_RGBA8, depth=True)
        self.target = Target(self._framebuffer.name, size, top_row_first=True)
        self.size = size

    def warm_up(self) -> None:
        """What a window does once its first picture stands: have the driver compile what comes next."""
        self.engine.warm_up(self.target)
        self.settled_s()

    def frame_s(self) -> float:
        """Seconds of one frame, until the driver is done."""
        start = time.perf_counter()
        self.engine.frame(self.target)
        self.GL.glFinish()
        return time.perf_counter() - start

    def settled_s(self) -> float:
        """Seconds until a complete frame is drawn."""
        start = time.perf_counter()
        self.engine.settled_frame(self.target)
        self.GL.glFinish()
        return time.perf_counter() - start

    def forget(self) -> None:
        """Empty the tile cache and the texture cache."""
        self.engine.forget()

    def random_place(self, generator: np.random.Generator, scale: float) -> None:
        """Look at a random place well inside the mosaic."""
        left, top, right, bottom = self.engine.geometry.bounds_um
        x, y = generator.uniform(0.1, 0.9, 2)
        self.engine.look_at(left + x * (right - left), top + y * (bottom - top), scale)

    def floors(self, repeat: int = 5) -> Floors:
        """The floors of the current view, which must be settled: its tiles decoded, uploaded, drawn by bare loops."""
        engine, slide = self.engine, self.slide
        plan = engine.plan()
        numbers = np.array(engine.resident_tiles(plan), np.int64)
        places = []
        for number in numbers:
            source, key = engine.locate(int(number))
            row = fmt.chunk_row(source.tiling, key, len(slide.channels), slide.size_z, slide.size_t)
            offset, size = source._opened.index[key.level].find(row)
            if size:
                places.append((offset, size))
        decode = _median(decode_s(slide.location, places, slide.tiling.tile_shape) for _ in range(repeat))
        draws = self.bare_draws_s(repeat + 2)
        upload = _median(upload_s(self._spare_texture(), len(numbers)) for _ in range(repeat))
        return Floors(decode, upload, _median(draws[2:]), len(numbers))

    def bare_draws_s(self, count: int) -> list[float]:
        """Seconds of each of so many bare draws of the current view, which must be settled."""
        plan = self.engine.plan()
        bare = BareDraw(len(plan.draws[0].channels), self.engine.view().smooth, self.slide.tiling.tile_shape)
        self._framebuffer.bind()
        self.engine.store.texture.bind()
        bare.fill(plan, self.size)
        seconds = timed(bare.draw, count, 0)
        bare.close()
        return seconds

    def _spare_texture(self):
        from rawmosaic.viewer.gl.objects import TileTexture

        if not hasattr(self, "_spare"):
            self._spare = TileTexture(self.slide.tiling.tile_shape, self.engine.store.texture.layers)
        return self._spare

    def close(self) -> None:
        """Give everything back."""
        if hasattr(self, "_spare"):
            self._spare.close()
        self._framebuffer.close()
        self.viewer.close()
        self.slide.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _median(seconds: Iterable[float]) -> float:
    """Floors are medians as the figures above them are: both meet the same noise."""
    return float(np.median(list(seconds)))


def drop_page_cache(path) -> bool:
    """Ask the kernel to forget a file's pages; False where the system has no such call."""
    if not hasattr(os, "posix_fadvise"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return True
