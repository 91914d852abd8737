"""Models for the tests of the core: a convolution in plain ONNX, and a small Keras network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.model import Card, Label, Model, Tensor, write_model

TOY_TOOL = "toy_microscope_tool"
TOY_NETWORK = """
NETWORK_BUILDERS = ("build_network",)


def build_network(config):
    import keras

    layers = keras.layers
    stack = layers.Input((None, None, config["planes"]))
    x = layers.Conv2D(config["width"], 4, strides=2, padding="same", activation="relu")(stack)
    x = layers.Conv2D(config["width"], 3, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(4, 2, strides=2)(x)
    mean = layers.Conv2D(2, 1)(x)
    sd = layers.Conv2D(2, 1, activation="softplus")(x)
    parameters = layers.Conv2D(6, 1)(x)
    return keras.Model(stack, {"mean": mean, "sd": sd, "parameters": parameters})


def undeclared(config):
    raise AssertionError("this must never run")
"""


def card(**changes: Any) -> Card:
    """Return the card of a network with three planes, two labels and stride 4."""
    fields: dict[str, Any] = {
        "name": "toy-cells",
        "task": "label",
        "description": "Predicts two stains of toy cells.",
        "modality": "phase contrast",
        "input": Tensor("stack", ("z0", "z1", "z2")),
        "outputs": (
            Tensor("mean", ("DAPI", "MAP2"), "expected value"),
            Tensor("sd", ("DAPI", "MAP2")),
            Tensor("parameters", tuple("abcdef")),
        ),
        "total_stride": 4,
        "halo_px": 6,
        "labels": (Label("DAPI", "#0000FF", 1.0, 99.9), Label("MAP2", "#00FF00", 1.0, 99.9)),
        "z_planes": 3,
        "z_step_um": 0.5,
        "pixel_size_um": 0.25,
        "distribution": {"kind": "logistic mixture", "components": 3},
        "training": {"command": "lincei train ...", "data": "simulated"},
        "figures": {"pearson_r": {"DAPI": 0.81}, "note": "measured on one strip"},
        "citations": (("Christiansen et al., Cell 173:792 (2018)", "10.1016/j.cell.2018.03.040"),),
    }
    return Card(**{**fields, **changes})


def convolution_onnx(
    *,
    planes: int = 3,
    output_channels: tuple[int, ...] = (2, 2, 6),
    names: tuple[str, ...] = ("mean", "sd", "parameters"),
    seed: int = 1,
) -> bytes:
    """Return an ONNX network with one 3 x 3 convolution per output, seeded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    nodes, weights, outputs = [], [], []
    for name, channels in zip(names, output_channels, strict=True):
        kernel = rng.normal(size=(channels, planes, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel_{name}"))
        nodes.append(helper.make_node("Conv", ["stack", f"kernel_{name}"], [name], pads=[1, 1, 1, 1]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "y", "x"]))
    stack = helper.make_tensor_value_info("stack", TensorProto.FLOAT, ["n", planes, "y", "x"])
    graph = helper.make_graph(nodes, "toy", [stack], outputs, weights)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(network)
    content: bytes = network.SerializeToString()
    return content


def run_onnx(content: bytes, stack: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run a network with ONNX's own reference implementation, independent of our engines."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    network = onnx.load_model_from_string(content)
    names = [value.name for value in network.graph.output]
    return dict(zip(names, ReferenceEvaluator(network).run(None, {"stack": stack}), strict=True))


def noise(height: int = 16, width: int = 24, planes: int = 3, batch: int = 1) -> NDArray[np.float32]:
    """Return seeded noise of shape (batch, planes, height, width)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, planes, height, width)).astype(np.float32)


def write_toy(folder: Path, **changes: Any) -> Model:
    """Write the convolution as a model with a test."""
    content = convolution_onnx()
    return write_model(
        folder, card(**changes), onnx=content, test_input=noise(), test_outputs=run_onnx(content, noise())
    )


@dataclass(frozen=True)
class KerasFiles:
    """What a training leaves: exported network, weights, configuration, test."""

    onnx: bytes
    weights: Path
    keras: Path
    network: dict[str, Any]
    stack: NDArray[np.float32]
    outputs: dict[str, NDArray[np.float32]]
