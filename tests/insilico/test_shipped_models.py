"""The models that come along: complete, small, honest, and of use on images they never saw."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import insilico
from lincei.errors import LinceiWarning
from lincei.metrics import pearson_r
from lincei.model import find_model, list_models
from lincei.model_check import check_model
from lincei.pattern import find_inputs
from sample_data.cells import simulate_cells

SHIPPED = ("motor-neurons", "simulated-cells")


def test_they_are_found_by_name():
    assert set(SHIPPED) <= {model.name for model in list_models("label")}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_every_engine_answers_their_test_as_the_trained_network_did(name, engine):
    report = check_model(find_model(name), engine)
    assert report.passed, report.describe()


@pytest.mark.parametrize("name", SHIPPED)
def test_their_card_says_whose_images_which_license_and_how_to_train_them_again(name):
    model = find_model(name)
    assert model.card.license
    assert model.card.training["command"].startswith("lincei train --input")
    assert "Images: " in model.file("README.md").read_text("utf-8")
    assert model.size_bytes < 8e6
    for figures in model.card.figures["test"].values():
        assert 0.85 <= figures["coverage_90"] <= 1
        assert figures["pearson_r"] > 0.5


def test_simulated_cells_never_seen_are_labeled():
    field = simulate_cells(4321, size_px=256)
    result = insilico.label(field.stack, "simulated-cells", statistics=("mean", "q05", "q95"))
    for i, name in enumerate(result["mean"].channel_names):
        truth = field.labels[name].read()[0, 0, 0]
        assert pearson_r(result["mean"].read()[0, i, 0], truth) > 0.8


def test_real_motor_neurons_give_nuclei_where_they_are_stained(real_data):
    """The field was trained on: this holds the way through, not the accuracy (see the card for that)."""
    folder = real_data / "isl_motor_neurons"
    stack = find_inputs([str(folder / "phase_z{z}.tif")])[0].open()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinceiWarning)
        result = insilico.label(stack, "motor-neurons", statistics=("mean", "sd"))
    for i, name in enumerate(("DAPI", "MAP2", "NFH")):
        truth = find_inputs([str(folder / f"{name.lower()}_confocal_maxproj.tif")])[0].open().read()[0, 0, 0]
        assert pearson_r(result["mean"].read()[0, i, 0], truth) > 0.6
    sd = result["sd"].read()[0, 0, 0]
    nuclei = result["mean"].read()[0, 0, 0] > 0.3
    assert np.median(sd[nuclei]) > 2 * np.median(sd[~nuclei])
