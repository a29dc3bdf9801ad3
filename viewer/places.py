"""Go to: what a user types → a place; the field under a point; how a magnification is told. Pure: nothing is read.

Understood are, with the numbers that the program shows elsewhere (all count from 0 but z and t in the title):

    #120, field 120, 120            a field by its number
    r3 c7, row 3 column 7, 3,7      a field by its mosaic index, where the slide has one
    B03, b3                         a scene; wells also without their zeros
    B03 r3 c7                       a field of a scene
    x 12034 y -5600                 a stage position, µm; also 12.034, -5.6 mm
    20x, 50 %                       another scale, in place
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.camera import Camera, bounds_of
from rawmosaic.viewer.plan import Geometry
from rawmosaic.viewer.probe import spot_at

MARGIN = 1.04
"""What is fitted into the window is seen with so much around it."""

SCANNER_UM = 10.0
"""µm per pixel times magnification, by the convention of slide scanners: 0.25 µm is called 40×, 0.5 µm 20×."""

MOST_SUGGESTIONS = 8

_NUMBER = r"[-+−]?\d+(?:\.\d+)?"
_UNIT = r"(µm|μm|um|micron|microns|mm)?"
_FIELD = re.compile(r"(?:#|field\s*#?|f)?\s*(\d+)")
_ROW_COLUMN = re.compile(r"r(?:ow)?\s*(?P<row>\d+)\s*[,;]?\s*c(?:ol(?:umn)?)?\s*(?P<column>\d+)")
_COLUMN_ROW = re.compile(r"c(?:ol(?:umn)?)?\s*(?P<column>\d+)\s*[,;]?\s*r(?:ow)?\s*(?P<row>\d+)")
_TWO_INTEGERS = re.compile(r"(\d+)\s*[,;/ ]\s*(\d+)")
_POSITION = re.compile(rf"(?P<named>x\s*[=:]?)?\s*({_NUMBER})\s*{_UNIT}\s*[,;]?\s*(?:y\s*[=:]?)?\s*({_NUMBER})\s*{_UNIT}")
_MAGNIFICATION = re.compile(r"(\d+(?:\.\d+)?)\s*[x×]")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_WELL = re.compile(r"([a-z]{1,2})0*(\d+)")


@dataclass(frozen=True)
class Place:
    """Where to go. `bounds_um` (left, top, right, bottom): of a field or scene, to be fitted; `point_um`: a stage position;
    `scale`: screen pixels per image pixel. What is None stays as it is."""

    what: str
    bounds_um: tuple[float, float, float, float] | None = None
    point_um: tuple[float, float] | None = None
    scale: float | None = None
    field: int | None = None


@dataclass(frozen=True)
class NoPlace:
    """Why there is nothing to go to, in one line, and what could be typed instead."""

    why: str
    suggestions: tuple[str, ...] = ()


def find_place(text: str, slide: Slide, geometry: Geometry) -> Place | NoPlace:
    """What a user means who types this; positions are those of the geometry."""
    typed = " ".join(text.strip().lower().split())
    if not typed:
        return NoPlace("type a field, a scene or a stage position", examples(slide, geometry))
    scene = _scene(typed, slide)
    if scene is not None:
        return _whole_scene(scene, slide, geometry)
    first, _, rest = typed.partition(" ")
    if rest and (scene := _scene(first, slide)) is not None:
        return _in_scene(scene, rest, slide, geometry)
    if found := _FIELD.fullmatch(typed):
        return _field(int(found.group(1)), slide, geometry)
    if found := _ROW_COLUMN.fullmatch(typed) or _COLUMN_ROW.fullmatch(typed):
        return _row_column(int(found["row"]), int(found["column"]), slide, geometry)
    if (found := _TWO_INTEGERS.fullmatch(typed)) and _has_index(slide):
        return _row_column(int(found.group(1)), int(found.group(2)), slide, geometry)
    if found := _MAGNIFICATION.fullmatch(typed):
        return _magnified(float(found.group(1)), slide)
    if found := _PERCENT.fullmatch(typed):
        return _scaled(float(found.group(1)) / 100.0, f"{found.group(1)} %")
    if found := _POSITION.fullmatch(typed):
        return _position(found, slide, geometry)
    return NoPlace(f"“{text.strip()}” is no field, scene or position of this slide", suggestions(typed, slide, geometry))


def camera_at(place: Place, camera: Camera) -> Camera:
    """The camera that shows a place: a field or scene fills the window, a position comes to its centre."""
    if place.bounds_um is not None:
        return fitted(camera, place.bounds_um)
    x_um, y_um = place.point_um if place.point_um is not None else (camera.x_um, camera.y_um)
    return replace(camera, x_um=x_um, y_um=y_um, scale=camera.scale if place.scale is None else place.scale)


def fitted(camera: Camera, bounds_um: tuple[float, float, float, float]) -> Camera:
    """The camera that shows a (left, top, right, bottom) region with a little around it."""
    whole = camera.fitted(bounds_um)
    return replace(whole, scale=whole.scale / MARGIN)


def field_place(field: int, slide: Slide, geometry: Geometry) -> Place:
    """A field, to be fitted."""
    return Place(_field_name(field, slide), bounds_um=geometry.box_of(field, 0), field=field)


def field_under(
    slide: Slide, geometry: Geometry, x_um: float, y_um: float, channels: Sequence[int] = (), z: int = 0, t: int = 0
) -> int | None:
    """The field that is seen at a point of the mosaic frame, in the first of these channels that has one there, else in any."""
    has = slide.acquired(z, t)
    others = [channel for channel in range(len(slide.channels)) if channel not in channels]
    for channel in (*channels, *others):
        if (spot := spot_at(geometry, has, channel, x_um, y_um)) is not None:
            return spot.field
    return None


def nominal_magnification(objective: str) -> float | None:
    """What a text such as ``Plan Apo 20x/0.75`` calls the objective's magnification; None where it tells none."""
    found = re.search(r"(\d+(?:[.,]\d+)?)\s*[x×]", objective, re.IGNORECASE) or re.search(
        r"[x×]\s*(\d+)", objective, re.IGNORECASE
    )
    value = float(found.group(1).replace(",", ".")) if found else 0.0
    return value if value > 0 else None


def equivalent_magnification(camera: Camera, objective: str = "") -> tuple[float, bool]:
    """(magnification, whether the objective is known) of an objective that would show one image pixel on each screen pixel.

    M_screen = M_objective · scale: at 1:1 an acquisition of a 20× objective shows 20×, reduced to a half 10×. It is what QuPath
    and slide scanners' viewers call magnification (the objective's, divided by the reduction), and says nothing of the size on
    the screen. Where the objective is not known, its nominal magnification is taken for 10 µm / pixel size (SCANNER_UM).
    """
    nominal = nominal_magnification(objective)
    if nominal is not None:
        return nominal * camera.scale, True
    return SCANNER_UM * camera.scale / camera.pixel_size_um, False


def suggestions(typed: str, slide: Slide, geometry: Geometry) -> tuple[str, ...]:
    """Scenes that begin or look like what is typed; else examples of what can be."""
    typed = typed.strip().lower()
    names = {name.lower(): name for name in slide.scenes}
    near = [name for name in names if name.startswith(typed)] + difflib.get_close_matches(typed, names, MOST_SUGGESTIONS)
    found = tuple(names[name] for name in dict.fromkeys(near))[:MOST_SUGGESTIONS]
    return found or examples(slide, geometry)


def examples(slide: Slide, geometry: Geometry) -> tuple[str, ...]:
    """One of each kind that can be typed for this slide."""
    if not slide.n_fields:
        return ()
    field = slide.n_fields // 2
    x_um, y_um = geometry.centres_um(0)[field]
    indexed = [f"r{slide.fields['row'][field]} c{slide.fields['column'][field]}"] if _has_index(slide) else []
    return (f"#{field}", *indexed, *slide.scenes[:1], f"x {x_um:.0f} y {y_um:.0f}")


# what each kind means


def _field(number: int, slide: Slide, geometry: Geometry) -> Place | NoPlace:
    if number >= slide.n_fields:
        return NoPlace(f"there is no field {number}: they are 0 to {slide.n_fields - 1}", (f"#{slide.n_fields - 1}",))
    return field_place(number, slide, geometry)


def _row_column(row: int, column: int, slide: Slide, geometry: Geometry, scene: int | None = None) -> Place | NoPlace:
    if not _has_index(slide):
        return NoPlace("the fields of this slide have no rows and columns; go by number or position", examples(slide, geometry))
    fields = slide.fields if scene is None else slide.fields[slide.fields["scene"] == scene]
    numbers = np.arange(slide.n_fields) if scene is None else np.flatnonzero(slide.fields["scene"] == scene)
    found = numbers[(fields["row"] == row) & (fields["column"] == column)]
    if len(found) == 1:
        return field_place(int(found[0]), slide, geometry)
    if len(found):
        of_scenes = [f"{slide.scenes[slide.fields['scene'][n]]} r{row} c{column}" for n in found if slide.fields["scene"][n] >= 0]
        others = dict.fromkeys(of_scenes) if len(set(of_scenes)) == len(found) else [f"#{n}" for n in found]
        why = f"{len(found)} fields are row {row}, column {column}; say which"
        return NoPlace(why, tuple(others)[:MOST_SUGGESTIONS])
    known = fields[fields["row"] >= 0]
    if not len(known):
        return NoPlace("the fields of this scene have no rows and columns", ())
    nearest = known[np.argmin(np.hypot(known["row"].astype(float) - row, known["column"].astype(float) - column))]
    limits = f"rows are {known['row'].min()} to {known['row'].max()}, columns {known['column'].min()} to {known['column'].max()}"
    named = "" if scene is None else f"{slide.scenes[scene]} "
    return NoPlace(f"no field lies in row {row}, column {column}: {limits}", (f"{named}r{nearest['row']} c{nearest['column']}",))


def _in_scene(scene: int, rest: str, slide: Slide, geometry: Geometry) -> Place | NoPlace:
    found = _ROW_COLUMN.fullmatch(rest) or _COLUMN_ROW.fullmatch(rest)
    if found:
        return _row_column(int(found["row"]), int(found["column"]), slide, geometry, scene)
    if found := _TWO_INTEGERS.fullmatch(rest):
        return _row_column(int(found.group(1)), int(found.group(2)), slide, geometry, scene)
    name = slide.scenes[scene]
    return NoPlace(f"“{rest}” is no field of {name}; go by row and column", (f"{name}", f"{name} r0 c0"))


def _scene(typed: str, slide: Slide) -> int | None:
    """The number of the scene of that name, or of that well however many zeros it is written with."""
    names = [name.lower() for name in slide.scenes]
    if typed in names:
        return names.index(typed)
    if (well := _WELL.fullmatch(typed)) is None:
        return None
    wells = [_WELL.fullmatch(name) for name in names]
    return next((n for n, each in enumerate(wells) if each is not None and each.groups() == well.groups()), None)


def _whole_scene(scene: int, slide: Slide, geometry: Geometry) -> Place | NoPlace:
    fields = np.flatnonzero(slide.fields["scene"] == scene)
    if not len(fields):
        return NoPlace(f"no field of {slide.scenes[scene]} was acquired", ())
    return Place(slide.scenes[scene], bounds_um=bounds_of(geometry.centres_um(0)[fields], geometry.half_um[fields]))


def _position(found: re.Match, slide: Slide, geometry: Geometry) -> Place | NoPlace:
    _, x, x_unit, y, y_unit = found.groups()
    x_unit, y_unit = x_unit or y_unit, y_unit or x_unit  # one unit is meant for both
    x_um, y_um = (float(n.replace("−", "-")) * (1000.0 if unit == "mm" else 1.0) for n, unit in ((x, x_unit), (y, y_unit)))
    left, top, right, bottom = geometry.bounds_um
    if not (left <= x_um <= right and top <= y_um <= bottom):
        limits = f"which covers x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f} µm"
        return NoPlace(f"x {x_um:g}, y {y_um:g} µm lies beside the mosaic, {limits}", examples(slide, geometry)[-1:])
    return Place(f"x {x_um:g}, y {y_um:g} µm", point_um=(x_um, y_um))


def _magnified(magnification: float, slide: Slide) -> Place | NoPlace:
    nominal = nominal_magnification(slide.header.objective) or SCANNER_UM / slide.header.pixel_size_um
    return _scaled(magnification / nominal, f"{magnification:g}×")


def _scaled(scale: float, what: str) -> Place | NoPlace:
    return Place(what, scale=scale) if scale > 0 else NoPlace(f"{what}: a scale is above zero", ("100 %",))


def _has_index(slide: Slide) -> bool:
    return bool((slide.fields["row"] >= 0).any())


def _field_name(field: int, slide: Slide) -> str:
    row, column, scene = (int(slide.fields[name][field]) for name in ("row", "column", "scene"))
    parts = [f"field {field}"]
    if row >= 0:
        parts.append(f"row {row}, column {column}")
    if scene >= 0:
        parts.append(slide.scenes[scene])
    return " · ".join(parts)
