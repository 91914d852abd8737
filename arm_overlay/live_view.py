"""What the operator's windows have in common: the camera's view, the keys, the look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPoint, QSize, Qt
from PySide6.QtGui import QImage, QKeySequence, QPainter, QShortcut
from PySide6.QtWidgets import QApplication, QGridLayout, QLabel, QSizePolicy, QWidget

from arm_overlay.displays import protect_constants

RGB = NDArray[np.uint8]

NOTICE = "Research use only. Not for diagnosis."

# Dark, since the operator looks into the eyepiece too.
STYLE_SHEET = """
QWidget { background: #1c1f23; color: #e4e7ea; font-size: 13px; }
QLabel#notice { background: #3a3322; color: #f0d9a0; padding: 4px 10px; }
QLabel#heading { color: #9aa3ad; font-size: 11px; padding-top: 6px; }
QLabel#state { font-size: 15px; font-weight: 600; padding: 6px 10px; border-radius: 4px; }
QLabel#state[kind="shown"] { background: #1d3a2c; color: #8fe3b4; }
QLabel#state[kind="dark"] { background: #2a2e33; color: #c9ced4; }
QLabel#state[kind="trouble"] { background: #47291f; color: #ffc2a8; }
QLabel#warning { background: #3a3322; color: #f0d9a0; padding: 5px 10px; border-radius: 4px; }
QLabel#key { color: #9aa3ad; }
QFrame#question { background: #24384d; border-radius: 4px; }
QFrame#question QLabel { background: transparent; font-size: 16px; font-weight: 600; }
QPushButton, QComboBox, QLineEdit { background: #2c3137; border: 1px solid #434a52; border-radius: 4px;
    padding: 5px 8px; }
QPushButton:hover, QComboBox:hover { border-color: #6b7682; }
QPushButton:focus, QComboBox:focus, QLineEdit:focus, QSlider:focus { border: 1px solid #6fa8dc; }
QPushButton:checked { background: #2b5c45; border-color: #4f9b78; }
QPushButton#hide:checked, QPushButton#record:checked { background: #6b3524; border-color: #b0664c; }
QPushButton:disabled { color: #6b737c; }
QScrollBar:vertical { width: 8px; background: #1c1f23; }
QScrollBar::handle:vertical { background: #434a52; border-radius: 4px; min-height: 30px; }
QScrollBar::add-line, QScrollBar::sub-line { height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: none; }
QPlainTextEdit { background: #17191c; border: 1px solid #2f343a; font-size: 12px; }
"""


def application() -> QApplication:
    """Return the process's Qt application, made when there is none; to be called before Qt is used."""
    protect_constants()
    there = QApplication.instance()
    return there if isinstance(there, QApplication) else QApplication(["lincei"])


class LiveView(QWidget):
    """Shows a picture, as large as it fits, without changing its proportions."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(320, 240)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName("Live view")
        self._picture: RGB | None = None

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return what it asks for."""
        return QSize(960, 640)

    @property
    def fits_px(self) -> tuple[int, int]:
        """Width and height that a picture should have to be shown without scaling."""
        ratio = self.devicePixelRatio()
        return max(1, round(self.width() * ratio)), max(1, round(self.height() * ratio))

    def show_picture(self, picture: RGB | None) -> None:
        """Show a picture, shape (Y, X, 3), uint8; None shows nothing."""
        self._picture = None if picture is None else np.ascontiguousarray(picture)
        self.update()

    def paintEvent(self, event: Any) -> None:  # noqa: N802, ARG002 - Qt's name
        """Draw it."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.black)
        if self._picture is not None:
            height, width = self._picture.shape[:2]
            image = QImage(
                self._picture.data, width, height, self._picture.strides[0], QImage.Format.Format_RGB888
            )
            ratio = self.devicePixelRatio()
            wide, high = self.fits_px
            scale = min(wide / width, high / height)
            # A picture that was made for this size is neither enlarged by a fraction of a pixel.
            if scale > 1.02 or scale < 0.98:
                size = QSize(round(width * scale), round(height * scale))
                image = image.scaled(
                    size,
                    Qt.AspectRatioMode.IgnoreAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
            image.setDevicePixelRatio(ratio)
            left = (wide - image.width()) / 2 / ratio
            top = (high - image.height()) / 2 / ratio
            painter.drawImage(QPoint(round(left), round(top)), image)
        painter.end()


def add_keys(
    window: QWidget, keys: Sequence[tuple[str, Callable[[], object]]], *, repeat: bool = False
) -> None:
    """Make keys work wherever in a window the focus is; only a field that takes text takes letters first.

    Parameters
    ----------
    window : QWidget
        The window.
    keys : sequence of tuple
        Qt's name of a key, such as ``"Shift+Left"``, and what it does.
    repeat : bool
        Whether they act again and again while they are held. A foot switch that is stood on must not hide and
        show the overlay in turn.
    """
    for name, act in keys:
        shortcut = QShortcut(QKeySequence(name), window)
        shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
        shortcut.setAutoRepeat(repeat)
        shortcut.activated.connect(act)


def key_table(keys: Mapping[str, str]) -> QWidget:
    """Return a list of keys and what they do."""
    table = QWidget()
    grid = QGridLayout(table)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setHorizontalSpacing(14)
    grid.setVerticalSpacing(2)
    grid.setColumnStretch(1, 1)
    for row, (key, what) in enumerate(keys.items()):
        name, text = QLabel(key), QLabel(what)
        name.setObjectName("key")
        text.setWordWrap(True)
        grid.addWidget(name, row, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(text, row, 1)
    return table


def heading(text: str) -> QLabel:
    """Return a small heading."""
    label = QLabel(text)
    label.setObjectName("heading")
    return label


def notice() -> QLabel:
    """Return the line that says what this is not for."""
    label = QLabel(NOTICE)
    label.setObjectName("notice")
    return label
