"""Each function of shaders/common against its NumPy twin, drawn into a float picture and read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.gl.context import HeadlessContext

SIZE = (23, 17)
TILE = (12, 16)
"""(height, width) of a tile."""

NUMBER = """
#include "common/position.glsl"
#include "common/sampling.glsl"
out vec4 result;
void main() {
    vec2 p_field = field_position();
    result = vec4(p_field, field_counts(0, p_field, v_field.zw), field_counts(CHANNELS - 1, p_field, v_field.zw));
}
"""
"""What a test draws with mosaic.vert: the field pixel, and the counts of the first and last channel."""


class Bench:
    """A context and a float picture; draws fragments written in the test."""

    def __init__(self, folder: Path):
        from rawmosaic.viewer.gl.api import GL
        from rawmosaic.viewer.gl.objects import Framebuffer, Sampler, TableTexture, TileTexture, VertexArray

        self.gl, self.folder = GL, folder
        GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)
        self.picture = Framebuffer(SIZE, GL.GL_RGBA32F)
        self.table, self.vertices = TableTexture(), VertexArray()
        self.samplers = {smooth: Sampler(smooth) for smooth in (False, True)}
        self.tiles = TileTexture(TILE, 6)
        self.vertices.bind()

    def program(self, vertex: str, text: str, defines: dict[str, int]):
        """A program from a fragment's text."""
        from rawmosaic.viewer.gl.program import Program

        file = self.folder / "test.frag"
        file.write_text(text, encoding="utf-8")
        return Program(vertex, str(file), defines)

    def upload(self, tiles: dict[int, np.ndarray]) -> None:
        """Tiles into layers."""
        self.tiles.bind(0)
        for layer, tile in tiles.items():
            pixels = np.ascontiguousarray(tile, np.uint16)
            self.tiles.upload(layer, pixels.ctypes.data)

    def begin(self) -> None:
        """An empty picture; -9 is where nothing is drawn."""
        gl = self.gl
        self.picture.bind()
        gl.glDisable(gl.GL_BLEND)
        gl.glDisable(gl.GL_DEPTH_TEST)
        gl.glClearColor(-9.0, -9.0, -9.0, -9.0)
        gl.glClear(gl.GL_COLOR_BUFFER_BIT)

    def read(self) -> np.ndarray:
        """(height, width, 4) float32, first row first."""
        width, height = SIZE
        pixels = np.empty((height, width, 4), np.float32)
        self.gl.glReadPixels(0, 0, width, height, self.gl.GL_RGBA, self.gl.GL_FLOAT, pixels)
        return pixels

    def quads(
        self, rows: np.ndarray, matrix: np.ndarray, defines: dict[str, int], *, y_sign: float = 1.0, margin: float = 0.0
    ) -> np.ndarray:
        """What mosaic.vert and NUMBER make of a table of quads."""
        gl, smooth = self.gl, bool(defines.get("SMOOTH"))
        program = self.program("mosaic.vert", NUMBER, defines)
        self.begin()
        program.use()
        self.tiles.bind(0)
        gl.glBindSampler(0, self.samplers[smooth].name)
        program.set_int("tiles", 0)
        program.set_int("quads", 1)
        program.set_floats("screen_size", np.array(SIZE))
        program.set_floats("y_sign", np.array([y_sign]))
        program.set_mat2("image_to_screen", matrix)
        program.set_mat2("screen_to_image", np.linalg.inv(matrix))
        program.set_floats("tile_size", np.array(TILE[::-1]))
        program.set_floats("margin_px", np.array([margin]))
        program.set_floats("depth_scale", np.array([0.0]))
        rows = np.ascontiguousarray(rows, np.float32)
        self.table.fill(rows)
        self.table.bind(1)
        gl.glDrawArraysInstanced(gl.GL_TRIANGLE_STRIP, 0, 4, len(rows))
        gl.glBindSampler(0, 0)
        program.close()
        return self.read()

    def close(self) -> None:
        """Delete everything."""
        for owned in (self.picture, self.table, self.vertices, self.tiles, *self.samplers.values()):
            owned.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A GL context with a float picture; skipped where there is no OpenGL."""
    try:
        context = HeadlessContext()
    except GraphicsError as error:
        pytest.skip(f"no OpenGL here: {error}")
    made = Bench(tmp_path)
    yield made
    made.close()
    context.close()


def field_points(p_centre: tuple[float, float], matrix: np.ndarray, y_sign: float = 1.0) -> np.ndarray:
    """(height, width, 2) field pixel at each pixel of the picture."""
    width, height = SIZE
    w = np.stack(np.meshgrid(np.arange(width) + 0.5 - width / 2, (np.arange(height) + 0.5 - height / 2) * y_sign), axis=-1)
    return np.asarray(p_centre) + w @ np.linalg.inv(matrix).T


def random_tiles(n: int) -> dict[int, np.ndarray]:
    """Tiles of any grey level, both ends included."""
    random = np.random.default_rng(4)
    tiles = {layer: random.integers(0, 65536, TILE).astype(np.uint16) for layer in range(n)}
    tiles[0][0, 0], tiles[0][0, 1] = 0, 65535
    return tiles


def table(
    p_centre: tuple[float, float], p_size: tuple[float, float], quad: tuple[float, ...], channels: list[tuple[float, ...]]
) -> np.ndarray:
    """(1, 3 + channels, 4): the row of one quad, as shaders/mosaic.vert says."""
    return np.array([[(*p_centre, *p_size), quad, (0, 0, 0, 0), *channels]], np.float32)


# contrast.glsl


@pytest.mark.parametrize("gamma", [1.0, 0.45, 2.2])
@pytest.mark.parametrize("limits", [(100.0, 4100.0), (0.0, 65535.0), (3000.0, 1000.0), (500.0, 500.0)], ids=str)
def test_contrast_is_the_formula(bench: Bench, limits: tuple[float, float], gamma: float):
    from rawmosaic.viewer.channels import ChannelView

    look = ChannelView("a", limits, "#ff8040", gamma)
    text = """
    uniform vec3 limits;
    uniform vec3 channel_color;
    #include "common/contrast.glsl"
    out vec4 result;
    void main() {
        result = vec4(contrasted((gl_FragCoord.x - 0.5) * 211.0 + (gl_FragCoord.y - 0.5) * 3100.0, limits, channel_color), 1.0);
    }
    """
    program = bench.program("fullscreen.vert", text.replace("    #include", "#include"), {"GAMMA": gamma != 1.0})
    bench.begin()
    program.use()
    program.set_floats("limits", np.array(look.shader_limits()))
    program.set_floats("channel_color", np.array(look.rgb()))
    bench.gl.glDrawArrays(bench.gl.GL_TRIANGLES, 0, 3)
    program.close()
    counts = np.arange(SIZE[0]) * 211.0 + np.arange(SIZE[1])[:, None] * 3100.0
    low, high = limits
    v = (counts > low).astype(float) if low == high else np.clip((counts - low) / (high - low), 0, 1) ** gamma
    expected = v[..., None] * np.array([255, 128, 64]) / 255
    sure = counts != low if low == high else np.ones_like(counts, bool)
    np.testing.assert_allclose(bench.read()[..., :3][sure], expected[sure], atol=2e-6)


@pytest.mark.parametrize("colors", [2, 256])
def test_colour_map_is_interpolated_between_its_colours(bench: Bench, colors: int):
    from rawmosaic.viewer.gl.color_table import ColorTable

    table = np.random.default_rng(3).integers(0, 256, (colors, 3)).astype(np.uint8)
    text = """
    #include "common/contrast.glsl"
    out vec4 result;
    void main() {
        float counts = gl_FragCoord.x - 0.5 + 0.05 * (gl_FragCoord.y - 0.5);
        result = vec4(contrasted(counts, vec3(0.0, 1.0 / 22.8, 1.0), vec3(0.0)), 1.0);
    }
    """
    program, texture = bench.program("fullscreen.vert", text.replace("    #include", "#include"), {"MAPPED": 1}), ColorTable()
    bench.begin()
    program.use()
    for other in (table[::-1], table):  # the last one counts
        texture.bind(2, other)
    program.set_int("color_map", 2)
    bench.gl.glDrawArrays(bench.gl.GL_TRIANGLES, 0, 3)
    program.close()
    texture.close()
    v = np.clip((np.arange(SIZE[0]) + 0.05 * np.arange(SIZE[1])[:, None]) / 22.8, 0, 1)
    expected = [np.interp(v * (colors - 1), np.arange(colors), table[:, part] / 255) for part in range(3)]
    np.testing.assert_allclose(bench.read()[..., :3], np.stack(expected, axis=-1), atol=2e-4)


# position.glsl


MATRICES = {
    "one to one": np.eye(2),
    "magnified": np.eye(2) * 3.7,
    "mirrored": np.diag([-0.8, 0.8]),
    "transposed": np.array([[0.0, 1.5], [1.5, 0.0]]),
}


@pytest.mark.parametrize("y_sign", [1.0, -1.0], ids=["first row is top", "first row is bottom"])
@pytest.mark.parametrize("matrix", [*MATRICES.values(), np.array([[1.1, -0.4], [0.3, 0.9]])], ids=[*MATRICES, "sheared"])
def test_position_is_the_field_pixel_under_the_screen_pixel(bench: Bench, matrix: np.ndarray, y_sign: float):
    bench.upload(random_tiles(1))
    p_centre = (7.25, 5.5)
    rows = table(p_centre, (16, 12), (0, 0, *SIZE), [(0, 1, 0, 0)])
    drawn = bench.quads(rows, matrix, {"CHANNELS": 1}, y_sign=y_sign)
    np.testing.assert_allclose(drawn[..., :2], field_points(p_centre, matrix, y_sign), atol=1e-4)


def test_quads_cover_the_whole_screen_pixels_they_are_given(bench: Bench):
    bench.upload(random_tiles(1))
    rows = table((8, 6), (16, 12), (3, 2, 11, 9), [(0, 1, 0, 0)])
    for y_sign, first in ((1.0, 2), (-1.0, SIZE[1] - 9)):
        drawn = bench.quads(rows, np.eye(2), {"CHANNELS": 1}, y_sign=y_sign)[..., 2] != -9
        expected = np.zeros(SIZE[::-1], bool)
        expected[first : first + 7, 3:11] = True
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("angle", [3.0, 37.0, 90.5, -160.0])
def test_cut_quads_end_at_the_exact_edge(bench: Bench, angle: float):
    turn = np.deg2rad(angle)
    matrix = 1.3 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    bench.upload(random_tiles(1))
    rows = table((8.1, 6.2), (16, 12), (2, 3, 13, 9), [(0, 1, 0, 0)])
    drawn = bench.quads(rows, matrix, {"CHANNELS": 1, "CUT": 1}, margin=0.2)[..., 2] != -9
    x, y = np.moveaxis(field_points((8.1, 6.2), matrix), -1, 0)
    inside = (x >= 2) & (x < 13) & (y >= 3) & (y < 9)
    assert 20 < inside.sum() < inside.size
    sure = np.minimum.reduce([abs(x - 2), abs(x - 13), abs(y - 3), abs(y - 9)]) > 1e-4
    np.testing.assert_array_equal(drawn[sure], inside[sure])


# sampling.glsl


def nearest(tile: np.ndarray, p: np.ndarray, per_px: float, origin: tuple[float, float], p_size: tuple[int, int]) -> np.ndarray:
    """Counts of the layer pixel that contains the point, held inside what the field covers of the tile."""
    l_size = np.ceil(np.array(p_size) * per_px)
    low = np.maximum(0, -np.array(origin))
    high = np.minimum(TILE[::-1], l_size - origin)
    texel = np.clip(np.floor(p * per_px - origin), low, high - 1).astype(int)
    return tile[texel[..., 1], texel[..., 0]].astype(float)


def bilinear(tile: np.ndarray, p: np.ndarray, per_px: float, origin: tuple[float, float], p_size: tuple[int, int]) -> np.ndarray:
    """Counts between layer pixels' centres, never reaching beyond what the field covers of the tile."""
    l_size = np.ceil(np.array(p_size) * per_px)
    low = np.maximum(0, -np.array(origin)) + 0.5
    high = np.minimum(TILE[::-1], l_size - origin) - 0.5
    place = np.clip(p * per_px - origin, low, np.maximum(low, high)) - 0.5
    first = np.floor(place).astype(int)
    fraction = place - first
    total = 0.0
    for dx in (0, 1):
        for dy in (0, 1):
            column = np.clip(first[..., 0] + dx, 0, TILE[1] - 1)
            row = np.clip(first[..., 1] + dy, 0, TILE[0] - 1)
            share = (fraction[..., 0] if dx else 1 - fraction[..., 0]) * (fraction[..., 1] if dy else 1 - fraction[..., 1])
            total = total + share * tile[row, column]
    return total


CASES = {
    "level 0": (1.0, (0.0, 0.0), (16, 12)),
    "layer 2, second tile": (0.5, (16.0, 12.0), (50, 40)),
    "packed": (0.25, (-5.0, -3.0), (20, 16)),
    "odd edge": (0.5, (0.0, 0.0), (13, 9)),
}
"""layer pixels per field pixel, tile origin in layer pixels, field size"""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("smooth", [False, True], ids=["nearest", "smooth"])
def test_counts_are_those_of_the_tile(bench: Bench, case: str, smooth: bool):
    per_px, origin, p_size = CASES[case]
    tiles = random_tiles(3)
    bench.upload(tiles)
    matrix = np.eye(2) * 1.37
    l_origin = np.maximum(np.array(origin), 0)
    p_centre = tuple((l_origin + np.array([4.2, 3.1])) / per_px)
    rows = table(p_centre, p_size, (0, 0, *SIZE), [(2, per_px, *origin), (1, per_px, *origin)])
    drawn = bench.quads(rows, matrix, {"CHANNELS": 2, "SMOOTH": smooth})
    p = field_points(p_centre, matrix)
    # beside the field as well: there its outermost pixels go on. Near a pixel's edge float32 may fall on either side
    check = (np.abs(p * per_px - np.rint(p * per_px)).min(axis=-1) > 1e-3) | smooth
    assert check.sum() > 300
    for place, layer in ((2, 2), (3, 1)):
        expected = (bilinear if smooth else nearest)(tiles[layer], p, per_px, origin, p_size)
        # the filter's fractions have 8 bits at least
        np.testing.assert_allclose(drawn[..., place][check], expected[check], atol=600 if smooth else 0.01)
        if smooth:
            assert np.abs(drawn[..., place] - expected)[check].mean() < 120


def test_every_grey_level_comes_out_as_it_went_in(bench: Bench):
    levels = np.linspace(0, 65535, TILE[0] * TILE[1]).round().astype(np.uint16).reshape(TILE)
    bench.upload({0: levels})
    rows = table((8, 6), TILE[::-1], (0, 0, *SIZE), [(0, 1, 0, 0)])
    drawn = bench.quads(rows, np.eye(2), {"CHANNELS": 1})[..., 2]
    p = field_points((8, 6), np.eye(2))
    inside = ((p >= 0) & (p < TILE[::-1])).all(axis=-1)
    texel = np.floor(p[inside]).astype(int)
    np.testing.assert_array_equal(np.rint(drawn[inside]), levels[texel[:, 1], texel[:, 0]])
    assert np.abs(drawn[inside] - np.rint(drawn[inside])).max() < 0.01


def test_channels_of_different_layers_have_their_own_place(bench: Bench):
    tiles = random_tiles(3)
    bench.upload(tiles)
    p_centre, p_size = (8.3, 6.1), (16, 12)
    rows = table(p_centre, p_size, (0, 0, *SIZE), [(0, 1.0, 0, 0), (-1, 1.0, 0, 0), (2, 0.25, -5, -3)])
    drawn = bench.quads(rows, np.eye(2), {"CHANNELS": 3, "MIXED": 1})
    p = field_points(p_centre, np.eye(2))
    inside = ((p > 0) & (p < p_size)).all(axis=-1)
    np.testing.assert_allclose(drawn[..., 2][inside], nearest(tiles[0], p, 1.0, (0, 0), p_size)[inside], atol=0.01)
    np.testing.assert_allclose(drawn[..., 3][inside], nearest(tiles[2], p, 0.25, (-5, -3), p_size)[inside], atol=0.01)


def test_a_channel_without_a_tile_is_told_apart_from_black(bench: Bench):
    bench.upload({0: np.zeros(TILE)})
    rows = table((8, 6), TILE[::-1], (0, 0, *SIZE), [(0, 1, 0, 0), (-1, 1, 0, 0)])
    drawn = bench.quads(rows, np.eye(2), {"CHANNELS": 2, "MIXED": 1})
    assert (drawn[..., 2] == 0).all()
    assert (drawn[..., 3] == -1).all()


def joint(p_centre: tuple[float, float], p_size: tuple[int, int], meeting: tuple[float, float], tiles: list) -> np.ndarray:
    """(1, 8, 4): the row of a joint of one channel over the whole screen."""
    return np.array([[(*p_centre, *p_size), (0, 0, *SIZE), (0, 0, 0, 0), (*meeting, 1.0, 0), *tiles]], np.float32)


def test_joints_filter_across_four_tiles_as_if_they_were_one(bench: Bench):
    height, width = TILE
    whole = np.random.default_rng(1).integers(0, 65536, (2 * height, 2 * width)).astype(np.uint16)
    origins = [(0, 0), (width, 0), (0, height), (width, height)]
    bench.upload({layer: whole[y : y + height, x : x + width] for layer, (x, y) in enumerate(origins)})
    p_centre = (width + 0.3, height - 0.2)
    rows = joint(p_centre, (2 * width, 2 * height), (width, height), [(n, 1, x, y) for n, (x, y) in enumerate(origins)])
    drawn = bench.quads(rows, np.eye(2) * 3.1, {"CHANNELS": 1, "JOINTS": 1})[..., 2]
    p = field_points(p_centre, np.eye(2) * 3.1) - 0.5
    first = np.floor(p).astype(int)
    fraction = p - first
    expected = sum(
        np.where(dx, fraction[..., 0], 1 - fraction[..., 0])
        * np.where(dy, fraction[..., 1], 1 - fraction[..., 1])
        * whole[first[..., 1] + dy, first[..., 0] + dx]
        for dx in (0, 1)
        for dy in (0, 1)
    )
    np.testing.assert_allclose(drawn, expected, atol=1.0)


def test_joints_leave_out_tiles_that_are_not_there(bench: Bench):
    height, width = TILE
    bench.upload({0: np.full(TILE, 1000), 1: np.full(TILE, 3000)})
    origins = [(0, 0), (width, 0), (0, height), (width, height)]
    tiles = [(layer, 1, *origin) for layer, origin in zip((0, 1, -1, -1), origins, strict=True)]
    p_centre = (width, height)
    drawn = bench.quads(joint(p_centre, (2 * width, 2 * height), p_centre, tiles), np.eye(2), {"CHANNELS": 1, "JOINTS": 1})[
        ..., 2
    ]
    p = field_points(p_centre, np.eye(2))
    above, below = p[..., 1] < height - 0.5, p[..., 1] > height + 0.5
    left, right = p[..., 0] < width - 0.5, p[..., 0] > width + 0.5
    np.testing.assert_allclose(drawn[above & left], 1000, atol=0.1)
    np.testing.assert_allclose(drawn[above & right], 3000, atol=0.1)
    assert (drawn[below] == -1).all()
