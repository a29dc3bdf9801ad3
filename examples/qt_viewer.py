"""A small viewer around MosaicWidget: open a slide, switch its channels, see where the cursor is.

pip install "rawmosaic[qt]"
python examples/qt_viewer.py [LOCATION]
"""

from __future__ import annotations

import sys

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QDockWidget, QFileDialog, QLabel, QMainWindow

from rawmosaic.viewer.qt import MosaicWidget, application
from rawmosaic.viewer.qt_channels import ChannelPanel

SLIDES = "Slides and acquisitions (*.h5 *.tif *.tiff *.txt *.csv *.htd *.HTD);;All files (*)"


class Viewer(QMainWindow):
    """The mosaic in the middle, the channels beside it, one line of text below."""

    def __init__(self):
        super().__init__()
        self.mosaic = MosaicWidget(self)
        self.mosaic.slide_opened.connect(self._on_opened)
        self.mosaic.failed.connect(lambda text: self.statusBar().showMessage(text))
        self.mosaic.cursor_moved.connect(self._on_cursor)
        self.mosaic.cursor_left.connect(lambda: self._place.setText(""))
        self.mosaic.view_changed.connect(self._on_view)
        self.setCentralWidget(self.mosaic)

        dock = QDockWidget("Channels", self)
        dock.setWidget(ChannelPanel(self.mosaic, dock))
        self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)

        self._place, self._scale = QLabel(), QLabel()
        self.statusBar().addPermanentWidget(self._place)
        self.statusBar().addPermanentWidget(self._scale)

        menu = self.menuBar().addMenu("&File")
        menu.addAction(self._action("&Open…", QKeySequence.StandardKey.Open, self._ask_for_slide))
        menu.addAction(self._action("&Quit", QKeySequence.StandardKey.Quit, self.close))
        menu = self.menuBar().addMenu("&View")
        menu.addAction(self._action("&Whole mosaic", QKeySequence("Ctrl+0"), self.mosaic.fit))
        menu.addAction(dock.toggleViewAction())
        self.resize(1100, 700)
        self.setWindowTitle("rawmosaic")

    def open(self, location: str) -> None:
        """Show a slide or a raw acquisition, once it is opened."""
        self.statusBar().showMessage(f"Opening {location} …")
        self.mosaic.open(location)

    def closeEvent(self, event) -> None:
        """Give everything back."""
        self.mosaic.close_slide()
        super().closeEvent(event)

    def _action(self, text: str, shortcut, slot) -> QAction:
        action = QAction(text, self)
        action.setShortcut(shortcut)
        action.triggered.connect(slot)
        return action

    def _ask_for_slide(self) -> None:
        location, _ = QFileDialog.getOpenFileName(self, "Open a slide or acquisition", "", SLIDES)
        if location:
            self.open(location)

    def _on_opened(self) -> None:
        slide = self.mosaic.slide
        self.setWindowTitle(f"{slide.header.name} — rawmosaic")
        self.statusBar().showMessage(f"{slide.n_fields} fields, {len(slide.channels)} channels")
        self.mosaic.setFocus()

    def _on_view(self, _x_um: float, _y_um: float, scale: float) -> None:
        self._scale.setText(f"{100 * scale:.3g} %")

    def _on_cursor(self, x_um: float, y_um: float, field: int) -> None:
        over = f"field {field}" if field >= 0 else "beside the mosaic"
        self._place.setText(f"x {x_um:.1f} µm, y {y_um:.1f} µm, {over}")


def main() -> int:
    """Show the window until it is closed."""
    app = application()
    viewer = Viewer()
    if len(sys.argv) > 1:
        viewer.open(sys.argv[1])
    viewer.show()
    return app.exec()


if __name__ == "__main__":
    sys.exit(main())
