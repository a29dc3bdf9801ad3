"""The start-up check names what is amiss and the one thing to do, whatever is broken, and never breaks itself."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer import doctor
from rawmosaic.viewer.desktop import Desktop, no_window_text
from rawmosaic.viewer.doctor import Finding, Verdict, diagnose, works
from rawmosaic.viewer.gl import trial

CARD = {
    "vendor": "Maker",
    "renderer": "Card 3000",
    "version": "4.6.0",
    "shading_language": "4.60",
    "software": False,
    "texture_px": 16384,
    "texture_layers": 2048,
    "table_rows": 1 << 27,
    "buffer_storage": True,
    "through": "EGL 1.5, device 0",
}
LLVMPIPE = {**CARD, "renderer": "llvmpipe (LLVM 15)", "vendor": "Mesa", "software": True}
HOME = Desktop("x11", ":0")


def found(
    facts: Mapping[str, Any] = CARD, window: Mapping[str, Any] | None = None, desktop: Desktop = HOME
) -> dict[str, Finding]:
    """The findings by topic, with contexts as given."""
    answers = {"headless": facts, "window": facts if window is None else window}
    return {finding.topic: finding for finding in diagnose(answers.__getitem__, desktop)}


def hide(folder: Path, monkeypatch: pytest.MonkeyPatch, instead: str) -> None:
    """Have every new Python process do something else where it would import EGL."""
    (folder / "sitecustomize.py").write_text(
        "import sys, os, time\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'OpenGL.EGL': {instead}\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


# findings


def test_a_machine_that_will_do_has_no_problem():
    findings = found()
    assert works(list(findings.values()))
    assert findings["driver"] == Finding("driver", Verdict.OK, "Card 3000 (Maker)")
    assert findings["display"].found == "X11 display :0"
    assert "16384" in findings["limits"].found
    assert {"system", "python", "packages", "tile cache", "texture cache", "cache folder"} <= set(findings)


def test_everything_amiss_has_one_action():
    for findings in (found(), found(LLVMPIPE), found({"error": "no EGL"}), found(desktop=Desktop("none", remote="SSH"))):
        for finding in findings.values():
            assert finding.found
            if finding.verdict != Verdict.OK:
                assert finding.action, finding
            assert "\n" not in finding.found + finding.action


def test_without_a_display_no_window_is_tried_and_that_is_no_problem():
    tried = []
    findings = list(diagnose(lambda kind: tried.append(kind) or CARD, Desktop("none")))
    assert tried == ["headless"]
    assert works(findings)
    (display,) = (finding for finding in findings if finding.topic == "display")
    assert display.verdict == Verdict.NOTE
    assert "rawmosaic render" in display.action


def test_a_software_driver_is_a_note():
    driver = found(LLVMPIPE)["driver"]
    assert driver.verdict == Verdict.NOTE
    assert "llvmpipe" in driver.found
    assert "driver" in driver.action
    remote = Desktop("x11", "localhost:10.0", "SSH (X11 forwarding)")
    assert "VNC" in found(LLVMPIPE, desktop=remote)["driver"].action
    assert "wsl --update" in found(LLVMPIPE, desktop=Desktop("x11", ":0", wsl=True))["driver"].action


def test_no_opengl_at_all_is_a_problem():
    findings = found({"error": "no OpenGL 3.3 through EGL"})
    assert not works(list(findings.values()))
    assert findings["opengl without a window"].verdict == Verdict.PROBLEM
    assert "driver" not in findings


def test_the_check_says_of_a_window_what_the_window_says():
    remote = Desktop("windows", remote="Remote Desktop")
    for desktop in (HOME, remote, Desktop("macos")):
        text = no_window_text("GLX: nothing", desktop)
        finding = found(CARD, {"error": text}, desktop)["opengl in a window"]
        assert finding.verdict == Verdict.PROBLEM
        assert "GLX: nothing" in finding.found
        assert finding.found in text
        assert finding.action in text


def test_too_small_limits_are_a_problem():
    assert found({**CARD, "texture_layers": 64})["limits"].verdict == Verdict.PROBLEM
    assert "longer" in found({**CARD, "buffer_storage": False})["limits"].found


def test_a_budget_that_is_no_amount_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAWMOSAIC_RAM", "plenty")
    finding = found()["tile cache"]
    assert finding.verdict == Verdict.PROBLEM
    assert "plenty" in finding.found
    monkeypatch.setenv("RAWMOSAIC_RAM", "100000G")
    assert found()["tile cache"].verdict == Verdict.NOTE
    monkeypatch.setenv("RAWMOSAIC_RAM", "300M")
    assert found()["tile cache"] == Finding("tile cache", Verdict.OK, "up to 300 MB (RAWMOSAIC_RAM)")


def test_a_cache_folder_that_cannot_be_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAWMOSAIC_CACHE", str(tmp_path / "file" / "cache"))
    finding = found()["cache folder"]
    assert finding.verdict == Verdict.PROBLEM
    assert "RAWMOSAIC_CACHE" in finding.action


def test_a_full_disk_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAWMOSAIC_CACHE", str(tmp_path))
    (tmp_path / "zoom").mkdir()
    (tmp_path / "zoom" / "tiles").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(doctor, "LEAST_FREE_DISK_BYTES", 1 << 60)
    finding = found()["cache folder"]
    assert finding.verdict == Verdict.NOTE
    assert "3 MB used" in finding.found


def test_packages_that_lack_or_are_too_old_are_named(monkeypatch: pytest.MonkeyPatch):
    told = ["click>=8.1", "numpy >= 999", "nosuchpackage>=1", 'nosuchqt>=6; extra == "qt"', 'click>=8; extra == "web"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: told)
    findings = found()
    assert findings["packages"].verdict == Verdict.PROBLEM
    assert findings["packages"].action == 'pip install "numpy >= 999" "nosuchpackage>=1"'
    assert findings["extra qt"].verdict == Verdict.NOTE
    assert findings["extra qt"].action == 'pip install "rawmosaic[qt]"'
    assert findings["extra web"].verdict == Verdict.OK


@pytest.mark.parametrize(
    ("version", "least", "enough"),
    [("8.1", "8.1", True), ("8.1.0", "8.1", True), ("8", "8.0", True), ("3.1.9", "3.1.10", False), ("2024.1rc1", "2024.1", True)],
)
def test_versions_are_compared_number_by_number(version: str, least: str, enough: bool):
    assert (doctor._numbers(version) >= doctor._numbers(least)) == enough


def test_a_check_that_breaks_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch):
    def broken(*_):
        raise ZeroDivisionError("by nobody's fault")

    monkeypatch.setattr("platform.release", broken)
    findings = found()
    assert "ZeroDivisionError" in findings["check"].found
    assert "cache folder" in findings


# trials


def test_a_trial_says_what_a_context_is():
    facts = trial.try_context("headless")
    if "error" in facts:
        pytest.skip(f"no OpenGL without a display here: {facts['error']}")
    assert set(facts) == set(CARD)
    assert facts["texture_px"] >= 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL is used on Linux")
@pytest.mark.parametrize(
    ("instead", "words"),
    [
        ("raise ImportError('no libEGL')", ["EGL is not on this machine", "apt-get install"]),
        ("raise AttributeError('eglQueryString')", ["EGL is not on this machine"]),
        ("os.abort()", ["crashed"]),
        ("sys.exit(3)", ["exit code 3"]),
    ],
)
def test_a_machine_without_egl_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: str, words: list[str]
):
    hide(tmp_path, monkeypatch, instead)
    error = trial.try_context("headless")["error"]
    assert all(word in error for word in words), error


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL is used on Linux")
def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hide(tmp_path, monkeypatch, "time.sleep(60)")
    assert "did not answer" in trial.try_context("headless", timeout_s=1.0)["error"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a display is always there")
def test_a_window_without_a_display_fails_with_the_words_of_the_check(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("glfw")
    from rawmosaic.viewer.gl.glfw_window import create_window

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(GraphicsError) as raised:
        create_window("test", (16, 16))
    assert trial.try_context("window")["error"] == str(raised.value)
    display = {finding.topic: finding for finding in diagnose(lambda _: CARD)}["display"]
    assert display.found in str(raised.value)
    assert display.action in str(raised.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="DISPLAY is Linux's")
def test_a_display_that_does_not_answer_is_told_as_such(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("glfw")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":4711")
    error = trial.try_context("window")["error"]
    assert "X11 display :4711" in error
    assert "rawmosaic doctor" in error
