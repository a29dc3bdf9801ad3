"""What every test may rely on, and what none may leave behind: files, threads, GL objects, a used cache."""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.register_assert_rewrite("contract")

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_DATA = REPOSITORY.parent / "shared" / "data"
DESCRIPTORS = Path("/proc/self/fd")
NOT_OURS = ("/dev/", "/proc/", "/sys/", "/usr/", "/lib", "/memfd:")
MESA_CACHE = "/mesa_shader_cache"
THREAD_GRACE_S = 2.0


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real acquisitions; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real acquisitions are not here (looked for {REAL_DATA})")
    return REAL_DATA


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test, and no fixture of a wider scope than a test, reads or fills the user's cache, preferences or keys."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAWMOSAIC_CACHE", str(folder))
        patch.setenv("RAWMOSAIC_DATA", str(folder / "data"))
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield folder


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own, and an empty folder for what belongs to the user."""
    name = re.sub(r"\W+", "-", request.node.nodeid)[-80:]
    folder = session_cache / f"{name}-{time.monotonic_ns()}"
    monkeypatch.setenv("RAWMOSAIC_CACHE", str(folder))
    monkeypatch.setenv("RAWMOSAIC_DATA", str(folder / "data"))
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random numbers are the same in every run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  what a library draws from the global generator


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """No file or socket is open after a test that was not open before."""
    before = _open_files()
    yield
    left = _open_files() - before
    assert not left, f"left open: {sorted(left.elements())}"


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """No thread is alive after a test that was not alive before; one that is just ending is waited for."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_GRACE_S
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"still alive: {sorted(thread.name for thread in left)}"


@pytest.fixture(autouse=True)
def no_gl_object_left() -> Iterator[None]:
    """No GL object lives after a test that did not live before, and no GL error waits."""
    before = _live_gl_objects()
    yield
    left = _live_gl_objects() - before
    assert not left, f"GL objects left: {dict(left)}"
    errors = _gl_errors()
    assert not errors, f"GL errors left: {errors}"


def _open_files() -> Counter[str]:
    """Files and sockets this process has open, counted; libraries, devices and anonymous memory do not count."""
    found: Counter[str] = Counter()
    if not DESCRIPTORS.is_dir():
        return found
    for descriptor in DESCRIPTORS.iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:  # the descriptor of this very listing
            continue
        if MESA_CACHE in target:  # Mesa's own thread writes compiled shaders some time later
            continue
        if target.endswith((".py", ".pyc")) or ".pyc." in target:  # another thread is importing
            continue
        if target.startswith("socket:") or (target.startswith("/") and not target.startswith(NOT_OURS)):
            found[target] += 1
    return found


def _live_gl_objects() -> Counter[str]:
    """Counts of GL objects that somebody still owns, if anything of GL was imported at all."""
    api = sys.modules.get("rawmosaic.viewer.gl.api")
    return Counter(api.live_objects()) if api is not None else Counter()


def _gl_errors() -> list[int]:
    """The errors that wait in the current context, if there is one."""
    egl, gl = sys.modules.get("OpenGL.EGL"), sys.modules.get("OpenGL.GL")
    if egl is None or gl is None or not egl.eglGetCurrentContext():
        return []
    errors = []
    while (error := gl.glGetError()) != gl.GL_NO_ERROR and len(errors) < 8:
        errors.append(int(error))
    return errors
