"""What a tumor model's card says is read in one place, and a card that cannot be used is refused by name."""

from __future__ import annotations

import dataclasses

import pytest
from tiny_tumor_models import CLASSES, write_all_kinds, write_tiny_model

from arm_overlay.tumor_model import NUMBER, POINTS, PROBABILITY_MAP, TumorModel, magnification
from lincei.errors import LinceiError
from lincei.model import Model

pytest.importorskip("onnx", reason="onnx is not installed")

TABLE = {"10x": {"network": "", "pixel_size_um": 2.0, "threshold": 0.4}, "20x": {"pixel_size_um": 1.0}}


def with_settings(model: Model, **settings) -> Model:
    """The same model with another card."""
    return Model(model.folder, dataclasses.replace(model.card, settings={**model.card.settings, **settings}))


def test_every_kind_of_output_is_known(tmp_path):
    for kind, model in write_all_kinds(tmp_path).items():
        opened = TumorModel.open(model.folder)
        assert opened.kind == kind
        with opened.open_engine() as engine:
            (answer,) = engine.run(model.test_input()).values()
        assert len(answer) == 1
    assert TumorModel.open(tmp_path / "tiny-class-probabilities").class_names == CLASSES
    assert TumorModel.open(tmp_path / "tiny-points").point_name == "nucleus"
    number = TumorModel.open(tmp_path / "tiny-number")
    assert (number.number_name, number.number_unit, number.downsampling) == ("dark area", "%", 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"output_kind": "boxes"}, "'boxes', which cannot be shown"),
        ({"output_kind": None}, "does not say what kind"),
        ({"output_kind": POINTS}, "no output 'points'"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"objectives": {"20 times": {}}}, "'20 times' is no objective"),
        ({"objectives": {"20x": {"pixel": 1}}}, "Each objective has: network"),
        ({"objectives": {"20x": {"threshold": 0}}}, "objective 20x: its threshold is 0"),
        ({"objectives": {"20x": {"pixel_size_um": 0}}}, "length above 0"),
        ({"objectives": {"20x": {}, "20X": {}}}, "twice"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused_by_name(tmp_path, changed, said):
    model = write_tiny_model(tmp_path / "tiny")
    with pytest.raises(LinceiError, match=said):
        TumorModel(with_settings(model, **changed))


def test_a_card_without_a_pixel_size_is_refused(tmp_path):
    model = write_tiny_model(tmp_path / "tiny")
    card = dataclasses.replace(model.card, pixel_size_um=None)
    with pytest.raises(LinceiError, match="at what pixel size"):
        TumorModel(Model(model.folder, card))


def test_each_objective_has_its_pixel_size_and_threshold(tmp_path):
    model = TumorModel(write_tiny_model(tmp_path / "tiny", threshold=0.6, objectives=TABLE))
    ten, twenty = model.for_objective("10x"), model.for_objective("20X")
    assert ten is not None
    assert twenty is not None
    assert (ten.pixel_size_um, ten.threshold) == (2.0, 0.4)
    assert (twenty.pixel_size_um, twenty.threshold) == (1.0, 0.6)  # the card's own, where the table has none
    assert model.for_objective("40x") is None
    assert model.objectives == ("10x", "20x")


def test_a_card_without_a_table_serves_every_objective(tmp_path):
    model = TumorModel(write_tiny_model(tmp_path / "tiny", pixel_size_um=0.8))
    choice = model.for_objective("2.5x")
    assert choice is not None
    assert (choice.model, choice.pixel_size_um, choice.threshold) == (model, 0.8, 0.5)


def test_another_network_serves_an_objective(tmp_path):
    write_tiny_model(tmp_path / "coarse", pixel_size_um=4.0, threshold=0.3)
    table = {"4x": {"network": "coarse"}, "20x": {}}
    model = TumorModel(write_tiny_model(tmp_path / "tiny", objectives=table))
    coarse = model.for_objective("4x")
    assert coarse is not None
    assert (coarse.model.name, coarse.pixel_size_um, coarse.threshold) == ("coarse", 4.0, 0.3)


def test_another_network_that_is_missing_or_of_another_kind_is_said(tmp_path):
    write_tiny_model(tmp_path / "counts", NUMBER)
    table = {"4x": {"network": "no-such-network"}, "10x": {"network": "counts"}}
    model = TumorModel(write_tiny_model(tmp_path / "tiny", objectives=table))
    with pytest.raises(LinceiError, match="'no-such-network' that its table"):
        model.for_objective("4x")
    with pytest.raises(LinceiError, match=f"gives a {NUMBER}, and this model a {PROBABILITY_MAP}"):
        model.for_objective("10x")


@pytest.mark.parametrize("wrong", ["20", "x", "twenty", "0x", "-4x"])
def test_what_is_no_objective_is_refused(wrong):
    with pytest.raises(LinceiError, match="such as 4x, 10x, 20x, 40x"):
        magnification(wrong)
