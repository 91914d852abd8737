"""Labels for which no open data were at hand, learned and predicted on simulated cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import insilico.training
from insilico import label
from insilico.options import TrainOptions
from insilico.training import TrainingPair, train
from lincei.metrics import pearson_r
from lincei.model import Model
from sample_data.cells import SimulatedField, simulate_cells

pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

SIZE_PX = 256
TYPES: dict[str, Any] = {"labels": ("nuclei", "spindle cells"), "modality": "DIC", "cells": 24}
DEATH: dict[str, Any] = {"labels": ("cell death",), "cells": 40, "dead_share": 0.4}
FRESH = (100, 101, 102)


def simulated(seed: int, sample: dict[str, Any]) -> SimulatedField:
    return simulate_cells(seed, size_px=SIZE_PX, planes=3, **sample)


def learned(folder: Path, sample: dict[str, Any], *, steps: int, rotate: bool) -> Model:
    """Train a tiny network for so many steps, on a busy machine too."""
    options = TrainOptions(
        max_minutes=30, start_from="scratch", width=8, scales=2, components=2, crop_px=64,
        learning_rate=1e-2, rotate=rotate,
    )  # fmt: skip
    fields = [simulated(seed, sample) for seed in range(8)]
    loop_settings = insilico.training.LoopSettings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            insilico.training,
            "LoopSettings",
            lambda *a, **k: replace(loop_settings(*a, **k), max_steps=steps),
        )
        return train([TrainingPair(field.stack, field.labels) for field in fields], folder, options)


def predicted(model: Model, field: SimulatedField) -> dict[str, NDArray[np.float32]]:
    mean = label(field.stack, model, statistics=("mean",))["mean"]
    return dict(zip(mean.channel_names, mean.read()[0, :, 0], strict=True))


def correlations(model: Model, sample: dict[str, Any], name: str) -> list[float]:
    """Return r on fields not trained on."""
    fields = [simulated(seed, sample) for seed in FRESH]
    return [
        float(pearson_r(predicted(model, each)[name], each.labels[name].read()[0, 0, 0])) for each in fields
    ]


def brightness(pixels: NDArray[Any], field: SimulatedField, kind: str) -> list[float]:
    """Return the highest value within 5 px of each thing of a kind that has no neighbor."""
    found, things = [], field.things[0]
    for thing in things:
        row, column = round(thing.row), round(thing.column)
        near = [t for t in things if abs(t.row - thing.row) < 20 and abs(t.column - thing.column) < 20]
        inside = min(row, column) >= 8 and max(row, column) < SIZE_PX - 8
        if thing.kind == kind and len(near) == 1 and inside:
            found.append(float(pixels[row - 5 : row + 6, column - 5 : column + 6].max()))
    return found


@pytest.fixture(scope="module")
def of_types(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Not turned round while training: the shadows of DIC keep their side."""
    return learned(tmp_path_factory.mktemp("models") / "types", TYPES, steps=900, rotate=False)


@pytest.fixture(scope="module")
def of_death(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return learned(tmp_path_factory.mktemp("models") / "death", DEATH, steps=1000, rotate=True)


def test_nuclei_are_found_in_dic(of_types: Model):
    assert of_types.card.modality == "DIC"
    assert min(correlations(of_types, TYPES, "nuclei")) > 0.6


def test_a_label_that_means_a_cell_type_lights_up_that_type_only(of_types: Model):
    assert np.mean(correlations(of_types, TYPES, "spindle cells")) > 0.4
    lit: dict[str, list[float]] = {"spindle cell": [], "spread cell": []}
    for seed in FRESH:
        field = simulated(seed, TYPES)
        pixels = predicted(of_types, field)["spindle cells"]
        for kind, values in lit.items():
            values += brightness(pixels, field, kind)
    assert min(len(values) for values in lit.values()) >= 5
    assert np.median(lit["spindle cell"]) > 1.4 * np.median(lit["spread cell"])


def test_the_dead_light_up_and_debris_does_not(of_death: Model):
    assert np.mean(correlations(of_death, DEATH, "cell death")) > 0.5
    lit: dict[str, list[float]] = {"dead cell": [], "spread cell": [], "debris": []}
    for seed in FRESH:
        field = simulated(seed, DEATH)
        pixels = predicted(of_death, field)["cell death"]
        for kind, values in lit.items():
            values += brightness(pixels, field, kind)
    assert min(len(values) for values in lit.values()) >= 5
    assert np.median(lit["dead cell"]) > 2 * np.median(lit["spread cell"])
    assert np.median(lit["dead cell"]) > 1.3 * np.median(lit["debris"])
