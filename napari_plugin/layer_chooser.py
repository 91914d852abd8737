"""A list of the viewer's layers to choose from, which follows what is opened, renamed and removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_plugin.panel import Resources


def is_image(layer: Layer) -> bool:
    """Tell whether a layer is an image, gray or in color; layers of labels, points and shapes are not."""
    from napari.layers import Image, Labels

    return isinstance(layer, Image) and not isinstance(layer, Labels)


def is_gray(layer: Any) -> bool:
    """Tell whether a layer is a gray image."""
    return is_image(layer) and not layer.rgb


def is_color(layer: Any) -> bool:
    """Tell whether a layer is a red-green-blue image."""
    return is_image(layer) and bool(layer.rgb)


class LayerChooser(QComboBox):
    """One of the viewer's layers; at first the active one, or the first that is to be seen.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    resources : Resources
        Lets go of the viewer when the widget is closed.
    accepts : callable
        Which layers are offered: `is_image`, `is_gray`, `is_color` or the like.
    none : str
        When not empty, the first entry, which stands for no layer: ``"(none)"``.
    tooltip : str
        What is to be chosen.

    Attributes
    ----------
    layer_changed : Signal(object)
        Another layer is chosen, or None.
    """

    layer_changed = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        resources: Resources,
        accepts: Callable[[Any], bool] = is_image,
        *,
        none: str = "",
        tooltip: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._accepts, self._none = viewer, accepts, none
        self._layers: list[Any] = []
        self._chosen: Any = None
        self.setToolTip(tooltip)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            resources.connect(event, self.refill)
        for event in (viewer.layers.events.reordered, viewer.layers.events.renamed):
            resources.connect(event, self.refill)
        self.currentIndexChanged.connect(self._take)
        self.refill()
        # Samples come with stains that are hidden, and napari makes the last layer the active one.
        likely = [viewer.layers.selection.active, *viewer.layers]
        for layer in likely if not none else likely[:1]:
            if layer is not None and layer.visible and accepts(layer):
                self.choose(layer)
                break

    @property
    def layer(self) -> Any:
        """The chosen layer, or None."""
        return self._chosen

    def choose(self, layer: Any) -> None:
        """Choose a layer; one that is not offered is left alone."""
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def refill(self, _event: Any = None) -> None:
        """Offer the layers that there are now; done by itself when they change."""
        offered = [layer for layer in self._viewer.layers if self._accepts(layer)]
        self._layers = [*([None] if self._none else []), *offered]
        kept = self._chosen if self._chosen in self._layers else (self._layers[0] if self._layers else None)
        self.blockSignals(True)
        self.clear()
        self.addItems([self._none if layer is None else layer.name for layer in self._layers])
        if self._layers:
            self.setCurrentIndex(self._layers.index(kept))
        self.blockSignals(False)
        self._take()

    def _take(self, _index: int = 0) -> None:
        index = self.currentIndex()
        chosen = self._layers[index] if 0 <= index < len(self._layers) else None
        if chosen is not self._chosen:
            self._chosen = chosen
            self.layer_changed.emit(chosen)
