"""Learning a label from layers: a real window, a real worker process, tiny simulated fields."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from lincei.errors import LinceiWarning
from lincei.image import save_image
from lincei.model import list_models, models_folder
from napari_plugin import trainings
from napari_plugin.learn import LearnLabel
from napari_plugin.learning_curve import LearningCurve
from napari_plugin.trainings import TRAININGS, is_stopped, stopped_trainings
from sample_data.cells import SimulatedField, simulate_cells

_LONG_S = 900.0  # TensorFlow takes minutes to start on a machine that does other things
# Far more than the tests wait for: they end trainings by a button.
_MINUTES = 60.0
_SMALL = {"start_from": "scratch", "width": 8, "scales": 2, "components": 1, "crop_px": 32}


@pytest.fixture(scope="module")
def field() -> SimulatedField:
    return simulate_cells(3, labels=("nuclei",), size_px=256, planes=2, cells=12)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINCEI_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(TRAININGS, "current", None)


def opened(viewer: Any, name: str = "Learn a label") -> LearnLabel:
    widget = LearnLabel(viewer)
    viewer.window.add_dock_widget(widget, name=name)
    return widget


def add_layers(viewer: Any, field: SimulatedField) -> None:
    stack, stain = field.stack, field.labels["nuclei"]
    viewer.add_image(
        stack.read()[0, 0], name="cells", scale=(2.0, 0.65, 0.65), units="um", axis_labels=("z", "y", "x")
    )
    viewer.add_image(
        stain.read()[0, 0, 0],
        name="cells nuclei",
        scale=(0.65, 0.65),
        units="um",
        blending="additive",
        colormap="blue",
    )


def fill(widget: LearnLabel, name: str) -> None:
    for option, value in _SMALL.items():
        widget.options.set(option, value)
    widget.options.set("max_minutes", _MINUTES)
    widget.name.setText(name)


def children() -> list[str]:
    """Return the commands of this process's children that run Python."""
    listed = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in listed.stdout.splitlines() if "appose" in line]


def none_left(until: Callable[..., None]) -> None:
    until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith(("lincei", "Appose"))],
        "the threads have ended",
        _LONG_S,
    )
    assert children() == []


def test_a_model_is_learned_and_labels(viewer, until, photograph, field, monkeypatch):
    add_layers(viewer, field)
    widget = opened(viewer)
    row = widget.pairs[0]
    assert (row.input.layer.name, row.stain.layer.name) == ("cells", "cells nuclei")
    assert row.label.text() == "nuclei"
    assert widget.pixel_size.value() == pytest.approx(0.65)
    assert widget.z_step.value() == pytest.approx(2.0)
    fill(widget, "tiny-nuclei")
    announced: list[bool] = []
    TRAININGS.models_changed.connect(lambda: announced.append(True))
    widget.run_button.click()
    training = widget.training
    assert training is not None, widget.message.text()
    assert not widget.run_button.isEnabled()
    until(lambda: training.losses or not training.is_running, "it learns", _LONG_S)
    assert training.is_running, training.error
    assert training.registration
    assert "nuclei" in widget.registration.text()

    # Closed, it goes on; another widget shows it.
    viewer.window.remove_dock_widget(widget)
    seen = len(training.losses)
    until(lambda: len(training.losses) > seen + 2 and training.preview is not None, "it goes on", _LONG_S)
    widget = opened(viewer, "Learn a label again")
    assert widget.training is training
    # What it shows is that training, not one that was stopped.
    assert widget.options.values()["crop_px"] == _SMALL["crop_px"]
    assert widget.stopped_chooser.isHidden()
    assert widget.run_button.text() == "Learn"
    assert len(widget.curve.losses) >= seen + 2
    assert widget.curve.correlations["nuclei"]
    assert not widget.preview.pixmap().isNull()
    picture = photograph(viewer, "learn_label_learning")
    assert picture[..., :3].std() > 5

    widget.finish_button.click()
    assert not widget.finish_button.isEnabled()
    until(lambda: not training.is_running, "it is finished", _LONG_S)
    assert training.state == trainings.FINISHED, training.error
    assert announced
    assert "tiny-nuclei" in [model.name for model in list_models("label")]
    assert "tiny-nuclei" in widget.options.widgets["start_from"].choices
    assert "correlation" in widget.figures.text()
    assert not (models_folder() / "tiny-nuclei.training").exists()
    photograph(viewer, "learn_label_finished")
    none_left(until)

    from insilico import label

    with warnings.catch_warnings():
        # A network that saw one field for a few steps knows too little to call even that field its own.
        warnings.filterwarnings("ignore", "simulated_003: this image does not look like", LinceiWarning)
        mean = label(field.stack, model="tiny-nuclei", engine="onnxruntime")["mean"]
    assert mean.shape[3:] == (256, 256)
    assert np.isfinite(mean.read()).all()

    # The name is taken now: it asks before it replaces.
    widget.run_button.click()
    assert "already" in widget.message.text()
    assert widget.replace.isVisibleTo(widget)


def test_a_training_is_stopped_resumed_and_kept_when_the_window_closes(qt_application, until, field):
    import napari

    viewer = napari.Viewer(show=True)  # of its own, for it is closed in the middle
    add_layers(viewer, field)
    widget = opened(viewer)
    fill(widget, "stopped")
    widget.run_button.click()
    training = widget.training
    until(lambda: len(training.losses) > 2 or not training.is_running, "it learns", _LONG_S)
    assert training.is_running, training.error
    widget.cancel_button.click()
    until(lambda: not training.is_running, "it is stopped", _LONG_S)
    assert training.state == trainings.STOPPED
    assert "kept" in widget.message.text()
    assert widget.run_button.text() == "Resume"
    assert is_stopped("stopped")
    learned = trainings.kept_history("stopped")

    widget.run_button.click()
    resumed = widget.training
    assert resumed is not training
    assert resumed.request.options.resume
    assert len(resumed.losses) == len(learned)
    until(lambda: len(resumed.losses) > len(learned) or not resumed.is_running, "it goes on", _LONG_S)
    assert resumed.is_running, resumed.error
    assert resumed.losses[-1][0] > training.losses[-1][0]

    viewer.close()
    QApplication.sendPostedEvents(None, 52)  # what is to be deleted later, now
    until(lambda: not resumed.is_running, "it is stopped with the window", _LONG_S)
    assert resumed.state == trainings.STOPPED
    none_left(until)
    (kept,) = stopped_trainings()
    assert (kept.name, kept.pairs) == ("stopped", (("cells", "cells nuclei", "nuclei"),))


def test_a_stopped_training_of_another_day_is_offered(viewer, field, tmp_path):
    options = {**trainings.TrainOptions().to_json(), **_SMALL, "seed": 4}
    folder = models_folder() / "yesterday.training"
    folder.mkdir(parents=True)
    notes = {"pairs": [["cells", "cells nuclei", "DNA"]], "options": options}
    (folder / "napari.json").write_text(json.dumps(notes))
    np.savez(folder / "training.npz", header=json.dumps({"history": [{"steps": 20, "loss": 1.5}]}))
    widget = opened(viewer)
    widget.stopped_chooser.setCurrentIndex(1)
    widget.stopped_chooser.activated.emit(1)
    assert "not open: cells, cells nuclei" in widget.message.text()
    add_layers(viewer, field)
    widget.stopped_chooser.activated.emit(1)
    assert widget.name.text() == "yesterday"
    assert widget.run_button.text() == "Resume"
    assert widget.options.values()["seed"] == 4
    assert widget.pairs[0].label.text() == "DNA"
    assert trainings.kept_history("yesterday") == [{"steps": 20.0, "loss": 1.5}]
    widget.anew.setChecked(True)
    assert widget.run_button.text() == "Learn"
    trainings.forget_stopped("yesterday")
    assert not folder.exists()


def test_an_error_in_training_is_a_sentence(viewer, until, field):
    viewer.add_image(field.stack.read()[0, 0], name="cells", scale=(2, 0.65, 0.65), units="um")
    viewer.add_image(np.full((256, 256), 7, np.uint16), name="dark", scale=(0.65, 0.65), units="um")
    widget = opened(viewer)
    fill(widget, "from-nothing")
    widget.run_button.click()
    training = widget.training
    until(lambda: not training.is_running, "it fails", _LONG_S)
    assert training.state == trainings.FAILED
    assert "dark: channel 0 has (nearly) the same value everywhere" in widget.message.text()
    assert widget.run_button.isEnabled()
    assert widget.run_button.text() == "Learn"
    none_left(until)


def test_what_cannot_be_learned_from_is_said_before_a_worker_starts(viewer, field):
    widget = opened(viewer)
    widget.run_button.click()
    assert "needs a name" in widget.message.text()
    widget.name.setText("a/b")
    widget.run_button.click()
    assert "needs a name" in widget.message.text()
    widget.name.setText("joint")
    widget.run_button.click()
    assert "where new ones are not written" in widget.message.text()
    fill(widget, "sizes")
    widget.run_button.click()
    assert "image layer is missing" in widget.message.text()
    add_layers(viewer, field)
    row = widget.pairs[0]
    assert row.input.layer is not row.stain.layer
    row.stain.choose(row.input.layer)
    widget.run_button.click()
    assert "the same layer" in widget.message.text()
    row.stain.choose(viewer.layers["cells nuclei"])
    row.set_label(" ")
    widget.run_button.click()
    assert "label has no name" in widget.message.text()
    row.set_label("nuclei")
    viewer.add_image(np.zeros((256, 250)), name="narrow")
    row.stain.choose(viewer.layers["narrow"])
    widget.run_button.click()
    assert widget.message.text().startswith(
        "narrow: it is 250 x 256 pixels, and its input cells is 256 x 256"
    )
    row.stain.choose(viewer.layers["cells nuclei"])
    second = widget.add_pair()
    second.input.choose(viewer.layers["cells"])
    second.stain.choose(viewer.layers["cells nuclei"])
    widget.run_button.click()
    assert "given twice" in widget.message.text()
    widget.remove_pair(second)
    widget.options.set("crop_px", 35)
    widget.run_button.click()
    assert "--" not in widget.message.text()
    assert "“Crop (px)”" in widget.message.text()
    assert TRAININGS.current is None


def test_the_curves_share_their_steps_and_high_first_losses_do_not_flatten_them(qt_application):
    curve = LearningCurve()
    losses = [(10 * i, 1 / i if i else 100.0) for i in range(40)]
    curve.show_curves(losses, {"nuclei": [(100, 0.2), (390, 0.61)], "tubulin": [(100, -0.1), (390, 0.3)]})
    assert list(curve.correlation_plot.series) == ["nuclei 0.61", "tubulin 0.30"]
    low_x, high_x, _, high_loss = curve.loss_plot._limits()
    assert curve.correlation_plot._limits() == (low_x, high_x, -0.1, 1.0)
    assert (low_x, high_x) == (0, 390)
    assert high_loss < 2
    curve.resize(300, 400)
    image = curve.grab().toImage()
    drawn = {image.pixelColor(x, y).name() for x in range(300) for y in range(400)}
    assert "#e69f00" in drawn  # the first label's color


def test_a_removed_pair_lets_go_of_the_viewer(viewer, field):
    add_layers(viewer, field)
    widget = opened(viewer)
    widget.remove_pair(widget.add_pair())
    QApplication.sendPostedEvents(None, 52)
    viewer.add_image(np.zeros((8, 8)), name="later")
    assert len(widget.pairs) == 1


def test_the_pixel_size_is_asked_for_where_the_layer_does_not_know_it(viewer):
    viewer.add_image(np.zeros((3, 32, 32)), name="stack")
    viewer.add_image(np.zeros((32, 32)), name="stack DAPI")
    widget = opened(viewer)
    assert widget.pixel_size.isEnabled()
    assert widget.pixel_size.value() == 0
    widget.pixel_size.setValue(0.5)
    widget.z_step.setValue(1.5)
    widget.name.setText("sizes")
    (pair,) = widget._request().pairs
    assert (pair.image.pixel_size_um, pair.image.z_step_um) == (0.5, 1.5)
    widget.input_axes.setCurrentIndex(1)  # time
    assert not widget.z_step.isVisibleTo(widget)


def test_what_was_learned_is_copied(viewer, field, tmp_path, monkeypatch):
    save_image(field.stack, tmp_path / "in_a.ome.tif")
    save_image(field.labels["nuclei"], tmp_path / "nuclei_a.ome.tif")
    viewer.open(tmp_path / "in_a.ome.tif", plugin="napari")
    viewer.open(tmp_path / "nuclei_a.ome.tif", plugin="napari")
    viewer.layers[0].scale, viewer.layers[0].units = (2, 0.65, 0.65), "um"
    widget = opened(viewer)
    row = widget.pairs[0]
    row.input.choose(viewer.layers[0])
    row.stain.choose(viewer.layers[1])
    row.set_label("nuclei")
    fill(widget, "copied")
    monkeypatch.setattr(
        TRAININGS, "start", lambda request, window: widget._attach(trainings.Training(request))
    )
    widget.run_button.click()
    assert widget.training is not None, widget.message.text()
    widget.copy_python.trigger()
    calls: list[Any] = []
    import insilico

    monkeypatch.setattr(insilico, "train", lambda *a, **k: calls.append((a, k)), raising=False)
    exec(QApplication.clipboard().text(), {})
    ((pairs, out), keywords) = calls[0]
    assert out == models_folder() / "copied"
    assert keywords == {**_SMALL, "max_minutes": _MINUTES}
    np.testing.assert_array_equal(pairs[0].image.read(), field.stack.read())
    assert list(pairs[0].labels) == ["nuclei"]

    widget.copy_command.trigger()
    from typer.testing import CliRunner

    import insilico.train_files
    from insilico.commands import train_app

    monkeypatch.setattr(insilico.train_files, "train_files", lambda *a, **k: 1 / 0)
    import shlex

    words = shlex.split(QApplication.clipboard().text())
    assert words[:2] == ["lincei", "train"]
    outcome = CliRunner().invoke(train_app(), words[2:])
    assert isinstance(outcome.exception, ZeroDivisionError), outcome.output
    widget.training.state = trainings.STOPPED


def test_where_there_is_no_tensorflow_another_python_is_asked_for(
    viewer, until, tmp_path, monkeypatch, field
):
    monkeypatch.setattr("napari_plugin.learn.has_tensorflow", lambda: False)
    add_layers(viewer, field)
    widget = opened(viewer)
    assert widget.python_box.isVisibleTo(widget)
    fill(widget, "elsewhere")
    widget.run_button.click()
    assert "no TensorFlow" in widget.message.text()
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/sh\necho '" + '{"has": {"lincei": true, "appose": true}, "lincei": ""}' + "'\n")
    bare.chmod(bare.stat().st_mode | stat.S_IXUSR)
    for program, sentence in (
        (tmp_path / "nowhere", "there is no such program"),
        (bare, "this Python has no keras, tensorflow"),
        (Path(sys.executable), "which has TensorFlow"),
    ):
        widget.python.setText(str(program))
        widget.python.editingFinished.emit()
        until(lambda: not widget.is_busy, "it is checked", _LONG_S)
        assert sentence in widget.message.text()
    assert trainings.remembered_python() == sys.executable
    assert opened(viewer, "again").python.text() == sys.executable
