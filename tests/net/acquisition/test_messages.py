"""Messages of a scanner: what goes in comes out, and what is wrong is refused before it costs anything."""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from mutation import Mutator
from scans import header_and_payload, image

from rawmosaic.net.acquisition.messages import (
    MAX_METADATA_NBYTES,
    PlaneHeader,
    checked_metadata,
    checked_pixels,
    encoded,
    plane_from,
    plane_request,
    request_in,
)
from rawmosaic.net.protocol import (
    ConflictError,
    EndedError,
    ExistsError,
    FullError,
    Reply,
    Request,
    VersionError,
    error_body,
    error_from,
    reply_frames,
    request_frames,
)
from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, ProtocolError, SlideError, WriteError

MOST_NBYTES = 1 << 20
N_MUTATED = 20_000

PLANES = {
    "by row and column": {},
    "by position": {"x_um": 1.5, "y_um": -2.0, "z_um": 3.25},
    "by number": {"field": 7, "x_um": 0.1, "y_um": 1e-9},
    "with all": {"scene": 2, "z": 3, "t": 4, "metadata": {"temperature": 36.9, "note": "µ", "list": [1, None]}},
}


def through_the_wire(header: PlaneHeader, payload: bytes) -> tuple[PlaneHeader, bytes]:
    frames = [bytes(frame) for frame in request_frames(plane_request(5, header, payload))]
    header, payload = plane_from(request_in(frames, MOST_NBYTES))
    return header, bytes(payload)


@pytest.mark.parametrize("encoding", ["raw", "blosc"])
@pytest.mark.parametrize("facts", PLANES.values(), ids=PLANES.keys())
def test_a_plane_survives_a_message(facts, encoding):
    sent, payload = header_and_payload(3, 1, encoding, **facts)
    came, data = through_the_wire(sent, payload)
    assert came == sent
    assert data == payload
    assert np.array_equal(checked_pixels(came, data), image(3, 1))


def test_a_raw_plane_is_not_copied():
    header, payload = header_and_payload(1)
    assert np.shares_memory(checked_pixels(header, payload), np.frombuffer(payload, np.uint8))
    pixels = image(1)
    assert np.shares_memory(np.frombuffer(encoded(pixels, "raw"), np.uint8), pixels)


def test_an_image_of_any_layout_is_encoded_row_by_row():
    turned = image(1).T
    assert bytes(encoded(turned, "raw")) == turned.tobytes(order="C")
    assert bytes(encoded(image(1).astype(">u2"), "raw")) == image(1).astype("<u2").tobytes()


def test_a_flipped_bit_is_noticed():
    header, payload = header_and_payload(1)
    for encoding in ("raw", "blosc"):
        header, payload = header_and_payload(1, 0, encoding)
        for at in range(0, len(payload), 37):
            wrong = bytearray(payload)
            wrong[at] ^= 4
            with pytest.raises(ProtocolError, match="send it again"):
                checked_pixels(header, bytes(wrong))


WRONG = {
    "no shape": {"shape": None},
    "a flat shape": {"shape": [768]},
    "an empty shape": {"shape": [0, 32]},
    "another shape": {"shape": [24, 33]},
    "a huge shape": {"shape": [1 << 20, 1 << 20]},
    "a shape of truths": {"shape": [True, 768]},
    "an unknown encoding": {"encoding": "zip"},
    "an encoding that is no text": {"encoding": ["raw"]},
    "no scan": {"scan": None},
    "a path for a scan": {"scan": "../scan"},
    "no channel": {"channel": None},
    "a negative channel": {"channel": -1},
    "half a channel": {"channel": 0.5},
    "no checksum": {"crc": None},
    "a huge checksum": {"crc": 1 << 32},
    "a negative row": {"row": -1},
    "a huge column": {"column": 1 << 31},
    "a position in words": {"x_um": "left"},
    "a huge position": {"x_um": 10**400},
    "a true position": {"y_um": True},
    "a z that is none": {"z": "0"},
    "a huge t": {"t": 1 << 40},
    "metadata that are a list": {"metadata": [1]},
    "long metadata": {"metadata": {"x": "y" * MAX_METADATA_NBYTES}},
    "metadata with a number beyond all": {"metadata": {"x": float("inf")}},
    "metadata without a bottom": {"metadata": {"x": functools.reduce(lambda inside, _: [inside], range(100), [])}},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_plane_that_cannot_be_is_refused(wrong):
    header, payload = header_and_payload(1)
    request = plane_request(1, header, payload)
    with pytest.raises(ProtocolError):
        plane_from(replace(request, body={**request.body, **wrong}))


def test_a_plane_is_one_buffer():
    header, payload = header_and_payload(1)
    request = plane_request(1, header, payload)
    for buffers in ((), (payload, payload)):
        with pytest.raises(ProtocolError, match="one buffer"):
            plane_from(replace(request, buffers=buffers))


def test_what_does_not_hold_its_pixels_is_refused_before_it_is_decoded():
    """A few bytes that say they are gigabytes, and many that say they are few."""
    header, payload = header_and_payload(1, 0, "blosc")
    for said in (0, 1, 2**31 - 1, 2**32 - 1, len(payload)):
        bomb = payload[:4] + struct.pack("<I", said) + payload[8:]
        with pytest.raises(DamagedSlideError, match="says it holds"):
            checked_pixels(replace(header, crc=zlib.crc32(bomb)), bomb)
    request = plane_request(1, header, payload + bytes(4000))
    with pytest.raises(ProtocolError, match="send such a plane raw"):
        plane_from(request)
    with pytest.raises(DamagedSlideError, match="too short"):
        checked_pixels(replace(header, crc=zlib.crc32(b"")), b"")


def test_a_message_larger_than_planes_are_is_refused():
    header, payload = header_and_payload(1)
    frames = request_frames(plane_request(5, header, payload))
    with pytest.raises(ProtocolError, match="1000 bytes"):
        request_in(frames, 1000)


def test_another_version_is_told():
    with pytest.raises(VersionError, match="version 0") as caught:
        request_in([b'{"v":0,"id":7,"op":"plane"}'], MOST_NBYTES)
    assert caught.value.id == 7
    assert error_body(caught.value)["error"] == "version"


@pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": object()}, {"x": "y" * MAX_METADATA_NBYTES}])
def test_metadata_that_do_not_fit_are_refused_where_they_are_sent(metadata):
    with pytest.raises(AcquisitionError, match="metadata"):
        checked_metadata(metadata)


@pytest.mark.parametrize("kind", [ConflictError, ExistsError, EndedError, FullError, AcquisitionError, WriteError])
def test_an_error_comes_out_as_what_it_was(kind):
    told = error_from(error_body(kind("because")), "tcp://host:1")
    assert type(told) is kind
    assert "because" in str(told)


def test_wrong_messages_are_refused_or_understood():
    mutator = Mutator(11)
    right = [
        [bytes(frame) for frame in request_frames(request)]
        for request in (
            *(
                plane_request(9, *header_and_payload(1, 0, encoding, **facts))
                for facts in PLANES.values()
                for encoding in ("raw", "blosc")
            ),
            Request(1, "finish", body={"scan": "x", "planes": 5}),
        )
    ]
    refused = 0
    for number in range(N_MUTATED):
        try:
            request = request_in(mutator.mutated(right[number % len(right)]), MOST_NBYTES)
            pixels = checked_pixels(*plane_from(request))
            assert pixels.dtype == np.uint16
        except SlideError as error:
            refused += 1
            reply_frames(Reply(1, "error", error_body(error)))
    assert refused > N_MUTATED // 2
