"""A plain panel for the Qt widget: each channel's visibility, colour, contrast limits and gamma. It edits looks, nothing else."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtGui import QColor, QPainter, QPixmap
from PySide6.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from rawmosaic.storage.slide import GREY_LEVELS
from rawmosaic.viewer.channels import ChannelView, parse_color
from rawmosaic.viewer.qt import MosaicWidget

SWATCH_PX = 14
_HEADINGS = ("", "channel", "from", "to", "gamma")


class ChannelPanel(QScrollArea):
    """The channels of a MosaicWidget's slide, a row each; follows the widget and is empty while it shows nothing."""

    def __init__(self, mosaic: MosaicWidget, parent: QWidget | None = None):
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._mosaic = mosaic
        self._rows: list[_Row] = []
        mosaic.slide_opened.connect(self.rebuild)
        mosaic.looks_changed.connect(self.refresh)
        self.rebuild()

    def rebuild(self) -> None:
        """Rows for the channels that there are now."""
        inside = QWidget()
        column, grid = QVBoxLayout(inside), QGridLayout()
        looks = self._mosaic.channels
        if looks:
            for number, heading in enumerate(_HEADINGS):
                grid.addWidget(QLabel(heading), 0, number)
        self._rows = [_Row(look, grid, number + 1, self._changed) for number, look in enumerate(looks)]
        grid.setColumnStretch(1, 1)
        column.addLayout(grid)
        if looks:
            auto = QPushButton("Automatic contrast")
            auto.clicked.connect(self._auto_contrast)
            column.addWidget(auto)
        column.addStretch(1)
        self.setWidget(inside)
        self.setMinimumWidth(inside.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width() + 2)
        self.refresh()

    def refresh(self) -> None:
        """Show the looks as they are."""
        for row, look in zip(self._rows, self._mosaic.channels, strict=False):
            row.show(look)

    def _changed(self) -> None:
        self._mosaic.refresh()

    def _auto_contrast(self) -> None:
        from rawmosaic.viewer.channels import percentile_limits

        for number, look in enumerate(self._mosaic.channels):
            look.limits = percentile_limits(self._mosaic.slide.histogram(number))
        self._mosaic.refresh()
        self.refresh()


class _Row:
    """The widgets of one channel."""

    def __init__(self, look: ChannelView, grid: QGridLayout, row: int, changed):
        self._look, self._changed = look, changed
        self.color = QToolButton()
        self.color.setToolTip(f"Colour of {look.shown_name}")
        self.color.clicked.connect(self._ask_for_color)
        self.visible = QCheckBox(look.shown_name)
        self.visible.toggled.connect(partial(self._set, "visible"))
        self.low, self.high = (QSpinBox() for _ in range(2))
        for number, spin in enumerate((self.low, self.high)):
            spin.setRange(-GREY_LEVELS, 2 * GREY_LEVELS)
            spin.setSingleStep(10)
            spin.setKeyboardTracking(False)
            spin.valueChanged.connect(partial(self._set_limit, number))
        self.gamma = QDoubleSpinBox()
        self.gamma.setRange(0.1, 10.0)
        self.gamma.setSingleStep(0.1)
        self.gamma.setKeyboardTracking(False)
        self.gamma.valueChanged.connect(partial(self._set, "gamma"))
        for number, widget in enumerate((self.color, self.visible, self.low, self.high, self.gamma)):
            grid.addWidget(widget, row, number)

    def show(self, look: ChannelView) -> None:
        """Show a channel's looks without taking that for an edit."""
        self._look = look
        blockers = [QSignalBlocker(widget) for widget in (self.visible, self.low, self.high, self.gamma)]
        self.visible.setChecked(look.visible)
        self.low.setValue(round(look.limits[0]))
        self.high.setValue(round(look.limits[1]))
        self.gamma.setValue(look.gamma)
        swatch = QPixmap(SWATCH_PX, SWATCH_PX)
        swatch.fill(Qt.GlobalColor.gray)  # a border, without which white is no swatch
        pen = QPainter(swatch)
        pen.fillRect(swatch.rect().adjusted(1, 1, -1, -1), QColor.fromRgbF(*parse_color(look.color)))
        pen.end()
        self.color.setIcon(swatch)
        for blocker in blockers:
            blocker.unblock()

    def _set(self, name: str, value: object) -> None:
        setattr(self._look, name, value)
        self._changed()

    def _set_limit(self, which: int, value: int) -> None:
        limits = list(self._look.limits)
        limits[which] = float(value)
        self._look.limits = tuple(limits)
        self._changed()

    def _ask_for_color(self) -> None:
        """A dialog that stops nothing: the picture follows it."""
        dialog = QColorDialog(QColor.fromRgbF(*parse_color(self._look.color)), self.color)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(f"Colour of {self._look.shown_name}")
        dialog.currentColorChanged.connect(self.set_color)
        dialog.rejected.connect(partial(self.set_color, QColor(self._look.color)))
        dialog.open()

    def set_color(self, color: QColor) -> None:
        """Give the channel a colour."""
        if color.isValid():
            self._look.color = color.name()
            self.show(self._look)
            self._changed()
