"""A small plot of curves, in the colors of the window it stands in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

# What is within so many pixels of the pointer is told of.
_NEAR_PX = 14.0
_GRID_ALPHA, _AXIS_ALPHA = 45, 150


@dataclass(frozen=True)
class _Series:
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    color: QColor | None
    points: tuple[QColor, ...]
    tips: tuple[str, ...]


class CurvePlot(QWidget):
    """Curves over a common axis.

    Text and axes have the color of the window's text, so that it is read in a dark and in a light window.

    Parameters
    ----------
    x_name, y_name : str
        Names of the axes, with their units.
    whole_x : bool
        Values of x are counts: no mark of the axis is between whole numbers.
    names : bool
        The curves' names stand above the plot, also when there is only one.

    Attributes
    ----------
    clicked : Signal(float)
        Where along x the plot was clicked: the x of the nearest point.
    """

    clicked = Signal(float)

    def __init__(
        self,
        x_name: str = "",
        y_name: str = "",
        *,
        whole_x: bool = False,
        names: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._x_name, self._y_name, self._whole_x, self._names = x_name, y_name, whole_x, names
        self._series: dict[str, _Series] = {}
        self._markers: dict[str, tuple[float, QColor | None]] = {}
        self._x_limits: tuple[float, float] | None = None
        self._y_limits: tuple[float, float] | None = None
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_axis_names(self, x_name: str, y_name: str) -> None:
        """Name the axes."""
        self._x_name, self._y_name = x_name, y_name
        self.update()

    def set_limits(
        self, *, x: tuple[float, float] | None = None, y: tuple[float, float] | None = None
    ) -> None:
        """Show x, or y, from one value to another; None shows all there is."""
        self._x_limits, self._y_limits = x, y
        self.update()

    def set_series(
        self,
        name: str,
        x: ArrayLike,
        y: ArrayLike,
        color: str | QColor | None,
        *,
        point_colors: Sequence[str | QColor] = (),
        tips: Sequence[str] = (),
    ) -> None:
        """Draw a curve, in place of an earlier one of this name.

        Parameters
        ----------
        name : str
            Shown above the plot when there are several curves.
        x, y : array_like
            Of one length; where y is not finite there is a gap.
        color : str, QColor or None
            Of the line; None is that of the window's text.
        point_colors : sequence, optional
            A color for each point, which is drawn as a disk then.
        tips : sequence of str, optional
            What is said of each point under the pointer; its name and values when left out.
        """
        self._series[name] = _Series(
            np.asarray(x, float),
            np.asarray(y, float),
            None if color is None else QColor(color),
            tuple(QColor(one) for one in point_colors),
            tuple(tips),
        )
        self.update()

    def set_marker(self, name: str, x: float | None, color: str | QColor | None = None) -> None:
        """Draw an upright line, in place of an earlier one of this name; None takes it away."""
        if x is None:
            self._markers.pop(name, None)
        else:
            self._markers[name] = (float(x), None if color is None else QColor(color))
        self.update()

    def clear(self) -> None:
        """Take all curves and markers away."""
        self._series.clear()
        self._markers.clear()
        self.update()

    @property
    def series(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """The curves by name: x and y."""
        return {name: (series.x, series.y) for name, series in self._series.items()}

    def sizeHint(self) -> QSize:  # noqa: D102, N802
        return QSize(280, 170)

    def minimumSizeHint(self) -> QSize:  # noqa: D102, N802
        return QSize(160, 150)

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: D102, N802
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        frame, limits = self._frame(), self._limits()
        self._draw_axes(painter, frame, limits, text)
        painter.save()
        painter.setClipRect(frame.adjusted(-5, -5, 5, 5))
        for x, color in self._markers.values():
            pen = QPen(text if color is None else color, 1.4, Qt.PenStyle.DashLine)
            painter.setPen(pen)
            at = self._place(x, 0.0, frame, limits).x()
            painter.drawLine(QPointF(at, frame.top()), QPointF(at, frame.bottom()))
        for series in self._series.values():
            self._draw_series(painter, series, frame, limits, text)
        painter.restore()
        if self._names or len(self._series) > 1:
            left = frame.left() + 4
            for name, series in self._series.items():
                painter.setPen(series.color or text)
                painter.drawText(QPointF(left, frame.top() - 5), name)
                left += painter.fontMetrics().horizontalAdvance(name) + 12
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: D102, N802
        xs = np.concatenate([series.x for series in self._series.values()] or [np.empty(0)])
        if event.button() == Qt.MouseButton.LeftButton and xs.size:
            (low, high, _, _), frame = self._limits(), self._frame()
            at = low + (event.position().x() - frame.left()) / frame.width() * (high - low)
            self.clicked.emit(float(xs[np.abs(xs - at).argmin()]))

    def event(self, event: QEvent) -> bool:
        """Say the values of the point under the pointer."""
        if event.type() == QEvent.Type.ToolTip:
            help_event: Any = event
            near = self.told_at(QPointF(help_event.pos()))
            if near:
                QToolTip.showText(help_event.globalPos(), near, self)
                return True
        return super().event(event)

    def told_at(self, position: QPointF) -> str:
        """Return what is said of the point that is nearest to a position; empty when none is near."""
        frame, limits = self._frame(), self._limits()
        best, told = _NEAR_PX, ""
        for name, series in self._series.items():
            for number, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
                if not math.isfinite(y):
                    continue
                place = self._place(x, y, frame, limits)
                distance = math.hypot(place.x() - position.x(), place.y() - position.y())
                if distance < best:
                    own = series.tips[number] if series.tips else f"{name}: {y:.4g} at {self._x_name} {x:.4g}"
                    best, told = distance, own
        return told

    # Inside.

    def _frame(self) -> QRectF:
        line = self.fontMetrics().height()
        left = self.fontMetrics().horizontalAdvance("0.000") + line + 6
        top = line + 4 if self._names or len(self._series) > 1 else 8
        return QRectF(
            left, top, max(20, self.width() - left - 12), max(20, self.height() - top - 2 * line - 10)
        )

    def _limits(self) -> tuple[float, float, float, float]:
        """Return lowest and highest x, lowest and highest y."""
        xs = np.concatenate([series.x for series in self._series.values()] or [np.array([0.0, 1.0])])
        ys = np.concatenate([series.y for series in self._series.values()] or [np.array([0.0, 1.0])])
        ys = ys[np.isfinite(ys)]
        low_x, high_x = (float(xs.min()), float(xs.max())) if xs.size else (0.0, 1.0)
        low_y, high_y = (float(ys.min()), float(ys.max())) if ys.size else (0.0, 1.0)
        if self._x_limits is not None:
            low_x, high_x = self._x_limits
        if self._y_limits is not None:
            low_y, high_y = self._y_limits
        else:
            spare = 0.05 * (high_y - low_y) or 0.5
            low_y, high_y = low_y - spare, high_y + spare
        if high_x <= low_x:
            low_x, high_x = low_x - 0.5, high_x + 0.5
        return low_x, high_x, low_y, high_y

    @staticmethod
    def _place(x: float, y: float, frame: QRectF, limits: tuple[float, float, float, float]) -> QPointF:
        low_x, high_x, low_y, high_y = limits
        return QPointF(
            frame.left() + (x - low_x) / (high_x - low_x) * frame.width(),
            frame.bottom() - (y - low_y) / (high_y - low_y) * frame.height(),
        )

    def _draw_axes(
        self, painter: QPainter, frame: QRectF, limits: tuple[float, float, float, float], text: QColor
    ) -> None:
        grid, axis = QColor(text), QColor(text)
        grid.setAlpha(_GRID_ALPHA)
        axis.setAlpha(_AXIS_ALPHA)
        line = painter.fontMetrics().height()
        center = Qt.AlignmentFlag.AlignCenter
        for x in _marks(*limits[:2], most=max(2, int(frame.width() / 50)), whole=self._whole_x):
            at = self._place(x, 0.0, frame, limits).x()
            painter.setPen(grid)
            painter.drawLine(QPointF(at, frame.top()), QPointF(at, frame.bottom()))
            painter.setPen(text)
            painter.drawText(QRectF(at - 30, frame.bottom() + 2, 60, line), center, f"{x:g}")
        for y in _marks(*limits[2:], most=max(2, int(frame.height() / (1.8 * line)))):
            at = self._place(0.0, y, frame, limits).y()
            painter.setPen(grid)
            painter.drawLine(QPointF(frame.left(), at), QPointF(frame.right(), at))
            painter.setPen(text)
            right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(QRectF(0, at - line / 2, frame.left() - 4, line), right, f"{y:g}")
        painter.setPen(axis)
        painter.drawRect(frame)
        painter.setPen(text)
        painter.drawText(
            QRectF(frame.left(), frame.bottom() + line + 4, frame.width(), line), center, self._x_name
        )
        painter.save()
        painter.translate(0, frame.bottom())
        painter.rotate(-90)
        painter.drawText(QRectF(0, 0, frame.height(), line), center, self._y_name)
        painter.restore()

    def _draw_series(
        self,
        painter: QPainter,
        series: _Series,
        frame: QRectF,
        limits: tuple[float, float, float, float],
        text: QColor,
    ) -> None:
        painter.setPen(QPen(series.color or text, 1.8))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for part in _finite_parts(series.y):
            places = [
                self._place(x, y, frame, limits) for x, y in zip(series.x[part], series.y[part], strict=True)
            ]
            if len(places) == 1 and not series.points:
                painter.drawEllipse(places[0], 2, 2)
            painter.drawPolyline(QPolygonF(places))
        # A nearly black point is seen in a dark window by its rim.
        painter.setPen(QPen(text, 0.8))
        for x, y, color in zip(series.x, series.y, series.points, strict=False):
            if math.isfinite(y):
                painter.setBrush(color)
                painter.drawEllipse(self._place(x, y, frame, limits), 4.5, 4.5)


def _finite_parts(values: NDArray[np.float64]) -> list[slice]:
    """Return where values are finite without a gap."""
    edges = np.diff(np.concatenate([[0], np.isfinite(values).astype(int), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]


def _marks(low: float, high: float, *, most: int, whole: bool = False) -> list[float]:
    """Return round values from low to high, about ``most`` of them."""
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
