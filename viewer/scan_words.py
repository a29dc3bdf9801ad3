"""A running scan in words, for a narrow panel."""

from __future__ import annotations

from rawmosaic.viewer.scan_progress import ScanProgress


def count_text(progress: ScanProgress) -> str:
    """``1,240 / 2,193 fields``; ``1,240 fields`` where nobody planned."""
    planned = progress.planned_fields
    if planned is None:
        return f"{progress.fields:,} field{'' if progress.fields == 1 else 's'}"
    return f"{progress.fields:,} / {planned:,} fields"


def pace_text(progress: ScanProgress) -> str:
    """Planes, rate and the time that is left, as far as they are known."""
    parts = [f"{progress.planes:,} planes"]
    if progress.fields_per_s > 0:
        parts.append(f"{rate_text(progress.fields_per_s, 'field')}")
    elif progress.planes_per_s > 0:
        parts.append(f"{rate_text(progress.planes_per_s, 'plane')}")
    if progress.left_s is not None:
        parts.append(f"{duration_text(progress.left_s)} left")
    return "  ·  ".join(parts)


def state_text(progress: ScanProgress) -> str:
    """What is to be said of a scan that does not simply go on; empty while it does."""
    match progress.state:
        case "silent":
            return f"no field for {duration_text(progress.silent_s)}"
        case "finished":
            return "the scan is finished"
        case "ended early":
            return f"the scan ended early: {progress.fields:,} of {progress.planned_fields:,} fields"
        case "abandoned":
            return "the scan stopped: its writer is gone"
    return ""


def duration_text(seconds: float) -> str:
    """``40 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 99.5:
        return f"{max(seconds, 0.0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h" if hours >= 10 or not minutes else f"{hours} h {minutes} min"


def rate_text(per_s: float, what: str) -> str:
    """``18 fields/s``; ``12 fields/min`` of what is slow."""
    if per_s >= 0.95:
        return f"{per_s:.0f} {what}s/s" if per_s >= 9.5 else f"{per_s:.1f} {what}s/s"
    return f"{60 * per_s:.0f} {what}s/min" if per_s >= 9.5 / 60 else f"{60 * per_s:.1f} {what}s/min"
