"""Messages: values to frames and back, by their bytes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawmosaic.net.facts import facts_message, slide_facts
from rawmosaic.net.protocol import (
    ERRORS,
    MAX_FRAMES,
    MAX_HEADER_NBYTES,
    MAX_REQUEST_FRAMES,
    MAX_REQUEST_NBYTES,
    MAX_TILES,
    Arrays,
    BusyError,
    Reply,
    Request,
    VersionError,
    array_from,
    error_body,
    error_from,
    pack_keys,
    reply_frames,
    reply_from,
    request_frames,
    request_from,
    slides_page,
    unpack_keys,
)
from rawmosaic.storage.errors import (
    DamagedSlideError,
    NotASlideError,
    OutOfRangeError,
    PlaneMissingError,
    ProtocolError,
    SlideError,
    UnreachableError,
)
from rawmosaic.storage.pyramid import TileKey
from rawmosaic.storage.slide import FIELD_DTYPE
from rawmosaic.storage.testing import SyntheticSlide

IDS = st.integers(0, 2**53 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
BODIES = st.dictionaries(
    NAMES.filter(lambda name: name not in ("v", "id", "op", "slide", "priority", "status")),
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    max_size=5,
)


# messages


@settings(max_examples=200, deadline=None)
@given(IDS, NAMES, NAMES, st.integers(0, 9), BODIES, st.lists(st.binary(max_size=100), max_size=5))
def test_a_request_survives_the_wire(number, op, slide, priority, body, buffers):
    sent = Request(number, op, slide, priority, body, tuple(buffers))
    assert request_from(request_frames(sent)) == sent


@settings(max_examples=200, deadline=None)
@given(IDS, st.sampled_from(["ok", "more", "error"]), BODIES, st.lists(st.binary(max_size=100), max_size=5))
def test_a_reply_survives_the_wire(number, status, body, buffers):
    sent = Reply(number, status, body, tuple(buffers))
    assert reply_from(reply_frames(sent)) == sent


def test_a_header_is_plain_json_and_buffers_are_raw():
    frames = request_frames(Request(7, "tiles", "scan", 5, {"more": "µ"}, [b"\x00\x01"]))
    assert json.loads(frames[0]) == {"v": 1, "id": 7, "op": "tiles", "slide": "scan", "priority": 5, "more": "µ"}
    assert frames[1:] == [b"\x00\x01"]


def header(**changed) -> list[bytes]:
    """A valid request's frames with some keys changed."""
    return [json.dumps({"v": 1, "id": 1, "op": "ping", **changed}).encode()]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"null"],
        [b"[]"],
        [b"\xff"],
        [b'{"v":1,"id":1,"op":"ping"'],
        [b'{"v":1,"id":NaN,"op":"ping"}'],
        [b'{"v":1,"id":1e999,"op":"ping"}'],
        [b"[" * 60_000],
        [b'{"v":' + b"9" * 60_000 + b"}"],
        header(id=None),
        header(id=-1),
        header(id=2**53),
        header(id=True),
        header(id="1"),
        header(id=1.0),
        header(op=None),
        header(op=["ping"]),
        header(slide=None),
        header(slide=1),
        header(priority=-1),
        header(priority=10),
        header(priority=0.5),
        header(priority=False),
        header(padding="x" * MAX_HEADER_NBYTES),
        header() + [b""] * MAX_REQUEST_FRAMES,
        header() + [b""] * MAX_FRAMES,
        [*header(), bytes(MAX_REQUEST_NBYTES)],
    ],
)
def test_what_breaks_the_rules_is_refused(frames):
    with pytest.raises(ProtocolError):
        request_from(frames)


def test_a_refused_request_says_whom_to_answer():
    with pytest.raises(ProtocolError) as caught:
        request_from(header(id=77, op=None))
    assert caught.value.id == 77


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_version_is_told_by_both_numbers(version):
    with pytest.raises(VersionError, match="version 1"):
        request_from(header(v=version))
    with pytest.raises(VersionError):
        reply_from([json.dumps({"v": version, "id": 1, "status": "ok"}).encode()])


@pytest.mark.parametrize("status", [None, "fine", 1, ["ok"], {}])
def test_a_reply_has_one_of_three_states(status):
    with pytest.raises(ProtocolError, match="status"):
        reply_from([json.dumps({"v": 1, "id": 1, "status": status}).encode()])


def test_a_header_that_would_be_too_long_is_not_sent():
    with pytest.raises(ProtocolError, match="longer"):
        reply_frames(Reply(1, body={"text": "x" * MAX_HEADER_NBYTES}))


# errors


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NotASlideError("x"), "not-a-slide"),
        (DamagedSlideError("x"), "damaged"),
        (PlaneMissingError("x"), "missing"),
        (ProtocolError("x"), "protocol"),
        (VersionError(2), "version"),
        (UnreachableError("x"), "lost"),
        (BusyError("x"), "busy"),
        (SlideError("x"), "failed"),
    ],
)
def test_an_error_comes_out_as_it_went_in(error, name):
    body = error_body(error)
    assert body["error"] == name
    back = error_from(json.loads(json.dumps(body)), "tcp://host:1/a")
    assert type(back) is ERRORS[name]
    assert str(back).startswith("tcp://host:1/a: ")


def test_what_is_out_of_range_keeps_its_limits():
    body = json.loads(json.dumps(error_body(OutOfRangeError("channel", 9, "the slide has 0 to 3", location="/secret"))))
    back = error_from(body, "tcp://host:1/a")
    assert (back.what, back.value, back.limits) == ("channel", 9, "the slide has 0 to 3")


def test_no_error_tells_where_the_server_keeps_its_files():
    assert "/secret" not in json.dumps(error_body(DamagedSlideError("broken", location="/secret/scan.h5")))
    assert "/secret" not in json.dumps(error_body(OSError(2, "No such file", "/secret/scan.h5")))


@pytest.mark.parametrize("body", [{}, {"error": 3}, {"error": ["busy"]}, {"error": "new"}, {"error": "out-of-range", "what": 3}])
def test_an_error_of_unknown_kind_is_still_an_error(body):
    assert isinstance(error_from(body, "x"), SlideError)


# tiles


def test_keys_are_five_numbers_each():
    keys = [TileKey(0, 1, 2, 3, 4), TileKey(5, 6, 7)]
    assert pack_keys(keys) == struct.pack("<10i", 0, 1, 2, 3, 4, 5, 6, 7, 0, 0)
    assert unpack_keys(pack_keys(keys)) == keys


@pytest.mark.parametrize("nbytes", [0, 1, 19, 21, 20 * MAX_TILES + 20, 20 * MAX_TILES + 1])
def test_keys_of_another_length_are_refused(nbytes):
    with pytest.raises(ProtocolError, match="1 to 64"):
        unpack_keys(bytes(nbytes))


# arrays


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.zeros((0, 2)),
        np.zeros(3, FIELD_DTYPE),
        np.arange(10**5, dtype=np.uint8),
        np.arange(12)[::2],
    ],
    ids=["table", "empty", "records", "bytes", "strided"],
)
def test_an_array_survives_the_wire(array):
    arrays = Arrays()
    arrays.add(np.zeros(4))
    description = json.loads(json.dumps(arrays.add(array)))
    back = array_from(description, arrays.buffers, array.dtype, (None,) * array.ndim)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


def described(array: np.ndarray) -> tuple[dict, list[bytes]]:
    arrays = Arrays()
    return arrays.add(array), arrays.buffers


@pytest.mark.parametrize(
    "changed",
    [
        {"buffer": 1},
        {"buffer": -1},
        {"buffer": True},
        {"buffer": None},
        {"shape": [3]},
        {"shape": [4, 4]},
        {"shape": [-3, 3]},
        {"shape": [3.0, 3]},
        {"shape": "33"},
        {"shape": [True, True]},
        {"shape": [2**27, 3]},
        {"shape": [10**30, 3]},
    ],
)
def test_an_array_that_cannot_be_is_refused(changed):
    description, buffers = described(np.zeros((3, 3)))
    with pytest.raises(ProtocolError):
        array_from({**description, **changed}, buffers, np.float64, (None, None))


def test_an_array_of_another_size_than_due_is_refused():
    description, buffers = described(np.zeros((3, 2)))
    with pytest.raises(ProtocolError, match="due"):
        array_from(description, buffers, np.float64, (4, 2))
    with pytest.raises(ProtocolError):
        array_from(description, buffers, np.float32, (3, 2))
    with pytest.raises(ProtocolError):
        array_from(description, [buffers[0][:-1]], np.float64, (3, 2))
    with pytest.raises(ProtocolError):
        array_from(description, [buffers[0] + b"x"], np.float64, (3, 2))


def test_a_buffer_that_promises_gigabytes_allocates_nothing():
    bomb = bytes([2, 1, 0x13, 8]) + struct.pack("<3I", 2**31 - 1, 2**18, 64) + bytes(48)
    with pytest.raises(ProtocolError):
        array_from({"buffer": 0, "shape": [100]}, [bomb], np.float64, (None,))


# lists and facts


def test_pages_of_slides_fit_into_headers_and_miss_none():
    entries = [{"name": f"slide {number}", "title": "µ" * (number % 700)} for number in range(1000)]
    found, after = [], ""
    while True:
        page = slides_page(entries, after)
        assert len(reply_frames(Reply(2**53 - 1, body=page))[0]) <= MAX_HEADER_NBYTES
        found += page["slides"]
        if not page["rest"]:
            break
        after = found[-1]["name"]
    assert found == sorted(entries, key=lambda entry: entry["name"])


def test_the_facts_of_a_slide_survive_the_wire():
    slide = SyntheticSlide((3, 2), (40, 56), ["µ", "GFP"], size_z=2, extra_sets=("by hand", "µ"), scenes=("A1", "B2"), seed=3)
    body, buffers = facts_message(slide)
    reply = reply_from(reply_frames(Reply(1, body=body, buffers=buffers)))
    facts = slide_facts(reply.body, reply.buffers)
    assert facts["header"] == slide.header
    assert facts["channels"] == slide.channels
    assert facts["scenes"] == slide.scenes
    assert (facts["size_z"], facts["size_t"], facts["tiling"]) == (slide.size_z, slide.size_t, slide.tiling)
    np.testing.assert_array_equal(facts["fields"], slide.fields)
    np.testing.assert_array_equal(facts["orientation"], slide.orientation)
    np.testing.assert_array_equal(facts["offsets_um"], slide.offsets_um)
    assert set(facts["position_sets"]) == {"stage", "by hand", "µ"}
    for name, there in facts["position_sets"].items():
        here = slide.position_set(name)
        np.testing.assert_array_equal(there.positions_um, here.positions_um)
        for part in ("matrix", "plane_offsets_um"):
            if getattr(here, part) is None:
                assert getattr(there, part) is None
            else:
                np.testing.assert_array_equal(getattr(there, part), getattr(here, part))
