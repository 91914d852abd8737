"""The curve of a training: its loss, and how well held-out pixels are predicted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

# Okabe and Ito's colors, which the color-blind can tell apart, those that are seen on dark and on light.
_CURVE_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00")


class LearningCurve(QWidget):
    """The loss and, below it, each label's correlation on held-out pixels, by training steps."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.losses: list[tuple[int, float]] = []
        self.correlations: dict[str, list[tuple[int, float]]] = {}
        self.setMinimumHeight(210)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "The loss is what training makes small. The correlation (Pearson r) is between prediction and "
            "stain on pixels that are not learned from: 1 is perfect, 0 is chance."
        )

    def show_curves(
        self, losses: Sequence[tuple[int, float]], correlations: Mapping[str, Sequence[tuple[int, float]]]
    ) -> None:
        """Draw other curves: pairs of steps and value."""
        self.losses = list(losses)
        self.correlations = {label: list(points) for label, points in correlations.items()}
        self.update()

    def paintEvent(self, _event: Any) -> None:  # noqa: N802
        """Draw."""
        painter = QPainter(self)
        try:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            last = max(
                [steps for steps, _ in itertools.chain(self.losses, *self.correlations.values())] or [1]
            )
            height = self.height() / 2
            text = self.palette().color(self.foregroundRole())
            if self.losses:
                values = [value for _, value in self.losses]
                # The first steps are far above all others and would make these a flat line.
                top = float(np.quantile(values, 0.97)) if len(values) > 10 else max(values)
                curves = {"loss": (text, self.losses)}
                self._draw(painter, 0, height, "loss", curves, (min(values), top), last)
            if self.correlations:
                curves = {
                    label: (QColor(_CURVE_COLORS[i % len(_CURVE_COLORS)]), points)
                    for i, (label, points) in enumerate(self.correlations.items())
                }
                low = min(0.0, *(value for points in self.correlations.values() for _, value in points))
                self._draw(painter, height, height, "correlation, held out", curves, (low, 1.0), last)
        finally:
            painter.end()

    def _draw(
        self,
        painter: QPainter,
        top: float,
        height: float,
        title: str,
        curves: Mapping[str, tuple[QColor, Sequence[tuple[int, float]]]],
        limits: tuple[float, float],
        last: int,
    ) -> None:
        """Draw one plot: its axes with their ends, and its curves with their names."""
        metrics = painter.fontMetrics()
        line = metrics.height()
        text = self.palette().color(self.foregroundRole())
        left, right = metrics.horizontalAdvance("-0.000") + 8.0, self.width() - 8.0
        upper, lower = top + line + 4, top + height - line - 4
        low, high = limits if limits[1] > limits[0] else (limits[0] - 0.5, limits[0] + 0.5)

        def place(steps: float, value: float) -> QPointF:
            share = (min(max(value, low), high) - low) / (high - low)
            return QPointF(left + (right - left) * steps / max(last, 1), lower - (lower - upper) * share)

        faint = QColor(text)
        faint.setAlpha(110)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(QRectF(left, upper, right - left, lower - upper))
        painter.setPen(QPen(text, 1))
        painter.drawText(QPointF(left, top + metrics.ascent()), title)
        for value, y in ((high, upper + metrics.ascent() / 2), (low, lower)):
            painter.drawText(
                QRectF(0, y - line + 4, left - 5, line), int(Qt.AlignmentFlag.AlignRight), f"{value:.2f}"
            )
        painter.drawText(QPointF(left, lower + metrics.ascent() + 2), "0")
        steps_text = f"{last} steps"
        painter.drawText(
            QPointF(right - metrics.horizontalAdvance(steps_text), lower + metrics.ascent() + 2), steps_text
        )
        at = right
        for label, (color, points) in curves.items():
            painter.setPen(QPen(color, 1.8))
            painter.drawPolyline(QPolygonF([place(*point) for point in points]))
            painter.setBrush(color)
            painter.drawEllipse(place(*points[-1]), 2.5, 2.5)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            name = f"{label} {points[-1][1]:.2f}" if label != title else f"{points[-1][1]:.3g}"
            at -= metrics.horizontalAdvance(name) + 8
            painter.drawText(QPointF(at, top + metrics.ascent()), name)
