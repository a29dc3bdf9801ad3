"""`rawmosaic doctor`: one line a finding, one action each, an exit code; never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rawmosaic.viewer import doctor
from rawmosaic.viewer.doctor import Finding, Verdict

FINE = [Finding("driver", Verdict.OK, "Card 3000"), Finding("display", Verdict.NOTE, "no display", "use `rawmosaic render`")]
BAD = [*FINE, Finding("opengl", Verdict.PROBLEM, "none through µEGL", "install Mesa")]


def test_each_finding_is_a_line_and_each_action_one_below(rawmosaic, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "diagnose", lambda: iter(FINE))
    outcome = rawmosaic("doctor")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["ok", "driver:", "Card", "3000"]
    assert lines[1].startswith("note")
    assert lines[2].endswith("use `rawmosaic render`")
    assert lines[3] == "Everything needed is here."


def test_a_problem_is_an_exit_code(rawmosaic, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "diagnose", lambda: iter(BAD))
    outcome = rawmosaic("doctor")
    assert outcome.code == 1
    assert "problem" in outcome.out
    assert outcome.err == ""


def test_the_same_as_json(rawmosaic, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "diagnose", lambda: iter(BAD))
    outcome = rawmosaic("doctor", "--json")
    told = json.loads(outcome.out)
    assert (outcome.code, told["works"]) == (1, False)
    assert told["findings"][2] == {
        "topic": "opengl",
        "verdict": "problem",
        "found": "none through µEGL",
        "action": "install Mesa",
    }


def test_a_real_process_without_a_display_ends_well_on_any_terminal(monkeypatch: pytest.MonkeyPatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    command = [sys.executable, "-c", "from rawmosaic.cli.main import run; run()", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    assert "python:" in done.stdout
