"""A specimen that does not exist, and the raw acquisition of it: what `rawmosaic demo` and the benchmarks look at.

The specimen is one continuous folded tissue section, without end, in four stains. Every grey level is a function of its
pixel and the seed alone, so fields that overlap agree exactly until the camera adds its noise. It is rendered in blocks on
an absolute grid; each block is made of

- a *depth* field (smooth noise) whose level sets are the tissue's rim and its layers: sparse, dense with nuclei, fibres;
- nuclei and large cells, drawn one by one, kept or not by the depth at their centre;
- vessels: the zero lines of another smooth noise, with walls and an empty lumen;
- fibres: a noise texture stretched along the level sets of the depth.

Coordinates are pixels of the specimen, x right, y down, and may be negative.
"""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError, WriteError

STAINS = ("DAPI", "FITC", "Texas Red", "Cy5")
"""The four colours of the specimen: nuclei, cells and processes, fibres, vessels."""

POSITIONS_FILE = "positions.csv"
BLOCK_PX = 512
CACHED_BLOCKS = 48  # 4 MB each: a row of neighbouring fields shares most blocks

CAMERA_OFFSET = 100.0  # counts without light
CAMERA_MAXIMUM = 4095  # 12 bits
READ_NOISE = 12.0  # counts
SHOT_NOISE = 0.55  # variance per count of light
VIGNETTING = 0.14  # light lost in the corner of a field

# Depth of the layers' borders, in units of the depth field.
RIM, DENSE_FROM, DENSE_TO = -0.5, 0.0, 0.44

NUCLEUS_PITCH_PX, NUCLEUS_REACH_PX = 21, 27
CELL_PITCH_PX, CELL_REACH_PX = 52, 48


def specimen_field(x0: int, y0: int, height: int, width: int, channel: int, seed: int = 0) -> np.ndarray:
    """(height, width) float32 noiseless counts of the specimen in the rectangle whose first pixel is (x0, y0).

    `channel` counts `STAINS`; raises OutOfRangeError. Rectangles that overlap agree exactly. Any thread.
    """
    if not 0 <= channel < len(STAINS):
        raise OutOfRangeError("channel", channel, f"the specimen has channels 0 to {len(STAINS) - 1}: {', '.join(STAINS)}")
    out = np.empty((height, width), np.float32)
    for block_y in range(y0 // BLOCK_PX, (y0 + height - 1) // BLOCK_PX + 1):
        for block_x in range(x0 // BLOCK_PX, (x0 + width - 1) // BLOCK_PX + 1):
            top, left = block_y * BLOCK_PX - y0, block_x * BLOCK_PX - x0
            rows = slice(max(top, 0), min(top + BLOCK_PX, height))
            columns = slice(max(left, 0), min(left + BLOCK_PX, width))
            block = _block(block_x, block_y, seed)[channel]
            out[rows, columns] = block[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return out


def camera_image(light: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(height, width) uint16, 0 to 4095: what a 12-bit camera makes of noiseless counts, its vignetting and noise included."""
    signal = (light - CAMERA_OFFSET) * _vignetting(light.shape)
    noise = generator.standard_normal(light.shape, dtype=np.float32)
    noise *= np.sqrt(np.maximum(signal, 0) * SHOT_NOISE + READ_NOISE**2)
    signal += noise
    signal += CAMERA_OFFSET + 0.5
    return np.clip(signal, 0, CAMERA_MAXIMUM, out=signal).astype(np.uint16)


def write_acquisition(
    folder: str | os.PathLike,
    *,
    columns: int = 6,
    rows: int = 5,
    field_shape: tuple[int, int] = (1040, 1392),
    overlap: float = 0.1,
    seed: int = 0,
    pixel_size_um: float = 0.325,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Acquire the specimen into a folder of 16-bit TIFFs and a `positions.csv`; returns the folder.

    The table has the columns file, channel, x_um, y_um (centre of the field, µm, mosaic frame), row and column, in the
    order of acquisition: serpentine. The stage errs by up to a quarter of the overlap, in whole pixels, and the table says where
    it stood. The table is written last, so a folder that was interrupted is no acquisition. `progress(done, total)` counts
    planes. Raises AcquisitionError for sizes that make no mosaic and WriteError where the folder cannot be written.
    """
    if columns < 1 or rows < 1 or min(field_shape) < 8 or not 0 <= overlap < 0.9 or not pixel_size_um > 0:
        raise AcquisitionError(
            f"no mosaic of {columns} × {rows} fields of {field_shape[1]} × {field_shape[0]} pixels, overlap {overlap}, "
            f"{pixel_size_um} µm per pixel: it needs one field or more of 8 pixels or more, an overlap of 0 to 0.9, and a size",
            location=folder,
        )
    folder = Path(folder)
    shots = _stage_visits(columns, rows, field_shape, overlap, seed)
    total, done = len(shots) * len(STAINS), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in _in_order_of_completion(_acquire_field, ((folder, shot, field_shape, seed, pixel_size_um) for shot in shots)):
            done += len(STAINS)
            if progress is not None:
                progress(done, total)
        _write_table(folder / POSITIONS_FILE, shots, field_shape, pixel_size_um)
    except OSError as error:
        raise WriteError(f"the acquisition could not be written: {error.strerror or error}", location=folder) from error
    return folder


# the stage and the camera


@dataclass(frozen=True)
class _Shot:
    """One visit of the stage: mosaic index, first pixel of the field in the specimen, and the number of the visit."""

    number: int
    row: int
    column: int
    x0: int
    y0: int

    def file_name(self, stain: str) -> str:
        return f"r{self.row:03d}_c{self.column:03d}_{stain.replace(' ', '')}.tif"


def _stage_visits(columns: int, rows: int, field_shape: tuple[int, int], overlap: float, seed: int) -> list[_Shot]:
    """All visits in serpentine order, the mosaic centred on the specimen's origin."""
    height, width = field_shape
    step_y, step_x = round(height * (1 - overlap)), round(width * (1 - overlap))
    jitter_y, jitter_x = int(height * overlap / 4), int(width * overlap / 4)
    left, top = -((columns - 1) * step_x + width) // 2, -((rows - 1) * step_y + height) // 2
    generator = np.random.default_rng([seed, 1])
    shots = []
    for row in range(rows):
        for column in range(columns) if row % 2 == 0 else reversed(range(columns)):
            error_x = int(generator.integers(-jitter_x, jitter_x + 1))
            error_y = int(generator.integers(-jitter_y, jitter_y + 1))
            shots.append(_Shot(len(shots), row, column, left + column * step_x + error_x, top + row * step_y + error_y))
    return shots


def _acquire_field(
    stop: threading.Event, folder: Path, shot: _Shot, field_shape: tuple[int, int], seed: int, pixel_size_um: float
) -> None:
    import tifffile

    pixels_per_cm = 1e4 / pixel_size_um
    for channel, stain in enumerate(STAINS):
        if stop.is_set():
            return
        light = specimen_field(shot.x0, shot.y0, *field_shape, channel, seed)
        image = camera_image(light, np.random.default_rng([seed, 2, shot.number, channel]))
        tifffile.imwrite(
            folder / shot.file_name(stain),
            image,
            resolution=(pixels_per_cm, pixels_per_cm),
            resolutionunit="CENTIMETER",
            metadata=None,
        )


def _write_table(path: Path, shots: list[_Shot], field_shape: tuple[int, int], pixel_size_um: float) -> None:
    height, width = field_shape
    draft = path.with_name(path.name + ".part")
    with open(draft, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "channel", "x_um", "y_um", "row", "column"])
        for shot in shots:
            x_um, y_um = (shot.x0 + width / 2) * pixel_size_um, (shot.y0 + height / 2) * pixel_size_um
            for stain in STAINS:
                table.writerow([shot.file_name(stain), stain, f"{x_um:.4f}", f"{y_um:.4f}", shot.row, shot.column])
    os.replace(draft, path)


def _in_order_of_completion(function: Callable, calls: Iterator[tuple]) -> Iterator[None]:
    """Run `function(stop, *call)` in a few threads, in order and a few at a time, so that neighbours share what is cached.

    `stop` is set when an exception, such as Ctrl-C, ends the loop: nobody waits for whole fields then.
    """
    workers = min(os.cpu_count() or 1, 8)
    stop = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="specimen") as pool:
        try:
            running: set[Future] = {pool.submit(function, stop, *call) for call in islice(calls, workers)}
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    running |= {pool.submit(function, stop, *call) for call in islice(calls, 1)}
                    yield
        finally:
            stop.set()


@lru_cache(maxsize=4)
def _vignetting(shape: tuple[int, int]) -> np.ndarray:
    y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in shape)
    return 1 - np.float32(VIGNETTING / 2) * (x**2 + y[:, None] ** 2)


# the specimen


@lru_cache(maxsize=CACHED_BLOCKS)
def _block(block_x: int, block_y: int, seed: int) -> np.ndarray:
    """(4, BLOCK_PX, BLOCK_PX) float32 noiseless counts, read-only."""
    x0, y0 = block_x * BLOCK_PX, block_y * BLOCK_PX
    depth, depth_x, depth_y = _depth(x0, y0, seed)
    slope = np.hypot(depth_x, depth_y) + np.float32(2e-5)
    rim_px = (depth - np.float32(RIM)) / slope  # signed distance from the rim, inside positive; honest near the rim only
    tissue = _step(rim_px, -4, 4)
    dense = _step(depth, DENSE_FROM - 0.03, DENSE_FROM + 0.03) * _step(depth, DENSE_TO + 0.05, DENSE_TO - 0.05)
    fibrous = _step(depth, DENSE_TO - 0.06, DENSE_TO + 0.1)
    sparse = tissue * (1 - dense) * (1 - fibrous)

    wall, lumen = _vessels(x0, y0, seed)
    inside = tissue * (1 - np.float32(0.85) * lumen)
    nuclei, haloes, plasma = _nuclei(x0, y0, seed)
    bodies, dendrites = _large_cells(x0, y0, seed)
    grain = _noise(x0, y0, 5, seed, 20)
    cloud = _noise(x0, y0, 90, seed, 21) + np.float32(0.6) * _noise(x0, y0, 37, seed, 22)
    strands = _strands(x0, y0, depth, seed)
    network = _threads(x0, y0, seed)
    light = 1 + np.float32(0.05) * _noise(x0, y0, 5200, seed, 23)  # uneven staining, wider than a field
    rim = np.exp(-np.square((rim_px - 9) / 6)) * tissue
    debris = _debris(x0, y0, seed)

    out = np.empty((len(STAINS), BLOCK_PX, BLOCK_PX), np.float32)
    out[0] = 405 + 95 * inside * (1 + 0.3 * cloud) + 260 * haloes * (1 - lumen) + nuclei * (1 - lumen) * (1950 + 420 * grain)
    out[1] = 610 + inside * (
        sparse * (250 + 60 * cloud + 320 * network) + dense * (150 + 50 * cloud) + fibrous * (110 + 80 * strands)
    )
    out[1] += (420 * plasma + 1500 * bodies + 900 * dendrites) * (1 + 0.12 * grain) * inside + 180 * rim
    out[2] = 860 + inside * (fibrous * (230 + 760 * strands) + dense * (120 + 260 * strands**2) + sparse * (120 + 40 * cloud))
    out[2] += 160 * bodies * inside + 420 * rim + 120 * wall * tissue
    out[3] = 330 + inside * (110 + 35 * cloud + 130 * sparse) + tissue * 1500 * wall * (1 + 0.2 * grain) + 700 * rim
    out[3] += 120 * bodies * inside
    out *= light
    out += debris * np.array([2600, 1800, 900, 700], np.float32)[:, None, None]
    out.flags.writeable = False
    return out


def _depth(x0: int, y0: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(512, 512) float32 depth in the tissue and its derivatives per pixel along x and y."""
    total = np.zeros((3, BLOCK_PX, BLOCK_PX), np.float32)
    for wavelength, weight, salt in DEPTH_OCTAVES:
        for part, noise in zip(total, _noise_and_slopes(x0, y0, wavelength, seed, salt), strict=True):
            part += np.float32(weight) * noise
    total[0] += np.float32(DEPTH_BIAS)
    return total[0], total[1], total[2]


DEPTH_BIAS = 0.06
DEPTH_OCTAVES = ((1750, 0.5, 1), (830, 0.26, 2), (310, 0.075, 3), (120, 0.02, 4))
"""Wavelength in pixels, weight and salt of the noises whose sum is the depth."""


def _depth_at(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """(n,) depth at points: the same from whichever block it is asked."""
    return DEPTH_BIAS + sum(weight * _noise_at(x, y, wavelength, seed, salt) for wavelength, weight, salt in DEPTH_OCTAVES)


def _vessels(x0: int, y0: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Wall and lumen of the vessels, 0 to 1: lines where a smooth noise is zero, as wide as another one says."""
    wall = np.zeros((BLOCK_PX, BLOCK_PX), np.float32)
    lumen = np.zeros_like(wall)
    for wavelength, radius_px, salt in ((1500, 19, 30), (260, 4.5, 31)):
        value, slope_x, slope_y = _noise_and_slopes(x0, y0, wavelength, seed, salt)
        value = value + np.float32(0.06) * _noise(x0, y0, wavelength / 6, seed, salt + 10)
        distance = np.abs(value) / (np.hypot(slope_x, slope_y) + np.float32(0.25 / wavelength))
        radius = np.float32(radius_px) * (1 + np.float32(0.3) * _noise(x0, y0, wavelength / 2, seed, salt + 20))
        thickness = np.float32(1.6 + radius_px / 9)
        here = np.exp(-np.square((distance - radius) / thickness))
        if wavelength < 1000:  # capillaries end: they leave the section
            here *= _step(_noise(x0, y0, 190, seed, salt + 30), 0.0, 0.5)
        else:
            lumen = _step(radius - distance, 0, 3)
        np.maximum(wall, here, out=wall)
    return wall, lumen


def _strands(x0: int, y0: int, depth: np.ndarray, seed: int) -> np.ndarray:
    """Fibres, 0 to about 1: a noise texture, fine across the level sets of the depth and stretched along them."""
    texture = _texture(seed)
    y, x = (np.arange(start, start + BLOCK_PX, dtype=np.float32) for start in (y0, x0))
    across = depth * np.float32(620)
    along = (x + y[:, None] * np.float32(0.7)) * np.float32(0.035) + across * np.float32(0.05)
    column, row = np.floor(across), np.floor(along)
    weight_x, weight_y = across - column, along - row
    mask = len(texture) - 1
    column, row = column.astype(np.int32) & mask, row.astype(np.int32) & mask
    flat = texture.ravel()
    next_column = (column + 1) & mask
    row_start, next_row_start = row * len(texture), ((row + 1) & mask) * len(texture)
    upper = flat[row_start + column] * (1 - weight_x) + flat[row_start + next_column] * weight_x
    lower = flat[next_row_start + column] * (1 - weight_x) + flat[next_row_start + next_column] * weight_x
    strands = upper + (lower - upper) * weight_y
    return strands * strands


@lru_cache(maxsize=2)
def _texture(seed: int) -> np.ndarray:
    """(256, 256) float32 noise, 0 to 1, smooth over two or three texels across; repeats at its borders."""
    raw = np.random.default_rng([seed, 3]).random((256, 256), dtype=np.float32)
    smooth = (raw + np.roll(raw, 1, axis=1) + np.float32(0.5) * np.roll(raw, 2, axis=1)) / np.float32(2.5)
    return np.clip((smooth - np.float32(0.2)) / np.float32(0.6), 0, 1)


def _threads(x0: int, y0: int, seed: int) -> np.ndarray:
    """A fine network of processes, 0 to 1: two layers of zero lines of smooth noise, faded in and out."""
    network = np.zeros((BLOCK_PX, BLOCK_PX), np.float32)
    for wavelength, salt in ((46, 40), (71, 41)):
        value, slope_x, slope_y = _noise_and_slopes(x0, y0, wavelength, seed, salt)
        distance = np.abs(value) / (np.hypot(slope_x, slope_y) + np.float32(0.3 / wavelength))
        line = np.exp(-np.square(distance / np.float32(1.4)))
        line *= _step(_noise(x0, y0, wavelength * 1.7, seed, salt + 10), -0.2, 0.6)
        np.maximum(network, line, out=network)
    return network


def _nuclei(x0: int, y0: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nuclei, the blurred light about them, and the plasma of those that are stained: each (512, 512) float32, 0 to 1."""
    x, y, chance = _scattered(x0, y0, NUCLEUS_PITCH_PX, NUCLEUS_REACH_PX, seed, 50)
    depth = _depth_at(x, y, seed)
    density = np.where(depth < RIM + 0.02, 0, np.where(depth < DENSE_FROM, 0.1, np.where(depth < DENSE_TO, 0.9, 0.17)))
    kept = chance[:, 0] < density
    x, y, chance, depth = x[kept], y[kept], chance[kept], depth[kept]
    small = np.where((depth > DENSE_FROM) & (depth < DENSE_TO), 0.8, 1.0)
    radius = (8 + 2.8 * chance[:, 1]) * small
    long = 1 + 0.45 * chance[:, 2] ** 2
    brightness = 0.45 + 0.5 * chance[:, 3] ** 2 + 0.05 * chance[:, 4]
    stained = chance[:, 5] < np.where(small < 1, 0.08, 0.3)

    canvases = np.zeros((3, BLOCK_PX, BLOCK_PX), np.float32)
    distance, windows = _ellipses(x, y, radius, long, np.pi * chance[:, 6], NUCLEUS_REACH_PX, x0, y0)
    _stamp(canvases[0], _step(distance, 1.12, 0.82) * brightness[:, None, None].astype(np.float32), windows)
    _stamp(canvases[1], np.exp(-np.square(distance / np.float32(0.95))) * brightness[:, None, None].astype(np.float32), windows)
    _stamp(canvases[2], _step(distance, 1.7, 0.7) * stained[:, None, None].astype(np.float32), windows)
    return canvases[0], canvases[1], canvases[2]


def _large_cells(x0: int, y0: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bodies of the large cells along the dense layer's rim, and the stems of their processes: each (512, 512), 0 to 1."""
    x, y, chance = _scattered(x0, y0, CELL_PITCH_PX, CELL_REACH_PX, seed, 51)
    depth = _depth_at(x, y, seed)
    kept = np.abs(depth - DENSE_FROM + 0.012) < 0.03
    x, y, chance = x[kept], y[kept], chance[kept]
    step = 6.0
    slope_x, slope_y = (
        (_depth_at(x + dx, y + dy, seed) - _depth_at(x - dx, y - dy, seed)) / (2 * step) for dx, dy in ((step, 0), (0, step))
    )
    angle = np.arctan2(slope_y, slope_x) + 0.6 * (chance[:, 1] - 0.5)
    bodies, stems = np.zeros((2, BLOCK_PX, BLOCK_PX), np.float32)
    radius = 11.5 + 4 * chance[:, 2]
    distance, windows = _ellipses(x, y, radius, 1.35, angle, CELL_REACH_PX, x0, y0)
    pale_nucleus = 1 - np.float32(0.45) * _step(distance, 0.5, 0.3)
    _stamp(bodies, _step(distance, 1.1, 0.8) * pale_nucleus * (0.7 + 0.3 * chance[:, 3, None, None].astype(np.float32)), windows)
    for turn, length in ((0.0, 14.0), (0.5, 10.0), (-0.45, 11.0)):  # stems point out of the dense layer, up the depth's slope
        bend = angle + turn
        reach = 16 + length * 0.8
        stem_x, stem_y = x - np.cos(bend) * reach, y - np.sin(bend) * reach
        distance, windows = _ellipses(stem_x, stem_y, 2.2 * np.ones(len(x)), length * 0.75, bend, CELL_REACH_PX, x0, y0)
        _stamp(stems, np.exp(-np.square(distance)), windows)
    return bodies, stems


def _debris(x0: int, y0: int, seed: int) -> np.ndarray:
    """A few specks that saturate the camera, 0 to 1.5."""
    x, y, chance = _scattered(x0, y0, 260, 24, seed, 52)
    kept = chance[:, 0] < 0.12
    x, y, chance = x[kept], y[kept], chance[kept]
    canvas = np.zeros((BLOCK_PX, BLOCK_PX), np.float32)
    radius = 1.5 + 4 * chance[:, 1] ** 3
    distance, windows = _ellipses(x, y, radius, 1 + chance[:, 2], np.pi * chance[:, 3], 24, x0, y0)
    _stamp(canvas, np.float32(1.5) * np.exp(-np.square(distance)), windows)
    return canvas


# small things strewn over the plane


def _scattered(x0: int, y0: int, pitch: int, reach: int, seed: int, salt: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres x, y (n,) of all things that may reach into a block, one a cell of a jittered grid, and (n, 8) chances, 0 to 1."""
    row, column = np.meshgrid(
        np.arange((y0 - reach) // pitch - 1, (y0 + BLOCK_PX + reach) // pitch + 1),
        np.arange((x0 - reach) // pitch - 1, (x0 + BLOCK_PX + reach) // pitch + 1),
        indexing="ij",
    )
    row, column = row.ravel(), column.ravel()
    jitter_x, jitter_y = _random(column, row, seed, salt), _random(column, row, seed, salt + 100)
    chance = np.stack([_random(column, row, seed, salt + 100 * n) for n in range(2, 10)], axis=-1)
    return (column + jitter_x) * pitch, (row + jitter_y) * pitch, chance


Windows = list[tuple[int, int]]


def _ellipses(
    x: np.ndarray, y: np.ndarray, radius: np.ndarray, long: np.ndarray | float, angle: np.ndarray, reach: int, x0: int, y0: int
) -> tuple[np.ndarray, Windows]:
    """(n, 2·reach, 2·reach) float32 elliptical distances (1: on the outline), and where in the block each stamp begins."""
    left, top = np.floor(x).astype(np.int64) - reach, np.floor(y).astype(np.int64) - reach
    steps = np.arange(2 * reach) + 0.5
    dx = (steps[None, :] + (left - x)[:, None]).astype(np.float32)[:, None, :]
    dy = (steps[None, :] + (top - y)[:, None]).astype(np.float32)[:, :, None]
    cosine, sine = (part(angle).astype(np.float32)[:, None, None] for part in (np.cos, np.sin))
    short = (1 / radius).astype(np.float32)[:, None, None]
    along = (dx * cosine + dy * sine) * (short / np.broadcast_to(long, x.shape).astype(np.float32)[:, None, None])
    across = (dy * cosine - dx * sine) * short
    return np.hypot(along, across), list(zip((left - x0).tolist(), (top - y0).tolist(), strict=True))


def _stamp(canvas: np.ndarray, stamps: np.ndarray, windows: Windows) -> None:
    """Draw stamps into the canvas, the brighter wins: their order does not matter, so neighbouring blocks agree."""
    size = stamps.shape[1]
    for stamp, (left, top) in zip(stamps, windows, strict=True):
        y_from, x_from = max(-top, 0), max(-left, 0)
        y_to, x_to = min(canvas.shape[0] - top, size), min(canvas.shape[1] - left, size)
        if y_from < y_to and x_from < x_to:
            view = canvas[top + y_from : top + y_to, left + x_from : left + x_to]
            np.maximum(view, stamp[y_from:y_to, x_from:x_to], out=view)


# noise


def _noise(x0: int, y0: int, wavelength: float, seed: int, salt: int) -> np.ndarray:
    """(512, 512) float32 smooth noise, deviation about 1: random values on a lattice, cubic B-splines between them."""
    rows, lattice, columns = _lattice(x0, y0, wavelength, seed, salt)
    return rows[0] @ lattice @ columns[0].T


def _noise_and_slopes(x0: int, y0: int, wavelength: float, seed: int, salt: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The noise and its derivatives per pixel along x and y."""
    rows, lattice, columns = _lattice(x0, y0, wavelength, seed, salt)
    half = rows[0] @ lattice
    return half @ columns[0].T, half @ columns[1].T, rows[1] @ lattice @ columns[0].T


def _lattice(x0: int, y0: int, wavelength: float, seed: int, salt: int) -> tuple[tuple, np.ndarray, tuple]:
    first_row, *rows = _spline_matrices(y0, wavelength)
    first_column, *columns = _spline_matrices(x0, wavelength)
    row = np.arange(first_row, first_row + rows[0].shape[1])[:, None]
    column = np.arange(first_column, first_column + columns[0].shape[1])
    return tuple(rows), _lattice_values(column, row, seed, salt).astype(np.float32), tuple(columns)


@lru_cache(maxsize=256)
def _spline_matrices(start: int, wavelength: float) -> tuple[int, np.ndarray, np.ndarray]:
    """First lattice number, and the (512, m) float32 weights of the lattice for the values and for the slopes."""
    position = (start + np.arange(BLOCK_PX) + 0.5) / wavelength
    cell = np.floor(position).astype(np.int64)
    first = int(cell[0]) - 1
    values = np.zeros((BLOCK_PX, int(cell[-1]) + 3 - first), np.float32)
    slopes = np.zeros_like(values)
    pixels = np.arange(BLOCK_PX)
    for tap, (value, slope) in enumerate(_spline(position - cell)):
        values[pixels, cell - 1 + tap - first] = value
        slopes[pixels, cell - 1 + tap - first] = slope / wavelength
    return first, values, slopes


def _noise_at(x: np.ndarray, y: np.ndarray, wavelength: float, seed: int, salt: int) -> np.ndarray:
    """(n,) float64: the same noise at points, from their sixteen lattice values each."""
    cell_x, cell_y = np.floor(x / wavelength).astype(np.int64), np.floor(y / wavelength).astype(np.int64)
    weights_x, weights_y = (_spline(at / wavelength - cell) for at, cell in ((x, cell_x), (y, cell_y)))
    total = np.zeros(len(x))
    for i, (weight_y, _) in enumerate(weights_y):
        for j, (weight_x, _) in enumerate(weights_x):
            total += weight_x * weight_y * _lattice_values(cell_x - 1 + j, cell_y - 1 + i, seed, salt)
    return total


def _spline(u: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Weights of the four neighbours of a cubic B-spline at 0 ≤ u < 1 past the second of them, and their derivatives."""
    v = 1 - u
    return (
        (v**3 / 6, -(v**2) / 2),
        ((3 * u**3 - 6 * u**2 + 4) / 6, (3 * u**2 - 4 * u) / 2),
        ((3 * v**3 - 6 * v**2 + 4) / 6, -(3 * v**2 - 4 * v) / 2),
        (u**3 / 6, u**2 / 2),
    )


def _lattice_values(column: np.ndarray, row: np.ndarray, seed: int, salt: int) -> np.ndarray:
    """Random values whose spline has a deviation of about 1: uniform over ± √3, times what the spline smooths away."""
    return (_random(column, row, seed, salt) - 0.5) * (2 * 3**0.5 / 0.48)


def _random(column: np.ndarray, row: np.ndarray, seed: int, salt: int) -> np.ndarray:
    """Float64 in [0, 1), a hash of the integers."""
    word = column.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + row.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    word += np.uint64((seed * 1_000_003 + salt * 7919 + 1) * 0xD6E8FEB86659FD93 & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ (word >> np.uint64(shift))) * np.uint64(factor)
    return ((word ^ (word >> np.uint64(31))) >> np.uint64(11)) * (1.0 / (1 << 53))


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; the other way round where `low` > `high`."""
    part = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return part * part * (3 - 2 * part)
