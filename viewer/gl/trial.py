"""Makes an OpenGL context and says what it is, in a process of its own: a driver that crashes or hangs takes nothing along.

``python -m rawmosaic.viewer.gl.trial headless`` (or ``window``) prints one JSON object. `try_context` runs that and reads it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIMEOUT_S = 30.0


def try_context(kind: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The facts of a ``headless`` or ``window`` context, or {"error": why there is none}. Never raises for a bad driver."""
    command = [sys.executable, "-m", "rawmosaic.viewer.gl.trial", kind]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return {"error": f"the driver did not answer within {timeout_s:g} s"}
    except OSError as error:
        return {"error": f"the trial could not be started ({error})"}
    for line in reversed(done.stdout.decode(errors="replace").splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode < 0 or done.returncode > 0x7FFFFFFF:
        return {"error": f"the driver crashed (exit code {done.returncode})"}
    return {"error": said[-1] if said else f"the trial ended with exit code {done.returncode}"}


def context_facts() -> dict[str, Any]:
    """What the current context is and can do."""
    from rawmosaic.viewer.gl.api import GL
    from rawmosaic.viewer.gl.objects import can_map_persistently
    from rawmosaic.viewer.tile_store import is_software_driver

    def text(name: int) -> str:
        return (GL.glGetString(name) or b"").decode(errors="replace")

    return {
        "vendor": text(GL.GL_VENDOR),
        "renderer": text(GL.GL_RENDERER),
        "version": text(GL.GL_VERSION),
        "shading_language": text(GL.GL_SHADING_LANGUAGE_VERSION),
        "software": is_software_driver(),
        "texture_px": int(GL.glGetIntegerv(GL.GL_MAX_TEXTURE_SIZE)),
        "texture_layers": int(GL.glGetIntegerv(GL.GL_MAX_ARRAY_TEXTURE_LAYERS)),
        "table_rows": int(GL.glGetIntegerv(GL.GL_MAX_TEXTURE_BUFFER_SIZE)),
        "buffer_storage": can_map_persistently(),
    }


def _headless() -> dict[str, Any]:
    from rawmosaic.viewer.gl.context import HeadlessContext

    context = HeadlessContext()
    try:
        return {**context_facts(), "through": context.through}
    finally:
        context.close()


def _window() -> dict[str, Any]:
    import glfw

    from rawmosaic.viewer.gl.glfw_window import create_window

    window = create_window("rawmosaic doctor", (64, 64), visible=False)
    try:
        return {**context_facts(), "through": f"glfw {glfw.get_version_string().decode(errors='replace').split()[0]}"}
    finally:
        glfw.destroy_window(window)
        glfw.terminate()


def main(kind: str) -> None:
    """Print the facts of one context, or why there is none."""
    try:
        facts = {"headless": _headless, "window": _window}[kind]()
    except Exception as error:  # whatever a broken driver makes PyOpenGL raise
        facts = {"error": " ".join(str(error).split()) or type(error).__name__}
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
