"""How do we stand beside napari, on the same mosaic fused into a multiscale OME-Zarr for it? Both from process start to memory.

Opt-in: `python -m benchmarks peers` makes a virtual environment in the benchmark cache and installs napari, tensorstore and their
kin into it from the package index. The same file then runs inside that environment, where it knows nothing of rawmosaic:
`peers.py prepare SLIDE ZARR` fuses, `peers.py show ZARR STARTED` looks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np

QUESTION = (__doc__ or "").partition("\n")[0]
PACKAGES = ("napari[pyqt6]", "tensorstore", "h5py", "hdf5plugin")
SIZE = (1280, 720)
CHUNK = 512
SLAB_ROWS = 4 * CHUNK
JUMPS = 24
FRAMES = 24
COLORS = ("blue", "green", "magenta", "cyan")
SMALLEST_LEVEL_PX = 1024
FRUGAL = "64M"
"""Budget of each cache, for who wants memory rather than speed: by default what was decoded stays while there is room."""

INSTALL_TIMEOUT_S = 600


def run():
    """418 fields of 1392 × 1040 in four colours; the ratio is ours to napari's."""
    from benchmarks.harness import Figure, Result, say

    missing = environment_problem()
    if missing:
        say(f"peers: {missing}")
        return Result("peers", f"{QUESTION} Not measured: {missing}.", ())
    try:
        theirs = napari_figures()
    except RuntimeError as error:
        say(str(error))
        return Result("peers", f"{QUESTION} Not measured: napari did not run (the reason is on standard error).", ())
    ours = our_figures()
    figures = [Figure("napari: fusing and writing the pyramid", theirs["prepare"], "s", note="we: nothing to prepare")]
    figures.append(Figure("napari: memory for that", theirs["prepare_memory"], "MB"))
    for name, unit in (
        ("process start to first frame", "ms"),
        ("jump, median", "ms"),
        ("jump, p95", "ms"),
        ("pan, median", "ms"),
        ("pan, p95", "ms"),
        ("contrast, median", "ms"),
        ("memory", "MB"),
    ):
        figures.append(Figure(name, ours[name], unit, floor=theirs[name], target=1.0, note="floor: napari"))
    frugal = our_figures(RAWMOSAIC_RAM=FRUGAL, RAWMOSAIC_VRAM=FRUGAL)
    for name, unit in (("jump, median", "ms"), ("memory", "MB")):
        note = f"caches of {FRUGAL}B each; floor: napari"
        figures.append(Figure(name, frugal[name], unit, floor=theirs[name], target=1.0, note=note))
    return Result("peers", QUESTION, tuple(figures))


# in our own environment


def peer_python() -> Path:
    """The interpreter of the environment that napari lives in."""
    from benchmarks.harness import CACHE

    folder = CACHE / "peers-venv"
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def environment_problem() -> str | None:
    """Make the environment unless it is there; what is missing, or None."""
    from benchmarks.harness import say

    python = peer_python()
    try:
        if not python.exists():
            venv.create(python.parents[1], with_pip=True)
        if subprocess.run([python, "-c", "import napari, tensorstore, h5py, hdf5plugin"], capture_output=True).returncode:
            say("peers: installing " + ", ".join(PACKAGES))
            install = [python, "-m", "pip", "install", "-q", *PACKAGES]
            done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
            if done.returncode:
                return "napari could not be installed: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (OSError, subprocess.SubprocessError) as error:
        return f"napari could not be installed: {error}"
    if sys.platform.startswith("linux") and "DISPLAY" not in os.environ and shutil.which("xvfb-run") is None:
        return "napari needs a display, or xvfb-run (Debian and Ubuntu: apt install xvfb)"
    return None


def napari_figures() -> dict[str, float]:
    """Prepare (once, kept beside the other data) and look."""
    from benchmarks.data import paper_slide
    from benchmarks.harness import CACHE, say

    store, facts = CACHE / "peers.zarr", CACHE / "peers.json"
    if not facts.exists():
        say("peers: fusing …")
        shutil.rmtree(store, ignore_errors=True)
        facts.write_text(_inside("prepare", str(paper_slide()), str(store)))
    say("peers: napari …")
    return json.loads(facts.read_text()) | json.loads(_inside("show", str(store), repr(time.time()), display=True))


def _inside(*arguments: str, display: bool = False) -> str:
    """Standard output of this file, run by the other interpreter."""
    command = [str(peer_python()), __file__, *arguments]
    if display and "DISPLAY" not in os.environ and sys.platform.startswith("linux"):
        command = ["xvfb-run", "-a", "-s", "-screen 0 1920x1200x24", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


def our_figures(**budgets: str) -> dict[str, float]:
    """The same looks through our viewer, in a process of its own; `budgets` are variables of its environment."""
    from benchmarks.data import paper_slide

    command = [sys.executable, "-m", "benchmarks.peers", "ours", str(paper_slide()), repr(time.time())]
    environment = {**os.environ, **budgets}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def look_with_rawmosaic(path: str, started: float) -> dict[str, float]:
    """Open, jump, pan, change contrast."""
    from rawmosaic.storage import open_slide
    from rawmosaic.viewer import OffscreenViewer

    with open_slide(path) as slide, OffscreenViewer(slide, SIZE) as viewer:
        viewer.render()
        facts = {"process start to first frame": 1e3 * (time.time() - started)}
        left, top, right, bottom = viewer.engine.geometry.bounds_um
        um = slide.header.pixel_size_um

        def place(x: float, y: float, moved_px: float = 0.0) -> None:
            viewer.look_at(left + x * (right - left) + moved_px * um, top + y * (bottom - top), 1.0)

        def limits(change: int) -> None:
            viewer.channels[0].limits = (200 + change, 3000 - 10 * change)

        return facts | _walk(place, limits, viewer.render)


# in the other one


def prepare(slide_path: str, store: str) -> dict[str, float]:
    """Fuse every channel (the later field on top) and write it with its coarser levels as OME-Zarr 0.4."""
    import h5py
    import hdf5plugin  # noqa: F401  registers the filter
    import tensorstore

    start = time.perf_counter()
    with h5py.File(slide_path) as file:
        fields, planes = file["fields"][:], file["levels/0"]
        pixel_size_um = json.loads(file.attrs["header"])["pixel_size_um"]
        corners = np.stack([fields["y_um"], fields["x_um"]], axis=-1) / pixel_size_um
        corners -= np.stack([fields["height"], fields["width"]], axis=-1) / 2
        corners = np.round(corners - corners.min(axis=0)).astype(int)
        height = int((corners[:, 0] + fields["height"]).max())
        width = int((corners[:, 1] + fields["width"]).max())
        n_channels, shapes = planes.shape[1], [(height, width)]
        while max(shapes[-1]) > SMALLEST_LEVEL_PX:
            shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
        arrays = [_new_array(tensorstore, f"{store}/{level}", (n_channels, *shape)) for level, shape in enumerate(shapes)]
        for channel in range(n_channels):
            mosaic = np.zeros((height, width), np.uint16)
            for number, (y, x) in enumerate(corners):
                h, w = int(fields["height"][number]), int(fields["width"][number])
                mosaic[y : y + h, x : x + w] = planes[number, channel, 0, 0, :h, :w]
            for level, array in enumerate(arrays):
                if level:
                    mosaic = _halved(mosaic)
                for y in range(0, mosaic.shape[0], SLAB_ROWS):
                    slab = mosaic[y : y + SLAB_ROWS]
                    array[channel, y : y + len(slab)].write(slab).result()
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [1.0, float(2**level), float(2**level)]}]}
        for level in range(len(shapes))
    ]
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    Path(store, ".zgroup").write_text('{"zarr_format": 2}')
    attributes = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
    Path(store, ".zattrs").write_text(json.dumps(attributes))
    return {"prepare": time.perf_counter() - start, "prepare_memory": _peak_mb()}


def _new_array(tensorstore, path: str, shape: tuple[int, ...]):
    metadata = {
        "shape": shape,
        "chunks": [1, CHUNK, CHUNK],
        "dtype": "<u2",
        "dimension_separator": "/",
        "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2},
    }
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": path}, "metadata": metadata, "create": True}
    return tensorstore.open(spec).result()


def _halved(image: np.ndarray) -> np.ndarray:
    """Means of 2 × 2 pixels; a last odd row or column is dropped."""
    height, width = (side // 2 * 2 for side in image.shape)
    halved = np.empty((height // 2, width // 2), np.uint16)
    for y in range(0, height, SLAB_ROWS):
        slab = image[y : min(y + SLAB_ROWS, height), :width]
        rows = slab[0::2].astype(np.uint32) + slab[1::2]
        halved[y // 2 : (y + len(slab)) // 2] = (rows[:, 0::2] + rows[:, 1::2] + 2) >> 2
    return halved


def look_with_napari(store: str, started: float) -> dict[str, float]:
    """Open, jump, pan, change contrast, in a window whose canvas is as large as our picture."""
    import napari
    import tensorstore
    from qtpy.QtWidgets import QApplication

    n_levels = sum(path.name.isdigit() for path in Path(store).iterdir())
    levels = [
        tensorstore.open({"driver": "zarr", "kvstore": {"driver": "file", "path": f"{store}/{level}"}}, read=True).result()
        for level in range(n_levels)
    ]
    viewer = napari.Viewer(show=True)
    canvas = viewer.window._qt_viewer.canvas
    viewer.window._qt_viewer.dockLayerControls.hide()
    viewer.window._qt_viewer.dockLayerList.hide()
    canvas.native.setFixedSize(*SIZE)
    for channel in range(levels[0].shape[0]):
        viewer.add_image(
            [level[channel] for level in levels],
            multiscale=True,
            colormap=COLORS[channel % len(COLORS)],
            blending="additive",
            contrast_limits=(200, 3000),
        )
    viewer.reset_view()

    def frame() -> None:
        canvas.on_draw(None)  # chooses the level and reads; the picture follows
        canvas.native.grabFramebuffer()

    QApplication.processEvents()
    frame()
    facts = {"process start to first frame": 1e3 * (time.time() - started)}
    if not viewer.screenshot(flash=False)[..., :3].any():  # Qt's offscreen platform, for one, has no OpenGL and says little
        raise SystemExit("napari's canvas stays black: its figures would mean nothing")
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
    height, width = levels[0].shape[1:]

    def place(x: float, y: float, moved_px: float = 0.0) -> None:
        camera.center = (0, y * height, x * width + moved_px)
        camera.zoom = 1.0

    def limits(change: int) -> None:
        viewer.layers[0].contrast_limits = (200 + change, 3000 - 10 * change)

    facts |= _walk(place, limits, frame)
    viewer.close()
    return facts


# in both


def _walk(place: Callable[..., None], limits: Callable[[int], None], frame: Callable[[], object]) -> dict[str, float]:
    """Jumps to unseen places at 1:1, a drag, a contrast slider: milliseconds until the picture is complete, and memory, MB."""
    generator = np.random.default_rng(17)

    def timed(change: Callable[[], None]) -> float:
        start = time.perf_counter()
        change()
        frame()
        return 1e3 * (time.perf_counter() - start)

    jumps = [timed(lambda: place(*generator.uniform(0.1, 0.9, 2))) for _ in range(JUMPS)]
    x, y = generator.uniform(0.2, 0.8, 2)
    pans = [timed(lambda step=step: place(x, y, 16.0 * step)) for step in range(FRAMES)][1:]
    contrasts = [timed(lambda step=step: limits(step)) for step in range(FRAMES)]
    return {
        "jump, median": float(np.median(jumps)),
        "jump, p95": float(np.percentile(jumps, 95)),
        "pan, median": float(np.median(pans)),
        "pan, p95": float(np.percentile(pans, 95)),
        "contrast, median": float(np.median(contrasts)),
        "memory": _peak_mb(),
    }


def _peak_mb() -> float:
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    what, location, argument = sys.argv[1:]
    if what == "prepare":
        print(json.dumps(prepare(location, argument)))
    else:
        look = {"show": look_with_napari, "ours": look_with_rawmosaic}[what]
        print(json.dumps(look(location, float(argument))))
