"""The benchmarks as a program: every one has its question, the runner knows them, and figures judge themselves rightly.

How fast anything is has no place here: nothing is timed, and no large data are made.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import __main__ as runner
from benchmarks.harness import Figure, Result, report, save

NAMES = (*runner.NAMES, *runner.OPT_IN)
NO_BENCHMARKS = {"__init__", "__main__", "data", "harness", "views"}


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_asks_a_question_and_can_be_run(name: str):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.QUESTION.strip()
    assert "?" in module.QUESTION
    assert callable(module.run)


def test_runner_knows_every_benchmark():
    files = {path.stem for path in Path(runner.__file__).parent.glob("*.py")}
    assert set(NAMES) == files - NO_BENCHMARKS


def test_peers_is_run_only_when_named():
    assert "peers" not in runner.NAMES
    assert "peers" in runner.OPT_IN


def test_unknown_benchmark_is_refused_with_the_known_ones():
    outcome = CliRunner().invoke(runner.main, ["speed"])
    assert outcome.exit_code == 2
    assert "no benchmark speed" in outcome.output
    assert all(name in outcome.output for name in NAMES)


@pytest.mark.parametrize(
    ("figure", "ratio", "met"),
    [
        (Figure("no target", 3.0), None, None),
        (Figure("no target, a floor", 3.0, floor=2.0), 1.5, None),
        (Figure("value within", 3.0, target=3.0), None, True),
        (Figure("value beyond", 3.1, target=3.0), None, False),
        (Figure("nothing, as it must be", 0.0, target=0), None, True),
        (Figure("something where nothing must be", 1.0, target=0), None, False),
        (Figure("ratio within", 2.9, floor=2.0, target=1.5), 1.45, True),
        (Figure("ratio beyond", 3.2, floor=2.0, target=1.5), 1.6, False),
        (Figure("enough", 8.0, floor=10.0, target=0.8, at_least=True), 0.8, True),
        (Figure("too little", 7.0, floor=10.0, target=0.8, at_least=True), 0.7, False),
    ],
    ids=lambda value: value.name if isinstance(value, Figure) else "",
)
def test_figure_is_judged_by_its_ratio_or_else_by_its_value(figure: Figure, ratio: float | None, met: bool | None):
    assert figure.ratio == (None if ratio is None else pytest.approx(ratio))
    assert figure.met is met


def test_report_is_a_markdown_table_with_the_machine(tmp_path: Path):
    figures = (
        Figure("jump, median", 30.0, floor=25.0, target=1.5),
        Figure("planes written", 70.0, "planes/s", floor=100.0, target=0.8, at_least=True, note="1392 × 1040"),
    )
    page = report([Result("example", "How fast?", figures)], {"processor": "abacus"})
    lines = page.splitlines()
    assert "- processor: abacus" in lines
    assert "## example" in lines
    assert "| jump, median | 30 ms | 25 ms | 1.20 | ≤ 1.5 | yes |" in lines
    assert "| planes written (1392 × 1040) | 70 planes/s | 100 planes/s | 0.70 | ≥ 0.8 | **no** |" in lines
    kept = save([Result("example", "How fast?", figures)], {"processor": "abacus"}, tmp_path / "results", "here")
    assert kept.read_text() == page
    stored = json.loads(kept.with_suffix(".json").read_text())
    assert stored["machine"] == {"processor": "abacus"}
    assert stored["results"][0]["figures"][0]["value"] == 30.0


def test_written_and_bare_bytes_are_of_the_same_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = importlib.import_module("benchmarks.write")
    monkeypatch.setattr(write, "CACHE", tmp_path)
    specimen = [np.random.default_rng(number).integers(0, 4096, (4, 96, 128)).astype(np.uint16) for number in range(2)]
    seconds, slide_nbytes = write.written_s(specimen, (1, 3))
    compress, bare, nbytes = write.bare_s(specimen, (1, 3), 2)
    assert min(seconds, compress, bare) > 0
    assert 0 < nbytes < slide_nbytes
    assert list(tmp_path.iterdir()) == []


def test_tiles_asked_of_a_slide_are_counted():
    contrast = importlib.import_module("benchmarks.contrast")
    from rawmosaic.storage.pyramid import TileKey
    from rawmosaic.storage.testing import SyntheticSlide

    slide = SyntheticSlide((1, 1), (16, 24), 1)
    counter = contrast.ReadCounter(slide)
    out = np.empty(slide.tiling.tile_shape, np.uint16)
    tile = slide.read_tile(TileKey(0, 0, 0), out)
    assert tile is out
    assert counter.tiles == 1


def test_memory_of_this_process_is_known():
    memory = importlib.import_module("benchmarks.memory")
    assert 10 < memory.peak_memory_mb() < 1e6


def test_fused_levels_are_means_of_two_by_two():
    peers = importlib.import_module("benchmarks.peers")
    image = np.random.default_rng(0).integers(0, 65536, (peers.SLAB_ROWS + 5, 7)).astype(np.uint16)
    halved = peers._halved(image)
    assert halved.shape == (peers.SLAB_ROWS // 2 + 2, 3)
    for y, x in ((0, 0), (1, 2), (peers.SLAB_ROWS // 2, 1)):
        total = int(image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum(dtype=np.int64))
        assert halved[y, x] == (total + 2) // 4
