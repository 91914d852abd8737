"""The focus network: blind to gain and offset, calm on empty patches, and the same in every form."""

from __future__ import annotations

import numpy as np
import pytest

from focusqc.network import FocusNetworkConfig, build_network, build_trainer
from lincei.errors import LinceiError

pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = FocusNetworkConfig(width=4)


def patches(seed=0, count=5):
    return np.random.default_rng(seed).normal(1000, 50, (count, 84, 84, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    import keras

    keras.utils.set_random_seed(3)
    return build_network(SMALL.to_json())


def answers(network, x):
    return np.asarray(network.predict_on_batch(x))


def test_it_gives_probabilities_of_eleven_levels(network):
    p = answers(network, patches())
    assert p.shape == (5, 11)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)


def test_gain_and_offset_of_the_camera_do_not_matter(network):
    x = patches()
    np.testing.assert_allclose(answers(network, x), answers(network, 7 * x + 300), atol=1e-5)


def test_a_constant_patch_is_rated_alike_whatever_its_gray_value(network):
    """Up to the rounding of its mean; `focusqc.focus` takes a pixel off before, which leaves none."""
    dark, gray, bright = (np.full((1, 84, 84, 1), value, np.float32) for value in (0, 100, 65535))
    p = answers(network, dark)
    np.testing.assert_allclose(p, answers(network, gray), atol=1e-3)
    np.testing.assert_allclose(p, answers(network, bright), atol=0.05)


def test_recalibration_sharpens_or_softens_without_changing_the_order(network):
    soft = build_network({**SMALL.to_json(), "sharpening": 0.5})
    soft.set_weights(network.get_weights())
    x = patches()
    p, q = answers(network, x), answers(soft, x)
    np.testing.assert_array_equal(p.argmax(axis=1), q.argmax(axis=1))
    assert (q.max(axis=1) < p.max(axis=1)).all()
    np.testing.assert_allclose(q, np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True), rtol=1e-4)


def test_what_is_trained_fits_what_serves(network):
    trainer = build_trainer(SMALL)
    trainer.set_weights(network.get_weights())
    logits = np.asarray(trainer(patches(), training=False))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        powers / powers.sum(axis=1, keepdims=True), answers(network, patches()), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"width": 16},
        {"width": 1000, "dropout": 0.1, "sharpening": 1.0},
        {"width": 16, "dropout": 2, "sharpening": 1.0},
        {"width": 16, "dropout": 0.1, "sharpening": 0},
        {"width": "16", "dropout": 0.1, "sharpening": 1.0},
        {"width": 16, "dropout": 0.1, "sharpening": 1.0, "other": 1},
    ],
)
def test_a_configuration_that_is_not_its_own_is_refused(config):
    with pytest.raises(LinceiError, match="configuration"):
        build_network(config)
