"""`rawmosaic serve --http`: the page beside the dealer, in a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

WAIT_S = 60


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something in the place of OpenSeadragon."""
    path = tmp_path / "openseadragon.min.js"
    path.write_text("// not the real one\n")
    monkeypatch.setenv("RAWMOSAIC_OPENSEADRAGON", str(path))


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        return answer.read()


@pytest.mark.usefixtures("library")
def test_a_slide_is_served_to_viewers_and_to_browsers(slide_file: Path):
    script = "from rawmosaic.cli.main import run; run()"
    command = [sys.executable, "-u", "-c", script, "serve", str(slide_file)]
    with subprocess.Popen(
        [*command, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            lines = [process.stdout.readline().strip() for _ in range(2)]
            assert lines[0].startswith("slide: rawmosaic view tcp://127.0.0.1:")
            url = lines[1].removeprefix("in a browser: ")
            assert json.loads(get(f"{url}slides"))["slides"][0]["name"] == "slide"
            info = json.loads(get(f"{url}slides/slide/info.json"))
            level = info["position_sets"][0]["levels"] - 1
            tile = Image.open(io.BytesIO(get(f"{url}slides/slide/mosaic_files/{level}/0_0.png")))
            assert tile.size == tuple(info["position_sets"][0]["size_px"])
            assert max(high for _, high in tile.getextrema()) > 100
            process.terminate()
            assert process.wait(WAIT_S) == (1 if sys.platform == "win32" else 0), process.stderr.read()
        finally:
            process.kill()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:8080", "microscope.example:80"])
def test_other_machines_are_let_in_only_where_that_was_typed(rawmosaic: Callable, slide_file: Path, address: str):
    outcome = rawmosaic("serve", slide_file, "--bind", "tcp://127.0.0.1:*", "--http", address)
    assert outcome.complains_once_about(address, "encrypts nothing", "127.0.0.1", "--insecure")


@pytest.mark.parametrize("address", ["8080", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80/"])
def test_what_is_no_address_is_told(rawmosaic: Callable, slide_file: Path, address: str):
    outcome = rawmosaic("serve", slide_file, "--bind", "tcp://127.0.0.1:*", "--http", address)
    assert outcome.complains_once_about(address, "HOST:PORT", "127.0.0.1:8080")


def test_a_page_that_cannot_be_shown_says_what_to_install(
    rawmosaic: Callable, slide_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAWMOSAIC_OPENSEADRAGON", raising=False)
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("rawmosaic.net.web.openseadragon.data_folder", lambda: tmp_path)
    outcome = rawmosaic("serve", slide_file, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:0")
    assert outcome.code == 2
    assert "npm install --prefix" in outcome.err.splitlines()[-1]
