"""Shader files are put together from includes and defines, and an error says which file and shows which line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawmosaic.shaders
from rawmosaic.shaders import shader_source
from rawmosaic.storage.errors import GraphicsError
from rawmosaic.viewer.gl.context import HeadlessContext

FOLDER = Path(rawmosaic.shaders.__file__).parent
STAGES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".vert", ".frag"))


@pytest.fixture
def context() -> Iterator[None]:
    """A GL context; the test is skipped where there is none."""
    try:
        made = HeadlessContext()
    except GraphicsError as error:
        pytest.skip(f"no OpenGL here: {error}")
    yield
    made.close()


@pytest.mark.parametrize("name", STAGES)
def test_source_begins_with_its_version_and_has_its_includes_in_place(name: str):
    source = shader_source(name, {"CHANNELS": 3})
    assert source.startswith("#version 330 core\n#define CHANNELS 3\n")
    assert "#include" not in source
    for included in re.findall(r'#include "(.+)"', (FOLDER / name).read_text(encoding="utf-8")):
        text = (FOLDER / included).read_text(encoding="utf-8")
        for line in text.splitlines():
            assert line in source or line.startswith("#include")  # a file may include others in its turn


def test_defines_are_whole_numbers_and_yes_or_no():
    source = shader_source("mosaic.frag", {"CHANNELS": 4, "GAMMA": True, "SMOOTH": False})
    assert "#define CHANNELS 4\n#define GAMMA 1\n#define SMOOTH 0\n" in source


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.*")), ids=lambda path: path.name)
def test_every_file_opens_with_what_it_does(path: Path):
    if path.suffix in (".vert", ".frag", ".glsl"):
        assert path.read_text(encoding="utf-8").startswith("// ")


def test_includes_are_only_those_of_this_package(tmp_path: Path):
    wanting = tmp_path / "wanting.frag"
    wanting.write_text('#include "common/absent.glsl"\nvoid main() {}\n', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"absent\.glsl"):
        shader_source(str(wanting))


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("channels", [1, 4, 12])
@pytest.mark.parametrize("fragment", ["mosaic.frag", "counts.frag"])
def test_every_program_that_may_be_needed_links(fragment: str, channels: int):
    from rawmosaic.viewer.gl.program import Program

    extra = "GAMMA" if fragment == "mosaic.frag" else "FEATHER"
    kinds = [{"JOINTS": 1}, *({"SMOOTH": smooth, "MIXED": mixed} for smooth, mixed in itertools.product((0, 1), repeat=2))]
    for kind, cut, more in itertools.product(kinds, (0, 1), (0, 1)):
        for plain in {0, 1 - cut}:
            Program("mosaic.vert", fragment, {"CHANNELS": channels, "CUT": cut, "PLAIN": plain, extra: more, **kind}).close()


@pytest.mark.usefixtures("context")
def test_the_small_programs_link():
    from rawmosaic.viewer.gl.program import Program

    for vertex, fragment, defines in (
        ("fullscreen.vert", "compose.frag", {"GAMMA": 0}),
        ("fullscreen.vert", "compose.frag", {"GAMMA": 1}),
        ("fullscreen.vert", "present.frag", {}),
        ("outline.vert", "outline.frag", {}),
    ):
        program = Program(vertex, fragment, defines)
        program.close()
        program.close()


@pytest.mark.usefixtures("context")
def test_an_error_shows_the_file_the_defines_and_the_line(tmp_path: Path):
    from rawmosaic.viewer.gl.program import Program, ShaderError

    broken = tmp_path / "broken.frag"
    broken.write_text("out vec4 color;\n\nvoid main() {\n    color = vec4(no_such_thing, 1.0);\n}\n", encoding="utf-8")
    with pytest.raises(ShaderError) as caught:
        Program("fullscreen.vert", str(broken), {"CHANNELS": 7})
    message = str(caught.value)
    assert "broken.frag" in message
    assert "'CHANNELS': 7" in message
    assert re.search(r"^ *\d+ +color = vec4\(no_such_thing, 1\.0\);$", message, re.MULTILINE)
    assert "no_such_thing" in message.split("color = vec4")[0]  # the driver's own words come first
    assert isinstance(caught.value, GraphicsError)


@pytest.mark.usefixtures("context")
def test_an_error_in_an_included_file_shows_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rawmosaic.viewer.gl.program import Program, ShaderError

    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "bad.glsl").write_text("float f(float x) {\n    return x + wrong;\n}\n", encoding="utf-8")
    (tmp_path / "a.frag").write_text('#include "common/bad.glsl"\nout vec4 c;\nvoid main() { c = vec4(f(1.0)); }\n', "utf-8")
    (tmp_path / "fullscreen.vert").write_text((FOLDER / "fullscreen.vert").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(rawmosaic.shaders, "_FOLDER", tmp_path)
    with pytest.raises(ShaderError, match=r"a\.frag(.|\n)*\d+     return x \+ wrong;"):
        Program("fullscreen.vert", "a.frag")


@pytest.mark.usefixtures("context")
def test_stages_that_do_not_fit_together_are_named(tmp_path: Path):
    from rawmosaic.viewer.gl.program import Program, ShaderError

    asking = tmp_path / "asking.frag"
    asking.write_text("flat in vec3 v_field;\nout vec4 color;\nvoid main() { color = vec4(v_field, 1.0); }\n", encoding="utf-8")
    with pytest.raises(ShaderError, match=r"mosaic\.vert and .*asking\.frag do not link: .*v_field"):
        Program("mosaic.vert", str(asking), {"CHANNELS": 1})


@pytest.mark.usefixtures("context")
def test_uniforms_the_compiler_dropped_may_be_set():
    from rawmosaic.viewer.gl.api import check_errors
    from rawmosaic.viewer.gl.program import Program

    program = Program("fullscreen.vert", "present.frag")
    program.use()
    assert program.location("no_such_uniform") == -1
    program.set_int("no_such_uniform", 3)
    assert check_errors() == []
    program.close()
