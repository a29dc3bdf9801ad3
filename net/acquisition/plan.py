"""What a scan will be: its name and facts, fixed when it starts. As a message, and as `scan.json` in the scan's folder."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rawmosaic.net.acquisition.files import read_json, replace_json
from rawmosaic.net.acquisition.scan_folder import SCAN_FILE
from rawmosaic.net.protocol import Arrays, Buffer, array_from
from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, NotASlideError, ProtocolError
from rawmosaic.storage.hdf5.format import CODECS
from rawmosaic.storage.slide import FIELD_DTYPE, Channel, Header

SCAN_VERSION = 1

MOST_FIELDS = 1_000_000
MOST_PLANES_A_FIELD = 1 << 20
"""Channels × z × t."""

MOST_CHANNELS, MOST_SCENES, MOST_STEPS = 4096, 65_536, 1 << 20
MAX_PLANE_NBYTES = 256 << 20
MAX_FACTS_NBYTES = 16 << 20
LONGEST_NAME, LONGEST_NAME_NBYTES = 120, 200
"""Characters, and bytes as UTF-8: names of files have 255 at most, and get endings."""

LONGEST_TEXT = 4096

_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NOT_IN_NAMES = frozenset('/\\:*?"<>|')
_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}) | {
    f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³"
}
_COUNTED = ("row", "column", "scene")


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """What a scanner says when it starts.

    name          of the slide, and of its file
    uid           the scan's own, chosen by the scanner: who comes back with the same goes on with the same scan
    field_shape   (height, width) of the largest field, pixels
    fields        (n,) FIELD_DTYPE where they are known beforehand, and then named by number; None: they come as they come
    codec         how the slide is compressed
    orientation   image axes → mosaic axes, without the pixel size: the rows of a (2, 2) matrix; None: they are the same
    extra         what else the scanner wants to have kept with the scan
    """

    name: str
    uid: str
    field_shape: tuple[int, int]
    channels: tuple[Channel, ...]
    header: Header
    size_z: int = 1
    size_t: int = 1
    scenes: tuple[str, ...] = ()
    fields: np.ndarray | None = None
    codec: str = "lz4"
    orientation: tuple[tuple[float, float], tuple[float, float]] | None = None
    extra: Mapping = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self):
        _check(self)

    @property
    def plane_nbytes(self) -> int:
        """Bytes of the largest plane."""
        return 2 * math.prod(self.field_shape)

    def differences(self, other: ScanPlan) -> list[str]:
        """Names of what differs from another plan."""
        here, there = _facts(self), _facts(other)
        names = [name for name in here if here[name] != there[name]]
        if (self.fields is None) != (other.fields is None) or (
            self.fields is not None and not np.array_equal(self.fields, other.fields)
        ):
            names.append("fields")
        return names

    def save(self, folder: str | Path) -> None:
        """Write `scan.json` in the scan's folder: all at once, and on the disk when this returns. WriteError."""
        fields = None
        if self.fields is not None:
            arrays = Arrays()
            fields = arrays.add(self.fields)
            fields["data"] = base64.b64encode(arrays.buffers[0]).decode()
        replace_json(Path(folder) / SCAN_FILE, {"version": SCAN_VERSION, **_facts(self), "fields": fields}, durable=True)

    @staticmethod
    def load(folder: str | Path) -> ScanPlan:
        """The plan in a scan's folder; NotASlideError where there is none, DamagedSlideError where it cannot be read."""
        path = Path(folder) / SCAN_FILE
        facts = read_json(path)
        if facts is None:
            if path.exists():
                raise DamagedSlideError("the plan of the scan cannot be read", location=path)
            raise NotASlideError("this is no folder of a scan: it has no plan", location=path)
        if facts.get("version") != SCAN_VERSION:
            raise DamagedSlideError(
                f"the plan of the scan is of version {facts.get('version')}, and this program knows {SCAN_VERSION}; "
                "finish the scan with the program that began it",
                location=path,
            )
        try:
            fields, described = None, facts.get("fields")
            if described is not None:
                fields = _fields_from(described, [base64.b64decode(described["data"])])
            return _plan(facts, fields)
        except (ProtocolError, AcquisitionError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedSlideError(f"the plan of the scan cannot be read: {error}", location=path) from error


def plan_to_body(plan: ScanPlan) -> tuple[dict, list[bytes]]:
    """(body, buffers) of a plan in a message: `plan`, the bytes of a JSON object, and `fields`, an array or null."""
    arrays = Arrays()
    facts = json.dumps(_facts(plan), ensure_ascii=False, allow_nan=False).encode(errors="replace")
    body = {"plan": arrays.add(np.frombuffer(facts, np.uint8))}
    body["fields"] = None if plan.fields is None else arrays.add(plan.fields)
    return body, arrays.buffers


def plan_from_body(body: Mapping, buffers: Sequence[Buffer]) -> ScanPlan:
    """The plan in a message; ProtocolError where it is none, AcquisitionError where no slide can be like that."""
    try:
        described = body.get("plan")
        _check_length(described, MAX_FACTS_NBYTES, "facts of a plan are bytes")
        facts = json.loads(array_from(described, buffers, np.uint8, (None,)).tobytes(), parse_constant=_refuse)
        if not isinstance(facts, dict):
            raise ProtocolError("the facts of a plan are a JSON object")
        fields = body.get("fields")
        return _plan(facts, None if fields is None else _fields_from(fields, buffers))
    except (ProtocolError, AcquisitionError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"the plan cannot be read: {type(error).__name__} {str(error)[:200]}") from error


def check_name(name: str) -> str:
    """The name, which is also that of a file on any system; else AcquisitionError."""
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= LONGEST_NAME
        or len(name.encode(errors="replace")) > LONGEST_NAME_NBYTES
        or not name.isprintable()
        or _NOT_IN_NAMES & set(name)
        or name.startswith((".", " "))
        or name.endswith((".", " "))
    ):
        raise AcquisitionError(
            f"{str(name)[:LONGEST_NAME]!r} cannot name a scan: use 1 to {LONGEST_NAME} printable characters, none of "
            f"{' '.join(sorted(_NOT_IN_NAMES))}, with no dot or space at either end"
        )
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        raise AcquisitionError(f"{name!r} cannot name a scan: Windows has a device of that name; choose another")
    return name


def check_uid(uid: str) -> str:
    """The uid; else ProtocolError."""
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise ProtocolError(f"a scan's uid is 1 to 64 letters, digits, - and _, not {str(uid)[:80]!r}")
    return uid


def _facts(plan: ScanPlan) -> dict:
    """All but the fields, as JSON knows it."""
    facts = {
        "name": plan.name,
        "uid": plan.uid,
        "field_shape": [int(side) for side in plan.field_shape],
        "channels": [asdict(channel) for channel in plan.channels],
        "header": {**vars(plan.header), "extra": dict(plan.header.extra)},
        "size_z": int(plan.size_z),
        "size_t": int(plan.size_t),
        "scenes": list(plan.scenes),
        "codec": plan.codec,
        "orientation": None if plan.orientation is None else [list(row) for row in plan.orientation],
        "extra": dict(plan.extra),
    }
    return json.loads(json.dumps(facts, default=str))


def _plan(facts: Mapping, fields: np.ndarray | None) -> ScanPlan:
    header = dict(facts["header"])
    shape = facts["field_shape"]
    if not isinstance(shape, list) or not isinstance(facts["channels"], list) or not isinstance(facts["scenes"], list):
        raise ProtocolError("`field_shape`, `channels` and `scenes` of a plan are lists")
    known = Header.__dataclass_fields__
    return ScanPlan(
        name=facts["name"],
        uid=facts["uid"],
        field_shape=tuple(shape),
        channels=tuple(_channel(channel) for channel in facts["channels"]),
        header=Header(
            **{name: value for name, value in header.items() if name in known and name != "extra"},
            extra=MappingProxyType(dict(header.get("extra", {}))),
        ),
        size_z=facts["size_z"],
        size_t=facts["size_t"],
        scenes=tuple(facts["scenes"]),
        fields=fields,
        codec=facts["codec"],
        orientation=_orientation(facts.get("orientation")),
        extra=MappingProxyType(dict(facts.get("extra", {}))),
    )


def _orientation(rows: object) -> tuple | None:
    if rows is None:
        return None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ProtocolError("`orientation` of a plan is a list of two rows, or null")
    return tuple(tuple(row) for row in rows)


def _channel(facts: Mapping) -> Channel:
    channel = Channel(**{name: value for name, value in facts.items() if name in Channel.__dataclass_fields__})
    limits = channel.contrast_limits
    return channel if limits is None else replace(channel, contrast_limits=tuple(limits))


def _fields_from(described: object, buffers: Sequence[Buffer]) -> np.ndarray:
    _check_length(described, MOST_FIELDS, "planned fields are rows")
    return array_from(described, buffers, FIELD_DTYPE, (None,))


def _check_length(described: object, most: int, what: str) -> None:
    """An array's length, before it is decoded."""
    shape = described.get("shape") if isinstance(described, Mapping) else None
    if not isinstance(shape, list) or len(shape) != 1 or not _is_whole(shape[0], 0, most):
        raise ProtocolError(f"{what}, at most {most}, not {str(shape)[:60]}")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# what a plan must be; messages are for whoever writes the scanner


def _check(plan: ScanPlan) -> None:
    check_name(plan.name)
    check_uid(plan.uid)
    _check_sizes(plan)
    for channel in plan.channels:
        _check_channel(channel)
    _check_header(plan.header)
    if len(plan.scenes) > MOST_SCENES or not all(_is_text(scene) for scene in plan.scenes):
        raise AcquisitionError(f"scenes are at most {MOST_SCENES} names of at most {LONGEST_TEXT} characters")
    if plan.codec not in CODECS:
        raise AcquisitionError(f"no codec {str(plan.codec)[:40]!r}: choose one of {', '.join(CODECS)}")
    _check_orientation(plan.orientation)
    if plan.fields is not None:
        _check_fields(plan.fields, plan)
    try:
        nbytes = len(json.dumps(_facts(plan), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise AcquisitionError(f"the facts of a scan must fit JSON: {error}") from error
    if nbytes > MAX_FACTS_NBYTES:
        raise AcquisitionError(f"the facts of the scan are {nbytes} bytes as JSON; at most {MAX_FACTS_NBYTES} are taken")


def _check_sizes(plan: ScanPlan) -> None:
    shape = plan.field_shape
    if len(shape) != 2 or not all(_is_whole(side, 1, MAX_PLANE_NBYTES) for side in shape) or plan.plane_nbytes > MAX_PLANE_NBYTES:
        raise AcquisitionError(
            f"field_shape is {str(shape)[:60]}; give (height, width) in pixels, a plane has at most {MAX_PLANE_NBYTES} bytes"
        )
    if not 1 <= len(plan.channels) <= MOST_CHANNELS:
        raise AcquisitionError(f"a scan has 1 to {MOST_CHANNELS} channels, not {len(plan.channels)}")
    for what, size in (("size_z", plan.size_z), ("size_t", plan.size_t)):
        if not _is_whole(size, 1, MOST_STEPS):
            raise AcquisitionError(f"{what} is {str(size)[:40]}; give a whole number from 1 to {MOST_STEPS}")
    if (planes := len(plan.channels) * plan.size_z * plan.size_t) > MOST_PLANES_A_FIELD:
        raise AcquisitionError(f"a field of {planes} planes is too large: channels × z × t is at most {MOST_PLANES_A_FIELD}")


def _check_channel(channel: Channel) -> None:
    if not _is_text(channel.name) or not (channel.color is None or _is_text(channel.color)):
        raise AcquisitionError(f"a channel has a name, and a color or None; both are text, unlike {str(channel)[:200]}")
    for what in ("excitation_nm", "emission_nm", "exposure_ms"):
        value = getattr(channel, what)
        if value is not None and not _is_finite(value):
            raise AcquisitionError(f"{what} of channel {channel.name!r} is {str(value)[:40]}; give a finite number or None")
    limits = channel.contrast_limits
    if limits is not None and not (isinstance(limits, tuple) and len(limits) == 2 and all(_is_finite(limit) for limit in limits)):
        raise AcquisitionError(f"contrast_limits of channel {channel.name!r} are {str(limits)[:60]}; give two numbers or None")


def _check_header(header: Header) -> None:
    for what in ("name", "acquired_at", "objective", "assay"):
        if not _is_text(getattr(header, what)):
            raise AcquisitionError(f"{what} in the header is a text of at most {LONGEST_TEXT} characters")
    if not _is_finite(header.pixel_size_um) or header.pixel_size_um <= 0:
        raise AcquisitionError(f"pixel_size_um is {str(header.pixel_size_um)[:40]}; give a positive number of µm")
    if not _is_whole(header.bits, 1, 16):
        raise AcquisitionError(f"bits is {str(header.bits)[:40]}; give a whole number from 1 to 16")


def _check_orientation(rows: object) -> None:
    if rows is None:
        return
    usable = isinstance(rows, tuple) and [len(row) for row in rows] == [2, 2] and all(_is_finite(n) for row in rows for n in row)
    if not usable or rows[0][0] * rows[1][1] == rows[0][1] * rows[1][0]:
        raise AcquisitionError(f"orientation is {str(rows)[:80]}; give two rows of two numbers that turn or mirror an image")


def _check_fields(fields: np.ndarray, plan: ScanPlan) -> None:
    if not isinstance(fields, np.ndarray) or fields.dtype != FIELD_DTYPE or fields.ndim != 1:
        raise AcquisitionError("planned fields are a table of FIELD_DTYPE, one row a field")
    if not 1 <= len(fields) <= MOST_FIELDS:
        raise AcquisitionError(f"a scan has 1 to {MOST_FIELDS} planned fields, or None, not {len(fields)}")
    if not np.array_equal(np.sort(fields["slot"]), np.arange(len(fields))):
        raise AcquisitionError(f"the slots of planned fields are each of the numbers 0 to {len(fields) - 1} once")
    for side, largest in zip(("height", "width"), plan.field_shape, strict=True):
        if fields[side].min() < 0 or fields[side].max() > largest:
            raise AcquisitionError(f"a planned field's {side} is outside 0 to {largest}, the plan's field_shape")
    if ((fields["height"] == 0) != (fields["width"] == 0)).any():
        raise AcquisitionError("a planned field has both height and width, or neither")
    if not all(np.isfinite(fields[axis]).all() for axis in ("x_um", "y_um", "z_um")):
        raise AcquisitionError("a planned field lies nowhere; give finite µm")
    if min(fields[name].min() for name in _COUNTED) < -1 or fields["scene"].max() >= len(plan.scenes):
        raise AcquisitionError(f"a planned field's row, column or scene is below -1, or not among the {len(plan.scenes)} scenes")


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT
