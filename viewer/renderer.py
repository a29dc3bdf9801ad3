"""A plan and textures → pixels. Knows no path, no socket, no lock and no slide.

Two ways: *direct*, one instanced draw that contrasts and mixes all channels at once; and *by channel*, where the raw
counts of one channel are merged by the overlap rule in a float buffer before contrast, and the channels are added up in a
float picture; unmixed channels are summed up from the merged counts first. Programs are compiled when first needed, one per
number of channels and way of blending, and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from rawmosaic.viewer.blending import PLAIN, Blending, Mixing, mixing
from rawmosaic.viewer.camera import Camera
from rawmosaic.viewer.channels import ChannelView
from rawmosaic.viewer.gl.api import GL
from rawmosaic.viewer.gl.color_table import ColorTable
from rawmosaic.viewer.gl.objects import Framebuffer, Sampler, TableTexture, TileTexture, VertexArray
from rawmosaic.viewer.gl.program import Program
from rawmosaic.viewer.plan import MOST_CHANNELS_AT_ONCE, ROWS_BEFORE_CHANNELS, Draw, FramePlan, View, runs_along_pixels

OUTLINE_COLOR = (0.35, 0.35, 0.35)
PLANNED_COLOR = (0.15, 0.19, 0.25)
"""Of what a running scan has yet to acquire: dimmer than anything else, and never over a brighter picture."""

_EDGE_MARGIN = 1.0 / 16
"""Screen pixels by which quads of turned mosaics are drawn too large; the fragment shader cuts them to the exact edge."""

_TILES_UNIT, _TABLE_UNIT, _COLORS_UNIT = 0, 1, 2
_SUMS_AT_ONCE = 4
"""Unmixed channels that one float buffer sums up."""


@dataclass(frozen=True)
class Target:
    """Where a frame goes: a framebuffer with depth (0: the window's), its size, whether its first row is the top."""

    framebuffer: int
    size: tuple[int, int]
    top_row_first: bool

    def bind(self) -> None:
        """Draw into it from now on."""
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, self.framebuffer)
        GL.glViewport(0, 0, *self.size)


class Renderer:
    """Owns programs, the quad table and the float buffers of one context. All calls in the GL thread."""

    def __init__(self):
        self._vertex_array = VertexArray()
        self._quads = TableTexture()
        self._color_table: ColorTable | None = None
        self._samplers = {False: Sampler(linear=False), True: Sampler(linear=True)}
        self._programs: dict[tuple, Program] = {}
        self._buffers: dict[tuple, Framebuffer] = {}
        GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)

    def draw(
        self,
        plan: FramePlan,
        view: View,
        looks: Sequence[ChannelView],
        tiles: TileTexture,
        target: Target,
        blending: Blending = PLAIN,
    ) -> None:
        """Draw a planned frame. `looks` are those of `view.channels`, in order, and `blending.unmixing` is among these."""
        mixed = mixing(looks, blending)
        self._vertex_array.bind()
        GL.glActiveTexture(GL.GL_TEXTURE0 + _TILES_UNIT)
        tiles.bind(_TILES_UNIT)
        GL.glBindSampler(_TILES_UNIT, self._samplers[view.smooth].name)
        target.bind()
        GL.glDisable(GL.GL_BLEND)
        GL.glDisable(GL.GL_DEPTH_TEST)
        GL.glDepthFunc(GL.GL_LEQUAL)
        GL.glClearColor(*[float(mixed.on_white)] * 3, 1.0)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT | GL.GL_DEPTH_BUFFER_BIT)
        if plan.direct:
            for draw in plan.draws:
                self._draw_direct(draw, plan, view, looks, mixed, tiles, target)
        else:
            self._draw_by_channel(plan, view, looks, mixed, tiles, target)
        GL.glBindSampler(_TILES_UNIT, 0)
        if len(plan.outlines):
            self._draw_outlines(plan.outlines, plan, target)

    def draw_outlines(self, rows: np.ndarray, plan: FramePlan, target: Target) -> None:
        """Outlines of any fields over what is drawn already; rows as `FramePlan.outlines`."""
        self._vertex_array.bind()
        self._draw_outlines(rows, plan, target)

    def draw_planned(
        self, rows: np.ndarray, plan: FramePlan, target: Target, *, on_white: bool = False, filled: bool = False
    ) -> None:
        """Planned positions under what is drawn already, as outlines or as dim ground; rows as `FramePlan.outlines`."""
        if not len(rows):
            return
        self._vertex_array.bind()
        GL.glEnable(GL.GL_BLEND)
        GL.glBlendEquation(GL.GL_MIN if on_white else GL.GL_MAX)  # the picture wins where there is one
        color = tuple(1.0 - part for part in PLANNED_COLOR) if on_white else PLANNED_COLOR
        self._draw_outlines(rows, plan, target, color, GL.GL_TRIANGLE_FAN if filled else GL.GL_LINE_LOOP)
        GL.glDisable(GL.GL_BLEND)

    def warm_up(self, looks: Sequence[ChannelView], tiles: TileTexture, target: Target, blending: Blending = PLAIN) -> None:
        """Draw nothing with every program that views of these channels use: drivers compile on the first draw."""
        channels, mixed_channels = len(looks), mixing(looks, blending)
        if not 0 < channels <= MOST_CHANNELS_AT_ONCE:
            return
        empty = np.empty(0)
        plan = FramePlan(0, (), True, np.eye(2), (), empty, empty, empty)
        camera = Camera(0.0, 0.0, 1.0, target.size)
        rows = np.zeros((1, ROWS_BEFORE_CHANNELS + channels, 4), np.float32)
        self._vertex_array.bind()
        tiles.bind(_TILES_UNIT)
        target.bind()
        for smooth in (False, True):
            view = View(camera, tuple(range(channels)), smooth=smooth)
            joints = np.zeros((int(smooth), ROWS_BEFORE_CHANNELS + 1 + 4 * channels, 4), np.float32)
            GL.glBindSampler(_TILES_UNIT, self._samplers[smooth].name)  # drivers compile for the filter as well
            for mixed in (False, True):
                self._draw_direct(Draw(view.channels, rows, joints, mixed), plan, view, looks, mixed_channels, tiles, target)
        GL.glBindSampler(_TILES_UNIT, 0)

    def close(self) -> None:
        """Delete everything; closing twice is harmless."""
        for owned in (
            self._vertex_array,
            self._quads,
            *self._samplers.values(),
            *self._programs.values(),
            *self._buffers.values(),
            *([self._color_table] if self._color_table is not None else []),
        ):
            owned.close()
        self._programs.clear()
        self._buffers.clear()

    def _draw_direct(
        self,
        draw: Draw,
        plan: FramePlan,
        view: View,
        looks: Sequence[ChannelView],
        mixed: Mixing,
        tiles: TileTexture,
        target: Target,
    ) -> None:
        if not len(mixed.shown):
            return
        limits = np.array([looks[place].shader_limits() for place in mixed.shown])
        defines = {**self._defines(looks, mixed.shown, mixed), "ON_WHITE": mixed.on_white}
        if mixed.shares is not None:
            defines |= {"UNMIXED": True, "SHOWN": len(mixed.shown)}
        GL.glEnable(GL.GL_DEPTH_TEST)
        for program, rows in self._passes(draw, plan, view, "mosaic.frag", defines):
            program.set_floats("limits", limits)
            program.set_floats("colors", mixed.columns)
            if mixed.shares is not None:
                program.set_floats("shares", mixed.shares.reshape(-1, 1))
            self._bind_colors(program, mixed)
            self._draw_quads(program, rows, plan, tiles, target)
        GL.glDisable(GL.GL_DEPTH_TEST)

    @staticmethod
    def _defines(looks: Sequence[ChannelView], shown: Sequence[int], mixed: Mixing) -> dict[str, bool]:
        """What common/contrast.glsl asks for."""
        gamma = any(looks[place].gamma != 1.0 for place in shown)
        return {"GAMMA": gamma} if mixed.table is None else {"GAMMA": gamma, "MAPPED": True}

    def _bind_colors(self, program: Program, mixed: Mixing) -> None:
        if mixed.table is None:
            return
        if self._color_table is None:
            self._color_table = ColorTable()
        self._color_table.bind(_COLORS_UNIT, mixed.table)
        program.set_int("color_map", _COLORS_UNIT)

    def _passes(
        self, draw: Draw, plan: FramePlan, view: View, fragment: str, defines: dict
    ) -> Iterator[tuple[Program, np.ndarray]]:
        """(program in use, rows) for the quads, then for the joints between them."""
        common = {"CHANNELS": len(draw.channels), **_axes(plan.image_to_screen), **defines}
        if len(draw.rows):
            yield self._program("mosaic.vert", fragment, {**common, "SMOOTH": view.smooth, "MIXED": draw.mixed}), draw.rows
        if len(draw.joints):
            yield self._program("mosaic.vert", fragment, {**common, "JOINTS": True}), draw.joints

    def _draw_by_channel(
        self, plan: FramePlan, view: View, looks: Sequence[ChannelView], mixed: Mixing, tiles: TileTexture, target: Target
    ) -> None:
        counts = self._buffer("counts", target.size, GL.GL_RG32F, depth=True)
        picture = self._buffer("picture", target.size, GL.GL_RGBA32F)
        sums = self._cleared_sums(mixed, target.size)
        picture.bind()
        GL.glClearColor(0.0, 0.0, 0.0, 0.0)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        for draw in plan.draws:
            self._merge_counts(draw, plan, view, tiles, counts, target)
            if mixed.shares is None:
                self._add_channel(counts, picture, looks, draw.channels[0], mixed)
            else:
                self._add_shares(counts, sums, mixed.shares[:, draw.channels[0]])
        if mixed.shares is not None:
            there = {draw.channels[0] for draw in plan.draws}
            for number, shares in enumerate(mixed.shares):
                if there.issuperset(np.flatnonzero(shares).tolist()):
                    self._add_channel(sums[number // _SUMS_AT_ONCE], picture, looks, number, mixed)
        target.bind()
        program = self._program("fullscreen.vert", "present.frag", {"ON_WHITE": mixed.on_white})
        self._draw_screen(program, "picture", picture)

    def _cleared_sums(self, mixed: Mixing, size: tuple[int, int]) -> list[Framebuffer]:
        """Float buffers for the unmixed channels, four in each; those that are no longer needed are given back."""
        count = 0 if mixed.shares is None else -(-len(mixed.shares) // _SUMS_AT_ONCE)
        for name in [name for name in self._buffers if name.startswith("sums") and int(name[4:]) >= count]:
            self._buffers.pop(name).close()
        sums = [self._buffer(f"sums{number}", size, GL.GL_RGBA32F) for number in range(count)]
        for buffer in sums:
            buffer.bind()
            GL.glClearColor(0.0, 0.0, 0.0, 0.0)
            GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        return sums

    def _add_shares(self, counts: Framebuffer, sums: list[Framebuffer], shares: np.ndarray) -> None:
        """Add one channel's counts, times its (k,) shares, to the sums of the unmixed channels."""
        for number, buffer in enumerate(sums):
            four = np.zeros(_SUMS_AT_ONCE)
            own = shares[number * _SUMS_AT_ONCE : (number + 1) * _SUMS_AT_ONCE]
            if not own.any():
                continue
            four[: len(own)] = own
            buffer.bind()
            with _adding():
                program = self._program("fullscreen.vert", "unmix.frag", {})
                program.set_floats("shares", four)
                self._draw_screen(program, "counts", counts)

    def _merge_counts(
        self, draw: Draw, plan: FramePlan, view: View, tiles: TileTexture, counts: Framebuffer, target: Target
    ) -> None:
        counts.bind()
        GL.glClearColor(0.0, 0.0, 0.0, 0.0)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT | GL.GL_DEPTH_BUFFER_BIT)
        if view.overlap == "max":
            GL.glEnable(GL.GL_BLEND)
            GL.glBlendEquation(GL.GL_MAX)
        elif view.overlap == "feather":
            GL.glEnable(GL.GL_BLEND)
            GL.glBlendEquation(GL.GL_FUNC_ADD)
            GL.glBlendFunc(GL.GL_ONE, GL.GL_ONE)
        else:
            GL.glEnable(GL.GL_DEPTH_TEST)
        for program, rows in self._passes(draw, plan, view, "counts.frag", {"FEATHER": view.overlap == "feather"}):
            self._draw_quads(program, rows, plan, tiles, target)
        GL.glDisable(GL.GL_BLEND)
        GL.glDisable(GL.GL_DEPTH_TEST)

    def _add_channel(
        self, counts: Framebuffer, picture: Framebuffer, looks: Sequence[ChannelView], number: int, mixed: Mixing
    ) -> None:
        """Add one of the shown channels to the picture, from its merged counts or from a component of the sums."""
        look = looks[mixed.shown[number]]
        defines: dict[str, int] = self._defines(looks, [mixed.shown[number]], mixed)
        if mixed.shares is not None:
            defines["UNMIXED"] = True
        picture.bind()
        with _adding():
            program = self._program("fullscreen.vert", "compose.frag", defines)
            program.set_floats("limits", np.array(look.shader_limits()))
            program.set_floats("channel_color", mixed.columns[number])
            if mixed.shares is not None:
                program.set_int("component", number % _SUMS_AT_ONCE)
            self._bind_colors(program, mixed)
            self._draw_screen(program, "counts", counts)

    def _draw_quads(self, program: Program, rows: np.ndarray, plan: FramePlan, tiles: TileTexture, target: Target) -> None:
        _set_camera(program, plan, target)
        height, width = tiles.tile_shape
        program.set_int("tiles", _TILES_UNIT)
        program.set_floats("tile_size", np.array([width, height]))
        cut = not runs_along_pixels(plan.image_to_screen)
        program.set_floats("margin_px", np.array([_EDGE_MARGIN * _px_per_screen_px(plan) if cut else 0.0]))
        program.set_floats("depth_scale", np.array([plan.depth_scale]))
        self._quads.fill(np.ascontiguousarray(rows))
        self._quads.bind(_TABLE_UNIT)
        program.set_int("quads", _TABLE_UNIT)
        GL.glDrawArraysInstanced(GL.GL_TRIANGLE_STRIP, 0, 4, len(rows))

    def _draw_screen(self, program: Program, name: str, source: Framebuffer) -> None:
        GL.glActiveTexture(GL.GL_TEXTURE0 + _TABLE_UNIT)
        GL.glBindTexture(GL.GL_TEXTURE_2D, source.texture)
        program.set_int(name, _TABLE_UNIT)
        GL.glDrawArrays(GL.GL_TRIANGLES, 0, 3)

    def _draw_outlines(
        self,
        rows: np.ndarray,
        plan: FramePlan,
        target: Target,
        color: tuple[float, float, float] = OUTLINE_COLOR,
        shape: int = GL.GL_LINE_LOOP,
    ) -> None:
        target.bind()
        program = self._program("outline.vert", "outline.frag", {})
        _set_camera(program, plan, target)
        program.set_floats("line_color", np.array(color))
        self._quads.fill(np.ascontiguousarray(rows, np.float32))
        self._quads.bind(_TABLE_UNIT)
        program.set_int("outlines", _TABLE_UNIT)
        GL.glDrawArraysInstanced(shape, 0, 4, len(rows))

    def _program(self, vertex: str, fragment: str, defines: dict) -> Program:
        defines = {name: int(value) for name, value in defines.items()}
        signature = (vertex, fragment, *sorted(defines.items()))
        if signature not in self._programs:
            self._programs[signature] = Program(vertex, fragment, defines)
        program = self._programs[signature]
        program.use()
        return program

    def _buffer(self, name: str, size: tuple[int, int], internal_format: int, *, depth: bool = False) -> Framebuffer:
        """The float buffer of that name, made anew when the picture's size changes."""
        if (found := self._buffers.get(name)) is not None and found.size != size:
            found.close()
            found = None
        if found is None:
            found = self._buffers[name] = Framebuffer(size, internal_format, depth=depth)
        return found


@contextmanager
def _adding() -> Iterator[None]:
    """What is drawn is added to what is there."""
    GL.glEnable(GL.GL_BLEND)
    GL.glBlendEquation(GL.GL_FUNC_ADD)
    GL.glBlendFunc(GL.GL_ONE, GL.GL_ONE)
    yield
    GL.glDisable(GL.GL_BLEND)


def _set_camera(program: Program, plan: FramePlan, target: Target) -> None:
    program.set_floats("screen_size", np.array(target.size))
    program.set_floats("y_sign", np.array([1.0 if target.top_row_first else -1.0]))
    program.set_mat2("image_to_screen", plan.image_to_screen)
    screen_to_image = _inverse(plan.image_to_screen)
    program.set_mat2("screen_to_image", screen_to_image)
    program.set_floats("px_step", screen_to_image.diagonal() * (1.0, 1.0 if target.top_row_first else -1.0))


def _axes(image_to_screen: np.ndarray) -> dict[str, bool]:
    """The defines that say how the axes of image and screen lie to each other."""
    plain = image_to_screen[0, 1] == 0.0 == image_to_screen[1, 0]
    return {"CUT": not runs_along_pixels(image_to_screen), "PLAIN": bool(plain)}


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a (2, 2) matrix, by Cramer's rule: NumPy's general one takes a tenth of a frame's planning."""
    (a, b), (c, d) = matrix.tolist()
    return np.array([[d, -b], [-c, a]]) / (a * d - b * c)


def _px_per_screen_px(plan: FramePlan) -> float:
    """Field pixels per screen pixel along the worse axis."""
    return float(np.abs(_inverse(plan.image_to_screen)).sum(axis=1).max())
