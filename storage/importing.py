"""Importing: any slide, copied into a virtual slide file, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from rawmosaic.storage.hdf5.writer import SlideWriter
from rawmosaic.storage.importers.read_ahead import planes_in_order, read_ahead
from rawmosaic.storage.slide import Slide


def import_slide(
    slide: Slide, path: str | os.PathLike, *, codec: str = "lz4", progress: Callable[[int, int], None] | None = None
) -> Path:
    """Copy every plane, position set and fact of `slide` into the virtual slide file `path`; returns the path.

    A few threads read ahead while the writer compresses. `progress` is called with (planes done, planes in all), first with 0.
    Whatever stops it (an unreadable plane, a full disk, Ctrl-C): nothing is left under the final name. Raises SlideError.
    """
    path = Path(path)
    addresses = planes_in_order(slide)
    read = getattr(slide, "load", slide.read_plane)  # a raw acquisition's planes are read once: don't fill its memory with them
    writer = SlideWriter(
        path,
        field_shape=slide.field_shape,
        channels=slide.channels,
        header=slide.header,
        size_z=slide.size_z,
        size_t=slide.size_t,
        scenes=slide.scenes,
        fields=slide.fields,
        position_sets={name: slide.position_set(name) for name in slide.position_sets},
        orientation=slide.orientation,
        offsets_um=slide.offsets_um,
        codec=codec,
    )
    with writer, closing(read_ahead(read, addresses)) as planes:
        if progress:
            progress(0, len(addresses))
        for done, ((field, channel, z, t), plane) in enumerate(planes, start=1):
            if isinstance(plane, Exception):
                raise plane
            writer.write_plane(plane, channel, field=field, z=z, t=t)
            if progress:
                progress(done, len(addresses))
    return path
