"""Acquire a slide: a scan of a microscope that is made up, an acquisition server, and a look at what became of it.

python examples/scan.py picture.png
"""

import sys
import tempfile

from PIL import Image

from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.storage import open_slide
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import OffscreenViewer

microscope = SyntheticSlide((3, 4), (260, 348), ["DAPI", "GFP"], smooth=True)

# The server, here in the same program; `rawmosaic acquire serve --data FOLDER` runs one for a facility.
with tempfile.TemporaryDirectory() as folder, Manager(folder, "tcp://127.0.0.1:*") as server:
    # What drives the microscope: a plane after another, each with the place where the stage stood.
    with Scanner(server.address) as scanner:
        scanner.start("a scan", field_shape=(260, 348), channels=["DAPI", "GFP"], pixel_size_um=0.5)
        for field, (x_um, y_um) in enumerate(microscope.positions()):
            for channel in (0, 1):
                image = microscope.read_plane(field, channel)
                scanner.send(image, channel, x_um=x_um, y_um=y_um, metadata={"exposure_ms": 20})
    # The scan is finished: every plane is in the slide, and was proved to be.
    with open_slide(scanner.location) as slide, OffscreenViewer(slide, size=(640, 480)) as viewer:
        print(f"{scanner.acknowledged} planes became a slide of {slide.n_fields} fields")
        picture = viewer.render()

Image.fromarray(picture[..., :3]).save(sys.argv[1] if len(sys.argv) > 1 else "scan.png")
