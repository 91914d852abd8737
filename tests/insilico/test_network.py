"""The labeling network: what it sees, what it answers, what it learns from."""

from __future__ import annotations

import numpy as np
import pytest

from insilico.distribution import LogisticMixture

keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")
from insilico.network import (  # noqa: E402 - needs Keras
    NetworkConfig,
    build_network,
    build_trunk,
    mixture_nll,
    serving_network,
)

SMALL = NetworkConfig(labels=2, planes=3, width=8, scales=3, components=2, spread=(1.0, 1.5))


@pytest.fixture(scope="module")
def trunk():
    keras.utils.set_random_seed(3)
    network = build_trunk(SMALL)
    # Untrained biases and statistics are 0 and 1 and would hide mistakes.
    random = np.random.default_rng(0)
    network.set_weights(
        [w + 0.1 * random.normal(size=w.shape).astype(w.dtype) ** 2 for w in network.get_weights()]
    )
    return network


def predicted(network, stack):
    return {name: np.asarray(value) for name, value in network.predict_on_batch(stack).items()}


@pytest.mark.parametrize("scales", [2, 3, 4])
def test_no_pixel_reaches_further_than_the_network_says(scales):
    config = NetworkConfig(labels=1, planes=1, width=8, scales=scales)
    network = build_trunk(config)
    reach, size = config.reach_px, 2 * config.halo_px + 4 * config.total_stride
    random = np.random.default_rng(1)
    stack = random.normal(size=(1, size, size, 1)).astype(np.float32)
    farthest = 0
    for shift in (0, config.total_stride // 2 - 1, config.total_stride - 1):
        changed = stack.copy()
        place = size // 2 + shift
        changed[0, place, place, 0] += 10
        difference = np.abs(predicted(network, changed)["mean"] - predicted(network, stack)["mean"])[
            0, ..., 0
        ]
        rows, columns = np.nonzero(difference)
        distance = max(np.abs(rows - place).max(), np.abs(columns - place).max())
        farthest = max(farthest, int(distance))
        assert distance <= reach
    assert farthest > reach / 3  # the halo is not padded out of caution alone


def test_a_shift_by_the_stride_shifts_the_answer(trunk):
    stride, halo = SMALL.total_stride, SMALL.halo_px
    stack = np.random.default_rng(2).normal(size=(1, 2 * halo + 64, 2 * halo + 64, 3)).astype(np.float32)
    whole = predicted(trunk, stack)["mean"][0]
    shifted = predicted(trunk, stack[:, stride:, stride:])["mean"][0]
    inside = np.s_[halo : halo + 40, halo : halo + 40]
    np.testing.assert_allclose(shifted[inside], whole[stride:, stride:][inside], atol=1e-5)


def test_mean_and_sd_are_those_of_the_parameters(trunk):
    network = serving_network(trunk, SMALL)
    stack = np.random.default_rng(4).normal(size=(1, 48, 32, 3)).astype(np.float32)
    outputs = predicted(network, stack)
    assert outputs["mean"].shape == outputs["sd"].shape == (1, 48, 32, 2)
    assert outputs["parameters"].shape == (1, 48, 32, 2 * 3 * 2)
    mixtures = LogisticMixture.from_parameters(np.moveaxis(outputs["parameters"][0], -1, 0), labels=2)
    for i, mixture in enumerate(mixtures):
        np.testing.assert_allclose(mixture.weights.sum(axis=0), 1, atol=1e-5)
        assert (mixture.scales > 0).all()
        np.testing.assert_allclose(mixture.mean, outputs["mean"][0, ..., i], atol=1e-4)
        np.testing.assert_allclose(mixture.sd, outputs["sd"][0, ..., i], rtol=1e-3, atol=1e-5)


def test_spread_widens_one_label_and_moves_no_mean(trunk):
    stack = np.random.default_rng(5).normal(size=(1, 32, 32, 3)).astype(np.float32)
    plain = NetworkConfig(**{**SMALL.to_json(), "spread": (1.0, 1.0)})
    before, after = (predicted(serving_network(trunk, c), stack) for c in (plain, SMALL))
    np.testing.assert_allclose(after["mean"], before["mean"], atol=1e-6)
    np.testing.assert_allclose(after["sd"][..., 0], before["sd"][..., 0], rtol=1e-5)
    np.testing.assert_allclose(after["sd"][..., 1], 1.5 * before["sd"][..., 1], rtol=1e-5)


def test_a_network_is_rebuilt_from_its_configuration(trunk, tmp_path):
    network = serving_network(trunk, SMALL)
    network.save_weights(tmp_path / "a.weights.h5")
    again = build_network(SMALL.to_json())
    again.load_weights(tmp_path / "a.weights.h5")
    stack = np.random.default_rng(6).normal(size=(1, 32, 32, 3)).astype(np.float32)
    for name, value in predicted(network, stack).items():
        np.testing.assert_array_equal(predicted(again, stack)[name], value)


def test_likelihood_is_that_of_the_mixture():
    components, labels = 3, 2
    random = np.random.default_rng(7)
    shape = random.normal(size=(1, 4, 5, labels * 3 * components)).astype(np.float32)
    residual = random.normal(scale=0.3, size=(1, 4, 5, labels)).astype(np.float32)
    nll = np.asarray(
        mixture_nll(keras.ops.convert_to_tensor(residual), keras.ops.convert_to_tensor(shape), components)
    )
    parts = shape.astype(float).reshape(1, 4, 5, labels, 3, components)
    weights = np.exp(parts[..., 0, :])
    weights /= weights.sum(axis=-1, keepdims=True)
    offsets = parts[..., 1, :] - np.sum(weights * parts[..., 1, :], axis=-1, keepdims=True)
    mixture = LogisticMixture(
        *(np.moveaxis(p, -1, 0) for p in (weights, offsets, np.exp(np.clip(parts[..., 2, :], -4.5, 2))))
    )
    half = 0.5 / 255
    probability = mixture.cdf(residual + half) - mixture.cdf(residual - half)
    np.testing.assert_allclose(nll, -np.log(probability * 255), rtol=2e-3, atol=2e-3)


def test_a_wrong_number_of_spread_factors_is_refused():
    with pytest.raises(ValueError, match="2 spread factors for 3 labels"):
        NetworkConfig(labels=3, spread=(1.0, 1.0))
