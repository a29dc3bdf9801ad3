"""Serve a slide that lies in memory, and look at it over the network: the viewer cannot tell that it is far away.

python examples/remote_slide.py picture.png
"""

import sys

from PIL import Image

from rawmosaic.net.dealer import TileDealer
from rawmosaic.storage import open_slide
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import OffscreenViewer

specimen = SyntheticSlide((3, 4), (260, 348), ["DAPI", "GFP"], smooth=True, name="a specimen")

# A server: any number of slides under names of your choice. Port * is chosen by the system.
with TileDealer({"specimen": specimen}, "tcp://127.0.0.1:*") as dealer:
    # A viewer, here in the same program: an address opens like a file.
    with open_slide(f"{dealer.address}/specimen") as slide, OffscreenViewer(slide, size=(640, 480)) as viewer:
        print(f"{slide.header.name}: {slide.n_fields} fields in {', '.join(channel.name for channel in slide.channels)}")
        image = viewer.render()
        print(f"{dealer.stats().tiles} tiles were asked for")

Image.fromarray(image[..., :3]).save(sys.argv[1] if len(sys.argv) > 1 else "remote_slide.png")
