"""What can this machine do at best? Bare loops for decoding, uploading, drawing and starting: the floors of all other figures."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import blosc
import numpy as np

from benchmarks.harness import Figure, Result, median_ms, timed
from rawmosaic.viewer.gl.context import HeadlessContext
from rawmosaic.viewer.plan import ROWS_BEFORE_CHANNELS, FramePlan

QUESTION = __doc__
TILE = (260, 280)
SIZE = (1280, 720)

BARE_PROCESS = """
import ctypes, sys, zlib, struct
import numpy as np, h5py, blosc
from rawmosaic.viewer.gl.context import HeadlessContext
context = HeadlessContext()
import OpenGL
OpenGL.ERROR_CHECKING = False
from OpenGL import GL
def shader(kind, text):
    s = GL.glCreateShader(kind); GL.glShaderSource(s, text); GL.glCompileShader(s); return s
p = GL.glCreateProgram()
GL.glAttachShader(p, shader(GL.GL_VERTEX_SHADER, '''#version 330 core
void main() { gl_Position = vec4(vec2((gl_VertexID << 1) & 2, gl_VertexID & 2) * 2.0 - 1.0, 0.0, 1.0); }'''))
GL.glAttachShader(p, shader(GL.GL_FRAGMENT_SHADER, '''#version 330 core
out vec4 color; void main() { color = vec4(fract(gl_FragCoord.xy / 64.0), 0.5, 1.0); }'''))
GL.glLinkProgram(p); GL.glUseProgram(p)
GL.glBindVertexArray(GL.glGenVertexArrays(1))
t = GL.glGenTextures(1); GL.glBindTexture(GL.GL_TEXTURE_2D, t)
GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, GL.GL_RGBA8, 1280, 720, 0, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, None)
f = GL.glGenFramebuffers(1); GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, f)
GL.glFramebufferTexture2D(GL.GL_FRAMEBUFFER, GL.GL_COLOR_ATTACHMENT0, GL.GL_TEXTURE_2D, t, 0)
GL.glViewport(0, 0, 1280, 720)
GL.glDrawArrays(GL.GL_TRIANGLES, 0, 3)
pixels = np.empty((720, 1280, 4), np.uint8)
GL.glReadPixels(0, 0, 1280, 720, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, ctypes.c_void_p(pixels.ctypes.data))
from PIL import Image
picture = np.load(sys.argv[2])  # noise takes longer to compress than a pattern: the same pixels as the figure above this floor
Image.fromarray(picture).save(sys.argv[1], compress_level=1, compress_type=zlib.Z_RLE)
context.close()
"""

_VERTEX = """#version 330 core
layout(location = 0) in vec4 rect;    // NDC: x0, y0, x1, y1
layout(location = 1) in vec4 texels;  // the same corners in texels
layout(location = 2) in vec4 layers[GROUPS];
out vec2 texel;
flat out vec4 v_layers[GROUPS];
void main() {
    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    gl_Position = vec4(mix(rect.xy, rect.zw, corner), 0.0, 1.0);
    texel = mix(texels.xy, texels.zw, corner);
    for (int g = 0; g < GROUPS; ++g) v_layers[g] = layers[g];
}
"""
_FRAGMENT = """#version 330 core
in vec2 texel;
flat in vec4 v_layers[GROUPS];
uniform sampler2DArray tiles;
uniform vec2 tile_size;
uniform vec3 colors[CHANNELS];
uniform vec2 limits[CHANNELS];
out vec4 color;
void main() {
    vec3 rgb = vec3(0.0);
    for (int c = 0; c < CHANNELS; ++c) {
        float layer = v_layers[c / 4][c % 4];
#if SMOOTH
        float counts = texture(tiles, vec3(texel / tile_size, layer)).r;
#else
        float counts = texelFetch(tiles, ivec3(ivec2(texel), int(layer)), 0).r;
#endif
        rgb += clamp((counts - limits[c].x) * limits[c].y, 0.0, 1.0) * colors[c];
    }
    color = vec4(rgb, 1.0);
}
"""


class BareDraw:
    """The quads of a plan as one instanced draw of vertex attributes: no table, no cutting, no stand-ins, nothing to decide."""

    def __init__(self, channels: int, smooth: bool, tile_shape: tuple[int, int]):
        from OpenGL import GL

        self.GL, self.channels, self.smooth = GL, channels, smooth
        self.groups = -(-channels // 4)
        self.program = self._program({"CHANNELS": channels, "GROUPS": self.groups, "SMOOTH": int(smooth)})
        GL.glUseProgram(self.program)
        GL.glUniform2f(GL.glGetUniformLocation(self.program, "tile_size"), tile_shape[1], tile_shape[0])
        floats = ctypes.POINTER(ctypes.c_float)
        colors = np.tile(np.float32([0.2, 0.3, 0.1]), (channels, 1))
        limits = np.tile(np.float32([0.001, 20.0]), (channels, 1))
        GL.glUniform3fv(GL.glGetUniformLocation(self.program, "colors"), channels, colors.ctypes.data_as(floats))
        GL.glUniform2fv(GL.glGetUniformLocation(self.program, "limits"), channels, limits.ctypes.data_as(floats))
        self.vertex_array, self.buffer = GL.glGenVertexArrays(1), GL.glGenBuffers(1)
        self.sampler = GL.glGenSamplers(1)
        for parameter in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
            GL.glSamplerParameteri(self.sampler, parameter, GL.GL_LINEAR if smooth else GL.GL_NEAREST)

    def fill(self, plan: FramePlan, size: tuple[int, int]) -> None:
        """Take over the quads and layers of a plan's first draw."""
        GL = self.GL
        rows = plan.draws[0].rows
        half = 0.5 * np.array(size)
        from_screen = np.linalg.inv(plan.image_to_screen)
        edges = [rows[:, 1, pair] - half for pair in ((0, 1), (2, 3))]
        corners = [edge / half for edge in edges]
        p_corners = [edge @ from_screen.T + rows[:, 0, :2] for edge in edges]
        texels = [p_corner * rows[:, 3, 1:2] - rows[:, 3, 2:4] for p_corner in p_corners]
        layers = np.zeros((len(rows), 4 * self.groups), np.float32)
        layers[:, : self.channels] = rows[:, ROWS_BEFORE_CHANNELS:, 0]
        data = np.concatenate([*corners, *texels, layers], axis=1).astype(np.float32)
        self.count = len(rows)
        GL.glBindVertexArray(self.vertex_array)
        GL.glBindBuffer(GL.GL_ARRAY_BUFFER, self.buffer)
        GL.glBufferData(GL.GL_ARRAY_BUFFER, data.nbytes, np.ascontiguousarray(data), GL.GL_STREAM_DRAW)
        for location in range(2 + self.groups):
            GL.glEnableVertexAttribArray(location)
            GL.glVertexAttribPointer(location, 4, GL.GL_FLOAT, False, data.shape[1] * 4, ctypes.c_void_p(16 * location))
            GL.glVertexAttribDivisor(location, 1)

    def draw(self) -> None:
        """Clear and draw; returns when the driver is done."""
        GL = self.GL
        GL.glUseProgram(self.program)
        GL.glBindVertexArray(self.vertex_array)
        GL.glBindSampler(0, self.sampler)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        GL.glDrawArraysInstanced(GL.GL_TRIANGLE_STRIP, 0, 4, self.count)
        GL.glBindSampler(0, 0)
        GL.glFinish()

    def close(self) -> None:
        """Delete the GL objects."""
        GL = self.GL
        GL.glDeleteProgram(self.program)
        GL.glDeleteVertexArrays(1, [self.vertex_array])
        GL.glDeleteBuffers(1, [self.buffer])
        GL.glDeleteSamplers(1, [self.sampler])

    def _program(self, defines: dict[str, int]) -> int:
        GL = self.GL
        program = GL.glCreateProgram()
        for kind, source in ((GL.GL_VERTEX_SHADER, _VERTEX), (GL.GL_FRAGMENT_SHADER, _FRAGMENT)):
            shader = GL.glCreateShader(kind)
            lines = "".join(f"#define {name} {value}\n" for name, value in defines.items())
            GL.glShaderSource(shader, source.replace("core\n", "core\n" + lines, 1))
            GL.glCompileShader(shader)
            assert GL.glGetShaderiv(shader, GL.GL_COMPILE_STATUS), GL.glGetShaderInfoLog(shader)
            GL.glAttachShader(program, shader)
        GL.glLinkProgram(program)
        assert GL.glGetProgramiv(program, GL.GL_LINK_STATUS), GL.glGetProgramInfoLog(program)
        return program


def decode_s(path: str, places: list[tuple[int, int]], tile_shape: tuple[int, int], threads: int = os.cpu_count() or 1) -> float:
    """Seconds for a bare loop that reads and decodes these (offset, size) chunks, in as many threads as there are cores."""
    descriptor = os.open(path, os.O_RDONLY)
    arena = np.empty((threads, *tile_shape), np.uint16)
    addresses = [arena[i].ctypes.data for i in range(threads)]

    def work(thread: int) -> None:
        address = addresses[thread]
        for offset, size in places[thread::threads]:
            blosc.decompress_ptr(os.pread(descriptor, size, offset), address)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
        start = time.perf_counter()
        list(pool.map(work, range(threads)))
        seconds = time.perf_counter() - start
    os.close(descriptor)
    return seconds


def upload_s(texture, n_tiles: int) -> float:
    """Seconds to copy that many tiles into layers of a texture array."""
    from OpenGL import GL

    tile = np.zeros(texture.tile_shape, np.uint16)
    address = tile.ctypes.data
    texture.bind()
    GL.glFinish()
    start = time.perf_counter()
    for layer in range(n_tiles):
        texture.upload(layer % texture.layers, address)
    GL.glFinish()
    return time.perf_counter() - start


def bare_process(folder: str, picture: np.ndarray) -> list[str]:
    """Command of a process that imports, makes a context, draws one frame with one shader and writes a picture as PNG."""
    pixels = os.path.join(folder, "pixels.npy")
    np.save(pixels, picture)
    return [sys.executable, "-c", BARE_PROCESS, os.path.join(folder, "bare.png"), pixels]


def run() -> Result:
    """The floors by themselves, on synthetic noise."""
    from rawmosaic.storage import codec

    tile = np.random.default_rng(0).poisson(400, TILE).astype(np.uint16)
    data = codec.compress(tile)
    out = np.empty(TILE, np.uint16)
    figures = []
    seconds = min(timed(lambda: [blosc.decompress_ptr(data, out.ctypes.data) for _ in range(200)], 5))
    figures.append(Figure("decode, LZ4 + bit-shuffle, one thread", 200 * tile.nbytes / seconds / 1e9, "GB/s"))
    context = HeadlessContext()
    from rawmosaic.viewer.gl.api import GL
    from rawmosaic.viewer.gl.objects import Framebuffer, TileTexture

    texture = TileTexture(TILE, 256)
    figures.append(Figure("upload of tiles", 256 * tile.nbytes / min(upload_s(texture, 256) for _ in range(5)) / 1e9, "GB/s"))
    target = Framebuffer(SIZE, GL.GL_RGBA8)
    target.bind()
    for channels in (4, 8):
        for smooth in (False, True):
            figures.append(_draw_figure(texture, channels, smooth))
    figures.append(Figure("read back 1280 × 720", median_ms(timed(target.read_rgba))))
    target.close()
    texture.close()
    context.close()
    return Result("floors", QUESTION, tuple(figures))


def _draw_figure(texture, channels: int, smooth: bool) -> Figure:
    """A screen full of tiles at 1:1 (or 0.7 where filtered)."""
    from rawmosaic.viewer.plan import Draw

    scale = 0.7 if smooth else 1.0
    across, down = (int(np.ceil(side / scale / tile)) for side, tile in zip(SIZE, TILE[::-1], strict=True))
    rows = np.zeros((across * down, ROWS_BEFORE_CHANNELS + channels, 4), np.float32)
    for i in range(across * down):
        y, x = divmod(i, across)
        rows[i, 0, :2] = SIZE[0] / scale / 2 - x * TILE[1], SIZE[1] / scale / 2 - y * TILE[0]
        rows[i, 1] = np.array([x * TILE[1], y * TILE[0], (x + 1) * TILE[1], (y + 1) * TILE[0]]) * scale
        rows[i, ROWS_BEFORE_CHANNELS:, 0] = (i * channels + np.arange(channels)) % texture.layers
        rows[i, ROWS_BEFORE_CHANNELS:, 1] = 1
    draw = Draw(tuple(range(channels)), rows, np.empty((0, 4 + 4 * channels, 4), np.float32), mixed=False)
    empty = np.empty(0)
    plan = FramePlan(0, (draw,), True, np.eye(2) * scale, (), empty, empty, empty)
    bare = BareDraw(channels, smooth, TILE)
    texture.bind()
    bare.fill(plan, SIZE)
    ms = median_ms(timed(bare.draw, 15, 3))
    bare.close()
    return Figure(f"draw 1280 × 720, {channels} channels, {'filtered' if smooth else 'nearest'}", ms)
