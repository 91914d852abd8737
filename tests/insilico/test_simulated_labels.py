"""Labels for which no open data were at hand, learned and predicted on simulated cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from insilico import label
from insilico.options import TrainOptions
from insilico.training import TrainingPair, train
from lincei.metrics import pearson_r
from lincei.model import Model
from sample_data.cells import SimulatedField, simulate_cells

pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

QUICK = TrainOptions(
    max_minutes=0.5, start_from="scratch", width=16, scales=3, components=2, crop_px=96, learning_rate=3e-3
)
SIZES: dict[str, Any] = {"size_px": 256, "planes": 3}


def learned(folder: Any, labels: tuple[str, ...], options: TrainOptions = QUICK, **sample: Any) -> Model:
    fields = [simulate_cells(seed, labels=labels, **SIZES, **sample) for seed in range(8)]
    return train([TrainingPair(field.stack, field.labels) for field in fields], folder, options)


def predicted(model: Model, field: SimulatedField) -> dict[str, NDArray[np.float32]]:
    mean = label(field.stack, model, statistics=("mean",))["mean"]
    return dict(zip(mean.channel_names, mean.read()[0, :, 0], strict=True))


def at(pixels: NDArray[np.float32], field: SimulatedField, kind: str) -> list[float]:
    """Return the highest value within 5 px of each thing of a kind whose neighbors are not near."""
    things, found = field.things[0], []
    for thing in things:
        row, column = round(thing.row), round(thing.column)
        near = [t for t in things if abs(t.row - thing.row) < 20 and abs(t.column - thing.column) < 20]
        if thing.kind == kind and len(near) == 1 and 8 <= min(row, column) and max(row, column) < 248:
            found.append(float(pixels[row - 5 : row + 6, column - 5 : column + 6].max()))
    return found


@pytest.fixture(scope="module")
def from_dic(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Learned nuclei and one of two cell types; shadows keep their side, so that crops are not turned round."""
    options = QUICK.with_(rotate=False) if hasattr(QUICK, "with_") else QUICK
    folder = tmp_path_factory.mktemp("models") / "dic"
    return learned(folder, ("nuclei", "spindle cells"), options, modality="DIC", cells=24)


@pytest.fixture(scope="module")
def of_death(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models") / "death"
    return learned(folder, ("cell death",), cells=40, dead_share=0.4)


DIC = {"modality": "DIC", "labels": ("nuclei", "spindle cells"), "cells": 24}
DEATH = {"labels": ("cell death",), "cells": 40, "dead_share": 0.4}


def test_a():
    pass
