"""A scan on the disk as a proxy leaves it, and writers of it in processes of their own, which may be killed at a step."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
import zlib
from pathlib import Path

import numpy as np
from contract import area_mean

from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.intake import write_end
from rawmosaic.net.acquisition.messages import encoded
from rawmosaic.net.acquisition.plan import ScanPlan
from rawmosaic.net.acquisition.spool import (
    PlaneFacts,
    SpoolWriter,
    append_released,
    planes_of_segment,
    read_released,
    released_rows,
)
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.slide import Channel, Header, new_fields

UID, SHAPE = "scan-7", (24, 32)
CHANNELS = ("DAPI", "GFP")
TIMEOUT_S = 60.0
SEGMENT_NBYTES = 1 << 15
"""Some fifteen planes."""


def pixels(field: int, channel: int = 0, z: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Pixels that say where they belong."""
    return np.random.default_rng([field, channel, z]).integers(0, 4096, shape, dtype=np.uint16)


class Scan:
    """A scan's folder, with what a proxy puts there. `truth`: the pixels of every plane, by (field, channel, z, t)."""

    def __init__(self, data: Path, *, n_planned: int | None = None, shape: tuple[int, int] = SHAPE, **plan):
        self.folder, self.location = data / "a scan.scan", data / "a scan.h5"
        self.shape = shape
        self.folder.mkdir(parents=True)
        fields = None if n_planned is None else new_fields(n_planned, shape)
        if fields is not None:
            fields["x_um"], fields["y_um"] = 10.0 * np.arange(n_planned), 5.0
        channels = tuple(Channel(name) for name in CHANNELS)
        self.plan = ScanPlan("a scan", UID, shape, channels, Header("a scan", pixel_size_um=0.5), fields=fields, **plan)
        self.plan.save(self.folder)
        self.spool = SpoolWriter(self.folder / "spool", SEGMENT_NBYTES)
        self.truth: dict[tuple[int, int, int, int], np.ndarray] = {}

    def put(
        self,
        field: int,
        channel: int = 0,
        *,
        z: int = 0,
        encoding: str = "raw",
        x_um: float | None = None,
        image: np.ndarray | None = None,
        **more,
    ) -> None:
        """Append one plane to the spool, with other pixels than its own where `image` is given; it counts as acknowledged."""
        image = pixels(field, channel, z, self.shape) if image is None else image
        payload = bytes(encoded(image, encoding))
        facts = {"row": 0, "column": field, "scene": None, "y_um": 5.0, "z_um": 1.5, **more}
        facts["x_um"] = 10.0 * field if x_um is None else x_um
        crc, known = zlib.crc32(payload), zlib.crc32(image)
        self.spool.append(
            PlaneFacts(field, channel, z, 0, **facts, shape=self.shape, encoding=encoding, crc=crc, pixels_crc=known), [payload]
        )
        self.truth[field, channel, z, 0] = image

    def put_fields(self, fields: range) -> None:
        """All channels of some fields."""
        for field in fields:
            for channel in range(len(CHANNELS)):
                self.put(field, channel)

    def finish(self, **end) -> None:
        """No plane comes any more."""
        self.spool.sync()
        write_end(self.folder, **{"planes": len(self.truth), **end})

    def said(self, name: str = "writer.json") -> dict:
        """What a process told last."""
        return read_json(self.folder / name) or {}

    def release(self) -> int:
        """Let go of what the writer says may go, as the proxy does; the last segment that is gone."""
        done, _ = read_released(self.folder / "released.index")
        segment = min(self.said().get("releasable_segment", 0), self.spool.segment - 1)
        if segment > done:
            facts = [
                facts for number in range(done + 1, segment + 1) for facts in planes_of_segment(self.folder / "spool", number)
            ]
            append_released(self.folder / "released.index", segment, released_rows(facts))
        self.spool.release(max(segment, done))
        return max(segment, done)

    def close(self) -> None:
        self.spool.close()


class Writer:
    """A writer's process. With `kill_at`, it kills itself when it has passed that step for the `times`th time."""

    SCRIPT = """
        import os, signal, sys
        from rawmosaic.net.acquisition import writer
        from rawmosaic.storage.hdf5 import at_once
        from rawmosaic.storage.hdf5 import writer as slide_writer
        slide_writer.PUBLISH_S = 0.02
        folder, kill_at, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
        def passed(step):
            global left
            if step == kill_at:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        writer.passed = passed
        keep, carry_over = at_once._keep, at_once._carry_over
        class Carrying:
            def __init__(self, raw):
                self._raw = raw
            def write(self, data):
                passed("carrying over")
                return self._raw.write(data)
            def __getattr__(self, name):
                return getattr(self._raw, name)
        def kept(path, data):
            passed("before noting")
            keep(path, data)
            passed("noted")
        def carried_over(raw, *rest):
            carry_over(Carrying(raw), *rest)
            passed("carried over")
        at_once._keep, at_once._carry_over = kept, carried_over
        sys.exit(writer.main([folder]))
    """

    def __init__(self, scan: Scan, kill_at: str = "", times: int = 1):
        command = [sys.executable, "-c", textwrap.dedent(self.SCRIPT), str(scan.folder), kill_at, str(times)]
        self._log = open(scan.folder / "writer.log", "ab")  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log)
        self._scan = scan

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(TIMEOUT_S)
        finally:
            self.kill()

    def wait_until(self, *states: str) -> None:
        """Until it says that it is in one of the states, or has ended."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            said = self._scan.said()
            if said.get("pid") == self.process.pid and (not states or said.get("state") in states):
                return
            time.sleep(0.005)

    def end(self) -> int:
        """Close its standard input; the exit code."""
        self.process.stdin.close()
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self._log.close()


class Watcher:
    """Follows the slide, through all its writers, and compares every plane that it hears of."""

    def __init__(self, scan: Scan):
        self._scan, self._over = scan, threading.Event()
        self.seen: set[tuple[int, int, int, int]] = set()
        self.reopened = 0
        self.failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="watcher")
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._over.wait(0.005):
                try:
                    slide = open_slide(self._scan.location)
                except SlideError:  # none yet, or none just now
                    continue
                with slide:
                    self.reopened += 1
                    self._look(slide, np.argwhere(np.stack([slide.acquired()], -1)[..., None]))
                    while not self._over.wait(0.005) and not slide.replaced:
                        self._look(slide, slide.refresh())
        except BaseException as error:
            self.failures.append(error)

    def _look(self, slide, planes: np.ndarray) -> None:
        for field, channel, z, t in planes.tolist():
            truth = self._scan.truth[field, channel, z, t]
            np.testing.assert_array_equal(slide.read_plane(field, channel, z, t), truth)
            coarsest = len(slide.levels) - 1
            np.testing.assert_array_equal(
                slide.read_plane(field, channel, z, t, coarsest), area_mean(truth, slide.levels[coarsest])
            )
            self.seen.add((field, channel, z, t))
