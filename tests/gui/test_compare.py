"""Comparing a predicted with a true layer in a real window."""

from __future__ import annotations

import contextlib
import io
import threading
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QApplication

from insilico.distribution import LogisticMixture
from insilico.evaluation import scaled_truth
from insilico.panels import error_panel
from lincei.image import Image
from lincei.metrics import nrmse, pearson_r, ssim
from lincei.model import find_model
from lincei.progress import stop_if_cancelled
from napari_plugin.compare import ALIKE, BY_LABEL, BY_PERCENTILES, IN_VIEW, Compare

MODEL = "motor-neurons"
LABEL = 0


@pytest.fixture(scope="module")
def stain() -> np.ndarray:
    """Gray values of a stained field, with an offset."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:150, :200]
    cells = sum(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 120) for cy, cx in rng.uniform(0, 150, (25, 2)))
    return (300 + 4000 * cells + rng.normal(0, 30, cells.shape)).clip(0).astype(np.uint16)


@pytest.fixture(scope="module")
def truth(stain: np.ndarray) -> np.ndarray:
    """That field as `insilico.evaluate` scales it."""
    return scaled_truth(Image.from_array(stain, "YX"), find_model(MODEL, "label"), LABEL)


@pytest.fixture(scope="module")
def prediction(truth: np.ndarray) -> np.ndarray:
    """Something near it."""
    rng = np.random.default_rng(2)
    return (0.8 * truth + rng.normal(0, 0.08, truth.shape)).astype(np.float32)


def docked(viewer: Any) -> Compare:
    panel = Compare(viewer)
    viewer.window.add_dock_widget(panel, name="Compare", area="right")
    return panel


def add_both(viewer: Any, prediction: Any, stain: Any, *, sd: float = 0.0, **metadata: Any) -> Compare:
    placed = {"scale": (0.5, 0.5), "units": ("um", "um")}
    viewer.add_image(stain, name="DAPI measured", **placed)
    predicted = viewer.add_image(prediction, name="field DAPI", metadata={"lincei": metadata}, **placed)
    if sd:
        viewer.add_image(
            np.full_like(prediction, sd), name="field DAPI sd", metadata={"lincei": {}}, **placed
        )
    viewer.layers.selection.active = predicted
    panel = docked(viewer)
    panel.predicted_layer.choose(predicted)
    panel.true_layer.choose(viewer.layers["DAPI measured"])
    return panel


def run(panel: Compare, until: Any) -> dict[str, float]:
    panel.run_button.click()
    until(lambda: not panel.is_busy, "they are compared")
    assert panel.comparison is not None, panel.message.text()
    return dict(panel.comparison.figures)


def of_the_model(**others: Any) -> dict[str, Any]:
    return {"model": [MODEL], "label": find_model(MODEL, "label").card.labels[LABEL].name, **others}


def test_the_figures_are_those_of_the_library(viewer, until, photograph, prediction, stain, truth):
    panel = add_both(viewer, prediction, stain, sd=0.1, **of_the_model())
    assert panel.scale.value == BY_LABEL
    assert panel.sd_layer.layer.name == "field DAPI sd"
    figures = run(panel, until)
    assert figures["Pearson r"] == pytest.approx(pearson_r(prediction, truth))
    assert figures["nRMSE"] == pytest.approx(nrmse(prediction, truth))
    assert figures["SSIM"] == pytest.approx(ssim(prediction, truth))
    scale = np.full((1, *truth.shape), 0.1 * np.sqrt(3) / np.pi)
    logistic = LogisticMixture(np.ones_like(scale), prediction[np.newaxis], scale)
    assert figures["CRPS"] == pytest.approx(logistic.crps(truth).mean(), rel=1e-5)
    inside = (truth >= logistic.quantile(0.05)) & (truth <= logistic.quantile(0.95))
    assert figures["coverage of the 90 % interval"] == pytest.approx(inside.mean(), abs=1e-3)
    shown = {
        panel.table.item(row, 0).text(): panel.table.item(row, 1).value
        for row in range(panel.table.rowCount())
    }
    assert shown == figures
    assert viewer.canvas.overlays.scale_bar.visible
    panel.copy_table_button.click()
    assert f"Pearson r\t{figures['Pearson r']:.9g}" in QApplication.clipboard().text()
    photograph(viewer, "compare")


def test_the_error_layer_lies_on_the_prediction_in_the_colors_of_the_panels(
    viewer, until, prediction, stain, truth
):
    panel = add_both(viewer, prediction, stain, **of_the_model())
    run(panel, until)
    layer = panel.error_layer
    np.testing.assert_allclose(layer.data, prediction - truth, atol=1e-6)
    np.testing.assert_allclose(layer.data_to_world((7, 9)), viewer.layers["field DAPI"].data_to_world((7, 9)))
    low, high = layer.contrast_limits
    colors = layer.colormap.map(np.clip((layer.data - low) / (high - low), 0, 1).ravel())[:, :3]
    expected = error_panel(prediction, truth).reshape(-1, 3)
    assert np.abs(255 * colors - expected).max() < 2


def test_a_layer_that_no_model_is_known_of_is_scaled_by_percentiles(viewer, until, prediction, stain):
    panel = add_both(viewer, prediction, stain)
    assert panel.scale.value == BY_PERCENTILES
    panel.background.value, panel.bright.value = 2.0, 98.0
    figures = run(panel, until)
    low, high = np.percentile(stain, [2, 98])
    assert figures["nRMSE"] == pytest.approx(nrmse(prediction, (stain - low) / (high - low)), rel=1e-5)
    panel.scale.value = BY_LABEL
    panel.run_button.click()
    assert "nothing says which model" in panel.message.text()


def test_identical_layers_agree_perfectly(viewer, until, stain):
    panel = add_both(viewer, stain, stain)
    panel.scale.value = ALIKE
    figures = run(panel, until)
    assert figures["Pearson r"] == pytest.approx(1)
    assert figures["nRMSE"] == 0
    assert figures["SSIM"] == pytest.approx(1)


def test_the_visible_region_alone_is_measured(viewer, until, prediction, stain, truth):
    panel = add_both(viewer, prediction, stain, **of_the_model())
    viewer.scene.camera.center = (0, 35, 50)
    viewer.scene.camera.zoom *= 3
    until(lambda: viewer.layers["field DAPI"].corner_pixels[0, 0] > 0, "the view has moved")
    panel.region.value = IN_VIEW
    figures = run(panel, until)
    (top, left), (bottom, right) = panel.error_layer.data_to_world((0, 0)), panel.error_layer.extent.world[1]
    rows = slice(round(top / 0.5), round(top / 0.5) + panel.error_layer.data.shape[0])
    columns = slice(round(left / 0.5), round(left / 0.5) + panel.error_layer.data.shape[1])
    assert bottom <= 75
    assert right <= 100
    assert panel.error_layer.data.size < truth.size
    # Scaled as the whole image is, so that the figures of two views can be compared.
    assert figures["Pearson r"] == pytest.approx(pearson_r(prediction[rows, columns], truth[rows, columns]))
    assert figures["nRMSE"] == pytest.approx(nrmse(prediction[rows, columns], truth[rows, columns]), rel=1e-5)


def test_of_a_true_stack_the_maximum_is_taken(viewer, until, prediction, stain, truth):
    panel = add_both(viewer, prediction, stain, **of_the_model())
    stack = viewer.add_image(np.stack([stain, stain // 2]), name="stack", scale=(1, 0.5, 0.5))
    panel.true_layer.choose(stack)
    figures = run(panel, until)
    assert "maximum over its 2 z planes" in panel.notes.text()
    assert figures["Pearson r"] > 0.9


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": np.ones((40, 40), np.uint16)}, "40 x 40 pixels"),
        ({"translate": (30, 0)}, "does not lie on"),
        ({"scale": (1, 1)}, "does not lie on"),
        ({"data": np.full((150, 200), 7, np.uint16)}, "same value everywhere"),
        ({"data": np.full((150, 200), np.nan, np.float32)}, "no numbers"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(viewer, until, prediction, stain, changes, sentence):
    panel = add_both(viewer, prediction, stain)
    keywords = {"data": stain, "scale": (0.5, 0.5), "contrast_limits": (0, 1), **changes}
    panel.true_layer.choose(viewer.add_image(keywords.pop("data"), name="other", **keywords))
    panel.run_button.click()
    until(lambda: not panel.is_busy)
    assert sentence in panel.message.text()
    assert panel.comparison is None


def test_a_constant_prediction_and_one_layer_twice_are_told(viewer, until, stain):
    panel = add_both(viewer, np.full(stain.shape, 0.5, np.float32), stain)
    panel.run_button.click()
    until(lambda: not panel.is_busy)
    assert "field DAPI: it has the same value everywhere" in panel.message.text()
    panel.true_layer.choose(panel.predicted_layer.layer)
    panel.run_button.click()
    assert "the same layer" in panel.message.text()


def test_it_says_what_figures_of_one_image_are_worth(viewer, until, prediction, stain):
    panel = add_both(viewer, prediction, stain)
    run(panel, until)
    assert "If the model was trained on it, the figures mean little" in panel.notes.text()
    known = find_model(MODEL, "label").card.training["field_names"][0].partition(" t=")[0]
    panel.predicted_layer.layer.metadata["lincei"] = of_the_model(predicted_from=known)
    run(panel, until)
    assert "was trained on: the figures flatter it" in panel.notes.text()


def test_side_by_side_shows_truth_prediction_and_error(viewer, until, photograph, prediction, stain):
    panel = add_both(viewer, prediction, stain, sd=0.1, **of_the_model())
    panel.side_by_side.value = True
    run(panel, until)
    assert viewer.canvas.grid.enabled
    shown = [layer.name for layer in viewer.layers if layer.visible]
    assert shown == ["DAPI measured", "field DAPI", "field DAPI error"]
    photograph(viewer, "compare_side_by_side")
    panel.side_by_side.value = False
    assert not viewer.canvas.grid.enabled


def test_cancel_stops_in_the_middle(viewer, until, monkeypatch, prediction, stain):
    began = threading.Event()

    def endless(task: Any, *, progress: Any, cancelled: Any) -> None:
        began.set()
        while True:
            stop_if_cancelled(cancelled)

    monkeypatch.setattr("napari_plugin.compare.compare", endless)
    panel = add_both(viewer, prediction, stain)
    panel.run_button.click()
    until(began.is_set, "it has begun")
    panel.cancel_button.click()
    until(lambda: not panel.is_busy, "it has stopped")
    assert panel.comparison is None
    assert panel.error_layer is None


def test_a_copy_as_python_runs_and_gives_the_same(viewer, until, tmp_path, monkeypatch, prediction, stain):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "field.tif").touch()
    panel = add_both(viewer, prediction, stain, sd=0.1, **of_the_model(provenance={"source": "field.tif"}))
    figures = run(panel, until)
    for name in ("DAPI measured", "field DAPI", "field DAPI sd"):  # as the copied lines say
        tifffile.imwrite(tmp_path / f"{name}.tif", viewer.layers[name].data)
    panel.copy_python.trigger()
    text = QApplication.clipboard().text()
    assert "# Save the layer 'field DAPI' first as field DAPI.tif" in text
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(text, {})
    told = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in printed.getvalue().splitlines()}
    for name in ("Pearson r", "nRMSE", "SSIM", "CRPS"):
        assert told[name] == pytest.approx(figures[name], rel=1e-4)
    assert told["coverage"] == pytest.approx(figures["coverage of the 90 % interval"], abs=1e-3)
    panel.copy_command.trigger()
    assert QApplication.clipboard().text().startswith("lincei evaluate --input field.tif --label ")
