"""Messages of docs/protocol.md: values to frames and back. No socket, no slide, no file.

What comes from outside is never trusted: every length, type and limit is checked before anything is allocated by its word, and
whatever breaks the protocol raises ProtocolError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import blosc
import numpy as np

from rawmosaic.storage.errors import (
    AcquisitionError,
    DamagedSlideError,
    NotASlideError,
    OutOfRangeError,
    PlaneMissingError,
    ProtocolError,
    SlideError,
    UnreachableError,
    WriteError,
)
from rawmosaic.storage.pyramid import TileKey

VERSION = 1
MAX_HEADER_NBYTES = 64 << 10
MAX_FRAMES = 256
MAX_MESSAGE_NBYTES = 256 << 20
MAX_REQUEST_FRAMES = 8
MAX_REQUEST_NBYTES = 128 << 10
"""Requests are small, so that whoever holds many of them holds little."""

MAX_TILES = 64
MAX_REQUESTS = 64
"""Requests of one connection that a server holds."""

LAST_PRIORITY = 9
SOON = 5
"""Priority of what may be needed soon; 0 is what somebody looks at."""

OK, MORE, ERROR = "ok", "more", "error"
STATUSES = (OK, MORE, ERROR)


class ConflictError(AcquisitionError):
    """Something of that name is there already, and is another: other pixels of a plane, another plan of a scan."""


class ExistsError(AcquisitionError):
    """A scan or a slide of that name is there already."""


class EndedError(AcquisitionError):
    """The scan was finished or given up: it takes no more planes."""


class FullError(WriteError):
    """The server has no room on its disk."""


ERRORS: dict[str, type[SlideError]] = {
    "not-a-slide": NotASlideError,
    "damaged": DamagedSlideError,
    "out-of-range": OutOfRangeError,
    "missing": PlaneMissingError,
    "protocol": ProtocolError,
    "version": ProtocolError,
    "lost": UnreachableError,
    "busy": UnreachableError,
    "conflict": ConflictError,
    "exists": ExistsError,
    "ended": EndedError,
    "contradiction": AcquisitionError,
    "full": FullError,
    "not-written": WriteError,
    "failed": SlideError,
}

_MAX_ID = (1 << 53) - 1
_KEY_DTYPE = np.dtype("<i4")

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Request:
    """What a client asks for. `body`: the header's other keys."""

    id: int
    op: str
    slide: str = ""
    priority: int = 0
    body: Mapping = field(default_factory=dict)
    buffers: Sequence[Buffer] = ()


@dataclass(frozen=True)
class Reply:
    """What a server answers. `body`: the header's other keys."""

    id: int
    status: str = OK
    body: Mapping = field(default_factory=dict)
    buffers: Sequence[Buffer] = ()


def request_frames(request: Request) -> list[Buffer]:
    """A request as frames."""
    header = {"v": VERSION, "id": request.id, "op": request.op}
    if request.slide:
        header["slide"] = request.slide
    if request.priority:
        header["priority"] = request.priority
    return [_header_bytes({**request.body, **header}), *request.buffers]


def request_from(frames: Sequence[Buffer], max_nbytes: int = MAX_REQUEST_NBYTES) -> Request:
    """The request in frames; ProtocolError, with the request's `id` as attribute where it could be read."""
    header = _header_from(frames)
    number = _id_in(header)
    try:
        if len(frames) > MAX_REQUEST_FRAMES or sum(map(len, frames)) > max_nbytes:
            raise ProtocolError(f"a request has at most {MAX_REQUEST_FRAMES} frames and {max_nbytes} bytes")
        version = header.pop("v", None)
        if version != VERSION:
            raise VersionError(version)
        op, slide, priority = header.pop("op", None), header.pop("slide", ""), header.pop("priority", 0)
        if not isinstance(op, str) or not isinstance(slide, str):
            raise ProtocolError("`op` and `slide` are texts")
        if not _is_integer(priority, 0, LAST_PRIORITY):
            raise ProtocolError(f"`priority` is 0 to {LAST_PRIORITY}, not {_shortened(priority)}")
    except ProtocolError as error:
        error.id = number
        raise
    return Request(number, op, slide, priority, header, tuple(frames[1:]))


def reply_frames(reply: Reply) -> list[Buffer]:
    """A reply as frames."""
    return [_header_bytes({**reply.body, "v": VERSION, "id": reply.id, "status": reply.status}), *reply.buffers]


def reply_from(frames: Sequence[Buffer]) -> Reply:
    """The reply in frames; ProtocolError."""
    header = _header_from(frames)
    version, status = header.pop("v", None), header.pop("status", None)
    if version != VERSION:
        raise VersionError(version)
    if status not in STATUSES:
        raise ProtocolError(f"`status` is one of {', '.join(STATUSES)}, not {_shortened(status)}")
    return Reply(_id_in(header), status, header, tuple(frames[1:]))


class VersionError(ProtocolError):
    """A message of another version of the protocol."""

    def __init__(self, version: object):
        super().__init__(
            f"this side speaks version {VERSION} of the protocol, the other side version {_shortened(version)}; "
            "update the older one"
        )


class BusyError(UnreachableError):
    """Too much is asked for at once; it may be asked for again later."""


# the list of slides

_ROOM_FOR_SLIDES = MAX_HEADER_NBYTES - 1024


def slides_page(entries: Iterable[Mapping], after: str = "") -> dict:
    """Keys of a reply to `slides`: of these entries those whose names come after `after`, as many as a header holds."""
    page, room = [], _ROOM_FOR_SLIDES
    for entry in sorted((entry for entry in entries if entry["name"] > after), key=lambda entry: entry["name"]):
        nbytes = _json_nbytes(entry)
        if nbytes > _ROOM_FOR_SLIDES:
            entry = {"name": entry["name"]}
            nbytes = _json_nbytes(entry)
        room -= nbytes + 1
        if room < 0:
            return {"slides": page, "rest": True}
        page.append(entry)
    return {"slides": page, "rest": False}


def _json_nbytes(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"))


# errors


def error_body(error: BaseException) -> dict:
    """An exception as keys of a reply or of a tile's entry; what is no SlideError is `failed`, without its details."""
    if isinstance(error, VersionError):
        return {"error": "version", "message": str(error)}
    if isinstance(error, BusyError):
        return {"error": "busy", "message": str(error)}
    if isinstance(error, OutOfRangeError):
        value = error.value if isinstance(error.value, (int, float, str)) else str(error.value)
        return {"error": "out-of-range", "message": str(error), "what": error.what, "value": value, "limits": error.limits}
    for name, kind in ERRORS.items():
        if isinstance(error, kind):
            return {"error": name, "message": _without_location(error)}
    return {"error": "failed", "message": f"the server could not answer ({type(error).__name__})"}


def error_from(body: Mapping, location: str) -> SlideError:
    """The exception that a reply or a tile's entry tells of."""
    name, message = body.get("error"), str(body.get("message", "no reason was given"))[:2000]
    kind = ERRORS.get(name if isinstance(name, str) else "", SlideError)
    if kind is OutOfRangeError:
        return OutOfRangeError(str(body.get("what", "index")), body.get("value"), str(body.get("limits", "")), location=location)
    return kind(message, location=location)


def _without_location(error: SlideError) -> str:
    """The message without the path that it lies at: where a server keeps its files is not the client's business."""
    location = getattr(error, "location", None)
    return str(error).removeprefix(f"{location}: ") if location else str(error)


# tiles


def pack_keys(keys: Sequence[TileKey]) -> bytes:
    """Tile keys as the buffer of a `tiles` request."""
    return np.array(keys, _KEY_DTYPE).tobytes()


def unpack_keys(buffer: Buffer) -> list[TileKey]:
    """The tile keys of a `tiles` request; ProtocolError unless they are 1 to 64."""
    nbytes = len(buffer)
    count, rest = divmod(nbytes, 5 * _KEY_DTYPE.itemsize)
    if rest or not 1 <= count <= MAX_TILES:
        raise ProtocolError(f"a `tiles` request names 1 to {MAX_TILES} tiles of 20 bytes each, not {nbytes} bytes")
    return [TileKey(*row) for row in np.frombuffer(buffer, _KEY_DTYPE).reshape(-1, 5).tolist()]


# arrays


class Arrays:
    """Collects the buffers of a message: `add` gives the description that goes into the header."""

    def __init__(self):
        self.buffers: list[bytes] = []

    def add(self, array: np.ndarray) -> dict:
        """Append an array; its dtype is known to both sides."""
        array = np.ascontiguousarray(array)
        self.buffers.append(_compressed(array) if array.nbytes else b"")
        return {"buffer": len(self.buffers) - 1, "shape": list(array.shape)}


def array_from(
    description: object, buffers: Sequence[Buffer], dtype: np.dtype | type, shape: tuple[int | None, ...]
) -> np.ndarray:
    """The array that a header describes, of the `shape` that it must have (None: any length); else ProtocolError."""
    dtype = np.dtype(dtype)
    if not isinstance(description, Mapping):
        raise ProtocolError(f"an array is described by `buffer` and `shape`, not by {_shortened(description)}")
    number, said = description.get("buffer"), description.get("shape")
    if not _is_integer(number, 0, len(buffers) - 1):
        raise ProtocolError(f"an array lies in buffer {_shortened(number)}, but the message has {len(buffers)}")
    if (
        not isinstance(said, list)
        or len(said) != len(shape)
        or not all(_is_integer(size, 0, MAX_MESSAGE_NBYTES) for size in said)
        or any(must is not None and size != must for size, must in zip(said, shape, strict=True))
    ):
        raise ProtocolError(f"an array of shape {_shortened(said)} came where {shape} is due")
    nbytes, data = math.prod(said) * dtype.itemsize, bytes(buffers[number])
    if nbytes > MAX_MESSAGE_NBYTES:
        raise ProtocolError(f"an array of {nbytes} bytes is more than the {MAX_MESSAGE_NBYTES} that a message may hold")
    if nbytes == 0:
        return np.empty(said, dtype)
    if len(data) < 16:
        raise ProtocolError(f"an array of {nbytes} bytes cannot lie in a buffer of {len(data)}")
    holds, takes, _ = blosc.get_cbuffer_sizes(data)
    if holds != nbytes or takes != len(data):
        raise ProtocolError(f"a buffer of {len(data)} bytes says {holds} in {takes} where {nbytes} are due")
    out = np.empty(said, dtype)
    try:
        written = blosc.decompress_ptr(data, out.ctypes.data)
    except Exception as error:  # blosc.error does not derive from anything more specific
        raise ProtocolError(f"an array does not decode: {error}") from error
    if written != nbytes:
        raise ProtocolError(f"an array decoded to {written} of {nbytes} bytes")
    return out


def _compressed(array: np.ndarray) -> bytes:
    typesize = min(array.dtype.itemsize, 255)
    return blosc.compress_ptr(array.ctypes.data, array.nbytes // typesize, typesize, 3, blosc.SHUFFLE, "zstd")


# headers


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# made once: `json.loads` and `json.dumps` make theirs anew for each message that is not of the most common kind
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _header_bytes(header: Mapping) -> bytes:
    # half a character, as in names of files of another encoding, has no UTF-8
    data = _ENCODER.encode(header).encode(errors="replace")
    if len(data) > MAX_HEADER_NBYTES:
        raise ProtocolError(f"a header of {len(data)} bytes is longer than the {MAX_HEADER_NBYTES} that one may have")
    return data


def _header_from(frames: Sequence[Buffer]) -> dict:
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ProtocolError(f"a message has 1 to {MAX_FRAMES} frames, not {len(frames)}")
    if len(frames[0]) > MAX_HEADER_NBYTES:
        raise ProtocolError(f"a header of {len(frames[0])} bytes is longer than the {MAX_HEADER_NBYTES} that one may have")
    if sum(map(len, frames)) > MAX_MESSAGE_NBYTES + MAX_HEADER_NBYTES:
        raise ProtocolError(f"a message is at most {MAX_MESSAGE_NBYTES} bytes and its header")
    try:
        header = _DECODER.decode(bytes(frames[0]).decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ProtocolError("the header is not a JSON object")
    return header


def _id_in(header: dict) -> int:
    number = header.pop("id", None)
    if not _is_integer(number, 0, _MAX_ID):
        raise ProtocolError(f"`id` is a number from 0 to 2^53 - 1, not {_shortened(number)}")
    return number


def _is_integer(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
