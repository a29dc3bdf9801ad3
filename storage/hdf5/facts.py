"""What the tables of a slide file say, as the arguments of `Slide`, and whether they can be true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

import h5py
import numpy as np

from rawmosaic.storage.errors import FormatVersionError
from rawmosaic.storage.hdf5 import format as fmt
from rawmosaic.storage.pyramid import Tiling
from rawmosaic.storage.slide import FIELD_DTYPE, PositionSet


def read_facts(root: h5py.Group, location: str) -> dict:
    """The arguments of `Slide.__init__` from the file's attributes and tables, but for the fields.

    Raises FormatVersionError; and whatever Python and h5py raise where they make no sense.
    """
    attributes = root.attrs
    version = tuple(int(part) for part in attributes["format_version"])
    if version[0] > fmt.FORMAT_VERSION[0]:
        raise FormatVersionError(
            f"format version {version[0]}.{version[1]} is newer than {fmt.FORMAT_VERSION[0]}.{fmt.FORMAT_VERSION[1]}, "
            "the newest this rawmosaic reads; update rawmosaic",
            location=location,
        )
    if not _sensible(attributes):
        raise ValueError("field_shape, tile_shape or levels make no sense")
    field_shape = tuple(int(size) for size in attributes["field_shape"])
    factors = tuple(int(factor) for factor in attributes["levels"])
    tile_shape = tuple(int(size) for size in attributes["tile_shape"])
    extra = json.loads(root[fmt.METADATA][()].tobytes() or b"{}")
    _tell_of_scan(attributes, extra)
    facts = {
        "header": fmt.header_from_json(attributes["header"], extra),
        "channels": fmt.channels_from_json(attributes["channels"]),
        "size_z": int(attributes["size_z"]),
        "size_t": int(attributes["size_t"]),
        "scenes": tuple(json.loads(attributes["scenes"])),
        "tiling": Tiling.of(field_shape, factors, tile_shape),
        "orientation": attributes["orientation"],
        "offsets_um": root[fmt.CHANNEL_OFFSETS][()],
    }
    _check_facts(facts)
    return facts


def read_fields(root: h5py.Group, facts: Mapping, n_fields: int | None = None) -> tuple[np.ndarray, Mapping[str, PositionSet]]:
    """The table of fields and the position sets; of a file that grows, of so many fields as all tables have, `n_fields` at most.

    Raises ValueError where they contradict each other or the other facts.
    """
    table = root[fmt.FIELDS]
    if n_fields is not None:
        n_fields = min(n_fields, len(table), *(len(positions) for positions in root[fmt.POSITIONS].values()))
    fields = table[:n_fields].astype(FIELD_DTYPE, copy=False)
    sets = _position_sets(root, fields)
    _check_fields(fields, sets, facts)
    return fields, sets


def check_planes(root: h5py.Group, datasets: Mapping[int, h5py.Dataset], n_fields: int, facts: Mapping) -> None:
    """Raise ValueError where the datasets of the planes have other shapes than the facts say."""
    planes = (len(facts["channels"]), facts["size_z"], facts["size_t"])
    tiling = facts["tiling"]
    if root[fmt.ACQUIRED].shape[1:] != planes:
        raise ValueError("the table of acquired planes has the wrong shape")
    for level in range(len(tiling.levels)):
        if level not in datasets:
            continue
        dataset = datasets[level]
        shape = fmt.level_shape(tiling, level, n_fields, *planes)
        chunk = (1, 1, 1, 1, *tiling.tile_shape)
        if dataset.shape[1:] != shape[1:] or dataset.chunks != chunk or dataset.dtype != np.uint16:
            raise ValueError(f"level {level} is {dataset.dtype} {dataset.shape} in chunks of {dataset.chunks}")


def _tell_of_scan(attributes: Mapping, extra: dict) -> None:
    """Add what an acquisition server noted to the source's own metadata: `acquisition` (`uid`, `planned`), `ended_early`."""
    if attributes.get("ended_early"):
        extra["ended_early"] = str(attributes["ended_early"])
    if attributes.get("scan_uid"):
        scan = {"uid": str(attributes["scan_uid"])}
        if "planned" in attributes:
            scan["planned"] = bool(attributes["planned"])
        own = extra.get("acquisition")
        extra["acquisition"] = {**(own if isinstance(own, dict) else {}), **scan}


def _sensible(attributes: h5py.AttributeManager) -> bool:
    """Whether the shapes that everything else is computed from can be true."""
    factors = np.atleast_1d(attributes["levels"])
    shapes = [np.atleast_1d(attributes[name]) for name in ("field_shape", "tile_shape")]
    return all(shape.shape == (2,) and 0 < shape.min() <= shape.max() <= fmt.LONGEST_SIDE_PX for shape in shapes) and bool(
        factors[0] == 1 and (np.diff(factors.astype(np.int64)) > 0).all() and factors[-1] <= fmt.LONGEST_SIDE_PX
    )


def _check_facts(facts: Mapping) -> None:
    if facts["size_z"] < 1 or facts["size_t"] < 1:
        raise ValueError(f"size_z is {facts['size_z']} and size_t {facts['size_t']}")
    if np.shape(facts["orientation"]) != (2, 2) or facts["offsets_um"].shape != (len(facts["channels"]), 2):
        raise ValueError("the orientation or the channel offsets have the wrong shape")


def _check_fields(fields: np.ndarray, sets: Mapping[str, PositionSet], facts: Mapping) -> None:
    """Raise ValueError where tables and attributes contradict each other, before anything is allocated by their word."""
    n, c = len(fields), len(facts["channels"])
    if not np.array_equal(np.sort(fields["slot"]), np.arange(n)):
        raise ValueError("the slots of the fields are not a permutation")
    for side, largest in zip(("height", "width"), facts["tiling"].field_shape, strict=True):
        if n and not 0 <= fields[side].min() <= fields[side].max() <= largest:
            raise ValueError(f"a field's {side} is outside 0 to {largest}")
    pixel_size_um = facts["header"].pixel_size_um
    for name, chosen in sets.items():
        offsets = chosen.plane_offsets_um
        matrix = np.asarray(facts["orientation"] if chosen.matrix is None else chosen.matrix, np.float64) * pixel_size_um
        if chosen.positions_um.shape != (n, 2) or (offsets is not None and offsets.shape != (n, c, 2)):
            raise ValueError(f"position set {name} has the wrong shape")
        tables = (chosen.positions_um, matrix, facts["offsets_um"], 0.0 if offsets is None else offsets)
        if not all(np.isfinite(table).all() for table in tables):
            raise ValueError(f"position set {name} holds what is no number")
        if not abs(np.linalg.det(matrix)) > 0:
            raise ValueError(f"position set {name} gives pixels no size (pixel size {pixel_size_um} µm)")


def _position_sets(root: h5py.Group, fields: np.ndarray) -> Mapping[str, PositionSet]:
    """Every position set; `stage` comes from the field table, which is never changed."""
    n = len(fields)
    offsets = root.get(fmt.PLANE_OFFSETS, {})

    def plane_offsets(name: str) -> np.ndarray | None:
        return _padded(offsets[name][:n], n) if name in offsets else None

    sets = {"stage": PositionSet(np.stack([fields["x_um"], fields["y_um"]], axis=-1), None, plane_offsets("stage"))}
    for name, dataset in root[fmt.POSITIONS].items():
        sets[name] = PositionSet(dataset[:n], dataset.attrs.get("matrix"), plane_offsets(name))
    return MappingProxyType(sets)


def _padded(table: np.ndarray, n: int) -> np.ndarray | None:
    """Measured offsets of n fields from a table that is shorter while the file grows; None where nothing was measured yet."""
    if len(table) == n:
        return table
    padded = np.zeros((n, *table.shape[1:]))
    padded[: len(table)] = table
    return padded if len(table) else None
