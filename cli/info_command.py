"""`rawmosaic info`: what a slide holds, for people and for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rawmosaic.cli.options import LOCATION, Command, acquisition_options, opening_options

if TYPE_CHECKING:
    from rawmosaic.storage import Slide

EXAMPLES = """\b
Examples:
  rawmosaic info slide.h5
  rawmosaic info acquisition/ --json
"""


@click.command("info", cls=Command, epilog=EXAMPLES)
@LOCATION
@click.option("--json", "as_json", is_flag=True, help="Everything, metadata of the source included, as one JSON object.")
@acquisition_options
def command(location: str, as_json: bool, **acquisition: Any) -> None:
    """Say what the slide or raw acquisition at LOCATION holds."""
    from rawmosaic.storage import open_slide

    with open_slide(location, in_place_cache=False, **opening_options(location, acquisition)) as slide:
        facts = slide_facts(slide)
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) if as_json else "\n".join(described(facts)))


def slide_facts(slide: Slide) -> dict[str, Any]:
    """What a slide holds, as values that JSON knows; null where the source does not say. Reads no pixel."""
    header = slide.header
    acquired = [slide.acquired(z, t) for z in range(slide.size_z) for t in range(slide.size_t)]
    planes = sum(table.sum(axis=0) for table in acquired)
    return plain(
        {
            "location": slide.location,
            "name": header.name,
            "acquired_at": header.acquired_at or None,
            "objective": header.objective or None,
            "assay": header.assay or None,
            "pixel_size_um": header.pixel_size_um,
            "bits": header.bits,
            "fields": slide.n_fields,
            "field_height": slide.field_shape[0],
            "field_width": slide.field_shape[1],
            "size_z": slide.size_z,
            "size_t": slide.size_t,
            "levels": slide.levels,
            "scenes": slide.scenes,
            "position_sets": slide.position_sets,
            "bounds_um": mosaic_bounds(slide),
            "channels": [
                {
                    "name": channel.name,
                    "color": channel.color,
                    "excitation_nm": channel.excitation_nm,
                    "emission_nm": channel.emission_nm,
                    "exposure_ms": channel.exposure_ms,
                    "contrast_limits": channel.contrast_limits,
                    "planes": int(count),
                }
                for channel, count in zip(slide.channels, planes, strict=True)
            ],
            "extra": header.extra,
        }
    )


def mosaic_bounds(slide: Slide) -> list[float] | None:
    """[left, top, right, bottom] of all fields in the position set `stage`, mosaic µm; None for a slide without fields."""
    if slide.n_fields == 0:
        return None
    placement = slide.placement("stage")
    half = placement.half_extents_um(slide.fields["width"], slide.fields["height"])
    low, high = (placement.positions_um - half).min(axis=0), (placement.positions_um + half).max(axis=0)
    return [*low.tolist(), *high.tolist()]


def plain(value: Any) -> Any:
    """The value in the types of JSON: mappings and sequences all through, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def described(facts: Mapping[str, Any]) -> list[str]:
    """The facts as lines for people; what the source does not say is left out."""
    width, height = facts["field_width"], facts["field_height"]
    rows = [
        ("name", facts["name"]),
        ("location", facts["location"]),
        ("acquired at", facts["acquired_at"]),
        ("objective", facts["objective"]),
        ("assay", facts["assay"]),
        ("pixel size", f"{facts['pixel_size_um']:g} µm" if facts["pixel_size_um"] else None),
        ("fields", f"{facts['fields']}, up to {width} × {height} pixels of {facts['bits']} bits"),
        ("mosaic", _extent(facts["bounds_um"])),
        ("z, t", f"{facts['size_z']} × {facts['size_t']}" if facts["size_z"] * facts["size_t"] > 1 else None),
        ("zoom layers", ", ".join(f"1:{factor}" for factor in facts["levels"])),
        ("position sets", ", ".join(facts["position_sets"])),
        ("scenes", _shortened(facts["scenes"])),
    ]
    rows += [(f"channel {number}", _channel_line(channel)) for number, channel in enumerate(facts["channels"])]
    indent = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{indent}}{text}" for name, text in rows if text]


def _extent(bounds_um: list[float] | None) -> str | None:
    if bounds_um is None:
        return None
    left, top, right, bottom = bounds_um
    return f"{right - left:.1f} × {bottom - top:.1f} µm, x from {left:.1f}, y from {top:.1f}"


def _shortened(names: list[str], most: int = 12) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _channel_line(channel: Mapping[str, Any]) -> str:
    parts = [channel["name"], f"{channel['planes']} planes"]
    if channel["color"]:
        parts.append(channel["color"])
    for name, unit in (("excitation", "nm"), ("emission", "nm"), ("exposure", "ms")):
        if (value := channel[f"{name}_{unit}"]) is not None:
            parts.append(f"{name} {value:g} {unit}")
    if channel["contrast_limits"]:
        parts.append("limits {:g} to {:g}".format(*channel["contrast_limits"]))
    return ", ".join(parts)
