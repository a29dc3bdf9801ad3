"""Figures: any region at any resolution, as the screen shows it, with scale bar, channel legend and annotations.

`figure_camera` says what is drawn, `figure_marks` what is drawn over it; `compose` puts the marks on a picture that is there
already (the window's), `write_figure` draws a picture of any size in parts and writes them as they come. Parts are drawn by
whoever is handed in as `render`: camera → (height, width, 4) uint8; OffscreenViewer is one. Nothing here knows GL.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.viewer.blending import ink
from rawmosaic.viewer.camera import Camera, bounds_of
from rawmosaic.viewer.lettering import letters_for
from rawmosaic.viewer.marks import Bar, Line, Mark, Text, draw_marks, outline_px
from rawmosaic.viewer.picture_file import TILE_PX, write_picture
from rawmosaic.viewer.scale_bar import WIDTH_SHARE, bar_of, fitting_bar

PART_PX = 4096
"""Width of the parts that a figure is drawn in, where the driver allows; every driver of OpenGL 3.3 known draws as much."""

STRIP_NBYTES = 24 << 20
"""Memory of one strip of the figure: what decides how many rows are drawn at a time."""

LARGEST_SIDE_PX = 200_000
MOST_DEFAULT_PX = 4000
"""Longer side of a figure whose resolution was not told."""

_FONT_SHARE, _SMALLEST_FONT_PX = 1 / 30, 9
_LINE_STEP, _MARGIN = 1.35, 0.8
"""In heights of the font: from line to line, and from the figure's edge."""

_BAR_COLOR = "#ffffff"

Render = Callable[[Camera], np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outline:
    """A shape to draw over a figure: (n, 2) points in mosaic µm, and what is written beside the first of them."""

    points_um: Sequence[tuple[float, float]]
    closed: bool
    color: str
    name: str = ""


@dataclass(frozen=True)
class FigureStyle:
    """What is drawn over the picture. `scale_bar_um`: length of the bar, µm; a round one that fits where it is None."""

    scale_bar: bool = True
    scale_bar_um: float | None = None
    legend: bool = True
    dpi: float = 300.0


# what is drawn


def figure_camera(
    bounds_um: tuple[float, float, float, float],
    pixel_size_um: float,
    *,
    scale: float | None = None,
    width_px: int | None = None,
) -> Camera:
    """The camera of a figure of a (left, top, right, bottom) region, mosaic µm.

    `scale`: figure pixels per image pixel; `width_px`: the figure's width instead. Told neither, it is 1:1, or reduced so that
    the longer side has MOST_DEFAULT_PX. Raises OutOfRangeError for an empty region, or more pixels than can be written.
    """
    left, top, right, bottom = map(float, bounds_um)
    if not (math.isfinite(left + top + right + bottom) and left < right and top < bottom):
        raise OutOfRangeError("region", tuple(bounds_um), "tell left, top, right and bottom in µm, left < right and top < bottom")
    width_um, height_um = right - left, bottom - top
    if width_px is not None:
        scale = width_px * pixel_size_um / width_um
    elif scale is None:
        scale = min(1.0, MOST_DEFAULT_PX * pixel_size_um / max(width_um, height_um))
    if not (math.isfinite(scale) and scale > 0):
        raise OutOfRangeError("scale", scale, "figure pixels per image pixel are a number above zero")
    size = tuple(max(1, round(length * scale / pixel_size_um)) for length in (width_um, height_um))
    if width_px is not None:
        size = width_px, size[1]
    check_size(size)
    return Camera(0.5 * (left + right), 0.5 * (top + bottom), scale, size, pixel_size_um)


def check_size(size: tuple[int, int]) -> None:
    """Raise OutOfRangeError unless a figure may have this (width, height)."""
    if not all(0 < side <= LARGEST_SIDE_PX for side in size):
        limits = f"each side is 1 to {LARGEST_SIDE_PX} pixels; choose a smaller region or scale"
        raise OutOfRangeError("figure size", "{}x{}".format(*size), limits)


def bounds_of_fields(geometry: Any, fields: Sequence[int] | np.ndarray, n_channels: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) around some fields in all their channels, mosaic µm; `geometry` is a plan.Geometry."""
    fields = np.asarray(fields, np.int64)
    channels = range(1 if geometry.shared else n_channels)
    each = np.array([bounds_of(geometry.centres_um(channel)[fields], geometry.half_um[fields]) for channel in channels])
    return (*map(float, each[:, :2].min(axis=0)), *map(float, each[:, 2:].max(axis=0)))


# what is drawn over it


def legend_entries(view: Any) -> list[tuple[str, str]]:
    """(name, colour) of each visible channel, in the colour that it has in the picture of `view` (an Engine, or alike).

    Colours that come from elsewhere than the channel (grey, a colour map) are left white; on white they are the inks'.
    """
    shown = [look for look in view.channels if look.visible]
    plain = view.mode == "grey" or (view.color_map is not None and len(shown) == 1)
    columns = np.ones((len(shown), 3)) if plain else np.array([look.rgb() for look in shown]).reshape(-1, 3)
    if view.background == "white":
        columns = 1 - ink(columns)
    return [(look.shown_name, _hex(column)) for look, column in zip(shown, columns, strict=True)]


def _hex(column: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*np.rint(255 * np.clip(column, 0, 1)).astype(int).tolist())


def figure_marks(
    camera: Camera, entries: Sequence[tuple[str, str]], style: FigureStyle, outlines: Sequence[Outline] = ()
) -> tuple[Mark, ...]:
    """Annotations, the legend (name and colour of each entry, upper left) and the scale bar (lower right), in figure pixels."""
    font_px = max(min(camera.size) * _FONT_SHARE, _SMALLEST_FONT_PX)
    marks = [mark for outline in outlines for mark in _outline_marks(camera, outline, font_px)]
    if style.legend:
        marks += legend_marks(camera.size, entries, font_px)
    if style.scale_bar:
        marks += scale_bar_marks(camera, font_px, style.scale_bar_um)
    return tuple(marks)


def legend_marks(size: tuple[int, int], entries: Sequence[tuple[str, str]], font_px: float) -> list[Text]:
    """(name, colour) one below the other from the upper left corner; in several columns, and smaller, where there are many."""
    width, height = size
    if not entries:
        return []
    letters = letters_for([name for name, _ in entries])
    while True:
        rows = max(1, int((height - 2 * _MARGIN * font_px) / (_LINE_STEP * font_px)))
        lengths = [letters.font(font_px).getlength(letters.spelled(name)) for name, _ in entries]
        columns = [max(lengths[first : first + rows]) + 1.5 * font_px for first in range(0, len(entries), rows)]
        if sum(columns) + _MARGIN * font_px <= width or font_px <= _SMALLEST_FONT_PX:
            break
        font_px = max(0.9 * font_px, _SMALLEST_FONT_PX)
    lefts = np.concatenate([[0.0], np.cumsum(columns)]) + _MARGIN * font_px
    return [
        Text(
            float(round(lefts[number // rows])),
            float(round(_MARGIN * font_px + number % rows * _LINE_STEP * font_px)),
            name,
            font_px,
            color,
        )
        for number, (name, color) in enumerate(entries)
    ]


def scale_bar_marks(camera: Camera, font_px: float, length_um: float | None = None) -> list[Mark]:
    """The bar in the lower right corner, with its length above; raises OutOfRangeError for one longer than the figure."""
    width, height = camera.size
    margin = round(_MARGIN * font_px)
    if length_um is None:
        bar = fitting_bar(camera.px_per_um, width, WIDTH_SHARE)
    else:
        bar = bar_of(length_um, camera.px_per_um)
        if bar.length_px > width:
            raise OutOfRangeError("scale bar", bar.text, f"the figure is {width / camera.px_per_um:.4g} µm wide")
    length, thickness = max(1, round(bar.length_px)), max(2, round(font_px / 4))
    letters = letters_for([bar.text])
    left, _, right, bottom = letters.font(font_px).getbbox(letters.spelled(bar.text))
    block = max(length, math.ceil(right - left))
    middle = width - margin - 0.5 * block
    x = max(0, min(round(middle - 0.5 * length), width - length))
    y = height - margin - thickness
    text_x, text_y = round(middle - 0.5 * (left + right)), round(y - 0.35 * font_px - bottom)
    return [
        Text(float(text_x), float(text_y), bar.text, font_px, _BAR_COLOR),
        Bar(x, y, length, thickness, _BAR_COLOR, outline_px(font_px)),
    ]


def _outline_marks(camera: Camera, outline: Outline, font_px: float) -> list[Mark]:
    points = tuple(camera.to_window(x, y) for x, y in outline.points_um)
    if not points:
        return []
    marks: list[Mark] = [Line(points, outline.closed, max(1.5, font_px / 10), outline.color)]
    if outline.name:
        x, y = points[0]
        marks.append(Text(x + 0.4 * font_px, y - 1.3 * font_px, outline.name, 0.7 * font_px, outline.color))
    return marks


def compose(pixels: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """(h, w, 3) uint8: a picture ((h, w, 3 or 4) uint8) with marks over it; the picture itself is left as it is."""
    figure = np.ascontiguousarray(pixels[..., :3])
    figure = figure.copy() if figure is pixels or figure.base is not None else figure
    draw_marks(figure, marks, letters_for(_texts(marks)))
    return figure


def _texts(marks: Sequence[Mark]) -> list[str]:
    return [mark.text for mark in marks if isinstance(mark, Text)]


# drawn in parts


def strip_rows(width: int) -> int:
    """How many rows of a figure this wide are drawn at a time: some tiles' height, within STRIP_NBYTES if that is possible."""
    return max(1, min(STRIP_NBYTES // (3 * width * TILE_PX), PART_PX // TILE_PX)) * TILE_PX


def part_camera(camera: Camera, left: int, top: int, right: int, bottom: int) -> Camera:
    """The camera of a rectangle of a figure's pixels, [left, right) × [top, bottom): the same pixels as in the whole."""
    width, height = camera.size
    shifted = camera.moved(0.5 * (width - left - right), 0.5 * (height - top - bottom))
    return replace(shifted, size=(right - left, bottom - top))


def figure_strips(
    render: Render,
    camera: Camera,
    marks: Sequence[Mark] = (),
    progress: Progress | None = None,
    part_px: int = PART_PX,
) -> Iterator[np.ndarray]:
    """(rows, width, 3) uint8 strips of the figure with its marks, from the top; each is overwritten by the next."""
    width, height = camera.size
    rows, letters = min(strip_rows(width), height), letters_for(_texts(marks))
    memory = np.empty((rows, width, 3), np.uint8)
    tops, lefts = range(0, height, rows), range(0, width, part_px)
    for done, top in enumerate(tops):
        strip = memory[: min(rows, height - top)]
        for part, left in enumerate(lefts):
            right = min(left + part_px, width)
            strip[:, left:right] = render(part_camera(camera, left, top, right, top + len(strip)))[..., :3]
            if progress is not None:
                progress(done * len(lefts) + part + 1, len(tops) * len(lefts))
        draw_marks(strip, marks, letters, top)
        yield strip


class FigureCancelledError(Exception):
    """Somebody did not want the figure any longer; nothing was left of it."""


def write_figure(
    path: Path,
    render: Render,
    camera: Camera,
    marks: Sequence[Mark] = (),
    notes: Mapping[str, str] | None = None,
    *,
    dpi: float = 300.0,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
    part_px: int = PART_PX,
) -> None:
    """Draw a figure in parts into a PNG or tiled TIFF (by its suffix), complete or not at all; memory does not grow with it.

    Runs in the thread that `render` belongs to. Raises WriteError, FigureCancelledError, and what `render` raises.
    """

    def go_on(done: int, total: int) -> None:
        if cancelled is not None and cancelled.is_set():
            raise FigureCancelledError(str(path))
        if progress is not None:
            progress(done, total)

    strips = figure_strips(render, camera, marks, go_on, part_px)
    write_picture(path, camera.size, strips, dpi=dpi, notes=notes or {}, software=software())


def software() -> str:
    """This program's name and version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"rawmosaic {version('rawmosaic')}"
    except PackageNotFoundError:  # run from a folder that was never installed
        return "rawmosaic"


def figure_notes(view: Any, camera: Camera) -> dict[str, str]:
    """What a figure shows, in words, for its description: slide, region, channels, placement, plane, version.

    `view` is an Engine: anything with its slide, channels, and all else that can be adjusted.
    """
    slide = view.slide
    left, top, right, bottom = camera.bounds_um()
    notes = {
        "slide": slide.header.name,
        "location": str(slide.location),
        "acquired at": slide.header.acquired_at,
        "objective": slide.header.objective,
        "region": f"x {left:.3f} to {right:.3f} µm, y {top:.3f} to {bottom:.3f} µm",
        "figure pixel": f"{1 / camera.px_per_um:.6g} µm ({camera.scale:.6g} figure pixels per camera pixel)",
    }
    for number, look in enumerate(view.channels):
        if look.visible:
            low, high = look.limits
            color = look.color if look.column is None else "mixed as ({:g}, {:g}, {:g})".format(*look.column)
            own = f" (acquired as {look.name})" if look.label else ""
            notes[f"channel {number}"] = f"{look.shown_name}{own}, {color}, limits {low:g} to {high:g}, gamma {look.gamma:g}"
    notes |= {
        "position set": view.position_set,
        "overlap": view.overlap,
        "interpolation": view.interpolation,
        "z": f"{view.z} of {slide.size_z}" if slide.size_z > 1 else "",
        "t": f"{view.t} of {slide.size_t}" if slide.size_t > 1 else "",
        "projection": view.projection if view.projection != "none" else "",
        "mode": view.mode if view.mode != "colour" else "",
        "background": view.background if view.background != "black" else "",
        "colour map": view.color_map or "",
        "unmixing": _matrix_text(view.unmixing),
        "drawn by": software(),
    }
    return {name: " ".join(text.split()) for name, text in notes.items() if text}


def _matrix_text(matrix: np.ndarray | None) -> str:
    return "" if matrix is None else "; ".join(" ".join(f"{value:.6g}" for value in row) for row in np.asarray(matrix))
