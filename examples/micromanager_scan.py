"""Scan a mosaic with Micro-Manager's demo devices: pymmcore-plus runs it, an acquisition server makes a slide of it meanwhile.

pip install "rawmosaic[micromanager-demo]"
python examples/micromanager_scan.py picture.png
"""

import sys

import useq
from PIL import Image
from pymmcore_plus import CMMCorePlus

from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.net.acquisition.micromanager import SlideHandler
from rawmosaic.storage import open_slide
from rawmosaic.viewer import OffscreenViewer

core = CMMCorePlus()
core.loadSystemConfiguration()  # of the demo; give it the file of a microscope
sequence = useq.MDASequence(channels=["DAPI", "FITC"], grid_plan=useq.GridRowsColumns(rows=2, columns=3, overlap=10))

# The server, here in the same program; `rawmosaic acquire serve` runs it by itself, on this machine or another.
with Manager(".", "tcp://127.0.0.1:*") as server, SlideHandler(server.address, name="a scan", core=core) as handler:
    core.mda.run(sequence)
    location = handler.result()  # when the slide is complete and verified

with open_slide(location) as slide, OffscreenViewer(slide, size=(640, 480)) as viewer:
    print(f"{location}: {slide.n_fields} fields in {', '.join(channel.name for channel in slide.channels)}")
    Image.fromarray(viewer.render()[..., :3]).save(sys.argv[1] if len(sys.argv) > 1 else "micromanager_scan.png")
