"""Where an OpenGL 3.3 context comes from: EGL without a display, or a glfw window. No other module decides this.

PyOpenGL chooses its platform when it is first imported, so on Linux it is told to use EGL, for windows as well (glfw is
asked for an EGL context too): one process can then have both. Elsewhere PyOpenGL's own choice stands, and a headless
context is a hidden window. `viewer.gl.api` must be imported after a context was made current.
"""

from __future__ import annotations

import ctypes
import os
import sys

from rawmosaic.storage.errors import GraphicsError

USES_EGL = sys.platform.startswith("linux")
if USES_EGL:
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")

INSTALL_HINT = (
    "install Mesa's EGL and OpenGL, on Debian or Ubuntu: apt-get install libegl1 libgl1 libopengl0 libegl-mesa0 libgl1-mesa-dri"
)

_PLATFORM_DEVICE = 0x313F
_PLATFORM_SURFACELESS = 0x31DD


class HeadlessContext:
    """An OpenGL 3.3 core context without a display, current in the thread that made it until `close()`."""

    def __init__(self):
        self._impl = _EglContext() if USES_EGL else _HiddenWindowContext()
        self.make_current()

    @property
    def through(self) -> str:
        """How the context was made, in words."""
        return self._impl.through

    def make_current(self) -> None:
        """Make this context the calling thread's."""
        self._impl.make_current()

    def close(self) -> None:
        """Destroy the context; closing twice is harmless."""
        self._impl.close()


class _EglContext:
    """Tries every EGL device (a graphics card before software), then Mesa's surfaceless platform, then the default display."""

    def __init__(self):
        egl = self._egl = _import_egl()
        self._display = self._context = None
        reasons = []
        for name, get_display in _egl_displays(egl):
            try:
                display = get_display()
                major, minor = egl.EGLint(), egl.EGLint()
                if not display or not egl.eglInitialize(display, major, minor):
                    raise GraphicsError("EGL could not be initialised")
                self._context = _egl_context(egl, display)
                self._display = display
                self.through = f"EGL {major.value}.{minor.value}, {name}"
                return
            except Exception as error:  # EGLError, GraphicsError: the next platform may do
                reasons.append(f"{name}: {_short(error)}")
        raise GraphicsError(f"no OpenGL 3.3 through EGL ({'; '.join(reasons) or 'no platform'}); {INSTALL_HINT}")

    def make_current(self) -> None:
        egl = self._egl
        if not egl.eglMakeCurrent(self._display, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, self._context):
            raise GraphicsError("the EGL context cannot be made current")

    def close(self) -> None:
        if self._context is None:
            return
        egl = self._egl
        egl.eglMakeCurrent(self._display, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT)
        egl.eglDestroyContext(self._display, self._context)
        self._context = None  # the display stays initialised: other contexts of this process share it


class _HiddenWindowContext:
    """macOS and Windows have no EGL of their own: a window that is never shown serves as well."""

    through = "a hidden window"

    def __init__(self):
        from rawmosaic.viewer.gl.glfw_window import create_window

        self._window = create_window("rawmosaic", (16, 16), visible=False)

    def make_current(self) -> None:
        import glfw

        glfw.make_context_current(self._window)

    def close(self) -> None:
        import glfw

        if self._window is not None:
            glfw.destroy_window(self._window)
            self._window = None


def _import_egl():
    try:
        from OpenGL import EGL
    except (ImportError, AttributeError, OSError) as error:  # PyOpenGL raises AttributeError where libEGL is absent
        raise GraphicsError(f"EGL is not on this machine ({_short(error)}); {INSTALL_HINT}") from error
    return EGL


def _egl_displays(egl):
    """(name, function giving an EGLDisplay) in the order of preference."""
    extensions = (egl.eglQueryString(egl.EGL_NO_DISPLAY, egl.EGL_EXTENSIONS) or b"").decode()
    platform_display = None
    if "EGL_EXT_platform_base" in extensions:
        from OpenGL.EGL.EXT.platform_base import eglGetPlatformDisplayEXT as platform_display
    if platform_display and "EGL_EXT_device_enumeration" in extensions and "EGL_EXT_platform_device" in extensions:
        for number, device in enumerate(_hardware_devices(egl)):
            yield f"device {number}", lambda device=device: platform_display(_PLATFORM_DEVICE, device, None)
    if platform_display and "EGL_MESA_platform_surfaceless" in extensions:
        yield "surfaceless", lambda: platform_display(_PLATFORM_SURFACELESS, ctypes.c_void_p(0), None)
    yield "default display", lambda: egl.eglGetDisplay(egl.EGL_DEFAULT_DISPLAY)


def _hardware_devices(egl) -> list:
    """EGL devices that are not Mesa's software renderer, which the surfaceless platform reaches faster."""
    from OpenGL.EGL.EXT.device_enumeration import eglQueryDevicesEXT
    from OpenGL.EGL.EXT.device_query import eglQueryDeviceStringEXT

    devices, count = (egl.EGLDeviceEXT * 16)(), egl.EGLint()
    eglQueryDevicesEXT(16, devices, count)
    hardware = []
    for device in devices[: count.value]:
        try:
            names = eglQueryDeviceStringEXT(device, egl.EGL_EXTENSIONS) or b""
        except Exception:  # a driver without the query: assume a graphics card
            names = b""
        if b"EGL_MESA_device_software" not in names:
            hardware.append(device)
    return hardware


def _egl_context(egl, display):
    config, count = (egl.EGLConfig * 1)(), egl.EGLint()
    wanted = [egl.EGL_SURFACE_TYPE, egl.EGL_PBUFFER_BIT, egl.EGL_RENDERABLE_TYPE, egl.EGL_OPENGL_BIT, egl.EGL_NONE]
    egl.eglChooseConfig(display, wanted, config, 1, count)
    if not count.value:
        raise GraphicsError("no EGL configuration for OpenGL")
    egl.eglBindAPI(egl.EGL_OPENGL_API)
    core = [
        *(egl.EGL_CONTEXT_MAJOR_VERSION, 3),
        *(egl.EGL_CONTEXT_MINOR_VERSION, 3),
        *(egl.EGL_CONTEXT_OPENGL_PROFILE_MASK, egl.EGL_CONTEXT_OPENGL_CORE_PROFILE_BIT),
        egl.EGL_NONE,
    ]
    context = egl.eglCreateContext(display, config[0], egl.EGL_NO_CONTEXT, core)
    if not context:
        raise GraphicsError("the driver has no OpenGL 3.3 core")
    return context


def _short(error: Exception) -> str:
    """The first line of an error; PyOpenGL's own messages run over many."""
    code = getattr(error, "err", None)
    return str(code) if code is not None else (str(error).strip().splitlines() or [type(error).__name__])[0]
