"""Slides for tests and benchmarks: synthetic ones whose every pixel is known beforehand, slow, failing and growing ones.

The pixels of `SyntheticSlide` are computed from (field, channel, z, t, y, x) when they are asked for, so a plane, tile or
pixel that ends up at the wrong place is seen by an exact comparison, and a hundred thousand fields cost no memory.
Nothing here needs a file; `write_slide` alone imports the writer, when it is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rawmosaic.storage.errors import DamagedSlideError
from rawmosaic.storage.placement import orientation_matrix
from rawmosaic.storage.pyramid import TileKey, Tiling
from rawmosaic.storage.slide import GREY_LEVELS, Channel, Header, PositionSet, Slide, new_fields, spatial_slots

EXACT_HISTOGRAM_PX = 1 << 26
"""Up to so many acquired pixels of a channel the histogram of a synthetic slide counts each of them."""

PlaneKey = tuple[int, int, int, int, int]
"""Which plane is read: field, channel, z, t, level."""


class SyntheticSlide(Slide):
    """A made-up acquisition of any size, the same for the same arguments.

    Parameters
    ----------
    grid
        (rows, columns) of fields, numbered row by row.
    field_shape
        (height, width) of the fields, pixels.
    channels
        How many, or their names, or `Channel` themselves.
    overlap
        Part of a field that its neighbour sees again, 0 to 1; negative leaves gaps.
    jitter_px
        Fields lie at random up to this far from the regular grid, in x and in y, at fractions of a pixel.
    sparse
        Part of the planes that was not acquired, 0 to 1.
    one_channel_per_field
        Field n has only channel n modulo the number of channels: one mosaic per colour.
    shapes
        If given, each field has one of these (height, width) shapes, taken at random.
    plane_offset_px, channel_offset_px
        Planes of one field, and all planes of one channel, lie at random up to this far from the field's position.
    orientation
        (2, 2) image axes → mosaic axes, without pixel size: a flip, a rotation, a shear.
    extra_sets
        Names of position sets beside `stage`: other positions, a slightly turned matrix and, in every second one, plane offsets.
    smooth
        False: grey levels hash the pixel's address. True: all planes are cut from one continuous specimen, as they lie in the
        `stage` set, so that a correct mosaic shows no seam.
    origin_um
        Where the first field lies, but for its jitter; stages count from far away.
    pixel_size_um, size_z, size_t, scenes, seed, name
        As the words say. Scenes share the rows out evenly.
    """

    def __init__(
        self,
        grid: tuple[int, int] = (3, 4),
        field_shape: tuple[int, int] = (96, 128),
        channels: int | Sequence[str | Channel] = 2,
        *,
        size_z: int = 1,
        size_t: int = 1,
        overlap: float = 0.1,
        jitter_px: float = 3.0,
        sparse: float = 0.0,
        one_channel_per_field: bool = False,
        shapes: Sequence[tuple[int, int]] | None = None,
        plane_offset_px: float = 0.0,
        channel_offset_px: float = 0.0,
        orientation: np.ndarray | None = None,
        extra_sets: Sequence[str] = (),
        smooth: bool = False,
        pixel_size_um: float = 0.5,
        origin_um: tuple[float, float] = (0.0, 0.0),
        scenes: Sequence[str] = (),
        seed: int = 0,
        name: str = "synthetic",
        tiling: Tiling | None = None,
    ):
        random = np.random.default_rng(seed)
        rows, columns = grid
        n = rows * columns
        matrix = np.eye(2) if orientation is None else np.asarray(orientation, np.float64)
        channels = _as_channels(channels)
        fields = new_fields(n, field_shape)
        if shapes is not None:
            chosen = np.asarray(shapes, np.int32).reshape(-1, 2)[random.integers(len(shapes), size=n)]
            fields["height"], fields["width"] = chosen[:, 0], chosen[:, 1]
        fields["row"], fields["column"] = np.divmod(np.arange(n), max(columns, 1))
        if scenes:
            fields["scene"] = fields["row"] * len(scenes) // max(rows, 1)
        stage = self._grid_positions(fields, field_shape, overlap, jitter_px, random) @ matrix.T * pixel_size_um + origin_um
        fields["x_um"], fields["y_um"] = stage.T
        fields["z_um"] = random.uniform(-5, 5, n)
        fields["slot"] = spatial_slots(stage)
        offset_um = plane_offset_px * pixel_size_um
        plane_offsets = random.uniform(-offset_um, offset_um, (n, len(channels), 2)) if plane_offset_px else None
        sets = {"stage": PositionSet(stage, plane_offsets_um=plane_offsets)}
        for number, set_name in enumerate(extra_sets, start=1):
            moved = stage + random.uniform(-4, 4, stage.shape) * pixel_size_um
            offsets = random.uniform(-2, 2, (n, len(channels), 2)) * pixel_size_um if number % 2 == 0 else None
            sets[set_name] = PositionSet(moved, orientation_matrix(camera_angle_deg=number) @ matrix, offsets)
        shift_um = channel_offset_px * pixel_size_um
        super().__init__(
            location=f"synthetic:{name}",
            header=Header(name, "2012-07-01T12:00:00", pixel_size_um, "10x/0.3", "synthetic", extra={"seed": seed}),
            channels=channels,
            fields=fields,
            position_sets=sets,
            size_z=size_z,
            size_t=size_t,
            scenes=tuple(scenes),
            tiling=tiling,
            orientation=matrix,
            offsets_um=random.uniform(-shift_um, shift_um, (len(channels), 2)),
        )
        self.seed, self.sparse, self.smooth = seed, sparse, smooth
        self.one_channel_per_field = one_channel_per_field
        self._histograms: dict[int, np.ndarray] = {}
        self._stage = self.placement()

    @staticmethod
    def _grid_positions(
        fields: np.ndarray, field_shape: tuple[int, int], overlap: float, jitter_px: float, random: np.random.Generator
    ) -> np.ndarray:
        """(n, 2) float64 centres in pixels, image axes."""
        step_px = (1 - overlap) * np.array([field_shape[1], field_shape[0]])
        places = np.stack([fields["column"], fields["row"]], axis=-1) * step_px
        return places + random.uniform(-jitter_px, jitter_px, places.shape)

    @property
    def all_position_sets(self) -> dict[str, PositionSet]:
        """The position sets by name, as `SlideWriter` takes them."""
        return dict(self._position_sets)

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist."""
        self._check_index("z", z, self.size_z)
        self._check_index("t", t, self.size_t)
        return self._exists(np.arange(self.n_fields)[:, None], np.arange(len(self.channels))[None, :], z, t)

    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of a channel: exact, but of an even sample of planes above EXACT_HISTOGRAM_PX pixels."""
        self.check_channel(channel)
        if channel not in self._histograms:
            self._histograms[channel] = self._count(channel)
        return self._histograms[channel].copy()

    def _count(self, channel: int) -> np.ndarray:
        counts = np.zeros(GREY_LEVELS, np.uint64)
        budget_px = EXACT_HISTOGRAM_PX // (self.size_z * self.size_t)
        total_px = int((self.fields["height"].astype(np.int64) * self.fields["width"]).sum())
        stride = max(1, -(-total_px // budget_px))
        if stride > 1:  # few planes stand for a large slide, so that opening one costs no scan of it
            stride = max(stride, self.n_fields // 16)
        for t in range(self.size_t):
            for z in range(self.size_z):
                for field in range(0, self.n_fields, stride):
                    if self._is_acquired(field, channel, z, t):
                        plane = self._read_plane(field, channel, z, t)
                        counts += np.bincount(plane.ravel(), minlength=GREY_LEVELS).astype(np.uint64)
        return counts * np.uint64(stride)

    def _exists(self, field: np.ndarray | int, channel: np.ndarray | int, z: int, t: int) -> np.ndarray:
        draw = plane_hash(field, channel, z, t, self.seed + 1).astype(np.float64) / 2**32
        exists = draw >= self.sparse
        return exists & (field % len(self.channels) == channel) if self.one_channel_per_field else exists

    def _is_acquired(self, field: int, channel: int, z: int, t: int) -> bool:
        return bool(self._exists(field, channel, z, t))

    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        shape = int(self.fields["height"][field]), int(self.fields["width"][field])
        if not self.smooth:
            return hashed_plane(shape, field, channel, z, t, self.seed)
        stage = self._stage
        centre_um = stage.positions_um[field] + stage.offsets_um[channel]
        if stage.plane_offsets_um is not None:
            centre_um = centre_um + stage.plane_offsets_um[field, channel]
        pixel_um = self.header.pixel_size_um
        return specimen_plane(shape, centre_um / pixel_um, stage.matrix_um / pixel_um, channel, z, t)


def plane_hash(field: np.ndarray | int, channel: np.ndarray | int, z: int, t: int, seed: int) -> np.ndarray:
    """uint32 that differs, as good as surely, between planes; arguments broadcast."""
    value = np.asarray(field, np.uint64) * np.uint64(0x9E3779B97F4A7C15 & (2**64 - 1))
    for salt, part in enumerate((channel, z, t, seed), start=1):
        value = value ^ (np.asarray(part, np.uint64) + np.uint64(0x51ED270B * salt))
        value = (value ^ (value >> np.uint64(31))) * np.full_like(value, 0xBF58476D1CE4E5B9)
    return (value >> np.uint64(32)).astype(np.uint32)


def hashed_plane(shape: tuple[int, int], field: int, channel: int, z: int, t: int, seed: int = 0) -> np.ndarray:
    """(height, width) uint16 that encode where they belong.

    Half of the range tells planes apart, so that even the mean of a field is its own; the other half tells pixels apart.
    """
    plane = int(plane_hash(field, channel, z, t, seed))
    rows = np.arange(shape[0], dtype=np.uint32) * np.uint32(0x9E3779B1) ^ np.uint32(plane)
    columns = np.arange(shape[1], dtype=np.uint32) * np.uint32(0x85EBCA77)
    mixed = rows[:, None] + columns[None, :]
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0xC2B2AE3D)
    mixed >>= np.uint32(17)
    mixed += np.uint32(plane >> 17)
    return mixed.astype(np.uint16)


WAVES = ((311.0, 0.3, 6000.0), (173.0, 1.9, 5000.0), (97.0, 3.4, 3000.0), (61.0, 5.1, 2000.0))
"""The specimen is a sum of plane waves: wavelength (image pixels), direction (rad), amplitude (counts)."""

SPECIMEN_MEAN = 20000.0


def specimen(x_px: np.ndarray, y_px: np.ndarray, channel: int = 0, z: int = 0, t: int = 0) -> np.ndarray:
    """float64 counts of the continuous specimen at mosaic places in units of the pixel size; arguments broadcast."""
    total = SPECIMEN_MEAN
    for wavelength, angle, amplitude, phase in _waves(channel, z, t):
        turn = 2 * np.pi / wavelength
        total = total + amplitude * np.cos(turn * (np.cos(angle) * x_px + np.sin(angle) * y_px) + phase)
    return np.asarray(total)


def specimen_plane(
    shape: tuple[int, int], centre_px: np.ndarray, matrix: np.ndarray, channel: int, z: int = 0, t: int = 0
) -> np.ndarray:
    """(height, width) uint16: what a camera of this matrix (image axes → mosaic axes) sees of the specimen about `centre_px`."""
    columns = np.arange(shape[1]) + 0.5 - shape[1] / 2
    rows = np.arange(shape[0]) + 0.5 - shape[0] / 2
    total = np.full(shape, SPECIMEN_MEAN)
    for wavelength, angle, amplitude, phase in _waves(channel, z, t):
        wave = 2 * np.pi / wavelength * np.array([np.cos(angle), np.sin(angle)])
        along_columns, along_rows = wave @ matrix
        # cos(a + b) from one cosine a column and one a row, not one a pixel
        a, b = along_columns * columns + (wave @ centre_px + phase), along_rows * rows
        total += amplitude * (np.outer(np.cos(b), np.cos(a)) - np.outer(np.sin(b), np.sin(a)))
    return np.rint(total).astype(np.uint16)


def _waves(channel: int, z: int, t: int) -> list[tuple[float, float, float, float]]:
    shift = 0.7 * channel + 0.3 * z + 0.2 * t
    return [(length, angle + shift, amplitude, shift * number) for number, (length, angle, amplitude) in enumerate(WAVES)]


def _as_channels(channels: int | Sequence[str | Channel]) -> tuple[Channel, ...]:
    if isinstance(channels, int):
        channels = [f"C{number}" for number in range(channels)]
    return tuple(channel if isinstance(channel, Channel) else Channel(channel) for channel in channels)


class WrappedSlide(Slide):
    """Another slide with some behaviour added: override `_before`, which runs before anything is read. Closing closes both."""

    def __init__(self, slide: Slide):
        super().__init__(
            location=slide.location,
            header=slide.header,
            channels=slide.channels,
            fields=slide.fields,
            position_sets={name: slide.position_set(name) for name in slide.position_sets},
            size_z=slide.size_z,
            size_t=slide.size_t,
            scenes=slide.scenes,
            tiling=slide.tiling,
            orientation=slide.orientation,
            offsets_um=slide.offsets_um,
        )
        self.slide = slide

    def _before(self, key: PlaneKey | TileKey) -> None:
        """Called with what is about to be read, in the thread that reads."""

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist."""
        return self.slide.acquired(z, t)

    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of acquired pixels of a channel."""
        return self.slide.histogram(channel)

    @property
    def away(self) -> str:
        """Who does not answer just now."""
        return self.slide.away

    def close(self) -> None:
        """Close the wrapped slide."""
        self.slide.close()

    def _is_acquired(self, field: int, channel: int, z: int, t: int) -> bool:
        return self.slide._is_acquired(field, channel, z, t)

    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        return self._read_level(field, channel, z, t, 0)

    def _read_level(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        self._before((field, channel, z, t, level))
        return self.slide.read_plane(field, channel, z, t, level)

    def _read_tile(self, key: TileKey, out: np.ndarray) -> None:
        self._before(key)
        self.slide.read_tile(key, out)


class SlowSlide(WrappedSlide):
    """A slide on slow storage: every plane and tile takes at least `latency_s` more; several threads wait at the same time."""

    def __init__(self, slide: Slide, latency_s: float):
        super().__init__(slide)
        self.latency_s = latency_s

    def _before(self, key: PlaneKey | TileKey) -> None:  # noqa: ARG002
        time.sleep(self.latency_s)


class FailingSlide(WrappedSlide):
    """A damaged slide: some planes and tiles raise DamagedSlideError, always the same ones.

    `fail` is the part that fails, 0 to 1, chosen by `seed`; or a function that is given the TileKey, or the
    (field, channel, z, t, level) of a plane, and says whether reading it fails.
    """

    def __init__(self, slide: Slide, fail: float | Callable[[PlaneKey | TileKey], bool] = 0.1, seed: int = 0):
        super().__init__(slide)
        self.fails = fail if callable(fail) else lambda key: _key_hash(key, seed) < fail

    def _before(self, key: PlaneKey | TileKey) -> None:
        if self.fails(key):
            raise DamagedSlideError(f"{key} cannot be read: this slide fails on purpose", location=self.location)


class GrowingSlide(WrappedSlide):
    """A slide that is still being acquired: `grow(n)` acquires n more planes of the wrapped one, `refresh` takes them in.

    Planes come field by field. With `fields_known` all fields are known from the start, as in a planned scan; else a field
    comes into being with its first plane, and packed tiles hold the fields in the order of arrival. `growing` turns False
    once every plane was taken in. In memory: nothing is written.
    """

    def __init__(self, slide: Slide, n_planes: int = 0, *, fields_known: bool = False):
        super().__init__(slide)
        self._all_fields, self._all_sets = self.fields.copy(), self._position_sets
        if not fields_known:
            self._all_fields["slot"] = np.arange(len(self._all_fields))
        times = [(z, t) for t in range(slide.size_t) for z in range(slide.size_z)]
        exists = np.stack([slide.acquired(*time) for time in times], axis=1)  # field, time, channel
        self._planes = np.array(
            [(field, channel, *times[time]) for field, time, channel in np.argwhere(exists)], np.int32
        ).reshape(-1, 4)
        self._fields_known = fields_known
        self._n_acquired = self._n_shown = 0
        self._acquired = np.zeros((0, len(self.channels), self.size_z, self.size_t), bool)
        self.grow(n_planes)
        self._show(self._n_acquired)

    def grow(self, n_planes: int = 1) -> int:
        """Acquire so many planes more, or those that are left; returns how many came. Any thread."""
        before = self._n_acquired
        self._n_acquired = min(before + n_planes, len(self._planes))
        return self._n_acquired - before

    @property
    def growing(self) -> bool:
        """Whether there are planes that `refresh` has not taken in."""
        return self._n_shown < len(self._planes)

    def refresh(self) -> np.ndarray:
        """(n, 4) int32 planes (field, channel, z, t) that `grow` acquired since."""
        before = self._n_shown
        self._show(self._n_acquired)
        return self._planes[before : self._n_shown].copy()

    def _show(self, n_planes: int) -> None:
        shown = self._planes[:n_planes]
        n_fields = len(self._all_fields) if self._fields_known else int(shown[:, 0].max(initial=-1)) + 1
        acquired = np.zeros((n_fields, *self._acquired.shape[1:]), bool)
        acquired[tuple(shown.T)] = True
        self._acquired = acquired
        sets = {
            name: PositionSet(
                chosen.positions_um[:n_fields],
                chosen.matrix,
                None if chosen.plane_offsets_um is None else chosen.plane_offsets_um[:n_fields],
            )
            for name, chosen in self._all_sets.items()
        }
        self._set_fields(self._all_fields[:n_fields], sets)
        self._n_shown = n_planes
        self.__dict__.pop("_identity", None)  # packed tiles are no longer what they were

    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes were taken in."""
        self._check_index("z", z, self.size_z)
        self._check_index("t", t, self.size_t)
        return self._acquired[:, :, z, t]

    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of the pixels that were taken in."""
        self.check_channel(channel)
        counts = np.zeros(GREY_LEVELS, np.uint64)
        for field, _, z, t in self._planes[: self._n_shown][self._planes[: self._n_shown, 1] == channel].tolist():
            counts += np.bincount(self.slide.read_plane(field, channel, z, t).ravel(), minlength=GREY_LEVELS).astype(np.uint64)
        return counts

    def _is_acquired(self, field: int, channel: int, z: int, t: int) -> bool:
        return bool(self._acquired[field, channel, z, t])

    def _read_tile(self, key: TileKey, out: np.ndarray) -> None:
        self._before(key)
        Slide._read_tile(self, key, out)  # packed by the fields that are known by now


def _key_hash(key: PlaneKey | TileKey, seed: int) -> float:
    """0 to 1, always the same for a key. Tiles and planes of the same numbers draw apart."""
    first, second, third, fourth, fifth = key
    salt = seed * 2 + isinstance(key, TileKey)
    return int(plane_hash(first * 1_000_003 + fifth, second, third, fourth, salt)) / 2**32


def write_slide(slide: Slide, path: str | Path, *, seed: int | None = 0, **options) -> Path:
    """Write any slide as a virtual slide file, planes in random order (as they come if `seed` is None); returns the path.

    Options go to `SlideWriter` (codec, …).
    """
    from rawmosaic.storage.hdf5.writer import SlideWriter

    planes = [
        (int(field), int(channel), z, t)
        for t in range(slide.size_t)
        for z in range(slide.size_z)
        for field, channel in np.argwhere(slide.acquired(z, t))
    ]
    if seed is not None:
        np.random.default_rng(seed).shuffle(planes)
    with SlideWriter(
        path,
        field_shape=slide.field_shape,
        channels=slide.channels,
        pixel_size_um=slide.header.pixel_size_um,
        header=slide.header,
        size_z=slide.size_z,
        size_t=slide.size_t,
        scenes=slide.scenes,
        fields=slide.fields,
        position_sets={name: slide.position_set(name) for name in slide.position_sets},
        orientation=slide.orientation,
        offsets_um=slide.offsets_um,
        **options,
    ) as writer:
        for field, channel, z, t in planes:
            writer.write_plane(slide.read_plane(field, channel, z, t), channel=int(channel), field=int(field), z=z, t=t)
    return Path(path)
