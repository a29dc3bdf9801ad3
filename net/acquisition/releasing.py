"""Reading back what was written, segment by segment, before the spool may let it go; in a thread beside the writing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from rawmosaic.storage.errors import DamagedSlideError, SlideError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.writer import SlideWriter

_LOOKS, _PAUSE_S = 200, 0.01
_TOGETHER = 16
"""Planes between two looks at whether somebody waits."""

Expected = tuple[tuple[int, int, int, int], int]
"""(field, channel, z, t) and the CRC-32 of the pixels, as the spool has them."""


class Releaser:
    """Says of each segment that was handed in, in that order, when all of its planes are in the slide, durable and right.

    `released(segment, n_planes)` is called from the thread, at the end of a segment; `failure` is what stopped it.
    """

    def __init__(self, writer: SlideWriter, released: Callable[[int, int], None]):
        self._writer, self._released = writer, released
        self._queue: SimpleQueue[tuple[int, Sequence[Expected]] | None] = SimpleQueue()
        self._ended = threading.Event()
        self._hurry = False
        self._memory = threading.local()
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="read-back")
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="spool-releaser", daemon=True)
        self._thread.start()

    def hand_in(self, segment: int, planes: Sequence[Expected]) -> None:
        """A closed segment, all of whose planes were handed to the writer. Returns at once."""
        self._queue.put((segment, planes))

    def finish(self) -> None:
        """Wait until all was read back that was handed in; raises `failure`."""
        self._hurry = True
        self._queue.put(None)
        self._thread.join()
        self.raise_failure()

    def close(self) -> None:
        """Give up what was not read back yet; closing twice is harmless."""
        self._ended.set()
        self._queue.put(None)
        self._thread.join()

    def raise_failure(self) -> None:
        """Raise what stopped it, if anything did."""
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> Releaser:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        slide = None
        try:
            while (task := self._queue.get()) is not None:
                segment, planes = task
                self._writer.sync()
                if slide is None:
                    slide = Hdf5Slide(self._writer.part)
                self._take_in(slide, planes)
                self._read_back(slide, planes)
                if self._ended.is_set():
                    return
                self._released(segment, len(planes))
        except BaseException as error:
            self.failure = error
        finally:
            self._ended.set()
            self._pool.shutdown(cancel_futures=True)
            if slide is not None:
                slide.close()

    def _take_in(self, slide: Hdf5Slide, planes: Sequence[Expected]) -> None:
        """Look at the slide until it shows the planes: a look that meets the writer in the middle of a change shows none."""
        for _ in range(_LOOKS):
            if all(field < slide.n_fields and slide.acquired(z, t)[field, channel] for (field, channel, z, t), _ in planes):
                return
            slide.refresh()
            if self._ended.wait(_PAUSE_S):
                return

    def _read_back(self, slide: Hdf5Slide, planes: Sequence[Expected]) -> None:
        """Compare the planes with the spool; the writer remembers which bytes were right."""
        remembered = self._writer.stored
        for first in range(0, len(planes), _TOGETHER):
            some = planes[first : first + _TOGETHER]
            for (key, _), found in zip(some, self._map(lambda plane: self._proven(slide, *plane), some), strict=True):
                if found is None:
                    return
                if remembered is not None:
                    remembered.read_back.note(*key, found)

    def _map(self, proven: Callable[[Expected], int | None], planes: Sequence[Expected]) -> Iterable[int | None]:
        """One after the other beside the writing, which keeps all processors busy; at once as soon as somebody waits for it."""
        return self._pool.map(proven, planes) if self._hurry else map(proven, planes)

    def _proven(self, slide: Hdf5Slide, key: tuple[int, int, int, int], crc: int) -> int | None:
        """The sum of a plane's bytes, which decode to what the spool holds; None where nobody waits for it any longer."""
        if self._ended.is_set():
            return None
        if not hasattr(self._memory, "own"):
            self._memory.own = slide.plane_memory()
        where = "field {}, channel {}, z {}, t {}".format(*key)
        try:
            found, stored_sum = slide.plane_sums(*key, self._memory.own)
        except SlideError as error:
            raise DamagedSlideError(f"{where} does not read back: {error}", location=slide.location) from error
        if found != crc:
            raise DamagedSlideError(f"{where} is not what the spool holds", location=slide.location)
        return stored_sum
