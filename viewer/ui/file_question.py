"""The system's own dialog for a file, as an answer that comes later: it does not stop the window."""

from __future__ import annotations

import shutil
import sys

from imgui_bundle import portable_file_dialogs

DIALOG_PROGRAMS = ("zenity", "kdialog", "qarma", "matedialog")
NO_DIALOG = "this desktop has no dialog to choose a file with: install zenity or kdialog, or drop the file onto the window"


def can_ask() -> bool:
    """Whether there is a dialog: Windows and macOS have their own, elsewhere it is a program."""
    return sys.platform in ("win32", "darwin") or any(shutil.which(program) for program in DIALOG_PROGRAMS)


class FileQuestion:
    """An open dialog; it answers like a future, with the list of files that were chosen, empty if none was."""

    def __init__(self, title: str, kinds: list[str], folder: str = ""):
        self._dialog = portable_file_dialogs.open_file(title, folder, kinds)

    def done(self) -> bool:
        """Whether the user has answered."""
        return self._dialog.ready(0)

    def cancelled(self) -> bool:
        """Never: closing the dialog is an answer."""
        return False

    def exception(self) -> None:
        """None."""

    def result(self) -> list[str]:
        """The files."""
        return self._dialog.result()
