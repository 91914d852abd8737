"""Tables of figures: columns sort by number, and what is seen can be pasted into a spreadsheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

_ROWS_SHOWN = 8


class FigureItem(QTableWidgetItem):
    """A cell; numbers sort by their value and are shown with a few digits."""

    def __init__(self, value: Any, digits: int = 4) -> None:
        self.value = value
        super().__init__(_written(value, digits))
        if not isinstance(value, str):
            self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.setFlags(Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled)

    def __lt__(self, other: QTableWidgetItem) -> bool:
        if isinstance(other, FigureItem) and not isinstance(self.value, str):
            return bool(self.value < other.value)
        return self.text() < other.text()


class FigureTable(QTableWidget):
    """A table that is read, sorted and copied, not edited.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    """

    def __init__(self, columns: Sequence[str], parent: QWidget | None = None) -> None:
        super().__init__(0, len(columns), parent)
        self.setHorizontalHeaderLabels(list(columns))
        self.verticalHeader().hide()
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.horizontalHeader().setMinimumSectionSize(40)

    def show_rows(self, rows: Sequence[Sequence[Any]], tooltips: Sequence[str] = ()) -> None:
        """Show rows of texts and numbers in place of those that are there, one tooltip for each."""
        sorts = self.isSortingEnabled()
        self.setSortingEnabled(False)  # a row that is being filled must not move
        self.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, value in enumerate(row):
                item = FigureItem(value)
                item.setToolTip(tooltips[number] if tooltips else "")
                self.setItem(number, column, item)
        self.setSortingEnabled(sorts)
        lines = self.rowHeight(0) * min(len(rows), _ROWS_SHOWN) if rows else 0
        self.setMinimumHeight(lines + self.horizontalHeader().sizeHint().height() + 6)

    def text(self) -> str:
        """Return the table as it is sorted, columns parted by tabs."""
        headings = [self.horizontalHeaderItem(column) for column in range(self.columnCount())]
        header = [heading.text().replace("\n", " ") for heading in headings]
        rows = [
            [_written(self.item(row, column).value, 9) for column in range(self.columnCount())]
            for row in range(self.rowCount())
        ]
        return "\n".join("\t".join(row) for row in (header, *rows)) + "\n"

    def copy(self) -> None:
        """Put the table into the clipboard."""
        QGuiApplication.clipboard().setText(self.text())


def _written(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) and abs(value) < 10**digits else f"{value:.0f}"
