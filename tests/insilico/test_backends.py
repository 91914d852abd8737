"""Training without TensorFlow: JAX and PyTorch train, and TensorFlow finishes the model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from lincei.model import Model

# In a process of its own: Keras takes one back end per process.
SCRIPT = """
import sys, warnings
from insilico import TrainOptions, TrainingPair, train
from sample_data.cells import simulate_cells

fields = [simulate_cells(seed, size_px=96, planes=3, cells=6) for seed in range(3)]
pairs = [TrainingPair(field.stack, {"nuclei": field.labels["nuclei"]}) for field in fields]
options = TrainOptions(max_minutes=0.2, start_from="scratch", width=8, scales=2, components=2, crop_px=32)
model = train(pairs, sys.argv[1], options)
print(model.card.training["backend"], model.card.finished, model.card.training["steps"])
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_model_trained_elsewhere_is_finished_by_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed, training on it is not tested: pip install {backend}")
    folder = tmp_path / f"on_{backend}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    name, finished, steps = done.stdout.split()[-3:]
    assert (name, finished) == (backend, "False")
    assert int(steps) >= 1
    from lincei.model_check import check_on_all_engines
    from lincei.model_exchange import finish_model

    assert not Model.from_folder(folder).card.finished
    model = finish_model(folder)
    assert model.card.finished
    for engine, report in check_on_all_engines(model).items():
        assert report.passed, f"{engine}: {report.describe()}"
