"""The compressed scale of labels that span decades."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from insilico.label_curve import CURVES, curved, straightened
from insilico.options import TrainOptions
from insilico.pair_files import TrainingPair
from insilico.training import read_fields, train
from lincei.errors import UsageError
from sample_data.cells import simulate_cells


@pytest.mark.parametrize("curve", CURVES)
def test_zero_and_one_stay_where_they_are_and_the_way_back_is_exact(curve):
    values = np.linspace(-0.2, 1.5, 50).astype(np.float32)
    np.testing.assert_allclose(curved(np.array([0.0, 1.0], np.float32), curve), [0, 1], atol=1e-6)
    np.testing.assert_allclose(straightened(curved(values, curve), curve), values, atol=1e-5)


def test_dim_values_count_more_and_order_stays():
    dim, bright = curved(np.array([0.05, 0.5], np.float32), "asinh")
    assert 0.3 < dim < bright < 1


def test_training_takes_the_stain_on_its_curve():
    field = simulate_cells(3, size_px=96, planes=1)
    pair = TrainingPair(field.stack, {"nuclei": field.labels["nuclei"]})
    options = TrainOptions(start_from="scratch")
    (plain,) = read_fields([pair], ["nuclei"], 1, None, None, options)
    (bent,) = read_fields([replace(pair, label_curve="asinh")], ["nuclei"], 1, None, None, options)
    np.testing.assert_allclose(straightened(bent.truth, "asinh"), plain.truth, atol=1e-4)


def test_one_label_has_one_curve(tmp_path):
    pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")
    fields = [simulate_cells(seed, size_px=96, planes=1) for seed in range(3)]
    pairs = [TrainingPair(f.stack, {"nuclei": f.labels["nuclei"]}) for f in fields]
    pairs[1] = replace(pairs[1], label_curve="asinh")
    with pytest.raises(UsageError, match="a scale of two curves, linear and asinh"):
        train(pairs, tmp_path / "m", start_from="scratch", width=8, scales=2, crop_px=32, max_minutes=0.01)
