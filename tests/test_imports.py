"""Who may import whom, from what an import really loads: each rule in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CONTRACT = ("errors", "placement", "pyramid", "slide")
PURE_VIEWER = ("camera", "channels", "plan", "zoom")
DRAWING = ("renderer", "texture_cache", *PURE_VIEWER)


OPTIONAL = {
    "rawmosaic.viewer.qt": "PySide6",
    "rawmosaic.storage.database": "sqlalchemy",
    "rawmosaic.storage.database.migrations": "alembic",
}
"""Modules, by the beginning of their names, that need an extra: they are left out where it is not installed."""


def modules_of(package: str) -> list[str]:
    """The names of all modules of a package, from its files."""
    names = []
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        names.append(".".join(("rawmosaic", *(parts[:-1] if parts[-1] == "__init__" else parts))))
    absent = tuple(begins for begins, needs in OPTIONAL.items() if find_spec(needs) is None)
    return [name for name in names if not name.startswith(absent)]


def existing(package: str, names: tuple[str, ...]) -> list[str]:
    """Those of the modules that exist, with their full names."""
    return [f"rawmosaic.{package}.{name}" for name in names if (REPOSITORY / package / f"{name}.py").exists()]


@cache
def loaded_by(*modules: str) -> frozenset[str]:
    """Names of everything in sys.modules after these imports, in an interpreter of its own."""
    imports = "".join(f"import {module}\n" for module in modules)
    script = f"import sys, json\n{imports}print(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return frozenset(json.loads(result.stdout.splitlines()[-1]))


def found(loaded: frozenset[str], *forbidden: str) -> list[str]:
    """Those loaded modules that are, or lie inside, a forbidden one."""
    return sorted(name for name in loaded if any(name == bad or name.startswith(bad + ".") for bad in forbidden))


@pytest.mark.parametrize("name", CONTRACT)
def test_contract_module_is_a_leaf(name: str):
    loaded = loaded_by(f"rawmosaic.storage.{name}")
    assert found(loaded, "h5py", "zmq", "OpenGL", "glfw", "blosc", "hdf5plugin", "tifffile") == []
    allowed = {"rawmosaic.storage", "rawmosaic.storage.opening", *(f"rawmosaic.storage.{module}" for module in CONTRACT)}
    assert {module for module in loaded if module.startswith("rawmosaic.")} <= allowed


def test_naming_the_package_loads_nothing_heavy():
    loaded = loaded_by("rawmosaic.storage", "rawmosaic.viewer", "rawmosaic.cli", "rawmosaic.net", "rawmosaic.shaders")
    assert found(loaded, "h5py", "zmq", "OpenGL", "glfw", "tifffile", "PIL", "rich") == []


def test_storage_knows_no_gl_and_no_socket():
    loaded = loaded_by(*modules_of("storage"))
    assert found(loaded, "OpenGL", "glfw", "zmq", "rawmosaic.viewer", "rawmosaic.net", "rawmosaic.cli") == []


def test_viewer_and_net_do_not_know_each_other():
    assert found(loaded_by(*modules_of("viewer")), "rawmosaic.net", "rawmosaic.cli", "zmq") == []
    assert found(loaded_by(*modules_of("net")), "rawmosaic.viewer", "rawmosaic.cli", "OpenGL", "glfw") == []


def test_shaders_know_no_slide():
    loaded = loaded_by(*modules_of("shaders"))
    assert found(loaded, "rawmosaic.storage", "rawmosaic.viewer", "OpenGL", "h5py", "zmq") == []


def test_drawing_reads_no_file_and_no_socket():
    gl = [name for name in modules_of("viewer") if name.startswith("rawmosaic.viewer.gl")]
    loaded = loaded_by(*existing("viewer", DRAWING), *gl)
    assert found(loaded, "h5py", "hdf5plugin", "zmq", "tifffile", "rawmosaic.storage.hdf5", "rawmosaic.storage.importers") == []


def test_planning_knows_no_gl():
    modules = existing("viewer", PURE_VIEWER)
    assert modules
    assert found(loaded_by(*modules), "OpenGL", "glfw", "rawmosaic.viewer.gl", "h5py", "zmq") == []


def test_reader_and_writer_do_not_know_each_other():
    assert found(loaded_by("rawmosaic.storage.hdf5.reader"), "rawmosaic.storage.hdf5.writer") == []
    assert found(loaded_by("rawmosaic.storage.hdf5.writer"), "rawmosaic.storage.hdf5.reader") == []


def test_importers_know_nothing_of_hdf5_until_asked():
    names = [name for name in modules_of("storage") if name.startswith("rawmosaic.storage.importers")]
    assert found(loaded_by(*names), "h5py", "rawmosaic.storage.hdf5") == []


def test_synthetic_slides_need_no_file_format():
    assert found(loaded_by("rawmosaic.storage.testing"), "h5py", "hdf5plugin", "blosc", "OpenGL", "zmq") == []
