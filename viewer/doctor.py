"""The start-up check: what of this machine matters to rawmosaic, whether it will do, and what to do where it will not.

Each check gives findings and raises nothing. Drivers are tried in processes of their own (gl/trial.py).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rawmosaic.storage.errors import SlideError
from rawmosaic.viewer import budgets
from rawmosaic.viewer.desktop import WITHOUT_WINDOW, Desktop, current_desktop, driver_action

LEAST_FREE_DISK_BYTES = 5 << 30
"""Zoom layers of acquisitions viewed in place and tiles of remote slides are kept on disk."""

LEAST_TEXTURE_PX, LEAST_TEXTURE_LAYERS = 4096, 256
CACHE_VARIABLE = "RAWMOSAIC_CACHE"
EXTRAS = {
    "ui": "panels in the window",
    "qt": "the Qt widget",
    "web": "slides in a browser",
    "tiff": "compressed TIFF and JPEG 2000",
    "fast": "a little less time per frame",
}
"""What each extra brings; extras that a version does not have are left out."""

Trial = Callable[[str], Mapping[str, Any]]


class Verdict(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and the one thing to do about it, if there is anything to do."""

    topic: str
    verdict: Verdict
    found: str
    action: str = ""


def diagnose(trial: Trial | None = None, desktop: Desktop | None = None) -> Iterator[Finding]:
    """All findings, each as soon as it is known. `trial` tries a ``headless`` or ``window`` context; both are for tests."""
    if trial is None:
        from rawmosaic.viewer.gl.trial import try_context as trial
    desktop = current_desktop() if desktop is None else desktop
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_system,
        check_packages,
        check_extras,
        lambda: check_desktop(desktop),
        lambda: check_graphics(trial, desktop),
        check_budgets,
        check_disk,
    )
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a broken machine breaks checks as well; the others go on
            yield Finding("check", Verdict.NOTE, f"one of the checks failed: {type(error).__name__}: {_line(error)}")


def works(findings: list[Finding]) -> bool:
    """Whether nothing found keeps rawmosaic from working."""
    return all(finding.verdict != Verdict.PROBLEM for finding in findings)


# checks


def check_system() -> Iterator[Finding]:
    """Operating system, processors, memory, Python."""
    memory = f"{budgets.physical_memory() / 2**30:.1f} GB memory"
    found = f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count() or 1} processors, {memory}"
    yield Finding("system", Verdict.OK, found)
    bits = 8 * struct.calcsize("P")
    if bits < 64:
        yield Finding("python", Verdict.PROBLEM, f"{platform.python_version()}, {bits} bit", "install Python for 64 bit")
    else:
        yield Finding("python", Verdict.OK, f"{platform.python_version()}, {bits} bit, {sys.executable}")


def check_packages() -> Iterator[Finding]:
    """rawmosaic itself and the packages it needs."""
    requirements = _requirements()
    if requirements is None:
        yield Finding("packages", Verdict.NOTE, "rawmosaic runs from a folder without being installed", "pip install rawmosaic")
        return
    versions, lacking = _versions(requirements.get("", []))
    found = f"rawmosaic {_version('rawmosaic')}; " + ", ".join(versions)
    if lacking:
        yield Finding("packages", Verdict.PROBLEM, f"{found}; not here or too old: {', '.join(lacking)}", _pip(lacking))
    else:
        yield Finding("packages", Verdict.OK, found)


def check_extras() -> Iterator[Finding]:
    """What can be installed beside rawmosaic, and whether it is."""
    requirements = _requirements() or {}
    for extra, brings in EXTRAS.items():
        if extra not in requirements:
            continue
        versions, lacking = _versions(requirements[extra])
        if lacking:
            yield Finding(f"extra {extra}", Verdict.NOTE, f"not installed: no {brings}", f'pip install "rawmosaic[{extra}]"')
        else:
            yield Finding(f"extra {extra}", Verdict.OK, f"{brings}: {', '.join(versions)}")


def check_desktop(desktop: Desktop) -> Iterator[Finding]:
    """The display that a window would open on."""
    amiss = desktop.kind == "none" or bool(desktop.action)
    yield Finding("display", Verdict.NOTE if amiss else Verdict.OK, desktop.found, desktop.action)


def check_graphics(trial: Trial, desktop: Desktop) -> Iterator[Finding]:
    """OpenGL without a window (pictures, figures, slides in a browser) and in one."""
    headless = trial("headless")
    window: Mapping[str, Any] = {} if desktop.kind == "none" else trial("window")
    yield _context_finding("opengl without a window", headless, driver_action(desktop))
    if "error" in window:
        yield Finding("opengl in a window", Verdict.PROBLEM, *_split_action(window["error"], desktop))
    elif window:
        yield _context_finding("opengl in a window", window, "")
    facts = window if "renderer" in window else headless
    if "renderer" in facts:
        yield _driver_finding(facts, desktop)
        yield _limits_finding(facts)


def check_budgets() -> Iterator[Finding]:
    """How much memory the caches take."""
    for topic, variable, read in (
        ("tile cache", budgets.RAM_VARIABLE, budgets.ram_bytes),
        ("texture cache", budgets.VRAM_VARIABLE, lambda: budgets.vram_bytes(None, software=False)),
    ):
        told = variable in os.environ
        try:
            size = read()
        except (SlideError, ValueError) as error:
            yield Finding(topic, Verdict.PROBLEM, f"{variable}={os.environ[variable]}: {_line(error)}", f"set {variable} to 2G")
            continue
        if told:
            source = variable
        else:
            source = "an eighth of the memory" if variable == budgets.RAM_VARIABLE else "256 MB where a software driver draws"
        if size > budgets.physical_memory():
            yield Finding(
                topic, Verdict.NOTE, f"{_amount(size)} ({source}): more than the machine has", f"set {variable} to less"
            )
        else:
            yield Finding(topic, Verdict.OK, f"up to {_amount(size)} ({source})")


def check_disk() -> Iterator[Finding]:
    """The folder where zoom layers and remote tiles are kept."""
    import platformdirs

    folder = Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("rawmosaic"))
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), None)
    if existing is None or not existing.is_dir() or not os.access(existing, os.W_OK):
        found = f"{folder} cannot be written: zoom layers of raw acquisitions are made anew every time"
        yield Finding("cache folder", Verdict.PROBLEM, found, f"set {CACHE_VARIABLE} to a folder that can be written")
        return
    free, used = shutil.disk_usage(existing).free, _size_of(folder)
    found = f"{folder}: {_amount(used)} used, {_amount(free)} free on the disk"
    if free < LEAST_FREE_DISK_BYTES:
        yield Finding("cache folder", Verdict.NOTE, found, f"make room, or set {CACHE_VARIABLE} to a folder on another disk")
    else:
        yield Finding("cache folder", Verdict.OK, found)


# parts of checks


def _context_finding(topic: str, facts: Mapping[str, Any], action: str) -> Finding:
    if "error" in facts:
        error = str(facts["error"])
        return Finding(topic, Verdict.PROBLEM, error.removesuffix(f"; {action}"), action)
    return Finding(topic, Verdict.OK, f"OpenGL {facts['version']} through {facts['through']}")


def _split_action(error: str, desktop: Desktop) -> tuple[str, str]:
    """What was found and what to do, of an error that says both."""
    action = desktop.action or f"{driver_action(desktop)}; or {WITHOUT_WINDOW}"
    return error.partition(f": {action}")[0], action


def _driver_finding(facts: Mapping[str, Any], desktop: Desktop) -> Finding:
    found = f"{facts['renderer']} ({facts['vendor']})"
    if not facts["software"]:
        return Finding("driver", Verdict.OK, found)
    if desktop.remote and desktop.action:
        action = desktop.action
    elif desktop.wsl:
        action = driver_action(desktop)
    else:
        action = "if this machine has a graphics card, install its driver; else nothing need be done"
    return Finding("driver", Verdict.NOTE, f"{found}: drawn by the processor, which works and is slower", action)


def _limits_finding(facts: Mapping[str, Any]) -> Finding:
    buffers = "mapped buffers" if facts["buffer_storage"] else "no mapped buffers: uploads take a little longer"
    found = f"textures of {facts['texture_px']} pixels a side and {facts['texture_layers']} layers; {buffers}"
    if facts["texture_px"] < LEAST_TEXTURE_PX or facts["texture_layers"] < LEAST_TEXTURE_LAYERS:
        return Finding("limits", Verdict.PROBLEM, found, "update the driver: it has less than OpenGL 3.3 asks for")
    return Finding("limits", Verdict.OK, found)


def _requirements() -> dict[str, list[str]] | None:
    """What rawmosaic needs, by extra ("" for what it always needs), as ``name>=version``; None where it is not installed."""
    try:
        told = importlib.metadata.requires("rawmosaic") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    requirements: dict[str, list[str]] = {}
    for text in told:
        requirement, _, marker = text.partition(";")
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", marker)
        requirements.setdefault(extra[1] if extra else "", []).append(requirement.strip())
    return requirements


def _versions(requirements: list[str]) -> tuple[list[str], list[str]]:
    """(``name version`` of those that are here and new enough, the requirements that are not met)."""
    versions, lacking = [], []
    for requirement in requirements:
        name, least = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*(?:>=\s*([\w.]+))?", requirement).groups()
        version = _version(name)
        if version is None or (least and _numbers(version) < _numbers(least)):
            lacking.append(requirement)
        else:
            versions.append(f"{name} {version}")
    return versions, lacking


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare by; a trailing zero does not count."""
    numbers = [int(part) for part in re.findall(r"\d+", re.match(r"[\d.]*", version)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _pip(requirements: list[str]) -> str:
    return "pip install " + " ".join(f'"{requirement}"' for requirement in requirements)


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return total


def _amount(size: int) -> str:
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
