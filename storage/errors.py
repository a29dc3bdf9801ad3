"""The errors a user of rawmosaic can meet.

    SlideError
    ├── NotASlideError            nothing known to rawmosaic lies at that location
    ├── FormatVersionError        a virtual slide of a newer format version
    ├── DamagedSlideError         truncated, overwritten or otherwise unreadable data
    ├── OutOfRangeError           no such field, channel, z, t, level, scene or position set   (also IndexError)
    ├── PlaneMissingError         the plane exists in principle but was not acquired           (also LookupError)
    ├── AcquisitionError          a raw acquisition that contradicts itself or lacks something (also ValueError)
    ├── WriteError                a slide could not be written: disk full, no permission       (also OSError)
    ├── UnreachableError          a server does not answer, or not in time                     (also ConnectionError)
    ├── ProtocolError             a message that is not understood, or of another version
    ├── LibraryError              the slide database cannot be used, or does not know what was asked for
    ├── AccessError               a key that the server does not know, or a key file to mend    (also PermissionError)
    ├── NoLongerWantedError       a tile that left the view before it was read: no fault
    └── GraphicsError             no usable OpenGL on this machine                             (also RuntimeError)

Every message says what failed, where, with which limits, and what to do. `location` keeps the file or address.
"""

from __future__ import annotations


class SlideError(Exception):
    """Anything wrong with a slide, an acquisition, or the machine that shows it."""

    def __init__(self, message: str, *, location: object = None):
        self.location = None if location is None else str(location)
        super().__init__(f"{self.location}: {message}" if self.location else message)


class NotASlideError(SlideError):
    """Nothing that rawmosaic can open lies at the location."""


class FormatVersionError(SlideError):
    """The file was written by a newer rawmosaic."""


class DamagedSlideError(SlideError):
    """The file is truncated, or bytes in it are not what was written."""


class OutOfRangeError(SlideError, IndexError):
    """An index or a name outside what the slide has."""

    def __init__(self, what: str, value: object, limits: str, *, location: object = None):
        self.what, self.value, self.limits = what, value, limits
        super().__init__(f"no {what} {value!r}: {limits}", location=location)


class PlaneMissingError(SlideError, LookupError):
    """A plane that was not acquired: the mosaic is sparse there."""


class AcquisitionError(SlideError, ValueError):
    """A raw acquisition that cannot be understood, with the way out in the message."""


class WriteError(SlideError, OSError):
    """A slide could not be written; nothing was left under its final name."""


class GraphicsError(SlideError, RuntimeError):
    """OpenGL 3.3 could not be had; the message says what to install."""


class UnreachableError(SlideError, ConnectionError):
    """A server does not answer, or not in time; the address may be wrong, the server down or the network slow."""


class ProtocolError(SlideError):
    """A message that breaks docs/protocol.md, or speaks another version of it."""


class AccessError(SlideError, PermissionError):
    """A server admits listed keys only, or a key file cannot be used."""


class LibraryError(SlideError):
    """The slide database is damaged, lacks a package, or has no slide, or several, of that name."""


class NoLongerWantedError(SlideError):
    """A tile left the view before it was read. Nothing went wrong."""
