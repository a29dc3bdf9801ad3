"""The plan of a scan: as a message, as a file, and what none may be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from mutation import Mutator
from scans import plan

from rawmosaic.net.acquisition.plan import (
    LONGEST_NAME,
    ScanPlan,
    check_name,
    plan_from_body,
    plan_to_body,
)
from rawmosaic.net.acquisition.scan_folder import SCAN_FILE
from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError, NotASlideError, ProtocolError, SlideError
from rawmosaic.storage.slide import Channel, Header, new_fields

N_MUTATED = 3000


def full_plan() -> ScanPlan:
    """Every fact told."""
    fields = new_fields(6, (10, 12))
    fields["x_um"], fields["row"], fields["scene"] = np.arange(6) * 0.1, np.arange(6), [0, 0, 0, 1, 1, -1]
    return ScanPlan(
        name="Nierenschnitt Nr. 3, µ",
        uid="3f2a-0_Z",
        field_shape=(10, 12),
        channels=(Channel("DAPI", "#0000ff", 358.0, 461.0, 12.5, (100.0, 4000.0)), Channel("GFP")),
        header=Header("a title", "2026-01-02T03:04:05", 0.1625, "60×", "assay", 12, {"stage": {"speed": [1, 2.5]}}),
        size_z=3,
        size_t=2,
        scenes=("A1", "A2"),
        fields=fields,
        codec="zstd",
        extra={"operator": "Ö"},
    )


def test_a_plan_survives_a_message():
    sent = full_plan()
    body, buffers = plan_to_body(sent)
    came = plan_from_body(json.loads(json.dumps(body)), buffers)
    assert came.differences(sent) == []
    assert came.channels == sent.channels
    assert came.header.extra == sent.header.extra
    assert np.array_equal(came.fields, sent.fields)


def test_a_plan_survives_a_file(tmp_path):
    full_plan().save(tmp_path)
    assert ScanPlan.load(tmp_path).differences(full_plan()) == []
    plan().save(tmp_path)
    assert ScanPlan.load(tmp_path).fields is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [SCAN_FILE]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "another"),
        ("channels", (Channel("DAPI"),)),
        ("header", Header("a title", pixel_size_um=0.2)),
        ("size_z", 4),
        ("fields", None),
        ("codec", "lz4"),
        ("extra", {}),
    ],
)
def test_plans_that_differ_say_in_what(name, value):
    assert full_plan().differences(replace(full_plan(), **{name: value})) == [name]


def test_planned_fields_that_differ_are_a_difference():
    moved = full_plan().fields.copy()
    moved["x_um"][2] += 1
    assert full_plan().differences(replace(full_plan(), fields=moved)) == ["fields"]


@pytest.mark.parametrize("name", ["scan", "a scan (2)", "Ünïcode µ", "x" * LONGEST_NAME, "console", "com10", "a.b"])
def test_names_that_any_system_takes_are_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "c:",
        "what?",
        "a\nb",
        "a\0",
        " a",
        "a ",
        "a.",
        "x" * (LONGEST_NAME + 1),
        "µ" * 110,
        "nul",
        "CON",
        "Com1",
        "lpt9.txt",
        "aux .h5",
        7,
        None,
    ],
)
def test_names_that_some_system_refuses_are_refused(name):
    with pytest.raises(AcquisitionError, match="cannot name a scan"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("field_shape", (0, 5), "field_shape"),
        ("field_shape", (5,), "field_shape"),
        ("field_shape", (1 << 20, 1 << 20), "at most"),
        ("channels", (), "1 to 4096 channels"),
        ("channels", (Channel("a", exposure_ms=float("nan")),), "exposure_ms"),
        ("channels", (Channel(7),), "text"),
        ("size_z", 0, "size_z"),
        ("size_t", True, "size_t"),
        ("size_z", 1 << 20, "channels × z × t"),
        ("codec", "gzip", "lz4, zstd"),
        ("scenes", (5,), "scenes"),
        ("extra", {"x": float("inf")}, "JSON"),
        ("header", Header("a", pixel_size_um=0.0), "pixel_size_um"),
        ("header", Header("a", pixel_size_um=float("inf")), "pixel_size_um"),
        ("header", Header("a", bits=17), "bits"),
    ],
)
def test_what_no_slide_can_be_is_refused(name, value, says):
    with pytest.raises(AcquisitionError, match=says):
        replace(full_plan(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("slot", 0), ("height", 11), ("height", -1), ("height", 0), ("x_um", np.nan), ("row", -2), ("scene", 2)]
)
def test_planned_fields_that_no_slide_can_have_are_refused(name, value):
    fields = full_plan().fields.copy()
    fields[name][1] = value
    with pytest.raises(AcquisitionError):
        replace(full_plan(), fields=fields)


@pytest.mark.parametrize("uid", ["", "a b", "../x", "x" * 65, None, 5])
def test_a_uid_that_is_none_is_refused(uid):
    with pytest.raises(ProtocolError, match="uid"):
        replace(full_plan(), uid=uid)


def test_a_folder_without_a_plan_is_no_scan(tmp_path):
    with pytest.raises(NotASlideError, match="no plan"):
        ScanPlan.load(tmp_path)


def test_a_plan_that_cannot_be_read_says_so(tmp_path):
    full_plan().save(tmp_path)
    path = tmp_path / SCAN_FILE
    text = path.read_text(encoding="utf-8")
    for wrong in ("", "[]", text[:-5], text.replace('"uid"', '"id"'), text.replace('"version":1', '"version":2'), "{}"):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(DamagedSlideError, match="plan"):
            ScanPlan.load(tmp_path)


def test_a_plan_larger_than_it_may_be_is_refused_before_it_is_decoded():
    body, buffers = plan_to_body(full_plan())
    body["fields"]["shape"] = [10**9]
    with pytest.raises(ProtocolError, match="at most"):
        plan_from_body(body, buffers)


def test_wrong_plans_are_refused_or_are_plans():
    mutator = Mutator(7)
    body, buffers = plan_to_body(full_plan())
    facts = json.loads(json.dumps({"body": body}))
    refused = 0
    for _ in range(N_MUTATED):
        wrong_body, wrong_buffers = facts["body"], list(buffers)
        if mutator.random.random() < 0.5:
            wrong_body = mutator.value(wrong_body)
        else:
            at = mutator.random.randrange(len(buffers))
            wrong_buffers[at] = mutator.random.choice((mutator.bytes, mutator.length))(buffers[at])
        try:
            assert isinstance(plan_from_body(wrong_body if isinstance(wrong_body, dict) else {}, wrong_buffers), ScanPlan)
        except SlideError:
            refused += 1
    assert refused > N_MUTATED // 3


def test_wrong_facts_are_refused_or_are_plans():
    """What the bytes of the facts say, not how they travel."""
    mutator = Mutator(8)
    from rawmosaic.net.acquisition.plan import _facts, _plan

    right, refused = _facts(full_plan()), 0
    for _ in range(N_MUTATED):
        try:
            _plan(mutator.value(right), None)
        except (SlideError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            refused += 1
    assert refused > N_MUTATED // 3
