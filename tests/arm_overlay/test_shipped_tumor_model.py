"""The tumor model that comes with lincei: it runs wherever its card says, which says how good it is too."""

from __future__ import annotations

import numpy as np
import pytest

from arm_overlay.tumor_model import TumorModel
from lincei.image import open_image
from lincei.metrics import roc_auc
from lincei.model import Model, list_models
from lincei.model_check import compare


@pytest.fixture(scope="module")
def shipped() -> TumorModel:
    found = [model for model in list_models("tumor") if model.name == "tumor-breast"]
    assert found, "tumor-breast is not found by its name"
    return TumorModel(found[0])


def test_it_answers_as_it_did_when_it_was_trained(shipped):
    report = compare(shipped.model)
    assert report.passed, report.describe()


def test_it_has_a_network_for_every_usual_objective(shipped):
    sizes = {}
    for objective in ("4x", "10x", "20x", "40x"):
        choice = shipped.for_objective(objective)
        assert choice is not None
        assert 0.05 < choice.threshold < 0.95
        sizes[objective] = choice.pixel_size_um
    assert sizes["4x"] >= sizes["10x"] >= sizes["20x"] >= sizes["40x"]


def test_bare_glass_is_not_tumor(shipped):
    glass = np.clip(np.random.default_rng(0).normal(246, 2, (1, 3, 448, 448)), 0, 255)
    with shipped.open_engine() as engine:
        answer = engine.run(glass)["probability"][0, 0]
    margin = shipped.card.halo_px // shipped.downsampling
    assert answer[margin:-margin, margin:-margin].max() < 0.15
    # Beyond the border the network sees gray, which must not be outlined either.
    assert answer.max() < shipped.threshold


def test_its_card_states_slides_figures_and_limits(shipped):
    card = shipped.card
    assert len(card.training["groups"]) >= 8
    assert all(entry["groups"] for entry in card.figures["held_out"].values())
    text = shipped.model.file("README.md").read_text("utf-8")
    for words in ("Research use only", "few slides", "prostate", "CC BY 4.0", "lincei train-tumor --sets"):
        assert words in text


def test_it_outlines_metastases_that_it_learned_from(shipped: TumorModel, real_data):
    """No measure of how good it is (the card has that), but of whether it came here whole."""
    folder = real_data / "he_lymph_node_10x"
    scores, truth = [], []
    with shipped.open_engine() as engine:
        for name in ("10072", "10683"):
            colors = open_image(folder / "images" / f"{name}.png").read()[0, :, 0]
            mask = open_image(folder / "masks" / f"{name}.png").read()[0, :, 0].max(axis=0) > 127
            heat = engine.run(colors[None].astype(np.float32))["probability"][0, 0]
            cell = mask.shape[0] // heat.shape[0]
            scores.append(heat.ravel())
            truth.append(mask[cell // 2 :: cell, cell // 2 :: cell].ravel())
    assert roc_auc(np.concatenate(scores), np.concatenate(truth)) > 0.93


def test_its_network_can_be_trained_further(shipped: TumorModel):
    pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")
    assert isinstance(shipped.model, Model)
    assert shipped.model.network()["builder"] == "arm_overlay.network:build_network"
    assert shipped.model.has_keras()
