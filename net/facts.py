"""The facts of a slide (all but its pixels) as a message, and back: the reply to `open` in docs/protocol.md."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

import numpy as np

from rawmosaic.net.protocol import Arrays, Buffer, array_from
from rawmosaic.storage.errors import ProtocolError
from rawmosaic.storage.pyramid import Tiling
from rawmosaic.storage.slide import FIELD_DTYPE, Channel, Header, PositionSet, Slide

MOST_FIELDS = 4_000_000
"""A client does not take in more."""

LONGEST_SIDE_PX = 1 << 20
MOST_LEVELS = 32
MOST_CHANNELS = 4096
MOST_STEPS = 1 << 20
"""z or t."""


def facts_message(slide: Slide) -> tuple[dict, list[bytes]]:
    """(body, buffers) of the reply to `open`."""
    arrays = Arrays()
    sets = {}
    for name in slide.position_sets:
        chosen = slide.position_set(name)
        sets[name] = {
            "positions_um": arrays.add(np.asarray(chosen.positions_um, np.float64)),
            "matrix": None if chosen.matrix is None else arrays.add(np.asarray(chosen.matrix, np.float64)),
            "plane_offsets_um": None
            if chosen.plane_offsets_um is None
            else arrays.add(np.asarray(chosen.plane_offsets_um, np.float64)),
        }
    body = {
        "identity": slide.identity,
        "growing": slide.growing,
        "overview": slide.overview is not None,
        "header": {**asdict_without_extra(slide.header), "extra": arrays.add(_json_array(dict(slide.header.extra)))},
        "channels": arrays.add(_json_array([asdict(channel) for channel in slide.channels])),
        "scenes": arrays.add(_json_array(list(slide.scenes))),
        "size_z": slide.size_z,
        "size_t": slide.size_t,
        "tiling": {
            "field_shape": [int(side) for side in slide.tiling.field_shape],
            "tile_shape": [int(side) for side in slide.tiling.tile_shape],
            "factors": [int(factor) for factor in slide.tiling.factors],
        },
        "fields": arrays.add(slide.fields),
        "orientation": arrays.add(slide.orientation),
        "offsets_um": arrays.add(slide.offsets_um),
        "position_sets": sets,
    }
    return body, arrays.buffers


def asdict_without_extra(header: Header) -> dict:
    """The header's plain facts."""
    return {name: getattr(header, name) for name in ("name", "acquired_at", "pixel_size_um", "objective", "assay", "bits")}


def slide_facts(body: Mapping, buffers: Sequence[Buffer]) -> dict:
    """Arguments of `Slide.__init__` (without `location`) from the reply to `open`; ProtocolError where they cannot be true."""
    try:
        return _slide_facts(body, buffers)
    except ProtocolError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"the facts of the slide cannot be read: {type(error).__name__} {error}") from error


def _slide_facts(body: Mapping, buffers: Sequence[Buffer]) -> dict:
    fields = array_from(body["fields"], buffers, FIELD_DTYPE, (None,))
    n = len(fields)
    channels = tuple(_channel(facts) for facts in _json_from(body["channels"], buffers, list))
    scenes = tuple(str(name) for name in _json_from(body["scenes"], buffers, list))
    if n > MOST_FIELDS or len(channels) > MOST_CHANNELS:
        raise ProtocolError(f"{n} fields in {len(channels)} channels are more than a viewer takes in")
    sets = {
        str(name): PositionSet(
            _finite(array_from(entry["positions_um"], buffers, np.float64, (n, 2))),
            _optional(entry["matrix"], buffers, (2, 2)),
            _optional(entry["plane_offsets_um"], buffers, (n, len(channels), 2)),
        )
        for name, entry in dict(body["position_sets"]).items()
    }
    if "stage" not in sets:
        raise ProtocolError("the slide has no `stage` positions")
    tiling = _tiling(body["tiling"])
    check_fields(fields, tiling)
    header = dict(body["header"])
    return {
        "header": Header(
            name=str(header["name"]),
            acquired_at=str(header["acquired_at"]),
            pixel_size_um=_positive(header["pixel_size_um"]),
            objective=str(header["objective"]),
            assay=str(header["assay"]),
            bits=_whole(header["bits"], 1, 16),
            extra=MappingProxyType(_json_from(header["extra"], buffers, dict)),
        ),
        "channels": channels,
        "fields": fields,
        "position_sets": sets,
        "size_z": _whole(body["size_z"], 1, MOST_STEPS),
        "size_t": _whole(body["size_t"], 1, MOST_STEPS),
        "scenes": scenes,
        "tiling": tiling,
        "orientation": _finite(array_from(body["orientation"], buffers, np.float64, (2, 2))),
        "offsets_um": _finite(array_from(body["offsets_um"], buffers, np.float64, (len(channels), 2))),
    }


def _tiling(facts: Mapping) -> Tiling:
    field_shape, tile_shape = (
        tuple(_whole(side, 1, LONGEST_SIDE_PX) for side in facts[name]) for name in ("field_shape", "tile_shape")
    )
    factors = tuple(_whole(factor, 1, LONGEST_SIDE_PX) for factor in facts["factors"])
    if len(field_shape) != 2 or len(tile_shape) != 2 or not 1 <= len(factors) <= MOST_LEVELS:
        raise ProtocolError("the tiling makes no sense")
    if factors[0] != 1 or any(b <= a for a, b in itertools.pairwise(factors)):
        raise ProtocolError(f"reduction factors rise from 1, unlike {factors}")
    if tile_shape[0] * tile_shape[1] > 1 << 26:
        raise ProtocolError(f"a tile of {tile_shape[0]} × {tile_shape[1]} pixels is larger than a viewer takes")
    return Tiling.of(field_shape, factors, tile_shape)


def check_fields(fields: np.ndarray, tiling: Tiling) -> None:
    """Raise ProtocolError unless a table of fields can be true."""
    if not np.array_equal(np.sort(fields["slot"]), np.arange(len(fields))):
        raise ProtocolError("the slots of the fields are not a permutation")
    for side, largest in zip(("height", "width"), tiling.field_shape, strict=True):
        if len(fields) and not 0 <= fields[side].min() <= fields[side].max() <= largest:
            raise ProtocolError(f"a field's {side} is outside 0 to {largest}")


def _channel(facts: Mapping) -> Channel:
    limits = facts.get("contrast_limits")
    numbers = {
        name: None if facts.get(name) is None else float(facts[name]) for name in ("excitation_nm", "emission_nm", "exposure_ms")
    }
    color = facts.get("color")
    return Channel(
        str(facts["name"]),
        None if color is None else str(color),
        contrast_limits=None if limits is None else (float(limits[0]), float(limits[1])),
        **numbers,
    )


def _json_array(value: object) -> np.ndarray:
    """JSON too long for a header, as bytes."""
    return np.frombuffer(json.dumps(value, default=str).encode(), np.uint8)


def _json_from(description: object, buffers: Sequence[Buffer], kind: type) -> list | dict:
    value = json.loads(array_from(description, buffers, np.uint8, (None,)).tobytes())
    if not isinstance(value, kind):
        raise ProtocolError(f"a {kind.__name__} was due")
    return value


def _optional(description: object, buffers: Sequence[Buffer], shape: tuple[int, ...]) -> np.ndarray | None:
    return None if description is None else _finite(array_from(description, buffers, np.float64, shape))


def _finite(array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise ProtocolError("a table holds what is no number")
    return array


def _positive(value: object) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ProtocolError(f"the pixel size is {number} µm")
    return number


def _whole(value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ProtocolError(f"{value!r} is not a whole number from {low} to {high}")
    return value
