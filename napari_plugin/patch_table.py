"""Tables of patches and of images: many rows, sorted by any column, a click gives the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget


class ColumnsModel(QAbstractTableModel):
    """Columns of values, some of their rows, in some order.

    A hundred thousand rows are no burden: nothing is made for a cell before it is seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: tuple[str, ...] = ()
        self._columns: tuple[NDArray[Any], ...] = ()
        self._colors: NDArray[np.uint8] | None = None
        self._tips: Mapping[str, str] = {}
        self._part = slice(0, 0)
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        self._sorted_by: tuple[int, bool] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self._names

    def show(
        self,
        columns: Mapping[str, ArrayLike],
        *,
        colors: NDArray[np.uint8] | None = None,
        tips: Mapping[str, str] | None = None,
    ) -> None:
        """Show other columns.

        Parameters
        ----------
        columns : mapping of str to array_like
            By name, all of one length; not a number stands for nothing.
        colors : ndarray of uint8, shape (rows, 3), optional
            A color for each row, shown in the first column.
        tips : mapping of str to str, optional
            What columns mean, shown at their heads.
        """
        self.beginResetModel()
        if tuple(columns) != self._names:
            self._sorted_by = None
        self._names = tuple(columns)
        self._columns = tuple(np.asarray(values) for values in columns.values())
        self._colors, self._tips = colors, tips or {}
        count = len(self._columns[0]) if self._columns else 0
        self._part = slice(0, count)
        self._arrange()
        self.endResetModel()

    def show_only(self, first: int, last: int) -> None:
        """Show only rows from ``first`` up to ``last`` (excluded), as they were given."""
        if (first, last) != (self._part.start, self._part.stop):
            self.beginResetModel()
            self._part = slice(first, last)
            self._arrange()
            self.endResetModel()

    def row_at(self, line: int) -> int:
        """Return which row, as they were given, is shown on a line."""
        return int(self._order[line])

    def line_of(self, row: int) -> int | None:
        """Return the line that a row is shown on, or None."""
        found = np.flatnonzero(self._order == row)
        return int(found[0]) if len(found) else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; what is not known comes last."""
        if not 0 <= column < len(self._names):
            return
        self.layoutAboutToBeChanged.emit()
        self._sorted_by = (column, order == Qt.SortOrder.DescendingOrder)
        self._arrange()
        self.layoutChanged.emit()

    def rowCount(self, parent: Any = QModelIndex()) -> int:  # noqa: B008, D102, N802
        return 0 if parent.isValid() else len(self._order)

    def columnCount(self, parent: Any = QModelIndex()) -> int:  # noqa: B008, D102, N802
        return 0 if parent.isValid() else len(self._names)

    def data(self, index: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: D102
        row, column = self._order[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return _written(self._columns[column][row])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = (
                Qt.AlignmentFlag.AlignRight
                if self._columns[column].dtype.kind in "iuf"
                else (Qt.AlignmentFlag.AlignLeft)
            )
            return side | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.DecorationRole and column == 0 and self._colors is not None:
            return QColor(*map(int, self._colors[row]))
        if role == Qt.ItemDataRole.ToolTipRole and self._columns[column].dtype.kind not in "iuf":
            return _written(self._columns[column][row])
        return None

    def headerData(  # noqa: D102, N802
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._names):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._names[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tips.get(self._names[section])
        return None

    def _arrange(self) -> None:
        rows = np.arange(self._part.start, self._part.stop)
        if self._sorted_by is not None:
            column, descending = self._sorted_by
            keys: NDArray[Any] = self._columns[column][self._part]
            if keys.dtype.kind not in "iuf":
                keys = np.unique(keys.astype(str), return_inverse=True)[1]
            # Not a number comes last either way.
            rows = rows[np.argsort(-keys if descending else keys, kind="stable")]
        self._order = rows


class ColumnsTable(QTableView):
    """A table that is read, sorted by a click on a heading, and clicked at.

    Attributes
    ----------
    row_chosen : Signal(int)
        A row was clicked, or reached with the arrow keys; its number as the rows were given.
    """

    row_chosen = Signal(int)

    def __init__(self, lines: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.columns = ColumnsModel()
        self.setModel(self.columns)
        self._lines = lines
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setAlternatingRowColors(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 8)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        self._quiet = False
        self.selectionModel().currentRowChanged.connect(self._chosen)
        # A click on the row that is chosen already goes there again.
        self.clicked.connect(self._clicked)
        self._said = -1

    def show_columns(
        self,
        columns: Mapping[str, ArrayLike],
        *,
        colors: NDArray[np.uint8] | None = None,
        tips: Mapping[str, str] | None = None,
    ) -> None:
        """Show other columns; see `ColumnsModel.show`."""
        same = tuple(columns) == self.columns.names
        self.columns.show(columns, colors=colors, tips=tips)
        if not same:
            self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
            self.resizeColumnsToContents()
        # As high as its rows, up to a few; a long table scrolls.
        shown = min(max(1, self.columns.rowCount()), self._lines)
        height = (
            shown * self.verticalHeader().defaultSectionSize() + self.horizontalHeader().sizeHint().height()
        )
        self.setFixedHeight(height + self.horizontalScrollBar().sizeHint().height() + 4)

    def choose(self, row: int) -> None:
        """Mark a row without a signal."""
        line = self.columns.line_of(row)
        self._quiet = True
        if line is None:
            self.clearSelection()
        else:
            self.selectRow(line)
        self._quiet = False

    def texts(self) -> list[Sequence[str]]:
        """Return what is shown, line by line."""
        count = self.columns.columnCount()
        return [
            [self.columns.index(line, column).data() for column in range(count)]
            for line in range(self.columns.rowCount())
        ]

    def _chosen(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if current.isValid() and not self._quiet:
            self._said = self.columns.row_at(current.row())
            self.row_chosen.emit(self._said)

    def _clicked(self, index: QModelIndex) -> None:
        row = self.columns.row_at(index.row())
        if row != self._said:
            self.row_chosen.emit(row)
        self._said = -1


def _written(value: Any) -> str:
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else f"{value:.3g}"
    return str(value)
