"""The curve of a training: its loss, and how well held-out pixels are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_plugin.curve import CurvePlot

# Okabe and Ito's colors, which the color-blind can tell apart, those that are seen on dark and on light.
_CURVE_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00")
# The first losses are far above all others, which would be a flat line below them.
_SHOWN_LOSSES = 0.97
_ENOUGH_LOSSES = 10


class LearningCurve(QWidget):
    """The loss and, below it, each label's correlation on held-out pixels, by training steps."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.losses: list[tuple[int, float]] = []
        self.correlations: dict[str, list[tuple[int, float]]] = {}
        self.loss_plot = CurvePlot("", "loss", whole_x=True, names=True)
        self.loss_plot.setToolTip("The loss is what training makes small.")
        self.correlation_plot = CurvePlot("steps", "r, held out", whole_x=True, names=True)
        self.correlation_plot.setToolTip(
            "The correlation (Pearson r) is between prediction and stain on pixels that are not learned "
            "from: 1 is perfect, 0 is chance."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.loss_plot)
        layout.addWidget(self.correlation_plot)

    def show_curves(
        self, losses: Sequence[tuple[int, float]], correlations: Mapping[str, Sequence[tuple[int, float]]]
    ) -> None:
        """Draw other curves: pairs of steps and value."""
        self.losses = list(losses)
        self.correlations = {label: list(points) for label, points in correlations.items()}
        last = max(
            [steps for points in (self.losses, *self.correlations.values()) for steps, _ in points] or [1]
        )
        values = [value for _, value in self.losses]
        self.loss_plot.clear()
        limits = None
        if values:
            self.loss_plot.set_series(
                f"loss {values[-1]:.3g}", [steps for steps, _ in self.losses], values, None
            )
            if len(values) > _ENOUGH_LOSSES:
                low, high = min(values), float(np.quantile(values, _SHOWN_LOSSES))
                spare = 0.05 * (high - low) or 0.5
                limits = (low - spare, high + spare)
        self.loss_plot.set_limits(x=(0, last), y=limits)
        self.correlation_plot.clear()
        lowest = 0.0
        for number, (label, points) in enumerate(self.correlations.items()):
            steps, found = zip(*points, strict=True)
            color = _CURVE_COLORS[number % len(_CURVE_COLORS)]
            self.correlation_plot.set_series(f"{label} {found[-1]:.2f}", steps, found, color)
            lowest = min(lowest, *found)
        self.correlation_plot.set_limits(x=(0, last), y=(lowest, 1.0))
        self.correlation_plot.setVisible(bool(self.correlations))
