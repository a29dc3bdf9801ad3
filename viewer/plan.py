"""The plan of a frame: what to draw from what is resident, and what to fetch. Pure: no thread, no file, no GL.

Names carry their frame: ``p_`` full-resolution pixels of a field (x right, y down from its first pixel's corner), ``l_``
pixels of a zoom layer, ``s_`` mosaic µm, ``w_`` screen pixels from the screen's centre.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from rawmosaic.storage.placement import Placement
from rawmosaic.storage.pyramid import TileKey, Tiling
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.spatial_index import SpatialIndex
from rawmosaic.viewer.camera import Camera, bounds_of

OVERLAP_MODES = ("top", "nearest", "feather", "max")
INTERPOLATIONS = ("auto", "nearest", "smooth")
PROJECTIONS = ("none", "max")
ROWS_BEFORE_CHANNELS = 3
"""Table rows per quad before those of its channels; shaders/mosaic.vert says what each holds."""

ROOM_TO_GROW = 1 << 22
"""Fields that the numbers of a growing slide's tiles leave room for."""

MOST_CHANNELS_AT_ONCE = 12
"""Channels of one pass: every OpenGL 3.3 driver has room for 15 flat vec4 inputs, of which 3 are not channels'."""


class TileNumbers:
    """Tile keys of a slide as single integers, so that thousands are made, compared and looked up at once.

    The numbers are those from `first`, which is not below `first_number`, to `end` - 1: slides shown together do not share any.
    They stay what they are while a slide grows. Where a slide has z, one plane more stands for its projection (projection.py).
    """

    def __init__(self, slide: Slide, first_number: int = 0):
        tiling, n_fields = slide.tiling, max(slide.n_fields, ROOM_TO_GROW) if slide.growing else slide.n_fields
        counts = [tiling.tile_count(level, n_fields) for level in range(len(tiling.levels))]
        self._n_channels, self._size_t = len(slide.channels), slide.size_t
        self._size_z = slide.size_z + (slide.size_z > 1)
        per_tile = max(1, self._n_channels * self._size_z * self._size_t)
        base = -(-first_number // per_tile)
        self._first = [base, *(base + np.cumsum(counts, dtype=np.int64)).tolist()]
        self.first = base * per_tile
        self.end = self._first[-1] * per_tile

    def encode(self, level: int, index: np.ndarray, channel: int | np.ndarray, z: int, t: int) -> np.ndarray:
        """int64 numbers of the tiles with these indices (and channels, broadcast) on a level."""
        tile = self._first[level] + np.asarray(index, np.int64)
        return ((tile * self._n_channels + channel) * self._size_z + z) * self._size_t + t

    def decode(self, number: int) -> TileKey:
        """The key that a number stands for."""
        rest, t = divmod(int(number), self._size_t)
        rest, z = divmod(rest, self._size_z)
        tile, channel = divmod(rest, self._n_channels)
        level = bisect_right(self._first, tile) - 1
        return TileKey(level, tile - self._first[level], channel, z, t)


@dataclass(frozen=True)
class View:
    """What is asked to be shown: the camera, the channels that are read for it in order, and how they are placed and merged.

    `z` is the slide's `size_z` for the maximum of all z planes.
    """

    camera: Camera
    channels: tuple[int, ...]
    position_set: str = "stage"
    z: int = 0
    t: int = 0
    overlap: str = "top"
    smooth: bool = False


class Geometry:
    """Where the fields of a slide lie under one position set, made once and shared by all frames."""

    def __init__(self, slide: Slide, position_set: str):
        fields = slide.fields
        self.placement: Placement = slide.placement(position_set)
        self.p_sizes = np.stack([fields["width"], fields["height"]], axis=-1).astype(np.float64)
        self.slots = fields["slot"].astype(np.int64)
        self.half_um = self.placement.half_extents_um(fields["width"], fields["height"])
        self.from_um = np.linalg.inv(self.placement.matrix_um)
        self.shared = self.placement.shared_by_channels
        self._centres: dict[int, np.ndarray] = {}
        self._indices: dict[int, SpatialIndex] = {}
        self.bounds_um = self._bounds(len(slide.channels))

    def centres_um(self, channel: int) -> np.ndarray:
        """(n, 2) field centres of a channel, mosaic µm."""
        channel = 0 if self.shared else channel
        if channel not in self._centres:
            self._centres[channel] = self.placement.centres_um(channel)
        return self._centres[channel]

    def in_view(self, camera: Camera, channel: int) -> np.ndarray:
        """Ascending numbers of the fields whose box meets the viewport."""
        return self.in_box(camera.bounds_um(), channel)

    def in_box(self, bounds_um: tuple[float, float, float, float], channel: int) -> np.ndarray:
        """Ascending numbers of the fields whose box meets a (left, top, right, bottom) region, mosaic µm."""
        return self._index(channel).query(bounds_um)

    def at(self, x_um: float, y_um: float, channel: int) -> np.ndarray:
        """Ascending numbers of the fields whose box holds a point of the mosaic frame, µm."""
        return self._index(channel).query((x_um, y_um, x_um, y_um))

    def box_of(self, field: int, channel: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of a field, mosaic µm."""
        (x, y), (half_x, half_y) = self.centres_um(channel)[field], self.half_um[field]
        return float(x - half_x), float(y - half_y), float(x + half_x), float(y + half_y)

    def still_holds(self, slide: Slide, position_set: str) -> bool:
        """Whether a slide that grows has the fields it had, where they were."""
        fields, now = slide.fields, slide.placement(position_set)
        sizes = np.stack([fields["width"], fields["height"]], axis=-1)
        return (
            np.array_equal(fields["slot"], self.slots)
            and np.array_equal(sizes, self.p_sizes)
            and np.array_equal(now.positions_um, self.placement.positions_um)
            and np.array_equal(now.plane_offsets_um, self.placement.plane_offsets_um)
        )

    def _index(self, channel: int) -> SpatialIndex:
        channel = 0 if self.shared else channel
        if channel not in self._indices:
            self._indices[channel] = SpatialIndex(self.centres_um(channel), self.half_um)
        return self._indices[channel]

    def _bounds(self, n_channels: int) -> tuple[float, float, float, float]:
        channels = range(1 if self.shared else n_channels)
        each = np.array([bounds_of(self.centres_um(channel), self.half_um) for channel in channels] or [(0, 0, 1, 1)])
        return (*map(float, each[:, :2].min(axis=0)), *map(float, each[:, 2:].max(axis=0)))


@dataclass(frozen=True)
class Draw:
    """What is drawn of one group of channels (positions in `View.channels`): quads, and the joints between filtered tiles.

    rows    (quads, 3 + channels, 4) float32, see shaders/mosaic.vert
    joints  (joints, 4 + 4 × channels, 4) float32, likewise
    mixed   whether some quad lacks a channel, or shows channels from different layers
    """

    channels: tuple[int, ...]
    rows: np.ndarray
    joints: np.ndarray
    mixed: bool


@dataclass(frozen=True)
class FramePlan:
    """What one frame does. `fetch` holds tile numbers, most urgent first; `layers` the texture layers of the view's own tiles
    that are resident, `stand_ins` those of coarser tiles drawn in place of others."""

    level: int
    draws: tuple[Draw, ...]
    direct: bool
    image_to_screen: np.ndarray
    fetch: tuple[int, ...]
    layers: np.ndarray
    stand_ins: np.ndarray
    outlines: np.ndarray
    """(k, 4) float32 rows (p_ at the screen's centre, size) of fields in view of which nothing is resident"""
    tiles_wanted: int = 0
    tiles_missing: int = 0
    tiles_failed: int = 0
    fields_in_view: int = 0
    depth_scale: float = 0.0
    overview: bool = False
    """whether this is the plan of a slide's overview, in place of its fields"""


def choose_level(scale: float, factors: tuple[int, ...]) -> int:
    """The layer at or above the screen's density: the largest reduction that is not coarser than the screen."""
    fitting = [level for level, factor in enumerate(factors) if factor * scale <= 1.0 + 1e-9]
    return max(fitting, default=0)


@dataclass(frozen=True)
class _Batch:
    """Quads of one group: per quad its field, tile index, rectangle (x0, y0, x1, y1) in p_, and tile origin in l_.

    `right`, `below`: the quad of the neighbouring tile of the same field, -1 where there is none in view.
    """

    channels: tuple[int, ...]
    fields: np.ndarray
    index: np.ndarray
    p_rect: np.ndarray
    l_origin: np.ndarray
    p_centre: np.ndarray
    w_centre: np.ndarray
    right: np.ndarray | None = None
    below: np.ndarray | None = None


@dataclass(frozen=True)
class Layout:
    """What of a slide lies in a view: the first half of a plan, which does not ask what is resident and so holds for as long as
    the view does. `wanted` has the (quads, channels) tile numbers of each batch, `own` the distinct ones in ascending order,
    `fields` those in view of which any shown channel was acquired."""

    view: View
    level: int
    batches: tuple[_Batch, ...]
    wanted: tuple[np.ndarray, ...]
    own: np.ndarray
    fields: np.ndarray


def plan_frame(
    view: View,
    geometry: Geometry,
    tiling: Tiling,
    numbers: TileNumbers,
    acquired: np.ndarray,
    lookup: Callable[[np.ndarray], np.ndarray],
    capacity: int,
    failed: Container[int] = frozenset(),
    level: int | None = None,
    stands_in: bool = True,
) -> FramePlan:
    """Plan one frame: `lay_out`, then `resolve`."""
    layout = lay_out(view, geometry, tiling, numbers, acquired, capacity, level)
    return resolve(layout, geometry, tiling, numbers, lookup, failed, stands_in)


def lay_out(
    view: View,
    geometry: Geometry,
    tiling: Tiling,
    numbers: TileNumbers,
    acquired: np.ndarray,
    capacity: int,
    level: int | None = None,
) -> Layout:
    """Find the tiles in a view.

    Parameters
    ----------
    acquired
        (n_fields, n_channels) bool at the view's z and t.
    capacity
        Tiles the texture cache holds; a view that needs more is planned on a coarser layer.
    level
        The layer to draw, if not the one that the scale asks for.
    """
    groups = _channel_groups(view, geometry, acquired)
    level = choose_level(view.camera.scale, tiling.factors) if level is None else level
    while True:
        batches = [_tiles_in_view(view, geometry, tiling, level, *group) for group in groups]
        wanted = [
            numbers.encode(level, batch.index[:, None], np.array(view.channels)[list(batch.channels)], view.z, view.t)
            for batch in batches
        ]
        own = _distinct(np.concatenate([each.ravel() for each in wanted])) if wanted else np.empty(0, np.int64)
        if len(own) <= capacity or level == len(tiling.levels) - 1:
            break
        level += 1
    fields = _distinct(np.concatenate([group[1] for group in groups])) if groups else np.empty(0, np.int64)
    return Layout(view, level, tuple(batches), tuple(wanted), own, fields)


def resolve(
    layout: Layout,
    geometry: Geometry,
    tiling: Tiling,
    numbers: TileNumbers,
    lookup: Callable[[np.ndarray], np.ndarray],
    failed: Container[int] = frozenset(),
    stands_in: bool = True,
) -> FramePlan:
    """Say what is drawn of a layout, and what is fetched.

    Parameters
    ----------
    lookup
        (n,) tile numbers → (n,) float32 texture layers, negative where a tile is not resident.
    failed
        Tile numbers that cannot be read: their place is taken by a coarser layer.
    stands_in
        Whether coarser layers are looked for where a tile is not resident.
    """
    view, level, camera = layout.view, layout.level, layout.view.camera
    w_reach = 0.5 * float(np.hypot(*camera.size))
    depth_scale = 0.0
    draws, stand_ins, fetch, urgency = [], [], [], []
    found = [lookup(tiles.ravel()) for tiles in layout.wanted]
    each_once = sum(map(len, found)) == len(layout.own)  # packed tiles are wanted by several fields
    layers = np.concatenate(found) if found and each_once else lookup(layout.own)
    missing = failures = 0
    shown: list[np.ndarray] = []
    for batch, tiles, resident in zip(layout.batches, layout.wanted, found, strict=True):
        rows, resolved = _rows(view, geometry, tiling, numbers, level, batch, tiles, resident, lookup, failed, stands_in)
        keep = resolved.any_resident
        stand_ins.append(resolved.stand_ins)
        fetch.append(resolved.fetch)
        urgency.append(resolved.urgency)
        missing += resolved.missing
        failures += resolved.failed
        shown.append(batch.fields[keep])
        if keep.any():
            draws.append(_draw(view, geometry, tiling, level, batch, rows, keep))
            w_centres = batch.w_centre[keep]
            far = float(np.hypot(w_centres[:, 0], w_centres[:, 1]).max())
            depth_scale = max(depth_scale, far * far + 2.2 * far * w_reach)

    fetch_numbers = np.concatenate(fetch) if fetch else np.empty(0, np.int64)
    order = np.argsort(np.concatenate(urgency), kind="stable") if fetch else np.empty(0, np.int64)
    empty = _without(layout.fields, _distinct(np.concatenate(shown))) if shown else layout.fields
    return FramePlan(
        level=level,
        draws=tuple(draws),
        direct=view.overlap == "top" and len(layout.batches) == 1,
        image_to_screen=image_to_screen(camera, geometry),
        fetch=tuple(dict.fromkeys(fetch_numbers[order].tolist())),
        layers=layers[layers >= 0].astype(np.int64),
        stand_ins=np.concatenate(stand_ins).astype(np.int64) if stand_ins else np.empty(0, np.int64),
        outlines=outline_rows(camera, geometry, empty),
        tiles_wanted=len(layout.own),
        tiles_missing=missing,
        tiles_failed=failures,
        fields_in_view=len(layout.fields),
        depth_scale=1.0 / depth_scale if depth_scale > 0 and view.overlap == "nearest" else 0.0,
    )


def _distinct(values: np.ndarray) -> np.ndarray:
    """Ascending, each once. (NumPy's own imports its masked arrays first, a tenth of the time to the first picture.)"""
    values = np.sort(values)
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if len(values) else values


def _without(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Ascending distinct values that are not among ascending distinct others."""
    if not len(others):
        return values
    place = np.minimum(np.searchsorted(others, values), len(others) - 1)
    return values[others[place] != values]


def outline_rows(camera: Camera, geometry: Geometry, fields: np.ndarray) -> np.ndarray:
    """(k, 4) float32 rows for shaders/outline.vert: field pixel at the screen's centre, field size."""
    p_centre = _p_at_screen_centre(camera, geometry, geometry.centres_um(0)[fields], fields)
    return np.concatenate([p_centre, geometry.p_sizes[fields]], axis=1).astype(np.float32)


def _channel_groups(view: View, geometry: Geometry, acquired: np.ndarray) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """(shown channels, fields) that are drawn together: all channels in one pass where each field in view has all or none
    of them at one place and the overlap rule needs no buffer; else channel by channel."""
    if not view.channels:
        return []
    every = tuple(range(len(view.channels)))
    if view.overlap == "top" and geometry.shared and len(every) <= MOST_CHANNELS_AT_ONCE:
        fields = geometry.in_view(view.camera, 0)
        has = acquired[np.ix_(fields, view.channels)]
        some = has.any(axis=1)
        if (has.all(axis=1) == some).all():
            return [(every, fields[some])]
    groups = []
    for position in every:
        channel = view.channels[position]
        fields = geometry.in_view(view.camera, channel)
        groups.append(((position,), fields[acquired[fields, channel]]))
    return groups


def _p_at_screen_centre(camera: Camera, geometry: Geometry, centres_um: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """(k, 2) the field pixel that lies at the centre of the screen."""
    offset = np.array([camera.x_um, camera.y_um]) - centres_um
    return offset @ geometry.from_um.T + 0.5 * geometry.p_sizes[fields]


def _tiles_in_view(
    view: View, geometry: Geometry, tiling: Tiling, level: int, channels: tuple[int, ...], fields: np.ndarray
) -> _Batch:
    """The tiles of a layer that meet the viewport, field by field in drawing order."""
    camera, cut = view.camera, tiling.levels[level]
    centres = geometry.centres_um(view.channels[channels[0]])[fields]
    p_centre = _p_at_screen_centre(camera, geometry, centres, fields)
    w_centre = (centres - (camera.x_um, camera.y_um)) * camera.px_per_um
    p_size = geometry.p_sizes[fields]
    screen_to_image = geometry.from_um / camera.px_per_um
    p_reach = np.abs(screen_to_image) @ (0.5 * np.array(camera.size, np.float64))
    if view.smooth:  # the filter looks half a layer pixel further
        p_reach = p_reach + 0.5 * cut.factor
    if cut.packed:
        visible = np.flatnonzero(((p_centre + p_reach > 0) & (p_centre - p_reach < p_size)).all(axis=1))
        slots = geometry.slots[fields[visible]]
        row, column = cut.slot_origin(slots)
        return _Batch(
            channels,
            fields[visible],
            slots // cut.fields_per_tile,
            np.concatenate([np.zeros((len(visible), 2)), p_size[visible]], axis=1),
            np.stack([-column, -row], axis=-1).astype(np.float64),
            p_centre[visible],
            w_centre[visible],
        )
    p_tile = np.array(tiling.tile_shape[::-1], np.float64) * cut.factor
    last = np.ceil(p_size / p_tile).astype(np.int64) - 1
    low = np.maximum(np.floor((p_centre - p_reach) / p_tile).astype(np.int64), 0)
    high = np.minimum(np.floor((p_centre + p_reach) / p_tile).astype(np.int64), last)
    across, down = np.maximum(high - low + 1, 0).T
    count = across * down
    which = np.repeat(np.arange(len(fields)), count)
    within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    tile = np.stack([low[which, 0] + within % across[which], low[which, 1] + within // across[which]], axis=-1)
    number = np.arange(len(which))
    return _Batch(
        channels,
        fields[which],
        fields[which] * cut.tiles_per_field + tile[:, 1] * cut.grid[1] + tile[:, 0],
        np.concatenate([tile * p_tile, np.minimum((tile + 1) * p_tile, p_size[which])], axis=1),
        tile * np.array(tiling.tile_shape[::-1], np.float64),
        p_centre[which],
        w_centre[which],
        np.where(tile[:, 0] < high[which, 0], number + 1, -1),
        np.where(tile[:, 1] < high[which, 1], number + across[which], -1),
    )


def _draw(view: View, geometry: Geometry, tiling: Tiling, level: int, batch: _Batch, rows: np.ndarray, keep: np.ndarray) -> Draw:
    """The quads of which something is resident, topmost first; filtered ones with the joints between their tiles."""
    channels = rows[:, ROWS_BEFORE_CHANNELS:]
    mixed = bool((channels[..., 0] < 0).any() or (channels[..., 1] != channels[:, :1, 1]).any())
    matrix = image_to_screen(view.camera, geometry)

    def w_rects(p_rects: np.ndarray, p_centres: np.ndarray) -> np.ndarray:
        return screen_rects(p_rects, p_centres, matrix, view.camera.size) if runs_along_pixels(matrix) else p_rects

    p_rects = batch.p_rect
    joints = np.empty((0, ROWS_BEFORE_CHANNELS + 1 + 4 * channels.shape[1], 4), np.float32)
    if view.smooth and batch.right is not None and ((batch.right >= 0) | (batch.below >= 0)).any():
        half = 0.5 * tiling.levels[level].factor
        joints, p_rects = _joints(batch, rows, half, w_rects), _without_joints(batch, half)
    rows[:, 1] = w_rects(p_rects, batch.p_centre)
    return Draw(batch.channels, rows[keep][::-1], joints[::-1], mixed)


def image_to_screen(camera: Camera, geometry: Geometry) -> np.ndarray:
    """(2, 2) float64 field pixels → screen pixels."""
    return geometry.placement.matrix_um / camera.pixel_size_um * camera.scale


def runs_along_pixels(matrix: np.ndarray) -> bool:
    """Whether the edges of fields run along rows and columns of the screen."""
    size = np.abs(matrix)
    return bool(min(size[0, 1] + size[1, 0], size[0, 0] + size[1, 1]) == 0.0)


def screen_rects(p_rects: np.ndarray, p_centres: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, 4) whole screen pixels x0, y0, x1, y1: those whose centre lies in [x0, x1) × [y0, y1) of (n, 4) field rectangles.

    Decided here in double precision, since a rasteriser rounds edges to 1/256 pixel; only for fields that run along pixels.
    """
    low, high = ((p_rects[:, pair] - p_centres) @ matrix.T + 0.5 * np.array(size) - 0.5 for pair in ((0, 1), (2, 3)))
    # a mirrored axis runs from high to low, and keeps its closed end
    first = np.where(low <= high, np.ceil(low), np.floor(high) + 1.0)
    last = np.where(low <= high, np.ceil(high), np.floor(low) + 1.0)
    return np.concatenate([first, last], axis=1)


def _without_joints(batch: _Batch, half: float) -> np.ndarray:
    """The quads cut back by half a layer pixel where another tile of the field goes on: there the filter needs both."""
    inner = batch.l_origin > 0
    p_rects = batch.p_rect.copy()
    p_rects[:, :2] += half * inner
    p_rects[:, 2] -= half * (batch.right >= 0)
    p_rects[:, 3] -= half * (batch.below >= 0)
    return p_rects


def _joints(batch: _Batch, rows: np.ndarray, half: float, w_rects: Callable) -> np.ndarray:
    """The strips between tiles of a field, one layer pixel wide, each with the four tiles that meet at its lower right.

    Returns (joints, 4 + 4 × channels, 4) float32 rows as in shaders/mosaic.vert.
    """
    n_channels = rows.shape[1] - ROWS_BEFORE_CHANNELS
    has_right, has_below = batch.right >= 0, batch.below >= 0
    inner = half * (batch.l_origin > 0)
    right, below = np.flatnonzero(has_right), np.flatnonzero(has_below)
    owners = np.concatenate([right, below])
    x0, y0, x1, y1 = batch.p_rect.T
    upright = np.stack([x1 - half, y0 + inner[:, 1], x1 + half, y1 + half * has_below], axis=-1)[right]
    level = np.stack([x0 + inner[:, 0], y1 - half, x1 - half * has_right, y1 + half], axis=-1)[below]

    nothing = np.zeros((1, *rows.shape[1:]), np.float32)
    nothing[:, ROWS_BEFORE_CHANNELS:, 0] = -1.0
    tiles = np.concatenate([rows, nothing])[:, ROWS_BEFORE_CHANNELS:]  # the last stands for a tile that is not in view
    diagonal = np.where(has_right, batch.below[batch.right], -1)
    four = np.stack([owners, batch.right[owners], batch.below[owners], diagonal[owners]], axis=-1)
    joints = np.zeros((len(owners), ROWS_BEFORE_CHANNELS + 1 + 4 * n_channels, 4), np.float32)
    joints[:, :ROWS_BEFORE_CHANNELS] = rows[owners, :ROWS_BEFORE_CHANNELS]
    joints[:, 1] = w_rects(np.concatenate([upright, level]), batch.p_centre[owners])
    joints[:, 3, 0], joints[:, 3, 1], joints[:, 3, 2] = x1[owners], y1[owners], 0.5 / half
    joints[:, 4:] = tiles[four].reshape(len(owners), 4 * n_channels, 4)
    resident = (joints[:, 4:, 0] >= 0).any(axis=1)
    return joints if resident.all() else joints[resident]


@dataclass(frozen=True)
class _Resolved:
    """What stands for the quads of a batch: texture layers of stand-ins, what to fetch, and how urgently."""

    stand_ins: np.ndarray
    any_resident: np.ndarray
    fetch: np.ndarray
    urgency: np.ndarray
    missing: int
    failed: int


def _rows(
    view: View,
    geometry: Geometry,
    tiling: Tiling,
    numbers: TileNumbers,
    level: int,
    batch: _Batch,
    wanted: np.ndarray,
    layers: np.ndarray,
    lookup: Callable[[np.ndarray], np.ndarray],
    failed: Container[int],
    stands_in: bool,
) -> tuple[np.ndarray, _Resolved]:
    """(quads, 3 + channels, 4) float32 table rows of a batch whose (quads, channels) tiles are `wanted` and lie in the texture
    `layers`, and what is missing."""
    rows = np.zeros((len(batch.fields), ROWS_BEFORE_CHANNELS + len(batch.channels), 4), np.float32)
    rows[:, 0, :2] = batch.p_centre
    rows[:, 0, 2:] = geometry.p_sizes[batch.fields]
    rows[:, 2, :2] = batch.w_centre
    if view.overlap == "top":
        rows[:, 2, 3] = _depth_by_order(batch.fields)
    target = rows[:, ROWS_BEFORE_CHANNELS:]
    target[..., 0] = layers.reshape(wanted.shape)
    target[..., 1] = 1.0 / tiling.levels[level].factor
    target[..., 2:] = batch.l_origin[:, None]
    quads, columns = np.nonzero(target[..., 0] < 0)
    if not len(quads):
        return rows, _Resolved(np.empty(0), np.ones(len(rows), bool), np.empty(0, np.int64), np.empty(0), 0, 0)

    absent = wanted[quads, columns]
    broken = np.array([number in failed for number in absent.tolist()], bool) if failed else np.zeros(len(absent), bool)
    fetch, unreadable = absent[~broken], absent[broken]
    instead = np.empty(0, np.int64)
    if stands_in:
        channels = np.array(view.channels)[list(batch.channels)]
        instead = _stand_ins(
            view, geometry, tiling, numbers, level, batch, channels[columns], quads, columns, broken, target, lookup, failed
        )
    found = target[quads, columns, 0]
    return rows, _Resolved(
        found[found >= 0],
        (target[..., 0] >= 0).any(axis=1),
        np.concatenate([fetch, instead]),
        np.concatenate([_distance_from_centre(view.camera, batch)[quads[~broken]], np.zeros(len(instead))]),
        len(_distinct(fetch)) + len(instead),
        len(_distinct(unreadable)),
    )


def _depth_by_order(fields: np.ndarray) -> np.ndarray:
    """Depths between −1 and 1 of ascending field numbers: the later field is the nearer."""
    rank = np.cumsum(np.diff(fields, prepend=fields[:1]) != 0)
    return 0.9 - 1.8 * rank / max(1, rank[-1] if len(rank) else 1)


def _stand_ins(
    view: View,
    geometry: Geometry,
    tiling: Tiling,
    numbers: TileNumbers,
    level: int,
    batch: _Batch,
    channels: np.ndarray,
    quads: np.ndarray,
    columns: np.ndarray,
    broken: np.ndarray,
    target: np.ndarray,
    lookup: Callable[[np.ndarray], np.ndarray],
    failed: Container[int],
) -> np.ndarray:
    """Fill the entries (quads, columns) of absent tiles from coarser layers; returns numbers to fetch in place of those that are
    `broken`. All arrays but `target` have one entry for each absent tile of each quad."""
    fetch = []
    for coarser in range(level + 1, len(tiling.levels)):
        if not len(quads):
            break
        index, l_origin = _ancestors(geometry, tiling, coarser, batch.fields[quads], batch.p_rect[quads])
        wanted = numbers.encode(coarser, index, channels, view.z, view.t)
        layers = lookup(wanted)
        found = layers >= 0
        at = quads[found], columns[found]
        target[(*at, 0)] = layers[found]
        target[(*at, 1)] = 1.0 / tiling.levels[coarser].factor
        target[(*at, slice(2, None))] = l_origin[found]
        if broken.any():
            replaceable = np.array([number not in failed for number in wanted.tolist()], bool)
            fetch.append(_distinct(wanted[broken & ~found & replaceable]))
            broken = broken & ~replaceable
        quads, columns, channels, broken = quads[~found], columns[~found], channels[~found], broken[~found]
    return np.concatenate(fetch) if fetch else np.empty(0, np.int64)


def _ancestors(
    geometry: Geometry, tiling: Tiling, level: int, fields: np.ndarray, p_rect: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(k,) tile indices on a coarser layer that hold the rectangles, and (k, 2) their origins in that layer's pixels."""
    cut = tiling.levels[level]
    if cut.packed:
        slots = geometry.slots[fields]
        row, column = cut.slot_origin(slots)
        return slots // cut.fields_per_tile, np.stack([-column, -row], axis=-1).astype(np.float64)
    tile_size = np.array(tiling.tile_shape[::-1], np.float64)
    tile = np.floor(p_rect[:, :2] / (tile_size * cut.factor)).astype(np.int64)
    return fields * cut.tiles_per_field + tile[:, 1] * cut.grid[1] + tile[:, 0], tile * tile_size


def _distance_from_centre(camera: Camera, batch: _Batch) -> np.ndarray:
    """(quads,) screen pixels between a quad's middle and the screen's centre, roughly: what is looked at comes first."""
    middle = 0.5 * (batch.p_rect[:, :2] + batch.p_rect[:, 2:]) - batch.p_centre
    return np.hypot(middle[:, 0], middle[:, 1]) * camera.scale
