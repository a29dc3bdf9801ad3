"""Annotations as GeoJSON that QuPath reads, and what QuPath wrote (docs/annotations.md): values in, values out.

A file counts in pixels of the whole picture at full resolution, as QuPath does; `Frame` says how they lie in the mosaic frame.
What rawmosaic does not understand of a file is kept with the annotation, or with the document, and written back.
"""

from __future__ import annotations

import gc
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from rawmosaic.storage.errors import DamagedSlideError, FormatVersionError, OutOfRangeError, SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.annotations.model import Annotation, AnnotationClass, rgb
from rawmosaic.viewer.annotations.shapes import DECIMALS, FARTHEST_UM, Ellipse, Line, Points, Polygon, Rectangle, Shape
from rawmosaic.viewer.camera import bounds_of

VERSION = 1
OWN_MEMBER = "rawmosaic"
NOTES_KEY = "ANNOTATION_DESCRIPTION"
"""Where QuPath keeps an annotation's description, among its metadata."""

ELLIPSE_ERROR_PX = 0.1
_LEGACY_IDS = ("Path", "TMA")
"""QuPath 0.2 wrote an object's type in place of its id."""

_TYPE_MEMBERS = ("objectType", "object_type", "type")
_EMPTY: Mapping = MappingProxyType({})


@dataclass(frozen=True)
class Frame:
    """Pixels of the whole picture ↔ mosaic µm: the size of a pixel, and where the picture's top left corner lies."""

    pixel_size_um: float = 1.0
    origin_um: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, slide: Slide) -> Frame:
        """Of the picture that shows all fields of a slide where the stage put them."""
        pixel_size_um = slide.header.pixel_size_um or 1.0
        placement = slide.placement("stage")
        half_um = placement.half_extents_um(slide.fields["width"], slide.fields["height"])
        boxes = [bounds_of(placement.centres_um(channel), half_um) for channel in range(len(slide.channels))]
        if not slide.n_fields or not boxes:
            return cls(pixel_size_um)
        left, top = np.array(boxes)[:, :2].min(axis=0).round(DECIMALS).tolist()
        return cls(pixel_size_um, (left, top))

    def to_um(self, pixels: np.ndarray) -> np.ndarray:
        """(n, 2) pixels → mosaic µm in whole picometres."""
        return np.round(pixels * self.pixel_size_um + self.origin_um, DECIMALS) + 0.0

    def to_pixels(self, points_um: np.ndarray) -> np.ndarray:
        """(n, 2) mosaic µm → pixels, each with the fewest decimals that `to_um` turns into the same place again."""
        exact = (points_um - np.array(self.origin_um)) / self.pixel_size_um
        found, open_ = exact.copy(), np.ones(exact.shape, bool)
        for decimals in (0, 1, 2, 4, 6, 8, 10):
            rounded = np.round(exact, decimals) + 0.0
            fits = open_ & (self.to_um(rounded) == points_um)
            found[fits] = rounded[fits]
            open_ &= ~fits
        return found


@dataclass(frozen=True)
class Document:
    """What a file holds. `unshown`: features that rawmosaic has no shape for; `foreign`: other members of the collection."""

    annotations: tuple[Annotation, ...] = ()
    classes: tuple[AnnotationClass, ...] = ()
    frame: Frame = field(default_factory=Frame)
    unshown: tuple[Mapping, ...] = ()
    foreign: Mapping = field(default_factory=lambda: _EMPTY)


# reading


def read_geojson(path: str | os.PathLike, frame: Frame) -> Document:
    """The annotations of a file. `frame` is used where the file does not say its own: for what another program wrote.

    Raises DamagedSlideError, saying what and where, for what is no GeoJSON; FormatVersionError for a newer rawmosaic's.
    """
    with no_collection():
        return _read(path, frame)


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave cyclic garbage alone: its collector would look through a million new lists again and again, for most of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _read(path: str | os.PathLike, frame: Frame) -> Document:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        data = json.loads(text)
    except OSError as error:
        raise SlideError(f"cannot be read: {error.strerror or error}", location=path) from error
    except UnicodeDecodeError as error:
        raise DamagedSlideError(f"is not GeoJSON: byte {error.start} is not UTF-8", location=path) from error
    except RecursionError as error:
        raise DamagedSlideError("is not GeoJSON: nested too deeply", location=path) from error
    except ValueError as error:
        raise DamagedSlideError(f"is not GeoJSON: {error}", location=path) from error
    try:
        return parsed(data, frame)
    except _Nonsense as error:
        raise DamagedSlideError(str(error), location=path) from error
    except FormatVersionError as error:
        raise FormatVersionError(str(error), location=path) from error


def parsed(data: object, frame: Frame) -> Document:
    """The annotations of what a JSON text says: a FeatureCollection, a Feature or a list of Features."""
    foreign: dict[str, Any] = {}
    classes: dict[str, AnnotationClass] = {}
    if isinstance(data, dict) and data.get("type") == "FeatureCollection":
        features = data.get("features")
        foreign = {name: value for name, value in data.items() if name not in ("type", "features", OWN_MEMBER)}
        if (own := data.get(OWN_MEMBER)) is not None:
            frame, classes = _own_facts(own)
    elif isinstance(data, dict) and data.get("type") == "Feature":
        features = [data]
    else:
        features = data
    if not isinstance(features, list):
        raise _Nonsense("is JSON, but no GeoJSON of annotations: expected a FeatureCollection with a list of features")
    drafts, unshown = [], []
    for number, feature in enumerate(features):
        try:
            draft = _draft(feature)
        except _Nonsense as error:
            raise _Nonsense(f"{_feature_name(number, feature)}: {error}") from error
        if draft is None:
            unshown.append(feature)
        else:
            drafts.append((number, draft))
    pixels = [ring for _, draft in drafts for ring in draft.rings]
    points_um = _in_um(pixels, frame)
    annotations, place = [], 0
    for number, draft in drafts:
        rings = points_um[place : place + len(draft.rings)]
        place += len(draft.rings)
        try:
            annotations.append(_annotation(draft, rings, features[number], classes))
        except (_Nonsense, OutOfRangeError) as error:
            raise _Nonsense(f"{_feature_name(number, features[number])}: {error}") from error
    return Document(tuple(annotations), tuple(classes.values()), frame, tuple(unshown), MappingProxyType(foreign))


class _Nonsense(ValueError):
    """What is wrong, without the place."""


@dataclass(frozen=True)
class _Draft:
    """A geometry as numbers: rings of pixels, how many of them each part has, and whether something was left out of them."""

    kind: str
    rings: list[np.ndarray]
    parts: tuple[int, ...] = ()
    reduced: bool = False


def _feature_name(number: int, feature: object) -> str:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    return f"feature {number} ({name})" if isinstance(name, str) and name else f"feature {number}"


def _own_facts(own: object) -> tuple[Frame, dict[str, AnnotationClass]]:
    """The frame and the classes that rawmosaic noted."""
    if not isinstance(own, dict):
        raise _Nonsense(f"its member {OWN_MEMBER!r} is not an object")
    version = own.get("version")
    if not isinstance(version, int) or version < 1:
        raise _Nonsense(f"its member {OWN_MEMBER!r} has the version {version!r}, which is none")
    if version > VERSION:
        raise FormatVersionError(f"annotations of format {version}; this rawmosaic reads up to {VERSION}: use a newer one")
    origin, size = own.get("origin_um"), own.get("pixel_size_um")
    if not (isinstance(origin, list) and len(origin) == 2 and all(_is_number(value) for value in origin)):
        raise _Nonsense(f"the origin {origin!r} is not a pair of numbers, µm")
    if not (_is_number(size) and 0 < size <= FARTHEST_UM):
        raise _Nonsense(f"the pixel size {size!r} is not a number of µm above zero")
    classes: dict[str, AnnotationClass] = {}
    listed = own.get("classes")
    for known in listed if isinstance(listed, list) else []:
        _take_class(known, classes)
    return Frame(float(size), (float(origin[0]), float(origin[1]))), classes


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) <= FARTHEST_UM


def _draft(feature: object) -> _Draft | None:
    """The geometry of a feature; None for a kind that rawmosaic does not draw."""
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise _Nonsense("is not a GeoJSON Feature")
    if not isinstance(feature.get("properties") or {}, dict):
        raise _Nonsense("its properties are not an object")
    geometry = feature.get("geometry")
    if geometry is None:
        return None
    if not isinstance(geometry, dict) or not isinstance(geometry.get("type"), str):
        raise _Nonsense("its geometry has no type")
    coordinates = geometry.get("coordinates")
    match geometry["type"]:
        case "Point":
            return _drafted("point", [_places([coordinates], 1)])
        case "MultiPoint":
            return _drafted("point", [_places(coordinates, 1)]) if coordinates else None
        case "LineString":
            return _drafted("line", [_places(coordinates, 2)])
        case "MultiLineString" if isinstance(coordinates, list) and len(coordinates) == 1:
            return _drafted("line", [_places(coordinates[0], 2)])
        case "Polygon":
            return _area([coordinates], bool(geometry.get("isEllipse"))) if coordinates else None
        case "MultiPolygon":
            return _area(coordinates, False) if coordinates else None
        case "MultiLineString" | "GeometryCollection":
            return None
        case other:
            raise _Nonsense(f"{other!r} is no type of geometry that GeoJSON knows")


def _area(parts: object, is_ellipse: bool) -> _Draft:
    _check_list(parts)
    rings = []
    for part in parts:
        _check_list(part)
        if not part:
            raise _Nonsense("a polygon has no outer ring")
        rings += [_ring(places) for places in part]
    return _drafted("ellipse" if is_ellipse else "polygon", rings, tuple(len(part) for part in parts))


def _drafted(kind: str, rings: list[np.ndarray], parts: tuple[int, ...] = ()) -> _Draft:
    reduced = any(ring.shape[1] > 2 for ring in rings)
    return _Draft(kind, [ring[:, :2] for ring in rings] if reduced else rings, parts, reduced)


def _ring(coordinates: object) -> np.ndarray:
    """(n, 2 or more) pixels, without the last one if that closes the ring."""
    ring = _places(coordinates, 3)
    if len(ring) > 3 and ring[0, 0] == ring[-1, 0] and ring[0, 1] == ring[-1, 1]:
        return ring[:-1]
    return ring


def _places(coordinates: object, least: int) -> np.ndarray:
    """(n, 2 or more) float64."""
    _check_list(coordinates)
    try:
        places = np.array(coordinates)
    except ValueError:
        places = np.empty(0, object)
    if places.dtype.kind not in "iuf" or places.ndim != 2 or places.shape[1] < 2:
        raise _Nonsense("its coordinates are not positions [x, y] as its type wants them")
    if len(places) < least:
        raise _Nonsense(f"{len(places)} positions, where its type has at least {least}")
    return places.astype(np.float64, copy=False)


def _check_list(coordinates: object) -> None:
    if not isinstance(coordinates, list):
        raise _Nonsense("its coordinates are not positions [x, y] as its type wants them")


def _in_um(pixels: list[np.ndarray], frame: Frame) -> list[np.ndarray]:
    """All rings at once: a file may have a million."""
    if not pixels:
        return []
    with np.errstate(over="ignore", invalid="ignore"):  # what lies nowhere is refused, with its place, as a shape
        points = frame.to_um(np.concatenate(pixels))
    ends = np.cumsum([len(ring) for ring in pixels]).tolist()
    return [points[end - len(ring) : end] for ring, end in zip(pixels, ends, strict=True)]


def _shape(draft: _Draft, rings: list[np.ndarray]) -> Shape:
    if draft.kind == "point":
        return Points(rings[0])
    if draft.kind == "line":
        return Line(rings[0])
    if draft.kind == "ellipse":
        return Ellipse(*rings[0].min(axis=0).tolist(), *rings[0].max(axis=0).tolist())
    if len(rings) == 1 and _is_rectangle(rings[0]):
        return Rectangle(*rings[0].min(axis=0).tolist(), *rings[0].max(axis=0).tolist())
    rest = iter(rings)
    return Polygon(*[[next(rest) for _ in range(count)] for count in draft.parts])


def _is_rectangle(ring: np.ndarray) -> bool:
    """Whether four corners go round a box along the axes."""
    if len(ring) != 4:
        return False
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = ring.tolist()
    return (ay == by and bx == cx and cy == dy and dx == ax) or (ax == bx and by == cy and cx == dx and dy == ay)


def _annotation(draft: _Draft, rings: list[np.ndarray], feature: Mapping, classes: dict[str, AnnotationClass]) -> Annotation:
    shape = _shape(draft, rings)
    properties = feature.get("properties") or {}
    class_name = _take_class(properties.get("classification"), classes)
    metadata = properties.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    notes, name, uid = metadata.pop(NOTES_KEY, None), properties.get("name"), feature.get("id")
    is_uid = isinstance(uid, str) and uid != "" and not uid.startswith(_LEGACY_IDS)
    geometry = feature["geometry"]
    foreign = {
        "feature": _rest(feature, "type", "geometry", "properties", *(["id"] if is_uid else [])),
        "geometry": _rest(geometry, "type", "coordinates", "isEllipse"),
        "properties": _rest(properties, "name", "color", "classification", "isLocked", "metadata"),
        "metadata": metadata,
    }
    if foreign["properties"].get("objectType") == "annotation":
        del foreign["properties"]["objectType"]
    if isinstance(classification := properties.get("classification"), dict) and set(classification) - {"name", "color"}:
        foreign["classification"] = (class_name, _rest(classification, "color", "colorRGB"))
    if draft.reduced:  # heights above the slide: as long as nobody changes the shape, the file keeps them
        foreign["original"] = (shape, dict(geometry))
    foreign = {member: value for member, value in foreign.items() if value}
    return Annotation(
        shape,
        name="" if name is None else str(name),
        class_name=class_name,
        notes="" if notes is None else str(notes),
        color=_color(properties.get("color")) or "",
        locked=bool(properties.get("isLocked")),
        uid=uid if is_uid else str(uuid.uuid4()),
        foreign=MappingProxyType(foreign) if foreign else _EMPTY,
    )


def _rest(members: Mapping, *known: str) -> dict:
    return {name: value for name, value in members.items() if name not in known}


def _take_class(classification: object, classes: dict[str, AnnotationClass]) -> str:
    """The name of a class, which is made known if it has a colour."""
    if isinstance(classification, str):
        return classification
    if not isinstance(classification, dict):
        return ""
    name, names = classification.get("name"), classification.get("names")
    if not isinstance(name, str) or not name:
        name = ": ".join(map(str, names)) if isinstance(names, list) else ""
    color = _color(classification.get("color")) or _color(classification.get("colorRGB"))
    if name and color and name not in classes:
        classes[name] = AnnotationClass(name, color)
    return name


def _color(value: object) -> str | None:
    """ "#rrggbb" of [r, g, b], or of QuPath's packed number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"#{value & 0xFFFFFF:06x}"
    if isinstance(value, list) and len(value) in (3, 4) and all(_is_number(part) for part in value):
        return "#" + "".join(f"{min(max(round(part), 0), 255):02x}" for part in value[:3])
    return None


# writing


def composed(document: Document) -> Iterator[str]:
    """The text of a file, piece by piece: a line each for the collection's own members and for every feature."""
    colors = {known.name: list(rgb(known.color)) for known in document.classes}
    own = {
        "version": VERSION,
        "pixel_size_um": document.frame.pixel_size_um,
        "origin_um": list(document.frame.origin_um),
        "classes": [{"name": name, "color": color} for name, color in colors.items()],
    }
    members = {"type": "FeatureCollection", **document.foreign, OWN_MEMBER: own}
    yield _text(members)[:-1] + ',"features":['
    separator = "\n"
    for feature in (*_features(document, colors), *document.unshown):
        yield separator + _text(feature)
        separator = ",\n"
    yield "\n]}\n"


def with_frame(document: Document, frame: Frame) -> Document:
    """The same annotations for a picture of another frame. Features that are not shown stay as they are."""
    return replace(document, frame=frame)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _features(document: Document, colors: Mapping[str, Sequence[int]]) -> Iterator[dict]:
    error_um = ELLIPSE_ERROR_PX * document.frame.pixel_size_um
    drawn = [_rings(annotation.shape, error_um) for annotation in document.annotations]
    everything = [ring for rings in drawn for ring in rings]
    if not everything:
        return
    pixels = document.frame.to_pixels(np.round(np.concatenate(everything), DECIMALS) + 0.0)
    place = 0
    for annotation, rings in zip(document.annotations, drawn, strict=True):
        coordinates = []
        for ring in rings:
            coordinates.append(_plain(pixels[place : place + len(ring)]))
            place += len(ring)
        yield _feature(annotation, coordinates, colors)


def _plain(pixels: np.ndarray) -> list[list[float]]:
    """As numbers of JSON, whole ones without a point."""
    if (pixels == np.rint(pixels)).all():
        return pixels.astype(np.int64).tolist()
    return pixels.tolist()


def _rings(shape: Shape, error_um: float) -> list[np.ndarray]:
    if isinstance(shape, Points):
        return [shape.points_um]
    return [np.concatenate([points, points[:1]]) if closed else points for points, closed in shape.paths(error_um)]


def _geometry(shape: Shape, coordinates: list[list]) -> dict:
    if isinstance(shape, Points):
        (places,) = coordinates
        one = len(places) == 1
        return {"type": "Point", "coordinates": places[0]} if one else {"type": "MultiPoint", "coordinates": places}
    if isinstance(shape, Line):
        return {"type": "LineString", "coordinates": coordinates[0]}
    if not isinstance(shape, Polygon):
        ellipse = {"isEllipse": True} if isinstance(shape, Ellipse) else {}
        return {"type": "Polygon", "coordinates": coordinates, **ellipse}
    rest = iter(coordinates)
    parts = [[next(rest) for _ in part] for part in shape.parts]
    one = len(parts) == 1
    return {"type": "Polygon", "coordinates": parts[0]} if one else {"type": "MultiPolygon", "coordinates": parts}


def _feature(annotation: Annotation, coordinates: list[list], colors: Mapping[str, Sequence[int]]) -> dict:
    foreign = annotation.foreign
    properties: dict[str, Any] = {}
    others = foreign.get("properties", _EMPTY)
    if not any(name in others for name in _TYPE_MEMBERS):
        properties["objectType"] = "annotation"
    properties |= others
    if annotation.name:  # QuPath cannot read a name that is null
        properties["name"] = annotation.name
    if annotation.color:
        properties["color"] = list(rgb(annotation.color))
    if annotation.class_name:
        classification = {"name": annotation.class_name, "color": colors.get(annotation.class_name)}
        named, said = foreign.get("classification", ("", _EMPTY))
        if named == annotation.class_name:
            classification = {**said, **classification}
        properties["classification"] = {name: value for name, value in classification.items() if value is not None}
    if annotation.locked:
        properties["isLocked"] = True
    if metadata := {**foreign.get("metadata", _EMPTY), **({NOTES_KEY: annotation.notes} if annotation.notes else {})}:
        properties["metadata"] = metadata
    shape, original = foreign.get("original", (None, None))
    geometry = original if shape is annotation.shape else _geometry(annotation.shape, coordinates)
    return {
        "type": "Feature",
        "id": annotation.uid,
        **foreign.get("feature", _EMPTY),
        "geometry": {**foreign.get("geometry", _EMPTY), **geometry},
        "properties": properties,
    }
