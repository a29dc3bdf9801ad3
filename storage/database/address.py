"""Where the library lies: a SQLite file of the user's own, or what an address names. Opens nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from rawmosaic.storage.errors import LibraryError

ENVIRONMENT = "RAWMOSAIC_LIBRARY"
FOLDER_ENVIRONMENT = "RAWMOSAIC_DATA"
FILE_NAME = "library.sqlite"

_POSTGRESQL = ("postgresql://", "postgres://", "postgresql+psycopg://")


def library_address(told: str | os.PathLike | None = None) -> str:
    """The address told; else what RAWMOSAIC_LIBRARY says; else a file in the folder of the user's data."""
    return os.fspath(told or os.environ.get(ENVIRONMENT) or _user_folder() / FILE_NAME)


def sqlite_path(address: str) -> Path | None:
    """The SQLite file that an address names (a path, or ``sqlite:///path``); None for a PostgreSQL server.

    Raises LibraryError for an address of any other kind.
    """
    if address.startswith(_POSTGRESQL):
        return None
    if address.startswith("sqlite:///") and len(address) > len("sqlite:///"):
        return Path(address.removeprefix("sqlite:///")).absolute()
    if "://" in address or not address or address == ":memory:":
        raise LibraryError(
            f"{without_password(address)!r} is no address of a library; name a file, or postgresql://user@host/database"
        )
    return Path(address).absolute()


def postgresql_url(address: str) -> str:
    """The same address with the driver that we use in it."""
    return "postgresql+psycopg://" + address.partition("://")[2]


def without_password(address: str) -> str:
    """The address as it may be shown: a password in it is three asterisks."""
    scheme, mark, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{scheme}{mark}{name}{':***' if colon else ''}{at}{host}{slash}{path}" if mark else address


def this_machine(address: str) -> str:
    """What paths of this machine are told apart by: nothing in a file of one machine, its name in a server for many."""
    return "" if sqlite_path(address) is not None else platform.node()


def _user_folder() -> Path:
    if named := os.environ.get(FOLDER_ENVIRONMENT):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("rawmosaic", appauthor=False))
