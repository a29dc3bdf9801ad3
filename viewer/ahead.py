"""Imports ahead of their need: while the driver starts in this thread, Python modules load in another."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from contextlib import suppress


def import_ahead(names: Sequence[str]) -> None:
    """Import modules in the background; whoever needs one before it is there waits for it as for any import."""
    threading.Thread(target=_import, args=(tuple(names),), name="import-ahead", daemon=True).start()


def _import(names: Sequence[str]) -> None:
    for name in names:
        with suppress(Exception):  # whoever needs it will meet the error
            importlib.import_module(name)
