"""Take pictures of napari with lincei's widgets; ``make.py`` runs it, as a process of its own.

``python docs/pictures/napari_windows.py OUT [NAME...]``: the folder for the pictures, and which of them
(all when none is named). It needs a screen, LINCEI_DATA, and an environment that can train (``learn``).
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import napari
import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

from lincei.errors import LinceiWarning
from napari_plugin.demo import open_demo

SIZE_PX, PANEL_PX = (1400, 900), 440
LIMIT_S = 1200.0
# Photographed when there are so many epochs: enough for a curve, too few for a good model.
TRAINING_MIN, EPOCHS = 15.0, 6
# Small and drawn beforehand: a busy computer shall not need minutes for it.
SLIDE = "simulated:slide=real,size=960x600,area_um=300,fps=10,rendered=20,speed=0.05"
NEURONS = "motor neurons phase contrast"


def wait(happened: Callable[[], object], what: str, least_s: float = 0.5) -> None:
    """Let the window work until something has happened."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + least_s or not happened():
        if time.monotonic() > began_s + LIMIT_S:
            raise SystemExit(f"The window did not show what it was to show: {what}.")
        QApplication.processEvents()
        time.sleep(0.01)


class Window:
    """A viewer of the pictures' size, with one widget at a time.

    Parameters
    ----------
    out : Path
        Folder for the pictures.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.viewer = napari.Viewer(title="napari")
        self.viewer.window._qt_window.resize(*SIZE_PX)
        self._dock: Any = None

    def sample(self, name: str) -> None:
        """Open sample data, as the menu does."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", LinceiWarning)  # simulated images are not what the text describes
            self.viewer.open_sample("lincei", name)

    def select(self, name: str) -> Any:
        """Select a layer, as a person does before opening a widget; return it."""
        layer = self.viewer.layers[name]
        self.viewer.layers.selection.active = layer
        return layer

    def widget(self, name: str, width_px: int = PANEL_PX) -> Any:
        """Open a widget in place of the one before."""
        if self._dock is not None:
            self.viewer.window.remove_dock_widget(self._dock)
        self._dock, panel = self.viewer.window.add_plugin_dock_widget("lincei", name)
        self.viewer.window._qt_window.resizeDocks([self._dock], [width_px], Qt.Orientation.Horizontal)
        wait(lambda: True, name)
        return panel

    def run(self, panel: Any) -> None:
        """Press the widget's button, and wait until it has done its work."""
        panel.run_button.click()
        wait(lambda: not panel.is_busy, f"{panel.TITLE}: {panel.message.text()}")

    def look_at(self, y: float, x: float, zoom: float) -> None:
        """Move the view to a place of the world and enlarge it; 1 is what shows everything."""
        self.viewer.reset_view()
        camera = getattr(self.viewer, "scene", self.viewer).camera  # elsewhere before napari 0.9
        camera.zoom *= zoom
        camera.center = (*camera.center[:-2], y, x)

    def photograph(
        self, name: str, down_to: QWidget | None = None, when: Callable[[], object] = lambda: True
    ) -> None:
        """Save what the window shows when something holds; the widget is scrolled until a part is seen."""
        wait(lambda: True, name, least_s=1.0)
        if down_to is not None:
            scroll = down_to.parent()
            while not isinstance(scroll, QScrollArea):
                scroll = scroll.parent()
            scroll.ensureWidgetVisible(down_to, 0, 12)
        wait(when, name, least_s=1.0)
        picture = self.viewer.screenshot(canvas_only=False, flash=False)
        iio.imwrite(self.out / f"napari_{name}.png", picture[..., :3])

    def close(self) -> None:
        """Close the viewer and let what it held end."""
        self.viewer.close()
        wait(lambda: True, "the end")


def demo(out: Path) -> None:
    """What ``lincei demo --napari`` opens."""
    window = Window(out)
    open_demo(window.viewer)
    window.photograph("demo")
    window.close()


def predict(out: Path) -> None:
    """Three labels of motor neurons, and one of them compared with the stain."""
    window = Window(out)
    window.sample("motor_neurons")
    window.select(NEURONS)
    panel = window.widget("Predict fluorescence")
    panel.models.check(["motor-neurons"])
    panel.models.changed.emit()
    panel.statistics.check(["mean", "sd"])
    window.run(panel)
    window.look_at(420, 380, 1.6)
    window.photograph("predict", panel.summary)
    panel = window.widget("Compare predicted with true")
    layers = window.viewer.layers
    panel.predicted_layer.choose(layers[f"{NEURONS} MAP2"])
    panel.true_layer.choose(layers["motor neurons true MAP2"])
    panel.side_by_side.value = True
    window.run(panel)
    window.photograph("compare", panel.notes)
    window.close()


def learn(out: Path) -> None:
    """Nuclei that are being learned from one pair."""
    from napari_plugin.trainings import TRAININGS

    window = Window(out)
    window.sample("motor_neurons")
    stack, stain = window.select(NEURONS), window.viewer.layers["motor neurons true DAPI"]
    panel = window.widget("Learn a label")
    panel.pairs[0].input.choose(stack)
    panel.pairs[0].stain.choose(stain)
    panel.pairs[0].set_label("nuclei")
    panel.options.set("modality", "phase contrast")
    panel.options.set("max_minutes", TRAINING_MIN)
    panel.name.setText("my-nuclei")
    stain.visible, stain.contrast_limits = True, np.percentile(stain.data, (60, 99.8))
    panel.run_button.click()

    def enough() -> bool:
        training = panel.training
        if training is None or not training.is_running:
            raise SystemExit(f"The training ended: {panel.message.text()}")
        known = len(training.correlations.get("nuclei", ()))
        return known >= EPOCHS or (known >= 2 and training.share > 0.9)

    wait(enough, "a curve and a preview")
    window.photograph("learn", panel.preview)
    panel.cancel()
    wait(lambda: not panel.training.is_running, "the training's end")
    window.close()
    TRAININGS.close()


def focus(out: Path) -> None:
    """A focal series of beads, at its sharpest plane."""
    window = Window(out)
    window.sample("focus_series")
    panel = window.widget("Focus quality")
    window.run(panel)
    panel.sharpest_button.click()
    window.viewer.layers[0].contrast_limits = (100, 6000)
    window.viewer.reset_view()
    window.photograph("focus", panel.patch_table)
    window.close()


def microscope(out: Path) -> None:
    """A simulated microscope with real tissue, outlined live."""
    from arm_overlay.cameras import new_camera

    camera: Any = new_camera(SLIDE)
    camera.prepare()
    window = Window(out)
    panel = window.widget("Augmented-reality microscope")
    panel.camera.setEditText(SLIDE)
    panel.run_button.click()

    def outlined() -> bool:
        if not panel.is_busy:
            raise SystemExit(f"The microscope has stopped: {panel.message.text()}")
        return panel.view.shown > 20 and "frames/s" in panel.rates.text() and _is_outlined(window.viewer)

    wait(outlined, "outlines")
    window.viewer.reset_view()
    window.photograph("microscope", panel.log, lambda: _is_outlined(window.viewer))
    panel.cancel_button.click()
    wait(lambda: not panel.is_busy, "the end of the microscope")
    window.close()


def _is_outlined(viewer: Any) -> bool:
    from napari_plugin.live_layers import OUTLINE

    return OUTLINE in viewer.layers and bool(viewer.layers[OUTLINE].data.any())


def tumor(out: Path) -> None:
    """A section of breast, outlined."""
    window = Window(out)
    window.sample("tissue")
    panel = window.widget("Outline tumor")
    window.run(panel)
    window.look_at(320, 448, 1.4)
    window.photograph("tumor", panel.geojson_button)
    window.close()


def models(out: Path) -> None:
    """The card of a model."""
    window = Window(out)
    window.sample("motor_neurons")
    panel = window.widget("Models", 600)
    panel.choose("motor-neurons")
    window.photograph("models", panel.pages)
    window.close()


PICTURES = {
    "demo": demo,
    "predict": predict,  # and compare
    "focus": focus,
    "tumor": tumor,
    "models": models,
    "microscope": microscope,
    "learn": learn,
}

if __name__ == "__main__":
    folder, wanted = Path(sys.argv[1]).absolute(), sys.argv[2:]
    for name, take in PICTURES.items():
        if not wanted or name in wanted:
            take(folder)
