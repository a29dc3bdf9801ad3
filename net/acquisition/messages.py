"""Messages of a scanner and the acquisition server (docs/protocol.md, "Acquisition"): values to requests and back. No socket."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from rawmosaic.net.acquisition.plan import (
    MAX_FACTS_NBYTES,
    MAX_PLANE_NBYTES,
    MOST_CHANNELS,
    MOST_FIELDS,
    MOST_SCENES,
    MOST_STEPS,
    check_uid,
)
from rawmosaic.net.protocol import MAX_HEADER_NBYTES, Buffer, Request, request_from
from rawmosaic.storage import codec
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.errors import AcquisitionError, ProtocolError
from rawmosaic.storage.slide import FIELD_DTYPE

HELLO, PING = "hello", "ping"
"""To both."""

START, FIND, STATUS = "start", "find", "status"
"""To the manager."""

PLANE, FINISH, ABORT = "plane", "finish", "abort"
"""To the proxy; the last two to the manager as well."""

CANCEL = "cancel"
"""To both: answers are no longer wanted."""

HELD = "held"
"""The event of a reply with the status `more`: nothing is taken in now, and why."""

RAW, BLOSC = "raw", "blosc"
ENCODINGS = (RAW, BLOSC)

MAX_METADATA_NBYTES = 16 << 10
MAX_METADATA_DEPTH = 64
"""Who reads or writes JSON has only so much room for what is inside each other, and not everywhere the same."""

BLOSC_OVERHEAD_NBYTES = 16
"""What Blosc adds to pixels that do not compress."""

MAX_START_NBYTES = MAX_FACTS_NBYTES + MOST_FIELDS * FIELD_DTYPE.itemsize + (1 << 20)
MAX_PLANE_MESSAGE_NBYTES = MAX_PLANE_NBYTES + BLOSC_OVERHEAD_NBYTES + MAX_HEADER_NBYTES

_MOST_INDEX = (1 << 31) - 1
_NOTHING: Mapping = MappingProxyType({})
_KEYS = ("row", "column", "x_um", "y_um", "scene")


@dataclass(frozen=True)
class PlaneHeader:
    """What a `plane` message says of its pixels.

    The field is named by `field`, in a scan whose fields were planned; else by `row` and `column`, else by `x_um` and `y_um`,
    each together with `scene`. Positions are µm in the mosaic frame, of the image's centre; None where not told. `crc` is the
    CRC-32 of the buffer as it was sent.
    """

    uid: str
    channel: int
    shape: tuple[int, int]
    crc: int
    encoding: str = RAW
    field: int | None = None
    row: int | None = None
    column: int | None = None
    scene: int | None = None
    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None
    z: int = 0
    t: int = 0
    metadata: Mapping = dataclasses.field(default_factory=lambda: _NOTHING)

    @property
    def place(self) -> tuple | None:
        """What tells this field from others where fields come as they come; None where the plane does not say."""
        if self.row is not None and self.column is not None:
            return ("index", self.scene, self.row, self.column)
        if self.x_um is not None and self.y_um is not None:
            return ("position", self.scene, self.x_um, self.y_um)
        return None


def plane_request(number: int, header: PlaneHeader, payload: Buffer) -> Request:
    """The request `plane` with a request's id. AcquisitionError where the metadata are too long or no JSON."""
    body = {"scan": header.uid, "channel": header.channel, "shape": list(header.shape), "encoding": header.encoding}
    body["crc"] = header.crc
    for name in ("field", "row", "column", "scene", "x_um", "y_um", "z_um"):
        if (value := getattr(header, name)) is not None:
            body[name] = value
    for name in ("z", "t"):
        if value := getattr(header, name):
            body[name] = value
    if header.metadata:
        body["metadata"] = checked_metadata(header.metadata)
    return Request(number, PLANE, body=body, buffers=(payload,))


def plane_from(request: Request) -> tuple[PlaneHeader, Buffer]:
    """(header, payload) of a `plane` request, each value of the right kind and within what any scan may have; ProtocolError.

    Neither the payload's checksum nor what it encodes was looked at: that is `checked_pixels`.
    """
    body = request.body
    if len(request.buffers) != 1:
        raise ProtocolError(f"a plane is one buffer, not {len(request.buffers)}")
    shape = body.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(_is_whole(side, 1, MAX_PLANE_NBYTES) for side in shape):
        raise ProtocolError(f"`shape` is [height, width] in pixels, not {_shortened(shape)}")
    encoding = body.get("encoding", RAW)
    if encoding not in ENCODINGS:
        raise ProtocolError(f"`encoding` is one of {', '.join(ENCODINGS)}, not {_shortened(encoding)}")
    header = PlaneHeader(
        uid=check_uid(body.get("scan")),
        channel=_whole(body, "channel", MOST_CHANNELS - 1),
        shape=(shape[0], shape[1]),
        crc=_whole(body, "crc", (1 << 32) - 1),
        encoding=encoding,
        field=_whole(body, "field", MOST_FIELDS - 1, optional=True),
        row=_whole(body, "row", _MOST_INDEX, optional=True),
        column=_whole(body, "column", _MOST_INDEX, optional=True),
        scene=_whole(body, "scene", MOST_SCENES - 1, optional=True),
        x_um=_finite(body, "x_um"),
        y_um=_finite(body, "y_um"),
        z_um=_finite(body, "z_um"),
        z=_whole(body, "z", MOST_STEPS - 1, default=0),
        t=_whole(body, "t", MOST_STEPS - 1, default=0),
        metadata=_metadata(body.get("metadata")),
    )
    _check_payload_length(header, len(request.buffers[0]))
    return header, request.buffers[0]


def checked_pixels(header: PlaneHeader, payload: Buffer) -> np.ndarray:
    """(height, width) uint16 pixels of a payload, whose checksum and encoding are right; else ProtocolError or DamagedSlideError.

    A raw payload is not copied. Takes long, without the GIL.
    """
    if (crc := crc32(payload)) != header.crc:
        raise ProtocolError(f"a plane changed on the way: its checksum is {crc:#010x}, and was {header.crc:#010x}; send it again")
    return pixels(header.encoding, header.shape, payload)


def pixels(encoding: str, shape: tuple[int, int], payload: Buffer) -> np.ndarray:
    """(height, width) uint16 pixels of a payload; DamagedSlideError where it cannot hold them. A raw one is not copied."""
    if encoding == BLOSC:
        return codec.decoded(bytes(payload) if not isinstance(payload, bytes) else payload, shape)
    if len(payload) != 2 * math.prod(shape):
        raise codec.DamagedSlideError(f"{shape[0]} × {shape[1]} pixels do not lie in {len(payload)} bytes")
    return np.frombuffer(payload, np.dtype("<u2")).reshape(shape)


def encoded(image: np.ndarray, encoding: str) -> bytes | memoryview:
    """The payload of a C-contiguous uint16 image; a raw one is the image's own memory."""
    if encoding == BLOSC:
        return codec.compress(image)
    return memoryview(np.ascontiguousarray(image, np.dtype("<u2"))).cast("B")


def checked_metadata(metadata: Mapping) -> dict:
    """What is told of one plane, as JSON knows it; AcquisitionError where it is too long or too deep, or none."""
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        told = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise AcquisitionError(f"metadata of a plane must fit JSON: {error}") from error
    nbytes = len(text.encode(errors="replace"))
    if nbytes > MAX_METADATA_NBYTES:
        raise AcquisitionError(f"metadata of a plane are {nbytes} bytes as JSON; at most {MAX_METADATA_NBYTES} are taken")
    if _is_deeper(told, MAX_METADATA_DEPTH):
        raise AcquisitionError(f"metadata of a plane are nested more than {MAX_METADATA_DEPTH} deep; flatten them")
    return told


def request_in(frames: Sequence[Buffer], max_nbytes: int) -> Request:
    """The request in frames, none of which is copied but the header; ProtocolError, with `id` where it could be read."""
    return request_from(frames, max_nbytes)


def _check_payload_length(header: PlaneHeader, nbytes: int) -> None:
    holds = 2 * math.prod(header.shape)
    if holds > MAX_PLANE_NBYTES:
        raise ProtocolError(f"a plane of {holds} bytes is more than the {MAX_PLANE_NBYTES} that one may have")
    if header.encoding == RAW and nbytes != holds:
        raise ProtocolError(f"{header.shape[0]} × {header.shape[1]} pixels are {holds} bytes, not {nbytes}")
    if header.encoding == BLOSC and nbytes > holds + BLOSC_OVERHEAD_NBYTES:
        raise ProtocolError(f"{holds} bytes of pixels came in {nbytes}; send such a plane raw")


def _metadata(value: object) -> Mapping:
    """What a message tells of a plane; what no slide could keep is refused before it is acknowledged."""
    if value is None:
        return _NOTHING
    if not isinstance(value, dict):
        raise ProtocolError("`metadata` is a JSON object")
    try:
        return checked_metadata(value)
    except AcquisitionError as error:
        raise ProtocolError(f"`metadata`: {error}") from error


def _is_deeper(value: object, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inside is not None and (levels == 0 or any(_is_deeper(one, levels - 1) for one in inside))


def _whole(body: Mapping, name: str, most: int, *, optional: bool = False, default: int | None = None) -> int | None:
    value = body.get(name, default)
    if value is None and optional:
        return None
    if not _is_whole(value, 0, most):
        raise ProtocolError(f"`{name}` is a whole number from 0 to {most}, not {_shortened(value)}")
    return value


def _finite(body: Mapping, name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise ProtocolError(f"`{name}` is a finite number of µm, not {_shortened(value)}")
    return float(value)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
