"""The widget "Predict fluorescence" in a real window, with the models that are shipped."""

from __future__ import annotations

import functools
import shlex
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

import napari_plugin.predict
from insilico.labeling import label
from lincei.image import Image, open_image, save_image
from lincei.pattern import find_inputs
from napari_plugin.layers import image_of
from napari_plugin.predict import PredictFluorescence
from sample_data.cells import simulate_cells

ROUNDING = 1e-4
CELLS = "simulated-cells"


@functools.cache
def cells(frames: int = 1) -> NDArray[np.uint16]:
    """Return simulated cells, shape (frames, 7, 144, 176)."""
    field = simulate_cells(1000, size_px=176, planes=7, frames=frames)
    return field.stack.read()[:, 0, :, :144]


def placed(ndim: int = 3) -> dict[str, Any]:
    """Return where the simulated stack lies, in um."""
    scale, units = (1.0, 2.0, 0.65, 0.65)[-ndim:], ("second", "um", "um", "um")[-ndim:]
    return {"scale": scale, "units": units}


@pytest.fixture
def open_widget(viewer: Any) -> Any:
    def opened(*models: str) -> PredictFluorescence:
        panel = PredictFluorescence(viewer)
        viewer.window.add_dock_widget(panel, name="Predict fluorescence")
        panel.models.check(models or (CELLS,))
        return panel

    return opened


def run(panel: PredictFluorescence, until: Any) -> None:
    panel.run_button.click()
    until(lambda: not panel.is_busy, "it is predicted")


def preview(panel: PredictFluorescence, until: Any) -> None:
    panel.preview_button.click()
    until(lambda: not panel.is_busy, "the preview is there")


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers]


def world(layer: Any, *at: float) -> NDArray[np.float64]:
    return np.asarray(layer.data_to_world(at), float)


def test_each_label_becomes_a_layer_in_its_color_on_the_input(viewer, until, open_widget, photograph):
    source = viewer.add_image(cells()[0], name="stack", **placed())
    panel = open_widget()
    assert panel.options.values()["pixel_size_um"] == pytest.approx(0.65)
    assert panel.options.values()["z_step_um"] == pytest.approx(2.0)
    assert panel.hint.isHidden()
    run(panel, until)
    assert panel.message.text() == "" or "not look like" in panel.message.text()
    assert names(viewer) == [
        "stack",
        "stack cytoplasm sd",
        "stack nuclei sd",
        "stack cytoplasm",
        "stack nuclei",
    ]
    expected = label(image_of(source, "ZYX"), CELLS)
    nuclei, uncertainty = viewer.layers["stack nuclei"], viewer.layers["stack nuclei sd"]
    np.testing.assert_allclose(nuclei.data, expected["mean"].read()[0, 0, 0], atol=ROUNDING)
    np.testing.assert_allclose(uncertainty.data, expected["sd"].read()[0, 0, 0], atol=ROUNDING)
    assert nuclei.blending == "additive"
    assert nuclei.visible
    assert not source.visible
    assert not uncertainty.visible
    np.testing.assert_allclose(nuclei.colormap.map(np.array([1.0]))[0], [0, 0, 1, 1], atol=0.01)
    assert tuple(nuclei.contrast_limits) == (0.0, 1.0)
    assert [str(unit) for unit in nuclei.units] == ["micrometer"] * 2
    np.testing.assert_allclose(world(nuclei, 143, 175), world(source, 0, 143, 175)[1:])
    assert "Predicted nuclei, cytoplasm" in panel.summary.text()
    photograph(viewer, "predict_simulated")

    run(panel, until)
    assert len(viewer.layers) == 5
    assert names(viewer)[-1] == "stack nuclei"


def test_a_preview_is_the_crop_of_the_whole_and_makes_way_for_it(viewer, until, open_widget, monkeypatch):
    monkeypatch.setattr(napari_plugin.predict, "PREVIEW_PX", 61)
    source = viewer.add_image(cells()[0], name="stack", **placed())
    panel = open_widget()
    preview(panel, until)
    preview(panel, until)
    assert names(viewer).count("stack nuclei preview") == 1
    shown = viewer.layers["stack nuclei preview"]
    seen = np.asarray(shown.data)
    assert seen.shape == (61, 61)
    begin = np.rint(source.world_to_data((0, *world(shown, 0, 0)))[1:]).astype(int)
    assert begin.min() > 0
    run(panel, until)
    assert not [name for name in names(viewer) if "preview" in name]
    whole = np.asarray(viewer.layers["stack nuclei"].data)
    part = whole[begin[0] : begin[0] + 61, begin[1] : begin[1] + 61]
    np.testing.assert_allclose(seen, part, atol=ROUNDING)
    assert seen.std() > 20 * ROUNDING


def test_a_time_series_keeps_its_time_and_is_seen_at_every_z(viewer, until, open_widget):
    movie = viewer.add_image(cells(2), name="movie", **placed(4))
    panel = open_widget()
    assert panel.axes.currentText() == "time, z, y, x"
    viewer.dims.set_point(0, 1.0)
    preview(panel, until)
    shown = viewer.layers["movie nuclei preview"]
    assert shown.data.shape == (1, 1, 144, 176)
    run(panel, until)
    result = viewer.layers["movie nuclei"]
    assert result.data.shape == (2, 1, 144, 176)
    np.testing.assert_allclose(shown.data[0, 0], result.data[1, 0], atol=ROUNDING)
    for t, z in ((0, 0), (1, 6), (0, 3)):
        at = world(movie, t, z, 10, 20)
        np.testing.assert_allclose(np.rint(result.world_to_data(at)), (t, 0, 10, 20))


def test_a_turned_and_moved_layer_has_its_result_on_it(viewer, until, open_widget):
    source = viewer.add_image(
        cells()[0],
        name="turned",
        scale=(2000, 650, 650),
        units=("nm",) * 3,
        translate=(0, 5e4, -3e4),
        rotate=30,
    )
    panel = open_widget()
    assert panel.options.values()["pixel_size_um"] == pytest.approx(0.65)
    panel.labels.check(["nuclei"])
    panel.statistics.check(["median"])
    run(panel, until)
    result = viewer.layers["turned nuclei median"]
    assert result.visible
    for y, x in ((0, 0), (143, 0), (50, 175)):
        np.testing.assert_allclose(world(result, y, x), world(source, 0, y, x)[1:])


def test_a_scale_that_the_layer_does_not_say_is_asked_for(viewer, until, open_widget):
    viewer.add_image(cells()[0], name="stack")
    panel = open_widget()
    assert not panel.hint.isHidden()
    assert "works at 0.65 um" in panel.hint.text()
    panel.labels.check(["nuclei"])
    run(panel, until)
    assert '"Pixel size" above' in panel.message.text()
    assert "--" not in panel.message.text()
    assert "stack nuclei" in names(viewer)
    panel.options.set("pixel_size_um", 0.65)
    panel.options.set("z_step_um", 2.0)
    assert panel.hint.isHidden()


def test_a_channel_of_many_and_all_five_axes(viewer, until, open_widget):
    other = np.zeros_like(cells()[0])
    values = np.stack([other, cells()[0]])[None]
    source = viewer.add_image(values, name="five", axis_labels=("t", "c", "z", "y", "x"))
    panel = open_widget()
    panel.channel.setCurrentIndex(1)
    panel.options.set("pixel_size_um", 0.65)
    panel.options.set("z_step_um", 2.0)
    run(panel, until)
    result = viewer.layers["five nuclei"]
    assert result.data.shape == (1, 1, 1, 144, 176)
    expected = label(image_of(source, "TCZYX", pixel_size_um=0.65, z_step_um=2.0), CELLS, channel="1")
    np.testing.assert_allclose(result.data[0, 0, 0], expected["mean"].read()[0, 0, 0], atol=ROUNDING)
    panel.channel.setCurrentIndex(0)
    run(panel, until)
    assert "nothing to see in it" in panel.message.text()


def test_layers_that_cannot_be_predicted_from_are_refused_in_a_sentence(viewer, until, open_widget):
    panel = open_widget()
    run(panel, until)
    assert "there is no image to predict from" in panel.message.text()
    viewer.add_labels(np.zeros((32, 32), int), name="labels")
    assert panel.layer.count() == 0
    holed = cells()[0].astype("float32")
    holed[3, 20, 20] = np.nan
    refused = {
        "holed": (holed, False, "pixels that are no numbers"),
        "color": (np.zeros((32, 32, 3), np.uint8), True, "color (RGB) image"),
        "dot": (np.ones((1, 1)), False, "too few pixels"),
        "flat": (np.ones((64, 64)), False, "nothing to see in it"),
    }
    for name, (pixels, rgb, sentence) in refused.items():
        panel.layer.choose(viewer.add_image(pixels, name=name, rgb=rgb))
        assert panel.layer.layer.name == name
        for button in (panel.run_button, panel.preview_button):
            button.click()
            until(lambda: not panel.is_busy)
            assert sentence in panel.message.text()
            assert name in panel.message.text()
    assert sorted(names(viewer)) == sorted(["labels", *refused])
    panel.models.check([])
    panel.run_button.click()
    assert "no model is chosen" in panel.message.text()


def test_a_large_result_grows_in_a_file_while_the_window_answers(
    viewer, until, open_widget, monkeypatch, tmp_path
):
    monkeypatch.setattr(napari_plugin.predict, "_TILE_PX", 48)
    monkeypatch.setattr(napari_plugin.predict, "_OVERVIEW_PX", 60)
    monkeypatch.setattr(napari_plugin.predict, "_REFRESH_S", 0.0)
    source = viewer.add_image(
        [cells()[0], cells()[0][:, ::2, ::2]], multiscale=True, name="large", **placed()
    )
    panel = open_widget()
    panel.folder.setText(str(tmp_path / "results"))
    answered = threading.Event()
    write = napari_plugin.predict._Growing.__setitem__

    def write_and_wait(growing: Any, key: Any, pixels: Any) -> None:
        """Write a tile, and go on only when the window has come round to look at it."""
        write(growing, key, pixels)
        answered.clear()
        assert answered.wait(300), "the window did not answer while it was computed"

    monkeypatch.setattr(napari_plugin.predict._Growing, "__setitem__", write_and_wait)
    ticks: list[int] = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(1)
    grown: list[float] = []

    def watched() -> bool:
        if panel.is_busy and "large nuclei (in progress)" in names(viewer):
            layer = viewer.layers["large nuclei (in progress)"]
            grown.append(float(np.count_nonzero(layer.data)))
            assert layer.data.shape == (48, 59)
        answered.set()
        return not panel.is_busy

    panel.run_button.click()
    until(watched, "the result is complete")
    timer.stop()
    assert len(ticks) >= 12, "its timer stood still"
    assert len(set(grown)) > 2, "it was not seen to grow"
    assert sorted(grown) == grown
    expected = label(image_of(source, "ZYX"), CELLS)
    for statistic, suffix in (("mean", ""), ("sd", ".sd")):
        kept = open_image(tmp_path / "results" / f"large{suffix}.ome.zarr")
        np.testing.assert_allclose(kept.read(), expected[statistic].read(), atol=ROUNDING)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "large.ome.zarr",
        "large.sd.ome.zarr",
    ]
    layer = viewer.layers["large nuclei"]
    np.testing.assert_allclose(np.asarray(layer.data), expected["mean"].read()[0, 0, 0], atol=ROUNDING)
    np.testing.assert_allclose(world(layer, 143, 175), world(source, 0, 143, 175)[1:])
    assert str(tmp_path / "results") in panel.summary.text()


@pytest.mark.parametrize("into_folder", [False, True])
def test_cancel_in_the_middle_leaves_no_half_layer_and_no_file(
    viewer, until, open_widget, monkeypatch, tmp_path, into_folder
):
    monkeypatch.setattr(napari_plugin.predict, "_TILE_PX", 16)
    viewer.add_image(cells()[0], name="stack", **placed())
    panel = open_widget()
    if into_folder:
        panel.folder.setText(str(tmp_path / "results"))
    panel.run_button.click()
    until(lambda: panel.progress_bar.maximum() > 0 and panel.progress_bar.value() > 0, "it has begun")
    assert ("stack nuclei (in progress)" in names(viewer)) == into_folder
    panel.cancel_button.click()
    until(lambda: not panel.is_busy, "it has stopped")
    assert panel.message.text().startswith("Stopped.")
    assert names(viewer) == ["stack"]
    assert not list(tmp_path.rglob("*.zarr"))
    assert not list(tmp_path.rglob("*.part"))
    assert panel.preview_button.isEnabled()


def test_a_widget_that_is_closed_takes_its_half_layers_along(
    viewer, until, open_widget, monkeypatch, tmp_path
):
    monkeypatch.setattr(napari_plugin.predict, "_TILE_PX", 16)
    viewer.add_image(cells()[0], name="stack", **placed())
    panel = open_widget()
    panel.folder.setText(str(tmp_path / "results"))
    panel.run_button.click()
    until(lambda: "stack nuclei (in progress)" in names(viewer), "it has begun")
    viewer.window.remove_dock_widget(panel)
    until(
        lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("lincei")],
        "its thread has ended",
    )
    assert names(viewer) == ["stack"]


def test_what_was_run_runs_again_as_python_and_as_a_command(
    viewer, until, open_widget, tmp_path, monkeypatch
):
    from lincei.cli import main

    image = Image.from_array(cells()[0], "ZYX", pixel_size_um=0.65, z_step_um=2.0, name="cells")
    path = save_image(image, tmp_path / "cells.ome.tif")
    viewer.open(str(path), plugin="napari")
    viewer.layers[0].name = "stack"
    monkeypatch.chdir(tmp_path)
    panel = open_widget()
    panel.options.set("pixel_size_um", 0.7)
    panel.options.set("z_step_um", 2.0)
    panel.labels.check(["nuclei"])
    run(panel, until)
    shown = np.asarray(viewer.layers["stack nuclei"].data)
    panel.copy_python.trigger()
    python = QApplication.clipboard().text()
    scope: dict[str, Any] = {}
    exec(python, scope)
    np.testing.assert_allclose(scope["results"]["mean"].read()[0, 0, 0], shown, atol=ROUNDING)
    panel.copy_command.trigger()
    command = QApplication.clipboard().text()
    assert command.startswith("lincei label ")
    assert main(shlex.split(command)[1:]) == 0
    np.testing.assert_allclose(open_image("predicted/cells.ome.tif").read()[0, 0, 0], shown, atol=ROUNDING)


def test_of_a_layer_without_a_file_the_copy_says_to_save_it(
    viewer, until, open_widget, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    layer = viewer.add_image(cells()[0], name="stack", **placed())
    panel = open_widget()
    panel.labels.check(["nuclei"])
    run(panel, until)
    repetition = panel.repetition()
    assert repetition is not None
    assert "Save" in repetition.python
    layer.save("stack.tif")
    scope: dict[str, Any] = {}
    exec(repetition.python, scope)
    shown = np.asarray(viewer.layers["stack nuclei"].data)
    np.testing.assert_allclose(scope["results"]["mean"].read()[0, 0, 0], shown, atol=ROUNDING)


def test_the_models_labels_follow_what_is_chosen(viewer, open_widget):
    panel = open_widget("motor-neurons")
    assert panel.labels.checked() == ["DAPI", "MAP2", "NFH"]
    panel.labels.check(["MAP2"])
    panel.models.check([CELLS, "motor-neurons"])
    assert set(panel.labels.names()) == {"DAPI", "MAP2", "NFH", "nuclei", "cytoplasm"}
    assert "DAPI" not in panel.labels.checked()
    assert "nuclei" in panel.labels.checked()


def test_real_motor_neurons_are_previewed_and_photographed(viewer, until, open_widget, photograph, real_data):
    stack = find_inputs([str(real_data / "isl_motor_neurons" / "phase_z{z}.tif")])[0].open()
    pixels = stack.read()[0, 0]
    viewer.add_image(pixels, name="motor neurons", metadata={"lincei": {"modality": "phase contrast"}})
    panel = open_widget("motor-neurons")
    assert panel.options.values()["modality"] == "phase contrast"
    assert panel.hint.isHidden()
    panel.preview_button.click()
    until(lambda: not panel.is_busy, "the preview is there", 900)
    shown = viewer.layers["motor neurons DAPI preview"]
    assert viewer.layers["motor neurons"].visible
    assert max(shown.data.shape) == napari_plugin.predict.PREVIEW_PX
    assert 0.3 < np.asarray(shown.data).max() < 2, "nuclei are seen where there are some"
    photograph(viewer, "predict_motor_neurons_preview")
