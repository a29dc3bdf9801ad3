"""The frame of all commands: help, errors in one line, exit codes, and nothing imported that is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rawmosaic.cli.main import COMMANDS, main


def test_help_names_every_command_and_has_examples(rawmosaic):
    outcome = rawmosaic("--help")
    assert outcome.code == 0
    assert all(name in outcome.out for name in COMMANDS)
    assert "Examples:" in outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_examples(rawmosaic, name):
    outcome = rawmosaic(name, "--help")
    assert outcome.code == 0
    assert f"rawmosaic {name} " in outcome.out.split("Examples:")[1] or name == "demo"


def test_version_is_that_of_the_package(rawmosaic):
    from importlib.metadata import version

    assert rawmosaic("--version").out == f"rawmosaic {version('rawmosaic')}\n"


def test_no_command_shows_the_help(rawmosaic):
    outcome = rawmosaic()
    assert outcome.code == 2
    assert "Commands:" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["wiew"], ["wiew", "--help"]),
        (["render"], ["missing", "location"]),
        (["render", "x.h5"], ["missing", "--output"]),
        (["import", "x"], ["missing", "--output"]),
        (["info", "x.h5", "--nonsense"], ["--nonsense"]),
        (["demo", "--fields", "0"], ["--fields"]),
    ],
)
def test_wrong_arguments_are_one_line(rawmosaic, arguments, words):
    assert rawmosaic(*arguments).complains_once_about(*words)


@pytest.mark.parametrize("command", [["view"], ["info"], ["verify"], ["render", "-o", "x.png"], ["import", "-o", "x.h5"]])
def test_location_that_does_not_exist_is_one_line(rawmosaic, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert rawmosaic(*command, tmp_path / "nowhere").complains_once_about("nowhere", "no such file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["view"], ["info"], ["verify"], ["render", "-o", "x.png"], ["import", "-o", "x.h5"]])
def test_file_that_is_no_slide_is_one_line(rawmosaic, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter.txt").write_text("Dear reviewer")
    assert rawmosaic(*command, tmp_path / "letter.txt").complains_once_about("letter.txt")


@pytest.mark.parametrize("command", [["view"], ["info"], ["render", "-o", "x.png"], ["import", "-o", "x.h5"]])
def test_empty_folder_is_one_line(rawmosaic, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert rawmosaic(*command, "empty").complains_once_about("empty")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "slide.h5"), ["slide.h5", "no space left"]),
        (MemoryError(), ["out of memory"]),
        (PermissionError(13, "Permission denied", "slide.h5"), ["slide.h5", "permission denied"]),
    ],
)
def test_trouble_of_the_machine_is_one_line(rawmosaic, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("rawmosaic.storage.open_slide", fail)
    assert rawmosaic("info", "slide.h5").complains_once_about(*words)


def test_debug_shows_where_an_error_arose(tmp_path):
    from rawmosaic.storage import SlideError

    for arguments in (["--debug", "info"], ["info", "--debug"]):
        with pytest.raises(SlideError):
            main([*arguments, str(tmp_path / "nowhere")])


def test_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("rawmosaic.storage.open_slide", fail)
    with pytest.raises(ZeroDivisionError):
        main(["info", "slide.h5"])


def test_interruption_has_its_exit_code(rawmosaic, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rawmosaic.storage.open_slide", interrupt)
    outcome = rawmosaic("info", "slide.h5")
    assert outcome.code == 130
    assert "interrupted" in outcome.err


def test_the_process_prints_one_line_and_no_traceback(tmp_path):
    command = [sys.executable, "-c", "from rawmosaic.cli.main import run; run()", "info", str(tmp_path / "nowhere.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"rawmosaic: {tmp_path}/nowhere.h5: there is no such file or folder\n"
    assert done.stdout == ""


def test_rendering_imports_nothing_it_does_not_use(slide_file, tmp_path):
    code = (
        "import sys; from rawmosaic.cli.main import main;"
        f"assert main(['render', {str(slide_file)!r}, '-o', {str(tmp_path / 'out.png')!r}]) == 0;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"rich", "tifffile", "zmq", "platformdirs", "glfw", "matplotlib"} & set(done.stdout.split())
    assert (tmp_path / "out.png").exists()


def test_help_needs_no_graphics_and_no_file_format():
    code = (
        "import sys; from rawmosaic.cli.main import main; main(['--help']); main(['render', '--help']);"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"rich", "OpenGL", "h5py", "PIL", "glfw", "zmq", "tifffile"} & set(done.stderr.split())
