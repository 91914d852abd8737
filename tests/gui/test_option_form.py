"""Controls made from options: every field of every tool, there and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from qtpy.QtWidgets import QFormLayout, QWidget

from arm_overlay.options import LiveOptions, TumorOptions
from arm_overlay.train_options import TrainTumorOptions
from focusqc.options import FocusOptions, TrainFocusOptions
from insilico.options import EvaluateOptions, LabelOptions, TrainOptions
from lincei.errors import UsageError
from napari_plugin.option_form import OptionForm

ALL = (
    LabelOptions,
    TrainOptions,
    EvaluateOptions,
    FocusOptions,
    TrainFocusOptions,
    TumorOptions,
    LiveOptions,
    TrainTumorOptions,
)
# Values that differ from the defaults, where one made from the type would not be allowed.
OTHER: dict[str, Any] = {
    "engine": "onnxruntime",
    "tile_count": (4, 3),
    "background_percentile": 2.0,
    "bright_percentile": 98.0,
    "crop_px": 256,
    "statistics": ("median", "q05"),
    "labels": ("DAPI", "MAP2"),
    "channel": ("DAPI",),
}


@pytest.fixture
def holder(qt_application: Any) -> QWidget:
    return QWidget()


def form_of(options_class: Any, holder: QWidget) -> OptionForm[Any]:
    layout = QFormLayout(holder)
    return OptionForm(options_class, layout, [field.name for field in dataclasses.fields(options_class)])


@pytest.mark.parametrize("options_class", ALL)
def test_every_field_shows_its_default_and_gives_it_back(holder, options_class):
    form = form_of(options_class, holder)
    assert list(form.widgets) == [field.name for field in dataclasses.fields(options_class)]
    assert form.options() == options_class()


@pytest.mark.parametrize("options_class", ALL)
def test_every_control_has_the_options_help_as_its_tooltip(holder, options_class):
    form = form_of(options_class, holder)
    for field in dataclasses.fields(options_class):
        assert form.widgets[field.name].tooltip == field.metadata["help"]
        assert form.rows[field.name].toolTip() == field.metadata["help"]
        if unit := field.metadata["unit"]:
            assert f"({unit})" in form.rows[field.name].text()


def another(field: dataclasses.Field[Any], hint: str) -> Any:
    """A value that is allowed and not the default."""
    metadata, default = field.metadata, field.default
    if field.name in OTHER and ("tuple" in hint) == isinstance(OTHER[field.name], tuple):
        return OTHER[field.name]
    choices = [choice for choice in metadata["choices"] if choice != default]
    if choices:
        return (choices[0],) if "tuple" in hint else choices[0]
    if "bool" in hint:
        return not default
    if "float" in hint and "tuple" not in hint:
        low = metadata["minimum"] if metadata["minimum"] is not None else (metadata["above"] or 0)
        high = metadata["maximum"] if metadata["maximum"] is not None else low + 100
        return round(low + 0.37 * (high - low), 3)
    if "int" in hint and "tuple" not in hint:
        return int(default) + 1
    return ("one", "two") if "tuple" in hint else "something else"


@pytest.mark.parametrize("options_class", ALL)
def test_values_that_are_set_come_back(holder, options_class):
    form = form_of(options_class, holder)
    for field in dataclasses.fields(options_class):
        value = another(field, str(field.type))
        form.set(field.name, value)
        assert (
            form.values()[field.name] == pytest.approx(value)
            if isinstance(value, float)
            else (form.values()[field.name] == value)
        ), field.name
        form.set(field.name, field.default)
        assert form.values()[field.name] == field.default, field.name


def test_advanced_fields_are_behind_more(holder):
    form = form_of(LabelOptions, holder)
    assert form.more is not None
    inside = form.more.content().findChildren(QWidget)
    assert form.widgets["threads"].native in inside
    assert form.widgets["pixel_size_um"].native not in inside


def test_a_number_that_is_left_out_says_so_and_others_are_options(holder):
    layout = QFormLayout(holder)
    form = OptionForm(
        LabelOptions, layout, ["pixel_size_um", "modality"], left_out={"pixel_size_um": "from the layer"}
    )
    assert form.widgets["pixel_size_um"].native.specialValueText() == "from the layer"
    assert form.widgets["pixel_size_um"].native.text() == "from the layer"
    assert form.options(labels=("DAPI",)) == LabelOptions(labels=("DAPI",))
    form.set("pixel_size_um", 0.325)
    form.set("modality", "DIC")
    assert form.options() == LabelOptions(pixel_size_um=0.325, modality="DIC")


def test_a_list_of_numbers_that_is_none_is_a_sentence(holder):
    form = form_of(FocusOptions, holder)
    form.set("tile_count", (4, 3))
    assert form.options().tile_count == (4, 3)
    form.widgets["tile_count"].value = "4, many"
    with pytest.raises(UsageError, match="'many' is not a number"):
        form.options()


def test_choices_that_the_options_do_not_know_are_offered(holder):
    layout = QFormLayout(holder)
    form = OptionForm(
        TumorOptions,
        layout,
        ["model"],
        labels={"model": "Model"},
        choices={"model": ("tumor-breast", "mine")},
    )
    assert form.rows["model"].text() == "Model"
    form.set("model", "mine")
    assert form.options() == TumorOptions(model="mine")
