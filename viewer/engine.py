"""One view of one slide: camera → plan → load → upload → draw. The window, the offscreen viewer and the exports share it."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rawmosaic.storage.errors import GraphicsError, OutOfRangeError, SlideError
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.tile_cache import TileCache
from rawmosaic.viewer import budgets, projection
from rawmosaic.viewer.blending import Blending, checked, checked_unmixing, needed_channels
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.channels import ChannelView, default_colors, percentile_limits
from rawmosaic.viewer.follower import Follower
from rawmosaic.viewer.loader import TileLoader
from rawmosaic.viewer.motion import Motion
from rawmosaic.viewer.plan import (
    INTERPOLATIONS,
    OVERLAP_MODES,
    PROJECTIONS,
    FramePlan,
    Geometry,
    Layout,
    TileNumbers,
    View,
    image_to_screen,
    lay_out,
    outline_rows,
    resolve,
)
from rawmosaic.viewer.planned import planned_fields, planned_rows
from rawmosaic.viewer.renderer import Renderer, Target
from rawmosaic.viewer.scan_progress import ScanProgress
from rawmosaic.viewer.staging import Staging
from rawmosaic.viewer.tile_store import TileStore, is_software_driver, layers_for_view

UPLOAD_DEADLINE_S = 0.004
"""Time that one frame spends on uploads; what is left comes with the next."""

SLABS_A_FRAME = 1
"""Slabs of mapped memory that a moving frame may ask the driver for: each takes milliseconds. What has no room in them is decoded
into ordinary memory."""

MOST_OVERVIEW_TILES = 96
"""Tiles of the whole slide that are kept resident at most."""

STAND_IN_FROM_TILES = 48
"""A view that misses more tiles than this is worth a coarse stand-in first: decoding that many takes about a frame."""

STAND_IN_LAYERS = 2
"""The stand-in is reduced by four more, so it has a sixteenth of the pixels."""


_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class FrameReport:
    """What one frame did: seconds in its parts, tiles by state (distinct tiles at the view's own layer), memory of the caches.

    `bytes_decoded` counts what the loader's threads decoded since the last frame.
    """

    plan_s: float = 0.0
    upload_s: float = 0.0
    draw_s: float = 0.0
    level: int = 0
    overview: bool = False
    """whether the reconstructed overview was drawn in place of the fields"""
    fields_in_view: int = 0
    tiles_wanted: int = 0
    tiles_missing: int = 0
    tiles_failed: int = 0
    tiles_uploaded: int = 0
    tiles_pending: int = 0
    quads: int = 0
    tiles_in_texture: int = 0
    tiles_in_ram: int = 0
    bytes_decoded: int = 0
    bytes_uploaded: int = 0
    ram_bytes: int = 0
    ram_budget_bytes: int = 0
    vram_bytes: int = 0
    vram_budget_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether every visible tile was drawn from its own layer (or is known to be unreadable)."""
        return self.tiles_missing == 0


class Engine:
    """The state of a view and the caches behind it. Everything here runs in the GL thread, with the context current.

    Parameters
    ----------
    ram_bytes, vram_bytes
        Budgets of the tile cache and the texture cache, bytes or a text such as ``2G``; from the machine if not told.
    on_arrival
        Called from a worker thread when a tile arrived: the owner of the window draws again.
    """

    def __init__(
        self,
        slide: Slide,
        size: tuple[int, int],
        *,
        ram_bytes: int | str | None = None,
        vram_bytes: int | str | None = None,
        threads: int | None = None,
        on_arrival: Callable[[], None] = lambda: None,
    ):
        self.slide = slide
        self.channels = _initial_looks(slide)
        self.camera = Camera(0.0, 0.0, 1.0, _checked_size(size), slide.header.pixel_size_um)
        self.overlap, self.position_set, self.interpolation = "top", "stage", "auto"
        self.z = self.t = 0
        self.projection = "none"
        self.mode, self.background = "colour", "black"
        self.color_map: str | None = None
        self.unmixing: np.ndarray | None = None
        self.groups: tuple = ()
        self.bookmarks: tuple = ()
        self.show_outlines = False
        self.show_planned = False
        """whether fields that a running scan has yet to acquire are outlined"""
        self.prefetches = True
        self.report = FrameReport()
        self._motion = Motion()
        self._last: _Shown | None = None
        self._follower: Follower | None = None
        self._outdated: set[int] = set()
        self._late, self._late_tiles = np.empty((0, 4), np.int32), np.empty((0, 0), np.int64)
        self._without_late: tuple[np.ndarray, tuple[int, int, int], np.ndarray] | None = None
        self.growth = 0
        """how often planes were taken in"""
        self._tiles_reported = 0
        self._given_up: set[int] = set()
        self._soon: list[int] = []
        self._soon_for: View | None = None
        self._hinted: View | None = None
        self._resident = _NONE
        self._resident_for: tuple | None = None
        self._laid_out_of: tuple | None = None
        self._layouts: dict[int | None, Layout] = {}
        self._mosaic = _Source(slide)
        self._overview = _Source(slide.overview, self._mosaic.numbers.end) if slide.overview is not None else None
        tile_shape = slide.tiling.tile_shape
        self.store = TileStore(tile_shape, budgets.vram_bytes(vram_bytes, is_software_driver()))
        self._renderer = Renderer()
        self._tiles = TileCache(tile_shape, budgets.ram_bytes(ram_bytes))
        self._staging = Staging(self._tiles)
        self._loader = TileLoader(
            self._read_tiles,
            self._tiles,
            threads or slide.parallel_reads or max(1, min(os.cpu_count() or 1, 8)),
            on_arrival,
            far=slide.parallel_reads is not None,
        )
        self.fit()
        self._follower = Follower(slide, self._mosaic.placed_anew, on_arrival) if slide.growing else None

    # the view

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture, pixels."""
        return self.camera.size

    def resize(self, size: tuple[int, int]) -> None:
        """Another picture size, with the centre and scale kept."""
        self.camera = replace(self.camera, size=_checked_size(size))

    def fit(self) -> None:
        """Show the whole mosaic."""
        self.camera = self.camera.fitted(self.geometry.bounds_um)

    def look_at(self, x_um: float, y_um: float, scale: float | None = None) -> None:
        """Centre the view on a point of the mosaic frame, µm; `scale` is screen pixels per image pixel."""
        scale = self.camera.scale if scale is None else float(scale)
        if not (np.isfinite([x_um, y_um, scale]).all() and scale > 0):
            raise OutOfRangeError("view", (x_um, y_um, scale), "position must be finite numbers and the scale above zero")
        self.camera = replace(self.camera, x_um=float(x_um), y_um=float(y_um), scale=scale)

    @property
    def geometry(self) -> Geometry:
        """Where the fields lie under the chosen position set."""
        return self._mosaic.geometry(self.position_set)

    @property
    def scan(self) -> ScanProgress | None:
        """How far a scan is that ran when its slide was opened; None for a finished slide."""
        return None if self._follower is None else self._follower.progress()

    @property
    def replaced(self) -> bool:
        """Whether the scan began anew: another slide lies under the name of this one."""
        return self._follower is not None and self._follower.replaced

    @property
    def wants_frame(self) -> bool:
        """Whether a running scan brought something that is not drawn yet, or that is to be asked for once more."""
        if self._follower is None:
            return False
        return self._follower.has_news or bool(
            self._outdated and (self._loader.ready(self._replaceable()) or self._not_replaced())
        )

    @property
    def overview_tiles_arrived(self) -> int:
        """How many of the tiles that show the whole slide are in memory, and not in textures yet: the next frame takes them."""
        return len(self._loader.ready(self._missing_overview()))

    @property
    def freshness(self) -> tuple[int, int]:
        """How often planes were taken in, and how many tiles still show what was before: another where the picture is another."""
        return self.growth, len(self._replaceable())

    def view(self) -> View:
        """What is asked to be shown, as a value."""
        if self.overlap not in OVERLAP_MODES:
            raise OutOfRangeError("overlap mode", self.overlap, "choose one of " + ", ".join(OVERLAP_MODES))
        if self.interpolation not in INTERPOLATIONS:
            raise OutOfRangeError("interpolation", self.interpolation, "choose one of " + ", ".join(INTERPOLATIONS))
        for what, value, size in (("z", self.z, self.slide.size_z), ("t", self.t, self.slide.size_t)):
            if not 0 <= value < size:
                raise OutOfRangeError(what, value, f"the slide has {what} 0 to {size - 1}", location=self.slide.location)
        smooth = self.interpolation == "smooth" or (self.interpolation == "auto" and self.camera.scale < 1.0)
        if self.projection not in PROJECTIONS:
            raise OutOfRangeError("projection", self.projection, "choose one of " + ", ".join(PROJECTIONS))
        projects = self.projection == "max" and self.slide.size_z > 1
        read = needed_channels([look.visible for look in self.channels], checked_unmixing(self.unmixing, len(self.channels)))
        z = self.slide.size_z if projects else self.z
        return View(self.camera, read, self.position_set, z, self.t, self.overlap, smooth)

    def blending(self, channels: Sequence[int] | None = None) -> Blending:
        """How channels become a picture, for those that are read (of the view, if not told)."""
        channels = self.view().channels if channels is None else channels
        unmixing = checked_unmixing(self.unmixing, len(self.channels))
        among = None if unmixing is None else unmixing[np.ix_(channels, channels)]
        return checked(Blending(self.mode, self.background, self.color_map, among))

    # frames

    def frame(self, target: Target, upload_deadline_s: float = UPLOAD_DEADLINE_S) -> FrameReport:
        """Draw what can be shown now and ask for what is missing; never waits for a tile.

        Until a new layer is complete the last one goes on being shown, if that is complete: zooming does not flicker. A view
        of which much is missing asks for a coarse stand-in first; a complete one for its neighbourhood.
        """
        view = self.view()
        started = time.perf_counter()
        self._take_in_growth()
        self._motion.follow(view.camera)
        self._resident = self._overview_tiles(view)
        plan = self._asked(view)
        planned = time.perf_counter()
        ready = self._loader.ready((*plan.fetch, *self._replaceable(), *self._missing_overview()))
        uploaded = len(self._upload(ready, planned + upload_deadline_s))
        if uploaded:  # what was asked for stays asked for; only the draw changes
            plan = self._marked(self._planned(view))
        shown = self._steady(plan, view)
        prepared = time.perf_counter()
        self._draw(shown, view, target)
        drawn = time.perf_counter()
        self._last = _Shown(shown.level, shown.overview)
        self._look_ahead(plan, view)
        return self._reported(
            plan,
            plan_s=planned - started,
            upload_s=prepared - planned,
            draw_s=drawn - prepared,
            uploaded=uploaded,
            quads=sum(len(draw.rows) for draw in shown.draws),
        )

    def _asked(self, view: View) -> FramePlan:
        """The plan of a moving view, with its stand-ins asked for as well."""
        plan = self.plan(view, slabs=SLABS_A_FRAME)
        if plan.tiles_missing > STAND_IN_FROM_TILES and plan.level + STAND_IN_LAYERS < len(self.slide.levels):
            coarse = self._planned(view, plan.level + STAND_IN_LAYERS)
            plan = replace(plan, fetch=tuple(dict.fromkeys((*coarse.fetch, *plan.fetch))))
            self._loader.want(plan.fetch)
        return plan

    def _look_ahead(self, plan: FramePlan, view: View) -> None:
        """Ask for the neighbourhood of a complete view, and for the overview; after the draw, which they shall not delay."""
        if view != self._hinted:
            self._hinted = view
            z = min(view.z, self.slide.size_z - 1)  # of a projection, one of its planes
            self.slide.hint(self._motion.hint(replace(view, z=z), plan.level))
        if plan.fetch or not self.prefetches:
            return
        if self._is_elsewhere(view):
            self._soon_for = view
            self._soon = [*self._missing_overview(), *self._neighbourhood(plan, view)]
            self._loader.want((), self._soon)
        elif self._soon and self._loader.idle:
            self._soon = []

    def _is_elsewhere(self, view: View) -> bool:
        """Whether the view has left what the neighbourhood was last made for: another look, or an eighth of the view away."""
        if self._soon_for is None or replace(self._soon_for, camera=view.camera) != view:
            return True
        camera, before = view.camera, self._soon_for.camera
        moved = abs(camera.x_um - before.x_um) / camera.size[0], abs(camera.y_um - before.y_um) / camera.size[1]
        return camera.scale != before.scale or camera.size != before.size or max(moved) * camera.px_per_um > 1 / 8

    def _steady(self, plan: FramePlan, view: View) -> FramePlan:
        """The plan to draw: of the layer shown last, if that is complete and the new one is not."""
        last = self._last
        if not plan.tiles_missing or last is None or last.level == plan.level or last.overview != plan.overview:
            return plan
        before = self._planned(view, last.level)
        return before if not before.tiles_missing and before.level == last.level else plan

    def draw_whole(self, target: Target) -> None:
        """The whole mosaic as far as it is resident, in the view's looks, small: for a minimap. What was not acquired has a dim
        ground. Fetches nothing."""
        whole = replace(self.camera, size=target.size).fitted(self.geometry.bounds_um)
        view = replace(self.view(), camera=whole, smooth=True)
        level = None if self._shows_overview(view) else self._mosaic.level_for(len(view.channels), self._most_resident())
        plan = self._planned(view, level)
        self._draw_plan(plan, view, target)
        fields = planned_fields(replace(view, channels=()), self.geometry, self._acquired(view))
        rows = outline_rows(view.camera, self.geometry, fields)
        self._draw_planned(rows, plan, view, target, filled=True)

    @property
    def overview_tiles_resident(self) -> int:
        """How many of the tiles that show the whole slide lie in textures: it changes when a minimap is out of date."""
        return int((self.store.cache.lookup(self._resident) >= 0).sum()) if len(self._resident) else 0

    def warm_up(self, target: Target) -> None:
        """Have the driver prepare what streaming and zooming will need; best when there is time, after the first picture.

        Layers half filled with field can ask for twice the tiles that the densest full ones do.
        """
        view = layers_for_view(self.size, self.slide.tiling.tile_shape, len(self.slide.channels))
        if self.store.make_room(2 * view):
            self._soon_for = None
        self._staging.grow(2 * view)
        channels = self.view().channels
        looks = [self.channels[channel] for channel in channels]
        self._renderer.warm_up(looks, self.store.texture, target, self.blending(channels))

    def _neighbourhood(self, plan: FramePlan, view: View) -> list[int]:
        """Tiles the view may need soon, at most a quarter of the tile cache: ahead, around, a layer up and down, z and t."""
        ahead = replace(view, camera=self._motion.predicted(view.camera))
        views = [(ahead, None), (ahead, plan.level + 1), (replace(view, camera=view.camera.zoomed(2 * view.camera.scale)), None)]
        for axis, size in (("z", self.slide.size_z), ("t", self.slide.size_t)):
            at = getattr(view, axis)
            if at == size:  # a projection has no neighbours
                continue
            views += [(replace(view, **{axis: at + step}), None) for step in (1, -1) if 0 <= at + step < size]
        room, soon = self._tiles.capacity // 4, {}
        for each, level in views:
            if len(soon) >= room or (level or 0) >= len(self.slide.levels):
                continue
            soon.update(dict.fromkeys(self._planned(each, level).fetch))
        return list(soon)[:room]

    def _reported(self, plan: FramePlan, *, uploaded: int, **facts: float) -> FrameReport:
        read = self._loader.tiles_read
        nbytes = self._tiles.tile_nbytes
        self.report = FrameReport(
            level=plan.level,
            overview=plan.overview,
            fields_in_view=plan.fields_in_view,
            tiles_wanted=plan.tiles_wanted,
            tiles_missing=plan.tiles_missing,
            tiles_failed=plan.tiles_failed + (len(self._not_replaced()) if self._outdated else 0),
            tiles_uploaded=uploaded,
            tiles_pending=self._loader.pending,
            tiles_in_texture=len(self.store),
            tiles_in_ram=len(self._tiles),
            bytes_decoded=(read - self._tiles_reported) * nbytes,
            bytes_uploaded=uploaded * nbytes,
            ram_bytes=self._tiles.nbytes,
            ram_budget_bytes=self._tiles.capacity * nbytes,
            vram_bytes=self.store.nbytes,
            vram_budget_bytes=self.store.capacity * nbytes,
            **facts,
        )
        self._tiles_reported = read
        return self.report

    def settled_frame(self, target: Target, timeout_s: float = 600.0) -> FrameReport:
        """Draw once every visible tile is there (or known to be unreadable); GraphicsError after the time-out."""
        view = self.view()
        self._soon = []
        self._take_in_growth()
        self.store.cache.discard(self._outdated)
        self._outdated.clear()
        end = time.monotonic() + timeout_s
        full = False  # more in view than fits on any layer: what fits is shown
        self._given_up = set()
        # coarser tiles stand in only for what cannot be read
        while (plan := self.plan(view, stands_in=full or bool(self._unreadable()))).fetch and not full:
            outstanding = list(plan.fetch)
            while outstanding and not full:
                self._let_go(1.0)
                arrived = self._loader.wait_for(outstanding, 0.5)
                uploaded = self._upload(arrived, float("inf"))
                full = bool(arrived) and not uploaded
                if time.monotonic() > end:
                    raise GraphicsError(f"the view is not complete after {timeout_s:g} s: {len(outstanding)} tiles are missing")
                if not arrived and self._loader.idle:
                    break  # the rest could not be read: the next plan asks once more, or does without
                outstanding = [number for number in outstanding if number not in uploaded]
            self._given_up |= self._loader.resting()  # one try for each; else slow failures would be tried in turns for ever
        self._given_up = set()
        started = time.perf_counter()
        self._draw(plan, view, target)
        self._last = _Shown(plan.level, plan.overview)
        quads = sum(len(draw.rows) for draw in plan.draws)
        return self._reported(plan, uploaded=0, draw_s=time.perf_counter() - started, quads=quads)

    def failures(self) -> list[str]:
        """One line for each tile that could not be read."""
        return sorted({str(failure.error) for failure in self._loader.failed().values()})

    def resident_tiles(self, plan: FramePlan) -> list[int]:
        """Numbers of the distinct tiles that a plan draws."""
        return self.store.cache.keys_of(plan.layers)

    def forget(self) -> None:
        """Empty the tile cache and the texture cache, as if the slide had just been opened."""
        self._soon, self._soon_for, self._last = [], None, None
        self._outdated.clear()
        self._loader.want(())
        while not self._loader.idle:
            self._loader.wait(0.1)
        self._let_go(1.0)
        self._tiles.clear()
        self.store.cache.clear()

    def close(self) -> None:
        """Stop the threads and delete the GL objects; the slide stays its owner's. Closing twice is harmless."""
        if self._follower is not None:
            self._follower.close()
        self._loader.close()
        self._tiles.close()
        self._staging.close()
        self._renderer.close()
        self.store.close()

    def plan(self, view: View | None = None, *, stands_in: bool = True, slabs: float = float("inf")) -> FramePlan:
        """The plan of a frame now; its tiles become the most recently used, and what it misses is asked for, decoded into at most
        so many new `slabs` of mapped memory."""
        view = view or self.view()
        plan = self._planned(view, stands_in=stands_in)
        if self.store.make_room(plan.tiles_wanted):
            plan = self._planned(view, stands_in=stands_in)
        if self._outdated:
            plan = replace(plan, fetch=(*plan.fetch, *self._replaceable()))
        self._staging.grow(len(plan.fetch), slabs)
        self._loader.want(plan.fetch, self._soon)
        return self._marked(plan)

    def _replaceable(self) -> list[int]:
        """Tiles in texture layers that show what was before planes came: what was seen stays until its like is there."""
        return [number for number in self._outdated if number in self.store.cache]

    def _not_replaced(self) -> list[int]:
        """Those of them that could not be read when that was tried last: frames go on, and ask for them when it is time."""
        return [number for number in self._replaceable() if number in failed] if (failed := self._loader.failed()) else []

    def _acquired(self, view: View) -> np.ndarray:
        """(n_fields, n_channels) bool: the planes at the view's z and t, but for those that are still missing in tiles that are
        resident: there they would be black, over their neighbours too."""
        acquired = self._mosaic.acquired(view.z, view.t)
        if not len(self._late):
            return acquired
        waits = np.isin(self._late_tiles, self._replaceable()).any(axis=1)
        self._late, self._late_tiles = self._late[waits], self._late_tiles[waits]
        here = self._late[(self._late[:, 2] == view.z) & (self._late[:, 3] == view.t)]
        if not len(here):
            return acquired
        known, of = self._without_late, (len(self._late), view.z, view.t)
        if known is None or known[0] is not acquired or known[1] != of:
            shown = acquired.copy()
            shown[here[:, 0], here[:, 1]] = False
            known = self._without_late = acquired, of, shown
        return known[2]

    def _marked(self, plan: FramePlan) -> FramePlan:
        """The plan, with its tiles noted as the most recently used, and those of the overview kept with its stand-ins."""
        kept = plan.stand_ins
        if len(self._resident):
            layers = self.store.cache.lookup(self._resident)
            kept = np.concatenate([kept, layers[layers >= 0].astype(np.int64)])
        self.store.cache.begin_frame(plan.layers, kept)
        return plan

    def _overview_tiles(self, view: View) -> np.ndarray:
        """Numbers of the tiles that show the whole slide, kept in texture layers: wherever the view jumps, something is there.

        The finest layer of the fields, or of the reconstructed overview, that takes no more than an eighth of the layers.
        """
        wanted = (view.channels, view.z, view.t, self.store.texture.layers, self.slide.n_fields, self.growth)
        if wanted != self._resident_for:
            self._resident_for = wanted
            sources = [source for source in (self._mosaic, self._overview) if source is not None]
            candidates = (source.whole(view, self._most_resident()) for source in sources)
            self._resident = next((numbers for numbers in candidates if len(numbers)), _NONE)
        return self._resident

    def _most_resident(self) -> int:
        return min(MOST_OVERVIEW_TILES, self.store.texture.layers // 8)

    def _missing_overview(self) -> list[int]:
        if not len(self._resident):
            return []
        missing = self._resident[self.store.cache.lookup(self._resident) < 0].tolist()
        return missing if not self._outdated else missing + [n for n in self._resident.tolist() if n in self._outdated]

    def _take_in_growth(self) -> None:
        """What a growing slide got since the last frame: packed tiles that hold it are read anew, fields are placed anew."""
        if self._follower is None:
            return
        planes, placed = self._follower.take()
        if not len(planes):
            return
        outdated = self._mosaic.tiles_shared_by(planes)
        self._loader.discard(outdated)
        self._outdated = {number for number in self._outdated.union(outdated) if number in self.store.cache}
        self._mosaic.place(placed)
        tiles = np.stack(self._mosaic.packed_tiles(planes) or [np.empty(len(planes), np.int64)], axis=-1)
        self._late = np.concatenate([self._late, planes])
        self._late_tiles = np.concatenate([self._late_tiles.reshape(-1, tiles.shape[1]), tiles])
        self._soon_for = self._laid_out_of = None
        self.growth += 1

    def locate(self, number: int) -> tuple[Slide, TileKey]:
        """The slide (the engine's own, or its overview) and key of a tile number."""
        beyond = self._overview is not None and number >= self._overview.numbers.first
        source = self._overview if beyond else self._mosaic
        return source.slide, source.numbers.decode(number)

    def _read_tiles(
        self, numbers: list[int], outs: list[np.ndarray], wanted: Callable[[int], bool], urgent: bool
    ) -> list[Exception | None]:
        """Decode tiles in a worker thread; those of the slide and of its overview in a call each."""
        places = [self.locate(number) for number in numbers]
        outcomes: list[Exception | None] = [None] * len(numbers)
        for slide in dict.fromkeys(slide for slide, _ in places):
            own = [at for at, place in enumerate(places) if place[0] is slide]
            keys, tiles = [places[at][1] for at in own], [outs[at] for at in own]
            read = projection.read_tiles(slide, keys, tiles, lambda n, own=own: wanted(own[n]), urgent)
            for at, outcome in zip(own, read, strict=True):
                outcomes[at] = outcome
        return outcomes

    def _shows_overview(self, view: View) -> bool:
        """Whether the reconstructed overview stands in: fields are smaller on the screen than it knows them."""
        if self._overview is None or view.overlap != "top" or view.position_set != "stage":
            return False
        return view.camera.scale * self._overview.slide.header.pixel_size_um <= view.camera.pixel_size_um

    def _unreadable(self) -> set[int]:
        """Tiles that are not to be waited for."""
        return self._loader.resting() | self._given_up

    def _planned(self, view: View, level: int | None = None, stands_in: bool = True) -> FramePlan:
        source = self._mosaic
        if overview := self._shows_overview(view):
            source = self._overview
            view = replace(view, camera=view.camera.in_pixels_of(source.slide.header.pixel_size_um))
        layout = self._laid_out(view, source, level)
        geometry, tiling = source.geometry(view.position_set), source.slide.tiling
        lookup, failed = self.store.cache.lookup, self._unreadable()
        plan = resolve(layout, geometry, tiling, source.numbers, lookup, failed, stands_in)
        return replace(plan, overview=overview)

    def _laid_out(self, view: View, source: _Source, level: int | None) -> Layout:
        """What of a source lies in a view; kept while frames of the same view are planned again, as tiles arrive."""
        acquired = source.acquired(view.z, view.t) if source is self._overview else self._acquired(view)
        geometry = source.geometry(view.position_set)
        of = (view, self.store.capacity), (geometry, acquired)
        known = self._laid_out_of
        if known is None or of[0] != known[0] or any(map(operator.is_not, of[1], known[1])):
            self._laid_out_of, self._layouts = of, {}
        if level not in self._layouts:
            tiling, numbers = source.slide.tiling, source.numbers
            self._layouts[level] = lay_out(view, geometry, tiling, numbers, acquired, self.store.capacity, level)
        return self._layouts[level]

    def _upload(self, tiles: list[tuple[int, np.ndarray]], deadline: float) -> set[int]:
        """Have tiles that are in memory copied into texture layers, in order, until the deadline; returns which were."""
        uploaded, held = set(), []
        self._let_go()
        if not tiles:
            return uploaded
        self.store.texture.bind()
        for number, tile in tiles:
            layer = self.store.cache.allocate(number)
            if layer is None:
                break
            if self._staging.upload(self.store.texture, layer, tile):
                held.append(number)
            uploaded.add(number)
            if time.perf_counter() > deadline:
                break
        self._staging.fence(held)
        self._outdated -= uploaded
        self._loader.release(uploaded, held)
        return uploaded

    def _let_go(self, timeout_s: float = 0.0) -> None:
        if fetched := self._staging.fetched(timeout_s):
            self._loader.let_go(fetched)

    def _draw_plan(self, plan: FramePlan, view: View, target: Target) -> None:
        looks = [self.channels[channel] for channel in view.channels]
        self._renderer.draw(plan, view, looks, self.store.texture, target, self.blending(view.channels))

    def _draw(self, plan: FramePlan, view: View, target: Target) -> None:
        self._draw_plan(plan, view, target)
        if self.show_planned and self._follower is not None:
            rows = planned_rows(view, self.geometry, self._acquired(view))
            self._draw_planned(rows, plan, view, target)
        if self.show_outlines:
            fields = self.geometry.in_view(view.camera, 0)
            self._renderer.draw_outlines(outline_rows(view.camera, self.geometry, fields), plan, target)

    def _draw_planned(self, rows: np.ndarray, plan: FramePlan, view: View, target: Target, *, filled: bool = False) -> None:
        of_fields = replace(plan, image_to_screen=image_to_screen(view.camera, self.geometry))  # it may be an overview's
        self._renderer.draw_planned(rows, of_fields, target, on_white=self.background == "white", filled=filled)


@dataclass(frozen=True)
class _Shown:
    """Which layer a frame showed, of the fields or of the overview."""

    level: int
    overview: bool


_Placed = tuple[dict[str, Geometry], dict[tuple[int, int], np.ndarray]]
"""Geometries by position set, and (n_fields, n_channels) tables of the planes that exist by z and t."""


class _Source:
    """A slide that is drawn from: its tile numbers, and where its fields lie under each position set."""

    def __init__(self, slide: Slide, first_number: int = 0):
        self.slide = slide
        self.numbers = TileNumbers(slide, first_number)
        self._geometries: dict[str, Geometry] = {}
        self._follows = slide.growing
        self._known: dict[tuple[int, int], np.ndarray] = {}
        self._projected: dict[int, np.ndarray] = {}

    def geometry(self, position_set: str) -> Geometry:
        """Made when first asked for, and kept."""
        if position_set not in self._geometries:
            self._geometries[position_set] = Geometry(self.slide, position_set)
        return self._geometries[position_set]

    def level_for(self, n_channels: int, most: int) -> int:
        """The finest layer of which all tiles of so many channels are at most that many; the coarsest if none is."""
        tiling, n_fields = self.slide.tiling, self.slide.n_fields
        fitting = (level for level in range(len(tiling.levels)) if tiling.tile_count(level, n_fields) * n_channels <= most)
        return next(fitting, len(tiling.levels) - 1)

    def whole(self, view: View, most: int) -> np.ndarray:
        """Numbers of all acquired tiles of that layer in the view's channels, z and t; none if even the coarsest has too many."""
        level = self.level_for(len(view.channels), most)
        count = self.slide.tiling.tile_count(level, self.slide.n_fields)
        if not 0 < count * len(view.channels) <= most:
            return _NONE
        index, cut = np.arange(count), self.slide.tiling.levels[level]
        numbers = self.numbers.encode(level, index[:, None], np.array(view.channels), view.z, view.t)
        if cut.packed:
            return numbers.ravel()
        acquired = self.acquired(view.z, view.t)[:, view.channels]
        return numbers[acquired[index // cut.tiles_per_field]]  # a plane that is still to come would be kept as black

    def tiles_shared_by(self, planes: np.ndarray) -> list[int]:
        """Numbers of the tiles that show one of the (n, 4) planes (field, channel, z, t) and others as well: those of packed
        layers, and projections."""
        self._projected = {}
        field, channel, _, t = np.asarray(planes, np.int64).T
        numbers = self.packed_tiles(planes)
        if self.slide.size_z > 1:
            numbers += [self._projected_tiles(level, field, channel, t) for level in range(len(self.slide.tiling.levels))]
        return np.unique(np.concatenate(numbers)).tolist() if numbers else []

    def packed_tiles(self, planes: np.ndarray) -> list[np.ndarray]:
        """For each packed layer the (n,) numbers of the tiles that hold the (n, 4) planes."""
        field, channel, z, t = np.asarray(planes, np.int64).T
        slots = self.slide.fields["slot"][field].astype(np.int64)
        cuts = enumerate(self.slide.tiling.levels)
        return [self.numbers.encode(n, slots // cut.fields_per_tile, channel, z, t) for n, cut in cuts if cut.packed]

    def _projected_tiles(self, level: int, field: np.ndarray, channel: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Numbers of all tiles of a layer that show these fields projected."""
        cut = self.slide.tiling.levels[level]
        if cut.packed:
            index = (self.slide.fields["slot"][field].astype(np.int64) // cut.fields_per_tile)[:, None]
        else:
            index = field[:, None] * cut.tiles_per_field + np.arange(cut.tiles_per_field)
        return self.numbers.encode(level, index, channel[:, None], self.slide.size_z, t[:, None]).ravel()

    def acquired(self, z: int, t: int) -> np.ndarray:
        """(n_fields, n_channels) bool: which planes exist; of a projection, of which there is any."""
        if z < self.slide.size_z:
            if not self._follows:
                return self.slide.acquired(z, t)
            if (z, t) not in self._known:
                self._known[z, t] = self.slide.acquired(z, t)
            return self._known[z, t]
        if t not in self._projected or len(self._projected[t]) != self.slide.n_fields:
            self._projected[t] = projection.acquired(self.slide, t)
        return self._projected[t]

    def placed_anew(self) -> _Placed:
        """The geometries and tables of planes in use, as they are now. By the thread that refreshes the slide."""
        geometries = {name: self._still_or_anew(name, geometry) for name, geometry in list(self._geometries.items())}
        return geometries, {time: self._table_now(time, before) for time, before in list(self._known.items())}

    def _table_now(self, time: tuple[int, int], before: np.ndarray) -> np.ndarray:
        try:
            return self.slide.acquired(*time)
        except SlideError:  # a server that is away: what is known of it comes with the next news
            return before

    def _still_or_anew(self, name: str, geometry: Geometry) -> Geometry:
        """The same geometry where no field was added or moved, as in a planned scan."""
        return geometry if geometry.still_holds(self.slide, name) else Geometry(self.slide, name)

    def place(self, placed: _Placed) -> None:
        """Draw by these from now on."""
        self._geometries, self._known = placed


def _initial_looks(slide: Slide) -> list[ChannelView]:
    """Colours and limits that belong to slide and channel: the file's own, else automatic from the stored histogram."""
    colors = default_colors(slide.channels)
    looks = []
    for number, (channel, color) in enumerate(zip(slide.channels, colors, strict=True)):
        limits = channel.contrast_limits or percentile_limits(slide.histogram(number))
        looks.append(ChannelView(channel.name, limits, color))
    return looks


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = (int(side) for side in size)
    if not (0 < width <= 16384 and 0 < height <= 16384):
        raise OutOfRangeError("picture size", f"{width}x{height}", "each side is 1 to 16384 pixels")
    return width, height
