"""`rawmosaic doctor`: whether this machine will do, and what to do where it will not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rawmosaic.viewer.doctor import Finding

NOT_WELL = 1
_COLORS = {"ok": "green", "note": "yellow", "problem": "red"}

EXAMPLES = """\b
Examples:
  rawmosaic doctor
  rawmosaic doctor --json > report.json
"""


@click.command("doctor", epilog=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
def command(as_json: bool) -> int:
    """Say what of this machine matters: display, OpenGL, driver, packages, caches; and what to do where something is amiss.

    Exit code 0: everything needed is here, perhaps with notes. 1: there is a problem.
    """
    from rawmosaic.viewer.doctor import diagnose, works

    findings: list[Finding] = []
    for finding in diagnose():
        findings.append(finding)
        if not as_json:
            _print(finding)
    well = works(findings)
    if as_json:
        facts = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"works": well, "findings": facts}, indent=2, ensure_ascii=not _writes_unicode()))
    else:
        click.echo("Everything needed is here." if well else "There is a problem: see above.")
    return 0 if well else NOT_WELL


def _print(finding: Finding) -> None:
    verdict = click.style(f"{finding.verdict:<8}", fg=_COLORS[finding.verdict])
    click.echo(f"{verdict} {finding.topic}: {_told(finding.found)}")
    if finding.action:
        click.echo(f"{'':<8}   → {finding.action}" if _writes_unicode() else f"{'':<8}   -> {_told(finding.action)}")


def _writes_unicode() -> bool:
    """Whether the terminal knows the letters; old consoles of Windows do not."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def _told(text: str) -> str:
    return text if _writes_unicode() else text.encode("ascii", "replace").decode()
