"""The slide: words and contracts, HDF5 format, importers, spatial index. Knows no OpenGL and no socket."""

from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.opening import open_slide
from rawmosaic.storage.slide import Channel, Header, Slide

__all__ = ["Channel", "Header", "Slide", "SlideError", "SlideWriter", "open_slide"]


def __getattr__(name: str):
    if name == "SlideWriter":  # the writer needs h5py; who only looks at the contract does not
        from rawmosaic.storage.hdf5.writer import SlideWriter

        return SlideWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
