"""What the environment says of the desktop, and what to do about it, for every kind of desktop that users have."""

from __future__ import annotations

import pytest

from rawmosaic.viewer.desktop import Desktop, current_desktop, no_window_text

LINUX, WINDOWS_KERNEL = "6.1.0-17-amd64", "5.15.133.1-microsoft-standard-WSL2"


@pytest.mark.parametrize(
    ("system", "environment", "kernel", "desktop"),
    [
        ("linux", {}, LINUX, Desktop("none")),
        ("linux", {"DISPLAY": ":0"}, LINUX, Desktop("x11", ":0")),
        ("linux", {"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"}, LINUX, Desktop("wayland", "wayland-0")),
        ("linux", {"DISPLAY": "localhost:10.0"}, LINUX, Desktop("x11", "localhost:10.0", "SSH (X11 forwarding)")),
        ("linux", {"DISPLAY": "127.0.0.1:11.0"}, LINUX, Desktop("x11", "127.0.0.1:11.0", "SSH (X11 forwarding)")),
        ("linux", {"SSH_CONNECTION": "10.0.0.1 22"}, LINUX, Desktop("none", "", "SSH")),
        ("linux", {"DISPLAY": ":1", "VNCDESKTOP": "x:1"}, LINUX, Desktop("x11", ":1", "VNC")),
        ("linux", {"DISPLAY": ":10", "XRDP_SESSION": "1"}, LINUX, Desktop("x11", ":10", "a remote desktop (xrdp)")),
        ("linux", {"DISPLAY": ":0", "SSH_CONNECTION": "x"}, LINUX, Desktop("x11", ":0")),
        ("linux", {"DISPLAY": ":0"}, WINDOWS_KERNEL, Desktop("x11", ":0", wsl=True)),
        ("linux", {"WSL_DISTRO_NAME": "Ubuntu"}, LINUX, Desktop("none", wsl=True)),
        ("win32", {"SESSIONNAME": "Console"}, "10", Desktop("windows")),
        ("win32", {"SESSIONNAME": "RDP-Tcp#3"}, "10", Desktop("windows", remote="Remote Desktop")),
        ("darwin", {}, "23.1.0", Desktop("macos")),
    ],
    ids=str,
)
def test_the_desktop_is_recognised(system: str, environment: dict[str, str], kernel: str, desktop: Desktop):
    assert current_desktop(environment, system, kernel) == desktop


@pytest.mark.parametrize(
    ("desktop", "words"),
    [
        (Desktop("none"), ["no display", "rawmosaic render"]),
        (Desktop("none", remote="SSH"), ["SSH", "VNC", "rawmosaic render"]),
        (Desktop("none", wsl=True), ["WSL", "wsl --update"]),
        (Desktop("x11", ":0"), ["X11 display :0", "glfw said no", "driver"]),
        (Desktop("x11", "localhost:10.0", "SSH (X11 forwarding)"), ["SSH", "VNC"]),
        (Desktop("x11", ":0", wsl=True), ["WSL", "wsl --update"]),
        (Desktop("windows", remote="Remote Desktop"), ["Remote Desktop", "group policy"]),
        (Desktop("windows"), ["driver of the graphics card"]),
        (Desktop("macos"), ["macOS"]),
    ],
    ids=str,
)
def test_an_error_says_what_was_found_and_what_to_do(desktop: Desktop, words: list[str]):
    text = no_window_text("glfw said no", desktop)
    assert all(word in text for word in [*words, "rawmosaic doctor"])
    assert "\n" not in text


def test_a_desktop_where_nothing_is_amiss_asks_for_nothing():
    for desktop in (Desktop("x11", ":0"), Desktop("wayland", "wayland-0"), Desktop("windows"), Desktop("macos")):
        assert desktop.action == ""
