"""What pymmcore-plus says of a run and of a frame, as it is kept with the slide: JSON, no longer than it may be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import numpy as np

MOST_NBYTES = 16 << 10
"""Of a plane's metadata as JSON."""

MOST_RUN_NBYTES = 4 << 20
"""Of a run's metadata: a sequence of very many positions is longer, and they are in the table of fields as well."""

GIVEN_UP_FIRST = ("camera_metadata", "event_metadata", "properties")
"""What is left out of metadata that are too long, and named in `left_out`."""


def plane_metadata(event: Any, meta: Mapping, began: datetime | None) -> dict:
    """What is kept with one plane: at most MOST_NBYTES of JSON.

    time            when it was taken, ISO 8601: the run's beginning and the runner's clock
    elapsed_ms      since the beginning of the run
    index           of the event in its sequence; position_name: of its stage position
    stage_um        where the stages were measured; commanded_um: where they were sent
    properties      "device-property" → value, of what the channel sets
    exposure_ms, camera, hardware_triggered, camera_metadata, event_metadata
                    as the core tells them
    """
    elapsed_ms = meta.get("runner_time_ms")
    facts = {
        "time": _time(began, elapsed_ms),
        "elapsed_ms": elapsed_ms,
        "exposure_ms": meta.get("exposure_ms"),
        "camera": meta.get("camera_device"),
        "index": {str(getattr(axis, "value", axis)): number for axis, number in event.index.items()},
        "position_name": event.pos_name,
        "stage_um": {axis: value for axis, value in (meta.get("position") or {}).items() if axis in "xyz"},
        "commanded_um": {"x": event.x_pos, "y": event.y_pos, "z": event.z_pos},
        "properties": {f"{entry['dev']}-{entry['prop']}": entry["val"] for entry in meta.get("property_values") or ()},
        "hardware_triggered": meta.get("hardware_triggered") or None,
        "camera_metadata": meta.get("camera_metadata"),
        "event_metadata": event.metadata,
    }
    return fitting({name: value for name, value in plain(facts).items() if value not in (None, {}, "")})


def run_metadata(sequence: Any, summary: Mapping) -> dict:
    """What is kept with the slide: the summary of the run and its sequence, as they are; at most MOST_RUN_NBYTES of JSON."""
    rest = {name: value for name, value in summary.items() if name != "mda_sequence"}
    dumped = sequence.model_dump(mode="json", exclude_unset=True) if hasattr(sequence, "model_dump") else None
    facts = {"source": "Micro-Manager", "program": "pymmcore-plus", "summary": rest, "sequence": dumped}
    return fitting(plain(facts), MOST_RUN_NBYTES)


def objective(summary: Mapping) -> str:
    """What the microscope calls the objective in use; empty where no device looks like a nosepiece."""
    for device in summary.get("devices", ()):
        if device.get("type") in ("State", "StateDevice") and re.search(r"(?i)objective|nosepiece", str(device.get("label", ""))):
            return str(device_properties(summary, device["label"]).get("Label") or "")
    return ""


def device_properties(summary: Mapping, label: str) -> dict[str, object]:
    """Property → value of a device at the beginning of the run; empty where there is no such device."""
    for device in summary.get("devices", ()):
        if device.get("label") == label:
            return {entry["name"]: entry.get("value") for entry in device.get("properties", ())}
    return {}


def fitting(facts: dict, most_nbytes: int = MOST_NBYTES) -> dict:
    """The same facts, without the longest and least important ones where they would be too long."""
    left_out: list[str] = []
    for name in (*GIVEN_UP_FIRST, *sorted(facts, key=lambda name: -_nbytes(facts[name]))):
        if _nbytes(facts) <= most_nbytes:
            break
        if facts.pop(name, None) is not None:
            left_out.append(name)
            facts["left_out"] = left_out
    return facts


def plain(value: Any) -> Any:
    """The value as JSON can say it: numbers that are none become None, and what it does not know becomes text."""
    if value is None or isinstance(value, str | bool):
        return str(value.value) if isinstance(value, Enum) else value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(getattr(key, "value", key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist()) if value.size <= 64 else f"array of {value.shape} {value.dtype}"
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json", exclude_unset=True))
    return str(value)


def time_of(text: object) -> datetime | None:
    """An ISO 8601 time; None where it is none."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _time(began: datetime | None, elapsed_ms: object) -> str | None:
    if began is None or not isinstance(elapsed_ms, int | float) or not math.isfinite(elapsed_ms):
        return None
    return (began + timedelta(milliseconds=elapsed_ms)).isoformat(timespec="milliseconds")


def _nbytes(facts: object) -> int:
    return len(json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
