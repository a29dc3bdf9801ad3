"""Where OpenSeadragon lies: the viewer of the page, installed beside rawmosaic by npm and served from there.

`python -m rawmosaic.net.web.openseadragon` prints the npm package to install, for scripts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs

from rawmosaic.storage.errors import SlideError

PACKAGE = "openseadragon@6.1.1"
VARIABLE = "RAWMOSAIC_OPENSEADRAGON"
IN_PACKAGE = Path("build/openseadragon/openseadragon.min.js")
_IN_PREFIX = Path("node_modules/openseadragon") / IN_PACKAGE


def data_folder() -> Path:
    """Where a user without a virtual environment of rawmosaic's own installs it."""
    return Path(platformdirs.user_data_dir("rawmosaic", appauthor=False))


def find_openseadragon() -> Path:
    """The file openseadragon.min.js: where RAWMOSAIC_OPENSEADRAGON says (the file or its folder), else beside this Python, else
    in the user's data folder. SlideError, with the command to type, where it is nowhere."""
    told = os.environ.get(VARIABLE)
    if told:
        path = Path(told)
        candidates = [path, path / "openseadragon.min.js", path / IN_PACKAGE, path / _IN_PREFIX]
    else:
        candidates = [Path(sys.prefix) / _IN_PREFIX, data_folder() / _IN_PREFIX]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if told:
        raise SlideError(f"there is no openseadragon.min.js where {VARIABLE} says; name the file or its folder", location=told)
    raise SlideError(f'the web page needs OpenSeadragon; type: npm install --prefix "{data_folder()}" {PACKAGE}')


if __name__ == "__main__":
    print(PACKAGE)
