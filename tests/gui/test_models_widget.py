"""The widget that lists, shows, tests, installs and removes models."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import QFileDialog, QMessageBox

from lincei.model import Model, find_model, models_folder, write_card
from napari_plugin.models import Models
from napari_plugin.trainings import TRAININGS


@pytest.fixture
def panel(viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setenv("LINCEI_MODELS", str(tmp_path / "models"))
    _, shown = viewer.window.add_plugin_dock_widget("lincei", "Models")
    return shown


def finished(panel: Models, until: Any) -> str:
    until(lambda: not panel.is_busy, "the job has ended")
    return panel.message.text()


def copy_of(name: str, folder: Path, new_name: str) -> Path:
    """A shipped model under another name, as if somebody had trained it."""
    source = find_model(name)
    folder.mkdir()
    for file in source.card.files:
        (folder / file).write_bytes((source.folder / file).read_bytes())
    write_card(folder, dataclasses.replace(source.card, name=new_name))
    return folder


def test_shipped_models_are_listed_and_their_cards_are_readable(panel, photograph, viewer):
    names = [panel.list.item(row, 0).text() for row in range(panel.list.rowCount())]
    assert {"motor-neurons", "focus-fluorescence", "tumor-breast"} <= set(names)
    panel.choose("motor-neurons")
    card = panel.card.toPlainText()
    assert "Research use only" in card
    assert "Measured on data it was not trained on" in card
    assert "inside the 90 % interval" in card
    assert "Christiansen" in card
    assert "CC-BY-4.0" in card
    assert "<table" in panel.card.toHtml()
    assert "pearson_r" in panel.details.toPlainText()
    assert not panel.cover.isHidden()
    picture = photograph(viewer, "models")
    assert panel.card.verticalScrollBar().maximum() > 0
    assert panel.card.verticalScrollBar().value() == 0
    assert picture[..., :3].std() > 5
    panel.choose("focus-fluorescence")
    assert panel.cover.isHidden()
    assert "focus" in panel.card.toPlainText()


def test_a_test_says_how_far_off_each_engine_is(panel, until):
    panel.choose("simulated-cells")
    panel.run_button.click()
    text = finished(panel, until)
    assert text.startswith("simulated-cells: passed on ")
    assert "mean off by" in text
    assert "OpenVINO" in text or "openvino" in text
    assert "lincei models check simulated-cells" in panel.repetition().command


def test_the_code_that_is_copied_runs(panel, until, capsys):
    panel.choose("simulated-cells")
    panel.run_button.click()
    finished(panel, until)
    exec(panel.repetition().python, {})
    assert "mean off by" in capsys.readouterr().out


def test_a_model_is_installed_tested_replaced_only_when_asked_and_removed(
    panel, until, tmp_path, monkeypatch
):
    folder = copy_of("simulated-cells", tmp_path / "trained", "my-cells")
    panel.install(folder)
    assert finished(panel, until).startswith("my-cells is installed")
    assert panel.chosen is not None
    assert panel.chosen.name == "my-cells"
    assert panel.repetition().command == f"lincei models install {folder}"
    panel.install(folder)
    assert "there is a model already" in finished(panel, until)
    panel.replace.setChecked(True)
    panel.install(folder)
    assert finished(panel, until).startswith("my-cells is installed")

    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    panel.remove_button.click()
    assert (models_folder() / "my-cells").is_dir()
    panel.remove_button.click()
    assert panel.message.text() == "my-cells was removed."
    assert not (models_folder() / "my-cells").exists()


def test_a_model_that_was_trained_meanwhile_is_listed_and_the_chosen_one_stays_so(panel, tmp_path):
    panel.choose("ecoli")
    shutil.copytree(
        copy_of("simulated-cells", tmp_path / "trained", "my-cells"), models_folder() / "my-cells"
    )
    TRAININGS.models_changed.emit()
    assert "my-cells" in [panel.list.item(row, 0).text() for row in range(panel.list.rowCount())]
    assert panel.chosen.name == "ecoli"


def test_what_is_installed_and_removed_here_is_announced_to_the_other_widgets(
    viewer, panel, until, tmp_path, monkeypatch
):
    _, learning = viewer.window.add_plugin_dock_widget("lincei", "Learn a label")
    start_from = learning.options.widgets["start_from"]
    panel.install(copy_of("simulated-cells", tmp_path / "trained", "my-cells"))
    finished(panel, until)
    assert "my-cells" in start_from.choices
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    panel.remove_button.click()
    assert "my-cells" not in start_from.choices


def test_a_shipped_model_stays(panel, monkeypatch):
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    panel.choose("motor-neurons")
    panel.remove_button.click()
    assert "came with the program and stays" in panel.message.text()
    assert find_model("motor-neurons")


def test_a_file_that_is_no_model_is_refused_in_a_sentence(panel, until, tmp_path, monkeypatch):
    (tmp_path / "holiday.zip").write_bytes(b"not an archive")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "holiday.zip"), ""))
    panel.install_file.click()
    assert "holiday.zip" in finished(panel, until)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    panel.install_folder.click()
    assert "rdf.yaml" in finished(panel, until)


def test_a_damaged_model_fails_its_test_and_a_broken_one_says_why(panel, until, tmp_path):
    folder = copy_of("simulated-cells", models_folder(), "damaged") if not models_folder().exists() else None
    assert folder is not None
    damaged = models_folder().rename(tmp_path / "aside")
    models_folder().mkdir()
    damaged = damaged.rename(models_folder() / "damaged")
    model = Model.from_folder(damaged)
    expected = damaged / model.card.outputs[0].test_file
    np.save(expected, np.load(expected) + 1)
    (models_folder() / "broken").mkdir()
    (models_folder() / "broken" / "rdf.yaml").write_text("type: [")
    panel.refresh()
    panel.choose("damaged")
    panel.run_button.click()
    text = finished(panel, until)
    assert "FAILED" in text
    assert "SHA-256 differs" in text
    panel.choose("broken")
    assert panel.card.toPlainText().startswith("This model cannot be used: ")
    assert not panel.run_button.isEnabled()


def test_a_card_cannot_load_anything(panel, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    panel.card.show_markdown(f"![picture](file://{secret}) <b>bold</b>")
    assert "<b>bold</b>" in panel.card.toPlainText()
    kinds = QTextDocument.ResourceType
    from qtpy.QtCore import QUrl

    assert bytes(panel.card.loadResource(kinds.ImageResource.value, QUrl(f"file://{secret}"))) == b""
