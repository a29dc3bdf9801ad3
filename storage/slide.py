"""The contract of everything that can be looked at: `Slide`, and the facts it is made of.

A virtual slide file, a raw acquisition opened in place, a whole-slide image and a remote slide look alike from here
on; whoever draws, serves, exports or analyses them sees nothing else. This module imports neither h5py, zmq nor OpenGL.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from rawmosaic.storage.errors import NoLongerWantedError, OutOfRangeError, PlaneMissingError
from rawmosaic.storage.placement import Placement
from rawmosaic.storage.pyramid import TileKey, Tiling, reduce_plane, reduced_shape

FIELD_DTYPE = np.dtype(
    [
        ("row", "<i4"),
        ("column", "<i4"),
        ("scene", "<i4"),
        ("slot", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("x_um", "<f8"),
        ("y_um", "<f8"),
        ("z_um", "<f8"),
    ]
)
"""One row per field. `row`, `column`: mosaic index, -1 unknown. `scene`: index into `Slide.scenes`, -1 none. `slot`: the
field's number in packed tiles, a permutation of the field numbers. `x_um`, `y_um`: stage position of the image's centre."""

GREY_LEVELS = 65536
"""Bins of a histogram: one per uint16 value."""


@dataclass(frozen=True)
class Header:
    """What is known of an acquisition as a whole. `bits` says how many of the sixteen bits count."""

    name: str
    acquired_at: str = ""
    pixel_size_um: float = 1.0
    objective: str = ""
    assay: str = ""
    bits: int = 16
    extra: Mapping = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Channel:
    """One colour. Wavelengths in nm, exposure in ms, `contrast_limits` in raw counts; None where the source does not say."""

    name: str
    color: str | None = None
    excitation_nm: float | None = None
    emission_nm: float | None = None
    exposure_ms: float | None = None
    contrast_limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class PositionSet:
    """Where the fields lie, under a name: (n, 2) float64 µm centres, and what turns their pixels (None: as the slide's).

    matrix       (2, 2) image axes → mosaic axes, without the pixel size
    plane_offsets_um  (n, n_channels, 2) measured position of each plane minus the field's, or None
    """

    positions_um: np.ndarray
    matrix: np.ndarray | None = None
    plane_offsets_um: np.ndarray | None = None


@dataclass(frozen=True)
class ViewHint:
    """Where a viewer looks and how fast it moves: what a slide behind a network or a slow disk may read ahead for.

    `x_um`, `y_um`: centre; `width_um`, `height_um`: extent; `velocity_um_s`: of the centre; all in the mosaic frame.
    """

    x_um: float
    y_um: float
    width_um: float
    height_um: float
    velocity_um_s: tuple[float, float]
    level: int
    channels: tuple[int, ...]
    z: int = 0
    t: int = 0
    position_set: str = "stage"


class Slide(ABC):
    """One acquisition: a header, a table of fields, and their pixels. Reading is safe from any thread.

    A subclass calls `__init__` with its facts and implements `_read_plane`, `acquired` and `histogram`; one that stores
    zoom layers or tiles also overrides `_read_level` and `_read_tile`.
    """

    parallel_reads: int | None = None
    """How many threads may usefully wait in `read_tiles` at once; None: as many as there are processors."""

    def __init__(
        self,
        *,
        location: str,
        header: Header,
        channels: tuple[Channel, ...],
        fields: np.ndarray,
        position_sets: Mapping[str, PositionSet],
        size_z: int = 1,
        size_t: int = 1,
        scenes: tuple[str, ...] = (),
        tiling: Tiling | None = None,
        orientation: np.ndarray | None = None,
        offsets_um: np.ndarray | None = None,
    ):
        self.location = location
        self.header = header
        self.channels = tuple(channels)
        self.fields = np.asarray(fields, FIELD_DTYPE)
        self.scenes = tuple(scenes)
        self.size_z, self.size_t = size_z, size_t
        if tiling is None:
            shape = (int(self.fields["height"].max(initial=1)), int(self.fields["width"].max(initial=1)))
            tiling = Tiling.of(shape)
        self.tiling = tiling
        self.orientation = np.eye(2) if orientation is None else np.asarray(orientation, np.float64)
        self.offsets_um = np.zeros((len(self.channels), 2)) if offsets_um is None else np.asarray(offsets_um, np.float64)
        self._position_sets = dict(position_sets)
        self.field_of_slot = np.argsort(self.fields["slot"], kind="stable")

    # facts

    @property
    def n_fields(self) -> int:
        """How many fields the slide has."""
        return len(self.fields)

    @property
    def field_shape(self) -> tuple[int, int]:
        """(height, width) of the largest field, pixels."""
        return self.tiling.field_shape

    @property
    def levels(self) -> tuple[int, ...]:
        """Reduction factor of each zoom layer, 1 first."""
        return self.tiling.factors

    @property
    def position_sets(self) -> tuple[str, ...]:
        """Names of all position sets, `stage` first."""
        return tuple(sorted(self._position_sets, key=lambda name: (name != "stage", name)))

    def positions(self, name: str = "stage") -> np.ndarray:
        """(n, 2) float64, µm, mosaic frame: the centres of the fields in a position set."""
        return self.position_set(name).positions_um

    def placement(self, name: str = "stage") -> Placement:
        """All that turns field pixels into mosaic µm under a position set."""
        chosen = self.position_set(name)
        matrix = self.orientation if chosen.matrix is None else chosen.matrix
        return Placement(chosen.positions_um, matrix * self.header.pixel_size_um, self.offsets_um, chosen.plane_offsets_um)

    @property
    def overview(self) -> Slide | None:
        """A slide of one large field: the whole mosaic, reconstructed at low resolution from the `stage` positions with the later
        field on top, in the same tile shape. It stands in for very many fields that are a few pixels each; None without one."""
        return None

    @property
    def identity(self) -> str:
        """Names the content: wherever two slides have the same identity, the same tile has the same pixels."""
        if not hasattr(self, "_identity"):
            self._identity = uuid.uuid4().hex  # a slide that cannot tell is like no other
        return self._identity

    @property
    def growing(self) -> bool:
        """Whether planes may still come: the acquisition runs, and `refresh` is worth asking."""
        return False

    @property
    def replaced(self) -> bool:
        """Whether another slide lies under its location by now, as when a writer that was killed begins anew: what was read of
        this one stays true, and opening the location shows the other. Asked of slides that grow, once a second. Any thread."""
        return False

    @property
    def away(self) -> str:
        """Who does not answer just now, as it is told to people: a server whose tiles are waited for. Empty while all goes well,
        and for whatever lies on this machine. Asks nothing; any thread."""
        return ""

    def refresh(self) -> np.ndarray:
        """Take in what was acquired since: (n, 4) int32 planes (field, channel, z, t) that came; none in a finished slide.

        `fields`, positions and `acquired` know them afterwards. Tiles of packed layers that hold one of them have changed.
        Called by one thread; others may read meanwhile.
        """
        return np.empty((0, 4), np.int32)

    def hint(self, hint: ViewHint) -> None:  # noqa: B027  a slide on a fast disk needs no warning
        """What is looked at, and where that is going; returns at once."""

    @abstractmethod
    def acquired(self, z: int = 0, t: int = 0) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist."""

    # pixels

    def read_plane(self, field: int, channel: int, z: int = 0, t: int = 0, level: int = 0) -> np.ndarray:
        """(h, w) uint16, as acquired at level 0, its area mean above; raises PlaneMissingError where none was acquired."""
        self.check_plane(field, channel, z, t)
        if not 0 <= level < len(self.levels):
            raise OutOfRangeError("level", level, f"the slide has levels 0 to {len(self.levels) - 1}", location=self.location)
        if not self._is_acquired(field, channel, z, t):
            raise PlaneMissingError(
                f"field {field}, channel {channel} ({self.channels[channel].name}), z {z}, t {t} was not acquired",
                location=self.location,
            )
        return self._read_plane(field, channel, z, t) if level == 0 else self._read_level(field, channel, z, t, level)

    def plane_metadata(self, field: int, channel: int, z: int = 0, t: int = 0) -> Mapping:
        """What the source noted with one plane (temperature, focus, a time stamp, …), empty where nothing was noted; raises
        OutOfRangeError outside the slide. Any thread."""
        self.check_plane(field, channel, z, t)
        return {}

    def read_tile(self, key: TileKey, out: np.ndarray | None = None) -> np.ndarray:
        """One tile, tiling.tile_shape uint16, zeros where nothing was acquired; decoded into `out` if given. Any thread."""
        if out is None:
            out = np.empty(self.tiling.tile_shape, np.uint16)
        self._read_tile(key, out)
        return out

    def read_tiles(
        self,
        keys: Sequence[TileKey],
        outs: Sequence[np.ndarray],
        wanted: Callable[[int], bool] = lambda _: True,
        urgent: bool = True,  # noqa: ARG002  for slides behind a queue
    ) -> list[Exception | None]:
        """Several tiles, most urgent first, each decoded into its `out`: for each None, or why it was not read. Any thread.

        `wanted(number)` is asked before the tile of that number in the list is read, and may be asked while it is waited for:
        where it says no, the answer may be NoLongerWantedError. `urgent` is False for tiles that are only expected to be needed.
        """
        outcomes = []
        for number, (key, out) in enumerate(zip(keys, outs, strict=True)):
            outcome = None
            try:
                if wanted(number):
                    self.read_tile(key, out)
                else:
                    outcome = NoLongerWantedError("the tile is no longer wanted", location=self.location)
            except Exception as error:  # whatever a source raises, the other tiles go on
                outcome = error
            outcomes.append(outcome)
        return outcomes

    def read_encoded(self, key: TileKey) -> bytes | None:
        """One tile as a Blosc buffer of tiling.tile_shape uint16, as it lies in the file where it does; None where nothing was
        acquired. For whoever passes tiles on. Any thread."""
        from rawmosaic.storage import codec

        tile = self.read_tile(key)
        return codec.compress(tile) if tile.any() else None

    @abstractmethod
    def histogram(self, channel: int) -> np.ndarray:
        """(65536,) uint64 counts of acquired pixels of a channel."""

    def close(self) -> None:  # noqa: B027  a slide may have nothing to give back
        """Give back files, sockets and threads; closing twice is harmless."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    # for subclasses

    @abstractmethod
    def _read_plane(self, field: int, channel: int, z: int, t: int) -> np.ndarray:
        """The acquired plane; arguments are checked and the plane exists."""

    def _is_acquired(self, field: int, channel: int, z: int, t: int) -> bool:
        return bool(self.acquired(z, t)[field, channel])

    def _read_level(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        return reduce_plane(self._read_plane(field, channel, z, t), self.levels[: level + 1])[-1]

    def _read_tile(self, key: TileKey, out: np.ndarray) -> None:
        out[:] = 0
        for field_number, window, (row, column) in self.tiling.pieces(key, self.field_of_slot):
            if not self._is_acquired(field_number, key.channel, key.z, key.t):
                continue
            piece = self.read_plane(field_number, key.channel, key.z, key.t, key.level)[window]
            out[row : row + piece.shape[0], column : column + piece.shape[1]] = piece

    def _assembled_plane(self, field: int, channel: int, z: int, t: int, level: int) -> np.ndarray:
        """(h, w) uint16: a plane of any level put together from its tiles, for subclasses that have nothing but tiles."""
        plane = np.empty(self._plane_shape(field, level), np.uint16)
        tile = np.empty(self.tiling.tile_shape, np.uint16)
        for key, target, source in self._tiles_of_plane(field, channel, z, t, level):
            self._read_tile(key, tile)
            plane[target] = tile[source]
        return plane

    def _plane_shape(self, field: int, level: int) -> tuple[int, int]:
        return reduced_shape((int(self.fields["height"][field]), int(self.fields["width"][field])), self.levels[level])

    def _tiles_of_plane(
        self, field: int, channel: int, z: int, t: int, level: int
    ) -> Iterator[tuple[TileKey, tuple[slice, slice], tuple[slice, slice]]]:
        """The tiles that a plane lies in: (key, window of the plane, window of the tile) of each."""
        cut = self.tiling.levels[level]
        height, width = self._plane_shape(field, level)
        if cut.packed:
            slot = int(self.fields["slot"][field])
            row, column = cut.slot_origin(slot)
            key = TileKey(level, slot // cut.fields_per_tile, channel, z, t)
            yield key, (slice(height), slice(width)), (slice(row, row + height), slice(column, column + width))
            return
        tile_height, tile_width = self.tiling.tile_shape
        for row in range(-(-height // tile_height)):
            for column in range(-(-width // tile_width)):
                top, left = row * tile_height, column * tile_width
                down, right = min(top + tile_height, height), min(left + tile_width, width)
                key = TileKey(level, field * cut.tiles_per_field + row * cut.grid[1] + column, channel, z, t)
                yield key, (slice(top, down), slice(left, right)), (slice(down - top), slice(right - left))

    def _set_fields(self, fields: np.ndarray, position_sets: Mapping[str, PositionSet]) -> None:
        """Replace the table of fields by a longer one, for subclasses that grow: after `acquired` knows the new rows, so that
        whoever reads in another thread never finds a field in a tile that `acquired` has not heard of."""
        self._position_sets = dict(position_sets)
        self.fields = np.asarray(fields, FIELD_DTYPE)
        self.field_of_slot = np.argsort(self.fields["slot"], kind="stable")

    def check_plane(self, field: int, channel: int, z: int, t: int) -> None:
        """Raise OutOfRangeError, naming what is out of which limits, unless the slide has room for the plane."""
        for what, value, size in (
            ("field", field, self.n_fields),
            ("channel", channel, len(self.channels)),
            ("z", z, self.size_z),
            ("t", t, self.size_t),
        ):
            self._check_index(what, value, size)

    def check_channel(self, channel: int) -> None:
        """Raise OutOfRangeError unless the slide has the channel (it may have no field yet)."""
        self._check_index("channel", channel, len(self.channels))

    def _check_index(self, what: str, value: int, size: int) -> None:
        if not 0 <= value < size:
            limits = f"the slide has {what} 0 to {size - 1}" if size else f"the slide has no {what}"
            raise OutOfRangeError(what, value, limits, location=self.location)

    def position_set(self, name: str) -> PositionSet:
        """A position set as it is kept; OutOfRangeError for a name that the slide has not."""
        if name not in self._position_sets:
            limits = "the slide has " + ", ".join(self.position_sets)
            raise OutOfRangeError("position set", name, limits, location=self.location)
        return self._position_sets[name]


def new_fields(n: int, field_shape: tuple[int, int]) -> np.ndarray:
    """A table of `n` fields of one shape at the origin, with unknown mosaic index and no scene."""
    fields = np.zeros(n, FIELD_DTYPE)
    fields["row"] = fields["column"] = fields["scene"] = -1
    fields["slot"] = np.arange(n)
    fields["height"], fields["width"] = field_shape
    return fields


def spatial_slots(positions_um: np.ndarray) -> np.ndarray:
    """(n,) int32 packing numbers along a Z-order curve, so that fields packed into one tile are neighbours."""
    if len(positions_um) == 0:
        return np.zeros(0, np.int32)
    low = positions_um.min(axis=0)
    extent = max(float((positions_um.max(axis=0) - low).max()), 1e-9)
    cells = ((positions_um - low) / extent * 0xFFFF).astype(np.uint64)
    order = np.argsort(_spread_bits(cells[:, 0]) | (_spread_bits(cells[:, 1]) << np.uint64(1)), kind="stable")
    slots = np.empty(len(order), np.int32)
    slots[order] = np.arange(len(order), dtype=np.int32)
    return slots


def _spread_bits(values: np.ndarray) -> np.ndarray:
    """The low 16 bits of each value, one zero bit between each two (Morton code)."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        values = (values | (values << np.uint64(shift))) & np.uint64(mask)
    return values
