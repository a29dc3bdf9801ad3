"""``library:NAME`` as a location: a slide by the name that the library knows it by, wherever its copies lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawmosaic.storage.errors import LibraryError
from rawmosaic.storage.slide import Slide

if TYPE_CHECKING:
    from rawmosaic.storage.database import Library

SCHEME = "library:"


class LibrarySource:
    """What is registered under ``rawmosaic.sources``. The library is that of RAWMOSAIC_LIBRARY, or the user's own."""

    def score(self, location: str) -> int:
        """10 for a name in the library, else 0."""
        return 10 if str(location).lower().startswith(SCHEME) else 0

    def open(self, location: str, **options: object) -> Slide:
        """The slide of that name: its copies are tried in turn. Raises LibraryError for none or several, SlideError."""
        name = str(location)[len(SCHEME) :].removeprefix("//")
        if not name:
            raise LibraryError("name a slide after the colon, such as library:scan-17", location=location)
        with open_library(create=False) as library:
            return library.open_slide(name, **options)


def open_library(address: str | None = None, create: bool = True) -> Library:
    """The `Library` at an address, or the user's; raises LibraryError, with what to install, where its packages are missing."""
    from importlib.util import (
        find_spec,  # Alembic is imported where there is something to migrate, not to look whether it is there
    )

    missing = [name for name in ("sqlalchemy", "alembic") if find_spec(name) is None]
    if missing:
        raise LibraryError(f"the library needs more than is installed ({', '.join(missing)}): pip install 'rawmosaic[library]'")
    from rawmosaic.storage.database import Library

    return Library(address, create)


source = LibrarySource()
