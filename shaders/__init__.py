"""GLSL files, and the few lines that load them: `#include "file"` and defines, nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"\s*$', re.MULTILINE)


def shader_source(name: str, defines: Mapping[str, int] | None = None) -> str:
    """The GLSL text of a file in this package, its includes in place and each define set as `#define NAME value`."""
    body = _with_includes(name)
    lines = "".join(f"#define {key} {int(value)}\n" for key, value in (defines or {}).items())
    return f"#version 330 core\n{lines}{body}"


def _with_includes(name: str) -> str:
    return _INCLUDE.sub(lambda match: _with_includes(match.group(1)), _read(name))


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
