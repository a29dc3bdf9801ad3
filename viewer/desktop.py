"""Which desktop this program runs on, from the environment alone: a display or none, remote or not, and what to do about it.

The window's errors and `rawmosaic doctor` both speak through this module, so that they say the same.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

DOCTOR_HINT = "`rawmosaic doctor` says more"
WITHOUT_WINDOW = "use `rawmosaic render` or `rawmosaic export figure` for pictures without one"

_FORWARDED = re.compile(r"^(localhost|127\.0\.0\.1|\[::1\]):\d+")
_REMOTE_VARIABLES = (
    ("XRDP_SESSION", "a remote desktop (xrdp)"),
    ("CHROME_REMOTE_DESKTOP_SESSION", "Chrome Remote Desktop"),
    ("X2GO_SESSION", "X2Go"),
    ("NX_SESSION_ID", "NX"),
    ("NXSESSIONID", "NX"),
    ("VNCDESKTOP", "VNC"),
)


@dataclass(frozen=True)
class Desktop:
    """What a window would open on.

    kind    ``none``, ``x11``, ``wayland``, ``windows`` or ``macos``
    name    the display's own name, such as ``:0``
    remote  through what the desktop is seen from afar; empty where it is not
    wsl     whether this is Linux inside Windows
    """

    kind: str
    name: str = ""
    remote: str = ""
    wsl: bool = False

    @property
    def found(self) -> str:
        """The desktop in words."""
        if self.kind == "none":
            text = "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
        else:
            text = {"x11": "X11", "wayland": "Wayland", "windows": "Windows", "macos": "macOS"}[self.kind]
            text += f" display {self.name}" if self.name else ""
        if self.remote:
            text += f", through {self.remote}"
        return text + (", Linux in Windows (WSL)" if self.wsl else "")

    @property
    def action(self) -> str:
        """What to do so that a window opens, or opens well; empty where nothing is amiss."""
        if self.kind == "none":
            if self.wsl:
                return f"on Windows, `wsl --update` brings WSLg, which shows windows; or {WITHOUT_WINDOW}"
            if self.remote:
                return f"connect through a remote desktop (VNC, xrdp) rather than a terminal; or {WITHOUT_WINDOW}"
            return f"start it from a desktop session; or {WITHOUT_WINDOW}"
        if self.remote.startswith("SSH"):
            return "X11 through SSH rarely has OpenGL 3.3 and is slow: use VNC or another remote desktop on that machine"
        if self.remote and self.kind == "windows":
            return (
                "let Remote Desktop use the graphics card (group policy: use hardware graphics adapters for all Remote Desktop "
                "Services sessions), or start it at the machine itself"
            )
        return ""


def current_desktop(
    environment: Mapping[str, str] | None = None, system: str = sys.platform, kernel: str | None = None
) -> Desktop:
    """The desktop of this process; of another one for whom the arguments speak, such as a test."""
    environment = os.environ if environment is None else environment
    if system == "win32":
        session = environment.get("SESSIONNAME", "")
        return Desktop("windows", remote="Remote Desktop" if session.upper().startswith("RDP-") else "")
    if system == "darwin":
        return Desktop("macos", remote="SSH" if environment.get("SSH_CONNECTION") else "")
    kernel = platform.release() if kernel is None else kernel
    wsl = "microsoft" in kernel.lower() or "WSL_DISTRO_NAME" in environment
    kind, name = "none", ""
    if environment.get("WAYLAND_DISPLAY"):
        kind, name = "wayland", environment["WAYLAND_DISPLAY"]
    elif environment.get("DISPLAY"):
        kind, name = "x11", environment["DISPLAY"]
    return Desktop(kind, name, _remote(environment, kind, name), wsl)


def no_window_text(reason: str = "", desktop: Desktop | None = None) -> str:
    """Why no window can be had, in one sentence with what to do; for errors."""
    desktop = current_desktop() if desktop is None else desktop
    if desktop.kind == "none":
        return f"there is {desktop.found}: {desktop.action}; {DOCTOR_HINT}"
    action = desktop.action or f"{driver_action(desktop)}; or {WITHOUT_WINDOW}"
    return f"no OpenGL 3.3 window on {desktop.found} ({reason or 'unknown reason'}): {action}; {DOCTOR_HINT}"


def driver_action(desktop: Desktop) -> str:
    """How to get OpenGL 3.3 on this desktop."""
    if desktop.wsl:
        return "on Windows, `wsl --update` and a recent driver of the graphics card bring OpenGL to WSL"
    if desktop.kind == "windows":
        return "install the driver of the graphics card from its maker; Windows' own has no OpenGL 3.3"
    if desktop.kind == "macos":
        return "every Mac since 2012 has OpenGL 3.3: update macOS"
    from rawmosaic.viewer.gl.context import INSTALL_HINT

    return f"{INSTALL_HINT}; or the driver of the graphics card"


def _remote(environment: Mapping[str, str], kind: str, name: str) -> str:
    for variable, what in _REMOTE_VARIABLES:
        if environment.get(variable):
            return what
    if kind == "x11" and _FORWARDED.match(name):
        return "SSH (X11 forwarding)"
    if kind == "none" and (environment.get("SSH_CONNECTION") or environment.get("SSH_TTY")):
        return "SSH"
    return ""
