"""Whatever happens to server, network and disk while somebody looks: the view settles on the right picture."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from contract import tile_keys
from serving import ServerProcess

from rawmosaic.net import wire
from rawmosaic.net.disk_cache import NAME, PAGE_NBYTES, DiskCache
from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.net.testing import Proxy
from rawmosaic.storage import open_slide
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide
from rawmosaic.viewer import OffscreenViewer

SIZE = (200, 150)
SMALL = {"ram_bytes": 16 << 20, "vram_bytes": 16 << 20}
SETTLED_S = 60.0
WALK = [(40.0 * step, 25.0 * step, scale) for step, scale in enumerate((1.0, 1.0, 0.5, 1.0, 0.25, 1.0, 2.0, 1.0))]
"""(x, y, scale): a pan with some zooming."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    truth = SyntheticSlide((3, 3), (300, 360), 2, seed=21)
    return write_slide(truth, tmp_path_factory.mktemp("faults") / "slide.h5")


@pytest.fixture(scope="module")
def right(file: Path) -> list[np.ndarray]:
    """The pictures of the walk, from the file itself."""
    with open_slide(file) as slide, viewed(slide) as viewer:
        pictures = [settled(viewer, place) for place in WALK]
    assert all(picture[..., :3].std() > 10 for picture in pictures)  # there is something to see everywhere
    return pictures


@pytest.fixture
def server(file: Path) -> Iterator[ServerProcess]:
    with ServerProcess({"slide": file}, latency_s=0.005) as server:
        yield server


@contextmanager
def viewed(slide: Slide) -> Iterator[OffscreenViewer]:
    with OffscreenViewer(slide, size=SIZE, **SMALL) as viewer:
        for channel in viewer.channels:
            channel.limits = (0, 65535)
        yield viewer


def look(viewer: OffscreenViewer, place: tuple[float, float, float]) -> None:
    x_um, y_um, scale = place
    viewer.look_at(x_um, y_um, scale=scale)


def settled(viewer: OffscreenViewer, place: tuple[float, float, float]) -> np.ndarray:
    """The picture of a place once everything that failed has come after all."""
    look(viewer, place)
    end = time.monotonic() + SETTLED_S
    image = viewer.render()
    while viewer.report.tiles_failed or viewer.report.tiles_missing:
        assert time.monotonic() < end, viewer.failures()
        time.sleep(0.05)
        image = viewer.render()
    return image


def assert_walk_is_right(viewer: OffscreenViewer, right: list[np.ndarray]) -> None:
    for place, expected in zip(WALK, right, strict=True):
        np.testing.assert_array_equal(settled(viewer, place), expected, err_msg=str(place))


def pan(viewer: OffscreenViewer, meanwhile: Callable[[int], None]) -> None:
    """Move along the walk without waiting for any tile."""
    for step, place in enumerate(WALK):
        look(viewer, place)
        viewer.render(wait=False)
        meanwhile(step)
        viewer.render(wait=False)


def test_nothing_happens_and_the_view_is_right(server: ServerProcess, right: list[np.ndarray]):
    with RemoteSlide(f"{server.address}/slide") as slide, viewed(slide) as viewer:
        assert_walk_is_right(viewer, right)


def test_a_server_killed_in_the_middle_of_a_pan_and_restarted(server: ServerProcess, right: list[np.ndarray]):
    def meanwhile(step: int) -> None:
        if step == 2:
            server.kill()
        if step == 5:
            server.start()

    with RemoteSlide(f"{server.address}/slide", disk_cache=None, timeout_s=0.5) as slide, viewed(slide) as viewer:
        np.testing.assert_array_equal(settled(viewer, WALK[0]), right[0])
        pan(viewer, meanwhile)
        assert_walk_is_right(viewer, right)


def test_while_the_server_is_away_what_was_seen_goes_on_being_shown(server: ServerProcess, right: list[np.ndarray]):
    with RemoteSlide(f"{server.address}/slide", disk_cache=None, timeout_s=0.3) as slide, viewed(slide) as viewer:
        viewer.engine.prefetches = False
        np.testing.assert_array_equal(settled(viewer, WALK[0]), right[0])
        server.kill()
        look(viewer, WALK[7])
        started = time.monotonic()
        viewer.render()  # complete but for what failed
        assert time.monotonic() - started < SETTLED_S
        assert viewer.report.tiles_failed
        assert any("no answer" in line for line in viewer.failures())
        look(viewer, WALK[0])
        np.testing.assert_array_equal(viewer.render(), right[0])
        server.start()
        assert_walk_is_right(viewer, right)


@pytest.mark.parametrize("delay_s", [0.001, 0.02, 0.1])
def test_a_far_server(server: ServerProcess, right: list[np.ndarray], delay_s: float):
    with Proxy(server.address, delay_s) as proxy, RemoteSlide(f"{proxy.address}/slide") as slide, viewed(slide) as viewer:
        pan(viewer, lambda _: time.sleep(0.01))
        assert_walk_is_right(viewer, right)


def test_connections_cut_again_and_again(server: ServerProcess, right: list[np.ndarray]):
    done = threading.Event()

    def cut_on() -> None:
        while not done.wait(0.05):
            proxy.cut()

    with Proxy(server.address, 0.002) as proxy, RemoteSlide(f"{proxy.address}/slide", disk_cache=None) as slide:
        cutter = threading.Thread(target=cut_on)
        cutter.start()
        try:
            with viewed(slide) as viewer:
                pan(viewer, lambda _: time.sleep(0.05))
                np.testing.assert_array_equal(settled(viewer, WALK[-1]), right[-1])
                done.set()
                assert_walk_is_right(viewer, right)
        finally:
            done.set()
            cutter.join()


def test_a_network_that_stalls(server: ServerProcess, right: list[np.ndarray], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "HEARTBEAT_MS", 100)
    monkeypatch.setattr(wire, "HEARTBEAT_TIMEOUT_MS", 300)

    def meanwhile(step: int) -> None:
        if step == 2:
            proxy.stall()
        if step == 4:
            time.sleep(1.0)
        if step == 5:
            proxy.flow()

    with Proxy(server.address) as proxy, RemoteSlide(f"{proxy.address}/slide", disk_cache=None, timeout_s=0.5) as slide:
        with viewed(slide) as viewer:
            pan(viewer, meanwhile)
            assert_walk_is_right(viewer, right)


def test_a_disk_cache_with_flipped_bytes_on_every_page(server: ServerProcess, right: list[np.ndarray], tmp_path: Path):
    with DiskCache(tmp_path, 64 << 20) as cache, RemoteSlide(f"{server.address}/slide", disk_cache=cache) as slide:
        with viewed(slide) as viewer:
            assert_walk_is_right(viewer, right)
    whole = (tmp_path / NAME).read_bytes()
    dice = random.Random(5)
    for spare in (0, 1, 5):  # nothing, the first page or the first few are spared: the database can still be opened, or not
        spoiled = bytearray(whole)
        for page in range(spare, len(whole) // PAGE_NBYTES):
            spoiled[page * PAGE_NBYTES + dice.randrange(PAGE_NBYTES)] ^= dice.randrange(1, 256)
        (tmp_path / NAME).write_bytes(spoiled)
        with DiskCache(tmp_path, 64 << 20) as cache, RemoteSlide(f"{server.address}/slide", disk_cache=cache) as slide:
            with viewed(slide) as viewer:
                assert_walk_is_right(viewer, right)
            assert cache.enabled


def _read_for_ever(location: str, folder: str) -> None:
    """What a viewer does to its disk cache, until it is killed."""
    with DiskCache(folder, 64 << 20) as cache, RemoteSlide(location, disk_cache=cache) as slide:
        keys = list(tile_keys(slide))
        outs = np.empty((len(keys), *slide.tiling.tile_shape), np.uint16)
        while True:
            slide.read_tiles(keys, list(outs))
            for key in keys:
                cache.drop(slide.identity, key)


def _size_of(path: Path) -> int:
    """Bytes of a file that another process makes and removes; 0 while there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def test_a_viewer_killed_while_it_writes_its_disk_cache(server: ServerProcess, right: list[np.ndarray], tmp_path: Path):
    location = f"{server.address}/slide"
    for delay_s in (0.0, 0.03):
        reader = multiprocessing.get_context("spawn").Process(target=_read_for_ever, args=(location, str(tmp_path)))
        reader.start()
        log = tmp_path / f"{NAME}-wal"
        while _size_of(log) < 200_000:
            assert reader.is_alive()
            time.sleep(0.005)
        time.sleep(delay_s)
        reader.kill()
        reader.join()
        reader.close()
        with DiskCache(tmp_path, 64 << 20) as cache, RemoteSlide(location, disk_cache=cache) as slide:
            with viewed(slide) as viewer:
                assert_walk_is_right(viewer, right)
            assert cache.enabled
    assert not (tmp_path / f"{NAME}.damaged").exists()
