"""The system's own dialog for a file, as an answer that comes later: it does not stop the window."""

from __future__ import annotations

from imgui_bundle import portable_file_dialogs


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
